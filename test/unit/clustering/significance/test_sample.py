"""Which cells and genes are used: every child, whatever its size; genes that cells have."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from clustering.significance.sample import (
    CELLS_PER_CHILD,
    CELLS_READ,
    N_GENES,
    SAMPLED_AT_MOST,
    choose_genes,
    draw_cells,
    groups_of_divisions,
)
from preprocessing.gene_choice import GeneChoice


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=30), st.integers(0, 9))
def test_every_child_keeps_cells(sizes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = draw_cells(labels, rng)
    assert (np.diff(rows) > 0).all()
    drawn = np.bincount(labels[rows], minlength=len(sizes))
    assert (drawn >= np.minimum(sizes, CELLS_PER_CHILD)).all()
    if sum(sizes) <= SAMPLED_AT_MOST:
        assert len(rows) == sum(sizes)
    elif len(sizes) * CELLS_PER_CHILD <= SAMPLED_AT_MOST:
        assert SAMPLED_AT_MOST - len(sizes) <= len(rows) <= SAMPLED_AT_MOST


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 2000), max_size=200))
def test_groups_cover_all_in_order(sizes):
    groups = groups_of_divisions(sizes)
    assert [i for group in groups for i in group] == list(range(len(sizes)))
    assert all(sum(sizes[i] for i in group) <= CELLS_READ for group in groups)


@pytest.mark.parametrize("n_genes", [40, N_GENES + 100])
def test_excluded_genes_are_not_variable(n_genes):
    counts = sp.random(200, n_genes, 0.3, "csr", rng=np.random.default_rng(0))
    counts.data = np.ceil(5 * counts.data)
    excluded = np.arange(n_genes) < 20
    names = np.arange(n_genes)
    chosen = choose_genes(counts, GeneChoice(excluded=excluded))
    assert len(chosen.found) == n_genes
    assert not excluded[chosen.found[chosen.variable]].any()
    assert len(chosen.variable) == min(n_genes - 20, N_GENES)
    chosen = choose_genes(counts, GeneChoice(used=excluded))
    np.testing.assert_array_equal(names[chosen.found[chosen.variable]], np.arange(20))


def test_genes_of_few_cells_are_left_out():
    counts = np.zeros((600, 40), dtype=np.float32)
    counts[:, :20] = np.random.default_rng(0).poisson(1, (600, 20))
    counts[:5, 20:] = 3  # 5 cells, less than 1 %
    assert choose_genes(sp.csr_matrix(counts)).variable_counts().shape == (600, 20)
    many = sp.random(300, N_GENES + 500, 0.2, "csr", rng=np.random.default_rng(1))
    many.data = np.ceil(5 * many.data)
    assert choose_genes(many).variable_counts().shape == (300, N_GENES)
    assert choose_genes(sp.csr_matrix((30, 10), dtype=np.float32)).counts.shape == (30, 0)
