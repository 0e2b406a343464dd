"""Labels on the cells: whether the categories' names fit there, and where each is written.

A place is a fraction of the window that shows the cells: x and y from 0 to 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.transforms import Affine2D

from evaluation.figures.color_scale import INK
from evaluation.figures.legend import extent, outline, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID = 64  # squares a side in which a label's place is sought
LABELS_MOST = 120  # categories that are labeled
LABELS_SHARE = 0.15  # of the window that labels may cover
LABEL_LENGTH = 10  # longest name that is written on the cells unasked


class Labels(NamedTuple):
    """Where labels stand, in points from the window's lower left corner."""

    size: float  # of the letters
    anchors: np.ndarray  # (n, 2): places that the labels name
    centers: np.ndarray  # (n, 2): middles of the texts


def labels_fit(names: list[str], codes: np.ndarray, places: np.ndarray) -> bool:
    """Whether names are short and lie apart: neighbors share a name more often than by chance.

    `codes` (cells,) and `places` (cells, 2) tell the category (-1: none) and place of each cell.
    """
    if not 2 <= len(names) <= LABELS_MOST or max(map(len, names)) > LABEL_LENGTH:
        return False
    if set(names) <= {"True", "False"}:
        return False
    counts = _grid_counts(len(names), codes, places).reshape(len(names), -1)
    total = counts.sum(axis=0)
    pairs = float((total * (total - 1)).sum())
    if not pairs:
        return False
    same = float((counts * (counts - 1)).sum()) / pairs
    chance = float(((counts.sum(axis=1) / total.sum()) ** 2).sum())
    return chance < 1 and (same - chance) / (1 - chance) > 0.4


def largest(names: list[str], counts: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Choose the categories to label, in their order: the largest, as many as leave cells to see.

    `counts` holds the cells of each category, `window` is the width and height in points.
    """
    order = np.argsort(-counts, kind="stable")[:LABELS_MOST]
    areas = _sizes([short(names[i]) for i in order]).prod(axis=1)
    fit = int(np.count_nonzero(np.cumsum(areas) <= LABELS_SHARE * window.prod()))
    return np.sort(order[: max(fit, 1)])


def place_labels(
    texts: list[str], codes: np.ndarray, places: np.ndarray, window: np.ndarray
) -> Labels:
    """Put each text on its category, clear of the others; every category has cells.

    `codes` and `places` are those of `labels_fit`, `window` is the width and height in points.
    """
    counts = _grid_counts(len(texts), codes, places)
    anchors = _anchors(counts)
    sizes = _sizes(texts)
    size = _letters(texts)
    # A label would hide a cluster smaller than itself: write it above or below, where fewer are.
    areas = np.count_nonzero(counts, axis=(1, 2)) * (window / GRID).prod()
    crowd = counts.sum(axis=0)
    wanted = anchors * window
    for i in np.flatnonzero(areas < 1.5 * sizes.prod(axis=1)):
        column, row = (anchors[i] * GRID).astype(int)
        near = crowd[:, max(column - 2, 0) : column + 3]
        above, below = near[row + 1 : row + 4].sum(), near[max(row - 3, 0) : row].sum()
        wanted[i, 1] += size if above <= below else -size
    return Labels(size, anchors * window, spread(wanted, sizes, window))


def _letters(texts: list[str]) -> float:
    """Size of the letters in points: the more labels, the smaller."""
    return 10 if len(texts) <= 25 else 8.5 if len(texts) <= 60 else 7


def _sizes(texts: list[str]) -> np.ndarray:
    """Width and height of the labels in points, with the space around them."""
    sizes = [extent(text, _letters(texts), "bold") for text in texts]
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


def draw_labels(page: Axes, texts: list[str], labels: Labels, x: float, bottom: float) -> None:
    """Write texts with a halo, and a line to what they name where they moved away.

    `x` and `bottom` are the window's lower left corner on the page.
    """
    corner = np.array([x, bottom])
    anchors, centers = (corner + at / 72 * (1, -1) for at in (labels.anchors, labels.centers))
    far = np.abs(labels.centers - labels.anchors).max(axis=1) > 1.5 * labels.size
    lines = np.stack([anchors, centers], axis=1)[far]
    ways = LineCollection(lines, colors=INK, linewidths=0.7, zorder=3)
    page.add_collection(ways, autolim=False)
    # All halos, then all texts: no halo hides a neighbor's letter.
    letters = [outline(text, labels.size, "bold") for text in texts]
    points = Affine2D().scale(1 / 72) + page.figure.dpi_scale_trans
    place = {"offsets": centers, "offset_transform": page.transData, "zorder": 4}
    for style in (
        {"facecolors": "none", "edgecolors": "white", "linewidths": 2.2, "joinstyle": "round"},
        {"facecolors": INK, "linewidths": 0},
    ):
        drawn = PathCollection(letters, **place, **style)
        drawn.set_transform(points)
        page.add_collection(drawn, autolim=False)


def squares(places: np.ndarray, wide: int, high: int) -> np.ndarray:
    """Find the square of each cell in a grid over the window, counted along x first."""
    column, row = (places * (wide, high)).astype(np.int64).T
    return row * wide + column


def _grid_counts(n: int, codes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Count cells per category and square of a coarse grid: (n, GRID, GRID), y before x."""
    known = np.flatnonzero(codes >= 0)
    flat = codes[known] * np.int64(GRID * GRID) + squares(places[known], GRID, GRID)
    return np.bincount(flat, minlength=n * GRID * GRID).reshape(n, GRID, GRID)


def _anchors(counts: np.ndarray) -> np.ndarray:
    """Find the place of each label: the median, or what is nearest to it in the densest own part.

    A square counts by its cells of the category times their share of all cells there, over
    3 x 3 squares; the densest part are those with at least half the highest value.
    """
    padded = np.pad(counts, ((0, 0), (1, 1), (1, 1)))
    own = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    own = own[..., :-2] + own[..., 1:-1] + own[..., 2:]
    score = own.astype(float) ** 2 / np.maximum(own.sum(axis=0), 1)
    upto = [counts.sum(axis=k).cumsum(axis=1) for k in (2, 1)]
    middles = np.stack([(half < half[:, -1:] / 2).sum(axis=1) for half in upto], axis=1)
    anchors = np.empty((len(counts), 2))
    for i, here in enumerate(counts):
        # The score of an empty square can be high between two dense ones: stay on the cells.
        row, column = np.nonzero((score[i] >= score[i].max() / 2) & (here > 0))
        if not len(row):
            row, column = np.nonzero(here == here.max())
        nearest = np.argmin((row - middles[i, 0]) ** 2 + (column - middles[i, 1]) ** 2)
        anchors[i] = column[nearest] + 0.5, row[nearest] + 0.5
    return anchors / GRID
