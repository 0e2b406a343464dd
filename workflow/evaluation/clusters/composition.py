"""What clusters are made of: cells of each batch and cell type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evaluation.figures.charts import Bars
from evaluation.scores.agreement import contingency, mixing, normalized_mutual_information

if TYPE_CHECKING:
    import pandas as pd

    from evaluation.scores.metrics import Labeling


def composition(clusters: Labeling, others: list[Labeling]) -> tuple[list[Bars], str]:
    """Count the cells of each cluster by each other labeling, for a chart of bars.

    Returns
    -------
    tuple
        One `Bars` for each, its title with the normalized mutual information (NMI: 0 none, 1 the
        same partition), and a note.
    """
    bars = []
    for other in others:
        table = _table(clusters, other)
        nmi = normalized_mutual_information(table)
        bars.append(Bars(f"{other.name} (NMI {nmi:.2f})", other.groups, table))
    return bars, "Share of each cluster's cells; NMI: 0 says nothing of each other, 1 the same."


def composition_table(clusters: Labeling, others: list[Labeling]) -> pd.DataFrame:
    """Write the counts as a table.

    Returns
    -------
    pandas.DataFrame
        A row per cluster and group that it has cells of: `column`, `cluster`, `by`, `group`,
        `n_cells`, `share` (of the cluster's cells with a value), `mixing` (of the cluster: 0 one
        group, 1 all groups alike) and `nmi` (of the two columns).
    """
    import pandas as pd

    names = ["column", "cluster", "by", "group", "n_cells", "share", "mixing", "nmi"]
    parts = []
    for other in others:
        table = _table(clusters, other)
        rows, columns = np.nonzero(table)
        parts.append(
            pd.DataFrame(
                {
                    "column": clusters.name,
                    "cluster": np.array(clusters.groups, dtype=object)[rows],
                    "by": other.name,
                    "group": np.array(other.groups, dtype=object)[columns],
                    "n_cells": table[rows, columns],
                    "share": table[rows, columns] / table.sum(axis=1)[rows],
                    "mixing": mixing(table)[rows],
                    "nmi": normalized_mutual_information(table),
                }
            )
        )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)


def _table(clusters: Labeling, other: Labeling) -> np.ndarray:
    shape = (len(clusters.groups), len(other.groups))
    return contingency(clusters.codes, other.codes, shape=shape)
