"""Topic models on arrays: the reference, the optimum, what must not matter, what is refused."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.figures.structure_plot import structure_plot
from integration.topics import lda, poisson_nmf, project_poisson_nmf, top_genes

K = 4
REPO = Path(__file__).resolve().parents[3]


def simulate(n_cells=300, n_genes=200, seed=0):
    """Draw counts from K topics, about 40 % of them not zero; return also the weights."""
    rng = np.random.default_rng(seed)
    topics = rng.gamma(0.3, 1, (n_genes, K)) + 1e-3
    weights = rng.dirichlet(np.full(K, 0.3), n_cells)
    rates = weights @ (topics / topics.sum(axis=0)).T * rng.uniform(100, 400, (n_cells, 1))
    return sp.csr_matrix(rng.poisson(rates).astype(np.float32)), weights


@pytest.fixture(scope="module")
def counts():
    return simulate()[0]


@pytest.fixture(scope="module")
def init(counts):
    rng = np.random.default_rng(1)
    return rng.random((counts.shape[0], K)), rng.random((counts.shape[1], K))


@pytest.fixture(scope="module")
def fitted(counts, init):
    return poisson_nmf(counts, K, init=init, dtype="float64", tol=1e-7, max_iter=500)


def rates(model):
    return model.topic_scale[:, None] * (model.weights @ model.topics.T)


def deviance(x, mean):
    return 2 * (x * np.log(np.where(x > 0, x, 1) / mean) - x + mean).sum()


@pytest.mark.parametrize("n_iterations", [1, 10])
def test_em_is_the_multiplicative_update_of_scikit_learn(counts, init, n_iterations):
    from sklearn.decomposition import NMF

    reference = NMF(
        K, init="custom", solver="mu", beta_loss="kullback-leibler", max_iter=n_iterations, tol=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        L = reference.fit_transform(counts.astype(np.float64), W=init[0].copy(), H=init[1].T.copy())
    expected = L @ reference.components_
    model = poisson_nmf(
        counts, K, init=init, n_em=n_iterations, max_iter=n_iterations, dtype="float64"
    )
    np.testing.assert_allclose(rates(model), expected, rtol=1e-9)
    np.testing.assert_allclose(model.deviance, deviance(counts.toarray(), expected), rtol=1e-12)


def test_coordinate_descent_beats_many_updates_of_em(counts, init):
    em = poisson_nmf(counts, K, init=init, n_em=200, max_iter=200)
    found = poisson_nmf(counts, K, init=init, max_iter=30)
    assert found.deviance <= em.deviance


def test_the_optimum(counts, fitted):
    assert fitted.converged
    assert fitted.residual < 1e-6
    x = counts.toarray()
    total = x.sum(axis=1)
    np.testing.assert_allclose(fitted.weights.sum(axis=1), 1)
    np.testing.assert_allclose(fitted.topics.sum(axis=0), 1)
    np.testing.assert_allclose(fitted.topic_scale, total, rtol=1e-6)
    np.testing.assert_allclose(fitted.deviance, deviance(x, rates(fitted)), rtol=1e-9)
    # KKT, written out: no derivative is negative, and each is zero where its value is not.
    ratio = x / rates(fitted)
    for slope, share in (
        (1 - ratio @ fitted.topics, fitted.weights),
        (1 - ratio.T @ (fitted.weights * total[:, None]) / (total @ fitted.weights), fitted.topics),
    ):
        assert (slope > -1e-4).all()
        assert (np.abs(slope) * share).max() < 1e-6


def test_the_topics_are_those_that_made_the_counts():
    counts, weights = simulate(n_cells=600, seed=3)
    found = poisson_nmf(counts, K, n_restarts=3)
    assert found.deviance == min(found.deviances) and len(found.deviances) == 3
    similar = np.corrcoef(found.weights.T, weights.T)[:K, K:]
    assert (np.sort(similar.max(axis=0)) > 0.9).all()
    shares = found.topic_scale @ found.weights
    assert (np.diff(shares) <= 0).all(), "the largest topic comes first"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_bits_with_any_number_of_threads(counts, dtype):
    one, *others = (
        poisson_nmf(counts, K, threads=threads, dtype=dtype, seed=7) for threads in (1, 2, 4)
    )
    for other in others:
        for name in ("weights", "topics", "topic_scale"):
            assert getattr(one, name).tobytes() == getattr(other, name).tobytes()
        assert (one.deviance, one.residual) == (other.deviance, other.residual)


def test_the_same_bits_where_the_kernel_is_compiled_and_where_it_is_loaded(tmp_path):
    program = (
        "import hashlib, numpy, integration.topics as topics\n"
        "counts = numpy.random.default_rng(0).poisson(0.5, (200, 150))\n"
        "weights = topics.poisson_nmf(counts, 4, max_iter=12).weights\n"
        "print(hashlib.md5(weights.tobytes()).hexdigest())"
    )
    path = {"PYTHONPATH": str(REPO / "workflow"), "NUMBA_CACHE_DIR": str(tmp_path)}
    compiled, loaded = (
        subprocess.check_output([sys.executable, "-c", program], env={**os.environ, **path})
        for _ in range(2)
    )
    assert compiled == loaded and any(tmp_path.iterdir())


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_order_of_cells_and_genes_does_not_matter(counts, init, seed):
    rng = np.random.default_rng(seed)
    cells, genes = (rng.permutation(size) for size in counts.shape)
    options = {"max_iter": 15, "dtype": "float64"}
    plain = poisson_nmf(counts, K, init=init, **options)
    other = poisson_nmf(
        counts[cells][:, genes], K, init=(init[0][cells], init[1][genes]), **options
    )
    np.testing.assert_allclose(other.weights, plain.weights[cells], atol=1e-7)
    np.testing.assert_allclose(other.topics, plain.topics[genes], atol=1e-7)


def test_a_cell_counted_three_times_over_has_the_same_weights(counts, fitted):
    weights, scale = project_poisson_nmf(counts * 3, fitted.topics, dtype="float64", tol=1e-9)
    np.testing.assert_allclose(weights, fitted.weights, atol=1e-5)
    np.testing.assert_allclose(scale, 3 * fitted.topic_scale, rtol=1e-6)


def test_projection_of_the_cells_of_the_fit_gives_their_weights(counts):
    model = poisson_nmf(counts, K)
    weights, scale = project_poisson_nmf(counts, model.topics, threads=2)
    np.testing.assert_allclose(weights, model.weights, atol=0.01)
    np.testing.assert_allclose(scale, model.topic_scale, rtol=1e-4)


def test_dense_integers_and_sparse_floats_are_the_same(counts):
    dense = poisson_nmf(counts.toarray().astype(np.int64), K, max_iter=6)
    assert dense.weights.tobytes() == poisson_nmf(counts.tocsc(), K, max_iter=6).weights.tobytes()


def test_the_counts_stay_as_they_are(counts):
    copy = counts.copy()
    poisson_nmf(counts, K, max_iter=3)
    assert (copy != counts).nnz == 0
    twice = sp.csr_matrix((counts.data, counts.indices // 2, counts.indptr), (300, 100))
    copy = twice.data.copy(), twice.indices.copy()
    poisson_nmf(twice, K, max_iter=3)
    assert np.array_equal(twice.data, copy[0]) and np.array_equal(twice.indices, copy[1])


def test_empty_cells_and_genes_become_nan(counts):
    x = counts.toarray()
    x[[0, 5]] = 0
    x[:, 3] = 0
    with pytest.warns(UserWarning, match="2 of 300 cells and 1 of 200 genes have no counts"):
        model = poisson_nmf(x, K, max_iter=5)
    assert np.flatnonzero(np.isnan(model.weights).any(axis=1)).tolist() == [0, 5]
    assert np.flatnonzero(np.isnan(model.topic_scale)).tolist() == [0, 5]
    assert np.flatnonzero(np.isnan(model.topics).any(axis=1)).tolist() == [3]
    with pytest.warns(UserWarning, match="cells"):
        weights, _ = project_poisson_nmf(x, model.topics)
    assert np.isnan(weights[[0, 5]]).all() and not np.isnan(weights[1]).any()


def test_one_topic_is_the_mean_profile(counts):
    model = poisson_nmf(counts, 1)
    x = counts.toarray()
    np.testing.assert_allclose(model.topics[:, 0], x.sum(axis=0) / x.sum(), rtol=1e-4)


@pytest.mark.parametrize("fit", [poisson_nmf, lda])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x - 1, "0 or more, found -1"),
        (lambda x: np.where(x > 3, np.nan, x), "found nan"),
        (lambda x: np.where(x > 3, np.inf, x), "found inf"),
        (lambda x: x[:K], "less than the cells and genes that have counts, 4 x"),
        (lambda x: x[:, :K], "found 4"),
        (lambda x: x[0], r"cells x genes; found \(200,\)"),
        (lambda x: 0 * x, "0 x 0; found 4"),
    ],
)
@pytest.mark.filterwarnings("ignore:.* have no counts")
def test_bad_counts_are_refused(counts, fit, change, words):
    with pytest.raises(ValueError, match=words):
        fit(change(counts.toarray()), K)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_topics": 0}, "n_topics must be at least 1"),
        ({"n_restarts": 0}, "n_restarts must be at least 1"),
        ({"max_iter": 0}, "max_iter must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"init": (np.ones((3, 4)), np.ones((200, 4)))}, r"shape \(300, 4\); found \(3, 4\)"),
        ({"init": (np.ones((300, 4)), -np.ones((200, 4)))}, "not negative"),
    ],
)
def test_bad_options_are_refused(counts, options, words):
    with pytest.raises(ValueError, match=words):
        poisson_nmf(counts, **{"n_topics": K, **options})


def test_lda_finds_the_topics_too():
    counts, weights = simulate(n_cells=600, seed=3)
    found = lda(counts, K, max_iter=10)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.topics.sum(axis=0), 1, rtol=1e-5)
    assert (found.topic_scale == np.asarray(counts.sum(axis=1)).ravel()).all()
    assert (np.corrcoef(found.weights.T, weights.T)[:K, K:].max(axis=0) > 0.9).all()


def test_top_genes_are_high_in_their_topic_alone():
    topics = np.array([[0.5, 0.5], [0.3, 0.0], [0.2, 0.1], [0.0, 0.4], [np.nan, np.nan]])
    table = top_genes(topics, ["both", "first", "little", "second", "absent"], n_genes=2)
    assert table["gene"].tolist() == ["first", "little", "second", "both"]
    assert table["topic"].tolist() == [0, 0, 1, 1] and table["rank"].tolist() == [1, 2, 1, 2]
    assert table["lift"][1] == pytest.approx(2)


def test_structure_plot():
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(3), 500)
    weights[0] = np.nan
    groups = pd.Series(rng.choice(["a", "b"], 500)).where(rng.random(500) < 0.9)
    figure = structure_plot(weights, groups, title="three")
    page, bars = figure.axes
    texts = [text.get_text() for text in page.texts]
    assert {"three, 499 cells", "a", "b", "no value", "topic 2"} <= set(texts)
    assert len(bars.patches) == 3 * 3
    with pytest.raises(ValueError, match="at most 60 groups; found 500"):
        structure_plot(rng.dirichlet(np.ones(3), 500), np.arange(500), title="")
    with pytest.raises(ValueError, match="nothing to draw"):
        structure_plot(np.full((3, 2), np.nan), title="")
