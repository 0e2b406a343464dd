#!/usr/bin/env python
"""Collect the evidence for and against every split of a cluster."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from functools import cache

from clustering.options import SIGNIFICANCE, NeighborsKeyOptions
from preprocessing.options import PCAOptions, ValuesOptions
from utils import cli
from utils.log import say
from utils.option_values import read_mapping, read_options
from utils.options import add_options, as_arguments


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Collect the evidence for and against every split of a cluster.",
        output="Output table (.tsv)",
    )
    cli.add_clusters(parser)
    parser.add_argument(
        "--batch",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="obs columns that name the batch; the first one's mixing is written",
    )
    parser.add_argument("--use_rep", metavar="KEY", help="obsm key (default: of the neighbors)")
    add_options(parser, NeighborsKeyOptions)
    parser.add_argument("--robustness", metavar="TSV", help="Table of robustness.py")
    parser.add_argument(
        "--significance",
        type=float,
        default=SIGNIFICANCE,
        help="Family-wise error rate of the splits of a column that was clustered without a test: "
        "they are tested now, and nothing is joined (default: %(default)s)",
    )
    parser.add_argument("--layer", help="The layer with the counts, or raw (default: X)")
    add_options(parser, ValuesOptions)
    parser.add_argument(
        "--pca_args",
        type=cli.json_option,
        default={},
        metavar="JSON",
        help="Parameters of the PCA, as in the config, of which hvg is used",
    )
    cli.add_run_options(parser)
    return parser


def main(args):
    """Read labels, records and tables, test what was not tested, write the splits."""
    from clustering.stores import read_representation
    from evaluation.clusters.splits import split_table
    from evaluation.stores import (
        read_clusterings,
        read_codes,
        read_parents,
        read_splits,
        read_table,
    )
    from utils.atomic import atomic_file
    from utils.io import open_store

    if not 0 < args.significance < 1:
        raise ValueError(f"--significance must be between 0 and 1, found {args.significance}")
    root = open_store(args.input_file)
    columns = read_clusterings(root, args.clusters)
    parents = read_parents(root, columns)
    batch = read_codes(root, args.batch[0]) if args.batch else None
    representation = read_representation(root, args.use_rep, args.neighbors_key)[1]
    splits = read_splits(
        root,
        columns,
        parents,
        neighbors_key=args.neighbors_key,
        representation=representation,
        read_test=cache(lambda: read_test(args, root, representation)),
        seed=args.seed,
    )
    table = split_table(
        list(columns.values()),
        splits,
        parents=parents,
        batch=batch,
        robustness=read_table(args.robustness) if args.robustness else None,
    )
    with atomic_file(args.output_file) as path:
        table.to_csv(path, sep="\t", index=False, float_format="%.4g")
    count = table["suggestion"].value_counts().to_dict()
    words = [f"{n} to {what}" for what, n in count.items()] or ["no suggestion"]
    say(f"{args.output_file}: {len(table)} splits, {', '.join(words)}")


def read_test(args, root, representation):
    """Find the counts; None, with a message, where there are none."""
    from clustering.counts import read_split_test
    from clustering.options import ALGORITHM, NeighborsOptions, SplitOptions
    from preprocessing.stores import has_x

    if args.layer is None and not has_x(root):
        say("there is no X: splits that were not tested by the clustering are not tested")
        return None
    try:
        return read_split_test(
            root,
            layer=args.layer,
            values=as_arguments(read_options(ValuesOptions, args)),
            batch=args.batch,
            batch_file=None,
            representation=representation,
            hvg=read_mapping(PCAOptions, args.pca_args, "--pca_args").hvg,
            needed_by="the test of splits",
            significance=args.significance,
            gradual=SplitOptions.gradual,
            algorithm=ALGORITHM,
            n_neighbors=NeighborsOptions.n_neighbors,
            seed=args.seed,
            threads=args.threads,
        )
    except ValueError as error:
        say(f"splits that were not tested by the clustering are not tested: {error}")
        return None


if __name__ == "__main__":
    cli.run(main, make_parser())
