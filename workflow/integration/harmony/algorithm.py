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
    check_cells,
    check_values,
)
from integration.harmony.correction import kept_levels, ridge_penalty, ridge_regression
from integration.harmony.paper import PaperClustering
from integration.harmony.parameters import (
    DEFAULT_ALPHA,
    DEFAULT_PRUNE,
    Flavor,
    Parameters,
    check_parameters,
)
from integration.harmony.soft_clusters import Clustering, normalize_rows
from numerics.kmeans import Initialization, kmeans
from utils import threads as parallel
from utils.log import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from integration.batches import Batches, NaBatch

KEEP_SHARE = 0.6  # of the available memory that the similarities may take


@dataclass(frozen=True)
class Harmonized:
    """What Harmony computed.

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
        Clustering passes of every iteration.
    converged
        Whether the last fall of the objective was below the tolerance.
    batches, parameters
        The encoded batches and the parameters in the form in which they were used.
    kept
        Mask of the cells that took part, None where all did; the others (``mask``, and
        ``na_batch="drop"``) are NaN in ``corrected`` and absent everywhere else.
    clustering
        The state from which R can be formed; None unless asked for.
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
    kept: np.ndarray | None
    clustering: Clustering | PaperClustering | None

    def assignments(self) -> Any:
        """Form R, shape (n_cells, n_clusters); memory 4 bytes per element in float32."""
        if self.clustering is None:
            raise ValueError("R was not asked for; call harmonize with keep_assignments=True")
        return self.clustering.assignments()


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
    encoded, kept = encode_keys(batches, n_cells, key_names, combine_keys, na_batch, mask)
    if original and threads not in (None, 1):
        raise ValueError("original=True runs on one thread; set threads=1")
    threads = 1 if xp is not np or original else parallel.resolve_threads(threads)
    portions = chunks.CPU if xp is np else chunks.GPU
    cells = check_cells(Z if kept is None else Z[xp.asarray(kept)], dtype, xp)
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
        chunk_size=portions.chunk if chunk_size is None else chunk_size,
        chunk_size_kmeans=portions.kmeans if chunk_size_kmeans is None else chunk_size_kmeans,
        seed=seed,
    )
    rng = np.random.default_rng(parameters.seed)
    scratch_shape = (parameters.chunk_size, parameters.n_clusters)
    with parallel.workers(threads, lambda: xp.empty(scratch_shape, cells.dtype)) as run:
        check_values(cells, parameters.chunk_size, run, xp)
        centroids = _start_centroids(cells, init_centroids, parameters, rng, run, xp)
        blocks = check_blocks(blocks, n_cells, kept)
        if original:
            clustering = PaperClustering(cells, encoded, parameters, rng, blocks)
        else:
            if blocks is None:
                blocks = chunks.draw_blocks(len(cells), parameters.block_proportion, rng)
            clustering = Clustering(
                cells,
                encoded,
                chunks.sort_cells(
                    blocks, encoded.combinations, replace(portions, chunk=parameters.chunk_size)
                ),
                parameters,
                run,
                keep_similarities=not _is_lean(lean, cells, parameters, xp),
                keep_directions=keep_assignments,
                xp=xp,
            )
            del blocks
        corrected, centroids, objective, rounds, converged = _iterate(
            clustering, centroids, encoded, parameters, verbose
        )
    if kept is not None:
        whole = xp.full(Z.shape, np.nan, cells.dtype)
        whole[xp.asarray(kept)] = corrected
        corrected = whole
    return Harmonized(
        corrected=corrected,
        centroids=centroids,
        observed=clustering.observed,
        expected=clustering.expected,
        objective=objective,
        rounds=rounds,
        converged=converged,
        batches=encoded,
        parameters=parameters,
        kept=kept,
        clustering=clustering if keep_assignments else None,
    )


def _iterate(
    clustering: Clustering | PaperClustering,
    centroids: np.ndarray,
    batches: Batches,
    parameters: Parameters,
    verbose: bool,
) -> tuple[Any, np.ndarray, list[float], list[int], bool]:
    """Alternate clustering and correction until the objective settles."""
    clustering.start(centroids)
    objective, rounds = [clustering.objective()], []
    if max(batches.levels_per_key) == 1:
        warnings.warn("there is only one batch; the embedding is returned as it is", stacklevel=4)
        return clustering.cells.copy(), centroids, objective, rounds, True
    sums = clustering.direction_sums() if parameters.flavor == "harmony1" else None
    most = parameters.max_iter_harmony
    corrects = False
    iterations = itertools.count(1) if most is None else range(1, most + 1)
    for iteration in progress(iterations, desc="Harmony", disable=not verbose):
        centroids, sums, n_rounds, value = _cluster(clustering, centroids, sums, parameters)
        objective.append(value)
        rounds.append(n_rounds)
        coefficients, intercepts, some = _correction(clustering, sums, batches, parameters)
        corrects |= some
        fall = (objective[-2] - value) / abs(objective[-2])
        converged = parameters.tol_harmony is not None and fall < parameters.tol_harmony
        last = converged or iteration == most
        if parameters.flavor == "harmony2":
            centroids = _unit_length(intercepts, centroids)
        if last:
            break
        if parameters.flavor == "harmony2":
            clustering.move(coefficients, centroids)
            sums = None
        else:
            sums = clustering.carry(coefficients)
    if not corrects:
        _nothing_corrected(parameters.batch_prune_threshold)
    return clustering.finish(coefficients), centroids, objective, rounds, converged


def _cluster(
    clustering: Clustering | PaperClustering,
    centroids: np.ndarray,
    sums: np.ndarray | None,
    parameters: Parameters,
) -> tuple[np.ndarray, np.ndarray, int, float]:
    """Run a clustering step.

    harmony1 places every centroid in the middle of its cells before each pass, ``sums`` being
    R' times the directions; harmony2 leaves the centroids where the correction put them.

    Returns the centroids, the regression's sums, the number of passes and the objective.
    """
    values = []
    between = None if sums is None else "directions"
    most = parameters.max_iter_clustering
    for n_rounds in range(1, most + 1):
        if between:
            centroids = _unit_length(sums, centroids)
        sums = clustering.update(
            centroids if between else None, "cells" if n_rounds == most else between
        )
        if parameters.early_stopping:
            values.append(clustering.objective())
            if n_rounds > 4 and _settled(values, parameters.tol_clustering):
                break
    if n_rounds < most:
        sums = clustering.regression_sums()
    return centroids, sums, n_rounds, values[-1] if values else clustering.objective()


def _settled(values: list[float], tolerance: float) -> bool:
    """Compare the last three values' sum with that of the window one earlier."""
    new, old = sum(values[-3:]), sum(values[-4:-1])
    return abs(old - new) / abs(old) < tolerance


def _correction(
    clustering: Clustering | PaperClustering,
    sums: np.ndarray,
    batches: Batches,
    parameters: Parameters,
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Regress the cells on their batches.

    Returns the coefficients, the intercepts, and whether any cluster keeps two batches.
    """
    penalty = ridge_penalty(
        clustering.expected, alpha=parameters.alpha, ridge_lambda=parameters.ridge_lambda
    )
    kept = kept_levels(clustering.observed, batches, parameters.batch_prune_threshold)
    if parameters.flavor == "harmony1":
        kept[...] = True
    coefficients, intercepts = ridge_regression(clustering.totals, sums, penalty, kept, batches)
    return coefficients, intercepts, bool(kept.any())


def _nothing_corrected(threshold: float | None) -> None:
    text = f"with batch_prune_threshold {threshold:g} no cluster has two batches left: nothing is"
    if threshold != DEFAULT_PRUNE:
        raise ValueError(f"{text} corrected; lower it (default: {DEFAULT_PRUNE:g})")
    warnings.warn(f"{text} corrected, the batches lie too far apart", stacklevel=5)


def _unit_length(vectors: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Scale rows to length 1; a row of zeros is replaced by that of ``otherwise``."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(lengths > 0, vectors / np.where(lengths > 0, lengths, 1), otherwise)


def _n_clusters(n_clusters: int | None, init_centroids: Any) -> int | None:
    if init_centroids is None:
        return n_clusters
    found = len(init_centroids)
    if n_clusters is not None and n_clusters != found:
        raise ValueError(f"n_clusters is {n_clusters} but init_centroids has {found} rows")
    return found


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
        expected = (parameters.n_clusters, cells.shape[1])
        if centroids.shape != expected or not np.isfinite(centroids).all():
            raise ValueError(
                f"init_centroids must be finite, of shape {expected}; found {centroids.shape}"
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
    available = parallel.available_memory()
    if xp is not np:
        available = xp.cuda.Device().mem_info[0]
    return available is not None and needed > KEEP_SHARE * available
