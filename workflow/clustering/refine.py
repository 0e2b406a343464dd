"""Principal components of each parent on its own variable genes, integrated by Harmony or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import pandas as pd
    import scipy.sparse as sp

    from preprocessing.gene_choice import GeneChoice
    from preprocessing.options import PCAOptions


def own_components(
    blocks: Callable[[], Iterable[sp.csr_matrix | np.ndarray]],
    parts: Sequence[np.ndarray],
    *,
    options: PCAOptions,
    choice: GeneChoice | None = None,
    batches: Sequence[pd.Series] = (),
    seed: int = 0,
    **harmony: Any,
) -> list[np.ndarray | str]:
    """Compute principal components of some sets of cells, each on its own variable genes.

    The counts are read in one pass for all sets. Each set is treated as a data set of its own:
    its counts are normalized to their median total, its variable genes selected, its components
    computed and, where there are `batches`, integrated with Harmony.

    Parameters
    ----------
    blocks
        Counts of all cells, in consecutive blocks of rows, cells x genes.
    parts
        Positions of the cells of each set; no cell in two of them.
    options
        As for a whole data set, except for `target_sum`, which instead of its default is the
        median total of the set, and `n_comps`, which is at most the square root of its cells.
    choice
        Genes to select from, or the selected genes; default: selected from all.
    batches
        Columns of the batch, of all cells; a set that is within one batch is not integrated.
    seed, **harmony
        As for `integration.harmony.harmonize`.

    Returns
    -------
    list
        float32 of shape (cells of the set, components) for each set, or the reason why it has
        no components.

    Notes
    -----
    Peak memory: the counts of the sets, twice those of the largest one, and 16 bytes per pair of
    variable genes.

    Subtypes differ little, and of a small set most components are noise: on simulated subtypes
    (RESULTS.md, "Tested splits") 50 components of counts scaled to 10,000 found less than the
    components of all cells do.
    """
    from dataclasses import replace

    from preprocessing.options import PCAOptions
    from utils.blocks import gather_rows

    results: list[np.ndarray | str] = []
    for rows, counts in zip(parts, gather_rows(blocks(), parts), strict=True):
        try:
            n_comps = min(options.n_comps, round(len(rows) ** 0.5))
            own = replace(options, n_comps=n_comps)
            if options.target_sum == PCAOptions.target_sum:
                own = replace(own, target_sum=None)
            Z = components_of_counts(counts, own, choice)
            varying = [column.iloc[rows] for column in batches]
            varying = [column for column in varying if (column != column.iloc[0]).any()]
            if varying:
                from integration.harmony import harmonize

                Z = harmonize(Z, varying, seed=seed, **harmony).corrected
            results.append(Z)
        except ValueError as error:
            results.append(str(error))
    return results


def components_of_counts(
    counts: sp.csr_matrix, options: PCAOptions, choice: GeneChoice | None = None
) -> np.ndarray:
    """Compute principal components of a set of cells that is in memory.

    Parameters
    ----------
    counts
        Cells x genes.
    options, choice
        As for `own_components`; `n_comps` is cut to what the set can have.

    Returns
    -------
    numpy.ndarray
        float32 of shape (cells, components).
    """
    from numerics.normalize import median_target_sum, normalize_block, row_totals
    from preprocessing.gene_choice import GeneChoice, select_genes
    from preprocessing.pca import gram_pca, pca_scores

    values = counts
    if options.normalize:
        target_sum = options.target_sum
        if target_sum is None:
            target_sum = median_target_sum(row_totals(counts))
        values = normalize_block(counts, target_sum=target_sum)
    genes, _ = select_genes(
        lambda: [values if options.flavor == "seurat" else counts],
        counts.shape[1],
        GeneChoice() if choice is None else choice,
        n_top_genes=options.n_top_genes,
        flavor=options.flavor,
    )
    if genes is not None:
        values = values[:, genes]
    n_comps = max(1, min(options.n_comps, min(values.shape) - 1))
    pca = gram_pca(lambda: [values], n_comps=n_comps)
    return np.concatenate(list(pca_scores(lambda: [values], pca.components, pca.mean)))
