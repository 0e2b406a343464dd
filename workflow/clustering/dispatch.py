"""Neighbors, communities and layout, on a GPU where one is visible and it pays, else on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from utils.device import Device, choose_device, try_gpu
from utils.log import say

if TYPE_CHECKING:
    import scipy.sparse as sp

    from clustering.communities import CommunityGraph
    from clustering.connectivities import NeighborGraph
    from clustering.significance.splits import SplitTest


def compute_neighbors(
    representation: np.ndarray,
    *,
    use_gpu: bool | None,
    n_cell_cpu: int,
    threads: int,
    **parameters: Any,
) -> tuple[NeighborGraph, Device]:
    """Run `clustering.connectivities.neighbor_graph`; `parameters` are its keyword arguments."""

    def on_gpu() -> NeighborGraph:
        from clustering.rapids import neighbor_graph_gpu

        return neighbor_graph_gpu(representation, **parameters)

    device = choose_device(len(representation), use_gpu=use_gpu, n_cell_cpu=n_cell_cpu)
    graph, device = try_gpu(device, on_gpu)
    if graph is None:
        from clustering.connectivities import neighbor_graph

        graph = neighbor_graph(representation, threads=threads, **parameters)
    say(f"device: {device}")
    return graph, device


def compute_layout(
    graph: CommunityGraph,
    *,
    use_gpu: bool | None,
    n_cell_cpu: int,
    threads: int,
    **parameters: Any,
) -> tuple[np.ndarray, Device]:
    """Run `clustering.umap.umap_layout`; `parameters` are its keyword arguments."""

    def on_gpu() -> np.ndarray:
        from clustering.rapids import umap_layout_gpu

        return umap_layout_gpu(graph, **parameters)

    device = choose_device(graph.adjacency.shape[0], use_gpu=use_gpu, n_cell_cpu=n_cell_cpu)
    layout, device = try_gpu(device, on_gpu)
    if layout is None:
        from clustering.umap import umap_layout

        layout = umap_layout(graph, threads=threads, **parameters)
    say(f"device: {device}")
    return layout, device


def cluster_cells(
    graph: CommunityGraph,
    *,
    algorithm: str,
    resolution: float,
    seed: int,
    max_cluster_factor: float,
    min_cluster_size: int,
    clustering_args: dict[str, Any],
    use_gpu: bool | None,
    n_cell_cpu: int,
    test: SplitTest | None = None,
) -> tuple[np.ndarray, list[str], dict[str, Any]]:
    """Cluster all cells that have neighbors.

    Parameters
    ----------
    graph, algorithm, resolution, seed, clustering_args
        As for `clustering.communities.find_communities`. With `clustering_args` it runs on the
        CPU: cuGraph has other options, and those of the same name mean something else.
    max_cluster_factor
        More clusters of a GPU than this factor allows are refused, see
        `clustering.communities.too_many_clusters`; then the CPU clusters.
    min_cluster_size
        Clusters with fewer cells are joined to others (`clustering.children.join_small`); 1: all
        are as the algorithm found them.
    use_gpu, n_cell_cpu
        As for `utils.device.choose_device`.
    test
        Joins clusters that are not told apart; None: none are.

    Returns
    -------
    (numpy.ndarray, list of str, dict)
        Cluster of each cell (-1: it has no neighbors), names of the clusters, and how they were
        computed, for the record of the column.
    """
    from clustering.children import accepted_children
    from clustering.cluster_names import ALL_CELLS
    from clustering.communities import DEFAULT_FLAVOR, find_communities, too_many_clusters

    n_cells = graph.adjacency.shape[0]
    graph, linked = _linked_cells(graph)
    cpu_only = ", ".join(f"{name} {value}" for name, value in clustering_args.items())
    device = choose_device(
        len(linked), use_gpu=use_gpu, n_cell_cpu=n_cell_cpu, cpu_only=cpu_only or None
    )
    options = {"algorithm": algorithm, "resolution": resolution, "seed": seed}

    def on_gpu() -> np.ndarray:
        from clustering.rapids import find_communities_gpu

        return find_communities_gpu(graph, **options)

    labels, device = try_gpu(device, on_gpu)
    if labels is not None and too_many_clusters(
        labels, resolution=resolution, max_cluster_factor=max_cluster_factor
    ):
        device = Device("cpu", f"the GPU found {labels.max() + 1:,} clusters")
    if device.name == "cpu":
        labels = find_communities(graph, **options, **clustering_args)
    say(f"device: {device}")
    labels, unsplit = accepted_children(graph.adjacency, labels, min_cluster_size=min_cluster_size)
    splits = []
    if test is not None and labels.max() > 0:
        from clustering.significance.splits import Division, count_verdicts

        tested = next(iter(test([Division(linked, labels, resolution)])))
        labels, unsplit = tested.labels, tested.unsplit
        splits = [{"parent": ALL_CELLS, **split.record(str)} for split in tested.splits]
        say(count_verdicts(tested.splits))
    record = {
        **device.record(),
        "min_cluster_size": min_cluster_size,
        "flavor": clustering_args.get("flavor", DEFAULT_FLAVOR),
        "clustering_args": clustering_args,
        "unsplit": {} if unsplit is None else {ALL_CELLS: unsplit._asdict()},
        "splits": splits,
    }
    if device.name == "gpu":
        from clustering.rapids import takes_seed

        record["flavor"] = "rapids"
        if not takes_seed(algorithm):
            record["seed"] = None
            say(f"{algorithm} takes no seed on a GPU: labels may differ from run to run")
    codes = np.full(n_cells, -1, dtype=labels.dtype)
    codes[linked] = labels
    return codes, [str(i) for i in range(labels.max() + 1)], record


def _linked_cells(graph: CommunityGraph) -> tuple[CommunityGraph, np.ndarray]:
    """Return the graph of the cells that have neighbors, and their numbers; all if none has."""
    from clustering.communities import CommunityGraph

    adjacency: sp.csr_matrix = graph.adjacency
    n_cells = adjacency.shape[0]
    linked = np.flatnonzero(np.diff(adjacency.indptr))
    if len(linked) in (0, n_cells):
        return graph, np.arange(n_cells)
    say(f"{n_cells - len(linked):,} cells have no neighbors and get no label")
    return CommunityGraph(adjacency[linked][:, linked]), linked
