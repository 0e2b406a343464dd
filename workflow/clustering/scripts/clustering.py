#!/usr/bin/env python
"""Cluster the cells of a data set at one resolution: one level, or all of them."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
import argparse
from dataclasses import replace
from functools import cache
from typing import get_args

from clustering.options import (
    ALGORITHM,
    AUTO,
    MAX_LEVELS,
    RESOLUTION,
    CommunityOptions,
    NeighborsOptions,
    Refinement,
    SplitOptions,
    cluster_ids,
)
from preprocessing.options import PCAOptions, ValuesOptions
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
    add(
        "--level",
        type=level_number,
        default=1,
        help=f"Hierarchical clustering level; {AUTO}: level after level, until no cluster is split "
        "(default: %(default)s)",
    )
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
    add_options(more, SplitOptions)
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
    more.add_argument(
        "--layer",
        help="The layer with the counts of --refine and --significance, or raw (default: X)",
    )
    add_options(more, ValuesOptions)
    hvg = "; hvg also of --significance"
    for name, what, also in (("pca", "PCA", hvg), ("harmony", "Harmony", "")):
        more.add_argument(
            f"--{name}_args",
            type=cli.json_option,
            default={},
            metavar="JSON",
            help=f"Parameters of the {what} of --refine, as in the config{also}",
        )
    more.add_argument(
        "--batch",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="Batches of --refine integration and --significance",
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


def level_number(text):
    """Read the number of a level, or the word for all of them."""
    if text == AUTO:
        return text
    if not text.lstrip("+-").isdecimal():
        raise argparse.ArgumentTypeError(f"must be a number or {AUTO}, found {text}")
    return int(text)


def check_arguments(args):
    """Refuse options that do not go together; return those about splits."""
    if args.level != AUTO and args.level < 1:
        raise ValueError(f"--level must be at least 1, found {args.level}")
    if not 0 < args.resolution < float("inf"):
        raise ValueError(f"--resolution must be above 0, found {args.resolution}")
    if args.refine != "neighbors" and args.level == 1:
        raise ValueError("--refine is about the parents of a sub-level; add --level 2 or more")
    if args.hierarchy is not None and args.level in (1, AUTO):
        raise ValueError("--hierarchy splits clusters of the level above; add --level 2 or more")
    if args.neighbors_args and args.refine == "graph":
        raise ValueError("--neighbors_args has no effect with --refine graph; remove it")
    options = read_options(SplitOptions, args)
    options = replace(options, significance=options.significance_of(args.level))
    if options.significance is None and options.gradual != SplitOptions.gradual:
        raise ValueError("--gradual has no effect without --significance; remove it")
    return options


def main(args):
    """Find the clusters of one level, or of level after level, and write them."""
    from clustering.cluster_names import ClusterColumn, parent_column, parse_column
    from clustering.stores import (
        ClusterLevel,
        read_clusters,
        read_colors,
        read_record,
        write_clustering,
    )
    from utils.io import keep_existing, keys, n_rows, open_store

    options = check_arguments(args)
    root = open_store(args.input_file)
    column, above = ClusterColumn(args.algorithm, args.resolution, 1), None
    if args.level not in (1, AUTO):
        parent = parent_column(keys(root, "obs"), args.algorithm, args.resolution, args.level - 1)
        column = parse_column(parent)._replace(level=args.level)
    if keep_existing(args.output_file, overwrite=args.overwrite, column=str(column)):
        return
    given_file = args.given_file or args.input_file
    given = open_store(given_file)
    if n_rows(given, "obs") != n_rows(root, "obs"):
        raise ValueError(
            f"--given_file {given_file}: has {n_rows(given, 'obs'):,} cells, {args.input_file} has "
            f"{n_rows(root, 'obs'):,}; give a store of the same cells"
        )
    if options.significance is not None and not args.batch:
        say("--significance without --batch: a split between batches counts as any other")
    basis = cache(lambda: split_basis(args, root))
    test = None
    if options.significance is not None:
        test = split_test(args, options, root, basis)

    def clusters_of(column, above):
        """Take a level from the input if it has it, else compute it."""
        name = str(column)
        record = {
            "algorithm": args.algorithm,
            "resolution": args.resolution,
            "level": column.level,
            "seed": args.seed,
        }
        if name in keys(given, "obs") and not args.overwrite:
            say(f"{given_file}: obs has {name}, which is kept; --overwrite recomputes it")
            codes, names = read_clusters(given, name)
            record["kept_from"] = str(given_file)
            return ClusterLevel(name, codes, names, record, read_colors(given, name, names))
        if above is None:
            codes, names, details = cluster(args, options, root, test)
        else:
            codes, names, details = subcluster(args, options, above, basis(), test)
        record |= {"significance": options.significance, **details}
        return ClusterLevel(name, codes, names, record)

    if args.level not in (1, AUTO):
        record = read_record(root, parent)
        above = ClusterLevel(parent, *read_clusters(root, parent), record)
    levels = [clusters_of(column, above)]
    while args.level == AUTO and column.level < MAX_LEVELS:
        column = column._replace(level=column.level + 1)
        below = clusters_of(column, levels[-1])
        if len(below.names) <= len(levels[-1].names):
            say(f"no cluster of {levels[-1].column} is split: it is the last level")
            levels[-1].record["leaves"] = below.record.get("unsplit", {})
            break
        levels.append(below)
    write_clustering(
        args.output_file, levels, source=args.input_file, neighbors_key=args.neighbors_key
    )


def cluster(args, options, root, test):
    """Cluster the whole graph."""
    from clustering.dispatch import cluster_cells
    from clustering.stores import read_community_graph

    return cluster_cells(
        read_community_graph(root, args.neighbors_key),
        algorithm=args.algorithm,
        resolution=args.resolution,
        seed=args.seed,
        max_cluster_factor=args.max_cluster_factor,
        # Without a test, level 1 is as the algorithm found it.
        min_cluster_size=1 if options.significance is None else options.min_cluster_size,
        clustering_args=args.clustering_args,
        use_gpu=args.use_gpu,
        n_cell_cpu=args.n_cell_cpu,
        test=test,
    )


def subcluster(args, options, above, basis, test):
    """Split the clusters of the level above."""
    from clustering.children import NOT_ACCEPTED, Unsplit
    from clustering.cluster_names import ALL_CELLS, child_name, resolutions_of_level
    from clustering.hierarchy import split_level
    from clustering.stores import read_cluster_names

    resolution = args.resolution
    if args.hierarchy is not None:
        wanted, siblings = cluster_ids(args.hierarchy), read_cluster_names(args.siblings)
        resolution = resolutions_of_level(
            wanted, set(above.names), above.column, args.level, siblings
        )
    # The only child of a cluster that was not split has the same cells. Where the next level is
    # split by other parameters, what was tested once is not tested again.
    known_unsplit = {
        "0" if name == ALL_CELLS else child_name(name, 0): Unsplit(**why)
        for name, why in above.record.get("unsplit", {}).items()
        if args.level == AUTO or (test is not None and why["reason"] in NOT_ACCEPTED)
    }
    neighbors = neighbors_arguments(args)
    neighbors.pop("use_rep")
    codes, names, details = split_level(
        (above.codes, above.names),
        basis,
        resolution=resolution,
        algorithm=args.algorithm,
        refine=args.refine,
        min_cluster_size=options.min_cluster_size,
        neighbors_args=neighbors,
        clustering_args=args.clustering_args,
        threads=args.threads,
        seed=args.seed,
        known_unsplit=known_unsplit,
        test=test,
    )
    return codes, names, {"parent": above.column, "hierarchy": args.hierarchy, **details}


def split_test(args, options, root, basis):
    """Find the counts and batches that splits are tested by."""
    from clustering.counts import read_split_test

    neighbors = neighbors_arguments(args)
    return read_split_test(
        root,
        layer=args.layer,
        values=as_arguments(read_options(ValuesOptions, args)),
        batch=args.batch,
        batch_file=args.given_file,
        representation=split_representation(args, root, basis),
        hvg=read_mapping(PCAOptions, args.pca_args, "--pca_args").hvg,
        significance=options.significance,
        gradual=options.gradual,
        algorithm=args.algorithm,
        n_neighbors=neighbors["n_neighbors"],
        seed=args.seed,
        threads=args.threads,
    )


def split_representation(args, root, basis):
    """Read what children are ordered in: where sub-levels are split in it, what these read."""
    from clustering.stores import read_representation

    if args.level != 1 and args.refine == "neighbors":
        return basis()[1]
    try:
        use_rep = neighbors_arguments(args)["use_rep"]
        return read_representation(root, use_rep, args.neighbors_key)[1]
    except KeyError:
        return None


def neighbors_arguments(args):
    """Check the parameters of the neighbors within each parent."""
    return as_arguments(read_mapping(NeighborsOptions, args.neighbors_args, "--neighbors_args"))


def split_basis(args, root):
    """Read what clusters are split by, and its name."""
    from clustering.stores import read_basis

    if args.refine in ("pca", "integration"):
        return f"own {args.refine}", own_components(args, root)
    use_rep = neighbors_arguments(args)["use_rep"]
    return read_basis(root, use_rep=use_rep, neighbors_key=args.neighbors_key, refine=args.refine)


def own_components(args, root):
    """Check the options of PCA and Harmony within each parent, and find the counts."""
    from clustering.counts import read_own_components
    from integration.options import HarmonyOptions

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
