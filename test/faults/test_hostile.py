"""Strange but well-formed data: every step does its work or says in one line why not."""

import hashlib
import warnings
from importlib.util import find_spec

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from running import read

from clustering.connectivities import neighbor_graph

PREPARE = "preprocessing/scripts/prepare.py"
PCA = "preprocessing/scripts/pca.py"
HARMONY, MNN, VAE, TOPICS = (
    f"integration/scripts/{name}.py" for name in ("harmony", "mnn", "vae", "topics")
)
NEIGHBORS, CLUSTERING, UMAP, MERGE = (
    f"clustering/scripts/{name}.py" for name in ("neighbors", "clustering", "umap", "merge")
)
BATCH = ["--batch", "batch"]
SMALL_VAE = ["--max_epochs", 1, "--hidden_dim", 8, "--latent_dim", 2, "--label_dim", 2]
# Step: script, the step whose output it reads, options; @step stands for another's output.
STEPS = {
    "prepare": (PREPARE, "source", []),
    "pca": (PCA, "prepare", ["--n_comps", 5, "--overwrite"]),
    "harmony": (HARMONY, "prepare", BATCH),
    "mnn": (MNN, "prepare", BATCH),
    "fast_mnn": (MNN, "prepare", ["--method", "fast_mnn", "--n_comps", 5, *BATCH]),
    "gmvae": (VAE, "prepare", ["--method", "gmvae", *SMALL_VAE, *BATCH]),
    "topics": (TOPICS, "prepare", ["--n_topics", 3, "--max_iter", 2]),
    "neighbors": (NEIGHBORS, "prepare", []),
    "clustering": (CLUSTERING, "neighbors", []),
    "level 2": (CLUSTERING, "clustering", ["--level", 2]),
    "umap": (UMAP, "neighbors", ["--n_epochs", 5]),
    "merge": (MERGE, "umap", ["--clustering", "@clustering", "@level 2"]),
}
if find_spec("torch") is None:  # an extra, which the packages of a GPU leave out
    del STEPS["gmvae"]
# What each kind of strange data concerns.
COUNTS = ("prepare", "pca", "fast_mnn", "gmvae", "topics")
CELLS = ("prepare", "harmony", "mnn", "neighbors", "clustering", "level 2", "umap", "merge")
BATCHES = ("prepare", "harmony", "mnn", "fast_mnn", "gmvae")
# Steps with a graph that the data set brings.
GRAPH_STEPS = {
    **{step: STEPS[step] for step in ("prepare", "neighbors", "clustering", "umap")},
    "clustering of .h5ad": (CLUSTERING, "source", []),
    "level 2": STEPS["level 2"],
    "merge": (MERGE, "umap", ["--clustering", "@clustering"]),
}


def no_cell(adata):
    return adata[:0].copy()


def one_cell(adata):
    return adata[:1].copy()


def one_gene(adata):
    return adata[:, :1].copy()


def names_twice(adata):
    adata.obs_names = ["cell"] * adata.n_obs
    adata.var_names = ["gene"] * adata.n_vars


def long_names_of_other_letters(adata):
    adata.obs_names = [f"Zelle-ä€😀-{i}" + "x" * 300 for i in range(adata.n_obs)]
    adata.obs["größe; $(x) 😀"] = 1


def not_a_number(adata):
    adata.X.data[:5] = np.nan
    adata.obsm["X_pca"][3] = np.nan


def infinite(adata):
    adata.X.data[:5] = np.inf
    adata.obsm["X_pca"][3, 0] = np.inf


def negative_counts(adata):
    adata.X.data[:5] = -3


def categories_that_are_numbers(adata):
    adata.obs["batch"] = pd.Categorical([1, 2] * 30)


def empty_categories(adata):
    adata.obs["batch"] = adata.obs["batch"].cat.add_categories(["nobody"])


def wide_indices(adata):
    adata.X.indices = adata.X.indices.astype(np.int64)
    adata.X.indptr = adata.X.indptr.astype(np.int64)


def nothing_detected(adata):
    adata.X = sp.csr_matrix(adata.shape, dtype=np.float32)


def all_cells_the_same(adata):
    adata.obsm["X_pca"][:] = 1


def one_batch(adata):
    adata.obs["batch"] = pd.Categorical(["a"] * 60)


def no_batch(adata):
    adata.obs["batch"] = pd.Categorical([None] * 60, categories=["a"])


def fractions(adata):
    adata.X.data /= 2


NO_COUNT = "every value must be a number of 0 or more, found "
NO_BATCH = "60 of 60 cells"


@pytest.mark.parametrize(
    ("change", "steps", "refused"),
    [
        (no_cell, STEPS, {"prepare": "no cell is left"}),
        (
            one_cell,
            STEPS,
            {
                "pca": "at least 2 cells",
                "harmony": "at least 6 cells",
                "gmvae": "at least 2 must",
                "topics": "n_topics must be less",
                "neighbors": "at least 3",
            },
        ),
        (
            one_gene,
            COUNTS,
            {"pca": "at least 2 cells and 2 genes", "topics": "n_topics must be less"},
        ),
        (names_twice, STEPS, {}),
        (long_names_of_other_letters, STEPS, {}),
        (
            not_a_number,
            STEPS,
            {
                **dict.fromkeys(("pca", "fast_mnn", "gmvae"), f"{NO_COUNT}nan"),
                "topics": f"{NO_COUNT}nan",
                "harmony": "NaN, infinite or too large in 1 cells",
            },
        ),
        (
            infinite,
            STEPS,
            {
                **dict.fromkeys(("pca", "fast_mnn", "gmvae"), f"{NO_COUNT}inf"),
                "topics": f"{NO_COUNT}inf",
                "harmony": "NaN, infinite or too large in 1 cells",
                "mnn": "NaN or infinite in 1 of 60 cells",
            },
        ),
        (
            negative_counts,
            COUNTS,
            {
                **dict.fromkeys(("pca", "fast_mnn", "gmvae"), f"{NO_COUNT}-3.0"),
                "topics": f"{NO_COUNT}-3.0",
            },
        ),
        (fractions, COUNTS, {}),
        (categories_that_are_numbers, BATCHES, {}),
        (empty_categories, BATCHES, {}),
        (one_batch, BATCHES, {}),
        (no_batch, BATCHES, dict.fromkeys(("harmony", "mnn", "fast_mnn", "gmvae"), NO_BATCH)),
        (wide_indices, COUNTS, {}),
        (
            nothing_detected,
            COUNTS,
            {
                "pca": "no gene varies",
                "fast_mnn": "X is 0 in all cells",
                "gmvae": "at least 2 must",
                "topics": "n_topics must be less",
            },
        ),
        (all_cells_the_same, CELLS, {"harmony": "no variance"}),
    ],
)
def test_strange_data(forked, tmp_path, change, steps, refused):
    adata = changed(change)
    source = tmp_path / "source.h5ad"
    adata.write_h5ad(source)
    run_steps(
        forked,
        source,
        {step: STEPS[step] for step in steps if step in STEPS},
        refused,
        n_obs=adata.n_obs,
    )


def changed(change):
    """Make 60 cells of two batches and change them."""
    rng = np.random.default_rng(0)
    adata = anndata.AnnData(
        sp.csr_matrix(rng.poisson(1, (60, 30)).astype(np.float32)),
        obs=pd.DataFrame({"batch": pd.Categorical(["a", "b"] * 30)}, index=map(str, range(60))),
        var=pd.DataFrame(index=[f"g{i}" for i in range(30)]),
        obsm={"X_pca": rng.normal(size=(60, 5)).astype(np.float32)},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anndata, on names that stand twice
        other = change(adata)
    return adata if other is None else other


def run_steps(forked, source, steps, refused, *, n_obs):
    """Run the steps whose input is there; each makes a store, or is refused in one line."""
    files, folder = {"source": source}, source.parent
    before = hashlib.sha256(source.read_bytes()).hexdigest()
    for step, (script, start, words) in steps.items():
        if start not in files:
            continue
        out = folder / f"{step}.zarr"
        options = [files.get(str(word).removeprefix("@"), word) for word in words]
        done = forked(script, files[start], out, *options)
        errors = [line for line in done.stderr.split("\n") if "error:" in line]
        assert "Traceback" not in done.stderr
        if step in refused:
            assert (done.returncode, len(errors)) == (2, 1), done.stderr
            assert refused[step] in errors[0]
            assert not out.exists()
        else:
            assert done.returncode == 0, done.stderr
            files[step] = out
            assert read(out).n_obs == n_obs
    assert hashlib.sha256(source.read_bytes()).hexdigest() == before
    assert len(list(folder.iterdir())) == len(files), "no debris"


def isolated_cells(graph):
    graph[:5] = 0
    graph[:, :5] = 0


def two_components(graph):
    graph[:30, 30:] = 0
    graph[30:, :30] = 0


def one_direction(graph):
    graph[np.tril_indices(60)] = 0


def nobody_near(graph):
    graph[:] = 0


def two_cells_near(graph):
    graph[:] = 0
    graph[0, 1] = graph[1, 0] = 1


def negative_weights(graph):
    graph[0, 1] = graph[1, 0] = -1


def weights_not_a_number(graph):
    graph[0, 1] = np.nan


WEIGHTS = "connectivities must be finite and at least 0, found"
CLUSTERINGS = ("clustering", "clustering of .h5ad")


@pytest.mark.parametrize(
    ("change", "stored", "n_unlabelled", "refused"),
    [
        (isolated_cells, sp.csr_matrix, 5, {}),
        (two_components, sp.csc_matrix, 0, {}),
        (one_direction, sp.csr_matrix, 0, {}),
        (
            nobody_near,
            sp.csr_matrix,
            0,
            {"umap": "at least 3 cells with neighbors, found 0 of 60"},
        ),
        (
            two_cells_near,
            np.asarray,
            58,
            {"umap": "at least 3 cells with neighbors, found 2 of 60"},
        ),
        (negative_weights, np.asarray, None, dict.fromkeys(("umap", *CLUSTERINGS), WEIGHTS)),
        (weights_not_a_number, sp.csr_matrix, None, dict.fromkeys(("umap", *CLUSTERINGS), WEIGHTS)),
        (None, None, None, dict.fromkeys(CLUSTERINGS, 'adata.obsp has no "connectivities"')),
    ],
)
def test_strange_graphs(forked, tmp_path, change, stored, n_unlabelled, refused):
    adata = changed(lambda _: None)
    params = {} if stored is sp.csr_matrix else "no mapping"
    adata.uns["neighbors"] = {"connectivities_key": "connectivities", "params": params}
    if change is not None:
        rng = np.random.default_rng(0)
        graph = rng.random((60, 60)) * (rng.random((60, 60)) < 0.1)
        graph += graph.T
        np.fill_diagonal(graph, 0)
        change(graph)
        adata.obsp["connectivities"] = stored(graph)
    source = tmp_path / "source.h5ad"
    adata.write_h5ad(source)
    if change is None:  # the neighbors are computed instead
        refused = {"clustering of .h5ad": refused["clustering of .h5ad"]}
    run_steps(forked, source, GRAPH_STEPS, refused, n_obs=60)
    for step in CLUSTERINGS:
        if n_unlabelled is not None:
            labels = read(tmp_path / f"{step}.zarr").obs["leiden_1.0_1"]
            assert labels.isna().sum() == n_unlabelled


COLUMNS = {
    "numbers as categories": pd.Categorical([3, 1.5] * 30),
    "nobody has this": pd.Categorical(["a", "b"] * 30, categories=["c", "b", "a"]),
    "true": [True, False] * 30,
    "Größe $(touch x); 😀": np.arange(60.0),
    "infinite": [np.inf, -np.inf, np.nan, 1.0] * 15,
    "missing": pd.Categorical([None] * 60, categories=["a"]),
    "lines": pd.Categorical(["one\ntwo\tthree", "<script>alert(1)</script>"] * 30),
    "x" * 250: ["y" * 500] * 60,
}


def test_strange_columns_in_pictures_and_tables(forked, tmp_path):
    """Data sets by hand, as they come: with one layout in place of what a workflow makes."""
    adata = changed(lambda _: None)
    adata.obs = adata.obs.assign(**COLUMNS)
    adata.obs["leiden_1.0_1"] = pd.Categorical([0, 1, 2] * 20)
    adata.obs["leiden_1.0_2"] = pd.Categorical(["0_0", "1_0", "2_0"] * 20)
    adata.obsm["X_umap"] = adata.obsm["X_pca"][:, :2]
    graph = neighbor_graph(adata.obsm["X_pca"])
    adata.obsp["connectivities"], adata.obsp["distances"] = graph.connectivities, graph.distances
    # As scanpy and others write them, not as we do.
    adata.uns = {"neighbors": {"params": "none"}, "leiden_1.0_1": {"params": {"resolution": 1.0}}}
    adata.uns["leiden_1.0_2"] = "by hand"
    source = tmp_path / "source.h5ad"
    adata.write_h5ad(source)
    before = hashlib.sha256(source.read_bytes()).hexdigest()
    clusters = ["--clusters", "leiden_1.0_1", "leiden_1.0_2"]
    shown = [name for name in COLUMNS if name != "missing"]
    steps = {
        "plots": ("plots", [*clusters, "--colors", *COLUMNS]),
        "comparison": ("comparison", ["--names", "a/b", "--colors", *COLUMNS]),
        "trees": ("trees", [*clusters, "--colors", *shown]),
        "explorer.html": ("explorer", ["--batch", "batch", "--colors", *COLUMNS]),
        "markers.tsv": ("markers", clusters),
        "splits.tsv": ("splits", [*clusters, "--batch", "lines"]),
        "metrics.tsv": ("metrics", [*clusters, "--batch", "batch", "--label", "lines"]),
        "robustness.tsv": ("robustness", [*clusters, "--rounds", 2]),
    }
    for out, (name, options) in steps.items():
        stage = "explorer" if name == "explorer" else "evaluation"
        done = forked(f"{stage}/scripts/{name}.py", source, tmp_path / out, *options)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    wrong = {
        "trees2": ("trees", [*clusters, "--colors", "missing"], "has no value in any of 60 cells"),
        "splits2.tsv": ("splits", ["--clusters", "missing"], "has no value in any of 60 cells"),
        "metrics2.tsv": ("metrics", ["--batch", "missing"], "has no value in any of 60 cells"),
        "plots2": ("plots", ["--basis", "X_pca"], "must be numbers, cells x 2; found float32"),
    }
    for out, (name, options, words) in wrong.items():
        stage = "explorer" if name == "explorer" else "evaluation"
        done = forked(f"{stage}/scripts/{name}.py", source, tmp_path / out, *options)
        errors = [line for line in done.stderr.split("\n") if "error:" in line]
        assert (done.returncode, len(errors)) == (2, 1), done.stderr
        assert words in errors[0]
    assert len(list((tmp_path / "plots").glob("*.png"))) == len(COLUMNS) + 2
    assert "<script>alert" not in (tmp_path / "explorer.html").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"source.h5ad", *steps}
    assert hashlib.sha256(source.read_bytes()).hexdigest() == before


def as_a_frame(adata):
    names = [f"PC{i}" for i in range(5)]
    adata.obsm["X_pca"] = pd.DataFrame(adata.obsm["X_pca"], adata.obs_names, names)


def sparse(adata):
    adata.obsm["X_pca"] = sp.csr_matrix(adata.obsm["X_pca"])


def without_dimensions(adata):
    adata.obsm["X_pca"] = adata.obsm["X_pca"][:, :0]


def too_large(adata):
    adata.obsm["X_pca"] = adata.obsm["X_pca"].astype(float) * 1e200


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (as_a_frame, None),
        (sparse, "must be numbers, cells x dimensions; found csr_matrix"),
        (without_dimensions, "must be numbers, cells x dimensions; found float32 of shape (60, 0)"),
        (too_large, "has values up to 3e+200; scale them"),
    ],
)
def test_strange_embeddings(forked, tmp_path, change, words):
    source = tmp_path / "source.h5ad"
    changed(change).write_h5ad(source)
    steps = {name: STEPS[name] for name in ("prepare", "harmony", "mnn", "neighbors")}
    refused = dict.fromkeys(("harmony", "mnn", "neighbors"), words) if words else {}
    run_steps(forked, source, steps, refused, n_obs=60)


@pytest.mark.parametrize(
    ("slot", "name"), [("obs", "cell/type"), ("obs", ".x"), ("obs", "x" * 256), ("obsm", "X/tsne")]
)
def test_names_that_no_store_can_have(forked, tmp_path, slot, name):
    adata = changed(lambda _: None)
    getattr(adata, slot)["plain"] = np.ones((60, 2) if slot == "obsm" else 60)
    source = tmp_path / "source.h5ad"
    adata.write_h5ad(source)
    # As older versions of anndata wrote it; newer ones refuse the slash themselves.
    with h5py.File(source, "r+") as file:
        file[slot].move("plain", name)
        if slot == "obs":
            file[slot].attrs["column-order"] = ["batch", name]
    done = forked(PREPARE, source, tmp_path / "out.zarr")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f'source.h5ad: adata.{slot}: the name "{name[:60]}' in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["source.h5ad"]


NO_NAME = 'it must have 1 to 255 bytes, no "/" and no dot at the start'


@pytest.mark.parametrize(
    ("script", "options", "words"),
    [
        (PCA, [], "only a .zarr store can be linked to; make one first: prepare.py "),
        (HARMONY, BATCH, "only a .zarr store can be linked to; make one first: prepare.py "),
        (MNN, BATCH, "only a .zarr store can be linked to; make one first: prepare.py "),
        (NEIGHBORS, [], "only a .zarr store can be linked to; make one first: prepare.py "),
        (UMAP, [], "only a .zarr store can be linked to; make one first: prepare.py "),
        (MERGE, ["--clustering", "x.zarr"], "only a .zarr store can be linked to; make one first"),
        (HARMONY, [*BATCH, "--key_added", "../X"], NO_NAME),
        (MNN, [*BATCH, "--key_added", ""], NO_NAME),
        (VAE, [*BATCH, "--key_added", "/tmp/X"], NO_NAME),
        (TOPICS, ["--key_added", "a/b"], NO_NAME),
        (NEIGHBORS, ["--neighbors_key", "../../nb"], NO_NAME),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_read(
    forked, tmp_path, script, options, words
):
    source = tmp_path / "source.h5ad"
    source.write_bytes(b"never looked at")
    done = forked(script, source, tmp_path / "out.zarr", *options)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert words in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["source.h5ad"]


@pytest.mark.parametrize("level", [1, 2])
def test_a_cluster_column_without_a_label_is_refused(forked, tmp_path, level):
    adata = changed(lambda _: None)
    adata.obs["leiden_1.0_1"] = pd.Categorical([None] * 60, categories=["0"])
    source = tmp_path / "source.h5ad"
    adata.write_h5ad(source)
    done = forked(CLUSTERING, source, tmp_path / "out.zarr", "--level", level)
    assert done.returncode == 2
    assert f"no cell has a label to make leiden_1.0_{level} of" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["source.h5ad"]
