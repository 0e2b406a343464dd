"""Verdicts of held-out scores that are drawn here: nothing, one cloud, two groups, a continuum."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustering.significance.scores import HeldOutScores
from clustering.significance.verdicts import NOTHING, SplitEvidence, weigh


def scores_of(shared, noise=0.5, seed=0):
    """Let both halves of the genes see the same score, each with its own noise."""
    rng = np.random.default_rng(seed)
    both = shared + noise * rng.standard_normal((4, 2, len(shared)))
    side = (shared > np.median(shared)).astype(np.int64)
    both -= both.mean(axis=2, keepdims=True)
    return HeldOutScores(both, both, 0.5, np.ones(len(shared), dtype=bool)), side


@pytest.mark.parametrize(
    ("p", "p_valley", "valley", "verdict"),
    [
        ((0.001, 0.2), 0.0, 0.1, "absent"),
        ((0.2, 0.001), 0.0, 0.1, "absent"),
        ((0.001, 0.05), 0.2, 0.1, "gradual"),
        ((0.001, 0.001), 0.001, 0.6, "gradual"),
        ((0.001, 0.001), 0.001, 0.5, "distinct"),
        ((np.nan, 0.001), 0.001, 0.1, "absent"),
    ],
)
def test_the_verdict(p, p_valley, valley, verdict):
    assert SplitEvidence(*p, p_valley, valley, 0.9).verdict(0.05) == verdict


def test_two_groups_are_distinct_and_one_bell_shaped_cloud_is_absent():
    rng = np.random.default_rng(0)
    groups = np.repeat([-1.0, 1.0], 300)
    assert weigh(*scores_of(groups, 0.3)).verdict(1e-6) == "distinct"
    evidence = weigh(*scores_of(rng.standard_normal(600)))
    assert evidence.p_structure < 1e-6 < 0.05 < evidence.p_step
    evidence = weigh(*scores_of(np.zeros(600)))
    assert evidence.p_structure > 0.01
    assert 0.4 < evidence.auc < 0.6


def test_a_continuum_is_never_distinct():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        for shared in (rng.uniform(-1.7, 1.7, 600), rng.exponential(1, 600)):
            assert weigh(*scores_of(shared, 0.3, seed)).verdict(0.05) != "distinct"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 200), st.integers(0, 1000), st.booleans())
def test_numbers_are_in_their_range(n_cells, seed, constant):
    rng = np.random.default_rng(seed)
    values = rng.standard_cauchy((4, 2, n_cells)) * (not constant)
    side = rng.integers(0, 2, n_cells)
    evidence = weigh(HeldOutScores(values, values, rng.random(), rng.random(n_cells) < 0.9), side)
    for p in (evidence.p_structure, evidence.p_step, evidence.p_valley, evidence.auc, evidence.p):
        assert 0 <= p <= 1
    assert evidence.valley >= 0


def test_few_scored_cells_say_nothing():
    scores, side = scores_of(np.repeat([-1.0, 1.0], 9))
    assert weigh(scores, side) == NOTHING
