"""Rows of matrices; where the array's own module is passed as ``xp``, in NumPy or CuPy."""

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


def centroids_of(points: np.ndarray, codes: np.ndarray, n_groups: int) -> np.ndarray:
    """Return the mean of the points of each group, float64 of shape (groups, dimensions).

    Rows of `points` that are not finite are left out; a group without any is at 0.
    """
    finite = np.isfinite(points).all(axis=1)
    points, codes = np.asarray(points[finite], dtype=np.float64), codes[finite]
    n_points = np.maximum(np.bincount(codes, minlength=n_groups), 1)
    sums = np.zeros((n_groups, points.shape[1]))
    for values, column in zip(points.T, sums.T, strict=True):
        column[:] = np.bincount(codes, weights=values, minlength=n_groups)
    return sums / n_points[:, None]
