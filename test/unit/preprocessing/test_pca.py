"""PCA in blocks: the exact decomposition, scanpy's, and the same bits whatever the blocks."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing import pca
from preprocessing.pca import gram_pca, pca_scores


def in_blocks(matrix, rows=500):
    return lambda: (matrix[i : i + rows] for i in range(0, matrix.shape[0], rows))


def values(cells=900, genes=120, rank=6, density=0.3, seed=0):
    """Sparse values of some rank plus noise, and one gene that is zero."""
    rng = np.random.default_rng(seed)
    matrix = rng.gamma(2, 1, (cells, rank)) @ rng.gamma(0.5, 1, (rank, genes))
    matrix += rng.normal(0, 0.3, matrix.shape)
    matrix[rng.random(matrix.shape) > density] = 0
    matrix[:, 3] = 0
    return matrix.astype(np.float32)


def exact(matrix, n_comps):
    centered = matrix.astype(np.float64) - matrix.mean(axis=0, dtype=np.float64)
    _, singular, components = np.linalg.svd(centered, full_matrices=False)
    variance = singular**2 / (len(matrix) - 1)
    return components[:n_comps].T, variance[:n_comps], variance[:n_comps] / variance.sum()


def smallest_cosine(a, b):
    """Cosine of the largest angle between two subspaces."""
    return np.linalg.svd(np.linalg.qr(a)[0].T @ np.linalg.qr(b)[0])[1].min()


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csr_array])
@pytest.mark.parametrize("density", [0.02, 0.3])  # a sparse and a dense product
def test_the_exact_decomposition(form, density):
    matrix = values(cells=5000, density=density)
    found = gram_pca(in_blocks(form(matrix)), n_comps=6)
    components, variance, ratio = exact(matrix, 6)
    assert smallest_cosine(found.components, components) > 1 - 1e-6
    np.testing.assert_allclose(found.variance, variance, rtol=1e-5)  # products are float32
    np.testing.assert_allclose(found.variance_ratio, ratio, rtol=1e-5)
    np.testing.assert_allclose(found.mean, matrix.mean(axis=0, dtype=float), rtol=1e-10)
    assert found.components.shape == (120, 6)
    assert found.components.dtype == np.float32


def test_sparse_and_dense_products_agree(monkeypatch):
    matrix = sp.csr_matrix(values(cells=5000))
    matrix.data += 3  # a shift that matters
    found = []
    for share in (0, 10):
        monkeypatch.setattr(pca, "SPARSE_SHARE", share)
        found.append(gram_pca(in_blocks(matrix), n_comps=6))
    np.testing.assert_allclose(found[0].variance, found[1].variance, rtol=1e-5)
    np.testing.assert_allclose(found[0].mean, found[1].mean, rtol=1e-12)
    np.testing.assert_allclose(found[0].components, found[1].components, atol=1e-3)
    assert (found[0].variance != found[1].variance).any()


def test_as_scanpy():
    import anndata
    import scanpy as sc

    matrix = sp.csr_matrix(values(cells=3000, genes=300, rank=12))
    data = anndata.AnnData(matrix)
    sc.pp.pca(data, n_comps=12, svd_solver="arpack")
    found = gram_pca(in_blocks(matrix), n_comps=12)
    assert smallest_cosine(found.components, data.varm["PCs"]) > 0.9999
    np.testing.assert_allclose(found.variance, data.uns["pca"]["variance"], rtol=1e-4)
    np.testing.assert_allclose(found.variance_ratio, data.uns["pca"]["variance_ratio"], rtol=1e-4)
    scores = np.vstack(list(pca_scores(in_blocks(matrix), found.components, found.mean)))
    signs = np.sign((scores * data.obsm["X_pca"]).sum(axis=0))
    np.testing.assert_allclose(scores, signs * data.obsm["X_pca"], atol=1e-2)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
def test_scores(form):
    matrix = values()
    found = gram_pca(in_blocks(form(matrix)), n_comps=6)
    parts = list(pca_scores(in_blocks(form(matrix)), found.components, found.mean))
    assert [len(part) for part in parts] == [500, 400]
    scores = np.vstack(parts)
    assert scores.dtype == np.float32
    expected = (matrix - found.mean) @ found.components.astype(float)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    np.testing.assert_allclose(scores.var(axis=0, ddof=1), found.variance, rtol=1e-4)
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-4)


@given(seed=st.integers(0, 50), n_comps=st.integers(1, 8))
@settings(max_examples=10, deadline=None)
def test_components_are_orthonormal_and_signed(seed, n_comps):
    found = gram_pca(in_blocks(values(cells=200, genes=20, seed=seed)), n_comps=n_comps)
    product = found.components.T @ found.components
    np.testing.assert_allclose(product, np.eye(n_comps), atol=1e-5)
    largest = np.abs(found.components).argmax(axis=0)
    assert (found.components[largest, np.arange(n_comps)] > 0).all()
    assert (np.diff(found.variance) <= 0).all()
    assert 0 < found.variance_ratio.sum() <= 1 + 1e-9


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
def test_neither_blocks_nor_threads_change_a_bit(form):
    matrix = form(values(cells=3 * pca.PIECE + 100, genes=70))
    first = gram_pca(in_blocks(matrix, pca.PIECE), n_comps=5)
    for rows, threads in ((pca.PIECE, 2), (pca.PIECE, 4), (777, 1), (9000, 2), (10**6, 4)):
        other = gram_pca(in_blocks(matrix, rows), n_comps=5, threads=threads)
        for name in ("components", "mean", "variance", "variance_ratio"):
            np.testing.assert_array_equal(getattr(first, name), getattr(other, name))


def test_dense_and_sparse_blocks_can_be_mixed():
    matrix = values(cells=1000)
    mixed = lambda: [sp.csr_matrix(matrix[:300]), matrix[300:]]  # noqa: E731
    found, whole = gram_pca(mixed, n_comps=4), gram_pca(in_blocks(matrix), n_comps=4)
    np.testing.assert_allclose(found.variance, whole.variance, rtol=1e-5)


def test_large_means_cost_no_precision():
    matrix = np.random.default_rng(0).normal(0, [5, 3, 2, 1, 1], (9000, 5)) + 1e4
    found = gram_pca(in_blocks(matrix), n_comps=3)
    _, variance, _ = exact(matrix.astype(np.float32), 3)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-5)


def test_constant_genes_have_no_loading():
    matrix = values()
    matrix[:, 7] = 2.7
    found = gram_pca(in_blocks(matrix), n_comps=5)
    assert np.abs(found.components[[3, 7]]).max() < 1e-6
    without = gram_pca(in_blocks(np.delete(matrix, [3, 7], axis=1)), n_comps=5)
    np.testing.assert_allclose(found.variance, without.variance, rtol=1e-5)


def test_fewer_cells_or_genes_than_components(capsys):
    matrix = values()
    assert gram_pca(in_blocks(matrix[:20]), n_comps=50).components.shape == (120, 19)
    assert "cut from 50 to 19: 20 cells x 120 genes" in capsys.readouterr().err
    found = gram_pca(in_blocks(matrix[:, :5]), n_comps=50)
    assert found.components.shape == (5, 4)
    assert np.isfinite(found.components).all()


def test_fewer_varying_genes_than_components():
    matrix = np.zeros((50, 10), dtype=np.float32)
    matrix[:, :3] = np.random.default_rng(0).normal(size=(50, 3))
    found = gram_pca(in_blocks(matrix), n_comps=6)
    assert (found.variance[3:] >= 0).all()
    assert found.variance[3:].max() < 1e-6
    assert np.isfinite(found.components).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_bad_value_is_named(form, value, threads):
    matrix = values()
    matrix[613, 44] = value
    blocks = in_blocks(form(matrix))
    with pytest.raises(ValueError, match="cell 613, gene 44"):
        gram_pca(blocks, n_comps=3, threads=threads)
    with pytest.raises(ValueError, match="cell 613, gene 44"):
        list(pca_scores(blocks, np.ones((120, 2)), np.zeros(120)))


@pytest.mark.parametrize(
    ("matrix", "options", "message"),
    [
        (np.zeros((0, 3)), {}, "at least 2 cells"),
        (np.ones((1, 3)), {}, "at least 2 cells and 2 genes; found 1 and 3"),
        (np.ones((5, 1)), {}, "at least 2 cells and 2 genes; found 5 and 1"),
        (np.zeros((5, 4)), {}, "no gene varies among the 5 cells"),
        (sp.csr_matrix(np.zeros((5, 4))), {}, "no gene varies"),
        (np.full((9000, 4), 2.7), {}, "no gene varies"),
        (values(), {"n_comps": 0}, "n_comps must be at least 1"),
        (values(), {"threads": 0}, "threads must be at least 1"),
    ],
)
def test_bad_input_is_explained(matrix, options, message):
    with pytest.raises(ValueError, match=message):
        gram_pca(in_blocks(matrix), **options)


def test_projection_needs_the_same_genes():
    with pytest.raises(ValueError, match="has 120 genes, expected 7"):
        list(pca_scores(in_blocks(values()), np.ones((7, 2)), np.zeros(7)))
    with pytest.raises(ValueError, match="7 genes have loadings, but 5 have means"):
        list(pca_scores(in_blocks(values()), np.ones((7, 2)), np.zeros(5)))
