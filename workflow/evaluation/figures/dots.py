"""Cells as dots: which cell is seen at each point of a picture, found once for all its colors."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.artist import Artist

if TYPE_CHECKING:
    from matplotlib.backend_bases import RendererBase

FINE = 3  # points on each side of a pixel: edges are smooth
CACHED = 4  # pictures whose dots are cached; the columns of a data set share them


class Dots(NamedTuple):
    """Which cell is seen where."""

    high: int  # pixels, as `wide`
    wide: int
    pixels: np.ndarray  # (p,): pixels that cells cover, counted along x first, from the top
    seen: np.ndarray  # (FINE * FINE, p): number of the cell seen at each point of them; -1: none


def paint_cells(
    positions: np.ndarray, known: np.ndarray, *, wide: int, high: int, diameter: float, seed: int
) -> Dots:
    """Paint cells as dots in random order, over those that are not known.

    Parameters
    ----------
    positions
        Shape (cells, 2), as fractions of the window; no nearer to its border than a dot's radius.
    known
        Whether each cell has a value; those without lie underneath.
    wide, high
        Size of the picture in pixels.
    diameter
        Of the dots, in pixels.
    seed
        Of the order.

    Returns
    -------
    Dots
        For `color_cells`. The last few are cached: painted once for all columns.
    """
    order = np.random.default_rng(seed).permutation(len(positions)).astype(np.int32)
    order = order[np.argsort(known[order], kind="stable")]
    column = (positions[order, 0] * (wide * FINE)).astype(np.int16)
    row = ((1 - positions[order, 1]) * (high * FINE)).astype(np.int16)
    return _paint(order.tobytes(), row.tobytes(), column.tobytes(), wide, high, diameter)


@lru_cache(maxsize=CACHED)
def _paint(
    order: bytes, rows: bytes, columns: bytes, wide: int, high: int, diameter: float
) -> Dots:
    """Paint dots at points of a fine grid, later ones over earlier ones."""
    cells = np.frombuffer(order, np.int32)
    row, column = np.frombuffer(rows, np.int16), np.frombuffer(columns, np.int16)
    radius = diameter * FINE / 2
    reach = int(radius)
    down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    inside = down**2 + right**2 <= radius**2
    down, right = down[inside], right[inside]
    # A plane per point of a pixel: where a point of the grid lies, by its row and its column.
    r, c = np.arange(high * FINE), np.arange(wide * FINE)
    row_part = r % FINE * FINE * high * wide + r // FINE * wide
    column_part = c % FINE * high * wide + c // FINE
    seen = np.full(FINE * FINE * high * wide, -1, dtype=np.int32)
    step = 2**19 // len(down) + 1
    for start in range(0, len(cells), step):
        part = slice(start, start + step)
        points = row_part[row[part, None] + down] + column_part[column[part, None] + right]
        # Where an index occurs twice, the last value is kept: a dot covers those before it.
        seen[points.ravel()] = np.repeat(cells[part], len(down))
    seen = seen.reshape(FINE * FINE, high * wide)
    pixels = np.flatnonzero((seen >= 0).any(axis=0))
    return Dots(high, wide, pixels, seen[:, pixels])


def color_cells(dots: Dots, colors: np.ndarray) -> np.ndarray:
    """Color the dots of all cells, on white.

    `colors` is sRGB from 0 to 255, shape (cells, 3); so is the image, (high, wide, 3).
    """
    # The four 16-bit parts of one number: all channels are looked up and added at once.
    table = np.full((len(colors) + 1, 4), 255, dtype=np.uint16)  # the last: no cell
    table[:-1, :3] = colors
    packed = table.view(np.uint64).ravel()
    total = np.full(len(dots.pixels), np.uint64(0))
    total.view(np.uint16)[:] = len(dots.seen) // 2  # to round
    for cells in dots.seen:
        total += packed[cells]
    image = np.full((dots.high * dots.wide, 3), 255, dtype=np.uint8)
    image[dots.pixels] = total.view(np.uint16).reshape(-1, 4)[:, :3] // len(dots.seen)
    return image.reshape(dots.high, dots.wide, 3)


class Picture(Artist):
    """An image that is drawn as it is: at the dots per inch it was made for, nothing resampled."""

    def __init__(self, image: np.ndarray, x: float, y: float) -> None:
        super().__init__()
        self.image, self.corner = image, (x, y)

    def draw(self, renderer: RendererBase) -> None:
        """Draw the pixels from the lower left corner."""
        x, y = self.axes.transData.transform(self.corner)
        opaque = np.full((*self.image.shape[:2], 4), 255, dtype=np.uint8)
        opaque[::-1, :, :3] = self.image
        gc = renderer.new_gc()
        renderer.draw_image(gc, x, y, opaque)
        gc.restore()
