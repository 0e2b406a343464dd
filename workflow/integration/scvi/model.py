"""Fit the SCVI of scvi-tools and take its latent representation.

scVI (Lopez et al., Nature Methods 2018, doi:10.1038/s41592-018-0229-2) models the counts of a cell
by a (zero-inflated) negative binomial whose mean a neural network decodes from a latent variable
and the batch, so that the latent variable need not tell batches apart.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import scvi
from anndata import AnnData
from lightning.pytorch.callbacks import Callback

from integration.pytorch import one_torch_thread, torch_gpu_problem
from numerics.normalize import check_counts
from utils.device import choose_device, try_gpu
from utils.log import progress, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import scipy.sparse as sp

    from utils.device import Device


class SCVIResult(NamedTuple):
    """What a fit returns."""

    latent: np.ndarray  # cells x n_latent, float32; NaN for cells without a count
    history: list[dict[str, float]]  # per epoch, under scvi-tools' names; elbo_* is minimized


def fit_scvi(
    counts: sp.csr_matrix,
    batches: Mapping[str, Any],
    *,
    n_latent: int,
    n_hidden: int,
    n_layers: int,
    gene_likelihood: str,
    max_epochs: int | None,
    batch_size: int,
    lr: float,
    early_stopping: bool,
    seed: int,
    device: str,
) -> SCVIResult:
    """Fit scVI to raw counts and return the posterior mean of the latent variable.

    Parameters
    ----------
    counts
        Cells x genes, CSR. Cells without a count are left out of the fit.
    batches
        Labels by column name, one per cell each. The first column is scvi-tools' ``batch_key``,
        the others are its ``categorical_covariate_keys``.
    n_latent, n_hidden, n_layers, gene_likelihood
        As for ``scvi.model.SCVI``.
    max_epochs
        Passes over the cells at most. None: 400, from 20,000 cells on 8 million / cells.
    batch_size, lr
        Cells per minibatch, learning rate.
    early_stopping
        Stop after 45 epochs without a better ELBO of the tenth of the cells that is not trained
        on. The weights of the last epoch are kept.
    seed
        Also seeds the global generators of PyTorch, NumPy and Python, as scvi-tools does.
    device
        ``cpu`` or ``gpu``.

    Raises
    ------
    ValueError
        If a count is negative or not finite, a label is missing, fewer than 3 cells have a count,
        or the fit diverges.

    Notes
    -----
    On the CPU one thread is used, and the same seed gives the same bits. Peak memory: two copies of
    the counts.
    """
    check_counts(counts, first_cell=0)
    obs = pd.DataFrame({name: _labels(name, labels) for name, labels in batches.items()})
    if len(obs) != counts.shape[0]:
        raise ValueError(f"{len(obs)} labels of the batch for {counts.shape[0]} cells")
    has_counts = np.asarray(counts.sum(axis=1)).ravel() > 0
    if has_counts.sum() < 3:
        raise ValueError(f"{has_counts.sum()} of {len(obs)} cells have a count; scVI needs 3")
    if not has_counts.all():
        say(f"{(~has_counts).sum():,} of {len(obs):,} cells have no count: their embedding is NaN")
        counts, obs = counts[has_counts], obs[has_counts]
    obs.index = obs.index.astype(str)
    batch_key, *covariates = obs.columns
    history: list[dict[str, float]] = []

    with _quiet_scvi_tools() as folder, one_torch_thread():
        scvi.settings.seed = seed
        adata = AnnData(counts, obs=obs)
        scvi.model.SCVI.setup_anndata(
            adata, batch_key=batch_key, categorical_covariate_keys=covariates or None
        )
        model = scvi.model.SCVI(
            adata,
            n_hidden=n_hidden,
            n_latent=n_latent,
            n_layers=n_layers,
            gene_likelihood=gene_likelihood,
        )
        try:
            model.train(
                max_epochs=max_epochs,
                accelerator=device,
                devices=1,
                batch_size=batch_size,
                early_stopping=early_stopping,
                plan_kwargs={"lr": lr},
                callbacks=[_Epochs(history)],
                logger=False,
                enable_progress_bar=False,
                default_root_dir=folder,
            )
            fitted = model.get_latent_representation(batch_size=batch_size)
            if not np.isfinite(fitted).all():
                raise ValueError("the latent variable is not finite")
        except ValueError as error:  # what PyTorch raises where a network's output is not finite
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"scVI failed after {len(history)} epochs, lr {lr:g} may be too large: {reason}"
            ) from error

    latent = np.full((len(has_counts), n_latent), np.nan, dtype=np.float32)
    latent[has_counts] = fitted
    return SCVIResult(latent, history)


def embed_with_scvi(
    counts: sp.csr_matrix,
    batches: Mapping[str, Any],
    *,
    use_gpu: bool | None,
    n_cell_cpu: int,
    **options: Any,
) -> tuple[SCVIResult, Device, str]:
    """Fit on the GPU where there is one and it works, else on the CPU.

    Parameters
    ----------
    counts, batches, options
        As for `fit_scvi`.
    use_gpu, n_cell_cpu
        As for `utils.device.choose_device`.

    Returns
    -------
    (SCVIResult, Device, str)
        The result, where it was fitted and why there, the version of scvi-tools.
    """
    device = choose_device(
        counts.shape[0], use_gpu=use_gpu, n_cell_cpu=n_cell_cpu, problem=torch_gpu_problem
    )
    result, device = try_gpu(device, lambda: fit_scvi(counts, batches, device="gpu", **options))
    say(f"device: {device}")
    if result is None:
        result = fit_scvi(counts, batches, device="cpu", **options)
    return result, device, scvi.__version__


class _Epochs(Callback):
    """Shows the progress, and keeps the mean of every metric in each epoch."""

    def __init__(self, history: list[dict[str, float]]) -> None:
        self.history = history

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.remaining = progress(range(1, trainer.max_epochs + 1), desc="scVI")
        self.epoch = next(self.remaining)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.history.append({"epoch": self.epoch, **metrics})
        self.epoch = next(self.remaining, self.epoch)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.remaining.close()


def _labels(name: str, labels: Any) -> pd.Categorical:
    """Return labels as a categorical in sorted order, so that the order of its levels is nothing.

    Raises
    ------
    ValueError
        If a label is missing.
    """
    codes, levels = pd.factorize(pd.Series(labels).astype(object), sort=True)
    if n_missing := (codes < 0).sum():
        raise ValueError(
            f'"{name}" is missing for {n_missing} of {len(codes)} cells; '
            "label them or leave them out"
        )
    return pd.Categorical.from_codes(codes, levels.astype(str))


@contextlib.contextmanager
def _quiet_scvi_tools() -> Iterator[str]:
    """Silence scvi-tools and Lightning; yield a folder for what they write, deleted afterwards."""
    loggers = [
        logging.getLogger(name) for name in ("scvi", "lightning.fabric", "lightning.pytorch")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield folder
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
