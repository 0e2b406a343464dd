#!/usr/bin/env python
"""Measure how stable clusters are by clustering subsamples of the cells again."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

from clustering.options import NeighborsKeyOptions
from evaluation.options import RobustnessOptions
from utils import cli
from utils.log import progress, say
from utils.option_values import read_options
from utils.options import add_options


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Cluster parts of the cells again, as the atlas says that each column was made, and tell "
        "how well each cluster comes back.",
        output="Output table (.tsv)",
    )
    cli.add_clusters(parser)
    add_options(parser, NeighborsKeyOptions)
    add_options(parser, RobustnessOptions)
    parser.set_defaults(rounds=10)  # who calls it wants it; the config leaves it out
    cli.add_run_options(parser)
    return parser


def main(args):
    """Take each column in turn."""
    import numpy as np
    import pandas as pd

    from evaluation.clusters.robustness import as_table, robustness, unknown_robustness
    from evaluation.stores import read_clusterings, read_parents, read_reclustering, siblings
    from utils.atomic import atomic_file
    from utils.io import open_store

    options = read_options(RobustnessOptions, args)
    if not options.rounds:
        raise ValueError("--rounds is 0: there is nothing to do")
    root = open_store(args.input_file)
    columns = read_clusterings(root, args.clusters)
    parents = read_parents(root, columns)
    tables = []
    for name, column in progress(columns.items(), desc="robustness", total=len(columns)):
        recluster = read_reclustering(
            root, name, columns, neighbors_key=args.neighbors_key, threads=args.threads
        )
        scores = unknown_robustness(len(column.groups))
        if recluster is not None:
            scores = robustness(
                column.codes,
                recluster,
                segments=siblings(parents[name]),
                threads=args.threads,
                seed=args.seed,
                rounds=options.rounds,
                subsample=options.subsample,
            )
        sizes = np.bincount(column.codes[column.codes >= 0], minlength=len(column.groups))
        table = as_table(scores, column.groups, sizes)
        table.insert(0, "column", name)
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    with atomic_file(args.output_file) as path:
        table.to_csv(path, sep="\t", index=False, float_format="%.4g")
    say(
        f"{args.output_file}: {len(columns)} clusterings, {options.rounds} rounds with "
        f"{options.subsample:.0%} of the cells"
    )


if __name__ == "__main__":
    cli.run(main, make_parser())
