"""Check counts before a model is fitted to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from numerics.normalize import check_counts


def as_counts(counts: Any, *, n_genes: int | None = None, dtype: Any = np.float32) -> sp.csr_matrix:
    """Check counts and return them as sparse rows; a copy only of another format or type.

    Parameters
    ----------
    counts
        Cells x genes, sparse or dense, any real type of number. Fractions (counts that are
        corrected for ambient RNA) are taken as they are.
    n_genes
        Number of genes that a model was made for.
    dtype
        float32 is exact up to 2**24 counts.

    Raises
    ------
    ValueError
        If a count is negative or not finite, or the shape is wrong.
    TypeError
        If the values are no real numbers.
    """
    if getattr(counts, "ndim", None) != 2:
        given = getattr(counts, "shape", None) or type(counts).__name__
        raise ValueError(f"counts must be a matrix of cells x genes; found {given}")
    if counts.dtype.kind not in "biuf":
        raise TypeError(f"counts must be real numbers; found {counts.dtype}")
    if n_genes is not None and counts.shape[1] != n_genes:
        raise ValueError(f"counts have {counts.shape[1]} genes, the model has {n_genes}")
    matrix = sp.csr_matrix(counts)
    check_counts(matrix, first_cell=0)
    return matrix.astype(dtype, copy=False)
