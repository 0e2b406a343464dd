"""What a matrix holds: every kind that files have, however they are stored."""

from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.matrix_kind import WINDOWS, describe_matrix, matrix_kind

INPUT = Path(__file__).resolve().parents[2] / "input"


def draw(seed, n_cells=120, n_genes=400, depth=2000.0):
    """Draw counts of four types of cells, and some empty cells."""
    rng = np.random.default_rng(seed)
    profiles = rng.lognormal(0, 1.6, (4, n_genes))
    profiles /= profiles.sum(axis=1, keepdims=True)
    depths = depth * rng.lognormal(0, 0.5, n_cells)
    rates = profiles[rng.integers(0, 4, n_cells)] * depths[:, None]
    counts = rng.poisson(rates * rng.gamma(2, 0.5, rates.shape)).astype(float)
    counts[: n_cells // 20] = 0
    return counts, rng


def scaled_to(counts, total):
    totals = counts.sum(axis=1, keepdims=True)
    total = np.median(totals) if total is None else total
    return counts / np.where(totals == 0, 1, totals) * total


def variable(values):
    return values[:, np.argsort(-values.var(axis=0))[: values.shape[1] // 5]]


def soup(counts, rng):
    """Subtract what is expected of the ambient RNA, as SoupX does."""
    expected = rng.random(counts.shape[1]) * counts.mean(axis=0) * 0.3
    return np.maximum(counts - expected, 0)


def contamination(counts, rng):
    """Keep a share of every count, as DecontX does."""
    return counts * rng.beta(6, 2, counts.shape)


def ambiguous_reads(counts, rng):
    """Share some molecules between genes, as alevin does."""
    return np.where((counts > 0) & (rng.random(counts.shape) < 0.15), counts - 0.5, counts)


def standardized(values):
    return (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-3)


KINDS = {
    "counts": [
        lambda c, rng: c,
        lambda c, rng: np.minimum(c, 1),
    ],
    "fractions": [
        soup,
        contamination,
        ambiguous_reads,
        lambda c, rng: c * 0.93,
        lambda c, rng: scaled_to(c, 1e6),
        lambda c, rng: variable(scaled_to(c, 1e4)),
    ],
    "log-normalized": [
        lambda c, rng: np.log1p(scaled_to(c, 1e4)),
        lambda c, rng: np.log1p(scaled_to(c, None)),
        lambda c, rng: np.log2(1 + scaled_to(c, 1e6)),
        lambda c, rng: np.log10(1 + scaled_to(c, 1e4)),
        lambda c, rng: np.sqrt(scaled_to(c, 1e4)),
        lambda c, rng: np.log1p(c),
        lambda c, rng: np.log1p(scaled_to(np.minimum(c, 1), 1e4)),
        lambda c, rng: variable(np.log1p(scaled_to(c, 1e4))),
        lambda c, rng: np.log1p(scaled_to(c, 1e4)).round(3),
        lambda c, rng: np.log1p(scaled_to(soup(c, rng), 1e4)),
        lambda c, rng: variable(np.log1p(scaled_to(contamination(c, rng), 1e4))),
    ],
    "scaled": [lambda c, rng: standardized(np.log1p(scaled_to(c, 1e4)))],
    "empty": [lambda c, rng: 0 * c],
}
TABLE = [(kind, make) for kind, makers in KINDS.items() for make in makers]


@pytest.mark.parametrize(("kind", "make"), TABLE)
@pytest.mark.parametrize("depth", [500, 10_000])
def test_every_kind_is_told(kind, make, depth):
    for seed in range(4):
        values = make(*draw(seed, depth=depth)).astype(np.float32)
        assert matrix_kind(sp.csr_matrix(values)) == kind
        assert matrix_kind(values) == kind


@given(seed=st.integers(0, 10_000), factor=st.floats(0.1, 0.95), total=st.sampled_from([1e3, 1e5]))
@settings(max_examples=30, deadline=None)
def test_counts_their_logarithm_and_their_share(seed, factor, total):
    counts, _ = draw(seed, n_cells=40, n_genes=150)
    assert matrix_kind(counts) == "counts"
    assert matrix_kind(counts * factor) == "fractions"
    assert matrix_kind(np.log1p(scaled_to(counts, total))) == "log-normalized"


@pytest.mark.parametrize("file", ["pancreas_mini", "liu_mini"])
def test_real_counts_and_what_scanpy_makes_of_them(file):
    import scanpy

    adata = anndata.read_h5ad(INPUT / f"{file}.h5ad")
    assert matrix_kind(adata.X) == "counts"
    scanpy.pp.normalize_total(adata)
    assert matrix_kind(adata.X) == "fractions"
    scanpy.pp.log1p(adata)
    assert matrix_kind(adata.X) == "log-normalized"
    adata.X = adata.X.toarray()
    scanpy.pp.scale(adata)
    assert matrix_kind(adata.X) == "scaled"


def test_real_scaled_values_with_logarithms_in_raw():
    adata = anndata.read_h5ad(INPUT / "pbmc68k.h5ad")
    assert matrix_kind(adata.X) == "scaled"
    if adata.raw is not None:
        assert matrix_kind(adata.raw.X) == "log-normalized"


@pytest.fixture
def stored(tmp_path):
    """Return a function that writes values into a store and returns the element."""

    def write(values, form, dtype="float32"):
        root = zarr.open_group(tmp_path / "store.zarr", mode="w")
        matrix = values.astype("float32" if dtype == ">f4" else dtype)
        anndata.io.write_elem(root, "X", matrix if form == "dense" else form(matrix))
        if dtype == ">f4":
            holder, name = (root, "X") if form == "dense" else (root["X"], "data")
            values, attributes = holder[name][:].astype(dtype), dict(holder[name].attrs)
            del holder[name]
            holder.create_array(name, data=values, attributes=attributes)
        return root["X"]

    return write


@pytest.mark.parametrize("form", ["dense", sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("dtype", ["float32", "float64", ">f4"])
@pytest.mark.parametrize("kind", ["counts", "fractions", "log-normalized", "scaled"])
def test_every_way_to_store_it_gives_the_same(stored, form, dtype, kind):
    values = KINDS[kind][0](*draw(3))
    assert describe_matrix(stored(values, form, dtype)).kind == kind


@pytest.mark.parametrize("form", ["dense", sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("kind", ["counts", "fractions", "log-normalized", "scaled"])
def test_a_sample_is_enough_of_many_cells(stored, form, kind):
    values = KINDS[kind][0](*draw(5, n_cells=3000, n_genes=600))
    assert (values != 0).sum() > WINDOWS * (1 << 15)
    found = [describe_matrix(stored(values, form)) for _ in range(2)]
    assert found[0] == found[1] and found[0].kind == kind


def test_logarithms_behind_many_counts_are_seen(stored):
    counts, _ = draw(7, n_cells=3000, n_genes=600)
    counts[2400:] = np.log1p(scaled_to(counts[2400:], 1e4))
    found = describe_matrix(stored(counts, sp.csr_matrix))
    assert found.kind == "log-normalized" and found.is_mixed
    assert str(found).startswith("counts in some cells and in others log-normalized values")


def test_the_words_say_what_was_seen():
    assert str(describe_matrix(np.array([[1, 2], [0, 30]]))) == "counts (largest 30, whole numbers)"
    assert str(describe_matrix(np.array([[-1.5, 2.25]]))) == (
        "scaled values (smallest -1.5, largest 2.25, no whole numbers)"
    )
    assert str(describe_matrix(np.zeros((2, 2)))) == "nothing but zeros"
    assert matrix_kind(np.array([[np.nan, 2, np.inf]])) == "counts"  # left to those that compute


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1)])
def test_small_and_empty_matrices(stored, shape):
    assert matrix_kind(sp.csr_matrix(shape)) == "empty"
    assert matrix_kind(stored(np.zeros(shape), sp.csr_matrix)) == "empty"
    assert matrix_kind(stored(np.zeros(shape), sp.csc_matrix)) == "empty"
