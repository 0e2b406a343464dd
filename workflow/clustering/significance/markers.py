"""Genes that tell the two sides of a split apart, in cells whose side other genes tell.

Genes that made the clusters differ between them even where there is nothing but noise. Here a gene
is compared between cells that are high and low by the score of the half of the genes that it is not
in, from which the cell itself was held out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from clustering.significance.verdicts import is_high

if TYPE_CHECKING:
    from collections.abc import Sequence

    import scipy.sparse as sp

    from clustering.significance.scores import HeldOutScores

N_SHOWN = 3  # of each side
MAX_P_ADJ, MIN_AUC, MIN_LOG2FC = 0.05, 0.7, 1.0
# Cells with the gene that are added to either side, so that few counts make no large fold changes.
PSEUDO_CELLS = 0.5


class SideMarkers(NamedTuple):
    """Markers of either side of a split, such as ``INS (log2FC 2.1, AUC 0.93)``; may be empty."""

    left: str
    right: str


NO_MARKERS = SideMarkers("", "")


def held_out_markers(
    counts: sp.csr_matrix,
    names: Sequence[str],
    half: np.ndarray,
    scores: HeldOutScores,
) -> SideMarkers:
    """Find the markers of both sides of a split.

    Parameters
    ----------
    counts
        CSR matrix, cells of the split x genes.
    names
        Of the genes.
    half
        int of shape (genes,): the half of the first halving that a gene is in; -1: it is in
        neither, and the sides are told by both.
    scores
        Of the cells; those that are not scored are left out.

    Returns
    -------
    SideMarkers
        Of each side at most three genes, by AUC: adjusted p below 0.05, AUC at least 0.7, log2 fold
        change at least 1. p is that of the rank-sum test of the shares of the cells' counts,
        adjusted (Benjamini-Hochberg) for all genes. The fold change is
        ``log2(((S1 + m / 2) / T1) / ((S0 + m / 2) / T0))`` of the gene's counts S and all counts T
        of the sides, and the gene's mean count m in cells that have it (1 or little more of
        molecules, hundreds of reads).

    Notes
    -----
    Values are ranked only of genes that can reach fold change and AUC.
    """
    scored = np.flatnonzero(scores.scored)
    counts = counts[scored]
    by_half = [is_high(score[scored], scores.share) for score in scores.log[0]]
    by_both = is_high(scores.log[0].sum(axis=0)[scored], scores.share)
    found: list[tuple[int, float, float, float]] = []  # gene, log2 fold change, AUC, p
    for genes_of, high in ((0, by_half[1]), (1, by_half[0]), (-1, by_both)):
        genes = np.flatnonzero(half == genes_of)
        if len(genes) and 0 < high.sum() < len(high):
            found += _compare(counts, genes, high)
    if not found:
        return NO_MARKERS
    genes, folds, areas, p = (np.array(values) for values in zip(*found, strict=True))
    p_adj = _adjusted(p, len(half))
    shown: list[list[str]] = [[], []]
    for i in np.argsort(-np.abs(areas - 0.5), kind="stable"):
        side = int(areas[i] > 0.5)
        if p_adj[i] < MAX_P_ADJ and len(shown[side]) < N_SHOWN:
            fold, area = abs(folds[i]), max(areas[i], 1 - areas[i])
            shown[side].append(f"{names[int(genes[i])]} (log2FC {fold:.1f}, AUC {area:.2f})")
    return SideMarkers(*map(", ".join, shown))


def _compare(
    counts: sp.csr_matrix, genes: np.ndarray, high: np.ndarray
) -> list[tuple[int, float, float, float]]:
    """Compare genes between high and low cells; those of too small an effect are left out."""
    from scipy.stats import norm, rankdata

    n_genes, n_cells = counts.shape[1], len(high)
    n_high = int(high.sum())
    n_low = n_cells - n_high
    depth = np.asarray(counts.sum(axis=1)).ravel().astype(np.float64)
    is_high_entry = np.repeat(high, np.diff(counts.indptr))
    sums, n_with = [], []
    for of_side in (~is_high_entry, is_high_entry):
        at = counts.indices[of_side]
        data = counts.data[of_side]
        sums.append(np.bincount(at, weights=data, minlength=n_genes)[genes])
        n_with.append(np.bincount(at[data > 0], minlength=n_genes)[genes])
    totals = [max(depth[~high].sum(), 1), max(depth[high].sum(), 1)]
    pseudo = PSEUDO_CELLS * (sums[0] + sums[1]) / np.maximum(n_with[0] + n_with[1], 1)
    pseudo = np.maximum(pseudo, PSEUDO_CELLS)
    fold = np.log2((sums[1] + pseudo) / totals[1] * totals[0] / (sums[0] + pseudo))
    # No AUC is larger than if all cells with the gene had more than all of the other side.
    low_share, high_share = n_with[0] / n_low, n_with[1] / n_high
    best = np.where(fold > 0, high_share, low_share)
    best = best + 0.5 * (1 - low_share) * (1 - high_share)
    candidates = genes[(np.abs(fold) >= MIN_LOG2FC) & (best >= MIN_AUC)]
    if not len(candidates):
        return []
    values = counts[:, candidates].toarray() / np.maximum(depth, 1)[:, None]
    ranks = rankdata(values, axis=0)
    areas = (ranks[high].sum(axis=0) - n_high * (n_high + 1) / 2) / (n_high * n_low)
    # With the variance of the ranks as they are, ties are corrected for.
    spread = np.sqrt(ranks.var(axis=0, ddof=1) / (n_cells * n_high * n_low))
    z = np.abs(areas - 0.5) / np.maximum(spread, 1e-12)
    folds = dict(zip(genes.tolist(), fold.tolist(), strict=True))
    return [
        (gene, folds[gene], area, p)
        for gene, area, p in zip(
            candidates.tolist(), areas.tolist(), (2 * norm.sf(z)).tolist(), strict=True
        )
        if max(area, 1 - area) >= MIN_AUC and (area > 0.5) == (folds[gene] > 0)
    ]


def _adjusted(p: np.ndarray, n_tests: int) -> np.ndarray:
    """Adjust p values (Benjamini-Hochberg); those of the tests that are not given count as 1."""
    order = np.argsort(p)
    adjusted = p[order] * n_tests / np.arange(1, len(p) + 1)
    adjusted = np.minimum(np.minimum.accumulate(adjusted[::-1])[::-1], 1)
    result = np.empty_like(adjusted)
    result[order] = adjusted
    return result
