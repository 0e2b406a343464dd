"""Pictures of an embedding: cells in two dimensions, coloured by a column of metadata.

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
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps, rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.path import Path as Outline
from matplotlib.patheffects import withStroke

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

    Values = pd.Series | pd.Categorical | np.ndarray | Sequence[object]

PANEL = 5.0  # height of a panel; its width follows the data's shape
ROW = 0.19  # height of a row of the legend
LEGEND_MOST = 60  # categories that the legend lists
LABELS_MOST = 120  # clusters that are labelled on the cells
LABEL_LENGTH = 10  # longest name that is written on the cells unasked
NAME_LENGTH = 40  # characters of a category's name in the legend
DENSITY_ABOVE = 300_000  # cells; more are averaged in squares instead of drawn one by one
SQUARES = 100  # of these means, per inch
GRID = 64  # squares a side in which a label's place is sought
FONT = "DejaVu Sans"  # comes with matplotlib: the same letters on every machine
INK, PALE, MISSING = "#222222", "#707070", "#d9d9d9"
COLORMAP = "viridis"
# Six colours of Okabe and Ito (2008), then each time the colour farthest in OKLab from those taken,
# white and grey; a distance is the smaller of that seen by most people and twice that seen by
# deuteranopes and protanopes (Machado et al. 2009). None is pale or dark, the first 24 not gaudy.
COLOURS = """
    0072b2 e69f00 009e73 cc79a7 56b4e9 d55e00 992266 66ee77 9955ff 775500 5533cc ff3366
    00ccaa cc22aa ff9999 cc0033 7788ee cccc00 8811aa 665588 66ddff 007744 888844 99bb66
    771100 0000ff 552277 ff00cc 225566 ee88dd 996688 aaddaa 770044 332299 bb11dd bb66cc
    ffaadd aabbff aa9900 0000cc 4444ff ee55ff 559999 990022 bb4466 bb99bb 4488cc 444488
    773344 dd8855 cc99ff ff6688 995544 88cccc 00cc22 bb1177 009900 553355 cc6666 7744bb
    ff9955 9955aa ffbb55 ff0088
"""


class _Values(NamedTuple):
    """Values to colour by: codes of names (-1: missing), or numbers (NaN: missing)."""

    names: list[str] | None
    data: np.ndarray


class _Panel(NamedTuple):
    """One embedding, ready to be drawn: only cells that have a place."""

    title: str
    xy: np.ndarray
    data: np.ndarray
    corner: np.ndarray  # lower left corner of the window, in data units
    span: np.ndarray  # its width and height
    width: float  # inches
    dropped: int  # cells without coordinates


class _Entry(NamedTuple):
    """A line of the legend."""

    colour: np.ndarray | None
    name: str
    number: str


# ---------------------------------------------------------------- public


def plot_embedding(
    coordinates: ArrayLike,
    values: Values,
    *,
    title: str,
    on_data_labels: bool | None = None,
    axis_name: str = "UMAP",
    seed: int = 0,
) -> Figure:
    """Draw the cells of an embedding, coloured by one column of metadata.

    Text, bool and categorical values get one colour per category, numbers a colour scale from
    their 1 % to their 99 % quantile. Cells are drawn in random order, so that none hides another
    because of where it stands in the data; above 300,000 cells, small squares show the mean colour
    of their cells. Cells without a value lie underneath in grey; cells without coordinates are
    left out. Both are counted in the figure.

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
    return _compose(
        [(title, coordinates, values)],
        title=None,
        on_data_labels=on_data_labels,
        axis_name=axis_name,
        seed=seed,
        columns=1,
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
    """Draw embeddings beside each other, with the same colours and one legend.

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
    return _compose(
        list(panels),
        title=title,
        on_data_labels=on_data_labels,
        axis_name=axis_name,
        seed=seed,
        columns=columns,
    )


def save_figure(fig: Figure, path: str | Path, *, dpi: int = 150) -> None:
    """Write a figure as PNG, PDF or SVG: whole or not at all, the same bytes in every run.

    Parameters
    ----------
    fig
        From `plot_embedding` or `compare_embeddings`.
    path
        Its ending names the format. Missing folders are made.
    dpi
        Dots per inch; in PDF and SVG, those of the cells.

    Raises
    ------
    ValueError
        If the ending is none of .png, .pdf and .svg.
    """
    from utils.io import atomic_file

    # What would differ between two runs, or between two versions of matplotlib.
    varying = {
        ".png": {"Software": None},
        ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        ".svg": {"Date": None, "Creator": None},
    }
    suffix = Path(path).suffix.lower()
    if suffix not in varying:
        raise ValueError(f"{path}: a figure is written as .png, .pdf or .svg, not {suffix!r}")
    with atomic_file(path) as temporary, rc_context({"svg.hashsalt": "cellstrata"}):
        fig.savefig(temporary, format=suffix[1:], dpi=dpi, metadata=varying[suffix])


def file_stem(column: object) -> str:
    """Name a file after a column: readable, safe on every file system, one per column.

    Names of ASCII letters, digits and ``._+-`` stay as they are (``leiden_0.5_2``). In others, and
    in those longer than 80 characters, what is unsafe is replaced and a hash of the name added.

    Parameters
    ----------
    column
        Name of a column of obs, of any length and in any script.

    Returns
    -------
    str
        1 to 80 ASCII characters, without a file ending. Names that differ only in case give stems
        that differ only in case.
    """
    name = str(column)
    if re.fullmatch(r"[A-Za-z0-9_+][A-Za-z0-9._+-]{0,79}", name):
        return name
    mark = hashlib.blake2s(name.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    plain = "".join(
        letter
        for letter in unicodedata.normalize("NFKD", name)
        if not unicodedata.combining(letter)
    )
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "_", plain)[:70].strip("._-")
    return f"{plain}-{mark}" if plain else f"column-{mark}"


# ---------------------------------------------------------------- values


def _read_values(values: Values, *, title: str, as_categories: bool) -> _Values:
    """Tell numbers from categories; names are sorted as people count, unless they are ordered."""
    if np.ndim(values) != 1:
        raise ValueError(f"{title}: values must have one dimension, found {np.ndim(values)}")
    series = pd.Series(values)
    inferred = pd.api.types.infer_dtype(series, skipna=True) if series.dtype == object else ""
    numeric = (
        pd.api.types.is_numeric_dtype(series.dtype)
        and not pd.api.types.is_bool_dtype(series.dtype)
        and not pd.api.types.is_complex_dtype(series.dtype)
    ) or inferred in ("integer", "floating", "mixed-integer-float", "decimal")
    if numeric and not as_categories:
        return _Values(None, series.to_numpy(dtype=np.float64, na_value=np.nan))
    if not isinstance(series.dtype, pd.CategoricalDtype):
        codes, found = pd.factorize(series)
        ordered = False
    else:
        codes, found = series.cat.codes.to_numpy(), series.cat.categories
        ordered = bool(series.cat.ordered)
    used = np.flatnonzero(np.bincount(codes[codes >= 0], minlength=len(found)))
    names = [str(found[i]) for i in used]
    order = list(range(len(names)))
    if not ordered:
        order.sort(key=lambda i: _rank(names[i]))
    lookup = np.full(len(found) + 1, -1, dtype=np.int32)  # the last place: missing
    for new, i in enumerate(order):
        lookup[used[i]] = new
    return _Values([names[i] for i in order], lookup[codes])


def _rank(name: str) -> tuple[list[str | int], str]:
    """Sort key by which 2 stands before 10, also in 3_2 and 3_10."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


# ---------------------------------------------------------------- colours


def palette(n: int) -> np.ndarray:
    """Colours of n categories: (n, 3), sRGB from 0 to 1; those of n are the first of n + 1."""
    table = np.array([_rgb(colour) for colour in COLOURS.split()])
    return table[np.arange(n) % len(table)]


def _rgb(colour: str) -> np.ndarray:
    return np.array([*bytes.fromhex(colour.removeprefix("#"))]) / 255


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Find the ends of the colour scale: the 1 and 99 % quantiles, or all where these are equal."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, high = np.quantile(finite, (0.01, 0.99))
    if low == high:
        low, high = finite.min(), finite.max()
    margin = 0.0 if low < high else 0.05 * abs(low) or 0.05
    return float(low - margin), float(high + margin)


# ---------------------------------------------------------------- text


def _clean(text: object) -> str:
    """Replace what cannot be drawn: white space by a space, letters the font lacks by a mark."""
    font = get_font(findfont(FontProperties(family=FONT)))
    return "".join(
        " " if letter.isspace() else letter if font.get_char_index(ord(letter)) else "\ufffd"
        for letter in str(text)
    )


def _short(name: str, most: int = NAME_LENGTH) -> str:
    """Cut a long name in its middle: names often differ at their end."""
    name = _clean(name).strip() or "(empty)"
    tail = most // 3
    return name if len(name) <= most else f"{name[: most - tail - 1]}…{name[-tail:]}"


def _extent(text: str, size: float, weight: str = "normal") -> np.ndarray:
    """Width and height of a text in points."""
    font = FontProperties(family=FONT, size=size, weight=weight)
    return np.array(_renderer().get_text_width_height_descent(text, font, ismath=False)[:2])


@lru_cache(maxsize=1)
def _renderer() -> RendererAgg:
    return RendererAgg(8, 8, 72)


def _write(ax: Axes, x: float, y: float, text: str, **style: object) -> None:
    # A dollar sign in a name is no formula.
    style = {"color": INK, "fontfamily": FONT, "parse_math": False, **style}
    ax.text(x, y, text, **style)


# ---------------------------------------------------------------- layout


def _compose(
    panels: Sequence[tuple[str, ArrayLike, Values]],
    *,
    title: str | None,
    on_data_labels: bool | None,
    axis_name: str,
    seed: int,
    columns: int,
) -> Figure:
    """Read the panels, decide colours and labels, place all in inches from the top left."""
    if not panels or columns < 1:
        raise ValueError(f"nothing to draw: {len(panels)} panels in {columns} columns")
    read = [_read_values(v, title=t, as_categories=on_data_labels is True) for t, _, v in panels]
    names, values = _shared(read, [t for t, _, _ in panels])
    drawn = [_panel(t, xy, v) for (t, xy, _), v in zip(panels, values, strict=True)]

    labelled, entries = np.array([], dtype=int), []
    if names is None:
        pooled = np.concatenate([panel.data for panel in drawn])
        low, high = _limits(pooled)
        beyond = bool((pooled < low).any()), bool((pooled > high).any())
        scale = ScalarMappable(Normalize(low, high), colormaps[COLORMAP])
        drawn = [panel._replace(data=np.clip(panel.data, low, high)) for panel in drawn]
    else:
        colours = palette(len(names))
        counts = [np.bincount(p.data[p.data >= 0], minlength=len(names)) for p in drawn]
        if _labels_fit(drawn[0], names) if on_data_labels is None else on_data_labels:
            labelled = np.sort(np.argsort(-sum(counts), kind="stable")[:LABELS_MOST])
        else:
            entries = _entries(names, colours, counts, [len(p.data) for p in drawn])

    def shade(data: np.ndarray) -> np.ndarray:
        return scale.to_rgba(data)[:, :3] if names is None else colours[data]

    headers = [_header(p, names, len(labelled)) for p in drawn]

    # Where everything goes.
    rows = [range(i, min(i + columns, len(drawn))) for i in range(0, len(drawn), columns)]
    left, gap, below = 0.4, 0.45, 0.45
    lefts, x = [], left
    for column in range(min(columns, len(drawn))):
        lefts.append(x)
        x += max(p.width for p in drawn[column::columns]) + gap
    tops, y = [], 0.15 + 0.35 * bool(title)
    for row in rows:
        y += max(_header_height(headers[i]) for i in row)
        tops.append(y)
        y += PANEL + below
    table = _columns(entries, y - below - tops[0])
    side = 1.2 if names is None else sum(_column_width(column) for column in table)
    width, height = x - gap + 0.15 + (side + 0.15 if side else 0), y

    fig = Figure(figsize=(width, height), dpi=150)
    FigureCanvasAgg(fig)
    page = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), zorder=5)
    page.axis("off")
    page.patch.set_visible(False)
    if title:
        _write(page, left, 0.15, _short(title, 100), size=14, weight="bold", va="top")
    for i, panel in enumerate(drawn):
        x0, y0 = lefts[i % columns], tops[i // columns]
        box = (x0 / width, 1 - (y0 + PANEL) / height, panel.width / width, PANEL / height)
        (x1, y1), (x2, y2) = panel.corner, panel.corner + panel.span
        ax = fig.add_axes(box, xlim=(x1, x2), ylim=(y1, y2))
        ax.set_aspect("equal")
        ax.axis("off")
        _write_header(page, headers[i], x0, y0)
        _draw_arrows(page, x0, y0 + PANEL, _clean(axis_name))
        _draw_cells(ax, panel, shade, seed)
        if len(labelled):
            _draw_labels(ax, panel, names, labelled)
    if names is None:
        _draw_bar(fig, page, scale, beyond, drawn, x - gap + 0.2, tops[0])
    else:
        _draw_legend(page, table, x - gap + 0.2, tops[0])
    return fig


def _shared(read: list[_Values], titles: list[str]) -> tuple[list[str] | None, list[np.ndarray]]:
    """Give all panels the same names, and codes that point to them."""
    kinds = {values.names is None for values in read}
    if len(kinds) > 1:
        parts = [
            f'"{t}" {"numbers" if v.names is None else "categories"}'
            for t, v in zip(titles, read, strict=True)
        ]
        raise ValueError(
            f"panels with one legend must hold the same kind of values: {', '.join(parts)}"
        )
    if kinds == {True}:
        return None, [values.data for values in read]
    names = read[0].names
    union = set().union(*(values.names for values in read))
    if len(union) > len(names):
        names = sorted(union, key=_rank)
    place = {name: i for i, name in enumerate(names)}
    return names, [
        np.array([*(place[n] for n in v.names), -1], dtype=np.int32)[v.data] for v in read
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
    return _Panel(str(title), xy, values, (low + high - span) / 2, span, PANEL * shape, dropped)


def _header(panel: _Panel, names: list[str] | None, n_labels: int) -> tuple[list[str], list[str]]:
    """Lines of the title, and of what the reader must know about the picture."""
    n = len(panel.xy)
    notes = [f"{n:,} cell{'s' * (n != 1)}"]
    if names is not None:
        notes.append(f"{len(names):,} categor{'y' if len(names) == 1 else 'ies'}")
    if n_labels and n_labels < len(names):
        notes.append(f"labels on the {n_labels} largest")
    if n_labels and (missing := int((panel.data < 0).sum())):
        notes.append(f"{missing:,} without a value, in grey")
    if panel.dropped:
        notes.append(f"{panel.dropped:,} without coordinates, left out")
    if n > DENSITY_ABOVE:
        notes.append("each dot is the mean of the cells there")
    fold = textwrap.TextWrapper(max_lines=3, placeholder=" …")
    fold.width = int(panel.width / 0.118)
    title = fold.wrap(_clean(panel.title)) or [""]
    fold.width = int(panel.width / 0.068)
    return title, fold.wrap(" · ".join(notes))


def _header_height(header: tuple[list[str], list[str]]) -> float:
    return 0.21 * len(header[0]) + 0.15 * len(header[1]) + 0.08


def _write_header(page: Axes, header: tuple[list[str], list[str]], x: float, bottom: float) -> None:
    y = bottom - _header_height(header)
    for line in header[0]:
        _write(page, x, y, line, size=12, weight="bold", va="top")
        y += 0.21
    for line in header[1]:
        _write(page, x, y, line, size=8, color=PALE, va="top")
        y += 0.15


def _draw_arrows(page: Axes, x: float, y: float, name: str) -> None:
    """Name the axes at the lower left corner: their numbers mean nothing, their directions do."""
    x, y, length = x - 0.1, y + 0.1, 0.55
    arrow = {"arrowstyle": "-|>", "color": PALE, "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
    for end in ((x + length, y), (x, y - length)):
        page.annotate("", xy=end, xytext=(x, y), arrowprops=arrow)
    style = {"size": 7, "color": PALE}
    _write(page, x, y + 0.05, f"{name} 1", va="top", **style)
    _write(page, x - 0.05, y, f"{name} 2", ha="right", va="bottom", rotation=90, **style)


# ---------------------------------------------------------------- cells


def _draw_cells(
    ax: Axes, panel: _Panel, shade: Callable[[np.ndarray], np.ndarray], seed: int
) -> None:
    """Draw cells in random order over those without a value; very many as means of squares."""
    n = len(panel.xy)
    known = panel.data >= 0 if panel.data.dtype.kind == "i" else ~np.isnan(panel.data)
    for zorder, cells in ((1, np.flatnonzero(~known)), (2, np.flatnonzero(known))):
        if not len(cells):
            continue
        if n > DENSITY_ABOVE:
            window = np.stack([panel.corner, panel.corner + panel.span], axis=1).ravel()
            image = _squares(panel, cells, None if zorder == 1 else shade)
            ax.imshow(image, extent=window, origin="lower", zorder=zorder)
            continue
        cells = np.random.default_rng(seed).permutation(cells)
        ax.scatter(
            *panel.xy[cells].T,
            s=np.clip(0.4 * 72**2 * PANEL * panel.width / n, 0.5, 16),
            c=MISSING if zorder == 1 else shade(panel.data[cells]),
            # Small circles and octagons look the same; these are drawn a third faster.
            marker="o" if n < 20_000 else Outline.unit_regular_polygon(8),
            linewidths=0,
            rasterized=True,
            zorder=zorder,
        )


def _squares(
    panel: _Panel, cells: np.ndarray, shade: Callable[[np.ndarray], np.ndarray] | None
) -> np.ndarray:
    """Average the cells of each square: an RGBA image, more opaque where there are more cells."""
    wide, high = round(panel.width * SQUARES), round(PANEL * SQUARES)
    square = _place(panel, cells, wide, high)
    count = np.bincount(square, minlength=wide * high)
    hit = np.flatnonzero(count)

    def mean(weights: np.ndarray) -> np.ndarray:
        return np.bincount(square, weights=weights, minlength=len(count))[hit] / count[hit]

    image = np.zeros((len(count), 4))
    data = panel.data[cells]
    if shade is None:
        image[hit, :3] = _rgb(MISSING)
    elif data.dtype.kind == "i":
        colours = shade(np.arange(data.max() + 1))
        for channel in range(3):
            image[hit, channel] = mean(colours[data, channel])
    else:
        image[hit, :3] = shade(mean(data))
    many = max(np.quantile(count[hit], 0.95), 2)
    image[hit, 3] = np.clip(0.6 + 0.4 * np.log(count[hit]) / np.log(many), 0, 1)
    return image.reshape(high, wide, 4)


def _place(panel: _Panel, cells: np.ndarray, wide: int, high: int) -> np.ndarray:
    """Find the square of each cell in a grid over the window, counted along x first."""
    column, row = ((panel.xy[cells] - panel.corner) / panel.span * (wide, high)).astype(np.int64).T
    return row * wide + column


# ---------------------------------------------------------------- labels on the cells


def _grid_counts(panel: _Panel, codes: np.ndarray, n: int) -> np.ndarray:
    """Count cells per category and square of a coarse grid: (n, GRID, GRID), y before x."""
    known = np.flatnonzero(codes >= 0)
    flat = codes[known] * np.int64(GRID * GRID) + _place(panel, known, GRID, GRID)
    return np.bincount(flat, minlength=n * GRID * GRID).reshape(n, GRID, GRID)


def _labels_fit(panel: _Panel, names: list[str]) -> bool:
    """Whether names are short and lie apart: neighbours share a name more often than by chance."""
    if not 2 <= len(names) <= LABELS_MOST or max(map(len, names)) > LABEL_LENGTH:
        return False
    if set(names) <= {"True", "False"}:
        return False
    counts = _grid_counts(panel, panel.data, len(names)).reshape(len(names), -1)
    total = counts.sum(axis=0)
    pairs = float((total * (total - 1)).sum())
    if not pairs:
        return False
    same = float((counts * (counts - 1)).sum()) / pairs
    chance = float(((counts.sum(axis=1) / total.sum()) ** 2).sum())
    return chance < 1 and (same - chance) / (1 - chance) > 0.4


def _anchors(counts: np.ndarray) -> np.ndarray:
    """Find the place of each label: the median, or what is nearest to it in the densest own part.

    A square counts by its cells of the category times their share of all cells there, over
    3 x 3 squares; the densest part are those with at least half the highest value.

    Parameters
    ----------
    counts
        Shape (n, GRID, GRID): cells per category and square; every category has cells.

    Returns
    -------
    numpy.ndarray
        Shape (n, 2): x and y as a fraction of the window.
    """
    padded = np.pad(counts, ((0, 0), (1, 1), (1, 1)))
    size = counts.shape[1]
    own = sum(padded[:, i : i + size, j : j + size] for i in range(3) for j in range(3))
    score = own.astype(float) ** 2 / np.maximum(own.sum(axis=0), 1)
    anchors = np.empty((len(counts), 2))
    for i, here in enumerate(counts):
        middle = [int(np.searchsorted(np.cumsum(here.sum(axis=k)), here.sum() / 2)) for k in (0, 1)]
        # The score of an empty square can be high between two dense ones: stay on the cells.
        row, column = np.nonzero((score[i] >= score[i].max() / 2) & (here > 0))
        if not len(row):
            row, column = np.nonzero(here == here.max())
        nearest = np.argmin((column - middle[0]) ** 2 + (row - middle[1]) ** 2)
        anchors[i] = column[nearest] + 0.5, row[nearest] + 0.5
    return anchors / size


def _spread(anchors: np.ndarray, sizes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Push rectangles apart until none overlaps, within a window; all in the same unit.

    Parameters
    ----------
    anchors, sizes
        Shape (n, 2): wanted centres, widths and heights.
    window
        Width and height; centres lie between 0 and these.

    Returns
    -------
    numpy.ndarray
        Shape (n, 2): centres. Where there is no room, overlaps remain.
    """
    centres = anchors.copy()
    reach = (sizes[:, None] + sizes[None]) / 2
    n = len(anchors)
    side = np.sign(np.arange(n)[:, None] - np.arange(n)[None])
    for _ in range(400):
        apart = centres[:, None] - centres[None]
        overlap = reach - np.abs(apart)
        hit = (overlap > 0).all(axis=2) & (side != 0)
        if not hit.any():
            break
        axis = overlap.argmin(axis=2)
        for k in (0, 1):
            way = np.where(apart[..., k] == 0, side, np.sign(apart[..., k]))
            push = np.where(hit & (axis == k), way * (overlap[..., k] / 2 + 0.05), 0)
            centres[:, k] += push.sum(axis=1)
        centres = np.clip(centres, sizes / 2, np.maximum(window - sizes / 2, sizes / 2))
    return centres


def _draw_labels(ax: Axes, panel: _Panel, names: list[str], labelled: np.ndarray) -> None:
    here = labelled[np.isin(labelled, panel.data)]
    if not len(here):
        return
    lookup = np.full(len(names) + 1, -1)
    lookup[here] = np.arange(len(here))
    window = np.array([panel.width, PANEL]) * 72
    counts = _grid_counts(panel, lookup[panel.data], len(here))
    anchors = _anchors(counts) * window
    size = 10 if len(here) <= 25 else 8.5 if len(here) <= 60 else 7
    texts = [_short(names[i]) for i in here]
    sizes = np.array([_extent(text, size, "bold") for text in texts]) + 1.5
    # A label would hide a cluster smaller than itself: write it above or below, where fewer are.
    small = np.count_nonzero(counts, axis=(1, 2)) * (window / GRID).prod() < 1.5 * sizes.prod(
        axis=1
    )
    crowd = counts.sum(axis=0)
    wanted = anchors.copy()
    for i in np.flatnonzero(small):
        column, row = (anchors[i] / window * GRID).astype(int)
        near = crowd[:, max(column - 2, 0) : column + 3]
        above, below = near[row + 1 : row + 4].sum(), near[max(row - 3, 0) : row].sum()
        wanted[i, 1] += size if above <= below else -size
    centres = _spread(wanted, sizes, window)
    scale = panel.span / window
    for text, anchor, centre in zip(texts, anchors, centres, strict=True):
        if np.abs(centre - anchor).max() > 1.5 * size:
            line = panel.corner + np.stack([anchor, centre]) * scale
            ax.plot(*line.T, color=INK, lw=0.7, zorder=3)
        x, y = panel.corner + centre * scale
        halo = [withStroke(linewidth=2.2, foreground="white")]
        style = {"size": size, "weight": "bold", "ha": "center", "va": "center_baseline"}
        _write(ax, x, y, text, path_effects=halo, zorder=4, **style)


# ---------------------------------------------------------------- legend and colour bar


def _entries(
    names: list[str], colours: np.ndarray, counts: list[np.ndarray], n_cells: list[int]
) -> list[_Entry]:
    """List the largest categories in their order, how many more there are, and the missing."""
    agree = all(np.array_equal(count, counts[0]) for count in counts) and len(set(n_cells)) == 1
    total = sum(counts)
    shown = np.sort(np.argsort(-total, kind="stable")[:LEGEND_MOST])
    rest = np.setdiff1d(np.arange(len(names)), shown)
    missing = sum(n_cells) - int(total.sum())

    def number(cells: int) -> str:
        return f"{cells // len(counts):,}" if agree else ""

    entries = [_Entry(colours[i], _short(names[i]), number(int(total[i]))) for i in shown]
    if len(rest):
        entries.append(_Entry(None, f"and {len(rest):,} more", number(int(total[rest].sum()))))
    if missing:
        entries.append(_Entry(_rgb(MISSING), "no value", number(missing)))
    return entries


def _columns(entries: list[_Entry], height: float) -> list[list[_Entry]]:
    """Fold the legend into as few columns of the same length as fit beside the panels."""
    n_columns = -(-len(entries) // max(int(height / ROW), 1))
    length = -(-len(entries) // max(n_columns, 1))
    return [entries[i : i + length] for i in range(0, len(entries), max(length, 1))]


def _column_width(column: list[_Entry]) -> float:
    name, number = (max(_extent(e[i], 8.5)[0] for e in column) for i in (1, 2))
    return 0.2 + (name + number) / 72 + (0.12 if number else 0) + 0.2


def _draw_legend(page: Axes, table: list[list[_Entry]], x: float, top: float) -> None:
    for column in table:
        width = _column_width(column)
        for row, entry in enumerate(column):
            y = top + (row + 0.5) * ROW
            if entry.colour is not None:
                page.scatter(x + 0.06, y, s=38, color=[entry.colour], linewidths=0)
            style = {"size": 8.5, "va": "center_baseline"}
            plain = entry.colour is None or entry.name == "no value"
            _write(page, x + 0.2, y, entry.name, color=PALE if plain else INK, **style)
            _write(page, x + width - 0.2, y, entry.number, color=PALE, ha="right", **style)
        x += width


def _draw_bar(
    fig: Figure,
    page: Axes,
    scale: ScalarMappable,
    beyond: tuple[bool, bool],
    panels: list[_Panel],
    x: float,
    top: float,
) -> None:
    """Draw the colour bar, pointed where values lie beyond it, and name the missing values."""
    width, height = fig.get_size_inches()
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[beyond]
    length = PANEL * 0.6
    bar = fig.add_axes((x / width, 1 - (top + length) / height, 0.15 / width, length / height))
    fig.colorbar(scale, cax=bar, extend=extend, extendfrac=0.03, format=lambda v, _: f"{v:,.6g}")
    bar.tick_params(labelsize=8, labelcolor=INK, labelfontfamily=FONT, color=PALE, width=0.6)
    for spine in bar.spines.values():
        spine.set_visible(False)
    y = top + length + 0.2
    if any(beyond):
        for line in ("colours: 1 % to", "99 % quantile"):
            _write(page, x, y, line, size=7, color=PALE, va="center_baseline")
            y += 0.14
        y += 0.06
    missing = [int(np.isnan(p.data).sum()) for p in panels]
    if any(missing):
        page.scatter(x + 0.06, y, s=38, color=MISSING, linewidths=0)
        number = f" {missing[0]:,}" if len(set(missing)) == 1 else ""
        _write(page, x + 0.17, y, f"no value{number}", size=7, color=PALE, va="center_baseline")
