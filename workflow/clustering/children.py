"""Which communities become clusters: small ones are joined to their nearest sibling."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from clustering.communities import renumber_by_size

if TYPE_CHECKING:
    import scipy.sparse as sp


class Unsplit(NamedTuple):
    """Why a parent is not split: a code for programs, a text for people."""

    # not_chosen, too_few_cells, no_representation, one_community, children_too_small,
    # not_significant or not_distinct
    reason: str
    text: str


# Reasons that a test gives.
NOT_ACCEPTED = ("not_significant", "not_distinct")


def accepted_children(
    graph: sp.csr_matrix, labels: np.ndarray, *, min_cluster_size: int
) -> tuple[np.ndarray, Unsplit | None]:
    """Join the communities of a parent that are no clusters of their own.

    Level 1 and every sub-level decide here what they split.

    Parameters
    ----------
    graph
        Symmetric weights among the cells of the parent, in which the communities were found.
    labels
        Their communities, numbered by size.
    min_cluster_size
        As for `join_small`.

    Returns
    -------
    (numpy.ndarray, Unsplit or None)
        Labels numbered by size, and why there is only one where there were several.
    """
    children = join_small(graph, labels, min_cluster_size)
    if children.max() == 0 < labels.max():
        text = f"{labels.max() + 1} communities, of which at most one has {min_cluster_size} cells"
        return children, Unsplit("children_too_small", text)
    return children, None


def join_small(graph: sp.csr_matrix, labels: np.ndarray, min_cluster_size: float) -> np.ndarray:
    """Join small clusters to their nearest sibling, from the smallest up, until none is left.

    Parameters
    ----------
    graph
        Symmetric weights, cells x cells.
    labels
        int of shape (cells,), clusters numbered from 0 by size (`renumber_by_size`).
    min_cluster_size
        A cluster with fewer cells is joined to the one with the largest sum of weights between
        them; ties, and a cluster without neighbors, go to the larger one.

    Returns
    -------
    numpy.ndarray
        int32 of shape (cells,), numbered by size.

    Notes
    -----
    Peak memory: about 40 bytes per weight of the cells in small clusters.
    """
    sizes = np.bincount(labels).tolist()
    n_clusters = len(sizes)
    small = [cluster for cluster, size in enumerate(sizes) if size < min_cluster_size]
    if not small or n_clusters == 1:
        return labels
    weights = _weights_between(graph, labels, small)
    joined_to = list(range(n_clusters))

    def joined(cluster: int) -> int:
        while joined_to[cluster] != cluster:
            cluster = joined_to[cluster]
        return cluster

    largest = 0
    # Of clusters of one size the one with the higher number is joined first.
    queue = [(sizes[cluster], -cluster) for cluster in small]
    heapq.heapify(queue)
    n_left = n_clusters
    while queue and n_left > 1:
        size, cluster = queue[0][0], -queue[0][1]
        heapq.heappop(queue)
        if joined_to[cluster] != cluster or sizes[cluster] != size:
            continue  # has changed since
        to_sibling: dict[int, float] = {}
        for other, weight in weights[cluster].items():
            sibling = joined(other)
            if sibling != cluster and weight > 0:
                to_sibling[sibling] = to_sibling.get(sibling, 0.0) + weight
        nearest = max(to_sibling, key=lambda c: (to_sibling[c], sizes[c], -c), default=largest)
        joined_to[cluster] = nearest
        sizes[nearest] += size
        n_left -= 1
        if (sizes[nearest], -nearest) > (sizes[largest], -largest):
            largest = nearest
        if nearest in weights:
            for sibling, weight in to_sibling.items():
                weights[nearest][sibling] = weights[nearest].get(sibling, 0.0) + weight
            if sizes[nearest] < min_cluster_size:
                heapq.heappush(queue, (sizes[nearest], -nearest))
    return renumber_by_size(np.array([joined(c) for c in range(n_clusters)])[labels])


def join_nearest(graph: sp.csr_matrix, labels: np.ndarray, n_clusters: int) -> np.ndarray:
    """Join the clusters that are linked most until no more than a number of them is left.

    Parameters
    ----------
    graph
        Symmetric weights, cells x cells.
    labels
        int of shape (cells,), clusters numbered from 0 by size.
    n_clusters
        Clusters to leave. Those are joined between which the mean weight of a pair of cells is
        largest.

    Returns
    -------
    numpy.ndarray
        int32 of shape (cells,), numbered by size.
    """
    import scipy.sparse as sp

    n_before = int(labels.max(initial=-1)) + 1
    if n_before <= n_clusters:
        return labels
    member = sp.csr_matrix((np.ones(len(labels)), (np.arange(len(labels)), labels)))
    weights = np.asarray((member.T @ graph @ member).todense(), dtype=np.float64)
    sizes = np.bincount(labels).astype(np.float64)
    joined_to = np.arange(n_before)
    alive = np.ones(n_before, dtype=bool)
    for _ in range(n_before - max(n_clusters, 1)):
        mean = np.where(alive[:, None] & alive, weights / np.outer(sizes, sizes), -1.0)
        np.fill_diagonal(mean, -1.0)
        one, other = sorted(np.unravel_index(mean.argmax(), mean.shape))
        weights[one] += weights[other]
        weights[:, one] += weights[:, other]
        sizes[one] += sizes[other]
        alive[other] = False
        joined_to[joined_to == other] = one
    return renumber_by_size(joined_to[labels])


def _weights_between(
    graph: sp.csr_matrix, labels: np.ndarray, clusters: list[int]
) -> dict[int, dict[int, float]]:
    """Sum the weights between each of some clusters and every cluster it has neighbors in."""
    cells = np.flatnonzero(np.isin(labels, clusters))
    part = graph[cells]
    n_clusters = int(labels.max()) + 1
    pairs = np.repeat(labels[cells].astype(np.int64), np.diff(part.indptr)) * n_clusters
    pairs, position = np.unique(pairs + labels[part.indices], return_inverse=True)
    sums = np.bincount(position, weights=part.data, minlength=len(pairs))
    weights: dict[int, dict[int, float]] = {cluster: {} for cluster in clusters}
    for pair, weight in zip(pairs.tolist(), sums.tolist(), strict=True):
        cluster, other = divmod(pair, n_clusters)
        weights[cluster][other] = weight
    return weights
