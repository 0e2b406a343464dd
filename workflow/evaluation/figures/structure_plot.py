"""The structure plot of a topic model: every cell a bar, cut into the shares of its topics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from evaluation.figures.color_scale import PALE
from evaluation.figures.legend import Entry, column_width, draw_legend
from evaluation.figures.page import add_axes, new_page, shorten, text_width, write_text
from utils.palette import palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

WIDTH, HEIGHT = 9.0, 2.4  # inches, of the bars
MAX_BARS = 1800  # of more cells, neighboring ones are averaged
GAP = 0.004  # between two groups, of the width
MIN_GROUP_WIDTH = 0.015  # of the width: the group's name fits underneath
MAX_GROUPS = 60
LEGEND_ROWS = 12


def structure_plot(weights: ArrayLike, groups: ArrayLike | None = None, *, title: str) -> Figure:
    """Draw the weights of all cells, group by group.

    Within a group cells are ordered by their largest topic, the group's most frequent first, and
    then by its weight. A group's width is its share of the cells, but at least 1.5 %. Where cells
    outnumber the bars, neighboring cells of a group are averaged.

    Parameters
    ----------
    weights
        Cells x topics, rows sum to 1; cells that are NaN are left out.
    groups
        A category per cell, drawn in the order of the categories; cells without one come last.
    title
        Above the plot; the number of cells is added.

    Returns
    -------
    matplotlib.figure.Figure
        For `evaluation.figures.page.save_figure`.

    Raises
    ------
    ValueError
        If the shapes do not fit, no cell has weights, or there are more than 60 groups.

    Notes
    -----
    Peak memory: 16 bytes per weight.
    """
    values = np.asarray(weights)
    if values.ndim != 2 or (groups is not None and len(groups) != len(values)):
        raise ValueError(
            f"weights must be cells x topics, groups one per cell; found {values.shape} and "
            f"{0 if groups is None else len(groups)}"
        )
    weighted = ~np.isnan(values).any(axis=1)
    values = values[weighted]
    if not len(values):
        raise ValueError("no cell has weights; there is nothing to draw")
    names, codes = _groups(groups, weighted)
    present, sizes = np.unique(codes, return_counts=True)
    check_groups(codes)
    labels = [shorten(names[g], 30) for g in present]
    widths = np.maximum(sizes / len(values), MIN_GROUP_WIDTH)
    widths *= (1 - GAP * (len(present) - 1)) / widths.sum()
    colors = palette(values.shape[1])
    legend = _topic_legend(values, colors)

    left, top = 0.45, 0.55
    below = 0.15 + 0.8 * text_width(labels, 7.5)  # they are slanted
    width = left + WIDTH + 0.25 + sum(map(column_width, legend))
    fig, page = new_page(width, top + HEIGHT + below)
    heading = shorten(f"{title}, {len(values):,} cells", 100)
    write_text(page, left, 0.15, heading, size=12, weight="bold", va="top")
    draw_legend(page, legend, left + WIDTH + 0.25, top)
    for share in (0, 0.5, 1):
        style = {"size": 7.5, "color": PALE, "ha": "right", "va": "center_baseline"}
        write_text(page, left - 0.08, top + (1 - share) * HEIGHT, f"{share:g}", **style)

    ax = add_axes(page, left, top, WIDTH, HEIGHT, xlim=(0, 1), ylim=(0, 1))
    ax.axis("off")
    start = 0.0
    for group, label, span in zip(present, labels, widths, strict=True):
        bars = _bars(values[codes == group], max(1, round(MAX_BARS * span)))
        _draw_bars(ax, bars, colors, start, span)
        style = {"size": 7.5, "rotation": 45, "ha": "right", "va": "top", "rotation_mode": "anchor"}
        write_text(page, left + (start + span / 2) * WIDTH, top + HEIGHT + 0.08, label, **style)
        start += span + GAP
    return fig


def check_groups(groups: ArrayLike) -> None:
    """Refuse more groups than a structure plot can show."""
    n_groups = pd.Series(groups).nunique()
    if n_groups > MAX_GROUPS:
        raise ValueError(f"a structure plot shows at most {MAX_GROUPS} groups; found {n_groups:,}")


def _groups(groups: ArrayLike | None, used: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the groups' names, and the group of each cell that is used."""
    if groups is None:
        return ["all cells"], np.zeros(used.sum(), dtype=np.int64)
    column = pd.Series(groups).astype("category").cat
    codes = column.codes.to_numpy(dtype=np.int64)[used]
    names = [*map(str, column.categories), "no value"]
    return names, np.where(codes < 0, len(names) - 1, codes)


def _bars(values: np.ndarray, n_bars: int) -> np.ndarray:
    """Order the cells of a group and average neighbors into at most `n_bars` rows."""
    topics = values.argmax(axis=1)  # the largest of each cell
    counts = np.bincount(topics, minlength=values.shape[1])
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    ordered = values[np.lexsort((-values.max(axis=1), rank[topics]))]
    starts = np.unique(np.linspace(0, len(ordered), n_bars, endpoint=False).astype(np.int64))
    sums = np.add.reduceat(ordered.astype(np.float64), starts, axis=0)
    return sums / sums.sum(axis=1, keepdims=True)


def _topic_legend(values: np.ndarray, colors: np.ndarray) -> list[list[Entry]]:
    """Name the topics with their mean weights, in columns."""
    shares = values.mean(axis=0, dtype=np.float64)
    entries = [Entry(f"topic {k}", f"{shares[k]:.1%}", colors[k]) for k in range(len(shares))]
    return [entries[k : k + LEGEND_ROWS] for k in range(0, len(entries), LEGEND_ROWS)]


def _draw_bars(ax: Axes, bars: np.ndarray, colors: np.ndarray, start: float, span: float) -> None:
    """Stack the topics of a group's bars, from `start` on, `span` wide."""
    edges = np.linspace(start, start + span, len(bars) + 1)
    tops = np.cumsum(bars, axis=1)
    for k in range(bars.shape[1]):
        base = tops[:, k - 1] if k else np.zeros(len(bars))
        ax.stairs(tops[:, k], edges, baseline=base, fill=True, color=colors[k], linewidth=0)
