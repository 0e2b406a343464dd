"""MNN against R's batchelor 1.14.1, and against the formulas written as loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from integration.mnn import cosine_norm, fast_mnn, mnn_correct, project_simplex, reduced_mnn

FIXTURE = Path(__file__).parents[2] / "fixtures" / "mnn" / "batchelor_1.14.1.npz"
EXACT = {"atol": 1e-10, "rtol": 0}


@pytest.fixture(scope="module")
def batchelor():
    with np.load(FIXTURE) as file:
        return dict(file)


def check_pairs(result, batchelor, case):
    for number, found in enumerate(result.merges["pairs"], start=1):
        expected = batchelor[f"{case}.pairs{number}"]
        order = np.lexsort((expected[:, 1], expected[:, 0]))
        np.testing.assert_array_equal(found, expected[order])


def check_merges(result, expected):
    assert not result.merges["skipped"].any()
    np.testing.assert_allclose(result.merges["batch_size"], expected[:, 0], **EXACT)
    np.testing.assert_allclose(result.merges.filter(like="lost_var"), expected[:, 2:], **EXACT)


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("red_default", {}),
        ("red_k5_ndist1", {"k": 5, "ndist": 1}),
        ("red_order312", {"merge_order": [2, 0, 1]}),
        ("topic", {}),
    ],
)
def test_reduced_mnn(batchelor, case, options):
    topic = case == "topic"
    cells = batchelor["topic.input" if topic else "red.input"]
    batch = batchelor["topic.batch"] if topic else batchelor["red.batch_cluster"][:, 0]
    result = reduced_mnn(cells, batch, **options)
    np.testing.assert_allclose(result.corrected, batchelor[f"{case}.out"], **EXACT)
    check_pairs(result, batchelor, case)
    check_merges(result, batchelor[f"{case}.merge"])


@pytest.mark.parametrize(
    ("case", "options"),
    [("mnn_default", {}), ("mnn_k5", {"k": 5}), ("mnn_novaradj", {"var_adj": False})],
)
def test_mnn_correct(batchelor, case, options):
    result = mnn_correct(batchelor["gene.input"], batchelor["gene.batch"], **options)
    np.testing.assert_allclose(result.corrected, batchelor[f"{case}.out"], **EXACT)
    check_pairs(result, batchelor, case)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_array])
def test_fast_mnn(batchelor, form):
    cells, batch = form(batchelor["gene.input"]), batchelor["gene.batch"]
    normalized = cosine_norm(cells)
    normalized = normalized.toarray() if sp.issparse(normalized) else normalized
    np.testing.assert_allclose(normalized, batchelor["gene.cosine"], **EXACT)
    result = fast_mnn(cells, batch, n_comps=8)
    sign = np.sign((result.pca.rotation * batchelor["fast.rotation"]).sum(axis=0))
    np.testing.assert_allclose(result.pca.rotation * sign, batchelor["fast.rotation"], **EXACT)
    np.testing.assert_allclose(result.corrected * sign, batchelor["fast.out"], **EXACT)
    reconstructed = result.corrected @ result.pca.rotation.T
    np.testing.assert_allclose(reconstructed, batchelor["fast.reconstructed"], **EXACT)
    np.testing.assert_allclose(result.pca.centers, batchelor["pca.centers"], **EXACT)
    variance = [*result.pca.variance, result.pca.total]
    np.testing.assert_allclose(variance, batchelor["pca.var"], **EXACT)
    check_pairs(result, batchelor, "fast")
    check_merges(result, batchelor["fast.merge"])


def test_blocks_and_subset_are_the_chosen_genes(batchelor):
    cells, batch = batchelor["gene.input"], batchelor["gene.batch"]
    genes = np.arange(5, 60)
    expected = fast_mnn(cells[:, genes], batch, n_comps=6)
    mask = np.isin(np.arange(cells.shape[1]), genes)
    for X, subset in ((cells, genes), (cells, mask), (lambda: [cells[:70], cells[70:]], genes)):
        found = fast_mnn(X, batch, n_comps=6, subset=subset)
        np.testing.assert_allclose(found.corrected, expected.corrected, **EXACT)


def test_batches_count_by_weight_not_size():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 6)) + 3
    batch = np.repeat([0, 1], [30, 60])
    double = np.r_[np.arange(90), np.arange(30, 90)]  # the second batch twice as large
    kwargs = {"n_comps": 3, "k": 5}
    here, there = fast_mnn(X, batch, **kwargs), fast_mnn(X[double], batch[double], **kwargs)
    np.testing.assert_allclose(there.pca.rotation, here.pca.rotation, **EXACT)
    heavy = fast_mnn(X, batch, weights={"0": 1, "1": 3}, **kwargs)
    np.testing.assert_allclose(
        fast_mnn(X, batch, weights=[1, 3], **kwargs).pca.rotation, heavy.pca.rotation
    )
    assert np.abs(heavy.pca.rotation - here.pca.rotation).max() > 1e-3


def loops(X, batch, *, k, sigma, cos_in, cos_out, svd_dim, var_adj, subset, restrict):
    """MNN on expression values of two batches, all genes returned, a cell at a time."""
    length = np.linalg.norm(X[:, subset], axis=1)[:, None]
    inside = X[:, subset] / length if cos_in else X[:, subset]
    outside = X / length if cos_out else X
    left, right = (np.flatnonzero(batch == label) for label in (0, 1))
    may = [rows[restrict[rows]] for rows in (left, right)]

    def near(a, others):
        distance = np.linalg.norm(inside[others] - inside[a], axis=1)
        return set(others[np.argsort(distance)[:k]])

    pairs = [(a, b) for a in may[0] for b in near(a, may[1]) if a in near(b, may[0])]
    paired = sorted({b for _, b in pairs})
    vector = {
        b: np.mean([outside[a] - outside[b] for a, other in pairs if other == b], axis=0)
        for b in paired
    }

    def kernel(a, b):
        return np.exp(-((inside[a] - inside[b]) ** 2).sum() / sigma)

    moves = {}
    for c in right:
        weight = {i: kernel(i, c) / sum(kernel(i, m) for m in paired) for i in paired}
        total = sum(weight.values())
        moves[c] = sum(weight[i] / total * vector[i] for i in paired)
    for cells in (sorted({a for a, _ in pairs}), paired) if svd_dim else ():
        centered = outside[cells] - outside[cells].mean(axis=0)
        U, size, axes = np.linalg.svd(centered[:, subset], full_matrices=False)
        span = centered.T @ U[:, :svd_dim] / size[:svd_dim]
        span[subset] = axes[:svd_dim].T
        moves = {c: v - span @ (span[subset].T @ v[subset]) for c, v in moves.items()}
    place = outside[:, subset]
    for c in right if var_adj else ():
        v = moves[c][subset]
        unit = v / np.linalg.norm(v)

        def around(x, c=c, unit=unit):
            off = place[x] - place[c]
            return np.exp(-((off - (off @ unit) * unit) ** 2).sum() / sigma)

        along = place @ unit
        own = {x: 1.0 if x == c else around(x) for x in may[1]}
        share = sum(w for x, w in own.items() if along[x] <= along[c]) / sum(own.values())
        other = sorted(may[0], key=lambda x: along[x])
        total = np.cumsum([around(x) for x in other])
        reached = other[np.argmax(total >= share * total[-1] * (1 - 1e-12))]
        moves[c] = moves[c] * max(1, (along[reached] - along[c]) / np.linalg.norm(v))
    result = outside.copy()
    for c in right:
        result[c] += moves[c]
    return result


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cos_in": False, "cos_out": False, "sigma": 20.0},
        {"cos_out": False},
        {"cos_in": False, "sigma": 20.0},
        {"svd_dim": 2},
        {"svd_dim": 3, "var_adj": False},
        {"part": True},
        {"part": True, "svd_dim": 2},
        {"part": True, "cos_out": False, "svd_dim": 2},
        {"some": True},
    ],
    ids=str,
)
def test_mnn_correct_with_every_option(changes):
    options = {"k": 6, "sigma": 0.1, "cos_in": True, "cos_out": True, "svd_dim": 0, "var_adj": True}
    options |= {key: value for key, value in changes.items() if key in options}
    rng = np.random.default_rng(1)
    batch = np.arange(60) % 2
    X = rng.gamma(2, size=(3, 15))[rng.integers(3, size=60)] + rng.gamma(0.5, size=(60, 15))
    X += batch[:, None] * rng.gamma(1, size=15)
    subset = np.array([3, 0, 7, 8, 9, 10, 11, 12, 1]) if "part" in changes else np.arange(15)
    restrict = np.arange(60) % 7 > 1 if "some" in changes else np.ones(60, bool)
    names = {"cos_in": "cos_norm_in", "cos_out": "cos_norm_out"}
    found = mnn_correct(
        X,
        batch,
        subset=subset if "part" in changes else None,
        correct_all=True,
        restrict=restrict if "some" in changes else None,
        **{names.get(key, key): value for key, value in options.items()},
    )
    expected = loops(X, batch, subset=subset, restrict=restrict, **options)
    np.testing.assert_allclose(found.corrected, expected, **EXACT)


def test_project_simplex():
    rows = np.array([[0.5, 0.5, 0], [0.6, 0.6, -0.2], [2, 0, -1], [0, 0, 0]])
    expected = [[0.5, 0.5, 0], [0.5, 0.5, 0], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3]]
    np.testing.assert_allclose(project_simplex(rows), expected, atol=1e-15)
