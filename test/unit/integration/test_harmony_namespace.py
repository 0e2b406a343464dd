"""Harmony on an array type that, like CuPy's, cannot be mixed with NumPy's.

This checks that host and device arrays are kept apart; it does not test a GPU.
"""

from __future__ import annotations

import importlib.util
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData

from integration.harmony import chunks, harmonize, harmony_integrate, run_harmony

STANDIN = Path(__file__).resolve().parents[2] / "standins" / "cupy.py"


@pytest.fixture
def cupy(monkeypatch):
    spec = importlib.util.spec_from_file_location("cupy", STANDIN)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "cupy", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lean": True},
        {"lean": True, "flavor": "harmony1"},
        {"sigma": 0.01},
        {"sigma": np.linspace(0.05, 0.2, 10)},
        {"kmeans_init": "k-means||"},
        {"kmeans_init": "random", "kmeans_cells": 100},
        {"n_keys": 2},
        {"mask": np.arange(300) % 3 > 0, "n_clusters": 10},
    ],
    ids=lambda options: "-".join(options) or "defaults",
)
def test_the_same_result_on_another_namespace(cupy, options):
    rng = np.random.default_rng(0)
    keys = [rng.integers(3, size=300), rng.integers(20, size=300)]
    Z = rng.normal(size=(300, 4)) + keys[0][:, None]
    options = {"dtype": np.float64, "chunk_size": 1024, **options}
    batches = keys[: options.pop("n_keys", 1)]
    gpu = harmonize(cupy.asarray(Z), batches, keep_assignments=True, **options)
    cpu = harmonize(Z, batches, keep_assignments=True, **options)
    assert type(gpu.corrected) is cupy.ndarray
    assert np.array_equal(gpu.corrected.get(), cpu.corrected, equal_nan=True)
    assert np.array_equal(gpu.assignments().get(), cpu.assignments())


def count_calls(cupy, Z, batches, n_passes):
    """Count the calls of one iteration by their kind."""
    cupy.calls.clear()
    options = {"max_iter_clustering": n_passes, "max_iter_harmony": 1, "n_clusters": 10}
    harmonize(cupy.asarray(Z), batches, **options)
    return cupy.calls.copy()


def test_a_block_takes_few_calls_however_many_batches(cupy):
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(20_000, 4))
    for n_batches in (1, 2, 40):
        batches = np.append(rng.integers(n_batches, size=19_999), n_batches)
        three, four = (count_calls(cupy, Z, batches, n) for n in (3, 4))
        per_block = {kind: (four[kind] - three[kind]) / 20 for kind in four}  # blocks in a pass
        assert per_block.pop("on the card") <= 6
        assert per_block == {"to the card": 1, "to the host": 1}


@pytest.mark.parametrize("options", [{}, {"flavor": "harmony1"}, {"lean": True}])
def test_the_chunk_sizes_of_a_gpu_give_the_result_of_the_cpus(monkeypatch, options):
    rng = np.random.default_rng(0)
    batches = rng.integers(5, size=30_000)
    Z = 3 * rng.normal(size=(8, 20))[rng.integers(8, size=30_000)] + batches[:, None] / 2
    Z = (Z + rng.normal(size=Z.shape)).astype(np.float32)
    options = {"tol_harmony": None, "max_iter_harmony": 5, **options}
    cpu = harmonize(Z, batches, **options).corrected
    monkeypatch.setattr(chunks, "CPU", chunks.GPU)
    gpu = harmonize(Z, batches, **options).corrected
    assert not np.array_equal(gpu, cpu)
    assert np.linalg.norm(gpu - cpu) <= 1e-4 * np.linalg.norm(cpu)


def test_run_harmony_brings_the_result_back(cupy):
    rng = np.random.default_rng(0)
    meta = {"batch": rng.integers(3, size=300)}
    Z = rng.normal(size=(300, 4))
    ho = run_harmony(Z, meta, "batch", device="cuda")
    assert type(ho.Z_corr) is type(ho.R) is type(ho.Z_cos) is np.ndarray


@pytest.mark.parametrize("method", [None, "fast", "original", "batched"])
def test_harmony_integrate_takes_rapids_parameters_on_a_gpu(cupy, method):
    rng = np.random.default_rng(0)
    adata = AnnData(obs={"batch": rng.integers(3, size=300).astype(str)})
    adata.obsm["X_pca"] = rng.normal(size=(300, 4))
    harmony_integrate(adata, "batch", theta=1.5, adjusted_basis="cpu", dtype=np.float64)
    with pytest.warns(UserWarning, match="no effect") if method else nullcontext():
        harmony_integrate(
            adata,
            "batch",
            backend="cupy",
            adjusted_basis="gpu",
            theta=cupy.asarray([1.5]),
            dtype=np.float64,
            correction_method=method,
        )
    assert type(adata.obsm["gpu"]) is np.ndarray
    assert np.array_equal(adata.obsm["gpu"], adata.obsm["cpu"])
