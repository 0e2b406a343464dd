"""Markers of a split: found where they are, none in noise, fold changes that few counts bound."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import mannwhitneyu

from clustering.significance.markers import NO_MARKERS, _adjusted, _compare, held_out_markers
from clustering.significance.scores import HeldOutScores
from clustering.significance.splits import Division, SplitTest


def two_sides(n_cells=200, n_genes=120, n_markers=6, seed=0):
    """Draw counts of two sides, of which the last genes differ."""
    rng = np.random.default_rng(seed)
    side = np.arange(n_cells) % 2
    mean = np.full((n_cells, n_genes), 1.0)
    mean[side == 1, -n_markers:] = 5
    return sp.csr_matrix(rng.poisson(mean).astype(np.float64)), side, rng


def scores_of(log, share=0.5):
    return HeldOutScores(log, log, share, np.ones(log.shape[-1], dtype=bool))


def test_effects_are_those_of_the_rank_sum_test():
    counts, side, _ = two_sides()
    high = side == 1
    found = _compare(counts, np.arange(200), np.zeros(120, dtype=int), high[None])
    assert [gene for gene, *_ in found] == [*range(114, 120)]
    values = counts.toarray() / counts.toarray().sum(axis=1, keepdims=True)
    for gene, fold, area, p in found:
        test = mannwhitneyu(
            values[high, gene], values[~high, gene], method="asymptotic", use_continuity=False
        )
        assert area == pytest.approx(test.statistic / high.sum() / (~high).sum())
        assert p == pytest.approx(test.pvalue, rel=1e-6)
        assert 1.5 < fold < 2.7


def test_a_gene_is_compared_by_the_half_that_it_is_not_in():
    counts, side, rng = two_sides()
    half = np.arange(120) % 2
    half[-1] = -1
    names = [f"g{i}" for i in range(120)]
    good = np.where(side == 1, 1.0, -1) + rng.normal(0, 0.1, 200)
    noise = rng.normal(size=200)
    # Only the score of half 0 tells the sides: markers are found in half 1 alone.
    markers = held_out_markers(
        counts, np.arange(200), names, half, scores_of(np.stack([good, noise])[None])
    )
    shown = {int(part.split()[0][1:]) for part in markers.right.split("), ")}
    assert len(shown) == 3
    assert all(half[gene] != 0 and gene >= 114 for gene in shown)
    assert markers.left == ""
    nothing = scores_of(np.stack([noise, rng.normal(size=200)])[None])
    assert held_out_markers(counts, np.arange(200), names, half, nothing) == NO_MARKERS


def test_few_counts_make_no_large_fold_changes():
    counts = np.full((40, 3), 50.0)
    counts[20:, 1], counts[:20, 1] = 1, 0
    high = np.arange(40) >= 20
    found = _compare(sp.csr_matrix(counts), np.arange(40), np.zeros(3, dtype=int), high[None])
    ((gene, fold, area, _),) = [row for row in found if row[0] == 1]
    assert (gene, area) == (1, 1.0)
    assert fold == pytest.approx(np.log2(20.5 / 0.5), abs=0.02)


def test_adjusted_p():
    np.testing.assert_allclose(_adjusted(np.array([0.02, 0.001]), 10), [0.1, 0.01])
    np.testing.assert_allclose(_adjusted(np.array([0.01, 0.011, 0.9]), 3), [0.0165, 0.0165, 0.9])


def test_a_test_without_joining_reaches_every_node():
    counts, side, rng = two_sides(400, 300, 60)
    labels = np.where(side == 0, 0, 1 + rng.integers(0, 2, 400)).astype(np.int32)
    options = {"representation": None, "n_cells": 400, "significance": 0.05, "gradual": "keep"}
    test = SplitTest(
        read=lambda parts: [counts[rows] for rows in parts],
        batch=np.zeros(400, dtype=int),
        algorithm="leiden",
        n_neighbors=15,
        genes=[f"g{i}" for i in range(300)],
        **options,
    )
    division = Division(np.arange(400), labels, 1.0)
    (examined,) = test.examine([division])
    (joined,) = test([division])
    assert joined.labels.max() == 1
    assert [split.joined for split in joined.splits] == [False, True]
    assert [split.verdict for split in examined] == ["distinct", "absent"]
    assert not any(split.joined for split in examined)
    for before, after in zip(examined, joined.splits, strict=True):
        assert before.evidence == after.evidence
        assert before.markers == after.markers
    assert {*examined[1].left, *examined[1].right} == {1, 2}
    record = examined[0].record(str)
    shown = record["markers_left"] + record["markers_right"]
    assert int(shown.split()[0][1:]) >= 240


@pytest.mark.parametrize(("n_cells", "n_genes"), [(6, 50), (40, 1), (40, 11), (25, 50), (21, 400)])
def test_tiny_clusters_are_not_told_apart(n_cells, n_genes):
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (n_cells, n_genes)).astype(np.float32)
    counts[:3] = 0
    counts = sp.csr_matrix(counts)
    test = SplitTest(
        read=lambda parts: [counts[rows] for rows in parts],
        batch=np.zeros(n_cells, dtype=int),
        representation=None,
        n_cells=n_cells,
        significance=0.05,
        gradual="keep",
        algorithm="leiden",
        n_neighbors=15,
    )
    labels = (np.arange(n_cells) % 2).astype(np.int32)
    ((split,),) = test.examine([Division(np.arange(n_cells), labels, 1.0)])
    assert split.verdict == "absent"
