"""Plain values as anndata reads and writes them, without anndata where it is not needed.

Importing anndata takes longer than most steps take to read and write: 0.3 s, more than once for
every method. What they read is mostly columns and arrays; what they write is arrays of numbers,
CSR matrices, text, and mappings of these. The layout is that of anndata's file format (on-disk
specification of anndata 0.8 and later), with the chunks and types of its own writer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import zarr

MAPPING = {"encoding-type": "dict", "encoding-version": "0.1.0"}
CSR = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0"}
NULL = {"encoding-type": "null", "encoding-version": "0.1.0"}
NUMBER = (bool, int, float, np.bool_, np.integer, np.floating)


def read_value(found: Any) -> Any:
    """Read a group or array as anndata does, which is loaded for what is no array or category."""
    kind = found.attrs.get("encoding-type")
    if kind == "array":
        return found[()]
    if kind == "string-array":
        return (found.asstr() if hasattr(found, "asstr") else found)[()]  # HDF5, zarr
    if kind == "categorical":
        import pandas as pd

        codes, categories = read_value(found["codes"]), read_value(found["categories"])
        return pd.Categorical.from_codes(codes, categories, ordered=bool(found.attrs["ordered"]))
    from anndata.io import read_elem

    return read_elem(found)


def read_names(found: Any) -> np.ndarray:
    """Read the index of a data frame as an array of objects, also as pandas 3 has it written."""
    nullable = found.attrs.get("encoding-type") == "nullable-string-array"
    if nullable and not found["mask"][()].any():
        found = found["values"]
    return np.asarray(read_value(found), dtype=object)


def is_plain(value: Any) -> bool:
    """Whether `write_plain` can write it."""
    if isinstance(value, dict):
        return all(
            isinstance(key, str) and "/" not in key and is_plain(item)
            for key, item in value.items()
        )
    if type(value) is np.ndarray:
        return value.dtype.kind in "biuf"
    return value is None or isinstance(value, (str, *NUMBER)) or _is_csr(value)


def write_plain(group: zarr.Group, key: str, value: Any, *, chunks: Any = "auto") -> None:
    """Write a value that `is_plain`.

    Parameters
    ----------
    group
        Where to write.
    key
        Its name there, which is free.
    value
        A numeric array, a CSR matrix, a text, a number, ``None`` or a mapping of these.
    chunks
        Of an array; by default as zarr chooses.
    """
    if isinstance(value, dict):
        inner = group.create_group(key, attributes=MAPPING)
        for name, item in value.items():
            write_plain(inner, name, item)
    elif _is_csr(value):
        inner = group.create_group(key, attributes={"shape": list(value.shape), **CSR})
        for part in ("data", "indices", "indptr"):
            _write_numbers(inner, part, getattr(value, part), chunks=chunks)
    elif isinstance(value, str):
        write_texts(group, key, np.array(value, dtype=object), "string")
    elif value is None:
        group.create_array(key, shape=(), dtype="bool", attributes=NULL)
    else:
        kind = "array" if np.ndim(value) else "numeric-scalar"
        attributes = {"encoding-type": kind, "encoding-version": "0.2.0"}
        _write_numbers(group, key, np.asarray(value), chunks=chunks, attributes=attributes)


def _write_numbers(group: zarr.Group, key: str, value: np.ndarray, **options: Any) -> None:
    scalar = {} if value.ndim else {"filters": None, "fill_value": None}
    array = group.create_array(key, shape=value.shape, dtype=value.dtype, **options, **scalar)
    array[...] = value


def write_texts(group: zarr.Group, key: str, texts: np.ndarray, encoding: str) -> None:
    """Write one text (`encoding` ``string``) or several (``string-array``), in one chunk."""
    from zarr.core.dtype import VariableLengthUTF8

    # There is no filter to name in format 3, and only there.
    v2 = group.metadata.zarr_format == 2
    filters: Any = "auto"
    if v2:
        from numcodecs import VLenUTF8

        filters = [VLenUTF8()]
    array = group.create_array(
        key,
        shape=texts.shape,
        dtype=VariableLengthUTF8(),
        filters=filters,
        fill_value="" if v2 else None,
        chunks=tuple(max(n, 1) for n in texts.shape) or "auto",
        attributes={"encoding-type": encoding, "encoding-version": "0.2.0"},
    )
    array[...] = texts


def _is_csr(value: Any) -> bool:
    # Without loading SciPy, which a step may not need.
    return type(value).__module__.startswith("scipy.sparse") and value.format == "csr"
