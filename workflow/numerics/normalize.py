"""Log-normalize counts, one block of cells at a time.

A matrix of cells x genes is passed as ``blocks``: a function that returns,
each time it is called, the same consecutive blocks of rows (CSR or dense, any real type of number,
any number of rows). Memory therefore depends on the block, not on the number of cells.

`row_totals` and `normalize_block` work on one block, `count_totals` takes a pass over the matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Block = sp.csr_matrix | np.ndarray
    Blocks = Callable[[], Iterable[Block]]


def normalize_block(
    block: Block, *, target_sum: float, totals: np.ndarray | None = None, first_cell: int = 0
) -> Block:
    """Scale every cell to the same total and take log1p.

    Parameters
    ----------
    block
        Counts, cells x genes; not changed.
    target_sum
        Total of every cell after scaling; 1e4 is usual, `median_target_sum` is scanpy's default.
    totals
        Counts per cell; default: those of `block`. Needed if it lacks some genes.
    first_cell
        Number of the block's first cell, for errors.

    Returns
    -------
    scipy.sparse.csr_matrix or numpy.ndarray
        float32, sparse if `block` is (its indices are shared, not copied). A cell without counts
        stays zero.

    Raises
    ------
    ValueError
        If a count is negative or not finite, `target_sum` is not positive, or `totals` has another
        length.

    Notes
    -----
    Equal to ``scanpy.pp.normalize_total`` and ``log1p`` on float32 to the bit: totals are summed in
    float64 and rounded once, all else is float32. Peak memory: 12 bytes per stored value.
    """
    if not 0 < target_sum < np.inf:
        raise ValueError(f"target_sum must be a positive number; found {target_sum!r}")
    check_counts(block, first_cell=first_cell)
    if totals is None:
        totals = row_totals(block)
    elif np.shape(totals) != (block.shape[0],) or not np.isfinite(totals).all():
        raise ValueError(
            f"totals must hold one finite number for each of the {block.shape[0]} cells; "
            f"found shape {np.shape(totals)}"
        )
    scale = np.asarray(totals, dtype=np.float32) / np.float32(target_sum)
    scale[scale == 0] = 1
    if not sp.issparse(block):
        values = np.asarray(block).astype(np.float32)
        values /= scale[:, None]
        return np.log1p(values, out=values)
    values = block.data.astype(np.float32)
    values /= np.repeat(scale, np.diff(block.indptr))
    np.log1p(values, out=values)
    return sp.csr_matrix((values, block.indices, block.indptr), shape=block.shape)


def row_totals(block: Block) -> np.ndarray:
    """Sum each cell's counts in float64."""
    if sp.issparse(block):
        return block @ np.ones(block.shape[1])
    return np.asarray(block).sum(axis=1, dtype=np.float64)


def count_totals(blocks: Blocks) -> np.ndarray:
    """Sum the counts of every cell.

    Parameters
    ----------
    blocks
        Counts, cells x genes.

    Returns
    -------
    numpy.ndarray, float64, one value per cell

    Raises
    ------
    ValueError
        If a count is negative or not finite, or the blocks do not belong together.
    """
    totals = [np.empty(0)]
    for first_cell, block in numbered(blocks()):
        check_counts(block, first_cell=first_cell)
        totals.append(row_totals(block))
    return np.concatenate(totals)


def median_target_sum(totals: np.ndarray) -> float:
    """Return the median of the positive totals: the ``target_sum`` that scanpy takes by default.

    Parameters
    ----------
    totals
        Counts per cell.

    Raises
    ------
    ValueError
        If no cell has a count.
    """
    totals = totals.astype(np.float32)
    if not (totals > 0).any():
        raise ValueError(f"none of the {len(totals)} cells has a count; the median total is unset")
    return float(np.median(totals[totals > 0]))


def numbered(blocks: Iterable[Block], n_genes: int | None = None) -> Iterator[tuple[int, Block]]:
    """Check the shape and type of each block, and yield it with the number of its first cell."""
    first_cell = 0
    for block in blocks:
        if getattr(block, "ndim", None) != 2:
            raise ValueError(f"a block must be a matrix of cells x genes; found {type(block)}")
        n_genes = block.shape[1] if n_genes is None else n_genes
        if block.shape[1] != n_genes:
            raise ValueError(
                f"the block of cell {first_cell} has {block.shape[1]} genes, expected {n_genes}"
            )
        if block.dtype.kind not in "biuf":
            raise TypeError(f"the values must be real numbers; found {block.dtype}")
        if block.dtype.kind == "b":
            block = block.astype(np.uint8)
        yield first_cell, block.tocsr() if sp.issparse(block) else np.asarray(block)
        first_cell += block.shape[0]


class WrongValue(ValueError):
    """An invalid value; callers that know the names of its cell and gene can add them."""

    def __init__(self, cell: int, gene: int, problem: str) -> None:
        super().__init__(f"cell {cell}, gene {gene} (counted from 0): {problem}")
        self.cell, self.gene, self.problem = cell, gene, problem


def check_counts(block: Block, *, first_cell: int) -> None:
    """Raise a ValueError that names the first cell and gene with a negative or not finite count."""
    values = block.data if sp.issparse(block) else np.asarray(block)
    if values.dtype.kind == "u" or not values.size:
        return
    if not (values.min() >= 0 and values.max() < np.inf):  # a NaN fails both
        _report(block, ~((values >= 0) & (values < np.inf)), first_cell, "a number of 0 or more")


def check_finite(block: Block, *, first_cell: int) -> None:
    """Raise a ValueError that names the first cell and gene whose value is not finite."""
    values = block.data if sp.issparse(block) else np.asarray(block)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        _report(block, ~np.isfinite(values), first_cell, "a finite number")


def _report(block: Block, wrong: np.ndarray, first_cell: int, wanted: str) -> None:
    first = np.flatnonzero(wrong)[0]
    if sp.issparse(block):
        cell = np.searchsorted(block.indptr, first, side="right") - 1
        gene, value = block.indices[first], block.data[first]
    else:
        cell, gene = np.divmod(first, block.shape[1])
        value = block[cell, gene]
    hint = "; are these scaled values? Counts are needed" if -np.inf < value < 0 else ""
    problem = f"every value must be {wanted}, found {value}{hint}"
    raise WrongValue(int(first_cell + cell), int(gene), problem)
