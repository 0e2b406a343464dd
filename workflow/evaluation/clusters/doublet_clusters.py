"""Find clusters with the marks of doublets: scored so, between two others, with more counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clustering.cluster_names import ClusterColumn, parse_column
from evaluation.scores.biology_loss import LossWarning
from numerics.arrays import centroids_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from evaluation.scores.metrics import Labeling

DOUBLET_COLUMNS = [
    "column",
    "cluster",
    "n_cells",
    "doublet_like",
    "doublet_score",
    "relative_counts",
    "between",
    "between_other",
    "off_line",
    "flagged",
]
MIN_DOUBLET_SHARE = 0.4
MIN_RELATIVE_COUNTS = 1.5
MAX_OFF_LINE = 0.6
N_NEAREST = 40  # clusters of which all pairs are looked at
DOUBLET_ADVICE = (
    "look at its markers: where they are those of both clusters, its cells are better left out "
    "(keep_cells)"
)


def doublet_clusters(
    columns: Sequence[Labeling],
    embedding: np.ndarray,
    *,
    scores: np.ndarray,
    doublet_like: np.ndarray,
    relative_counts: np.ndarray,
) -> pd.DataFrame:
    """List the marks of doublets of every cluster.

    Parameters
    ----------
    columns
        Cluster columns.
    embedding
        Cells x dimensions, in which a cluster may lie between two others.
    scores, doublet_like, relative_counts
        Of each cell, as `preprocessing.doublets.score_doublets` returns them.

    Returns
    -------
    pandas.DataFrame
        One row per cluster, columns `DOUBLET_COLUMNS`: share of doublet-like cells, median score
        and relative counts, the two clusters of the column that its centroid lies most nearly
        between, its distance from the line through their centroids over the distance between
        these, and whether all marks are present (`yes`).

    Notes
    -----
    Peak memory: a copy of the embedding in float64.
    """
    import pandas as pd

    located = np.isfinite(embedding).all(axis=1)
    rows = []
    for name, codes, groups in columns:
        codes = np.where(located, codes, -1)
        known = codes >= 0
        sizes = np.bincount(codes[known], minlength=len(groups))
        centers = centroids_of(embedding[known], codes[known], len(groups))
        for code, group in enumerate(groups):
            cells = codes == code
            if not sizes[code]:
                continue
            share = float(np.mean(doublet_like[cells]))
            score, counts = (_median(values[cells]) for values in (scores, relative_counts))
            others = np.flatnonzero((sizes > 0) & (np.arange(len(groups)) != code))
            first, second, off_line = _nearest_line(centers[code], centers, others)
            flagged = (
                share >= MIN_DOUBLET_SHARE
                and counts >= MIN_RELATIVE_COUNTS
                and off_line <= MAX_OFF_LINE
            )
            pair = [groups[other] if other >= 0 else "" for other in (first, second)]
            marks = (share, score, counts, *pair, off_line, "yes" if flagged else "")
            rows.append((name, group, int(sizes[code]), *marks))
    return pd.DataFrame(rows, columns=DOUBLET_COLUMNS)


def _median(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else float("nan")


def _nearest_line(
    center: np.ndarray, centers: np.ndarray, others: np.ndarray
) -> tuple[int, int, float]:
    """Find the two centers that a center lies most nearly between, of the nearest ones."""
    distance = ((centers[others] - center) ** 2).sum(axis=1)
    others = others[np.argsort(distance, kind="stable")[:N_NEAREST]]
    if len(others) < 2:
        return -1, -1, float("nan")
    first, second = np.triu_indices(len(others), 1)
    start, step = centers[others[first]], centers[others[second]] - centers[others[first]]
    length = np.maximum((step**2).sum(axis=1), 1e-300)
    # Doublets have some counts of either parent.
    along = np.clip(((center - start) * step).sum(axis=1) / length, 0.2, 0.8)
    off = ((start + along[:, None] * step - center) ** 2).sum(axis=1)
    off_line = np.sqrt(off / length)
    best = int(off_line.argmin())
    return int(others[first[best]]), int(others[second[best]]), float(off_line[best])


def doublet_warnings(table: pd.DataFrame, method: str) -> list[LossWarning]:
    """Write a warning for each cluster that `doublet_clusters` flags and whose parent it does not.

    Parameters
    ----------
    table
        As `doublet_clusters` returns it.
    method
        The method that it is of.
    """
    flagged = table[table["flagged"] == "yes"]
    names = set(zip(flagged["column"], flagged["cluster"], strict=True))
    return [
        LossWarning(
            method,
            "doublets",
            f"{row.column} {row.cluster} ({row.n_cells:,} cells)",
            f"{row.doublet_like:.0%} of its cells are like doublets, they have "
            f"{row.relative_counts:.1f} times the counts of others and lie between "
            f"{row.between} and {row.between_other}",
            DOUBLET_ADVICE,
        )
        for row in flagged.itertuples()
        if _parent(row.column, row.cluster) not in names
    ]


def _parent(column: str, cluster: str) -> tuple[str, str]:
    """Return column and name of the cluster that a cluster is a part of."""
    parsed = parse_column(column)
    if parsed is None or parsed.level == 1:
        return "", ""
    above = ClusterColumn(parsed.algorithm, parsed.resolution, parsed.level - 1)
    return str(above), cluster.rpartition("_")[0]
