"""scVI: the same bits, cells without counts, batches that mix, bad input."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

pytest.importorskip("scvi", reason="the extra of envs/scvi.txt is not installed")

import torch

from integration.scvi import fit_scvi

SHORT = {
    "n_latent": 3,
    "n_hidden": 16,
    "n_layers": 1,
    "gene_likelihood": "zinb",
    "max_epochs": 3,
    "batch_size": 32,
    "lr": 1e-3,
    "early_stopping": False,
    "seed": 0,
    "device": "cpu",
}


def make_counts(n_cells=120, n_genes=40, n_types=3, seed=0):
    """Cells of a few types whose genes the batch changes."""
    rng = np.random.default_rng(seed)
    cell_type, batch = rng.integers(n_types, size=n_cells), rng.integers(2, size=n_cells)
    log_rates = rng.normal(0, 1.5, (n_types, n_genes))[cell_type]
    log_rates = log_rates + rng.normal(0, 0.7, (2, n_genes))[batch]
    rates = np.exp(log_rates)
    rates *= rng.uniform(50, 500, (n_cells, 1)) / rates.sum(axis=1, keepdims=True)
    return sp.csr_matrix(rng.poisson(rates).astype(np.float32)), batch, cell_type


COUNTS, BATCH, CELL_TYPE = make_counts()


def test_a_seed_gives_the_same_bits_on_any_number_of_threads():
    batches = (BATCH, BATCH.astype(str), pd.Categorical(BATCH, categories=[1, 7, 0]))
    before = torch.get_num_threads()
    results = []
    for labels, threads in zip(batches, (1, 2, 4), strict=True):
        torch.set_num_threads(threads)
        results.append(fit_scvi(COUNTS, {"batch": labels}, **SHORT))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    for result in results[1:]:
        np.testing.assert_array_equal(result.latent, results[0].latent)
        assert result.history == results[0].history
    other = fit_scvi(COUNTS, {"batch": BATCH}, **SHORT | {"seed": 1})
    assert (other.latent != results[0].latent).any()


@pytest.mark.parametrize("gene_likelihood", ["zinb", "nb", "poisson"])
def test_training_lowers_the_negative_elbo(gene_likelihood):
    options = SHORT | {"gene_likelihood": gene_likelihood, "lr": 0.01, "n_layers": 2}
    latent, history = fit_scvi(COUNTS, {"batch": BATCH, "type": CELL_TYPE}, **options)
    assert latent.shape == (120, 3)
    assert latent.dtype == np.float32
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert history[-1]["elbo_train"] < history[0]["elbo_train"]
    assert "elbo_validation" not in history[0]


def test_covariates_change_the_fit():
    one = fit_scvi(COUNTS, {"batch": BATCH}, **SHORT)
    two = fit_scvi(COUNTS, {"batch": BATCH, "type": CELL_TYPE}, **SHORT)
    assert (one.latent != two.latent).any()


def test_early_stopping_ends_before_the_last_epoch():
    options = SHORT | {"early_stopping": True, "max_epochs": 400, "lr": 0.1}
    history = fit_scvi(COUNTS[:40], {"batch": BATCH[:40]}, **options).history
    elbo = [record["elbo_validation"] for record in history]
    assert 46 <= len(history) < 400
    assert len(history) == np.argmin(elbo) + 46


def test_cells_without_counts_are_nan(capsys):
    counts = COUNTS.tolil()
    counts[[4, 90]] = 0
    found = fit_scvi(counts.tocsr(), {"batch": BATCH}, **SHORT).latent
    assert "2 of 120 cells have no count" in capsys.readouterr().err
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found).any(axis=1)), [4, 90])
    keep = np.delete(np.arange(120), [4, 90])
    alone = fit_scvi(COUNTS[keep], {"batch": BATCH[keep]}, **SHORT)
    np.testing.assert_array_equal(found[keep], alone.latent)


def test_nothing_is_printed_and_no_file_is_left(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    loggers = [logging.getLogger(name) for name in ("scvi", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_scvi(COUNTS, {"batch": BATCH}, **SHORT | {"early_stopping": True})
    assert [logger.level for logger in loggers] == levels
    assert capfd.readouterr() == ("", "")
    assert not any(Path.cwd().iterdir())


def neighborhood(latent, labels, n_neighbors=30):
    """Mean effective number of labels among the nearest cells."""
    codes = pd.factorize(labels)[0]
    distances = ((latent[:, None] - latent[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    near = codes[np.argsort(distances, axis=1)[:, :n_neighbors]]
    shares = np.stack([(near == code).mean(axis=1) for code in np.unique(codes)])
    return (1 / (shares**2).sum(axis=0)).mean()


def test_batches_mix_and_cell_types_stay():
    counts, batch, cell_type = make_counts(n_cells=400, n_genes=100, seed=1)
    values = np.log1p(counts.toarray() * (1e4 / counts.sum(axis=1).A))
    left, singular, _ = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    raw = (left * singular)[:, :10]
    options = SHORT | {"n_latent": 10, "n_hidden": 64, "max_epochs": 40, "lr": 0.01}
    latent = fit_scvi(counts, {"batch": batch}, **options).latent
    assert neighborhood(raw, batch) < 1.2
    assert neighborhood(latent, batch) > 1.5
    assert neighborhood(latent, cell_type) < 1.1


def spoil(value):
    spoiled = COUNTS.copy()
    spoiled.data[0] = value
    return spoiled


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": spoil(-1)}, "cell 0, gene .* 0 or more, found -1"),
        ({"counts": spoil(np.nan)}, "found nan"),
        ({"counts": spoil(np.inf)}, "found inf"),
        ({"counts": 0 * COUNTS}, "0 of 120 cells have a count; scVI needs 3"),
        ({"batches": {"batch": BATCH[:9]}}, "9 labels of the batch for 120 cells"),
        ({"batches": {"batch": [None, *BATCH[1:]]}}, '"batch" is missing for 1 of 120 cells'),
        ({"lr": 1e30}, "after . epochs, lr 1e.30 may be too large"),
    ],
)
def test_bad_input_is_one_clear_line(changes, message):
    arguments = {"counts": COUNTS, "batches": {"batch": BATCH}, **SHORT, **changes}
    with pytest.raises(ValueError, match=message) as caught:
        fit_scvi(arguments.pop("counts"), arguments.pop("batches"), **arguments)
    assert "\n" not in str(caught.value)
