"""Harmony's clustering step, without the cells x clusters matrix of assignments.

The centroids stay put while cells are reassigned, so the similarities

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

from integration.harmony.correction import correct_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.batches import Batches
    from integration.harmony.chunks import Block, Chunk, Layout
    from integration.harmony.parameters import Parameters

Sums = Literal["cells", "directions"]
BRIEF = 1_000_000  # elements of S that one thread passes over about as quickly as two
LARGEST_EXPONENT = 80  # exp() of more than this leaves float32


@dataclass(frozen=True)
class Kernel:
    """Turns directions into similarities: ``exp(directions @ weights - offset)``.

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
            remove_maximum=bool(2 * scale.max() > LARGEST_EXPONENT),
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


def row_lengths(rows: Any, xp: Any) -> Any:
    """Compute the length of every row."""
    if xp is np:  # whose norm takes twice as long
        return np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return xp.linalg.norm(rows, axis=1)  # CuPy's einsum starts a product for every row


def normalize_rows(rows: Any, xp: Any) -> Any:
    """Scale every row to length 1; a row of zeros stays as it is."""
    lengths = row_lengths(rows, xp)
    lengths[lengths == 0] = 1
    return rows / lengths[:, None]


def diversity_penalty(
    observed: np.ndarray, expected: np.ndarray, theta: np.ndarray, flavor: str
) -> np.ndarray:
    """Compute rho, shape (n_levels, n_clusters): below 1 where a batch is over-represented."""
    if flavor == "harmony2":
        ratio = (2 * expected + 1) / (observed + expected + 1)
    else:
        ratio = (expected + 1) / (observed + 1)
    if np.all(theta == 2):
        return ratio * ratio
    return ratio ** theta[:, None]


def diversity_terms(
    observed: np.ndarray, expected: np.ndarray, theta: np.ndarray, flavor: str
) -> np.ndarray:
    """Compute the objective's diversity term per cluster, shape (n_clusters,), before sigma."""
    if flavor == "harmony2":
        ratio = (observed + expected + 1) / (2 * expected + 1)
    else:
        ratio = (observed + 1) / (expected + 1)
    return (theta[:, None] * observed * np.log(ratio)).sum(axis=0)


class Clustering:
    """The soft clustering of all cells, held as S (or directions), 1 / n and rho.

    Parameters
    ----------
    cells
        Embedding, shape (n_cells, n_dims), C order, of the working dtype.
    batches, layout, parameters
        The encoded batches, the sorted cells and the checked parameters.
    run
        Runs a function over chunks, see :func:`parallel.workers`; the scratch buffer is an array
        of shape (chunk_size, n_clusters).
    keep_similarities
        Keep S (n_cells x n_clusters) and a sorted copy of the cells; otherwise keep the
        directions alone and rebuild S.
    keep_directions
        Keep the directions in any case, so that R can be formed later.
    """

    def __init__(
        self,
        cells: Any,
        batches: Batches,
        layout: Layout,
        parameters: Parameters,
        run: Callable[..., None],
        *,
        keep_similarities: bool,
        keep_directions: bool,
        xp: Any = np,
    ) -> None:
        n_cells, n_dims = cells.shape
        dtype = cells.dtype
        self.cells, self.batches, self.layout = cells, batches, layout.on(xp)
        self.parameters, self.run, self.xp = parameters, run, xp
        n_clusters = parameters.n_clusters
        self.similarities = xp.empty((n_cells, n_clusters), dtype) if keep_similarities else None
        self.sorted_cells = xp.empty_like(cells) if keep_similarities else None
        lean = not keep_similarities
        self.directions = xp.empty((n_cells, n_dims), dtype) if lean or keep_directions else None
        self.inverse = xp.empty(n_cells, dtype)  # 1 / n
        largest = 4 / float(parameters.sigma.min())
        self.shift = xp.empty(n_cells, dtype) if largest > LARGEST_EXPONENT else None
        self.penalties = [  # rho by block and combination, as it was when the block was updated
            np.ones((len(block.combinations), n_clusters), dtype) for block in layout.blocks
        ]
        self.own = [np.zeros(rho.shape) for rho in self.penalties]  # the blocks' parts of totals
        self.slots = [np.empty((block.n_pieces, n_clusters), dtype) for block in layout.blocks]
        self.totals = np.zeros((batches.n_combinations, n_clusters))  # R summed by combination
        self.observed = np.zeros((batches.n_levels, n_clusters))
        self.kernel: Kernel | None = None  # the one that S, 1 / n and rho belong to
        self.proportions = batches.sizes / n_cells
        membership = batches.membership()
        self.membership = []
        for block in layout.blocks:
            part = membership[:, block.combinations]
            self.membership.append(part.toarray() if part.shape[0] * part.shape[1] < 1e5 else part)

    @property
    def expected(self) -> np.ndarray:
        """Counts per level and cluster if every cluster had the batches' overall proportions."""
        return self.proportions[:, None] * self.totals.sum(axis=0)

    def start(self, centroids: np.ndarray) -> None:
        """Assign all cells to ``centroids`` by distance alone: rho = 1."""
        kernel = self._build_kernel(centroids)

        def place(chunk: Chunk, scratch: Any) -> None:
            rows = self.xp.take(self.cells, self.layout.order[chunk.rows], axis=0)
            if self.sorted_cells is not None:
                self.sorted_cells[chunk.rows] = rows
            self._place(chunk, rows, kernel, scratch)

        self.run(place, self.layout.chunks)
        self.kernel = kernel
        self._count_from_scratch()

    def move(self, coefficients: np.ndarray, centroids: np.ndarray) -> None:
        """Correct the cells, then assign them to ``centroids`` by distance alone."""
        kernel = self._build_kernel(centroids)
        coefficients = self.xp.asarray(coefficients, dtype=self.cells.dtype)

        def place(chunk: Chunk, scratch: Any) -> None:
            rows = self._corrected(chunk, self._fetch(chunk, scratch), coefficients)
            self._place(chunk, rows, kernel, scratch)

        self.run(place, self.layout.chunks)
        self.kernel = kernel
        self._count_from_scratch()

    def carry(self, coefficients: np.ndarray) -> np.ndarray:
        """Correct the cells and keep the counts (harmony1).

        Returns the sum of R_ik times the new direction, shape (n_clusters, n_dims).
        """
        coefficients = self.xp.asarray(coefficients, dtype=self.cells.dtype)
        sums = self._zero_sums("directions")

        def place(chunk: Chunk, scratch: Any) -> np.ndarray:
            similarities = self._similarities(chunk, scratch)
            rows = self._corrected(chunk, similarities, coefficients)
            self.directions[chunk.rows] = normalize_rows(rows, self.xp)
            return self._piece_sums(chunk, similarities, "directions")

        self.run(place, self.layout.chunks, self._adder("directions", sums))
        return sums

    def finish(self, coefficients: np.ndarray) -> Any:
        """Return the corrected cells in their original order, shape (n_cells, n_dims)."""
        coefficients = self.xp.asarray(coefficients, dtype=self.cells.dtype)
        corrected = self.xp.empty_like(self.cells)

        def write(chunk: Chunk, scratch: Any) -> None:
            rows = self._corrected(chunk, self._fetch(chunk, scratch), coefficients)
            corrected[self.layout.order[chunk.rows]] = rows

        self.run(write, self.layout.chunks)
        self.similarities = self.sorted_cells = None  # R can be formed from the directions
        return corrected

    def update(
        self, centroids: np.ndarray | None = None, collect: Sums | None = None
    ) -> np.ndarray | None:
        """One pass of block updates.

        Parameters
        ----------
        centroids
            New centroids (harmony1).
        collect
            Sum on the way, while S is in the cache: "cells" as :meth:`regression_sums`,
            "directions" as :meth:`direction_sums`.
        """
        if centroids is not None:
            self.kernel = self._build_kernel(centroids)
        sums = self._zero_sums(collect)
        theta, flavor = self.parameters.theta, self.parameters.flavor
        floor = np.finfo(self.inverse.dtype).tiny ** 0.5
        mass = self.totals.sum(axis=0)
        for number, block in enumerate(self.layout.blocks):
            member = self.membership[number]
            self.observed -= member @ self.own[number]
            mass -= self.own[number].sum(axis=0)
            expected = self.proportions[:, None] * np.maximum(mass, 0)
            rho = diversity_penalty(np.maximum(self.observed, 0), expected, theta, flavor)
            rho = member.T @ rho
            rho /= rho.max(axis=1, keepdims=True)  # a factor common to a row cancels in R
            self.penalties[number] = np.maximum(rho, floor).astype(self.inverse.dtype)
            self._assign(block, number, collect, sums)
            self.observed += member @ self.own[number]
            mass += self.own[number].sum(axis=0)
        self.totals[...] = 0
        for block, own in zip(self.layout.blocks, self.own, strict=True):
            self.totals[block.combinations] += own
        return sums

    def _assign(self, block: Block, number: int, collect: Sums | None, sums: Any) -> None:
        """Assign one block's cells anew."""
        rho = self.penalties[number]

        def assign(chunk: Chunk, scratch: Any) -> np.ndarray | None:
            similarities = self._similarities(chunk, scratch)
            self._normalize(chunk, similarities, self.xp.asarray(rho[chunk.pieces]))
            return self._piece_sums(chunk, similarities, collect) if collect else None

        elements = (block.chunks[-1].stop - block.chunks[0].start) * rho.shape[1]
        self.run(
            assign,
            block.chunks,
            self._adder(collect, sums) if collect else None,
            brief=elements < BRIEF and self.similarities is not None and not collect,
        )
        self._count(block, number)

    def _place(self, chunk: Chunk, rows: Any, kernel: Kernel, scratch: Any) -> None:
        """Give a chunk's cells new positions: directions, S and, with rho = 1, 1 / n."""
        directions = normalize_rows(rows, self.xp)
        if self.directions is not None:
            self.directions[chunk.rows] = directions
        similarities = self._room(chunk, scratch)
        self._fill(chunk, directions, kernel, similarities)
        rho = self.xp.ones((len(chunk.pieces), similarities.shape[1]), rows.dtype)
        self._normalize(chunk, similarities, rho)

    def _room(self, chunk: Chunk, scratch: Any) -> Any:
        """Where a chunk's S is kept, or a part of the scratch buffer."""
        if self.similarities is not None:
            return self.similarities[chunk.rows]
        return scratch[: chunk.stop - chunk.start]

    def _fill(self, chunk: Chunk, directions: Any, kernel: Kernel, similarities: Any) -> None:
        shift = kernel.similarities(directions, similarities, self.xp)
        if shift is not None:
            self.shift[chunk.rows] = shift

    def _similarities(self, chunk: Chunk, scratch: Any) -> Any:
        """S of a chunk, rebuilt where it is not kept."""
        similarities = self._room(chunk, scratch)
        if self.similarities is None:
            self._fill(chunk, self.directions[chunk.rows], self.kernel, similarities)
        return similarities

    def _fetch(self, chunk: Chunk, scratch: Any) -> Any:
        """S of a chunk in ``scratch``: products that read columns need it in the cache."""
        similarities = self._similarities(chunk, scratch)
        if self.similarities is None:
            return similarities
        copy = scratch[: chunk.stop - chunk.start]
        copy[...] = similarities
        return copy

    def _rows(self, chunk: Chunk) -> Any:
        """Fetch the cells of a chunk."""
        if self.sorted_cells is not None:
            return self.sorted_cells[chunk.rows]
        return self.xp.take(self.cells, self.layout.order[chunk.rows], axis=0)

    def _normalize(self, chunk: Chunk, similarities: Any, rho: Any) -> None:
        """Store 1 / n of every row and S' (1 / n) of every piece, rho being given per piece."""
        xp, inverse = self.xp, self.inverse[chunk.rows]
        if chunk.own is None:
            xp.divide(1, similarities @ rho[0], out=inverse)
            sums = (inverse @ similarities)[None]
        else:  # one column per piece, of which a row uses its own
            xp.divide(1, xp.take(similarities @ rho.T, chunk.own), out=inverse)
            spread = xp.zeros((len(similarities), len(chunk.pieces)), similarities.dtype)
            xp.put(spread, chunk.own, inverse)
            sums = spread.T @ similarities
        self.slots[chunk.block][chunk.slot : chunk.slot + len(chunk.pieces)] = self._host(sums)

    def _count(self, block: Block, number: int) -> None:
        """R summed over a block's cells, by combination."""
        sums = np.add.reduceat(self.slots[number].astype(np.float64), block.first_piece, axis=0)
        self.own[number] = sums * self.penalties[number]

    def _count_from_scratch(self) -> None:
        """All counts for rho = 1."""
        self.totals[...] = 0
        self.observed[...] = 0
        for number, block in enumerate(self.layout.blocks):
            self.penalties[number][...] = 1
            self._count(block, number)
            self.totals[block.combinations] += self.own[number]
            self.observed += self.membership[number] @ self.own[number]

    def _corrected(self, chunk: Chunk, similarities: Any, coefficients: Any) -> Any:
        return correct_rows(
            self._rows(chunk),
            similarities,
            self.inverse[chunk.rows],
            self.xp.asarray(self.penalties[chunk.block][chunk.pieces]),
            coefficients,
            self.batches.levels[self.layout.blocks[chunk.block].combinations[chunk.pieces]],
            chunk.edges,
            self.xp,
        )

    def _piece_sums(self, chunk: Chunk, similarities: Any, collect: Sums) -> np.ndarray:
        """R' z over the cells of every piece, shape (n_pieces, n_clusters, n_dims)."""
        rows = self._rows(chunk) if collect == "cells" else self.directions[chunk.rows]
        weighted = rows * self.inverse[chunk.rows, None]
        rho = self.penalties[chunk.block][chunk.pieces]
        sums = self.xp.empty((*rho.shape, rows.shape[1]), rows.dtype)
        for piece, (first, last) in enumerate(itertools.pairwise(chunk.edges)):
            self.xp.dot(similarities[first:last].T, weighted[first:last], out=sums[piece])
        sums = self._host(sums)
        sums *= rho[:, :, None]
        return sums

    def _zero_sums(self, collect: Sums | None) -> np.ndarray | None:
        if collect is None:
            return None
        shape = (self.parameters.n_clusters, self.cells.shape[1])
        return np.zeros(shape if collect == "directions" else (len(self.totals), *shape))

    def _adder(self, collect: Sums, sums: np.ndarray) -> Callable[[Chunk, np.ndarray], None]:
        """Return the function that adds the sums of a chunk's pieces to ``sums``."""

        def add(chunk: Chunk, parts: np.ndarray) -> None:
            combinations = self.layout.blocks[chunk.block].combinations[chunk.pieces]
            for combination, part in zip(combinations, parts, strict=True):
                target = sums if collect == "directions" else sums[combination]
                target += part

        return add

    def _sum(self, collect: Sums) -> np.ndarray:
        sums = self._zero_sums(collect)

        def multiply(chunk: Chunk, scratch: Any) -> np.ndarray:
            return self._piece_sums(chunk, self._fetch(chunk, scratch), collect)

        self.run(multiply, self.layout.chunks, self._adder(collect, sums))
        return sums

    def regression_sums(self) -> np.ndarray:
        """R' z over the cells of every combination, (n_combinations, n_clusters, n_dims)."""
        return self._sum("cells")

    def direction_sums(self) -> np.ndarray:
        """R' times the directions, shape (n_clusters, n_dims): the centroids before scaling."""
        return self._sum("directions")

    def objective(self) -> float:
        """Harmony's objective, scaled by 2000 / n_cells.

        With R log R written out through S, rho and n, sum(R dist) + sigma sum(R log R) becomes
        sigma (sum(R log rho) - sum(log n)); the diversity term is added as it is.
        """
        sigma = self.parameters.sigma
        log_rho = np.zeros(len(sigma))
        for own, rho in zip(self.own, self.penalties, strict=True):
            log_rho += (own * np.log(rho.astype(np.float64))).sum(axis=0)
        diversity = diversity_terms(
            self.observed, self.expected, self.parameters.theta, self.parameters.flavor
        )
        value = float((sigma * (log_rho + diversity)).sum()) - self._log_normalizers()
        return value * 2000 / len(self.cells)

    def _log_normalizers(self) -> float:
        """Sum over cells of sigma log n, sigma being the mean over the cell's clusters."""
        sigma, xp = self.parameters.sigma, self.xp
        total = 0.0

        def measure(chunk: Chunk, scratch: Any) -> float:
            inverse = self.inverse[chunk.rows].astype(np.float64)
            if self.kernel.offset is None:
                means = float(sigma[0])
            else:
                weights = self.penalties[chunk.block][chunk.pieces] * sigma
                by_piece = self._similarities(chunk, scratch) @ xp.asarray(weights.T)
                own = by_piece[:, 0] if chunk.own is None else xp.take(by_piece, chunk.own)
                means = own * inverse
            logarithms = -xp.log(inverse) - self.kernel.constant
            if self.shift is not None:
                logarithms += self.shift[chunk.rows]
            return float((means * logarithms).sum())

        def add(_: Chunk, part: float) -> None:
            nonlocal total
            total += part

        self.run(measure, self.layout.chunks, add)
        return total

    def assignments(self) -> Any:
        """Form R in the cells' original order, shape (n_cells, n_clusters)."""
        xp = self.xp
        n_clusters, dtype = self.parameters.n_clusters, self.cells.dtype
        assigned = xp.empty((len(self.cells), n_clusters), dtype)
        longest = max(chunk.stop - chunk.start for chunk in self.layout.chunks)
        scratch = xp.empty((longest, n_clusters), dtype)
        for chunk in self.layout.chunks:
            similarities = self._similarities(chunk, scratch)
            rho = xp.asarray(self.penalties[chunk.block][chunk.pieces])
            if chunk.own is not None:
                rho = xp.take(rho, chunk.own % len(rho), axis=0)
            rows = similarities * rho * self.inverse[chunk.rows, None]
            assigned[self.layout.order[chunk.rows]] = rows
        return assigned

    def _build_kernel(self, centroids: np.ndarray) -> Kernel:
        return Kernel.build(centroids, self.parameters.sigma, self.cells.dtype, self.xp)

    def _host(self, array: Any) -> np.ndarray:
        return array if self.xp is np else self.xp.asnumpy(array)
