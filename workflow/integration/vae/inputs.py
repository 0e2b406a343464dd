"""Counts and covariates: checked, sparse, float32. NumPy only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

def as_counts(counts, n_genes):
    return sp.csr_matrix(counts, dtype=np.float32)

def has_counts(counts):
    return np.asarray(counts.sum(axis=1)).ravel() > 0

def as_covariates(covariates, n_cells, n):
    if covariates is None:
        return sp.csr_matrix((n_cells, 0), dtype=np.float32)
    return sp.csr_matrix(covariates, dtype=np.float32)
