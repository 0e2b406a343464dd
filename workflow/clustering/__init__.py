"""Neighbors, communities, hierarchy, layout."""
