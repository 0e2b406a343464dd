"""The data of the page: which cells are drawn, and their values in few bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.figures.color_scale import color_scale
from evaluation.figures.column_values import read_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.figures.column_values import Values

MIN_CELLS_PER_CLUSTER = 50  # drawn, of clusters that have as many
MAX_CATEGORIES = 1000
MISSING_CODE = 65535  # of a missing value; 255 in arrays of bytes


class Buffer:
    """Arrays one after the other in one block of bytes."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0

    def add(self, values: np.ndarray) -> dict[str, int]:
        """Append an array of uint8 or uint16; return its offset and its bytes per value.

        Of uint16 all high bytes come first, then all low ones: high bytes of neighboring cells are
        alike, which compresses well.
        """
        planes = [values] if values.dtype == np.uint8 else [values >> 8, values & 255]
        place = {"at": self.size, "bytes": len(planes)}
        for plane in planes:
            self.parts.append(plane.astype(np.uint8).tobytes())
            self.size += len(plane)
        return place


def choose_cells(
    clusterings: Sequence[np.ndarray], n_cells: int, *, max_cells: int, seed: int = 0
) -> np.ndarray:
    """Choose the cells to draw: at random, but some of every cluster.

    Parameters
    ----------
    clusterings
        Codes of the clusters of all cells, (cells,) each; -1 is none.
    n_cells
        Number of cells.
    max_cells
        Number of cells to choose; where there are more clusters, one of each.
    seed
        Seed of the choice.

    Returns
    -------
    ndarray of int64
        Rows in ascending order; all rows if there are at most `max_cells`.

    Notes
    -----
    Peak memory: about 40 bytes per cell.
    """
    if n_cells <= max_cells:
        return np.arange(n_cells)
    order = np.random.default_rng(seed).permutation(n_cells)
    n_clusters = sum(int(codes.max(initial=-1)) + 1 for codes in clusterings)
    per_cluster = max(min(MIN_CELLS_PER_CLUSTER, max_cells // (2 * max(n_clusters, 1))), 1)
    chosen = np.zeros(n_cells, dtype=bool)
    for codes in clusterings:
        shuffled = codes[order]
        by_cluster = np.argsort(shuffled, kind="stable")
        sizes = np.bincount(shuffled + 1)
        starts = np.cumsum(sizes) - sizes
        rank = np.arange(n_cells) - np.repeat(starts, sizes)
        has_cluster = np.repeat(np.arange(-1, len(sizes) - 1), sizes) >= 0
        chosen[order[by_cluster[(rank < per_cluster) & has_cluster]]] = True
    others = order[~chosen[order]]
    chosen[others[: max(max_cells - int(chosen.sum()), 0)]] = True
    return np.flatnonzero(chosen)


def compact_order(steps: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Order cells by cluster and, within a cluster, along a Z-order curve through the layout.

    `steps` (cells, 2) as `quantize_layout` returns them, `codes` (cells,). Only for compression:
    the page draws the cells in random order.
    """
    x, y = (_spread_bits(steps[:, k] >> 6) for k in (0, 1))
    return np.lexsort((x | y << 1, codes))


def _spread_bits(values: np.ndarray) -> np.ndarray:
    """Put a zero between the bits of numbers below 2**16."""
    values = values.astype(np.uint32)
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        values = (values | values << shift) & mask
    return values


def quantize_layout(layout: np.ndarray) -> np.ndarray:
    """Fit a layout into a square of 65,534 steps a side.

    Returns
    -------
    ndarray of uint16
        (cells, 2); `MISSING_CODE` for cells without finite coordinates.

    Raises
    ------
    ValueError
        If the layout is not two-dimensional, or no cell has finite coordinates.
    """
    if layout.ndim != 2 or layout.shape[1] < 2:
        raise ValueError(f"the layout must have shape (cells, 2), found {layout.shape}")
    layout = layout[:, :2].astype(np.float64)
    finite = np.isfinite(layout).all(axis=1)
    if not finite.any():
        raise ValueError(f"none of the {len(layout):,} cells has finite coordinates to draw")
    low, high = layout[finite].min(axis=0), layout[finite].max(axis=0)
    span = (high - low).max() or 1.0
    unit = (layout - (low + high) / 2) / span + 0.5
    steps = np.where(finite[:, None], np.rint(unit * (MISSING_CODE - 1)), MISSING_CODE)
    return steps.astype(np.uint16)


def pack_codes(codes: np.ndarray, n: int) -> np.ndarray:
    """Write codes below `n` (-1: missing) as uint8, or as uint16 where they do not fit."""
    fits = n < 255
    missing = 255 if fits else MISSING_CODE
    return np.where(codes < 0, missing, codes).astype(np.uint8 if fits else np.uint16)


def describe_column(values: Values, *, name: str) -> tuple[dict[str, Any], np.ndarray]:
    """Describe a column of obs for the page, and pack its values.

    Parameters
    ----------
    values
        Values of all cells.
    name
        Name of the column.

    Returns
    -------
    dict
        For categories ``names``, ``counts`` and ``missing``; for numbers ``min``, ``step``,
        ``low`` and ``high`` (the ends of the color scale) and ``missing``.
    ndarray of uint8 or uint16
        (cells,): codes of the names, or steps above ``min``.

    Raises
    ------
    ValueError
        If there is nothing to color by: no value at all, or nearly as many categories as cells.
    """
    names, data = read_values(values, title=name, as_categories=False)
    if names is None:
        return _describe_numbers(data, name)
    if not names:
        raise ValueError("no value")
    if len(names) > MAX_CATEGORIES:
        raise ValueError(f"{len(names):,} different values")
    counts = np.bincount(data[data >= 0], minlength=len(names))
    missing = len(data) - int(counts.sum())
    description = {"name": name, "names": names, "counts": counts.tolist(), "missing": missing}
    return description, pack_codes(data, len(names))


def _describe_numbers(data: np.ndarray, name: str) -> tuple[dict[str, Any], np.ndarray]:
    finite = np.isfinite(data)
    if not finite.any():
        raise ValueError("no value")
    low, high = data[finite].min(), data[finite].max()
    integers = high - low < MISSING_CODE and bool((data[finite] == np.rint(data[finite])).all())
    step = 1.0 if integers else (high / (MISSING_CODE - 1) - low / (MISSING_CODE - 1)) or 1.0
    steps = np.full(len(data), MISSING_CODE, dtype=float)
    np.rint((data - low) / step, where=finite, out=steps)
    scale_low, scale_high = color_scale(np.where(finite, data, np.nan))[0].get_clim()
    description = {
        "name": name,
        "min": float(low),
        "step": float(step),
        "missing": int((~finite).sum()),
        "low": float(max(scale_low, low)),
        "high": float(min(scale_high, high)),
    }
    return description, steps.astype(np.uint16)
