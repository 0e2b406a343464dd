"""Stores: read, linked, atomic."""

import json
import os
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

from utils.atomic import atomic_file
from utils.elements import read_column, write_categorical
from utils.io import (
    keys,
    new_store,
    open_store,
    read_anndata,
    write_element,
    write_zarr_linked,
)


def example(n=30):
    rng = np.random.default_rng(0)
    names = [f"cell{i}" for i in range(n)]
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(rng.choice(["a", "ü/b"], n)),
            "number": rng.normal(size=n),
            "flag": rng.random(n) > 0.5,
        },
        index=names,
    )
    return anndata.AnnData(
        X=sp.random(n, 8, density=0.4, format="csr", dtype=np.float32, random_state=0),
        obs=obs,
        var=pd.DataFrame(index=[f"gene{i}" for i in range(8)]),
        obsm={"X_pca": rng.normal(size=(n, 3)).astype(np.float32)},
        layers={"counts": rng.integers(0, 5, (n, 8))},
        uns={"neighbors": {"params": {"n_neighbors": 3}}, "note": "text"},
    )


@pytest.fixture(params=[2, 3])
def store(request, tmp_path):
    """Return a zarr store of each format."""
    path = tmp_path / "in.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=request.param)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = example()
        for slot in ("X", "obs", "var"):
            anndata.io.write_elem(group, slot, getattr(adata, slot))
        for slot in ("obsm", "layers", "uns"):
            items = getattr(adata, slot).items()
            anndata.io.write_elem(group, slot, {k: v for k, v in items if k is not None})
    group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    zarr.consolidate_metadata(group.store)
    return path


def files_of(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for folder, _, names in os.walk(path)
        for file in (Path(folder) / name for name in names)
    }


def test_linked_store_is_a_whole_data_set_to_plain_anndata(store, tmp_path):
    before = files_of(store)
    out = tmp_path / "a" / "out.zarr"
    new = ["obs/leiden_1.0_1", "uns/leiden_1.0_1"]
    labels = pd.Categorical(["0", "1"] * 15)
    with new_store(out, source=store, new=new, fresh=["obs"]) as root:
        write_element(root, new[0], labels)
        write_element(root, new[1], json.dumps({"seed": 0}))
    found = anndata.read_zarr(out)
    whole = example()
    assert list(found.obs.columns) == ["leiden_1.0_1"]
    assert list(found.obs["leiden_1.0_1"]) == list(labels)
    assert list(found.obs_names) == list(whole.obs_names)
    assert (found.X != whole.X).nnz == 0
    assert np.array_equal(found.layers["counts"], whole.layers["counts"])
    assert found.uns["note"] == "text"
    assert len(files_of(out)) <= 20
    assert files_of(store) == before


def test_stores_can_be_moved_together(store, tmp_path):
    out = tmp_path / "out.zarr"
    with new_store(out, source=store):
        pass
    links = [path for path in out.rglob("*") if path.is_symlink()]
    assert links
    assert all(not path.readlink().is_absolute() for path in links)
    moved = tmp_path / "moved"
    moved.mkdir()
    store.rename(moved / store.name)
    out.rename(moved / out.name)
    assert anndata.read_zarr(moved / out.name).shape == (30, 8)


def test_columns_of_other_stores_are_linked(store, tmp_path):
    one, atlas = tmp_path / "one.zarr", tmp_path / "atlas.zarr"
    with new_store(one, source=store, new=["obs/c"], fresh=["obs"]) as root:
        write_element(root, "obs/c", pd.Categorical(["x"] * 30))
    with new_store(atlas, source=store, links={"obs/c": one / "obs" / "c"}):
        pass
    assert list(anndata.read_zarr(atlas).obs.columns) == ["batch", "number", "flag", "c"]


def test_a_group_that_is_not_there_is_made(store, tmp_path):
    out = tmp_path / "out.zarr"
    with new_store(out, source=store, new=["obsp/connectivities"]) as root:
        write_element(root, "obsp/connectivities", sp.eye(30, format="csr"))
    assert anndata.read_zarr(out).obsp["connectivities"].shape == (30, 30)


def test_an_error_leaves_the_old_store_and_no_debris(store, tmp_path):
    out = tmp_path / "out.zarr"
    with new_store(out, source=store):
        pass
    before = files_of(out)
    with pytest.raises(RuntimeError), new_store(out, source=store, new=["obsm/X_new"]) as root:
        write_element(root, "obsm/X_new", np.zeros((30, 2)))
        raise RuntimeError
    assert files_of(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.zarr", "out.zarr"]


def test_what_is_no_store_is_not_replaced(store, tmp_path):
    folder = tmp_path / "mine.zarr"
    folder.mkdir()
    (folder / "thesis.txt").write_text("x")
    with (
        pytest.raises(ValueError, match="is not a zarr store; it is not replaced"),
        new_store(folder),
    ):
        pass
    with pytest.raises(ValueError, match="is also the input"), new_store(store, source=store):
        pass
    with pytest.raises(ValueError, match=r"must end in \.zarr"), new_store(tmp_path / "x"):
        pass
    assert (folder / "thesis.txt").read_text() == "x"


def test_read_anndata_reads_what_is_asked_for(store, capsys):
    adata = read_anndata(store, obs="obs", X="layers/counts", verbose=False)
    assert capsys.readouterr().err == ""
    assert np.array_equal(adata.X, example().layers["counts"])
    assert not adata.obsm
    assert read_anndata(store).obsm["X_pca"].shape == (30, 3)
    with pytest.raises(KeyError, match=r'did you mean "X_pca"\?.*Available: X_pca'):
        read_anndata(store, obsm="obsm/X_pc", verbose=False)
    with pytest.raises(ValueError, match='no slot "obz"'):
        read_anndata(store, obz="obs")


def test_write_zarr_linked(store, tmp_path):
    adata = example()
    adata.obsm["X_new"] = np.ones((30, 2))
    out = tmp_path / "out.zarr"
    write_zarr_linked(adata, store, out, files_to_keep=["obsm/X_new"])
    assert (out / "X").is_symlink()
    assert not (out / "obsm" / "X_new").is_symlink()
    assert np.array_equal(anndata.read_zarr(out).obsm["X_new"], np.ones((30, 2)))
    adata.write_h5ad(tmp_path / "in.h5ad")
    write_zarr_linked(adata, tmp_path / "in.h5ad", out, files_to_keep=["obsm"])
    assert set(anndata.read_zarr(out).obsm) == {"X_pca", "X_new"}
    with pytest.raises(KeyError, match=r'adata\.obsm has no "X_nw"'):
        write_zarr_linked(adata, store, out, files_to_keep=["obsm/X_nw"])


def test_bad_files_are_named(store, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_store(tmp_path / "x.h5ad")
    damaged = tmp_path / "damaged.h5ad"
    damaged.write_bytes(b"\x89HDF\r\n\x1a\n" + b"0" * 100)
    with pytest.raises(ValueError, match="it may be damaged"):
        open_store(damaged)
    linked = tmp_path / "out.zarr"
    with new_store(linked, source=store):
        pass
    store.rename(tmp_path / "elsewhere.zarr")
    with pytest.raises(FileNotFoundError, match=r"is a link to .* which does not exist"):
        open_store(linked)


def test_a_missing_column_names_its_neighbors(store):
    with pytest.raises(KeyError, match=r'no column "batchh"; did you mean "batch"\? Available: ba'):
        read_column(open_store(store), "batchh")
    assert keys(open_store(store), "obs") == ["batch", "number", "flag"]  # as in the data frame


def test_atomic_file(tmp_path):
    path = tmp_path / "a" / "table.tsv"
    with atomic_file(path) as temporary:
        temporary.write_text("1")
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("2")
        raise RuntimeError
    assert path.read_text() == "1"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_half_of_a_deleted_store_is_not_read_as_zeros(tmp_path, zarr_format):
    source = anndata.AnnData(np.ones((4, 3), dtype=np.float32))
    source.obs["type"] = pd.Categorical(["a", "a", "b", "b"])
    group = zarr.open_group(tmp_path / "in.zarr", mode="w", zarr_format=zarr_format)
    anndata.io.write_elem(group, "/", source)
    new = ["obsm/X_pca", "obs/cluster", "obsp/graph"]
    with new_store(tmp_path / "out.zarr", source=tmp_path / "in.zarr", new=new) as store:
        write_element(store, "obsm/X_pca", np.ones((4, 2), dtype=np.float32))
        write_element(store, "obsp/graph", sp.csr_matrix(np.eye(4, dtype=np.float32)))
        write_categorical(store, "cluster", np.array([0, 0, 1, 1]), ["0", "1"])
    whole = anndata.read_zarr(tmp_path / "out.zarr")
    assert whole.obs["cluster"].tolist() == ["0", "0", "1", "1"]
    assert (whole.obsm["X_pca"] == 1).all()
    for element in ("obsm/X_pca", "obs/cluster/codes", "obsp/graph/data"):
        for chunk in (tmp_path / "out.zarr" / element).rglob("*"):
            if chunk.is_file() and chunk.name not in ("zarr.json", ".zarray", ".zattrs"):
                chunk.unlink()
    left = anndata.read_zarr(tmp_path / "out.zarr")
    assert np.isnan(left.obsm["X_pca"]).all()
    assert np.isnan(left.obsp["graph"].data).all()
    assert left.obs["cluster"].isna().all()
