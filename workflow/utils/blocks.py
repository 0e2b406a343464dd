"""Matrices of cells x genes in blocks of rows: read and written without being held whole."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from utils.io import reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import zarr

    Block = sp.csr_matrix | np.ndarray

ROWS = 8192
CHUNK = 1 << 20
CSC_BUDGET = 1 << 26


def matrix_shape(matrix: Any) -> tuple[int, int]:
    """Return (cells, genes) of a stored matrix, dense or sparse."""
    shape = matrix.shape if hasattr(matrix, "shape") else matrix.attrs["shape"]
    return int(shape[0]), int(shape[1])


def n_blocks(n_cells: int) -> int:
    """Return into how many blocks `row_blocks` cuts this many rows."""
    return -(-n_cells // ROWS)


def row_blocks(matrix: Any, *, rows: int = ROWS) -> Iterator[Block]:
    """Read a stored matrix in blocks of consecutive rows.

    Parameters
    ----------
    matrix
        An element of an opened store: dense (an array) or sparse (a group, CSR or CSC).
    rows
        Rows per block.

    Yields
    ------
    numpy.ndarray or scipy.sparse.csr_matrix
        The next rows, in the stored type of number.

    Notes
    -----
    Peak memory: one block; for CSC, whose rows lie apart, at most `CSC_BUDGET` values, at the
    price of one pass over the file for each such part.
    """
    with reading(matrix):
        yield from _row_blocks(matrix, rows)


def _row_blocks(matrix: Any, rows: int) -> Iterator[Block]:
    encoding = matrix.attrs.get("encoding-type", "array")
    if encoding == "csc_matrix":
        yield from _csc_blocks(matrix, rows)
        return
    n, genes = matrix_shape(matrix)
    if encoding != "csr_matrix":
        for start in range(0, n, rows):
            yield np.asarray(matrix[start : start + rows])
        return
    indptr = matrix["indptr"][:]
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        part = slice(int(indptr[start]), int(indptr[stop]))
        pointers = indptr[start : stop + 1] - indptr[start]
        indices = _checked(matrix["indices"][part], genes)
        yield sp.csr_matrix((matrix["data"][part], indices, pointers), shape=(stop - start, genes))


def _checked(indices: np.ndarray, end: int) -> np.ndarray:
    """Refuse indices that point outside: compiled code would follow them."""
    if len(indices) and not (indices.min() >= 0 and indices.max() < end):
        raise ValueError(f"an index is outside of 0 to {end - 1}")
    return indices


def _csc_blocks(matrix: Any, rows: int) -> Iterator[sp.csr_matrix]:
    n, genes = matrix_shape(matrix)
    indptr = matrix["indptr"][:]
    n_values = int(indptr[-1])
    per_part = n if n_values <= CSC_BUDGET else max(rows, n * CSC_BUDGET // n_values)
    per_part = -(-per_part // rows) * rows
    for start in range(0, n, per_part):
        stop = min(start + per_part, n)
        parts = []
        for first in range(0, genes, 256):
            last = min(first + 256, genes)
            part = slice(int(indptr[first]), int(indptr[last]))
            columns = sp.csc_matrix(
                (
                    matrix["data"][part],
                    _checked(matrix["indices"][part], n),
                    indptr[first : last + 1] - indptr[first],
                ),
                shape=(n, last - first),
            )
            parts.append(columns.tocsr()[start:stop])
        whole = sp.hstack(parts, format="csr")
        for row in range(0, stop - start, rows):
            yield whole[row : row + rows]


def write_blocks(
    parent: zarr.Group, name: str, blocks: Iterable[Block], *, n_genes: int, n_cells: int
) -> None:
    """Write blocks of rows as one matrix, CSR or dense as the first block is.

    Parameters
    ----------
    parent
        The group to write into.
    name
        Name of the matrix there.
    blocks
        Consecutive blocks of rows, all dense or all sparse.
    n_genes, n_cells
        The shape of the whole.

    Notes
    -----
    Peak memory: one block, one chunk of 2**20 values and the row pointers.
    """
    iterator = iter(blocks)
    first = next(iterator, None)
    if first is None:
        first = sp.csr_matrix((0, n_genes), dtype=np.float32)
    if sp.issparse(first):
        _write_csr(parent, name, first, iterator, n_genes=n_genes, n_cells=n_cells)
    else:
        _write_dense(parent, name, first, iterator, n_genes=n_genes, n_cells=n_cells)


def _write_dense(
    parent: zarr.Group,
    name: str,
    first: np.ndarray,
    others: Iterator[Block],
    *,
    n_genes: int,
    n_cells: int,
) -> None:
    rows = max(1, min(n_cells, CHUNK // max(n_genes, 1)))
    array = parent.create_array(
        name,
        shape=(n_cells, n_genes),
        dtype=first.dtype,
        chunks=(rows, max(n_genes, 1)),
        attributes={"encoding-type": "array", "encoding-version": "0.2.0"},
    )
    start, held, n_held = 0, [first], first.shape[0]
    for block in others:
        held.append(np.asarray(block))
        n_held += block.shape[0]
        if n_held >= rows:  # whole chunks only: no chunk is read back to be completed
            joined = np.concatenate(held)
            full = n_held // rows * rows
            array[start : start + full] = joined[:full]
            start, held, n_held = start + full, [joined[full:]], n_held - full
    joined = np.concatenate(held)
    array[start : start + len(joined)] = joined


def _write_csr(
    parent: zarr.Group,
    name: str,
    first: sp.csr_matrix,
    others: Iterator[Block],
    *,
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
    arrays = {
        key: group.create_array(key, shape=(0,), dtype=dtype, chunks=(CHUNK,))
        for key, dtype in (("data", first.dtype), ("indices", np.int32))
    }
    attributes = {"encoding-type": "array", "encoding-version": "0.2.0"}
    for array in arrays.values():
        array.attrs.update(attributes)
    held: dict[str, list[np.ndarray]] = {"data": [], "indices": []}
    pointers = [np.zeros(1, np.int64)]
    n_held = n_values = 0

    def flush(*, everything: bool) -> int:
        left = 0
        for key, array in arrays.items():
            joined = np.concatenate([np.empty(0, array.dtype), *held[key]])
            full = len(joined) if everything else len(joined) // CHUNK * CHUNK
            end = array.shape[0]
            array.resize((end + full,))
            array[end:] = joined[:full]
            held[key] = [joined[full:]]
            left = len(joined) - full
        return left

    for block in itertools.chain([first], others):
        csr = sp.csr_matrix(block)
        csr.sort_indices()
        held["data"].append(csr.data)
        held["indices"].append(csr.indices.astype(np.int32, copy=False))
        pointers.append(csr.indptr[1:].astype(np.int64) + n_values)
        n_values += csr.nnz
        n_held += csr.nnz
        if n_held >= CHUNK:
            n_held = flush(everything=False)
    flush(everything=True)
    joined = np.concatenate(pointers)
    array = group.create_array("indptr", shape=joined.shape, dtype=np.int64, chunks=joined.shape)
    array.attrs.update(attributes)
    array[:] = joined
