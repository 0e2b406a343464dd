"""Variable genes: scanpy's selection, gene for gene, from blocks of any size."""

import contextlib
import warnings
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics.normalize import normalize_block
from preprocessing.hvg import highly_variable_genes

INPUT = Path(__file__).resolve().parents[2] / "input"


@pytest.fixture
def shared():
    folder = Path(__file__).resolve().parents[4] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared data folder is not there")
    return folder


@pytest.fixture(scope="module")
def pancreas():
    import anndata

    data = anndata.read_h5ad(INPUT / "pancreas_mini.h5ad")
    return data[:, :].copy()


def in_blocks(matrix, rows=200):
    return lambda: (matrix[i : i + rows] for i in range(0, matrix.shape[0], rows))


def counts(cells=400, genes=300, seed=0, rate=1.0):
    """Draw counts: a tenth of the genes has none, and many genes tie."""
    rng = np.random.default_rng(seed)
    rates = rng.gamma(0.5, rate, genes)
    rates[: genes // 10] = 0
    size = rng.lognormal(0, 0.5, (cells, 1))
    return rng.poisson(rates * size * rng.gamma(2, 0.5, (cells, genes))).astype(np.float32)


def for_flavor(matrix, flavor):
    """Return what a flavor works on: log-normalized values or the counts."""
    return normalize_block(matrix, target_sum=1e4) if flavor == "seurat" else matrix


def scanpy_table(matrix, flavor, n_top_genes, codes=None, names=None, normalized=False):
    import anndata
    import scanpy as sc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = anndata.AnnData(matrix.copy())
        if names is not None:
            data.var_names = names
        key = None
        if codes is not None:
            data.obs["batch"] = pd.Categorical(codes)
            key = "batch"
        if flavor == "seurat" and not normalized:
            sc.pp.normalize_total(data, target_sum=1e4)
            sc.pp.log1p(data)
        with running_moments() if flavor == "seurat_v3" and key else contextlib.nullcontext():
            return sc.pp.highly_variable_genes(
                data, flavor=flavor, n_top_genes=n_top_genes, batch_key=key, inplace=False
            )


def running_moments():
    """Let any scanpy take the means and variances that its version 1.12 takes for batches."""
    if tuple(map(int, version("scanpy").split(".")[:2])) >= (1, 12):
        return contextlib.nullcontext()

    from scanpy.preprocessing import _highly_variable_genes as scanpy_genes

    sums = [scanpy_genes._get_mean_var]  # of all cells, the first call

    def mean_var(matrix, **_):
        if sums:
            return sums.pop()(matrix)
        n, genes = matrix.shape
        seen, mean, spread = np.zeros((3, genes))
        for row in range(n):
            where = matrix[row].indices if sp.issparse(matrix) else np.arange(genes)
            values = matrix[row].data if sp.issparse(matrix) else matrix[row]
            values = values.astype(np.float64)
            seen[where] += 1
            off = values - mean[where]
            mean[where] += off / seen[where]
            spread[where] += off * (values - mean[where])
        zeros = np.where(seen > 0, mean * mean * seen * (n - seen) / n, 0)
        mean = np.where(seen < n, mean * seen / n, mean)
        return mean, (spread + zeros) / n * (n / (n - 1))

    return mock.patch.object(scanpy_genes, "_get_mean_var", mean_var)


def assert_same(ours, theirs):
    np.testing.assert_array_equal(ours["highly_variable"], theirs["highly_variable"])
    for column in ours:
        np.testing.assert_allclose(
            ours[column].astype(float), theirs[column].astype(float), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("flavor", ["seurat", "seurat_v3"])
@pytest.mark.parametrize("key", [None, "batch"])
@pytest.mark.parametrize("n_top_genes", [20, 200, 700])
def test_real_data_as_scanpy(pancreas, flavor, key, n_top_genes):
    codes = None if key is None else pancreas.obs[key].astype("category").cat.codes.to_numpy()
    if flavor == "seurat_v3" and key:  # one study is too small for scanpy's loess
        pancreas = pancreas[codes != 3]
        codes = codes[codes != 3]
    ours = highly_variable_genes(
        in_blocks(for_flavor(pancreas.X, flavor)),
        pancreas.n_vars,
        n_top_genes=n_top_genes,
        flavor=flavor,
        batch=codes,
        gene_names=pancreas.var_names,
    )
    theirs = scanpy_table(pancreas.X, flavor, n_top_genes, codes, pancreas.var_names)
    assert_same(ours, theirs)
    assert list(ours.index) == list(theirs.index)


@pytest.mark.parametrize("n_top_genes", [20, 200, 700])
def test_seurat_v3_with_batches_as_the_stored_table(pancreas, n_top_genes):
    codes = pancreas.obs["batch"].astype("category").cat.codes.to_numpy()
    X, codes = pancreas.X[codes != 3], codes[codes != 3]
    options = {"flavor": "seurat_v3", "n_top_genes": n_top_genes, "batch": codes}
    ours = highly_variable_genes(in_blocks(X), pancreas.n_vars, **options)
    with np.load(INPUT / "seurat_v3_batches.npz") as stored:
        np.testing.assert_array_equal(ours["highly_variable"], stored[f"chosen_{n_top_genes}"])
        np.testing.assert_array_equal(
            ours["highly_variable_rank"].astype("f4"), stored[f"rank_{n_top_genes}"]
        )
        np.testing.assert_allclose(ours["variances_norm"], stored["variances_norm"], rtol=1e-9)


@pytest.mark.parametrize("file", ["kang_ifnb_6k_4kg", "cellline_mixology_4kg"])
@pytest.mark.parametrize("flavor", ["seurat", "seurat_v3"])
def test_shared_data_with_batches_as_scanpy(shared, file, flavor):
    import anndata

    data = anndata.read_h5ad(shared / f"{file}.h5ad")
    codes = data.obs["batch"].astype("category").cat.codes.to_numpy()
    ours = highly_variable_genes(
        in_blocks(for_flavor(data.X, flavor), 1000),
        data.n_vars,
        flavor=flavor,
        batch=codes,
        gene_names=data.var_names,
    )
    assert_same(ours, scanpy_table(data.X, flavor, 2000, codes, data.var_names))


@pytest.mark.parametrize("flavor", ["seurat", "seurat_v3"])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize("batches", [None, 3])
@pytest.mark.parametrize("seed", range(2))
def test_sparse_and_dense_counts_with_ties_as_scanpy(flavor, form, batches, seed):
    matrix = form(counts(seed=seed))
    rng = np.random.default_rng(seed)
    codes = None if batches is None else rng.integers(0, batches, matrix.shape[0])
    # Names in another order than the genes: ties between batches go by name.
    names = [f"g{i:03d}" for i in rng.permutation(matrix.shape[1])]
    for n_top_genes in (30, 150, 260):
        ours = highly_variable_genes(
            in_blocks(for_flavor(matrix, flavor), 77),
            matrix.shape[1],
            n_top_genes=n_top_genes,
            flavor=flavor,
            batch=codes,
            gene_names=names,
        )
        assert_same(ours, scanpy_table(matrix, flavor, n_top_genes, codes, names))


@pytest.mark.parametrize("flavor", ["seurat", "seurat_v3"])
def test_integer_counts_equal_float_counts(flavor):
    matrix = counts()
    tables = [
        highly(for_flavor(form, flavor), n_top_genes=50, flavor=flavor)
        for form in (matrix, matrix.astype(np.int16), sp.csr_matrix(matrix.astype(np.int64)))
    ]
    for other in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], other)


@given(
    rows=st.integers(1, 120),
    flavor=st.sampled_from(["seurat", "seurat_v3"]),
    batched=st.booleans(),
    sparse=st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_block_size_changes_no_bit(rows, flavor, batched, sparse):
    matrix = counts(cells=120, genes=120, seed=4)
    matrix = for_flavor(sp.csr_matrix(matrix) if sparse else matrix, flavor)
    batch = np.arange(120) % 2 if batched else None
    options = {"n_top_genes": 40, "flavor": flavor, "batch": batch}
    whole = highly_variable_genes(in_blocks(matrix, 120), 120, **options)
    parts = highly_variable_genes(in_blocks(matrix, rows), 120, **options)
    pd.testing.assert_frame_equal(whole, parts, check_exact=True)


@pytest.mark.parametrize("flavor", ["seurat", "seurat_v3"])
@pytest.mark.parametrize("batched", [False, True])
def test_more_than_there_are_takes_all(flavor, batched):
    batch = np.arange(400) % 2 if batched else None
    matrix = for_flavor(counts(), flavor)
    table = highly(matrix, n_top_genes=301, flavor=flavor, batch=batch)
    assert table["highly_variable"].all()


def test_genes_without_variance_are_not_selected():
    table = highly(for_flavor(counts(), "seurat"), n_top_genes=300)
    assert not table["highly_variable"][:30].any()
    assert table["highly_variable"].sum() == table["dispersions_norm"].notna().sum()


@pytest.mark.parametrize("flavor", ["seurat", "seurat_v3"])
def test_cells_without_a_batch_and_batches_of_one_cell_take_no_part(flavor, capsys):
    matrix = for_flavor(sp.csr_matrix(counts()), flavor)
    codes = np.arange(400) % 2
    options = {"n_top_genes": 50, "flavor": flavor}
    marked = codes.copy()
    marked[:40], marked[77] = -1, 9
    ours = highly_variable_genes(in_blocks(matrix), 300, batch=marked, **options)
    assert "9: a batch of one cell" in capsys.readouterr().err
    kept = np.flatnonzero((marked == 0) | (marked == 1))
    without = highly_variable_genes(in_blocks(matrix[kept]), 300, batch=codes[kept], **options)
    np.testing.assert_array_equal(ours["highly_variable"], without["highly_variable"])


def test_batches_are_called_by_their_names_on_one_line(capsys):
    codes = np.arange(400) % 2
    codes[[7, 77, 177]], codes[40:50] = (2, 3, 4), -1
    names = ["left", "right", "biopsy 7", "biopsy 8", "biopsy 9"]
    highly(for_flavor(counts(), "seurat"), batch=codes, batch_names=names)
    assert capsys.readouterr().err.splitlines() == [
        "10 cells have no batch and take no part in the selection of genes",
        "biopsy 7, biopsy 8, biopsy 9: batches of one cell, without part in the selection of genes",
    ]


@pytest.mark.parametrize("flavor", ["seurat", "seurat_v3"])
@pytest.mark.parametrize("batches", [False, True])
def test_excluded_genes_are_as_if_they_were_absent(flavor, batches):
    matrix = for_flavor(counts(genes=400), flavor)  # totals are those of all genes
    excluded = np.random.default_rng(1).random(400) < 0.3
    options = {"flavor": flavor, "n_top_genes": 50}
    options["batch"] = np.arange(400) % 2 if batches else None
    ours = highly(matrix, excluded=excluded, **options)
    without = highly(matrix[:, ~excluded], **options)
    assert not ours.loc[excluded, "highly_variable"].any()
    pd.testing.assert_frame_equal(
        ours[~excluded].reset_index(drop=True), without, check_exact=True, check_dtype=True
    )


def test_excluding_nothing_changes_no_bit_and_everything_is_refused():
    none = np.zeros(300, dtype=bool)
    matrix = for_flavor(counts(), "seurat")
    pd.testing.assert_frame_equal(highly(matrix, excluded=none), highly(matrix), check_exact=True)
    with pytest.raises(ValueError, match="all 300 genes are excluded"):
        highly(matrix, excluded=~none)
    with pytest.raises(ValueError, match="each of 300 genes; found bool, shape"):
        highly(matrix, excluded=none[:5])


def highly(matrix, **options):
    return highly_variable_genes(in_blocks(matrix), matrix.shape[1], **options)


@pytest.mark.parametrize("flavor", ["seurat", "seurat_v3"])
@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
def test_a_bad_value_is_named(flavor, value):
    matrix = counts()
    matrix[301, 44] = value
    with pytest.raises(ValueError, match="cell 301, gene 44"):
        highly(matrix, flavor=flavor)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flavor": "cell_ranger"}, 'flavor must be "seurat" or "seurat_v3"'),
        ({"n_top_genes": 0}, "n_top_genes must be at least 1"),
        ({"gene_names": ["a"]}, "1 gene names for 300 genes"),
        ({"batch": np.zeros(399, int)}, "batch has 399 codes for more than 399 cells"),
        ({"batch": np.zeros(401, int)}, "batch has 401 codes for 400 cells"),
        ({"batch": np.full(400, "a")}, "one integer code per cell"),
        ({"batch": np.arange(400)}, "no batch has two cells"),
    ],
)
def test_bad_options_are_explained(options, message):
    with pytest.raises(ValueError, match=message):
        highly(for_flavor(counts(), "seurat"), **options)


def test_counts_that_are_taken_for_normalized_values_are_recognized():
    with pytest.raises(ValueError, match=r"needs log-normalized values; .* are these counts\?"):
        highly(counts() * 100)


@pytest.mark.parametrize("genes", [1, 2, 3, 9])
def test_too_few_genes_for_the_fit(genes):
    with pytest.raises(ValueError, match=f"cannot fit {genes} genes that vary: span 0.3"):
        highly(counts()[:, 100 : 100 + genes], flavor="seurat_v3")


def test_a_fit_that_fails_is_explained():
    matrix = np.repeat(counts()[:, 100:102], 20, axis=1)  # two different genes only
    with pytest.raises(ValueError, match="loess fit of flavor seurat_v3 failed in batch 0"):
        highly(matrix, flavor="seurat_v3", batch=np.zeros(400, int))


def test_no_cell_and_wrong_number_of_genes():
    with pytest.raises(ValueError, match="there is no cell"):
        highly_variable_genes(lambda: [np.zeros((0, 3))], 3)
    with pytest.raises(ValueError, match="has 3 genes, expected 4"):
        highly_variable_genes(lambda: [np.ones((2, 3))], 4)


@pytest.mark.parametrize("flavor", ["seurat", "seurat_v3"])
@pytest.mark.parametrize("batch", [None, np.arange(50) % 2])
def test_nothing_varies(flavor, batch):
    table = highly(np.zeros((50, 6)), flavor=flavor, batch=batch, n_top_genes=3)
    assert len(table) == 6
    assert table["highly_variable"].sum() <= 3
