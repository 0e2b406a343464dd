"""Which cells and genes are kept, and the figures of quality control that cells are chosen by."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from utils.cli import say
from utils.io import keys, obs_column, read_element
from utils.messages import listed, missing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from preprocessing.sources import Source
    from utils.blocks import Block


def cell_statistics(
    sources: Sequence[Source],
    names: np.ndarray,
    *,
    qc: Mapping[str, str],
    counted: np.ndarray | None,
) -> list[np.ndarray | None]:
    """Read the counts once, for the figures of quality control and the genes that cells detect.

    Parameters
    ----------
    sources
        The files; `Source.quality` is filled in.
    names
        The genes of the data set.
    qc
        Name of a group of genes to the regular expression that finds them.
    counted
        Marks the genes among which those detected are counted; None: they are not.

    Returns
    -------
    list
        For each file the number of genes that each of its cells detects, or None.

    Notes
    -----
    The columns are those of ``scanpy.pp.calculate_qc_metrics``, of all genes:
    ``n_genes_by_counts``, ``total_counts`` and, for each group, ``total_counts_{group}`` and
    ``pct_counts_{group}`` (0 for a cell without counts, where scanpy has NaN).
    """
    groups = {group: find_genes(names, group, pattern) for group, pattern in qc.items()}
    detected: list[np.ndarray | None] = [None] * len(sources)
    if not qc and counted is None:
        return detected
    for i, source in enumerate(sources):
        n_detected, n_genes, sums = [], [], []
        for block in source.blocks(source.counts, "counting"):
            is_there = block != 0
            if counted is not None:
                n_detected.append(_per_cell(is_there, counted))
            if qc:
                n_genes.append(_per_cell(is_there, None))
                sums.append([_per_cell(block, genes) for genes in (None, *groups.values())])
        if counted is not None:
            detected[i] = np.concatenate([np.empty(0, np.int64), *n_detected]).astype(np.int64)
        if qc:
            _fill_quality(source, n_genes, sums, list(groups))
    return detected


def _per_cell(block: Block, genes: np.ndarray | None) -> np.ndarray:
    """Sum the values of each cell in some genes (marked; None: all), in float64."""
    weights = np.ones(block.shape[1]) if genes is None else genes.astype(np.float64)
    if sp.issparse(block):
        return block @ weights
    return np.asarray(block) @ weights


def _fill_quality(source: Source, n_genes: list, sums: list, groups: list[str]) -> None:
    totals = [np.concatenate(part) for part in zip(*sums, strict=True)]
    source.quality = {
        "n_genes_by_counts": np.concatenate(n_genes).astype(np.int32),
        "total_counts": totals[0].astype(np.float32),
    }
    for group, of_group in zip(groups, totals[1:], strict=True):
        share = np.divide(of_group, totals[0], where=totals[0] > 0, out=np.zeros(len(of_group)))
        source.quality[f"total_counts_{group}"] = of_group.astype(np.float32)
        source.quality[f"pct_counts_{group}"] = (100 * share).astype(np.float32)
    present = keys(source.root, "obs")
    if replaced := [name for name in source.quality if name in present]:
        say(f"{source.file}: {listed(replaced)} of obs are computed anew (qc)")


def find_genes(names: np.ndarray, group: str, pattern: str) -> np.ndarray:
    """Mark the genes whose name a regular expression finds; say how many these are."""
    found = np.array([re.search(pattern, str(name)) is not None for name in names], dtype=bool)
    if not found.any():
        examples = listed([str(name) for name in names[:3]])
        say(
            f"warning: qc: no gene matches {group}: {pattern!r}; genes are called {examples} "
            "(var_names takes others from a column of var)"
        )
    else:
        say(f"qc: {found.sum():,} genes match {group}: {pattern!r}")
    return found


def choose_cells(source: Source, *, subset: Mapping[str, Any], keep_cells: str | None) -> None:
    """Mark the cells to keep, in `Source.cells`.

    Parameters
    ----------
    source
        The file.
    subset
        Column of obs to the values, or ``{"min": ..., "max": ...}``, that are kept; a value is
        compared as it is and as text. A missing value is never kept.
    keep_cells
        A column of truth values.
    """
    for column, wanted in subset.items():
        values = _obs_values(source, column)
        if isinstance(wanted, dict):
            chosen = _in_range(source, column, values, wanted)
        else:
            chosen = _is_one_of(source, column, values, wanted)
        _apply(source, chosen, f"subset {column}")
    if keep_cells is not None:
        values = _obs_values(source, keep_cells)
        _apply(source, truth(values, f'{source.file}: adata.obs["{keep_cells}"]'), keep_cells)


def _obs_values(source: Source, column: str) -> Any:
    import pandas as pd

    if column in source.quality:
        return pd.Series(source.quality[column])
    return obs_column(source.root, column)


def _apply(source: Source, chosen: np.ndarray, why: str) -> None:
    before = int(source.cells.sum())
    source.cells &= chosen
    log_kept(source.file, "cells", int(source.cells.sum()), before, why)


def _in_range(source: Source, column: str, values: Any, limits: Mapping[str, float]) -> np.ndarray:
    import pandas as pd

    numeric = pd.api.types.is_numeric_dtype(values.dtype)
    if not numeric or pd.api.types.is_bool_dtype(values.dtype):
        raise TypeError(
            f'{source.file}: adata.obs["{column}"] holds no numbers ({values.dtype}), so that '
            f"subset can have no min or max; list the values to keep"
        )
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    low, high = limits.get("min", -np.inf), limits.get("max", np.inf)
    return (numbers >= low) & (numbers <= high)  # NaN is neither


def _is_one_of(source: Source, column: str, values: Any, wanted: Sequence[Any]) -> np.ndarray:
    texts = {str(value) for value in wanted}
    there = set(values.dropna().astype(str))
    for text in sorted(texts - there):
        raise ValueError(
            missing(f'{source.file}: adata.obs["{column}"] has no', text, sorted(there))
        )
    return values.astype(str).isin(texts).to_numpy() & values.notna().to_numpy()


def truth(values: Any, where: str) -> np.ndarray:
    """Read a column of truth values; a missing one is false.

    Raises
    ------
    TypeError
        If it holds something else.
    """
    import pandas as pd

    series = pd.Series(values)
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(object)
    texts = {"True": True, "False": False, "true": True, "false": False}
    if series.dtype == object or isinstance(series.dtype, pd.StringDtype):
        series = series.map(lambda value: texts.get(str(value), None if pd.isna(value) else value))
    known = series.dropna()
    if not known.map(lambda value: isinstance(value, bool | np.bool_)).all():
        examples = listed([str(value) for value in known.unique()[:3]])
        raise TypeError(f"{where} must be true or false; found {examples}")
    return series.map(lambda value: bool(value) if not pd.isna(value) else False).to_numpy(bool)


def choose_genes(sources: Sequence[Source], keep_genes: str) -> np.ndarray:
    """Mark the genes that a column of var marks, in every file that has the gene."""
    chosen = np.ones(len(sources[0].genes), dtype=bool)
    for source in sources:
        if keep_genes not in keys(source.root, source.var):
            columns = keys(source.root, source.var)
            where = f"{source.file}: adata.{source.var} has no column"
            raise KeyError(missing(where, keep_genes, columns))
        values = read_element(source.root, f"{source.var}/{keep_genes}")
        marked = truth(values, f'{source.file}: adata.{source.var}["{keep_genes}"]')
        here = source.genes >= 0
        chosen[here] &= marked[source.genes[here]]
    log_kept("", "genes", int(chosen.sum()), len(chosen), keep_genes)
    return chosen


def detecting_cells(sources: Sequence[Source]) -> np.ndarray:
    """Count for each gene the chosen cells of all files that detect it; int64."""
    n_cells = np.zeros(len(sources[0].genes), dtype=np.int64)
    for source in sources:
        for block in source.kept_blocks(source.counts):
            n_cells += np.asarray((block != 0).sum(axis=0)).ravel().astype(np.int64)
    return n_cells


def log_kept(where: str, what: str, left: int, of: int, why: str) -> None:
    """Say how many cells or genes are left."""
    say(f"{where}{': ' if where else ''}{left:,} of {of:,} {what} kept ({why})")
