"""Harmony called as harmonypy: `run_harmony`, and its result under harmonypy's names."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from integration.harmony.algorithm import Harmonized, harmonize
from integration.harmony.api_arguments import (
    CellTable,
    as_embedding,
    fetch_column,
    to_device,
    translate_options,
)
from numerics.arrays import normalize_rows, to_host

if TYPE_CHECKING:
    from collections.abc import Sequence


class HarmonyResult:
    """The result of `run_harmony`, under harmonypy's names and in its shapes.

    N cells, d dimensions, K clusters, B batches (the levels of all keys). The large arrays are
    formed on first use; R has N x K numbers.
    """

    def __init__(self, Z: np.ndarray, harmonized: Harmonized) -> None:
        self._harmonized = harmonized
        self.corrected: np.ndarray = to_host(harmonized.corrected)
        self.Z_corr: np.ndarray = self.corrected.T
        self.Z_orig: np.ndarray = Z.T
        self.Y: np.ndarray = harmonized.centroids.T
        self.O: np.ndarray = harmonized.observed.T
        self.E: np.ndarray = harmonized.expected.T
        self.theta: np.ndarray = harmonized.parameters.theta
        self.sigma: np.ndarray = harmonized.parameters.sigma
        self.K: int = harmonized.parameters.n_clusters
        self.d, self.N = self.Z_corr.shape
        self.B: int = harmonized.batches.n_levels
        self.batches: tuple[Any, ...] = harmonized.batches.names
        self.objective_harmony: list[float] = harmonized.objective
        self.kmeans_rounds: list[int] = harmonized.rounds
        self.converged: bool = harmonized.converged

    @cached_property
    def R(self) -> np.ndarray:
        """Soft assignments, shape (K, N); every column sums to 1."""
        return to_host(self._harmonized.assignments()).T

    @cached_property
    def Z_cos(self) -> np.ndarray:
        """Corrected embedding with columns of length 1, shape (d, N)."""
        return normalize_rows(self.corrected, np).T

    @cached_property
    def Phi(self) -> np.ndarray:
        """Batch indicators, shape (B, N); a column has a 1 per key."""
        batches = self._harmonized.batches
        indicators = np.zeros((batches.n_levels, len(batches.combinations)), np.float32)
        for levels in batches.levels[batches.combinations].T:
            indicators[levels, np.arange(len(levels))] = 1
        return indicators

    @property
    def Phi_moe(self) -> np.ndarray:
        """``Phi`` below a row of ones for the intercept, shape (B + 1, N)."""
        return np.vstack([np.ones_like(self.Phi[:1]), self.Phi])

    @property
    def Pr_b(self) -> np.ndarray:
        """Share of every batch, shape (B,); sums to 1 for each key."""
        batches = self._harmonized.batches
        return batches.sizes / len(batches.combinations)

    @property
    def lamb(self) -> np.ndarray:
        """Ridge penalty, shape (B + 1,): 0 for the intercept; -1 stands for alpha * E."""
        ridge_lambda = self._harmonized.parameters.ridge_lambda
        return np.append(0.0, np.full(self.B, -1.0) if ridge_lambda is None else ridge_lambda)

    def result(self) -> np.ndarray:
        """Return ``Z_corr``, as harmonypy 0.0.x did."""
        return self.Z_corr


def run_harmony(
    data_mat: Any,
    meta_data: Any,
    vars_use: str | Sequence[str],
    *,
    QC_column: Any = None,
    device: str | None = None,
    **options: Any,
) -> HarmonyResult:
    """Integrate an embedding, with the interface of harmonypy's `run_harmony`.

    Parameters
    ----------
    data_mat
        Embedding, (n_cells, n_dims) or (n_dims, n_cells): an array, or a data frame, whose
        columns other than numbers are ignored.
    meta_data
        One row per cell: a data frame, or a mapping of column names to arrays.
    vars_use
        Name or names of the batch columns of ``meta_data``.
    QC_column
        Cells to use: a boolean column of ``meta_data``, a boolean array, or a function of
        ``meta_data`` that returns one. The others become NaN.
    device
        None or "cpu"; "cuda" computes with CuPy; "mps" warns and runs on the CPU, as does "cuda"
        without a GPU.
    **options
        Every option of `harmonize`, or harmonypy's names: ``nclust``,
        ``max_iter_kmeans``, ``epsilon_cluster``, ``epsilon_harmony`` (negative: never stop
        early), ``lamb``, ``block_size``, ``batch_prop_cutoff``, ``random_state`` (None is
        seed 0, so that two runs are equal), ``ncores``.
        ``lamb=None`` means 1 as in harmonypy 0.2, -1 the dynamic penalty; harmony2 always uses
        the dynamic one. ``max_iter_kmeans`` of 4 or more and ``epsilon_cluster`` switch
        ``early_stopping`` on, as in harmonypy.

    Returns
    -------
    Object with ``corrected`` (n_cells, n_dims) and harmonypy's attributes; ``Z_corr`` is
    (n_dims, n_cells).

    Raises
    ------
    KeyError
        A column that ``meta_data`` does not have.
    TypeError, ValueError
        Any other invalid input, in one line.

    Notes
    -----
    Peak memory: that of `harmonize` with ``keep_assignments=True``.
    """
    keys = [vars_use] if isinstance(vars_use, str) else list(vars_use)
    if not keys:
        raise ValueError("vars_use names no column; give at least one")
    columns = [fetch_column(meta_data, key, "meta_data") for key in keys]
    n_cells = len(columns[0])
    Z = as_embedding(data_mat, n_cells)
    options = translate_options(options)
    mask = None
    if QC_column is not None:
        mask = CellTable(meta_data, "meta_data", n_cells, meta_data).mask(QC_column)
    cells = to_device(Z, device)
    harmonized = harmonize(
        cells, columns, key_names=keys, mask=mask, keep_assignments=True, **options
    )
    return HarmonyResult(Z, harmonized)
