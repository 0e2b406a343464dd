"""Small clusters are joined to their nearest sibling."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from clustering.children import accepted_children, join_nearest, join_small
from clustering.communities import renumber_by_size


def blocks(sizes, weights):
    """Return labels, and a graph with one edge of each given weight between two clusters."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    graph = sp.lil_matrix((len(labels), len(labels)), dtype=np.float32)
    for (one, other), weight in weights.items():
        graph[first[one], first[other]] = graph[first[other], first[one]] = weight
    return graph.tocsr(), labels


def sizes_of(labels):
    return np.bincount(labels).tolist()


def test_to_the_sibling_of_most_weight():
    graph, labels = blocks([9, 6, 2], {(0, 1): 1, (0, 2): 0.4, (1, 2): 0.5})
    joined = join_small(graph, labels, 3)
    assert sizes_of(joined) == [9, 8]
    assert (joined[-2:] == joined[9]).all()


def test_ties_and_clusters_without_neighbors_go_to_the_larger():
    graph, labels = blocks([9, 6, 2, 1], {(0, 2): 0.5, (1, 2): 0.5})
    assert sizes_of(join_small(graph, labels, 3)) == [12, 6]


def test_from_the_smallest_up_with_the_weights_of_what_has_joined():
    # 3 joins 2, and both then have more to do with 1 than 2 alone has.
    graph, labels = blocks([9, 8, 3, 2], {(2, 3): 2, (0, 2): 0.5, (1, 3): 0.7})
    assert sizes_of(join_small(graph, labels, 6)) == [13, 9]
    assert sizes_of(join_small(graph, labels, 5)) == [9, 8, 5]


def test_all_join():
    graph, labels = blocks([4, 3, 2], {(0, 1): 1})
    children, why = accepted_children(graph, labels, min_cluster_size=5)
    assert sizes_of(children) == [9]
    assert why.reason == "children_too_small"
    children, why = accepted_children(graph, labels, min_cluster_size=2)
    assert (children == labels).all()
    assert why is None


@pytest.mark.parametrize("size", [1, 0.5, 2])
def test_nothing_is_small(size):
    graph, labels = blocks([4, 3, 2], {})
    assert (join_small(graph, labels, size) == labels).all()


def joined_slowly(graph, labels, min_cluster_size):
    """Join as the definition says, on dense matrices."""
    clusters = {i: np.flatnonzero(labels == i) for i in range(labels.max() + 1)}
    dense = graph.toarray().astype(float)
    while len(clusters) > 1:
        small = [i for i in clusters if len(clusters[i]) < min_cluster_size]
        if not small:
            break
        one = min(small, key=lambda i: (len(clusters[i]), -i))
        nearest = max(
            (i for i in clusters if i != one),
            key=lambda i: (dense[np.ix_(clusters[one], clusters[i])].sum(), len(clusters[i]), -i),
        )
        clusters[nearest] = np.concatenate([clusters[nearest], clusters.pop(one)])
    found = np.empty(len(labels), dtype=int)
    for i, cells in clusters.items():
        found[cells] = i
    return renumber_by_size(found)


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 40), st.integers(1, 12), st.floats(0, 0.3), st.integers(1, 9), st.integers(0))
def test_as_the_definition_says(n, n_clusters, density, min_cluster_size, seed):
    rng = np.random.default_rng(seed)
    graph = sp.random(n, n, density, format="csr", random_state=rng)
    # Sums of few small integers are exact, so that ties are ties.
    graph.data = rng.integers(1, 4, len(graph.data)).astype(np.float32)
    graph = graph.maximum(graph.T).tocsr()
    graph.setdiag(0)
    labels = renumber_by_size(rng.integers(0, n_clusters, n))
    joined = join_small(graph, labels, min_cluster_size)
    np.testing.assert_array_equal(joined, joined_slowly(graph, labels, min_cluster_size))
    assert joined.max() == 0 or min(sizes_of(joined)) >= min_cluster_size


def test_those_linked_most_are_joined_until_so_many_are_left():
    graph, labels = blocks([6, 5, 4], {(0, 1): 1, (1, 2): 3})
    assert sizes_of(join_nearest(graph, labels, 2)) == [9, 6]
    assert sizes_of(join_nearest(graph, labels, 1)) == [15]
    assert (join_nearest(graph, labels, 3) == labels).all()
