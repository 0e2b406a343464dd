"""Mutual nearest neighbors: integrate an embedding or expression values (Haghverdi 2018)."""

from integration.mnn.fast import FastMNNResult, cosine_norm, fast_mnn, multi_batch_pca
from integration.mnn.gene import mnn_correct
from integration.mnn.reduced import MNNResult, project_simplex, reduced_mnn

__all__ = [
    "FastMNNResult",
    "MNNResult",
    "cosine_norm",
    "fast_mnn",
    "mnn_correct",
    "multi_batch_pca",
    "project_simplex",
    "reduced_mnn",
]
