"""MNN on an embedding: remove the batch vectors, then correct every cell by its neighbors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from integration.mnn.arguments import as_cells, check_pairing, number_batches
from integration.mnn.diagnostics import (
    describe,
    describe_loss,
    dimensions,
    dimensions_note,
    find_clusters,
    merge_table,
    say_merge,
)
from integration.mnn.nearest import NearestCells, nearest
from integration.mnn.orders import Part, batch_parts, join_parts, merge_all, merge_tree
from integration.mnn.pairs import (
    average_vectors,
    mutual_pairs,
    neighbors_of,
    say_recall,
    tricube_average,
)
from integration.options import MNNOptions
from utils.log import progress, say
from utils.threads import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

_ROWS = 65_536  # cells that are worked on at a time


@dataclass(frozen=True)
class MNNResult:
    """Corrected cells and what happened at every merge.

    Attributes
    ----------
    corrected
        float64, cells x dimensions, in the order of the input.
    merges
        One row per merge, see `diagnostics.describe`.
    notes
        Where an assumption of the method does not hold, one line each.
    """

    corrected: np.ndarray
    merges: pd.DataFrame
    notes: tuple[str, ...]


def reduced_mnn(
    matrix: Any,
    batch: Any,
    *,
    k: int = MNNOptions.k,
    prop_k: float | None = None,
    ndist: float = MNNOptions.ndist,
    merge_order: Sequence[Any] | None = None,
    auto_merge: bool = False,
    min_batch_skip: float = MNNOptions.min_batch_skip,
    restrict: Any = None,
    clusters: Any = None,
    threads: int = 1,
    seed: int = 0,
    verbose: bool = False,
) -> MNNResult:
    """Correct the batches of an embedding by mutual nearest neighbors.

    For each merge: center both sides along the batch vectors removed from the other one; find the
    pairs; average, for each right cell in pairs, the vectors to its partners; center both sides
    along the mean of these averages; average anew and move every right cell by the tricube
    weighted average of its nearest right cells in pairs.

    Parameters
    ----------
    matrix
        Any embedding, cells x dimensions.
    batch
        One label per cell, in any order; or a data frame or list of several, which are joined.
    k
        Neighbors in the other batch, and right cells in pairs that correct a right cell.
    prop_k
        The same as a share of a batch's cells, where that is more than `k`.
    ndist
        Bandwidth of the tricube weights, in distances to the middle one of the neighbors.
    merge_order
        None (the order of the sorted labels), a list of all labels, or a nested list (a binary
        tree; the right child is corrected to the left one).
    auto_merge
        Merge batches with the most pairs first; `merge_order` is then ignored.
    min_batch_skip
        Skip the correction at merges with a smaller batch size: the length of the mean vector
        over the root of the mean square of the vectors, 1 where all agree, 0 where none do.
    restrict
        bool per cell: only these are paired, but all are corrected.
    clusters
        Preliminary cluster of every cell, for the diagnostics; default: k-means in every batch.
    threads, seed
        The result does not depend on `threads`; `seed` is for the approximate search and the
        clusters of the diagnostics.
    verbose
        Report every merge and the recall of the search.

    Returns
    -------
    MNNResult

    Raises
    ------
    ValueError, TypeError, KeyError
        Wrong input or parameters, in one line.

    Notes
    -----
    Haghverdi 2018 with the changes of Lun's fastMNN; equal to batchelor's ``reducedMNN``. One
    batch is returned as it is, with a warning. Peak memory: about 24 bytes per cell and dimension,
    and 24 per cell and neighbor.
    """
    cells = as_cells(matrix)
    threads = check_pairing(
        k=k, prop_k=prop_k, ndist=ndist, min_batch_skip=min_batch_skip, threads=threads
    )
    batches = number_batches(batch, len(cells), restrict)
    tree = None if auto_merge else merge_tree(merge_order, batches)
    known = find_clusters(cells, batches, clusters, threads=threads, seed=seed)
    n_merges = len(batches.labels) - 1
    n_dims = dimensions(cells)
    rows: list[dict[str, Any]] = []

    def pairs_of(parts: tuple[Part, Part], data: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        return mutual_pairs(
            *data,
            k=k,
            prop_k=prop_k,
            pairable=(parts[0].pairable, parts[1].pairable),
            threads=threads,
            seed=seed,
            verbose=verbose,
        )

    def merge(left: Part, right: Part) -> Part:
        sides = left, right
        before = {**_variances(left, left.data), **_variances(right, right.data)}
        data = left.data, right.data  # in place: the parts are not needed any more
        _center_along(left, data[0], right.vectors)
        _center_along(right, data[1], left.vectors)
        pairs = pairs_of(sides, data)
        paired, vectors = average_vectors(*data, pairs)
        direction = vectors.mean(axis=0)
        row, notes = describe(sides, data, pairs, direction, batches, known)
        row["batch_size"] = batch_size(vectors, direction)
        row["skipped"] = row["batch_size"] < min_batch_skip
        length = float(np.linalg.norm(direction))
        vector = None
        if not row["skipped"] and length > 0:
            vector = direction / length
            for part, cells in zip(sides, data, strict=True):
                center(cells, vector, part.pairable)
        after = {**_variances(left, data[0]), **_variances(right, data[1])}
        lost = {n: 1 - after[n] / before[n] if before[n] > 0 else 0.0 for n in before}
        if not row["skipped"]:
            paired, vectors = average_vectors(*data, pairs)
            n_neighbors = neighbors_of(len(data[1]), k, prop_k)
            neighbors = nearest(data[1][paired], data[1], n_neighbors, threads=threads, seed=seed)
            if verbose:
                say_recall(neighbors)
            _add_average(data[1], vectors, neighbors, ndist)
        describe_loss(row, sides, lost, batches, notes)
        row["notes"] = tuple(notes)
        rows.append(row)
        if verbose:
            say_merge(row, (left, right), batches, len(rows))
        return join_parts(left, right, data, vector=vector)

    def count(left: Part, others: Sequence[Part]) -> list[int]:
        counts = []
        data = left.data.copy()
        for right in others:
            other = right.data.copy()
            _center_along(right, other, left.vectors)
            _center_along(left, data, right.vectors)  # stays so for the next, as in batchelor
            counts.append(len(pairs_of((left, right), (data, other))))
        return counts

    with one_blas_thread():  # the same bits whatever the threads
        parts = batch_parts(batches, cells)
        merges = merge_all(parts, tree, merge=merge, count=count)
        last = parts[0]
        for merged in progress(merges, desc="MNN", total=n_merges, disable=not verbose):
            last = merged
    cells[last.cells] = last.data
    notes = [note for row in rows for note in row["notes"]]
    cost = dimensions_note(n_dims, len(last.vectors))
    if cost:
        notes.append(cost)
        if verbose:
            say(cost)
    return MNNResult(cells, merge_table(rows, batches), tuple(notes))


def project_simplex(cells: np.ndarray) -> np.ndarray:
    """Project every row to the nearest proportions: nothing negative, sum 1.

    Notes
    -----
    Duchi 2008: subtract the number that leaves a sum of 1 over the values above 0. Peak memory:
    three copies of 65,536 cells and the result.
    """
    result = np.empty_like(cells, dtype=np.float64)
    rank = np.arange(1, cells.shape[1] + 1)
    for start in range(0, len(cells), _ROWS):
        rows = np.asarray(cells[start : start + _ROWS], dtype=np.float64)
        ordered = -np.sort(-rows, axis=1)
        excess = (np.cumsum(ordered, axis=1) - 1) / rank
        last = (ordered > excess).sum(axis=1)[:, None] - 1
        np.maximum(
            rows - np.take_along_axis(excess, last, axis=1),
            0,
            out=result[start : start + _ROWS],
        )
    return result


def batch_size(vectors: np.ndarray, mean: np.ndarray) -> float:
    """Compute the length of the mean vector over the root of the mean square of the vectors."""
    squares = float((vectors**2).mean(axis=0).sum())
    return float(np.sqrt((mean**2).sum() / squares)) if squares > 0 else 0.0


def center(cells: np.ndarray, vector: np.ndarray, pairable: np.ndarray | None = None) -> None:
    """Move all cells, in place, to the mean of the pairable ones along a unit vector."""
    along = cells @ vector
    mean = along.mean() if pairable is None else along[pairable].mean()
    for start in range(0, len(cells), _ROWS):
        rows = slice(start, start + _ROWS)
        cells[rows] += np.outer(mean - along[rows], vector)


def _center_along(part: Part, cells: np.ndarray, vectors: Sequence[np.ndarray]) -> None:
    """Center the cells of a part, in place, along some vectors, one after the other."""
    for vector in vectors:
        center(cells, vector, part.pairable)


def _variances(part: Part, cells: np.ndarray) -> dict[int, float]:
    """Sum the variances of the dimensions, for each batch."""
    bounds = zip(part.batches, part.edges[:-1], part.edges[1:], strict=True)
    return {
        number: float(cells[start:stop].var(axis=0, ddof=1).sum()) if stop - start > 1 else 0.0
        for number, start, stop in bounds
    }


def _add_average(
    cells: np.ndarray, vectors: np.ndarray, neighbors: NearestCells, ndist: float
) -> None:
    """Move the cells, in place, by the average of their neighbors' vectors."""
    for start in range(0, len(cells), _ROWS):
        rows = slice(start, start + _ROWS)
        part = NearestCells(neighbors.indices[rows], neighbors.distances[rows], None)
        cells[rows] += tricube_average(vectors, part, ndist)
