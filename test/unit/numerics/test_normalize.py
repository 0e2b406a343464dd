"""Normalization in blocks: scanpy's bits, and one line for every kind of bad count."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics.normalize import (
    count_totals,
    median_target_sum,
    normalize_block,
    numbered,
    row_totals,
)


def counts(cells=60, genes=40, seed=0, dtype=np.float32):
    matrix = np.random.default_rng(seed).poisson(0.4, (cells, genes)).astype(dtype)
    matrix[7] = 0
    return matrix


def in_blocks(matrix, rows):
    return lambda: (matrix[i : i + rows] for i in range(0, matrix.shape[0], rows))


def scanpy_values(matrix, target_sum):
    import anndata
    import scanpy as sc

    data = anndata.AnnData(matrix.copy())
    sc.pp.normalize_total(data, target_sum=target_sum)
    sc.pp.log1p(data)
    return data.X.toarray() if sp.issparse(data.X) else data.X


@pytest.mark.filterwarnings("ignore:Some cells have zero counts")
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csr_array])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8])
@pytest.mark.parametrize("target_sum", [1e4, 37.5])
def test_values_are_those_of_scanpy_to_the_bit(form, dtype, target_sum):
    matrix = form(counts(dtype=dtype))
    ours = normalize_block(matrix, target_sum=target_sum)
    assert ours.dtype == np.float32
    assert sp.issparse(ours) == sp.issparse(matrix)
    dense = ours.toarray() if sp.issparse(ours) else ours
    reference = sp.csr_matrix(matrix) if sp.issparse(matrix) else matrix
    np.testing.assert_array_equal(dense, scanpy_values(reference, target_sum))
    assert not dense[7].any()


@pytest.mark.filterwarnings("ignore:Some cells have zero counts")
def test_median_target_sum_is_scanpys_default():
    matrix = counts(cells=61)
    target_sum = median_target_sum(row_totals(matrix))
    ours = normalize_block(matrix, target_sum=target_sum)
    np.testing.assert_array_equal(ours, scanpy_values(matrix, None))
    assert target_sum == np.median(matrix.sum(axis=1)[matrix.sum(axis=1) > 0])


def test_input_is_not_changed():
    for matrix in (counts(), sp.csr_matrix(counts())):
        before = matrix.copy()
        normalize_block(matrix, target_sum=1e4)
        assert (matrix != before).sum() == 0


def test_totals_stand_in_for_genes_that_are_not_there():
    matrix = sp.csr_matrix(counts())
    whole = normalize_block(matrix, target_sum=1e4)
    part = normalize_block(matrix[:, :5], target_sum=1e4, totals=row_totals(matrix))
    assert (part != whole[:, :5]).nnz == 0
    with pytest.raises(ValueError, match="each of the 60 cells"):
        normalize_block(matrix, target_sum=1e4, totals=np.ones(3))


@given(rows=st.integers(1, 70), sparse=st.booleans(), seed=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_block_size_changes_no_bit(rows, sparse, seed):
    matrix = counts(seed=seed)
    form = sp.csr_matrix(matrix) if sparse else matrix
    np.testing.assert_array_equal(count_totals(in_blocks(form, rows)), matrix.sum(axis=1))
    parts = [normalize_block(block, target_sum=1e4) for block in in_blocks(form, rows)()]
    whole = normalize_block(form, target_sum=1e4)
    joined = sp.vstack(parts) if sparse else np.vstack(parts)
    assert (joined != whole).sum() == 0


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
def test_a_bad_count_is_named(form, value):
    matrix = counts()
    matrix[33, 4] = value
    message = f"cell 33, gene 4 .* found {value}"
    with pytest.raises(ValueError, match=message):
        count_totals(in_blocks(form(matrix), 10))
    with pytest.raises(ValueError, match="cell 33, gene 4"):
        normalize_block(form(matrix)[30:40], target_sum=1e4, first_cell=30)


@pytest.mark.parametrize("target_sum", [0, -1, np.nan, np.inf])
def test_target_sum_must_be_positive(target_sum):
    with pytest.raises(ValueError, match="target_sum must be a positive number"):
        normalize_block(counts(), target_sum=target_sum)


def test_no_count_at_all():
    with pytest.raises(ValueError, match="none of the 5 cells has a count"):
        median_target_sum(np.zeros(5))
    assert not normalize_block(np.zeros((5, 3)), target_sum=1e4).any()
    assert not len(count_totals(lambda: iter([])))


def test_blocks_must_fit_together():
    with pytest.raises(ValueError, match="the block of cell 2 has 4 genes, expected 3"):
        count_totals(lambda: [np.ones((2, 3)), np.ones((2, 4))])
    with pytest.raises(ValueError, match="must be a matrix"):
        count_totals(lambda: [np.ones(3)])
    with pytest.raises(TypeError, match="real numbers; found complex128"):
        count_totals(lambda: [np.ones((2, 3), dtype=complex)])
    (_, block), *_ = numbered([np.ones((2, 3), dtype=bool)])
    assert block.dtype == np.uint8
