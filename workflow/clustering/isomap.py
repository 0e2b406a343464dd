"""First places of cells from the shortest paths of their graph, which is made small for that.

Landmark Isomap (de Silva & Tenenbaum 2003), where a landmark is a group of cells and a path is as
long as the random walk finds its steps unlikely. The graph's eigenvectors, from which umap-learn
starts, only tell the smallest pieces that hang by a thread from the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import scipy.sparse as sp

# Groups between which all paths are measured; twice as many cells are a small graph.
GROUPS = 500
# Cells per group where a graph is made smaller, and still is too large.
RATIO = 4
# Times that places are smoothed.
STEPS = 10
# Between pieces of the graph, in distances of the two ends that are farthest apart.
APART = 1.5


def initial_coordinates(graph: sp.csr_matrix, rng: np.random.Generator) -> np.ndarray:
    """Return places of the cells: those of their groups, smoothed over the neighbors.

    Parameters
    ----------
    graph
        Cells x cells, symmetric, no row without weights.
    rng
        Draws the cells that groups form about.

    Returns
    -------
    numpy.ndarray
        Cells x 2, about 0, in no particular unit.

    Notes
    -----
    Peak memory: 20 bytes per weight, beside the graph.
    """
    import scipy.sparse as sp

    n = graph.shape[0]
    if n <= 2 * GROUPS:
        return _isomap(graph)
    group = aggregate(graph, rng)
    joined = sp.csr_matrix((np.ones(n, dtype=graph.dtype), group, np.arange(n + 1)))
    place = initial_coordinates((joined.T @ (graph @ joined)).tocsr(), rng)[group]
    strength = graph.sum(axis=1)
    for _ in range(STEPS):
        place = np.asarray(graph @ place / strength)
    return place - place.mean(axis=0)


def aggregate(graph: sp.csr_matrix, rng: np.random.Generator) -> np.ndarray:
    """Return the group of each cell: that of its heaviest neighbor which has one already.

    Groups form about every `RATIO`-th cell, drawn at random, but about `GROUPS` at least; there are
    at most twice as many, however many pieces the graph has.
    """
    n = graph.shape[0]
    seeds = rng.choice(n, max(n // RATIO, GROUPS), replace=False)
    group = np.full(n, -1, dtype=np.int32)
    group[seeds] = np.arange(len(seeds))
    left = np.flatnonzero(group < 0)
    while len(left):
        near = graph[left]
        weight = np.where(group[near.indices] >= 0, near.data, 0)
        degree = np.diff(near.indptr)
        heaviest = np.repeat(np.maximum.reduceat(weight, near.indptr[:-1]), degree)
        best = np.flatnonzero((weight == heaviest) & (weight > 0))
        if not len(best):
            break
        group[np.repeat(left, degree)[best]] = group[near.indices[best]]
        left = left[group[left] < 0]
    # Pieces of which no cell was drawn.
    group[left] = len(seeds) + np.arange(len(left)) % len(seeds)
    return group


def _isomap(graph: sp.csr_matrix) -> np.ndarray:
    """Return the first two coordinates of classical scaling of the lengths of all paths."""
    import scipy.sparse as sp
    from scipy.sparse.csgraph import shortest_path

    strength = np.asarray(graph.sum(axis=1), dtype=np.float64).ravel()
    steps = graph.tocoo()
    likely = steps.data / np.sqrt(strength[steps.row] * strength[steps.col])
    # No step is free: cells at the same place could not be told apart.
    length = np.maximum(-np.log(likely), 1e-3)
    apart = shortest_path(sp.csr_matrix((length, (steps.row, steps.col)), graph.shape), method="D")
    found = np.isfinite(apart)
    apart[~found] = APART * apart[found].max()
    apart *= apart
    means = apart.mean(axis=0)
    values, vectors = np.linalg.eigh((means + means[:, None] - apart - means.mean()) / 2)
    place = vectors[:, :-3:-1] * np.sqrt(np.maximum(values[:-3:-1], 0))
    # The sign of an eigenvector is arbitrary.
    return place * np.sign(place[np.abs(place).argmax(axis=0), [0, 1]])
