"""Harmony on arrays: ``harmonize(Z, batches, theta=4, ...)``."""

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
from integration.harmony.parameters import Parameters, check_parameters
from integration.harmony.published import PublishedSoftClusters
from integration.harmony.soft_clusters import SoftClusters
from integration.options import HarmonyOptions
from numerics.arrays import normalize_rows
from numerics.kmeans import kmeans
from utils.errors import unknown
from utils.log import progress
from utils.option_values import make_options
from utils.options import script_options
from utils.threads import available_memory, resolve_threads, workers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from integration.batches import EncodedBatches
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
    batches: EncodedBatches
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
    blocks: Any = None,
    init_centroids: Any = None,
    key_names: Sequence[str] | None = None,
    mask: np.ndarray | None = None,
    seed: int = 0,
    threads: int | None = None,
    keep_assignments: bool = False,
    verbose: bool = False,
    **options: Any,
) -> Harmonized:
    """Integrate the batches of an embedding with Harmony.

    Parameters
    ----------
    Z
        Embedding, shape (n_cells, n_dims), finite; NumPy, or CuPy to compute on the GPU.
    batches
        Batch labels, shape (n_cells,); several keys as a list or tuple of such arrays, or as an
        array of shape (n_cells, n_keys). Their levels are stacked.
    blocks
        The partition into blocks that are updated together: a whole number per cell, worked
        through in ascending order. None: drawn.
    init_centroids
        Start from these, shape (n_clusters, n_dims), instead of from k-means; any length.
    key_names
        Names of the keys in messages.
    mask
        Cells that take part, booleans of shape (n_cells,); the others become NaN.
    seed
        Seed of k-means and of the blocks.
    threads
        None or -1: the cores that this process may use. The result does not depend on it.
    keep_assignments
        Keep what is needed to form R later.
    verbose
        Show a progress bar.
    **options
        The options of `integration.options.HarmonyOptions`, which documents them. ``theta`` and
        ``ridge_lambda`` may also be one number per level, ``sigma`` one per cluster.

    Returns
    -------
    The corrected cells, the clusters and how the computation went.

    Raises
    ------
    TypeError, ValueError
        Invalid input, in one line: the argument, what was found and what is allowed.

    Notes
    -----
    Peak memory in addition to ``Z``, with s = 4 bytes (float32): lean 2 n d s; otherwise
    n K s + 2 n d s (plus n d s with ``keep_assignments``), n cells, d dimensions, K clusters.
    Sources: Korsunsky 2019 (harmony1), Patikas and Yao 2026 and R harmony 2.0.4 (harmony2).
    """
    xp = array_namespace(Z)
    n_cells = len(Z)
    options = _check_options(options, init_centroids)
    encoded, mask = encode_keys(
        batches, n_cells, key_names, options.combine_keys, options.na_batch, mask
    )
    if options.original and threads not in (None, 1):
        raise ValueError("original=True runs on one thread; set threads=1")
    threads = 1 if xp is not np or options.original else resolve_threads(threads)
    sizes = chunks.CPU if xp is np else chunks.GPU
    cells = check_embedding(Z if mask is None else Z[xp.asarray(mask)], options.dtype, xp)
    parameters = check_parameters(len(cells), encoded, options, seed=seed, sizes=sizes)
    rng = np.random.default_rng(parameters.seed)
    scratch_shape = (parameters.chunk_size, parameters.n_clusters)
    with workers(threads, lambda: xp.empty(scratch_shape, cells.dtype)) as run:
        check_values(cells, parameters.chunk_size, run, xp)
        centroids = _start_centroids(cells, init_centroids, parameters, rng, run, xp)
        blocks = check_blocks(blocks, n_cells, mask)
        if options.original:
            clusters = PublishedSoftClusters(cells, encoded, parameters, rng, blocks)
        else:
            if blocks is None:
                blocks = chunks.draw_blocks(len(cells), parameters.block_proportion, rng)
            sizes = replace(sizes, rows=parameters.chunk_size)
            clusters = SoftClusters(
                cells,
                encoded,
                chunks.sort_cells(blocks, encoded.combinations, sizes, xp),
                parameters,
                run,
                keep_similarities=not _is_lean(options.lean, cells, parameters, xp),
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
    batches: EncodedBatches,
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
    batches: EncodedBatches,
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
    if threshold != HarmonyOptions.batch_prune_threshold:
        raise ValueError(f"{reason}; lower it (default: {HarmonyOptions.batch_prune_threshold:g})")
    warnings.warn(f"{reason}, the batches lie too far apart", stacklevel=5)


def _unit_length(vectors: np.ndarray, fallback: np.ndarray) -> np.ndarray:
    """Scale rows to length 1; a row of zeros is replaced by that of ``fallback``."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(lengths > 0, vectors / np.where(lengths > 0, lengths, 1), fallback)


def _check_options(values: dict[str, Any], init_centroids: Any) -> HarmonyOptions:
    """Check the options, which may come as NumPy numbers, arrays and types."""
    if unknown_names := [name for name in values if name not in script_options(HarmonyOptions)]:
        names = script_options(HarmonyOptions)
        raise TypeError(unknown("option of Harmony", unknown_names[0], names))
    values = {name: to_plain(value) for name, value in values.items()}
    if init_centroids is not None:
        n_clusters = values.setdefault("n_clusters", len(init_centroids))
        if n_clusters != len(init_centroids):
            raise ValueError(
                f"n_clusters is {n_clusters} but init_centroids has {len(init_centroids)} rows"
            )
    return make_options(HarmonyOptions, values, together=False)


def to_plain(value: Any) -> Any:
    """Turn a value of NumPy, or a list of these, into one of Python."""
    if isinstance(value, type | np.dtype):
        return np.dtype(value).name
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


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
