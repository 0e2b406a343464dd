"""Principal components of a matrix that is read in blocks of cells.

`gram_pca` takes one pass (the Gram matrix of the genes, then its eigenvectors), `pca_scores` a
second one for the scores, which it hands out block by block.

The product of a piece with itself is dense (BLAS) or sparse, whichever is faster for its number of
non-zeros. Pieces have a fixed number of rows, BLAS runs on one thread in each worker, and the
products are added in the order of the cells: neither the size of the blocks nor the number of
threads changes a bit of the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from numerics.normalize import check_finite, numbered
from preprocessing.options import PCAOptions
from utils.log import say
from utils.threads import one_blas_thread, ordered_map

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numerics.normalize import Block, Blocks

PIECE = 4096  # rows multiplied at once
# A multiply-add costs 2.1 ns in SciPy's sparse product (which no thread can share) and 0.01 ns in
# a dense one; so the sparse one pays below this share of the dense one's multiply-adds.
SPARSE_SHARE = 1 / 500


@dataclass(frozen=True)
class PrincipalComponents:
    """Principal components.

    Attributes
    ----------
    components
        float32, genes x components: scanpy's ``varm["PCs"]``. The largest loading of each by
        absolute value is positive.
    mean
        float64, per gene: what is subtracted before the projection.
    variance
        float64, per component: the variance of the scores, descending.
    variance_ratio
        float64, per component: share of the total variance of the genes.
    """

    components: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    variance_ratio: np.ndarray


def gram_pca(
    blocks: Blocks, *, n_comps: int = PCAOptions.n_comps, threads: int = 1
) -> PrincipalComponents:
    """Compute principal components in one pass.

    Parameters
    ----------
    blocks
        Values (log-normalized, of the chosen genes), cells x genes.
    n_comps
        Number of components; at most ``min(cells, genes) - 1``, cut with a log line.
    threads
        Blocks that are multiplied at the same time; the result does not depend on it.

    Returns
    -------
    PrincipalComponents

    Raises
    ------
    ValueError
        If a value is not finite, there are fewer than two cells or genes, or no gene varies.

    Notes
    -----
    The covariance is ``(X'X - n m m') / (n - 1)``; products of a piece are float32, their sum
    float64. Peak memory grows with genes**2, not with cells: 16 bytes per pair of genes, and per
    thread (and once more) 4 bytes per pair and 32 KB per gene; 24 bytes more per pair and thread
    for sparse products. Measured for 2,000 genes with reading: 190 MB on one thread, 280 MB
    on two. Time grows with cells x genes**2.
    """
    if n_comps < 1:
        raise ValueError(f"n_comps must be at least 1; found {n_comps}")
    if threads < 1:
        raise ValueError(f"threads must be at least 1; found {threads}")
    with one_blas_thread():
        pieces = _in_pieces(blocks())
        first = next(pieces, None)
        if first is None:
            raise ValueError("PCA needs at least 2 cells; found none")
        # About the mean, so that products of large values do not cancel; a float32 number.
        shift = (_sums(first[1]) / first[1].shape[0]).astype(np.float32).astype(np.float64)
        n_genes = len(shift)
        n_cells, sums, gram = 0, np.zeros(n_genes), np.zeros((n_genes, n_genes))
        products = ordered_map(
            partial(_product, shift=shift),
            chain([first], pieces),
            threads=threads,
            in_flight=threads + 1,
        )
        for rows, piece_sums, product in products:
            n_cells += rows
            sums += piece_sums
            gram += product
        max_comps = min(n_cells, n_genes) - 1
        if max_comps < 1:
            raise ValueError(
                f"PCA needs at least 2 cells and 2 genes; found {n_cells} and {n_genes}"
            )
        if n_comps > max_comps:
            say(f"n_comps is cut from {n_comps} to {max_comps}: {n_cells} cells x {n_genes} genes")
        return _decompose(gram, sums, shift, n_cells, min(n_comps, max_comps))


def _product(
    numbered_piece: tuple[int, Block], shift: np.ndarray
) -> tuple[int, np.ndarray, np.ndarray]:
    """Return number of rows, sums and product with itself of a piece less `shift`."""
    first_cell, piece = numbered_piece
    check_finite(piece, first_cell=first_cell)
    rows, genes = piece.shape
    sums = _sums(piece) - rows * shift
    if sp.issparse(piece):
        per_cell = np.diff(piece.indptr).astype(np.float64)
        if per_cell @ per_cell < SPARSE_SHARE * rows * genes**2:
            values = piece.astype(np.float64)
            product = (values.T @ values).toarray()
            # With x the sums of X - s: (X - s)'(X - s) = X'X - x s' - s (x + n s)'.
            product -= np.outer(sums, shift)
            product -= np.outer(shift, sums + rows * shift)
            return rows, sums, product
        values = piece.astype(np.float32, copy=False).toarray()
    else:
        values = piece.astype(np.float32)
    values -= shift.astype(np.float32)
    return rows, sums, values.T @ values


def _sums(piece: Block) -> np.ndarray:
    if sp.issparse(piece):
        return np.bincount(piece.indices, weights=piece.data, minlength=piece.shape[1])
    return piece.sum(axis=0, dtype=np.float64)


def _decompose(
    gram: np.ndarray, sums: np.ndarray, shift: np.ndarray, n_cells: int, n_comps: int
) -> PrincipalComponents:
    """Center the Gram matrix of the shifted values, in place, and take its first eigenvectors."""
    from scipy.linalg import eigh

    mean = sums / n_cells
    gram -= np.outer(sums, mean)
    gram /= n_cells - 1
    mean = mean + shift
    total = gram.trace()
    if not (gram.diagonal() > 1e-10 * mean**2).any():
        raise ValueError(f"no gene varies among the {n_cells} cells; PCA needs other genes")
    # Limited again: SciPy has a BLAS of its own, loaded only now.
    with one_blas_thread():
        variance, components = eigh(
            gram.T,  # the same matrix in LAPACK's order: no copy
            subset_by_index=[len(gram) - n_comps, len(gram) - 1],
            overwrite_a=True,
            check_finite=False,
        )
    variance = np.maximum(variance[::-1], 0)
    components = components[:, ::-1]
    largest = np.abs(components).argmax(axis=0)
    components = components * np.sign(components[largest, np.arange(n_comps)])
    return PrincipalComponents(components.astype(np.float32), mean, variance, variance / total)


def pca_scores(
    blocks: Blocks, components: np.ndarray, mean: np.ndarray, *, threads: int = 1
) -> Iterator[np.ndarray]:
    """Compute the scores of the cells, block by block.

    Parameters
    ----------
    blocks
        Values as `gram_pca` had them, cells x genes.
    components
        Genes x components.
    mean
        Per gene.
    threads
        Blocks that are multiplied at the same time; the result does not depend on it.

    Yields
    ------
    numpy.ndarray
        float32, cells of the block x components.

    Raises
    ------
    ValueError
        If a value is not finite or the number of genes differs.

    Notes
    -----
    Peak memory: one block and its scores, twice per thread.
    """
    if np.shape(mean) != (len(components),):
        raise ValueError(f"{len(components)} genes have loadings, but {np.size(mean)} have means")
    weights = np.ascontiguousarray(components, dtype=np.float32)
    center = (np.asarray(mean, dtype=np.float64) @ components).astype(np.float32)

    def project(numbered_block: tuple[int, Block]) -> np.ndarray:
        first_cell, block = numbered_block
        check_finite(block, first_cell=first_cell)
        scores = block.astype(np.float32, copy=False) @ weights
        scores -= center
        return scores

    with one_blas_thread():
        yield from ordered_map(
            project,
            numbered(blocks(), n_genes=len(components)),
            threads=threads,
            in_flight=2 * threads,
        )


def _in_pieces(blocks: Iterable[Block]) -> Iterator[tuple[int, Block]]:
    """Cut and join blocks into pieces of `PIECE` rows; only the last one has fewer."""
    waiting: list[Block] = []
    n_waiting = first_cell = 0
    for _, block in numbered(blocks):
        start = 0
        while n_waiting + block.shape[0] - start >= PIECE:
            stop = start + PIECE - n_waiting
            yield first_cell, _join([*waiting, block[start:stop]])
            first_cell += PIECE
            waiting, n_waiting, start = [], 0, stop
        if start < block.shape[0]:
            waiting.append(block[start:])
            n_waiting += block.shape[0] - start
    if waiting:
        yield first_cell, _join(waiting)


def _join(parts: list[Block]) -> Block:
    if len(parts) == 1:
        return parts[0]
    if all(sp.issparse(part) for part in parts):
        return sp.vstack(parts, format="csr")
    return np.vstack([part.toarray() if sp.issparse(part) else part for part in parts])
