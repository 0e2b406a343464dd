"""docs/outputs.md names everything that the workflow writes, and every column of its tables."""

import re
from pathlib import Path

from evaluation.clusters import doublet_clusters, markers, splits
from evaluation.scores import biology_loss, metrics
from plan.plan import STORES

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "outputs.md").read_text()


def test_every_file_is_named():
    missing = [path for path in STORES.values() if f"`{path}`" not in PAGE.replace("/`", "`")]
    assert not missing


def test_every_column_is_named():
    columns = {*metrics.COLUMNS, *markers.MARKER_COLUMNS, *splits.SPLIT_COLUMNS}
    columns |= set(doublet_clusters.DOUBLET_COLUMNS)
    columns |= set(biology_loss.LossWarning._fields)
    named = set(re.findall(r"`([^`]+)`", PAGE))
    assert not columns - named
    assert not {*metrics.BATCH_METRICS, *metrics.LABEL_METRICS} - named
