"""Covariates as sparse columns, and what is constant in the likelihood. Needs no torch."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.special import gammaln

if TYPE_CHECKING:
    from collections.abc import Mapping


def log_factorials(counts: sp.csr_matrix) -> np.ndarray:
    """Compute Σ_j log Γ(x_j + 1) of every cell from the stored values; float32."""
    logs = sp.csr_matrix((gammaln(counts.data + 1), counts.indices, counts.indptr), counts.shape)
    return (logs @ np.ones(counts.shape[1])).astype(np.float32)


def design(columns: Mapping[str, Any]) -> sp.csr_matrix:
    """Encode covariates as the columns that the decoder is given.

    Parameters
    ----------
    columns
        Labels or numbers by name, one value per cell each. float columns are numbers, scaled to
        mean 0 and variance 1; all others are categories, one 0/1 column per level.

    Returns
    -------
    scipy.sparse.csr_matrix, float32, cells x (levels and numbers of all columns)
        A column with one value explains nothing and is left out, with a warning.

    Raises
    ------
    ValueError
        If a value is missing, a category has a level for each cell, or lengths differ.
    """
    import pandas as pd

    parts = []
    for name, values in columns.items():
        series = pd.Series(np.asarray(values) if isinstance(values, list) else values)
        n_missing = int(series.isna().sum())
        if n_missing:
            raise ValueError(
                f'covariate "{name}" is missing for {n_missing} of {len(series)} cells; '
                "label them or leave them out"
            )
        n_levels = series.nunique()
        if n_levels < 2:
            warnings.warn(
                f'covariate "{name}" has only one value: it explains nothing and is left out',
                UserWarning,
                stacklevel=2,
            )
        elif series.dtype.kind == "f":
            numbers = series.to_numpy(np.float64)
            if not np.isfinite(numbers).all():
                raise ValueError(f'covariate "{name}" holds numbers that are not finite')
            parts.append(sp.csr_matrix(((numbers - numbers.mean()) / numbers.std())[:, None]))
        else:
            if n_levels == len(series):
                raise ValueError(
                    f'covariate "{name}" has a level for each of the {len(series)} cells; name '
                    "a column that groups them"
                )
            # In sorted order, so that the order of a categorical's levels changes nothing.
            codes = pd.factorize(series.astype(object), sort=True)[0]
            rows = np.arange(len(series))
            parts.append(sp.csr_matrix((np.ones(len(rows)), (rows, codes))))
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"covariates differ in length: {sorted(lengths)}; one value per cell each")
    if not parts:
        return sp.csr_matrix((max(lengths, default=0), 0), dtype=np.float32)
    return sp.hstack(parts, format="csr", dtype=np.float32)


def as_covariates(covariates: Any, *, n_cells: int, n_columns: int) -> sp.csr_matrix:
    """Check covariates and return them as sparse rows; None is none.

    Raises
    ------
    ValueError
        If the shape is not (n_cells, n_columns) or a value is not finite.
    """
    if covariates is None:
        covariates = sp.csr_matrix((n_cells, 0), dtype=np.float32)
    if np.shape(covariates) != (n_cells, n_columns):
        raise ValueError(
            f"covariates must be {n_cells} cells x {n_columns} columns; "
            f"found {np.shape(covariates)}"
        )
    matrix = sp.csr_matrix(covariates, dtype=np.float32)
    if not np.isfinite(matrix.data).all():
        raise ValueError("covariates hold values that are not finite")
    return matrix
