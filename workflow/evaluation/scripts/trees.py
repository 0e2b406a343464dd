#!/usr/bin/env python
"""Draw how clusterings follow from each other, and what clusters are made of."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from utils import cli
from utils.log import progress, say


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Draw a tree of the resolutions and of the levels of clusterings, and for each clustering "
        "the batches and cell types of its clusters.",
        output="Output folder: tree_{name}.png, composition_{column}.png, {nodes,edges,"
        "composition}.tsv",
    )
    cli.add_clusters(parser)
    parser.add_argument(
        "--colors", nargs="+", default=[], metavar="COLUMN", help="batch and cell type columns"
    )
    parser.add_argument("--title", help="Prefix of each title")
    return parser


def main(args):
    """Count, write the tables, draw."""
    from clustering.cluster_names import families
    from evaluation.clusters.composition import composition, composition_table
    from evaluation.figures.charts import composition_chart
    from evaluation.figures.clustree import draw_tree, tree_tables
    from evaluation.figures.page import file_stem, save_figure
    from evaluation.stores import read_clusterings, read_codes, read_gradual
    from utils.atomic import atomic_folder
    from utils.io import open_store

    root = open_store(args.input_file)
    columns = read_clusterings(root, args.clusters)
    gradual = read_gradual(root, columns)
    others = [read_codes(root, name) for name in args.colors]
    head = f"{args.title}: " if args.title else ""
    trees = families(columns, fixed="level") | families(columns, fixed="resolution")
    trees = {name: members for name, members in trees.items() if len(members) > 1}
    tables = {"nodes": [], "edges": [], "composition": []}
    with atomic_folder(args.output_file) as folder:
        folder.mkdir()
        for name, members in progress(trees.items(), desc="trees", total=len(trees)):
            nodes, edges = tree_tables([columns[member] for member in members])
            figure = draw_tree(nodes, edges, title=f"{head}{name}", gradual=gradual)
            save_figure(figure, folder / f"{file_stem(f'tree_{name}'.replace(' ', '_'))}.png")
            tables["nodes"].append(nodes.assign(tree=name))
            tables["edges"].append(edges.assign(tree=name))
        for name, column in progress(columns.items(), desc="composition", total=len(columns)):
            bars, notes = composition(column, others)
            tables["composition"].append(composition_table(column, others))
            if bars:
                figure = composition_chart(column.groups, bars, title=f"{head}{name}", notes=notes)
                save_figure(figure, folder / f"{file_stem(f'composition_{name}')}.png")
        write_tables(tables, folder)
        pictures = sum(1 for _ in folder.glob("*.png"))
    say(f"{args.output_file}: {pictures} pictures")


def write_tables(tables, folder):
    """Join the parts of each table and write it, unless it has no row."""
    import pandas as pd

    for name, parts in tables.items():
        if not sum(map(len, parts)):
            continue
        table = pd.concat(parts)
        if "tree" in table:
            table.insert(0, "tree", table.pop("tree"))
        table.to_csv(folder / f"{name}.tsv", sep="\t", index=False, float_format="%.4g")


if __name__ == "__main__":
    cli.run(main, make_parser())
