"""The counts that a method starts from: of the variable genes where these are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from preprocessing.stores import counts_blocks
from utils.blocks import n_blocks
from utils.io import keys, read_element
from utils.log import progress

if TYPE_CHECKING:
    import scipy.sparse as sp

    from preprocessing.stores import StoredMatrix


def variable_genes(root: Any) -> np.ndarray | None:
    """Return the positions of the genes in ``var/highly_variable``; None where there is none."""
    if "highly_variable" not in keys(root, "var"):
        return None
    return np.flatnonzero(np.asarray(read_element(root, "var/highly_variable"), dtype=bool))


def read_counts(
    matrix: StoredMatrix, genes: np.ndarray | None, *, dtype: str = "float32"
) -> sp.csr_matrix:
    """Read the counts of some genes, or of all, in blocks of rows; CSR, cells x genes.

    Peak memory: 8 bytes (float32) per count above 0, twice.
    """
    import scipy.sparse as sp

    blocks = progress(counts_blocks(matrix), desc="counts", total=n_blocks(matrix.values))
    parts = [
        sp.csr_matrix(block if genes is None else block[:, genes], dtype=dtype) for block in blocks
    ]
    return sp.vstack(parts, format="csr")
