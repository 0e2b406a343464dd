"""Batch keys: labels to numbers, and the combinations of levels that occur."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Sequence

NaBatch = Literal["error", "drop", "own"]


@dataclass(frozen=True)
class Batches:
    """Every cell's batch combination, and the levels of which each combination consists.

    With one key a combination is a level. With several keys the levels of all keys are stacked:
    key 0's come first, then key 1's, and so on.

    Attributes
    ----------
    combinations
        Combination of every cell, shape (n_cells,).
    levels
        Level in each key of every combination, shape (n_combinations, n_keys), stacked numbers.
    levels_per_key
        Number of levels of every key.
    sizes
        Cells of every level, shape (n_levels,).
    names
        Label of every level, in the stacked order.
    """

    combinations: np.ndarray
    levels: np.ndarray
    levels_per_key: tuple[int, ...]
    sizes: np.ndarray
    names: tuple[Any, ...]

    @property
    def n_levels(self) -> int:
        """Number of levels of all keys together."""
        return sum(self.levels_per_key)

    @property
    def n_combinations(self) -> int:
        """Number of combinations that occur."""
        return len(self.levels)

    @property
    def key_of_level(self) -> np.ndarray:
        """Key to which every level belongs, shape (n_levels,)."""
        return np.repeat(np.arange(len(self.levels_per_key)), self.levels_per_key)

    def membership(self) -> sparse.csr_array:
        """Which combination has which level, 1 or 0, shape (n_levels, n_combinations)."""
        rows = self.levels.ravel()
        columns = np.repeat(np.arange(self.n_combinations), len(self.levels_per_key))
        shape = (self.n_levels, self.n_combinations)
        return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


def factorize(labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Turn the labels of one key into numbers, in sorted order.

    Returns the codes, shape (n_cells,), -1 where the label is missing (None, NaN, NaT, NA), and
    the labels by code. Levels of a categorical that no cell has are left out.
    """
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "iu" and labels.size:
        low, high = int(labels.min()), int(labels.max())
        if low >= 0 and high < 4 * labels.size + 1000:
            used = np.bincount(labels, minlength=high + 1) > 0
            codes = (np.cumsum(used) - 1)[labels]
            return codes, np.flatnonzero(used)
    import pandas as pd

    labels = pd.Series(labels)
    if isinstance(labels.dtype, pd.CategoricalDtype):
        labels = labels.cat.remove_unused_categories().cat
        return np.asarray(labels.codes, dtype=np.intp), np.asarray(labels.categories)
    codes, names = pd.factorize(labels)
    names = np.asarray(names, dtype=object)
    try:
        rank = np.argsort(names)
    except TypeError:  # labels of several types have no order among them
        rank = np.argsort(names.astype(str), kind="stable")
    position = np.empty(len(rank) + 1, dtype=np.intp)
    position[rank] = np.arange(len(rank))
    position[-1] = -1  # the missing label's code is -1 and stays so
    return position[codes], names[rank]


def encode_batches(
    keys: Sequence[Any],
    *,
    key_names: Sequence[str] | None = None,
    combine_keys: bool = False,
    na_batch: NaBatch = "error",
) -> tuple[Batches, np.ndarray | None]:
    """Encode one or several batch keys.

    Parameters
    ----------
    keys
        One array of labels per key, each of shape (n_cells,).
    key_names
        What error messages call the keys.
    combine_keys
        Treat the combinations that occur as the levels of one joint key.
    na_batch
        What to do with a missing label: raise ("error"), leave the cell out ("drop"), or make
        the missing label a level of its own ("own").

    Returns
    -------
    The encoded batches of the cells that stay, and the mask of these, shape (n_cells,); None
    where all stay.

    Raises
    ------
    ValueError
        Keys of different lengths, or missing labels with ``na_batch="error"``.
    """
    if na_batch not in ("error", "drop", "own"):
        raise ValueError(f"na_batch must be 'error', 'drop' or 'own'; found {na_batch!r}")
    key_names = list(key_names or [f"key {number}" for number in range(len(keys))])
    coded = [factorize(key) for key in keys]
    lengths = {len(codes) for codes, _ in coded}
    if len(lengths) != 1:
        raise ValueError(f"batch keys differ in length: {sorted(lengths)}; need one label per cell")
    keep = np.ones(lengths.pop(), dtype=bool)
    for number, (codes, names) in enumerate(coded):
        missing = codes < 0
        n_missing = int(missing.sum())
        if not n_missing:
            continue
        if na_batch == "error":
            raise ValueError(
                f"batch {key_names[number]!r} is missing for {n_missing} of {len(codes)} cells; "
                "label them, or leave them out (Harmony: set na_batch to 'drop', or to 'own', "
                "which makes one more batch of them)"
            )
        if na_batch == "own":
            coded[number] = (np.where(missing, len(names), codes), np.append(names, ["missing"]))
        else:
            keep &= ~missing
    if not keep.all():
        if not keep.any():
            raise ValueError("every cell's batch is missing; nothing is left to integrate")
        coded = [
            (compact, names[labels])
            for codes, names in coded
            for compact, labels in [factorize(codes[keep])]
        ]
    batches = _combine([codes for codes, _ in coded], [names for _, names in coded], combine_keys)
    return batches, None if keep.all() else keep


def _combine(codes: list[np.ndarray], names: list[np.ndarray], combine_keys: bool) -> Batches:
    """Find the combinations of levels that occur."""
    if len(codes) == 1:
        return Batches(
            combinations=codes[0],
            levels=np.arange(len(names[0]))[:, None],
            levels_per_key=(len(names[0]),),
            sizes=np.bincount(codes[0], minlength=len(names[0])),
            names=tuple(names[0]),
        )
    joint = codes[0]
    for number in range(1, len(codes)):
        joint = joint.astype(np.int64) * len(names[number]) + codes[number]
        joint = np.unique(joint, return_inverse=True)[1]  # compact, so that it cannot overflow
    combinations, _ = factorize(joint)
    n_combinations = int(combinations.max()) + 1
    first = np.full(n_combinations, -1)
    first[combinations[::-1]] = np.arange(len(combinations))[::-1]
    if combine_keys:
        labels = [
            tuple(names[key][codes[key][cell]] for key in range(len(codes))) for cell in first
        ]
        return Batches(
            combinations=combinations,
            levels=np.arange(n_combinations)[:, None],
            levels_per_key=(n_combinations,),
            sizes=np.bincount(combinations),
            names=tuple(labels),
        )
    offsets = np.concatenate([[0], np.cumsum([len(labels) for labels in names])])
    levels = np.stack([key[first] + offset for key, offset in zip(codes, offsets, strict=False)], 1)
    sizes = [np.bincount(key, minlength=len(n)) for key, n in zip(codes, names, strict=True)]
    return Batches(
        combinations=combinations,
        levels=levels,
        levels_per_key=tuple(len(labels) for labels in names),
        sizes=np.concatenate(sizes),
        names=tuple(label for labels in names for label in labels),
    )
