"""Two labelings of the same cells: how often they meet, how much they agree, how mixed they are.

Labels are codes: integers from 0, and -1 for a cell without one, which is left out.
"""

from __future__ import annotations

import numpy as np


def contingency(
    first: np.ndarray, second: np.ndarray, *, shape: tuple[int, int] | None = None
) -> np.ndarray:
    """Count the cells of every pair of labels.

    Parameters
    ----------
    first, second
        Codes of the same cells; a cell that misses one of them is not counted.
    shape
        Number of labels of each. Default: up to the largest code.

    Returns
    -------
    numpy.ndarray
        int64, labels of `first` x labels of `second`.

    Raises
    ------
    ValueError
        If there are not as many codes in one as in the other.
    """
    first, second = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    if first.shape != second.shape:
        raise ValueError(f"labels of {len(first)} and of {len(second)} cells cannot be compared")
    if shape is None:
        shape = (int(first.max(initial=-1)) + 1, int(second.max(initial=-1)) + 1)
    known = (first >= 0) & (second >= 0)
    pairs = first[known] * shape[1] + second[known]
    return np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)


def entropy(counts: np.ndarray) -> np.ndarray:
    """Shannon entropy of each row of counts, in nats; 0 for a row without any.

    Parameters
    ----------
    counts
        Shape (..., labels), at least 0.

    Returns
    -------
    numpy.ndarray
        float64, shape (...).
    """
    counts = np.asarray(counts, dtype=np.float64)
    total = counts.sum(axis=-1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    return np.maximum(-(share * logs).sum(axis=-1), 0.0)


def mixing(counts: np.ndarray) -> np.ndarray:
    """Entropy of each row as a share of its maximum: 0 where one label is alone, 1 where even.

    The maximum is that of all labels that occur in any row.
    """
    present = int((np.asarray(counts).reshape(-1, np.shape(counts)[-1]).sum(axis=0) > 0).sum())
    return entropy(counts) / np.log(present) if present > 1 else np.zeros(np.shape(counts)[:-1])


def normalized_mutual_information(table: np.ndarray) -> float:
    """Mutual information of two labelings over the mean of their entropies (0 to 1).

    Parameters
    ----------
    table
        From `contingency`.

    Returns
    -------
    float
        1 where both have one label only, as in scikit-learn.
    """
    entropies = entropy(table.sum(axis=1)) + entropy(table.sum(axis=0))
    if entropies == 0:
        return 1.0
    return float(np.clip(2 * (entropies - entropy(table.ravel())) / entropies, 0.0, 1.0))


def adjusted_rand_index(table: np.ndarray) -> float:
    """Pairs of cells on which two labelings agree, beyond chance (Hubert & Arabie 1985).

    Parameters
    ----------
    table
        From `contingency`.

    Returns
    -------
    float
        1 for the same partition, about 0 for independent ones, at least -0.5.
    """

    def pairs(counts: np.ndarray) -> float:
        counts = counts.astype(np.float64)
        return float((counts * (counts - 1) / 2).sum())

    both, rows, columns = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    everything = pairs(np.array([table.sum()]))
    expected = rows * columns / everything if everything else 0.0
    maximum = (rows + columns) / 2
    return 1.0 if maximum == expected else (both - expected) / (maximum - expected)
