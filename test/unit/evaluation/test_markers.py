"""Markers: scanpy's Wilcoxon test to the digit, within parents as by itself, from any storage."""

import warnings

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
from conftest import INPUT
from scipy.stats import false_discovery_control, mannwhitneyu

from evaluation.clusters.markers import (
    Grouping,
    false_discovery,
    gene_blocks,
    rank_sums,
    top_markers,
)
from evaluation.stores import siblings
from numerics.normalize import normalize_block


@pytest.fixture(scope="module")
def pancreas():
    adata = anndata.read_h5ad(INPUT / "pancreas_mini.h5ad")[:, :120].copy()
    adata.X = normalize_block(sp.csr_matrix(adata.X), target_sum=1e4)
    return adata


def of_scanpy(adata, groups):
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
            tie_correct=True,
            use_raw=False,
            n_genes=120,
            pts=True,
        )
        return adata, sc.get.rank_genes_groups_df(adata, None)


def check(found, adata, groups, clusters):
    adata, expected = of_scanpy(adata, groups)
    for name, rows in expected.groupby("group", observed=True):
        i = clusters.index(name)
        at = adata.var_names.get_indexer(rows["names"])
        np.testing.assert_allclose(found.scores[i, at], rows["scores"], rtol=1e-6, atol=1e-6)
        shown = np.abs(rows["logfoldchanges"]) < 15  # else one of the means is zero
        np.testing.assert_allclose(
            found.log2fc[i, at][shown], rows["logfoldchanges"][shown], rtol=1e-3, atol=1e-4
        )
        np.testing.assert_allclose(found.inside[i, at], rows["pct_nz_group"], atol=1e-6)
        np.testing.assert_allclose(found.outside[i, at], rows["pct_nz_reference"], atol=1e-6)


def test_scores_and_effects_are_scanpys(pancreas):
    codes = pancreas.obs["batch"].cat.codes.to_numpy().astype(int)
    clusters = [str(i) for i in range(codes.max() + 1)]
    blocks = (pancreas.X[:, start : start + 50].tocsc() for start in range(0, 120, 50))
    (found,) = rank_sums(blocks, [Grouping(codes, siblings([""] * len(clusters)))])
    check(found, pancreas, codes, clusters)
    table = top_markers(found, pancreas.var_names, clusters, n_markers=5)
    assert table.groupby("cluster").size().eq(5).all()
    one = pancreas.X[:, [pancreas.var_names.get_loc(table["gene"][0])]].toarray().ravel()
    u, p = mannwhitneyu(one[codes == 0], one[codes != 0], method="asymptotic", use_continuity=False)
    assert table["auc"][0] == pytest.approx(u / ((codes == 0).sum() * (codes != 0).sum()))
    assert table["p"][0] == pytest.approx(p, rel=1e-6)


def test_children_are_tested_against_their_siblings(pancreas):
    rng = np.random.default_rng(1)
    codes = rng.integers(-1, 5, pancreas.n_obs)
    labels = ["0_0", "0_1", "0_2", "1_0", "2_0"]
    codes[:300][codes[:300] > 2] = 0
    level_1 = np.array([0, 0, 0, 1, 2, -1])[codes]
    groupings = [
        Grouping(codes, siblings(["0", "0", "0", "1", "2"])),
        Grouping(level_1, siblings(["", "", ""])),
    ]
    found, above = rank_sums([sp.csc_matrix(pancreas.X)], groupings)
    inside = (codes >= 0) & (codes <= 2)
    names = [labels[code] for code in codes[inside]]
    check(found, pancreas[inside], names, labels)
    assert np.isnan(found.scores[3:]).all(), "they have no siblings"
    expected = rank_sums([sp.csc_matrix(pancreas.X)], groupings[1:])[0]
    np.testing.assert_array_equal(above.scores, expected.scores)


def test_negative_values_and_stored_zeros():
    rng = np.random.default_rng(0)
    dense = np.round(rng.normal(size=(60, 7)), 1).astype(np.float32)
    codes = rng.integers(0, 3, 60)
    block = sp.csc_matrix(dense)
    block.data[:5] = 0
    (found,) = rank_sums([block], [Grouping(codes, np.zeros(3, int))])
    values = block.toarray()
    for gene in range(7):
        expected = mannwhitneyu(
            values[codes == 1, gene], values[codes != 1, gene], method="asymptotic",
            use_continuity=False,
        )  # fmt: skip
        pairs = (codes == 1).sum() * (codes != 1).sum()
        assert found.auc[1, gene] == pytest.approx(expected.statistic / pairs, rel=1e-6)


def test_false_discovery_rate():
    p = np.random.default_rng(0).random(50) ** 3
    np.testing.assert_allclose(false_discovery(p), false_discovery_control(p))


@pytest.mark.parametrize(
    ("budget", "ranked"), [(1 << 26, 1 << 22), (5000, 1 << 22), (1 << 26, 999)]
)
def test_blocks_of_genes_are_the_matrix(pancreas, tmp_path, monkeypatch, budget, ranked):
    import zarr

    from utils.blocks import write_blocks

    root = zarr.open_group(tmp_path / "x.zarr", mode="w")
    write_blocks(root, "X", [pancreas.X], n_genes=120, n_cells=pancreas.n_obs)
    monkeypatch.setattr("evaluation.clusters.markers.RANKED", ranked)
    blocks = list(gene_blocks(root["X"], normalize=lambda rows, _: rows, budget=budget))
    assert (len(blocks) > 1) == (budget == 5000 or ranked == 999)
    assert (sp.hstack(blocks) != pancreas.X).nnz == 0
