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
        "--colors", nargs="+", default=[], metavar="COLUMN", help="obs columns that stand first"
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
        help="How well the clusters stand, a table per atlas",
    )
    parser.add_argument(
        "--basis", default="X_umap", help="obsm key of the layout (default: %(default)s)"
    )
    parser.add_argument("--title", help="Name of the data set (default: that of its folder)")
    parser.add_argument("--seed", type=int, default=0, help="Of the sample of a large atlas")
    return parser


def main(args):
    """Read the atlases, write the page."""
    from explorer.page import explorer_page
    from utils.atomic import atomic_file
    from utils.io import keys, open_store, read_element

    files = [Path(file) for file in (args.input_file, *args.compare)]
    names = args.names or [file.resolve().parent.name for file in files]
    for option, values in (("names", names), ("markers", args.markers), ("splits", args.splits)):
        if values and len(values) != len(files):
            raise ValueError(f"--{option} has {len(values)} entries for {len(files)} atlases")
    roots = [open_store(file) for file in files]
    if Path(args.output_file).suffix != ".html":
        raise ValueError(f"{args.output_file}: the output must end in .html")
    for file, root in zip(files[1:], roots[1:], strict=True):
        check_same_cells(file, root, files[0], roots[0])
    tables = [[_table(file) for file in given] for given in (args.markers, args.splits)]
    methods = [
        read_method(name, root, args.basis, *(table[i] if table else None for table in tables))
        for i, (name, root) in enumerate(zip(names, roots, strict=True))
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
        seed=args.seed,
    )
    with atomic_file(args.output_file) as out:
        out.write_text(page.html, encoding="utf-8")
    n_cells = len(methods[0].layout)
    drawn = "" if len(page.rows) == n_cells else f", {len(page.rows):,} of them drawn"
    count = f"{len(methods)} method{'s' * (len(methods) > 1)}"
    size = f"{len(page.html) / 1e6:.1f} MB"
    say(f"{args.output_file}: {n_cells:,} cells{drawn}, {count}, {size}")


def check_same_cells(file, root, first_file, first):
    """Refuse atlases of other cells, or of the same in another order."""
    import numpy as np

    from utils.io import read_index

    if not np.array_equal(read_index(root, "obs"), read_index(first, "obs")):
        raise ValueError(f"{file}: holds other cells than {first_file}, or in another order")


def read_method(name, root, basis, markers, splits):
    """Read what the page shows of one atlas."""
    from explorer.page import Method
    from explorer.page_trees import cluster_columns
    from utils.elements import read_embedding
    from utils.errors import missing
    from utils.io import keys, read_element

    if basis not in keys(root, "obsm"):
        raise KeyError(missing(f"{name}: adata.obsm has no", basis, keys(root, "obsm")))
    columns = cluster_columns(keys(root, "obs"))
    clusters = {column: read_element(root, f"obs/{column}") for column in columns}
    return Method(name, read_embedding(root, basis, n_dims=2), clusters, markers, splits)


def _table(file):
    """Read a table; cluster labels are text."""
    import pandas as pd

    if not Path(file).is_file():
        raise FileNotFoundError(f"{file}: no such file")
    text = dict.fromkeys(("column", "cluster", "parent", "child"), str)
    return pd.read_csv(file, sep="\t", dtype=text, keep_default_na=False, na_values=[""])


if __name__ == "__main__":
    cli.run(main, make_parser())
