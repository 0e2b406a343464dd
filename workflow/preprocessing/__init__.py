"""Counts to principal components."""
