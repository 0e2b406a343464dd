"""Initial coordinates of a layout: Isomap on the shortest paths of the graph, coarsened first.

Landmark Isomap (de Silva & Tenenbaum 2003), where a landmark is a group of cells and the length of
a step is its negative log probability in a random walk. The graph's eigenvectors, from which
umap-learn starts, only separate the smallest pieces that are barely connected to the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import scipy.sparse as sp

# Groups between which all paths are measured; up to twice as many cells are not coarsened.
GROUPS = 500
# Cells per group at each coarsening.
RATIO = 4
# Times that coordinates are smoothed over neighbors.
SMOOTHINGS = 10
# Distance between pieces of the graph, in units of the longest path.
PIECE_DISTANCE = 1.5


def initial_coordinates(graph: sp.csr_matrix, rng: np.random.Generator) -> np.ndarray:
    """Return coordinates of the cells: those of their groups, smoothed over the neighbors.

    Parameters
    ----------
    graph
        Cells x cells, symmetric, no row without weights.
    rng
        Draws the cells that groups form around.

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
    coordinates = initial_coordinates((joined.T @ (graph @ joined)).tocsr(), rng)[group]
    strength = graph.sum(axis=1)
    for _ in range(SMOOTHINGS):
        coordinates = np.asarray(graph @ coordinates / strength)
    return coordinates - coordinates.mean(axis=0)


def aggregate(graph: sp.csr_matrix, rng: np.random.Generator) -> np.ndarray:
    """Return the group of each cell: that of the neighbor of largest weight that has one already.

    Groups form around one in `RATIO` cells, drawn at random, at least `GROUPS`, however many pieces
    the graph has.
    """
    n = graph.shape[0]
    seeds = rng.choice(n, max(n // RATIO, GROUPS), replace=False)
    group = np.full(n, -1, dtype=np.int32)
    group[seeds] = np.arange(len(seeds))
    ungrouped = np.flatnonzero(group < 0)
    while len(ungrouped):
        edges = graph[ungrouped]
        weight = np.where(group[edges.indices] >= 0, edges.data, 0)
        degree = np.diff(edges.indptr)
        heaviest = np.repeat(np.maximum.reduceat(weight, edges.indptr[:-1]), degree)
        best = np.flatnonzero((weight == heaviest) & (weight > 0))
        if not len(best):
            break
        group[np.repeat(ungrouped, degree)[best]] = group[edges.indices[best]]
        ungrouped = ungrouped[group[ungrouped] < 0]
    # Pieces without a drawn cell.
    group[ungrouped] = len(seeds) + np.arange(len(ungrouped)) % len(seeds)
    return group


def _isomap(graph: sp.csr_matrix) -> np.ndarray:
    """Return the first two coordinates of classical scaling of the lengths of all paths."""
    import scipy.sparse as sp
    from scipy.sparse.csgraph import shortest_path

    strength = np.asarray(graph.sum(axis=1), dtype=np.float64).ravel()
    steps = graph.tocoo()
    probability = steps.data / np.sqrt(strength[steps.row] * strength[steps.col])
    # Above 0, or cells would get the same coordinates.
    step = np.maximum(-np.log(probability), 1e-3)
    lengths = shortest_path(sp.csr_matrix((step, (steps.row, steps.col)), graph.shape), method="D")
    reached = np.isfinite(lengths)
    lengths[~reached] = PIECE_DISTANCE * lengths[reached].max()
    lengths *= lengths
    means = lengths.mean(axis=0)
    values, vectors = np.linalg.eigh((means + means[:, None] - lengths - means.mean()) / 2)
    coordinates = vectors[:, :-3:-1] * np.sqrt(np.maximum(values[:-3:-1], 0))
    # The sign of an eigenvector is arbitrary.
    return coordinates * np.sign(coordinates[np.abs(coordinates).argmax(axis=0), [0, 1]])
