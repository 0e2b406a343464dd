"""Topic models of counts: cells as mixtures of topics, topics as distributions over genes."""

from integration.topics.lda import lda
from integration.topics.model import TopicModel, top_genes
from integration.topics.nmf import poisson_nmf, project

__all__ = ["TopicModel", "lda", "poisson_nmf", "project", "top_genes"]
