"""Charts of tables: scores as dots, the composition of clusters as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import PolyCollection
from matplotlib.patches import Rectangle

from evaluation.figures.color_scale import COLORMAP, PALE
from evaluation.figures.legend import column_width, draw_legend, legend_table
from evaluation.figures.page import new_page, page_heading, shorten, text_width, write_text
from evaluation.scores.metrics import BATCH_METRICS, LABEL_METRICS
from utils.palette import palette

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from matplotlib.figure import Figure

SCORE_NOTES = (
    "1 is best, 0 is worst. Read both halves together: what mixes everything keeps no cell type. "
    "The batch silhouette is left out on purpose. Scores of a graph depend on its number of "
    "neighbors; scores against labels that were made from the same embedding are circular."
)
MAX_ROWS = 60  # of a chart; of more, the largest are drawn


class Panel(NamedTuple):
    """Columns that are drawn together in a chart of dots."""

    title: str
    columns: list[str]
    scores: np.ndarray  # rows x columns, 0 to 1; NaN where there is none


class Bars(NamedTuple):
    """The composition of clusters, for a chart of bars."""

    title: str
    groups: list[str]
    counts: np.ndarray  # clusters x groups


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
        For `evaluation.figures.page.save_figure`.
    """
    step, line, gap = 0.5, 0.36, 0.25
    left = 0.35 + text_width(rows)
    slant = text_width([c for p in panels for c in p.columns]) * 0.7 + 0.1
    # A panel is at least as wide as its title.
    widths = [max(step * len(p.columns), text_width([p.title]) * 1.12) + gap for p in panels]
    width = max(left + sum(widths) + slant - gap, 4.0)
    heading = page_heading(title, notes, width)
    top = 0.2 + heading.height + (0.3 + slant)
    fig, page = new_page(width, top + line * len(rows) + 0.15, heading)
    for i, row in enumerate(rows):
        y = top + (i + 0.5) * line
        write_text(page, left - 0.12, y, shorten(row), size=8.5, ha="right", va="center")
        if i % 2 == 0:
            band = Rectangle((0.1, y - line / 2), width - slant - 0.1, line, color="#f6f6f6", lw=0)
            page.add_patch(band)
    x = left
    for panel, space in zip(panels, widths, strict=True):
        write_text(
            page, x + 0.05, top - slant - 0.12, panel.title, size=8.5, weight="bold", va="bottom"
        )
        for i, column in enumerate(panel.columns):
            write_text(page, x + (i + 0.5) * step - 0.05, top - 0.05, shorten(column), size=8.5,
                  rotation=45, ha="left", va="bottom", rotation_mode="anchor")  # fmt: skip
        row, column = np.indices(panel.scores.shape)
        dot_x = x + (column + 0.5) * step
        dot_y = top + (row + 0.5) * line
        known = np.isfinite(panel.scores)
        values = panel.scores[known]
        page.scatter(dot_x[known], dot_y[known] - 0.05, s=12 + 130 * values, linewidths=0,
                     c=colormaps[COLORMAP](values))  # fmt: skip
        for at_x, at_y, value in zip(dot_x.flat, dot_y.flat, panel.scores.flat, strict=True):
            text = f"{value:.2f}" if np.isfinite(value) else "none"
            write_text(page, at_x, at_y + 0.12, text, size=6, color=PALE, ha="center", va="center")
        x += space
    return fig


def composition_chart(
    clusters: list[str], bars: list[Bars], *, title: str, notes: str = ""
) -> Figure:
    """Draw the composition of clusters: a bar per cluster, in the colors of batches or cell types.

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
        For `evaluation.figures.page.save_figure`.
    """
    sizes = bars[0].counts.sum(axis=1)
    shown = np.sort(np.argsort(-sizes, kind="stable")[:MAX_ROWS])
    if len(shown) < len(clusters):
        notes = f"the {len(shown)} largest of {len(clusters)} clusters. {notes}"
    line, length = 0.2, 3.0
    names = [clusters[i] for i in shown]
    left = 0.95 + text_width(names)
    height = max(line * len(shown), 2.6)  # room for the legend
    legends = []
    for bar in bars:
        totals = bar.counts.sum(axis=0)
        colors = palette(len(bar.groups))
        legends.append(legend_table(bar.groups, colors, [totals], [int(totals.sum())], height))
    widths = [length + 0.15 + sum(map(column_width, legend)) + 0.25 for legend in legends]
    width = left + sum(widths)
    heading = page_heading(title, notes, width)
    top = 0.2 + heading.height + 0.3
    fig, page = new_page(width, top + height + 0.2, heading)
    y = top + (np.arange(len(shown)) + 0.5) * line
    for name, size, at_y in zip(names, sizes[shown], y, strict=True):
        write_text(page, left - 0.75, at_y, shorten(name), size=8.5, ha="right", va="center")
        write_text(page, left - 0.1, at_y, f"{size:,}", size=8, color=PALE, ha="right", va="center")
    x = left
    for bar, legend, space in zip(bars, legends, widths, strict=True):
        write_text(page, x, top - 0.1, bar.title, size=9, weight="bold", va="bottom")
        counts = bar.counts[shown]
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        start = np.cumsum(share, axis=1) - share
        row, code = np.nonzero(counts)
        low, high = y[row] - line * 0.41, y[row] + line * 0.41
        first = x + start[row, code] * length
        last = first + share[row, code] * length
        corners = [[first, low], [last, low], [last, high], [first, high]]
        boxes = np.array(corners).transpose(2, 0, 1)
        colors = palette(len(bar.groups))[code]
        page.add_collection(PolyCollection(boxes, facecolors=colors, linewidths=0))
        draw_legend(page, legend, x + length + 0.15, top)
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
    overall = table[table["group"] == "all"].pivot_table(
        "value", index="method", columns="name", aggfunc="first"
    )
    panels = []
    for heading, metrics in (("batches are mixed", BATCH_METRICS),
                             ("cell types are kept", LABEL_METRICS)):  # fmt: skip
        columns = list(dict.fromkeys(table.loc[table["metric"].isin(metrics), "name"]))
        if columns:
            values = overall.reindex(index=methods, columns=columns).to_numpy(float)
            panels.append(Panel(heading, columns, values))
    yield "metrics", dot_chart(methods, panels, title=f"{title}: all cells", notes=SCORE_NOTES)
    for by, part in table[table["group_by"] != ""].groupby("group_by", sort=False):
        sizes = part.groupby("group", sort=False)["n_cells"].max()
        groups = [g for g in sizes.index if g in set(sizes.nlargest(MAX_ROWS).index)]
        panels = []
        for name, rows in part.groupby("name", sort=False):
            values = rows.pivot_table("value", index="group", columns="method", aggfunc="first")
            values = values.reindex(index=groups, columns=methods).to_numpy(float)
            panels.append(Panel(name, methods, values))
        yield (
            f"metrics_by_{by}",
            dot_chart(groups, panels, title=f"{title}: by {by}", notes=SCORE_NOTES),
        )
