"""Every split of a cluster, and what speaks for it: the test, robustness, batches, markers.

A split is a node of the dendrogram of a cluster's children: some of them against the others. A
suggestion is a suggestion: nothing is merged by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from clustering.cluster_names import ALL_CELLS, column_above, join_names, parse_column
from clustering.cluster_tree import separating_splits
from clustering.communities import renumber_by_size
from clustering.significance.splits import Division
from evaluation.clusters.robustness import DISSOLVED, STABLE
from evaluation.scores.agreement import contingency, mixing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from evaluation.scores.metrics import Labeling

    Split = Mapping[str, Any]

# A side with less than this share of the mixing of batches of both is said to be split off along
# the batch, where both together are mixed at all.
ONE_BATCH, MIXED = 0.5, 0.2
SPLIT_COLUMNS = [
    "column", "parent", "left", "right", "n_left", "n_right", "alpha", "p", "significant",
    "verdict", "auc", "valley", "jaccard_left", "jaccard_right", "batch_entropy",
    "batch_entropy_left", "batch_entropy_right", "markers_left", "markers_right", "suggestion",
    "reason",
]  # fmt: skip


def divisions_of(
    column: Labeling, parents: Sequence[str], resolution_of: Callable[[str], float]
) -> list[tuple[str, list[str], Division]]:
    """List the clusters that a column splits.

    Parameters
    ----------
    column
        A clustering.
    parents
        The parent of each of its clusters; empty: all cells.
    resolution_of
        Takes a parent and returns the resolution at which its children were found.

    Returns
    -------
    list of (str, list of str, Division)
        Parent, names of its children by size, and their cells; of parents with several children.
    """
    numbers = {parent: i for i, parent in enumerate(dict.fromkeys(parents))}
    parent_of = np.append([numbers[parent] for parent in parents], -1)[column.codes]
    order = np.argsort(parent_of, kind="stable")
    ends = np.searchsorted(parent_of[order], np.arange(len(numbers) + 1))
    divisions = []
    for parent, number in numbers.items():
        cells = order[ends[number] : ends[number + 1]]
        codes = column.codes[cells]
        if len(np.unique(codes)) > 1:
            labels = renumber_by_size(codes)
            names = [""] * (int(labels.max()) + 1)
            for label, code in np.unique(np.stack([labels, codes]), axis=1).T.tolist():
                names[label] = column.groups[code]
            division = Division(cells, labels, resolution_of(parent))
            divisions.append((parent or ALL_CELLS, names, division))
    return divisions


def split_table(
    columns: list[Labeling],
    splits: Mapping[str, Sequence[Split]],
    *,
    parents: Mapping[str, Sequence[str]],
    batch: Labeling | None = None,
    robustness: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Bring together what is known of every split.

    Parameters
    ----------
    columns
        Clusterings.
    splits
        By column, its splits, those of a parent from the top down, as
        `clustering.significance.splits.TestedSplit.record` gives them with their `parent`; those
        that were not tested have names and sizes alone.
    parents
        By column, the parent of each cluster; empty ones: all cells.
    batch
        What mixes the cells.
    robustness
        The table of `robustness.py`.

    Returns
    -------
    pandas.DataFrame
        A row per split, with `SPLIT_COLUMNS`. A split is significant if its p is at most `alpha`
        and every split above it, of the levels above too, is significant. `batch_entropy` is 0 for
        one batch and 1 for even ones: of the cells of both sides, and of each side.
    """
    jaccard: dict[tuple[str, str], float] = {}
    if robustness is not None:
        keys = zip(robustness["column"], robustness["cluster"], strict=True)
        jaccard = dict(zip(keys, robustness["jaccard"], strict=True))
    significant = _significant_splits(columns, splits, parents)
    rows = []
    for column in columns:
        counts = None
        if batch is not None:
            shape = (len(column.groups), len(batch.groups))
            counts = contingency(column.codes, batch.codes, shape=shape)
        number = {name: i for i, name in enumerate(column.groups)}
        for split, is_significant in zip(
            splits[column.name], significant[column.name], strict=True
        ):
            sides = {side: split[side] for side in ("left", "right")}
            row: dict[str, Any] = {name: split.get(name) for name in SPLIT_COLUMNS}
            row |= {side: join_names(names) for side, names in sides.items()}
            row["column"] = column.name
            for side, names in sides.items():
                scores = [jaccard.get((column.name, name), np.nan) for name in names]
                row[f"jaccard_{side}"] = min(scores, key=lambda score: (np.isnan(score), score))
            if counts is not None:
                row |= _batch_entropies(
                    *(
                        counts[[number[name] for name in names]].sum(axis=0)
                        for names in sides.values()
                    ),
                    is_joined=sides["left"] == sides["right"],
                )
            if is_significant is not None:
                row["significant"] = "yes" if is_significant else "no"
                row["verdict"] = split["verdict"] if is_significant else "absent"
                if not is_significant:
                    row |= {"markers_left": "", "markers_right": ""}
                kept = is_significant and not split["joined"]
                row["suggestion"] = "keep" if kept else "merge"
            row["reason"] = "; ".join(_reasons(split, row))
            rows.append(row)
    return pd.DataFrame(rows, columns=SPLIT_COLUMNS)


def _significant_splits(
    columns: list[Labeling],
    splits: Mapping[str, Sequence[Split]],
    parents: Mapping[str, Sequence[str]],
) -> dict[str, list[bool | None]]:
    """Check for each split of each column whether it and all above it are told apart.

    None where a split was not tested; it does not count against those below.
    """
    names = {column.name for column in columns}
    significant: dict[str, list[bool | None]] = {}
    is_accepted: dict[tuple[str | None, str], bool] = {}  # by column and cluster
    for column in sorted(columns, key=lambda column: _level(column.name)):
        above = column_above(column.name, names)
        rejected: list[tuple[str, set[str]]] = []  # parent, and children below the split
        results: list[bool | None] = []
        for split in splits[column.name]:
            parent, children = split["parent"], {*split["left"], *split["right"]}
            result = None
            if "p" in split:
                is_below = any(parent == other and children <= all_ for other, all_ in rejected)
                above_accepted = is_accepted.get((above, parent), True)
                result = above_accepted and not is_below and split["verdict"] != "absent"
                if not result:
                    rejected.append((parent, children))
            results.append(result)
        significant[column.name] = results
        separating = separating_splits(
            [{**s, "result": r} for s, r in zip(splits[column.name], results, strict=True)]
        )
        for cluster, parent in zip(column.groups, parents[column.name], strict=True):
            split = separating.get(cluster)
            result = is_accepted.get((above, parent), True) if split is None else split["result"]
            is_accepted[column.name, cluster] = result is not False
    return significant


def _level(name: str) -> int:
    column = parse_column(name)
    return 1 if column is None else column.level


def _batch_entropies(left: np.ndarray, right: np.ndarray, *, is_joined: bool) -> dict[str, float]:
    """Compute the mixing of batches before a split and in its sides, which a join makes one."""
    if is_joined:
        return {"batch_entropy": float(mixing(left[None])[0])}
    sides = mixing(np.stack([left, right, left + right]))
    columns = ("batch_entropy_left", "batch_entropy_right", "batch_entropy")
    return dict(zip(columns, sides.tolist(), strict=True))


def _reasons(split: Split, row: Mapping[str, Any]) -> list[str]:
    """Write out what speaks for a split, and what speaks against it."""
    reasons = []
    if row["significant"] is None:
        reasons.append("not tested")
    elif row["significant"] == "yes":
        gap = "with a gap" if row["verdict"] == "distinct" else "without a gap"
        reasons.append(f"more than noise (p {split['p']:.2g}), {gap} (AUC {split['auc']:.2f})")
    elif split["verdict"] != "absent":
        reasons.append(f"a split above it is not significant (its own p {split['p']:.2g})")
    else:
        reasons.append(f"not told apart (p {split['p']:.2g} > {split['alpha']:.2g})")
    if split.get("joined"):
        return [f"joined: {reasons[0]}"]
    robustness = min(row["jaccard_left"], row["jaccard_right"])
    if robustness < DISSOLVED:
        reasons.append(f"dissolves (Jaccard {robustness:.2f})")
    elif robustness < STABLE:
        reasons.append(f"comes back in part (Jaccard {robustness:.2f})")
    elif robustness >= STABLE:
        reasons.append(f"comes back (Jaccard {robustness:.2f})")
    before, *after = (row[f"batch_entropy{side}"] for side in ("", "_left", "_right"))
    if None not in (before, *after) and before >= MIXED and min(after) < ONE_BATCH * before:
        sides = " and ".join(f"{entropy:.2f}" for entropy in after)
        reasons.append(f"along the batch (entropy {sides} of {before:.2f})")
    return reasons
