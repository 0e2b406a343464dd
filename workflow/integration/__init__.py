"""Batches to one shared latent space."""
