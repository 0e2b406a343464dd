"""Do clusters come back? A part of the cells is clustered again, several times.

The graph of a part of the cells is the stored graph restricted to them: no neighbors are searched
again. Clusters of level 1 come from the graph of all cells; below it, the graph within each parent
is computed once, as sub-clustering does, and then restricted. A round so costs as much as Leiden on
the cells it takes, and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clustering.options import NeighborsOptions
from evaluation.options import RobustnessOptions
from evaluation.scores.agreement import contingency
from utils.threads import one_blas_thread, ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    import scipy.sparse as sp

    Recluster = Callable[[np.ndarray, int], np.ndarray]

# Below this a cluster is said to dissolve, above it to be stable (Hennig 2007, 2008).
DISSOLVED, STABLE = 0.5, 0.75


class Robustness(NamedTuple):
    """How each cluster fares, arrays of one value per cluster; NaN for one that was never drawn."""

    jaccard: np.ndarray  # median over rounds of the best overlap with a new cluster
    together: np.ndarray  # share of its pairs of cells that stay together
    apart: np.ndarray  # 1 minus the share of pairs that join it with the next cluster
    score: np.ndarray  # silhouette of co-clustering, -1 to 1
    nearest: np.ndarray  # the cluster that it is joined with most, -1: none


def robustness(
    codes: np.ndarray,
    recluster: Recluster,
    *,
    segments: np.ndarray | None = None,
    rounds: int = 10,
    subsample: float = RobustnessOptions.subsample,
    threads: int = 1,
    seed: int = 0,
) -> Robustness:
    """Cluster parts of the cells again, and compare.

    Parameters
    ----------
    codes
        Cluster of each cell, -1: none.
    recluster
        Called with the cells that a round takes (increasing) and its seed; returns their labels.
    segments
        Of each cluster: only clusters of the same segment are each other's `nearest`.
    rounds
        Number of parts.
    subsample
        Share of the cells in each, at least one cell.
    threads
        Rounds that run beside each other; the result does not depend on it.
    seed
        Of the parts and, plus the number of the round, of their clustering.

    Returns
    -------
    Robustness
        The Jaccard index is that of scclusteval (Tang et al. 2021): in each round the largest of
        ``|A and B| / |A or B|`` over the new clusters B, A being the cells of the cluster that
        the round took. `together`, `apart` and `score` follow chooseR (Patterson-Cross et al.
        2021): pairs of cells that share a new cluster, out of those that a round took.

    Raises
    ------
    ValueError
        If there are no rounds, or the share is not between 0 and 1.

    Notes
    -----
    Memory: per thread the restricted graph, at most the share squared of the whole. Time: `rounds`
    times the clustering of the part.
    """
    if rounds < 1 or not 0 < subsample < 1:
        raise ValueError(
            f"rounds must be at least 1 and subsample between 0 and 1, found {rounds}, {subsample}"
        )
    codes = np.asarray(codes)
    n_clusters = int(codes.max(initial=-1)) + 1
    known = np.flatnonzero(codes >= 0)

    def one_round(number: int) -> np.ndarray:
        rng = np.random.default_rng([seed, number])
        size = max(1, round(subsample * len(known)))
        cells = np.sort(rng.choice(known, size, replace=False))
        labels = np.asarray(recluster(cells, seed + 1 + number))
        return contingency(codes[cells], labels, shape=(n_clusters, int(labels.max(initial=0)) + 1))

    tables = list(ordered_map(one_round, range(rounds), threads=threads))
    overlap = np.stack([_best_overlap(table) for table in tables])
    joined = np.zeros((n_clusters, n_clusters))
    pairs = np.zeros((n_clusters, n_clusters))
    for table in tables:
        table = table.astype(float)
        sizes = table.sum(axis=1)
        joined += table @ table.T - np.diag(sizes)
        pairs += np.outer(sizes, sizes) - np.diag(sizes)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = joined / pairs
    with_itself = np.diag(share).copy()
    other = segments is not None and np.not_equal.outer(segments, segments)
    between = np.where(np.eye(n_clusters, dtype=bool) | other | np.isnan(share), -1.0, share)
    nearest = between.argmax(axis=1) if n_clusters else np.zeros(0, dtype=int)
    with_another = between.max(axis=1, initial=-1)
    alone = with_another < 0
    apart = np.where(alone, 1.0, 1 - with_another)
    inside = 1 - with_itself
    with np.errstate(invalid="ignore", divide="ignore"):
        score = (apart - inside) / np.maximum(apart, inside)
    score[np.maximum(apart, inside) == 0] = 0
    return Robustness(
        _median(overlap), with_itself, apart, score, np.where(alone, -1, nearest).astype(int)
    )


def _best_overlap(table: np.ndarray) -> np.ndarray:
    """Return the Jaccard index of each row with the column that it overlaps most."""
    size, other = table.sum(axis=1, keepdims=True), table.sum(axis=0, keepdims=True)
    union = size + other - table
    overlaps = np.divide(table, union, out=np.zeros(table.shape), where=union > 0).max(axis=1)
    return np.where(size[:, 0] > 0, overlaps, np.nan)


def _median(values: np.ndarray) -> np.ndarray:
    """Median of each column without its NaN."""
    missing = np.isnan(values).all(axis=0)
    return np.where(missing, np.nan, np.nanmedian(np.where(missing, 0, values), axis=0))


def restricted(
    graph: sp.csr_matrix,
    *,
    min_cluster_size: int = 1,
    n_clusters: int | None = None,
    **options: Any,
) -> Recluster:
    """Make the function that clusters a part of the cells of a graph (see `robustness`).

    Where `n_clusters` is given, as a test of the splits left so many, the clusters that are linked
    most are joined until there are no more.
    """

    def recluster(cells: np.ndarray, seed: int) -> np.ndarray:
        return _clusters_of_part(graph, cells, min_cluster_size, n_clusters, seed=seed, **options)

    return recluster


def _clusters_of_part(
    graph: sp.csr_matrix,
    cells: np.ndarray,
    min_cluster_size: int,
    n_clusters: int | None,
    **options: Any,
) -> np.ndarray:
    """Cluster some cells of a graph; of fewer cells a cluster needs as many fewer."""
    from clustering.children import join_nearest, join_small
    from clustering.communities import build, find_communities

    part = build(graph[cells][:, cells])
    labels = find_communities(part, **options)
    labels = join_small(part.adjacency, labels, min_cluster_size * len(cells) / graph.shape[0])
    return labels if n_clusters is None else join_nearest(part.adjacency, labels, n_clusters)


def restricted_within(
    parents: np.ndarray,
    representation: np.ndarray | sp.csr_matrix,
    *,
    split: np.ndarray,
    resolutions: np.ndarray,
    min_cluster_size: int = 1,
    n_children: np.ndarray | None = None,
    n_neighbors: int = NeighborsOptions.n_neighbors,
    metric: str = NeighborsOptions.metric,
    threads: int = 1,
    seed: int = 0,
    **options: Any,
) -> Recluster:
    """Make the function that splits the parents of a part of the cells (see `robustness`).

    Parameters
    ----------
    parents
        Parent of each cell, -1: none.
    representation
        Cells x dimensions; or the symmetric connectivities of all cells, of which each parent has
        its part.
    split, resolutions
        Of each parent: whether it was split, and at what resolution.
    min_cluster_size
        As for `clustering.hierarchy.split`; lower in a part of the cells, by its share.
    n_children
        Of each parent, how many children a test of the splits left; None: no test.
    n_neighbors, metric, threads, seed
        Of the graph within each parent, as for `numerics.knn.nearest_neighbors`.
    **options
        For `clustering.communities.find_communities`.
    """
    from scipy.sparse import issparse

    from clustering.connectivities import fuzzy_connectivities
    from clustering.hierarchy import graph_within
    from numerics.knn import finite_rows, search

    parents = np.asarray(parents)
    place = np.full(len(parents), -1)
    graphs = {}
    with one_blas_thread():
        for parent in np.flatnonzero(split):
            cells = np.flatnonzero(parents == parent)
            if issparse(representation):
                part = graph_within(representation, cells)
                linked = np.flatnonzero(np.diff(part.indptr))
                graphs[parent] = graph_within(part, linked)
                place[cells[linked]] = np.arange(len(linked))
                continue
            cells = cells[finite_rows(representation[cells])]
            neighbors = search(representation[cells], n_neighbors, metric=metric, threads=threads,
                           seed=seed, quiet=True)  # fmt: skip
            graphs[parent] = fuzzy_connectivities(neighbors.indices, neighbors.distances)
            place[cells] = np.arange(len(cells))

    def recluster(cells: np.ndarray, seed: int) -> np.ndarray:
        labels = np.full(len(cells), -1, dtype=np.int64)
        start = 0
        for parent in np.unique(parents[cells]):
            if parent < 0:
                continue
            here = np.flatnonzero((parents[cells] == parent) & (place[cells] >= 0))
            if parent in graphs and len(here):
                at = place[cells[here]]
                labels[here] = start + _clusters_of_part(
                    graphs[parent], at, min_cluster_size,
                    None if n_children is None else int(n_children[parent]),
                    seed=seed, resolution=float(resolutions[parent]), **options,
                )  # fmt: skip
            else:
                here = np.flatnonzero(parents[cells] == parent)
                labels[here] = start
            start = int(labels.max()) + 1
        return labels

    return recluster


def unknown_robustness(n_clusters: int) -> Robustness:
    """Make the result for clusters that cannot be recomputed."""
    nothing = np.full(n_clusters, np.nan)
    return Robustness(nothing, nothing, nothing, nothing, np.full(n_clusters, -1))


def as_table(scores: Robustness, groups: list[str], sizes: np.ndarray) -> pd.DataFrame:
    """Write robustness as a table: a row per cluster."""
    import pandas as pd

    nearest = [groups[i] if i >= 0 else "" for i in scores.nearest]
    return pd.DataFrame(
        {
            "cluster": groups,
            "n_cells": sizes,
            "jaccard": scores.jaccard,
            "together": scores.together,
            "apart": scores.apart,
            "score": scores.score,
            "nearest": nearest,
        }
    )
