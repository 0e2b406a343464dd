"""Harmony's options for some cells and batches, and what other packages call them.

===================== ============================ ======================== =====================
here                  brisc (harmonize)            rapids (harmony_integr.) harmonypy
===================== ============================ ======================== =====================
flavor                --                           flavor                   --
n_clusters            num_clusters                 n_clusters               nclust
max_iter_harmony      max_iterations               max_iter_harmony         max_iter_harmony
max_iter_clustering   max_clustering_iterations    max_iter_clustering      max_iter_kmeans
early_stopping        early_stopping               --                       --
tol_harmony           tolerance                    tol_harmony              epsilon_harmony
tol_clustering        clustering_tolerance         tol_clustering           epsilon_cluster
sigma                 sigma                        sigma                    sigma
theta                 theta                        theta                    theta
tau                   tau                          tau                      tau
alpha                 alpha                        alpha                    alpha
ridge_lambda          --                           ridge_lambda             lamb
batch_prune_threshold --                           batch_prune_threshold    batch_prop_cutoff
block_proportion      block_proportion             block_proportion         block_size
kmeans_init           kmeans_barbar                --                       --
kmeans_iterations     num_kmeans_iterations        --                       --
kmeans_tolerance      kmeans_tolerance             --                       --
num_init_iterations   num_init_iterations          --                       --
oversampling_factor   oversampling_factor          --                       --
chunk_size            chunk_size_Harmony           --                       --
chunk_size_kmeans     chunk_size_kmeans            --                       --
seed                  seed                         random_state             random_state
threads               num_threads                  --                       ncores
original              original                     --                       --
dtype                 --                           dtype                    --
combine_keys          --                           (always)                 --
blocks, kmeans_cells, --                           --                       --
init_centroids, lean
correction_method,    --                           correction_method,       --
colsum_algo                                        colsum_algo
verbose               verbose                      verbose                  verbose
===================== ============================ ======================== =====================
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from integration.options import HarmonyOptions

if TYPE_CHECKING:
    from integration.batches import EncodedBatches
    from integration.harmony.chunks import ChunkSizes

FEWEST_CELLS = 6


@dataclass(frozen=True)
class Parameters:
    """Checked parameters, with ``sigma`` per cluster and ``theta`` and lambda per level."""

    flavor: str
    n_clusters: int
    max_iter_harmony: int | None
    max_iter_clustering: int
    early_stopping: bool
    tol_harmony: float | None
    tol_clustering: float
    sigma: np.ndarray
    theta: np.ndarray
    alpha: float
    ridge_lambda: np.ndarray | None
    batch_prune_threshold: float | None
    block_proportion: float
    kmeans_init: str
    kmeans_iterations: int
    kmeans_tolerance: float
    kmeans_cells: int
    num_init_iterations: int
    oversampling_factor: float
    chunk_size: int
    chunk_size_kmeans: int
    seed: int


def default_n_clusters(n_cells: int) -> int:
    """One cluster per 30 cells, at least 1 and at most 100."""
    return max(1, min(100, round(n_cells / 30)))


def _numbers(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number or a list of numbers; found {value!r}") from None
    if array.ndim > 1:
        raise ValueError(f"{name} must be a number or a flat list; found shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite; found {value!r}")
    return array


def per_level(name: str, value: Any, batches: EncodedBatches) -> np.ndarray:
    """Spread a number, one per key or one per level, over the levels."""
    array = _numbers(name, value)
    n_keys = len(batches.levels_per_key)
    if array.ndim == 0 or (array.size == 1 and n_keys == 1):
        return np.full(batches.n_levels, float(array.reshape(-1)[0]))
    if array.size == n_keys:
        return array[batches.key_of_level]
    if array.size == batches.n_levels:
        return array.copy()
    raise ValueError(
        f"{name} must be one number, one per key ({n_keys}) or one per batch "
        f"({batches.n_levels}); found {array.size}"
    )


def check_parameters(
    n_cells: int, batches: EncodedBatches, options: HarmonyOptions, *, seed: int, sizes: ChunkSizes
) -> Parameters:
    """Bring checked options into the form that the computation uses, for some cells.

    Parameters
    ----------
    n_cells, batches
        The cells that take part, and their batches.
    options
        With bounds checked.
    seed
        Seed of k-means and of the blocks.
    sizes
        The chunks where `options` give none.

    Raises
    ------
    TypeError, ValueError
        One line that names the parameter, what was found and what is allowed.
    """
    if n_cells < FEWEST_CELLS:
        raise ValueError(f"Harmony needs at least {FEWEST_CELLS} cells; found {n_cells}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be a whole number, at least 0; found {seed!r}")
    n_clusters = options.n_clusters or default_n_clusters(n_cells)
    if n_clusters > n_cells:
        raise ValueError(
            f"n_clusters is {n_clusters} but there are only {n_cells} cells; "
            f"leave it out to use {default_n_clusters(n_cells)}"
        )
    if options.early_stopping and options.max_iter_clustering < 4:
        raise ValueError(
            "early_stopping compares windows of three iterations and needs "
            f"max_iter_clustering of 4 or more; found {options.max_iter_clustering}"
        )
    if options.max_iter_harmony is None and options.tol_harmony is None:
        raise ValueError(
            "max_iter_harmony=None and tol_harmony=None would never stop; set one of them"
        )
    sigma = _per_cluster("sigma", options.sigma, n_clusters)
    theta = _discounted_theta(options, batches, n_clusters)
    fixed_penalty = _check_ridge_lambda(options.ridge_lambda, batches, options.flavor)
    for name in idle_options(options):
        text = f'{name} has no effect with flavor "{options.flavor}"; remove it'
        warnings.warn(text, stacklevel=4)
    kmeans_cells = options.kmeans_cells or max(256 * n_clusters, 10_000)
    if kmeans_cells < n_clusters:
        raise ValueError(f"kmeans_cells must be at least {n_clusters}; found {kmeans_cells}")
    is_harmony2 = options.flavor == "harmony2"
    return Parameters(
        flavor=options.flavor,
        n_clusters=n_clusters,
        max_iter_harmony=options.max_iter_harmony,
        max_iter_clustering=options.max_iter_clustering,
        early_stopping=options.early_stopping,
        tol_harmony=options.tol_harmony,
        tol_clustering=options.tol_clustering,
        sigma=sigma,
        theta=theta,
        alpha=options.alpha,
        ridge_lambda=fixed_penalty,
        batch_prune_threshold=options.batch_prune_threshold if is_harmony2 else None,
        block_proportion=options.block_proportion,
        kmeans_init=options.kmeans_init,
        kmeans_iterations=options.kmeans_iterations,
        kmeans_tolerance=options.kmeans_tolerance,
        kmeans_cells=min(kmeans_cells, n_cells),
        num_init_iterations=options.num_init_iterations,
        oversampling_factor=options.oversampling_factor,
        chunk_size=options.chunk_size or sizes.rows,
        chunk_size_kmeans=options.chunk_size_kmeans or sizes.kmeans_rows,
        seed=int(seed),
    )


def _per_cluster(name: str, value: Any, n_clusters: int) -> np.ndarray:
    """Spread a width, or one per cluster, over the clusters."""
    width = _numbers(name, value)
    if width.size not in (1, n_clusters):
        raise ValueError(
            f"{name} must be one number or one per cluster ({n_clusters}); found {width.size}"
        )
    if (width <= 0).any():
        raise ValueError(f"{name} must be greater than 0; found {width.min():g}")
    if width.min() < 1e-4:
        raise ValueError(f"{name} must be at least 0.0001; found {width.min():g}")
    return np.full(n_clusters, float(width.reshape(-1)[0])) if width.size == 1 else width


def _discounted_theta(
    options: HarmonyOptions, batches: EncodedBatches, n_clusters: int
) -> np.ndarray:
    """Return theta per level, smaller for small batches where `tau` asks for it."""
    theta = per_level("theta", options.theta, batches)
    if (theta < 0).any():
        raise ValueError(f"theta must not be negative; found {theta.min():g}")
    if options.tau == 0:
        return theta
    # R squares the ratio; brisc and rapids square the exponential.
    return theta * -np.expm1(-((batches.sizes / (n_clusters * options.tau)) ** 2))


def idle_options(options: HarmonyOptions) -> list[str]:
    """Name the options that differ from their defaults and that a flavor does not look at."""
    penalty = options.ridge_lambda
    dynamic = penalty is None or (np.size(penalty) == 1 and np.all(penalty == -1))
    if options.flavor == "harmony2":
        fixed = np.all(np.asarray(penalty) == HarmonyOptions.ridge_lambda)
        return [] if dynamic or fixed else ["ridge_lambda"]
    idle = ["alpha"] if options.alpha != HarmonyOptions.alpha and not dynamic else []
    if options.batch_prune_threshold not in (None, HarmonyOptions.batch_prune_threshold):
        idle.append("batch_prune_threshold")
    return idle


def _check_ridge_lambda(
    ridge_lambda: Any, batches: EncodedBatches, flavor: str
) -> np.ndarray | None:
    """Return lambda per level, or None where it follows the expected counts."""
    if ridge_lambda is None or (np.size(ridge_lambda) == 1 and np.all(ridge_lambda == -1)):
        return None
    ridge_lambda = per_level("ridge_lambda", ridge_lambda, batches)
    if (ridge_lambda <= 0).any():
        raise ValueError(
            "ridge_lambda must be greater than 0, or -1 or None for the dynamic penalty; "
            f"found {ridge_lambda.min():g}"
        )
    return ridge_lambda if flavor == "harmony1" else None
