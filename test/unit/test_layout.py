"""UMAP: keeps neighbours together, the same bits for a seed, cells without neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from clustering.graph import nearest_neighbors, neighbor_graph
from clustering.layout import curve, umap_layout


@pytest.fixture(scope="module")
def cells() -> tuple[np.ndarray, np.ndarray, sp.csr_matrix]:
    rng = np.random.default_rng(0)
    group = rng.integers(6, size=600)
    X = rng.normal(0, 3, (6, 8))[group] + rng.normal(0, 1, (600, 8))
    return X, group, neighbor_graph(X).connectivities


def test_neighbours_stay_together(cells):
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


def test_cells_without_neighbours_have_no_place(cells):
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


def test_several_pieces():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0, 1, (50, 3)), rng.normal(1000, 1, (50, 3))])
    assert np.isfinite(umap_layout(neighbor_graph(X).distances, n_epochs=20)).all()


def test_the_smallest_graph():
    layout = umap_layout(neighbor_graph(np.eye(3)).distances, n_epochs=5)
    assert layout.shape == (3, 2)
    assert np.isfinite(layout).all()


@pytest.mark.parametrize(
    ("weights", "options", "words"),
    [
        (sp.csr_matrix((2, 3)), {}, "square"),
        (sp.csr_matrix((5, 5)), {}, "at least 3 cells with neighbours, found 0 of 5"),
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
