"""Mathematics that several stages need: nearest neighbors, k-means, normalization."""
