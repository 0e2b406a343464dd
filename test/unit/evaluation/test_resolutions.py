"""A resolution is suggested where its clusters are there, and none in one population."""

import re

import numpy as np
import pandas as pd
import pytest

from clustering.communities import find_communities
from clustering.connectivities import neighbor_graph
from evaluation.clusters.resolutions import (
    absent_share,
    least_separation,
    resolution_table,
    reweighted_agreement,
    suggest_resolution,
)
from evaluation.clusters.robustness import as_table, restricted, robustness
from evaluation.scores.agreement import adjusted_rand_index, contingency

RESOLUTIONS = (0.01, 0.1, 0.3, 0.5, 1.0, 2.0, 4.0)


def components(rng, profiles, types):
    """Principal components of log-normalized, overdispersed counts of cells of some types."""
    n_cells, n_genes = len(types), profiles.shape[1]
    depths = rng.lognormal(np.log(1500), 0.4, (n_cells, 1))
    rates = depths * profiles[types] * rng.gamma(5, 1 / 5, (n_cells, n_genes))
    counts = rng.poisson(rates)
    values = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    values -= values.mean(axis=0)
    vectors, lengths, _ = np.linalg.svd(values, full_matrices=False)
    return (vectors[:, :30] * lengths[:30]).astype(np.float32)


def changed(rng, profile, size):
    """Another population: one gene of ten changes."""
    different = rng.random(len(profile)) < 0.1
    profile = profile * np.exp(rng.normal(0, size, len(profile)) * different)
    return profile / profile.sum()


def population(rng, n_genes=500):
    profile = np.exp(rng.normal(0, 1.5, n_genes))
    return profile / profile.sum()


def compare(X, rounds=6, threads=1):
    """Cluster at all resolutions and compare them, as robustness.py does."""
    graph = neighbor_graph(X).connectivities
    codes, tables, communities = {}, [], {}
    for resolution in RESOLUTIONS:
        name = f"leiden_{resolution}_1"
        communities[name] = {"algorithm": "leiden", "resolution": resolution}
        codes[name] = find_communities(graph, **communities[name])
        scores = robustness(codes[name], restricted(graph, **communities[name]), rounds=rounds)
        sizes = np.bincount(codes[name])
        table = as_table(scores, [str(i) for i in range(len(sizes))], sizes)
        tables.append(table.assign(column=name))
    reweighted = reweighted_agreement(codes, X, communities, rounds=rounds, threads=threads)
    separation = {name: least_separation(labels, X) for name, labels in codes.items()}
    families = {"leiden resolutions": list(codes)}
    return codes, resolution_table(pd.concat(tables), families, reweighted, separation)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_population_has_no_robust_resolution(seed):
    rng = np.random.default_rng(seed)
    X = components(rng, population(rng)[None], np.zeros(300, dtype=int))
    codes, compared = compare(X)
    assert max(len(np.unique(labels)) for labels in codes.values()) > 20, "noise was clustered"
    assert (compared["suggested"] == "").all()
    assert compared["reason"].str.startswith("none is robust: ").all()


def test_the_level_of_the_types_is_suggested():
    rng = np.random.default_rng(0)
    base = population(rng)
    branches = [changed(rng, base, 1.5) for _ in range(3)]
    leaves = np.stack([changed(rng, branch, 1.2) for branch in branches for _ in range(2)])
    types = rng.integers(0, 6, 600)
    X = components(rng, leaves, types)
    codes, compared = compare(X)
    chosen = compared.loc[compared["suggested"] == "yes"].squeeze()
    assert chosen["n_clusters"] == 6
    assert adjusted_rand_index(contingency(types, codes[chosen["column"]])) > 0.95
    assert chosen["reason"].startswith("6 clusters, the best of number, separation")
    assert (compared["reason"] != "").sum() == 1
    _, other = compare(X, threads=3)
    pd.testing.assert_frame_equal(compared, other)


def test_half_of_a_cloud_is_nearer_than_another_type():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 10)).astype(np.float32)
    X[600:, 0] += 9
    halves = np.r_[(X[:600, 1] > 0).astype(int), np.full(300, 2)]
    types = np.repeat([0, 1], [600, 300])
    assert 2 < least_separation(halves, X) < 3
    assert 8 < least_separation(types, X) < 10
    few = types.copy()
    few[:5] = 2  # too few to have a separation
    assert least_separation(few, X) == pytest.approx(least_separation(types, X), rel=0.1)
    assert np.isnan(least_separation(np.zeros(900, dtype=int), X))
    X[0] = np.nan
    assert least_separation(types, X) > 8


def compared_table(**columns):
    defaults = {"mean_jaccard": 1.0, "reweighted": 0.9, "separation": 5.0, "absent": np.nan}
    table = pd.DataFrame(defaults | columns)
    table.insert(0, "column", [f"leiden_{i}_1" for i in range(len(table))])
    return table


def test_fine_robust_and_separated():
    suggested = {
        "more clusters": ({"n_clusters": [3, 5]}, "leiden_1_1"),
        "not robust": ({"n_clusters": [3, 5], "mean_jaccard": [1.0, 0.88]}, "leiden_0_1"),
        "not reproduced": ({"n_clusters": [3, 5], "reweighted": [0.9, 0.6]}, "leiden_0_1"),
        "not separated": ({"n_clusters": [5, 6], "separation": [6.0, 2.5]}, "leiden_0_1"),
        "not one cluster": ({"n_clusters": [1, 3], "mean_jaccard": [1.0, 0.8]}, "leiden_1_1"),
        "two clusters far apart": ({"n_clusters": [1, 2], "separation": 7.0}, "leiden_1_1"),
        "not split for no reason": ({"n_clusters": [5, 9], "absent": [0.0, 0.3]}, "leiden_0_1"),
        "a little for no reason": ({"n_clusters": [5, 9], "absent": [0.0, 0.1]}, "leiden_1_1"),
        "the finer of equals": ({"n_clusters": [4, 4]}, "leiden_1_1"),
    }
    for case, (columns, expected) in suggested.items():
        assert suggest_resolution(compared_table(**columns))[0] == expected, case


def test_what_is_split_for_no_reason():
    splits = pd.DataFrame(
        [
            ["0,1", "2", 70, 30, "distinct"],
            ["0", "1", 50, 20, "absent"],
            ["2", "2", 15, 15, "absent"],  # joined
        ],
        columns=["left", "right", "n_left", "n_right", "verdict"],
    )
    assert absent_share(splits, 100) == 0.2
    assert absent_share(splits[:0], 100) == 0, "one cluster"
    assert np.isnan(absent_share(splits.assign(verdict=np.nan), 100)), "no counts"
    assert absent_share(splits.assign(verdict="gradual"), 100) == 0


def test_none_is_suggested_with_a_reason():
    reasons = {
        "every clustering has one cluster": {"n_clusters": [1, 1]},
        "differ .* at most 0.50, of leiden_1_1; 0.7 ": {
            "n_clusters": [2, 9], "reweighted": [0.1, 0.5]
        },
        "only two clusters are, and they are less than 6 ": {"n_clusters": [1, 2]},
        "no clustering has two clusters of 10 cells": {"n_clusters": [2], "separation": np.nan},
        "no clustering can be computed again": {"n_clusters": [2], "mean_jaccard": np.nan},
        "the embedding .* is not known": {"n_clusters": [2], "reweighted": np.nan},
    }  # fmt: skip
    for reason, columns in reasons.items():
        best, why = suggest_resolution(compared_table(**columns))
        assert best == ""
        assert re.search(reason, why)


def test_cells_without_coordinates_and_too_few_cells():
    communities = {"a": {"algorithm": "leiden", "resolution": 1.0}}
    nothing = np.full((20, 3), np.nan, dtype=np.float32)
    codes = {"a": np.zeros(20, dtype=int)}
    assert np.isnan(reweighted_agreement(codes, nothing, communities)["a"])
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5)).astype(np.float32)
    X[100:, 0] += 50
    X[:3] = np.nan
    codes = {"a": np.repeat([0, 1], 100)}
    communities["a"]["resolution"] = 0.01
    assert reweighted_agreement(codes, X, communities, rounds=3)["a"] == 1
