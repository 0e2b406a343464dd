"""Embed counts with PVAE or GMVAE, on the GPU where there is one and it works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from integration.options import PVAEOptions
from integration.pytorch import torch_gpu_problem
from integration.vae.design import design
from integration.vae.models import GMVAE, PVAE
from utils.device import N_CELL_CPU, choose_device, try_gpu
from utils.log import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    import scipy.sparse as sp

    from utils.device import Device


@dataclass(frozen=True)
class VAEResult:
    """An embedding of counts and how it was fitted.

    Attributes
    ----------
    latent
        float32, cells x dimensions; NaN for cells without a count.
    probabilities
        Probability of every label of GMVAE, cells x labels; None for PVAE.
    history
        A record per epoch, see `training.fit`.
    device
        Where it was fitted, and why there.
    """

    latent: np.ndarray
    probabilities: np.ndarray | None
    history: list[dict[str, float]]
    device: Device


def embed_counts(
    counts: sp.csr_matrix,
    covariates: Mapping[str, Any],
    *,
    latent_dim: int = PVAEOptions.latent_dim,
    hidden_dim: int = PVAEOptions.hidden_dim,
    label_dim: int | None = None,
    seed: int = 0,
    use_gpu: bool | None = None,
    n_cell_cpu: int = N_CELL_CPU,
    **fitting: Any,
) -> VAEResult:
    """Fit PVAE, or GMVAE where `label_dim` is given, and return its embedding.

    Parameters
    ----------
    counts
        Raw counts, cells x genes.
    covariates
        Labels or numbers by name, see `design.design`.
    latent_dim, hidden_dim, label_dim, seed
        See `PVAE` and `GMVAE`; `seed` is also that of `training.fit`.
    use_gpu, n_cell_cpu
        See `utils.device.choose_device`.
    fitting
        Options of `training.fit`.
    """
    columns = design(covariates)

    def fit_and_embed(where: str) -> tuple[np.ndarray, np.ndarray | None, list[dict[str, float]]]:
        shape = (counts.shape[1], latent_dim, columns.shape[1])
        if label_dim is None:
            model = PVAE(*shape, hidden_dim=hidden_dim, seed=seed)
        else:
            model = GMVAE(*shape, label_dim, hidden_dim=hidden_dim, seed=seed)
        model.fit(counts, columns, seed=seed, device=where, **fitting)
        labels = None if label_dim is None else model.probabilities(counts, device=where)
        return model.latent(counts, device=where), labels, model.history

    device = choose_device(
        counts.shape[0], use_gpu=use_gpu, n_cell_cpu=n_cell_cpu, problem=torch_gpu_problem
    )
    result, device = try_gpu(device, lambda: fit_and_embed("cuda"))
    say(f"device: {device}")
    return VAEResult(*(result or fit_and_embed("cpu")), device)


def labels_by_size(probabilities: np.ndarray) -> pd.Categorical:
    """Return the likeliest label of every cell, "0" the most frequent; cells of NaN have none."""
    import pandas as pd

    codes = np.full(len(probabilities), -1)
    labeled = ~np.isnan(probabilities[:, 0])
    likeliest = probabilities[labeled].argmax(axis=1)
    sizes = np.bincount(likeliest, minlength=probabilities.shape[1])
    rank = np.argsort(np.argsort(-sizes, kind="stable"))
    codes[labeled] = rank[likeliest]
    return pd.Categorical.from_codes(codes, [str(n) for n in range(np.count_nonzero(sizes))])
