"""scVI as a method of the workflow, and its script by hand."""

import json

import numpy as np
import pytest
from running import INPUT, read, snakemake, write_config

pytest.importorskip("scvi", reason="the extra of envs/scvi.txt is not installed")

SCRIPT = "integration/scripts/scvi.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Run two fits of scVI on the small pancreas data, up to the embeddings."""
    folder = tmp_path_factory.mktemp("scvi")
    methods = {
        "scvi": {"max_epochs": 2, "n_latent": 5},
        "nb": {"method": "scvi", "max_epochs": 1, "gene_likelihood": "nb"},
    }
    config = write_config(
        folder,
        d={
            "input": {"preprocessing": str(INPUT / "pancreas_mini.h5ad")},
            "preprocessing": {"n_top_genes": 200, "n_comps": 12},
            "integration": {"batch": "batch", "methods": methods},
        },
    )
    targets = [f"results/d/{name}/embedding.zarr" for name in methods]
    snakemake(folder, *targets, "--configfile", config)
    return folder / "results/d"


def test_the_embedding_and_its_record(folder):
    adata = read(folder / "scvi/embedding.zarr")
    assert adata.obsm["X_scvi"].shape == (adata.n_obs, 5)
    assert adata.obsm["X_scvi"].dtype == np.float32
    # A cell without a count has no place.
    assert np.isfinite(adata.obsm["X_scvi"]).all(axis=1).mean() > 0.95
    record = json.loads(adata.uns["X_scvi"])
    assert (record["n_genes"], record["n_epochs"], record["batch"]) == (200, 2, ["batch"])
    assert record["params"]["n_latent"] == 5
    assert record["device"] == "cpu"
    assert read(folder / "nb/embedding.zarr").obsm["X_nb"].shape == (adata.n_obs, 10)


def test_the_same_bits_by_hand_and_nothing_beside_the_store(folder, script, tmp_path):
    out = tmp_path / "again.zarr"
    words = ["--batch", "batch", "--max_epochs", "2", "--n_latent", "5", "--no-use_gpu"]
    script(SCRIPT, folder / "pca.zarr", out, *words, "--threads", "2")
    expected = read(folder / "scvi/embedding.zarr").obsm["X_scvi"]
    assert np.array_equal(read(out).obsm["X_scvi"], expected, equal_nan=True)
    assert [path.name for path in tmp_path.iterdir()] == ["again.zarr"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch", "batchh"], 'adata.obs has no column "batchh"; did you mean "batch"'),
        (["--batch", "batch", "--n_latent", "0"], "--n_latent: must be at least 1, found 0"),
        (["--batch", "batch", "--gene_likelihood", "zimb"], 'did you mean "zinb"'),
    ],
)
def test_wrong_input_is_one_line(folder, script, tmp_path, words, message):
    done = script(SCRIPT, folder / "pca.zarr", tmp_path / "x.zarr", *words, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert message in done.stderr
    assert not any(tmp_path.iterdir())
