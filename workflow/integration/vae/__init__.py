"""PVAE and GMVAE: variational autoencoders of counts with covariates. The only user of torch."""

from .models import GMVAE, PVAE
from .training import fit, gpu_problem, latent, probabilities

__all__ = ["GMVAE", "PVAE", "fit", "gpu_problem", "latent", "probabilities"]
