"""Matrices in blocks of rows."""

import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from anndata.io import read_elem, write_elem
from hypothesis import given, settings
from hypothesis import strategies as st

from utils import blocks


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


def test_no_block_is_an_empty_matrix(tmp_path):
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    blocks.write_blocks(group, "X", [], n_genes=5, n_cells=0)
    assert read_elem(group["X"]).shape == (0, 5)
