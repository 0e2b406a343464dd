"""Matrices in blocks of rows."""

import itertools
import threading

import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from anndata.io import read_elem, write_elem
from hypothesis import given, settings
from hypothesis import strategies as st

from utils import blocks, threads


def joined(parts):
    parts = list(parts)
    return sp.vstack(parts).toarray() if sp.issparse(parts[0]) else np.concatenate(parts)


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix, np.asarray])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8])
@pytest.mark.parametrize("rows", [1, 7, 100])
def test_blocks_are_the_matrix(tmp_path, kind, dtype, rows):
    dense = np.random.default_rng(0).poisson(0.5, (30, 9)).astype(dtype)
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    write_elem(group, "X", kind(dense))
    assert blocks.matrix_shape(group["X"]) == (30, 9)
    parts = list(blocks.row_blocks(group["X"], rows=rows))
    assert all(part.shape[0] <= rows and part.dtype == dtype for part in parts)
    assert np.array_equal(joined(parts), dense)


def twice(kind, entries, shape, dtype):
    """Return a matrix whose entries are stored as they come, also several of one place."""
    rows, columns, values = (np.array(part, dtype=int) for part in zip(*entries, strict=True))
    major, minor = (rows, columns) if kind is sp.csr_matrix else (columns, rows)
    order = np.argsort(major, kind="stable")
    n_major = shape[0] if kind is sp.csr_matrix else shape[1]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(major, minlength=n_major))])
    return kind((values[order].astype(dtype), minor[order], indptr), shape=shape)


@settings(max_examples=60, deadline=None)
@given(
    entries=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 20)), min_size=1, max_size=40
    ),
    kind=st.sampled_from([sp.csr_matrix, sp.csc_matrix]),
    dtype=st.sampled_from(["float32", "int64", "uint16"]),
    rows=st.integers(1, 7),
)
def test_entries_that_occur_twice_are_summed(tmp_path_factory, entries, kind, dtype, rows):
    matrix = twice(kind, entries, (6, 4), dtype)
    group = zarr.open_group(tmp_path_factory.mktemp("x") / "x.zarr", mode="w")
    write_elem(group, "X", matrix)
    judge = read_elem(group["X"])
    judge.sum_duplicates()
    parts = list(blocks.row_blocks(group["X"], rows=rows))
    assert np.array_equal(joined(parts), judge.toarray())
    assert all(part.dtype == dtype for part in parts)
    for part in parts:
        places = part.indices + 4 * np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
        assert len(np.unique(places)) == part.nnz


def test_the_order_of_other_entries_stays(tmp_path):
    matrix = twice(sp.csr_matrix, [(0, 3, 1), (0, 1, 2), (1, 2, 3), (1, 0, 4)], (2, 4), "float32")
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    write_elem(group, "X", matrix)
    (block,) = blocks.row_blocks(group["X"])
    assert block.indices.tolist() == [3, 1, 2, 0] and block.data.tolist() == [1, 2, 3, 4]


def test_a_sum_that_does_not_fit_is_an_error(tmp_path):
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    write_elem(group, "X", twice(sp.csr_matrix, [(0, 1, 200), (0, 1, 100)], (1, 2), "uint8"))
    with pytest.raises(
        ValueError,
        match="duplicate entries of a cell and gene sum to 300, which does not fit into uint8",
    ):
        list(blocks.row_blocks(group["X"]))


@pytest.mark.parametrize("dtype", [">f4", ">i4", "float16"])
@pytest.mark.parametrize("sparse", [False, True])
def test_other_machines_numbers_and_halves_are_read(tmp_path, dtype, sparse):
    dense = np.random.default_rng(0).poisson(0.5, (30, 9)).astype(dtype)
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    if sparse:
        write_elem(group, "X", sp.csr_matrix(dense.astype("float32")))
        values = group["X/data"][:].astype(dtype)
        del group["X"]["data"]
        group["X"].create_array("data", data=values)
    else:
        group.create_array("X", data=dense)
    parts = list(blocks.row_blocks(group["X"], rows=7))
    assert np.array_equal(joined(parts), dense)
    assert {part.dtype for part in parts} == {np.dtype("int32" if "i" in dtype else "float32")}


def test_columns_of_a_large_csc_are_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "CSC_BUDGET", 20)
    dense = np.random.default_rng(0).poisson(0.5, (50, 300)).astype(np.float32)
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    write_elem(group, "X", sp.csc_matrix(dense))
    assert np.array_equal(joined(blocks.row_blocks(group["X"], rows=8)), dense)


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    chunk=st.integers(1, 40),
    sparse=st.booleans(),
)
def test_written_blocks_read_back_as_one_matrix(tmp_path_factory, sizes, chunk, sparse):
    rng = np.random.default_rng(0)
    parts = [rng.poisson(0.5, (size, 5)).astype(np.float32) for size in sizes]
    whole = np.concatenate(parts)
    group = zarr.open_group(tmp_path_factory.mktemp("x") / "x.zarr", mode="w")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "CHUNK", chunk)
        given_parts = map(sp.csr_matrix, parts) if sparse else iter(parts)
        blocks.write_blocks(group, "X", given_parts, n_genes=5, n_cells=len(whole))
    found = read_elem(group["X"])
    assert found.shape == whole.shape
    assert np.array_equal(found.toarray() if sparse else found, whole)


@pytest.mark.parametrize("chunk", [1, 4, 25, 1000])
def test_every_chunk_of_values_is_read_once(tmp_path, monkeypatch, chunk):
    dense = np.random.default_rng(0).poisson(0.5, (40, 9)).astype(np.float32)
    dense[10:20] = 0
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    monkeypatch.setattr(blocks, "CHUNK", chunk)
    blocks.write_blocks(group, "X", [sp.csr_matrix(dense)], n_genes=9, n_cells=40)
    read, whole = [], zarr.Array.__getitem__

    def reading(array, where):
        if array.name in ("/X/data", "/X/indices") and where != slice(None, 0):
            read.append((array.name, *where.indices(array.shape[0])[:2]))
        return whole(array, where)

    monkeypatch.setattr(zarr.Array, "__getitem__", reading)
    assert np.array_equal(joined(blocks.row_blocks(group["X"], rows=3)), dense)
    n_values = np.count_nonzero(dense)
    for name in ("/X/data", "/X/indices"):
        bounds = [(start, stop) for path, start, stop in read if path == name]
        assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds[:-1])]
        assert all(stop % chunk == 0 or stop == n_values for _, stop in bounds)


def test_dense_blocks_have_fewer_rows_where_there_are_many_genes(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "DENSE_BUDGET", 90)
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    dense = np.arange(270.0).reshape(30, 9)
    write_elem(group, "X", dense)
    parts = list(blocks.row_blocks(group["X"]))
    assert [len(part) for part in parts] == [10, 10, 10]
    assert blocks.n_blocks(group["X"]) == 3
    assert np.array_equal(joined(parts), dense)


def test_the_next_item_is_made_ahead_on_another_thread():
    made, waiting = [], threading.Event()

    def items():
        for i in range(4):
            made.append((i, threading.current_thread()))
            if i == 1:
                waiting.set()
            yield i

    iterator = threads.read_ahead(items())
    assert next(iterator) == 0
    assert waiting.wait(10)  # before it is asked for
    assert list(iterator) == [1, 2, 3]
    assert {thread for _, thread in made} != {threading.current_thread()}
    assert [i for i, _ in made] == [0, 1, 2, 3]


def test_an_error_ahead_comes_where_its_item_would():
    def items():
        yield 1
        raise ValueError("damaged")

    iterator = threads.read_ahead(items())
    assert next(iterator) == 1
    with pytest.raises(ValueError, match="damaged"):
        next(iterator)


def test_no_block_is_an_empty_matrix(tmp_path):
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    blocks.write_blocks(group, "X", [], n_genes=5, n_cells=0)
    assert read_elem(group["X"]).shape == (0, 5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 5), max_size=6),
    st.lists(st.lists(st.integers(0, 29), unique=True), max_size=4),
    st.booleans(),
    st.integers(0, 99),
)
def test_gathered_rows_are_those_of_the_matrix(sizes, parts, sparse, seed):
    matrix = np.random.default_rng(seed).integers(0, 3, (30, 4)).astype(np.float32)
    edges = [0, *np.minimum(np.cumsum(sizes), 30).tolist(), 30]
    stored = [matrix[low:high] for low, high in itertools.pairwise(edges)]
    stored = [sp.csr_matrix(block) if sparse else block for block in stored]
    parts = [np.array(part, dtype=np.int64) for part in parts]
    gathered = list(blocks.gather_rows(iter(stored), parts))
    assert len(gathered) == len(parts)
    for rows, part in zip(gathered, parts, strict=True):
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows.toarray(), matrix[part])
