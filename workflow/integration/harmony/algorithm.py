"""Harmony on arrays: ``harmonize(Z, batches, *, n_clusters=None, theta=2, ...)``."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from integration.batches import encode_keys
from integration.harmony import chunks
from integration.harmony.checks import (
    array_namespace,
    check_blocks,
    check_embedding,
    check_values,
)
from integration.harmony.correction import included_levels, ridge_regression
from integration.harmony.parameters import (
    DEFAULT_ALPHA,
    DEFAULT_PRUNE,
    Flavor,
    Parameters,
    check_parameters,
)
from integration.harmony.published import PublishedSoftClusters
from integration.harmony.soft_clusters import SoftClusters
from numerics.arrays import normalize_rows
from numerics.kmeans import Initialization, kmeans
from utils.log import progress
from utils.threads import available_memory, resolve_threads, workers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from integration.batches import Batches, NaBatch
    from integration.harmony.soft_clusters import Sums

MAX_MEMORY_SHARE = 0.6  # of the available memory that the similarities may take


@dataclass(frozen=True)
class Harmonized:
    """The result of `harmonize`.

    Attributes
    ----------
    corrected
        The corrected cells, shape (n_cells, n_dims).
    centroids
        Unit length, shape (n_clusters, n_dims).
    observed, expected
        R summed per batch and as expected by the batches' proportions, shape
        (n_levels, n_clusters).
    objective
        The objective at the start and after every iteration's clustering step.
    rounds
        Number of clustering passes of every iteration.
    converged
        Whether the objective's last relative fall was below the tolerance.
    batches, parameters
        The encoded batches and the parameters as they were used.
    mask
        Cells that took part, None where all did; the others (``mask``, and
        ``na_batch="drop"``) are NaN in ``corrected`` and absent everywhere else.
    soft_clusters
        The state from which R can be formed; None without ``keep_assignments``.
    """

    corrected: Any
    centroids: np.ndarray
    observed: np.ndarray
    expected: np.ndarray
    objective: list[float]
    rounds: list[int]
    converged: bool
    batches: Batches
    parameters: Parameters
    mask: np.ndarray | None
    soft_clusters: SoftClusters | PublishedSoftClusters | None

    def assignments(self) -> Any:
        """Form R, shape (n_cells, n_clusters); memory 4 bytes per element in float32."""
        if self.soft_clusters is None:
            raise ValueError("R was not kept; call harmonize with keep_assignments=True")
        return self.soft_clusters.assignments()


def harmonize(
    Z: Any,
    batches: Any | Sequence[Any],
    *,
    flavor: Flavor = "harmony2",
    n_clusters: int | None = None,
    max_iter_harmony: int | None = 10,
    max_iter_clustering: int = 5,
    early_stopping: bool = False,
    tol_harmony: float | None = 1e-2,
    tol_clustering: float = 1e-3,
    sigma: Any = 0.1,
    theta: Any = 2.0,
    tau: float = 0.0,
    alpha: float = DEFAULT_ALPHA,
    ridge_lambda: Any = 1.0,
    batch_prune_threshold: float | None = DEFAULT_PRUNE,
    block_proportion: float = 0.05,
    blocks: Any = None,
    init_centroids: Any = None,
    kmeans_init: Initialization = "k-means++",
    kmeans_iterations: int = 25,
    kmeans_tolerance: float = 0.01,
    kmeans_cells: int | None = None,
    num_init_iterations: int = 5,
    oversampling_factor: float = 1.0,
    combine_keys: bool = False,
    na_batch: NaBatch = "error",
    key_names: Sequence[str] | None = None,
    mask: np.ndarray | None = None,
    dtype: Any = np.float32,
    seed: int = 0,
    threads: int | None = None,
    chunk_size: int | None = None,
    chunk_size_kmeans: int | None = None,
    lean: bool | None = None,
    original: bool = False,
    keep_assignments: bool = False,
    verbose: bool = False,
) -> Harmonized:
    """Integrate the batches of an embedding with Harmony.

    Parameters
    ----------
    Z
        Embedding, shape (n_cells, n_dims), finite; NumPy, or CuPy to compute on the GPU.
    batches
        Batch labels, shape (n_cells,); several keys as a list or tuple of such arrays, or as an
        array of shape (n_cells, n_keys). Their levels are stacked.
    flavor
        "harmony2", as R's harmony 2, or "harmony1", the algorithm of Korsunsky 2019.
    n_clusters
        Number of clusters; None: one per 30 cells, at least 1, at most 100.
    max_iter_harmony
        Most iterations of clustering and correction; None: until convergence.
    max_iter_clustering
        Passes over all cells in a clustering step.
    early_stopping
        End a clustering step after its fifth or a later pass if the objective's sum over a
        window of three passes changes by less than ``tol_clustering``, relatively.
    tol_harmony
        Stop when the objective's relative fall is less than this; None: never.
    tol_clustering
        See ``early_stopping``.
    sigma
        Width of the soft clustering, a number or one per cluster; at least 0.0001.
    theta
        Weight of the diversity penalty: a number, one per key, or one per level. 0 takes the
        penalty away, not the correction.
    tau
        Discounts theta of small batches: theta (1 - exp(-(N_b / (K tau))^2)), as R.
    alpha
        Ridge penalty as a share of the expected count, between 0 and 1.
    ridge_lambda
        harmony1's ridge penalty: a number, one per key or per level; None or -1: as harmony2's.
    batch_prune_threshold
        harmony2 leaves a batch out of a cluster's regression when less than this share of its
        cells is in the cluster; below 1; None: never. One that leaves no cluster with two batches,
        so that nothing is corrected, is an error, with the default a warning.
    block_proportion
        Share of the cells that is updated at a time (below 40 cells at least 0.2).
    blocks
        The partition itself: a whole number per cell, worked through in ascending order.
    init_centroids
        Start from these, shape (n_clusters, n_dims), instead of from k-means; any length.
    kmeans_init
        "k-means++" as R (on real data a little closer to R's result than the others, and as
        quick on the sample that k-means sees), "random" as brisc, or "k-means||".
    kmeans_iterations, kmeans_tolerance
        Most iterations, and the relative fall of the squared distances at which to stop.
    kmeans_cells
        k-means sees a random sample of so many cells; None: 256 per cluster, at least 10,000.
    num_init_iterations, oversampling_factor
        k-means||: passes, and candidates per centroid.
    combine_keys
        Several keys: use each combination that occurs as one batch of a joint key.
    na_batch
        A missing label is an error ("error"), leaves the cell out ("drop"), or is a batch of its
        own ("own").
    key_names
        What messages call the keys.
    mask
        Cells that take part, booleans of shape (n_cells,); the others become NaN.
    dtype
        float32 or float64.
    seed
        Of k-means and of the blocks.
    threads
        None or -1: the cores that this process may use. The result does not depend on it.
    chunk_size, chunk_size_kmeans
        Most cells per task; None: 1024 and 4096, on a GPU 262,144.
    lean
        True rebuilds the similarities whenever they are needed, False keeps them; None keeps
        them where they fit into 60 % of the memory that is there. The result is the same.
    original
        Form R, and draw new blocks before every pass, as published; on one thread.
    keep_assignments
        Keep what is needed to form R later.
    verbose
        Show a progress bar.

    Returns
    -------
    The corrected cells, with everything else that Harmony computed.

    Raises
    ------
    TypeError, ValueError
        One line: what is wrong, what was found, what is allowed.

    Notes
    -----
    Peak memory beside ``Z``, with s = 4 bytes (float32): lean 2 n d s; otherwise n K s + 2 n d s
    (plus n d s with ``keep_assignments``), n cells, d dimensions, K clusters. Sources: Korsunsky
    2019 (harmony1), Patikas and Yao 2026 and R harmony 2.0.4 (harmony2).
    """
    xp = array_namespace(Z)
    n_cells = len(Z)
    encoded, mask = encode_keys(batches, n_cells, key_names, combine_keys, na_batch, mask)
    if original and threads not in (None, 1):
        raise ValueError("original=True runs on one thread; set threads=1")
    threads = 1 if xp is not np or original else resolve_threads(threads)
    sizes = chunks.CPU if xp is np else chunks.GPU
    cells = check_embedding(Z if mask is None else Z[xp.asarray(mask)], dtype, xp)
    parameters = check_parameters(
        len(cells),
        encoded,
        flavor=flavor,
        n_clusters=_n_clusters(n_clusters, init_centroids),
        max_iter_harmony=max_iter_harmony,
        max_iter_clustering=max_iter_clustering,
        early_stopping=early_stopping,
        tol_harmony=tol_harmony,
        tol_clustering=tol_clustering,
        sigma=sigma,
        theta=theta,
        tau=tau,
        alpha=alpha,
        ridge_lambda=ridge_lambda,
        batch_prune_threshold=batch_prune_threshold,
        block_proportion=block_proportion,
        kmeans_init=kmeans_init,
        kmeans_iterations=kmeans_iterations,
        kmeans_tolerance=kmeans_tolerance,
        kmeans_cells=kmeans_cells,
        num_init_iterations=num_init_iterations,
        oversampling_factor=oversampling_factor,
        chunk_size=sizes.rows if chunk_size is None else chunk_size,
        chunk_size_kmeans=sizes.kmeans_rows if chunk_size_kmeans is None else chunk_size_kmeans,
        seed=seed,
    )
    rng = np.random.default_rng(parameters.seed)
    scratch_shape = (parameters.chunk_size, parameters.n_clusters)
    with workers(threads, lambda: xp.empty(scratch_shape, cells.dtype)) as run:
        check_values(cells, parameters.chunk_size, run, xp)
        centroids = _start_centroids(cells, init_centroids, parameters, rng, run, xp)
        blocks = check_blocks(blocks, n_cells, mask)
        if original:
            clusters = PublishedSoftClusters(cells, encoded, parameters, rng, blocks)
        else:
            if blocks is None:
                blocks = chunks.draw_blocks(len(cells), parameters.block_proportion, rng)
            sizes = replace(sizes, rows=parameters.chunk_size)
            clusters = SoftClusters(
                cells,
                encoded,
                chunks.sort_cells(blocks, encoded.combinations, sizes),
                parameters,
                run,
                keep_similarities=not _is_lean(lean, cells, parameters, xp),
                keep_directions=keep_assignments,
                xp=xp,
            )
            del blocks
        corrected, centroids, objective, rounds, converged = _iterate(
            clusters, centroids, encoded, parameters, verbose
        )
    if mask is not None:
        all_cells = xp.full(Z.shape, np.nan, cells.dtype)
        all_cells[xp.asarray(mask)] = corrected
        corrected = all_cells
    return Harmonized(
        corrected=corrected,
        centroids=centroids,
        observed=clusters.observed,
        expected=clusters.expected,
        objective=objective,
        rounds=rounds,
        converged=converged,
        batches=encoded,
        parameters=parameters,
        mask=mask,
        soft_clusters=clusters if keep_assignments else None,
    )


def _iterate(
    clusters: SoftClusters | PublishedSoftClusters,
    centroids: np.ndarray,
    batches: Batches,
    parameters: Parameters,
    verbose: bool,
) -> tuple[Any, np.ndarray, list[float], list[int], bool]:
    """Alternate clustering and correction until the objective converges."""
    clusters.assign(centroids)
    objective, rounds = [clusters.objective()], []
    if max(batches.levels_per_key) == 1:
        warnings.warn("there is only one batch; the embedding is returned unchanged", stacklevel=4)
        return clusters.cells.copy(), centroids, objective, rounds, True
    is_harmony1 = parameters.flavor == "harmony1"
    sums = clusters.sums("directions") if is_harmony1 else None
    max_iter = parameters.max_iter_harmony
    any_corrected = False
    iterations = itertools.count(1) if max_iter is None else range(1, max_iter + 1)
    for iteration in progress(iterations, desc="Harmony", disable=not verbose):
        centroids, sums, n_passes, value = _clustering_step(clusters, centroids, sums, parameters)
        objective.append(value)
        rounds.append(n_passes)
        coefficients, intercepts, included = _regress(clusters, sums, batches, parameters)
        any_corrected |= bool(included.any())
        if not is_harmony1:
            centroids = _unit_length(intercepts, centroids)
        converged = _has_converged(objective, parameters.tol_harmony)
        if converged or iteration == max_iter:
            break
        if is_harmony1:
            sums = clusters.correct(coefficients)
        else:
            clusters.correct_and_assign(coefficients, centroids)
            sums = None
    if not any_corrected:
        _nothing_corrected(parameters.batch_prune_threshold)
    return clusters.corrected_cells(coefficients), centroids, objective, rounds, converged


def _has_converged(objective: list[float], tolerance: float | None) -> bool:
    """Compare the objective's last relative fall with the tolerance; None never converges."""
    previous, last = objective[-2:]
    return tolerance is not None and (previous - last) / abs(previous) < tolerance


def _clustering_step(
    clusters: SoftClusters | PublishedSoftClusters,
    centroids: np.ndarray,
    sums: np.ndarray | None,
    parameters: Parameters,
) -> tuple[np.ndarray, np.ndarray, int, float]:
    """Run a clustering step.

    harmony1 moves every centroid to the mean of its cells before each pass, ``sums`` being R'
    times the directions; harmony2 leaves the centroids where the correction put them.

    Returns the centroids, the regression's sums, the number of passes and the objective.
    """
    moves_centroids = sums is not None
    collect: Sums | None = "directions" if moves_centroids else None
    objective = []
    max_iter = parameters.max_iter_clustering
    for n_passes in range(1, max_iter + 1):
        if moves_centroids:
            centroids = _unit_length(sums, centroids)
        if n_passes == max_iter:
            collect = "cells"
        sums = clusters.update(centroids if moves_centroids else None, collect)
        if parameters.early_stopping:
            objective.append(clusters.objective())
            if _has_settled(objective, parameters.tol_clustering):
                break
    if collect != "cells":
        sums = clusters.sums("cells")
    return centroids, sums, n_passes, objective[-1] if objective else clusters.objective()


def _has_settled(objective: list[float], tolerance: float) -> bool:
    """Compare the sum of the last three values with that of the window before, from pass 5 on."""
    new, old = sum(objective[-3:]), sum(objective[-4:-1])
    return len(objective) > 4 and abs(old - new) / abs(old) < tolerance


def _regress(
    clusters: SoftClusters | PublishedSoftClusters,
    sums: np.ndarray,
    batches: Batches,
    parameters: Parameters,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Regress the cells on their batches.

    Returns the coefficients, the intercepts and the levels included in each cluster's regression.
    """
    if parameters.ridge_lambda is None:
        penalty = parameters.alpha * clusters.expected
    else:
        penalty = np.broadcast_to(parameters.ridge_lambda[:, None], clusters.expected.shape)
    included = included_levels(clusters.observed, batches, parameters.batch_prune_threshold)
    if parameters.flavor == "harmony1":
        included[...] = True
    coefficients, intercepts = ridge_regression(clusters.totals, sums, penalty, included, batches)
    return coefficients, intercepts, included


def _nothing_corrected(threshold: float | None) -> None:
    """Raise if the user's threshold prevented every correction; warn if the default did."""
    reason = (
        f"with batch_prune_threshold {threshold:g} no cluster has two batches left: nothing is "
        "corrected"
    )
    if threshold != DEFAULT_PRUNE:
        raise ValueError(f"{reason}; lower it (default: {DEFAULT_PRUNE:g})")
    warnings.warn(f"{reason}, the batches lie too far apart", stacklevel=5)


def _unit_length(vectors: np.ndarray, fallback: np.ndarray) -> np.ndarray:
    """Scale rows to length 1; a row of zeros is replaced by that of ``fallback``."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(lengths > 0, vectors / np.where(lengths > 0, lengths, 1), fallback)


def _n_clusters(n_clusters: int | None, init_centroids: Any) -> int | None:
    """Return the number of clusters asked for, by itself or by ``init_centroids``."""
    if init_centroids is None:
        return n_clusters
    if n_clusters not in (None, len(init_centroids)):
        raise ValueError(
            f"n_clusters is {n_clusters} but init_centroids has {len(init_centroids)} rows"
        )
    return len(init_centroids)


def _start_centroids(
    cells: Any,
    init_centroids: Any,
    parameters: Parameters,
    rng: np.random.Generator,
    run: Callable[..., None],
    xp: Any,
) -> np.ndarray:
    """Return unit-length centroids: the given ones, or those of k-means on a sample."""
    if init_centroids is not None:
        centroids = np.asarray(init_centroids, dtype=np.float64)
        shape = (parameters.n_clusters, cells.shape[1])
        if centroids.shape != shape or not np.isfinite(centroids).all():
            raise ValueError(
                f"init_centroids must be finite, of shape {shape}; found {centroids.shape}"
            )
        return _unit_length(centroids, centroids)
    sample = cells
    if parameters.kmeans_cells < len(cells):
        chosen = rng.choice(len(cells), parameters.kmeans_cells, replace=False)
        sample = cells[xp.asarray(np.sort(chosen))]
    centroids = kmeans(
        normalize_rows(sample, xp),
        parameters.n_clusters,
        rng=rng,
        run=run,
        init=parameters.kmeans_init,
        n_iterations=parameters.kmeans_iterations,
        tolerance=parameters.kmeans_tolerance,
        num_init_iterations=parameters.num_init_iterations,
        oversampling_factor=parameters.oversampling_factor,
        chunk_size=parameters.chunk_size_kmeans,
        xp=xp,
    )
    return _unit_length(centroids, centroids)


def _is_lean(lean: bool | None, cells: Any, parameters: Parameters, xp: Any) -> bool:
    """Decide whether to rebuild the similarities rather than keep them."""
    if parameters.flavor == "harmony1":
        return True  # the centroids move before every pass, so nothing kept would be used twice
    if lean is not None:
        return bool(lean)
    needed = len(cells) * (parameters.n_clusters + 2 * cells.shape[1]) * cells.dtype.itemsize
    available = available_memory() if xp is np else xp.cuda.Device().mem_info[0]
    return available is not None and needed > MAX_MEMORY_SHARE * available
