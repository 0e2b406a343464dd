"""The legend of categories and the color bar of numbers, on a page (`evaluation.figures.page`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluation.figures.color_scale import INK, MISSING, PALE
from evaluation.figures.page import FONT, add_axes, shorten, text_extent, write_text
from utils.palette import rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

ROW = 0.19  # height of a row of the legend
LEGEND_MOST = 60  # categories that the legend lists


class Entry(NamedTuple):
    """A line of the legend."""

    name: str
    number: str
    color: np.ndarray | None = None  # of its dot
    ink: str = PALE  # of its name


def legend_table(
    names: list[str],
    colors: np.ndarray,
    counts: list[np.ndarray],
    n_cells: list[int],
    height: float,
) -> list[list[Entry]]:
    """List the largest categories in their order, how many more there are, and the missing.

    `counts` and `n_cells` hold, of each panel, the cells per category and all cells; they are
    written where they agree. The list is folded into as few columns as fit in `height` inches.
    """
    agree = all(np.array_equal(count, counts[0]) for count in counts) and len(set(n_cells)) == 1
    total = sum(counts)
    shown = np.sort(np.argsort(-total, kind="stable")[:LEGEND_MOST])
    rest = np.setdiff1d(np.arange(len(names)), shown)
    missing = sum(n_cells) - int(total.sum())

    def number(cells: int) -> str:
        return f"{cells // len(counts):,}" if agree else ""

    entries = [Entry(shorten(names[i]), number(total[i]), colors[i], INK) for i in shown]
    if len(rest):
        entries.append(Entry(f"and {len(rest):,} more", number(total[rest].sum())))
    if missing:
        entries.append(Entry("no value", number(missing), rgb(MISSING)))
    n_columns = -(-len(entries) // int(height / ROW))
    length = -(-len(entries) // n_columns)
    return [entries[i : i + length] for i in range(0, len(entries), length)]


def column_width(column: list[Entry]) -> float:
    """Width of a column of the legend in inches, with the space beside it."""
    name = max(text_extent(entry.name, 8.5)[0] for entry in column)
    number = max(text_extent(entry.number, 8.5)[0] for entry in column)
    return 0.2 + (name + number) / 72 + (0.12 if number else 0) + 0.2


def draw_legend(page: Axes, columns: list[list[Entry]], x: float, top: float) -> None:
    """Draw the columns of the legend beside each other."""
    dots = []
    for column in columns:
        width = column_width(column)
        for row, entry in enumerate(column):
            y = top + (row + 0.5) * ROW
            if entry.color is not None:
                dots.append((x + 0.06, y, entry.color))
            style = {"size": 8.5, "va": "center_baseline"}
            write_text(page, x + 0.2, y, entry.name, color=entry.ink, **style)
            write_text(page, x + width - 0.2, y, entry.number, color=PALE, ha="right", **style)
        x += width
    if dots:
        at_x, at_y, colors = zip(*dots, strict=True)
        page.scatter(at_x, at_y, s=38, c=colors, linewidths=0)


def draw_color_bar(
    page: Axes,
    scale: ScalarMappable,
    extend: str,
    missing: list[int],
    x: float,
    top: float,
    length: float,
) -> None:
    """Draw the color bar, pointed where values lie beyond it, and name the missing values.

    `missing` counts them in each panel; the number is written where all agree.
    """
    bar = add_axes(page, x, top, 0.15, length)
    page.figure.colorbar(
        scale, cax=bar, extend=extend, extendfrac=0.03, format=lambda v, _: f"{v:,.6g}"
    )
    bar.tick_params(labelsize=8, labelcolor=INK, labelfontfamily=FONT, color=PALE, width=0.6)
    for spine in bar.spines.values():
        spine.set_visible(False)
    y = top + length + 0.2
    style = {"size": 7, "color": PALE, "va": "center_baseline"}
    if extend != "neither":
        write_text(page, x, y, "colors: 1 % to", **style)
        write_text(page, x, y + 0.14, "99 % quantile", **style)
        y += 0.34
    if any(missing):
        page.scatter(x + 0.06, y, s=38, color=MISSING, linewidths=0)
        number = f" {missing[0]:,}" if len(set(missing)) == 1 else ""
        write_text(page, x + 0.17, y, f"no value{number}", **style)
