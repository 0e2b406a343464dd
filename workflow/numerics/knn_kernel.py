"""The inner loop of the neighbor search, compiled: cells against lists of cells.

The products are BLAS's. The rest needs a compiled loop: to keep, for every cell, only candidates
nearer than the farthest of its nearest so far, and to read only the lists near that cell.
"""

from __future__ import annotations

import numpy as np

# The BLAS of the compiled products: loaded before the threads of all loaded ones are limited.
import scipy.linalg.cython_blas  # noqa: F401

from utils.jit import compiled

# Candidates beyond k that the float32 matrix product may put in the wrong order.
SLACK = 4
# Candidates of one product; bounds the memory.
WIDTH = 512


@compiled()
def scan(X, half, starts, lists, centers, probes, queries, itself, k):
    """Find the cells of some lists that are nearest to some places near each other.

    Parameters
    ----------
    X
        float32 or float64, cells x dimensions, list after list; the other coordinates are of the
        same type.
    half
        Half the squared length of each row of X.
    starts
        int64, where each list starts in X, and the end of the last.
    lists
        int32, numbers of the lists to read, the likeliest first.
    centers
        The centroids of these lists.
    probes
        How many of them are read for each place, its nearest.
    queries
        The places x dimensions.
    itself
        int32, the row of X that is the place itself and is left out; -1: none.
    k
        Neighbors of each place.

    Returns
    -------
    numpy.ndarray
        int32 of places x (k + `SLACK`): rows of X, nearest first within the product's rounding; -1
        where there are too few.
    """
    n, d, take = len(queries), X.shape[1], k + SLACK
    wanted = _nearest_lists(queries, centers, probes)
    scores = np.full((n, take), np.inf, dtype=X.dtype)
    nearest = np.full((n, take), -1, dtype=np.int32)
    active = np.empty(n, dtype=np.int32)
    some = np.empty((n, d), dtype=X.dtype)
    products = np.empty(n * WIDTH, dtype=X.dtype)
    for i in range(lists.size):
        m = 0
        for q in range(n):
            if wanted[q, i]:
                active[m] = q
                some[m] = queries[q]
                m += 1
        end = starts[lists[i] + 1]
        for first in range(starts[lists[i]], end if m else 0, WIDTH):
            last = min(first + WIDTH, end)
            product = products[: m * (last - first)].reshape((m, last - first))
            np.dot(some[:m], X[first:last].T, product)
            for a in range(m):
                q = active[a]
                _keep_nearest(product[a], half[first:last], first, itself[q], scores[q], nearest[q])
    return nearest


@compiled()
def _nearest_lists(queries, centers, probes):
    """Return which lists are among the `probes` nearest of each place, bool of places x lists."""
    n, count = len(queries), len(centers)
    if probes >= count:
        return np.ones((n, count), dtype=np.bool_)
    wanted = np.zeros((n, count), dtype=np.bool_)
    half = np.empty(count, dtype=centers.dtype)
    for i in range(count):
        half[i] = np.dot(centers[i], centers[i]) / 2
    product = np.dot(queries, centers.T)
    scores = np.empty(probes, dtype=centers.dtype)
    nearest = np.empty(probes, dtype=np.int32)
    for q in range(n):
        scores[:] = np.inf
        _keep_nearest(product[q], half, 0, -1, scores, nearest)
        for i in nearest:
            wanted[q, i] = True
    return wanted


@compiled()
def _keep_nearest(product, half, first, itself, scores, found):
    """Insert what is nearer than the last of the nearest so far; these stay in order."""
    take = scores.size
    bound = scores[take - 1]
    for t in range(product.size):
        # Half of |y|^2 - 2xy orders the candidates y of x as their distances do.
        score = half[t] - product[t]
        if score < bound and first + t != itself:
            place = take - 1
            while place > 0 and scores[place - 1] > score:
                scores[place] = scores[place - 1]
                found[place] = found[place - 1]
                place -= 1
            scores[place] = score
            found[place] = first + t
            bound = scores[take - 1]


@compiled()
def sort_exactly(X, cells, queries, found, k):
    """Return the k nearest of the candidates of each place, by distances from differences.

    Exact for duplicates, and free of the product's rounding.

    Parameters
    ----------
    X, queries
        Cells and places x dimensions, both float32 or both float64.
    cells
        int32, the cell of each row of X.
    found
        int32, places x candidates, rows of X or -1; is overwritten.
    k
        Neighbors of each place.

    Returns
    -------
    tuple
        Cells and distances, int32 and X's type, of places x k, by distance, then by cell; -1 and
        infinity where there are too few candidates.
    """
    n, take = found.shape
    indices = np.empty((n, k), dtype=np.int32)
    distances = np.empty((n, k), dtype=X.dtype)
    exact = np.empty(take, dtype=X.dtype)
    for q in range(n):
        some = found[q]
        for c in range(take):
            distance, other = X.dtype.type(np.inf), some[c]
            if other >= 0:
                distance = X.dtype.type(np.sqrt(_squared(queries[q], X[other])))
                other = cells[other]
            place = c
            while place > 0 and (
                exact[place - 1] > distance
                or (exact[place - 1] == distance and some[place - 1] > other)
            ):
                exact[place] = exact[place - 1]
                some[place] = some[place - 1]
                place -= 1
            exact[place], some[place] = distance, other
        indices[q] = some[:k]
        distances[q] = exact[:k]
    return indices, distances


@compiled()
def _squared(x, y):
    """Return the squared distance, summed in float64."""
    total = 0.0
    for j in range(x.size):
        difference = np.float64(x[j]) - np.float64(y[j])
        total += difference * difference
    return total
