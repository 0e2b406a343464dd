"""Robustness: clusters that are there come back, those that are not dissolve."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustering.communities import find_communities
from clustering.connectivities import neighbor_graph
from clustering.hierarchy import split
from evaluation.clusters.robustness import restricted, restricted_within, robustness


@pytest.fixture(scope="module")
def blobs():
    """Four blobs in two pairs, 80 cells each, and the graph of their cells."""
    rng = np.random.default_rng(0)
    centers = np.array([[0, 0], [9, 0], [60, 0], [69, 0]])
    X = (np.repeat(centers, 80, axis=0) + rng.normal(size=(320, 2))).astype(np.float32)
    return X, np.repeat([0, 1, 2, 3], 80), neighbor_graph(X).connectivities


def test_true_clusters_come_back_and_an_invented_one_does_not(blobs):
    _, truth, graph = blobs
    invented = truth.copy()
    invented[:40] = 4  # half of the first blob
    again = restricted(graph, algorithm="leiden", resolution=0.1)
    found = robustness(invented, again, rounds=6)
    assert (found.jaccard[1:4] > 0.99).all()
    assert (found.score[1:4] > 0.99).all()
    assert found.jaccard[[0, 4]].max() < 0.6
    assert found.score[[0, 4]].max() < 0.5
    assert (found.nearest[0], found.nearest[4]) == (4, 0)
    other = robustness(invented, again, rounds=6, threads=3)
    for one, two in zip(found, other, strict=True):
        np.testing.assert_array_equal(one, two)


def test_splits_are_made_again_within_their_parents(blobs):
    X, _, _ = blobs
    parents = np.repeat([0, 1], 160)
    result = split(pd.Categorical(parents.astype(str)), X, resolution=0.1)
    codes = np.asarray(result.labels.codes)
    again = restricted_within(
        parents,
        X,
        split=np.array([True, False]),
        resolutions=np.array([0.1, np.nan]),
        algorithm="leiden",
    )
    everyone = again(np.arange(320), 0)
    assert len(np.unique(everyone[:160])) == 2
    assert len(np.unique(everyone[160:])) == 1, "it is not to be split"
    segments = np.array([int(name.split("_")[0]) for name in result.labels.categories])
    found = robustness(codes, again, rounds=4, segments=segments)
    assert (found.jaccard[segments == 0] > 0.8).all()
    assert (found.jaccard[segments == 1] < 0.6).all()
    assert set(found.nearest[segments == 1]) == set(np.flatnonzero(segments == 1))
    whole = find_communities(neighbor_graph(X[:160]).connectivities, resolution=0.1)
    assert len(np.unique(whole)) == 2


def test_small_clusters_are_joined_as_they_were(blobs):
    X, _, _ = blobs
    rows = np.r_[0:80, 80:97, 160:320]  # 17 cells beside the first blob
    cells = np.flatnonzero(np.arange(len(rows)) % 5)
    options = {"algorithm": "leiden", "resolution": 0.1}
    part = neighbor_graph(X[rows]).connectivities
    for size, n_clusters in ((20, 3), (15, 4)):
        labels = restricted(part, min_cluster_size=size, **options)(cells, 0)
        assert len(np.unique(labels)) == n_clusters, "the limit falls with the number of cells"
    within = {"split": np.array([True]), "resolutions": np.array([0.1]), "algorithm": "leiden"}
    parents = np.zeros(len(rows), dtype=int)
    for size, n_clusters in ((20, 3), (15, 4)):
        again = restricted_within(parents, X[rows], min_cluster_size=size, **within)
        assert len(np.unique(again(cells, 0))) == n_clusters


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(-1, 3), min_size=8, max_size=40), st.integers(0, 99))
def test_the_same_clusters_again_are_perfect_and_one_cluster_joins_all(codes, seed):
    codes = np.array([0, 1, *codes])
    same = robustness(codes, lambda cells, _: codes[cells], rounds=8, subsample=0.9, seed=seed)
    known = same.jaccard[~np.isnan(same.jaccard)]
    assert (known == 1).all()
    assert (same.together[~np.isnan(same.together)] == 1).all()
    one = robustness(codes, lambda cells, _: np.zeros(len(cells), int), rounds=2, seed=seed)
    assert np.nanmax(one.score, initial=0) <= 1
    assert (one.apart[~np.isnan(one.apart)] >= 0).all()


@pytest.mark.parametrize(("rounds", "subsample"), [(0, 0.8), (3, 1.0), (3, 0)])
def test_bad_options(rounds, subsample):
    with pytest.raises(ValueError, match="rounds must be at least 1 and subsample between"):
        robustness(np.zeros(4, int), lambda c, s: c, rounds=rounds, subsample=subsample)
