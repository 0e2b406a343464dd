"""Pictures of an embedding: cells in two dimensions, colored by a column of metadata.

`plot_embedding` draws one picture, `compare_embeddings` several beside each other with one legend,
`save_figure` writes either, and `file_stem` names the file after the column. Figures are made
without pyplot: no global state, no display. All sizes are in inches, text is measured before it is
placed, and every random choice is seeded, so that the same input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evaluation.figures.color_scale import MISSING, PALE, color_scale
from evaluation.figures.column_values import rank, read_values
from evaluation.figures.dots import Picture, color, paint
from evaluation.figures.legend import (
    clean,
    column_width,
    draw_bar,
    draw_legend,
    legend_table,
    short,
    write,
)
from evaluation.figures.text_places import draw_labels, labels_fit, largest, place_labels
from utils.palette import palette, rgb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

    from evaluation.figures.column_values import Values

    Shade = Callable[[np.ndarray], np.ndarray]  # from codes or numbers to sRGB, 0 to 255

DPI = 150
PANEL = 5.0  # height of a panel; its width follows the data's shape
# What would differ between two runs, or between two versions of matplotlib.
VARYING = {
    ".png": {},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None},
}


class _Panel(NamedTuple):
    """One embedding, ready to be drawn: only cells that have a place."""

    title: str
    xy: np.ndarray
    data: np.ndarray  # codes of names (-1: missing), or numbers (NaN: missing)
    corner: np.ndarray  # lower left corner of the window, in data units
    span: np.ndarray  # its width and height
    width: float  # inches
    dropped: int  # cells without coordinates

    @property
    def places(self) -> np.ndarray:
        """Find each cell's place as a fraction of the window."""
        return (self.xy - self.corner) / self.span

    @property
    def window(self) -> np.ndarray:
        """Width and height in points."""
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
    their 1 % to their 99 % quantile. Cells are drawn in random order, so that none hides another
    because of where it stands in the data. Cells without a value lie underneath in gray; cells
    without coordinates are left out. Both are counted in the figure.

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
        are short and most cells lie among their own, as those of clusters do. With True, numbers
        are taken as categories.
    axis_name
        Name of the axes: ``UMAP`` gives ``UMAP 1`` and ``UMAP 2``.
    seed
        Of the order in which the cells are drawn.

    Returns
    -------
    matplotlib.figure.Figure
        For `save_figure`.

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
        For `save_figure`.

    Raises
    ------
    ValueError
        If there is no panel, numbers and categories are mixed, or a panel is not valid by itself.
    TypeError
        If coordinates are not numbers.
    """
    if not panels or columns < 1:
        raise ValueError(f"nothing to draw: {len(panels)} panels in {columns} columns")
    read = [read_values(v, title=t, as_categories=on_data_labels is True) for t, _, v in panels]
    names, values = _shared(read, [t for t, _, _ in panels])
    drawn = [_panel(t, xy, v) for (t, xy, _), v in zip(panels, values, strict=True)]

    labeled = np.array([], dtype=int)
    if names is None:
        scale, extend = color_scale(np.concatenate([p.data for p in drawn]))
        drawn = [p._replace(data=np.clip(p.data, *scale.get_clim())) for p in drawn]
    else:
        colors = palette(len(names))
        counts = [np.bincount(p.data[p.data >= 0], minlength=len(names)) for p in drawn]
        if on_data_labels is None:
            on_data_labels = labels_fit(names, drawn[0].data, drawn[0].places)
        if on_data_labels:
            labeled = largest(names, sum(counts), drawn[0].window)

    def shade(data: np.ndarray) -> np.ndarray:
        if names is None:
            return scale.to_rgba(data, bytes=True)[:, :3]
        return np.rint(255 * np.vstack([colors, rgb(MISSING)])).astype(np.uint8)[data]

    # Where everything goes, from the top left corner of the page.
    headers = [_header(p, names, len(labeled)) for p in drawn]
    left, gap, below = 0.4, 0.45, 0.45
    lefts, right = [], left
    for i in range(min(columns, len(drawn))):
        lefts.append(_whole(right))
        right += max(p.width for p in drawn[i::columns]) + gap
    tops, bottom = [], 0.15 + 0.35 * bool(title)
    for i in range(0, len(drawn), columns):
        bottom = _whole(bottom + max(map(_header_height, headers[i : i + columns])))
        tops.append(bottom)
        bottom += PANEL + below
    legend, side = [], 0.0
    if names is None:
        side = 1.2
    elif not on_data_labels:
        n_cells = [len(p.data) for p in drawn]
        legend = legend_table(names, colors, counts, n_cells, bottom - below - tops[0])
        side = sum(map(column_width, legend))
    width, height = _whole(right - gap + 0.15 + (side + 0.15 if side else 0)), _whole(bottom)

    fig = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(fig)
    page = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), zorder=5)
    page.axis("off")
    page.patch.set_visible(False)
    if title:
        write(page, left, 0.15, short(title, 100), size=14, weight="bold", va="top")
    for i, panel in enumerate(drawn):
        x, y = lefts[i % columns], tops[i // columns]
        _write_header(page, headers[i], x, y)
        _draw_arrows(page, x, y + PANEL, clean(axis_name))
        page.add_artist(Picture(_cells(panel, shade, seed), x, y + PANEL))
        if len(labeled):
            _write_labels(page, panel, names, labeled, x, y + PANEL)
    if names is None:
        missing = [int(np.isnan(p.data).sum()) for p in drawn]
        draw_bar(page, scale, extend, missing, right - gap + 0.2, tops[0], PANEL * 0.6)
    else:
        draw_legend(page, legend, right - gap + 0.2, tops[0])
    return fig


def save_figure(fig: Figure, path: str | Path) -> None:
    """Write a figure as PNG, PDF or SVG: whole or not at all, the same bytes in every run.

    Parameters
    ----------
    fig
        From `plot_embedding` or `compare_embeddings`.
    path
        Its ending names the format. Missing folders are made.

    Raises
    ------
    ValueError
        If the ending is none of .png, .pdf and .svg.
    """
    from utils.atomic import atomic_file

    suffix = figure_format(path)
    with atomic_file(path) as temporary, rc_context({"svg.hashsalt": "cellstrata"}):
        if suffix == ".png":
            _write_png(fig, temporary)
        else:
            fig.savefig(temporary, format=suffix[1:], dpi=DPI, metadata=VARYING[suffix])


def _write_png(fig: Figure, path: Path) -> None:
    """Write pixels without transparency, of which there is none: a quarter less to compress."""
    from PIL import Image

    fig.set_dpi(DPI)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    pixels = np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:, :, :3])
    # Dots hardly compress: a higher level takes longer and saves nothing.
    Image.fromarray(pixels).save(path, format="PNG", dpi=(DPI, DPI), compress_level=2)


def figure_format(path: str | Path) -> str:
    """Return a figure's ending, or raise a ValueError that names those there are."""
    suffix = Path(path).suffix.lower()
    if suffix not in VARYING:
        raise ValueError(f"{path}: a figure is written as .png, .pdf or .svg, not {suffix!r}")
    return suffix


def file_stem(column: object) -> str:
    """Name a file after a column: readable, safe on every file system, one per column.

    Names of lower-case ASCII letters, digits and ``._+-`` stay as they are (``cell_type``,
    ``leiden_0.5_2``). In others, and in those longer than 80 characters, what is unsafe is
    replaced and a hash of the name added. Upper-case letters are kept, but call for the hash
    (``X_umap-7eebc759``): on many disks ``X`` and ``x`` are one file.

    Parameters
    ----------
    column
        Name of a column of obs, of any length and in any script.

    Returns
    -------
    str
        1 to 80 ASCII characters, without a file ending, that differ in more than case.
    """
    name = str(column)
    if re.fullmatch(r"[a-z0-9_+][a-z0-9._+-]{0,79}", name):
        return name
    mark = hashlib.blake2s(name.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    plain = re.sub(r"[\u0300-\u036f]", "", unicodedata.normalize("NFKD", name))  # no accents
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "_", plain)[:70].strip("._-")
    return f"{plain or 'column'}-{mark}"


def _shared(
    read: list[tuple[list[str] | None, np.ndarray]], titles: list[str]
) -> tuple[list[str] | None, list[np.ndarray]]:
    """Give all panels the same names, and codes that point to them."""
    kinds = ["numbers" if names is None else "categories" for names, _ in read]
    if len(set(kinds)) > 1:
        parts = ", ".join(f'"{t}" {kind}' for t, kind in zip(titles, kinds, strict=True))
        raise ValueError(f"panels with one legend must hold the same kind of values: {parts}")
    shared = read[0][0]
    if shared is None:
        return None, [data for _, data in read]
    union = set().union(*(names for names, _ in read))
    if len(union) > len(shared):
        shared = sorted(union, key=rank)
    place = {name: i for i, name in enumerate(shared)}
    return shared, [
        np.array([*(place[name] for name in names), -1], dtype=np.int32)[data]
        for names, data in read
    ]


def _panel(title: str, coordinates: ArrayLike, values: np.ndarray) -> _Panel:
    """Check one embedding, drop the cells without a place, and find the window to show."""
    xy = np.asarray(coordinates)
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise ValueError(f"{title}: coordinates must have shape (cells, 2), found {xy.shape}")
    if xy.dtype.kind not in "fiu":
        raise TypeError(f"{title}: coordinates must be numbers, found dtype {xy.dtype}")
    if len(xy) != len(values):
        raise ValueError(f"{title}: {len(xy)} cells have coordinates, {len(values)} have values")
    placed = np.isfinite(xy).all(axis=1)
    dropped = len(xy) - int(placed.sum())
    if dropped == len(xy):
        raise ValueError(f"{title}: none of the {len(xy)} cells has finite coordinates to draw")
    if dropped:
        xy, values = xy[placed], values[placed]
    low, high = xy.min(axis=0).astype(float), xy.max(axis=0).astype(float)
    span = (high - low) * 1.06
    span[span == 0] = span.max() or 1.0
    shape = float(np.clip(span[0] / span[1], 0.7, 1.6))
    span = np.maximum(span, [span[1] * shape, span[0] / shape])
    width = _whole(PANEL * shape)
    return _Panel(str(title), xy, values, (low + high - span) / 2, span, width, dropped)


def _whole(inches: float) -> float:
    """Round a length to pixels: the cells' picture is drawn as it is."""
    return round(inches * DPI) / DPI


def _header(panel: _Panel, names: list[str] | None, n_labels: int) -> tuple[list[str], list[str]]:
    """Lines of the title, and of what the reader must know about the picture."""
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
    fold = textwrap.TextWrapper(max_lines=3, placeholder=" …")
    fold.width = int(panel.width / 0.118)
    title = fold.wrap(clean(panel.title)) or [""]
    fold.width = int(panel.width / 0.068)
    return title, fold.wrap(" · ".join(notes))


def _header_height(header: tuple[list[str], list[str]]) -> float:
    return 0.21 * len(header[0]) + 0.15 * len(header[1]) + 0.08


def _write_header(page: Axes, header: tuple[list[str], list[str]], x: float, bottom: float) -> None:
    y = bottom - _header_height(header)
    for line in header[0]:
        write(page, x, y, line, size=12, weight="bold", va="top")
        y += 0.21
    for line in header[1]:
        write(page, x, y, line, size=8, color=PALE, va="top")
        y += 0.15


def _draw_arrows(page: Axes, x: float, y: float, name: str) -> None:
    """Name the axes at the lower left corner: their numbers mean nothing, their directions do."""
    x, y, length = x - 0.1, y + 0.1, 0.55
    arrow = {"arrowstyle": "-|>", "color": PALE, "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
    for end in ((x + length, y), (x, y - length)):
        page.annotate("", xy=end, xytext=(x, y), arrowprops=arrow)
    style = {"size": 7, "color": PALE}
    write(page, x, y + 0.05, f"{name} 1", va="top", **style)
    write(page, x - 0.05, y, f"{name} 2", ha="right", va="bottom", rotation=90, **style)


def _cells(panel: _Panel, shade: Shade, seed: int) -> np.ndarray:
    """Draw cells in random order over those without a value."""
    points = np.clip(0.4 * 72**2 * PANEL * panel.width / len(panel.xy), 0.5, 16)
    dots = paint(
        panel.places,
        panel.data >= 0 if panel.data.dtype.kind == "i" else ~np.isnan(panel.data),
        wide=round(panel.width * DPI),
        high=round(PANEL * DPI),
        diameter=float(np.sqrt(points)) / 72 * DPI,
        seed=seed,
    )
    return color(dots, shade(panel.data))


def _write_labels(
    page: Axes, panel: _Panel, names: list[str], labeled: np.ndarray, x: float, bottom: float
) -> None:
    """Write the names of those categories that the panel has."""
    here = labeled[np.isin(labeled, panel.data)]
    if not len(here):
        return
    lookup = np.full(len(names) + 1, -1)
    lookup[here] = np.arange(len(here))
    texts = [short(names[i]) for i in here]
    labels = place_labels(texts, lookup[panel.data], panel.places, panel.window)
    draw_labels(page, texts, labels, x, bottom)
