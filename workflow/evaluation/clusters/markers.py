"""Marker genes: a rank-sum test on sparse data, in blocks of genes, for many clusterings at once.

Cells of one segment are compared among themselves: at level 1 all cells, below it those of one
parent. So a cluster of level 1 is tested against all other cells, a deeper one against its
siblings.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.sparse as sp

from utils.blocks import matrix_shape, row_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd

# Stored values (8 bytes each, three times while they are turned round) that are read at a time.
BUDGET = 1 << 26
# Of these, values that are ranked at a time, which takes about 150 bytes each.
RANKED = 1 << 22
# What makes a marker strong enough to tell two clusters apart.
STRONG = {"p_adj": 0.05, "auc": 0.7, "log2fc": 1.0}


class Grouping(NamedTuple):
    """A clustering to find markers of."""

    codes: np.ndarray  # cluster of each cell, -1: none
    segments: np.ndarray  # of each cluster: clusters of the same number are compared


class RankSums(NamedTuple):
    """Statistics of every cluster and gene: arrays of clusters x genes."""

    scores: np.ndarray  # float64, z score of the rank sum
    auc: np.ndarray  # float32, that a cell in the cluster has more than one outside
    log2fc: np.ndarray  # float32
    inside: np.ndarray  # float32, share of the cells with a value above 0
    outside: np.ndarray


def rank_sums(blocks: Iterator[sp.csc_matrix], groupings: Sequence[Grouping]) -> list[RankSums]:
    """Test every gene in every cluster against the other clusters of its segment.

    Wilcoxon's rank-sum test by the normal approximation, corrected for ties and without a
    continuity correction, as scanpy's `rank_genes_groups(method="wilcoxon", tie_correct=True)`;
    the fold change is scanpy's too: of ``expm1`` of the means, plus 1e-9.

    Parameters
    ----------
    blocks
        All cells x some genes, log-normalized, one block after the other (see `gene_blocks`).
    groupings
        Clusterings of the cells. Those with the same segments of cells share the sorting.

    Returns
    -------
    list of RankSums
        One per grouping. A cluster that is alone in its segment has NaN.

    Notes
    -----
    Memory: 24 bytes per cluster and gene, and about 150 per stored value of a block. Time: one sort
    of the values for each set of segments.
    """
    parts: list[list[RankSums]] = [[] for _ in groupings]
    sharing: dict[bytes, list[tuple[_Layout, list[RankSums]]]] = {}
    for grouping, sums in zip(groupings, parts, strict=True):
        layout = _Layout.of(grouping)
        sharing.setdefault(layout.key, []).append((layout, sums))
    for block in blocks:
        for group in sharing.values():
            ranked = _Ranks.of(block, group[0][0])
            for layout, sums in group:
                sums.append(_test(ranked, layout))
    return [
        RankSums(*map(np.hstack, zip(*sums, strict=True)))
        if sums
        else RankSums(*[np.zeros((len(grouping.segments), 0))] * 5)
        for grouping, sums in zip(groupings, parts, strict=True)
    ]


class _Layout(NamedTuple):
    """Cells by cluster and clusters by segment."""

    codes: np.ndarray
    segments: np.ndarray  # of each cluster
    cell_segments: np.ndarray  # -1: none
    sizes: np.ndarray  # of each cluster
    segment_sizes: np.ndarray
    key: bytes  # equal where cells have the same segments

    @classmethod
    def of(cls, grouping: Grouping) -> _Layout:
        codes = np.asarray(grouping.codes)
        segments = np.unique(grouping.segments, return_inverse=True)[1]
        cells = np.where(codes >= 0, segments[codes], -1)
        sizes = np.bincount(codes[codes >= 0], minlength=len(segments))
        of_segment = np.bincount(segments, sizes).astype(np.int64)
        return cls(codes, segments, cells, sizes, of_segment, cells.astype(np.int32).tobytes())


class _Ranks(NamedTuple):
    """The stored values of a block with their ranks within gene and segment."""

    cells: np.ndarray
    genes: np.ndarray
    data: np.ndarray
    ranks: np.ndarray
    zero_ranks: np.ndarray  # segments x genes
    ties: np.ndarray  # segments x genes, the sum of t^3 - t
    n_genes: int

    @classmethod
    def of(cls, block: sp.csc_matrix, layout: _Layout) -> _Ranks:
        n_genes, n_segments = block.shape[1], len(layout.segment_sizes)
        cells = block.indices
        genes = np.repeat(np.arange(n_genes, dtype=np.int64), np.diff(block.indptr))
        used = (layout.cell_segments[cells] >= 0) & (block.data != 0)
        cells, genes, values = cells[used], genes[used], block.data[used].astype(np.float32)
        place = layout.cell_segments[cells] * np.int64(n_genes) + genes
        order = _argsort(place, values)
        cells, genes, values, place = cells[order], genes[order], values[order], place[order]
        # Runs of equal values share the mean of their ranks.
        new = np.ones(len(values), dtype=bool)
        new[1:] = (place[1:] != place[:-1]) | (values[1:] != values[:-1])
        starts = np.flatnonzero(new)
        lengths = np.diff(np.append(starts, len(values)))
        counts = np.bincount(place, minlength=n_segments * n_genes)
        first = np.cumsum(counts) - counts
        ranks = starts - first[place[starts]] + (lengths + 1) / 2
        ties = np.bincount(place[starts], lengths**3.0 - lengths, n_segments * n_genes)
        ties = ties.astype(float)  # integers where there is nothing to count
        # Values that are not stored are zeros: they stand between negative and positive ones.
        zeros = np.repeat(layout.segment_sizes, n_genes) - counts
        negative = np.bincount(place[values < 0], minlength=n_segments * n_genes)
        ranks = np.repeat(ranks, lengths) + np.where(values > 0, zeros[place], 0)
        zero_ranks = negative + (zeros + 1) / 2
        ties += zeros.astype(float) ** 3 - zeros
        shape = (n_segments, n_genes)
        return cls(cells, genes, values, ranks, zero_ranks.reshape(shape), ties.reshape(shape),
                   n_genes)  # fmt: skip


def _argsort(place: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sort by place, then by value: one sort of 64-bit integers, several times a lexsort's speed.

    The bits of a float order as the number does once those of negative numbers are turned round.
    Equal ones come in any order, which no sum of theirs depends on.
    """
    bits = values.view(np.uint32)
    bits = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return np.argsort(place.astype(np.uint64) << np.uint64(32) | bits)


def _test(ranked: _Ranks, layout: _Layout) -> RankSums:
    """Turn ranks into the statistics of every cluster."""
    shape = (len(layout.segments), ranked.n_genes)
    place = layout.codes[ranked.cells] * np.int64(ranked.n_genes) + ranked.genes

    def total(weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(place, weights, shape[0] * shape[1]).reshape(shape)

    def of_segments(values: np.ndarray) -> np.ndarray:
        """Sum clusters over their segments, and give each cluster its segment's sum."""
        sums = np.zeros((len(layout.segment_sizes), values.shape[1]))
        np.add.at(sums, layout.segments, values)
        return sums[layout.segments]

    segment = layout.segments
    n_in = layout.sizes.astype(float)[:, None]
    n = layout.segment_sizes.astype(float)[segment][:, None]
    n_out = n - n_in
    stored = total().astype(float)
    rank_sum = total(ranked.ranks) + (n_in - stored) * ranked.zero_ranks[segment]
    with np.errstate(divide="ignore", invalid="ignore"):
        correction = 1 - ranked.ties[segment] / (n**3 - n)
        spread = np.sqrt(correction * n_in * n_out * (n + 1) / 12)
        scores = np.where(spread > 0, (rank_sum - n_in * (n + 1) / 2) / spread, 0.0)
        auc = (rank_sum - n_in * (n_in + 1) / 2) / (n_in * n_out)
        sums = total(ranked.data.astype(float))
        mean_in, mean_out = sums / n_in, (of_segments(sums) - sums) / n_out
        log2fc = np.log2((np.expm1(mean_in) + 1e-9) / (np.expm1(mean_out) + 1e-9))
        positive = total((ranked.data > 0).astype(float))
        inside, outside = positive / n_in, (of_segments(positive) - positive) / n_out
    alone = (n_out[:, 0] == 0) | (n_in[:, 0] == 0)
    statistics = [scores, *(a.astype(np.float32) for a in (auc, log2fc, inside, outside))]
    for array in statistics:
        array[alone] = np.nan
    return RankSums(*statistics)


def gene_blocks(
    matrix: object,
    *,
    normalize: Callable[[sp.csr_matrix, int], sp.csr_matrix],
    budget: int = BUDGET,
) -> Iterator[sp.csc_matrix]:
    """Read a stored matrix of cells x genes in blocks of genes.

    Parameters
    ----------
    matrix
        An element of an opened store, see `utils.blocks.row_blocks`.
    normalize
        Called with a block of rows and the number of its first cell.
    budget
        Stored values that are held; the matrix is read once for each time that it is full, and
        once to count. What is held is handed out in blocks of `RANKED` values.

    Yields
    ------
    scipy.sparse.csc_matrix
        All cells x the next genes.
    """
    n_cells, n_genes = matrix_shape(matrix)
    counts = np.zeros(n_genes, dtype=np.int64)
    for block in row_blocks(matrix):
        counts += sp.csr_matrix(block).getnnz(axis=0)
    edges = np.searchsorted(np.cumsum(counts), np.arange(budget, counts.sum(), budget))
    bounds = np.unique([0, *edges, n_genes])
    for low, high in itertools.pairwise(bounds):
        parts, first = [], 0
        for block in row_blocks(matrix):
            rows = sp.csr_matrix(block)
            parts.append(normalize(rows, first)[:, low:high])
            first += rows.shape[0]
        held = sp.vstack(parts, format="csc") if parts else sp.csc_matrix((n_cells, high - low))
        parts.clear()
        edges = np.searchsorted(held.indptr, np.arange(RANKED, held.nnz, RANKED))
        for start, stop in itertools.pairwise(np.unique([0, *edges, high - low])):
            yield held[:, start:stop]


def top_markers(
    sums: RankSums, genes: Sequence[str], clusters: Sequence[str], *, n_markers: int
) -> pd.DataFrame:
    """List the best genes of every cluster, by score, of those that are higher inside.

    Parameters
    ----------
    found
        From `rank_sums`.
    genes, clusters
        Names of the columns and rows.
    n_markers
        Genes per cluster at most.

    Returns
    -------
    pandas.DataFrame
        `cluster`, `rank`, `gene`, `score`, `p`, `p_adj` (Benjamini-Hochberg over all genes),
        `log2fc`, `auc`, `fraction_in`, `fraction_out`.
    """
    import pandas as pd
    from scipy.stats import norm

    genes = np.asarray(genes, dtype=object)
    tables = []
    for i, cluster in enumerate(clusters):
        scores = sums.scores[i]
        if not len(scores) or np.isnan(scores).all():
            continue
        p = 2 * norm.sf(np.abs(scores))
        adjusted = false_discovery(p)
        best = np.argsort(-scores, kind="stable")[:n_markers]
        best = best[scores[best] > 0]
        columns = {
            "cluster": cluster,
            "rank": np.arange(1, len(best) + 1),
            "gene": genes[best],
            "score": scores[best],
            "p": p[best],
            "p_adj": adjusted[best],
            "log2fc": sums.log2fc[i, best],
            "auc": sums.auc[i, best],
            "fraction_in": sums.inside[i, best],
            "fraction_out": sums.outside[i, best],
        }
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=MARKER_COLUMNS)


MARKER_COLUMNS = ["cluster", "rank", "gene", "score", "p", "p_adj", "log2fc", "auc",
                  "fraction_in", "fraction_out"]  # fmt: skip


def false_discovery(p: np.ndarray) -> np.ndarray:
    """Adjust p values for their number (Benjamini & Hochberg 1995)."""
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1)
    return adjusted
