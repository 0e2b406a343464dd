"""The few kinds of elements that clustering reads and writes, without anndata and pandas.

A workflow has a job for every cluster column, and importing those two takes half as long as the
clustering of 50,000 cells. All of it is read by `utils.encoding.read_value`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from utils.encoding import encoding, read_coded, read_value, write_plain, write_texts
from utils.errors import missing
from utils.io import add_column, keys, obs_column, obs_element, read_element, reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    import scipy.sparse as sp
    import zarr

    from utils.io import Group

LARGEST = 1e15  # of a coordinate, whose square float32 must hold


def read_embedding(root: Group, key: str, *, n_dims: int | None = None) -> np.ndarray:
    """Read an element of obsm: an array of numbers, cells x dimensions.

    Parameters
    ----------
    root
        As returned by `open_store`.
    key
        Its key in obsm.
    n_dims
        How many dimensions it must have; ``None``: at least one.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is not there, something else, or too large for distances in float32.
    """
    if key not in keys(root, "obsm"):
        raise KeyError(missing("adata.obsm has no", key, keys(root, "obsm")))
    found = read_element(root, f"obsm/{key}")
    found = found.to_numpy() if hasattr(found, "to_numpy") else found  # a data frame
    kind = type(found).__name__
    if isinstance(found, np.ndarray):
        n_found = found.shape[1] if found.ndim == 2 else 0
        if found.dtype.kind in "fiu" and (n_found == n_dims if n_dims else n_found > 0):
            # NaN and infinite ones are for the caller: mostly cells that take no part.
            most = max(-np.fmin.reduce(found, axis=None), np.fmax.reduce(found, axis=None))
            if LARGEST < most < np.inf:
                raise ValueError(f'adata.obsm["{key}"] has values up to {most:.0e}; scale them')
            return found
        kind = f"{found.dtype} of shape {found.shape}"
    raise TypeError(
        f'adata.obsm["{key}"] must be numbers, cells x {n_dims or "dimensions"}; found {kind}'
    )


def read_csr(root: Group, name: str) -> sp.csr_matrix:
    """Read a square matrix, such as ``obsp/connectivities``, as CSR.

    Raises
    ------
    KeyError
        If it is not there; lists what is.
    """
    import scipy.sparse as sp

    matrix = sp.csr_matrix(read_element(root, name))
    # Made anew, SciPy gives small matrices indices of 32 bits, however they are stored.
    return sp.csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)


def read_text(root: Group, name: str) -> str | None:
    """Read a text in a mapping, such as ``uns/neighbors/params/metric``; None if it has none."""
    parent, _, key = name.rpartition("/")
    if parent not in root or not hasattr(root[parent], "keys") or key not in root[parent]:
        return None
    # Files of anndata 0.7 do not tell one text from several, and some not from numbers.
    if encoding(root[name]) not in ("string", "string-array", ""):
        return None
    value = read_element(root, name)
    return str(value) if isinstance(value, str) else None


def read_categorical(root: Group, column: str) -> tuple[np.ndarray, list[str]]:
    """Read a column of obs as categories: of text, numbers or truth values.

    Returns
    -------
    tuple
        int64, the position of each cell's name (-1: it has none); the names that occur as text,
        in the order of the categories, or sorted where the column is not categorical.

    Raises
    ------
    KeyError
        If it is not there; lists what is.
    """
    found = obs_element(root, column)
    with reading(root, f"obs/{column}"):
        if encoding(found) == "categorical":
            codes, categories, _ = read_coded(found)
        else:
            import pandas as pd

            values = pd.Categorical(read_value(found))
            codes, categories = values.codes, values.categories
    names = [str(name) for name in categories]
    codes = np.asarray(codes, dtype=np.int64)
    known = codes >= 0
    used = np.bincount(codes[known], minlength=len(names)) > 0
    # Text makes some categories one: 1 and "1".
    kept = list(dict.fromkeys(name for name, some in zip(names, used, strict=True) if some))
    place = {name: i for i, name in enumerate(kept)}
    return np.array([*(place.get(name, -1) for name in names), -1])[codes], kept


def read_labels(root: Group, column: str) -> np.ndarray | pd.Series:
    """Read a column of obs where only equal and unequal matter: a batch.

    Returns
    -------
    numpy.ndarray or pandas.Series
        int64, the position of each cell's category, where the column is categorical and no cell
        lacks it; else the column as it is.

    Raises
    ------
    KeyError
        If it is not there; lists what is.
    """
    found = obs_element(root, column)
    if encoding(found) == "categorical":
        with reading(root, f"obs/{column}"):
            codes = read_coded(found)[0]
        if codes.min(initial=0) >= 0:
            return codes.astype(np.int64)
    return obs_column(root, column)


def write_categorical(
    root: zarr.Group, column: str, codes: np.ndarray, names: Sequence[str]
) -> None:
    """Write a categorical column of obs, in one chunk: codes (-1: missing) and names of text."""
    attributes = {"ordered": False, "encoding-type": "categorical", "encoding-version": "0.2.0"}
    group = root["obs"].create_group(column, attributes=attributes)
    codes = np.asarray(codes).astype(np.min_scalar_type(-max(len(names), 1)))
    write_plain(group, "codes", codes, chunks=(max(len(codes), 1),))
    write_texts(group, "categories", np.array(names, dtype=object), "string-array")
    add_column(root["obs"], column)
