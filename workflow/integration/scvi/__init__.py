"""scVI: a variational autoencoder of counts with the batch, by scvi-tools, which is an extra."""

from integration.scvi.model import SCVIResult, embed_with_scvi, fit_scvi

__all__ = ["SCVIResult", "embed_with_scvi", "fit_scvi"]
