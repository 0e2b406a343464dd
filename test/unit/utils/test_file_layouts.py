"""Files of every layout are read as plain anndata reads them, element by element."""

from __future__ import annotations

import tarfile
import warnings
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr
from anndata.io import write_elem
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.stores import stored_matrix
from utils.blocks import matrix_shape, row_blocks
from utils.elements import read_batch, read_categorical, read_column, read_csr, read_text
from utils.io import (
    keys,
    n_rows,
    new_store,
    open_store,
    read_anndata,
    read_element,
    read_index,
)

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "anndata"
VERSIONS = ["0.7.8", "0.8.0", "0.9.2", "0.10.9"]
FILES = ["sparse.h5ad", "dense.h5ad", "sparse.zarr", "dense.zarr"]
SLOTS = ("obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Unpack the files of all versions; a folder for each."""
    folder = tmp_path_factory.mktemp("layouts")
    for version in [*VERSIONS, "0.6.22"]:
        with tarfile.open(FIXTURES / f"{version}.tar.xz") as packed:
            packed.extractall(folder / version, filter="data")
    return folder


def plain(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what anndata says of old formats
        return (anndata.read_zarr if path.suffix == ".zarr" else anndata.read_h5ad)(path)


def assert_same(found, expected, where):
    """Compare kinds, types of number and values, at any depth."""
    assert type(found) is type(expected), where
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected, check_exact=True, obj=where)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name, value in expected.items():
            assert_same(found[name], value, f"{where}/{name}")
    elif sp.issparse(expected):
        for part in ("data", "indices", "indptr"):
            assert_same(getattr(found, part), getattr(expected, part), f"{where}/{part}")
        assert found.shape == expected.shape, where
    else:
        assert getattr(found, "dtype", None) == getattr(expected, "dtype", None), where
        np.testing.assert_array_equal(found, expected, err_msg=where)


@pytest.mark.parametrize(
    ("version", "file"),
    [("0.7.8", file) for file in FILES]
    + [(version, file) for version in VERSIONS[1:] for file in ("sparse.zarr", "dense.h5ad")],
)
def test_elements_of_old_files_are_those_that_anndata_reads(version, file, files):
    expected, root = plain(files / version / file), open_store(files / version / file)
    for slot in SLOTS:
        value = getattr(expected, slot)
        frame = isinstance(value, pd.DataFrame)
        if not frame:
            value = {name: item for name, item in value.items() if name is not None}
        assert keys(root, slot) == ([*value] if frame else sorted(value))
        assert_same(read_element(root, slot), value, slot)
        if frame:
            assert n_rows(root, slot) == len(value)
            assert read_index(root, slot).tolist() == value.index.tolist()
        for name in value:
            item = read_element(root, f"{slot}/{name}")
            if frame:
                item = pd.DataFrame({name: item}, index=value.index)
            assert_same(item, value[[name]] if frame else value[name], f"{slot}/{name}")
    assert_same(read_element(root, "raw/X"), expected.raw.X, "raw/X")
    assert_same(read_element(root, "raw/var"), expected.raw.var, "raw/var")
    for layer in (None, "dense", "csr", "csc"):
        matrix = stored_matrix(root, layer).values  # noqa: PD011
        wanted = expected.X if layer is None else expected.layers[layer]
        assert matrix_shape(matrix) == expected.shape
        blocks = [sp.csr_matrix(block) for block in row_blocks(matrix, rows=5)]
        assert (sp.vstack(blocks) != sp.csr_matrix(wanted)).nnz == 0
        assert blocks[0].dtype == wanted.dtype
    assert (read_csr(root, "obsp/connectivities") != expected.obsp["connectivities"]).nnz == 0
    assert read_text(root, "uns/nested/params/metric") == "cosine"
    assert read_text(root, "uns/cat_colors") is None
    whole = read_anndata(files / version / file, verbose=False)
    for slot in SLOTS:
        value = getattr(expected, slot)
        same = value if isinstance(value, pd.DataFrame) else {k: v for k, v in value.items() if k}
        mine = getattr(whole, slot)
        mine = mine if isinstance(mine, pd.DataFrame) else {k: v for k, v in mine.items() if k}
        assert_same(mine, same, slot)
    assert_same(whole.X, expected.X, "X")
    assert_same(whole.raw.X, expected.raw.X, "raw.X")
    assert_same(whole.raw.var, expected.raw.var, "raw.var")


@pytest.mark.parametrize("file", ["sparse.h5ad", "sparse.zarr"])
@pytest.mark.parametrize("version", ["0.7.8", "0.10.9"])
def test_columns_of_old_files_are_those_that_anndata_reads(version, file, files):
    obs, root = plain(files / version / file).obs, open_store(files / version / file)
    for name in obs:
        assert read_column(root, name).equals(obs[name]), name
        assert_codes(root, obs, name)


def assert_codes(root, obs, name):
    """Compare the names of cells, and which are equal, by way of codes."""
    values = obs[name].astype("category").cat
    codes, names = read_categorical(root, name)
    found = [names[code] if code >= 0 else None for code in codes]
    known = values.codes >= 0
    assert found == [str(x) if ok else None for x, ok in zip(obs[name], known, strict=True)], name
    assert set(names) == {str(x) for x in obs[name][known]}
    labels = read_batch(root, name)
    if isinstance(labels, np.ndarray):
        assert known.all(), name
        assert labels.tolist() == values.codes.tolist()
    else:
        assert labels.equals(obs[name]), name


def test_an_old_store_that_is_linked_keeps_its_categories(files, tmp_path):
    source = files / "0.7.8" / "sparse.zarr"
    with new_store(tmp_path / "out.zarr", source=source, new=["obs/added"]) as root:
        write_elem(root["obs"], "added", pd.Categorical(list("abc") * 4))
        root["obs"].attrs["column-order"] = [*root["obs"].attrs["column-order"], "added"]
    found, expected = plain(tmp_path / "out.zarr"), plain(source)
    assert "__categories" not in keys(open_store(tmp_path / "out.zarr"), "obs")
    assert found.obs.drop(columns="added").equals(expected.obs)
    assert_codes(open_store(tmp_path / "out.zarr"), found.obs, "cat_missing")


@pytest.mark.parametrize("file", FILES)
def test_the_format_before_0_7_is_one_line(file, files):
    path = files / "0.6.22" / file
    with pytest.raises(ValueError, match=r"anndata 0.6 or older; rewrite it") as error:
        open_store(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_steps_read_old_files_right_or_refuse_them(files, script, tmp_path):
    expected = plain(files / "0.7.8" / "dense.h5ad")
    expected = expected[expected.obs["cat"] == "10"]
    done = script(
        "preprocessing/scripts/prepare.py", files / "0.7.8" / "dense.h5ad", tmp_path / "a.zarr",
        "--subset", '{"cat": ["10"]}',
    )  # fmt: skip
    assert "written without encoding metadata" not in done.stderr
    found = plain(tmp_path / "a.zarr")
    assert found.obs_names.equals(expected.obs_names)
    np.testing.assert_array_equal(found.X, expected.X)
    done = script(
        "evaluation/scripts/metrics.py", files / "0.6.22" / "sparse.h5ad", tmp_path / "m.tsv",
        "--batch", "cat", check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "anndata 0.6 or older" in done.stderr


def test_text_of_fixed_length_says_what_things_are(tmp_path):
    """HDF5.jl and R write attributes so; h5py returns bytes."""
    path = tmp_path / "a.h5ad"
    obs = pd.DataFrame({"b": [1, 2], "a": pd.Categorical(["x", "y"])}, index=["c0", "c1"])
    anndata.AnnData(X=np.eye(2, dtype="float32"), obs=obs).write_h5ad(path)
    with h5py.File(path, "r+") as root:

        def fix(_, item):
            for name, value in list(item.attrs.items()):
                if isinstance(value, str):
                    item.attrs[name] = np.bytes_(value)
                elif name == "column-order":
                    item.attrs[name] = np.array([text.encode() for text in value], dtype="S")

        root.visititems(fix)
    root = open_store(path)
    assert keys(root, "obs") == ["b", "a"]
    assert read_element(root, "obs").equals(obs)
    assert read_categorical(root, "a")[1] == ["x", "y"]
    assert next(row_blocks(stored_matrix(root).values)).tolist() == [[1, 0], [0, 1]]


def test_a_sparse_matrix_of_h5sparse_is_one(tmp_path):
    matrix = sp.random(4, 3, 0.5, "csr", random_state=0)
    with h5py.File(tmp_path / "a.h5ad", "w") as root:
        group = root.create_group("X")
        group.attrs.update({"h5sparse_format": "csr", "h5sparse_shape": matrix.shape})
        for part in ("data", "indices", "indptr"):
            group[part] = getattr(matrix, part)
        write_elem(root, "obs", pd.DataFrame(index=list("abcd")))
    root = open_store(tmp_path / "a.h5ad")
    assert_same(read_element(root, "X"), matrix, "X")
    assert (next(row_blocks(root["X"])) != matrix).nnz == 0


N = 5
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


def columns():
    """Columns of every kind that anndata writes."""

    def lists(values, missing=False):
        return st.lists(st.none() | values if missing else values, min_size=N, max_size=N)

    def categories(values):
        return st.tuples(lists(values, missing=True), st.booleans()).map(
            lambda drawn: pd.Categorical(drawn[0], ordered=drawn[1])
        )

    number = st.integers(-(2**31), 2**31 - 1)
    kinds = ["int8", "uint16", "int64", "float32", "float64"]
    return st.one_of(
        st.tuples(lists(st.integers(0, 100)), st.sampled_from(kinds)).map(
            lambda drawn: np.array(drawn[0], dtype=drawn[1])
        ),
        lists(st.floats(allow_nan=True)).map(np.array),
        lists(st.booleans()).map(np.array),
        lists(TEXT).map(lambda values: np.array(values, dtype=object)),
        lists(number, missing=True).map(lambda values: pd.array(values, dtype="Int64")),
        lists(st.booleans(), missing=True).map(lambda values: pd.array(values, dtype="boolean")),
        lists(TEXT, missing=True).map(lambda values: pd.array(values, dtype="string")),
        categories(TEXT),
        categories(number),
        categories(st.booleans()),
    )


@pytest.mark.parametrize("kind", ["h5ad", "zarr2", "zarr3"])
@settings(max_examples=15, deadline=None)
@given(drawn=st.lists(columns(), min_size=1, max_size=4))
def test_columns_are_read_as_anndata_reads_them(kind, drawn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("columns")
    path = folder / ("a.h5ad" if kind == "h5ad" else "a.zarr")
    names = [f"c{i}" for i in range(N)]
    obs = pd.DataFrame({f"column {i}": v for i, v in enumerate(drawn[::-1])}, index=names)
    root = (
        h5py.File(path, "w")
        if kind == "h5ad"
        else zarr.open_group(path, mode="w", zarr_format=int(kind[-1]))
    )
    with anndata.settings.override(allow_write_nullable_strings=True):
        write_elem(root, "obs", obs)
        write_elem(root, "var", pd.DataFrame(index=["g"]))
    if kind == "h5ad":
        root.close()
    expected, root = plain(path).obs, open_store(path)
    assert_same(read_element(root, "obs"), expected, "obs")
    assert keys(root, "obs") == list(expected)
    for name in expected:
        pd.testing.assert_series_equal(read_column(root, name), expected[name])
        assert_codes(root, expected, name)
    if kind == "h5ad":
        root.file.close()
