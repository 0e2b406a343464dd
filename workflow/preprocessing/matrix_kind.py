"""Recognize the values of a matrix: counts, counts with fractions, log-normalized or scaled.

The decision is made on a sample of cells, spread over the whole matrix. Negative values are scaled,
whole numbers are counts. Others are either linear (ambient-corrected counts, CPM) or a logarithm:
this only if undoing it brings order into the cells, so that the values of a cell are multiples of
its smallest (the logarithm of scaled counts), or cells have the same total.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from utils.blocks import matrix_shape, native, row_blocks, sum_duplicates

if TYPE_CHECKING:
    from collections.abc import Callable

COUNTS, FRACTIONS, LOG, SCALED, EMPTY = "counts", "fractions", "log-normalized", "scaled", "empty"
LINEAR = (COUNTS, FRACTIONS)  # what can be normalized

WINDOWS = 16
WINDOW_VALUES = 1 << 15  # in each window
INVERSES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "natural logarithm": np.expm1,
    "logarithm to the base 2": lambda v: np.expm1(v * np.log(2)),
    "logarithm to the base 10": lambda v: np.expm1(v * np.log(10)),
    "square root": np.square,
}


class MatrixValues(NamedTuple):
    """What a matrix holds, according to a sample of its cells."""

    kind: str  # counts, fractions, log-normalized, scaled, empty
    smallest: float  # of the sample; 0 where nothing is stored
    largest: float
    whole_share: float  # of the values other than 0, how many are whole numbers
    is_mixed: bool = False  # some cells hold counts, others values of this kind

    def __str__(self) -> str:
        """Describe the values: ``log-normalized values (largest 8.2, 0 % whole numbers)``."""
        if self.kind == EMPTY:
            return "nothing but zeros"
        share = f"{max(self.whole_share, 0.01):.0%} whole numbers"
        share = {0: "no whole numbers", 1: "whole numbers"}.get(self.whole_share, share)
        details = f"largest {self.largest:.3g}, {share}"
        kind = {
            COUNTS: "counts",
            FRACTIONS: "counts with fractions",
            LOG: "log-normalized values",
            SCALED: "scaled values",
        }[self.kind]
        if self.kind == SCALED:
            details = f"smallest {self.smallest:.3g}, {details}"
        others = "counts in some cells and in others " if self.is_mixed else ""
        return f"{others}{kind} ({details})"


def matrix_kind(matrix: Any) -> str:
    """Return what a matrix holds.

    Parameters
    ----------
    matrix
        Cells x genes: an element of an opened store (dense, CSR or CSC), or in memory (SciPy
        sparse or an array).

    Returns
    -------
    str
        ``counts`` (whole numbers), ``fractions`` (counts with fractions, as ambient RNA is
        corrected, or scaled counts that are no logarithm), ``log-normalized`` (logarithms or
        square roots), ``scaled`` (there are negative values) or ``empty`` (zeros only).
    """
    return describe_matrix(matrix).kind


def describe_matrix(matrix: Any) -> MatrixValues:
    """Describe the values of a matrix, from a sample of cells spread over it.

    Parameters
    ----------
    matrix
        As for `matrix_kind`.

    Returns
    -------
    MatrixValues
        The kind, and details of the sample. Values that are not finite are ignored.

    Notes
    -----
    Reads at most 16 windows of about 32,768 values, always the same ones, and the row pointers; of
    CSC some columns. Peak memory: about 50 MB, and 8 bytes per cell.
    """
    return _describe([_finite(window) for window in _windows(matrix)])


def _describe(windows: list[sp.csr_matrix]) -> MatrixValues:
    values = np.concatenate([np.empty(0), *(window.data for window in windows)])
    if not len(values):
        return MatrixValues(EMPTY, 0.0, 0.0, 0.0)
    is_whole = values == np.rint(values)
    details = (float(min(values.min(), 0)), float(values.max()), float(is_whole.mean()))
    if details[0] < 0:
        return MatrixValues(SCALED, *details)
    if is_whole.all():
        return MatrixValues(COUNTS, *details)
    kind = _kind_of_fractions([window for window in windows if (window.data % 1).any()])
    # Values of 0 and 1 may be anything; larger ones that are all whole are counts.
    has_counts = any(
        window.nnz >= 50 and window.data.max() > 1 and not (window.data % 1).any()
        for window in windows
    )
    return MatrixValues(kind, *details, is_mixed=kind == LOG and has_counts)


def _kind_of_fractions(windows: list[sp.csr_matrix]) -> str:
    """Distinguish logarithms from linear values; all are 0 or more, and some are not whole."""
    cells = sp.vstack(windows, format="csr")
    with np.errstate(over="ignore", invalid="ignore"):
        linear = _multiples(cells, lambda v: v), _alike(cells, lambda v: v)
        undone = [(_multiples(cells, f), _alike(cells, f)) for f in INVERSES.values()]
    best = max(score for score, _ in undone)
    if best >= 0.6 and best > linear[0] + 0.1:  # squares of multiples are multiples as well
        return LOG
    if linear[0] >= 0.6 or linear[1]:  # counts times a factor, counts per million
        return FRACTIONS
    if any(alike for _, alike in undone):
        return LOG
    return FRACTIONS if _looks_linear(cells) else LOG


def _looks_linear(cells: sp.csr_matrix) -> bool:
    """Return whether values without such an order look like counts with fractions."""
    values = cells.data
    # A logarithm is a whole number by chance only, and with the usual totals never above 20.
    is_whole = values == np.rint(values)
    several = is_whole.mean() >= 0.05 and len(np.unique(values[is_whole])) >= 3
    if several or values.max() > 20:
        return True
    # Deeper cells have larger counts per detected gene, and smaller values once they are scaled.
    detected = np.diff(cells.indptr)
    used = detected >= 3
    if used.sum() < 10 or np.ptp(detected[used]) == 0:
        return False
    sums = cells @ np.ones(cells.shape[1])
    depth, mean = np.log(detected[used]), np.log(sums[used] / detected[used])
    return bool(np.ptp(mean) > 0 and np.corrcoef(depth, mean)[0, 1] > 0.1)


def _multiples(cells: sp.csr_matrix, inverse: Callable[[np.ndarray], np.ndarray]) -> float:
    """Return the share of values that are multiples of 1, 1/2 or 1/3 of their cell's smallest.

    Only values clearly above the smallest and below 100 times as large count; 0 if these are fewer
    than 3.
    """
    values = inverse(cells.data)
    filled = np.flatnonzero(np.diff(cells.indptr))
    lengths = np.diff(cells.indptr)[filled]
    unit = np.repeat(np.minimum.reduceat(values, cells.indptr[filled]), lengths)
    cell = np.repeat(np.arange(len(filled)), lengths)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = values / unit
    shown = (ratio > 1.02) & (ratio < 100)
    if shown.sum() < 3:
        return 0.0
    ratio, cell = ratio[shown], cell[shown]
    shown_in = np.bincount(cell, minlength=len(filled))
    hits = np.zeros(len(filled))
    for part in (1, 2, 3):
        multiple = ratio * part
        # The nearest whole number is this near by chance in `2 * 0.02` of all cases.
        near = np.abs(multiple - np.rint(multiple)) < 0.02
        hits = np.maximum(hits, np.bincount(cell, near, minlength=len(filled)))
    return float(hits.sum() / shown_in.sum())


def _alike(cells: sp.csr_matrix, inverse: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Return whether the cells have the same total, or a single one a round total."""
    undone = sp.csr_matrix((inverse(cells.data), cells.indices, cells.indptr), shape=cells.shape)
    totals = undone @ np.ones(cells.shape[1])
    totals = totals[np.diff(cells.indptr) > 0]
    if not np.isfinite(totals).all():
        return False
    if len(totals) < 3:
        power = np.log10(totals)
        return bool((np.abs(power - np.rint(power)) < 1e-4).all() and (np.rint(power) > 2).all())
    return bool(np.std(totals) < 2e-3 * np.mean(totals))


# ---------------------------------------------------------------- the sample


def _finite(window: sp.csr_matrix) -> sp.csr_matrix:
    """Return the finite values other than 0, as float64."""
    values = window.data.astype(np.float64)
    is_value = np.isfinite(values) & (values != 0)
    if is_value.all():
        return sp.csr_matrix((values, window.indices, window.indptr), shape=window.shape)
    ends = np.concatenate([[0], np.cumsum(is_value)])[window.indptr]
    return sp.csr_matrix((values[is_value], window.indices[is_value], ends), shape=window.shape)


def _windows(matrix: Any) -> list[sp.csr_matrix]:
    """Return up to `WINDOWS` runs of consecutive cells, spread over the matrix."""
    if sp.issparse(matrix) or isinstance(matrix, np.ndarray):
        rows = sp.csr_matrix(matrix)
        return [sum_duplicates(rows[a:b]) for a, b in _spread(rows.indptr.astype(np.int64))]
    encoding = matrix.attrs.get("encoding-type", "array")
    if encoding == "csr_matrix":
        return _csr_windows(matrix)
    if encoding == "csc_matrix" and int(matrix["data"].shape[0]) > WINDOWS * WINDOW_VALUES:
        return _csc_windows(matrix)
    if encoding == "csc_matrix" or np.prod(matrix_shape(matrix)) <= WINDOWS * WINDOW_VALUES:
        rows = [*map(sp.csr_matrix, row_blocks(matrix))]
        return _windows(sp.vstack(rows, format="csr")) if rows else []
    return _dense_windows(matrix)


def _spread(indptr: np.ndarray) -> list[tuple[int, int]]:
    """Cut rows into windows of about `WINDOW_VALUES` values, evenly spread over all values."""
    n_values = int(indptr[-1])
    if n_values <= WINDOWS * WINDOW_VALUES:
        edges = np.unique(np.linspace(0, len(indptr) - 1, WINDOWS + 1).astype(int))
        return [(int(a), int(b)) for a, b in itertools.pairwise(edges)]
    starts = np.linspace(0, n_values - WINDOW_VALUES, WINDOWS).astype(np.int64)
    first = np.searchsorted(indptr, starts, side="right") - 1
    last = np.maximum(np.searchsorted(indptr, starts + WINDOW_VALUES, side="right") - 1, first + 1)
    return [(int(a), int(b)) for a, b in zip(first, last, strict=True)]


def _dense_windows(matrix: Any) -> list[sp.csr_matrix]:
    """Return the windows, or where these have zeros only the first block that has another value."""
    n_cells, n_genes = matrix_shape(matrix)
    pointers = np.arange(n_cells + 1, dtype=np.int64) * n_genes
    windows = [sp.csr_matrix(native(matrix[a:b])) for a, b in _spread(pointers)]
    if any(window.nnz for window in windows):
        return windows
    blocks = map(sp.csr_matrix, row_blocks(matrix))
    return [next((block for block in blocks if block.nnz), windows[0])]


def _csr_windows(matrix: Any) -> list[sp.csr_matrix]:
    n_genes = matrix_shape(matrix)[1]
    indptr = matrix["indptr"][:].astype(np.int64)
    windows = []
    for start, stop in _spread(indptr):
        part = slice(int(indptr[start]), int(indptr[stop]))
        arrays = (native(matrix["data"][part]), matrix["indices"][part])
        pointers = indptr[start : stop + 1] - indptr[start]
        windows.append(
            sum_duplicates(sp.csr_matrix((*arrays, pointers), shape=(stop - start, n_genes)))
        )
    return windows


def _csc_windows(matrix: Any) -> list[sp.csr_matrix]:
    """Return the cells of one band of rows in some genes, those with many values.

    As genes are missing, the totals of the cells mean nothing here.
    """
    n_cells = matrix_shape(matrix)[0]
    indptr = matrix["indptr"][:].astype(np.int64)
    lengths = np.diff(indptr)
    by_length = np.argsort(-lengths, kind="stable")
    by_length = by_length[: max(1, np.count_nonzero(lengths > 0.02 * n_cells))]
    genes = np.unique(by_length[np.linspace(0, len(by_length) - 1, 3 * WINDOWS).astype(int)])
    windows = []
    for share in (0.1, 0.6):
        parts = []
        for column in genes:
            start = int(indptr[column] + share * lengths[column])
            stop = min(start + max(1, WINDOW_VALUES * int(lengths[column]) // n_cells // 4),
                       int(indptr[column + 1]))  # fmt: skip
            data, rows = native(matrix["data"][start:stop]), matrix["indices"][start:stop]
            parts.append(sp.csr_matrix((data, (rows, np.zeros(len(rows), int))), (n_cells, 1)))
        band = sp.hstack(parts, format="csr")
        windows.append(band[np.flatnonzero(np.diff(band.indptr))])
    return windows
