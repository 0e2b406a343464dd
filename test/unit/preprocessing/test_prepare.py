"""Several stores to one."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from preprocessing.prepare import prepare_store
from utils import blocks

INPUT = Path(__file__).resolve().parents[2] / "input"


def small(names, genes, seed=0, **obs):
    rng = np.random.default_rng(seed)
    counts = sp.csr_matrix(rng.poisson(0.7, (len(names), len(genes))).astype(np.float32))
    frame = pd.DataFrame(obs, index=names)
    adata = anndata.AnnData(counts, frame, pd.DataFrame(index=genes))
    adata.layers["twice"] = counts * 2
    adata.obsm["X_pca"] = rng.normal(size=(len(names), 2)).astype(np.float32)
    return adata


@pytest.fixture
def two(tmp_path):
    a = small(["c1", "c2", "c3"], ["g1", "g2", "g3"], donor=["x", "x", "y"])
    b = small(["c3", "c4"], ["g3", "g1", "g9"], seed=1, donor=["y", "z"])
    files = [tmp_path / "first.h5ad", tmp_path / "second.h5ad"]
    a.write_h5ad(files[0])
    b.write_h5ad(files[1])
    return a, b, files


def test_conversion_keeps_everything(tmp_path):
    out = tmp_path / "out.zarr"
    assert prepare_store([INPUT / "pbmc68k.h5ad"], out) == (700, 765)
    before, after = anndata.read_h5ad(INPUT / "pbmc68k.h5ad"), anndata.read_zarr(out)
    pd.testing.assert_frame_equal(after.obs, before.obs)
    pd.testing.assert_frame_equal(after.var, before.var)
    assert np.array_equal(after.X, before.X)
    assert (after.raw.X != before.raw.X).nnz == 0
    for slot in ("obsm", "varm", "obsp", "uns"):
        assert set(getattr(after, slot)) == set(getattr(before, slot))


def test_a_zarr_input_is_linked(tmp_path):
    first, second = tmp_path / "a.zarr", tmp_path / "b" / "b.zarr"
    prepare_store([INPUT / "pbmc68k.h5ad"], first)
    prepare_store([first], second)
    assert (second / "X").is_symlink()
    assert anndata.read_zarr(second).shape == (700, 765)


def test_files_are_joined_on_common_genes(two, tmp_path):
    a, b, files = two
    prepare_store(files, tmp_path / "out.zarr")
    whole = anndata.read_zarr(tmp_path / "out.zarr")
    assert list(whole.var_names) == ["g1", "g3"]
    assert list(whole.obs_names) == ["c1-first", "c2-first", "c3-first", "c3-second", "c4-second"]
    assert list(whole.obs["file"]) == ["first"] * 3 + ["second"] * 2
    expected = sp.vstack([a[:, ["g1", "g3"]].X, b[:, ["g1", "g3"]].X]).toarray()
    assert np.array_equal(whole.X.toarray(), expected)
    assert np.array_equal(whole.layers["twice"].toarray(), 2 * expected)
    assert not whole.obsm
    prepare_store(files, tmp_path / "out.zarr", stage="integration")
    joined = anndata.read_zarr(tmp_path / "out.zarr").obsm["X_pca"]
    assert np.array_equal(joined, np.vstack([a.obsm["X_pca"], b.obsm["X_pca"]]))


@pytest.mark.parametrize("join", ["inner", "outer"])
@pytest.mark.parametrize("other", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_files_of_a_store_do_not_depend_on_threads_and_blocks(tmp_path, monkeypatch, join, other):
    genes = [f"g{i}" for i in range(40)]
    a = small([f"c{i}" for i in range(60)], genes)
    b = small([f"d{i}" for i in range(30)], [*genes[5:], "other"], seed=1)
    b.X = other(b.X.toarray().astype(np.float64))
    a.write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    b.write_zarr(tmp_path / "b.zarr")
    written = []
    for threads, block_values, chunk in ((1, 1 << 21, 1 << 20), (3, 100, 1 << 20), (3, 700, 97)):
        monkeypatch.setattr(blocks, "BLOCK_VALUES", block_values)
        monkeypatch.setattr(blocks, "CHUNK", chunk)
        out = tmp_path / f"{chunk}.zarr"
        options = {"min_genes": 18, "min_cells": 25, "qc": {"few": "^g1"}, "join": join}
        prepare_store([tmp_path / "a.h5ad", tmp_path / "b.zarr"], out, threads=threads, **options)
        adata = anndata.read_zarr(out)
        files = [file for file in sorted(out.rglob("*")) if file.is_file()]
        written.append((adata, [file.read_bytes() for file in files]))
    assert written[0][1] == written[1][1]
    first, last = written[0][0], written[2][0]
    assert 0 < first.n_obs < 90 and 0 < first.n_vars < 41
    pd.testing.assert_frame_equal(first.obs, last.obs)
    for one, another in ((first.X, last.X), (first.layers["twice"], last.layers["twice"])):
        assert one.dtype == another.dtype and (one != another).nnz == 0


def test_the_batch_column_names_the_file(two, tmp_path):
    _, _, files = two
    out = tmp_path / "out.zarr"
    prepare_store(files, out, batch=["donor", "study"])
    assert list(anndata.read_zarr(out).obs["study"].unique()) == ["first", "second"]
    prepare_store(files, out, batch=["donor"])
    obs = anndata.read_zarr(out).obs
    assert list(obs["donor"]) == ["x", "x", "y", "y", "z"]
    assert "file" in obs


def test_subset_and_filters(two, tmp_path):
    a, _, files = two
    out = tmp_path / "out.zarr"
    prepare_store(files[:1], out, subset={"donor": ["x"]})
    assert list(anndata.read_zarr(out).obs_names) == ["c1", "c2"]
    detected = np.asarray((a.X != 0).sum(axis=1)).ravel()
    prepare_store(files[:1], out, min_genes=2)
    assert list(anndata.read_zarr(out).obs_names) == list(a.obs_names[detected >= 2])
    cells = np.asarray((a.X != 0).sum(axis=0)).ravel()
    prepare_store(files[:1], out, min_cells=2)
    assert list(anndata.read_zarr(out).var_names) == list(a.var_names[cells >= 2])


def test_what_cannot_be_is_said(two, tmp_path):
    a, _, files = two
    out = tmp_path / "out.zarr"
    with pytest.raises(ValueError, match=r'has no "w"\. Available: x, y'):
        prepare_store(files[:1], out, subset={"donor": ["w"]})
    with pytest.raises(KeyError, match=r'no column "doner"; did you mean "donor"\?'):
        prepare_store(files[:1], out, subset={"doner": ["x"]})
    with pytest.raises(ValueError, match="no cell is left of 3"):
        prepare_store(files[:1], out, min_genes=4)
    with pytest.raises(KeyError, match=r'adata\.layers has no "counts"'):
        prepare_store(files, out, layer="counts")
    strange = a.copy()
    strange.var_names = ["h1", "h2", "h3"]
    strange.write_h5ad(tmp_path / "strange.h5ad")
    with pytest.raises(
        ValueError, match=r"0 of the 3 genes .* called g1, g2, g3 in .* and h1, h2, h3 in"
    ):
        prepare_store([files[0], tmp_path / "strange.h5ad"], out)
    twice = a.copy()
    twice.var_names = ["g1", "g1", "g3"]
    twice.write_h5ad(tmp_path / "twice.h5ad")
    with pytest.raises(ValueError, match="gene 'g1' is listed 2 times"):
        prepare_store([files[0], tmp_path / "twice.h5ad"], out)
    assert not out.exists()
