"""Marker genes: a rank-sum test of every gene in every cluster of many clusterings at once.

Cells of one segment are compared among themselves: at level 1 all cells, below it those of one
parent. So a cluster of level 1 is tested against all other cells, a deeper one against its
siblings.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluation.clusters.rank_kernel import FIRST_SEGMENT, N_EFFECTS, rank_sum_test
from utils.log import progress
from utils.threads import ordered_map

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from evaluation.clusters.gene_file import GeneFile

# Values, and scores, that a thread computes at a time: 24 and 32 bytes each.
TASK_VALUES = 1 << 20
TASK_SCORES = 1 << 19
# Markers that are held beside the best ones before the best of both are chosen.
PENDING = 1 << 18


class Grouping(NamedTuple):
    """A clustering to find markers of."""

    codes: np.ndarray  # cluster of each cell, -1: none
    segments: np.ndarray  # of each cluster: clusters of the same number are compared


class ClusterIndex(NamedTuple):
    """All clusters of all clusterings, and all their segments, one after the other.

    Before the clusters of each clustering stands one of the cells that have none, in a segment of
    its own. Clusterings with the same segments of cells share these, and the ranks.
    """

    codes: np.ndarray  # uint16 or uint32 of shape (clusterings, cells), from 0: no cluster
    places: np.ndarray  # int64 of shape (clusterings, 5), see `rank_kernel`
    order: np.ndarray  # int64: those that share segments one after the other
    segments: np.ndarray  # int32, of each cluster
    sizes: np.ndarray  # float64, cells of each cluster
    segment_sizes: np.ndarray  # float64

    @classmethod
    def of(cls, groupings: Sequence[Grouping]) -> ClusterIndex:
        n_clusters = max(len(grouping.segments) for grouping in groupings)
        dtype = np.uint16 if n_clusters < 1 << 16 else np.uint32
        codes = np.empty((len(groupings), len(groupings[0].codes)), dtype=dtype)
        known: dict[bytes, tuple[int, int]] = {}
        places, segments, sizes, segment_sizes = [], [], [], []
        first_cluster = n_segments = 0
        for grouping, of_cells in zip(groupings, codes, strict=True):
            of_cells[:] = grouping.codes + 1
            own = np.unique(grouping.segments, return_inverse=True)[1] + 1
            own = np.concatenate([[0], own]).astype(np.int32)
            n_cells = np.bincount(of_cells, minlength=len(own)).astype(np.float64)
            key = hashlib.blake2b(own[of_cells]).digest()
            is_new = key not in known
            if is_new:
                known[key] = n_segments, n_segments + int(own.max()) + 1
                segment_sizes.append(np.bincount(own, n_cells))
                n_segments = known[key][1]
            end_cluster = first_cluster + len(own)
            places.append((first_cluster, end_cluster, *known[key], is_new))
            segments.append(own + known[key][0])
            sizes.append(n_cells)
            first_cluster = end_cluster
        return cls(
            codes,
            np.array(places, dtype=np.int64),
            np.argsort([place[FIRST_SEGMENT] for place in places], kind="stable"),
            np.concatenate(segments).astype(np.int32),
            np.concatenate(sizes),
            np.concatenate(segment_sizes),
        )


class Markers(NamedTuple):
    """The best genes of the clusters of one clustering: arrays with an item for each."""

    cluster: np.ndarray  # its code
    rank: np.ndarray  # from 1
    gene: np.ndarray  # its number
    score: np.ndarray  # z score of the rank sum
    p: np.ndarray
    p_adj: np.ndarray
    auc: np.ndarray
    log2fc: np.ndarray
    inside: np.ndarray  # share of the cells of the cluster with a value above 0
    outside: np.ndarray  # of the others


def find_markers(
    genes: GeneFile,
    groupings: Sequence[Grouping],
    *,
    n_markers: int,
    tie_correct: bool,
    threads: int,
) -> list[Markers]:
    """Test every gene in every cluster against the other clusters of its segment.

    Wilcoxon's rank-sum test by the normal approximation without a continuity correction, and the
    fold change of ``expm1`` of the means, plus 1e-9: scanpy's ``rank_genes_groups(
    method="wilcoxon")`` with the same `tie_correct`. Adjusted p values are Benjamini and
    Hochberg's (1995) over all genes.

    Parameters
    ----------
    genes
        Log-normalized values; its file holds the scores afterwards too, 8 bytes for each cluster
        and gene.
    groupings
        Clusterings of the cells. Those with the same segments of cells share the ranks.
    n_markers
        Genes for each cluster at most, of those with a score above 0: the largest, of equal ones
        the first.
    tie_correct
        Whether equal values make the variance of the rank sums smaller.
    threads
        Groups of genes that are tested at the same time; the results do not depend on it.

    Returns
    -------
    list of Markers
        One for each grouping, by cluster, then by rank. A cluster alone in its segment has none.

    Notes
    -----
    Each gene is sorted once. Peak memory: 2 bytes for each cell and clustering, 150 bytes for each
    marker, and for each thread 18 bytes per cell and 40 MB.
    """
    index = ClusterIndex.of(groupings)
    n_genes, n_clusters = genes.shape[1], len(index.sizes)
    best = _Best(n_clusters, n_markers)
    scores_start = genes.end

    def offset(task: tuple[int, int], cluster: int = 0) -> int:
        """Return where the scores of a cluster and of some genes are in the file."""
        return scores_start + 8 * (n_clusters * task[0] + cluster * (task[1] - task[0]))

    def test(task: tuple[int, int]) -> _Found:
        thresholds = best.thresholds
        values = tuple(genes.genes(*task))
        scores, effects = rank_sum_test(values, tuple(index), thresholds, tie_correct)
        genes.write(np.ascontiguousarray(scores.T), offset(task))
        gene, cluster = np.nonzero(scores > thresholds)
        return _Found(cluster, gene + task[0], scores[gene, cluster], effects[gene, cluster])

    tasks = list(_tasks(genes.n_values, n_clusters))
    tested = ordered_map(test, tasks, threads=threads, in_flight=2 * threads)
    for found in progress(tested, desc="markers", total=len(tasks)):
        best.add(found)
    found = best.chosen()
    edges = np.searchsorted(found.cluster, np.arange(n_clusters + 1))

    def adjust(first: int) -> list[np.ndarray]:
        """Adjust the p values of some clusters, of which all scores are read."""
        last = min(first + n_read, n_clusters)
        scores = np.empty((last - first, n_genes))
        for task in tasks:
            part = np.empty((last - first, task[1] - task[0]))
            genes.read(part, offset(task, first))
            scores[:, task[0] : task[1]] = part
        np.abs(scores, out=scores)
        return [
            adjusted_p(scores[cluster - first], found.score[edges[cluster] : edges[cluster + 1]])
            for cluster in range(first, last)
        ]

    n_read = max(1, TASK_SCORES // max(n_genes, 1))
    chunks = ordered_map(adjust, range(0, n_clusters, n_read), threads=threads)
    p_adj = np.concatenate([np.empty(0), *(adjusted for chunk in chunks for adjusted in chunk)])
    rank = np.arange(len(found.cluster)) - edges[found.cluster] + 1
    p = two_sided_p(found.score)
    markers = []
    for first, end, *_ in index.places:
        part = slice(edges[first], edges[end])
        columns = (found.cluster - first - 1, rank, found.gene, found.score, p, p_adj)
        markers.append(Markers(*(c[part] for c in columns), *found.effects[part].T))
    return markers


def _tasks(n_values: np.ndarray, n_clusters: int) -> Iterator[tuple[int, int]]:
    """Cut the genes into groups that one thread tests."""
    ends = np.cumsum(n_values)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = int(np.searchsorted(ends, before + TASK_VALUES, side="right"))
        stop = max(start + 1, min(stop, start + TASK_SCORES // n_clusters))
        yield start, stop
        start = stop


class _Found(NamedTuple):
    """Scores of some clusters and genes, and what belongs to them."""

    cluster: np.ndarray
    gene: np.ndarray
    score: np.ndarray
    effects: np.ndarray  # of shape (scores, 4), see `rank_kernel`


class _Best:
    """The genes with the largest scores of every cluster, of genes that come in their order.

    Attributes
    ----------
    thresholds
        Of each cluster, a score that is not among the largest.
    """

    def __init__(self, n_clusters: int, n_markers: int) -> None:
        self.n_markers = n_markers
        self.thresholds = np.zeros(n_clusters)
        none = np.empty(0, dtype=np.int64)
        effects = np.empty((0, N_EFFECTS), dtype=np.float32)
        self._found = [_Found(none, none, np.empty(0), effects)]
        self._n_pending = 0

    def add(self, found: _Found) -> None:
        """Take the scores of further genes."""
        self._found.append(found)
        self._n_pending += len(found.score)
        if self._n_pending > PENDING:
            self.chosen()

    def chosen(self) -> _Found:
        """Return the best so far, by cluster, then by score, and drop all others."""
        every = _Found(*map(np.concatenate, zip(*self._found, strict=True)))
        order = np.lexsort((every.gene, -every.score, every.cluster))
        cluster = every.cluster[order]
        rank = np.arange(len(order)) - np.searchsorted(cluster, cluster)
        last = rank == self.n_markers - 1
        thresholds = self.thresholds.copy()
        thresholds[cluster[last]] = every.score[order[last]]
        self.thresholds = thresholds
        best = _Found(*(array[order[rank < self.n_markers]] for array in every))
        self._found, self._n_pending = [best], 0
        return best


def two_sided_p(scores: np.ndarray) -> np.ndarray:
    """Return the probability of a standard normal score at least as far from 0."""
    from scipy.special import ndtr

    return 2 * ndtr(-np.abs(scores))


def adjusted_p(all_scores: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Adjust the p values of some scores for the number of all (Benjamini & Hochberg 1995).

    Parameters
    ----------
    all_scores
        At least 0.
    scores
        Those asked for: some of `all_scores`, the largest first.
    """
    from scipy.special import ndtri

    if not len(scores):
        return np.empty(0)
    n = len(all_scores)
    # No adjusted p is above this, nor can a larger p make one smaller.
    bound = min(1.0, float((two_sided_p(scores) * n / np.arange(1, len(scores) + 1)).max()))
    smallest = min(-ndtri(bound / 2), scores[-1]) * (1 - 1e-9)
    ordered = np.sort(all_scores[all_scores >= smallest])[::-1]
    adjusted = two_sided_p(ordered) * n / np.arange(1, len(ordered) + 1)
    adjusted = np.minimum(np.minimum.accumulate(adjusted[::-1])[::-1], 1)
    return adjusted[np.searchsorted(-ordered, -scores)]


MARKER_COLUMNS = ["cluster", "rank", "gene", "score", "p", "p_adj", "log2fc", "auc",
                  "fraction_in", "fraction_out"]  # fmt: skip


def marker_table(markers: Markers, genes: Sequence[str], clusters: Sequence[str]) -> pd.DataFrame:
    """Write markers with the names of genes and clusters, in the order of `MARKER_COLUMNS`."""
    import pandas as pd

    columns = {
        "cluster": np.asarray(clusters, dtype=object)[markers.cluster],
        "rank": markers.rank,
        "gene": np.asarray(genes, dtype=object)[markers.gene],
        "score": markers.score,
        "p": markers.p,
        "p_adj": markers.p_adj,
        "log2fc": markers.log2fc,
        "auc": markers.auc,
        "fraction_in": markers.inside,
        "fraction_out": markers.outside,
    }
    return pd.DataFrame(columns, columns=MARKER_COLUMNS)
