"""Splits tested from counts: which are noise, gradual or distinct, and what they depend on."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage

from clustering.communities import find_communities
from clustering.connectivities import neighbor_graph
from clustering.significance.scores import Sample
from clustering.significance.splits import (
    Division,
    SplitTest,
    centroids_of,
    count_verdicts,
    dendrogram,
)

N_GENES = 400


def draw(rng, shares, n_cells=300, *, dispersion=0.1, spread=0.3):
    """Draw counts of about 1,200 a cell."""
    mean = rng.lognormal(np.log(1200), spread, n_cells)[:, None] * np.atleast_2d(shares)
    if dispersion:
        mean = mean * rng.gamma(1 / dispersion, dispersion, mean.shape)
    return rng.poisson(mean).astype(np.float32)


def profile(rng):
    shares = rng.lognormal(0, 1.2, N_GENES)
    return shares / shares.sum()


def types(rng, n_types, n_cells=300):
    """Draw types that differ in a tenth of the genes, and which one each cell is of."""
    factors = np.exp(
        rng.normal(0, 1.2, (n_types, N_GENES)) * (rng.random((n_types, N_GENES)) < 0.1)
    )
    shares = profile(rng) * factors
    shares /= shares.sum(axis=1, keepdims=True)
    truth = rng.integers(0, n_types, n_cells)
    return draw(rng, shares[truth], n_cells), truth


def with_programs(rng, programs):
    """Let genes follow programs, which makes them correlated."""
    loadings = rng.normal(0, 0.5, (programs.shape[1], N_GENES))
    loadings *= rng.random(loadings.shape) < 0.3
    shares = profile(rng) * np.exp(programs @ loadings)
    return draw(rng, shares / shares.sum(axis=1, keepdims=True), len(programs))


def components(counts, n=15):
    values = np.log1p(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 1000)
    u, s, _ = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    return (u * s)[:, :n].astype(np.float32)


def communities(counts, resolution=1.0):
    graph = neighbor_graph(components(counts)).connectivities
    return find_communities(graph, resolution=resolution, seed=0)


def split_test(counts, batch=None, **options):
    counts = sp.csr_matrix(counts)
    options = {"representation": None, "significance": 0.05, "gradual": "keep"} | options
    return SplitTest(
        read=lambda parts: [counts[rows] for rows in parts],
        batch=np.zeros(counts.shape[0], dtype=np.int64) if batch is None else batch,
        n_cells=counts.shape[0],
        algorithm="leiden",
        n_neighbors=15,
        **options,
    )


def outcome(counts, labels=None, batch=None, **options):
    labels = communities(counts) if labels is None else labels
    division = Division(np.arange(len(labels)), labels, 1.0)
    return next(iter(split_test(counts, batch, **options)([division])))


def verdicts(tested):
    return [split.verdict for split in tested.splits]


def null(kind, rng):
    """Draw one population."""
    if kind == "permuted":
        counts = types(rng, 3)[0]
        return np.stack([rng.permutation(gene) for gene in counts.T], axis=1)
    if kind == "doublets":
        counts = draw(rng, profile(rng))
        counts[:30] += counts[30:60]
        return counts
    options = {"poisson": {"dispersion": 0}, "nb": {"dispersion": 0.4}, "depth": {"spread": 0.8}}
    return draw(rng, profile(rng), **options[kind])


@pytest.mark.parametrize("kind", ["poisson", "nb", "depth", "permuted", "doublets"])
def test_one_population_is_not_split(kind):
    counts = null(kind, np.random.default_rng(0))
    labels = communities(counts)
    assert labels.max() > 0
    tested = outcome(counts, labels)
    assert verdicts(tested) == ["absent"]
    assert tested.labels.max() == 0
    assert tested.unsplit.reason == "not_significant"
    assert tested.splits[0].left == tested.splits[0].right == [0]


def test_types_are_found_and_what_is_more_is_joined():
    from sklearn.metrics import adjusted_rand_score

    counts, truth = types(np.random.default_rng(0), 6, 500)
    tested = outcome(counts, communities(counts, resolution=2.0))
    assert adjusted_rand_score(truth, tested.labels) > 0.98
    assert verdicts(tested).count("distinct") == 5
    sizes = np.bincount(tested.labels)
    assert (np.diff(sizes) <= 0).all()
    for split in tested.splits:
        assert not set(split.left) & set(split.right) or split.joined
        if not split.joined:
            assert split.n_left == sizes[split.left].sum()
            assert split.evidence.auc > 0.9
    assert tested.unsplit is None
    assert count_verdicts(tested.splits).startswith(f"{len(tested.splits)} splits tested: 5 dist")


def test_a_cloud_of_correlated_genes_is_absent():
    rng = np.random.default_rng(0)
    tested = outcome(with_programs(rng, rng.standard_normal((400, 2))))
    assert verdicts(tested) == ["absent"]
    assert tested.splits[0].evidence.p_structure < 0.05


def test_ends_with_a_bridge_are_gradual_and_joined_where_wanted():
    rng = np.random.default_rng(0)
    where = np.concatenate([np.full(150, -1.5), np.full(150, 1.5), rng.uniform(-1.5, 1.5, 500)])
    counts = with_programs(rng, where[:, None])
    labels = communities(counts)
    keep, join = outcome(counts, labels), outcome(counts, labels, gradual="join")
    assert verdicts(keep)[0] == "gradual"
    assert "distinct" not in verdicts(keep)
    assert keep.labels.max() > 0
    assert not keep.splits[0].joined
    assert join.labels.max() == 0
    assert (verdicts(join), join.unsplit.reason) == (["gradual"], "not_distinct")
    assert join.splits[0].joined
    assert "no gap" in join.unsplit.text


def test_a_split_between_batches_is_one_only_where_they_are_not_given():
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 2, 300)
    shares = profile(rng) * np.exp(rng.normal(0, 0.5, (2, N_GENES)))
    counts = draw(rng, (shares / shares.sum(axis=1, keepdims=True))[batch])
    assert verdicts(outcome(counts, batch, batch)) == ["absent"]
    assert verdicts(outcome(counts, batch)) == ["distinct"]


def test_a_single_gene_makes_no_type():
    rng = np.random.default_rng(0)
    counts = draw(rng, profile(rng))
    side = rng.integers(0, 2, 300)
    counts[:, 7] = np.where(side == 1, rng.poisson(100, 300), 0)
    assert verdicts(outcome(counts, side)) == ["absent"]


def three_divisions():
    counts, truth = types(np.random.default_rng(3), 4, 500)
    parts = [np.flatnonzero(truth < 2), np.flatnonzero(truth == 2), np.flatnonzero(truth == 3)]
    return counts, [Division(rows, communities(counts[rows]), 1.0) for rows in parts]


def test_the_same_bits_on_any_threads_beside_any_others():
    counts, divisions = three_divisions()
    one = list(split_test(counts)(divisions))
    two = list(split_test(counts, threads=2)(divisions))
    alone = [next(iter(split_test(counts)([division]))) for division in divisions]
    back = list(split_test(counts)(divisions[::-1]))[::-1]
    for others in (two, alone, back):
        for tested, other in zip(one, others, strict=True):
            assert tested.splits == other.splits
            np.testing.assert_array_equal(tested.labels, other.labels)


def test_a_division_depends_on_its_cells_alone():
    counts, divisions = three_divisions()
    division = divisions[0]
    changed = counts.copy()
    changed[np.setdiff1d(np.arange(len(counts)), division.cells)] += 5
    expected, found = (next(iter(split_test(c)([division]))) for c in (counts, changed))
    assert expected.splits == found.splits


def test_levels_are_shares_of_the_error_rate():
    counts, truth = types(np.random.default_rng(0), 4, 400)
    tested = outcome(counts, truth)
    for split in tested.splits:
        assert split.alpha == pytest.approx(0.05 * (split.n_left + split.n_right) / len(truth))


def dendrogram_of(points, children, sizes):
    sizes = np.array(sizes)
    members = frozenset(range(len(sizes)))
    return dendrogram(centroids_of(points, children, len(sizes)), sizes, members)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(3, 60), min_size=2, max_size=9), st.integers(0, 99))
def test_levels_of_disjoint_nodes_sum_to_the_error_rate(sizes, seed):
    rng = np.random.default_rng(seed)
    children = np.repeat(np.arange(len(sizes)), sizes)
    points = (
        rng.standard_normal((len(children), 3)) + 5 * rng.standard_normal((len(sizes), 3))[children]
    )
    tree = dendrogram_of(points, children, sizes)
    for cut in range(1, len(sizes)):
        # The nodes right above a cut of the tree lie apart: no two share a cell.
        nodes = [max(tree, key=len)]
        while len(nodes) < cut and any(node in tree for node in nodes):
            node = max((node for node in nodes if node in tree), key=len)
            nodes.remove(node)
            nodes += tree[node]
        tested = [node for node in nodes if node in tree]
        assert sum(np.array(sizes)[list(node)].sum() for node in tested) <= len(children)
    for node, (left, right) in tree.items():
        assert left | right == node
        assert not left & right
        n_left, n_right = (np.array(sizes)[list(part)].sum() for part in (left, right))
        assert n_left >= n_right


def test_the_dendrogram_is_wards():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((12, 4))
    tree = dendrogram_of(points, np.arange(12), [1] * 12)
    members = [{i} for i in range(12)]
    for first, second, *_ in linkage(points, "ward"):
        members.append(members[int(first)] | members[int(second)])
        children = {frozenset(members[int(i)]) for i in (first, second)}
        assert set(tree[frozenset(members[-1])]) == children


def test_the_dendrogram_leaves_out_cells_without_coordinates():
    points = np.array([[0.0], [0.1], [np.nan], [5.0], [5.1], [9.0]])
    tree = dendrogram_of(points, np.array([0, 0, 0, 1, 1, 2]), [3, 2, 1])
    assert tree[frozenset({0, 1, 2})] == (frozenset({0}), frozenset({1, 2}))


CASES = {
    "children of 3 cells": (np.random.default_rng(0).poisson(2, (9, 30)), np.arange(9) // 3),
    "one cell of a side": (np.random.default_rng(0).poisson(2, (40, 30)), np.arange(40) // 39),
    "one gene": (np.random.default_rng(0).poisson(2, (60, 1)), np.arange(60) % 2),
    "two genes": (np.random.default_rng(0).poisson(2, (60, 2)), np.arange(60) % 2),
    "no counts": (np.zeros((60, 20)), np.arange(60) % 2),
    "rare genes": (np.eye(60, 60), np.arange(60) % 2),
    "no genes": (np.zeros((60, 0)), np.arange(60) % 2),
    "the same cell again": (np.ones((60, 20)), np.arange(60) % 2),
    "cells without counts": (
        np.random.default_rng(0).poisson(2, (60, 30)) * (np.arange(60) > 30)[:, None],
        (np.arange(60) > 30).astype(int),
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batches", [1, 2])
def test_tiny_and_empty_inputs(case, batches):
    counts, labels = CASES[case]
    batch = np.arange(len(labels)) // 2 % batches
    tested = outcome(counts.astype(np.float32), labels, batch)
    for split in tested.splits:
        evidence = split.evidence
        assert all(0 <= p <= 1 for p in (*evidence[:3], evidence.p, evidence.auc))
    assert set(np.unique(tested.labels)) <= set(range(len(np.unique(labels))))


def sample_of_two_types():
    counts, truth = types(np.random.default_rng(0), 2, 200)
    sample = Sample(
        sp.csr_matrix(counts.astype(np.float64)), truth, np.zeros(200, dtype=np.int64),
        resolution=1.0, n_neighbors=15, algorithm="leiden", rng=np.random.default_rng(0),
    )  # fmt: skip
    return sample, truth


def test_a_sample_scores_every_fold():
    sample, truth = sample_of_two_types()
    scores = sample.scores(np.arange(200), truth)
    assert scores.scored.all()
    assert scores.share == pytest.approx(truth.mean(), abs=0.02)
    assert abs(scores.linear.mean()) < 1e-10
    np.testing.assert_array_equal((scores.log > 0).mean(axis=(0, 1)) > 0.5, truth == 1)


def test_a_store_without_counts_is_refused(script, tmp_path):
    X = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)
    adata = anndata.AnnData(X, pd.DataFrame(index=[f"c{i}" for i in range(60)]))
    graph = neighbor_graph(X)
    adata.obsp["connectivities"], adata.obsp["distances"] = graph.connectivities, graph.distances
    adata.uns["neighbors"] = {
        "connectivities_key": "connectivities", "distances_key": "distances",
        "params": {"n_neighbors": 15, "method": "umap", "use_rep": "X"},
    }  # fmt: skip
    adata.write_h5ad(tmp_path / "a.h5ad")
    words = [tmp_path / "a.h5ad", tmp_path / "o.zarr", "--significance", 0.05, "--batch", "sample"]
    done = script("clustering/scripts/clustering.py", *words[:-2], check=False)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(errors) == 1
    assert "--significance (clustering: {significance: ...}) needs" in errors[0]
    assert "Traceback" not in done.stderr
    done = script("clustering/scripts/clustering.py", *words, check=False)
    assert done.returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5ad"]


def test_what_is_recorded():
    counts, truth = types(np.random.default_rng(0), 2, 200)
    record = outcome(counts, truth).splits[0].record(lambda child: f"0_{child}")
    assert json.loads(json.dumps(record)) == record
    assert (record["left"], record["right"], record["verdict"]) == (["0_0"], ["0_1"], "distinct")


def test_scores_that_show_no_structure_are_not_followed_up():
    sample, truth = sample_of_two_types()
    everything = np.arange(200)
    full = sample.scores(everything, truth)
    hasty = sample.scores(everything, truth, max_p=0.05)
    np.testing.assert_array_equal(full.log, hasty.log)
    none = sample.scores(everything, truth, max_p=0.0)
    np.testing.assert_array_equal(full.linear, none.linear)
    assert not none.log.any()
