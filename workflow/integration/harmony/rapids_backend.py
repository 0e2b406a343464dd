"""Harmony by rapids-singlecell, with this project's parameter names and defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from integration.harmony.api_arguments import DEFAULTS, fetch_column
from utils.device import gpu_problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

USED = (
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
IGNORED = ("threads", "lean", "chunk_size", "chunk_size_kmeans", "combine_keys")


def harmonize_with_rapids(
    adata: AnnData, key: str | Sequence[str], options: dict[str, Any], **arguments: Any
) -> None:
    """Call ``rapids_singlecell.pp.harmony_integrate``, which stores the result in ``obsm``.

    Options that are not given have the defaults of `harmonize`, not those of rapids. rapids
    recomputes the centroids in every clustering pass and, before 0.18, joins several keys into
    one, so its result differs from the CPU's.

    Parameters
    ----------
    adata, key
        The data set and its batch column or columns.
    options
        Options of `harmonize`.
    arguments
        rapids' own: ``basis``, ``adjusted_basis``, ``correction_method`` and ``colsum_algo``.

    Raises
    ------
    KeyError
        A column that ``obs`` does not have.
    RuntimeError
        rapids-singlecell is not installed, or no GPU is visible.
    ValueError
        An option that rapids does not have.
    """
    for column in [key] if isinstance(key, str) else key:
        fetch_column(adata.obs, column, "adata.obs")
    unavailable = set(options) - {*USED, *IGNORED, "seed"}
    if unavailable:
        raise ValueError(
            f"backend='rapids' does not have {', '.join(sorted(unavailable))}; use backend='cpu'"
        )
    if problem := gpu_problem():
        raise RuntimeError(f"{problem}; use backend='cpu'")
    import rapids_singlecell as rsc

    used = {name: options.get(name, DEFAULTS[name]) for name in USED}
    if used["max_iter_harmony"] is None:
        used["max_iter_harmony"] = np.iinfo(np.int32).max
    if used["tol_harmony"] is None:
        used["tol_harmony"] = -np.inf
    seed = options.get("seed", DEFAULTS["seed"])
    rsc.pp.harmony_integrate(adata, key, random_state=seed, **arguments, **used)
