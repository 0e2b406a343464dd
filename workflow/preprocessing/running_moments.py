"""Compute means and variances of every batch and gene in one pass over the cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import scipy.sparse as sp


@dataclass(frozen=True)
class Groups:
    """The batch of every cell, numbered from 0; cells without one have the number `n`."""

    of_cell: np.ndarray | None  # None: all are in one batch
    n: int
    names: list[str]

    def rows(self, first: int, n: int) -> np.ndarray:
        """Return the batches of some consecutive cells."""
        if self.of_cell is None:
            return np.zeros(n, dtype=np.intp)
        return self.of_cell[first : first + n]


class RunningMoments:
    """Mean and variance per batch and gene, updated cell by cell (Welford 1962).

    Equal to the bit to scanpy 1.12 for ``seurat_v3`` with batches: stored values are added cell by
    cell, the zeros of a sparse matrix at the end.
    """

    def __init__(self, groups: Groups, n_genes: int) -> None:
        self.groups = groups
        self.seen, self.mean, self.spread = np.zeros((3, groups.n, n_genes))

    def update(self, piece: sp.csr_matrix, first_cell: int) -> None:
        indices, data = piece.indices.astype(np.intp), piece.data.astype(np.float64)
        bounds = piece.indptr.tolist()
        for row, group in enumerate(self.groups.rows(first_cell, piece.shape[0]).tolist()):
            if group == self.groups.n:
                continue
            genes = indices[bounds[row] : bounds[row + 1]]
            values = data[bounds[row] : bounds[row + 1]]
            seen = self.seen[group].take(genes) + 1
            mean = self.mean[group].take(genes)
            deviation = values - mean
            mean += deviation / seen
            self.seen[group][genes] = seen
            self.mean[group][genes] = mean
            self.spread[group][genes] += deviation * (values - mean)

    def mean_var(self, cells: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Add the zeros that were not stored and return (mean, variance) of each batch."""
        moments = []
        for n, seen, mean, spread in zip(cells, self.seen, self.mean, self.spread, strict=True):
            of_zeros = np.where(seen > 0, mean * mean * seen * (n - seen) / n, 0)
            mean = np.where(seen < n, mean * seen / n, mean)
            moments.append((mean, (spread + of_zeros) / n * (n / (n - 1))))
        return moments
