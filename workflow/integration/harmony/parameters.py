"""Harmony's parameters: one name and one default each, checked before anything is computed.

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

import numbers
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from numerics.kmeans import Initialization

if TYPE_CHECKING:
    from integration.batches import EncodedBatches

Flavor = Literal["harmony2", "harmony1"]
FEWEST_CELLS = 6
DEFAULT_ALPHA, DEFAULT_PRUNE = 0.2, 1e-5


@dataclass(frozen=True)
class Parameters:
    """Checked parameters, with ``sigma`` per cluster and ``theta`` and lambda per level."""

    flavor: Flavor
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
    kmeans_init: Initialization
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


def whole(name: str, value: Any, least: int) -> int:
    """Check a whole number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a whole number; found {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}; found {value}")
    return int(value)


def real(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
) -> float:
    """Check a finite number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number; found {value!r}")
    value = float(value)
    if not np.isfinite(value):
        raise ValueError(f"{name} must be finite; found {value}")
    if above is not None and value <= above:
        raise ValueError(f"{name} must be greater than {above:g}; found {value:g}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least:g}; found {value:g}")
    if below is not None and value >= below:
        raise ValueError(f"{name} must be less than {below:g}; found {value:g}")
    return value


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


def _optional(check: Any, name: str, value: Any, **bounds: Any) -> Any:
    return None if value is None else check(name, value, **bounds)


def check_parameters(
    n_cells: int,
    batches: EncodedBatches,
    *,
    flavor: Flavor,
    n_clusters: int | None,
    max_iter_harmony: int | None,
    max_iter_clustering: int,
    early_stopping: bool,
    tol_harmony: float | None,
    tol_clustering: float,
    sigma: Any,
    theta: Any,
    tau: float,
    alpha: float,
    ridge_lambda: Any,
    batch_prune_threshold: float | None,
    block_proportion: float,
    kmeans_init: Initialization,
    kmeans_iterations: int,
    kmeans_tolerance: float,
    kmeans_cells: int | None,
    num_init_iterations: int,
    oversampling_factor: float,
    chunk_size: int,
    chunk_size_kmeans: int,
    seed: int,
) -> Parameters:
    """Check every parameter and bring it into the form that the computation uses.

    Raises
    ------
    TypeError, ValueError
        One line that names the parameter, what was found and what is allowed.
    """
    if n_cells < FEWEST_CELLS:
        raise ValueError(f"Harmony needs at least {FEWEST_CELLS} cells; found {n_cells}")
    if flavor not in get_args(Flavor):
        raise ValueError(f"flavor must be 'harmony2' or 'harmony1'; found {flavor!r}")
    if kmeans_init not in get_args(Initialization):
        raise ValueError(
            f"kmeans_init must be 'random', 'k-means++' or 'k-means||'; found {kmeans_init!r}"
        )
    if n_clusters is None:
        n_clusters = default_n_clusters(n_cells)
    n_clusters = whole("n_clusters", n_clusters, 1)
    if n_clusters > n_cells:
        raise ValueError(
            f"n_clusters is {n_clusters} but there are only {n_cells} cells; "
            f"leave it out to use {default_n_clusters(n_cells)}"
        )
    max_iter_clustering = whole("max_iter_clustering", max_iter_clustering, 1)
    if early_stopping and max_iter_clustering < 4:
        raise ValueError(
            "early_stopping compares windows of three iterations and needs "
            f"max_iter_clustering of 4 or more; found {max_iter_clustering}"
        )
    tol_harmony = _optional(real, "tol_harmony", tol_harmony, least=0)
    if max_iter_harmony is None and tol_harmony is None:
        raise ValueError(
            "max_iter_harmony=None and tol_harmony=None would never stop; set one of them"
        )
    sigma = _numbers("sigma", sigma)
    if sigma.size not in (1, n_clusters):
        raise ValueError(
            f"sigma must be one number or one per cluster ({n_clusters}); found {sigma.size}"
        )
    if (sigma <= 0).any():
        raise ValueError(f"sigma must be greater than 0; found {sigma.min():g}")
    if sigma.min() < 1e-4:
        raise ValueError(f"sigma must be at least 0.0001; found {sigma.min():g}")
    theta = per_level("theta", theta, batches)
    if (theta < 0).any():
        raise ValueError(f"theta must not be negative; found {theta.min():g}")
    tau = real("tau", tau, least=0)
    if tau > 0:  # R squares the ratio; brisc and rapids square the exponential
        theta = theta * -np.expm1(-((batches.sizes / (n_clusters * tau)) ** 2))
    alpha = real("alpha", alpha, above=0, below=1)
    block_proportion = real("block_proportion", block_proportion, above=0)
    if block_proportion > 1:
        raise ValueError(f"block_proportion must be at most 1; found {block_proportion:g}")
    threshold = _optional(real, "batch_prune_threshold", batch_prune_threshold, least=0, below=1)
    fixed_penalty = _check_ridge_lambda(ridge_lambda, batches, flavor)
    for name in idle_options(flavor, alpha, ridge_lambda, threshold):
        warnings.warn(f'{name} has no effect with flavor "{flavor}"; remove it', stacklevel=4)
    if kmeans_cells is None:
        kmeans_cells = max(256 * n_clusters, 10_000)
    return Parameters(
        flavor=flavor,
        n_clusters=n_clusters,
        max_iter_harmony=_optional(whole, "max_iter_harmony", max_iter_harmony, least=1),
        max_iter_clustering=max_iter_clustering,
        early_stopping=bool(early_stopping),
        tol_harmony=tol_harmony,
        tol_clustering=real("tol_clustering", tol_clustering, least=0),
        sigma=np.full(n_clusters, float(sigma.reshape(-1)[0])) if sigma.size == 1 else sigma,
        theta=theta,
        alpha=alpha,
        ridge_lambda=fixed_penalty,
        batch_prune_threshold=threshold if flavor == "harmony2" else None,
        block_proportion=block_proportion,
        kmeans_init=kmeans_init,
        kmeans_iterations=whole("kmeans_iterations", kmeans_iterations, 1),
        kmeans_tolerance=real("kmeans_tolerance", kmeans_tolerance, least=0),
        kmeans_cells=min(whole("kmeans_cells", kmeans_cells, n_clusters), n_cells),
        num_init_iterations=whole("num_init_iterations", num_init_iterations, 1),
        oversampling_factor=real("oversampling_factor", oversampling_factor, above=0),
        chunk_size=whole("chunk_size", chunk_size, 1),
        chunk_size_kmeans=whole("chunk_size_kmeans", chunk_size_kmeans, 1),
        seed=whole("seed", seed, 0),
    )


def idle_options(
    flavor: Flavor, alpha: float, ridge_lambda: Any, batch_prune_threshold: float | None
) -> list[str]:
    """Name the options that differ from their defaults and that a flavor does not look at."""
    dynamic = ridge_lambda is None or (np.size(ridge_lambda) == 1 and np.all(ridge_lambda == -1))
    if flavor == "harmony2":
        return [] if dynamic or np.all(ridge_lambda == 1) else ["ridge_lambda"]
    idle = ["alpha"] if alpha != DEFAULT_ALPHA and not dynamic else []
    if batch_prune_threshold not in (None, DEFAULT_PRUNE):
        idle.append("batch_prune_threshold")
    return idle


def _check_ridge_lambda(
    ridge_lambda: Any, batches: EncodedBatches, flavor: Flavor
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
