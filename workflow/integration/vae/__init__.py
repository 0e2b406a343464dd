"""PVAE and GMVAE: variational autoencoders of counts with covariates."""

from integration.vae.embed import embed_counts, labels_by_size
from integration.vae.models import GMVAE, PVAE
from integration.vae.training import fit, latent, probabilities

__all__ = ["GMVAE", "PVAE", "embed_counts", "fit", "labels_by_size", "latent", "probabilities"]
