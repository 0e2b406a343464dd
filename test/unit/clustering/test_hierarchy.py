"""Sub-clustering: names, numbers, parents that stay whole, the same result on any threads."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from clustering import hierarchy
from clustering.children import Unsplit
from clustering.communities import build, find_communities
from clustering.connectivities import neighbor_graph
from clustering.hierarchy import graph_within, split


def nested(sizes: dict[str, list[int]], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return parents, and coordinates in which each parent has children of these sizes."""
    rng = np.random.default_rng(seed)
    parents, X = [], []
    for parent, children in sizes.items():
        middle = rng.normal(0, 100, 6)
        for size in children:
            X.append(middle + rng.normal(0, 10, 6) + rng.normal(0, 0.3, (size, 6)))
            parents += [parent] * size
    shuffled = rng.permutation(len(parents))
    return np.array(parents)[shuffled], np.concatenate(X)[shuffled]


SIZES = {"0": [80, 50, 60], "1": [90], "2": [45, 40], "10": [50], "3": [4]}


def children_of(result, parents, parent) -> list[int]:
    return pd.Series(result.labels.astype(object))[parents == parent].value_counts().tolist()


def test_children_are_found_and_numbered_by_size():
    parents, X = nested(SIZES)
    result = split(parents, X, resolution=0.2)
    counts = pd.Series(result.labels).value_counts()
    assert counts["0_0"] == 80
    assert counts["0_1"] == 60
    assert counts["0_2"] == 50
    assert counts["2_0"] == 45
    assert counts["2_1"] == 40
    assert counts["1_0"] == 90
    assert list(result.labels.categories) == [
        "0_0", "0_1", "0_2", "1_0", "2_0", "2_1", "3_0", "10_0",
    ]  # fmt: skip
    assert not result.labels.isna().any()
    assert result.unsplit == {
        "1": Unsplit("one_community", "one community at resolution 0.2"),
        "3": Unsplit("too_few_cells", "4 cells, fewer than 40"),
        "10": Unsplit("one_community", "one community at resolution 0.2"),
    }
    assert list(result.unsplit) == ["1", "3", "10"]


def test_a_mapping_splits_these_and_nothing_else():
    parents, X = nested(SIZES)
    result = split(parents, X, resolution={"2": 0.2, "77": 1.0})
    assert children_of(result, parents, "2") == [45, 40]
    assert set(result.labels[parents != "2"]) == {"0_0", "1_0", "3_0", "10_0"}
    assert result.unsplit["0"].reason == "not_chosen"
    assert "2" not in result.unsplit


def test_each_parent_has_its_own_resolution():
    parents, X = nested(SIZES)
    result = split(parents, X, resolution={"0": 0.2, "1": 8})
    assert len(children_of(result, parents, "0")) == 3
    assert len(children_of(result, parents, "1")) > 1


def test_a_parent_is_clustered_on_its_own_graph():
    parents, X = nested(SIZES)
    result = split(parents, X, resolution=1.0, n_neighbors=10, seed=2, flavor="igraph",
                   min_cluster_size=1)  # fmt: skip
    rows = parents == "0"
    graph = neighbor_graph(X[rows], n_neighbors=10, seed=2).connectivities
    alone = find_communities(graph, flavor="igraph", seed=2)
    assert result.labels[rows].tolist() == [f"0_{label}" for label in alone]


@pytest.mark.parametrize("algorithm", ["leiden", "louvain"])
def test_same_result_on_any_number_of_threads(algorithm):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 8))
    parents = rng.choice(["0", "1", "2", "3"], 1500, p=[0.6, 0.2, 0.15, 0.05])
    results = [split(parents, X, algorithm=algorithm, threads=t, seed=1) for t in (1, 2, 4, 8, 1)]
    assert len(results[0].labels.categories) > 8
    for other in results[1:]:
        assert other.labels.tolist() == results[0].labels.tolist()
        assert other.unsplit == results[0].unsplit


def test_the_approximate_search_in_large_parents(monkeypatch):
    monkeypatch.setattr("numerics.knn.EXACT_UP_TO", 500)
    parents, X = nested({"0": [600, 500], "1": [30, 20]})
    one, two = (split(parents, X, resolution=0.01, threads=t) for t in (1, 2))
    assert one.labels.tolist() == two.labels.tolist()
    assert pd.Series(one.labels).value_counts().tolist() == [600, 500, 30, 20]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["0", "1_0", "2", "10", "a", None]), min_size=1, max_size=120),
    st.floats(0.05, 3),
    st.integers(0, 1000),
)
def test_every_childs_prefix_is_its_parent(parents, resolution, seed):
    X = np.random.default_rng(seed).normal(size=(len(parents), 3))
    result = split(pd.Categorical(parents), X, resolution=resolution, seed=seed, min_cluster_size=2)
    for parent, child in zip(parents, result.labels, strict=True):
        if parent is None:
            assert pd.isna(child)
        else:
            assert child.rpartition("_")[0] == parent
    for parent in set(parents) - {None}:
        sizes = children_of(result, np.array(parents, dtype=object), parent)
        numbers = {label.rpartition("_")[2] for label in result.labels.categories
                   if label.rpartition("_")[0] == parent}  # fmt: skip
        assert numbers == {str(i) for i in range(len(sizes))}
        if parent in result.unsplit:
            assert len(sizes) == 1


def test_cells_without_label_or_coordinates():
    parents, X = nested({"0": [60, 50], "1": [45]})
    parents = parents.astype(object)
    parents[:7] = [None, np.nan, None, None, None, None, None]
    lost = np.flatnonzero(parents == "0")[:3]
    X[lost] = np.nan
    X[np.flatnonzero(parents == "1")[:40]] = np.nan
    result = split(parents, X, resolution=0.2)
    assert pd.isna(result.labels[:7]).all()
    assert pd.isna(result.labels[lost]).all()
    # A parent that stays whole keeps all of its cells.
    assert set(result.labels[parents == "1"]) == {"1_0"}
    assert result.unsplit["1"].text.endswith(" cells with coordinates, fewer than 40")
    assert pd.isna(result.labels).sum() == 10


@pytest.mark.parametrize("kind", [np.array, pd.Categorical, pd.Series, list])
def test_parents_of_every_kind(kind):
    parents, X = nested({"0": [40, 30], "1": [20]})
    result = split(kind(parents.tolist()), X, resolution=0.2)
    assert result.labels.tolist() == split(parents, X, resolution=0.2).labels.tolist()
    assert set(result.labels.categories) == {"0_0", "0_1", "1_0"}


def test_categories_without_cells_are_no_parents():
    parents = pd.Categorical(["b"] * 30, categories=["a", "b"])
    result = split(parents, np.random.default_rng(0).normal(size=(30, 2)), resolution=0.01)
    assert list(result.labels.categories) == ["b_0"]
    assert list(result.unsplit) == ["b"]


def test_nothing_to_split():
    result = split(np.array([None, None], dtype=object), np.zeros((2, 2)))
    assert pd.isna(result.labels).all()
    assert result.unsplit == {}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"n_iteration": 3}, TypeError, 'did you mean "n_iterations"'),
        ({"algorithm": "laiden"}, ValueError, 'did you mean "leiden"'),
        ({"metric": "manhattan"}, ValueError, "metric must be one of"),
        ({"resolution": 0.0}, ValueError, "resolution must be above 0"),
        ({"resolution": {"1": -1}}, ValueError, "resolution must be above 0"),
        ({"threads": 0}, ValueError, "threads must be at least 1, found 0"),
    ],
)
def test_bad_options_are_one_line_also_where_nothing_is_split(options, error, words):
    with pytest.raises(error, match=words):
        split(np.array(["0", "0", "1"]), np.zeros((3, 2)), **options)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="parents have 2 cells, the representation 3"):
        split(np.array(["0", "0"]), np.zeros((3, 2)))


def test_the_largest_parents_start_first_and_small_ones_share_a_batch(monkeypatch):
    started = []
    inner = hierarchy._split_batch

    def noted(bases, cells, resolutions, **options):
        started.append([len(rows) for rows in cells])
        return inner(bases, cells, resolutions, **options)

    monkeypatch.setattr(hierarchy, "_split_batch", noted)
    monkeypatch.setattr(hierarchy, "BATCH", 50)
    parents, X = nested({"0": [20], "1": [60], "2": [40], "3": [30]})
    apart = split(parents, X, min_cluster_size=5)
    assert started == [[60], [40, 30], [20]]
    monkeypatch.setattr(hierarchy, "BATCH", 1000)
    assert (split(parents, X, min_cluster_size=5).labels == apart.labels).all()


def test_a_function_gives_parents_their_own_representation():
    parents, X = nested(SIZES)
    plain = split(parents, X, resolution=0.2)

    def own(parts):
        return ["no genes" if len(rows) == 50 else X[rows] * 2 for rows in parts]

    result = split(parents, own, resolution=0.2)
    assert (result.labels == plain.labels).all()
    assert result.unsplit == {
        **plain.unsplit,
        "10": Unsplit("no_representation", "no genes"),
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.floats(0, 0.5), st.integers(0, 99))
def test_a_part_of_a_graph(n, density, seed):
    rng = np.random.default_rng(seed)
    graph = sp.random(n, n, density, format="csr", random_state=seed)
    rows = np.flatnonzero(rng.random(n) < 0.6)
    part = graph_within(graph, rows) if len(rows) else graph[rows][:, rows]
    np.testing.assert_array_equal(part.toarray(), graph.toarray()[np.ix_(rows, rows)])


def test_parents_are_split_by_their_part_of_a_graph():
    parents, X = nested(SIZES)
    graph = neighbor_graph(X, n_neighbors=10).connectivities.tolil()
    alone, two = np.flatnonzero(parents == "0")[:2], parents == "2"
    graph[alone], graph[:, alone] = 0, 0
    graph = build(graph.tocsr()).adjacency
    one, other = (split(parents, graph, resolution=0.2, threads=t, seed=3) for t in (1, 3))
    assert one.labels.tolist() == other.labels.tolist()
    assert pd.isna(one.labels[alone]).all(), "they have no neighbors"
    assert pd.isna(one.labels).sum() == 2
    again = find_communities(graph[two][:, two], resolution=0.2, seed=3)
    assert one.labels[two].tolist() == [f"2_{label}" for label in again]
    assert one.unsplit["3"].reason == "too_few_cells"
    lonely = split(parents, sp.csr_matrix(graph.shape, dtype=np.float32))
    assert {why.reason for why in lonely.unsplit.values()} == {"too_few_cells"}
    assert not pd.isna(lonely.labels).any()
    assert lonely.unsplit["0"].text == "0 cells with neighbors within it, fewer than 40"


def test_small_children_are_joined_and_small_parents_stay_whole():
    parents, X = nested({"0": [60, 30, 12], "1": [25, 14], "2": [15, 14, 13]})
    few = split(parents, X, resolution=0.2, min_cluster_size=13)
    assert children_of(few, parents, "0") in ([72, 30], [60, 42])
    assert children_of(few, parents, "1") == [25, 14]
    assert children_of(few, parents, "2") == [15, 14, 13]
    more = split(parents, X, resolution=0.2, min_cluster_size=16)
    assert children_of(more, parents, "1") == [39]
    assert more.unsplit["1"] == Unsplit(
        "children_too_small", "2 communities, of which at most one has 16 cells"
    )
    assert more.unsplit["2"].reason == "children_too_small"
    most = split(parents, X, resolution=0.2)
    assert most.unsplit["1"] == Unsplit("too_few_cells", "39 cells, fewer than 40")
    chosen = split(parents, X, resolution={"0": 0.2}, min_cluster_size=16)
    assert (chosen.labels == more.labels).all()


def test_a_parent_that_stayed_whole_is_not_tried_again():
    parents, X = nested(SIZES)
    first = split(parents, X, resolution=0.2)
    known = {f"{name}_0": why for name, why in first.unsplit.items()}
    again = split(first.labels, X, resolution=0.2)
    fewer = split(first.labels, X, resolution=0.2, known_unsplit=known)
    assert (fewer.labels == again.labels).all()
    assert fewer.unsplit == again.unsplit
