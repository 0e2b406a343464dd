"""Harmony by rapids-singlecell, with this project's parameter names and defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from integration.harmony.algorithm import harmonize
from utils.device import gpu_problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

PASSED_ON = (
    "flavor",
    "n_clusters",
    "max_iter_harmony",
    "max_iter_clustering",
    "tol_harmony",
    "tol_clustering",
    "sigma",
    "theta",
    "tau",
    "ridge_lambda",
    "alpha",
    "batch_prune_threshold",
    "block_proportion",
    "dtype",
    "verbose",
)
WITHOUT_EFFECT = ("threads", "lean", "chunk_size", "chunk_size_kmeans", "combine_keys")


def harmonize_with_rapids(
    adata: AnnData,
    key: str | Sequence[str],
    basis: str,
    adjusted_basis: str,
    correction_method: str | None,
    colsum_algo: str | None,
    options: dict[str, Any],
) -> None:
    """Call ``rapids_singlecell.pp.harmony_integrate``; the result is stored in ``obsm``.

    Options that are not given take the defaults of :func:`harmonize`, not those of rapids.
    rapids recomputes the centroids in every clustering pass and, before 0.18, joins several keys
    into one, so that its result differs from the CPU's.

    Raises
    ------
    RuntimeError
        rapids-singlecell is not installed, or no GPU is visible.
    ValueError
        An option that rapids does not have.
    """
    unknown = set(options) - {*PASSED_ON, *WITHOUT_EFFECT, "seed"}
    if unknown:
        raise ValueError(
            f"backend='rapids' does not have {', '.join(sorted(unknown))}; use backend='cpu'"
        )
    if why := gpu_problem():
        raise RuntimeError(f"{why}; use backend='cpu'")
    import rapids_singlecell as rsc

    defaults = harmonize.__kwdefaults__
    passed = {name: options.get(name, defaults[name]) for name in PASSED_ON}
    if passed["max_iter_harmony"] is None:
        passed["max_iter_harmony"] = np.iinfo(np.int32).max
    if passed["tol_harmony"] is None:
        passed["tol_harmony"] = -np.inf
    rsc.pp.harmony_integrate(
        adata,
        key,
        basis=basis,
        adjusted_basis=adjusted_basis,
        correction_method=correction_method,
        colsum_algo=colsum_algo,
        random_state=options.get("seed", defaults["seed"]),
        **passed,
    )
