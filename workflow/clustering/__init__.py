"""Neighbours, communities, hierarchy, layout."""
