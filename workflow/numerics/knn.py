"""Nearest neighbors: exact for few cells, an inverted file for many."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from numerics.knn_kernel import scan, sort_exactly
from utils.log import progress
from utils.threads import one_blas_thread, ordered_map

METRICS = ("euclidean", "cosine")
# Up to here the exact search is about as fast as the approximate one (test/bench/RESULTS.md).
EXACT_UP_TO = 8_192
# The approximate search reads as many lists as this share of the true neighbors requires.
TARGET_RECALL = 0.999
# Lists read at most: in data without any structure it would be all of them.
MAX_PROBES = 256
# Cells on which the number of lists and the recall are measured.
SAMPLED_CELLS = 1000
# Queries of a block; bounds the memory, must not depend on the number of threads.
N_QUERIES = 256


@dataclass(frozen=True)
class NearestNeighbors:
    """Nearest neighbors of every cell, the cell itself left out.

    Attributes
    ----------
    indices
        int32, cells x (n_neighbors - 1), each row by distance, then by index.
    distances
        float32, of the same shape.
    method
        ``exact`` or ``ivf`` (inverted file: cells are listed by nearest centroid).
    recall
        Share of the true neighbors found, for 1000 sampled cells; None where exact.
    """

    indices: np.ndarray
    distances: np.ndarray
    method: Literal["exact", "ivf"]
    recall: float | None


def finite_rows(X: np.ndarray) -> np.ndarray:
    """Return which rows of `X` have no NaN and no infinity, bool of shape (cells,)."""
    return np.isfinite(X).all(axis=1)


def nearest_neighbors(
    X: np.ndarray,
    n_neighbors: int,
    *,
    metric: str = "euclidean",
    threads: int = 1,
    seed: int = 0,
) -> NearestNeighbors:
    """Find the nearest neighbors of every cell.

    Cells are listed by nearest k-means centroid (an inverted file), and each is compared to the
    cells in the lists of the centroids nearest to it; cells of one list are searched together, so
    that the distances are matrix products. Up to `EXACT_UP_TO` cells the candidates are all cells.
    Above, `SAMPLED_CELLS` determine how many lists `TARGET_RECALL` requires, and measure the recall
    that was reached.

    Parameters
    ----------
    X
        Cells x dimensions.
    n_neighbors
        Neighbors per cell, itself included (scanpy's meaning); at most the number of cells.
    metric
        ``euclidean``, or ``cosine`` (one minus the cosine).
    threads
        Blocks that are searched at a time; the result does not depend on it.
    seed
        Of the k-means and the sample.

    Returns
    -------
    NearestNeighbors
        Indices and distances without the cell itself.

    Raises
    ------
    ValueError
        If there are fewer than 3 cells, rows with NaN or infinity, numbers so large that distances
        overflow, all-zero rows with the cosine, or if n_neighbors is below 2.

    Notes
    -----
    Peak memory: two copies of X in float32, the result, and four squares of the number of lists,
    which is 2 sqrt(cells).
    """
    # The blocks run beside each other, so the matrix product inside one takes one thread.
    with one_blas_thread():
        return search(X, n_neighbors, metric=metric, threads=threads, seed=seed)


def search(
    X: np.ndarray,
    n_neighbors: int,
    *,
    metric: str = "euclidean",
    threads: int = 1,
    seed: int = 0,
    quiet: bool = False,
) -> NearestNeighbors:
    """Do what `nearest_neighbors` does, for a caller that already limits BLAS to one thread."""
    check_search(n_neighbors, metric, threads)
    X = _checked(X, metric)
    n = len(X)
    k = min(n_neighbors, n) - 1
    rng = np.random.default_rng(seed)
    # Distances do not change, but the matrix product loses fewer digits.
    X = X - X.mean(axis=0, dtype=np.float64).astype(np.float32)
    if n <= EXACT_UP_TO:
        rows = np.arange(n, dtype=np.int32)
        indices, distances = exact(Lists.one(X), X, rows, k, threads)
        return NearestNeighbors(indices, _as_metric(distances, metric), "exact", None)
    lists = Lists.build(X, rng, threads)
    del X
    indices, distances, recall = look_up(lists, k, rng=rng, threads=threads, quiet=quiet)
    return NearestNeighbors(indices, _as_metric(distances, metric), "ivf", recall)


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
        raise ValueError(f"neighbors need cells x dimensions, found an array of shape {X.shape}")
    if len(X) < 3:
        raise ValueError(f"neighbors need at least 3 cells, found {len(X)}")
    bad = int((~finite_rows(X)).sum())
    if bad:
        raise ValueError(
            f"{bad} of {len(X)} cells have NaN or infinite coordinates; leave them out "
            "(finite_rows finds them)"
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
class Lists:
    """Cells grouped by nearest centroid."""

    order: np.ndarray  # cells, list after list
    starts: np.ndarray  # where each list starts in `order`
    X: np.ndarray  # coordinates in this order
    half: np.ndarray  # half their squared lengths
    centers: np.ndarray
    ranked: np.ndarray  # for each list, all lists by the distance of their centroids

    @property
    def count(self) -> int:
        return len(self.starts) - 1

    def scan(
        self, near: np.ndarray, probes: int, places: np.ndarray, itself: np.ndarray, k: int
    ) -> np.ndarray:
        """Return the k nearest cells, and some more, of some places among the lists `near`."""
        probes, centers = min(probes, len(near)), self.centers[near]
        return scan(self.X, self.half, self.starts, near, centers, probes, places, itself, k)

    def probes_for(
        self, places: np.ndarray, list_of_place: np.ndarray, neighbors: np.ndarray, share: float
    ) -> tuple[int, int]:
        """Return how many lists contain `share` of the true neighbors of some places.

        The first number counts the lists nearest to the place itself, the second the lists nearest
        to the list of the place, which include these.
        """
        of_cell = np.empty(len(self.order), dtype=np.int32)
        of_cell[self.order] = np.repeat(np.arange(self.count, dtype=np.int32), np.diff(self.starts))
        score = np.einsum("ij,ij->i", self.centers, self.centers) / 2
        score = score - places @ self.centers.T
        by_place = np.argsort(score, axis=1, kind="stable")
        rank = np.argsort(by_place, axis=1)
        needed = np.take_along_axis(rank, of_cell[neighbors], axis=1)
        probes = min(_reaching(needed, share), MAX_PROBES)
        position = np.empty_like(self.ranked)
        np.put_along_axis(
            position, self.ranked, np.arange(self.count, dtype=np.int32)[None], axis=1
        )
        ranks = position[list_of_place[:, None], by_place[:, :probes]]
        return probes, max(probes, _reaching(ranks, share))

    @classmethod
    def one(cls, X: np.ndarray) -> Lists:
        """Return a single list of all cells."""
        n = len(X)
        half = np.einsum("ij,ij->i", X, X) / 2
        itself = np.zeros((1, 1), dtype=np.int32)
        return cls(np.arange(n, dtype=np.int32), np.array([0, n]), X, half, X[:1], itself)

    @classmethod
    def build(cls, X: np.ndarray, rng: np.random.Generator, threads: int) -> Lists:
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
        # Long ones, such as thousands of equal cells, would cost their square: they are cut.
        place = np.empty(n, dtype=np.int64)
        place[order] = np.arange(n) - starts[of_cell[order]]
        part = of_cell.astype(np.int64) * n + place // (8 * count)
        parts, of_cell = np.unique(part, return_inverse=True)
        centers = centers[used[parts // n]]
        starts = np.concatenate([[0], np.cumsum(np.bincount(of_cell))])
        norms = np.einsum("ij,ij->i", centers, centers)
        between = norms - 2 * (centers @ centers.T)
        np.fill_diagonal(between, -np.inf)  # a list is nearest to itself, even if centroids agree
        ranked = np.argsort(between, axis=1, kind="stable").astype(np.int32)
        X = X[order]
        return cls(order, starts, X, np.einsum("ij,ij->i", X, X) / 2, centers, ranked)


def _reaching(ranks: np.ndarray, share: float) -> int:
    """Return below which number a share of some ranks lies."""
    return int(np.sort(ranks, axis=None)[int(np.ceil(share * ranks.size)) - 1]) + 1


def _assign(X: np.ndarray, centers: np.ndarray, threads: int) -> np.ndarray:
    """Return the nearest center of each row."""
    half_norms = np.einsum("ij,ij->i", centers, centers) / 2
    result = np.empty(len(X), dtype=np.int32)

    def one_block(start: int) -> None:
        score = X[start : start + N_QUERIES] @ centers.T
        score -= half_norms
        result[start : start + N_QUERIES] = score.argmax(axis=1)

    list(ordered_map(one_block, range(0, len(X), N_QUERIES), threads=threads))
    return result


def _means(X: np.ndarray, labels: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Return the mean of each group; an empty one keeps its center."""
    import scipy.sparse as sp

    counts = np.bincount(labels, minlength=len(centers))
    member = (np.ones(len(X), np.float32), (labels, np.arange(len(X))))
    sums = sp.csr_matrix(member, shape=(len(centers), len(X))) @ X
    nonempty = counts > 0
    centers = centers.copy()
    centers[nonempty] = sums[nonempty] / counts[nonempty, None].astype(np.float32)
    return centers


def exact(
    lists: Lists, places: np.ndarray, itself: np.ndarray, k: int, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest of all cells for each place; `itself` as for `scan`."""
    indices = np.empty((len(places), k), dtype=np.int32)
    distances = np.empty((len(places), k), dtype=lists.X.dtype)
    all_lists = np.arange(lists.count, dtype=np.int32)

    def one_block(start: int) -> None:
        rows = slice(start, start + N_QUERIES)
        candidates = lists.scan(all_lists, lists.count, places[rows], itself[rows], k)
        indices[rows], distances[rows] = sort_exactly(
            lists.X, lists.order, places[rows], candidates, k
        )

    list(ordered_map(one_block, range(0, len(places), N_QUERIES), threads=threads))
    _check_overflow(distances)
    return indices, distances


def _check_overflow(distances: np.ndarray) -> None:
    """Raise a ValueError where coordinates were so large that their products overflow."""
    bad = int((~np.isfinite(distances[:, -1])).sum())
    if bad:
        raise ValueError(
            f"{bad} of {len(distances)} cells have coordinates too large for distances in "
            f"{distances.dtype}; scale the embedding, or leave these cells out"
        )


def look_up(
    lists: Lists,
    k: int,
    *,
    places: np.ndarray | None = None,
    precise: tuple[np.ndarray, np.ndarray] | None = None,
    rng: np.random.Generator,
    threads: int,
    quiet: bool = True,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the nearest cells in the lists near each place, their distances, and the recall.

    Parameters
    ----------
    lists
        The cells, float32.
    k
        Neighbors of each place.
    places
        Places x dimensions, float32; None for the cells themselves, each without itself.
    precise
        Cells and places in float64, each in its order: the candidates are ranked by these, and the
        distances are float64.
    rng, threads, quiet
        See `search`.
    """
    if places is None:
        places, into, starts = lists.X, lists.order, lists.starts
        rows = itself = np.arange(len(places), dtype=np.int32)
    else:
        # Places that share a nearest centroid are searched together.
        label = _assign(places, lists.centers, threads)
        rows = into = np.argsort(label, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(label, minlength=lists.count))])
        itself = np.full(len(places), -1, dtype=np.int32)
    n = len(places)
    indices = np.empty((n, k), dtype=np.int32 if precise is None else np.int64)
    distances = np.empty((n, k), dtype=np.float32 if precise is None else np.float64)
    all_cells = np.arange(len(lists.order), dtype=np.int32)

    def search_block(near: np.ndarray, probes: int, block: np.ndarray) -> None:
        queries = places[rows[block]]
        candidates = lists.scan(near, probes, queries, itself[block], k)
        if precise is None:
            result = sort_exactly(lists.X, lists.order, queries, candidates, k)
        else:
            candidates = np.where(candidates < 0, candidates, lists.order[candidates])
            result = sort_exactly(precise[0], all_cells, precise[1][into[block]], candidates, k)
        indices[into[block]], distances[into[block]] = result

    sample = np.sort(rng.choice(n, min(n, SAMPLED_CELLS), replace=False))
    truth, reach = exact(lists, places[rows[sample]], itself[sample], k, threads)
    group = np.searchsorted(starts, sample, side="right") - 1
    probes, width = lists.probes_for(places[rows[sample]], group, truth, TARGET_RECALL)

    def one_group(number: int) -> None:
        members = np.arange(starts[number], starts[number + 1])
        for start in range(0, len(members), N_QUERIES):
            search_block(lists.ranked[number, :width], probes, members[start : start + N_QUERIES])

    done = ordered_map(one_group, range(lists.count), threads=threads)
    for _ in progress(done, desc="neighbors", total=lists.count, disable=quiet):
        pass
    # Too few candidates leave holes, a handful of places in odd data: these read all lists.
    holes = np.flatnonzero(~np.isfinite(distances[into, -1]))
    blocks = [holes[start : start + N_QUERIES] for start in range(0, len(holes), N_QUERIES)]
    all_lists = np.arange(lists.count, dtype=np.int32)
    fill = partial(search_block, all_lists, lists.count)
    list(ordered_map(fill, blocks, threads=threads))
    _check_overflow(distances)
    # Another cell at the same distance is as good a neighbor; reach is rounded to float32.
    is_true = distances[into[sample]] <= reach[:, -1:] * np.float32(1 + 1e-6)
    return indices, distances, float(is_true.mean())
