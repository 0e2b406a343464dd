"""Counts in, integrated and hierarchically clustered atlas out."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from running import REPO, hashes, read, snakemake

COLUMNS = [f"{name}_1.0_{level}" for name in ("leiden", "louvain") for level in (1, 2, 3)]


def real_files(path: Path) -> list[Path]:
    return [Path(folder) / name for folder, _, names in os.walk(path) for name in names]


@pytest.mark.parametrize("method", ["unintegrated", "harmony"])
def test_the_atlas_is_the_whole_data_set(pancreas, method):
    atlas = read(pancreas / "results/pancreas" / method / "atlas.zarr")
    assert atlas.shape == (766, 1500)
    assert [c for c in atlas.obs if c in COLUMNS] == COLUMNS
    assert {"cell_type", "batch"} <= set(atlas.obs)
    assert {"X_pca", "X_umap"} <= set(atlas.obsm)
    assert ("X_harmony" in atlas.obsm) == (method == "harmony")
    assert {"connectivities", "distances"} == set(atlas.obsp)
    assert atlas.uns["neighbors"]["params"]["use_rep"] == (
        "X_harmony" if method == "harmony" else "X_pca"
    )
    assert int(atlas.var["highly_variable"].sum()) == 800
    assert np.isfinite(atlas.obsm["X_umap"]).all()
    original = pd.unique(atlas.X.data[:1000])
    assert (original == original.astype(int)).all(), "X holds the counts as they came"


def test_every_store_opens(pancreas):
    stores = sorted((pancreas / "results").rglob("*.zarr"))
    stores = [path for path in stores if not path.is_symlink()]
    assert len(stores) == 2 + 1 + 2 * (3 + 1 + len(COLUMNS))
    for store in stores:
        assert read(store).n_obs == 766


def test_labels_name_their_parents(pancreas):
    for method in ("unintegrated", "harmony"):
        obs = read(pancreas / "results/pancreas" / method / "atlas.zarr").obs
        for column in COLUMNS:
            level = int(column[-1])
            labels = obs[column].astype(str)
            assert labels.str.count("_").eq(level - 1).all()
            sizes = labels.value_counts()
            if level > 1:
                parents = obs[f"{column[:-1]}{level - 1}"].astype(str)
                assert (labels.str.rpartition("_")[0] == parents).all()
            parts = pd.Series(sizes.index).str.rpartition("_")
            for _, rows in parts.groupby(0):
                numbers = rows[2].astype(int).sort_values()
                assert list(numbers) == list(range(len(numbers)))
                assert sizes.iloc[numbers.index].is_monotonic_decreasing, "the largest is 0"


def test_a_clustering_store_is_small_and_says_how_it_was_made(pancreas):
    folder = pancreas / "results/pancreas/harmony/clustering"
    for column in COLUMNS:
        store = folder / f"{column}.zarr"
        assert len(real_files(store)) <= 20
        found = read(store)
        assert list(found.obs) == [column]
        record = json.loads(found.uns[column])
        assert record["level"] == int(column[-1])
        assert record["device"] == "cpu"
        assert record["n_clusters"] == found.obs[column].nunique()


def test_links_are_relative_and_nothing_is_copied(pancreas):
    results = pancreas / "results"
    links = [path for path in results.rglob("*") if path.is_symlink()]
    assert links
    assert not [path for path in links if path.readlink().is_absolute()]
    counts = [path for path in results.rglob("X") if not path.is_symlink()]
    assert [path.parent.name for path in counts] == ["prepared.zarr"]


def test_harmony_mixes_the_batches(pancreas):
    from scipy.spatial import cKDTree

    def same_batch(method, key):
        adata = read(pancreas / "results/pancreas" / method / "atlas.zarr")
        _, near = cKDTree(adata.obsm[key]).query(adata.obsm[key], k=16)
        batch = adata.obs["batch"].to_numpy()
        return (batch[near[:, 1:]] == batch[:, None]).mean()

    assert same_batch("harmony", "X_harmony") < same_batch("unintegrated", "X_pca") - 0.2


def test_tables_and_pictures(pancreas):
    results = pancreas / "results"
    table = pd.read_csv(results / "clusters.tsv", sep="\t")
    assert len(table) == 2 * len(COLUMNS)
    assert list(table.columns[:4]) == ["dataset", "method", "column", "n_clusters"]
    obs = read(results / "pancreas/harmony/atlas.zarr").obs
    row = table.set_index(["method", "column"]).loc[("harmony", "leiden_1.0_2")]
    sizes = obs["leiden_1.0_2"].value_counts()
    assert (row["n_clusters"], row["largest"], row["smallest"]) == (
        len(sizes),
        sizes.max(),
        sizes.min(),
    )
    plots = results / "pancreas/harmony/plots"
    expected = {f"{name}.png" for name in ["cell_type", "batch", *COLUMNS]} | {"umap.tsv.gz"}
    assert {path.name for path in plots.glob("[!.]*")} == expected
    assert all((plots / name).stat().st_size > 5000 for name in expected)
    layout = pd.read_csv(plots / "umap.tsv.gz", sep="\t", index_col="cell", dtype=str)
    assert list(layout.columns) == ["umap_1", "umap_2", "cell_type", "batch", *COLUMNS]
    assert list(layout["leiden_1.0_2"]) == list(obs["leiden_1.0_2"])
    assert {path.name for path in (results / "pancreas/comparison").glob("[!.]*")} == {
        "cell_type.png",
        "batch.png",
        "metrics.tsv",
        "metrics.png",
        "metrics_by_batch.png",
        "metrics_by_cell_type.png",
        "metrics_by_clusters.png",
        "warnings.tsv",
    }
    scores = pd.read_csv(results / "pancreas/comparison/metrics.tsv", sep="\t")
    scores = scores[scores["group"] == "all"].set_index(["metric", "method"])["value"]
    for metric in ("ilisi", "pc_regression"):
        assert scores[metric, "harmony"] > scores[metric, "unintegrated"] + 0.02


def test_a_printed_command_runs_by_hand(pancreas, tmp_path):
    printed = (pancreas / "printed.txt").read_text()
    stores = r"\S+harmony/clustering/leiden_1\.0_1\.zarr \S+leiden_1\.0_2\.zarr"
    (command,) = re.findall(rf"(python \S+ {stores} .*) 2>&1", printed)
    words = shlex.split(command)
    out = tmp_path / "again.zarr"
    words[3] = str(out)
    words[0] = sys.executable
    subprocess.run(words, cwd=pancreas, check=True, capture_output=True)
    column = "leiden_1.0_2"
    before = read(pancreas / f"results/pancreas/harmony/clustering/{column}.zarr").obs[column]
    assert (read(out).obs[column] == before).all()


def test_two_runs_and_other_numbers_of_cores_give_the_same_bits(pancreas, tmp_path):
    config = shutil.copy(pancreas / "my.yaml", tmp_path)
    snakemake(tmp_path, "--configfile", config, cores=1)
    first, second = (hashes(folder / "results") for folder in (pancreas, tmp_path))
    assert len(first) > 500
    assert [name for name in first if second.get(name) != first[name]] == []
    assert set(second) == set(first)


def test_nothing_is_run_twice(pancreas):
    done = snakemake(pancreas, "--configfile", pancreas / "my.yaml", "-n")
    assert "Nothing to be done" in done.stdout + done.stderr


def test_scanpy_works_on_the_atlas(pancreas):
    import scanpy as sc

    atlas = read(pancreas / "results/pancreas/harmony/atlas.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.tl.leiden(atlas, key_added="again", flavor="igraph", n_iterations=2, directed=False)
        sc.tl.paga(atlas, groups="leiden_1.0_1")
    assert atlas.obs["again"].nunique() > 3


def test_logs_and_benchmarks(pancreas):
    results = pancreas / "results"
    assert (
        "clusters of 766 cells"
        in (results / "logs/pancreas/harmony/clustering/leiden_1.0_3.log").read_text()
    )
    benchmark = pd.read_csv(results / "benchmarks/pancreas/pca.tsv", sep="\t")
    assert benchmark["s"].notna().all()


def test_splits_markers_and_trees(pancreas):
    folder = pancreas / "results/pancreas/harmony"
    tables = {
        name: pd.read_csv(
            folder / f"{name}.tsv",
            sep="\t",
            dtype={"left": str, "right": str, "cluster": str, "parent": str},
        )
        for name in ("splits", "markers", "robustness", "resolutions")
    }
    obs = read(folder / "atlas.zarr").obs
    for column in COLUMNS:
        found = tables["robustness"][tables["robustness"]["column"] == column]
        assert set(found["cluster"]) == set(obs[column].astype(str))
        sizes = found.set_index("cluster")["n_cells"]
        assert (sizes == obs[column].astype(str).value_counts().reindex(sizes.index)).all()
        # A dendrogram of the children of each parent.
        found = tables["splits"][tables["splits"]["column"] == column]
        children = obs[column].astype(str).drop_duplicates()
        parents = children.str.rpartition("_")[0]
        assert found["parent"].value_counts().to_dict() == {
            parent or "all": n - 1 for parent, n in parents.value_counts().items() if n > 1
        }
        alone = [name for name in [*found["left"], *found["right"]] if "," not in name]
        assert sorted(alone) == sorted(children[parents.duplicated(keep=False)])
    whole = tables["splits"][tables["splits"]["column"] == "leiden_1.0_1"]
    robust = tables["robustness"].query("column == 'leiden_1.0_1'")["jaccard"]
    assert robust.median() > 0.6
    assert whole["jaccard_left"].isin(robust).all()
    assert whole["suggestion"].isin(["keep", "merge"]).all()
    assert (whole["suggestion"] == "keep").sum() > 2
    assert "GCG" in " ".join([*whole["markers_left"].dropna(), *whole["markers_right"].dropna()])
    (best,) = tables["resolutions"].query("suggested == 'yes' and family == 'leiden resolutions'")[
        "column"
    ]
    assert best == "leiden_1.0_1"
    beta = obs.loc[obs["cell_type"] == "Beta cells", "leiden_1.0_1"].astype(str).mode()[0]
    markers = tables["markers"].query(f"column == 'leiden_1.0_1' and cluster == '{beta}'")
    assert {"INS", "IAPP"} & set(markers["gene"].head(10))
    pictures = {path.stem for path in (folder / "trees").glob("*.png")}
    assert {"tree_leiden_1.0_levels", "composition_louvain_1.0_3"} <= pictures


def test_the_report_works_offline(pancreas):
    config = pancreas / "my.yaml"
    snakemake(pancreas, "--configfile", config, "--report", "report.zip", cores=None)
    with zipfile.ZipFile(pancreas / "report.zip") as report:
        names = report.namelist()
        (page,) = [report.read(name).decode() for name in names if name.endswith("report.html")]
    assert sum(name.endswith(".png") for name in names) > 30
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=.https?://", page)
    assert "rewards embeddings whose batches are not mixed" in page


def test_every_file_and_column_is_on_the_page_of_outputs(pancreas):
    page = (REPO / "docs" / "outputs.md").read_text()
    named = set(re.findall(r"`([^`]+)`", page))
    results = pancreas / "results"
    drawn = {"cell_type", "batch", *COLUMNS}
    for folder, folders, files in os.walk(results):
        folders[:] = [name for name in folders if not name.endswith(".zarr") and name[0] != "."]
        place = Path(folder).relative_to(results)
        if place.parts[:1] in {("logs",), ("benchmarks",)}:
            continue
        for name in (name for name in files if name[0] != "."):
            text = f"/{place}/{name}".replace("/./", "/").replace("/pancreas/", "/{dataset}/")
            text = re.sub("/(harmony|unintegrated)/", "/{method}/", text).lstrip("/")
            if name.endswith(".tsv"):
                assert {text, name} & named, text
                header = (Path(folder) / name).read_text().splitlines()[0].split("\t")
                assert not set(header) - named - drawn, (text, header)
            else:
                ours = name.rpartition(".")[0] in drawn or name == "umap.tsv.gz"
                pattern = (
                    r"(tree_.*_(levels|resolutions)|composition_.*|metrics(_by_.*)?)\.png"
                    r"|tree\.nwk|explorer\.html"
                )
                assert ours or re.fullmatch(pattern, name), text
