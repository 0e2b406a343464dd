#!/usr/bin/env python
"""Draw the topics of every cell: the structure plot of a topic model."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from utils import cli
from utils.log import say


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Draw the structure plot of a topic model: every cell a bar, cut into its topics.",
        output="Output figure (.png, .pdf or .svg)",
    )
    add = parser.add_argument
    add("--key", default="X_topics", help="obsm key of the weights (default: %(default)s)")
    add("--groups", metavar="COLUMN", help="obs column that groups the cells")
    add("--title", help="Title (default: number of topics, name of the groups)")
    return parser


def main(args):
    """Read the weights and groups, draw them."""
    from evaluation.figures.page import figure_format, save_figure
    from evaluation.figures.structure_plot import structure_plot
    from utils.elements import read_column, read_embedding
    from utils.io import open_store

    figure_format(args.output_file)
    root = open_store(args.input_file)
    weights = read_embedding(root, args.key)
    groups = read_column(root, args.groups) if args.groups else None
    title = f"{weights.shape[1]} topics" + (f" by {args.groups}" if args.groups else "")
    save_figure(structure_plot(weights, groups, title=args.title or title), args.output_file)
    say(f"{args.output_file}: {weights.shape[1]} topics of {len(weights):,} cells")


if __name__ == "__main__":
    cli.run(main, make_parser())
