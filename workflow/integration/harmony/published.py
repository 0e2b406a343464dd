"""The block update as published: R is formed, the blocks are redrawn before every pass.

A reference for `soft_clusters` (``original=True``): slower, on one thread, and with the
n_cells x n_clusters matrices S and R in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from integration.harmony.chunks import draw_blocks
from integration.harmony.soft_clusters import Kernel, diversity_penalty, diversity_terms
from numerics.arrays import normalize_rows

if TYPE_CHECKING:
    from integration.batches import EncodedBatches
    from integration.harmony.parameters import Parameters
    from integration.harmony.soft_clusters import Sums


class PublishedSoftClusters:
    """The soft assignment of all cells to clusters, held as R; methods as in `SoftClusters`."""

    def __init__(
        self,
        cells: np.ndarray,
        batches: EncodedBatches,
        parameters: Parameters,
        rng: np.random.Generator,
        blocks: np.ndarray | None,
    ) -> None:
        self.cells, self.batches, self.parameters = cells, batches, parameters
        self.rng, self.blocks = rng, blocks
        self.membership = batches.membership()
        self.proportions = batches.sizes / len(cells)
        self.directions = normalize_rows(cells, np)
        self.R = np.empty((len(cells), parameters.n_clusters), cells.dtype)
        self.totals = np.zeros((batches.n_combinations, parameters.n_clusters))

    @property
    def observed(self) -> np.ndarray:
        """R summed over the cells of every level."""
        return self.membership @ self.totals

    @property
    def expected(self) -> np.ndarray:
        """Counts per level and cluster if every cluster had the batches' overall proportions."""
        return self.proportions[:, None] * self.totals.sum(axis=0)

    def _sum(self, cells: np.ndarray) -> np.ndarray:
        """Sum R over some cells, by combination."""
        sums = np.zeros_like(self.totals)
        np.add.at(sums, self.batches.combinations[cells], self.R[cells])
        return sums

    def _set_similarities(self, centroids: np.ndarray) -> None:
        """Compute S, and per cell what turns log S into distances: 2 / sigma, less the shift."""
        kernel = Kernel.build(centroids, self.parameters.sigma, self.cells.dtype, np)
        self.similarities = np.empty_like(self.R)
        shift = kernel.similarities(self.directions, self.similarities, np)
        scale = kernel.constant + (0 if shift is None else -shift[:, None])
        self.constant = np.broadcast_to(scale, (len(self.cells), 1))

    def assign(self, centroids: np.ndarray) -> None:
        """Assign all cells to ``centroids`` by distance alone."""
        self._set_similarities(centroids)
        self.R = self.similarities / self.similarities.sum(axis=1, keepdims=True)
        self.totals = self._sum(np.arange(len(self.cells)))

    def correct_and_assign(self, coefficients: np.ndarray, centroids: np.ndarray) -> None:
        """Correct the cells, then assign them to ``centroids`` by distance alone."""
        self.directions = normalize_rows(self.corrected_cells(coefficients), np)
        self.assign(centroids)

    def correct(self, coefficients: np.ndarray) -> np.ndarray:
        """Correct the cells and keep R (harmony1); return R' times the new directions."""
        self.directions = normalize_rows(self.corrected_cells(coefficients), np)
        return self.sums("directions")

    def corrected_cells(self, coefficients: np.ndarray) -> np.ndarray:
        """Return the corrected cells."""
        corrected = self.cells.copy()
        for combination, levels in enumerate(self.batches.levels):
            members = self.batches.combinations == combination
            effect = coefficients[levels].sum(axis=0).astype(self.cells.dtype)
            corrected[members] -= self.R[members] @ effect
        return corrected

    def update(
        self, centroids: np.ndarray | None = None, collect: Sums | None = None
    ) -> np.ndarray | None:
        """Update the assignments block by block, over newly drawn blocks."""
        if centroids is not None:
            self._set_similarities(centroids)
        blocks = self.blocks
        if blocks is None:
            blocks = draw_blocks(len(self.cells), self.parameters.block_proportion, self.rng)
        for number in range(int(blocks.max()) + 1):
            block = np.flatnonzero(blocks == number)
            self.totals -= self._sum(block)
            np.maximum(self.totals, 0, out=self.totals)
            rho = diversity_penalty(self.observed, self.expected, self.parameters)
            rho = self.membership.T @ rho
            R = self.similarities[block] * rho[self.batches.combinations[block]]
            self.R[block] = R / R.sum(axis=1, keepdims=True)
            self.totals += self._sum(block)
        return None if collect is None else self.sums(collect)

    def sums(self, collect: Sums) -> np.ndarray:
        """Compute R' times the cells, by combination, or R' times the directions."""
        if collect == "directions":
            return (self.R.T @ self.directions).astype(np.float64)
        sums = np.empty((*self.totals.shape, self.cells.shape[1]))
        for combination in range(self.batches.n_combinations):
            members = self.batches.combinations == combination
            sums[combination] = self.R[members].T @ self.cells[members]
        return sums

    def objective(self) -> float:
        """Compute Harmony's objective as written in the paper, scaled by 2000 / n_cells."""
        R = self.R.astype(np.float64)
        sigma = self.parameters.sigma
        tiny = np.finfo(self.cells.dtype).tiny
        distance = sigma * (self.constant - np.log(np.maximum(self.similarities, tiny)))
        entropy = sigma * R * np.log(np.maximum(R, tiny))
        terms = diversity_terms(self.observed, self.expected, self.parameters)
        value = (R * distance).sum() + entropy.sum() + (sigma * terms).sum()
        return float(value) * 2000 / len(self.cells)

    def assignments(self) -> Any:
        """Return R, shape (n_cells, n_clusters)."""
        return self.R
