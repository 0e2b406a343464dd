"""Choose cells and genes: by quality, true/false columns, values and ranges of columns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.elements import read_column
from utils.errors import listed, missing
from utils.io import keys, read_element
from utils.log import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from preprocessing.sources import Source


def add_quality(sources: Sequence[Source], names: np.ndarray, groups: Mapping[str, str]) -> None:
    """Compute the quality of all cells from their counts, as ``scanpy.pp.calculate_qc_metrics``.

    Parameters
    ----------
    sources
        The files; their `quality` is filled: ``n_genes_by_counts``, ``total_counts``, and of each
        group ``total_counts_{group}`` and ``pct_counts_{group}`` (NaN for a cell without counts).
    names
        Names of the genes.
    groups
        Name of a group to a regular expression, searched anywhere in the names.
    """
    texts = [*map(str, names)]
    members = {group: _find_genes(group, pattern, texts) for group, pattern in groups.items()}
    for source in sources:
        source.quality = _quality(source, members)
        replaced = [name for name in source.quality if name in keys(source.root, "obs")]
        if replaced:
            say(f"{source.file}: obs columns of qc replace those of the file ({listed(replaced)})")
    for group, genes in members.items():
        if len(genes):
            _say_share(sources, group, len(genes))


def _find_genes(group: str, pattern: str, names: list[str]) -> np.ndarray:
    """Return the positions of the genes of a group; warn if there are none."""
    genes = np.flatnonzero([re.search(pattern, name) is not None for name in names])
    if not len(genes):
        say(f"warning: qc {group}: no gene matches {pattern!r}{_hint(pattern, names)}")
    return genes


def _say_share(sources: Sequence[Source], group: str, n_genes: int) -> None:
    """Log the median share of a group of genes in the counts of a cell."""
    share = np.concatenate([source.quality[f"pct_counts_{group}"] for source in sources])
    median = np.nanmedian(share) if np.isfinite(share).any() else np.nan
    genes = f"{n_genes:,} gene{'' if n_genes == 1 else 's'}"
    say(f"qc {group}: {genes}, median {median:.3g} % of the counts of a cell")


def _hint(pattern: str, names: list[str]) -> str:
    other_case = [name for name in names if re.search(pattern, name, re.IGNORECASE)]
    if other_case:
        return f"; in other case {len(other_case):,} do ({listed(other_case, 3)})"
    return f"; genes are called {listed(names, 3)} (var_names names a column of var to use instead)"


def _quality(source: Source, members: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    def of_block(block: Any) -> tuple[np.ndarray, ...]:
        groups = [_per_cell(block[:, genes]) for genes in members.values()]
        return _per_cell(block != 0), _per_cell(block), *groups

    blocks = [*source.blocks(source.counts, "quality", function=of_block)]
    detected, totals, *groups = zip(*blocks, strict=True) if blocks else [()] * (2 + len(members))
    inside = dict(zip(members, groups, strict=True))
    total = np.concatenate(totals or [np.empty(0, np.float32)])
    n_detected = np.concatenate([np.empty(0, int), *detected]).astype(np.int32)
    columns = {"n_genes_by_counts": n_detected, "total_counts": total}
    for group, parts in inside.items():
        of_group = np.concatenate(parts) if parts else total
        columns[f"total_counts_{group}"] = of_group
        with np.errstate(invalid="ignore", divide="ignore"):
            columns[f"pct_counts_{group}"] = of_group / total * 100
    return columns


def _per_cell(block: Any) -> np.ndarray:
    return np.asarray(block.sum(axis=1)).ravel()


def keep_cells(
    sources: Sequence[Source], columns: Sequence[str], subset: Mapping[str, Any]
) -> None:
    """Mark the cells for which columns are true, or hold given values or numbers of a range.

    Raises
    ------
    KeyError, ValueError, TypeError
        If a column or value is missing, a column is of another type, or no cell is left.
    """
    for column in columns:
        for source in sources:
            source.cells &= _true(_cell_column(source, column), source, f'obs["{column}"]')
        _say_cells(sources, f"keep_cells {column}")
    for column, wanted in subset.items():
        values_of_files = [_cell_column(source, column) for source in sources]
        if not isinstance(wanted, dict):
            _check_values(values_of_files, wanted, f'{sources[0].file}: adata.obs["{column}"]')
        for source, values in zip(sources, values_of_files, strict=True):
            if isinstance(wanted, dict):
                where = f'{source.file}: adata.obs["{column}"]'
                source.cells &= _in_range(values, wanted, where)
            else:
                is_wanted = values.astype(str).isin([*map(str, wanted)])
                source.cells &= is_wanted.to_numpy() & values.notna().to_numpy()
        _say_cells(sources, f"subset {column}")


def _cell_column(source: Source, column: str) -> pd.Series:
    import pandas as pd

    if column in source.quality:
        return pd.Series(source.quality[column], name=column)
    if column not in keys(source.root, "obs"):
        available = [*keys(source.root, "obs"), *source.quality]
        raise KeyError(missing(f"{source.file}: adata.obs has no column", column, available))
    return read_column(source.root, column)


def _check_values(columns: Sequence[pd.Series], wanted: Sequence[Any], where: str) -> None:
    """Refuse a value that no file has; compared as text."""
    available = set().union(*(values.dropna().astype(str) for values in columns))
    for value in sorted({str(value) for value in wanted} - available):
        raise ValueError(missing(f"{where} has no", value, sorted(available)))


def _in_range(values: pd.Series, limits: Mapping[str, float], where: str) -> np.ndarray:
    import pandas as pd

    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.cat.categories.dtype)
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        example = next(iter(values.dropna()), "missing values")
        raise TypeError(
            f"{where} holds {example!r} and not numbers, so it has no range; name the values to "
            "keep: [value, ...]"
        )
    # Whole numbers are not converted: float64 does not have all of them.
    chosen = values.notna().to_numpy()
    if "min" in limits:
        chosen = chosen & (values >= limits["min"]).fillna(False).to_numpy(dtype=bool)
    if "max" in limits:
        chosen = chosen & (values <= limits["max"]).fillna(False).to_numpy(dtype=bool)
    return chosen


def _true(values: pd.Series, source: Source, where: str) -> np.ndarray:
    """Convert a true/false column, however it is stored; a missing value is false."""
    texts = values.astype(str).where(values.notna(), "")
    known = {"True": True, "true": True, "False": False, "false": False, "": False}
    wrong = sorted(set(texts) - set(known))
    if wrong:
        raise TypeError(f"{source.file}: adata.{where} is not true or false, found {wrong[0]!r}")
    return texts.map(known).to_numpy(dtype=bool)


def keep_genes(sources: Sequence[Source], columns: Sequence[str], names: np.ndarray) -> np.ndarray:
    """Return which genes some columns mark in every file that has the gene.

    Raises
    ------
    KeyError, ValueError, TypeError
        If a column is missing or does not hold true and false, or no gene is left.
    """
    import pandas as pd

    chosen = np.ones(len(names), dtype=bool)
    for column in columns:
        for source in sources:
            available = keys(source.root, source.var)
            if column not in available:
                raise KeyError(
                    missing(f"{source.file}: adata.var has no column", column, available)
                )
            values = pd.Series(read_element(source.root, f"{source.var}/{column}"))
            is_true = _true(values, source, f'{source.var}["{column}"]')
            present = source.genes >= 0
            chosen[present] &= is_true[source.genes[present]]
        _say_kept("genes", int(chosen.sum()), len(chosen), f"keep_genes {column}")
        if not chosen.any():
            raise ValueError(f"{sources[0].file}: no gene is left, by keep_genes {column}")
    return chosen


def keep_detected(
    sources: Sequence[Source], n_genes: int, *, min_genes: int, min_cells: int, counted: bool
) -> np.ndarray:
    """Mark cells with enough detected genes; return the genes detected in enough of these cells.

    With `counted`, the quality of the cells was computed from the same genes and is used.

    Raises
    ------
    ValueError
        If no cell or gene is left.
    """
    if min_genes:
        for source in sources:
            if counted:
                detected = source.quality["n_genes_by_counts"]
            else:
                parts = source.blocks(
                    source.counts, "counting genes", function=lambda block: _per_cell(block != 0)
                )
                detected = np.concatenate([np.empty(0, int), *parts])
            source.cells &= detected >= min_genes
        _say_cells(sources, f"min_genes {min_genes}")
    if not min_cells:
        return np.ones(n_genes, dtype=bool)
    detected_in = np.zeros(n_genes, dtype=np.int64)
    for source in sources:
        parts = source.blocks(
            source.counts,
            "counting cells",
            function=lambda block: np.asarray((block != 0).sum(axis=0)).ravel(),
            kept=True,
        )
        for part in parts:
            detected_in += part
    chosen = detected_in >= min_cells
    _say_kept("genes", int(chosen.sum()), len(chosen), f"min_cells {min_cells}")
    if not chosen.any():
        raise ValueError(f"{sources[0].file}: no gene is detected in {min_cells} cells")
    return chosen


def _say_cells(sources: Sequence[Source], why: str) -> None:
    n_kept = sum(int(source.cells.sum()) for source in sources)
    n_all = sum(len(source.cells) for source in sources)
    _say_kept("cells", n_kept, n_all, why)
    if not n_kept:
        raise ValueError(f"{sources[0].file}: no cell is left of {n_all:,}, by {why}")


def _say_kept(what: str, n_kept: int, n_all: int, why: str) -> None:
    say(f"{n_kept:,} of {n_all:,} {what} kept ({why})")
