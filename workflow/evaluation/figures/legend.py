"""What is written on a figure: text that fits, the legend of categories and the color bar.

The page is an Axes over the whole figure, in inches from the top left corner.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.path import Path
from matplotlib.textpath import text_to_path

from evaluation.figures.color_scale import INK, MISSING, PALE
from utils.palette import rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

ROW = 0.19  # height of a row of the legend
LEGEND_MOST = 60  # categories that the legend lists
NAME_LENGTH = 40  # characters of a category's name
FONT = "DejaVu Sans"  # comes with matplotlib: the same letters on every machine


def clean(text: object) -> str:
    """Replace what cannot be drawn: white space by a space, letters the font lacks by a mark."""
    font = get_font(findfont(FontProperties(family=FONT)))
    return "".join(
        " " if letter.isspace() else letter if font.get_char_index(ord(letter)) else "\ufffd"
        for letter in str(text)
    )


@lru_cache(maxsize=4096)  # the columns of a data set share names
def short(name: str, most: int = NAME_LENGTH) -> str:
    """Cut a long name in its middle: names often differ at their end."""
    name = clean(name).strip() or "(empty)"
    tail = most // 3
    return name if len(name) <= most else f"{name[: most - tail - 1]}…{name[-tail:]}"


@lru_cache(maxsize=4096)
def extent(text: str, size: float, weight: str = "normal") -> np.ndarray:
    """Width and height of a text in points."""
    font = FontProperties(family=FONT, size=size, weight=weight)
    measured = RendererAgg(8, 8, 72).get_text_width_height_descent(text, font, ismath=False)
    return np.array(measured[:2])


@lru_cache(maxsize=4096)
def outline(text: str, size: float, weight: str = "normal") -> Path:
    """Shape of a text in points, around the middle of its width and of a digit's height."""
    font = FontProperties(family=FONT, weight=weight)
    corners, codes = text_to_path.get_text_path(font, text, ismath=False)
    corners = np.reshape(corners, (-1, 2)) * (size / text_to_path.FONT_SCALE)
    return Path(corners - (extent(text, size, weight)[0] / 2, 0.365 * size), codes)


def write(ax: Axes, x: float, y: float, text: str, **style: object) -> None:
    """Write a text in the house's font and ink; a dollar sign in a name is no formula."""
    style = {"color": INK, "fontfamily": FONT, "parse_math": False, **style}
    ax.text(x, y, text, **style)


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

    entries = [Entry(short(names[i]), number(total[i]), colors[i], INK) for i in shown]
    if len(rest):
        entries.append(Entry(f"and {len(rest):,} more", number(total[rest].sum())))
    if missing:
        entries.append(Entry("no value", number(missing), rgb(MISSING)))
    n_columns = -(-len(entries) // int(height / ROW))
    length = -(-len(entries) // n_columns)
    return [entries[i : i + length] for i in range(0, len(entries), length)]


def column_width(column: list[Entry]) -> float:
    """Width of a column of the legend in inches, with the space beside it."""
    name = max(extent(entry.name, 8.5)[0] for entry in column)
    number = max(extent(entry.number, 8.5)[0] for entry in column)
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
            write(page, x + 0.2, y, entry.name, color=entry.ink, **style)
            write(page, x + width - 0.2, y, entry.number, color=PALE, ha="right", **style)
        x += width
    if dots:
        at_x, at_y, colors = zip(*dots, strict=True)
        page.scatter(at_x, at_y, s=38, c=colors, linewidths=0)


def draw_bar(
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
    fig = page.figure
    width, height = fig.get_size_inches()
    bar = fig.add_axes((x / width, 1 - (top + length) / height, 0.15 / width, length / height))
    fig.colorbar(scale, cax=bar, extend=extend, extendfrac=0.03, format=lambda v, _: f"{v:,.6g}")
    bar.tick_params(labelsize=8, labelcolor=INK, labelfontfamily=FONT, color=PALE, width=0.6)
    for spine in bar.spines.values():
        spine.set_visible(False)
    y = top + length + 0.2
    style = {"size": 7, "color": PALE, "va": "center_baseline"}
    if extend != "neither":
        write(page, x, y, "colors: 1 % to", **style)
        write(page, x, y + 0.14, "99 % quantile", **style)
        y += 0.34
    if any(missing):
        page.scatter(x + 0.06, y, s=38, color=MISSING, linewidths=0)
        number = f" {missing[0]:,}" if len(set(missing)) == 1 else ""
        write(page, x + 0.17, y, f"no value{number}", **style)
