"""Whether a split of a cluster is more than noise: tested by held-out cells and genes."""
