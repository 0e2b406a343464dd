"""The data of the page: which cells are drawn, and their values in few bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.figures.color_scale import color_scale
from evaluation.figures.column_values import read_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.figures.column_values import Values

KEPT = 50  # cells that every cluster keeps, as far as it has them
MOST_CATEGORIES = 1000
NONE = 65535  # stands for what is missing; a byte's 255 for the same


class Buffer:
    """Arrays one behind the other; `add` tells where one lies."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0

    def add(self, values: np.ndarray) -> dict[str, int]:
        """Append an array of uint8 or uint16, the latter as all high bytes, then all low ones.

        High bytes of cells that lie beside each other are alike, which compresses well.
        """
        planes = [values] if values.dtype == np.uint8 else [values >> 8, values & 255]
        place = {"at": self.size, "bytes": len(planes)}
        for plane in planes:
            self.parts.append(plane.astype(np.uint8).tobytes())
            self.size += len(plane)
        return place


def drawn_cells(
    clusterings: Sequence[np.ndarray], n_cells: int, *, most: int, seed: int = 0
) -> np.ndarray:
    """Choose the cells to draw: at random, but some of every cluster.

    Parameters
    ----------
    clusterings
        Codes of the clusters of all cells, (cells,) each; -1 is none.
    n_cells
        Number of cells.
    most
        Number of cells to choose; where there are more clusters, one of each.
    seed
        Of the choice.

    Returns
    -------
    ndarray of int64
        Rows in ascending order; all, where there are at most `most`.

    Notes
    -----
    Peak memory: about 40 bytes per cell.
    """
    if n_cells <= most:
        return np.arange(n_cells)
    order = np.random.default_rng(seed).permutation(n_cells)
    n_clusters = sum(int(codes.max(initial=-1)) + 1 for codes in clusterings)
    kept = max(min(KEPT, most // (2 * max(n_clusters, 1))), 1)
    chosen = np.zeros(n_cells, dtype=bool)
    for codes in clusterings:
        shuffled = codes[order]
        by_cluster = np.argsort(shuffled, kind="stable")
        sizes = np.bincount(shuffled + 1)
        starts = np.cumsum(sizes) - sizes
        place = np.arange(n_cells) - np.repeat(starts, sizes)
        first = (place < kept) & (np.repeat(np.arange(-1, len(sizes) - 1), sizes) >= 0)
        chosen[order[by_cluster[first]]] = True
    rest = order[~chosen[order]]
    chosen[rest[: max(most - int(chosen.sum()), 0)]] = True
    return np.flatnonzero(chosen)


def near_order(places: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Order cells so that those of a cluster, and within it those near each other, follow.

    `places` (cells, 2) as of `quantized`, `codes` (cells,). For compression only: the page
    draws the cells in random order.
    """
    spread = [_spread_bits(places[:, k] >> 6) for k in (0, 1)]
    return np.lexsort((spread[0] | spread[1] << 1, codes))


def _spread_bits(values: np.ndarray) -> np.ndarray:
    """Put a zero between the bits of numbers below 2**16, for a place on the Z curve."""
    values = values.astype(np.uint32)
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        values = (values | values << shift) & mask
    return values


def quantized(layout: np.ndarray) -> np.ndarray:
    """Fit a layout into a square of 65,535 steps a side: (cells, 2) uint16, `NONE` where missing.

    Raises
    ------
    ValueError
        If it is not two-dimensional, or no cell has a place.
    """
    if layout.ndim != 2 or layout.shape[1] < 2:
        raise ValueError(f"the layout must have shape (cells, 2), found {layout.shape}")
    layout = layout[:, :2].astype(np.float64)
    placed = np.isfinite(layout).all(axis=1)
    if not placed.any():
        raise ValueError(f"none of the {len(layout):,} cells has finite coordinates to draw")
    low, high = layout[placed].min(axis=0), layout[placed].max(axis=0)
    span = (high - low).max() or 1.0
    unit = (layout - (low + high) / 2) / span + 0.5
    steps = np.where(placed[:, None], np.rint(unit * (NONE - 1)), NONE)
    return steps.astype(np.uint16)


def codes_in_bytes(codes: np.ndarray, n: int) -> np.ndarray:
    """Write codes (-1: missing) below `n` as bytes, or as pairs where a byte is too small."""
    small = n < 255
    missing = 255 if small else NONE
    return np.where(codes < 0, missing, codes).astype(np.uint8 if small else np.uint16)


def describe_column(values: Values, *, name: str) -> tuple[dict[str, Any], np.ndarray]:
    """Tell the page what a column is.

    Parameters
    ----------
    values
        Of all cells.
    name
        Of the column.

    Returns
    -------
    dict
        For categories ``names``, ``counts`` and ``missing``; for numbers ``min``, ``step``,
        ``low`` and ``high`` (where the colors end) and ``missing``.
    ndarray of uint8 or uint16
        (cells,): codes of the names, or steps above ``min``.

    Raises
    ------
    ValueError
        If there is nothing to color by: no value at all, or as good as one category per cell.
    """
    names, data = read_values(values, title=name, as_categories=False)
    if names is None:
        return _describe_numbers(data, name)
    counts = np.bincount(data[data >= 0], minlength=len(names))
    if not names:
        raise ValueError("no value")
    if len(names) > MOST_CATEGORIES:
        raise ValueError(f"{len(names):,} different values")
    missing = len(data) - int(counts.sum())
    about = {"name": name, "names": names, "counts": counts.tolist(), "missing": missing}
    return about, codes_in_bytes(data, len(names))


def _describe_numbers(data: np.ndarray, name: str) -> tuple[dict[str, Any], np.ndarray]:
    finite = np.isfinite(data)
    if not finite.any():
        raise ValueError("no value")
    low, high = data[finite].min(), data[finite].max()
    whole = high - low < NONE and bool((data[finite] == np.rint(data[finite])).all())
    step = 1.0 if whole else (high / (NONE - 1) - low / (NONE - 1)) or 1.0
    steps = np.rint((data - low) / step, where=finite, out=np.full(len(data), NONE, dtype=float))
    ends = color_scale(np.where(finite, data, np.nan))[0].get_clim()
    about = {"name": name, "min": float(low), "step": float(step), "missing": int((~finite).sum())}
    about |= {"low": float(max(ends[0], low)), "high": float(min(ends[1], high))}
    return about, steps.astype(np.uint16)
