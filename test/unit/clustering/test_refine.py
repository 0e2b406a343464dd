"""A parent's own components: as the parent's cells alone would have them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from clustering.refine import own_components
from integration.harmony import harmonize
from preprocessing.gene_choice import GeneChoice
from preprocessing.options import PCAOptions


@pytest.fixture(scope="module")
def counts() -> sp.csr_matrix:
    rng = np.random.default_rng(0)
    rate = rng.gamma(0.5, 2, (3, 120))[rng.integers(3, size=300)]
    return sp.csr_matrix(rng.poisson(rate).astype(np.float32))


def blocks_of(counts, rows=70):
    return lambda: (counts[i : i + rows] for i in range(0, counts.shape[0], rows))


def test_each_set_is_treated_as_a_data_set_of_its_own(counts):
    sc = pytest.importorskip("scanpy")
    rng = np.random.default_rng(1)
    cells = rng.permutation(300)
    parts = [cells[:120], cells[120:200]]
    found = own_components(blocks_of(counts), parts, options=PCAOptions(n_top_genes=50, n_comps=8))
    for rows, Z in zip(parts, found, strict=True):
        alone = sc.AnnData(counts[rows])
        sc.pp.normalize_total(alone)  # to the median total
        sc.pp.log1p(alone)
        sc.pp.highly_variable_genes(alone, n_top_genes=50)
        sc.pp.pca(alone, n_comps=8, svd_solver="arpack")
        theirs = alone.obsm["X_pca"]
        assert Z.shape == (len(rows), 8)
        np.testing.assert_allclose(np.abs(Z), np.abs(theirs), atol=2e-3)


def test_the_choice_of_genes_holds_in_every_set(counts):
    parts = [np.arange(120), np.arange(150, 250)]
    options = PCAOptions(n_top_genes=20, n_comps=5, normalize=True)
    mask = np.arange(120) < 40
    for choice, genes in ((GeneChoice(used=mask), mask), (GeneChoice(excluded=mask), ~mask)):
        found = own_components(blocks_of(counts), parts, options=options, choice=choice)
        # The genes that take no part may hold anything of the same total.
        other = counts.toarray()
        other[:, ~genes] = np.random.default_rng(0).permuted(other[:, ~genes], axis=1)
        again = own_components(blocks_of(sp.csr_matrix(other)), parts, options=options,
                               choice=choice)  # fmt: skip
        for a, b in zip(found, again, strict=True):
            np.testing.assert_array_equal(a, b)


def test_dense_counts_and_few_cells(counts):
    parts = [np.arange(4), np.arange(10, 110)]
    options = PCAOptions(n_top_genes=None, n_comps=50)
    sparse = own_components(blocks_of(counts), parts, options=options)
    dense = own_components(blocks_of(counts.toarray()), parts, options=options)
    assert sparse[0].shape == (4, 2)
    assert sparse[1].shape == (100, 10)
    for a, b in zip(sparse, dense, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_set_that_has_no_components_says_why(counts):
    same = sp.vstack([counts[:50], sp.csr_matrix(np.ones((20, 120), np.float32))]).tocsr()
    found = own_components(
        blocks_of(same), [np.arange(50, 70), np.arange(50)], options=PCAOptions(n_top_genes=None)
    )
    assert isinstance(found[0], str)
    assert "no gene varies" in found[0]
    assert found[1].shape == (50, 7)


def test_sets_of_several_batches_are_integrated(counts):
    batch = pd.Series(np.where(np.arange(300) < 150, "a", "b"))
    parts = [np.arange(60, 260), np.arange(260, 300)]
    options = PCAOptions(n_top_genes=None, n_comps=10)
    before = own_components(blocks_of(counts), parts, options=options)
    after = own_components(blocks_of(counts), parts, options=options, batches=[batch], seed=2)
    alone = harmonize(before[0], [batch.iloc[parts[0]]], seed=2).corrected
    np.testing.assert_array_equal(after[0], alone)
    assert (after[0] != before[0]).any()
    np.testing.assert_array_equal(after[1], before[1])
