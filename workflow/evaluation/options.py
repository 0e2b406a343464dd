"""Options of what is measured and drawn of the results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from utils.options import Options, key


@dataclass(frozen=True, kw_only=True)
class MetricsOptions(Options):
    """What methods are scored by (``metrics.py``)."""

    label: str | None = key(
        None, "The obs column with known cell types. Unset: only the metrics that need none."
    )
    perplexity: float | None = key(
        None, "Effective number of neighbors of LISI. Unset: a third of the neighbors.", ge=1
    )


@dataclass(frozen=True, kw_only=True)
class MarkersOptions(Options):
    """The genes that tell clusters apart (``markers.py``)."""

    n_markers: int = key(
        0,
        "Marker genes listed for each cluster; 0: none.",
        ge=0,
    )
    markers_layer: str | None = key(
        None,
        "The layer with the expression; `raw` is the matrix of `.raw`, with its genes. "
        "Unset: `X`. Counts are log-normalized.",
    )
    markers_values: Literal["counts", "log-normalized"] | None = key(
        None, "What `markers_layer`, or `X`, holds. Unset: looked at."
    )
    tie_correct: bool = key(
        True,
        "Correct the scores of the rank-sum test for ties, as `rank_genes_groups("
        "tie_correct=True)` of scanpy; `false` is scanpy's default: smaller scores, most so of "
        "genes that few cells express.",
    )


@dataclass(frozen=True, kw_only=True)
class RobustnessOptions(Options):
    """Whether clusters come back from a part of the cells (``robustness.py``)."""

    rounds: int = key(
        0,
        "How often a part of the cells is clustered again; each round costs as much as "
        "the clustering itself, and once neighbors of at most 100,000 cells. 0: not at all.",
        ge=0,
    )
    subsample: float = key(0.8, "Share of the cells that each round takes.", gt=0, lt=1)


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(RobustnessOptions, MarkersOptions, MetricsOptions):
    """Scores of the methods, markers and robustness of the clusters."""

    trees: bool = key(True, "Draw the tree and the composition of the clusters.")
    metrics: bool = key(True, "Score every method, where a batch or `label` is named.")
