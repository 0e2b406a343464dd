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
    cells: np.ndarray,
    names: Sequence[str],
    half: np.ndarray,
    scores: HeldOutScores,
) -> SideMarkers:
    """Find the markers of both sides of a split.

    Parameters
    ----------
    counts
        CSR matrix, cells x genes.
    cells
        int, the rows that are cells of the split.
    names
        Of the genes.
    half
        int of shape (genes,): the half of the first halving that a gene is in; -1: it is in
        neither, and the sides are told by both.
    scores
        Of the cells of the split; those that are not scored are left out.

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
    log = scores.log[0][:, scores.scored]
    # A gene of one half is compared by the score of the other.
    high = np.stack([is_high(score, scores.share) for score in (log[1], log[0], log.sum(axis=0))])
    effects = _compare(counts, cells[scores.scored], np.where(half < 0, 2, half), high)
    if not effects:
        return NO_MARKERS
    genes, folds, areas, p = (np.array(values) for values in zip(*effects, strict=True))
    p_adj = _adjusted(p, len(half))
    shown: list[list[str]] = [[], []]
    for i in np.argsort(-np.abs(areas - 0.5), kind="stable"):
        side = int(areas[i] > 0.5)
        if p_adj[i] < MAX_P_ADJ and len(shown[side]) < N_SHOWN:
            fold, area = abs(folds[i]), max(areas[i], 1 - areas[i])
            shown[side].append(f"{names[int(genes[i])]} (log2FC {fold:.1f}, AUC {area:.2f})")
    return SideMarkers(*map(", ".join, shown))


def _compare(
    counts: sp.csr_matrix, cells: np.ndarray, division: np.ndarray, high: np.ndarray
) -> list[tuple[int, float, float, float]]:
    """Compare genes between high and low cells; those of too small an effect are left out.

    `high` is of shape (divisions, cells), `division` says which of them a gene is compared by.
    """
    from clustering.significance.kernels import dense_columns, side_counts

    matrix = counts.indptr, counts.indices, counts.data
    sums, n_with = side_counts(*matrix, cells, high, division, counts.shape[1])
    depth = np.asarray(counts.sum(axis=1)).ravel().astype(np.float64)[cells]
    n_high = high.sum(axis=1)
    n_low = len(cells) - n_high
    low_total, high_total = (
        np.maximum((depth * side).sum(axis=1), 1)[division] for side in (~high, high)
    )
    pseudo = PSEUDO_CELLS * sums.sum(axis=0) / np.maximum(n_with.sum(axis=0), 1)
    pseudo = np.maximum(pseudo, PSEUDO_CELLS)
    fold = np.log2((sums[1] + pseudo) / high_total * low_total / (sums[0] + pseudo))
    # No AUC is larger than if all cells with the gene had more than all of the other side.
    low_share = n_with[0] / np.maximum(n_low, 1)[division]
    high_share = n_with[1] / np.maximum(n_high, 1)[division]
    best = np.where(fold > 0, high_share, low_share)
    best = best + 0.5 * (1 - low_share) * (1 - high_share)
    comparable = ((n_low > 0) & (n_high > 0))[division]
    candidate = comparable & (np.abs(fold) >= MIN_LOG2FC) & (best >= MIN_AUC)
    effects = []
    for number, is_high_cell in enumerate(high):
        genes = np.flatnonzero(candidate & (division == number))
        if not len(genes):
            continue
        column_of = np.full(counts.shape[1], -1)
        column_of[genes] = np.arange(len(genes))
        values = dense_columns(*matrix, cells, column_of, len(genes))
        areas, p = _rank_sum_test(values / np.maximum(depth, 1)[:, None], is_high_cell)
        clear = (np.maximum(areas, 1 - areas) >= MIN_AUC) & ((areas > 0.5) == (fold[genes] > 0))
        columns = (genes, fold[genes], areas, p)
        effects += zip(*(column[clear].tolist() for column in columns), strict=True)
    return effects


def _rank_sum_test(values: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the AUC and the p value of each column between high and low rows."""
    from scipy.stats import norm, rankdata

    n_high = int(high.sum())
    n_low = len(high) - n_high
    ranks = rankdata(values, axis=0)
    areas = (ranks[high].sum(axis=0) - n_high * (n_high + 1) / 2) / (n_high * n_low)
    # With the variance of the ranks as they are, ties are corrected for.
    spread = np.sqrt(ranks.var(axis=0, ddof=1) / (len(high) * n_high * n_low))
    return areas, 2 * norm.sf(np.abs(areas - 0.5) / np.maximum(spread, 1e-12))


def _adjusted(p: np.ndarray, n_tests: int) -> np.ndarray:
    """Adjust p values (Benjamini-Hochberg); those of the tests that are not given count as 1."""
    order = np.argsort(p)
    adjusted = p[order] * n_tests / np.arange(1, len(p) + 1)
    adjusted = np.minimum(np.minimum.accumulate(adjusted[::-1])[::-1], 1)
    result = np.empty_like(adjusted)
    result[order] = adjusted
    return result
