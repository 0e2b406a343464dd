"""Harmony's errors on invalid input and its results on unusual input."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration.harmony import harmonize


def make_cells(n_cells=300, n_dims=5, n_batches=3, seed=0):
    rng = np.random.default_rng(seed)
    batch = rng.integers(n_batches, size=n_cells)
    types = 4 * rng.normal(size=(4, n_dims))[rng.integers(4, size=n_cells)]
    Z = types + rng.normal(size=(n_batches, n_dims))[batch] + rng.normal(size=(n_cells, n_dims))
    return Z.astype(np.float32), batch


Z, BATCH = make_cells()


def with_value(row, value):
    changed = Z.copy()
    changed[row, 1] = value
    return changed


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"Z": with_value(7, np.nan)}, ValueError, r"NaN.* 1 cells \(rows 7\)"),
        ({"Z": with_value([3, 299], np.inf)}, ValueError, r"2 cells \(rows 3, 299\)"),
        ({"Z": with_value(2, 1e30)}, ValueError, r"too large in 1 cells \(rows 2\)"),
        ({"Z": np.ones_like(Z)}, ValueError, "no variance"),
        ({"Z": Z.ravel()}, ValueError, "two dimensions"),
        ({"Z": Z.astype(str)}, TypeError, "must hold numbers"),
        ({"Z": Z.tolist()}, TypeError, "must be an array; found list"),
        ({"Z": Z[:, :0]}, ValueError, "no dimensions"),
        ({"Z": Z[:5], "batches": BATCH[:5]}, ValueError, "at least 6 cells; found 5"),
        ({"batches": "batch"}, TypeError, "one label per cell"),
        ({"batches": BATCH[:-1]}, ValueError, "300 cells but 299 batch labels"),
        ({"batches": np.arange(300)}, ValueError, "each of the 300 cells"),
        ({"batches": [BATCH, np.arange(300).astype(str)]}, ValueError, "each of the 300 cells"),
        ({"batches": np.where(BATCH == 1, np.nan, BATCH)}, ValueError, "missing for .* of 300"),
        ({"batches": np.full(300, None), "na_batch": "drop"}, ValueError, "every cell's batch"),
        ({"na_batch": "keep"}, ValueError, 'unknown value "keep". Known: error, drop, own'),
        ({"mask": np.zeros(300, bool)}, ValueError, "no cell passes"),
        ({"mask": np.ones(300)}, ValueError, "300 booleans"),
        ({"n_clusters": 301}, ValueError, "301 but there are only 300 cells"),
        ({"n_clusters": 0}, ValueError, "n_clusters: must be at least 1"),
        ({"n_clusters": 2.5}, ValueError, "n_clusters: must be an integer"),
        ({"flavor": "harmony3"}, ValueError, 'unknown value "harmony3"; did you mean "harmony2"'),
        ({"max_iter_harmony": -1}, ValueError, "max_iter_harmony: must be at least 1"),
        ({"max_iter_harmony": None, "tol_harmony": None}, ValueError, "never stop"),
        ({"max_iter_clustering": 3, "early_stopping": True}, ValueError, "4 or more; found 3"),
        ({"tol_harmony": -0.1}, ValueError, "tol_harmony: must be at least 0"),
        ({"tol_clustering": np.nan}, ValueError, "tol_clustering: must be a finite number"),
        ({"sigma": 0}, ValueError, "sigma must be greater than 0"),
        ({"sigma": 1e-9}, ValueError, "at least 0.0001"),
        ({"sigma": [0.1, 0.2]}, ValueError, "one per cluster"),
        ({"theta": -1}, ValueError, "theta must not be negative"),
        ({"theta": [1, 2]}, ValueError, "one per key"),
        ({"theta": "two"}, ValueError, "theta: must be a number"),
        ({"tau": -1}, ValueError, "tau: must be at least 0"),
        ({"alpha": 0}, ValueError, "alpha: must be greater than 0"),
        ({"alpha": 1}, ValueError, "alpha: must be less than 1"),
        ({"ridge_lambda": -2}, ValueError, "ridge_lambda must be greater than 0"),
        ({"batch_prune_threshold": -1}, ValueError, "batch_prune_threshold: must be at least 0"),
        ({"batch_prune_threshold": 1.5}, ValueError, "batch_prune_threshold: must be less than 1"),
        ({"batch_prune_threshold": 0.99}, ValueError, "no cluster has two batches left: nothing"),
        ({"batches": [BATCH, BATCH % 2], "theta": [2.0]}, ValueError, "one per key"),
        ({"block_proportion": 0}, ValueError, "block_proportion: must be greater than 0"),
        ({"block_proportion": 1.5}, ValueError, "block_proportion: must be at most 1"),
        ({"blocks": np.zeros(7, int)}, ValueError, "blocks must be 300 whole numbers"),
        ({"init_centroids": np.ones((3, 4))}, ValueError, r"of shape \(3, 5\)"),
        ({"init_centroids": Z[:3], "n_clusters": 4}, ValueError, "init_centroids has 3 rows"),
        ({"kmeans_init": "best"}, ValueError, "kmeans_init: unknown value"),
        ({"kmeans_iterations": 0}, ValueError, "kmeans_iterations: must be at least 1"),
        ({"oversampling_factor": 0}, ValueError, "oversampling_factor: must be greater"),
        ({"dtype": np.float16}, ValueError, 'unknown value "float16"'),
        ({"seed": -1}, ValueError, "seed must be a whole number, at least 0"),
        ({"threads": 0}, ValueError, "threads must be a positive integer"),
        ({"original": True, "threads": 2}, ValueError, "set threads=1"),
        ({"chunk_size": 0}, ValueError, "chunk_size: must be at least 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_invalid_input_raises_one_clear_line(changes, error, message):
    arguments = {"Z": Z, "batches": BATCH, **changes}
    with pytest.raises(error, match=message) as caught:
        harmonize(arguments.pop("Z"), arguments.pop("batches"), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"ridge_lambda": 2}, "ridge_lambda"),
        ({"flavor": "harmony1", "alpha": 0.5}, "alpha"),
        ({"flavor": "harmony1", "batch_prune_threshold": 0.1}, "batch_prune_threshold"),
    ],
)
def test_an_option_without_effect_in_the_flavor_causes_a_warning(options, name):
    with pytest.warns(UserWarning, match=f"{name} has no effect with flavor"):
        result = harmonize(Z, BATCH, **options)
    plain = harmonize(Z, BATCH, flavor=options.get("flavor", "harmony2"))
    assert np.array_equal(result.corrected, plain.corrected)


def test_alpha_acts_in_harmony1_where_the_penalty_is_dynamic():
    results = [
        harmonize(Z, BATCH, flavor="harmony1", ridge_lambda=-1, alpha=alpha).corrected
        for alpha in (0.2, 0.5)
    ]
    assert not np.array_equal(*results)


def test_batches_too_far_apart_cause_a_warning():
    """With the default threshold: each cluster holds one batch."""
    far = Z + 1e4 * np.eye(5)[BATCH]
    with pytest.warns(UserWarning, match="nothing is corrected, the batches lie too far apart"):
        result = harmonize(far, BATCH, init_centroids=np.eye(5)[:3], theta=0, sigma=0.01)
    assert np.allclose(result.corrected, far, rtol=1e-5)


def test_one_batch_returns_the_input():
    with pytest.warns(UserWarning, match="only one batch"):
        result = harmonize(Z, np.zeros(300, int))
    assert np.array_equal(result.corrected, Z)


def test_the_published_update_defaults_to_one_thread():
    by_default, one = (harmonize(Z, BATCH, original=True, threads=n) for n in (None, 1))
    assert np.array_equal(by_default.corrected, one.corrected)


def test_zero_rows_are_kept_with_a_warning():
    zeros = Z.copy()
    zeros[[4, 90]] = 0
    with pytest.warns(UserWarning, match="2 cells have only zeros"):
        result = harmonize(zeros, BATCH)
    assert np.isfinite(result.corrected).all()


@pytest.mark.parametrize(
    "form",
    [
        lambda cells: cells.astype(np.float16),
        lambda cells: cells.astype(np.float64),
        lambda cells: np.asfortranarray(cells),
        lambda cells: cells[::-1][::-1],
    ],
)
def test_any_float_type_and_memory_order(form):
    assert np.isfinite(harmonize(form(Z), BATCH).corrected).all()


def test_the_input_is_not_modified():
    before = Z.copy()
    corrected = harmonize(Z, BATCH).corrected
    assert np.array_equal(Z, before)
    assert not np.shares_memory(corrected, Z)


def test_a_batch_of_one_cell():
    batch = BATCH.copy()
    batch[17] = 3
    assert np.isfinite(harmonize(Z, batch).corrected).all()


@pytest.mark.parametrize("n_cells", [6, 7, 39, 40])
@pytest.mark.parametrize("flavor", ["harmony1", "harmony2"])
def test_few_cells(n_cells, flavor):
    result = harmonize(Z[:n_cells], np.arange(n_cells) % 2, flavor=flavor)
    assert np.isfinite(result.corrected).all()


def test_as_many_clusters_as_cells():
    result = harmonize(Z[:40], BATCH[:40], n_clusters=40)
    assert np.isfinite(result.corrected).all()


@pytest.mark.parametrize("theta", [0, 50])
@pytest.mark.parametrize("sigma", [0.001, 10])
def test_extreme_parameters_stay_finite(theta, sigma):
    result = harmonize(Z, BATCH, theta=theta, sigma=sigma)
    assert np.isfinite(result.corrected).all()
    assert np.isfinite(result.objective).all()


def test_copies_of_a_few_cells():
    copies = np.repeat(Z[:3], 100, axis=0)
    for init in ("random", "k-means++", "k-means||"):
        assert np.isfinite(harmonize(copies, BATCH, kmeans_init=init).corrected).all()


def test_missing_batches():
    labels = np.array(["a", "b", "c"], dtype=object)[BATCH]
    missing = np.arange(300) < 20
    labels[missing] = None
    dropped = harmonize(Z, labels, na_batch="drop")
    alone = harmonize(Z[~missing], labels[~missing])
    assert np.isnan(dropped.corrected[missing]).all()
    assert np.array_equal(dropped.corrected[~missing], alone.corrected)
    own = harmonize(Z, labels, na_batch="own")
    named = np.where(missing, "d", labels.astype(str))
    assert np.array_equal(own.corrected, harmonize(Z, named).corrected)
    assert own.batches.names[-1] == "missing"


def test_mask_and_missing_batches_together():
    labels = BATCH.astype(float)
    labels[:20] = np.nan
    mask = np.arange(300) >= 10
    result = harmonize(Z, labels, na_batch="drop", mask=mask)
    assert np.array_equal(np.isnan(result.corrected).all(axis=1), np.arange(300) < 20)


def test_every_kind_of_label_gives_the_same_result():
    names = np.array(["x", "y", "z"])[BATCH]
    expected = harmonize(Z, BATCH).corrected
    for labels in (
        names,
        names.astype(object),
        list(names),
        pd.Series(names),
        pd.Series(names, index=np.arange(300)[::-1]),
        pd.Categorical(names, categories=["w", "x", "y", "z"]),
        pd.array(BATCH, dtype="Int64"),
        BATCH.astype(float),
        BATCH - 5,
        10**12 * BATCH,
    ):
        assert np.array_equal(harmonize(Z, labels).corrected, expected)


def test_labels_of_several_types():
    labels = np.array([1, "1", "x"], dtype=object)[BATCH]
    assert len(harmonize(Z, labels).batches.names) == 3


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), n_batches=st.integers(2, 6))
def test_order_of_cells_does_not_matter(seed, n_batches):
    cells, batch = make_cells(n_batches=n_batches, seed=seed)
    rng = np.random.default_rng(seed)
    order, blocks = rng.permutation(300), rng.integers(5, size=300)
    options = {"init_centroids": cells[:8], "dtype": np.float64}
    corrected = harmonize(cells, batch, blocks=blocks, **options).corrected
    reordered = harmonize(cells[order], batch[order], blocks=blocks[order], **options).corrected
    np.testing.assert_allclose(reordered, corrected[order], atol=1e-9)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), n_batches=st.integers(2, 6))
def test_names_of_batches_do_not_matter(seed, n_batches):
    cells, batch = make_cells(n_batches=n_batches, seed=seed)
    renamed = np.random.default_rng(seed).permutation(n_batches)[batch]
    results = [harmonize(cells, labels, dtype=np.float64) for labels in (batch, renamed)]
    np.testing.assert_allclose(results[1].corrected, results[0].corrected, atol=1e-9)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), n_keys=st.integers(1, 3), passes=st.integers(1, 6))
def test_the_objective_falls_and_counts_add_up(seed, n_keys, passes):
    cells, _ = make_cells(seed=seed)
    rng = np.random.default_rng(seed)
    keys = [rng.integers(1 + number, 3 + number, size=300) for number in range(n_keys)]
    result = harmonize(
        cells, keys, max_iter_clustering=passes, keep_assignments=True, tol_harmony=None
    )
    assert result.objective[-1] < result.objective[0]
    np.testing.assert_allclose(result.observed.sum(), 300 * n_keys, rtol=1e-5)
    np.testing.assert_allclose(result.expected.sum(), 300 * n_keys, rtol=1e-5)
    np.testing.assert_allclose(result.assignments().sum(axis=1), 1, rtol=1e-4)


def test_without_batch_effect_and_penalty_almost_nothing_changes():
    rng = np.random.default_rng(1)
    cells = np.repeat(make_cells(n_batches=1, n_cells=1000)[0], 2, axis=0)
    batch = np.tile([0, 1], 1000)  # every cell is in both batches
    corrected = harmonize(cells, batch, theta=0).corrected
    assert np.abs(corrected - cells).max() < 1e-3
    shuffled = harmonize(cells, rng.permutation(batch), theta=0).corrected
    assert np.linalg.norm(shuffled - cells) < 0.03 * np.linalg.norm(cells)


def test_theta_zero_still_corrects():
    shift = np.where(BATCH[:, None] == 0, 3.0, 0.0) * np.eye(1, 5)
    corrected = harmonize(Z + shift, BATCH, theta=0).corrected

    def gap(cells):
        return abs(cells[BATCH == 0, 0].mean() - cells[BATCH != 0, 0].mean())

    assert gap(corrected) < gap(Z + shift) / 3


def test_until_convergence():
    result = harmonize(Z, BATCH, max_iter_harmony=None)
    assert result.converged
    assert len(result.rounds) == len(result.objective) - 1


def test_never_stop_early():
    result = harmonize(Z, BATCH, tol_harmony=None, max_iter_harmony=12)
    assert result.rounds == [5] * 12
    assert not result.converged


def test_early_stopping_ends_a_converged_clustering():
    stopped = harmonize(Z, BATCH, early_stopping=True, max_iter_clustering=20)
    assert all(5 <= rounds < 20 for rounds in stopped.rounds)
    all_passes = harmonize(Z, BATCH, early_stopping=True, max_iter_clustering=8, tol_clustering=0)
    assert set(all_passes.rounds) == {8}


def test_joint_key_is_the_key_of_combinations():
    other = np.arange(300) % 2
    joint = harmonize(Z, [BATCH, other], combine_keys=True)
    assert np.array_equal(joint.corrected, harmonize(Z, BATCH * 2 + other).corrected)
    stacked = harmonize(Z, np.stack([BATCH, other], axis=1))
    assert stacked.batches.levels_per_key == (3, 2)
    frame = harmonize(Z, pd.DataFrame({"batch": BATCH, "other": other}))
    assert np.array_equal(frame.corrected, stacked.corrected)
    assert not np.allclose(stacked.corrected, joint.corrected, atol=1e-3)


def test_default_number_of_clusters():
    assert harmonize(Z, BATCH).parameters.n_clusters == 10
    cells, batch = make_cells(n_cells=4000)
    assert harmonize(cells, batch, max_iter_harmony=1).parameters.n_clusters == 100


def test_tau_discounts_small_batches_as_r_does():
    batch = np.where(np.arange(300) < 290, 0, 1)
    theta = harmonize(Z, batch, tau=5, n_clusters=10).parameters.theta
    np.testing.assert_allclose(theta, 2 * (1 - np.exp(-((np.array([290, 10]) / 50) ** 2))))


def test_r_is_formed_only_when_asked_for():
    with pytest.raises(ValueError, match="keep_assignments=True"):
        harmonize(Z, BATCH).assignments()


def test_valid_input_causes_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        harmonize(Z, BATCH)
        harmonize(Z, [BATCH, np.arange(300) % 2], flavor="harmony1", sigma=0.01)
