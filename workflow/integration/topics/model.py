"""What the topic models share: checks of the counts, the fitted model, its top genes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from integration.count_matrix import as_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    import scipy.sparse as sp

MIN_SHARE = 1e-5  # shares below count as this: no gene is infinitely specific to a topic


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
        Share of all counts that violate the KKT conditions; NaN for LDA.
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


def positive_counts(counts: Any, dtype: Any = np.float32) -> sp.csr_matrix:
    """Check counts and return those above 0 as CSR in canonical format, see `as_counts`."""
    matrix = as_counts(counts, dtype=dtype)
    if not matrix.has_canonical_format or not matrix.data.all():
        matrix = matrix.copy()  # of the caller's arrays, which stay as they are
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
    return matrix


def without_empty(counts: sp.csr_matrix) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """Drop cells and genes without counts, with a warning; return masks of the others."""
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
    """Refuse a number of topics below 1, or not below the cells and genes that have counts."""
    if n_topics < 1:
        raise ValueError(f"n_topics must be at least 1; found {n_topics}")
    if n_topics >= min(shape):
        raise ValueError(
            f"n_topics must be less than the cells and genes that have counts, "
            f"{shape[0]:,} x {shape[1]:,}; found {n_topics}"
        )


def put_back(values: np.ndarray, has_counts: np.ndarray) -> np.ndarray:
    """Add a row of NaN for every dropped cell or gene."""
    if has_counts.all():
        return values
    rows = np.full((len(has_counts), *values.shape[1:]), np.nan, values.dtype)
    rows[has_counts] = values
    return rows


def top_genes(topics: np.ndarray, names: Sequence[str], *, n_genes: int = 20) -> pd.DataFrame:
    """List the genes that distinguish each topic from the others.

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
    shares = np.maximum(topics[known].astype(np.float64), MIN_SHARE)
    labels = np.asarray(names, dtype=object)[known]
    tables = []
    for k in range(shares.shape[1]):
        share = shares[:, k]
        others = np.delete(shares, k, axis=1)
        lift = share / others.max(axis=1) if others.size else np.ones(len(share))
        order = np.argsort(-share * np.log(lift) if others.size else -share, kind="stable")[
            :n_genes
        ]
        tables.append(
            pd.DataFrame(
                {
                    "topic": k,
                    "rank": np.arange(1, len(order) + 1),
                    "gene": labels[order],
                    "share": share[order],
                    "lift": lift[order],
                }
            )
        )
    return pd.concat(tables, ignore_index=True)
