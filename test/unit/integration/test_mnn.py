"""MNN's invariants, its search, its diagnostics, and input that is wrong or merely odd."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from integration.mnn import fast_mnn, mnn_correct, multi_batch_pca, reduced_mnn
from integration.mnn import nearest as mnn_search
from integration.mnn.arguments import number_batches
from integration.mnn.orders import merge_tree
from integration.mnn.pairs import mutual_pairs


def make_cells(n_cells=240, n_dims=8, n_batches=3, seed=0):
    """Three clusters, a shift per batch; batches are not contiguous."""
    rng = np.random.default_rng(seed)
    batch = np.arange(n_cells) % n_batches
    types = 6 * rng.normal(size=(3, n_dims))[rng.integers(3, size=n_cells)]
    return types + rng.normal(size=(n_batches, n_dims))[batch] + rng.normal(
        size=(n_cells, n_dims)
    ), batch


Z, BATCH = make_cells()
COUNTS = np.exp(Z / 4)


# ---------------------------------------------------------------- invariants


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), n_batches=st.integers(2, 4), auto=st.booleans())
def test_order_of_cells_does_not_matter(seed, n_batches, auto):
    cells, batch = make_cells(n_batches=n_batches, seed=seed)
    order = np.random.default_rng(seed).permutation(len(cells))
    here = reduced_mnn(cells, batch, auto_merge=auto)
    there = reduced_mnn(cells[order], batch[order], auto_merge=auto)
    np.testing.assert_allclose(there.corrected, here.corrected[order], atol=1e-9)
    assert list(there.merges["n_pairs"]) == list(here.merges["n_pairs"])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_constant_shift_is_removed(seed):
    rng = np.random.default_rng(seed)
    cells = 10 * rng.normal(size=(3, 20))[np.arange(60) % 3] + rng.normal(size=(60, 20))
    shift = 0.3 * rng.normal(size=20)
    result = reduced_mnn(np.r_[cells, cells + shift], np.repeat([0, 1], 60), k=1)
    here, there = result.corrected[:60], result.corrected[60:]
    pairs = result.merges["pairs"][0]
    assume(len(pairs) == 60 and (pairs[:, 1] - pairs[:, 0] == 60).all())
    np.testing.assert_allclose(there, here, atol=1e-9)
    assert result.merges["batch_size"][0] == pytest.approx(1)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_pairs_are_mutual_and_symmetric(seed):
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(40, 14)), rng.normal(size=(70, 14))
    pairs = mutual_pairs(left, right, k=5)
    distance = np.linalg.norm(left[:, None] - right[None], axis=2)
    near = (distance.argsort(axis=1).argsort(axis=1) < 5) & (
        distance.argsort(axis=0).argsort(axis=0) < 5
    )
    np.testing.assert_array_equal(pairs, np.argwhere(near))
    other = mutual_pairs(right, left, k=5)[:, ::-1]
    np.testing.assert_array_equal(other[np.lexsort((other[:, 1], other[:, 0]))], pairs)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_proportions_still_sum_to_one(seed):
    rng = np.random.default_rng(seed)
    topics = rng.dirichlet(np.ones(7), size=120)
    assert np.allclose(reduced_mnn(topics, np.arange(120) % 2).corrected.sum(axis=1), 1)


def test_the_left_batch_of_one_vector_keeps_all_but_that_direction():
    cells, batch = make_cells(n_batches=2)
    moved = reduced_mnn(cells, batch).corrected[batch == 0] - cells[batch == 0]
    assert np.linalg.matrix_rank(moved, tol=1e-9) == 1


@pytest.mark.parametrize(
    "run",
    [
        lambda threads: reduced_mnn(Z, BATCH, threads=threads),
        lambda threads: reduced_mnn(np.tile(Z, 2), BATCH, auto_merge=True, threads=threads),
        lambda threads: fast_mnn(COUNTS, BATCH, n_comps=5, threads=threads),
        lambda threads: mnn_correct(COUNTS, BATCH, svd_dim=1, threads=threads),
    ],
    ids=["tree", "brute force", "fast", "gene"],
)
def test_same_bits_whatever_the_threads(run):
    one, *others = (run(threads) for threads in (1, 2, 4))
    for other in others:
        assert np.array_equal(one.corrected, other.corrected)
        pd.testing.assert_frame_equal(one.merges, other.merges)


def test_a_larger_batch_size_than_asked_for_is_left_alone():
    result = reduced_mnn(Z, BATCH, min_batch_skip=2)
    assert result.merges["skipped"].all()
    assert np.array_equal(result.corrected, Z)
    assert (result.merges.filter(like="lost_var") == 0).all(axis=None)


def test_only_cells_of_restrict_are_paired():
    restrict = np.arange(240) % 5 > 0
    result = reduced_mnn(Z, BATCH, restrict=restrict)
    assert all(restrict[pairs].all() for pairs in result.merges["pairs"])
    assert not np.allclose(result.corrected[~restrict], Z[~restrict])


def test_prop_k_is_a_share_of_each_batch():
    few, many = (reduced_mnn(Z, BATCH, k=2, prop_k=share).merges for share in (0.01, 0.5))
    by_k = reduced_mnn(Z, BATCH, k=40).merges  # half of 80 cells; the second merge has more
    assert few["n_pairs"][0] < many["n_pairs"][0] == by_k["n_pairs"][0]
    assert many["n_pairs"][1] > by_k["n_pairs"][1]


# ---------------------------------------------------------------- orders


@pytest.mark.parametrize(
    ("order", "merges"),
    [
        (None, ["a<b", "a+b<c", "a+b+c<d"]),
        (["c", "a", "d", "b"], ["c<a", "c+a<d", "c+a+d<b"]),
        ([["a", "b"], ["d", "c"]], ["d<c", "a<b", "a+b<d+c"]),
        (["b", [["a", "d"], "c"]], ["a<d", "a+d<c", "b<a+d+c"]),
    ],
)
def test_merge_orders(order, merges):
    cells, batch = make_cells(n_batches=4)
    found = reduced_mnn(cells, np.array(list("abcd"))[batch], merge_order=order).merges
    assert [
        f"{left}<{right}" for left, right in zip(found.left, found.right, strict=True)
    ] == merges


def test_auto_merge_starts_with_most_pairs():
    cells, batch = make_cells(n_batches=4)
    found = reduced_mnn(cells, batch, auto_merge=True).merges
    counts = {}
    for i in range(4):
        for j in range(i):
            counts[i, j] = len(mutual_pairs(cells[batch == i], cells[batch == j], k=20))
    best = max(counts.values())
    assert found["n_pairs"][0] == best
    assert counts[int(found["left"][0]), int(found["right"][0])] == best


def test_numbers_name_batches_of_text():
    batches = number_batches(np.array(["1", "2", "10"])[BATCH], 240)
    assert merge_tree([2, 10, 1], batches) == ((2, 1), 0)


# ---------------------------------------------------------------- search


@pytest.mark.parametrize("dims", [3, 15])
def test_exact_search(dims):
    rng = np.random.default_rng(0)
    points, queries = rng.normal(size=(2000, dims)) + 50, rng.normal(size=(300, dims)) + 50
    distance = np.linalg.norm(queries[:, None] - points[None], axis=2)
    order = distance.argsort(axis=1)[:, :9]
    found = mnn_search.nearest(points, queries, 9)
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_allclose(found.distances, np.take_along_axis(distance, order, 1), atol=1e-12)
    assert found.recall is None


def test_exact_search_of_what_float32_cannot_tell_apart():
    rng = np.random.default_rng(0)
    side = np.where(np.arange(900) % 3, 1000.0, -1000.0)[:, None]
    cells = side + 1e-3 * rng.normal(size=(900, 15))
    points, queries = cells[:700], cells[700:]
    distance = np.linalg.norm(queries[:, None] - points[None], axis=2)
    found = mnn_search.nearest(points, queries, 9)
    np.testing.assert_array_equal(found.indices, distance.argsort(axis=1)[:, :9])


def test_grouped_search_finds_nearly_all(monkeypatch):
    rng = np.random.default_rng(0)
    centers = 3 * rng.normal(size=(40, 20))
    points = centers[rng.integers(40, size=6000)] + rng.normal(size=(6000, 20))
    queries = centers[rng.integers(40, size=2500)] + rng.normal(size=(2500, 20)) + 0.5
    exact = mnn_search.nearest(points, queries, 10)
    monkeypatch.setattr(mnn_search, "MAX_DISTANCES", 1000**2)
    found = [mnn_search.nearest(points, queries, 10, threads=threads) for threads in (1, 2, 4)]
    share = (found[0].distances <= exact.distances[:, -1:] * (1 + 1e-9)).mean()
    assert share > 0.99
    assert found[0].recall == pytest.approx(share, abs=0.005)
    assert all(np.array_equal(found[0].indices, other.indices) for other in found)


def test_grouped_search_of_equal_points(monkeypatch):
    monkeypatch.setattr(mnn_search, "MAX_DISTANCES", 100)
    found = mnn_search.nearest(np.ones((500, 12)), np.zeros((50, 12)), 5)
    assert np.allclose(found.distances, np.sqrt(12))


# ---------------------------------------------------------------- diagnostics


def test_a_population_of_one_batch_is_named():
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(200, 6))
    batch = np.repeat(["x", "y"], 100)
    cells[:40, 0] += 40
    clusters = np.where(cells[:, 0] > 20, "rare", "common")
    result = reduced_mnn(cells, batch, clusters=clusters)
    assert result.merges["unpaired_clusters"][0] == "x cluster rare (40 cells)"
    assert any("batch-specific or mismatched: x cluster rare" in note for note in result.notes)
    assert result.merges["paired_x"][0] <= 0.6


def test_batches_that_share_no_population():
    rng = np.random.default_rng(0)
    centers = np.array([[0, 0], [0, 3], [90, 0], [90, 3], [2, 0], [2, 3]])
    cells = np.repeat(centers, 50, axis=0) + 0.3 * rng.normal(size=(300, 2))
    cells = np.c_[cells, 0.3 * rng.normal(size=(300, 6))]
    batch = np.repeat([1, 2, 3], 100)
    notes = "\n".join(reduced_mnn(cells, batch, k=5).notes)
    assert "the two share no population" in notes
    assert reduced_mnn(cells, batch, k=5).merges["pair_distance"][0] > 1
    # Each in pairs with one of the two merged before: as the method's page says it.
    alone = reduced_mnn(cells, batch, k=5, min_batch_skip=2).notes
    assert "batch 3 and batch 2 share no population: 0 of 100 cells are in pairs" in alone


def test_few_pairs_lost_variance_and_lost_dimensions_are_said():
    few = reduced_mnn(Z[:24], BATCH[:24], k=2)
    assert any("fewer than 20" in note for note in few.notes)
    rng = np.random.default_rng(0)
    none = reduced_mnn(rng.normal(size=(300, 4)), np.arange(300) % 2)  # no batch effect
    assert any("min_batch_skip above" in note for note in none.notes)
    topics = rng.dirichlet(np.ones(6), size=300)
    cost = reduced_mnn(topics, np.arange(300) % 3).notes[-1]
    assert "2 batch vectors were removed from 5 dimensions, 40%" in cost


def test_alignment_of_the_batch_effect_with_the_biology():
    rng = np.random.default_rng(0)
    types = np.arange(300) // 2 % 2
    cells = rng.normal(size=(300, 10)) + 20 * types[:, None] * np.eye(1, 10)
    batch = np.arange(300) % 2
    across = reduced_mnn(cells + 3 * batch[:, None] * np.eye(10)[5], batch).merges
    along = reduced_mnn(cells + 3 * batch[:, None] * np.eye(10)[0], batch).merges
    assert across["bio_alignment"][0] < 0.3 < 0.9 < along["bio_alignment"][0]
    assert across["effect_ratio"][0] < 1


# ---------------------------------------------------------------- bad and odd input


def spoil(value):
    spoiled = Z.copy()
    spoiled[[7, 9], 1] = value
    return spoiled


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"matrix": spoil(np.nan)}, ValueError, r"NaN or infinite in 2 of 240 cells \(rows 7, 9\)"),
        ({"matrix": Z.ravel()}, ValueError, "cells x dimensions"),
        ({"matrix": Z[:, :0]}, ValueError, "cells x dimensions"),
        ({"matrix": Z.astype(str)}, TypeError, "must hold numbers"),
        ({"batch": BATCH[1:]}, ValueError, "240 cells but 239 batch labels"),
        ({"batch": np.arange(240)}, ValueError, "level of its own"),
        ({"batch": np.where(BATCH == 1, np.nan, BATCH)}, ValueError, "missing for 80 of 240"),
        ({"k": 0}, ValueError, "k must be at least 1; found 0"),
        ({"k": 2.5}, TypeError, "k must be a whole number"),
        ({"prop_k": 1.5}, ValueError, "prop_k must be a share"),
        ({"ndist": 0}, ValueError, "ndist must be greater than 0"),
        ({"min_batch_skip": -1}, ValueError, "min_batch_skip must be at least 0"),
        ({"threads": 0}, ValueError, "threads must be a positive integer"),
        ({"restrict": np.ones(3, bool)}, ValueError, "restrict must be 240 booleans"),
        ({"restrict": BATCH > 0}, ValueError, "restrict leaves no cell of batch '0'"),
        ({"merge_order": [0, 1]}, ValueError, "misses a batch: '2'"),
        ({"merge_order": [0, 1, 2, 1]}, ValueError, "names a batch twice: '1'"),
        ({"merge_order": [0, 1, 7]}, ValueError, 'unknown batch "7".*Known: 0, 1, 2'),
        ({"merge_order": [[0, 1, 2], 3]}, ValueError, "two children, found 3"),
        ({"merge_order": []}, ValueError, "merge_order is empty"),
        ({"merge_order": "0"}, TypeError, "merge_order must be a list"),
        ({"clusters": BATCH[1:]}, ValueError, "240 cells but 239 clusters"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bad_input_is_one_clear_line(changes, error, message):
    arguments = {"matrix": Z, "batch": BATCH, **changes}
    with pytest.raises(error, match=message) as caught:
        reduced_mnn(arguments.pop("matrix"), arguments.pop("batch"), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: mnn_correct(COUNTS, BATCH, sigma=0), "sigma must be greater than 0"),
        (lambda: mnn_correct(COUNTS, BATCH, subset=[0, 0]), "different positions from 0 to 7"),
        (lambda: mnn_correct(COUNTS, BATCH, subset=[8]), "different positions from 0 to 7"),
        (lambda: mnn_correct(spoil(np.nan), BATCH), "X is NaN or infinite in 2"),
        (lambda: fast_mnn(COUNTS, BATCH, n_comps=0), "n_comps must be at least 1"),
        (lambda: fast_mnn(spoil(np.nan), BATCH), "NaN or infinite"),
        (lambda: fast_mnn(0 * COUNTS, BATCH), "X is 0 in all cells and genes"),
        (lambda: fast_mnn(COUNTS, BATCH, weights=[1, 2]), "3 positive numbers"),
        (lambda: fast_mnn(COUNTS, BATCH, weights={"0": 1}), "name every batch, 0, 1, 2; found 0"),
        (lambda: fast_mnn(lambda: [COUNTS], BATCH[1:]), "240 cells but 239 batch labels"),
    ],
)
def test_bad_input_of_the_others(run, message):
    with pytest.raises(ValueError, match=message):
        run()


@pytest.mark.parametrize("method", [reduced_mnn, fast_mnn, mnn_correct])
def test_one_batch_is_not_corrected(method):
    with pytest.warns(UserWarning, match="only one batch, '0'"):
        result = method(COUNTS, np.zeros(240, int))
    assert len(result.merges) == 0
    assert result.corrected.shape == COUNTS.shape
    if method is reduced_mnn:
        assert np.array_equal(result.corrected, COUNTS)


@pytest.mark.parametrize("method", [reduced_mnn, fast_mnn, mnn_correct])
def test_odd_input_stays_finite(method):
    copies = np.repeat(COUNTS[:4], 60, axis=0)
    zeros = COUNTS.copy()
    zeros[[0, 1, 2, 50]] = 0
    for cells in (copies, zeros, np.r_[COUNTS[:60]].repeat(4, axis=0)):
        assert np.isfinite(method(cells, BATCH).corrected).all()
    small = np.where(np.arange(240) < 3, 1, 0)  # k is larger than the batch
    assert np.isfinite(method(COUNTS, small).corrected).all()
    assert np.isfinite(method(COUNTS, np.where(np.arange(240) < 1, 1, 0), k=500).corrected).all()


def test_a_single_neighbor_at_the_edge_of_the_kernel():
    batch = np.where(np.arange(240) < 1, 1, 0)
    result = reduced_mnn(Z, batch, merge_order=[1, 0], k=1, ndist=1)
    assert np.isfinite(result.corrected).all()


def test_equal_batches_have_nothing_to_correct():
    result = reduced_mnn(np.r_[Z, Z], np.repeat([0, 1], 240), k=1)
    assert result.merges["batch_size"][0] == 0
    np.testing.assert_allclose(result.corrected, np.r_[Z, Z], atol=1e-12)


def test_many_cells_are_warned_of(monkeypatch):
    monkeypatch.setattr("integration.mnn.gene.MANY_CELLS", 100)
    with pytest.warns(UserWarning, match="all pairs of 240 cells"):
        mnn_correct(COUNTS, BATCH)


def test_several_batch_columns_are_joined():
    frame = pd.DataFrame({"donor": BATCH, "chip": np.arange(240) // 120})
    names = frame["donor"].astype(str) + "_" + frame["chip"].astype(str)
    joined, named = reduced_mnn(Z, frame), reduced_mnn(Z, names)
    assert np.array_equal(joined.corrected, named.corrected)
    assert list(joined.merges["right"]) == list(named.merges["right"])


def test_the_input_is_not_changed():
    before = Z.copy()
    reduced_mnn(Z, BATCH)
    assert np.array_equal(Z, before)


def test_components_of_labels_are_those_of_batches():
    Z, batch = make_cells()
    labels = np.array(["x", "y", "z"])[batch]
    results = [
        multi_batch_pca(lambda: iter([Z]), given, n_comps=3)
        for given in (labels, number_batches(labels, len(Z)))
    ]
    assert np.array_equal(results[0].rotation, results[1].rotation)
