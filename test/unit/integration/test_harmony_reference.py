"""Harmony against a dense textbook implementation and against R's harmony 2.0.4."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from integration.harmony import harmonize

FIXTURE = Path(__file__).parents[2] / "fixtures" / "harmony" / "pancreas_5studies_r2.npz"


def textbook_harmony(
    Z,
    keys,
    centroids,
    blocks,
    *,
    flavor="harmony2",
    sigma=0.1,
    theta=2.0,
    alpha=0.2,
    ridge_lambda=1.0,
    threshold=1e-5,
    iterations=3,
    passes=5,
):
    """Harmony as in the papers: R, Phi and one regression per cluster, all formed.

    Returns the corrected cells, R, the centroids and the objective after every iteration.
    """
    n_cells, n_clusters = len(Z), len(centroids)
    one_hot = [np.eye(key.max() + 1)[key] for key in keys]
    Phi = np.concatenate(one_hot, axis=1)
    key_of_level = np.repeat(np.arange(len(keys)), [part.shape[1] for part in one_hot])
    sizes = Phi.sum(axis=0)
    sigma = np.broadcast_to(sigma, n_clusters)
    theta = np.broadcast_to(theta, Phi.shape[1])

    def unit(rows):
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def counts(R):
        return Phi.T @ R, np.outer(sizes / n_cells, R.sum(axis=0))

    def objective(R, distance):
        seen, expected = counts(R)
        ratio = (
            (seen + expected + 1) / (2 * expected + 1)
            if flavor == "harmony2"
            else (seen + 1) / (expected + 1)
        )
        diversity = Phi @ (theta[:, None] * np.log(ratio))
        entropy = R * np.log(np.maximum(R, 1e-300))
        return (R * distance + sigma * entropy + sigma * R * diversity).sum() * 2000 / n_cells

    def plain(Y, directions):
        distance = 2 * (1 - directions @ Y.T)
        logits = -distance / sigma
        R = np.exp(logits - logits.max(axis=1, keepdims=True))
        return R / R.sum(axis=1, keepdims=True), distance

    Y, directions = unit(centroids), unit(Z)
    R, distance = plain(Y, directions)
    objectives = [objective(R, distance)]
    for iteration in range(iterations):
        if flavor == "harmony2" and iteration:
            R, distance = plain(Y, directions)
        for _ in range(passes):
            if flavor == "harmony1":
                Y = unit(R.T @ directions)
                distance = 2 * (1 - directions @ Y.T)
            kernel, _ = plain(Y, directions)
            for block in np.unique(blocks):
                members = blocks == block
                seen, expected = counts(R)
                seen -= Phi[members].T @ R[members]
                expected -= np.outer(sizes / n_cells, R[members].sum(axis=0))
                ratio = (
                    (2 * expected + 1) / (seen + expected + 1)
                    if flavor == "harmony2"
                    else (expected + 1) / (seen + 1)
                )
                new = kernel[members] * (Phi[members] @ ratio ** theta[:, None])
                R[members] = new / new.sum(axis=1, keepdims=True)
        objectives.append(objective(R, distance))
        seen, expected = counts(R)
        corrected = Z.copy()
        for k in range(n_clusters):
            levels = seen[:, k] / sizes >= threshold
            if flavor == "harmony1":
                levels[:] = True
            else:
                for key in range(len(keys)):
                    if levels[key_of_level == key].sum() < 2:
                        levels[key_of_level == key] = False
            if not levels.any():
                continue
            cells = Phi[:, levels].any(axis=1)
            design = np.concatenate([np.ones((n_cells, 1)), Phi[:, levels]], axis=1)
            design *= cells[:, None]
            penalty = (
                alpha * expected[levels, k]
                if flavor == "harmony2"
                else np.full(levels.sum(), ridge_lambda)
            )
            weighted = design * R[:, [k]]
            W = np.linalg.solve(
                weighted.T @ design + np.diag(np.concatenate([[0], penalty])), weighted.T @ Z
            )
            if flavor == "harmony2":
                Y[k] = W[0] / np.linalg.norm(W[0])
            W[0] = 0
            corrected -= weighted @ W
        directions = unit(corrected)
    return corrected, R, Y, objectives


def make_case(n_keys, n_cells=420, n_clusters=7, seed=0):
    """Cells of a few types, shifted by batch; batches of uneven size."""
    rng = np.random.default_rng(seed)
    types = rng.integers(4, size=n_cells)
    keys = [rng.choice(3, n_cells, p=[0.6, 0.3, 0.1]), rng.integers(4, size=n_cells)][:n_keys]
    Z = 3 * rng.normal(size=(4, 6))[types] + rng.normal(size=(n_cells, 6))
    for key in keys:
        Z += rng.normal(size=(key.max() + 1, 6))[key]
    return Z, keys, Z[rng.choice(n_cells, n_clusters, replace=False)], rng.integers(6, size=n_cells)


@pytest.mark.parametrize("n_keys", [1, 2])
@pytest.mark.parametrize("theta", [0.0, 2.0, 1.3])
@pytest.mark.parametrize("flavor", ["harmony2", "harmony1"])
@pytest.mark.parametrize("lean", [False, True])
def test_equals_the_textbook(n_keys, theta, flavor, lean):
    Z, keys, centroids, blocks = make_case(n_keys)
    options = {"flavor": flavor, "theta": theta}
    expected, R, Y, objectives = textbook_harmony(Z, keys, centroids, blocks, **options)
    result = harmonize(
        Z,
        keys,
        init_centroids=centroids,
        blocks=blocks,
        max_iter_harmony=3,
        tol_harmony=None,
        dtype=np.float64,
        threads=2,
        lean=lean,
        keep_assignments=True,
        **options,
    )
    np.testing.assert_allclose(result.corrected, expected, rtol=0, atol=1e-8)
    np.testing.assert_allclose(result.assignments(), R, rtol=0, atol=1e-8)
    np.testing.assert_allclose(result.centroids, Y, rtol=0, atol=1e-8)
    np.testing.assert_allclose(result.objective, objectives, rtol=1e-10)


@pytest.mark.parametrize(
    "options",
    [
        {"sigma": 0.02},
        {"sigma": 0.005},
        {"sigma": np.linspace(0.05, 0.3, 7)},
        {"sigma": np.linspace(0.01, 0.3, 7)},
        {"theta": np.array([0.5, 1.0, 4.0, 2.0, 2.0, 1.0, 0.0])},
        {"alpha": 0.9},
        {"threshold": 0.05},
        {"flavor": "harmony1", "ridge_lambda": 30.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("lean", [False, True])
def test_equals_the_textbook_with_other_parameters(options, lean):
    Z, keys, centroids, blocks = make_case(2)
    expected, R, Y, objectives = textbook_harmony(Z, keys, centroids, blocks, **options)
    options = dict(options)
    if "threshold" in options:
        options["batch_prune_threshold"] = options.pop("threshold")
    result = harmonize(
        Z,
        keys,
        init_centroids=centroids,
        blocks=blocks,
        max_iter_harmony=3,
        tol_harmony=None,
        dtype=np.float64,
        lean=lean,
        keep_assignments=True,
        **options,
    )
    np.testing.assert_allclose(result.corrected, expected, rtol=0, atol=1e-8)
    np.testing.assert_allclose(result.assignments(), R, rtol=0, atol=1e-8)
    np.testing.assert_allclose(result.centroids, Y, rtol=0, atol=1e-8)
    np.testing.assert_allclose(result.objective, objectives, rtol=1e-8)


def test_pruning_with_one_key_equals_the_textbook():
    Z, keys, centroids, blocks = make_case(1)
    expected, *_ = textbook_harmony(Z, keys, centroids, blocks, threshold=0.08)
    options = {"max_iter_harmony": 3, "tol_harmony": None, "dtype": np.float64}
    pruned, unpruned = (
        harmonize(
            Z,
            keys,
            init_centroids=centroids,
            blocks=blocks,
            batch_prune_threshold=threshold,
            **options,
        ).corrected
        for threshold in (0.08, None)
    )
    np.testing.assert_allclose(pruned, expected, rtol=0, atol=1e-8)
    assert np.abs(pruned - unpruned).max() > 1e-3  # so the threshold had an effect


@pytest.mark.parametrize("flavor", ["harmony2", "harmony1"])
@pytest.mark.parametrize("n_keys", [1, 2])
def test_the_published_block_update_equals_the_textbook(flavor, n_keys):
    Z, keys, centroids, blocks = make_case(n_keys)
    expected, R, Y, objectives = textbook_harmony(Z, keys, centroids, blocks, flavor=flavor)
    result = harmonize(
        Z,
        keys,
        flavor=flavor,
        init_centroids=centroids,
        blocks=blocks,
        max_iter_harmony=3,
        tol_harmony=None,
        dtype=np.float64,
        original=True,
        threads=1,
        keep_assignments=True,
    )
    np.testing.assert_allclose(result.corrected, expected, rtol=0, atol=1e-8)
    np.testing.assert_allclose(result.assignments(), R, rtol=0, atol=1e-8)
    np.testing.assert_allclose(result.centroids, Y, rtol=0, atol=1e-8)
    np.testing.assert_allclose(result.objective, objectives, rtol=1e-8)


def test_many_small_batches_equal_the_textbook():
    rng = np.random.default_rng(5)
    Z, _, centroids, blocks = make_case(1, n_cells=900)
    keys = [rng.integers(60, size=900), rng.integers(9, size=900)]  # most segments: a cell or two
    expected, *_ = textbook_harmony(Z, keys, centroids, blocks)
    result = harmonize(
        Z,
        keys,
        init_centroids=centroids,
        blocks=blocks,
        max_iter_harmony=3,
        tol_harmony=None,
        dtype=np.float64,
        chunk_size=100,
    )
    np.testing.assert_allclose(result.corrected, expected, rtol=0, atol=1e-8)


def lisi(embedding, labels, n_neighbors=30):
    """Mean inverse Simpson index of the labels among the nearest neighbors, self left out."""
    squares = (embedding**2).sum(axis=1)
    codes = np.unique(labels, return_inverse=True)[1]
    values = []
    for start in range(0, len(embedding), 1000):
        part = slice(start, start + 1000)
        distance = squares - 2 * embedding[part] @ embedding.T
        distance[np.arange(len(distance)), np.arange(start, start + len(distance))] = np.inf
        nearest = np.argpartition(distance, n_neighbors, axis=1)[:, :n_neighbors]
        shares = np.stack([(codes[nearest] == c).mean(axis=1) for c in range(codes.max() + 1)])
        values.append(1 / (shares**2).sum(axis=0))
    return np.concatenate(values).mean()


@pytest.fixture(scope="module")
def pancreas():
    with np.load(FIXTURE, allow_pickle=True) as stored:
        return {name: stored[name] for name in stored.files}


def relative_error(result, expected):
    return np.linalg.norm(result - expected) / np.linalg.norm(expected)


@pytest.fixture(scope="module")
def three_runs(pancreas):
    return [harmonize(pancreas["X"], pancreas["batch"], seed=seed) for seed in range(3)]


def test_close_to_r(pancreas, three_runs):
    errors = [relative_error(run.corrected, pancreas["Z"]) for run in three_runs]
    assert np.mean(errors) <= 0.10


def test_mixes_and_separates_like_r(pancreas, three_runs):
    for labels in ("batch", "label"):
        expected = lisi(pancreas["Z"], pancreas[labels])
        for run in three_runs:
            assert lisi(run.corrected, pancreas[labels]) == pytest.approx(expected, rel=0.02)


def test_close_to_the_published_block_update(pancreas, three_runs):
    published = harmonize(pancreas["X"], pancreas["batch"], seed=0, original=True, threads=1)
    assert relative_error(three_runs[0].corrected, published.corrected) <= 0.10
    for labels in ("batch", "label"):
        expected = lisi(published.corrected, pancreas[labels])
        assert lisi(three_runs[0].corrected, pancreas[labels]) == pytest.approx(expected, rel=0.02)


def test_the_objective_falls(three_runs):
    for run in three_runs:
        assert run.converged
        assert np.all(np.diff(run.objective) < 0)


@pytest.mark.parametrize(
    "options",
    [{}, {"lean": True}, {"flavor": "harmony1"}, {"early_stopping": True}, {"chunk_size": 300}],
    ids=str,
)
def test_same_bits_whatever_the_threads(pancreas, options):
    options = {"max_iter_harmony": 3, "kmeans_init": "k-means||", **options}
    keys = [pancreas["batch"], np.arange(len(pancreas["X"])) % 7]
    runs = [harmonize(pancreas["X"], keys, threads=n, **options) for n in (1, 2, 4, 2)]
    for run in runs[1:]:
        assert np.array_equal(run.corrected, runs[0].corrected)
        assert run.objective == runs[0].objective


def test_lean_changes_no_bit(pancreas):
    kept, lean = (
        harmonize(pancreas["X"], pancreas["batch"], lean=lean, max_iter_harmony=3)
        for lean in (False, True)
    )
    assert np.array_equal(kept.corrected, lean.corrected)
    assert kept.objective == lean.objective
