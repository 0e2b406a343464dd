"""scVI by scvi-tools: a variational autoencoder of counts that is given the batch."""

from integration.scvi.model import SCVIResult, fit_scvi

__all__ = ["SCVIResult", "fit_scvi"]
