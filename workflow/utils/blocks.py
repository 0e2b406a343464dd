"""Read and write matrices of cells x genes in blocks of rows, never all in memory."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import scipy.sparse as sp

from utils.chunks import ZSTD_BITSHUFFLE, ChunkedArray, write_chunk
from utils.encoding import encoding, missing_chunk_value, stored_shape
from utils.io import reading
from utils.threads import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import zarr

    Block = sp.csr_matrix | np.ndarray

_Result = TypeVar("_Result")

BLOCK_ROWS = 8192
DENSE_BUDGET = 1 << 25  # values of a dense block
CSC_BUDGET = 1 << 26  # values of a CSC matrix that are in memory at a time
CHUNK = 1 << 20  # values of a chunk on disk
BLOCK_VALUES = 1 << 21  # two chunks: threads seldom wait for a chunk that another one reads
ARRAY_ATTRIBUTES = {"encoding-type": "array", "encoding-version": "0.2.0"}


def matrix_shape(matrix: Any) -> tuple[int, int]:
    """Return the number of cells and of genes of a stored matrix, dense or sparse."""
    n_cells, n_genes = stored_shape(matrix)
    return n_cells, n_genes


def n_blocks(matrix: Any, *, rows: int | None = None) -> int:
    """Return the number of blocks that `row_blocks` reads a stored matrix in."""
    return -(-matrix_shape(matrix)[0] // (rows or _rows(matrix)))


def _rows(matrix: Any) -> int:
    if hasattr(matrix, "shape"):
        return max(1, min(BLOCK_ROWS, DENSE_BUDGET // max(matrix.shape[1], 1)))
    return BLOCK_ROWS


def rows_of_small_blocks(matrix: Any) -> int:
    """Return the rows of blocks that are small enough for one per thread: `BLOCK_VALUES`."""
    n_cells = matrix_shape(matrix)[0]
    per_cell = n_stored(matrix) / max(n_cells, 1)
    return int(max(1, min(BLOCK_ROWS, BLOCK_VALUES // max(per_cell, 1))))


def n_stored(matrix: Any) -> int:
    """Return the number of values that a stored matrix holds, with the zeros where it is dense."""
    return math.prod((matrix if hasattr(matrix, "shape") else matrix["data"]).shape)


def row_blocks(matrix: Any, *, rows: int | None = None, threads: int = 1) -> Iterator[Block]:
    """Read a stored matrix in blocks of consecutive rows.

    Parameters
    ----------
    matrix
        An element of an opened store: dense (an array) or sparse (a group, CSR or CSC).
    rows
        Rows per block; by default `BLOCK_ROWS`, fewer where a dense block would have more than
        `DENSE_BUDGET` values.
    threads
        Blocks that are read at the same time.

    Yields
    ------
    numpy.ndarray or scipy.sparse.csr_matrix
        The next rows, in the stored dtype (float16 as float32, in native byte order). Duplicate
        entries of a cell and gene are summed.

    Notes
    -----
    Peak memory: `threads` + 1 blocks (of the largest dense ones 4 at most), and for CSR as many
    chunks of the file; for CSC, whose rows are scattered over the file, at most `CSC_BUDGET`
    values, with one pass over the file per so many values.
    """
    yield from map_blocks(lambda _, block: block, matrix, rows=rows, threads=threads)


def map_blocks(
    function: Callable[[int, Block], _Result],
    matrix: Any,
    *,
    rows: int | None = None,
    threads: int = 1,
) -> Iterator[_Result]:
    """Call a function for every block of `row_blocks`, on the thread that reads it.

    Parameters
    ----------
    function
        Called with the number of the block's first row and the block.
    matrix, rows, threads
        As for `row_blocks`.

    Yields
    ------
    Any
        The results, in the order of the blocks.
    """
    rows = rows or _rows(matrix)
    n_cells = matrix_shape(matrix)[0]
    starts = range(0, n_cells, rows)
    if encoding(matrix) == "csc_matrix":
        items = zip(starts, _csc_blocks(matrix, rows), strict=True)
        # A block is a slice of many that are in memory.
        yield from ordered_map(
            lambda item: function(*item), items, threads=threads, in_flight=threads + 1
        )
        return
    with reading(matrix):
        read = _row_reader(matrix)

    def read_block(start: int) -> _Result:
        with reading(matrix):
            block = read(start, min(start + rows, n_cells))
        return function(start, block)

    at_once = threads + 1
    if hasattr(matrix, "shape"):
        at_once = max(2, min(at_once, 4 * DENSE_BUDGET // max(rows * matrix.shape[1], 1)))
    yield from ordered_map(read_block, starts, threads=threads, in_flight=at_once)


def _row_reader(matrix: Any) -> Callable[[int, int], Block]:
    """Return a function that reads a range of rows, each once, of a dense matrix or CSR."""
    if encoding(matrix) != "csr_matrix":
        return lambda start, stop: native(np.asarray(matrix[start:stop]))
    n_genes = matrix_shape(matrix)[1]
    indptr = matrix["indptr"][:]
    data, indices = ChunkedArray(matrix["data"]), ChunkedArray(matrix["indices"])

    def read(start: int, stop: int) -> sp.csr_matrix:
        bounds = int(indptr[start]), int(indptr[stop])
        values = native(data.read(*bounds)), _checked(indices.read(*bounds), n_genes)
        pointers = indptr[start : stop + 1] - indptr[start]
        return sum_duplicates(sp.csr_matrix((*values, pointers), shape=(stop - start, n_genes)))

    return read


def gather_rows(blocks: Iterable[Block], parts: Sequence[np.ndarray]) -> Iterator[sp.csr_matrix]:
    """Return the rows of some sets of cells, each in its order, from one pass over all.

    Parameters
    ----------
    blocks
        Consecutive blocks of rows.
    parts
        Positions of the cells of each set.

    Notes
    -----
    Peak memory: the rows of all sets, once, and those of one set again.
    """
    wanted = np.unique(np.concatenate(parts)) if len(parts) else np.empty(0, np.int64)
    pieces, starts = [], []  # of each block, and where they begin in `wanted`
    end = n_taken = 0
    for block in blocks:
        first, end = end, end + block.shape[0]
        rows = wanted[n_taken : np.searchsorted(wanted, end)] - first
        if len(rows) or not pieces:
            pieces.append(sp.csr_matrix(block[rows]))
            starts.append(n_taken)
        n_taken += len(rows)
    for part in parts:
        order = np.argsort(part, kind="stable")
        places = np.searchsorted(wanted, part[order])
        edges = np.searchsorted(places, [*starts, len(wanted)])
        rows = sp.vstack(
            [
                piece[places[low:high] - start]
                for piece, start, low, high in zip(
                    pieces, starts, edges[:-1], edges[1:], strict=True
                )
                if low < high or piece is pieces[0]
            ],
            format="csr",
        )
        is_sorted = (np.diff(order) > 0).all()
        yield rows if is_sorted else rows[np.argsort(order)]


def native(values: np.ndarray) -> np.ndarray:
    """Convert numbers to native byte order, and float16, which SciPy lacks, to float32."""
    if values.dtype == np.float16:
        return values.astype(np.float32)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def sum_duplicates(rows: sp.csr_matrix) -> sp.csr_matrix:
    """Sum duplicate entries of a cell and gene; without any, return the same matrix.

    Raises
    ------
    ValueError
        If a sum does not fit into the dtype.
    """
    if rows.has_canonical_format:
        return rows
    # Without duplicates the indices keep their order.
    if not rows.has_sorted_indices:
        pattern = (np.ones(rows.nnz, np.int8), rows.indices, rows.indptr)
        if sp.csr_matrix(pattern, shape=rows.shape).tocsc().has_canonical_format:
            return rows
    if rows.dtype.kind not in "iu":
        sums = rows.copy()
        sums.sum_duplicates()
        return sums
    sums = rows.astype(np.int64)
    sums.sum_duplicates()
    if sums.data.max() > np.iinfo(rows.dtype).max:
        raise ValueError(
            f"duplicate entries of a cell and gene sum to {sums.data.max()}, which does not fit "
            f"into {rows.dtype}; store the matrix in a larger type"
        )
    return sums.astype(rows.dtype)


def _checked(indices: np.ndarray, end: int) -> np.ndarray:
    """Return indices; a ValueError if one is out of range, where compiled code would read."""
    if len(indices) and not (indices.min() >= 0 and indices.max() < end):
        raise ValueError(f"an index is outside of 0 to {end - 1}")
    return indices


def _csc_blocks(matrix: Any, rows: int) -> Iterator[sp.csr_matrix]:
    with reading(matrix):
        yield from _read_csc(matrix, rows)


def _read_csc(matrix: Any, rows: int) -> Iterator[sp.csr_matrix]:
    n_cells, n_genes = matrix_shape(matrix)
    if not n_cells:
        return
    if not n_genes:
        for start in range(0, n_cells, rows):
            yield sp.csr_matrix((min(rows, n_cells - start), 0))
        return
    indptr = matrix["indptr"][:]
    n_values = int(indptr[-1])
    per_pass = n_cells if n_values <= CSC_BUDGET else max(rows, n_cells * CSC_BUDGET // n_values)
    per_pass = -(-per_pass // rows) * rows
    for start in range(0, n_cells, per_pass):
        stop = min(start + per_pass, n_cells)
        parts = []
        for first in range(0, n_genes, 256):
            last = min(first + 256, n_genes)
            part = slice(int(indptr[first]), int(indptr[last]))
            columns = sp.csc_matrix(
                (
                    native(matrix["data"][part]),
                    _checked(matrix["indices"][part], n_cells),
                    indptr[first : last + 1] - indptr[first],
                ),
                shape=(n_cells, last - first),
            )
            parts.append(columns.tocsr()[start:stop])
        all_genes = sum_duplicates(sp.hstack(parts, format="csr"))
        for row in range(0, stop - start, rows):
            yield all_genes[row : row + rows]


def write_blocks(
    parent: zarr.Group,
    name: str,
    blocks: Iterable[Block],
    *,
    n_genes: int,
    n_cells: int,
    dtype: np.dtype | None = None,
    sparse: bool | None = None,
    threads: int = 1,
) -> None:
    """Write blocks of rows as one matrix.

    Parameters
    ----------
    parent
        The group to write into.
    name
        Name of the matrix in it.
    blocks
        Consecutive blocks of rows, dense or sparse.
    n_genes, n_cells
        Shape of the matrix.
    dtype
        The dtype; None: that of the first block, which must hold the values of all.
    sparse
        Whether to write CSR; None: if the first block is sparse.
    threads
        Chunks that are compressed and written at the same time.

    Notes
    -----
    Peak memory: one block, the row pointers, and the chunks of `CHUNK` values that are written or
    wait for it: 2 per thread, and 2.
    """
    iterator = iter(blocks)
    first = next(iterator, None)
    if first is None:
        first = sp.csr_matrix((0, n_genes), dtype=np.float32)
    dtype = first.dtype if dtype is None else np.dtype(dtype)
    sparse = sp.issparse(first) if sparse is None else sparse
    write = _write_csr if sparse else _write_dense
    converted = (
        convert_block(block, dtype=dtype, sparse=sparse)
        for block in itertools.chain([first], iterator)
    )
    write(parent, name, converted, dtype=dtype, n_genes=n_genes, n_cells=n_cells, threads=threads)


def convert_block(block: Block, *, dtype: np.dtype, sparse: bool) -> Block:
    """Return a block as `write_blocks` writes it: dense, or CSR in the order of the genes."""
    if not sparse:
        dense = block.toarray() if sp.issparse(block) else np.asarray(block)
        return dense.astype(dtype, copy=False)
    rows = block if sp.issparse(block) and block.format == "csr" else sp.csr_matrix(block)
    rows = rows.astype(dtype, copy=False)
    rows.sort_indices()
    return rows


def stored_type(matrix: Any) -> np.dtype:
    """Return the dtype of the blocks that `row_blocks` reads of a stored matrix."""
    values = matrix if hasattr(matrix, "shape") else matrix["data"]
    return native(np.empty(0, values.dtype)).dtype


def _new_array(
    group: zarr.Group, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: np.dtype
) -> zarr.Array:
    """Create an array for `write_chunk`."""
    if group.metadata.zarr_format == 2:
        codec = ZSTD_BITSHUFFLE
    else:
        from zarr.codecs import BloscCodec

        codec = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        fill_value=missing_chunk_value(dtype),
        chunks=chunks,
        compressors=codec,
        attributes=dict(ARRAY_ATTRIBUTES),
    )


class _Chunks:
    """Cuts consecutive rows into chunks of an array."""

    def __init__(self, array: zarr.Array) -> None:
        self.array, self.length = array, array.chunks[0]
        self.number = self.n_rows = 0
        self.parts: list[np.ndarray] = []

    def add(self, rows: np.ndarray) -> Iterator[tuple[zarr.Array, int, list[np.ndarray]]]:
        """Yield the arguments of `write_chunk` for every chunk that these rows complete."""
        start = 0
        while start < len(rows):
            part = rows[start : start + self.length - self.n_rows]
            self.parts.append(part)
            self.n_rows += len(part)
            start += len(part)
            if self.n_rows == self.length:
                yield from self.end()

    def end(self) -> Iterator[tuple[zarr.Array, int, list[np.ndarray]]]:
        """Yield the last chunk, if it has rows."""
        if self.n_rows:
            yield self.array, self.number, self.parts
            self.number, self.n_rows, self.parts = self.number + 1, 0, []


def _write_chunks(chunks: Iterable[tuple[zarr.Array, int, list[np.ndarray]]], threads: int) -> None:
    written = ordered_map(
        lambda chunk: write_chunk(*chunk), chunks, threads=threads, in_flight=2 * threads + 2
    )
    for _ in written:
        pass


def _write_dense(
    parent: zarr.Group,
    name: str,
    blocks: Iterable[np.ndarray],
    *,
    dtype: np.dtype,
    n_genes: int,
    n_cells: int,
    threads: int,
) -> None:
    rows = max(1, min(n_cells, CHUNK // max(n_genes, 1)))
    shape, chunk_shape = (n_cells, n_genes), (rows, max(n_genes, 1))
    chunks = _Chunks(_new_array(parent, name, shape, chunk_shape, dtype))
    if not n_genes:  # there is nothing to write
        return

    def complete() -> Iterator[tuple[zarr.Array, int, list[np.ndarray]]]:
        for block in blocks:
            yield from chunks.add(block)
        yield from chunks.end()

    _write_chunks(complete(), threads)


def _write_csr(
    parent: zarr.Group,
    name: str,
    blocks: Iterable[sp.csr_matrix],
    *,
    dtype: np.dtype,
    n_genes: int,
    n_cells: int,
    threads: int,
) -> None:
    group = parent.create_group(
        name,
        attributes={
            "encoding-type": "csr_matrix",
            "encoding-version": "0.1.0",
            "shape": [n_cells, n_genes],
        },
    )
    data, indices = (
        _Chunks(_new_array(group, key, (0,), (CHUNK,), kind))
        for key, kind in (("data", dtype), ("indices", np.int32))
    )
    pointers = [np.zeros(1, np.int64)]
    n_values = 0

    def complete() -> Iterator[tuple[zarr.Array, int, list[np.ndarray]]]:
        nonlocal n_values
        for csr in blocks:
            pointers.append(csr.indptr[1:].astype(np.int64) + n_values)
            n_values += csr.nnz
            yield from data.add(csr.data)
            yield from indices.add(csr.indices.astype(np.int32, copy=False))
        yield from data.end()
        yield from indices.end()

    _write_chunks(complete(), threads)
    joined = np.concatenate(pointers)
    for chunks in (data, indices):
        chunks.array.resize((n_values,))
    array = group.create_array(
        "indptr", shape=joined.shape, dtype=np.int64, fill_value=-1, chunks=joined.shape
    )
    array.attrs.update(ARRAY_ATTRIBUTES)
    array[:] = joined
