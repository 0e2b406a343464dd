"""Communities: the objective, the same labels for a seed from any thread, odd graphs, bad input."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from clustering import communities
from clustering.communities import (
    DEFAULT_FLAVOR,
    FLAVORS,
    OPTIONS,
    CellOrder,
    CommunityGraph,
    build,
    check_algorithm_options,
    find_communities,
    modularity,
    order_cells,
    renumber_by_size,
    restore,
    too_many_clusters,
)
from clustering.connectivities import neighbor_graph
from clustering.umap import umap_layout

EVERY = [(algorithm, flavor) for algorithm in FLAVORS for flavor in FLAVORS[algorithm]]
every_flavor = pytest.mark.parametrize(("algorithm", "flavor"), EVERY)


def cliques(sizes, bridge: float = 0.0) -> sp.csr_matrix:
    """Complete graphs, one edge of weight `bridge` between one and the next."""
    matrix = sp.block_diag(
        [sp.coo_matrix(np.ones((size, size)) - np.eye(size)) for size in sizes]
    ).tolil()
    ends = np.cumsum(sizes)
    for end in ends[:-1] if bridge else []:
        matrix[end - 1, end] = matrix[end, end - 1] = bridge
    return matrix.tocsr()


@pytest.fixture(scope="module")
def cells() -> sp.csr_matrix:
    """Return a graph in which the number of communities is a matter of resolution."""
    rng = np.random.default_rng(0)
    X = rng.normal(0, 2, (12, 8))[rng.integers(12, size=1200)] + rng.normal(0, 1, (1200, 8))
    return neighbor_graph(X).connectivities


@every_flavor
def test_finds_cliques_and_numbers_them_by_size(algorithm, flavor):
    labels = find_communities(
        cliques([5, 9, 7], bridge=0.5), algorithm=algorithm, flavor=flavor, seed=1
    )
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, np.repeat([2, 0, 1], [5, 9, 7]))


@every_flavor
def test_same_seed_same_labels_also_from_several_threads(cells, algorithm, flavor):
    graph = build(cells)

    def run(seed: int) -> bytes:
        return find_communities(graph, algorithm=algorithm, flavor=flavor, seed=seed).tobytes()

    alone = [run(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        beside = list(pool.map(run, [0, 1, 2, 3] * 3))
    assert beside == alone * 3


@pytest.mark.parametrize("flavor", FLAVORS["leiden"])
def test_the_seed_has_an_effect(cells, flavor):
    found = {find_communities(cells, flavor=flavor, seed=s, n_iterations=1).tobytes()
             for s in range(8)}  # fmt: skip
    assert len(found) > 1


@every_flavor
def test_pythons_random_numbers_are_left_alone(cells, algorithm, flavor):
    random.seed(5)
    expected = random.random()
    random.seed(5)
    find_communities(cells, algorithm=algorithm, flavor=flavor)
    assert random.random() == expected


@every_flavor
def test_more_communities_at_a_higher_resolution(cells, algorithm, flavor):
    graph = build(cells)
    numbers = [
        find_communities(graph, algorithm=algorithm, flavor=flavor, resolution=r).max()
        for r in (0.1, 1.0, 5.0)
    ]
    assert numbers == sorted(set(numbers))


def test_flavors_agree_in_modularity(cells):
    graph = build(cells)
    for resolution in (0.5, 2.0):
        found = [
            modularity(
                graph,
                find_communities(graph, algorithm=a, flavor=f, resolution=resolution),
                resolution,
            )
            for a, f in EVERY
        ]
        assert max(found) - min(found) < 0.02


def test_modularity_equals_igraphs(cells):
    graph = build(cells)
    labels = find_communities(graph)
    expected = graph.igraph.modularity(labels.tolist(), weights="weight", resolution=1.3)
    assert modularity(cells, labels, 1.3) == pytest.approx(expected)


def test_weights_count():
    weights = cliques([4, 4], bridge=1.0)
    weights[3, 4] = weights[4, 3] = 100.0
    for algorithm, flavor in EVERY:
        labels = find_communities(weights, algorithm=algorithm, flavor=flavor)
        assert labels[3] == labels[4]


def test_every_edge_is_passed_once_and_the_graph_built_once(cells):
    graph = build(cells)
    assert graph.igraph.ecount() == graph.adjacency.nnz // 2
    assert graph.igraph is graph.igraph
    assert np.sum(graph.igraph.es["weight"]) == pytest.approx(cells.sum() / 2)
    assert not graph.igraph.has_multiple()


@every_flavor
def test_several_pieces_and_cells_without_neighbors(algorithm, flavor):
    weights = sp.block_diag([cliques([4, 6]), sp.coo_matrix((2, 2))]).tocsr()
    labels = find_communities(weights, algorithm=algorithm, flavor=flavor)
    np.testing.assert_array_equal(labels, np.repeat([1, 0, 2, 3], [4, 6, 1, 1]))


@every_flavor
@pytest.mark.parametrize("n", [1, 3])
def test_no_edges(algorithm, flavor, n):
    labels = find_communities(sp.csr_matrix((n, n)), algorithm=algorithm, flavor=flavor)
    np.testing.assert_array_equal(labels, np.arange(n))
    assert modularity(sp.csr_matrix((n, n)), labels) == 0


def test_weights_in_one_direction_count_by_the_larger(capsys):
    one_way = sp.triu(cliques([5, 6])).tocsr()
    graph = build(one_way)
    assert "not symmetric" in capsys.readouterr().err
    assert (graph.adjacency != cliques([5, 6])).nnz == 0


def test_rounding_is_no_asymmetry(capsys, cells):
    nearly = cells.copy()
    nearly.data[0] *= np.float32(1 + 1e-7)
    graph = build(nearly)
    assert not capsys.readouterr().err
    assert abs(graph.adjacency - graph.adjacency.T).max() == 0


def test_the_diagonal_and_the_callers_matrix(cells):
    weights = cliques([3, 4])
    weights.setdiag(5)
    before = weights.copy()
    assert (build(weights).adjacency != cliques([3, 4])).nnz == 0
    assert (weights != before).nnz == 0


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"n_iteration": 3}, TypeError, 'unknown argument of leiden .flavor cellstrata. '
         '"n_iteration"; did you mean "n_iterations"'),
        ({"algorithm": "laiden"}, ValueError, 'did you mean "leiden"'),
        ({"flavor": "igrap"}, ValueError, 'did you mean "igraph"'),
        ({"algorithm": "louvain", "flavor": "leidenalg"}, ValueError, "Known: cellstrata, igraph"),
        ({"algorithm": "louvain", "n_iterations": 2}, TypeError, "Known: flavor"),
        ({"n_iterations": "5"}, TypeError, "n_iterations must be an integer, found '5'"),
        ({"n_iterations": True}, TypeError, "n_iterations must be an integer"),
        ({"n_iterations": 0, "flavor": "igraph"}, ValueError, "must not be 0"),
        ({"beta": -1, "flavor": "igraph"}, ValueError, "beta must be above 0, found -1"),
        ({"beta": 0}, ValueError, "beta must be above 0, found 0"),
        ({"beta": "x"}, TypeError, "beta must be a number"),
        ({"flavor": "leidenalg", "max_comm_size": -1}, ValueError, "max_comm_size must be at"),
        ({"resolution": 0}, ValueError, "resolution must be above 0, found 0"),
        ({"resolution": float("nan")}, ValueError, "resolution must be above 0"),
        ({"seed": -1}, ValueError, "seed must be from 0"),
    ],
)  # fmt: skip
def test_bad_arguments_are_one_line(options, error, words):
    with pytest.raises(error, match=words) as raised:
        find_communities(cliques([3, 4]), **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (sp.csr_matrix((2, 3)), "square"),
        (sp.csr_matrix((0, 0)), "no cells"),
        (sp.csr_matrix([[0, -1.0], [-1, 0]]), "found 2 that are not"),
        (sp.csr_matrix([[0, np.nan], [np.nan, 0]]), "found 2 that are not"),
    ],
)
def test_bad_weights_are_one_line(weights, words):
    with pytest.raises(ValueError, match=words):
        find_communities(weights)


def test_every_flavor_has_options_and_every_algorithm_a_default():
    assert set(OPTIONS) == set(EVERY)
    assert all(DEFAULT_FLAVOR in flavors for flavors in FLAVORS.values())
    assert check_algorithm_options("leiden", "igraph", n_iterations=-1)[1]["n_iterations"] == -1


@pytest.mark.parametrize("flavor", FLAVORS["leiden"])
def test_iterations_until_nothing_improves(cells, flavor):
    graph = build(cells)
    few, all_ = (find_communities(graph, flavor=flavor, n_iterations=n) for n in (1, -1))
    assert modularity(graph, all_) >= modularity(graph, few)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 12), min_size=1, max_size=60))
def test_renumbering_keeps_the_groups_and_orders_them(labels):
    labels = np.array(labels)
    new = renumber_by_size(labels)
    assert len(set(zip(labels.tolist(), new.tolist(), strict=True))) == len(set(labels.tolist()))
    assert set(new.tolist()) == set(range(len(set(labels.tolist()))))
    sizes = np.bincount(new)
    assert (np.diff(sizes) <= 0).all()
    first = np.array([np.flatnonzero(new == i)[0] for i in range(len(sizes))])
    assert (np.diff(first)[np.diff(sizes) == 0] > 0).all()


def test_too_many_clusters():
    crumbs = np.arange(1000)
    assert too_many_clusters(crumbs, resolution=1.0)
    # Not more than the limit.
    assert not too_many_clusters(np.arange(1000) % 50, resolution=1.0)
    # The limit follows the resolution and the factor, and is at least 1.
    assert not too_many_clusters(crumbs, resolution=20.0)
    assert not too_many_clusters(crumbs, resolution=1.0, max_cluster_factor=1000)
    assert too_many_clusters(np.arange(10), resolution=0.001)
    assert not too_many_clusters(np.zeros(10), resolution=0.001)
    # More than the limit, but the smallest has more than 10 cells.
    assert not too_many_clusters(np.arange(1100) % 100, resolution=1.0)
    assert too_many_clusters(np.arange(1000) % 100, resolution=1.0)
    # One small cluster, but the 10 % quantile of the sizes is above cells / limit.
    sizes = [20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 1]
    labels = np.repeat(np.arange(len(sizes)), sizes)
    assert too_many_clusters(labels, resolution=1.0, max_cluster_factor=11)
    sizes = [3, *[20] * 12, *[1000] * 10]
    labels = np.repeat(np.arange(len(sizes)), sizes)
    assert too_many_clusters(labels, resolution=1.0, max_cluster_factor=20)


def test_a_prepared_graph_gives_the_same_labels(cells):
    graph = build(cells)
    assert isinstance(graph, CommunityGraph)
    np.testing.assert_array_equal(find_communities(graph), find_communities(cells))


@pytest.fixture
def ordered(cells, monkeypatch) -> CellOrder:
    """Return the stored order of a graph that is large enough to be reordered."""
    monkeypatch.setattr(communities, "REORDER_ABOVE", 0)
    return order_cells(cells)


def test_a_stored_order_gives_the_same_labels_and_layout(cells, ordered):
    assert ordered.order.dtype == np.int32
    stored = CellOrder(ordered.order.astype(np.int64), ordered.checksum)
    for matrix in (cells, cells.astype(np.float64)):
        graph, computed = restore(matrix, stored), build(matrix)
        assert graph.order is not None
        assert computed.order is None
        np.testing.assert_array_equal(graph.reordered[1], computed.reordered[1])
        for part in ("data", "indices", "indptr"):
            one, other = (getattr(g.reordered[0], part) for g in (graph, computed))
            np.testing.assert_array_equal(one, other)
        plain = computed.adjacency[ordered.order][:, ordered.order]
        np.testing.assert_array_equal(graph.reordered[0].indices, plain.indices)
        np.testing.assert_array_equal(graph.reordered[0].data, plain.data)
        for algorithm in FLAVORS:
            labels = (find_communities(g, algorithm=algorithm, seed=2) for g in (graph, computed))
            np.testing.assert_array_equal(*labels)
        layouts = (umap_layout(g, n_epochs=5) for g in (graph, computed))
        np.testing.assert_array_equal(*layouts)


def test_an_order_of_another_graph_is_not_used(cells, ordered):
    n = cells.shape[0]
    order, checksum = ordered
    assert restore(cells, ordered).order is not None
    shuffled = np.random.default_rng(0).permutation(n).astype(np.int32)
    twice = np.concatenate([order[:1], order[:-1]])
    for stored in (
        None,
        CellOrder(order[:-1], checksum),
        CellOrder(order[::-1], checksum),
        CellOrder(twice, checksum),
        CellOrder(order - 1, checksum),
        CellOrder(order, checksum + 1),
        CellOrder(order, "text"),
    ):
        assert restore(cells, stored).order is None
    heavier = cells.copy()
    heavier.data[0] *= 2
    for other in (cells[shuffled][:, shuffled], cells[:-1][:, :-1], heavier):
        assert restore(other, ordered).order is None
        np.testing.assert_array_equal(
            find_communities(restore(other, ordered)), find_communities(other)
        )


def test_graphs_that_a_reader_must_prepare_have_no_order(cells, monkeypatch):
    assert order_cells(cells) is None, "too small to be reordered"
    monkeypatch.setattr(communities, "REORDER_ABOVE", 0)
    alone = sp.block_diag([cells, sp.coo_matrix((1, 1))]).tocsr()
    diagonal = (cells + sp.identity(cells.shape[0], dtype=np.float32)).tocsr()
    for matrix in (sp.triu(cells).tocsr(), alone, diagonal):
        assert order_cells(matrix) is None


def test_a_prepared_graph_is_not_changed(cells):
    graph = build(cells)
    before = graph.adjacency.copy()
    umap_layout(graph, n_epochs=2)
    np.testing.assert_array_equal(graph.adjacency.data, before.data)
    np.testing.assert_array_equal(umap_layout(graph, n_epochs=2), umap_layout(cells, n_epochs=2))
