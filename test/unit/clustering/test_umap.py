"""UMAP: keeps neighbors together, the same bits for a seed, the field, odd graphs."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp

from clustering import communities
from clustering.connectivities import nearest_neighbors, neighbor_graph
from clustering.isomap import GROUPS, aggregate, initial_coordinates
from clustering.umap import _repulsion, curve, umap_layout


@pytest.fixture(scope="module")
def cells() -> tuple[np.ndarray, np.ndarray, sp.csr_matrix]:
    rng = np.random.default_rng(0)
    group = rng.integers(6, size=600)
    X = rng.normal(0, 3, (6, 8))[group] + rng.normal(0, 1, (600, 8))
    return X, group, neighbor_graph(X).connectivities


def test_neighbors_stay_together(cells):
    X, group, weights = cells
    layout = umap_layout(weights, n_epochs=200)
    assert layout.shape == (600, 2)
    assert layout.dtype == np.float32
    assert np.isfinite(layout).all()
    near = nearest_neighbors(layout, 15).indices
    assert (group[near] == group[:, None]).mean() > 0.9
    true = nearest_neighbors(X, 15).indices
    assert (near[:, :, None] == true[:, None, :]).any(axis=2).mean() > 0.3


def test_same_bits_for_a_seed_on_any_number_of_threads(cells):
    one, two, four, again, other = (
        umap_layout(cells[2], n_epochs=20, threads=threads, seed=seed)
        for threads, seed in ((1, 3), (2, 3), (4, 3), (1, 3), (1, 4))
    )
    for same in (two, four, again):
        np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_min_dist_and_spread_have_their_effect(cells):
    def gap(**options) -> float:
        layout = umap_layout(cells[2], n_epochs=100, **options)
        return float(np.median(nearest_neighbors(layout, 2).distances))

    assert gap(min_dist=0.01) < gap(min_dist=0.5) < gap(min_dist=0.5, spread=3.0)


def test_cells_without_neighbors_have_no_place(cells):
    X = cells[0].copy()
    X[[0, 17]] = np.nan
    weights = neighbor_graph(X).connectivities
    layout = umap_layout(weights, n_epochs=10)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(layout).any(axis=1)), [0, 17])
    keep = np.delete(np.arange(600), [0, 17])
    np.testing.assert_array_equal(layout[keep], umap_layout(weights[keep][:, keep], n_epochs=10))


def test_weights_of_one_direction_and_a_stored_diagonal(cells):
    weights = cells[2]
    untidy = (sp.triu(weights) + sp.identity(600, dtype=np.float32)).tocsr()
    np.testing.assert_array_equal(umap_layout(untidy, n_epochs=5), umap_layout(weights, n_epochs=5))


def test_attraction_and_repulsion_are_no_worse_than_umap_learns(cells):
    """umap-learn 0.5.12 from the same weights: 1.59 and 603 (five seeds)."""
    weights = cells[2].tocoo()
    layout = umap_layout(cells[2])
    a, b = curve(0.5, 1.0)

    def near(first, second):
        return 1 / (1 + a * np.square(first - second).sum(axis=-1) ** b)

    pull = -(weights.data * np.log(near(layout[weights.row], layout[weights.col]))).sum() / 600
    apart = 1 - near(layout[:, None], layout[None]) + np.eye(600)
    push = -np.log(apart).sum() / 600
    assert pull < 1.1 * 1.59
    assert push < 603


@pytest.mark.parametrize(("min_dist", "spread"), [(0.5, 1.0), (0.01, 1.0), (0.05, 0.1)])
def test_the_field_is_the_sum_over_all_pairs(min_dist, spread):
    places = np.random.default_rng(0).normal(0, 2 * spread, (2000, 2)).astype(np.float32)
    a, b = curve(min_dist, spread)
    apart = places[:, None].astype(np.float64) - places
    squared = np.square(apart).sum(axis=-1) + np.eye(2000)
    weight = np.minimum(2 * b / ((1e-3 + squared) * (1 + a * squared**b)), 4 / np.sqrt(squared))
    true = (weight[:, :, None] * apart).sum(axis=1)
    push = _repulsion(places, (a, b))
    assert np.linalg.norm(push[:, :2] - true) < 0.05 * np.linalg.norm(true)
    # The cell itself is part of its stiffness.
    assert 1 < np.median(push[:, 2] / (weight.sum(axis=1) - np.diag(weight))) < 1.25
    # What a cell does to others, they do to it.
    assert np.abs(push[:, :2].sum(axis=0)).max() < 1e-6 * np.abs(push[:, :2]).sum()


def test_a_cell_does_not_push_itself():
    alone = np.array([[-3, 1.23], [1e6, 7.77]], dtype=np.float32)
    assert np.abs(_repulsion(alone, curve(0.5, 1.0))[:, :2]).max() < 1e-6
    together = np.full((5, 2), 0.3, dtype=np.float32)
    assert np.abs(_repulsion(together, curve(0.5, 1.0))[:, :2]).max() < 1e-4


def test_cells_far_away_take_no_memory():
    places = np.random.default_rng(0).normal(0, 5, (1000, 2)).astype(np.float32)
    places[0] = 1e7
    tracemalloc.start()
    push = _repulsion(places, curve(0.5, 1.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isfinite(push).all()
    assert peak < 150e6


@pytest.mark.parametrize(
    ("min_dist", "spread"), [(0, 0.001), (0.1, 100.0), (2.9, 1.0), (250, 100.0)]
)
def test_unusual_curves(cells, min_dist, spread):
    a, b = curve(min_dist, spread)
    # A half where the target, which falls by 63 % per spread, is about that.
    assert a ** (-0.5 / b) == pytest.approx(min_dist + 0.69 * spread, rel=0.3)
    layout = umap_layout(cells[2], min_dist=min_dist, spread=spread, n_epochs=20)
    assert np.isfinite(layout).all()


def test_cells_brought_together_in_memory_keep_their_places(cells, monkeypatch):
    _, group, weights = cells
    monkeypatch.setattr(communities, "REORDER_ABOVE", 0)
    near = nearest_neighbors(umap_layout(weights), 15).indices
    assert (group[near] == group[:, None]).mean() > 0.9


def test_a_start_in_the_order_of_the_graph():
    chain = sp.diags([np.ones(4999, dtype=np.float32)] * 2, [1, -1], format="csr")
    place = initial_coordinates(chain, np.random.default_rng(0))
    assert place.shape == (5000, 2)
    assert abs(np.corrcoef(place[:, 0], np.arange(5000))[0, 1]) > 0.95


def test_groups_of_cells(cells):
    weights = sp.block_diag([cells[2]] * 20 + [np.ones((2, 2))] * 3, format="csr")
    group = aggregate(weights, np.random.default_rng(0))
    sizes = np.bincount(group)
    assert sizes.min() > 0
    assert GROUPS <= len(sizes) <= len(group) // 2
    sources, targets = weights.nonzero()
    assert (group[sources] == group[targets]).mean() > 5 * (sizes**2).sum() / len(group) ** 2
    piece = np.repeat(np.arange(20), 600)
    assert all(len(np.unique(piece[group[:12000] == g])) == 1 for g in np.unique(group[:12000]))


@pytest.mark.parametrize(
    "weights",
    [
        sp.kron(sp.eye(1500), np.ones((2, 2))),
        sp.csr_matrix(np.ones((1100, 1100))),
        sp.csr_matrix(np.kron([[0, 1], [1, 0]], np.ones((550, 550)))),
        sp.coo_matrix((np.ones(1999), (np.zeros(1999, int), np.arange(1, 2000))), (2000, 2000)),
        sp.csr_matrix(np.diag(10.0 ** np.arange(-37, 39), 1)),
    ],
    ids=["pairs", "complete", "two sides", "star", "weights of all sizes"],
)
def test_strange_graphs(weights):
    for n_epochs in (1, 10):
        assert np.isfinite(umap_layout(weights, n_epochs=n_epochs)).all()


def test_several_pieces():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0, 1, (50, 3)), rng.normal(1000, 1, (50, 3))])
    assert np.isfinite(umap_layout(neighbor_graph(X).distances, n_epochs=20)).all()


def test_the_smallest_graph():
    for n_epochs in (1, 5):
        layout = umap_layout(neighbor_graph(np.eye(3)).distances, n_epochs=n_epochs)
        assert layout.shape == (3, 2)
        assert np.isfinite(layout).all()


@pytest.mark.parametrize(
    ("weights", "options", "words"),
    [
        (sp.csr_matrix((2, 3)), {}, "square"),
        (sp.csr_matrix((5, 5)), {}, "at least 3 cells with neighbors, found 0 of 5"),
        (sp.csr_matrix([[0, np.nan], [1, 0]]), {}, "finite"),
        (sp.csr_matrix([[0, -1.0], [1, 0]]), {}, "at least 0"),
        (sp.csr_matrix(np.eye(4, k=1)), {"min_dist": -1}, "min_dist must be from 0"),
        (sp.csr_matrix(np.eye(4, k=1)), {"spread": 0}, "min_dist must be from 0"),
        (sp.csr_matrix(np.eye(4, k=1)), {"n_epochs": 0}, "n_epochs must be at least 1"),
        (sp.csr_matrix(np.eye(4, k=1)), {"seed": -1}, "seed must be from 0"),
    ],
)
def test_bad_input_is_one_line(weights, options, words):
    with pytest.raises(ValueError, match=words) as error:
        umap_layout(weights, **options)
    assert "\n" not in str(error.value)
