"""MNN on principal components of expression values to which every batch contributes alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from integration.mnn.arguments import MNNBatches, check_number, number_batches, subset_genes
from integration.mnn.reduced import MNNResult, reduced_mnn
from integration.options import FastMNNOptions
from utils.threads import one_blas_thread, ordered_map, resolve_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    Block = np.ndarray | sp.csr_matrix
    Blocks = Callable[[], Iterable[Block]]

_ROWS = 2048  # cells multiplied at once


@dataclass(frozen=True)
class BatchPCA:
    """Principal components of several batches.

    Attributes
    ----------
    rotation
        float64, genes x components; the largest loading of each by absolute value is positive.
    centers
        float64, per gene: the weighted mean of the batches' means.
    variance
        float64, per component: the variance that it explains, descending.
    total
        Variance of all genes.
    """

    rotation: np.ndarray
    centers: np.ndarray
    variance: np.ndarray
    total: float


@dataclass(frozen=True)
class FastMNNResult(MNNResult):
    """An `MNNResult` and the components that its cells were corrected in.

    ``corrected @ pca.rotation.T + pca.centers`` are corrected expression values.
    """

    pca: BatchPCA


def fast_mnn(
    X: Any,
    batch: Any,
    *,
    n_comps: int = FastMNNOptions.n_comps,
    k: int = FastMNNOptions.k,
    prop_k: float | None = None,
    ndist: float = FastMNNOptions.ndist,
    cos_norm: bool = True,
    weights: Mapping[Any, float] | Sequence[float] | None = None,
    subset: Any = None,
    merge_order: Sequence[Any] | None = None,
    auto_merge: bool = False,
    min_batch_skip: float = FastMNNOptions.min_batch_skip,
    restrict: Any = None,
    clusters: Any = None,
    threads: int = 1,
    seed: int = 0,
    verbose: bool = False,
) -> FastMNNResult:
    """Normalize cells to length 1, compute components, correct these by mutual nearest neighbors.

    Parameters
    ----------
    X
        Log-expression values, cells x genes, dense or sparse; or a function that returns, each
        time it is called, blocks of consecutive cells.
    batch
        One label per cell, in any order; or a data frame or list of several, which are joined.
    n_comps
        Components; at most the number of genes or cells.
    cos_norm
        Give every cell length 1 over the genes of `subset`.
    weights
        Weight of each batch in the components: by label, or one number per batch in the order of
        their sorted labels. Default: 1.
    subset
        Genes (bool per gene, or positions) to use; default: all.
    k, prop_k, ndist, merge_order, auto_merge, min_batch_skip, restrict, clusters, threads, seed, \
verbose
        See `reduced_mnn`.

    Returns
    -------
    FastMNNResult

    Raises
    ------
    ValueError, TypeError, KeyError
        Input or parameters that are wrong, in one line.

    Notes
    -----
    Haghverdi 2018, Lun's fastMNN; equal to batchelor's ``fastMNN`` but for the signs of components.
    Peak memory: that of `multi_batch_pca` and `reduced_mnn`; X is not copied.
    """
    threads = resolve_threads(threads)
    blocks = X if callable(X) else _in_blocks(X, subset_genes(subset, X.shape[1]))
    if callable(X) and subset is not None:
        blocks = _chosen(X, np.asarray(subset))
    if cos_norm:
        blocks = _normalized(blocks)
    several = isinstance(batch, (list, tuple)) and np.ndim(batch[0]) == 1
    n_cells = X.shape[0] if not callable(X) else len(batch[0] if several else batch)
    batches = number_batches(batch, n_cells, restrict)
    pca = multi_batch_pca(blocks, batches, n_comps=n_comps, weights=weights, threads=threads)
    with one_blas_thread():
        shift = pca.centers @ pca.rotation
        scores = np.concatenate([block @ pca.rotation - shift for block in blocks()])
    result = reduced_mnn(
        scores,
        batch,
        k=k,
        prop_k=prop_k,
        ndist=ndist,
        merge_order=merge_order,
        auto_merge=auto_merge,
        min_batch_skip=min_batch_skip,
        restrict=restrict,
        clusters=clusters,
        threads=threads,
        seed=seed,
        verbose=verbose,
    )
    return FastMNNResult(result.corrected, result.merges, result.notes, pca)


def cosine_norm(X: Any) -> Any:
    """Scale every cell to length 1, dense or sparse; lengths below 1e-8 count as 1e-8."""
    lengths = cosine_lengths(X)
    if sp.issparse(X):
        return sp.diags_array(1 / lengths).astype(X.dtype) @ X
    return X / lengths.astype(X.dtype if X.dtype.kind == "f" else float)[:, None]


def cosine_lengths(X: Any) -> np.ndarray:
    """Compute the length of every cell, at least 1e-8."""
    if sp.issparse(X):
        squares = X.astype(np.float64).power(2).sum(axis=1)
        return np.maximum(1e-8, np.sqrt(np.asarray(squares).ravel()))
    return np.maximum(1e-8, np.sqrt(np.einsum("ij,ij->i", X, X, dtype=np.float64)))


def multi_batch_pca(
    blocks: Blocks,
    batches: Any,
    *,
    n_comps: int = FastMNNOptions.n_comps,
    weights: Mapping[Any, float] | Sequence[float] | None = None,
    threads: int = 1,
) -> BatchPCA:
    """Compute principal components to which batches contribute by weight, not by size.

    Parameters
    ----------
    blocks
        Returns blocks of consecutive cells x genes, dense or CSR; called once.
    batches
        The batch of every cell: labels, or the result of `number_batches`.
    n_comps
        Number of components; at most the number of genes or cells.
    weights
        See `fast_mnn`.
    threads
        Blocks multiplied at a time; the result does not depend on it.

    Returns
    -------
    BatchPCA

    Notes
    -----
    With c the weighted mean of the batches' means, the components are the eigenvectors of
    ``sum_b w_b / n_b sum_i (x_i - c)(x_i - c)'``, formed in one pass as
    ``sum_b w_b / n_b sum_i x_i x_i' - (sum_b w_b) c c'``: products in the type of the blocks, their
    sum in float64. Peak memory: 16 bytes per pair of genes, and per thread one product and 2,048
    dense cells.
    """
    check_number("n_comps", n_comps, least=1, whole=True)
    if not isinstance(batches, MNNBatches):
        batches = number_batches(batches, len(batches))
    weight = batch_weights(weights, batches)
    sizes = np.bincount(batches.codes)
    share = weight / sizes

    def numbered_blocks() -> Iterator[tuple[int, Block]]:
        nonlocal n_cells
        for block in _small(blocks()):
            n_cells += block.shape[0]
            if n_cells > len(batches.codes):
                return
            yield n_cells - block.shape[0], block

    def product(numbered_block: tuple[int, Block]) -> tuple[np.ndarray, np.ndarray]:
        first, block = numbered_block
        codes = batches.codes[first : first + block.shape[0]]
        dense = block.toarray() if sp.issparse(block) else np.asarray(block)
        dense = dense.astype(dense.dtype if dense.dtype.kind == "f" else float)
        if not np.isfinite(dense).all():
            raise ValueError(f"X is NaN or infinite among the cells from row {first} on")
        scale = share[codes]
        sums = scale @ dense
        dense *= np.sqrt(scale).astype(dense.dtype)[:, None]
        return sums, dense.T @ dense

    n_cells = 0
    sums = gram = None
    threads = resolve_threads(threads)
    with one_blas_thread():
        products = ordered_map(product, numbered_blocks(), threads=threads, in_flight=threads + 1)
        for block_sums, block_gram in products:
            if gram is None:
                sums, gram = np.zeros(len(block_sums)), np.zeros(block_gram.shape)
            sums += block_sums
            gram += block_gram
        if n_cells != len(batches.codes):
            raise ValueError(f"there are {n_cells} cells but {len(batches.codes)} batch labels")
        if gram is None or not gram.any():
            raise ValueError("X is 0 in all cells and genes that are used; choose other genes")
        return _components(sums, gram, weight, min(n_comps, n_cells))


def _components(sums: np.ndarray, gram: np.ndarray, weight: np.ndarray, n_comps: int) -> BatchPCA:
    """Center the weighted Gram matrix and take its first eigenvectors."""
    from scipy.linalg import eigh

    centers = sums / weight.sum()
    gram -= weight.sum() * np.outer(centers, centers)
    n_comps = min(n_comps, len(gram))
    # Again: SciPy's BLAS is its own, loaded after the first limit was set.
    with one_blas_thread():
        variance, rotation = eigh(gram, subset_by_index=[len(gram) - n_comps, len(gram) - 1])
    variance, rotation = np.maximum(variance[::-1], 0), rotation[:, ::-1]
    largest = np.abs(rotation).argmax(axis=0)
    rotation = rotation * np.sign(rotation[largest, np.arange(n_comps)])
    n_batches = len(weight)
    return BatchPCA(rotation, centers, variance / n_batches, float(gram.trace()) / n_batches)


def batch_weights(
    weights: Mapping[Any, float] | Sequence[float] | None, batches: MNNBatches
) -> np.ndarray:
    """Return one positive weight per batch, 1 by default."""
    n_batches = len(batches.labels)
    if weights is None:
        return np.ones(n_batches)
    if hasattr(weights, "keys"):
        by_name = {str(label): value for label, value in weights.items()}
        names = [batches.name(number) for number in range(n_batches)]
        if set(by_name) != set(names):
            raise ValueError(
                f"weights must name every batch, {', '.join(names)}; found {', '.join(by_name)}"
            )
        weights = [by_name[name] for name in names]
    per_batch = np.asarray(weights, dtype=float)
    if per_batch.shape != (n_batches,) or not (per_batch.min() > 0 and per_batch.max() < np.inf):
        raise ValueError(
            f"weights must be {n_batches} positive numbers, one per batch; found {weights!r}"
        )
    return per_batch


def _in_blocks(X: Any, genes: np.ndarray | None) -> Blocks:
    """Cut a matrix into blocks of cells."""
    rows = X.tocsr() if sp.issparse(X) else X

    def blocks() -> Iterator[Block]:
        for start in range(0, rows.shape[0], _ROWS):
            block = rows[start : start + _ROWS]
            yield block if genes is None else block[:, genes]

    return blocks


def _small(blocks: Iterable[Block]) -> Iterator[Block]:
    for block in blocks:
        for start in range(0, block.shape[0], _ROWS):
            yield block[start : start + _ROWS]


def _chosen(blocks: Blocks, genes: np.ndarray) -> Blocks:
    return lambda: (block[:, genes] for block in blocks())


def _normalized(blocks: Blocks) -> Blocks:
    return lambda: map(cosine_norm, blocks())
