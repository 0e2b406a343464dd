"""CPU or GPU: the decision and the way back, with stand-ins for CuPy and RAPIDS.

The stand-ins say nothing about a real GPU; they show that its failures end on the CPU.
"""

import importlib.util
import json
import sys

import anndata  # before a stand-in is there: it asks for CuPy when it is imported
import numpy as np
import pandas as pd
import pytest
import zarr
from running import INPUT, REPO, read

# A step's script and options, and where its result and its record are.
STEPS = {
    "harmony": (
        ["integration/scripts/harmony.py", "--batch", "batch", "--max_iter_harmony", "2"],
        "obsm/X_harmony",
        "uns/X_harmony",
    ),
    "neighbors": (
        ["clustering/scripts/neighbors.py", "--overwrite"],
        "obsp/connectivities",
        "uns/neighbors/params",
    ),
    "leiden": (["clustering/scripts/clustering.py"], "obs/leiden_1.0_1", "uns/leiden_1.0_1"),
    "louvain": (
        ["clustering/scripts/clustering.py", "--algorithm", "louvain"],
        "obs/louvain_1.0_1",
        "uns/louvain_1.0_1",
    ),
    "umap": (
        ["clustering/scripts/umap.py", "--overwrite", "--n_epochs", "5"],
        "obsm/X_umap",
        "uns/umap/params",
    ),
}
RAPIDS = [step for step in STEPS if step != "harmony"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "pbmc68k.zarr"
    anndata.read_h5ad(INPUT / "pbmc68k.h5ad").write_zarr(path)
    return path


@pytest.fixture
def run(tmp_path, store, monkeypatch, capsys):
    """Run a step in this process, where `fault` is what the GPU does wrong."""

    def run(step, *options, fault="", without=None, source=store):
        monkeypatch.setenv("STANDIN", fault)
        # A script replaces the first.
        monkeypatch.setattr(sys, "path", ["", str(REPO / "test" / "standins"), *sys.path])
        for package in ("cupy", "rapids_singlecell"):
            monkeypatch.delitem(sys.modules, package, raising=False)
        if without:
            monkeypatch.setitem(sys.modules, without, None)
        (script, *words), result, record = STEPS[step]
        spec = importlib.util.spec_from_file_location("script", REPO / "workflow" / script)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr"
        words = [*map(str, (source, out)), *words, "--n_cell_cpu", "10", *options]
        module.main(module.make_parser().parse_args(words))
        for package in ("cupy", "rapids_singlecell"):
            monkeypatch.delitem(sys.modules, package, raising=False)
        return found(out, result), found(out, record), capsys.readouterr().err

    return run


def found(out, path):
    """Read an element of a store."""
    from anndata.io import read_elem

    value = read_elem(zarr.open_group(out, mode="r")[path])
    if path.startswith("obs/"):
        return pd.Series(value)
    if isinstance(value, str):
        return json.loads(value)
    return value.toarray() if hasattr(value, "toarray") else value


@pytest.mark.parametrize("step", STEPS)
def test_a_gpu_that_works_is_used(run, step):
    _, record, log = run(step)
    assert record["device"] == "gpu"
    assert record["reason"] in log
    assert "device: GPU (700 cells, a GPU is visible)" in log


@pytest.mark.parametrize("step", STEPS)
def test_whatever_fails_the_cpu_does_it_and_the_reason_is_kept(run, step):
    expected, _, _ = run(step, "--no-use_gpu")
    memory = "OutOfMemoryError: Out of memory" if step == "harmony" else "MemoryError: std::bad"
    for fault, without, reason in (
        ("out of memory", None, f"the GPU failed: {memory}"),
        ("driver gone", None, "the GPU failed: "),
        ("no driver", None, "no GPU is visible: cudaErrorInsufficientDriver"),
        ("no device", None, "no GPU is visible"),
        ("", "rapids_singlecell", "rapids_singlecell is not installed"),
        ("", "cupy", "cupy is not installed"),
    ):
        result, record, log = run(step, fault=fault, without=without)
        assert record["device"] == "cpu"
        assert record["reason"].startswith(reason)
        assert f"device: CPU ({record['reason']})" in log.splitlines()
        assert np.array_equal(result, expected)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_the_cpu_does_is_the_same_beside_a_gpu(run, step):
    without, _, _ = run(step, "--no-use_gpu", without="cupy")
    below, record, _ = run(step, "--n_cell_cpu", "701")
    assert record["reason"] == "700 cells, fewer than n_cell_cpu = 701"
    refused, record, _ = run(step, "--no-use_gpu")
    assert record["reason"] == "use_gpu is false"
    for result in (below, refused):
        assert np.array_equal(result, without)


def test_labels_of_a_gpu_are_numbered_by_size(run):
    labels, record, _ = run("leiden")
    assert labels.value_counts().to_dict() == {"0": 600, "1": 100}
    assert (record["flavor"], record["seed"]) == ("rapids", 0)


def test_too_many_clusters_are_done_again(run):
    labels, record, _ = run("leiden", fault="crumbled")
    assert record["reason"] == "the GPU found 700 clusters"
    assert 5 < labels.nunique() < 30
    labels, record, _ = run("leiden", "--max_cluster_factor", "700", fault="crumbled")
    assert (record["device"], labels.nunique()) == ("gpu", 700)


def test_louvain_says_that_it_has_no_seed_on_a_gpu(run):
    _, record, log = run("louvain", "--seed", "3")
    assert record["seed"] is None
    assert "louvain takes no seed on a GPU" in log
    _, record, log = run("louvain", "--seed", "3", "--no-use_gpu")
    assert record["seed"] == 3
    assert "takes no seed" not in log


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ('{"flavor": "igraph"}', "flavor igraph"),
        ('{"n_iterations": 3, "beta": 0.1}', "n_iterations 3, beta 0.1"),  # cuGraph counts levels
    ],
)
def test_options_of_the_cpus_algorithms_keep_it_there(run, wanted, reason):
    _, record, _ = run("leiden", "--clustering_args", wanted)
    assert record["reason"] == f"{reason} runs on the CPU only"


@pytest.mark.parametrize("step", ["leiden", "louvain", "umap"])
def test_a_bad_graph_is_refused_beside_a_gpu_too(run, step, tmp_path):
    adata = anndata.read_h5ad(INPUT / "pbmc68k.h5ad")
    adata.obsp["connectivities"].data[:2] = -1
    adata.write_zarr(tmp_path / "source.zarr")
    with pytest.raises(ValueError, match="must be finite and at least 0, found 2 that are not"):
        run(step, source=tmp_path / "source.zarr")


def test_a_layout_that_is_not_finite_is_done_again(run):
    layout, record, _ = run("umap", fault="not finite")
    assert "layout is not finite in 3 cells" in record["reason"]
    assert np.isfinite(layout).all()


def test_a_graph_of_a_gpu_is_stored_as_the_cpus(run, tmp_path):
    run("neighbors")
    adata = read(tmp_path / "0.zarr")
    assert (np.diff(adata.obsp["distances"].indptr) == 14).all()
    assert not adata.obsp["distances"].diagonal().any()
    assert adata.uns["neighbors"]["params"]["search"] == "rapids"


def test_cells_without_coordinates_stay_out_on_a_gpu_too(run, tmp_path):
    adata = anndata.read_h5ad(INPUT / "pbmc68k.h5ad")
    adata.obsm["X_pca"][::7] = np.nan
    adata.write_zarr(tmp_path / "source.zarr")
    _, _, log = run("neighbors", source=tmp_path / "source.zarr")
    assert "100 of 700 cells have no coordinates and take no part" in log
    graph = tmp_path / "1.zarr"
    layout, record, _ = run("umap", source=graph)
    assert record["device"] == "gpu"
    assert np.array_equal(np.isnan(layout).all(axis=1), np.arange(700) % 7 == 0)
    labels, record, _ = run("leiden", source=graph)
    assert record["device"] == "gpu"
    assert np.array_equal(labels.isna(), np.arange(700) % 7 == 0)
