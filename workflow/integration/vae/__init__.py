"""PVAE and GMVAE: variational autoencoders of counts with covariates. The only user of torch."""

import os

# Read once, when torch is imported: products of matrices whose bits do not depend on the number
# of threads (Intel MKL's strict mode, which it has on every x86 processor).
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

from .models import GMVAE, PVAE
from .training import fit, gpu_problem, latent, probabilities

__all__ = ["GMVAE", "PVAE", "fit", "gpu_problem", "latent", "probabilities"]
