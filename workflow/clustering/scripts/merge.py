#!/usr/bin/env python
"""Bring all cluster columns of a data set together in one store, and count their clusters."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from utils import cli
from utils.log import say


def make_parser():
    """Define the command line."""
    parser = cli.script_parser("Link the cluster columns of many stores, and a layout, into one.")
    parser.add_argument(
        "--clustering",
        nargs="+",
        default=[],
        metavar="FILE",
        help="Outputs of clustering.py on the same cells",
    )
    parser.add_argument("--layout", metavar="FILE", help="Output of umap.py on the same cells")
    parser.add_argument(
        "--table", metavar="TSV", help="Write column, number of clusters, largest, smallest"
    )
    parser.add_argument("--tree", metavar="TSV", help="Write every cluster, its parent and size")
    parser.add_argument("--newick", metavar="NWK", help="Write the same as one tree a line")
    parser.add_argument(
        "--materialize",
        action="store_true",
        help="Copy everything into the output, so that it can be moved on its own",
    )
    parser.add_argument(
        "--h5ad", metavar="FILE", help="Also write all of it into one self-contained .h5ad file"
    )
    cli.add_run_options(parser, threads=False, seed=False, overwrite="Replace an existing output")
    return parser


def main(args):
    """Link and count, then write the self-contained file."""
    from utils.io import keep_existing

    if args.h5ad and Path(args.h5ad).suffix != ".h5ad":
        raise ValueError(f"{args.h5ad}: the file of --h5ad must end in .h5ad")
    if not keep_existing(args.output_file, overwrite=args.overwrite, source=args.input_file):
        merge(args)
    if args.h5ad:
        export(args)


def merge(args):
    """Link the columns into one store; write the tables."""
    import csv
    import io

    from clustering.cluster_tree import TREE_COLUMNS, cluster_tree, newick
    from clustering.stores import count_clusters, read_clusters, read_record
    from utils.atomic import atomic_file
    from utils.io import keys, n_rows, new_store, open_store

    n_cells = n_rows(open_store(args.input_file), "obs")
    links, labels, splits, lines = {}, {}, {}, ["column\tn_clusters\tlargest\tsmallest\tunlabelled"]

    def open_same_cells(file):
        root = open_store(file)
        if n_rows(root, "obs") != n_cells:
            raise ValueError(
                f"{file}: has {n_rows(root, 'obs'):,} cells, {args.input_file} has {n_cells:,}; "
                "merge stores of the same cells"
            )
        return root

    if args.layout:
        layout = open_same_cells(args.layout)
        for slot, name in (("obsm", "X_umap"), ("uns", "umap")):
            if name in keys(layout, slot):
                links[f"{slot}/{name}"] = Path(args.layout) / slot / name
    for file in map(Path, args.clustering):
        root = open_same_cells(file)
        for column in keys(root, "obs"):
            if f"obs/{column}" in links:
                raise ValueError(f"{file}: {column} is in another of the stores too")
            links[f"obs/{column}"] = file / "obs" / column
            for name in (column, f"{column}_colors"):
                if name in keys(root, "uns"):
                    links[f"uns/{name}"] = file / "uns" / name
            labels[column] = read_clusters(root, column)
            splits[column] = read_record(root, column).get("splits", [])
            lines.append("\t".join(map(str, (column, *count_clusters(labels[column][0])))))
    tree = cluster_tree(labels, splits)
    table = io.StringIO()
    # A name with a quote in it is quoted, as in the other tables.
    csv.writer(table, delimiter="\t", lineterminator="\n").writerows([TREE_COLUMNS, *tree])
    texts = {
        args.table: "\n".join(lines) + "\n",
        args.tree: table.getvalue(),
        args.newick: newick(tree),
    }
    # Colors of other clusters under the name of a column are not linked.
    replaced_colors = [f"uns/{column}_colors" for column in labels]
    with new_store(
        args.output_file,
        source=args.input_file,
        new=replaced_colors,
        links=links,
        materialize=args.materialize,
    ):
        for file, text in texts.items():
            if file:
                with atomic_file(file) as temporary:
                    temporary.write_text(text)
    more = f", {len(lines) - 1} cluster columns" if args.clustering else ""
    say(f"{args.output_file}: {n_cells:,} cells{more}")


def export(args):
    """Write the atlas as one file, its clusters in the colors of the pictures."""
    from clustering.cluster_names import parse_column
    from utils.atomic import atomic_file
    from utils.h5ad import write_h5ad
    from utils.io import keys, open_store, read_element
    from utils.palette import category_colors

    if Path(args.h5ad).exists() and not args.overwrite:
        say(f"{args.h5ad}: exists; keeping it (--overwrite recomputes it)")
        return
    root = open_store(args.output_file)
    colors = {}
    for name in filter(parse_column, keys(root, "obs")):
        values = read_element(root, f"obs/{name}")
        if hasattr(values, "categories"):  # a column of the input may be text or numbers
            colors[f"{name}_colors"] = category_colors(values)
    with atomic_file(args.h5ad) as path:
        write_h5ad(root, path, uns=colors)
    size = Path(args.h5ad).stat().st_size / 1e6
    say(f"{args.h5ad}: all of {args.output_file} in one file, {size:,.1f} MB")


if __name__ == "__main__":
    cli.run(main, make_parser())
