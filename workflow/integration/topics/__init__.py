"""Topic models of counts: cells as mixtures of topics, topics as distributions over genes."""

from integration.topics.fit import fit_topics
from integration.topics.lda import lda
from integration.topics.model import TopicModel, top_genes
from integration.topics.nmf import poisson_nmf, project_poisson_nmf
from integration.topics.selection import choose_n_topics

__all__ = [
    "TopicModel",
    "choose_n_topics",
    "fit_topics",
    "lda",
    "poisson_nmf",
    "project_poisson_nmf",
    "top_genes",
]
