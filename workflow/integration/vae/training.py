"""Fit a model on minibatches of counts, and compute its latent variables.

Counts stay sparse; each minibatch is made dense when it is used.
"""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from integration.count_matrix import as_counts
from integration.options import PVAEOptions
from integration.pytorch import one_torch_thread
from integration.vae.design import as_covariates, log_factorials
from utils.log import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import scipy.sparse as sp

    from integration.vae.models import GMVAE, PVAE, Elbo

    Model = TypeVar("Model", bound=PVAE)

MIN_EPOCHS = 10
MIN_STEPS = 4000
MIN_HELD_OUT = 20  # cells; the mean over fewer is too noisy to stop by
MAX_DENSE_VALUES = 1 << 22  # in the largest array where no gradient is computed


def fit(
    model: Model,
    counts: Any,
    covariates: Any = None,
    *,
    max_epochs: int | None = None,
    batch_size: int = PVAEOptions.batch_size,
    lr: float = PVAEOptions.lr,
    n_samples: int = PVAEOptions.n_samples,
    kl_warmup: float = PVAEOptions.kl_warmup,
    held_out: float = PVAEOptions.held_out,
    patience: int = PVAEOptions.patience,
    seed: int = 0,
    device: str = "cpu",
    verbose: bool = False,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Model:
    """Maximize the mean ELBO over the cells, with RMSprop.

    Parameters
    ----------
    model
        Trained in place; its networks start from their present weights, the rates of the genes
        from their mean proportions.
    counts
        Raw counts, cells x genes, sparse or dense. Cells without a count are left out.
    covariates
        Cells x ``model.covar_dim``, sparse or dense (see `design.design`).
    max_epochs
        Passes over the cells at most. None: 10, and as many as make 4,000 minibatches.
    batch_size
        Cells per minibatch at most; minibatches of an epoch are equally large.
    lr
        Learning rate.
    n_samples
        Draws of z per cell and step.
    kl_warmup
        Share of the epochs during which the weight of the KL terms grows from 0 to 1.
    held_out
        Share of the cells that is not trained on. Their ELBO (networks in eval mode, the same
        noise each time) stops the training; the best epoch's weights are kept. With fewer than
        20 such cells all cells are trained on, in all epochs.
    patience
        Epochs without a better held-out ELBO before training stops, counted after the warm-up.
    seed
        Of the held-out cells, the order of the cells and the noise.
    device
        "cpu" or "cuda"; the model is on the CPU afterwards.
    verbose
        Show a progress bar.
    on_epoch
        Called with each record of ``model.history``, to log it elsewhere (TensorBoard).

    Returns
    -------
    The model, in eval mode. ``model.history`` has a record per epoch: ``elbo`` and its parts
    ``log_likelihood``, ``kl_z``, ``kl_y`` (means over the cells trained on, networks in training
    mode) and ``held_out_elbo``.

    Raises
    ------
    ValueError
        Counts, covariates or options that are wrong, or an ELBO that is not finite.

    Notes
    -----
    On the CPU one thread is used: the bits of PyTorch's products depend on their number. With it a
    seed gives the same bits every time; on a GPU the same up to rounding. Peak memory: 8 bytes per
    stored count; dense, some ``n_samples`` x ``batch_size`` x genes (x labels) numbers.
    """
    data = _Data.checked(model, counts, covariates)
    _check_options(max_epochs, batch_size, lr, n_samples, kl_warmup, held_out, patience)
    rng = np.random.default_rng(seed)
    train, test = _split(rng.permutation(data.cells), held_out)
    n_batches = max(1, math.ceil(len(train) / batch_size))
    if max_epochs is None:
        max_epochs = max(MIN_EPOCHS, math.ceil(MIN_STEPS / n_batches))
    n_warm = kl_warmup * max_epochs * n_batches
    generator = torch.Generator().manual_seed(seed)
    model.history = []
    best, best_weights, waited = -math.inf, None, 0

    with one_torch_thread():
        model.decoder.start_at(np.asarray(data.counts[train].sum(axis=0)).ravel())
        model.to(device)
        optimizer = torch.optim.RMSprop(model.parameters(), lr=lr)
        sums = np.zeros(3)
        steps = progress(
            _shuffled(train, n_batches, max_epochs, rng),
            desc=type(model).__name__,
            total=max_epochs * n_batches,
            disable=not verbose,
        )
        for step, rows in enumerate(steps, start=1):
            model.train()
            elbo = model(*data.minibatch(rows, device), n_samples=n_samples, generator=generator)
            loss = -elbo.total(min(1.0, step / n_warm) if n_warm else 1.0).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            sums += _sums(elbo)
            if step % n_batches:
                continue

            record = _record(step // n_batches, sums / len(train), lr)
            sums[:] = 0
            if len(test):
                record["held_out_elbo"] = held_out_elbo = _held_out_elbo(
                    model, data, test, device, seed
                )
                if held_out_elbo > best:
                    best, best_weights, waited = held_out_elbo, copy.deepcopy(model.state_dict()), 0
                elif step > n_warm:
                    waited += 1
            model.history.append(record)
            if on_epoch is not None:
                on_epoch(record)
            if waited >= patience:
                break
        if best_weights is not None:
            model.load_state_dict(best_weights)
    return model.to("cpu").eval()


def latent(model: PVAE, counts: Any, *, device: str = "cpu") -> np.ndarray:
    """Return E[z | x] of every cell, with the batch normalization frozen.

    Parameters
    ----------
    model
        A fitted model.
    counts
        Raw counts, cells x genes, sparse or dense; also of cells that it was not fitted on.
    device
        As for `fit`.

    Returns
    -------
    numpy.ndarray, float32, (cells, latent_dim)
        NaN for cells without a count.
    """
    return _of_every_cell(model, model.posterior_mean, counts, device)


def probabilities(model: GMVAE, counts: Any, *, device: str = "cpu") -> np.ndarray:
    """Return π(x), the probability of every label, (cells, labels); otherwise as `latent`."""
    return _of_every_cell(model, model.label_probabilities, counts, device)


# ---------------------------------------------------------------- data


@dataclass(frozen=True)
class _Data:
    """The data of a fit; `cells` are those with a count."""

    counts: sp.csr_matrix
    covariates: sp.csr_matrix
    log_factorials: np.ndarray
    cells: np.ndarray

    @classmethod
    def checked(cls, model: PVAE, counts: Any, covariates: Any) -> _Data:
        counts = as_counts(counts, n_genes=model.input_dim)
        n_cells = counts.shape[0]
        cells = _with_counts(counts)
        if len(cells) < 2:
            raise ValueError(f"{len(cells)} of {n_cells} cells have a count; at least 2 must")
        if len(cells) < n_cells:
            warnings.warn(
                f"{n_cells - len(cells)} of {n_cells} cells have no count: they are not trained "
                "on, their embedding is NaN",
                UserWarning,
                stacklevel=3,
            )
        if model.label_dim > len(cells):
            raise ValueError(
                f"label_dim is {model.label_dim} but only {len(cells)} cells have a count; "
                "take fewer labels"
            )
        covariates = as_covariates(covariates, n_cells=n_cells, n_columns=model.covar_dim)
        return cls(counts, covariates, log_factorials(counts), cells)

    def minibatch(self, rows: np.ndarray, device: str) -> tuple[torch.Tensor, ...]:
        """Return counts, covariates and log factorials of some cells."""
        constants = torch.from_numpy(self.log_factorials[rows]).to(device)
        return _dense(self.counts[rows], device), _dense(self.covariates[rows], device), constants


def _with_counts(counts: sp.csr_matrix) -> np.ndarray:
    return np.flatnonzero(np.asarray(counts.sum(axis=1)).ravel() > 0)


def _dense(rows: sp.csr_matrix, device: str) -> torch.Tensor:
    return torch.from_numpy(rows.toarray()).to(device)


def _split(cells: np.ndarray, held_out: float) -> tuple[np.ndarray, np.ndarray]:
    n_test = round(held_out * len(cells))
    if n_test < MIN_HELD_OUT:
        n_test = 0
    return cells[n_test:], cells[:n_test]


def _shuffled(
    cells: np.ndarray, n_batches: int, n_epochs: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield the cells of each minibatch of all epochs."""
    for _ in range(n_epochs):
        yield from np.array_split(rng.permutation(cells), n_batches)


def _evaluation_rows(model: PVAE, cells: np.ndarray) -> list[np.ndarray]:
    rows = max(16, MAX_DENSE_VALUES // (model.input_dim * max(1, model.label_dim)))
    return [cells[start : start + rows] for start in range(0, len(cells), rows)]


# ---------------------------------------------------------------- steps


def _check_options(
    max_epochs: int | None,
    batch_size: int,
    lr: float,
    n_samples: int,
    kl_warmup: float,
    held_out: float,
    patience: int,
) -> None:
    smallest = {"max_epochs": 1, "batch_size": 2, "n_samples": 1, "patience": 1}
    given = {"max_epochs": 1 if max_epochs is None else max_epochs, "batch_size": batch_size}
    for name, value in {**given, "n_samples": n_samples, "patience": patience}.items():
        if value < smallest[name]:
            raise ValueError(f"{name} must be at least {smallest[name]}, found {value}")
    if not 0 < lr < math.inf:
        raise ValueError(f"lr must be above 0, found {lr}")
    for name, share in (("kl_warmup", kl_warmup), ("held_out", held_out)):
        if not 0 <= share < 1:
            raise ValueError(f"{name} must be at least 0 and less than 1, found {share}")


def _held_out_elbo(model: PVAE, data: _Data, cells: np.ndarray, device: str, seed: int) -> float:
    """Compute the mean ELBO of held-out cells, with the same noise in every epoch."""
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    with torch.no_grad():
        parts = [
            _sums(model(*data.minibatch(rows, device), generator=generator))
            for rows in _evaluation_rows(model, cells)
        ]
    return float(np.sum(parts, axis=0) @ [1, -1, -1]) / len(cells)


def _sums(elbo: Elbo) -> np.ndarray:
    return np.array([part.detach().double().sum().item() for part in elbo])


def _record(epoch: int, means: np.ndarray, lr: float) -> dict[str, float]:
    log_likelihood, kl_z, kl_y = means.tolist()
    elbo = log_likelihood - kl_z - kl_y
    if not math.isfinite(elbo):
        raise ValueError(
            f"the ELBO is {elbo} in epoch {epoch}: lr {lr:g} is too large here, take a smaller one"
        )
    parts = {"log_likelihood": log_likelihood, "kl_z": kl_z, "kl_y": kl_y}
    return {"epoch": epoch, "elbo": elbo, **parts}


def _of_every_cell(
    model: PVAE,
    function: Callable[[torch.Tensor], torch.Tensor],
    counts: Any,
    device: str,
) -> np.ndarray:
    counts = as_counts(counts, n_genes=model.input_dim)
    cells = _with_counts(counts)
    model.to(device).eval()
    result = None
    with torch.no_grad(), one_torch_thread():
        for rows in _evaluation_rows(model, cells):
            values = function(_dense(counts[rows], device)).cpu().numpy()
            if result is None:
                result = np.full((counts.shape[0], values.shape[1]), np.nan, np.float32)
            result[rows] = values
    model.to("cpu")
    if result is None:
        raise ValueError(f"none of the {counts.shape[0]} cells has a count")
    return result
