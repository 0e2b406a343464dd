"""Warn where a method loses biology that the uncorrected data have.

Both scores are of the same cells, so their difference has less noise than either. The limits were
chosen on 3,000 cells of Kang, Liu and the pancreas and 1,021 of the cell lines: over 100 bootstraps
the standard deviation of a difference was at most 0.015 (mean F1), 0.006 (labels transferred),
0.003 (neighbors) and 0.012 (median cLISI), and four seeds of Harmony differed by at most 0.006. It
grows as 1 / sqrt(cells), and so do the limits of small data sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from evaluation.scores.agreement import contingency

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from evaluation.scores.metrics import Labeling

REFERENCE = "unintegrated"
# Scores over all cells: metric, column, the largest loss that is not worth a warning, in words.
OVERALL_LIMITS = (
    ("label_transfer", "value", 0.05, "mean F1 of label transfer between batches"),
    ("label_transfer", "raw", 0.05, "share of labels transferred correctly between batches"),
    ("same_label", "value", 0.05, "share of neighbors of the same type"),
    ("clisi", "raw", 0.15, "cell types around a cell (median cLISI)"),
)
# Of the share of a type's neighbors that are of the same type; of few cells 1 / sqrt(cells).
MAX_TYPE_LOSS = 0.1
MIN_TYPE_CELLS = 20
ONE_BATCH = 0.8  # share of a type's cells in one batch from which that batch alone has it
INTEGRATION_ADVICE = (
    "the method removes biology together with batches: correct less (Harmony: a lower theta), by "
    "another batch column or not at all"
)
ONE_BATCH_ADVICE = (
    "the type has no counterpart in the other batches: look for it in the unintegrated data, or "
    "correct less"
)


class LossWarning(NamedTuple):
    """A row of warnings.tsv."""

    method: str
    warning: str  # its kind
    where: str
    figure: str
    advice: str


def warning_table(found: Iterable[LossWarning]) -> pd.DataFrame:
    """Return warnings as a table, empty where there are none."""
    import pandas as pd

    return pd.DataFrame(found, columns=LossWarning._fields)


def integration_losses(scores: pd.DataFrame) -> list[LossWarning]:
    """Find the methods whose label scores fall below those of the uncorrected data.

    Parameters
    ----------
    scores
        As `evaluation.stores.read_metrics` joins them. Without `unintegrated` or label scores
        nothing is compared.
    """
    overall = scores[scores["group"] == "all"].set_index(["method", "metric"])
    found = []
    for method in _corrected_methods(scores):
        for metric, field, max_loss, what in OVERALL_LIMITS:
            keys = (REFERENCE, metric), (method, metric)
            if not all(key in overall.index for key in keys):
                continue
            before, after = (float(overall.loc[key, field]) for key in keys)
            loss = after - before if metric == "clisi" else before - after
            n_cells = max(int(overall.loc[key, "n_cells"]) for key in keys)
            if loss > max(max_loss, 2 * max(n_cells, 1) ** -0.5):
                found.append(
                    LossWarning(
                        method,
                        metric,
                        _worst_types(scores, method, metric),
                        f"{what}: {before:.3f} unintegrated, {after:.3f} {method}",
                        INTEGRATION_ADVICE,
                    )
                )
    return found


def lost_types(scores: pd.DataFrame, label: Labeling, batch: Labeling) -> list[LossWarning]:
    """Find cell types whose neighbors are of other types after integration: they are swallowed.

    Parameters
    ----------
    scores
        As for `integration_losses`.
    label, batch
        Cell type and batch of every cell; types of which one batch has nearly all cells are said
        to be that: for these a method has no counterpart in the other batches.
    """
    by_type = scores[(scores["metric"] == "same_label") & (scores["group_by"] == label.name)]
    shares = by_type.pivot_table("value", index="group", columns="method", aggfunc="first")
    if REFERENCE not in shares:
        return []
    counts = contingency(label.codes, batch.codes, shape=(len(label.groups), len(batch.groups)))
    found = []
    for method in _corrected_methods(scores):
        for group, cells in zip(label.groups, counts, strict=True):
            n_cells = int(cells.sum())
            if n_cells < MIN_TYPE_CELLS or group not in shares.index:
                continue
            before, after = shares.loc[group, REFERENCE], shares.loc[group, method]
            if not before - after > max(MAX_TYPE_LOSS, n_cells**-0.5):
                continue
            share = float(cells.max() / n_cells)
            one_batch = share >= ONE_BATCH
            where = f"{label.name} {group}"
            if one_batch:
                where += f" ({share:.0%} of {n_cells:,} cells in {batch.groups[cells.argmax()]})"
            found.append(
                LossWarning(
                    method,
                    "one_batch_type" if one_batch else "type",
                    where,
                    f"neighbors of the same type: {before:.2f} unintegrated, {after:.2f} {method}",
                    ONE_BATCH_ADVICE if one_batch else INTEGRATION_ADVICE,
                )
            )
    return found


def _corrected_methods(scores: pd.DataFrame) -> list[str]:
    return [method for method in dict.fromkeys(scores["method"]) if method != REFERENCE]


def _worst_types(scores: pd.DataFrame, method: str, metric: str, *, n_types: int = 3) -> str:
    """Name the cell types that lose most of a score."""
    part = scores[(scores["metric"] == metric) & (scores["group_by"] == scores["key"])]
    part = part[part["n_cells"] >= MIN_TYPE_CELLS]
    values = part.pivot_table("value", index="group", columns="method", aggfunc="first")
    if not {REFERENCE, method} <= set(values):
        return "all cells"
    loss = (values[REFERENCE] - values[method]).dropna().sort_values(ascending=False)
    names = [f"{group} (-{value:.2f})" for group, value in loss.head(n_types).items() if value > 0]
    return f"all cells, most {', '.join(names)}" if names else "all cells"
