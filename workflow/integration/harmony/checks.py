"""What comes in: the embedding, the batch keys and the blocks, checked before anything runs."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from integration.harmony.soft_clusters import row_lengths

if TYPE_CHECKING:
    from collections.abc import Callable


def array_namespace(Z: Any) -> Any:
    """Return NumPy, or CuPy for an array that is on a GPU; refuse what is no matrix."""
    if hasattr(Z, "ndim") and Z.ndim != 2:
        raise ValueError(f"the embedding must have two dimensions; found shape {Z.shape}")
    if type(Z).__module__.partition(".")[0] == "cupy":
        import cupy

        return cupy
    if not isinstance(Z, np.ndarray):
        raise TypeError(f"the embedding must be an array; found {type(Z).__name__}")
    return np


def check_cells(Z: Any, dtype: Any, xp: Any) -> Any:
    """Bring the embedding into the working dtype, rows contiguous; no copy where it is so."""
    dtype = np.dtype(dtype)
    if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype must be float32 or float64; found {dtype}")
    if Z.dtype.kind not in "fiu":
        raise TypeError(f"the embedding must hold numbers; found dtype {Z.dtype}")
    if Z.shape[1] == 0:
        raise ValueError("the embedding has no dimensions")
    return xp.ascontiguousarray(Z, dtype=dtype)


def check_values(cells: Any, chunk_size: int, run: Callable[..., None], xp: Any) -> None:
    """Refuse values that are not finite and an embedding without variance; warn of zero rows."""
    bad: list[int] = []
    zero = 0
    constant = True
    first = cells[:1]

    def measure(start: int, _: Any) -> tuple[list[int], int, bool]:
        rows = cells[start : start + chunk_size]
        with np.errstate(over="ignore"):
            lengths = row_lengths(rows, xp)
        wrong = xp.flatnonzero(~xp.isfinite(lengths)) + start
        same = bool((rows == first).all()) if start == 0 or constant else False
        return wrong.tolist(), int((lengths == 0).sum()), same

    def collect(_: int, found: tuple[list[int], int, bool]) -> None:
        nonlocal zero, constant
        bad.extend(found[0])
        zero += found[1]
        constant &= found[2]

    run(measure, range(0, len(cells), chunk_size), collect)
    if bad:
        shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise ValueError(
            f"the embedding is NaN, infinite or too large in {len(bad)} cells (rows {shown}); "
            "remove these cells or compute the embedding anew"
        )
    if constant and len(cells) > 1:
        raise ValueError("the embedding has no variance: all cells are the same")
    if zero:
        warnings.warn(
            f"{zero} cells have only zeros in the embedding; they have no direction and are "
            "assigned to all clusters alike",
            stacklevel=4,
        )


def check_blocks(blocks: Any, n_cells: int, kept: np.ndarray | None) -> np.ndarray | None:
    """Check the given blocks; number them in ascending order, without gaps."""
    if blocks is None:
        return None
    blocks = np.asarray(blocks)
    if blocks.shape != (n_cells,) or blocks.dtype.kind not in "iu":
        raise ValueError(
            f"blocks must be {n_cells} whole numbers, one per cell; found {blocks.dtype} of "
            f"shape {blocks.shape}"
        )
    return np.unique(blocks if kept is None else blocks[kept], return_inverse=True)[1]
