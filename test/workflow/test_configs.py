"""Configs: the documented examples, every stage of entry, what is refused."""

import hashlib
import json

import anndata
import pandas as pd
import pytest
from running import INPUT, REPO, read, snakemake, write_config


def test_seed_multiresolution(seed_examples):
    atlas = read(seed_examples / "results/test_level1_multiresolution/unintegrated/atlas.zarr")
    assert list(atlas.obs.columns[-3:]) == ["leiden_0.2_1", "leiden_0.3_1", "leiden_0.4_1"]
    params = atlas.uns["neighbors"]["params"]
    assert (int(params["n_neighbors"]), str(params["use_rep"])) == (30, "X_pca")
    original = anndata.read_h5ad(INPUT / "pbmc68k.h5ad")
    assert not (atlas.obsm["X_umap"] == original.obsm["X_umap"]).all(), "recompute_umap"


def test_seed_mapping_splits_these_clusters_only(seed_examples):
    obs = read(seed_examples / "results/test_hierarchical/unintegrated/atlas.zarr").obs
    second = obs["leiden_0.5_2"].astype(str)
    others = ~obs["leiden_0.5_1"].isin(["1", "3"])
    assert second[others].str.endswith("_0").all()
    assert (second.str.rpartition("_")[0] == obs["leiden_0.5_1"].astype(str)).all()


def test_seed_depth_uses_what_the_input_brings(seed_examples):
    atlas = read(seed_examples / "results/test_hierarchical_int/unintegrated/atlas.zarr")
    assert atlas.obs["leiden_0.5_3"].astype(str).str.count("_").eq(2).all()
    original = anndata.read_h5ad(INPUT / "pbmc68k.h5ad")
    assert (atlas.obsm["X_umap"] == original.obsm["X_umap"]).all()
    assert (atlas.obsp["connectivities"] != original.obsp["connectivities"]).nnz == 0


def test_only_the_users_data_sets_run(tmp_path):
    config = write_config(tmp_path, mine={"input": {"clustering": str(INPUT / "pbmc68k.h5ad")}})
    done = snakemake(tmp_path, "--configfile", config, "-n")
    assert "pancreas" not in done.stdout + done.stderr
    assert "mine: " in done.stderr
    demo = snakemake(REPO, "-n", "--quiet")
    assert "pancreas" in demo.stdout + demo.stderr


def test_sub_levels_go_back_to_the_counts(tmp_path):
    config = write_config(
        tmp_path,
        mine={
            "input": {"preprocessing": str(INPUT / "pancreas_mini.h5ad")},
            "preprocessing": {"n_comps": 15, "n_top_genes": 300},
            "integration": {"batch": "batch"},
            "clustering": {
                "resolutions": [0.3],
                "hierarchy": [{"refine": "pca", "resolution": 1.0}, {"refine": "integration"}],
            },
        },
    )
    snakemake(tmp_path, "--configfile", config)
    folder = tmp_path / "results/mine/harmony"
    atlas = read(folder / "atlas.zarr")
    second, third = (json.loads(atlas.uns[f"leiden_0.3_{level}"]) for level in (2, 3))
    assert (second["use_rep"], third["use_rep"]) == ("own pca", "own integration")
    assert second["n_clusters"] > atlas.obs["leiden_0.3_1"].nunique()
    tree = pd.read_csv(folder / "tree.tsv", sep="\t", dtype={"cluster": str, "parent": str})
    assert tree.groupby("level")["n_cells"].sum().tolist() == [atlas.n_obs] * 3
    assert set(tree["parent"].dropna()) <= set(tree["cluster"])
    assert (folder / "tree.nwk").read_text().endswith("leiden_0.3;\n")


def test_one_cluster_is_split_and_nothing_else(tmp_path):
    config = write_config(
        tmp_path,
        mine={
            "input": {"clustering": str(INPUT / "pbmc68k.h5ad")},
            "clustering": {"resolutions": [0.5, 1], "hierarchy": {0: 2.0, 10: 1.0}},
        },
    )
    source = INPUT / "pbmc68k.h5ad"
    before = hashlib.sha256(source.read_bytes()).hexdigest()
    snakemake(tmp_path, "--configfile", config)
    obs = read(tmp_path / "results/mine/unintegrated/atlas.zarr").obs
    split = obs.loc[obs["leiden_0.5_1"] == "0", "leiden_0.5_2"].nunique()
    assert split > 1
    rest = obs.loc[~obs["leiden_1.0_1"].isin(["0", "10"]), "leiden_1.0_2"].astype(str)
    assert rest.str.fullmatch(r"\d+_0").all()
    assert hashlib.sha256(source.read_bytes()).hexdigest() == before


def test_a_cluster_that_no_resolution_has_is_an_error(tmp_path):
    config = write_config(
        tmp_path,
        mine={
            "input": {"clustering": str(INPUT / "pbmc68k.h5ad")},
            "clustering": {"resolutions": [0.2, 0.5], "hierarchy": {77: 2.0}},
        },
    )
    done = snakemake(tmp_path, "--configfile", config, check=False)
    assert done.returncode
    output = done.stdout + done.stderr
    assert 'have no cluster "77"' in output
    assert "Available: 0, 1, 2" in output
    clusterings = tmp_path / "results/mine/unintegrated/clustering"
    assert not list(clusterings.glob("*_2.zarr"))


def test_files_are_joined_subset_and_integrated_in_several_ways(tmp_path):
    whole = anndata.read_h5ad(INPUT / "pancreas_mini.h5ad")
    files = []
    for name in ("Baron et al. 2016", "Tosti et al. 2021", "Muraro et al. 2016"):
        part = whole[whole.obs["batch"] == name].copy()
        del part.obs["batch"]
        files.append(str(tmp_path / f"{name.split()[0]}.h5ad"))
        part.write_h5ad(files[-1])
    config = write_config(
        tmp_path,
        joined={
            "input": {"preprocessing": files},
            "preprocessing": {
                "subset": {"cell_type_broad": ["endocrine"]},
                "min_cells": 3,
                "n_top_genes": 100_000,
                "flavor": "seurat_v3",
                "n_comps": 10,
            },
            "integration": {
                "batch": "study",
                "methods": {"harmony": {}, "strong": {"method": "harmony", "theta": 4}},
            },
            "clustering": {"hierarchy": [0.5, {"resolution": 0.3, "n_neighbors": 8}]},
        },
    )
    snakemake(tmp_path, "--configfile", config)
    atlas = read(tmp_path / "results/joined/strong/atlas.zarr")
    assert set(atlas.obs["study"]) == {"Baron", "Tosti", "Muraro"}
    assert set(atlas.obs["cell_type_broad"]) == {"endocrine"}
    assert atlas.var["highly_variable"].all()
    assert "X_strong" in atlas.obsm
    assert atlas.obs["leiden_1.0_3"].notna().all()
    assert "X_harmony" in read(tmp_path / "results/joined/harmony/atlas.zarr").obsm
    # An atlas enters again, at integration, as a linked zarr store.
    again = tmp_path / "again"
    again.mkdir()
    config = write_config(
        again,
        again={
            "input": {"integration": str(tmp_path / "results/joined/strong/atlas.zarr")},
            "integration": {"batch": "donor", "basis": "X_pca"},
            "clustering": {"resolutions": [0.7]},
        },
    )
    snakemake(again, "--configfile", config)
    obs = read(again / "results/again/harmony/atlas.zarr").obs
    assert {"leiden_0.7_1", "leiden_1.0_3"} <= set(obs)


@pytest.mark.parametrize("dry", [[], ["-n"]])
def test_a_bad_config_is_refused_before_anything_runs(tmp_path, dry):
    config = write_config(
        tmp_path,
        a={"input": {"clustering": "missing.h5ad"}},
        b={"input": {"clustering": str(INPUT / "pbmc68k.h5ad")}, "clustering": {}},
    )
    done = snakemake(tmp_path, "--configfile", config, *dry, check=False)
    assert done.returncode == 2
    assert "DATASETS.a.input.clustering: no such file: missing.h5ad" in done.stderr
    config = write_config(tmp_path, a={"input": {"clustering": "x.h5ad"}, "clusterin": {}}, c={})
    done = snakemake(tmp_path, "--configfile", config, *dry, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert (
        'DATASETS.a.clusterin: unknown key "clusterin"; did you mean "clustering"?' in done.stderr
    )
    assert "DATASETS.c.input: is missing" in done.stderr
    assert not (tmp_path / "results").exists()
