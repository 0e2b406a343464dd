"""The scripts by hand: the documented examples, cells that take no part."""

import json
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
from running import INPUT, REPO, read

CLUSTERING = "clustering/scripts/clustering.py"


def test_documented_examples(script, tmp_path):
    source = tmp_path / "input.h5ad"
    source.symlink_to(INPUT / "pbmc68k.h5ad")
    first, second, third = (tmp_path / f"output{name}.zarr" for name in ("_level1", "_level2", ""))
    script(CLUSTERING, source, first, "--resolution", "1.0", "--algorithm", "leiden")
    script(CLUSTERING, source, first, "--resolution", "1.0", "--level", "1")
    neighbors = '{"n_neighbors": 15, "use_rep": "X_pca"}'
    script(
        *(CLUSTERING, first, second, "--resolution", "0.5", "--level", "2", "--threads", "4"),
        *("--neighbors_args", neighbors),
    )
    for wrong, words in (
        ('{"n_neighbor": 5}', 'did you mean "n_neighbors"?'),
        ('{"n_neighbors": "5"}', 'n_neighbors: must be an integer, found the text "5"'),
    ):
        options = (tmp_path / "wrong.zarr", "--level", "2", "--neighbors_args", wrong)
        done = script(CLUSTERING, first, *options, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert words in done.stderr
    arguments = '{"n_iterations": 5, "flavor": "igraph"}'
    script(
        *(CLUSTERING, source, third, "--resolution", "0.8"),
        *("--clustering_args", arguments, "--overwrite"),
    )
    assert list(read(first).obs) == ["leiden_1.0_1"]
    assert list(read(second).obs) == ["leiden_1.0_2"]
    assert list(read(third).obs) == ["leiden_0.8_1"]
    record = json.loads(read(third).uns["leiden_0.8_1"])
    assert record["flavor"] == "igraph"
    assert record["clustering_args"]["n_iterations"] == 5
    snippet = """
import pandas as pd
from utils.io import read_anndata

# Combine results from multiple runs
obs_data = []
for file in ['output_level1.zarr', 'output_level2.zarr']:
    obs = read_anndata(file, obs='obs', verbose=False).obs
    obs_data.append(obs)
combined_obs = pd.concat(obs_data, axis=1)
assert list(combined_obs) == ["leiden_1.0_1", "leiden_1.0_2"] and len(combined_obs) == 700
"""
    subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPO / "workflow")},
        check=True,
    )


@pytest.fixture
def prepared(script, tmp_path):
    store = tmp_path / "prepared.zarr"
    script("preprocessing/scripts/prepare.py", INPUT / "pbmc68k.h5ad", store)
    return store


@pytest.mark.parametrize(
    ("algorithm", "flavor"),
    [
        ("leiden", None),
        ("leiden", "igraph"),
        ("leiden", "leidenalg"),
        ("louvain", None),
        ("louvain", "igraph"),
    ],
)
def test_every_flavor_and_level_is_the_same_with_any_threads(
    script, tmp_path, prepared, algorithm, flavor
):
    options = ["--algorithm", algorithm]
    if flavor:
        options += ["--clustering_args", json.dumps({"flavor": flavor})]
    first = tmp_path / "1.zarr"
    script(CLUSTERING, prepared, first, *options)
    found = []
    for threads in (1, 4):
        out = tmp_path / f"2_{threads}.zarr"
        script(CLUSTERING, first, out, "--level", 2, "--threads", threads, *options)
        found.append(read(out).obs[f"{algorithm}_1.0_2"])
    assert found[0].nunique() > read(first).obs.iloc[:, 0].nunique()
    pd.testing.assert_series_equal(*found)


def test_the_parent_is_found_or_the_choice_is_listed(script, tmp_path, prepared):
    stores = []
    for resolution in ("0.5", "1.0"):
        stores.append(tmp_path / f"{resolution}.zarr")
        script(CLUSTERING, prepared, stores[-1], "--resolution", resolution)
    atlas = tmp_path / "atlas.zarr"
    script("clustering/scripts/merge.py", prepared, atlas, "--clustering", *stores)
    out = tmp_path / "out.zarr"
    script(CLUSTERING, atlas, out, "--resolution", "0.5", "--level", 2)
    assert list(read(out).obs) == ["leiden_0.5_2"]
    done = script(
        CLUSTERING, atlas, tmp_path / "x.zarr", "--resolution", 2, "--level", 2, check=False
    )
    assert done.returncode == 2
    assert "several of level 1: leiden_0.5_1, leiden_1.0_1" in done.stderr


def test_an_existing_column_is_kept_unless_overwritten(script, tmp_path):
    adata = anndata.read_h5ad(INPUT / "pbmc68k.h5ad")
    adata.obs["leiden_1.0_1"] = pd.Categorical(["mine"] * 700)
    adata.write_h5ad(tmp_path / "in.h5ad")
    out = tmp_path / "out.zarr"
    assert "which is kept" in script(CLUSTERING, tmp_path / "in.h5ad", out).stderr
    assert set(read(out).obs["leiden_1.0_1"]) == {"mine"}
    script(CLUSTERING, tmp_path / "in.h5ad", out, "--overwrite")
    assert read(out).obs["leiden_1.0_1"].nunique() > 5


def test_cells_that_take_no_part_stay_unlabelled(script, tmp_path):
    adata = anndata.read_h5ad(INPUT / "pancreas_mini.h5ad")
    rng = np.random.default_rng(0)
    adata.obsm["X_pca"] = rng.normal(size=(adata.n_obs, 5)).astype(np.float32)
    adata.obs["good"] = np.arange(adata.n_obs) >= 20
    adata.write_h5ad(tmp_path / "in.h5ad")
    steps = [tmp_path / f"{i}.zarr" for i in range(6)]
    script("preprocessing/scripts/prepare.py", tmp_path / "in.h5ad", steps[0])
    qc = ["--batch", "batch", "--qc_column", "good"]
    script("integration/scripts/harmony.py", steps[0], steps[1], *qc)
    script("clustering/scripts/neighbors.py", steps[1], steps[2], "--use_rep", "X_harmony")
    script(CLUSTERING, steps[2], steps[3])
    script(CLUSTERING, steps[3], steps[4], "--level", 2)
    script("clustering/scripts/umap.py", steps[2], steps[5])
    expected = ~adata.obs["good"].to_numpy()
    assert (np.isnan(read(steps[1]).obsm["X_harmony"]).all(axis=1) == expected).all()
    assert (read(steps[3]).obs["leiden_1.0_1"].isna() == expected).all()
    assert (read(steps[4]).obs["leiden_1.0_2"].isna() == expected).all()
    assert (np.isnan(read(steps[5]).obsm["X_umap"]).all(axis=1) == expected).all()
    plots = tmp_path / "plots"
    script("evaluation/scripts/plots.py", steps[5], plots, "--colors", "good")
    assert (plots / "good.png").exists()
