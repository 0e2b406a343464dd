#!/usr/bin/env python
"""Draw the layout of a data set in the colors of some obs columns."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from utils import cli
from utils.log import progress, say


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Draw a layout, one picture per column, and write its coordinates.",
        output="Output folder: {column}.png, {basis}.tsv.gz",
    )
    parser.add_argument(
        "--colors", nargs="+", default=[], metavar="COLUMN", help="obs columns to color by"
    )
    parser.add_argument(
        "--clusters",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="obs columns to color by and to label on the cells, or patterns such as "
        "'leiden_0.5_*'",
    )
    parser.add_argument(
        "--basis", default="X_umap", help="obsm key of the layout (default: %(default)s)"
    )
    parser.add_argument("--title", help="Prefix of the title, before the name of the column")
    return parser


def main(args):
    """Draw each column, write the table behind the pictures."""
    import pandas as pd

    from clustering.cluster_names import matching_columns
    from evaluation.figures.embedding import plot_embedding
    from evaluation.figures.page import file_stem, save_figure
    from utils.atomic import atomic_folder
    from utils.elements import read_embedding
    from utils.errors import missing
    from utils.io import keys, open_store, read_element, read_index

    root = open_store(args.input_file)
    obs = keys(root, "obs")
    clusters = matching_columns(args.clusters, obs)
    for name in [*args.colors, *clusters]:
        if name not in obs:
            raise KeyError(missing("adata.obs has no column", name, obs))
    columns = {name: read_element(root, f"obs/{name}") for name in [*args.colors, *clusters]}
    layout = read_embedding(root, args.basis, n_dims=2)
    with atomic_folder(args.output_file) as folder:
        folder.mkdir()
        for name, values in progress(columns.items(), desc="plots", total=len(columns)):
            figure = plot_embedding(
                layout,
                values,
                title=f"{args.title}: {name}" if args.title else name,
                on_data_labels=True if name in clusters else None,
            )
            save_figure(figure, folder / f"{file_stem(name)}.png")
        axes = [f"{args.basis.removeprefix('X_')}_{i + 1}" for i in range(2)]
        table = pd.DataFrame(layout, columns=axes, index=read_index(root, "obs"))
        table.assign(**columns).to_csv(
            folder / f"{args.basis.removeprefix('X_')}.tsv.gz",
            sep="\t",
            index_label="cell",
            float_format="%.6g",
            compression={"method": "gzip", "mtime": 0, "compresslevel": 1},
        )
    say(f"{args.output_file}: {len(columns)} pictures")


if __name__ == "__main__":
    cli.run(main, make_parser())
