"""k-means clustering, with k-means++ and k-means|| initialization."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from numerics.arrays import to_host

if TYPE_CHECKING:
    from collections.abc import Callable


def kmeans(
    points: Any,
    n_clusters: int,
    *,
    rng: np.random.Generator,
    run: Callable[..., None],
    init: Literal["random", "k-means++", "k-means||"],
    n_iterations: int = 25,
    tolerance: float = 0.01,
    num_init_iterations: int | None = None,
    oversampling_factor: float | None = None,
    chunk_size: int = 4096,
    xp: Any = np,
) -> np.ndarray:
    """Cluster points with Lloyd's k-means.

    Parameters
    ----------
    points
        Shape (n_points, n_dims), floating point, on the device of ``xp``.
    n_clusters
        Number of centroids, at most n_points.
    rng
        Source of the random choices.
    run
        Runs a function over chunks, see `utils.threads.workers`.
    init
        "random" draws distinct points; "k-means++" draws each next centroid in proportion to the
        squared distance to those drawn; "k-means||" (Bahmani 2012) oversamples in a few passes and
        runs k-means++ on the weighted candidates.
    n_iterations
        Most iterations.
    tolerance
        Stop when the sum of squared distances falls by at most this share.
    num_init_iterations, oversampling_factor
        k-means||, which needs both: passes, and candidates of all passes as a multiple of
        ``n_clusters``.
    chunk_size
        Points per task.
    xp
        Array namespace, NumPy or CuPy.

    Returns
    -------
    Centroids, shape (n_clusters, n_dims), float64, not normalized. A centroid that loses all its
    points stays where it was.
    """
    n_points = len(points)
    chunks = [
        slice(start, min(start + chunk_size, n_points)) for start in range(0, n_points, chunk_size)
    ]
    if init == "random":
        chosen = rng.choice(n_points, n_clusters, replace=False)
        centroids = to_host(points[xp.asarray(np.sort(chosen))]).astype(np.float64)
    elif init == "k-means++":
        centroids = _kmeans_plusplus(to_host(points), np.ones(n_points), n_clusters, rng)
    else:
        centroids = _kmeans_parallel(
            points, n_clusters, rng, run, chunks, num_init_iterations, oversampling_factor, xp
        )
    squares = 0.0
    for rows in chunks:
        squares += float((points[rows] * points[rows]).sum())
    inertia = np.inf
    for _ in range(n_iterations):
        sums, counts, distance = _lloyd_step(points, centroids, run, chunks, xp)
        occupied = counts > 0
        centroids[occupied] = sums[occupied] / counts[occupied, None]
        previous, inertia = inertia, max(squares + distance, 0.0)
        if previous - inertia <= tolerance * inertia:
            break
    return centroids


def _lloyd_step(
    points: Any, centroids: np.ndarray, run: Callable[..., None], chunks: list[slice], xp: Any
) -> tuple[np.ndarray, np.ndarray, float]:
    """Assign all points; return sums and counts per centroid and sum(|c|^2 - 2 p.c)."""
    weights = xp.asarray(np.ascontiguousarray(-2 * centroids.T), dtype=points.dtype)
    lengths = xp.asarray((centroids**2).sum(axis=1), dtype=points.dtype)
    sums = np.zeros_like(centroids)
    counts = np.zeros(len(centroids))
    total = 0.0

    def step(rows: slice, _: Any) -> tuple[np.ndarray, np.ndarray, float]:
        part = points[rows]
        distance = part @ weights
        distance += lengths
        nearest = distance.argmin(axis=1)
        index = xp.arange(len(part))
        closest = float(distance[index, nearest].sum(dtype=np.float64))
        distance[...] = 0
        distance[index, nearest] = 1  # reused as the one-hot assignment
        count = xp.bincount(nearest, minlength=len(centroids))
        return to_host(distance.T @ part), to_host(count), closest

    def add(_: slice, result: tuple[np.ndarray, np.ndarray, float]) -> None:
        nonlocal total
        np.add(sums, result[0], out=sums)
        np.add(counts, result[1], out=counts)
        total += result[2]

    run(step, chunks, add)
    return sums, counts, total


def _nearest_distance(
    points: Any, centroids: np.ndarray, run: Callable[..., None], chunks: list[slice], xp: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return every point's squared distance to its nearest centroid, and that one's index."""
    weights = xp.asarray(np.ascontiguousarray(-2 * centroids.T), dtype=points.dtype)
    lengths = xp.asarray((centroids**2).sum(axis=1), dtype=points.dtype)
    distances = np.empty(len(points))
    nearest = np.empty(len(points), dtype=np.intp)

    def step(rows: slice, _: Any) -> None:
        part = points[rows]
        distance = part @ weights + lengths
        best = distance.argmin(axis=1)
        smallest = distance[xp.arange(len(part)), best] + (part * part).sum(axis=1)
        distances[rows] = to_host(smallest)
        nearest[rows] = to_host(best)

    run(step, chunks)
    return np.maximum(distances, 0), nearest


def _draw(weights: np.ndarray, rng: np.random.Generator) -> int:
    """Draw one index with probability proportional to ``weights``; uniform if all are zero."""
    cumulative = np.cumsum(weights)
    if cumulative[-1] <= 0:
        return int(rng.integers(len(weights)))
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))


def _kmeans_plusplus(
    points: np.ndarray, weights: np.ndarray, n_clusters: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw centroids from weighted points by k-means++ (Arthur and Vassilvitskii 2007)."""
    centroids = np.empty((n_clusters, points.shape[1]))
    squares = (points * points).sum(axis=1)
    centroids[0] = points[_draw(weights, rng)]
    distance = np.full(len(points), np.inf)
    for number in range(1, n_clusters):
        last = centroids[number - 1]
        to_last = points @ (-2 * last).astype(points.dtype)
        to_last += squares + last @ last
        np.minimum(distance, np.maximum(to_last, 0), out=distance)
        centroids[number] = points[_draw(distance * weights, rng)]
    return centroids


def _kmeans_parallel(
    points: Any,
    n_clusters: int,
    rng: np.random.Generator,
    run: Callable[..., None],
    chunks: list[slice],
    num_init_iterations: int,
    oversampling_factor: float,
    xp: Any,
) -> np.ndarray:
    """Draw centroids by k-means||: oversampled candidates, then k-means++ on these."""
    per_pass = oversampling_factor * n_clusters / num_init_iterations
    candidates = to_host(points[[int(rng.integers(len(points)))]]).astype(np.float64)
    for _ in range(num_init_iterations):
        distance, _ = _nearest_distance(points, candidates, run, chunks, xp)
        total = distance.sum()
        if total <= 0:
            break
        drawn = np.flatnonzero(rng.random(len(points)) < per_pass * distance / total)
        candidates = np.concatenate([candidates, to_host(points[xp.asarray(drawn)])])
    if len(candidates) < n_clusters:  # few passes or few distinct points: fill up at random
        drawn = np.sort(rng.choice(len(points), n_clusters - len(candidates), replace=False))
        candidates = np.concatenate([candidates, to_host(points[xp.asarray(drawn)])])
    _, nearest = _nearest_distance(points, candidates, run, chunks, xp)
    weights = np.bincount(nearest, minlength=len(candidates)).astype(np.float64)
    return _kmeans_plusplus(candidates, weights, n_clusters, rng)
