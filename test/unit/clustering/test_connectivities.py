"""Neighbors against brute force, connectivities against umap-learn, the layout of scanpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from clustering.connectivities import (
    finite_rows,
    fuzzy_connectivities,
    nearest_neighbors,
    neighbor_graph,
)
from numerics import knn

SHARED = Path(__file__).resolve().parents[4] / "shared"


def blobs(n: int, d: int = 10, groups: int = 8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 4, (groups, d))[rng.integers(groups, size=n)]
            + rng.normal(0, 1, (n, d))).astype(np.float32)  # fmt: skip


def brute_force(X: np.ndarray, k: int, metric: str = "euclidean") -> tuple[np.ndarray, np.ndarray]:
    distances = cdist(X.astype(np.float64), X.astype(np.float64), metric)
    np.fill_diagonal(distances, np.inf)
    indices = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return indices, np.take_along_axis(distances, indices, axis=1)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("shift", [0, 1000])
def test_exact_search_equals_brute_force(metric, shift):
    X = blobs(700) + np.float32(shift if metric == "euclidean" else 0)
    found = nearest_neighbors(X, 15, metric=metric)
    indices, distances = brute_force(X, 14, metric)
    assert found.method == "exact"
    assert found.recall is None
    assert found.indices.shape == (700, 14)
    assert found.indices.dtype == np.int32
    assert found.distances.dtype == np.float32
    np.testing.assert_allclose(found.distances, distances, rtol=1e-4, atol=1e-6)
    assert (found.indices == indices).mean() > 0.999


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 80), st.integers(2, 20), st.integers(1, 3), st.integers(0, 2**16))
def test_rows_are_sorted_without_the_cell_itself_also_with_duplicates(n, k, values, seed):
    X = np.random.default_rng(seed).integers(0, values, (n, 2)).astype(np.float32)
    found = nearest_neighbors(X, k)
    assert found.indices.shape == (n, min(k, n) - 1)
    assert (found.indices != np.arange(n)[:, None]).all()
    assert all(len(set(row)) == len(row) for row in found.indices.tolist())
    _, distances = brute_force(X, min(k, n) - 1)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-6)
    steps = np.diff(found.distances, axis=1)
    assert (steps >= 0).all()
    assert (np.diff(found.indices, axis=1)[steps == 0] > 0).all()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_approximate_search_finds_what_it_says(monkeypatch, metric):
    monkeypatch.setattr(knn, "EXACT_UP_TO", 1000)
    X = blobs(3000, seed=1)
    found = nearest_neighbors(X, 15, metric=metric)
    indices, _ = brute_force(X, 14, metric)
    recall = (found.indices[:, :, None] == indices[:, None, :]).any(axis=2).mean()
    assert found.method == "ivf"
    assert found.recall == pytest.approx(recall, abs=0.01)
    assert recall > 0.985
    assert recall < 1  # else this would not test the approximate search


@pytest.mark.parametrize("limit", [0, 8192])
def test_same_bits_with_any_number_of_threads(monkeypatch, limit):
    monkeypatch.setattr(knn, "EXACT_UP_TO", limit)
    X = blobs(2500, 20)
    one, two, four, again = (neighbor_graph(X, threads=t, seed=3) for t in (1, 2, 4, 1))
    for other in (two, four, again):
        np.testing.assert_array_equal(one.distances.indices, other.distances.indices)
        np.testing.assert_array_equal(one.distances.data, other.distances.data)
        np.testing.assert_array_equal(one.connectivities.data, other.connectivities.data)


def test_many_duplicates_in_the_approximate_search(monkeypatch):
    monkeypatch.setattr(knn, "EXACT_UP_TO", 1000)
    X = np.repeat(blobs(4), 500, axis=0)
    found = nearest_neighbors(X, 15)
    assert (found.distances == 0).all()
    assert (found.indices != np.arange(len(X))[:, None]).all()


def test_a_group_with_fewer_members_than_neighbors_looks_further(monkeypatch):
    monkeypatch.setattr(knn, "EXACT_UP_TO", 1000)
    X = blobs(1200)
    X[:5] += 500  # far from everything: the nearest groups hold too few cells
    found = nearest_neighbors(X, 30)
    indices, distances = brute_force(X[:5], 4)
    np.testing.assert_array_equal(found.indices[:5, :4], indices)
    assert np.isfinite(found.distances).all()
    np.testing.assert_allclose(found.distances[:5, :4], distances, rtol=1e-3)


@pytest.mark.parametrize(
    ("X", "options", "words"),
    [
        (np.ones((2, 3)), {}, "at least 3 cells, found 2"),
        (np.ones((0, 3)), {}, "at least 3 cells, found 0"),
        (np.ones(5), {}, "cells x dimensions"),
        (np.ones((5, 0)), {}, "cells x dimensions"),
        (np.array([[1.0], [np.nan], [np.inf], [2], [3]]), {}, "2 of 5 cells have NaN"),
        (1e25 * np.eye(5), {}, "5 of 5 cells have coordinates too large"),
        (np.ones((5, 2)), {"n_neighbors": 1}, "at least 2, found 1"),
        (np.ones((5, 2)), {"metric": "manhattan"}, 'euclidean, cosine, found "manhattan"'),
        (np.eye(5, 3), {"metric": "cosine"}, "2 of 5 cells are zero"),
    ],
)
def test_bad_input_is_one_line(X, options, words):
    with pytest.raises(ValueError, match=words) as error:
        nearest_neighbors(X, **{"n_neighbors": 15, **options})
    assert "\n" not in str(error.value)


def test_finite_rows():
    X = np.array([[1, 2], [np.nan, 2], [1, -np.inf]])
    np.testing.assert_array_equal(finite_rows(X), [True, False, False])


def umap_connectivities(indices: np.ndarray, distances: np.ndarray):
    from scanpy.neighbors._connectivity import umap

    n = len(indices)
    indices = np.column_stack([np.arange(n), indices])
    distances = np.column_stack([np.zeros(n, np.float32), distances])
    return umap(indices, distances, n_obs=n, n_neighbors=indices.shape[1])


def duplicated() -> np.ndarray:
    X = blobs(600)
    X[100:140] = X[100]
    X[200:203] = X[200]
    return X


@pytest.mark.parametrize(
    ("X", "k"),
    [
        (blobs(1500), 15),
        (blobs(1500), 30),
        (duplicated(), 15),
        (blobs(10), 15),
        (blobs(300), 2),
        (blobs(500) * 10.0 ** np.random.default_rng(0).integers(-6, 6, (500, 1)), 10),
        (np.random.default_rng(0).integers(0, 3, (400, 3)), 15),
    ],
    ids=["k15", "k30", "duplicates", "tiny", "k2", "scales", "grid"],
)
def test_connectivities_equal_umap_learn(X, k):
    found = nearest_neighbors(X, k)
    before = found.indices.copy()
    ours = fuzzy_connectivities(found.indices, found.distances, len(X))
    theirs = umap_connectivities(found.indices, found.distances)
    assert ours.nnz == theirs.nnz
    assert ours.dtype == np.float32
    assert ours.has_sorted_indices
    assert abs(ours - theirs).max() < 1e-6
    assert abs(ours - ours.T).max() == 0
    assert ours.diagonal().sum() == 0
    np.testing.assert_array_equal(found.indices, before)


def test_connectivities_of_real_cells_equal_umap_learn():
    if not SHARED.exists():
        pytest.skip("the real cells with principal components are not here")
    import h5py

    with h5py.File(SHARED / "data" / "harmonypy_pbmc3500_pcs.h5ad") as file:
        name = next(iter(file["obsm"]))
        found = nearest_neighbors(file["obsm"][name][()], 15)
    theirs = umap_connectivities(found.indices, found.distances)
    assert abs(fuzzy_connectivities(found.indices, found.distances) - theirs).max() < 1e-6


def test_connectivities_reject_what_does_not_fit():
    found = nearest_neighbors(blobs(50), 5)
    with pytest.raises(ValueError, match="one row for each of 49 cells"):
        fuzzy_connectivities(found.indices, found.distances, 49)
    with pytest.raises(ValueError, match="from 0 to 49, found -1"):
        fuzzy_connectivities(np.full((50, 4), -1), found.distances)


def test_cells_without_coordinates_get_empty_rows():
    X = blobs(200)
    whole = neighbor_graph(np.delete(X, [3, 50], axis=0), n_neighbors=10)
    X[3], X[50, 2] = np.nan, np.inf
    part = neighbor_graph(X, n_neighbors=10)
    keep = finite_rows(X)
    for name in ("distances", "connectivities"):
        matrix = getattr(part, name)
        assert matrix.shape == (200, 200)
        assert matrix[~keep].nnz == 0
        assert matrix[:, ~keep].nnz == 0
        assert (matrix[keep][:, keep] != getattr(whole, name)).nnz == 0
    assert (np.diff(part.distances.indptr)[keep] == 9).all()


def test_scanpy_works_on_the_result():
    import anndata as ad
    import scanpy as sc

    X = blobs(400, groups=40)  # groups that touch: paga wants edges between clusters
    found = neighbor_graph(X, n_neighbors=15)
    ours = ad.AnnData(X, obsm={"X_pca": X})
    ours.obsp["distances"], ours.obsp["connectivities"] = found.distances, found.connectivities
    ours.uns["neighbors"] = {
        "connectivities_key": "connectivities",
        "distances_key": "distances",
        "params": found.params,
    }
    theirs = ad.AnnData(X, obsm={"X_pca": X})
    sc.pp.neighbors(theirs, n_neighbors=15, use_rep="X_pca")
    assert set(found.params) <= set(theirs.uns["neighbors"]["params"])
    for key in ("method", "metric", "n_neighbors", "random_state"):
        assert found.params[key] == theirs.uns["neighbors"]["params"][key]
    assert abs(ours.obsp["connectivities"] - theirs.obsp["connectivities"]).max() < 1e-4
    assert (
        np.diff(ours.obsp["distances"].indptr) == np.diff(theirs.obsp["distances"].indptr)
    ).all()
    sc.tl.leiden(ours, flavor="igraph", n_iterations=2, directed=False)
    assert ours.obs["leiden"].nunique() > 1
    sc.tl.paga(ours, groups="leiden")
    sc.tl.diffmap(ours, n_comps=5)
    assert np.isfinite(ours.obsm["X_diffmap"]).all()
    sc.tl.umap(ours, maxiter=5)
    assert np.isfinite(ours.obsm["X_umap"]).all()


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_thousands_of_equal_cells_do_not_take_the_square(share):
    X = np.random.default_rng(0).normal(size=(12_000, 5))
    X[: int(share * len(X))] = 1.0
    found = nearest_neighbors(X, 15)
    assert found.method == "ivf"
    assert found.recall > 0.99
    assert (found.distances[: int(share * len(X))] == 0).all()
    assert (np.diff(found.distances, axis=1) >= 0).all()
