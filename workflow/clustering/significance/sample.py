"""Which cells and genes of a cluster are used to test its splits."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import scipy.sparse as sp

    from preprocessing.gene_choice import GeneChoice

# Cells of a cluster; more tell little that these do not.
SAMPLED_AT_MOST = 1_500
# Of each child so many at least, where it has them: the power to find small ones.
CELLS_PER_CHILD = 100
# Cells whose counts are held at a time.
CELLS_READ = 30_000
N_GENES = 2_000
# A gene must be found in so many cells of the sample, and in this share of them.
MIN_CELLS_WITH_GENE, MIN_SHARE_WITH_GENE = 5, 0.01


def draw_cells(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw cells of every child, more of large ones.

    Parameters
    ----------
    labels
        Children, from 0.
    rng
        Of the draw.

    Returns
    -------
    numpy.ndarray
        Positions, in increasing order; all where there are at most `SAMPLED_AT_MOST`.
    """
    if len(labels) <= SAMPLED_AT_MOST:
        return np.arange(len(labels))
    sizes = np.bincount(labels)
    first = np.minimum(sizes, CELLS_PER_CHILD)
    remaining = sizes - first
    n_more = min(max(SAMPLED_AT_MOST - int(first.sum()), 0), int(remaining.sum()))
    n_drawn = first + (remaining * n_more) // max(int(remaining.sum()), 1)
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return np.sort(
        np.concatenate([order[start : start + n] for start, n in zip(starts, n_drawn, strict=True)])
    )


def groups_of_divisions(sizes: list[int]) -> list[range]:
    """Group samples whose counts are read together."""
    groups, start, n_cells = [], 0, 0
    for number, size in enumerate(sizes):
        if number > start and n_cells + size > CELLS_READ:
            groups.append(range(start, number))
            start, n_cells = number, 0
        n_cells += size
    if sizes:
        groups.append(range(start, len(sizes)))
    return groups


class ChosenGenes(NamedTuple):
    """Genes of a sample.

    Attributes
    ----------
    found
        int, positions of the genes that enough cells have, variable or not.
    counts
        CSR matrix, cells x these genes.
    variable
        int, positions of at most `N_GENES` variable ones among these.
    """

    found: np.ndarray
    counts: sp.csr_matrix
    variable: np.ndarray

    def variable_counts(self) -> sp.csr_matrix:
        """Return cells x variable genes, float64."""
        counts = self.counts
        if len(self.variable) < counts.shape[1]:
            counts = counts[:, self.variable]
        counts = counts.astype(np.float64)
        counts.eliminate_zeros()
        counts.sort_indices()
        return counts


def choose_genes(counts: sp.csr_matrix, choice: GeneChoice | None = None) -> ChosenGenes:
    """Choose the variable genes of a sample, among those that enough of its cells have.

    Parameters
    ----------
    counts
        CSR matrix, cells x genes.
    choice
        Genes that are never variable, or the only ones.
    """
    from numerics.normalize import median_target_sum, normalize_block, row_totals
    from preprocessing.gene_choice import GeneChoice, select_genes

    n_with = np.bincount(counts.indices[counts.data > 0], minlength=counts.shape[1])
    least = max(MIN_CELLS_WITH_GENE, MIN_SHARE_WITH_GENE * counts.shape[0])
    found = np.flatnonzero(n_with >= least)
    counts = counts[:, found]
    variable, _ = select_genes(
        lambda: [normalize_block(counts, target_sum=median_target_sum(row_totals(counts)))],
        len(found),
        (choice or GeneChoice()).among(found),
        n_top_genes=N_GENES if len(found) > N_GENES else None,
        flavor="seurat",
    )
    return ChosenGenes(found, counts, np.arange(len(found)) if variable is None else variable)
