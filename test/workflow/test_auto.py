"""`hierarchy: auto`: as many levels as there are splits, which no one knows before the run."""

import json
import re
import subprocess
import sys
import zlib
from base64 import b64decode

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from running import REPO, read, snakemake, write_config

# Two groups of cells, of two types each: resolution 0.3 finds the groups, then the types.
COLUMNS = ["leiden_0.05_1", "leiden_0.3_1", "leiden_0.3_2"]


def nested_types(n_cells=900, n_genes=400, seed=0):
    """Draw counts of two groups of cells with two types each."""
    rng = np.random.default_rng(seed)
    group, half = rng.integers(0, 2, (2, n_cells))
    mean = np.exp(rng.normal(-0.5, 0.8, n_genes)) * np.ones((n_cells, 1))
    mean[:, :120] *= np.where(group == 0, 4, 1)[:, None]
    for k in (0, 1):
        mean[:, 120 + 60 * k : 180 + 60 * k] *= np.where((group == k) & (half == 1), 2, 1)[:, None]
    obs = {"group": group, "type": 2 * group + half, "batch": rng.integers(0, 2, n_cells)}
    obs = pd.DataFrame(obs, index=[f"c{i}" for i in range(n_cells)]).astype(str).astype("category")
    var = pd.DataFrame(index=[f"g{i}" for i in range(n_genes)])
    return anndata.AnnData(sp.csr_matrix(rng.poisson(mean).astype(np.float32)), obs, var)


@pytest.fixture(scope="module")
def auto(tmp_path_factory):
    """Run from counts to all outputs; return the folder and what a dry run said before."""
    folder = tmp_path_factory.mktemp("auto")
    nested_types().write_h5ad(folder / "cells.h5ad")
    config = write_config(
        folder,
        nested={
            "input": {"preprocessing": "cells.h5ad"},
            "preprocessing": {"n_top_genes": None, "n_comps": 10},
            "integration": {"batch": "batch", "methods": {"unintegrated": {}, "harmony": {}}},
            "clustering": {
                "resolutions": [0.05, 0.3],
                "hierarchy": "auto",
                "umap_colors": ["type", "leiden_0.3_1"],
            },
            "evaluation": {"label": "type", "rounds": 2, "n_markers": 3},
        },
    )
    command = ["--configfile", config, "--config", "h5ad=True"]
    planned = snakemake(folder, *command, "-n")
    done = snakemake(folder, *command)
    return folder, command, planned.stdout + planned.stderr, done.stdout + done.stderr


def test_the_dry_run_names_every_job(auto):
    _, _, planned, printed = auto
    total = re.search(r"^total +(\d+)$", planned, re.MULTILINE)[1]
    assert re.search(r"^autoclustering +4$", planned, re.MULTILINE)
    assert f"{total} of {total} steps (100%) done" in printed
    assert "as many levels as have splits" in planned


@pytest.mark.parametrize("method", ["unintegrated", "harmony"])
def test_every_output_has_every_level(auto, method):
    folder = auto[0] / "results/nested" / method
    atlas = read(folder / "atlas.zarr")
    assert {name for name in atlas.obs if name.startswith("leiden")} == set(COLUMNS)
    for column, truth in zip(COLUMNS, ["group", "group", "type"], strict=True):
        record = json.loads(atlas.uns[column])
        assert record["level"] == int(column[-1])
        assert (record["significance"], record["min_cluster_size"]) == (0.05, 20)
        table = pd.crosstab(atlas.obs[column], atlas.obs[truth])
        assert len(table) == len(table.columns)
        assert table.max().sum() > 0.9 * len(atlas), (column, table)
    record = json.loads(atlas.uns["leiden_0.3_2"])
    assert record["parent"] == "leiden_0.3_1"
    assert set(record["leaves"]) == set(atlas.obs["leiden_0.3_2"].cat.categories)
    parents = atlas.obs["leiden_0.3_2"].astype(str).str.rpartition("_")[0]
    assert (parents == atlas.obs["leiden_0.3_1"].astype(str)).all()
    for name in ("clusters", "tree", "markers", "robustness", "splits"):
        table = pd.read_csv(folder / f"{name}.tsv", sep="\t")
        assert set(table["column"]) == set(COLUMNS), name
    assert pd.read_csv(folder / "robustness.tsv", sep="\t")["jaccard"].min() > 0.8
    assert set(pd.read_csv(folder / "metrics.tsv", sep="\t")["group"]) >= set(COLUMNS)
    assert {path.stem for path in (folder / "plots").glob("leiden*.png")} == set(COLUMNS)
    pictures = {path.stem for path in (folder / "trees").glob("*.png")}
    assert {"tree_leiden_0.3_levels", *(f"composition_{name}" for name in COLUMNS)} <= pictures
    exported = anndata.read_h5ad(folder / "atlas.h5ad")
    assert exported.obs[COLUMNS].astype(str).equals(atlas.obs[COLUMNS].astype(str))
    assert len(exported.uns["leiden_0.3_2_colors"]) == 4


def test_the_summary_and_the_explorer(auto):
    folder = auto[0] / "results"
    summary = pd.read_csv(folder / "clusters.tsv", sep="\t")
    assert summary.groupby("method")["n_clusters"].apply(list).to_dict() == {
        "harmony": [2, 2, 4],
        "unintegrated": [2, 2, 4],
    }
    page = (folder / "nested/explorer.html").read_text()
    data = zlib.decompress(b64decode(re.search(r'id="data">([^<]*)<', page)[1]))
    about = json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])
    for method in about["methods"]:
        columns = {tree["name"]: tree["columns"] for tree in method["trees"]}
        assert columns == {"leiden_0.05": COLUMNS[:1], "leiden_0.3": COLUMNS[1:]}


def run(script, *words, check=True):
    command = [sys.executable, REPO / "workflow" / script, *words]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=check)


def test_levels_are_those_of_one_run_for_each(auto, tmp_path):
    folder = auto[0] / "results/nested/harmony"
    store = read(folder / "clustering/leiden_0.3_auto.zarr")
    assert list(store.obs) == COLUMNS[1:]
    words = ["--resolution", 0.3, "--significance", 0.05, "--batch", "batch"]
    words += ["--neighbors_args", '{"use_rep": "X_harmony"}']
    source = folder / "neighbors.zarr"
    for level in (1, 2, 3):
        out = tmp_path / f"{level}.zarr"
        more = ["--level", level, "--given_file", folder / "neighbors.zarr"]
        run("clustering/scripts/clustering.py", source, out, *words, *more)
        column = read(out).obs.iloc[:, 0]
        if level < 3:
            assert column.equals(store.obs[f"leiden_0.3_{level}"])
        source = out
    assert set(column.astype(str)) == {
        f"{name}_0" for name in store.obs["leiden_0.3_2"].cat.categories
    }


def test_the_same_from_a_file_that_cannot_be_linked(auto, tmp_path):
    folder = auto[0] / "results/nested/harmony"
    adata = anndata.read_h5ad(folder / "atlas.h5ad")
    adata.obs = adata.obs.drop(columns=COLUMNS)
    adata.write_h5ad(tmp_path / "a.h5ad")
    words = ["--level", "auto", "--resolution", 0.3, "--batch", "batch", "--threads", 2]
    out = tmp_path / "auto.zarr"
    done = run("clustering/scripts/clustering.py", tmp_path / "a.h5ad", out, *words)
    assert "no cluster of leiden_0.3_2 is split: it is the last level" in done.stderr
    store = read(folder / "clustering/leiden_0.3_auto.zarr")
    assert read(out).obs.astype(str).equals(store.obs.astype(str))


def test_columns_of_the_input_are_kept_and_split_further(auto, tmp_path):
    folder = auto[0] / "results/nested/harmony"
    adata = anndata.read_h5ad(folder / "atlas.h5ad")
    adata.obs["leiden_0.3_1"] = adata.obs["leiden_0.3_1"].cat.rename_categories(["B", "T cell"])
    adata.obs = adata.obs.drop(columns=["leiden_0.3_2"])
    adata.write_h5ad(tmp_path / "a.h5ad")
    words = ["--level", "auto", "--resolution", 0.3]
    done = run("clustering/scripts/clustering.py", tmp_path / "a.h5ad", tmp_path / "o.zarr", *words)
    assert "obs has leiden_0.3_1, which is kept" in done.stderr
    assert "--significance without --batch" in done.stderr
    obs = read(tmp_path / "o.zarr").obs
    assert set(obs["leiden_0.3_2"]) == {"B_0", "B_1", "T cell_0", "T cell_1"}


def test_nothing_is_run_twice_and_a_lost_store_is_made_again(auto):
    folder, command, _, _ = auto
    assert "Nothing to be done" in snakemake(folder, *command, "-n").stdout
    store = folder / "results/nested/harmony/clustering/leiden_0.3_auto.zarr"
    store.rename(store.with_name("away"))
    planned = snakemake(folder, *command, "-n")
    store.with_name("away").rename(store)
    assert re.search(r"^autoclustering +1$", planned.stdout + planned.stderr, re.MULTILINE)


def test_an_atlas_of_all_levels_without_links(auto, tmp_path):
    folder, atlas = auto[0] / "results/nested/harmony", tmp_path / "atlas.zarr"
    words = [folder / "clustered.zarr", atlas, "--layout", folder / "umap.zarr", "--materialize"]
    run("clustering/scripts/merge.py", *words)
    assert not any(path.is_symlink() for path in atlas.rglob("*"))
    assert set(COLUMNS) <= set(read(atlas).obs)


def test_a_pattern_that_matches_nothing(auto, tmp_path):
    store = auto[0] / "results/nested/harmony/clustered.zarr"
    for script, more in (("markers", []), ("trees", []), ("plots", ["--basis", "X_pca"])):
        words = [store, tmp_path / "out.tsv", "--clusters", "leiden_0.5_*", *more]
        done = run(f"evaluation/scripts/{script}.py", *words, check=False)
        assert done.returncode == 2
        assert (
            'adata.obs has no cluster column that matches "leiden_0.5_*"' in done.stderr
            and "leiden_0.3_2" in done.stderr
        ), done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--level", "auto", "--hierarchy", '{"0": 1}'], "add --level 2 or more"),
        (["--level", "automatic"], "must be a number or auto, found automatic"),
        (["--level", 0], "--level must be at least 1, found 0"),
        (["--significance", 1], "--significance: must be less than 1, found 1"),
        (["--min_cluster_size", 0], "--min_cluster_size: must be at least 1, found 0"),
        (["--gradual", "join"], "--gradual has no effect without --significance"),
    ],
)
def test_words_that_do_not_go_together(auto, words, said, tmp_path):
    store = auto[0] / "results/nested/harmony/neighbors.zarr"
    done = run("clustering/scripts/clustering.py", store, tmp_path / "o.zarr", *words, check=False)
    assert done.returncode == 2
    assert said in done.stderr
