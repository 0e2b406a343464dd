"""Expression turned round on disk: written by blocks of cells, read by genes."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import scipy.sparse as sp

from evaluation.clusters.rank_kernel import transpose
from utils.blocks import matrix_shape, row_blocks, rows_of_small_blocks
from utils.log import progress
from utils.threads import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from utils.blocks import Block

# Blocks that are turned round at a time, at most, which takes 28 bytes per stored value: one thread
# reads them all.
TURNED = 4


class _BlockPlace(NamedTuple):
    offset: int  # in the file
    first_cell: int
    n_values: int


class GeneValues(NamedTuple):
    """The values of some genes in all cells: a block of cells after the other, by gene within."""

    block_starts: np.ndarray  # int64, where each block begins in `cells` and `values`
    first_cells: np.ndarray  # int64, the number of the first cell of each block
    pointers: np.ndarray  # uint32, blocks x (genes + 1), from any number on
    cells: np.ndarray  # uint16, counted within their block
    values: np.ndarray  # float32, none is 0


class GeneFile:
    """Values of cells x genes, ordered by gene within blocks of cells.

    Size of the file: 6 bytes for each value, and 4 for each gene and block of
    `utils.blocks.BLOCK_VALUES` values.

    Parameters
    ----------
    file
        Opened for reading and writing, empty.
    matrix
        An element of an opened store, see `utils.blocks.row_blocks`; is read once.
    normalize
        Called with a block of rows and the number of its first cell.
    threads
        Blocks that are turned round at a time, at most `TURNED`.

    Attributes
    ----------
    shape
        Cells and genes.
    n_values
        int64, stored values of each gene.
    end
        Size of the file.
    """

    def __init__(
        self,
        file: BinaryIO,
        matrix: Any,
        *,
        normalize: Callable[[Block, int], Block],
        threads: int,
    ) -> None:
        self.file = file
        self.shape = matrix_shape(matrix)
        self.n_values = np.zeros(self.shape[1], dtype=np.int64)
        self.end = 0
        self._blocks: list[_BlockPlace] = []

        def turn(item: tuple[int, int, Block]) -> tuple[_BlockPlace, np.ndarray]:
            offset, first_cell, block = item
            rows = sp.csr_matrix(normalize(block, first_cell))
            data = rows.data.astype(np.float32, copy=False)
            arrays = transpose(rows.indptr, rows.indices, data, self.shape[1])
            for array in arrays:
                offset = self.write(array, offset)
            return _BlockPlace(item[0], first_cell, len(arrays[1])), np.diff(arrays[0])

        threads = min(threads, TURNED)
        turned = ordered_map(turn, self._place(matrix), threads=threads, in_flight=threads)
        for place, n_values in turned:
            self._blocks.append(place)
            self.n_values += n_values

    def _place(self, matrix: Any) -> Iterator[tuple[int, int, Block]]:
        """Read blocks of cells, and give each its place in the file."""
        n_cells, n_genes = self.shape
        is_dense = hasattr(matrix, "shape")
        rows = rows_of_small_blocks(matrix)
        first_cell = 0
        blocks = row_blocks(matrix, rows=None if is_dense else rows)
        for block in progress(
            _cut(blocks, rows), desc="markers: reading", total=-(-n_cells // rows)
        ):
            offset = self.end
            n_values = block.nnz if sp.issparse(block) else block.size
            self.end += 4 * (n_genes + 1) + 6 * n_values
            yield offset, first_cell, block
            first_cell += block.shape[0]

    def genes(self, start: int, stop: int) -> GeneValues:
        """Read the values of consecutive genes; of any thread."""
        pointers = np.empty((len(self._blocks), stop - start + 1), dtype=np.uint32)
        for place, of_block in zip(self._blocks, pointers, strict=True):
            self.read(of_block, place.offset + 4 * start)
        n_values = (pointers[:, -1] - pointers[:, 0]).astype(np.int64)
        edges = np.concatenate([[0], np.cumsum(n_values)])
        cells, values = np.empty(edges[-1], np.uint16), np.empty(edges[-1], np.float32)
        first_values = pointers[:, 0].tolist()
        for place, first, (a, b) in zip(self._blocks, first_values, pairwise(edges), strict=True):
            offset = place.offset + 4 * (self.shape[1] + 1)
            self.read(cells[a:b], offset + 2 * first)
            self.read(values[a:b], offset + 2 * place.n_values + 4 * first)
        first_cells = np.array([place.first_cell for place in self._blocks], dtype=np.int64)
        return GeneValues(edges[:-1], first_cells, pointers, cells, values)

    def write(self, array: np.ndarray, offset: int) -> int:
        """Write an array at some place of the file; return the place behind it."""
        data = memoryview(array).cast("B") if array.size else b""
        while len(data):
            n_written = os.pwrite(self.file.fileno(), data, offset)
            data, offset = data[n_written:], offset + n_written
        return offset

    def read(self, array: np.ndarray, offset: int) -> None:
        """Fill an array from some place of the file."""
        data = memoryview(array).cast("B") if array.size else b""
        while len(data):
            n_read = os.preadv(self.file.fileno(), [data], offset)
            if not n_read:
                raise EOFError("the scratch file ends too early")
            data, offset = data[n_read:], offset + n_read


def _cut(blocks: Iterator[Block], rows: int) -> Iterator[Block]:
    for block in blocks:
        for start in range(0, block.shape[0], rows):
            yield block if block.shape[0] <= rows else block[start : start + rows]
