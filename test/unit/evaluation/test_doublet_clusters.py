"""Clusters with the marks of doublets."""

import numpy as np
import pandas as pd

from evaluation.clusters.doublet_clusters import (
    DOUBLET_COLUMNS,
    doublet_clusters,
    doublet_warnings,
)
from evaluation.scores.metrics import Labeling


def test_a_cluster_between_two_others_is_flagged():
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2, 3], [50, 50, 20, 30])
    centers = np.array([[0, 0], [10, 0], [5, 0.5], [0, 20]])
    embedding = (centers[codes] + rng.normal(0, 0.3, (150, 2))).astype(np.float32)
    embedding[-1] = np.nan
    like = codes == 2
    column = Labeling("leiden_1.0_1", codes, list("0123"))
    counts = np.where(like, 2.0, 1.0)
    scores = np.where(like, 0.4, 0.05)
    scores[:3] = np.nan
    marks = {"scores": scores, "doublet_like": like, "relative_counts": counts}
    table = doublet_clusters([column], embedding, **marks)
    assert list(table) == DOUBLET_COLUMNS
    assert list(table["flagged"]) == ["", "", "yes", ""]
    row = table.iloc[2]
    assert {row["between"], row["between_other"]} == {"0", "1"} and row["off_line"] < 0.1
    assert table.iloc[3]["n_cells"] == 29
    (warning,) = doublet_warnings(table, "harmony")
    assert warning.where == "leiden_1.0_1 2 (20 cells)" and "between 0 and 1" in warning.figure
    for changed in ({"relative_counts": np.ones(150)}, {"doublet_like": codes == 9}):
        assert not doublet_warnings(doublet_clusters([column], embedding, **marks | changed), "m")


def test_one_or_two_clusters_lie_between_none():
    embedding = np.random.default_rng(0).normal(size=(20, 2))
    marks = {
        "scores": np.full(20, np.nan),
        "doublet_like": np.ones(20, bool),
        "relative_counts": np.full(20, 2.0),
    }
    table = doublet_clusters([Labeling("c", np.arange(20) // 10, ["x", "y"])], embedding, **marks)
    assert table["between"].eq("").all() and not doublet_warnings(table, "m")


def test_subclusters_are_not_listed_again():
    rows = [("leiden_1.0_1", "3"), ("leiden_1.0_2", "3_0"), ("leiden_1.0_2", "4_1")]
    table = pd.DataFrame(
        [(*row, 10, 0.9, 0.3, 2.0, "1", "2", 0.1, "yes") for row in rows], columns=DOUBLET_COLUMNS
    )
    found = [warning.where for warning in doublet_warnings(table, "m")]
    assert found == ["leiden_1.0_1 3 (10 cells)", "leiden_1.0_2 4_1 (10 cells)"]
