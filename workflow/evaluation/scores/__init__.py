"""How well batches are mixed and cell types kept."""
