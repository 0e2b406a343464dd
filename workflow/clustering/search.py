"""Nearest neighbours: exact for few cells, an inverted file for many."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from utils.cli import progress

METRICS = ("euclidean", "cosine")
# Up to here the exact search is about as fast as the approximate one (test/bench/RESULTS.md).
EXACT_UP_TO = 8_192
# The approximate search reads as many lists as this share of the true neighbours needs.
TARGET_RECALL = 0.999
# But not more lists than this: in data without any structure it would be all of them.
MOST_PROBES = 256
# Candidates beyond k that the float32 matrix product may put in the wrong order.
SLACK = 4
# Rows of a block of queries; bounds the memory, must not depend on the number of threads.
BLOCK = 256


@dataclass(frozen=True)
class Neighbors:
    """Nearest neighbours of every cell, the cell itself left out.

    Attributes
    ----------
    indices
        int32, cells x (n_neighbors - 1), each row by distance, then by index.
    distances
        float32, of the same shape.
    method
        ``exact`` or ``ivf`` (inverted file: cells are listed by nearest centroid).
    recall
        Share of the true neighbours found, for 1000 sampled cells; None where exact.
    """

    indices: np.ndarray
    distances: np.ndarray
    method: Literal["exact", "ivf"]
    recall: float | None


def finite_rows(X: np.ndarray) -> np.ndarray:
    """Return which rows of `X` hold neither NaN nor infinity, bool of shape (cells,)."""
    return np.isfinite(X).all(axis=1)


def nearest_neighbors(
    X: np.ndarray,
    n_neighbors: int,
    *,
    metric: str = "euclidean",
    threads: int = 1,
    seed: int = 0,
) -> Neighbors:
    """Find the nearest neighbours of every cell.

    Cells are grouped around k-means centroids (an inverted file). The cells of one group share
    their candidates, those of the nearest groups, so that all distances are one matrix product.
    Up to `EXACT_UP_TO` cells the candidates are all cells. Above, a sample of 1000 cells tells how
    many groups `TARGET_RECALL` needs, and the recall that was reached.

    Parameters
    ----------
    X
        Cells x dimensions.
    n_neighbors
        Neighbours per cell, itself included (scanpy's meaning); at most the number of cells.
    metric
        ``euclidean``, or ``cosine`` (one minus the cosine).
    threads
        Blocks that are worked on at a time; the result does not depend on it.
    seed
        Of the k-means and the sample.

    Returns
    -------
    Neighbors
        Indices and distances without the cell itself.

    Raises
    ------
    ValueError
        If there are fewer than 3 cells, rows with NaN or infinity, all-zero rows with the cosine,
        or if n_neighbors is below 2.

    Notes
    -----
    Peak memory: two copies of X in float32, the result, per thread two blocks of `BLOCK` x
    candidates in float32 (all cells where exact, about 20,000 for a million cells), and four
    squares of the number of groups, which is 2 sqrt(cells).
    """
    from threadpoolctl import threadpool_limits

    # The blocks run beside each other, so the matrix product inside one takes one thread.
    with threadpool_limits(1, user_api="blas"):
        return search(X, n_neighbors, metric=metric, threads=threads, seed=seed)


def search(
    X: np.ndarray,
    n_neighbors: int,
    *,
    metric: str = "euclidean",
    threads: int = 1,
    seed: int = 0,
    quiet: bool = False,
) -> Neighbors:
    """Run `nearest_neighbors` where the caller already limits BLAS to one thread."""
    check_search(n_neighbors, metric, threads)
    X = _checked(X, metric)
    n = len(X)
    k = min(n_neighbors, n) - 1
    rng = np.random.default_rng(seed)
    # Distances do not change, but the matrix product loses fewer digits.
    X = X - X.mean(axis=0, dtype=np.float64).astype(np.float32)
    if n <= EXACT_UP_TO:
        indices, distances = _brute_force(X, np.arange(n), k, threads)
        return Neighbors(indices, _as_metric(distances, metric), "exact", None)
    lists = _Lists.build(X, rng, threads)
    sample = np.sort(rng.choice(n, 1000, replace=False))
    truth, reach = _brute_force(X, sample, k, threads)
    probes = min(lists.probes_for(sample, truth, TARGET_RECALL), MOST_PROBES)
    indices = np.empty((n, k), dtype=np.int32)
    distances = np.empty((n, k), dtype=np.float32)

    def one_list(number: int) -> None:
        rows, candidates = lists.members(number), lists.candidates(number, probes)
        Y = X.take(candidates, axis=0)
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            indices[block], distances[block] = _nearest(X, block, Y, candidates, k, len(rows))

    with ThreadPoolExecutor(threads) as pool:
        done = pool.map(one_list, range(lists.count))
        for _ in progress(done, desc="neighbours", total=lists.count, disable=quiet):
            pass
    # Too few candidates leave holes, a handful of cells in odd data: these look everywhere.
    holes = np.flatnonzero(~np.isfinite(distances[:, -1]))
    if len(holes):
        indices[holes], distances[holes] = _brute_force(X, holes, k, threads)
    # Another cell at the same distance is as good a neighbour.
    recall = float((distances[sample] <= reach[:, -1:] * np.float32(1 + 1e-6)).mean())
    return Neighbors(indices, _as_metric(distances, metric), "ivf", recall)


def _as_metric(distances: np.ndarray, metric: str) -> np.ndarray:
    """Turn Euclidean distances, for the cosine those of unit vectors, into the metric's."""
    return distances if metric == "euclidean" else np.float32(0.5) * distances * distances


def check_search(n_neighbors: int, metric: str, threads: int) -> None:
    """Raise a ValueError or TypeError if an argument of `nearest_neighbors` is wrong."""
    if metric not in METRICS:
        raise ValueError(f'metric must be one of {", ".join(METRICS)}, found "{metric}"')
    if isinstance(n_neighbors, bool) or not isinstance(n_neighbors, int | np.integer):
        raise TypeError(f"n_neighbors must be an integer, found {n_neighbors!r}")
    if n_neighbors < 2:
        raise ValueError(
            f"n_neighbors counts the cell itself and must be at least 2, found {n_neighbors}"
        )
    if threads < 1:
        raise ValueError(f"threads must be at least 1, found {threads}")


def _checked(X: np.ndarray, metric: str) -> np.ndarray:
    """Return X as float32, of unit length for the cosine."""
    X = np.asarray(X)
    if X.ndim != 2 or X.shape[1] == 0:
        raise ValueError(f"neighbours need cells x dimensions, found an array of shape {X.shape}")
    if len(X) < 3:
        raise ValueError(f"neighbours need at least 3 cells, found {len(X)}")
    bad = int((~finite_rows(X)).sum())
    if bad:
        raise ValueError(
            f"{bad} of {len(X)} cells have NaN or infinite coordinates; leave them out "
            "(finite_rows tells which)"
        )
    X = np.ascontiguousarray(X, dtype=np.float32)
    if metric == "cosine":
        lengths = np.sqrt(np.einsum("ij,ij->i", X, X, dtype=np.float64))
        zero = int((lengths == 0).sum())
        if zero:
            raise ValueError(
                f"{zero} of {len(X)} cells are zero in every dimension, which has no cosine; "
                "leave them out, or use metric euclidean"
            )
        X = (X / lengths[:, None]).astype(np.float32)
    return X


@dataclass(frozen=True)
class _Lists:
    """Cells grouped by nearest centroid."""

    order: np.ndarray  # cells, list after list
    starts: np.ndarray  # where each list starts in `order`
    ranked: np.ndarray  # for each list, all lists by the distance of their centroids
    of_cell: np.ndarray

    @property
    def count(self) -> int:
        return len(self.starts) - 1

    def members(self, number: int) -> np.ndarray:
        return self.order[self.starts[number] : self.starts[number + 1]]

    def candidates(self, number: int, probes: int) -> np.ndarray:
        return np.concatenate([self.members(i) for i in self.ranked[number, :probes]])

    def probes_for(self, cells: np.ndarray, neighbors: np.ndarray, share: float) -> int:
        """Return how many lists hold `share` of the true `neighbors` of `cells`."""
        rank = np.empty_like(self.ranked)
        np.put_along_axis(rank, self.ranked, np.arange(self.count)[None], axis=1)
        needed = np.sort(rank[self.of_cell[cells][:, None], self.of_cell[neighbors]], axis=None)
        return int(needed[int(np.ceil(share * needed.size)) - 1]) + 1

    @classmethod
    def build(cls, X: np.ndarray, rng: np.random.Generator, threads: int) -> _Lists:
        """Run k-means on a sample, then assign every cell."""
        n = len(X)
        count = max(1, round(2 * np.sqrt(n)))
        sample = X[np.sort(rng.choice(n, min(n, 32 * count), replace=False))]
        centers = sample[np.sort(rng.choice(len(sample), count, replace=False))]
        for _ in range(6):
            centers = _means(sample, _assign(sample, centers, threads), centers)
        of_cell = _assign(X, centers, threads)
        # Empty lists would cost a probe each.
        used, of_cell = np.unique(of_cell, return_inverse=True)
        order = np.argsort(of_cell, kind="stable").astype(np.int32)
        starts = np.concatenate([[0], np.cumsum(np.bincount(of_cell))])
        # Nor may a long one, such as thousands of equal cells, cost its square: it is cut.
        place = np.empty(n, dtype=np.int64)
        place[order] = np.arange(n) - starts[of_cell[order]]
        part = of_cell.astype(np.int64) * n + place // (8 * count)
        parts, of_cell = np.unique(part, return_inverse=True)
        centers = centers[used[parts // n]]
        starts = np.concatenate([[0], np.cumsum(np.bincount(of_cell))])
        norms = np.einsum("ij,ij->i", centers, centers)
        between = norms - 2 * (centers @ centers.T)
        np.fill_diagonal(between, -np.inf)  # a list is nearest to itself, also if centroids agree
        ranked = np.argsort(between, axis=1, kind="stable").astype(np.int32)
        return cls(order, starts, ranked, of_cell.astype(np.int32))


def _assign(X: np.ndarray, centers: np.ndarray, threads: int) -> np.ndarray:
    """Return the nearest center of each row."""
    half_norms = np.einsum("ij,ij->i", centers, centers) / 2
    result = np.empty(len(X), dtype=np.int32)

    def one_block(start: int) -> None:
        score = X[start : start + BLOCK] @ centers.T
        score -= half_norms
        result[start : start + BLOCK] = score.argmax(axis=1)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one_block, range(0, len(X), BLOCK)))
    return result


def _means(X: np.ndarray, labels: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Return the mean of each group; an empty one keeps its center."""
    import scipy.sparse as sp

    counts = np.bincount(labels, minlength=len(centers))
    member = (np.ones(len(X), np.float32), (labels, np.arange(len(X))))
    sums = sp.csr_matrix(member, shape=(len(centers), len(X))) @ X
    full = counts > 0
    centers = centers.copy()
    centers[full] = sums[full] / counts[full, None].astype(np.float32)
    return centers


def _nearest(
    X: np.ndarray, rows: np.ndarray, Y: np.ndarray, candidates: np.ndarray, k: int, near: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest of some cells among candidates, whose coordinates are `Y`.

    The first `near` candidates are likely to be near.

    Returns indices and distances; distance infinity where there are too few.
    """
    take = min(k + 1 + SLACK, len(candidates))
    near = min(max(near, 4 * take), len(candidates))
    # |y|^2 - 2xy orders the candidates y of x as their distances do.
    score = (np.float32(-2) * X[rows]) @ Y.T
    score += np.einsum("ij,ij->i", Y, Y)
    # The last of the best among the likely ones: few of the others are better.
    bound = np.partition(score[:, :near], take - 1, axis=1)[:, take - 1 : take]
    # Several times faster than np.nonzero of the matrix.
    row, column = np.divmod(np.flatnonzero(score <= bound), score.shape[1])
    counts = np.bincount(row, minlength=len(rows))
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    width = int(counts.max())
    value = np.full((len(rows), width), np.inf, dtype=np.float32)
    value[row, place] = score[row, column]
    which = np.zeros((len(rows), width), dtype=np.int32)
    which[row, place] = candidates[column]
    if width > take:
        best = np.argpartition(value, take - 1, axis=1)[:, :take]
        which = np.take_along_axis(which, best, axis=1)
    # Distances anew from differences: exact for duplicates, and free of the product's rounding.
    distance = _distances(X, rows, which)
    distance[which == rows[:, None]] = np.inf
    by_index = np.argsort(which, axis=1)
    which = np.take_along_axis(which, by_index, axis=1)
    distance = np.take_along_axis(distance, by_index, axis=1)
    best = np.argsort(distance, axis=1, kind="stable")[:, :k]
    which = np.take_along_axis(which, best, axis=1)
    distance = np.take_along_axis(distance, best, axis=1)
    if which.shape[1] < k:
        missing = ((0, 0), (0, k - which.shape[1]))
        which = np.pad(which, missing)
        distance = np.pad(distance, missing, constant_values=np.inf)
    return which, distance


def _distances(X: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return euclidean distances of each row to the others in its row."""
    result = np.empty(others.shape, dtype=np.float32)
    for start in range(0, len(rows), 256):
        part = slice(start, start + 256)
        difference = X.take(others[part], axis=0)
        difference -= X[rows[part], None]
        result[part] = np.sqrt(np.einsum("ijk,ijk->ij", difference, difference))
    return result


def _brute_force(
    X: np.ndarray, rows: np.ndarray, k: int, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest of some cells among all cells, and their distances."""
    everyone = np.arange(len(X), dtype=np.int32)
    size = max(1, min(BLOCK, 2**24 // len(X)))
    blocks = [rows[start : start + size] for start in range(0, len(rows), size)]
    # No cell is likelier than another: enough of them that few of the others are nearer.
    near = min(len(X), 512 if len(X) <= EXACT_UP_TO else 4096)

    def one_block(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _nearest(X, block, X, everyone, k, near)

    with ThreadPoolExecutor(threads) as pool:
        found = list((pool.map if threads > 1 else map)(one_block, blocks))
    indices, distances = zip(*found, strict=True)
    return np.concatenate(indices), np.concatenate(distances)
