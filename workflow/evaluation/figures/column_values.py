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
    """Separate numbers (no names) from categories, whose codes point to names in natural order.

    Ordered categories keep their order. Missing values are NaN or code -1.
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
        codes, categories, ordered = used.codes, used.categories, used.ordered
    else:
        codes, categories = pd.factorize(series)
        ordered = False
    names = [str(category) for category in categories]
    order = list(range(len(names)))
    if not ordered:
        order.sort(key=lambda i: natural_sort_key(names[i]))
    lookup = np.full(len(names) + 1, -1, dtype=np.int32)  # the last place: missing
    lookup[order] = np.arange(len(names))
    return [names[i] for i in order], lookup[codes]


def natural_sort_key(name: str) -> tuple[list[str | int], str]:
    """Sort names with 2 before 10, also in ``donor 2`` and ``3_2``, upper case as lower case.

    `clustering.cluster_names.natural_order` is stricter: in names of clusters only whole parts
    between underscores are numbers, and case counts.
    """
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
