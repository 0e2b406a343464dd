"""Read elements of a store by kind, most of them without pandas; write categorical columns.

The workflow runs a job per cluster column, and importing anndata and pandas takes half as long as
clustering 50,000 cells. Values are read by `utils.encoding.read_value`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from utils.encoding import encoding, read_coded, read_value, write_plain, write_texts
from utils.errors import missing
from utils.io import add_column, keys, read_element, read_index, reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    import scipy.sparse as sp
    import zarr

    from utils.io import Group

# Largest coordinate, of which float32 must hold the square.
LARGEST = 1e15


def read_embedding(root: Group, key: str, *, n_dims: int | None = None) -> np.ndarray:
    """Read an embedding of obsm: numbers, cells x dimensions.

    Parameters
    ----------
    root
        As returned by `open_store`.
    key
        Its key in obsm.
    n_dims
        Number of dimensions that it must have; None: at least one.

    Raises
    ------
    KeyError, TypeError, ValueError
        If there is none, it is something else, or its values are too large for distances in
        float32.
    """
    if key not in keys(root, "obsm"):
        raise KeyError(missing("adata.obsm has no", key, keys(root, "obsm")))
    values = read_element(root, f"obsm/{key}")
    values = values.to_numpy() if hasattr(values, "to_numpy") else values  # a data frame
    kind = type(values).__name__
    if isinstance(values, np.ndarray):
        n_columns = values.shape[1] if values.ndim == 2 else 0
        if values.dtype.kind in "fiu" and (n_columns == n_dims if n_dims else n_columns > 0):
            # NaN and infinite values are left to the caller: mostly cells that take no part.
            largest = max(-np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None))
            if LARGEST < largest < np.inf:
                raise ValueError(f'adata.obsm["{key}"] has values up to {largest:.0e}; scale them')
            return values
        kind = f"{values.dtype} of shape {values.shape}"
    raise TypeError(
        f'adata.obsm["{key}"] must be numbers, cells x {n_dims or "dimensions"}; found {kind}'
    )


def read_csr(root: Group, name: str) -> sp.csr_matrix:
    """Read a square matrix, such as ``obsp/connectivities``, as CSR.

    Raises
    ------
    KeyError
        If there is none; lists those that there are.
    """
    import scipy.sparse as sp

    matrix = sp.csr_matrix(read_element(root, name))
    # Constructed from its parts, SciPy gives a small matrix 32-bit indices, however stored.
    return sp.csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)


def read_text(root: Group, name: str) -> str | None:
    """Read a text such as ``uns/neighbors/params/metric``; None where there is no such text."""
    parent, _, key = name.rpartition("/")
    if parent not in root or not hasattr(root[parent], "keys") or key not in root[parent]:
        return None
    # Files of anndata 0.7 do not distinguish a text from several, or from some numbers.
    if encoding(root[name]) not in ("string", "string-array", ""):
        return None
    value = read_element(root, name)
    return str(value) if isinstance(value, str) else None


def _stored_column(root: Group, column: str) -> Any:
    """Return a column of obs as it is stored."""
    if column not in keys(root, "obs"):
        raise KeyError(missing("adata.obs has no column", column, keys(root, "obs")))
    with reading(root, f"obs/{column}"):
        return root[f"obs/{column}"]


def read_column(root: Group, column: str) -> pd.Series:
    """Read a column of obs, indexed by cell.

    Raises
    ------
    KeyError
        If there is none; suggests a similar name and lists those that there are.
    """
    import pandas as pd

    stored = _stored_column(root, column)
    with reading(root, f"obs/{column}"):
        return pd.Series(read_value(stored), index=read_index(root, "obs"), name=column)


def read_categorical(root: Group, column: str) -> tuple[np.ndarray, list[str]]:
    """Read a column of obs, of text, numbers or truth values, as categories.

    Returns
    -------
    tuple
        int64, the category of each cell (-1: missing); the names of the categories that cells
        have, as text, in the order of the categories, or sorted where the column is not
        categorical.

    Raises
    ------
    KeyError
        As `read_column`.
    """
    stored = _stored_column(root, column)
    with reading(root, f"obs/{column}"):
        if encoding(stored) == "categorical":
            codes, categories, _ = read_coded(stored)
        else:
            import pandas as pd

            values = pd.Categorical(read_value(stored))
            codes, categories = values.codes, values.categories
    names = [str(name) for name in categories]
    codes = np.asarray(codes, dtype=np.int64)
    n_cells = np.bincount(codes[codes >= 0], minlength=len(names))
    # Categories whose text is the same, as 1 and "1", become one.
    used = list(dict.fromkeys(name for name, n in zip(names, n_cells, strict=True) if n))
    position = {name: i for i, name in enumerate(used)}
    return np.array([*(position.get(name, -1) for name in names), -1])[codes], used


def read_batch(root: Group, column: str) -> np.ndarray | pd.Series:
    """Read a column of obs of which only matters which cells have equal values.

    Returns
    -------
    numpy.ndarray or pandas.Series
        int64, the category of each cell, where the column is categorical and no value is missing;
        else as `read_column`, which needs pandas.

    Raises
    ------
    KeyError
        As `read_column`.
    """
    stored = _stored_column(root, column)
    if encoding(stored) == "categorical":
        with reading(root, f"obs/{column}"):
            codes = read_coded(stored)[0]
        if codes.min(initial=0) >= 0:
            return codes.astype(np.int64)
    return read_column(root, column)


def write_categorical(
    root: zarr.Group, column: str, codes: np.ndarray, names: Sequence[str]
) -> None:
    """Write a categorical column of obs, in one chunk, from codes (-1: missing) and names."""
    attributes = {"ordered": False, "encoding-type": "categorical", "encoding-version": "0.2.0"}
    group = root["obs"].create_group(column, attributes=attributes)
    codes = np.asarray(codes).astype(np.min_scalar_type(-max(len(names), 1)))
    write_plain(group, "codes", codes, chunks=(max(len(codes), 1),))
    write_texts(group, "categories", np.array(names, dtype=object), "string-array")
    add_column(root["obs"], column)
