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
from integration.options import HarmonyOptions
from preprocessing.options import PCAOptions, ValuesOptions
from utils import cli
from utils.device import N_CELL_CPU
from utils.log import say
from utils.options import add_options, as_arguments, read_mapping, read_options


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

    from clustering.cluster_names import ClusterColumn, parse_column
    from clustering.stores import parent_column, read_clusters, read_colors, write_clustering
    from utils.io import kept, keys, length, open_store

    root = open_store(args.input_file)
    if args.level == 1:
        column = str(ClusterColumn(args.algorithm, args.resolution, 1))
    else:
        parent = parent_column(keys(root, "obs"), args.algorithm, args.resolution, args.level - 1)
        column = str(parse_column(parent)._replace(level=args.level))
    if kept(args.output_file, overwrite=args.overwrite, column=column):
        return
    colors = None
    given_file = args.given_file or args.input_file
    given = open_store(given_file)
    if length(given, "obs") != length(root, "obs"):
        raise ValueError(
            f"--given_file {given_file}: has {length(given, 'obs'):,} cells, {args.input_file} has "
            f"{length(root, 'obs'):,}; give a store of the same cells"
        )
    if column in keys(given, "obs") and not args.overwrite:
        say(f"{given_file}: obs has {column}, which is kept; --overwrite recomputes it")
        codes, names = read_clusters(given, column)
        colors = read_colors(given, column, names)
        done = {"kept_from": str(given_file)}
    elif args.level == 1:
        codes, names, done = cluster(args, root)
    else:
        codes, names, done = subcluster(args, root, parent)
    record = {
        "algorithm": args.algorithm,
        "resolution": args.resolution,
        "level": args.level,
        "seed": args.seed,
        **done,
    }
    write_clustering(args, column, codes, names, record, colors=colors)


def cluster(args, root):
    """Cluster the whole graph; on the GPU where that was decided and works."""
    import numpy as np

    from clustering.communities import DEFAULT_FLAVOR, build, find_communities, too_many_clusters
    from clustering.stores import read_graph
    from utils.device import Device, choose_device, try_gpu

    whole = read_graph(root, args.neighbors_key)
    n_cells = whole.shape[0]
    # Cells that an earlier step left out have no neighbors: they get no label.
    # Of weights that are not symmetric one direction is enough.
    degree = np.diff(whole.indptr) + np.bincount(whole.indices, minlength=n_cells)
    linked = np.flatnonzero(degree)
    if 0 < len(linked) < n_cells:
        whole = whole[linked][:, linked]
        say(f"{n_cells - len(linked):,} cells have no neighbors and get no label")
    graph = build(whole)
    del whole  # at ten million cells two gigabytes
    # cuGraph has other options, of which those with the same name mean another thing.
    words = [f"{name} {value}" for name, value in args.clustering_args.items()]
    device = choose_device(
        graph.adjacency.shape[0],
        use_gpu=args.use_gpu,
        n_cell_cpu=args.n_cell_cpu,
        cpu_only=", ".join(words) or None,
    )
    options = {"algorithm": args.algorithm, "resolution": args.resolution, "seed": args.seed}

    def on_gpu():
        from clustering.rapids import find_communities_gpu

        return find_communities_gpu(graph, **options)

    labels, device = try_gpu(device, on_gpu)
    if labels is not None and too_many_clusters(
        labels, resolution=args.resolution, max_cluster_factor=args.max_cluster_factor
    ):
        device = Device("cpu", f"the GPU found {labels.max() + 1:,} clusters")
    if device.name == "cpu":
        labels = find_communities(graph, **options, **args.clustering_args)
    say(f"device: {device}")
    seeded = {}
    if device.name == "gpu":
        from clustering.rapids import takes_seed

        if not takes_seed(args.algorithm):
            seeded = {"seed": None}
            say(f"{args.algorithm} takes no seed on a GPU: labels may differ from run to run")
    if len(labels) < n_cells:
        inside, labels = labels, np.full(n_cells, -1)
        labels[linked] = inside
    return (
        labels,
        [str(i) for i in range(labels.max() + 1)],
        {
            **device.record(),
            **seeded,
            "flavor": "rapids"
            if device.name == "gpu"
            else args.clustering_args.get("flavor", DEFAULT_FLAVOR),
            "clustering_args": args.clustering_args,
        },
    )


def subcluster(args, root, parent):
    """Split every cluster of the level above within its own neighbors."""
    from clustering.communities import DEFAULT_FLAVOR
    from clustering.hierarchy import split
    from clustering.stores import check_cluster_ids, read_clusters

    if args.neighbors_args and args.refine == "graph":
        raise ValueError("--neighbors_args has no effect with --refine graph; remove it")
    neighbors = as_arguments(
        read_mapping(NeighborsOptions, args.neighbors_args, "--neighbors_args")
    )
    use_rep = neighbors.pop("use_rep")
    parents = read_clusters(root, parent)
    key, representation = read_basis(args, root, use_rep)
    resolution = args.resolution
    if args.hierarchy is not None:
        wanted = cluster_ids(args.hierarchy)
        resolution = check_cluster_ids(wanted, parents[1], parent, args.level, args.siblings)
    result = split(
        parents,
        representation,
        resolution=resolution,
        algorithm=args.algorithm,
        threads=args.threads,
        seed=args.seed,
        **neighbors,
        **args.clustering_args,
    )
    lost = int(((result.codes < 0) & (parents[0] >= 0)).sum())
    if lost:
        what = "neighbors within it" if args.refine == "graph" else "coordinates"
        say(f"{lost:,} cells of a cluster that is split have no {what} and get no label")
    return (
        result.codes,
        result.names,
        {
            "parent": parent,
            "use_rep": key,
            "neighbors_args": {} if args.refine == "graph" else neighbors,
            "refine": args.refine,
            "hierarchy": args.hierarchy,
            "flavor": args.clustering_args.get("flavor", DEFAULT_FLAVOR),
            "clustering_args": args.clustering_args,
            "device": "cpu",
            "reason": "sub-clustering runs on the CPU",
            "unsplit": {name: why._asdict() for name, why in result.unsplit.items()},
        },
    )


def read_basis(args, root, use_rep):
    """Read what parents are split by, and its name for the record."""
    from clustering.communities import build
    from clustering.stores import (
        foreign_graph,
        graph_key,
        neighbors_params,
        read_graph,
        read_representation,
    )
    from utils.io import keys

    if args.refine in ("pca", "integration"):
        return f"own {args.refine}", refined(args, root)
    if args.refine == "graph":
        name = graph_key(root, args.neighbors_key, "connectivities")
        if name not in keys(root, "obsp"):
            raise KeyError(
                f"{args.input_file}: has no obsp/{name} for --refine graph; an output of level 1 "
                "has it where its input was a .zarr: convert an .h5ad with prepare.py first"
            )
        return f"obsp/{name}", build(read_graph(root, args.neighbors_key)).adjacency
    key, representation = read_representation(root, use_rep, args.neighbors_key)
    if foreign := foreign_graph(neighbors_params(root, args.neighbors_key)):
        say(
            f"uns/{args.neighbors_key} is not a plain nearest-neighbor graph ({foreign}): "
            f"neighbors within each cluster are searched anew in {key}, and what that graph "
            "integrates is not in them; to split the graph itself write clustering: "
            "{refine: graph}, by hand --refine graph"
        )
    return key, representation


def refined(args, root):
    """Return a function that gives parents representations of their own."""
    from functools import partial

    from clustering.refine import own_components
    from preprocessing.gene_choice import read_gene_choice
    from preprocessing.stores import counts_blocks, counts_of, stored_matrix
    from utils.blocks import row_blocks
    from utils.io import obs_column, open_store, read_index

    harmony = {}
    if args.refine == "integration":
        if not args.batch:
            raise ValueError("--refine integration needs the obs columns of the batch: --batch")
        options = read_mapping(HarmonyOptions, args.harmony_args, "--harmony_args")
        harmony = as_arguments(options)
        store = open_store(args.given_file) if args.given_file else root
        harmony["batches"] = [obs_column(store, column) for column in args.batch]
    options = read_mapping(PCAOptions, args.pca_args, "--pca_args")
    stored = stored_matrix(root, args.layer)
    if options.normalize:
        needed_by = f"refine: {args.refine} with normalize: true"
        stored = counts_of(
            root,
            args.layer,
            needed_by=needed_by,
            as_they_are="preprocessing: {normalize: false}",
            **as_arguments(read_options(ValuesOptions, args)),
        )
    return partial(
        own_components,
        lambda: counts_blocks(stored) if options.normalize else row_blocks(stored.values),
        options=options,
        choice=read_gene_choice(root, read_index(root, stored.var), options.hvg),
        seed=args.seed,
        **harmony,
    )


if __name__ == "__main__":
    cli.run(main, make_parser())
