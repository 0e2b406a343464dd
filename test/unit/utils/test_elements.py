"""What clustering reads and writes without anndata is what anndata reads and writes."""

from __future__ import annotations

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr
from anndata.io import read_elem, write_elem
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.elements import (
    read_batch,
    read_categorical,
    read_csr,
    read_embedding,
    read_text,
    write_categorical,
)
from utils.encoding import is_plain, read_index_values, read_value, write_plain, write_texts
from utils.io import new_store, open_store, write_element

NAMES = [f"cell{i}" for i in range(4)]


def opened(kind, folder):
    if kind == "h5ad":
        return h5py.File(folder / "a.h5ad", "w")
    return zarr.open_group(folder / "a.zarr", mode="w", zarr_format=int(kind[-1]))


@pytest.mark.parametrize("kind", ["h5ad", "zarr2", "zarr3"])
def test_reads_what_anndata_writes(kind, tmp_path):
    graph = sp.random(4, 4, 0.5, "csr", np.float32, random_state=0)
    obs = pd.DataFrame(
        {
            "text": pd.Categorical(["10", None, "2", "2"], categories=["10", "2", "7"]),
            "plain": ["b", "a", "b", "ü"],
            "number": pd.Categorical([3, 3, 1, 2]),
            "truth": [True, False, True, True],
        },
        index=NAMES,
    )
    root = opened(kind, tmp_path)
    for name, value in {
        "obs": obs,
        "obsm": {"X_pca": np.arange(8.0).reshape(4, 2), "frame": pd.DataFrame({"a": range(4)})},
        "obsp": {"connectivities": graph, "csc": graph.tocsc(), "dense": graph.toarray()},
        "uns": {"neighbors": {"params": {"metric": "cosine", "use_rep": None, "n": 15}}},
    }.items():
        write_elem(root, name, value)
    for column, names, codes in (
        ("text", ["10", "2"], [0, -1, 1, 1]),
        ("plain", ["a", "b", "ü"], [1, 0, 1, 2]),
        ("number", ["1", "2", "3"], [2, 2, 0, 1]),
        ("truth", ["False", "True"], [1, 0, 1, 1]),
    ):
        found = read_categorical(root, column)
        assert found[1] == names
        assert found[0].tolist() == codes
    assert read_batch(root, "number").tolist() == [2, 2, 0, 1]  # codes: all have one
    for column in ("text", "plain", "truth"):
        assert read_batch(root, column).equals(obs[column])
    for name in ("connectivities", "csc", "dense"):
        assert (read_csr(root, f"obsp/{name}") != graph).nnz == 0
    assert np.array_equal(read_embedding(root, "X_pca"), np.arange(8.0).reshape(4, 2))
    assert read_embedding(root, "frame").shape == (4, 1)
    assert read_text(root, "uns/neighbors/params/metric") == "cosine"
    assert read_text(root, "uns/neighbors/params/use_rep") is None
    assert read_text(root, "uns/neighbors/params/gone") is None
    assert read_text(root, "uns/gone/params") is None
    with pytest.raises(KeyError, match='"texd"; did you mean "text"'):
        read_categorical(root, "texd")


@pytest.mark.parametrize("zarr_format", [2, 3])
@settings(max_examples=10, deadline=None)
@given(
    codes=st.lists(st.integers(-1, 299), min_size=4, max_size=4),
    # NumPy's texts, which zarr stores here, end at a NUL.
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
)
def test_anndata_reads_what_is_written(zarr_format, codes, text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    obs = pd.DataFrame({"batch": pd.Categorical(list("aabb"))}, index=NAMES)
    source = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=zarr_format)
    write_elem(source, "/", anndata.AnnData(obs=obs))
    names = [f"{i}_é" for i in range(300)]
    with new_store(
        folder / "b.zarr", source=folder / "a.zarr", new=["obs/x", "uns/x"], fresh=["obs"]
    ) as root:
        write_categorical(root, "x", np.array(codes), names)
        write_element(root, "uns/x", text)
    cells = anndata.read_zarr(folder / "b.zarr")
    assert list(cells.obs.columns) == ["x"]
    assert list(cells.obs_names) == NAMES
    assert cells.obs["x"].cat.codes.tolist() == codes
    assert list(cells.obs["x"].cat.categories) == names
    assert cells.uns["x"] == text
    # The same types on disk as anndata's own.
    other = zarr.open_group(folder / "c.zarr", mode="w", zarr_format=zarr_format)
    write_elem(other, "x", pd.Categorical.from_codes(codes, names))
    ours = open_store(folder / "b.zarr")["obs/x"]
    for part in ("codes", "categories"):
        assert ours[part].dtype == other[f"x/{part}"].dtype
        assert dict(ours[part].attrs) == dict(other[f"x/{part}"].attrs)
    assert dict(ours.attrs) == dict(other["x"].attrs)
    assert read_elem(ours["codes"]).tolist() == codes


def nodes(group):
    """Every group and array below a group: path to type, attributes, layout and values.

    Left out is what stands for a chunk that is gone: anndata leaves it to zarr, which takes 0.
    """
    found = {}
    for path, node in group.members(max_depth=None):
        described = dict(node.attrs)
        if isinstance(node, zarr.Array):
            metadata = node.metadata.to_dict()
            metadata.pop("attributes", None)
            if node.ndim and node.dtype.kind in "fi":
                metadata.pop("fill_value")
            described = [described, str(metadata), np.asarray(node[...]).tobytes()]
        found[path] = described
    return found


graph = sp.random(4, 4, 0.5, "csr", np.float32, random_state=0)
PLAIN = {
    "array": np.arange(12, dtype=np.float32).reshape(4, 3),
    "long": np.arange(300_000.0),
    "truth": np.array([True, False]),
    "scalar_array": np.array(3.5),
    "empty": np.empty((0, 3)),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "graph": graph,
    "sparray": sp.csr_array(graph),
    "no_edge": sp.csr_matrix((4, 4), dtype=np.float32),
    "numbers": {"int": 3, "float": 0.5, "bool": True, "numpy": np.float32(2), "small": np.int8(1)},
    "texts": {"text": "ü", "empty": "", "numpy": np.str_("a")},
    "nothing": None,
    "mapping": {"params": {"n": 15, "metric": "cosine"}, "none": {}},
}


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("key", PLAIN)
def test_plain_values_are_written_as_anndata_writes_them(key, zarr_format, tmp_path):
    ours, theirs = (
        zarr.open_group(tmp_path / name, mode="w", zarr_format=zarr_format) for name in "ab"
    )
    assert is_plain(PLAIN[key])
    write_plain(ours, key, PLAIN[key])
    anndata.settings.auto_shard_zarr_v3 = False
    write_elem(theirs, key, PLAIN[key])
    assert nodes(ours) == nodes(theirs)
    found, expected = read_elem(ours[key]), read_elem(theirs[key])
    assert type(found) is type(expected)
    if sp.issparse(expected):
        assert (found != expected).nnz == 0
    else:
        np.testing.assert_equal(found, expected)


@pytest.mark.parametrize(
    "value",
    [
        pd.DataFrame({"a": [1]}),
        pd.Categorical(["a"]),
        np.array(["a"]),
        np.array(["a"], dtype=object),
        np.ma.masked_array([1], [True]),
        graph.tocsc(),
        {"deep": [1, 2]},
        {3: "a"},
    ],
)
def test_what_is_not_plain_is_left_to_anndata(value):
    assert not is_plain(value)


def test_what_is_there_is_replaced(tmp_path):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w")
    root.create_group("uns")
    for value in (np.arange(3), "text", {"a": 1}, None):
        write_element(root, "uns/x", value)
        np.testing.assert_equal(read_elem(root["uns/x"]), value)


@pytest.mark.parametrize("kind", ["h5ad", "zarr2", "zarr3"])
@pytest.mark.parametrize(
    "value",
    [
        np.arange(6.0).reshape(2, 3),
        np.array([True, False]),
        np.array(["a", "ü", ""], dtype=object),
        pd.Categorical(["b", None, "a"], categories=["b", "a", "c"], ordered=True),
        pd.Categorical([3, 1]),
        pd.Categorical([True, False, None]),
        pd.array([1, None]),
        pd.array([True, None]),
        graph,
        {"a": "text", "b": None},
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_read_as_anndata_reads_them(kind, value, tmp_path):
    root = opened(kind, tmp_path)
    write_elem(root, "x", value)
    found, expected = read_value(root["x"]), read_elem(root["x"])
    assert type(found) is type(expected)
    assert getattr(found, "dtype", None) == getattr(expected, "dtype", None)
    if sp.issparse(expected):
        assert (found != expected).nnz == 0
    elif hasattr(expected, "equals"):
        assert found.equals(expected)
    else:
        np.testing.assert_equal(found, expected)


@pytest.mark.parametrize("missing", [[], [1]])
def test_names_as_pandas_3_has_them_written(missing, tmp_path):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w")
    attributes = {"encoding-type": "nullable-string-array", "encoding-version": "0.1.0"}
    group = root.create_group("x", attributes=attributes)
    write_texts(group, "values", np.array(["a", "ü", ""], dtype=object), "string-array")
    write_plain(group, "mask", np.isin(np.arange(3), missing))
    found = read_index_values(root["x"])
    assert found.dtype == object
    assert pd.Series(found).equals(pd.Series(np.asarray(read_elem(root["x"]), dtype=object)))
