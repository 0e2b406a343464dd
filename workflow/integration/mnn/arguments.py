"""Check the arguments of MNN: cells, batches, the cells that may be paired, parameters."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from integration.batches import encode_keys
from utils.threads import resolve_threads


@dataclass(frozen=True)
class MNNBatches:
    """The batches, numbered in the order of their sorted labels.

    Attributes
    ----------
    codes
        Batch of every cell, shape (n_cells,).
    labels
        Label of every batch; a tuple where several keys were joined.
    restrict
        Which cells may be paired, bool of shape (n_cells,); None for all.
    """

    codes: np.ndarray
    labels: tuple[Any, ...]
    restrict: np.ndarray | None

    def name(self, number: int) -> str:
        """Return the label of a batch as messages and columns have it."""
        label = self.labels[number]
        return "_".join(map(str, label)) if isinstance(label, tuple) else str(label)


def number_batches(batch: Any, n_cells: int, restrict: Any = None) -> MNNBatches:
    """Turn labels into numbered batches, and check the mask of cells that may be paired.

    Raises
    ------
    ValueError, TypeError
        Missing labels, another number of labels than cells, a mask of another shape, or a batch
        of which no cell may be paired.
    """
    encoded, _ = encode_keys(batch, n_cells, None, True, "error", None)
    batches = MNNBatches(np.asarray(encoded.combinations), tuple(encoded.names), None)
    if len(batches.labels) < 2:
        warnings.warn(
            f"there is only one batch, {batches.name(0)!r}; nothing is corrected", stacklevel=3
        )
    if restrict is None:
        return batches
    restrict = np.asarray(restrict)
    if restrict.dtype != bool or restrict.shape != (n_cells,):
        raise ValueError(
            f"restrict must be {n_cells} booleans, one per cell; found {restrict.dtype} of shape "
            f"{restrict.shape}"
        )
    n_pairable = np.bincount(batches.codes[restrict], minlength=len(batches.labels))
    if not n_pairable.all():
        raise ValueError(
            f"restrict leaves no cell of batch {batches.name(int(n_pairable.argmin()))!r}; every "
            "batch needs cells to pair"
        )
    return MNNBatches(batches.codes, batches.labels, restrict)


def as_cells(matrix: Any, what: str = "the embedding") -> np.ndarray:
    """Return a matrix of cells as a new float64 array."""
    if not hasattr(matrix, "ndim") or matrix.ndim != 2 or 0 in matrix.shape:
        shape = getattr(matrix, "shape", None) or type(matrix).__name__
        raise ValueError(f"{what} must be cells x dimensions; found {shape}")
    if np.asarray(matrix).dtype.kind not in "fiub":
        raise TypeError(f"{what} must hold numbers; found dtype {matrix.dtype}")
    cells = np.array(matrix, dtype=np.float64, order="C")
    bad = np.flatnonzero(~np.isfinite(cells).all(axis=1))
    if len(bad):
        shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise ValueError(
            f"{what} is NaN or infinite in {len(bad)} of {len(cells)} cells (rows {shown}); "
            "leave these cells out"
        )
    return cells


def check_pairing(
    *, k: int, prop_k: float | None, ndist: float, min_batch_skip: float, threads: int
) -> int:
    """Check the parameters of pairing and smoothing; return the number of threads."""
    check_number("k", k, least=1, whole=True)
    if prop_k is not None and not 0 < prop_k <= 1:
        raise ValueError(f"prop_k must be a share of a batch's cells, above 0; found {prop_k!r}")
    check_number("ndist", ndist, above=0)
    check_number("min_batch_skip", min_batch_skip, least=0)
    return resolve_threads(threads)


def subset_genes(subset: Any, n_genes: int) -> np.ndarray | None:
    """Check a choice of genes and return their positions; None for all."""
    if subset is None:
        return None
    subset = np.asarray(subset)
    if subset.dtype == bool and subset.shape == (n_genes,):
        subset = np.flatnonzero(subset)
    if subset.ndim != 1 or subset.dtype.kind not in "iu":
        raise ValueError(
            f"subset must be a bool for each of the {n_genes} genes, or their positions; found "
            f"{subset.dtype} of shape {subset.shape}"
        )
    if not len(subset):
        raise ValueError("subset chooses no gene")
    if subset.min() < 0 or subset.max() >= n_genes or len(np.unique(subset)) < len(subset):
        raise ValueError(f"subset must hold different positions from 0 to {n_genes - 1}")
    return subset


def check_number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    whole: bool = False,
) -> None:
    """Refuse a parameter that is no number or too small."""
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"{name} must be a {'whole ' if whole else ''}number; found {value!r}")
    if not np.isfinite(value):
        raise ValueError(f"{name} must be finite; found {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}; found {value!r}")
    if above is not None and value <= above:
        raise ValueError(f"{name} must be greater than {above}; found {value!r}")
