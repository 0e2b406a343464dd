"""Markers: scanpy's Wilcoxon test to the digit, within parents as by itself, from any storage."""

import tempfile
import warnings

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from conftest import INPUT
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, mannwhitneyu, norm, rankdata

from evaluation.clusters import markers
from evaluation.clusters.gene_file import GeneFile
from evaluation.clusters.markers import (
    ClusterIndex,
    Grouping,
    adjusted_p,
    find_markers,
    marker_table,
    two_sided_p,
)
from evaluation.clusters.rank_kernel import AUC, INSIDE, LOG2FC, OUTSIDE, rank_sum_test
from evaluation.stores import siblings
from numerics.normalize import normalize_block
from utils import blocks
from utils.blocks import write_blocks


@pytest.fixture(scope="module")
def pancreas():
    adata = anndata.read_h5ad(INPUT / "pancreas_mini.h5ad")[:, :120].copy()
    adata.X = normalize_block(sp.csr_matrix(adata.X), target_sum=1e4)
    return adata


@pytest.fixture
def small(monkeypatch):
    """Cut everything into several pieces."""
    monkeypatch.setattr(blocks, "BLOCK_VALUES", 100)
    monkeypatch.setattr(markers, "TASK_VALUES", 60)
    monkeypatch.setattr(markers, "TASK_SCORES", 40)
    monkeypatch.setattr(markers, "PENDING", 5)


FOLDER = tempfile.TemporaryDirectory()


def new_group():
    return zarr.open_group(tempfile.mkdtemp(dir=FOLDER.name), mode="w")


def stored(X):
    root = new_group()
    write_blocks(root, "X", [X], n_genes=X.shape[1], n_cells=X.shape[0])
    return root["X"]


def as_it_is(rows, _):
    return rows


def open_genes(file, X, *, threads=1):
    return GeneFile(file, stored(X), normalize=as_it_is, threads=threads)


def all_statistics(X, groupings, *, tie_correct=True):
    """Return scores and effects of each grouping, clusters x genes."""
    index = ClusterIndex.of(groupings)
    thresholds = np.full(len(index.sizes), -np.inf)
    with tempfile.TemporaryFile() as file:
        genes = tuple(open_genes(file, X).genes(0, X.shape[1]))
        scores, effects = rank_sum_test(genes, tuple(index), thresholds, tie_correct)
    return [
        (scores[:, first + 1 : end].T, effects[:, first + 1 : end].transpose(1, 0, 2))
        for first, end, *_ in index.places
    ]


def best(X, groupings, *, n_markers, threads=1, tie_correct=True):
    with tempfile.TemporaryFile() as file:
        return find_markers(
            open_genes(file, X, threads=threads),
            groupings,
            n_markers=n_markers,
            tie_correct=tie_correct,
            threads=threads,
        )


def of_scanpy(adata, groups, tie_correct):
    import scanpy as sc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = adata.copy()
        adata.obs["group"] = groups
        adata.obs["group"] = adata.obs["group"].astype(str).astype("category")
        sc.tl.rank_genes_groups(
            adata,
            "group",
            method="wilcoxon",
            tie_correct=tie_correct,
            use_raw=False,
            n_genes=120,
            pts=True,
        )
        return adata, sc.get.rank_genes_groups_df(adata, None)


def check(statistics, adata, groups, clusters, *, tie_correct=True):
    scores, effects = statistics
    adata, expected = of_scanpy(adata, groups, tie_correct)
    for name, rows in expected.groupby("group", observed=True):
        i = clusters.index(name)
        at = adata.var_names.get_indexer(rows["names"])
        np.testing.assert_allclose(scores[i, at], rows["scores"], rtol=1e-6, atol=1e-6)
        shown = np.abs(rows["logfoldchanges"]) < 15  # else one of the means is zero
        np.testing.assert_allclose(
            effects[i, at, LOG2FC][shown], rows["logfoldchanges"][shown], rtol=1e-3, atol=1e-4
        )
        np.testing.assert_allclose(effects[i, at, INSIDE], rows["pct_nz_group"], atol=1e-6)
        np.testing.assert_allclose(effects[i, at, OUTSIDE], rows["pct_nz_reference"], atol=1e-6)


@pytest.mark.parametrize("tie_correct", [True, False])
def test_scores_and_effects_are_scanpys(pancreas, tie_correct):
    codes = pancreas.obs["batch"].cat.codes.to_numpy().astype(int)
    clusters = [str(i) for i in range(codes.max() + 1)]
    groupings = [Grouping(codes, siblings([""] * len(clusters)))]
    (statistics,) = all_statistics(pancreas.X, groupings, tie_correct=tie_correct)
    check(statistics, pancreas, codes, clusters, tie_correct=tie_correct)
    (found,) = best(pancreas.X, groupings, n_markers=5, tie_correct=tie_correct)
    table = marker_table(found, pancreas.var_names, clusters)
    assert table.groupby("cluster").size().eq(5).all()
    one = pancreas.X[:, [pancreas.var_names.get_loc(table["gene"][0])]].toarray().ravel()
    u, p = mannwhitneyu(one[codes == 0], one[codes != 0], method="asymptotic", use_continuity=False)
    assert table["auc"][0] == pytest.approx(u / ((codes == 0).sum() * (codes != 0).sum()))
    if tie_correct:
        assert table["p"][0] == pytest.approx(p, rel=1e-6)
    else:
        assert table["p"][0] > p


def test_children_are_tested_against_their_siblings(pancreas):
    rng = np.random.default_rng(1)
    codes = rng.integers(-1, 5, pancreas.n_obs)
    labels = ["0_0", "0_1", "0_2", "1_0", "2_0"]
    codes[:300][codes[:300] > 2] = 0
    level_1 = np.array([0, 0, 0, 1, 2, -1])[codes]
    groupings = [
        Grouping(level_1, siblings(["", "", ""])),
        Grouping(codes, siblings(["0", "0", "0", "1", "2"])),
        Grouping(codes, siblings([""] * 5)),  # has the segments of the first
    ]
    above, (scores, effects), _ = all_statistics(pancreas.X, groupings)
    inside = (codes >= 0) & (codes <= 2)
    names = [labels[code] for code in codes[inside]]
    check((scores, effects), pancreas[inside], names, labels)
    assert np.isnan(scores[3:]).all(), "they have no siblings"
    expected = all_statistics(pancreas.X, groupings[:1])[0]
    for statistics, alone in zip(above, expected, strict=True):
        np.testing.assert_array_equal(statistics, alone)
    found = best(pancreas.X, groupings, n_markers=3)[1]
    assert set(found.cluster) == {0, 1, 2}


def reference(X, grouping, tie_correct):
    """Compute scores, AUC and means from the definitions."""
    codes, segments = grouping
    shape = len(segments), X.shape[1]
    scores, auc = np.full(shape, np.nan), np.full(shape, np.nan)
    for cluster, segment in enumerate(segments):
        others = np.isin(codes, np.flatnonzero(segments == segment))
        values, inside = X[others], codes[others] == cluster
        n, n_in = len(values), inside.sum()
        if n_in in (0, n):
            continue
        for gene in range(X.shape[1]):
            rank_sum = rankdata(values[:, gene])[inside].sum()
            lengths = np.unique(values[:, gene], return_counts=True)[1].astype(float)
            share = (lengths**3 - lengths).sum() / (n**3.0 - n) if tie_correct else 0
            spread = np.sqrt((1 - share) * n_in * (n - n_in) * (n + 1) / 12)
            scores[cluster, gene] = (rank_sum - n_in * (n + 1) / 2) / spread if spread else 0
            auc[cluster, gene] = (rank_sum - n_in * (n_in + 1) / 2) / (n_in * (n - n_in))
    return scores, auc


KINDS = {
    "counts": lambda rng, shape: rng.poisson(rng.gamma(0.3, 2, shape[1]), shape),
    "logarithms": lambda rng, shape: np.log1p(rng.poisson(0.5, shape) / rng.random((shape[0], 1))),
    "negative": lambda rng, shape: np.round(rng.normal(size=shape), 1) * rng.integers(0, 2, shape),
    "wide": lambda rng, shape: np.exp(20 * rng.normal(size=shape)) * rng.integers(-1, 2, shape),
    "one value": lambda rng, shape: np.full(shape, 3.0),
    "zeros": lambda rng, shape: np.zeros(shape),
}


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(sorted(KINDS)),
    n_cells=st.integers(1, 130),
    tie_correct=st.booleans(),
)
def test_any_values_and_clusterings(seed, kind, n_cells, tie_correct):
    rng = np.random.default_rng(seed)
    dense = KINDS[kind](rng, (n_cells, 4)).astype(np.float32)
    X = sp.csr_matrix(dense)
    X.data[rng.random(X.nnz) < 0.1] = 0  # stored zeros
    groupings = []
    for _ in range(rng.integers(1, 5)):
        n_clusters = int(rng.integers(1, 6))
        codes = rng.integers(rng.integers(-1, 1), n_clusters, n_cells)
        groupings.append(Grouping(codes, rng.integers(0, rng.integers(1, 4), n_clusters)))
    groupings.append(groupings[0])
    found = all_statistics(X, groupings, tie_correct=tie_correct)
    for grouping, (scores, effects) in zip(groupings, found, strict=True):
        values = X.toarray()
        expected, auc = reference(values, grouping, tie_correct)
        np.testing.assert_allclose(scores, expected, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(effects[..., AUC], auc, rtol=1e-6)
        for cluster, segment in enumerate(grouping.segments):
            own = grouping.codes == cluster
            siblings_of = np.flatnonzero(grouping.segments == segment)
            others = np.isin(grouping.codes, siblings_of) & ~own
            if own.any() and others.any():
                shares = [(values[cells] > 0).mean(axis=0) for cells in (own, others)]
                np.testing.assert_allclose(effects[cluster][:, INSIDE], shares[0], rtol=1e-6)
                np.testing.assert_allclose(effects[cluster][:, OUTSIDE], shares[1], rtol=1e-6)


def test_scores_of_thousands_of_values_are_mannwhitneys():
    rng = np.random.default_rng(0)
    dense = np.round(rng.normal(size=(3000, 3)) * [1, 10, 1000], 1).astype(np.float32)
    codes = rng.integers(0, 3, 3000)
    ((scores, effects),) = all_statistics(
        sp.csr_matrix(dense), [Grouping(codes, np.zeros(3, dtype=int))]
    )
    for gene in range(3):
        u, p = mannwhitneyu(
            dense[codes == 1, gene], dense[codes != 1, gene], method="asymptotic",
            use_continuity=False,
        )  # fmt: skip
        pairs = (codes == 1).sum() * (codes != 1).sum()
        assert effects[1, gene, AUC] == pytest.approx(u / pairs, rel=1e-6)
        assert two_sided_p(scores[1, gene]) == pytest.approx(p, rel=1e-6)


@pytest.mark.parametrize("n_markers", [1, 7, 1000])
def test_pieces_and_threads_do_not_change_the_best(pancreas, small, n_markers):
    rng = np.random.default_rng(2)
    X = pancreas.X[:400].copy()
    X = sp.hstack([X, X[:, :30]], format="csr")  # equal scores: the first gene wins
    groupings = [
        Grouping(rng.integers(-1, 4, 400), np.array([0, 0, 1, 1])),
        Grouping(rng.integers(0, 3, 400), np.zeros(3, dtype=int)),
        Grouping(np.zeros(400, dtype=int), np.zeros(1, dtype=int)),
    ]
    found = best(X, groupings, n_markers=n_markers)
    again = best(X, groupings, n_markers=n_markers, threads=3)
    statistics = all_statistics(X, groupings)
    for here, there, (scores, effects) in zip(found, again, statistics, strict=True):
        for a, b in zip(here, there, strict=True):
            np.testing.assert_array_equal(a, b)
        for cluster, of_genes in enumerate(scores):
            rows = here.cluster == cluster
            order = np.argsort(-of_genes, kind="stable")
            order = order[of_genes[order] > 0][:n_markers]
            np.testing.assert_array_equal(here.gene[rows], order)
            np.testing.assert_array_equal(here.rank[rows], np.arange(len(order)) + 1)
            np.testing.assert_array_equal(here.score[rows], of_genes[order])
            np.testing.assert_array_equal(here.log2fc[rows], effects[cluster, order, LOG2FC])
            if len(order):
                p = 2 * norm.sf(np.abs(of_genes))
                np.testing.assert_allclose(here.p[rows], p[order], rtol=1e-12)
                adjusted = false_discovery_control(p)[order]
                np.testing.assert_allclose(here.p_adj[rows], adjusted, rtol=1e-9)


@given(seed=st.integers(0, 1000), n=st.integers(1, 200), scale=st.sampled_from([0, 0.1, 1, 5, 40]))
def test_adjusted_p_values_are_those_of_all(seed, n, scale):
    rng = np.random.default_rng(seed)
    scores = np.round(np.abs(rng.normal(size=n)) * scale, rng.integers(0, 4))
    some = np.sort(rng.choice(scores, rng.integers(1, n + 1), replace=False))[::-1]
    expected = false_discovery_control(2 * norm.sf(scores))
    expected = [expected[np.flatnonzero(scores == score)[0]] for score in some]
    np.testing.assert_allclose(adjusted_p(scores, some), expected, rtol=1e-9)


@pytest.mark.parametrize("form", ["csr", "csc", "dense", "float64", "counts"])
def test_genes_are_the_columns_of_the_matrix(pancreas, small, form):
    X = pancreas.X[:300]
    if form == "float64":
        X = X.astype(np.float64)
    if form == "counts":
        X = sp.csr_matrix(np.round(X.toarray()).astype(np.int64))
    matrix = stored(X.toarray() if form == "dense" else X)
    if form == "csc":
        root = new_group()
        anndata.io.write_elem(root, "X", X.tocsc())
        matrix = root["X"]
    with tempfile.TemporaryFile() as file:
        values = GeneFile(file, matrix, normalize=as_it_is, threads=2)
        np.testing.assert_array_equal(values.n_values, X.getnnz(axis=0))
        assert values.shape == X.shape
        found = values.genes(20, 60)
        assert len(found.first_cells) > 1
    dense = np.zeros((300, 40), dtype=np.float32)
    for block, first_cell in enumerate(found.first_cells):
        for gene in range(40):
            begin = found.block_starts[block] - int(found.pointers[block, 0])
            a, b = (begin + int(found.pointers[block, gene + i]) for i in (0, 1))
            dense[first_cell + found.cells[a:b], gene] = found.values[a:b]
    np.testing.assert_array_equal(dense, X[:, 20:60].toarray())


def test_a_matrix_without_genes_has_no_markers():
    X = sp.csr_matrix((4, 0), dtype=np.float32)
    (found,) = best(X, [Grouping(np.array([0, 0, 1, 1]), np.zeros(2, dtype=int))], n_markers=3)
    assert len(marker_table(found, [], ["a", "b"])) == 0
