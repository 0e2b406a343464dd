"""Compiled loops over the stored counts of some cells of a CSR matrix.

`indptr`, `indices` and `values` are those of the matrix, `cells` the rows that are read, in this
order. Sums are taken in the order of the entries. Unsigned positions are not checked for counting
from the end, which takes half of the time.
"""

from __future__ import annotations

import numpy as np

from utils.jit import compiled


@compiled()
def group_sums(indptr, indices, values, cells, groups, n_groups, n_genes):
    """Sum each gene's values and their squares over groups of cells, for several groupings.

    Parameters
    ----------
    groups
        int of shape (groupings, cells), group of each cell; -1: none.
    n_groups, n_genes
        Of each grouping, and of the matrix.

    Returns
    -------
    numpy.ndarray
        float64 of shape (groupings, groups, genes, 2): sums, and sums of squares.
    """
    sums = np.zeros((len(groups), n_groups, n_genes, 2))
    for i in range(len(cells)):
        start, stop = indptr[cells[i]], indptr[cells[i] + 1]
        for grouping in range(len(groups)):
            group = groups[grouping, i]
            if group < 0:
                continue
            of_group = sums[grouping, group]
            for entry in range(start, stop):
                value = values[entry]
                of_gene = of_group[np.uint32(indices[entry])]
                of_gene[0] += value
                of_gene[1] += value * value
    return sums


@compiled()
def half_scores(indptr, indices, values, cells, half, weights):
    """Multiply cells with several weights of the genes, the genes of either half by themselves.

    Parameters
    ----------
    half
        int of shape (genes,), 0 or 1.
    weights
        float64 of shape (genes, weightings).

    Returns
    -------
    numpy.ndarray
        float64 of shape (2 halves, cells, weightings).
    """
    scores = np.zeros((2, len(cells), weights.shape[1]))
    for i in range(len(cells)):
        for entry in range(indptr[cells[i]], indptr[cells[i] + 1]):
            gene, value = np.uint32(indices[entry]), values[entry]
            of_half, of_gene = scores[half[gene], i], weights[gene]
            for weighting in range(len(of_gene)):
                of_half[weighting] += value * of_gene[weighting]
    return scores


@compiled()
def side_counts(indptr, indices, counts, cells, high, division, n_genes):
    """Sum each gene's counts over low and high cells, and count the cells that have it.

    Parameters
    ----------
    high
        bool of shape (divisions, cells).
    division
        int of shape (genes,): which division of the cells a gene is compared by.

    Returns
    -------
    tuple of numpy.ndarray
        Two of shape (low and high, genes): float64 sums and int64 cells.
    """
    sums = np.zeros((2, n_genes))
    n_with = np.zeros((2, n_genes), dtype=np.int64)
    for i in range(len(cells)):
        for entry in range(indptr[cells[i]], indptr[cells[i] + 1]):
            gene = np.uint32(indices[entry])
            side = int(high[division[gene], i])
            sums[side, gene] += counts[entry]
            n_with[side, gene] += counts[entry] > 0
    return sums, n_with


@compiled()
def dense_columns(indptr, indices, counts, cells, column_of, n_columns):
    """Return some genes of some cells as a dense float64 matrix, cells x columns.

    Parameters
    ----------
    column_of
        int of shape (genes,), column of a gene; -1: it is left out.
    """
    values = np.zeros((len(cells), n_columns))
    for i in range(len(cells)):
        for entry in range(indptr[cells[i]], indptr[cells[i] + 1]):
            column = column_of[np.uint32(indices[entry])]
            if column >= 0:
                values[i, column] += counts[entry]
    return values
