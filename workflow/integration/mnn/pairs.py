"""Mutual nearest neighbors, and the vectors that lead from one batch to the other."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from integration.mnn.nearest import NearestCells, nearest
from utils.log import say


def neighbors_of(n_cells: int, k: int, prop_k: float | None) -> int:
    """Compute the number of neighbors in a batch: ``min(n, max(k, round(prop_k n)))``."""
    return min(n_cells, k if prop_k is None else max(k, round(prop_k * n_cells)))


def mutual_pairs(
    left: np.ndarray,
    right: np.ndarray,
    *,
    k: int,
    prop_k: float | None = None,
    pairable: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
    threads: int = 1,
    seed: int = 0,
    verbose: bool = False,
) -> np.ndarray:
    """Find the cells that are among each other's nearest neighbors in the other batch.

    Parameters
    ----------
    left, right
        Cells x dimensions, float64.
    k, prop_k
        Neighbors per cell, see `neighbors_of`; of a batch, the cells that may be paired count.
    pairable
        Positions of the cells of both batches that may be paired; None for all.
    threads, seed
        See `nearest.nearest`.
    verbose
        Report the recall of an approximate search.

    Returns
    -------
    numpy.ndarray
        int64 of shape (n_pairs, 2): positions left and right, sorted by both.

    Notes
    -----
    Haghverdi 2018. Peak memory: 16 bytes per cell and neighbor, and that of the search.
    """
    if pairable[0] is not None:
        left = left[pairable[0]]
    if pairable[1] is not None:
        right = right[pairable[1]]
    k_left, k_right = (neighbors_of(len(part), k, prop_k) for part in (left, right))
    options = {"threads": threads, "seed": seed}
    # Queries of the smaller side come first: of the larger one, only cells that are a neighbor of
    # one of these can be in a pair.
    swapped = len(left) < len(right)
    small, large, k_small, k_large = (
        (left, right, k_left, k_right) if swapped else (right, left, k_right, k_left)
    )
    of_small = nearest(large, small, k_large, **options)
    candidates = np.unique(of_small.indices)
    of_large = nearest(small, large[candidates], k_small, **options)
    if verbose:
        say_recall(of_small, of_large)
    # A pair as one number: its cell of the smaller side times `len(large)`, plus its other cell.
    from_small = of_small.indices + np.arange(len(small))[:, None] * len(large)
    from_large = of_large.indices * len(large) + candidates[:, None]
    # One more sort than np.isin needs, but it is sorted as the pairs are to be.
    mutual = np.intersect1d(from_small.ravel(), np.sort(from_large.ravel()), assume_unique=True)
    small_cell, large_cell = np.divmod(mutual, len(large))
    pairs = np.stack([small_cell, large_cell] if swapped else [large_cell, small_cell], axis=1)
    for side, cells in enumerate(pairable):
        if cells is not None:
            pairs[:, side] = cells[pairs[:, side]]
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def average_vectors(
    left: np.ndarray, right: np.ndarray, pairs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Average, for every right cell in a pair, the vectors to its partners.

    Returns the positions of these right cells, ascending, and the vectors, cells x dimensions.
    """
    cells, row, counts = np.unique(pairs[:, 1], return_inverse=True, return_counts=True)
    weights = (1 / counts[row], (row, pairs[:, 0]))
    mean = sparse.csr_array(weights, shape=(len(cells), len(left))) @ left
    mean -= right[cells]
    return cells, mean


def tricube_average(vectors: np.ndarray, neighbors: NearestCells, ndist: float) -> np.ndarray:
    """Average the vectors of every cell's neighbors with tricube weights.

    The weight at distance d is ``(1 - (d / h)^3)^3``, with h `ndist` times the distance to the
    middle neighbor, at least 1e-8.

    Parameters
    ----------
    vectors
        Vector of every point, points x dimensions.
    neighbors
        Nearest points of every cell.
    ndist
        Bandwidth in distances to the middle neighbor.
    """
    n_cells, k = neighbors.indices.shape
    middle = neighbors.distances[:, [(k + 1) // 2 - 1]]
    share = np.minimum(neighbors.distances / np.maximum(1e-8, ndist * middle), 1)
    weights = (1 - share**3) ** 3
    total = weights.sum(axis=1, keepdims=True)
    # Equal weights where all lie on the edge of the kernel, as a single neighbor with ndist 1 does.
    weights = np.where(total > 0, weights / np.where(total > 0, total, 1), 1 / k)
    entries = (weights.ravel(), neighbors.indices.ravel(), np.arange(0, n_cells * k + 1, k))
    return sparse.csr_array(entries, shape=(n_cells, len(vectors))) @ vectors


def say_recall(*searches: NearestCells) -> None:
    """Report the recall of approximate searches."""
    recalls = [search.recall for search in searches if search.recall is not None]
    if recalls:
        shown = " and ".join(f"{recall:.4f}" for recall in recalls)
        say(f"mnn: approximate search, recall {shown} of 1,000 sampled queries")
