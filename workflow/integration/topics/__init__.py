"""Topic models of counts: cells as mixtures of topics, topics as distributions over genes."""

from .lda import lda
from .model import TopicModel, top_genes
from .nmf import poisson_nmf, project

__all__ = ["TopicModel", "lda", "poisson_nmf", "project", "top_genes"]
