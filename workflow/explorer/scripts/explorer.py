#!/usr/bin/env python
"""Make a page to look at an atlas in a browser: one file, no server, no network."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from utils import cli
from utils.log import say


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Make one HTML file with the cells, clusters and metadata of an atlas, to look at.",
        inputs="Atlas (.zarr or .h5ad): a layout, cluster columns, metadata",
        output="Output page (.html)",
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        default=[],
        metavar="FILE",
        help="Atlases of the same cells by other methods, to look at side by side",
    )
    parser.add_argument(
        "--names",
        nargs="+",
        metavar="NAME",
        help="A name for each atlas (default: that of its folder)",
    )
    parser.add_argument(
        "--colors", nargs="+", default=[], metavar="COLUMN", help="obs columns to list first"
    )
    parser.add_argument(
        "--batch", nargs="+", default=[], metavar="COLUMN", help="obs columns that name the batch"
    )
    parser.add_argument(
        "--markers", nargs="+", default=[], metavar="TSV", help="Marker genes, a table per atlas"
    )
    parser.add_argument(
        "--splits",
        nargs="+",
        default=[],
        metavar="TSV",
        help="Evidence for each split, a table per atlas",
    )
    parser.add_argument(
        "--warnings", metavar="TSV", help="Warnings to list, as comparison.py writes them"
    )
    parser.add_argument(
        "--basis", default="X_umap", help="obsm key of the layout (default: %(default)s)"
    )
    parser.add_argument("--title", help="Name of the data set (default: that of its folder)")
    parser.add_argument("--seed", type=int, default=0, help="Of the sample of a large atlas")
    return parser


def check_arguments(args, names, files):
    """Refuse lists of another length than that of the atlases, and an output that is no page."""
    for option, values in (("names", names), ("markers", args.markers), ("splits", args.splits)):
        if values and len(values) != len(files):
            raise ValueError(f"--{option} has {len(values)} entries for {len(files)} atlases")
    if Path(args.output_file).suffix != ".html":
        raise ValueError(f"{args.output_file}: the output must end in .html")


def main(args):
    """Read the atlases, write the page."""
    from evaluation.stores import read_table
    from explorer.page import explorer_page
    from explorer.stores import check_same_cells, read_method
    from utils.atomic import atomic_file
    from utils.io import keys, open_store, read_element

    files = [Path(file) for file in (args.input_file, *args.compare)]
    names = args.names or [file.resolve().parent.name for file in files]
    check_arguments(args, names, files)
    roots = [open_store(file) for file in files]
    check_same_cells(files, roots)
    none = [None] * len(files)
    markers = [read_table(file) for file in args.markers] or none
    splits = [read_table(file) for file in args.splits] or none
    methods = [
        read_method(root, name=name, basis=args.basis, markers=markers[i], splits=splits[i])
        for i, (root, name) in enumerate(zip(roots, names, strict=True))
    ]
    clusters = {name for method in methods for name in method.clusters}
    metadata = {
        name: read_element(roots[0], f"obs/{name}")
        for name in dict.fromkeys([*args.colors, *args.batch, *keys(roots[0], "obs")])
        if name not in clusters
    }
    page = explorer_page(
        methods,
        metadata,
        title=args.title or files[0].resolve().parent.parent.name,
        batch=args.batch,
        first=[name for name in args.colors if name in metadata],
        warnings=read_table(args.warnings) if args.warnings else None,
        seed=args.seed,
    )
    with atomic_file(args.output_file) as out:
        out.write_text(page.html, encoding="utf-8")
    n_cells = len(methods[0].layout)
    drawn = "" if len(page.rows) == n_cells else f", {len(page.rows):,} of them drawn"
    count = f"{len(methods)} method{'s' * (len(methods) > 1)}"
    size = f"{len(page.html) / 1e6:.1f} MB"
    say(f"{args.output_file}: {n_cells:,} cells{drawn}, {count}, {size}")


if __name__ == "__main__":
    cli.run(main, make_parser())
