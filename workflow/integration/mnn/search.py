"""Nearest neighbours of some cells among other cells: exact where that is quick, else grouped.

Three ways, chosen by the size of the data and never by the number of threads: a k-d tree where
dimensions are few, all distances as blocks of a matrix product where cells are few, and above that
groups of queries that share their candidates. Distances are always computed anew in float64 from
the differences of the cells, so that the last digits do not depend on the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..harmony.kmeans import kmeans
from ..harmony.parallel import workers

if TYPE_CHECKING:
    from collections.abc import Callable

# A k-d tree takes 0.3 ms a query for 100,000 cells in 10 dimensions, and 2 ms in 20.
TREE_DIMS = 10
# For up to so many points and as many queries, or another two of that product, all distances are
# computed.
EXACT_UP_TO = 50_000
# The grouped search reads as many lists as this share of the true neighbours needs ...
TARGET_RECALL = 0.999
# ... but not more than this: in data without any structure it would be all of them.
MOST_LISTS = 256
# Candidates beyond k that the matrix product may put in the wrong order.
SLACK = 4
SAMPLE = 1000  # queries on which the recall is measured
BLOCK = 256  # queries of a block ...
SCORES = 2**23  # ... and numbers in a block of distances, at most


@dataclass(frozen=True)
class Found:
    """The nearest of some points for every query.

    Attributes
    ----------
    indices
        int64, queries x k: positions among the points, nearest first.
    distances
        float64, of the same shape.
    recall
        Share of the true neighbours found for `SAMPLE` queries; None where the search is exact.
    """

    indices: np.ndarray
    distances: np.ndarray
    recall: float | None


def nearest(
    points: np.ndarray, queries: np.ndarray, k: int, *, threads: int = 1, seed: int = 0
) -> Found:
    """Find the nearest points of every query.

    Parameters
    ----------
    points, queries
        Cells x dimensions, float64, finite.
    k
        Neighbours per query; at most the number of points.
    threads
        Blocks that are worked on at a time; the result does not depend on it.
    seed
        Of the groups and the sample; without effect where the search is exact.

    Notes
    -----
    Exact in up to `TREE_DIMS` dimensions or for up to `EXACT_UP_TO`^2 distances. Peak memory: the
    result; where grouped, a copy of points and queries in float32; per thread twice `SCORES`
    numbers.
    """
    k = min(k, len(points))
    if points.shape[1] <= TREE_DIMS:
        from scipy.spatial import cKDTree

        distances, indices = cKDTree(points).query(queries, k=np.arange(1, k + 1), workers=threads)
        return Found(indices, distances, None)
    with workers(threads, lambda: None) as run:
        if len(points) * len(queries) <= EXACT_UP_TO**2:
            return Found(*_all_distances(points, queries, k, run), None)
        return _grouped(points, queries, k, np.random.default_rng(seed), run)


def _all_distances(
    points: np.ndarray, queries: np.ndarray, k: int, run: Callable[..., None]
) -> tuple[np.ndarray, np.ndarray]:
    """Compare every query with every point."""
    shift = points.mean(axis=0)  # distances stay, but the product loses fewer digits
    points, queries = points - shift, queries - shift
    squares = np.einsum("ij,ij->i", points, points)
    everyone = np.arange(len(points))
    indices = np.empty((len(queries), k), dtype=np.int64)
    distances = np.empty((len(queries), k))
    rows = max(1, min(BLOCK, SCORES // len(points)))

    def one_block(start: int, _: Any) -> None:
        block = slice(start, start + rows)
        score = (-2 * queries[block]) @ points.T
        score += squares
        best = everyone[_smallest(score, k + SLACK)]
        indices[block], distances[block] = _sorted(points, queries[block], best, k)

    run(one_block, range(0, len(queries), rows))
    return indices, distances


def _grouped(
    points: np.ndarray,
    queries: np.ndarray,
    k: int,
    rng: np.random.Generator,
    run: Callable[..., None],
) -> Found:
    """Compare every query with the points of the lists nearest to the centre of its group."""
    shift = points.mean(axis=0)
    P = (points - shift).astype(np.float32)
    Q = (queries - shift).astype(np.float32)
    lists, groups = _Groups.of(P, rng, run), _Groups.of(Q, rng, run)
    ranked = groups.ranking(lists)
    sample = np.sort(rng.choice(len(Q), min(SAMPLE, len(Q)), replace=False))
    truth, reach = _all_distances(P, Q[sample], k, run)
    n_lists = min(groups.lists_needed(sample, lists.label[truth], ranked), MOST_LISTS)
    squares = np.einsum("ij,ij->i", P, P)
    indices = np.empty((len(Q), k), dtype=np.int64)
    distances = np.empty((len(Q), k))

    def one_group(number: int, _: Any) -> None:
        rows = groups.members(number)
        enough = np.searchsorted(np.cumsum(lists.sizes[ranked[number]]), k + SLACK) + 1
        chosen = ranked[number, : max(n_lists, enough)]
        candidates = np.concatenate([lists.members(which) for which in chosen])
        near, lengths = P.take(candidates, axis=0), squares[candidates]
        step = max(1, min(BLOCK, SCORES // len(candidates)))
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            score = (np.float32(-2) * Q[block]) @ near.T
            score += lengths
            best = candidates[_smallest(score, k + SLACK)]
            indices[block], distances[block] = _sorted(points, queries[block], best, k)

    run(one_group, range(len(groups.sizes)))
    # Another point at the same distance is as good a neighbour; reach is rounded to float32.
    recall = float((distances[sample] <= reach[:, -1:] * (1 + 1e-6)).mean())
    return Found(indices, distances, recall)


@dataclass(frozen=True)
class _Groups:
    """Rows by their nearest centre."""

    centers: np.ndarray
    label: np.ndarray  # of every row
    order: np.ndarray  # rows, group after group
    starts: np.ndarray  # where each group starts in `order`

    @property
    def sizes(self) -> np.ndarray:
        return np.diff(self.starts)

    def members(self, number: int) -> np.ndarray:
        return self.order[self.starts[number] : self.starts[number + 1]]

    def ranking(self, lists: _Groups) -> np.ndarray:
        """For each group, all lists by the distance of their centres."""
        between = (lists.centers**2).sum(axis=1) - 2 * (self.centers @ lists.centers.T)
        return np.argsort(between, axis=1, kind="stable").astype(np.int32)

    def lists_needed(self, rows: np.ndarray, hits: np.ndarray, ranked: np.ndarray) -> int:
        """Return how many lists hold `TARGET_RECALL` of the lists that some rows hit."""
        rank = np.empty_like(ranked)
        np.put_along_axis(rank, ranked, np.arange(ranked.shape[1], dtype=np.int32)[None], axis=1)
        needed = np.sort(rank[self.label[rows][:, None], hits], axis=None)
        return int(needed[int(np.ceil(TARGET_RECALL * needed.size)) - 1]) + 1

    @classmethod
    def of(cls, X: np.ndarray, rng: np.random.Generator, run: Callable[..., None]) -> _Groups:
        """Run k-means on a sample, then label every row."""
        count = max(1, round(2 * np.sqrt(len(X))))
        sample = X[np.sort(rng.choice(len(X), min(len(X), 32 * count), replace=False))]
        centers = kmeans(sample, count, rng=rng, run=run, n_iterations=6, tolerance=0)
        weights = np.ascontiguousarray(centers.T, dtype=np.float32)
        half = ((centers**2).sum(axis=1) / 2).astype(np.float32)
        label = np.empty(len(X), dtype=np.int32)

        def one_block(start: int, _: Any) -> None:
            score = X[start : start + BLOCK] @ weights
            score -= half
            label[start : start + BLOCK] = score.argmax(axis=1)

        run(one_block, range(0, len(X), BLOCK))
        used, label = np.unique(label, return_inverse=True)
        starts = np.concatenate([[0], np.cumsum(np.bincount(label))])
        return cls(centers[used], label, np.argsort(label, kind="stable"), starts)


def _smallest(score: np.ndarray, count: int) -> np.ndarray:
    """Return the columns of the `count` smallest of every row, in no order."""
    n_rows, n_columns = score.shape
    count = min(count, n_columns)
    near = max(4 * count, n_columns // 16)
    if n_columns < 4 * near:
        return np.argpartition(score, count - 1, axis=1)[:, :count]
    # The best of the first columns; of the others, few are better than the worst of these.
    first = np.argpartition(score[:, :near], count - 1, axis=1)[:, :count]
    bound = np.take_along_axis(score, first[:, -1:], axis=1)
    # Several times faster than np.nonzero of the matrix.
    row, column = np.divmod(np.flatnonzero(score[:, near:] < bound), n_columns - near)
    counts = np.bincount(row, minlength=n_rows)
    place = count + np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    width = count + int(counts.max())
    value = np.full((n_rows, width), np.inf, dtype=score.dtype)
    which = np.zeros((n_rows, width), dtype=np.int64)
    value[:, :count], which[:, :count] = np.take_along_axis(score, first, axis=1), first
    value[row, place], which[row, place] = score[row, near + column], near + column
    best = np.argpartition(value, count - 1, axis=1)[:, :count]
    return np.take_along_axis(which, best, axis=1)


def _sorted(
    points: np.ndarray, queries: np.ndarray, which: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest of some candidates per query, by distance, then by index."""
    which = np.sort(which, axis=1)
    difference = points.take(which, axis=0)
    difference -= queries[:, None]
    distance = np.sqrt(np.einsum("ijk,ijk->ij", difference, difference))
    best = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(which, best, axis=1), np.take_along_axis(distance, best, axis=1)
