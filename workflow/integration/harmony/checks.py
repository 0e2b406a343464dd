"""Checks of the embedding and the blocks before Harmony computes anything."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics.arrays import row_norms

if TYPE_CHECKING:
    from collections.abc import Callable


def array_namespace(Z: Any) -> Any:
    """Return NumPy, or CuPy for an array on a GPU; refuse anything but a matrix."""
    if hasattr(Z, "ndim") and Z.ndim != 2:
        raise ValueError(f"the embedding must have two dimensions; found shape {Z.shape}")
    if type(Z).__module__.partition(".")[0] == "cupy":
        import cupy

        return cupy
    if not isinstance(Z, np.ndarray):
        raise TypeError(f"the embedding must be an array; found {type(Z).__name__}")
    return np


def check_embedding(Z: Any, dtype: str, xp: Any) -> Any:
    """Convert the embedding to the working dtype, C order; no copy where it has both."""
    if Z.dtype.kind not in "fiu":
        raise TypeError(f"the embedding must hold numbers; found dtype {Z.dtype}")
    if Z.shape[1] == 0:
        raise ValueError("the embedding has no dimensions")
    return xp.ascontiguousarray(Z, dtype=dtype)


def check_values(cells: Any, chunk_size: int, run: Callable[..., None], xp: Any) -> None:
    """Refuse values that are not finite and an embedding without variance; warn of zero rows."""
    invalid_rows: list[int] = []
    n_zero = 0
    constant = True
    first_cell = cells[:1]

    def measure(start: int, _: Any) -> tuple[list[int], int, bool]:
        rows = cells[start : start + chunk_size]
        with np.errstate(over="ignore"):
            norms = row_norms(rows, xp)
        invalid = xp.flatnonzero(~xp.isfinite(norms)) + start
        same = constant and bool((rows == first_cell).all())
        return invalid.tolist(), int((norms == 0).sum()), same

    def collect(_: int, measured: tuple[list[int], int, bool]) -> None:
        nonlocal n_zero, constant
        invalid_rows.extend(measured[0])
        n_zero += measured[1]
        constant &= measured[2]

    run(measure, range(0, len(cells), chunk_size), collect)
    if invalid_rows:
        shown = ", ".join(map(str, invalid_rows[:5])) + (", ..." if len(invalid_rows) > 5 else "")
        raise ValueError(
            f"the embedding is NaN, infinite or too large in {len(invalid_rows)} cells (rows "
            f"{shown}); remove these cells or recompute the embedding"
        )
    if constant and len(cells) > 1:
        raise ValueError("the embedding has no variance: all cells are the same")
    if n_zero:
        warnings.warn(
            f"{n_zero} cells have only zeros in the embedding; they have no direction and are "
            "assigned to all clusters equally",
            stacklevel=4,
        )


def check_blocks(blocks: Any, n_cells: int, mask: np.ndarray | None) -> np.ndarray | None:
    """Check the given blocks; renumber them in ascending order, without gaps."""
    if blocks is None:
        return None
    blocks = np.asarray(blocks)
    if blocks.shape != (n_cells,) or blocks.dtype.kind not in "iu":
        raise ValueError(
            f"blocks must be {n_cells} whole numbers, one per cell; found {blocks.dtype} of "
            f"shape {blocks.shape}"
        )
    return np.unique(blocks if mask is None else blocks[mask], return_inverse=True)[1]
