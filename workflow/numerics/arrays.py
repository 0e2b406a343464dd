"""Rows of matrices in NumPy or CuPy; the array's own module is passed as ``xp``."""

from __future__ import annotations

from typing import Any

import numpy as np


def to_host(array: Any) -> np.ndarray:
    """Copy an array from the GPU; one that is not there is returned as it is."""
    return array.get() if hasattr(array, "get") else array


def row_norms(rows: Any, xp: Any) -> Any:
    """Compute the length of every row."""
    if xp is np:  # whose norm takes twice as long
        return np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return xp.linalg.norm(rows, axis=1)  # CuPy's einsum starts a product for every row


def normalize_rows(rows: Any, xp: Any) -> Any:
    """Scale every row to length 1; a row of zeros stays as it is."""
    norms = row_norms(rows, xp)
    norms[norms == 0] = 1
    return rows / norms[:, None]
