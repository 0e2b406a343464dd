"""Embeddings by each kind of MNN, as `scripts/mnn.py` writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from integration.mnn import reduced
from integration.mnn.fast import cosine_norm, fast_mnn
from integration.mnn.gene import mnn_correct
from integration.options import MNNCorrectOptions
from integration.stores import to_all_genes
from utils.log import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from integration.mnn.reduced import MNNResult
    from integration.stores import StoredExpression


def correct_embedding(
    Z: np.ndarray,
    batch: Sequence[pd.Series],
    *,
    basis: str = "the embedding",
    cos_norm: bool = False,
    project_simplex: bool = False,
    restrict: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
    **options: Any,
) -> tuple[np.ndarray, MNNResult, None]:
    """Correct an embedding with `reduced_mnn`; cells that are NaN take no part and stay NaN.

    Parameters
    ----------
    Z
        Cells x dimensions.
    batch
        Columns of obs.
    basis
        Name of the embedding in messages.
    cos_norm
        Give every cell length 1 first.
    project_simplex
        Return the nearest proportions of every cell, see `reduced.project_simplex`.
    restrict, clusters, options
        See `reduced_mnn`.

    Returns
    -------
    tuple
        The embedding (float32), what happened at each merge, and None.
    """
    present = ~np.isnan(Z).all(axis=1)
    if not present.all():
        say(f"{(~present).sum():,} of {len(Z):,} cells are NaN in {basis} and stay so")
    if not present.any():
        raise ValueError(f"{basis} is NaN in all {len(Z):,} cells")
    cells = cosine_norm(Z[present]) if cos_norm else Z[present]
    result = reduced.reduced_mnn(
        cells,
        [labels[present] for labels in batch],
        restrict=None if restrict is None else restrict[present],
        clusters=None if clusters is None else clusters[present],
        **options,
    )
    embedding = np.full(Z.shape, np.nan, dtype=np.float32)
    corrected = result.corrected
    embedding[present] = reduced.project_simplex(corrected) if project_simplex else corrected
    return embedding, result, None


def correct_components(
    expression: StoredExpression, batch: Sequence[pd.Series], **options: Any
) -> tuple[np.ndarray, MNNResult, np.ndarray]:
    """Correct components of expression values with `fast_mnn`; also return their loadings.

    The loadings have a row for each gene of the store, float32, 0 for those that were not used.
    """
    result = fast_mnn(expression.blocks, batch, **options)
    loadings = result.pca.rotation.astype(np.float32)
    loadings = to_all_genes(loadings, expression.genes, expression.n_genes, fill=0)
    return result.corrected.astype(np.float32), result, loadings


def correct_genes(
    expression: StoredExpression,
    batch: Sequence[pd.Series],
    *,
    n_comps: int = MNNCorrectOptions.n_comps,
    layer_added: str | None = None,
    threads: int = 1,
    **options: Any,
) -> tuple[np.ndarray, MNNResult, np.ndarray | None]:
    """Correct expression values with `mnn_correct`; the embedding is their principal components.

    Where `layer_added` names a layer for them, the blocks of `expression` have all genes and the
    corrected values (float32, cells x genes) are returned too; else None.
    """
    from preprocessing.pca import gram_pca, pca_scores

    X = np.concatenate(
        [block.toarray() if sp.issparse(block) else block for block in expression.blocks()]
    )
    all_genes = layer_added is not None
    subset = expression.genes if all_genes and len(expression.genes) < X.shape[1] else None
    result = mnn_correct(X, batch, subset=subset, correct_all=all_genes, threads=threads, **options)
    values = result.corrected if subset is None else result.corrected[:, subset]
    pca = gram_pca(lambda: [values], n_comps=n_comps, threads=threads)
    scores = np.concatenate(list(pca_scores(lambda: [values], pca.components, pca.mean)))
    return scores, result, result.corrected.astype(np.float32) if all_genes else None


CORRECT = {"mnn": correct_embedding, "fast_mnn": correct_components, "mnn_correct": correct_genes}
