"""MNN on expression values: every cell gets a correction of its own (Haghverdi 2018).

All distances are products of matrices, all weights are formed in log space: sigma is small beside
the distances of cells that are not cosine normalized, and their kernels underflow.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logsumexp

from integration.mnn.arguments import (
    as_cells,
    check_number,
    check_pairing,
    number_batches,
    subset_genes,
)
from integration.mnn.diagnostics import describe, find_clusters, merge_table, say_merge
from integration.mnn.fast import cosine_lengths
from integration.mnn.orders import Part, batch_parts, join_parts, merge_all, merge_tree
from integration.mnn.pairs import average_vectors, mutual_pairs
from integration.mnn.reduced import MNNResult, batch_size
from integration.options import MNNCorrectOptions
from utils.log import progress
from utils.threads import one_blas_thread, ordered_map

if TYPE_CHECKING:
    from collections.abc import Sequence

MANY_CELLS = 10_000  # above, the square of their number takes hours
_ROWS = 64  # cells whose corrections are computed together
# Cumulated weights that differ by less are equal: their sums run in other orders.
TIE = 1e-12


def mnn_correct(
    X: Any,
    batch: Any,
    *,
    k: int = MNNCorrectOptions.k,
    prop_k: float | None = None,
    sigma: float = MNNCorrectOptions.sigma,
    cos_norm_in: bool = True,
    cos_norm_out: bool = True,
    svd_dim: int = MNNCorrectOptions.svd_dim,
    var_adj: bool = True,
    subset: Any = None,
    correct_all: bool = False,
    merge_order: Sequence[Any] | None = None,
    auto_merge: bool = False,
    restrict: Any = None,
    clusters: Any = None,
    threads: int = 1,
    seed: int = 0,
    verbose: bool = False,
) -> MNNResult:
    """Correct the batches of expression values by mutual nearest neighbors.

    For each merge every right cell in pairs has the mean vector to its partners; a right cell's
    correction is the mean over its pairs' cells, weighted by a Gaussian kernel of the distance
    and by one over the density of cells in pairs there.

    Parameters
    ----------
    X
        Log-expression values, cells x genes, dense or sparse (it is made dense).
    batch
        One label per cell, in any order; or a data frame or list of several, which are joined.
    k, prop_k
        Neighbors in the other batch, see `reduced_mnn`.
    sigma
        Kernel ``exp(-d^2 / sigma)`` of distances between cosine normalized cells.
    cos_norm_in, cos_norm_out
        Give cells length 1 to find pairs and distances, and in the result. The length is that of
        the genes of `subset`.
    svd_dim
        Take the first so many left singular vectors of the paired cells of either batch for the
        biology and remove them from the corrections.
    var_adj
        Stretch a correction until the cell reaches, along it, the quantile in the left batch that
        it has in its own; never below 1.
    subset
        Genes (bool per gene, or positions) that distances are computed on; default: all.
    correct_all
        Return all genes, not only those of `subset`.
    merge_order, auto_merge, restrict, clusters, threads, seed, verbose
        See `reduced_mnn`.

    Returns
    -------
    MNNResult
        ``corrected`` is cells x genes; its scale is that of the cosine normalized cells unless
        ``cos_norm_out`` is False.

    Raises
    ------
    ValueError, TypeError, KeyError
        Input or parameters that are wrong, in one line.

    Notes
    -----
    Equal to batchelor's ``mnnCorrect``. Time grows with cells^2 x genes; above 10,000 cells a
    warning says so. Peak memory: three copies of X in float64, and per thread 32 bytes per cell
    and each of the 64 cells worked on.
    """
    threads = check_pairing(k=k, prop_k=prop_k, ndist=1, min_batch_skip=0, threads=threads)
    check_number("sigma", sigma, above=0)
    check_number("svd_dim", svd_dim, least=0, whole=True)
    values = as_cells(X.toarray() if hasattr(X, "toarray") else X, "X")
    if len(values) > MANY_CELLS:
        warnings.warn(
            f"mnn_correct compares all pairs of {len(values):,} cells, which takes hours from "
            f"{MANY_CELLS:,} on; fast_mnn does not",
            stacklevel=2,
        )
    genes = subset_genes(subset, values.shape[1])
    chosen, output = _spaces(values, genes, cos_norm_in, cos_norm_out, correct_all)
    batches = number_batches(batch, len(values), restrict)
    tree = None if auto_merge else merge_tree(merge_order, batches)
    known = find_clusters(chosen, batches, clusters, threads=threads, seed=seed)
    kernel = _Kernel(sigma, svd_dim, var_adj, genes if correct_all else None, threads)
    n_merges = len(batches.labels) - 1
    rows: list[dict[str, Any]] = []

    def pairs_of(left: Part, right: Part) -> np.ndarray:
        pairable = left.pairable, right.pairable
        options = {"pairable": pairable, "threads": threads, "seed": seed, "verbose": verbose}
        return mutual_pairs(left.data, right.data, k=k, prop_k=prop_k, **options)

    def merge(left: Part, right: Part) -> Part:
        pairs = pairs_of(left, right)
        _, vectors = average_vectors(left.data, right.data, pairs)
        direction = vectors.mean(axis=0)
        row, notes = describe(
            (left, right), (left.data, right.data), pairs, direction, batches, known
        )
        row |= {"batch_size": batch_size(vectors, direction), "skipped": False}
        row["notes"] = tuple(notes)
        rows.append(row)
        if verbose:
            say_merge(row, (left, right), batches, len(rows))
        moves = kernel.corrections(left, right, pairs)
        data = left.data, right.data + moves[0]
        if output is None:
            return join_parts(left, right, data)
        return join_parts(left, right, data, (left.output, right.output + moves[1]))

    def count(left: Part, others: Sequence[Part]) -> list[int]:
        return [len(pairs_of(left, right)) for right in others]

    with one_blas_thread():  # the same bits whatever the threads
        parts = batch_parts(batches, chosen, output)
        last = parts[0]
        merges = merge_all(parts, tree, merge=merge, count=count)
        for merged in progress(merges, desc="MNN", total=n_merges, disable=not verbose):
            last = merged
    final = last.data if last.output is None else last.output
    corrected = np.empty_like(final)
    corrected[last.cells] = final
    notes = tuple(note for row in rows for note in row["notes"])
    return MNNResult(corrected, merge_table(rows, batches), notes)


def _spaces(
    values: np.ndarray,
    genes: np.ndarray | None,
    cos_norm_in: bool,
    cos_norm_out: bool,
    correct_all: bool,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the values for distances, and the values to correct where these are others."""
    chosen = values if genes is None else values[:, genes]
    output = values if correct_all else chosen
    same = cos_norm_in == cos_norm_out and output is chosen
    lengths = cosine_lengths(chosen)[:, None]
    if same:
        return chosen / lengths if cos_norm_in else chosen, None
    return (
        chosen / lengths if cos_norm_in else chosen,
        output / lengths if cos_norm_out else output,
    )


@dataclass(frozen=True)
class _Kernel:
    """Turn the vectors of paired cells into corrections of all right cells."""

    sigma: float
    svd_dim: int
    var_adj: bool
    genes: np.ndarray | None
    threads: int

    def corrections(self, left: Part, right: Part, pairs: np.ndarray) -> list[np.ndarray]:
        """Compute the moves of the right cells, of the genes of the distances and of all genes."""
        spaces = [(left.data, right.data, None)]
        if left.output is not None:
            spaces.append((left.output, right.output, self.genes))
        vectors = []
        for L, R, _ in spaces:
            cells, mean = average_vectors(L, R, pairs)
            vectors.append(mean)
        moves = self._smooth(right.data, cells, vectors)
        for space, (L, R, genes) in enumerate(spaces):
            if self.svd_dim:
                for side, cells_of_side in ((0, L), (1, R)):
                    span = _span(cells_of_side[np.unique(pairs[:, side])], self.svd_dim, genes)
                    moves[space] = _subtract(moves[space], span, genes)
        # Stretched last: what remains after all subtractions.
        for space, (L, R, genes) in enumerate(spaces):
            if self.var_adj:
                inside = [M if genes is None else M[:, genes] for M in (L, R, moves[space])]
                stretch = self._stretch(*inside, left.pairable, right.pairable)
                moves[space] = moves[space] * stretch[:, None]
        return moves

    def _smooth(
        self, R: np.ndarray, cells: np.ndarray, vectors: list[np.ndarray]
    ) -> list[np.ndarray]:
        """Average the vectors for every right cell, by kernel and inverse density."""
        paired = R[cells]
        density = logsumexp(-_squares(paired, paired) / self.sigma, axis=1)
        result = [np.empty((len(R), mean.shape[1])) for mean in vectors]

        def smooth_rows(start: int) -> None:
            rows = slice(start, start + _ROWS)
            log_weight = -_squares(R[rows], paired) / self.sigma - density
            weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
            weight /= weight.sum(axis=1, keepdims=True)
            for mean, moved in zip(vectors, result, strict=True):
                moved[rows] = weight @ mean

        list(ordered_map(smooth_rows, range(0, len(R), _ROWS), threads=self.threads))
        return result

    def _stretch(
        self,
        L: np.ndarray,
        R: np.ndarray,
        moves: np.ndarray,
        pairable_left: np.ndarray | None,
        pairable_right: np.ndarray | None,
    ) -> np.ndarray:
        """Return the factor by which each move reaches the quantile of its cell."""
        pairable = np.arange(len(R)) if pairable_right is None else pairable_right
        shift = R.mean(axis=0)  # distances stay, but their products lose fewer digits
        R, L = R - shift, (L if pairable_left is None else L[pairable_left]) - shift
        lengths = np.linalg.norm(moves, axis=1)
        unit = moves / np.where(lengths > 0, lengths, 1)[:, None]
        stretch = np.ones(len(R))

        def stretch_rows(start: int) -> None:
            rows = np.arange(start, min(start + _ROWS, len(R)))
            rows = rows[lengths[rows] > 0]
            at = np.einsum("ij,ij->i", R[rows], unit[rows])
            along, log_weight = self._around_lines(R[rows], unit[rows], at, R[pairable])
            itself = pairable[None] == rows[:, None]
            along[itself], log_weight[itself] = np.repeat(at, itself.sum(axis=1)), 0
            low = along <= at[:, None] + TIE * (1 + np.abs(at[:, None]))
            below = np.where(low, log_weight, -np.inf)
            share = logsumexp(below, axis=1) - logsumexp(log_weight, axis=1)
            along, log_weight = self._around_lines(R[rows], unit[rows], at, L)
            order = np.argsort(along, axis=1, kind="stable")
            total = np.take_along_axis(log_weight, order, axis=1)
            np.logaddexp.accumulate(total, axis=1, out=total)
            reached = total >= (share + total[:, -1])[:, None] - TIE
            at_quantile = np.take_along_axis(order, reached.argmax(axis=1)[:, None], axis=1)
            target = np.take_along_axis(along, at_quantile, axis=1)[:, 0]
            stretch[rows] = np.maximum(1, (target - at) / lengths[rows])

        list(ordered_map(stretch_rows, range(0, len(R), _ROWS), threads=self.threads))
        return stretch

    def _around_lines(
        self, cells: np.ndarray, unit: np.ndarray, at: np.ndarray, others: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of others along each cell's line, and their log kernels."""
        along = unit @ others.T
        off = _squares(cells, others) - (along - at[:, None]) ** 2
        return along, -np.maximum(off, 0) / self.sigma


def _squares(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return the squared distances between the rows of A and B."""
    product = A @ B.T
    product *= -2
    product += np.einsum("ij,ij->i", A, A)[:, None]
    product += np.einsum("ij,ij->i", B, B)
    return np.maximum(product, 0, out=product)


def _span(cells: np.ndarray, n_dims: int, genes: np.ndarray | None) -> np.ndarray:
    """Return the first directions of the centered cells, genes x dimensions.

    With `genes` they are those of these genes, and the other genes' loadings are projected.
    """
    centered = cells - cells.mean(axis=0)
    inside = centered if genes is None else centered[:, genes]
    U, size, axes = np.linalg.svd(inside, full_matrices=False)
    n_dims = min(n_dims, int((size > 1e-10 * size[:1].max(initial=0)).sum()))
    if genes is None:
        return axes[:n_dims].T
    span = centered.T @ (U[:, :n_dims] / size[:n_dims])
    span[genes] = axes[:n_dims].T
    return span


def _subtract(moves: np.ndarray, span: np.ndarray, genes: np.ndarray | None) -> np.ndarray:
    """Remove the part of moves within a span, as measured on some genes."""
    inside = (moves, span) if genes is None else (moves[:, genes], span[genes])
    return moves - inside[0] @ inside[1] @ span.T
