"""Charts of tables: scores as dots, the make-up of clusters as bars. For `plots.save_figure`.

All sizes are in inches; the page is an Axes over the whole figure, from the top left corner, as in
`evaluation.figures.legend`.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from evaluation.figures.color_scale import COLORMAP, PALE
from evaluation.figures.legend import column_width, draw_legend, extent, legend_table, short, write
from evaluation.scores.metrics import BATCH_METRICS, LABEL_METRICS
from utils.palette import palette

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from matplotlib.axes import Axes

NOTES = (
    "1 is best, 0 is worst. Read both halves together: what mixes everything keeps no cell type. "
    "The batch silhouette is left out on purpose. Scores of a graph depend on its number of "
    "neighbors; scores against labels that were made from the same embedding are circular."
)
ROWS_MOST = 60  # rows of a chart; of more, the largest are shown


class Panel(NamedTuple):
    """Columns that stand together in a chart of dots."""

    title: str
    columns: list[str]
    scores: np.ndarray  # rows x columns, 0 to 1; NaN where there is none


class Bars(NamedTuple):
    """What clusters are made of, for a chart of bars."""

    title: str
    groups: list[str]
    counts: np.ndarray  # clusters x groups


def new_page(width: float, height: float) -> tuple[Figure, Axes]:
    """Make a figure and the Axes that its text and shapes are placed on."""
    fig = Figure(figsize=(width, height), dpi=150)
    FigureCanvasAgg(fig)
    page = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    page.axis("off")
    return fig, page


def write_title(page: Axes, title: str, notes: str, *, width: float) -> float:
    """Write the title and folded notes at the top; return where they end."""
    write(page, 0.2, 0.15, short(title, max(int((width - 0.4) / 0.115), 20)), size=12,
          weight="bold", va="top")  # fmt: skip
    y = 0.4
    for line in textwrap.wrap(notes, max(int((width - 0.4) / 0.066), 30)):
        write(page, 0.2, y, line, size=8, color=PALE, va="top")
        y += 0.15
    return y + 0.05


def text_width(texts: Sequence[str], size: float = 8.5) -> float:
    """Width of the longest of some texts in inches."""
    return max((extent(short(text), size)[0] / 72 for text in texts), default=0.0)


def dot_chart(rows: list[str], panels: list[Panel], *, title: str, notes: str) -> Figure:
    """Draw scores as dots: the larger and brighter, the better.

    Parameters
    ----------
    rows
        Names of the rows, shared by all panels.
    panels
        Groups of columns.
    title, notes
        Above the chart.

    Returns
    -------
    matplotlib.figure.Figure
        For `evaluation.figures.embedding.save_figure`.
    """
    step, line, gap = 0.5, 0.36, 0.25
    left = 0.35 + text_width(rows)
    slant = text_width([c for p in panels for c in p.columns]) * 0.7 + 0.1
    # A panel is at least as wide as its title.
    widths = [max(step * len(p.columns), text_width([p.title]) * 1.12) + gap for p in panels]
    width = left + sum(widths) + slant - gap
    width = max(width, 4.0)
    top = 0.45 + 0.15 * len(textwrap.wrap(notes, max(int((width - 0.4) / 0.066), 30)))
    top += 0.3 + slant
    fig, page = new_page(width, top + line * len(rows) + 0.15)
    write_title(page, title, notes, width=width)
    for i, row in enumerate(rows):
        y = top + (i + 0.5) * line
        write(page, left - 0.12, y, short(row), size=8.5, ha="right", va="center")
        if i % 2 == 0:
            band = Rectangle((0.1, y - line / 2), width - slant - 0.1, line, color="#f6f6f6", lw=0)
            page.add_patch(band)
    x = left
    for panel, space in zip(panels, widths, strict=True):
        write(page, x + 0.05, top - slant - 0.12, panel.title, size=8.5, weight="bold", va="bottom")
        for i, column in enumerate(panel.columns):
            write(page, x + (i + 0.5) * step - 0.05, top - 0.05, short(column), size=8.5,
                  rotation=45, ha="left", va="bottom", rotation_mode="anchor")  # fmt: skip
        row, column = np.indices(panel.scores.shape)
        at_x = x + (column + 0.5) * step
        at_y = top + (row + 0.5) * line
        known = np.isfinite(panel.scores)
        value = panel.scores[known]
        page.scatter(at_x[known], at_y[known] - 0.05, s=12 + 130 * value, linewidths=0,
                     c=colormaps[COLORMAP](value))  # fmt: skip
        for cx, cy, v in zip(at_x.ravel(), at_y.ravel(), panel.scores.ravel(), strict=True):
            text = f"{v:.2f}" if np.isfinite(v) else "none"
            write(page, cx, cy + 0.12, text, size=6, color=PALE, ha="center", va="center")
        x += space
    return fig


def composition_chart(
    clusters: list[str], bars: list[Bars], *, title: str, notes: str = ""
) -> Figure:
    """Draw what clusters are made of: a bar a cluster, in the colors of batches or cell types.

    Parameters
    ----------
    clusters
        Their names, in the order of the rows; of more than 60 the largest are drawn.
    bars
        One column of bars for each way to group the cells.
    title, notes
        Above the chart.

    Returns
    -------
    matplotlib.figure.Figure
        For `evaluation.figures.embedding.save_figure`.
    """
    sizes = bars[0].counts.sum(axis=1)
    shown = np.sort(np.argsort(-sizes, kind="stable")[:ROWS_MOST])
    if len(shown) < len(clusters):
        notes = f"the {len(shown)} largest of {len(clusters)} clusters. {notes}"
    line, length = 0.2, 3.0
    names = [clusters[i] for i in shown]
    left = 0.95 + text_width(names)
    height = max(line * len(shown), 2.6)  # room for the legend
    sides = []
    for bar in bars:
        totals = [bar.counts.sum(axis=0)]
        sides.append(legend_table(bar.groups, palette(len(bar.groups)), totals,
                                  [int(totals[0].sum())], height))  # fmt: skip
    widths = [length + 0.15 + sum(map(column_width, side)) + 0.25 for side in sides]
    width = left + sum(widths)
    fold = textwrap.wrap(notes, max(int((width - 0.4) / 0.066), 30))
    top = 0.45 + 0.15 * len(fold) + 0.3
    fig, page = new_page(width, top + height + 0.2)
    write_title(page, title, notes, width=width)
    y = top + (np.arange(len(shown)) + 0.5) * line
    for name, size, at in zip(names, sizes[shown], y, strict=True):
        write(page, left - 0.75, at, short(name), size=8.5, ha="right", va="center")
        write(page, left - 0.1, at, f"{size:,}", size=8, color=PALE, ha="right", va="center")
    x = left
    for bar, side, space in zip(bars, sides, widths, strict=True):
        write(page, x, top - 0.1, bar.title, size=9, weight="bold", va="bottom")
        counts = bar.counts[shown]
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        start = np.cumsum(share, axis=1) - share
        row, code = np.nonzero(counts)
        low, high = y[row] - line * 0.41, y[row] + line * 0.41
        first = x + start[row, code] * length
        last = first + share[row, code] * length
        corners = [[first, low], [last, low], [last, high], [first, high]]
        shapes = np.array(corners).transpose(2, 0, 1)
        colors = palette(len(bar.groups))[code]
        page.add_collection(PolyCollection(shapes, facecolors=colors, linewidths=0))
        draw_legend(page, side, x + length + 0.15, top)
        x += space
    return fig


def score_charts(table: pd.DataFrame, *, title: str) -> Iterator[tuple[str, Figure]]:
    """Draw the scores of several methods: over all cells, and by each column that groups cells.

    Parameters
    ----------
    table
        As `evaluation.scores.metrics.method_metrics` makes it, with a column `method` in addition.
    title
        Usually the data set's name.

    Yields
    ------
    tuple
        A name (`metrics`, `metrics_by_{column}`) and a figure.
    """
    methods = list(dict.fromkeys(table["method"]))
    several = table.groupby("metric")["key"].nunique().max() > 1
    names = table["metric"] + " (" + table["key"] + ")" if several else table["metric"]
    table = table.assign(name=names)
    whole = table[table["group"] == "all"].pivot_table(
        "value", index="method", columns="name", aggfunc="first"
    )
    panels = []
    for heading, metrics in (("batches are mixed", BATCH_METRICS),
                             ("cell types are kept", LABEL_METRICS)):  # fmt: skip
        columns = list(dict.fromkeys(table.loc[table["metric"].isin(metrics), "name"]))
        if columns:
            values = whole.reindex(index=methods, columns=columns).to_numpy(float)
            panels.append(Panel(heading, columns, values))
    yield "metrics", dot_chart(methods, panels, title=f"{title}: all cells", notes=NOTES)
    for by, part in table[table["group_by"] != ""].groupby("group_by", sort=False):
        sizes = part.groupby("group", sort=False)["n_cells"].max()
        groups = [g for g in sizes.index if g in set(sizes.nlargest(ROWS_MOST).index)]
        panels = []
        for name, rows in part.groupby("name", sort=False):
            values = rows.pivot_table("value", index="group", columns="method", aggfunc="first")
            values = values.reindex(index=groups, columns=methods).to_numpy(float)
            panels.append(Panel(name, methods, values))
        yield f"metrics_by_{by}", dot_chart(groups, panels, title=f"{title}: by {by}", notes=NOTES)
