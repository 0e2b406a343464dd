"""Join columns of obs and var of several files: numbers, truth values, text, categories.

A column of one type keeps it. A column of several types becomes text, as each file writes it, with
a log line. A missing value stays missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from utils.errors import listed
from utils.log import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

EXACT = 2**53  # float64 has all whole numbers up to this one


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
        The values of the files in their order: numbers and truth values as pandas joins them;
        categories if one file has them, in the order in which they appear, ordered if those of all
        files are ordered and the same; values of several kinds as categories of text.
    """
    parts = [*map(_without_wrapper, parts)]
    kinds = [*map(kind_of, parts)]
    distinct = [kind for kind in dict.fromkeys(kinds) if kind != "empty"]
    if not distinct:
        return np.full(sum(map(len, parts)), np.nan)
    filled = [part for part, kind in zip(parts, kinds, strict=True) if kind != "empty"]
    if len(distinct) > 1 or (distinct == ["numbers"] and _loses_digits(filled)):
        types = [f"{_type_name(part)} in {file}" for part, file in zip(parts, files, strict=True)]
        say(f"{where} is {listed(types, 6)}: joined as text")
        return _join_categories([*map(_as_text, parts)], where)
    return _join_one_kind(parts, kinds, filled, where)


def _join_one_kind(
    parts: Sequence[Any], kinds: Sequence[str], filled: Sequence[Any], where: str
) -> Any:
    """Join values of one kind; parts of the kind ``empty`` have missing values only."""
    import pandas as pd

    if any(isinstance(part.dtype, pd.CategoricalDtype) for part in filled):
        return _join_categories(
            [
                part if kind == "empty" else pd.Categorical(part)
                for part, kind in zip(parts, kinds, strict=True)
            ],
            where,
        )
    kind = kind_of(filled[0])
    if kind not in ("text", "numbers", "truth values"):
        raise TypeError(f"{where} holds {kind}, which no store can hold; write it as text")
    dtype = "string" if kind == "text" else pd.array(filled[0]).dtype  # int64: Int64
    typed = [
        pd.array([pd.NA] * len(part), dtype=dtype) if kind == "empty" else part
        for part, kind in zip(parts, kinds, strict=True)
    ]
    return _join_texts(typed) if kind == "text" else _join_numbers(typed)


def _without_wrapper(part: Any) -> Any:
    """Return the NumPy array in a pandas array that only wraps it."""
    import pandas as pd

    return np.asarray(part) if isinstance(part, pd.arrays.NumpyExtensionArray) else part


def _join_texts(parts: Sequence[Any]) -> np.ndarray:
    import pandas as pd

    texts = [pd.array(part, dtype="string") for part in parts]
    return np.concatenate([np.asarray(text, dtype=object) for text in texts])


def _join_numbers(parts: Sequence[Any]) -> Any:
    """Join numbers or truth values; anndata can store nullable ones of both, but no fractions."""
    import pandas as pd

    values = [
        pd.Series(pd.array(part, dtype="boolean") if part.dtype == object else part)
        for part in parts
    ]
    joined = pd.concat(values, ignore_index=True).array
    if isinstance(joined.dtype, pd.Float32Dtype | pd.Float64Dtype):
        return joined.to_numpy(dtype=joined.dtype.numpy_dtype, na_value=np.nan)
    is_nullable = isinstance(joined, pd.arrays.IntegerArray | pd.arrays.BooleanArray)
    return joined if is_nullable else joined.to_numpy()


def _loses_digits(parts: Sequence[Any]) -> bool:
    """Return whether whole numbers would be joined in float64, which does not hold them."""
    import pandas as pd

    values = [p.categories if isinstance(p.dtype, pd.CategoricalDtype) else p for p in parts]
    numbers = [v for v in values if pd.api.types.is_integer_dtype(v.dtype) and len(v)]
    large = any(max(-int(v.min()), int(v.max())) > EXACT for v in numbers if not pd.isna(v).all())
    kinds = {np.dtype(str(v.dtype).lower()).kind for v in numbers}
    return large and (len(numbers) < len([v for v in values if len(v)]) or len(kinds) > 1)


def _type_name(part: Any) -> str:
    """Name the type of a column in the words of a user."""
    import pandas as pd

    kind = kind_of(part)
    if isinstance(part.dtype, pd.CategoricalDtype):
        return "empty" if kind == "empty" else f"categories of {kind}"
    return kind if kind in ("text", "empty") else str(part.dtype)


def _as_text(part: Any) -> pd.Categorical:
    """Turn values into categories of text; missing ones stay missing."""
    import pandas as pd

    if isinstance(part.dtype, pd.CategoricalDtype):
        return part.rename_categories([str(value) for value in part.categories])
    codes, values = pd.factorize(part)
    return pd.Categorical.from_codes(codes, [str(value) for value in values])


def _join_categories(parts: Sequence[Any], where: str) -> pd.Categorical:
    """Join categories; a part of another type has missing values only."""
    import pandas as pd

    code_of: dict[Any, int] = {}
    codes = []
    filled = [part for part in parts if isinstance(part.dtype, pd.CategoricalDtype)]
    for part in parts:
        if not isinstance(part.dtype, pd.CategoricalDtype):
            codes.append(np.full(len(part), -1))
            continue
        new_codes = [code_of.setdefault(value, len(code_of)) for value in part.categories]
        codes.append(np.array([*new_codes, -1])[part.codes])  # -1, missing, takes the last
    alike = all(list(part.categories) == list(filled[0].categories) for part in filled)
    ordered = alike and len(filled) == len(parts) and all(part.ordered for part in filled)
    if not ordered and any(part.ordered for part in filled):
        say(f"{where}: the ordered categories of the files differ; their order is dropped")
    return pd.Categorical.from_codes(np.concatenate(codes), list(code_of), ordered=ordered)


def join_obs(frames: Sequence[pd.DataFrame], files: Sequence[str]) -> pd.DataFrame:
    """Join the obs of several files: the columns that all have, in the order of the first."""
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
    """Join the var of several files: the columns that all have, with equal values for a gene.

    Parameters
    ----------
    frames
        One per file.
    positions
        Position of each joined gene in each file; -1: the file lacks it.
    names
        Of the joined genes.
    files
        The files, for the log.
    what
        ``var`` or ``raw.var``, for the log.
    """
    import pandas as pd

    stacked = np.array(positions)
    first_file = np.argmax(stacked >= 0, axis=0)  # that has the gene
    starts = np.cumsum([0, *map(len, frames)])
    first_row = stacked[first_file, np.arange(len(names))] + starts[first_file]
    columns = [name for name in frames[0] if all(name in frame for frame in frames)]
    lost = [name for frame in frames for name in frame if name not in columns]
    joined, differing = {}, []
    for name in columns:
        values = np.concatenate([np.asarray(frame[name], dtype=object) for frame in frames])
        agree = True
        for i, position in enumerate(positions):
            present = position >= 0
            rows = position[present] + starts[i]
            agree = agree and _equal(values[rows], values[first_row[present]])
        if agree:
            column = join_column([f[name].array for f in frames], f'{what}["{name}"]', files)
            joined[name] = column[first_row]
        else:
            differing.append(name)
    say_dropped(f"{what} column", f"not in all {len(frames)} files", lost)
    say_dropped(f"{what} column", "not equal in all files", differing)
    return pd.DataFrame(joined, index=pd.Index(names, name=_index_name(frames)))


def _index_name(frames: Sequence[pd.DataFrame]) -> Any:
    """Return the name of the index if it is the same in all files."""
    names = [frame.index.name for frame in frames]
    return names[0] if all(name == names[0] for name in names) else None


def _equal(left: np.ndarray, right: np.ndarray) -> bool:
    """Return whether values are equal, and the same ones are missing."""
    import pandas as pd

    missing = pd.isna(left)
    return bool((missing == pd.isna(right)).all() and (left[~missing] == right[~missing]).all())


def say_dropped(what: str, why: str, names: Sequence[str]) -> None:
    """Log what is dropped, each name once: `what` in the singular, and why."""
    unique = list(dict.fromkeys(map(str, names)))
    if unique:
        plural = "" if len(unique) == 1 else "s"
        say(f"dropped: {len(unique)} {what}{plural} ({listed(unique, 10)}), {why}")
