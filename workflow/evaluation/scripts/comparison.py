#!/usr/bin/env python
"""Draw the layouts of several methods side by side, in the same colours."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from utils import cli


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Draw the layouts of several stores side by side, one picture per column.",
        output="Output folder: {column}.png",
    )
    action = parser._actions[1]
    action.nargs, action.help = "+", "Stores of the same cells"
    parser.add_argument(
        "--names", nargs="+", required=True, metavar="NAME", help="A title for each store"
    )
    parser.add_argument(
        "--colors", nargs="+", required=True, metavar="COLUMN", help="obs columns to colour by"
    )
    parser.add_argument(
        "--basis", default="X_umap", help="obsm key of the layout (default: %(default)s)"
    )
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error")
    return parser


def main(args):
    """Draw each column."""
    from evaluation.plots import compare_embeddings, file_stem, save_figure
    from utils.atomic import atomic_folder
    from utils.io import obs_column, open_store, read_element

    if len(args.names) != len(args.input_file):
        raise ValueError(f"--names has {len(args.names)} titles for {len(args.input_file)} stores")
    roots = [open_store(file) for file in args.input_file]
    layouts = [read_element(root, f"obsm/{args.basis}") for root in roots]
    with atomic_folder(args.output_file) as folder:
        for name in cli.progress(args.colors, desc="plots"):
            columns = [obs_column(root, name) for root in roots]
            panels = list(zip(args.names, layouts, columns, strict=True))
            save_figure(compare_embeddings(panels, title=name), folder / f"{file_stem(name)}.png")
    cli.say(f"{args.output_file}: {len(args.colors)} pictures")


if __name__ == "__main__":
    cli.run(main, make_parser())
