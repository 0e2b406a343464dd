"""The evaluation of the config: what is measured and drawn of the results."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from utils.config_values import Model


class Metrics(Model):
    """What methods are scored by (``metrics.py``)."""

    label: str | None = Field(
        None,
        description="The obs column with known cell types. Unset: only the metrics that need none.",
    )
    perplexity: float | None = Field(
        None,
        ge=1,
        description="Effective number of neighbors of LISI. Unset: a third of the neighbors.",
    )


class Markers(Model):
    """The genes that tell clusters apart (``markers.py``)."""

    n_markers: int = Field(
        0,
        ge=0,
        description="Marker genes listed for each cluster; 0: none. Takes longer than the "
        "clustering itself where there are many columns.",
    )
    markers_layer: str | None = Field(
        None,
        description="The layer with the expression; `raw` is the matrix of `.raw`, with its genes. "
        "Unset: `X`. Counts are log-normalized.",
    )
    markers_values: Literal["counts", "log-normalized"] | None = Field(
        None, description="What `markers_layer`, or `X`, holds. Unset: looked at."
    )


class Robustness(Model):
    """Whether clusters come back from a part of the cells (``robustness.py``)."""

    rounds: int = Field(
        0,
        ge=0,
        description="How often a part of the cells is clustered again; each round costs as much as "
        "the clustering itself. 0: not at all.",
    )
    subsample: float = Field(
        0.8, gt=0, lt=1, description="Share of the cells that each round takes."
    )


class Evaluation(Robustness, Markers, Metrics):
    """Scores of the methods, markers and robustness of the clusters."""

    trees: bool = Field(True, description="Draw the tree and the composition of the clusters.")
    metrics: bool = Field(
        True, description="Score every method, where a batch or `label` is named."
    )
