"""Fit the topic model that is asked for by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from integration.options import TopicsOptions
from integration.topics.lda import lda
from integration.topics.nmf import poisson_nmf

if TYPE_CHECKING:
    from integration.topics.model import TopicModel


def fit_topics(
    counts: Any,
    n_topics: int,
    *,
    model: Literal["poisson_nmf", "lda"] = TopicsOptions.model,
    max_iter: int | None = None,
    n_restarts: int = TopicsOptions.n_restarts,
    tol: float = TopicsOptions.tol,
    dtype: str = TopicsOptions.dtype,
    weight_prior: float | None = None,
    topic_prior: float | None = None,
    seed: int = 0,
    threads: int = 1,
    verbose: bool = False,
) -> TopicModel:
    """Fit a topic model to counts with `poisson_nmf` or `lda`, which document the parameters.

    `n_restarts`, `tol`, `dtype` and `threads` have no effect on `lda`, the priors none on
    `poisson_nmf`. `max_iter` is by default that of the model.
    """
    options = {"seed": seed, "verbose": verbose}
    if max_iter is not None:
        options["max_iter"] = max_iter
    if model == "lda":
        priors = {"weight_prior": weight_prior, "topic_prior": topic_prior}
        return lda(counts, n_topics, **priors, **options)
    return poisson_nmf(
        counts, n_topics, n_restarts=n_restarts, tol=tol, dtype=dtype, threads=threads, **options
    )
