"""MNN as methods of the workflow, and its script by hand."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from running import INPUT, read, snakemake, write_config

SCRIPT = "integration/scripts/mnn.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Run every kind of MNN on the small pancreas data, up to the embeddings."""
    folder = tmp_path_factory.mktemp("mnn")
    methods = {
        "mnn": {"merge_order": [["Baron et al. 2016", "Muraro et al. 2016"], REST]},
        "again": {"method": "mnn", "basis": "X_mnn", "auto_merge": True},
        "cosine_mnn": {"method": "fast_mnn", "n_comps": 10, "clusters": "cell_type"},
        "mnn_correct": {"n_comps": 10, "layer_added": "corrected"},
    }
    config = write_config(
        folder,
        d={
            "input": {"preprocessing": str(INPUT / "pancreas_mini.h5ad")},
            "preprocessing": {"n_top_genes": 500, "n_comps": 12},
            "integration": {"batch": "batch", "methods": methods},
        },
    )
    targets = [f"results/d/{name}/embedding.zarr" for name in methods]
    snakemake(folder, *targets, "--configfile", config)
    return folder / "results/d"


REST = [["Fasolino et al. 2022", "Tosti et al. 2021"], "Tritschler et al. 2022"]


def same_batch(embedding, batch):
    """Share of the 15 nearest cells that are of the same batch."""
    distance = ((embedding[:, None] - embedding[None]) ** 2).sum(axis=2)
    near = distance.argsort(axis=1)[:, 1:16]
    codes = pd.factorize(batch)[0]
    return (codes[near] == codes[:, None]).mean()


@pytest.mark.parametrize(
    ("name", "dims"), [("mnn", 12), ("again", 12), ("cosine_mnn", 10), ("mnn_correct", 10)]
)
def test_batches_mix(folder, name, dims):
    adata = read(folder / name / "embedding.zarr")
    embedding = adata.obsm[f"X_{name}"]
    assert embedding.shape == (766, dims)
    before = same_batch(adata.obsm["X_pca"], adata.obs["batch"])
    assert same_batch(embedding, adata.obs["batch"]) < 0.75 * before
    record = json.loads(adata.uns[f"X_{name}"])
    table = pd.read_csv(folder / name / "merges.tsv", sep="\t")
    assert len(table) == len(record["merges"]) == 4
    assert list(table["n_pairs"]) == [row["n_pairs"] for row in record["merges"]]


def test_what_else_is_written(folder):
    table = pd.read_csv(folder / "mnn/merges.tsv", sep="\t")
    assert table["right"].iloc[-1] == "+".join([*REST[0], REST[1]])
    loadings = read(folder / "cosine_mnn/embedding.zarr").varm["X_cosine_mnn"]
    assert loadings.shape == (1500, 10)
    assert (loadings != 0).any(axis=1).sum() == 500
    corrected = read(folder / "mnn_correct/embedding.zarr")
    assert corrected.layers["corrected"].shape == (766, 1500)
    assert corrected.X.data.max() > 10  # the counts are as they were


def test_cells_without_coordinates_stay_so(script, folder, tmp_path):
    rows = np.arange(766) % 10 == 0
    adata = read(folder / "mnn/embedding.zarr")
    topics = np.random.default_rng(0).dirichlet(np.ones(5), size=766).astype(np.float32)
    topics[rows] = np.nan
    small = anndata.AnnData(obs=adata.obs[["batch"]], obsm={"X_topics": topics})
    small.write_h5ad(tmp_path / "in.h5ad")
    script("preprocessing/scripts/prepare.py", tmp_path / "in.h5ad", tmp_path / "in.zarr")
    options = ["--batch", "batch", "--basis", "X_topics", "--project_simplex", "--threads", 2]
    done = script(SCRIPT, tmp_path / "in.zarr", tmp_path / "out.zarr", *options)
    assert "77 of 766 cells are NaN in X_topics" in done.stderr
    assert "batch vectors were removed from 4 dimensions, 100%" in done.stderr
    found = read(tmp_path / "out.zarr").obsm["X_mnn"]
    assert (np.isnan(found).all(axis=1) == rows).all()
    assert np.allclose(found[~rows].sum(axis=1), 1, atol=1e-5)
    assert (found[~rows] >= 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch", "batchh"], 'no column "batchh"; did you mean "batch"?'),
        (["--batch", "batch", "--basis", "X_pcaa"], 'no "X_pcaa"; did you mean "X_pca"?'),
        (["--batch", "batch", "--key_added", "X_pca"], "X_pca already"),
        (["--batch", "batch", "--merge_order", '["x"]'], 'unknown batch "x"'),
        (["--batch", "batch", "--k", "0"], "--k: "),
        (["--batch", "batch", "--sigma", "1"], "unrecognized arguments: --sigma"),
        (["--batch", "batch", "--method", "fast_mnn", "--layer", "x"], 'layers has no "x"'),
        (["--batch", "batch", "--restrict", "cell_type"], "restrict must be 766 booleans"),
    ],
)
def test_bad_options_are_one_line(script, folder, tmp_path, options, message):
    done = script(SCRIPT, folder / "../d/pca.zarr", tmp_path / "out.zarr", *options, check=False)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert message in errors[0]
    assert not any(tmp_path.iterdir())
