#!/usr/bin/env python
"""Score an embedding and its clusters: how well batches are mixed and cell types kept."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from clustering.options import NeighborsKeyOptions
from evaluation.options import MetricsOptions
from utils import cli
from utils.log import say
from utils.option_values import read_options
from utils.options import add_options


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Score an embedding, its neighbor graph and its clusters.", output="Output table (.tsv)"
    )
    parser.add_argument(
        "--batch", nargs="+", default=[], metavar="COLUMN", help="obs columns that name the batch"
    )
    parser.add_argument(
        "--clusters",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="cluster columns, or patterns such as 'leiden_0.5_*', to compare with --label",
    )
    parser.add_argument(
        "--use_rep", metavar="KEY", help="obsm key to score (default: that of the neighbors)"
    )
    parser.add_argument(
        "--uncorrected", metavar="KEY", help="obsm key of what it was made from, to compare with"
    )
    add_options(parser, NeighborsKeyOptions)
    add_options(parser, MetricsOptions)
    cli.add_run_options(parser, threads=False)
    return parser


def main(args):
    """Read graph, embedding and labels; score; write the table."""
    from clustering.stores import read_graph, read_representation
    from evaluation.scores.metrics import method_metrics
    from evaluation.stores import read_clusterings, read_codes, read_neighborhoods
    from utils.atomic import atomic_file
    from utils.elements import read_embedding
    from utils.io import open_store

    options = read_options(MetricsOptions, args)
    if not args.batch and not options.label:
        raise ValueError("nothing to score by: name --batch, --label or both")
    root = open_store(args.input_file)
    key, embedding = read_representation(root, args.use_rep, args.neighbors_key)
    clusters = read_clusterings(root, args.clusters)
    table = method_metrics(
        embedding=embedding,
        near=read_neighborhoods(root, args.neighbors_key, embedding),
        connectivities=read_graph(root, args.neighbors_key),
        uncorrected=read_embedding(root, args.uncorrected) if args.uncorrected else None,
        batches=[read_codes(root, column) for column in args.batch],
        label=read_codes(root, options.label) if options.label else None,
        clusters={name: column.codes for name, column in clusters.items()},
        perplexity=options.perplexity,
        seed=args.seed,
    )
    with atomic_file(args.output_file) as path:
        table.to_csv(path, sep="\t", index=False, float_format="%.6g")
    say(f"{args.output_file}: {table['metric'].nunique()} metrics of {key}")


if __name__ == "__main__":
    cli.run(main, make_parser())
