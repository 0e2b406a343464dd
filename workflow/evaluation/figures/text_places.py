"""Labels on the cells: whether the categories' names fit there, and where each is written.

Positions of cells are fractions of the window that shows them: x and y from 0 to 1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Affine2D

from evaluation.figures.color_scale import INK
from evaluation.figures.page import FONT, shorten, text_extent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID = 64  # squares a side of the grid that labels are placed by
MAX_LABELS = 120
MAX_LABELED_AREA = 0.15  # share of the window that labels may cover
MAX_LABEL_LENGTH = 10  # characters of a name that is written on the cells without being asked to


class TextPlaces(NamedTuple):
    """Where labels are written, in points from the window's lower left corner."""

    size: float  # of the letters
    anchors: np.ndarray  # (n, 2): what the labels name
    centers: np.ndarray  # (n, 2): middles of the texts


def labels_fit(names: list[str], codes: np.ndarray, positions: np.ndarray) -> bool:
    """Whether names are short and lie apart: neighbors share a name more often than by chance.

    `codes` (cells,) and `positions` (cells, 2) give the category (-1: none) and position of each
    cell.
    """
    if not 2 <= len(names) <= MAX_LABELS or max(map(len, names)) > MAX_LABEL_LENGTH:
        return False
    if set(names) <= {"True", "False"}:
        return False
    counts = _grid_counts(len(names), codes, positions).reshape(len(names), -1)
    total = counts.sum(axis=0)
    pairs = float((total * (total - 1)).sum())
    if not pairs:
        return False
    same = float((counts * (counts - 1)).sum()) / pairs
    chance = float(((counts.sum(axis=1) / total.sum()) ** 2).sum())
    return chance < 1 and (same - chance) / (1 - chance) > 0.4


def labeled_categories(names: list[str], counts: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Choose the categories to label, in their order: the largest, as many as leave cells to see.

    `counts` holds the cells of each category, `window` is the width and height in points.
    """
    order = np.argsort(-counts, kind="stable")[:MAX_LABELS]
    areas = _label_sizes([shorten(names[i]) for i in order]).prod(axis=1)
    n_fitting = int(np.count_nonzero(np.cumsum(areas) <= MAX_LABELED_AREA * window.prod()))
    return np.sort(order[: max(n_fitting, 1)])


def place_labels(
    texts: list[str], codes: np.ndarray, positions: np.ndarray, window: np.ndarray
) -> TextPlaces:
    """Put each text on its category, clear of the others; every category has cells.

    `codes` and `positions` are those of `labels_fit`, `window` is the width and height in points.
    """
    counts = _grid_counts(len(texts), codes, positions)
    anchors = _anchors(counts)
    sizes = _label_sizes(texts)
    letter_size = _letter_size(texts)
    # A label would hide a cluster smaller than itself: write it above or below, where fewer are.
    areas = np.count_nonzero(counts, axis=(1, 2)) * (window / GRID).prod()
    n_cells = counts.sum(axis=0)
    wanted = anchors * window
    for i in np.flatnonzero(areas < 1.5 * sizes.prod(axis=1)):
        column, row = (anchors[i] * GRID).astype(int)
        near = n_cells[:, max(column - 2, 0) : column + 3]
        above, below = near[row + 1 : row + 4].sum(), near[max(row - 3, 0) : row].sum()
        wanted[i, 1] += letter_size if above <= below else -letter_size
    return TextPlaces(letter_size, anchors * window, spread(wanted, sizes, window))


def _letter_size(texts: list[str]) -> float:
    """Return the size of the letters in points: the more labels, the smaller."""
    return 10 if len(texts) <= 25 else 8.5 if len(texts) <= 60 else 7


def _label_sizes(texts: list[str]) -> np.ndarray:
    """Measure the width and height of the labels in points, with the space around them."""
    sizes = [text_extent(text, _letter_size(texts), "bold") for text in texts]
    return np.reshape(sizes, (-1, 2)) + 1.5


def spread(anchors: np.ndarray, sizes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Push rectangles apart until none overlaps, within a window; all in the same unit.

    From wanted centers, sizes (both (n, 2)) and the window's width and height, return centers.
    Where there is no room, overlaps remain.
    """
    centers = anchors.astype(float)
    one, other = np.triu_indices(len(anchors), 1)
    reach = ((sizes[one] + sizes[other]) / 2).T
    low, high = sizes / 2, np.maximum(window - sizes / 2, sizes / 2)
    for _ in range(400):
        apart = (centers[one] - centers[other]).T
        overlap = reach - np.abs(apart)
        hit = np.flatnonzero((overlap[0] > 0) & (overlap[1] > 0))
        if not len(hit):
            break
        axis = overlap[:, hit].argmin(axis=0)
        push = np.where(apart[axis, hit] > 0, 0.5, -0.5) * (overlap[axis, hit] + 0.1)
        np.add.at(centers, (one[hit], axis), push)
        np.add.at(centers, (other[hit], axis), -push)
        centers = np.clip(centers, low, high)
    return centers


@lru_cache(maxsize=4096)
def text_outline(text: str, size: float, weight: str = "normal") -> Path:
    """Shape a text in points, around the middle of its width and of a digit's height."""
    font = FontProperties(family=FONT, weight=weight)
    corners, codes = text_to_path.get_text_path(font, text, ismath=False)
    corners = np.reshape(corners, (-1, 2)) * (size / text_to_path.FONT_SCALE)
    return Path(corners - (text_extent(text, size, weight)[0] / 2, 0.365 * size), codes)


def draw_labels(page: Axes, texts: list[str], places: TextPlaces, x: float, bottom: float) -> None:
    """Write texts with a halo, and a line to what they name where they moved away.

    `x` and `bottom` are the window's lower left corner on the page.
    """
    corner = np.array([x, bottom])
    anchors, centers = (corner + at / 72 * (1, -1) for at in (places.anchors, places.centers))
    moved = np.abs(places.centers - places.anchors).max(axis=1) > 1.5 * places.size
    lines = np.stack([anchors, centers], axis=1)[moved]
    page.add_collection(LineCollection(lines, colors=INK, linewidths=0.7, zorder=3), autolim=False)
    # All halos, then all texts: no halo hides a neighbor's letter.
    outlines = [text_outline(text, places.size, "bold") for text in texts]
    points = Affine2D().scale(1 / 72) + page.figure.dpi_scale_trans
    at_centers = {"offsets": centers, "offset_transform": page.transData, "zorder": 4}
    for style in (
        {"facecolors": "none", "edgecolors": "white", "linewidths": 2.2, "joinstyle": "round"},
        {"facecolors": INK, "linewidths": 0},
    ):
        shapes = PathCollection(outlines, **at_centers, **style)
        shapes.set_transform(points)
        page.add_collection(shapes, autolim=False)


def _grid_counts(n: int, codes: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Count cells per category and square of a coarse grid: (n, GRID, GRID), y before x."""
    known = np.flatnonzero(codes >= 0)
    column, row = (positions[known] * GRID).astype(np.int64).T
    squares = (codes[known] * np.int64(GRID) + row) * GRID + column
    return np.bincount(squares, minlength=n * GRID * GRID).reshape(n, GRID, GRID)


def _anchors(counts: np.ndarray) -> np.ndarray:
    """Find where each label goes: the median, or the nearest of its category's densest part.

    A square counts by its cells of the category times their share of all cells in it, over
    3 x 3 squares; the densest part are those with at least half the highest value.
    """
    padded = np.pad(counts, ((0, 0), (1, 1), (1, 1)))
    n_around = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    n_around = n_around[..., :-2] + n_around[..., 1:-1] + n_around[..., 2:]
    score = n_around.astype(float) ** 2 / np.maximum(n_around.sum(axis=0), 1)
    cumulative = [counts.sum(axis=k).cumsum(axis=1) for k in (2, 1)]
    medians = np.stack([(upto < upto[:, -1:] / 2).sum(axis=1) for upto in cumulative], axis=1)
    anchors = np.empty((len(counts), 2))
    for i, n_cells in enumerate(counts):
        # The score of an empty square can be high between two dense ones: stay on the cells.
        row, column = np.nonzero((score[i] >= score[i].max() / 2) & (n_cells > 0))
        if not len(row):
            row, column = np.nonzero(n_cells == n_cells.max())
        nearest = np.argmin((row - medians[i, 0]) ** 2 + (column - medians[i, 1]) ** 2)
        anchors[i] = column[nearest] + 0.5, row[nearest] + 0.5
    return anchors / GRID
