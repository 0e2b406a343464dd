"""PVAE and GMVAE: variational autoencoders of counts with covariates. The only user of torch."""

from integration.vae.models import GMVAE, PVAE
from integration.vae.training import fit, gpu_problem, latent, probabilities

__all__ = ["GMVAE", "PVAE", "fit", "gpu_problem", "latent", "probabilities"]
