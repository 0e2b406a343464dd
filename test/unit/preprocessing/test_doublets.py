"""Doublet scores of cells, on simulated doublets."""

import numpy as np
import pytest
import scipy.sparse as sp

from preprocessing.doublets import otsu_threshold, score_doublets

N_CELLS, N_DOUBLETS, N_GENES = 600, 60, 500


def mixture(seed=0):
    """Draw counts of four types in two samples, doublets of two types at the end."""
    rng = np.random.default_rng(seed)
    profiles = rng.gamma(0.3, 1, (4, N_GENES)) + 0.01
    types = rng.integers(0, 4, N_CELLS)
    rates = profiles[types] / profiles[types].sum(axis=1, keepdims=True) * 1500
    counts = rng.poisson(rates)
    samples = rng.integers(0, 2, N_CELLS)
    pairs = []
    while len(pairs) < N_DOUBLETS:
        a, b = rng.integers(0, N_CELLS, 2)
        if samples[a] == samples[b] and types[a] != types[b]:
            pairs.append((a, b))
    a, b = np.array(pairs).T
    everything = np.vstack([counts, counts[a] + counts[b]]).astype(np.float32)
    return sp.csr_matrix(everything), np.r_[samples, samples[a]]


def test_doublets_are_found_in_their_sample():
    counts, samples = mixture()
    samples = samples.astype(int)
    samples[:20], samples[20:25] = 2, -1
    blocks = [counts[:100], counts[100:].toarray()]
    result = score_doublets(lambda: iter(blocks), samples, ["a", "b", "few"])
    assert np.isnan(result.scores[:25]).all() and not result.doublet_like[:25].any()
    assert list(result.thresholds) == ["a", "b"]
    assert result.doublet_like[N_CELLS:].mean() > 0.5
    assert np.median(result.scores[N_CELLS:]) > 3 * np.nanmedian(result.scores[:N_CELLS])
    assert result.doublet_like[:N_CELLS].mean() < 0.03
    assert np.median(result.relative_counts[N_CELLS:]) == pytest.approx(2, abs=0.3)
    again = score_doublets(lambda: [counts], samples, ["a", "b", "few"])
    np.testing.assert_array_equal(again.scores, result.scores)


def test_large_samples_are_scored_in_parts(monkeypatch):
    monkeypatch.setattr("preprocessing.doublets.PART_CELLS", 150)
    monkeypatch.setattr("preprocessing.doublets.CELLS_IN_MEMORY", 300)
    counts, samples = mixture(1)
    n_read = []

    def blocks():
        n_read.append(1)
        return [counts]

    result = score_doublets(blocks, samples.astype(int), ["a", "b"])
    n_parts = [len(item) for item in result.thresholds.values()]
    assert sum(n_parts) == sum(-(-int((samples == code).sum()) // 150) for code in (0, 1))
    assert len(n_read) == -(-sum(n_parts) // 2)
    assert np.isfinite(result.scores).all()


def test_otsu_splits_two_groups():
    rng = np.random.default_rng(0)
    values = np.r_[rng.normal(0, 0.1, 500), rng.normal(1, 0.1, 200)]
    assert 0.2 < otsu_threshold(values) < 0.8
