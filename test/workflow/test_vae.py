"""PVAE and GMVAE in the workflow and by hand; what is said where torch is not installed."""

import importlib.util
import json
import subprocess
import sys

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
from running import INPUT, REPO, read, snakemake, write_config

from integration.method_chains import missing_package
from integration.options import METHODS
from plan import launch

VAE = "integration/scripts/vae.py"
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="the extra of envs/vae.txt is not installed"
)


def config_with(folder, methods):
    return write_config(
        folder,
        pancreas={
            "input": {"preprocessing": str(INPUT / "pancreas_mini.h5ad")},
            "preprocessing": {"n_top_genes": 500},
            "integration": {"batch": "batch", "methods": methods},
        },
    )


@needs_torch
def test_both_methods_run_from_a_config(tmp_path):
    short = {"max_epochs": 3, "hidden_dim": 16, "latent_dim": 4}
    mixture = {"method": "gmvae", "label_dim": 3, "covariates": ["batch", "donor"], **short}
    config = config_with(tmp_path, {"pvae": short, "mixture": mixture})
    folder = tmp_path / "results/pancreas"
    stores = [f"results/pancreas/{name}/embedding.zarr" for name in ("pvae", "mixture")]
    snakemake(tmp_path, *stores, "--configfile", config)

    adata = read(folder / "pvae/embedding.zarr")
    assert adata.obsm["X_pvae"].shape == (766, 4)
    assert adata.obsm["X_pvae"].dtype == np.float32
    record = json.loads(adata.uns["X_pvae"])
    assert (record["genes"], record["n_genes"]) == ("var/highly_variable", 500)
    assert record["covariates"] == ["batch"]
    assert [epoch["epoch"] for epoch in record["history"]] == [1, 2, 3]
    assert record["history"][-1]["held_out_elbo"] > record["history"][0]["held_out_elbo"]

    adata = read(folder / "mixture/embedding.zarr")
    assert adata.obsm["X_mixture"].shape == (766, 4)
    assert json.loads(adata.uns["X_mixture"])["covariates"] == ["batch", "donor"]
    sizes = adata.obs["mixture_label"].value_counts()
    assert 1 <= len(sizes) <= 3
    assert list(sizes.index) == [str(number) for number in range(len(sizes))]


@needs_torch
def test_by_hand_on_an_h5ad_with_odd_cells(script, tmp_path):
    adata = anndata.read_h5ad(INPUT / "pancreas_mini.h5ad")[:, :200].copy()
    counts = adata.X.toarray()
    counts[3] = 0
    adata.layers["counts"] = sp.csr_matrix(counts)
    adata.X = adata.X.log1p()
    adata.write_h5ad(tmp_path / "in.h5ad")
    words = [tmp_path / "in.h5ad", tmp_path / "out.zarr", "--batch", "batch", "--max_epochs", 2]
    done = script(VAE, *words, check=False)
    assert done.returncode == 2
    assert "log-normalized values" in done.stderr and "--layer counts" in done.stderr
    assert not (tmp_path / "out.zarr").exists()
    done = script(VAE, *words, "--layer", "counts", "--method", "gmvae", "--label_dim", 2)
    assert "cells have no count" in done.stderr
    found = read(tmp_path / "out.zarr")
    assert np.isnan(found.obsm["X_gmvae"][3]).all()
    assert np.isfinite(np.delete(found.obsm["X_gmvae"], 3, axis=0)).all()
    assert found.obs["gmvae_label"].isna().sum() == 1


WITHOUT_TORCH = """
import importlib.util, runpy, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "torch" else find(name, *more)
sys.argv = sys.argv[1:]
if sys.argv[0] == "snakemake":
    runpy.run_module("snakemake", run_name="__main__")
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def without_torch(folder, *words):
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_config_that_needs_torch_is_refused_at_once(tmp_path):
    config = config_with(tmp_path, {"unintegrated": {}, "mine": {"method": "gmvae"}})
    words = ["snakemake", "--cores", 1, "-s", REPO / "Snakefile", "--configfile", config]
    done = without_torch(tmp_path, *words, "-n")
    assert done.returncode != 0
    line = (
        "DATASETS.pancreas.integration.methods.mine: method gmvae needs torch, which is not "
        f"installed; run: python -m pip install -r {REPO / 'envs' / 'vae.txt'}"
    )
    assert line in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


def test_the_refusal_is_exit_code_2_and_only_for_own_packages(tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "torch" else find(name)
    )
    assert missing_package(METHODS["harmony"]) is None
    mapping = {
        "DATASETS": {
            "a": {
                "input": {"preprocessing": str(INPUT / "pancreas_mini.h5ad")},
                "integration": {"batch": "batch", "methods": {"pvae": {}}},
            }
        }
    }
    with pytest.raises(SystemExit) as caught:
        launch.read_config(mapping, [])
    assert caught.value.code == 2
    assert "methods.pvae: method pvae needs torch" in capsys.readouterr().err
    launch.read_config(mapping, [], own_packages=False)


def test_the_script_says_the_same(tmp_path):
    script = REPO / "workflow" / VAE
    words = [INPUT / "pancreas_mini.h5ad", tmp_path / "out.zarr", "--batch", "batch"]
    done = without_torch(tmp_path, script, *words)
    assert done.returncode == 2
    assert done.stderr.startswith("vae.py: error: method pvae needs torch, which is not installed")
    assert done.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())
