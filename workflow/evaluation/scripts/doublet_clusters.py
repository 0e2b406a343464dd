#!/usr/bin/env python
"""List the clusters with the marks of doublets."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from clustering.options import NeighborsKeyOptions
from utils import cli
from utils.log import say
from utils.options import add_options


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "List the marks of doublets of every cluster: scores of doublets.py, a place between two\n"
        "other clusters, more counts than other cells.",
        output="Output table (.tsv)",
    )
    cli.add_clusters(parser)
    parser.add_argument(
        "--use_rep", metavar="KEY", help="obsm key of the embedding (default: of the neighbors)"
    )
    add_options(parser, NeighborsKeyOptions)
    return parser


def main(args):
    """Read scores, clusters and embedding; write the table."""
    import numpy as np

    from clustering.stores import read_representation
    from evaluation.clusters.doublet_clusters import doublet_clusters
    from evaluation.stores import read_clusterings
    from utils.atomic import atomic_file
    from utils.errors import missing
    from utils.io import keys, open_store, read_element

    root = open_store(args.input_file)
    names = {
        "scores": "doublet_score",
        "doublet_like": "doublet_like",
        "relative_counts": "relative_counts",
    }
    for name in names.values():
        if name not in keys(root, "obs"):
            text = missing("adata.obs has no column", name, keys(root, "obs"))
            raise KeyError(f"{text}; doublets.py writes it")
    columns = list(read_clusterings(root, args.clusters).values())
    marks = {key: np.asarray(read_element(root, f"obs/{name}")) for key, name in names.items()}
    embedding = read_representation(root, args.use_rep, args.neighbors_key)[1]
    table = doublet_clusters(columns, embedding, **marks)
    with atomic_file(args.output_file) as path:
        table.to_csv(path, sep="\t", index=False, float_format="%.4g")
    n_flagged = int((table["flagged"] == "yes").sum())
    say(f"{args.output_file}: {n_flagged} of {len(table)} clusters have the marks of doublets")


if __name__ == "__main__":
    cli.run(main, make_parser())
