"""Batch keys encoded as integers, and the combinations of their levels that occur."""

from __future__ import annotations

import itertools
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

from integration.options import HarmonyOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

NaBatch = Literal["error", "drop", "own"]


@dataclass(frozen=True)
class EncodedBatches:
    """Batch keys as integers: every cell's combination of levels, and each combination's levels.

    With one key a combination is a level. With several keys the levels of all keys are stacked:
    key 0's come first, then key 1's, and so on.

    Attributes
    ----------
    combinations
        Combination of every cell, shape (n_cells,).
    levels
        Stacked level in each key of every combination, shape (n_combinations, n_keys).
    levels_per_key
        Number of levels of every key.
    sizes
        Number of cells of every level, shape (n_levels,).
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
        """Indicate the levels of every combination, 1 or 0, shape (n_levels, n_combinations)."""
        rows = self.levels.ravel()
        columns = np.repeat(np.arange(self.n_combinations), len(self.levels_per_key))
        shape = (self.n_levels, self.n_combinations)
        return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


def factorize(labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Encode the labels of one key as integers, in sorted order.

    Returns the codes, shape (n_cells,), -1 where the label is missing (None, NaN, NaT, NA), and
    the levels, which the codes index. Unused categories are left out.
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
    position[-1] = -1  # code -1, a missing label, stays -1
    return position[codes], names[rank]


def encode_keys(
    batches: Any,
    n_cells: int,
    key_names: Sequence[str] | None = None,
    combine_keys: bool = False,
    na_batch: NaBatch = HarmonyOptions.na_batch,
    mask: np.ndarray | None = None,
) -> tuple[EncodedBatches, np.ndarray | None]:
    """Encode one or several batch keys as integers.

    Parameters
    ----------
    batches
        Labels of one key, shape (n_cells,); several keys as a list or tuple of such arrays, an
        array of shape (n_cells, n_keys) or a data frame.
    key_names
        Names of the keys in error messages.
    combine_keys
        Treat the combinations that occur as the levels of one joint key.
    na_batch
        How to treat a missing label: as an error ("error"), by leaving the cell out ("drop"), or
        as a level of its own ("own").
    mask
        Cells to use, booleans of shape (n_cells,).

    Returns
    -------
    The batches of the cells that are used, and the mask of these, shape (n_cells,); None where
    all are.

    Raises
    ------
    TypeError, ValueError
        Keys or a mask of the wrong shape, missing labels with ``na_batch="error"``, no cell left,
        or a key with a level for every cell.
    """
    if na_batch not in ("error", "drop", "own"):
        raise ValueError(f"na_batch must be 'error', 'drop' or 'own'; found {na_batch!r}")
    keys = _split_keys(batches, n_cells)
    names = key_names or [
        getattr(key, "name", None) or f"key {number}" for number, key in enumerate(keys)
    ]
    used = np.ones(n_cells, dtype=bool)
    if mask is not None:
        used = _check_mask(mask, n_cells)
        keys = [key[used] for key in keys]
    coded = [_encode_key(key, name, na_batch) for key, name in zip(keys, names, strict=True)]
    labeled = np.logical_and.reduce([codes >= 0 for codes, _ in coded])
    if not labeled.all():
        coded = [_select_cells(codes, levels, labeled) for codes, levels in coded]
        used[used] = labeled
    encoded = _combine(*map(list, zip(*coded, strict=True)), combine_keys)
    _refuse_one_cell_levels(encoded, [" and ".join(map(str, names))] if combine_keys else names)
    return encoded, None if used.all() else used


def _split_keys(batches: Any, n_cells: int) -> list[Any]:
    """Return one array of labels per key."""
    if isinstance(batches, np.ndarray) and batches.ndim == 2:
        keys = list(batches.T)
    elif hasattr(batches, "columns"):
        keys = [batches[column] for column in batches.columns]
    elif isinstance(batches, (list, tuple)) and batches and np.ndim(batches[0]) == 1:
        keys = list(batches)
    else:
        keys = [batches]
    keys = [key if hasattr(key, "dtype") else np.asarray(key) for key in keys]
    for key in keys:
        if key.ndim != 1:
            raise TypeError(f"a batch key must be one label per cell; found shape {key.shape}")
        if len(key) != n_cells:
            raise ValueError(f"there are {n_cells} cells but {len(key)} batch labels")
    return keys


def _check_mask(mask: Any, n_cells: int) -> np.ndarray:
    """Return a copy of a mask that has one boolean per cell and selects any of them."""
    mask = np.array(mask)
    if mask.dtype != bool or mask.shape != (n_cells,):
        raise ValueError(
            f"mask must be {n_cells} booleans, one per cell; found {mask.dtype} of shape "
            f"{mask.shape}"
        )
    if not mask.any():
        raise ValueError("no cell passes the QC mask; nothing is left to integrate")
    return mask


def _encode_key(key: Any, name: str, na_batch: NaBatch) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes of one key, -1 for cells to leave out, and its levels."""
    codes, levels = factorize(key)
    missing = codes < 0
    if na_batch == "drop" or not missing.any():
        return codes, levels
    if na_batch == "own":
        return np.where(missing, len(levels), codes), np.append(levels, ["missing"])
    raise ValueError(
        f"batch {name!r} is missing for {missing.sum()} of {len(codes)} cells; "
        "label them, or leave them out (Harmony: set na_batch to 'drop', or to 'own' to make "
        "them one more batch)"
    )


def _select_cells(
    codes: np.ndarray, levels: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Restrict a key to some cells, without the levels that none of them has."""
    if not mask.any():
        raise ValueError("every cell's batch is missing; nothing is left to integrate")
    codes, occurring = factorize(codes[mask])
    return codes, levels[occurring]


def _combine(
    codes: list[np.ndarray], names: list[np.ndarray], combine_keys: bool
) -> EncodedBatches:
    """Find the combinations of levels that occur."""
    combinations = codes[0]
    for key, labels in zip(codes[1:], names[1:], strict=True):
        combinations = combinations.astype(np.int64) * len(labels) + key
        combinations = np.unique(combinations, return_inverse=True)[1]  # compact: cannot overflow
    n_combinations = combinations.max(initial=-1) + 1
    first_cell = np.empty(n_combinations, dtype=np.intp)
    first_cell[combinations[::-1]] = np.arange(len(combinations))[::-1]
    levels = np.stack([key[first_cell] for key in codes], axis=1)
    if combine_keys and len(codes) > 1:
        codes = [combinations]
        names = [[tuple(map(operator.getitem, names, row)) for row in levels]]
        levels = np.arange(n_combinations)[:, None]
    levels_per_key = tuple(map(len, names))
    sizes = [np.bincount(key, minlength=len(n)) for key, n in zip(codes, names, strict=True)]
    return EncodedBatches(
        combinations=combinations,
        levels=levels + np.cumsum([0, *levels_per_key[:-1]]),
        levels_per_key=levels_per_key,
        sizes=np.concatenate(sizes),
        names=tuple(itertools.chain.from_iterable(names)),
    )


def _refuse_one_cell_levels(batches: EncodedBatches, key_names: Sequence[str]) -> None:
    """Raise if a key names cells rather than batches."""
    for name, n_levels in zip(key_names, batches.levels_per_key, strict=True):
        if n_levels == len(batches.combinations) > 1:
            raise ValueError(
                f"batch {name!r} has a level of its own for each of the {n_levels} cells; "
                "choose a column that names batches, not cells"
            )
