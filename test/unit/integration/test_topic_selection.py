"""The number of topics that is chosen where none is given."""

import numpy as np
import pytest
import scipy.sparse as sp

from integration.topics import choose_n_topics
from integration.topics.selection import _held_out_deviance, _split_counts


def groups(n_groups, n_cells=900, n_genes=600, seed=0):
    """Draw overdispersed counts of some groups of cells."""
    rng = np.random.default_rng(seed)
    profiles = np.exp(rng.normal(0, 1.5, n_genes)) * np.exp(
        rng.normal(0, 1.5, (n_groups, n_genes)) * (rng.random((n_groups, n_genes)) < 0.15)
    )
    rates = profiles[rng.integers(0, n_groups, n_cells)]
    rates = 800 * rates / rates.sum(axis=1, keepdims=True)
    return sp.csr_matrix(rng.poisson(rates * rng.gamma(10, 0.1, rates.shape)).astype(np.float32))


def test_many_groups_take_more_topics_than_one():
    ladder = (2, 5, 15, 40)
    one = choose_n_topics(groups(1), ladder)
    many = choose_n_topics(groups(12), ladder)
    assert one.n_topics == 2 and many.n_topics == 15
    assert many.ladder == list(ladder)[: len(many.deviances)]
    assert one.ladder == [2, 5], "it ends where the deviance rises"
    assert min(many.standard_errors) == 0


def test_the_choice_does_not_depend_on_threads_or_empty_genes():
    counts = groups(6)
    first = choose_n_topics(counts, (2, 6), threads=1, seed=3)
    assert first == choose_n_topics(counts, (2, 6), threads=2, seed=3)
    padded = sp.hstack([counts, sp.csr_matrix((900, 5))]).tocsr()
    assert first == choose_n_topics(sp.vstack([padded, sp.csr_matrix((1, 605))]), (2, 6), seed=3)


def test_small_data_get_few_topics():
    assert choose_n_topics(groups(2, n_cells=60)).ladder == [4]


def test_halves_of_counts_with_fractions():
    counts = groups(2, n_cells=100)
    counts.data += np.float32(0.25)
    given, asked = _split_counts(counts, np.random.default_rng(0))
    assert (given.data >= 0).all() and (asked.data >= 0).all()
    assert abs(given + asked - counts).max() < 1e-5
    whole = np.rint(counts.data).sum()
    assert given.sum() == pytest.approx(whole / 2, rel=0.05)


def test_the_deviance_is_the_negative_binomials():
    from scipy.stats import nbinom

    rng = np.random.default_rng(0)
    counts = rng.poisson(3, (4, 6)).astype(float)
    factor, topics = rng.random((4, 2)) * 9, rng.dirichlet(np.ones(6), 2).T
    rates = factor @ topics.T
    log_p = [nbinom.logpmf(counts, 1, 1 / (1 + mean)) for mean in (counts, rates)]
    # For counts of 0 the saturated model has probability 1.
    expected = 2 * (np.where(counts > 0, log_p[0], 0) - log_p[1]).sum(axis=1)
    found = _held_out_deviance(sp.csr_matrix(counts), factor, topics)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
