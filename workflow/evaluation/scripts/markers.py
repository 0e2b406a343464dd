#!/usr/bin/env python
"""Find the genes that tell clusters apart."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from evaluation.options import MarkersOptions
from utils import cli
from utils.log import say
from utils.option_values import read_options
from utils.options import add_options


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Find marker genes: clusters of level 1 against all other cells, deeper ones against "
        "their siblings.",
        output="Output table (.tsv)",
    )
    cli.add_clusters(parser)
    add_options(parser, MarkersOptions)
    parser.set_defaults(n_markers=20)  # who calls it wants it; the config leaves it out
    cli.add_run_options(parser, seed=False)
    return parser


def main(args):
    """Read labels, turn the expression round, test, write the best genes."""
    import pandas as pd

    from evaluation.clusters.gene_file import GeneFile
    from evaluation.clusters.markers import MARKER_COLUMNS, Grouping, find_markers, marker_table
    from evaluation.stores import read_clusterings, read_expression, read_parents, siblings
    from preprocessing.stores import named_values
    from utils.atomic import atomic_file, scratch_file
    from utils.io import open_store, read_index

    options = read_options(MarkersOptions, args)
    if not options.n_markers:
        raise ValueError("--n_markers is 0: there is nothing to find")
    root = open_store(args.input_file)
    columns = read_clusterings(root, args.clusters)
    parents = read_parents(root, columns)
    groupings = [Grouping(c.codes, siblings(parents[name])) for name, c in columns.items()]
    matrix, normalize = read_expression(root, options.markers_layer, options.markers_values)
    table = pd.DataFrame(columns=["column", *MARKER_COLUMNS])
    if matrix is not None:
        with scratch_file(args.output_file) as file, named_values(matrix):
            values = GeneFile(file, matrix.values, normalize=normalize, threads=args.threads)
            markers = find_markers(
                values,
                groupings,
                n_markers=options.n_markers,
                tie_correct=options.tie_correct,
                threads=args.threads,
            )
        genes = read_index(root, matrix.var)
        tables = [
            marker_table(best, genes, column.groups).assign(column=name)
            for (name, column), best in zip(columns.items(), markers, strict=True)
        ]
        table = pd.concat(tables, ignore_index=True)[table.columns]
    with atomic_file(args.output_file) as path:
        table.to_csv(path, sep="\t", index=False, float_format="%.5g")
    say(f"{args.output_file}: {len(table):,} markers of {len(columns)} clusterings")


if __name__ == "__main__":
    cli.run(main, make_parser())
