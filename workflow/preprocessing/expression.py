"""Expression values of a stored matrix, read in blocks of cells and log-normalized on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import scipy.sparse as sp

from numerics.normalize import (
    check_counts,
    check_finite,
    median_target_sum,
    normalize_block,
    numbered,
    row_totals,
)
from utils.blocks import map_blocks, matrix_shape, n_blocks, rows_of_small_blocks
from utils.log import progress, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from utils.blocks import Block


class ExpressionReader:
    """Reader of a stored matrix in blocks of cells, log-normalized if it holds counts.

    The first pass checks the values and sums the total of each cell, which is held for later ones
    (8 bytes per cell).

    Parameters
    ----------
    matrix
        An element of an opened store: counts, or with ``normalize=False`` the values to use.
    normalize
        Whether to scale each cell to the same total and take log1p.
    target_sum
        This total; None: the median of the cells, which may take a pass of its own.
    threads
        Blocks that are read and normalized at the same time.
    """

    def __init__(
        self, matrix: Any, *, normalize: bool, target_sum: float | None, threads: int = 1
    ) -> None:
        self.matrix = matrix
        self.shape = self.n_cells, self.n_genes = matrix_shape(matrix)
        self.small = rows_of_small_blocks(matrix)
        self.normalize, self.target_sum = normalize, target_sum
        self.threads = threads
        self.totals = np.zeros(self.n_cells if normalize else 0)
        self.n_checked = 0  # cells that a pass has seen

    def stored_blocks(self, step: str) -> Iterator[Block]:
        """Read the values as they are stored; `step` names the pass in the log."""
        return self._map(lambda _, block: block, step, self.small)

    def blocks(
        self, step: str, genes: np.ndarray | None = None, *, rows: int | None = None
    ) -> Iterator[Block]:
        """Read log-normalized values.

        Parameters
        ----------
        step
            Name of the pass in the log.
        genes
            Positions of the genes to return; None: all. Totals are those of all genes.
        rows
            As for `utils.blocks.row_blocks`; ``small`` of this object where all genes are read.

        Yields
        ------
        scipy.sparse.csr_matrix or numpy.ndarray
            float32, or the stored type without normalization.
        """
        if self.normalize and self.target_sum is None:
            self._set_target_sum()

        def values(first_cell: int, block: Block) -> Block:
            chosen = block if genes is None else block[:, genes]
            if not self.normalize:
                return chosen
            totals = self.totals[first_cell : first_cell + block.shape[0]]
            return normalize_block(chosen, target_sum=self.target_sum, totals=totals)

        yield from self._map(values, step, rows)

    def _map(
        self, function: Callable[[int, Block], Block], step: str, rows: int | None
    ) -> Iterator[Block]:
        """Call a function for every block, whose totals are known and whose values are checked."""

        def checked(first_cell: int, block: Block) -> tuple[int, Block]:
            ((_, block),) = numbered([block], self.n_genes)
            end = first_cell + block.shape[0]
            if end > self.n_checked:
                if self.normalize:
                    check_counts(block, first_cell=first_cell)
                    self.totals[first_cell:end] = row_totals(block)
                else:
                    check_finite(block, first_cell=first_cell)
            return end, function(first_cell, block)

        results = map_blocks(checked, self.matrix, rows=rows, threads=self.threads)
        for end, values in progress(results, desc=step, total=n_blocks(self.matrix, rows=rows)):
            self.n_checked = max(self.n_checked, end)
            yield values

    def _set_target_sum(self) -> None:
        if self.n_checked < self.n_cells:
            for _ in self.stored_blocks("median total"):
                pass
        self.target_sum = median_target_sum(self.totals)
        say(f"target_sum: {self.target_sum:g}, the median total")


class BlockFile:
    """Blocks of a matrix in a file, uncompressed, to be read again in the same order.

    Peak size of the file: 8 bytes per stored value (4 where blocks are dense) and 4 per cell.

    Parameters
    ----------
    file
        Opened for reading and writing, empty.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.shapes: list[tuple[int, int] | None] = []  # of each block; None: dense

    def write(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Write each block in float32 and pass it on as it came."""
        for block in blocks:
            self.shapes.append(block.shape if sp.issparse(block) else None)
            values = block.data if sp.issparse(block) else block
            np.save(self.file, values.astype(np.float32, copy=False))
            if sp.issparse(block):
                np.save(self.file, block.indices)
                np.save(self.file, block.indptr)
            yield block

    def read(self) -> Iterator[Block]:
        """Read the blocks; their bits and order in memory are those that were written."""
        self.file.seek(0)
        for shape in self.shapes:
            values = np.load(self.file)
            if shape is None:
                yield values
            else:
                yield sp.csr_matrix((values, np.load(self.file), np.load(self.file)), shape=shape)
