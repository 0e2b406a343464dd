"""Columns of obs and var of several files as one: numbers, truth values, text, categories.

What is of one type stays so; a column of several types becomes text, as each file writes it, and
that is said. A missing value stays missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from utils.errors import listed
from utils.log import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

EXACT = 2**53  # the largest whole number up to which float64 has all of them


def kind_of(values: Any) -> str:
    """Name what a column holds: text, numbers, truth values; empty where all are missing.

    Parameters
    ----------
    values
        An array, a pandas array or an index.
    """
    import pandas as pd

    if isinstance(values.dtype, pd.CategoricalDtype):
        return kind_of(values.categories) if (values.codes >= 0).any() else "empty"
    if pd.isna(values).all():
        return "empty"
    if pd.api.types.is_bool_dtype(values.dtype):
        return "truth values"
    if pd.api.types.is_numeric_dtype(values.dtype):
        return "numbers"
    inferred = pd.api.types.infer_dtype(values, skipna=True)
    return {"string": "text", "boolean": "truth values"}.get(inferred, inferred)


def join_column(parts: Sequence[Any], where: str, files: Sequence[str]) -> Any:
    """Join a column of several files.

    Parameters
    ----------
    parts
        Its values in each file: pandas arrays.
    where
        What it is, for the log: ``obs["donor"]``.
    files
        The files, for the log.

    Returns
    -------
    numpy.ndarray or pandas array
        The values of one file after those of the other. Numbers and truth values as pandas joins
        them; categories where one file has these, those of all files in the order in which they
        appear, ordered if all files have the same and ordered ones. Values of several kinds are
        categories of text.
    """
    import pandas as pd

    numpy_backed = pd.arrays.NumpyExtensionArray
    parts = [np.asarray(part) if isinstance(part, numpy_backed) else part for part in parts]
    kinds = [kind_of(part) for part in parts]
    known = [kind for kind in dict.fromkeys(kinds) if kind != "empty"]
    if not known:
        return np.full(sum(map(len, parts)), np.nan)
    filled = [part for part, kind in zip(parts, kinds, strict=True) if kind != "empty"]
    if len(known) > 1 or (known == ["numbers"] and _loses_digits(filled)):
        named = (f"{_shown(part)} in {file}" for part, file in zip(parts, files, strict=True))
        say(f"{where} is {listed(list(named), 6)}: joined as text")
        return _join_categories([_as_text(part) for part in parts], where)
    if any(isinstance(part.dtype, pd.CategoricalDtype) for part in filled):
        return _join_categories(
            [
                part if kind == "empty" else _as_categories(part)
                for part, kind in zip(parts, kinds, strict=True)
            ],
            where,
        )
    if known == ["text"]:
        texts = [_missing(part, "string") if kind == "empty" else pd.array(part, dtype="string")
                 for part, kind in zip(parts, kinds, strict=True)]  # fmt: skip
        return np.concatenate([np.asarray(text, dtype=object) for text in texts])
    if known not in (["numbers"], ["truth values"]):
        raise TypeError(f"{where} holds {known[0]}, which no store can hold; write it as text")
    nullable = pd.array(filled[0]).dtype  # int64: Int64
    values = [
        pd.Series(_missing(part, nullable) if kind == "empty" else _plain(part))
        for part, kind in zip(parts, kinds, strict=True)
    ]
    joined = pd.concat(values, ignore_index=True).array
    if isinstance(joined.dtype, pd.Float32Dtype | pd.Float64Dtype):
        # anndata has no nullable fractions: their missing value is NaN.
        return joined.to_numpy(dtype=joined.dtype.numpy_dtype, na_value=np.nan)
    return joined if isinstance(joined.dtype, _nullable()) else joined.to_numpy()


def _nullable() -> tuple[type, ...]:
    import pandas as pd

    integer = (pd.Int8Dtype, pd.Int16Dtype, pd.Int32Dtype, pd.Int64Dtype)
    unsigned = (pd.UInt8Dtype, pd.UInt16Dtype, pd.UInt32Dtype, pd.UInt64Dtype)
    return (*integer, *unsigned, pd.BooleanDtype)


def _plain(part: Any) -> Any:
    """Return truth values that are objects as such; others as they are."""
    import pandas as pd

    return pd.array(part, dtype="boolean") if part.dtype == object else part


def _missing(part: Any, dtype: Any) -> Any:
    import pandas as pd

    return pd.array([pd.NA] * len(part), dtype=dtype)


def _loses_digits(parts: Sequence[Any]) -> bool:
    """Whether whole numbers are joined with others in float64, which does not hold them."""
    import pandas as pd

    values = [p.categories if isinstance(p.dtype, pd.CategoricalDtype) else p for p in parts]
    numbers = [v for v in values if pd.api.types.is_integer_dtype(v.dtype) and len(v)]
    large = any(max(-int(v.min()), int(v.max())) > EXACT for v in numbers if not pd.isna(v).all())
    kinds = {np.dtype(str(v.dtype).lower()).kind for v in numbers}
    return large and (len(numbers) < len([v for v in values if len(v)]) or len(kinds) > 1)


def _shown(part: Any) -> str:
    """Name the type of a column as a reader knows it."""
    import pandas as pd

    kind = kind_of(part)
    if isinstance(part.dtype, pd.CategoricalDtype):
        return "empty" if kind == "empty" else f"categories of {kind}"
    return kind if kind in ("text", "empty") else str(part.dtype)


def _as_categories(part: Any) -> pd.Categorical:
    import pandas as pd

    return part if isinstance(part.dtype, pd.CategoricalDtype) else pd.Categorical(part)


def _as_text(part: Any) -> pd.Categorical:
    """Write each value as text, a missing one as missing."""
    import pandas as pd

    if isinstance(part.dtype, pd.CategoricalDtype):
        return part.rename_categories([str(value) for value in part.categories])
    codes, values = pd.factorize(part)
    return pd.Categorical.from_codes(codes, [str(value) for value in values])


def _join_categories(parts: Sequence[Any], where: str) -> pd.Categorical:
    """Join categories; a part without any has missing values only."""
    import pandas as pd

    place: dict[Any, int] = {}
    codes = []
    filled = [part for part in parts if isinstance(part.dtype, pd.CategoricalDtype)]
    for part in parts:
        if not isinstance(part.dtype, pd.CategoricalDtype):
            codes.append(np.full(len(part), -1))
            continue
        lookup = [place.setdefault(value, len(place)) for value in part.categories]
        codes.append(np.array([*lookup, -1])[part.codes])
    alike = all(list(part.categories) == list(filled[0].categories) for part in filled)
    ordered = alike and len(filled) == len(parts) and all(part.ordered for part in filled)
    if not ordered and any(part.ordered for part in filled):
        say(f"{where}: its ordered categories differ between the files; their order is dropped")
    return pd.Categorical.from_codes(np.concatenate(codes), list(place), ordered=ordered)


def join_obs(frames: Sequence[pd.DataFrame], files: Sequence[str]) -> pd.DataFrame:
    """Join the obs of several files: the columns that are in all, in the order of the first."""
    import pandas as pd

    columns = [name for name in frames[0] if all(name in frame for frame in frames)]
    lost = [name for frame in frames for name in frame if name not in columns]
    say_dropped("obs column", f"not in all {len(frames)} files", lost)
    joined = {
        name: join_column([frame[name].array for frame in frames], f'obs["{name}"]', files)
        for name in columns
    }
    index = np.concatenate([frame.index.to_numpy(dtype=object) for frame in frames])
    return pd.DataFrame(joined, index=pd.Index(index, name=_index_name(frames)))


def join_var(
    frames: Sequence[pd.DataFrame],
    positions: Sequence[np.ndarray],
    names: np.ndarray,
    files: Sequence[str],
    *,
    what: str = "var",
) -> pd.DataFrame:
    """Join the var of several files: the columns that are in all and equal where genes are.

    Parameters
    ----------
    frames
        One per file.
    positions
        Of each joined gene in each file; -1: the file lacks it.
    names
        Of the joined genes.
    files
        The files, for the log.
    what
        ``var`` or ``raw.var``, for the log.
    """
    import pandas as pd

    where = np.array(positions)
    first = np.argmax(where >= 0, axis=0)  # the first file that has the gene
    starts = np.cumsum([0, *map(len, frames)])
    taken = where[first, np.arange(len(names))] + starts[first]
    columns = [name for name in frames[0] if all(name in frame for frame in frames)]
    lost = [name for frame in frames for name in frame if name not in columns]
    joined, differing = {}, []
    for name in columns:
        values = np.concatenate([np.asarray(frame[name], dtype=object) for frame in frames])
        agree = True
        for i, position in enumerate(positions):
            both = position >= 0
            agree = agree and _equal(values[position[both] + starts[i]], values[taken[both]])
        if agree:
            column = join_column([f[name].array for f in frames], f'{what}["{name}"]', files)
            joined[name] = column[taken]
        else:
            differing.append(name)
    say_dropped(f"{what} column", f"not in all {len(frames)} files", lost)
    say_dropped(f"{what} column", "not equal in all files", differing)
    return pd.DataFrame(joined, index=pd.Index(names, name=_index_name(frames)))


def _index_name(frames: Sequence[pd.DataFrame]) -> Any:
    """Return what the index is called, if it is called the same in all files."""
    names = [frame.index.name for frame in frames]
    return names[0] if all(name == names[0] for name in names) else None


def _equal(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether values are equal, and missing, at the same places."""
    import pandas as pd

    gone = pd.isna(left)
    return bool((gone == pd.isna(right)).all() and (left[~gone] == right[~gone]).all())


def say_dropped(what: str, why: str, names: Sequence[str]) -> None:
    """Say what is not taken along, each name once: `what` in the singular, and why."""
    unique = list(dict.fromkeys(map(str, names)))
    if unique:
        plural = "" if len(unique) == 1 else "s"
        say(f"dropped: {len(unique)} {what}{plural} ({listed(unique, 10)}), {why}")
