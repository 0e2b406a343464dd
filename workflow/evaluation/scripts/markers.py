#!/usr/bin/env python
"""Find the genes that tell clusters apart."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from evaluation.options import MarkersOptions
from utils import cli
from utils.log import progress, say
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
    return parser


def main(args):
    """Read labels, stream the expression, test, write the best genes."""
    import pandas as pd

    from evaluation.clusters.markers import Grouping, gene_blocks, rank_sums, top_markers
    from evaluation.stores import read_clusterings, read_expression, read_parents, siblings
    from preprocessing.stores import named_values
    from utils.atomic import atomic_file
    from utils.io import open_store, read_index

    options = read_options(MarkersOptions, args)
    if not options.n_markers:
        raise ValueError("--n_markers is 0: there is nothing to find")
    root = open_store(args.input_file)
    columns = read_clusterings(root, args.clusters)
    parents = read_parents(root, columns)
    groupings = [Grouping(c.codes, siblings(parents[name])) for name, c in columns.items()]
    matrix, normalize = read_expression(root, options.markers_layer, options.markers_values)
    if matrix is None:
        genes, found = read_index(root, "var"), rank_sums(iter(()), groupings)
    else:
        genes = read_index(root, matrix.var)
        blocks = gene_blocks(matrix.values, normalize=normalize)
        with named_values(matrix):
            found = rank_sums(progress(blocks, desc="markers"), groupings)
    tables = [
        top_markers(sums, genes, column.groups, n_markers=options.n_markers).assign(column=name)
        for (name, column), sums in zip(columns.items(), found, strict=True)
    ]
    table = pd.concat(tables, ignore_index=True)
    table = table[["column", *table.columns[:-1]]]
    with atomic_file(args.output_file) as path:
        table.to_csv(path, sep="\t", index=False, float_format="%.5g")
    say(f"{args.output_file}: {len(table):,} markers of {len(columns)} clusterings")


if __name__ == "__main__":
    cli.run(main, make_parser())
