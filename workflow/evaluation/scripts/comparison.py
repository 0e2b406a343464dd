#!/usr/bin/env python
"""Draw the layouts and the scores of several methods side by side."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from utils import cli
from utils.log import progress, say


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Draw the layouts of several stores side by side, a picture per column, and their scores.",
        inputs="Stores of the same cells",
        several=True,
        output="Output folder: {column}.png, metrics.tsv, metrics.png, metrics_by_{column}.png, "
        "warnings.tsv",
    )
    parser.add_argument(
        "--names", nargs="+", required=True, metavar="NAME", help="A title for each store"
    )
    parser.add_argument(
        "--colors", nargs="+", default=[], metavar="COLUMN", help="obs columns to color by"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="TSV",
        help="Tables that metrics.py wrote, in {data set}/{method}/",
    )
    parser.add_argument(
        "--doublets",
        nargs="+",
        default=[],
        metavar="TSV",
        help="Tables that doublet_clusters.py wrote, in {data set}/{method}/",
    )
    parser.add_argument("--batch", metavar="COLUMN", help="The obs column that names the batch")
    parser.add_argument("--label", metavar="COLUMN", help="The obs column with known cell types")
    parser.add_argument(
        "--basis", default="X_umap", help="obsm key of the layout (default: %(default)s)"
    )
    return parser


def main(args):
    """Draw each column, join and draw the scores, write what they warn of."""
    from evaluation.clusters.doublet_clusters import doublet_warnings
    from evaluation.figures.embedding import compare_embeddings
    from evaluation.figures.page import file_stem, save_figure
    from evaluation.scores.biology_loss import integration_losses, lost_types, warning_table
    from evaluation.stores import read_codes, read_table
    from utils.atomic import atomic_folder
    from utils.elements import read_column, read_embedding
    from utils.io import open_store

    if len(args.names) != len(args.input_file):
        raise ValueError(f"--names has {len(args.names)} titles for {len(args.input_file)} stores")
    if not args.colors and not args.metrics and not args.doublets:
        raise ValueError("nothing to draw: name --colors, --metrics or both")
    roots = [open_store(file) for file in args.input_file]
    layouts = [read_embedding(root, args.basis, n_dims=2) for root in roots if args.colors]
    found = []
    with atomic_folder(args.output_file) as folder:
        folder.mkdir()
        for name in progress(args.colors, desc="plots"):
            columns = [read_column(root, name) for root in roots]
            panels = list(zip(args.names, layouts, columns, strict=True))
            save_figure(compare_embeddings(panels, title=name), folder / f"{file_stem(name)}.png")
        if args.metrics:
            scores = draw_scores([Path(file).resolve() for file in args.metrics], folder)
            found += integration_losses(scores)
            if args.batch and args.label:
                columns = (read_codes(roots[0], name) for name in (args.label, args.batch))
                found += lost_types(scores, *columns)
        for file in args.doublets:
            found += doublet_warnings(read_table(file), Path(file).resolve().parent.name)
        table = warning_table(found)
        table.to_csv(folder / "warnings.tsv", sep="\t", index=False)
        pictures = sum(1 for _ in folder.glob("*.png"))
    for row in table.itertuples():
        say(f"warning: {row.method}: {row.where}: {row.figure}; {row.advice}")
    say(f"{args.output_file}: {pictures} pictures")


def draw_scores(paths, folder):
    """Join the tables of scores of all methods, write and draw them."""
    from evaluation.figures.charts import score_charts
    from evaluation.figures.page import file_stem, save_figure
    from evaluation.stores import read_metrics

    scores = read_metrics(paths, [path.parent.name for path in paths])
    scores.to_csv(folder / "metrics.tsv", sep="\t", index=False)
    for name, figure in score_charts(scores, title=paths[0].parent.parent.name):
        save_figure(figure, folder / f"{file_stem(name)}.png")
    return scores


if __name__ == "__main__":
    cli.run(main, make_parser())
