"""PVAE and GMVAE: variational autoencoders of counts with covariates."""

from integration.vae.models import GMVAE, PVAE
from integration.vae.training import fit, latent, probabilities

__all__ = ["GMVAE", "PVAE", "fit", "latent", "probabilities"]
