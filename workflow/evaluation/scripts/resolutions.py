#!/usr/bin/env python
"""Compare the resolutions of level 1, and suggest one or none."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

from clustering.options import NeighborsKeyOptions
from evaluation.options import RobustnessOptions
from utils import cli
from utils.log import say
from utils.option_values import read_options
from utils.options import add_options


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Compare the clusterings of level 1 that differ in their resolution alone: how robust, "
        "separated and tested their clusters are. Suggest one or none.",
        output="Output table (.tsv)",
    )
    cli.add_clusters(parser)
    parser.add_argument("--robustness", metavar="TSV", required=True, help="Table of robustness.py")
    parser.add_argument(
        "--splits",
        metavar="TSV",
        help="Table of splits.py: splits that its test rejects count against a resolution",
    )
    add_options(parser, NeighborsKeyOptions)
    add_options(parser, RobustnessOptions)
    parser.set_defaults(rounds=10)  # who calls it wants it; the config leaves it out
    cli.add_run_options(parser)
    return parser


def main(args):
    """Read tables, search neighbors again, compare."""
    from clustering.cluster_names import families
    from evaluation.clusters.resolutions import resolution_table
    from evaluation.stores import read_clusterings, read_table
    from utils.atomic import atomic_file
    from utils.io import open_store

    options = read_options(RobustnessOptions, args)
    if not options.rounds:
        raise ValueError("--rounds is 0: there is nothing to do")
    root = open_store(args.input_file)
    columns = read_clusterings(root, args.clusters)
    compared_families = families(columns, fixed="level")
    table = resolution_table(
        read_table(args.robustness),
        compared_families,
        *score_resolutions(root, compared_families, columns, args, options),
        splits=read_table(args.splits) if args.splits else None,
    )
    with atomic_file(args.output_file) as path:
        table.to_csv(path, sep="\t", index=False, float_format="%.4g")
    for family, rows in table.groupby("family", sort=False):
        chosen = rows[rows["suggested"] == "yes"]
        row = (rows if chosen.empty else chosen).iloc[0]
        say(f"suggested of {family}: {'' if chosen.empty else f'{row.column}, '}{row.reason}")


def score_resolutions(root, compared_families, columns, args, options):
    """Compute how each column of the families fares on other neighbors, and how separated it is.

    Returns two dicts by column, empty where the embedding of the graph is not known.
    """
    from evaluation.clusters.resolutions import least_separation, reweighted_agreement
    from evaluation.stores import read_communities, read_neighbor_search

    names = [name for family in compared_families.values() for name in family]
    communities = {name: read_communities(root, name) for name in names}
    communities = {name: made for name, made in communities.items() if made}
    search = read_neighbor_search(root, args.neighbors_key) if communities else None
    if search is None:
        return {}, {}
    embedding, neighbors = search
    codes = {name: columns[name].codes for name in communities}
    reweighted = reweighted_agreement(
        codes,
        embedding,
        communities,
        **neighbors,
        rounds=options.rounds,
        subsample=options.subsample,
        threads=args.threads,
        seed=args.seed,
    )
    separation = {
        name: least_separation(labels, embedding, seed=args.seed) for name, labels in codes.items()
    }
    return reweighted, separation


if __name__ == "__main__":
    cli.run(main, make_parser())
