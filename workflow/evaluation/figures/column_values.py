"""A column of metadata as it is drawn: numbers, or codes that point to the names of categories."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    Values = pd.Series | pd.Categorical | np.ndarray | Sequence[object]


def read_values(
    values: Values, *, title: str, as_categories: bool
) -> tuple[list[str] | None, np.ndarray]:
    """Tell numbers (no names) from categories, whose codes point to names as people count.

    Ordered categories keep their order.
    """
    if np.ndim(values) != 1:
        raise ValueError(f"{title}: values must have one dimension, found {np.ndim(values)}")
    series = pd.Series(values)
    inferred = pd.api.types.infer_dtype(series, skipna=True) if series.dtype == object else ""
    numeric = (
        pd.api.types.is_numeric_dtype(series.dtype)
        and not pd.api.types.is_bool_dtype(series.dtype)
        and not pd.api.types.is_complex_dtype(series.dtype)
    ) or inferred in ("integer", "floating", "mixed-integer-float", "decimal")
    if numeric and not as_categories:
        return None, series.to_numpy(dtype=np.float64, na_value=np.nan)
    if isinstance(series.dtype, pd.CategoricalDtype):
        used = series.cat.remove_unused_categories().cat
        codes, found, ordered = used.codes, used.categories, used.ordered
    else:
        codes, found = pd.factorize(series)
        ordered = False
    names = [str(category) for category in found]
    order = list(range(len(names)))
    if not ordered:
        order.sort(key=lambda i: rank(names[i]))
    lookup = np.full(len(names) + 1, -1, dtype=np.int32)  # the last place: missing
    lookup[order] = np.arange(len(names))
    return [names[i] for i in order], lookup[codes]


def rank(name: str) -> tuple[list[str | int], str]:
    """Sort key by which 2 stands before 10, also in 3_2 and 3_10."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
