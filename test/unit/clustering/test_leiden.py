"""Our own Leiden: what its paper promises, on graphs of every kind."""

from __future__ import annotations

import igraph
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from clustering import communities
from clustering.communities import build, find_communities, modularity
from clustering.connectivities import neighbor_graph


@st.composite
def graphs(draw) -> sp.csr_matrix:
    """Draw a symmetric graph with up to 40 nodes, often in several pieces."""
    n = draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    upper = sp.triu(sp.random(n, n, draw(st.sampled_from([0.05, 0.15, 0.5])), random_state=rng), 1)
    if draw(st.booleans()):
        upper.data[:] = 1
    return (upper + upper.T).astype(np.float32).tocsr()


resolutions = st.sampled_from([0.05, 0.5, 1.0, 3.0])


@settings(max_examples=200, deadline=None)
@given(graphs(), resolutions, st.integers(0, 1000))
def test_every_community_is_connected(weights, resolution, seed):
    labels = find_communities(weights, resolution=resolution, seed=seed)
    edges = weights.tocoo()
    inside = labels[edges.row] == labels[edges.col]
    kept = sp.coo_matrix((edges.data[inside], (edges.row[inside], edges.col[inside])), edges.shape)
    assert connected_components(kept, directed=False)[0] == labels.max() + 1


@settings(max_examples=100, deadline=None)
@given(graphs(), resolutions, st.integers(0, 1000))
def test_no_node_has_a_better_place(weights, resolution, seed):
    """Iterated until nothing moves, each node is where it gains most (or alone)."""
    labels = find_communities(weights, resolution=resolution, seed=seed, n_iterations=-1)
    dense = weights.toarray().astype(float)
    strength = dense.sum(axis=1)
    if not strength.any():
        return
    member = np.eye(len(labels) + 1)[labels]
    towards = dense @ member
    total = strength @ member - strength[:, None] * member
    gain = towards - resolution * strength[:, None] * total / strength.sum()
    own = gain[np.arange(len(labels)), labels]
    assert (own >= gain.max(axis=1) - 1e-6 * strength).all()


def test_the_karate_club():
    """The best partition that is known has a modularity of 0.4198."""
    club = igraph.Graph.Famous("Zachary")
    weights = build(sp.csr_matrix(np.array(club.get_adjacency().data, dtype=np.float32)))
    found = [modularity(weights, find_communities(weights, seed=seed)) for seed in range(20)]
    assert max(found) == pytest.approx(0.41979, abs=1e-5)
    assert min(found) > 0.40


@pytest.fixture(scope="module")
def cells() -> sp.csr_matrix:
    rng = np.random.default_rng(0)
    X = rng.normal(0, 2, (15, 10))[rng.integers(15, size=4000)] + rng.normal(0, 1, (4000, 10))
    return neighbor_graph(X).connectivities


@pytest.mark.parametrize("resolution", [0.3, 1.0, 3.0])
def test_modularity_is_that_of_the_peers(cells, resolution):
    graph = build(cells)

    def best(**options) -> float:
        return max(
            modularity(graph, find_communities(graph, resolution=resolution, seed=seed, **options),
                       resolution) for seed in range(3)
        )  # fmt: skip

    peers = max(best(flavor="igraph"), best(flavor="leidenalg"))
    assert best() > peers - 0.002
    assert best(algorithm="louvain") > best(algorithm="louvain", flavor="igraph") - 0.002


def test_the_order_of_the_cells_in_memory_is_undone(cells, monkeypatch):
    monkeypatch.setattr(communities, "REORDER_ABOVE", 0)
    graph = build(cells)
    assert graph.reordered[1] is not None
    found = modularity(graph, find_communities(graph))
    assert found == pytest.approx(modularity(graph, find_communities(graph, flavor="igraph")),
                                  abs=0.003)  # fmt: skip


def test_weights_of_every_size():
    """Weights far from 1 change nothing but the unit of beta."""
    weights = sp.lil_matrix(np.kron(np.eye(3), np.ones((5, 5)) - np.eye(5)))
    weights[4, 5] = weights[5, 4] = weights[9, 10] = weights[10, 9] = 0.5
    for factor in (1e-30, 1e-6, 1e6, 1e30):
        labels = find_communities((weights.tocsr() * factor).astype(np.float32))
        np.testing.assert_array_equal(labels, np.repeat([0, 1, 2], 5))


def test_weights_beyond_float32_are_refused():
    with pytest.raises(ValueError, match="finite"):
        find_communities(sp.csr_matrix(np.array([[0, 1e60], [1e60, 0]])))
