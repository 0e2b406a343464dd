"""Strange but well-formed data: every step does its work or says in one line why not."""

import hashlib
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from running import read

STEPS = {
    "prepare": ("preprocessing/scripts/prepare.py", "source", []),
    "pca": ("preprocessing/scripts/pca.py", "prepare", ["--n_comps", 5, "--overwrite"]),
    "harmony": ("integration/scripts/harmony.py", "prepare", ["--batch", "batch"]),
    "neighbors": ("clustering/scripts/neighbors.py", "prepare", []),
    "clustering": ("clustering/scripts/clustering.py", "neighbors", []),
    "level 2": ("clustering/scripts/clustering.py", "clustering", ["--level", 2]),
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


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (no_cell, {"prepare": "no cell is left"}),
        (
            one_cell,
            {"pca": "at least 2 cells", "harmony": "at least 6 cells", "neighbors": "at least 3"},
        ),
        (one_gene, {"pca": "at least 2 cells and 2 genes"}),
        (names_twice, {}),
        (long_names_of_other_letters, {}),
        (not_a_number, {"pca": "found nan", "harmony": "NaN, infinite or too large in 1 cells"}),
        (infinite, {"pca": "found inf", "harmony": "NaN, infinite or too large in 1 cells"}),
        (negative_counts, {"pca": "found -3.0"}),
        (categories_that_are_numbers, {}),
        (empty_categories, {}),
        (wide_indices, {}),
        (nothing_detected, {"pca": "no gene varies"}),
        (all_cells_the_same, {"harmony": "no variance"}),
    ],
)
def test_strange_data(forked, tmp_path, change, refused):
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
        adata = adata if other is None else other
        adata.write_h5ad(tmp_path / "source.h5ad")
    files = {"source": tmp_path / "source.h5ad"}
    before = hashlib.sha256(files["source"].read_bytes()).hexdigest()
    for step, (script, source, options) in STEPS.items():
        if source not in files:
            continue
        out = tmp_path / f"{step}.zarr"
        done = forked(script, files[source], out, *options)
        errors = [line for line in done.stderr.split("\n") if "error:" in line]
        assert "Traceback" not in done.stderr
        if step in refused:
            assert (done.returncode, len(errors)) == (2, 1), done.stderr
            assert refused[step] in errors[0]
            assert not out.exists()
        else:
            assert done.returncode == 0, done.stderr
            files[step] = out
            assert read(out).n_obs == adata.n_obs
    assert hashlib.sha256(files["source"].read_bytes()).hexdigest() == before
    assert len(list(tmp_path.iterdir())) == len(files), "no debris"
