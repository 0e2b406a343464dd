"""Metrics: equal to the peers' on real cells, right where the answer is known."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from sklearn.neighbors import NearestNeighbors

from evaluation.scores import agreement
from evaluation.scores.batch_mixing import kbet_accepted, lisi, neighborhoods
from evaluation.scores.metrics import (
    COLUMNS,
    Labeling,
    graph_connectivity,
    method_metrics,
    pc_regression,
    sample_cells,
    silhouette,
)

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures" / "metrics" / "reference.npz"


@pytest.fixture(scope="module")
def reference():
    with np.load(FIXTURE) as stored:
        return dict(stored)


def knn(X, k):
    """Find the k nearest of each cell, itself left out, as a distance graph."""
    distances, indices = NearestNeighbors(n_neighbors=k + 1).fit(X.astype(float)).kneighbors(X)
    starts = np.arange(0, len(X) * k + 1, k)
    parts = (distances[:, 1:].ravel(), indices[:, 1:].ravel(), starts)
    return sp.csr_matrix(parts, shape=(len(X), len(X)))


@pytest.fixture(scope="module")
def graph(reference):
    return knn(reference["X"], 29)


def test_lisi_is_that_of_scib_metrics_and_harmonypy(reference, graph):
    near = neighborhoods(graph)
    for key, column in (("lisi_batch", "batch"), ("lisi_label", "label")):
        found = lisi(near, reference[column])
        np.testing.assert_allclose(found, reference[key], rtol=2e-4)
    assert np.median(lisi(near, reference["batch"])) == pytest.approx(
        1 + 4 * float(reference["ilisi"]), rel=1e-4
    )
    # harmonypy 2 takes three times the perplexity as neighbors, itself left out.
    near = neighborhoods(knn(reference["X"], 27))
    for i, column in enumerate(("batch", "label")):
        found = lisi(near, reference[column], perplexity=9)
        np.testing.assert_allclose(found, reference["harmonypy_lisi"][:, i], rtol=1e-5)


def test_kbet_is_that_of_scib_metrics(reference, graph):
    accepted = kbet_accepted(neighborhoods(graph), reference["batch"])
    # scib-metrics computes in float32.
    clear = np.abs(reference["kbet_p"] - 0.05) > 1e-4
    assert (accepted == (reference["kbet_p"] >= 0.05))[clear].all()
    assert accepted.mean() == pytest.approx(float(reference["kbet"]), abs=0.003)


def test_kbet_within_labels_is_kbet_of_each(reference, graph):
    labels, batches = reference["label"], reference["batch"]
    within = kbet_accepted(neighborhoods(graph), batches, within=labels)
    for label in np.unique(labels):
        cells = np.flatnonzero(labels == label)
        alone = graph[cells][:, cells]
        if alone.nnz:
            expected = kbet_accepted(neighborhoods(alone), batches[cells])
            np.testing.assert_array_equal(within[cells], expected)


def test_embedding_scores_are_those_of_the_peers(reference):
    X, batch, label = (reference[key] for key in ("X", "batch", "label"))
    whole = pc_regression(X, batch).sum()
    assert whole == pytest.approx(float(reference["pcr"]), rel=1e-4)
    before = pc_regression(reference["before"], batch).sum()
    assert (before - whole) / before == pytest.approx(float(reference["pcr_comparison"]), rel=1e-4)
    found = silhouette(X, label)
    np.testing.assert_allclose(found, sklearn_metrics.silhouette_samples(X, label), atol=1e-6)
    assert (found.mean() + 1) / 2 == pytest.approx(float(reference["silhouette_label"]), rel=1e-4)


def test_silhouette_of_duplicates_singles_and_cells_without_label():
    X = np.array([[0, 0], [0, 0], [5, 5], [9, 1], [1, 1]], dtype=np.float32)
    found = silhouette(X, np.array([0, 0, 1, -1, 0]))
    assert found[2] == 0
    assert np.isnan(found[3])
    assert np.isnan(silhouette(X, np.zeros(5, int))).all()


labelings = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=60)


@settings(deadline=None, max_examples=60)
@given(labelings)
def test_agreement_is_that_of_scikit_learn(pairs):
    first, second = np.array(pairs).T
    table = agreement.contingency(first, second)
    assert table.sum() == len(pairs)
    nmi = agreement.normalized_mutual_information(table)
    assert nmi == pytest.approx(
        sklearn_metrics.normalized_mutual_info_score(first, second), abs=1e-9
    )
    ari = agreement.adjusted_rand_index(table)
    assert ari == pytest.approx(sklearn_metrics.adjusted_rand_score(first, second), abs=1e-9)


def test_mixing_is_relative_to_the_labels_that_occur():
    counts = np.array([[5, 5, 0], [10, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(agreement.mixing(counts), [1, 0, 0])
    np.testing.assert_allclose(agreement.mixing(np.array([[3, 0]])), [0])


def test_graph_connectivity_is_the_largest_part():
    # Label 0: a pair and a single; label 1: joined only by way of label 0; label 2: one cell.
    edges = [(0, 1), (1, 3), (3, 2), (3, 4)]
    rows, columns = np.array(edges).T
    graph = sp.coo_matrix((np.ones(4), (rows, columns)), shape=(6, 6))
    graph = graph + graph.T
    codes = np.array([0, 0, 1, 0, 1, 2])
    np.testing.assert_allclose(graph_connectivity(graph, codes), [1, 1 / 2, 1])
    codes = np.array([0, -1, 1, 0, 1, 2])
    np.testing.assert_allclose(graph_connectivity(graph, codes), [1 / 2, 1 / 2, 1])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(2, 5))
def test_lisi_is_between_one_and_the_number_of_labels(seed, n_labels):
    rng = np.random.default_rng(seed)
    n, k = 40, 9
    near = neighborhoods(knn(rng.normal(size=(n, 2)), k))
    codes = rng.integers(-1, n_labels, n)
    found = lisi(near, codes)
    assert (np.isnan(found) >= (codes < 0)).all()
    known = found[~np.isnan(found)]
    assert ((known >= 1 - 1e-9) & (known <= n_labels + 1e-9)).all()
    renamed = np.where(codes < 0, -1, n_labels - 1 - codes)
    np.testing.assert_allclose(lisi(near, renamed), found)
    one = lisi(near, np.where(codes < 0, -1, 0))
    assert (one[~np.isnan(found)] == 1).all(), "to the last bit"


def test_uneven_rows_isolated_cells_and_duplicates_are_no_trouble():
    graph = sp.csr_matrix(
        (np.array([0.0, 0.0, 1.0, 2.0, 0.0]), np.array([1, 0, 0, 1, 3]), [0, 1, 2, 4, 5, 5]),
        shape=(5, 5),
    )
    near = neighborhoods(graph)
    assert (near.indices[3] == -1).all(), "its only entry is itself"
    found = lisi(near, np.array([0, 1, 0, 0, 1]), perplexity=2)
    np.testing.assert_allclose(found[:2], 1)
    assert 1.9 < found[2] <= 2
    assert np.isnan(found[3:]).all()
    with pytest.raises(ValueError, match="have no neighbors"):
        neighborhoods(sp.csr_matrix((3, 3)))
    with pytest.raises(
        ValueError, match=r"perplexity must be from 1 to 2, the number of neighbors, found"
    ):
        lisi(near, np.zeros(5, int), perplexity=30)


def test_the_sample_keeps_every_label():
    codes = np.repeat([0, 1, 2, -1], [5000, 40, 3, 100])
    taken = sample_cells(codes, 1000, seed=1)
    assert (np.diff(taken) > 0).all()
    counts = np.bincount(codes[taken])
    assert counts[0] == pytest.approx(991, abs=2)
    assert (counts[1:] == [7, 2]).all()
    np.testing.assert_array_equal(sample_cells(codes, 10**6), np.flatnonzero(codes >= 0))


def test_the_table_has_all_cells_batches_and_types(reference, graph):
    batch = Labeling("study", reference["batch"], list("abcde"))
    names = [f"type {i}" for i in range(reference["label"].max() + 1)]
    options = {
        "embedding": reference["X"],
        "near": neighborhoods(graph),
        "connectivities": graph.maximum(graph.T),
    }
    table = method_metrics(
        **options,
        uncorrected=reference["before"],
        batches=[batch],
        label=Labeling("cell_type", reference["label"], names),
        clusters={"leiden_1.0_1": reference["label"] // 2, "leiden_2.0_1": reference["label"]},
    )
    assert list(table.columns) == COLUMNS
    assert table["value"].dropna().between(0, 1).all()
    whole = table[table["group"] == "all"].set_index("metric")["value"]
    assert set(whole.index) == {
        "ilisi",
        "kbet",
        "kbet_within_label",
        "pc_regression",
        "pc_regression_change",
        "clisi",
        "same_label",
        "label_transfer",
        "graph_connectivity",
        "silhouette",
        "nmi",
        "ari",
    }
    assert whole["ari"] == whole["nmi"] == 1
    assert whole["ilisi"] == pytest.approx(float(reference["ilisi"]), abs=1e-4)
    assert whole["clisi"] == pytest.approx(float(reference["clisi"]), abs=1e-4)
    by_batch = table[(table["metric"] == "ilisi") & (table["group_by"] == "study")]
    assert list(by_batch["group"]) == batch.groups
    assert by_batch["n_cells"].sum() == len(reference["X"])
    without = method_metrics(**options, batches=[batch])
    assert set(without["metric"]) == {"ilisi", "kbet", "pc_regression"}
