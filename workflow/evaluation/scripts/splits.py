#!/usr/bin/env python
"""Collect the evidence for and against every split of a cluster."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from clustering.options import NeighborsKeyOptions
from utils import cli
from utils.log import say
from utils.options import add_options


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Collect the evidence for and against every split of a cluster.",
        output="Output table (.tsv)",
    )
    parser.add_argument(
        "--clusters",
        nargs="+",
        required=True,
        metavar="COLUMN",
        help="cluster columns, or patterns such as 'leiden_0.5_*'",
    )
    parser.add_argument("--batch", metavar="COLUMN", help="obs column that names the batch")
    parser.add_argument("--use_rep", metavar="KEY", help="obsm key (default: of the neighbors)")
    add_options(parser, NeighborsKeyOptions)
    parser.add_argument("--markers", metavar="TSV", help="Table of markers.py")
    parser.add_argument("--robustness", metavar="TSV", help="Table of robustness.py")
    cli.add_run_options(parser, threads=False)
    return parser


def main(args):
    """Read the tables and labels, write the splits."""
    from clustering.stores import read_representation
    from evaluation.clusters.splits import split_table
    from evaluation.stores import read_clusterings, read_codes, read_parents, read_table
    from utils.atomic import atomic_file
    from utils.io import open_store

    root = open_store(args.input_file)
    columns = read_clusterings(root, args.clusters)
    table = split_table(
        list(columns.values()),
        read_representation(root, args.use_rep, args.neighbors_key)[1],
        parents=read_parents(root, columns),
        batch=read_codes(root, args.batch) if args.batch else None,
        markers=read_table(args.markers) if args.markers else None,
        robustness=read_table(args.robustness) if args.robustness else None,
        seed=args.seed,
    )
    with atomic_file(args.output_file) as path:
        table.to_csv(path, sep="\t", index=False, float_format="%.4g")
    count = table["suggestion"].value_counts().to_dict()
    words = [f"{n} to {what}" for what, n in count.items() if what]
    say(f"{args.output_file}: {', '.join(words)}")


if __name__ == "__main__":
    cli.run(main, make_parser())
