"""Harmony's clustering step, without the cells x clusters matrix of assignments.

The centroids do not move while cells are reassigned, so the similarities

    S = exp(2 / sigma * Z Y')            (Z: cells' directions, Y: centroids)

are constant for the whole step, and the assignment of a cell of batch b is S scaled by the
diversity penalty rho and normalized:

    R_i = S_i * rho_b / n_i,    n_i = S_i . rho_b.

R itself is never formed. A block of cells is updated with two matrix-vector products per batch:

    n = S rho_b                 and           R' 1 = rho_b * (S' (1 / n)),

and every sum over cells that the correction needs has the same form. S is kept where memory
allows; otherwise a chunk of it is rebuilt whenever it is needed, with the same bits.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from numerics.arrays import normalize_rows, to_host

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.batches import EncodedBatches
    from integration.harmony.chunks import Block, Chunk, Layout
    from integration.harmony.parameters import Parameters

Sums = Literal["cells", "directions"]
BRIEF_ELEMENTS = 1_000_000  # elements of S that one thread passes over about as quickly as two
LARGEST_EXPONENT = 80  # exp() of more than this leaves float32


@dataclass(frozen=True)
class Kernel:
    """The map from directions to similarities: ``exp(directions @ weights - offset)``.

    With one sigma the constant factor exp(-2 / sigma) cancels in R and is left out. Where the
    exponents would leave float32, every row's maximum is taken out as well.
    """

    weights: Any
    offset: Any | None
    remove_maximum: bool
    constant: float

    @classmethod
    def build(cls, centroids: np.ndarray, sigma: np.ndarray, dtype: np.dtype, xp: Any) -> Kernel:
        """Scale the centroids, shape (n_clusters, n_dims), by 2 / sigma."""
        scale = 2.0 / sigma
        one_sigma = bool(np.all(sigma == sigma[0]))
        return cls(
            weights=xp.asarray(np.ascontiguousarray((centroids * scale[:, None]).T), dtype=dtype),
            offset=None if one_sigma else xp.asarray(scale, dtype=dtype),
            remove_maximum=_removes_maximum(sigma),
            constant=float(scale[0]) if one_sigma else 0.0,
        )

    def similarities(self, directions: Any, out: Any, xp: Any) -> Any | None:
        """Fill ``out`` with S; return the logarithm taken out of every row, or None."""
        xp.dot(directions, self.weights, out=out)
        if self.offset is not None:
            out -= self.offset
        shift = None
        if self.remove_maximum:
            shift = out.max(axis=1)
            out -= shift[:, None]
        xp.exp(out, out=out)
        return shift


def diversity_penalty(
    observed: np.ndarray, expected: np.ndarray, parameters: Parameters
) -> np.ndarray:
    """Compute rho, shape (n_levels, n_clusters): below 1 where a batch is over-represented."""
    observed, expected = _smooth(observed, expected, parameters.flavor)
    ratio = expected / observed
    if np.all(parameters.theta == 2):
        return ratio * ratio
    return ratio ** parameters.theta[:, None]


def diversity_terms(
    observed: np.ndarray, expected: np.ndarray, parameters: Parameters
) -> np.ndarray:
    """Compute the objective's diversity term per cluster, shape (n_clusters,), before sigma."""
    smoothed, expected = _smooth(observed, expected, parameters.flavor)
    return (parameters.theta[:, None] * observed * np.log(smoothed / expected)).sum(axis=0)


def _smooth(
    observed: np.ndarray, expected: np.ndarray, flavor: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the counts whose ratio the flavor uses; neither is zero."""
    if flavor == "harmony2":
        return observed + expected + 1, 2 * expected + 1
    return observed + 1, expected + 1


def _removes_maximum(sigma: np.ndarray) -> bool:
    return bool(4 / sigma.min() > LARGEST_EXPONENT)


class SoftClusters:
    """The soft assignment of all cells to clusters, held as S (or directions), 1 / n and rho.

    Parameters
    ----------
    cells
        Embedding, shape (n_cells, n_dims), C order, of the working dtype.
    batches, layout, parameters
        The encoded batches, the sorted cells and the checked parameters.
    run
        Runs a function over chunks, see `utils.threads.workers`; the scratch buffer is an array
        of shape (chunk_size, n_clusters).
    keep_similarities
        Keep S (n_cells x n_clusters) and a sorted copy of the cells; otherwise keep only the
        directions and rebuild S.
    keep_directions
        Keep the directions in any case, so that R can be formed later.
    xp
        Array namespace, NumPy or CuPy.
    """

    def __init__(
        self,
        cells: Any,
        batches: EncodedBatches,
        layout: Layout,
        parameters: Parameters,
        run: Callable[..., None],
        *,
        keep_similarities: bool,
        keep_directions: bool,
        xp: Any = np,
    ) -> None:
        n_cells = len(cells)
        n_clusters, dtype = parameters.n_clusters, cells.dtype
        self.cells, self.batches, self.layout = cells, batches, layout
        self.parameters, self.run, self.xp = parameters, run, xp
        self.similarities = self.sorted_cells = self.directions = self.shift = None
        if keep_similarities:
            self.similarities = xp.empty((n_cells, n_clusters), dtype)
            self.sorted_cells = xp.empty_like(cells)
        if keep_directions or not keep_similarities:
            self.directions = xp.empty(cells.shape, dtype)
        if _removes_maximum(parameters.sigma):
            self.shift = xp.empty(n_cells, dtype)
        self.inverse = xp.empty(n_cells, dtype)  # 1 / n
        self.penalties = [  # rho by block and combination, as it was when the block was updated
            np.ones((len(block.combinations), n_clusters), dtype) for block in layout.blocks
        ]
        self.inverse_sums = [  # S' (1 / n) by block and piece
            np.empty((block.n_pieces, n_clusters), dtype) for block in layout.blocks
        ]
        self.block_totals = [np.zeros(rho.shape) for rho in self.penalties]  # each block's totals
        self.totals = np.zeros((batches.n_combinations, n_clusters))  # R summed by combination
        self.observed = np.zeros((batches.n_levels, n_clusters))
        self.kernel: Kernel | None = None  # the one that S, 1 / n and rho belong to
        self.proportions = batches.sizes / n_cells
        membership = batches.membership()
        self.membership = [
            _dense_if_small(membership[:, block.combinations]) for block in layout.blocks
        ]

    @property
    def expected(self) -> np.ndarray:
        """Counts per level and cluster if every cluster had the batches' overall proportions."""
        return self.proportions[:, None] * self.totals.sum(axis=0)

    def assign(self, centroids: np.ndarray) -> None:
        """Assign all cells to ``centroids`` by distance alone: rho = 1."""

        def original_rows(chunk: Chunk, _: Any) -> Any:
            rows = self.xp.take(self.cells, self.layout.order[chunk.rows], axis=0)
            if self.sorted_cells is not None:
                self.sorted_cells[chunk.rows] = rows
            return rows

        self._assign_by_distance(centroids, original_rows)

    def correct_and_assign(self, coefficients: np.ndarray, centroids: np.ndarray) -> None:
        """Correct the cells, then assign them to ``centroids`` by distance alone."""
        coefficients = self._on_device(coefficients)

        def corrected_rows(chunk: Chunk, scratch: Any) -> Any:
            similarities = self._similarities_in_scratch(chunk, scratch)
            return self._corrected_rows(chunk, similarities, coefficients)

        self._assign_by_distance(centroids, corrected_rows)

    def correct(self, coefficients: np.ndarray) -> np.ndarray:
        """Correct the cells and keep R (harmony1); return R' times the new directions."""
        coefficients = self._on_device(coefficients)
        sums = self._zero_sums("directions")

        def correct(chunk: Chunk, scratch: Any) -> np.ndarray:
            similarities = self._similarities(chunk, scratch)
            rows = self._corrected_rows(chunk, similarities, coefficients)
            self.directions[chunk.rows] = normalize_rows(rows, self.xp)
            return self._piece_sums(chunk, similarities, "directions")

        self.run(correct, self.layout.chunks, self._adder("directions", sums))
        return sums

    def corrected_cells(self, coefficients: np.ndarray) -> Any:
        """Return the corrected cells in their original order, shape (n_cells, n_dims).

        Frees S and the sorted cells; this is the last step.
        """
        coefficients = self._on_device(coefficients)
        corrected = self.xp.empty_like(self.cells)

        def write(chunk: Chunk, scratch: Any) -> None:
            similarities = self._similarities_in_scratch(chunk, scratch)
            rows = self._corrected_rows(chunk, similarities, coefficients)
            corrected[self.layout.order[chunk.rows]] = rows

        self.run(write, self.layout.chunks)
        self.similarities = self.sorted_cells = None  # R can be formed from the directions
        return corrected

    def update(
        self, centroids: np.ndarray | None = None, collect: Sums | None = None
    ) -> np.ndarray | None:
        """Update the assignments block by block, once over all cells.

        Parameters
        ----------
        centroids
            New centroids (harmony1).
        collect
            Compute these `sums` in the same pass, while S is in the cache.
        """
        if centroids is not None:
            self.kernel = self._build_kernel(centroids)
        sums = self._zero_sums(collect)
        smallest = np.finfo(self.inverse.dtype).tiny ** 0.5
        cluster_sizes = self.totals.sum(axis=0)
        for number, (block, membership) in enumerate(
            zip(self.layout.blocks, self.membership, strict=True)
        ):
            self.observed -= membership @ self.block_totals[number]
            cluster_sizes -= self.block_totals[number].sum(axis=0)
            expected = self.proportions[:, None] * np.maximum(cluster_sizes, 0)
            rho = diversity_penalty(np.maximum(self.observed, 0), expected, self.parameters)
            rho = membership.T @ rho
            rho /= rho.max(axis=1, keepdims=True)  # a factor common to a row cancels in R
            self.penalties[number] = np.maximum(rho, smallest).astype(self.inverse.dtype)
            self._update_block(block, number, collect, sums)
            self.observed += membership @ self.block_totals[number]
            cluster_sizes += self.block_totals[number].sum(axis=0)
        self.totals[...] = 0
        for block, totals in zip(self.layout.blocks, self.block_totals, strict=True):
            self.totals[block.combinations] += totals
        return sums

    def sums(self, collect: Sums) -> np.ndarray:
        """Compute R' times the cells or their directions.

        Returns the sums by combination for "cells", shape (n_combinations, n_clusters, n_dims),
        and those of all cells for "directions", shape (n_clusters, n_dims).
        """
        sums = self._zero_sums(collect)

        def multiply(chunk: Chunk, scratch: Any) -> np.ndarray:
            return self._piece_sums(chunk, self._similarities_in_scratch(chunk, scratch), collect)

        self.run(multiply, self.layout.chunks, self._adder(collect, sums))
        return sums

    def objective(self) -> float:
        """Compute Harmony's objective, scaled by 2000 / n_cells.

        With R log R written out through S, rho and n, sum(R dist) + sigma sum(R log R) becomes
        sigma (sum(R log rho) - sum(log n)); the diversity term is added as it is.
        """
        sigma = self.parameters.sigma
        log_rho = np.zeros(len(sigma))
        for totals, rho in zip(self.block_totals, self.penalties, strict=True):
            log_rho += (totals * np.log(rho.astype(np.float64))).sum(axis=0)
        diversity = diversity_terms(self.observed, self.expected, self.parameters)
        value = float((sigma * (log_rho + diversity)).sum()) - self._log_normalizers()
        return value * 2000 / len(self.cells)

    def assignments(self) -> Any:
        """Form R in the cells' original order, shape (n_cells, n_clusters)."""
        xp = self.xp
        n_clusters, dtype = self.parameters.n_clusters, self.cells.dtype
        R = xp.empty((len(self.cells), n_clusters), dtype)
        longest = max(chunk.stop - chunk.start for chunk in self.layout.chunks)
        scratch = xp.empty((longest, n_clusters), dtype)
        for chunk in self.layout.chunks:
            similarities = self._similarities(chunk, scratch)
            rho = xp.asarray(self.penalties[chunk.block][chunk.pieces])
            if chunk.flat_index is not None:
                rho = xp.take(rho, chunk.flat_index % len(rho), axis=0)
            rows = similarities * rho * self.inverse[chunk.rows, None]
            R[self.layout.order[chunk.rows]] = rows
        return R

    def _assign_by_distance(
        self, centroids: np.ndarray, compute_rows: Callable[[Chunk, Any], Any]
    ) -> None:
        """Compute the directions of ``compute_rows(chunk, scratch)``, S and, with rho = 1, R."""
        kernel = self._build_kernel(centroids)

        def assign(chunk: Chunk, scratch: Any) -> None:
            directions = normalize_rows(compute_rows(chunk, scratch), self.xp)
            if self.directions is not None:
                self.directions[chunk.rows] = directions
            similarities = self._compute_similarities(chunk, directions, kernel, scratch)
            rho = self.xp.ones((len(chunk.pieces), similarities.shape[1]), directions.dtype)
            self._normalize(chunk, similarities, rho)

        self.run(assign, self.layout.chunks)
        self.kernel = kernel
        self.totals[...] = 0
        self.observed[...] = 0
        for number, block in enumerate(self.layout.blocks):
            self.penalties[number][...] = 1
            self._sum_block(block, number)
            self.totals[block.combinations] += self.block_totals[number]
            self.observed += self.membership[number] @ self.block_totals[number]

    def _update_block(self, block: Block, number: int, collect: Sums | None, sums: Any) -> None:
        """Update the assignments of one block's cells."""
        rho = self.penalties[number]

        def update(chunk: Chunk, scratch: Any) -> np.ndarray | None:
            similarities = self._similarities(chunk, scratch)
            self._normalize(chunk, similarities, self.xp.asarray(rho[chunk.pieces]))
            return self._piece_sums(chunk, similarities, collect) if collect else None

        elements = (block.chunks[-1].stop - block.chunks[0].start) * rho.shape[1]
        self.run(
            update,
            block.chunks,
            self._adder(collect, sums) if collect else None,
            brief=elements < BRIEF_ELEMENTS and self.similarities is not None and not collect,
        )
        self._sum_block(block, number)

    def _sum_block(self, block: Block, number: int) -> None:
        """Sum R over a block's cells, by combination."""
        piece_sums = self.inverse_sums[number].astype(np.float64)
        sums = np.add.reduceat(piece_sums, block.first_pieces, axis=0)
        self.block_totals[number] = sums * self.penalties[number]

    def _compute_similarities(
        self, chunk: Chunk, directions: Any, kernel: Kernel, scratch: Any
    ) -> Any:
        """Compute S of a chunk, in ``scratch`` where it is not kept."""
        if self.similarities is None:
            out = scratch[: len(directions)]
        else:
            out = self.similarities[chunk.rows]
        shift = kernel.similarities(directions, out, self.xp)
        if shift is not None:
            self.shift[chunk.rows] = shift
        return out

    def _similarities(self, chunk: Chunk, scratch: Any) -> Any:
        """Return S of a chunk, rebuilt in ``scratch`` where it is not kept."""
        if self.similarities is not None:
            return self.similarities[chunk.rows]
        return self._compute_similarities(chunk, self.directions[chunk.rows], self.kernel, scratch)

    def _similarities_in_scratch(self, chunk: Chunk, scratch: Any) -> Any:
        """Return S of a chunk in ``scratch``: products that read columns need it in the cache."""
        similarities = self._similarities(chunk, scratch)
        if self.similarities is None:
            return similarities
        copy = scratch[: len(similarities)]
        copy[...] = similarities
        return copy

    def _rows(self, chunk: Chunk) -> Any:
        """Return the original cells of a chunk."""
        if self.sorted_cells is not None:
            return self.sorted_cells[chunk.rows]
        return self.xp.take(self.cells, self.layout.order[chunk.rows], axis=0)

    def _normalize(self, chunk: Chunk, similarities: Any, rho: Any) -> None:
        """Store 1 / n of every row and S' (1 / n) of every piece; ``rho`` is given per piece."""
        xp, inverse = self.xp, self.inverse[chunk.rows]
        if chunk.flat_index is None:
            xp.divide(1, similarities @ rho[0], out=inverse)
            sums = (inverse @ similarities)[None]
        else:  # one column per piece; each row uses that of its piece
            xp.divide(1, xp.take(similarities @ rho.T, chunk.flat_index), out=inverse)
            spread = xp.zeros((len(similarities), len(chunk.pieces)), similarities.dtype)
            xp.put(spread, chunk.flat_index, inverse)
            sums = spread.T @ similarities
        pieces = slice(chunk.first_piece, chunk.first_piece + len(chunk.pieces))
        self.inverse_sums[chunk.block][pieces] = to_host(sums)

    def _corrected_rows(self, chunk: Chunk, similarities: Any, coefficients: Any) -> Any:
        """Subtract R times the coefficients of each cell's batches from the original cells.

        ``coefficients`` are those of every level, shape (n_levels, n_clusters, n_dims).
        """
        xp, rows = self.xp, self._rows(chunk)
        rho = xp.asarray(self.penalties[chunk.block][chunk.pieces])
        levels = xp.asarray(self.batches.levels[self._combinations(chunk)].T)
        effects = xp.take(coefficients, levels[0], axis=0)
        for levels_of_key in levels[1:]:
            effects += xp.take(coefficients, levels_of_key, axis=0)
        effects *= rho[:, :, None]
        corrected = xp.empty_like(rows)
        for effect, (first, last) in zip(effects, itertools.pairwise(chunk.edges), strict=True):
            xp.dot(similarities[first:last], effect, out=corrected[first:last])
        corrected *= self.inverse[chunk.rows, None]
        return xp.subtract(rows, corrected, out=corrected)

    def _combinations(self, chunk: Chunk) -> np.ndarray:
        """Return the batch combination of every piece of a chunk."""
        return self.layout.blocks[chunk.block].combinations[chunk.pieces]

    def _piece_sums(self, chunk: Chunk, similarities: Any, collect: Sums) -> np.ndarray:
        """Compute R' z over the cells of every piece, shape (n_pieces, n_clusters, n_dims)."""
        rows = self._rows(chunk) if collect == "cells" else self.directions[chunk.rows]
        weighted = rows * self.inverse[chunk.rows, None]
        rho = self.penalties[chunk.block][chunk.pieces]
        sums = self.xp.empty((*rho.shape, rows.shape[1]), rows.dtype)
        for piece, (first, last) in enumerate(itertools.pairwise(chunk.edges)):
            self.xp.dot(similarities[first:last].T, weighted[first:last], out=sums[piece])
        sums = to_host(sums)
        sums *= rho[:, :, None]
        return sums

    def _zero_sums(self, collect: Sums | None) -> np.ndarray | None:
        if collect is None:
            return None
        shape = (self.parameters.n_clusters, self.cells.shape[1])
        return np.zeros(shape if collect == "directions" else (len(self.totals), *shape))

    def _adder(self, collect: Sums, sums: np.ndarray) -> Callable[[Chunk, np.ndarray], None]:
        """Return the function that adds the sums of a chunk's pieces to ``sums``."""

        def add(chunk: Chunk, piece_sums: np.ndarray) -> None:
            for combination, part in zip(self._combinations(chunk), piece_sums, strict=True):
                target = sums if collect == "directions" else sums[combination]
                target += part

        return add

    def _log_normalizers(self) -> float:
        """Sum sigma log n over the cells, sigma being the mean over the cell's clusters."""
        sigma, xp = self.parameters.sigma, self.xp
        total = 0.0

        def measure(chunk: Chunk, scratch: Any) -> float:
            inverse = self.inverse[chunk.rows].astype(np.float64)
            if self.kernel.offset is None:
                mean_sigma = float(sigma[0])
            else:
                weights = self.penalties[chunk.block][chunk.pieces] * sigma
                by_piece = self._similarities(chunk, scratch) @ xp.asarray(weights.T)
                index = chunk.flat_index
                mean_sigma = by_piece[:, 0] if index is None else xp.take(by_piece, index)
                mean_sigma = mean_sigma * inverse
            logarithms = -xp.log(inverse) - self.kernel.constant
            if self.shift is not None:
                logarithms += self.shift[chunk.rows]
            return float((mean_sigma * logarithms).sum())

        def add(_: Chunk, part: float) -> None:
            nonlocal total
            total += part

        self.run(measure, self.layout.chunks, add)
        return total

    def _build_kernel(self, centroids: np.ndarray) -> Kernel:
        return Kernel.build(centroids, self.parameters.sigma, self.cells.dtype, self.xp)

    def _on_device(self, coefficients: np.ndarray) -> Any:
        return self.xp.asarray(coefficients, dtype=self.cells.dtype)


def _dense_if_small(matrix: Any) -> Any:
    """Turn a sparse matrix into an array where that is quicker to multiply."""
    return matrix.toarray() if matrix.shape[0] * matrix.shape[1] < 1e5 else matrix
