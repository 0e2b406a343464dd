"""What the topic models take and give: the check of the counts, the result."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

RARE = 1e-5  # shares below count as this in comparisons: a gene is never infinitely special


@dataclass(frozen=True)
class TopicModel:
    """A topic model: the count of gene j in cell i has mean scale_i * sum_k weights_ik topics_jk.

    Attributes
    ----------
    weights
        Shares of the topics in every cell, shape (n_cells, n_topics); rows sum to 1. A cell
        without counts is NaN.
    topics
        Shares of the genes in every topic, shape (n_genes, n_topics); columns sum to 1. A gene
        without counts is NaN. Topics are in the order of their shares in all counts.
    topic_scale
        Shape (n_cells,); at the optimum, the cell's total count.
    deviance
        2 sum (x log(x / rate) - x + rate), lower is better; NaN for LDA.
    residual
        Share of all counts that the KKT conditions find in the wrong place; NaN for LDA.
    n_iterations, converged
        Iterations of the best start, and whether its residual came below the tolerance.
    deviances
        The deviance of every start.
    """

    weights: np.ndarray
    topics: np.ndarray
    topic_scale: np.ndarray
    deviance: float
    residual: float
    n_iterations: int
    converged: bool
    deviances: list[float]


def check_counts(counts: Any, dtype: Any = np.float32) -> sp.csr_matrix:
    """Return counts as CSR; a copy only where the format or type is another.

    Raises
    ------
    TypeError, ValueError
        If they are not numbers in two dimensions, or one is missing, infinite or negative.
        Fractions (counts that are corrected for ambient RNA) are taken as they are.
    """
    if not sp.issparse(counts):
        counts = np.asarray(counts)
        if counts.ndim != 2:
            raise ValueError(f"counts must be cells x genes; found the shape {counts.shape}")
    if counts.dtype.kind not in "biuf":
        raise TypeError(f"counts must be numbers; found {counts.dtype}")
    matrix = sp.csr_matrix(counts)
    if not matrix.has_canonical_format:
        if matrix is counts:
            matrix = matrix.copy()
        matrix.sum_duplicates()
    for start in range(0, matrix.nnz, 1 << 22):
        values = matrix.data[start : start + (1 << 22)]
        wrong = values[~(np.isfinite(values) & (values >= 0))]
        if len(wrong):
            what = "missing" if np.isnan(wrong[0]) else f"{wrong[0]:g}"
            raise ValueError(
                f"counts must be numbers of 0 or more; found {what}. Topics need raw counts, not "
                "scaled values; name the layer that holds them"
            )
    if matrix.nnz and matrix.data.min() == 0:
        if matrix is counts:
            matrix = matrix.copy()
        matrix.eliminate_zeros()
    return matrix.astype(dtype, copy=False)


def without_empty(counts: sp.csr_matrix) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """Drop cells and genes without counts, with a warning; return masks of what is kept."""
    cells = np.diff(counts.indptr) > 0
    genes = np.bincount(counts.indices, minlength=counts.shape[1]) > 0
    dropped = [
        f"{(~mask).sum():,} of {len(mask):,} {name}"
        for mask, name in ((cells, "cells"), (genes, "genes"))
        if not mask.all()
    ]
    if dropped:
        warnings.warn(f"{' and '.join(dropped)} have no counts and become NaN", stacklevel=3)
        counts = counts[cells]
    if not genes.all():
        counts = counts[:, genes]
    return counts, cells, genes


def check_n_topics(n_topics: int, shape: tuple[int, int]) -> None:
    """Refuse as many topics as cells or genes that have counts."""
    if n_topics < 1:
        raise ValueError(f"n_topics must be at least 1; found {n_topics}")
    if n_topics >= min(shape):
        raise ValueError(
            f"n_topics must be less than the cells and genes that have counts, "
            f"{shape[0]:,} x {shape[1]:,}; found {n_topics}"
        )


def put_back(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Give every dropped cell or gene a row of NaN."""
    if kept.all():
        return values
    whole = np.full((len(kept), *values.shape[1:]), np.nan, values.dtype)
    whole[kept] = values
    return whole


def top_genes(topics: np.ndarray, names: Sequence[str], *, n_genes: int = 20) -> pd.DataFrame:
    """List the genes that tell each topic from the others.

    Parameters
    ----------
    topics
        Shares of the genes, shape (n_genes, n_topics); NaN rows are left out.
    names
        Of the genes.
    n_genes
        Genes per topic.

    Returns
    -------
    pandas.DataFrame
        Columns ``topic`` (from 0), ``rank`` (from 1), ``gene``, ``share`` (in the topic), ``lift``
        (over its share in the next highest topic). Genes are ranked by
        ``share * log(share / next)``, which the topic's Kullback-Leibler divergence from that
        topic sums: high in this topic, and low in all others.
    """
    import pandas as pd

    known = np.flatnonzero(~np.isnan(topics[:, 0]))
    shares = np.maximum(topics[known].astype(np.float64), RARE)
    labels = np.asarray(names, dtype=object)[known]
    tables = []
    for k in range(shares.shape[1]):
        own = shares[:, k]
        others = np.delete(shares, k, axis=1)
        lift = own / others.max(axis=1) if others.size else np.ones(len(own))
        order = np.argsort(-own * np.log(lift) if others.size else -own, kind="stable")[:n_genes]
        tables.append(
            pd.DataFrame(
                {
                    "topic": k,
                    "rank": np.arange(1, len(order) + 1),
                    "gene": labels[order],
                    "share": own[order],
                    "lift": lift[order],
                }
            )
        )
    return pd.concat(tables, ignore_index=True)
