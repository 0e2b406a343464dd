"""Fit a model on minibatches of counts, take its latent variables."""

from __future__ import annotations

import contextlib
import copy
import math
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import scipy.sparse as sp
import torch

from utils.cli import progress

from .inputs import as_counts, as_covariates, has_counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .models import GMVAE, PVAE, Elbo

    Model = TypeVar("Model", bound=PVAE)

MIN_STEPS = 4000
MIN_EPOCHS = 10
VALUES = 1 << 22  # numbers in the largest array while no gradient is taken


def fit(
    model: Model,
    counts: Any,
    covariates: Any = None,
    *,
    max_epochs: int | None = None,
    batch_size: int = 64,
    lr: float = 1e-3,
    n_samples: int = 1,
    kl_warmup: float = 0.25,
    held_out: float = 0.1,
    patience: int = 10,
    seed: int = 0,
    threads: int | None = None,
    device: str = "cpu",
    verbose: bool = False,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    optimizer="adam", decay=False,
) -> Model:
    counts = as_counts(counts, model.input_dim)
    covariates = as_covariates(covariates, counts.shape[0], model.covar_dim)
    cells = _usable(counts, model)
    rng = np.random.default_rng(seed)
    train, test = _split(rng.permutation(cells), held_out)
    n_batches = math.ceil(len(train) / batch_size)
    if max_epochs is None:
        max_epochs = max(MIN_EPOCHS, math.ceil(MIN_STEPS / n_batches))
    n_warm = kl_warmup * max_epochs * n_batches
    generator = torch.Generator().manual_seed(seed)
    model.history = []
    best, best_state, waited = -np.inf, None, 0

    with _torch_threads(threads):
        model.decoder.start_at(np.asarray(counts[train].sum(axis=0)).ravel())
        model.to(device)
        opt = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}[optimizer](model.parameters(), lr=lr)
        steps = _schedule(train, n_batches, max_epochs, rng)
        sums = np.zeros(3)
        bar = progress(
            enumerate(steps, start=1),
            desc=type(model).__name__,
            total=max_epochs * n_batches,
            disable=not verbose,
        )
        for step, rows in bar:
            if decay:
                for g in opt.param_groups:
                    g['lr'] = lr * 0.5 * (1 + math.cos(math.pi * step / (max_epochs * n_batches)))
            model.train()
            elbo = model(
                *_minibatch(counts, covariates, rows, device),
                n_samples=n_samples,
                generator=generator,
            )
            loss = -elbo.total(min(1.0, step / n_warm) if n_warm else 1.0).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            sums += _sums(elbo)
            if step % n_batches:
                continue
            epoch = step // n_batches
            record = {"epoch": epoch, **_record(sums / len(train))}
            sums[:] = 0
            if not math.isfinite(record["elbo"]):
                raise ValueError(
                    f"the ELBO is {record['elbo']} in epoch {epoch}: lr {lr:g} is too large here, "
                    "take a smaller one"
                )
            if len(test):
                found = _evaluate(model, counts, covariates, test, device, seed)
                record["held_out_elbo"] = found
                if found > best:
                    best, best_state, waited = found, copy.deepcopy(model.state_dict()), 0
                elif step > n_warm:
                    waited += 1
            model.history.append(record)
            if on_epoch is not None:
                on_epoch(record)
            if waited >= patience:
                break
        if best_state is not None:
            model.load_state_dict(best_state)
        model.to("cpu").eval()
    return model


def latent(model, counts, *, threads=None, device="cpu"):
    return _predict(model, model.posterior_mean, counts, threads, device)


def probabilities(model, counts, *, threads=None, device="cpu"):
    return _predict(model, model.label_probabilities, counts, threads, device)


def _predict(model, function, counts, threads, device):
    counts = as_counts(counts, model.input_dim)
    cells = np.flatnonzero(has_counts(counts))
    model.to(device).eval()
    with torch.no_grad(), _torch_threads(threads):
        parts = [function(_dense(counts, rows, device)).cpu().numpy() for rows in _pieces(model, cells)]
    model.to("cpu")
    result = np.full((counts.shape[0], parts[0].shape[1]), np.nan, np.float32)
    result[cells] = np.concatenate(parts)
    return result


def _evaluate(model, counts, covariates, cells, device, seed):
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    total = 0.0
    with torch.no_grad():
        for rows in _pieces(model, cells):
            total += sum(_sums(model(*_minibatch(counts, covariates, rows, device), generator=generator)) * [1, -1, -1])
    return total / len(cells)


def _sums(elbo):
    return np.array([part.detach().double().sum().item() for part in elbo])


def _record(means):
    ll, kl_z, kl_y = means.tolist()
    return {"elbo": ll - kl_z - kl_y, "log_likelihood": ll, "kl_z": kl_z, "kl_y": kl_y}


def _pieces(model, cells):
    rows = max(16, VALUES // (model.input_dim * max(1, model.label_dim)))
    return [cells[i : i + rows] for i in range(0, len(cells), rows)]


def _schedule(train, n_batches, max_epochs, rng):
    for _ in range(max_epochs):
        yield from np.array_split(rng.permutation(train), n_batches)


def _split(cells, held_out):
    n = round(held_out * len(cells))
    return cells[n:], cells[:n]


def _usable(counts, model):
    return np.flatnonzero(has_counts(counts))


def _dense(counts, rows, device):
    return torch.from_numpy(counts[rows].toarray()).to(device)


def _minibatch(counts, covariates, rows, device):
    return _dense(counts, rows, device), _dense(covariates, rows, device)


@contextlib.contextmanager
def _torch_threads(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
