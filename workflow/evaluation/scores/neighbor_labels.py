"""Score cell types by the labels of a cell's neighbors: in the graph, and in the other batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from evaluation.scores.batch_mixing import Neighborhoods

N_VOTING = 15  # neighbors that vote for a cell's label
QUERY_ROWS = 1024


def same_label_share(near: Neighborhoods, codes: np.ndarray) -> np.ndarray:
    """Compute the share of each cell's neighbors that have its own label.

    Parameters
    ----------
    near
        From `evaluation.scores.batch_mixing.neighborhoods`.
    codes
        Label of each cell, -1 for none: such a cell is nobody's neighbor.

    Returns
    -------
    numpy.ndarray
        float64, 0 to 1; NaN for a cell without label or without labeled neighbors.
    """
    codes = np.asarray(codes)
    neighbor_codes = np.where(near.indices >= 0, codes[near.indices], -1)
    n_labeled = (neighbor_codes >= 0).sum(axis=1)
    n_same = (neighbor_codes == codes[:, None]).sum(axis=1)
    known = (codes >= 0) & (n_labeled > 0)
    return np.where(known, n_same / np.maximum(n_labeled, 1), np.nan)


def transferred_labels(
    X: np.ndarray, codes: np.ndarray, batches: np.ndarray, *, n_neighbors: int = N_VOTING
) -> np.ndarray:
    """Predict the label of each cell from its nearest cells in all other batches.

    Parameters
    ----------
    X
        Cells x dimensions.
    codes, batches
        Label and batch of each cell, -1 for none.
    n_neighbors
        Nearest labeled cells that vote, each with the same weight; a tie goes to the lower code.

    Returns
    -------
    numpy.ndarray
        int64; -1 for a cell without label, batch or coordinates, and for one whose label no other
        batch has: nothing could predict it.

    Notes
    -----
    Exact, and quadratic in cells: seconds for 20,000. Memory: a few blocks of 1024 x cells.
    """
    codes, batches = np.asarray(codes), np.asarray(batches)
    X = np.asarray(X, dtype=np.float64)
    predicted = np.full(len(codes), -1)
    usable = (codes >= 0) & (batches >= 0) & np.isfinite(X).all(axis=1)
    n_labels = int(codes.max(initial=-1)) + 1
    for batch in np.unique(batches[usable]):
        inside, outside = (np.flatnonzero(usable & mask) for mask in
                           (batches == batch, batches != batch))  # fmt: skip
        queries = inside[np.isin(codes[inside], codes[outside])]
        if not len(queries):
            continue
        references, labels = X[outside], codes[outside]
        half_norms = np.einsum("ij,ij->i", references, references) / 2
        k = min(n_neighbors, len(outside))
        for start in range(0, len(queries), QUERY_ROWS):
            rows = queries[start : start + QUERY_ROWS]
            distance = half_norms - X[rows] @ references.T
            nearest = np.argpartition(distance, k - 1, axis=1)[:, :k]
            slots = np.arange(len(rows))[:, None] * n_labels + labels[nearest]
            votes = np.bincount(slots.ravel(), minlength=len(rows) * n_labels)
            predicted[rows] = votes.reshape(len(rows), n_labels).argmax(axis=1)
    return predicted


def f1_scores(codes: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Compute the F1 score of each label, of the cells that have a prediction.

    Returns
    -------
    numpy.ndarray
        float64, one per label; NaN for a label without such cells. Equal to scikit-learn's
        `f1_score(average=None)`.
    """
    codes, predicted = np.asarray(codes), np.asarray(predicted)
    n_labels = int(max(codes.max(initial=-1), predicted.max(initial=-1))) + 1
    tested = predicted >= 0
    codes, predicted = codes[tested], predicted[tested]
    right = np.bincount(codes[codes == predicted], minlength=n_labels)
    sizes, found = (np.bincount(item, minlength=n_labels) for item in (codes, predicted))
    return np.where(sizes > 0, 2 * right / np.maximum(sizes + found, 1), np.nan)
