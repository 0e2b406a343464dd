"""Compute means and variances of every batch and gene in one pass over the cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from utils.jit import compiled

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
        group = self.groups.rows(first_cell, piece.shape[0])
        data = piece.data.astype(np.float64)
        _update(self.seen, self.mean, self.spread, group, piece.indptr, piece.indices, data)

    def mean_var(self, cells: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Add the zeros that were not stored and return (mean, variance) of each batch."""
        moments = []
        for n, seen, mean, spread in zip(cells, self.seen, self.mean, self.spread, strict=True):
            of_zeros = np.where(seen > 0, mean * mean * seen * (n - seen) / n, 0)
            mean = np.where(seen < n, mean * seen / n, mean)
            moments.append((mean, (spread + of_zeros) / n * (n / (n - 1))))
        return moments


@compiled()
def _update(seen, mean, spread, group, indptr, indices, data):
    for cell in range(len(group)):
        number = group[cell]
        if number == len(seen):
            continue
        for i in range(indptr[cell], indptr[cell + 1]):
            gene = indices[i]
            seen[number, gene] += 1
            deviation = data[i] - mean[number, gene]
            mean[number, gene] += deviation / seen[number, gene]
            spread[number, gene] += deviation * (data[i] - mean[number, gene])


@compiled()
def add_by_gene(sums, squares, first, last, group, indptr, indices, values, squared):
    """Add the values of each batch and of the genes of a range, in the order of the cells.

    The indices of every cell must be sorted.
    """
    for cell in range(len(group)):
        cell_sums, cell_squares = sums[group[cell]], squares[group[cell]]
        start, stop = indptr[cell], indptr[cell + 1]
        start += np.searchsorted(indices[start:stop], first)
        for i in range(start, stop):
            gene = indices[i]
            if gene >= last:
                break
            cell_sums[gene] += values[i]
            cell_squares[gene] += squared[i]
