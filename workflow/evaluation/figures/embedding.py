"""Pictures of an embedding: cells in two dimensions, colored by a column of metadata.

`plot_embedding` draws one picture, `compare_embeddings` several beside each other with one legend.
Every random choice is seeded, so that the same input gives the same bytes.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluation.figures.color_scale import MISSING, PALE, color_scale
from evaluation.figures.column_values import natural_sort_key, read_values
from evaluation.figures.dots import Picture, color_cells, paint_cells
from evaluation.figures.legend import column_width, draw_color_bar, draw_legend, legend_table
from evaluation.figures.page import DPI, Heading, drawable, new_page, shorten, write_text
from evaluation.figures.text_places import (
    draw_labels,
    labeled_categories,
    labels_fit,
    place_labels,
)
from utils.palette import palette, rgb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from evaluation.figures.column_values import Values

    Shade = Callable[[np.ndarray], np.ndarray]  # from codes or numbers to sRGB, 0 to 255

PANEL = 5.0  # inches, height of a panel; its width follows the data's shape


class _Panel(NamedTuple):
    """One embedding, ready to be drawn: only cells that have coordinates."""

    title: str
    xy: np.ndarray
    data: np.ndarray  # codes of names (-1: missing), or numbers (NaN: missing)
    corner: np.ndarray  # lower left corner of the window, in data units
    span: np.ndarray  # width and height of the window, in data units
    width: float  # inches
    dropped: int  # cells without coordinates

    @property
    def positions(self) -> np.ndarray:
        """Each cell's position as a fraction of the window."""
        return (self.xy - self.corner) / self.span

    @property
    def window(self) -> np.ndarray:
        """Width and height of the window in points."""
        return np.array([self.width, PANEL]) * 72


def plot_embedding(
    coordinates: ArrayLike,
    values: Values,
    *,
    title: str,
    on_data_labels: bool | None = None,
    axis_name: str = "UMAP",
    seed: int = 0,
) -> Figure:
    """Draw the cells of an embedding, colored by one column of metadata.

    Text, bool and categorical values get one color per category, numbers a color scale from
    their 1 % to their 99 % quantile. Cells are drawn in random order, so that which of two hides
    the other does not depend on their order in the data. Cells without a value lie underneath in
    gray; cells without coordinates are left out. Both are counted in the figure.

    Parameters
    ----------
    coordinates
        Shape (n, 2), numbers.
    values
        Length n, in the order of the cells (an index is ignored).
    title
        Usually the column's name; the number of cells is added.
    on_data_labels
        Write the categories' names on the cells, in place of a legend. By default where all names
        are short and most cells lie among cells of their category, as those of clusters do. With
        True, numbers are taken as categories.
    axis_name
        Name of the axes: ``UMAP`` gives ``UMAP 1`` and ``UMAP 2``.
    seed
        Of the order in which the cells are drawn.

    Returns
    -------
    matplotlib.figure.Figure
        For `evaluation.figures.page.save_figure`.

    Raises
    ------
    ValueError
        If the shapes do not fit, or no cell has coordinates.
    TypeError
        If the coordinates are not numbers.

    Notes
    -----
    Peak memory besides the input: about 100 bytes per cell and 50 MB.
    """
    return compare_embeddings(
        [(title, coordinates, values)],
        on_data_labels=on_data_labels,
        axis_name=axis_name,
        seed=seed,
    )


def compare_embeddings(
    panels: Sequence[tuple[str, ArrayLike, Values]],
    *,
    title: str | None = None,
    on_data_labels: bool | None = None,
    axis_name: str = "UMAP",
    seed: int = 0,
    columns: int = 3,
) -> Figure:
    """Draw embeddings beside each other, with the same colors and one legend.

    Parameters
    ----------
    panels
        Title, coordinates and values of each, as in `plot_embedding`. Either all values are
        numbers, or none are. The legend counts cells only where the counts agree in all panels.
    title
        Of the whole figure.
    on_data_labels, axis_name, seed
        As in `plot_embedding`.
    columns
        Panels in a row.

    Returns
    -------
    matplotlib.figure.Figure
        For `evaluation.figures.page.save_figure`.

    Raises
    ------
    ValueError
        If there is no panel, numbers and categories are mixed, or a panel is not valid by itself.
    TypeError
        If coordinates are not numbers.
    """
    if not panels or columns < 1:
        raise ValueError(f"nothing to draw: {len(panels)} panels in {columns} columns")
    titles = [panel_title for panel_title, _, _ in panels]
    as_categories = on_data_labels is True
    read = [read_values(v, title=t, as_categories=as_categories) for t, _, v in panels]
    names, values = _shared(read, titles)
    drawn = [_panel(t, xy, v) for (t, xy, _), v in zip(panels, values, strict=True)]

    labeled = np.array([], dtype=int)
    if names is None:
        scale, extend = color_scale(np.concatenate([p.data for p in drawn]))
        drawn = [p._replace(data=np.clip(p.data, *scale.get_clim())) for p in drawn]
    else:
        colors = palette(len(names))
        counts = [np.bincount(p.data[p.data >= 0], minlength=len(names)) for p in drawn]
        if on_data_labels is None:
            on_data_labels = labels_fit(names, drawn[0].data, drawn[0].positions)
        if on_data_labels:
            labeled = labeled_categories(names, sum(counts), drawn[0].window)

    def shade(data: np.ndarray) -> np.ndarray:
        if names is None:
            return scale.to_rgba(data, bytes=True)[:, :3]
        return np.rint(255 * np.vstack([colors, rgb(MISSING)])).astype(np.uint8)[data]

    # Where everything goes, from the top left corner of the page.
    headings = [_heading(p, names, len(labeled)) for p in drawn]
    left, gap, below = 0.4, 0.45, 0.45
    lefts, right = [], left
    for i in range(min(columns, len(drawn))):
        lefts.append(_whole_pixels(right))
        right += max(p.width for p in drawn[i::columns]) + gap
    tops, bottom = [], 0.15 + 0.35 * bool(title)
    for i in range(0, len(drawn), columns):
        row_heading = max(heading.height for heading in headings[i : i + columns])
        bottom = _whole_pixels(bottom + row_heading + 0.08)
        tops.append(bottom)
        bottom += PANEL + below
    legend, legend_width = [], 0.0
    if names is None:
        legend_width = 1.2
    elif not on_data_labels:
        n_cells = [len(p.data) for p in drawn]
        legend = legend_table(names, colors, counts, n_cells, bottom - below - tops[0])
        legend_width = sum(map(column_width, legend))
    width = right - gap + 0.15 + (legend_width + 0.15 if legend_width else 0)

    fig, page = new_page(_whole_pixels(width), _whole_pixels(bottom))
    if title:
        write_text(page, left, 0.15, shorten(title, 100), size=14, weight="bold", va="top")
    for i, panel in enumerate(drawn):
        x, y = lefts[i % columns], tops[i // columns]
        headings[i].write(page, x, y - headings[i].height - 0.08)
        _draw_arrows(page, x, y + PANEL, drawable(axis_name))
        page.add_artist(Picture(_cell_pixels(panel, shade, seed), x, y + PANEL))
        if len(labeled):
            _write_labels(page, panel, names, labeled, x, y + PANEL)
    if names is None:
        missing = [int(np.isnan(p.data).sum()) for p in drawn]
        draw_color_bar(page, scale, extend, missing, right - gap + 0.2, tops[0], PANEL * 0.6)
    else:
        draw_legend(page, legend, right - gap + 0.2, tops[0])
    return fig


def _shared(
    columns: list[tuple[list[str] | None, np.ndarray]], titles: list[str]
) -> tuple[list[str] | None, list[np.ndarray]]:
    """Give all panels the same names, and codes that point to them."""
    kinds = ["numbers" if names is None else "categories" for names, _ in columns]
    if len(set(kinds)) > 1:
        parts = ", ".join(f'"{t}" {kind}' for t, kind in zip(titles, kinds, strict=True))
        raise ValueError(f"panels with one legend must hold the same kind of values: {parts}")
    shared = columns[0][0]
    if shared is None:
        return None, [data for _, data in columns]
    union = set().union(*(names for names, _ in columns))
    if len(union) > len(shared):
        shared = sorted(union, key=natural_sort_key)
    code = {name: i for i, name in enumerate(shared)}
    return shared, [
        np.array([*(code[name] for name in names), -1], dtype=np.int32)[data]
        for names, data in columns
    ]


def _panel(title: str, coordinates: ArrayLike, values: np.ndarray) -> _Panel:
    """Check one embedding, drop the cells without coordinates, and find the window to show."""
    xy = np.asarray(coordinates)
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise ValueError(f"{title}: coordinates must have shape (cells, 2), found {xy.shape}")
    if xy.dtype.kind not in "fiu":
        raise TypeError(f"{title}: coordinates must be numbers, found dtype {xy.dtype}")
    if len(xy) != len(values):
        raise ValueError(f"{title}: {len(xy)} cells have coordinates, {len(values)} have values")
    finite = np.isfinite(xy).all(axis=1)
    dropped = len(xy) - int(finite.sum())
    if dropped == len(xy):
        raise ValueError(f"{title}: none of the {len(xy)} cells has finite coordinates to draw")
    if dropped:
        xy, values = xy[finite], values[finite]
    low, high = xy.min(axis=0).astype(float), xy.max(axis=0).astype(float)
    span = (high - low) * 1.06
    span[span == 0] = span.max() or 1.0
    aspect = float(np.clip(span[0] / span[1], 0.7, 1.6))
    span = np.maximum(span, [span[1] * aspect, span[0] / aspect])
    width = _whole_pixels(PANEL * aspect)
    return _Panel(str(title), xy, values, (low + high - span) / 2, span, width, dropped)


def _whole_pixels(inches: float) -> float:
    """Round a length to pixels: the cells' picture is drawn as it is."""
    return round(inches * DPI) / DPI


def _heading(panel: _Panel, names: list[str] | None, n_labels: int) -> Heading:
    """Write the title, and what the reader must know about the picture."""
    n = len(panel.xy)
    notes = [f"{n:,} cell{'s' * (n != 1)}"]
    if names is not None:
        notes.append(f"{len(names):,} categor{'y' if len(names) == 1 else 'ies'}")
    if n_labels and n_labels < len(names):
        notes.append(f"labels on the {n_labels} largest")
    if n_labels and (missing := int((panel.data < 0).sum())):
        notes.append(f"{missing:,} without a value, in gray")
    if panel.dropped:
        notes.append(f"{panel.dropped:,} without coordinates, left out")

    def fold(text: str, letter: float) -> list[str]:
        width = int(panel.width / letter)
        return textwrap.wrap(text, width, max_lines=3, placeholder=" …")

    return Heading(fold(drawable(panel.title), 0.118) or [""], fold(" · ".join(notes), 0.068))


def _draw_arrows(page: Axes, x: float, y: float, name: str) -> None:
    """Name the axes at the lower left corner: their numbers mean nothing, their directions do."""
    x, y, length = x - 0.1, y + 0.1, 0.55
    arrow = {"arrowstyle": "-|>", "color": PALE, "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
    for end in ((x + length, y), (x, y - length)):
        page.annotate("", xy=end, xytext=(x, y), arrowprops=arrow)
    style = {"size": 7, "color": PALE}
    write_text(page, x, y + 0.05, f"{name} 1", va="top", **style)
    write_text(page, x - 0.05, y, f"{name} 2", ha="right", va="bottom", rotation=90, **style)


def _cell_pixels(panel: _Panel, shade: Shade, seed: int) -> np.ndarray:
    """Draw cells in random order over those without a value."""
    area = np.clip(0.4 * 72**2 * PANEL * panel.width / len(panel.xy), 0.5, 16)
    dots = paint_cells(
        panel.positions,
        panel.data >= 0 if panel.data.dtype.kind == "i" else ~np.isnan(panel.data),
        wide=round(panel.width * DPI),
        high=round(PANEL * DPI),
        diameter=float(np.sqrt(area)) / 72 * DPI,
        seed=seed,
    )
    return color_cells(dots, shade(panel.data))


def _write_labels(
    page: Axes, panel: _Panel, names: list[str], labeled: np.ndarray, x: float, bottom: float
) -> None:
    """Write the names of those categories that the panel has."""
    present = labeled[np.isin(labeled, panel.data)]
    if not len(present):
        return
    lookup = np.full(len(names) + 1, -1)
    lookup[present] = np.arange(len(present))
    texts = [shorten(names[i]) for i in present]
    places = place_labels(texts, lookup[panel.data], panel.positions, panel.window)
    draw_labels(page, texts, places, x, bottom)
