"""Every split of a cluster, and what speaks for it: robustness, distance, batches, markers.

A suggestion is a suggestion: nothing is merged by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from evaluation.clusters.markers import STRONG
from evaluation.clusters.robustness import DISSOLVED, STABLE
from evaluation.scores.agreement import contingency, mixing
from evaluation.scores.metrics import sample_cells, silhouette

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evaluation.scores.metrics import Labeling

# Cells of one parent that the silhouette is computed of.
CELLS_PER_PARENT = 5_000
# A child with less than this share of its parent's mixing of batches is said to be of few batches,
# where the parent is mixed at all.
ONE_BATCH, MIXED = 0.5, 0.2
NAMED = 3  # marker genes that are written out


class Evidence(NamedTuple):
    """What is known of one child."""

    jaccard: float
    silhouette: float
    batch_entropy: float  # NaN: no batch column
    parent_batch_entropy: float
    n_strong: float  # strong markers; NaN: not computed


def suggest(evidence: Evidence) -> tuple[str, str]:
    """Suggest to keep a child, to merge it with its nearest sibling, or to look at it.

    It is kept where it is stable (Jaccard at least 0.75) and has a strong marker (adjusted p below
    0.05, AUC at least 0.7, log2 fold change at least 1); merged where it has no strong marker and
    dissolves (Jaccard below 0.5) or lies among its siblings (silhouette below 0). Everything else
    is to be looked at: a small cluster that dissolves but has markers may be a rare cell type, one
    that is of one batch in a parent that is not may be an artefact or a real difference.

    Returns
    -------
    tuple
        ``keep``, ``merge`` or ``look``, and the reason in words.
    """
    for_it, against = _weigh_evidence(evidence)
    reason = "; ".join([*against, *for_it]) or "nothing is known"
    weak = evidence.jaccard < DISSOLVED or evidence.silhouette < 0
    if weak and not evidence.n_strong > 0:
        return "merge", reason
    unstable = not (evidence.jaccard >= STABLE or np.isnan(evidence.jaccard))
    if unstable or _has_fewer_batches(evidence) or not for_it or evidence.n_strong == 0:
        return "look", reason
    return "keep", reason


def _weigh_evidence(evidence: Evidence) -> tuple[list[str], list[str]]:
    """Write out what speaks for a child, and what speaks against it."""
    for_it, against = [], []
    if evidence.jaccard >= STABLE:
        for_it.append(f"comes back (Jaccard {evidence.jaccard:.2f})")
    elif evidence.jaccard < DISSOLVED:
        against.append(f"dissolves (Jaccard {evidence.jaccard:.2f})")
    elif not np.isnan(evidence.jaccard):
        against.append(f"comes back in part (Jaccard {evidence.jaccard:.2f})")
    if evidence.n_strong > 0:
        for_it.append(f"{int(evidence.n_strong)} strong markers")
    elif evidence.n_strong == 0:
        against.append("no strong marker")
    if evidence.silhouette < 0:
        against.append(f"lies among its siblings (silhouette {evidence.silhouette:.2f})")
    if _has_fewer_batches(evidence):
        against.append(
            f"of fewer batches than its parent (entropy {evidence.batch_entropy:.2f} of "
            f"{evidence.parent_batch_entropy:.2f})"
        )
    return for_it, against


def _has_fewer_batches(evidence: Evidence) -> bool:
    """Check whether a child of a mixed parent is much less mixed than the parent."""
    mixed = evidence.parent_batch_entropy >= MIXED
    return mixed and evidence.batch_entropy < ONE_BATCH * evidence.parent_batch_entropy


def split_table(
    columns: list[Labeling],
    embedding: np.ndarray,
    *,
    parents: Mapping[str, Sequence[str]],
    batch: Labeling | None = None,
    markers: pd.DataFrame | None = None,
    robustness: pd.DataFrame | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Bring together what is known of every split.

    Parameters
    ----------
    columns
        Clusterings; those of level 1 are taken as the split of all cells.
    embedding
        Cells x dimensions, for the silhouette of children among their siblings: of at most 5,000
        cells of each parent.
    parents
        By name of the column, the name of each cluster's parent; empty ones: all cells.
    batch
        What mixes the cells.
    markers, robustness
        The tables of `markers.py` and `robustness.py`.
    seed
        Of the samples.

    Returns
    -------
    pandas.DataFrame
        A row per child: `column`, `parent` (``all`` at level 1), `child`, `n_cells`, `jaccard`,
        `score`, `nearest`, `silhouette`, `batch_entropy` and `parent_batch_entropy` (0 one batch
        to 1 even), `n_strong_markers`, `markers`, `suggestion`, `reason`. An only child is no
        split and has no suggestion.
    """
    known = (
        {} if robustness is None else robustness.set_index(["column", "cluster"]).to_dict("index")
    )
    genes = {} if markers is None else dict(list(markers.groupby(["column", "cluster"])))
    rows = []
    for column in columns:
        parent_of = np.array(parents[column.name], dtype=object)
        sizes = np.bincount(column.codes[column.codes >= 0], minlength=len(column.groups))
        entropy = np.full(len(sizes), np.nan)
        counts = None
        if batch is not None:
            shape = (len(column.groups), len(batch.groups))
            counts = contingency(column.codes, batch.codes, shape=shape)
        for parent in dict.fromkeys(parent_of):
            children = np.flatnonzero(parent_of == parent)
            only = len(children) < 2
            parent_purity = np.nan
            if counts is not None:
                both = mixing(np.vstack([counts[children], counts[children].sum(axis=0)]))
                entropy[children], parent_purity = both[:-1], both[-1]
            apart = dict.fromkeys(children, np.nan)
            if not only:
                apart = _silhouettes(embedding, column.codes, children, seed)
            for child in children:
                key = (column.name, column.groups[child])
                robust = known.get(key, {})
                marker_genes = genes.get(key)
                n_strong, named = _strong(marker_genes)
                if markers is None or only:
                    n_strong = np.nan
                evidence = Evidence(
                    float(robust.get("jaccard", np.nan)),
                    apart[child],
                    entropy[child],
                    parent_purity,
                    n_strong,
                )
                suggestion, reason = ("", "not split") if only else suggest(evidence)
                rows.append(
                    (column.name, parent or "all", column.groups[child], sizes[child],
                     evidence.jaccard, float(robust.get("score", np.nan)),
                     robust.get("nearest", ""), evidence.silhouette, entropy[child], parent_purity,
                     n_strong, named, suggestion, reason)
                )  # fmt: skip
    table = pd.DataFrame(rows, columns=SPLIT_COLUMNS)
    return table.astype({"n_strong_markers": "Int64"})


SPLIT_COLUMNS = [
    "column", "parent", "child", "n_cells", "jaccard", "score", "nearest", "silhouette",
    "batch_entropy", "parent_batch_entropy", "n_strong_markers", "markers", "suggestion", "reason",
]  # fmt: skip


def _silhouettes(
    embedding: np.ndarray, codes: np.ndarray, children: np.ndarray, seed: int
) -> dict[int, float]:
    """Mean silhouette of each child among its siblings."""
    among = np.where(np.isin(codes, children), codes, -1)
    cells = sample_cells(among, CELLS_PER_PARENT, seed=seed)
    widths = silhouette(embedding[cells], among[cells])
    means = {}
    for child in children:
        child_widths = widths[among[cells] == child]
        child_widths = child_widths[np.isfinite(child_widths)]
        means[child] = float(child_widths.mean()) if len(child_widths) else float("nan")
    return means


def _strong(found: pd.DataFrame | None) -> tuple[float, str]:
    """Count the strong markers, and write out the best genes with their effects."""
    if found is None or not len(found):
        return 0, ""
    strong = found[
        (found["p_adj"] < STRONG["p_adj"])
        & (found["auc"] >= STRONG["auc"])
        & (found["log2fc"] >= STRONG["log2fc"])
    ]
    best = (strong if len(strong) else found).sort_values("rank").head(NAMED)
    named = [
        f"{gene} (log2FC {fold:.1f}, AUC {auc:.2f})"
        for gene, fold, auc in zip(best["gene"], best["log2fc"], best["auc"], strict=True)
    ]
    return len(strong), ", ".join(named)
