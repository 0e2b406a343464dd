"""Mutual nearest neighbors, and the vectors that lead from one batch to the other."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from integration.mnn.nearest import Found, nearest
from utils.log import say


def neighbors_of(n_cells: int, k: int, prop_k: float | None) -> int:
    """Return the number of neighbors in a batch: ``min(n, max(k, round(prop_k n)))``."""
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
        Neighbors per cell, see `neighbors_of`; a batch counts the cells that may be paired.
    pairable
        Positions of the cells of both batches that may be paired; None for all.
    threads, seed
        See `search.nearest`.
    verbose
        Say the recall of the search where it is not exact.

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
    # The fewer ask first: of the others, only those that are somebody's neighbors have to ask.
    swapped = len(left) < len(right)
    few, many, k_few, k_many = (
        (left, right, k_left, k_right) if swapped else (right, left, k_right, k_left)
    )
    there = nearest(many, few, k_many, **options)
    asked = np.unique(there.indices)
    back = nearest(few, many[asked], k_few, **options)
    if verbose:
        say_recall(there, back)
    forth = there.indices + np.arange(len(few))[:, None] * len(many)
    # One more sort than np.isin needs, but it is sorted as the pairs are to be.
    returned = np.sort((back.indices * len(many) + asked[:, None]).ravel())
    mutual = np.intersect1d(forth.ravel(), returned, assume_unique=True)
    of_few, of_many = np.divmod(mutual, len(many))
    pairs = np.stack([of_few, of_many] if swapped else [of_many, of_few], axis=1)
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


def tricube_average(vectors: np.ndarray, found: Found, ndist: float) -> np.ndarray:
    """Average the vectors of every cell's neighbors with tricube weights.

    The weight at distance d is ``(1 - (d / h)^3)^3``, with h `ndist` times the distance to the
    middle neighbor, at least 1e-8.

    Parameters
    ----------
    vectors
        Vector of every point, points x dimensions.
    found
        Which points are the neighbors of every cell.
    ndist
        Bandwidth in distances to the middle neighbor.
    """
    n_cells, k = found.indices.shape
    middle = found.distances[:, [(k + 1) // 2 - 1]]
    share = np.minimum(found.distances / np.maximum(1e-8, ndist * middle), 1)
    weights = (1 - share**3) ** 3
    total = weights.sum(axis=1, keepdims=True)
    # All on the edge of the kernel, as a single neighbor with ndist of 1 is: all alike.
    weights = np.where(total > 0, weights / np.where(total > 0, total, 1), 1 / k)
    entries = (weights.ravel(), found.indices.ravel(), np.arange(0, n_cells * k + 1, k))
    return sparse.csr_array(entries, shape=(n_cells, len(vectors))) @ vectors


def say_recall(*searches: Found) -> None:
    """Say what share of the true neighbors some searches found, where they are not exact."""
    recalls = [found.recall for found in searches if found.recall is not None]
    if recalls:
        shown = " and ".join(f"{recall:.4f}" for recall in recalls)
        say(f"mnn: approximate search, recall {shown} of 1,000 sampled queries")
