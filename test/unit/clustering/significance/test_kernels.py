"""The compiled loops, against the same sums of dense arrays."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from clustering.significance.kernels import dense_columns, group_sums, half_scores, side_counts


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999))
def test_sums_and_scores_are_those_of_dense_arrays(seed):
    rng = np.random.default_rng(seed)
    n_cells, n_genes, n_groups = rng.integers(1, 12, 3)
    dense = rng.poisson(0.7, (n_cells, n_genes)).astype(float)
    counts = sp.csr_matrix(dense)
    matrix = counts.indptr, counts.indices, counts.data
    cells = rng.permutation(n_cells)[: rng.integers(0, n_cells + 1)]
    rows = dense[cells]

    groups = rng.integers(-1, n_groups, (3, len(cells)))
    sums = group_sums(*matrix, cells, groups, n_groups, n_genes)
    for grouping, group in enumerate(groups):
        for number in range(n_groups):
            values = rows[group == number]
            expected = np.stack([values.sum(axis=0), (values**2).sum(axis=0)], axis=1)
            np.testing.assert_allclose(sums[grouping, number], expected)

    half, weights = rng.integers(0, 2, n_genes), rng.normal(size=(n_genes, 4))
    scores = half_scores(*matrix, cells, half, weights)
    for number in (0, 1):
        of_half = half == number
        expected = rows[:, of_half] @ weights[of_half]
        np.testing.assert_allclose(scores[number], expected, atol=1e-12)

    high, division = rng.random((2, len(cells))) < 0.5, rng.integers(0, 2, n_genes)
    totals, n_with = side_counts(*matrix, cells, high, division, n_genes)
    for gene in range(n_genes):
        for side in (0, 1):
            values = rows[high[division[gene]] == side, gene]
            assert totals[side, gene] == pytest.approx(values.sum())
            assert n_with[side, gene] == (values > 0).sum()

    column_of = np.where(rng.random(n_genes) < 0.5, 0, -1)
    column_of[column_of == 0] = np.arange((column_of == 0).sum())
    columns = dense_columns(*matrix, cells, column_of, int(column_of.max()) + 1)
    np.testing.assert_array_equal(columns, rows[:, column_of >= 0])
