"""Read and write matrices of cells x genes in blocks of rows, never all in memory."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from utils.encoding import encoding, missing_chunk_value, stored_shape
from utils.io import reading
from utils.threads import read_ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import zarr

    Block = sp.csr_matrix | np.ndarray

BLOCK_ROWS = 8192
DENSE_BUDGET = 1 << 25  # values of a dense block
CSC_BUDGET = 1 << 26  # values of a CSC matrix that are in memory at a time
CHUNK = 1 << 20  # values of a chunk on disk


def matrix_shape(matrix: Any) -> tuple[int, int]:
    """Return the number of cells and of genes of a stored matrix, dense or sparse."""
    n_cells, n_genes = stored_shape(matrix)
    return n_cells, n_genes


def n_blocks(matrix: Any) -> int:
    """Return the number of blocks that `row_blocks` reads a stored matrix in."""
    return -(-matrix_shape(matrix)[0] // _rows(matrix))


def _rows(matrix: Any) -> int:
    if hasattr(matrix, "shape"):
        return max(1, min(BLOCK_ROWS, DENSE_BUDGET // max(matrix.shape[1], 1)))
    return BLOCK_ROWS


def row_blocks(matrix: Any, *, rows: int | None = None) -> Iterator[Block]:
    """Read a stored matrix in blocks of consecutive rows.

    Parameters
    ----------
    matrix
        An element of an opened store: dense (an array) or sparse (a group, CSR or CSC).
    rows
        Rows per block; by default `BLOCK_ROWS`, fewer where a dense block would have more than
        `DENSE_BUDGET` values.

    Yields
    ------
    numpy.ndarray or scipy.sparse.csr_matrix
        The next rows, in the stored dtype (float16 as float32, in native byte order). Duplicate
        entries of a cell and gene are summed.

    Notes
    -----
    Peak memory: one block, and for CSR one chunk of the file; for CSC, whose rows are scattered
    over the file, at most `CSC_BUDGET` values, with one pass over the file per so many values.
    """
    with reading(matrix):
        yield from _row_blocks(matrix, rows or _rows(matrix))


def _row_blocks(matrix: Any, rows: int) -> Iterator[Block]:
    kind = encoding(matrix)
    if kind == "csc_matrix":
        yield from _csc_blocks(matrix, rows)
        return
    n_cells, n_genes = matrix_shape(matrix)
    if kind != "csr_matrix":
        for start in range(0, n_cells, rows):
            yield native(np.asarray(matrix[start : start + rows]))
        return
    indptr = matrix["indptr"][:]
    read_data, read_indices = (_sequential_reader(matrix[part]) for part in ("data", "indices"))
    for start in range(0, n_cells, rows):
        stop = min(start + rows, n_cells)
        pointers = indptr[start : stop + 1] - indptr[start]
        n_values = int(pointers[-1])
        values = native(read_data(n_values)), _checked(read_indices(n_values), n_genes)
        yield sum_duplicates(sp.csr_matrix((*values, pointers), shape=(stop - start, n_genes)))


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


def _sequential_reader(array: Any) -> Callable[[int], np.ndarray]:
    """Return a function that reads the next values of an array, and every chunk once."""
    chunk = array.chunks[0] if array.chunks else 1
    buffer, end = array[:0], 0  # values that were read but not asked for, and where they end

    def read(n_values: int) -> np.ndarray:
        nonlocal buffer, end
        n_missing = n_values - len(buffer)
        if n_missing <= 0:
            values, buffer = buffer[:n_values], buffer[n_values:]
            return values
        start, end = end, min(-(-(end + n_missing) // chunk) * chunk, array.shape[0])
        chunks = array[start:end]
        values, buffer = np.concatenate([buffer, chunks[:n_missing]]), chunks[n_missing:]
        return values

    return read


def _checked(indices: np.ndarray, end: int) -> np.ndarray:
    """Return indices; a ValueError if one is out of range, where compiled code would read."""
    if len(indices) and not (indices.min() >= 0 and indices.max() < end):
        raise ValueError(f"an index is outside of 0 to {end - 1}")
    return indices


def _csc_blocks(matrix: Any, rows: int) -> Iterator[sp.csr_matrix]:
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

    Notes
    -----
    The next block is computed while one is written. Peak memory: two blocks, one chunk of 2**20
    values and the row pointers.
    """
    iterator = read_ahead(blocks)
    first = next(iterator, None)
    if first is None:
        first = sp.csr_matrix((0, n_genes), dtype=np.float32)
    dtype = first.dtype if dtype is None else np.dtype(dtype)
    sparse = sp.issparse(first) if sparse is None else sparse
    write = _write_csr if sparse else _write_dense
    converted = (_convert(block, dtype, sparse) for block in itertools.chain([first], iterator))
    write(parent, name, converted, dtype=dtype, n_genes=n_genes, n_cells=n_cells)


def _convert(block: Block, dtype: np.dtype, sparse: bool) -> Block:
    if sparse:
        return sp.csr_matrix(block).astype(dtype, copy=False)
    dense = block.toarray() if sp.issparse(block) else np.asarray(block)
    return dense.astype(dtype, copy=False)


def stored_type(matrix: Any) -> np.dtype:
    """Return the dtype of the blocks that `row_blocks` reads of a stored matrix."""
    values = matrix if hasattr(matrix, "shape") else matrix["data"]
    return native(np.empty(0, values.dtype)).dtype


def _compressor(group: zarr.Group) -> Any:
    """Return zstd on shuffled bits: as small as zarr's default, written in half the time."""
    if group.metadata.zarr_format == 2:
        from numcodecs import Blosc

        return Blosc("zstd", clevel=1, shuffle=Blosc.BITSHUFFLE)
    from zarr.codecs import BloscCodec

    return BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")


def _write_dense(
    parent: zarr.Group,
    name: str,
    blocks: Iterable[np.ndarray],
    *,
    dtype: np.dtype,
    n_genes: int,
    n_cells: int,
) -> None:
    rows = max(1, min(n_cells, CHUNK // max(n_genes, 1)))
    array = parent.create_array(
        name,
        shape=(n_cells, n_genes),
        dtype=dtype,
        fill_value=missing_chunk_value(dtype),
        chunks=(rows, max(n_genes, 1)),
        compressors=_compressor(parent),
        attributes={"encoding-type": "array", "encoding-version": "0.2.0"},
    )
    start, buffered, n_buffered = 0, [np.empty((0, n_genes), dtype)], 0
    for block in blocks:
        buffered.append(block)
        n_buffered += block.shape[0]
        if n_buffered >= rows:  # whole chunks only: no chunk is read back to be completed
            joined = np.concatenate(buffered)
            full = n_buffered // rows * rows
            array[start : start + full] = joined[:full]
            start, buffered, n_buffered = start + full, [joined[full:]], n_buffered - full
    joined = np.concatenate(buffered)
    array[start : start + len(joined)] = joined


def _write_csr(
    parent: zarr.Group,
    name: str,
    blocks: Iterable[sp.csr_matrix],
    *,
    dtype: np.dtype,
    n_genes: int,
    n_cells: int,
) -> None:
    group = parent.create_group(
        name,
        attributes={
            "encoding-type": "csr_matrix",
            "encoding-version": "0.1.0",
            "shape": [n_cells, n_genes],
        },
    )
    codec = _compressor(parent)
    arrays = {
        key: group.create_array(
            key,
            shape=(0,),
            dtype=kind,
            fill_value=missing_chunk_value(kind),
            chunks=(CHUNK,),
            compressors=codec,
        )
        for key, kind in (("data", dtype), ("indices", np.int32))
    }
    attributes = {"encoding-type": "array", "encoding-version": "0.2.0"}
    for array in arrays.values():
        array.attrs.update(attributes)
    buffered: dict[str, list[np.ndarray]] = {"data": [], "indices": []}
    pointers = [np.zeros(1, np.int64)]
    n_buffered = n_values = 0

    def flush(*, everything: bool) -> int:
        """Write whole chunks, or `everything`; return the number of values that remain."""
        remaining = 0
        for key, array in arrays.items():
            joined = np.concatenate([np.empty(0, array.dtype), *buffered[key]])
            full = len(joined) if everything else len(joined) // CHUNK * CHUNK
            end = array.shape[0]
            array.resize((end + full,))
            array[end:] = joined[:full]
            buffered[key] = [joined[full:]]
            remaining = len(joined) - full
        return remaining

    for csr in blocks:
        csr.sort_indices()
        buffered["data"].append(csr.data)
        buffered["indices"].append(csr.indices.astype(np.int32, copy=False))
        pointers.append(csr.indptr[1:].astype(np.int64) + n_values)
        n_values += csr.nnz
        n_buffered += csr.nnz
        if n_buffered >= CHUNK:
            n_buffered = flush(everything=False)
    flush(everything=True)
    joined = np.concatenate(pointers)
    array = group.create_array(
        "indptr", shape=joined.shape, dtype=np.int64, fill_value=-1, chunks=joined.shape
    )
    array.attrs.update(attributes)
    array[:] = joined
