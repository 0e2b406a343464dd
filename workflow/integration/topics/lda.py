"""Latent Dirichlet allocation: the topic model with Dirichlet priors, by scikit-learn."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import numpy as np

from integration.options import N_TOPICS_LADDER
from integration.topics.model import (
    TopicModel,
    check_n_topics,
    positive_counts,
    put_back,
    without_empty,
)


def lda(
    counts: Any,
    n_topics: int = N_TOPICS_LADDER[0],
    *,
    weight_prior: float | None = None,
    topic_prior: float | None = None,
    max_iter: int = 20,
    seed: int = 0,
    verbose: bool = False,
) -> TopicModel:
    """Fit latent Dirichlet allocation to counts.

    Parameters
    ----------
    counts
        Cells x genes, 0 or more; a SciPy sparse matrix, or an array.
    n_topics
        Number of topics, less than the cells and the genes.
    weight_prior, topic_prior
        Concentration of the Dirichlet priors of a cell's weights and of a topic's genes; None:
        1 / n_topics. Larger ones smooth more.
    max_iter
        Passes over all cells.
    seed
        Of the random start.
    verbose
        Write a line per pass to stderr.

    Returns
    -------
    TopicModel
        With posterior means; the scale is the cell's total count.

    Notes
    -----
    scikit-learn's batch algorithm on one thread, since its sums depend on the number of jobs.
    Peak memory beside `counts`: 16 bytes per non-zero, 16 per topic and cell or gene.
    """
    from sklearn.decomposition import LatentDirichletAllocation

    matrix, cells, genes = without_empty(positive_counts(counts, np.float64))
    check_n_topics(n_topics, matrix.shape)
    fitted = LatentDirichletAllocation(
        n_topics,
        doc_topic_prior=weight_prior,
        topic_word_prior=topic_prior,
        learning_method="batch",
        max_iter=max_iter,
        random_state=seed,
        verbose=int(verbose),
    )
    with contextlib.redirect_stdout(sys.stderr):
        weights = fitted.fit_transform(matrix)
    scale = np.asarray(matrix.sum(axis=1)).ravel()
    topics = fitted.components_.T / fitted.components_.sum(axis=1)
    order = np.argsort(-(scale @ weights), kind="stable")
    return TopicModel(
        weights=put_back(weights[:, order].astype(np.float32), cells),
        topics=put_back(topics[:, order].astype(np.float32), genes),
        topic_scale=put_back(scale, cells),
        deviance=float("nan"),
        residual=float("nan"),
        n_iterations=fitted.n_iter_,
        converged=fitted.n_iter_ < max_iter,
        deviances=[],
    )
