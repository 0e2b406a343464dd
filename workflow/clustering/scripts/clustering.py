#!/usr/bin/env python
"""Cluster the cells of a data set at one resolution and one level."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
import argparse
from typing import get_args

from clustering.options import (
    ALGORITHM,
    RESOLUTION,
    CommunityOptions,
    NeighborsOptions,
    Refinement,
    cluster_ids,
)
from preprocessing.options import ValuesOptions
from utils import cli
from utils.device import N_CELL_CPU
from utils.log import say
from utils.option_values import read_mapping, read_options
from utils.options import add_options, as_arguments


def make_parser():
    """Define the command line."""
    parser = argparse.ArgumentParser(description="Run clustering on anndata file.")
    add = parser.add_argument
    add("input_file", help="Input anndata file (.h5ad or .zarr)")
    add("output_file", help="Output anndata file (.zarr)")
    add(
        "--resolution",
        type=float,
        default=RESOLUTION,
        help="Clustering resolution (default: %(default)s)",
    )
    add(
        "--algorithm",
        choices=["louvain", "leiden"],
        default=ALGORITHM,
        help="Clustering algorithm (default: %(default)s)",
    )
    add("--level", type=int, default=1, help="Hierarchical clustering level (default: %(default)s)")
    add(
        "--threads",
        type=int,
        default=cli.THREADS,
        help="Number of threads for parallel processing (default: %(default)s)",
    )
    add("--overwrite", action="store_true", help="Overwrite existing clustering results")
    add(
        "--max_cluster_factor",
        type=float,
        default=CommunityOptions.max_cluster_factor,
        help="Maximum cluster factor for heuristic check (default: %(default)s)",
    )
    add(
        "--clustering_args",
        type=cli.json_option,
        default={},
        help="Additional clustering arguments as JSON string",
    )
    add(
        "--neighbors_key",
        default=CommunityOptions.neighbors_key,
        help="Key for neighbors in adata.uns (default: %(default)s)",
    )
    add(
        "--neighbors_args",
        type=cli.json_option,
        default={},
        help="Arguments for neighbors computation as JSON string",
    )
    add(
        "--n_cell_cpu",
        type=int,
        default=N_CELL_CPU,
        help="Force CPU when dataset has fewer than this many cells (default: %(default)s)",
    )
    more = parser.add_argument_group("more options")
    more.add_argument(
        "--hierarchy",
        type=cli.json_option,
        metavar="JSON",
        help='Split only these clusters, as {"cluster_id": resolution}; --level 2 or more',
    )
    more.add_argument(
        "--siblings",
        nargs="+",
        default=[],
        metavar="FILE",
        help="The level above at other resolutions, whose ids --hierarchy may name too",
    )
    more.add_argument(
        "--refine",
        choices=get_args(Refinement),
        default=CommunityOptions.refine,
        help="What is done anew within each parent: neighbors, or nothing (graph: its part of the "
        "level-1 graph is split), or also PCA on its own variable genes, or also Harmony on that; "
        "--level 2 or more (default: %(default)s)",
    )
    more.add_argument("--layer", help="The layer with the counts of --refine, or raw (default: X)")
    add_options(more, ValuesOptions)
    for name, what in (("pca", "PCA"), ("harmony", "Harmony")):
        more.add_argument(
            f"--{name}_args",
            type=cli.json_option,
            default={},
            metavar="JSON",
            help=f"Parameters of the {what} of --refine, as in the config",
        )
    more.add_argument(
        "--batch", nargs="+", default=[], metavar="COLUMN", help="Batches of --refine integration"
    )
    more.add_argument(
        "--given_file",
        metavar="FILE",
        help="The store that has what outputs of this script lack, the other obs columns: those of "
        "--batch, and one that exists already and is kept (default: the input)",
    )
    more.add_argument(
        "--use_gpu",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="Use a GPU where one is visible, or never (default: where it pays)",
    )
    cli.add_run_options(more, threads=False)
    more.add_argument("--debug", action="store_true", help="Show the traceback of an error")
    return parser


def main(args):
    """Read the graph or the parents, cluster, write one obs column."""
    if args.level < 1:
        raise ValueError(f"--level must be at least 1, found {args.level}")
    if not 0 < args.resolution < float("inf"):
        raise ValueError(f"--resolution must be above 0, found {args.resolution}")
    if args.refine != "neighbors" and args.level == 1:
        raise ValueError("--refine is about the parents of a sub-level; add --level 2 or more")
    if args.hierarchy is not None and args.level == 1:
        raise ValueError("--hierarchy splits clusters of the level above; add --level 2 or more")

    from clustering.cluster_names import ClusterColumn, parent_column, parse_column
    from clustering.stores import read_clusters, read_colors, write_clustering
    from utils.io import keep_existing, keys, n_rows, open_store

    root = open_store(args.input_file)
    if args.level == 1:
        column = str(ClusterColumn(args.algorithm, args.resolution, 1))
    else:
        parent = parent_column(keys(root, "obs"), args.algorithm, args.resolution, args.level - 1)
        column = str(parse_column(parent)._replace(level=args.level))
    if keep_existing(args.output_file, overwrite=args.overwrite, column=column):
        return
    colors = None
    given_file = args.given_file or args.input_file
    given = open_store(given_file)
    if n_rows(given, "obs") != n_rows(root, "obs"):
        raise ValueError(
            f"--given_file {given_file}: has {n_rows(given, 'obs'):,} cells, {args.input_file} has "
            f"{n_rows(root, 'obs'):,}; give a store of the same cells"
        )
    if column in keys(given, "obs") and not args.overwrite:
        say(f"{given_file}: obs has {column}, which is kept; --overwrite recomputes it")
        codes, names = read_clusters(given, column)
        colors = read_colors(given, column, names)
        details = {"kept_from": str(given_file)}
    elif args.level == 1:
        codes, names, details = cluster(args, root)
    else:
        codes, names, details = subcluster(args, root, parent)
    write_clustering(
        args.output_file,
        column,
        codes,
        names,
        source=args.input_file,
        record={
            "algorithm": args.algorithm,
            "resolution": args.resolution,
            "level": args.level,
            "seed": args.seed,
            **details,
        },
        neighbors_key=args.neighbors_key,
        colors=colors,
    )


def cluster(args, root):
    """Cluster the whole graph."""
    from clustering.dispatch import cluster_cells
    from clustering.stores import read_community_graph

    return cluster_cells(
        read_community_graph(root, args.neighbors_key),
        algorithm=args.algorithm,
        resolution=args.resolution,
        seed=args.seed,
        max_cluster_factor=args.max_cluster_factor,
        clustering_args=args.clustering_args,
        use_gpu=args.use_gpu,
        n_cell_cpu=args.n_cell_cpu,
    )


def subcluster(args, root, parent):
    """Split the clusters of the level above."""
    from clustering.cluster_names import resolutions_of_level
    from clustering.hierarchy import split_level
    from clustering.stores import read_basis, read_cluster_names, read_clusters

    if args.neighbors_args and args.refine == "graph":
        raise ValueError("--neighbors_args has no effect with --refine graph; remove it")
    neighbors = as_arguments(
        read_mapping(NeighborsOptions, args.neighbors_args, "--neighbors_args")
    )
    use_rep = neighbors.pop("use_rep")
    parents = read_clusters(root, parent)
    if args.refine in ("pca", "integration"):
        basis = f"own {args.refine}", own_components(args, root)
    else:
        basis = read_basis(
            root, use_rep=use_rep, neighbors_key=args.neighbors_key, refine=args.refine
        )
    resolution = args.resolution
    if args.hierarchy is not None:
        wanted, siblings = cluster_ids(args.hierarchy), read_cluster_names(args.siblings)
        resolution = resolutions_of_level(wanted, set(parents[1]), parent, args.level, siblings)
    codes, names, details = split_level(
        parents,
        basis,
        resolution=resolution,
        algorithm=args.algorithm,
        refine=args.refine,
        neighbors_args=neighbors,
        clustering_args=args.clustering_args,
        threads=args.threads,
        seed=args.seed,
    )
    return codes, names, {"parent": parent, "hierarchy": args.hierarchy, **details}


def own_components(args, root):
    """Check the options of PCA and Harmony within each parent, and find the counts."""
    from clustering.stores import read_own_components
    from integration.options import HarmonyOptions
    from preprocessing.options import PCAOptions

    harmony = {}
    if args.refine == "integration":
        if not args.batch:
            raise ValueError("--refine integration needs the obs columns of the batch: --batch")
        options = read_mapping(HarmonyOptions, args.harmony_args, "--harmony_args")
        harmony = as_arguments(options)
    return read_own_components(
        root,
        refine=args.refine,
        layer=args.layer,
        options=read_mapping(PCAOptions, args.pca_args, "--pca_args"),
        values=as_arguments(read_options(ValuesOptions, args)),
        harmony=harmony,
        batch=args.batch if args.refine == "integration" else [],
        batch_file=args.given_file,
        seed=args.seed,
    )


if __name__ == "__main__":
    cli.run(main, make_parser())
