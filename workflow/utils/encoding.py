"""Read and write values in anndata's layouts, without anndata where it is not needed.

Importing anndata takes longer than most steps take to read and write: 0.3 s, more than once for
every method. They read mostly columns and arrays and write arrays of numbers, CSR matrices, text
and mappings of these. `read_value` reads the layouts of anndata 0.7 and later; `write_plain` writes
those of 0.8 and later, with the chunks and types of anndata's own writer.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp
    import zarr

MAPPING = {"encoding-type": "dict", "encoding-version": "0.1.0"}
CSR = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0"}
NULL = {"encoding-type": "null", "encoding-version": "0.1.0"}
NUMBER = (bool, int, float, np.bool_, np.integer, np.floating)


def attribute(element: Any, name: str, default: Any = None) -> Any:
    """Read an attribute of a group or array; fixed-length text (of Julia, R) is decoded."""
    value = element.attrs.get(name, default)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray) and value.dtype.kind in "SO":
        return [item.decode() if isinstance(item, bytes) else item for item in value.tolist()]
    return value


def encoding(element: Any) -> str:
    """Return the encoding type of a group or array, as anndata 0.8 names it.

    Files of anndata 0.7 and older and of other writers have no such attribute: it is inferred.

    Parameters
    ----------
    element
        A group or array of HDF5 or zarr.

    Returns
    -------
    str
        Such as ``array`` or ``categorical``; empty where only anndata can infer it.
    """
    if kind := attribute(element, "encoding-type"):
        return str(kind)
    if sparse := attribute(element, "h5sparse_format"):  # csr, csc: anndata 0.6
        return f"{sparse}_matrix"
    if hasattr(element, "keys"):
        return "dict"
    if "categories" in element.attrs:
        return "categorical"
    if element.dtype.kind in "biufc":
        return "array"
    return "string-array" if element.dtype.kind in "OT" else ""


def read_value(element: Any) -> Any:
    """Read a group or array as anndata does, importing anndata only for rare encodings.

    Parameters
    ----------
    element
        A group or array of HDF5 or zarr, in the layout of any anndata from 0.7 on.

    Returns
    -------
    Any
        In memory: an array, a sparse matrix, a ``pandas.Categorical`` or other pandas array, a
        data frame, a mapping (also for ``raw``), a text, a number or None.
    """
    kind = encoding(element)
    if kind == "array":
        return element[()]
    if kind == "string-array":
        return (element.asstr() if hasattr(element, "asstr") else element)[()]  # HDF5, zarr
    if kind == "categorical":
        import pandas as pd

        codes, categories, ordered = read_coded(element)
        return pd.Categorical.from_codes(codes, categories, ordered=ordered)
    if kind == "dataframe":
        return _read_frame(element)
    if kind in ("dict", "raw"):
        return {name: read_value(element[name]) for name in sorted(element.keys())}
    if kind in ("csr_matrix", "csc_matrix"):
        return _read_sparse(element, kind)
    if kind == "null":
        return None
    if kind == "string":
        return element.asstr()[()] if hasattr(element, "asstr") else str(element[()])
    if kind == "numeric-scalar":
        return element[()].item()
    from anndata.io import read_elem

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*written without encoding metadata")
        return read_elem(element)


def read_coded(element: Any) -> tuple[np.ndarray, np.ndarray, bool]:
    """Read a ``categorical`` without pandas.

    Parameters
    ----------
    element
        Whose `encoding` is ``categorical``: a group, or in files of anndata 0.7 an array of codes
        that refers to its categories.

    Returns
    -------
    tuple
        The code of each value (-1: missing), the categories, and whether they are ordered.
    """
    if hasattr(element, "keys"):
        ordered = bool(attribute(element, "ordered", False))
        return read_value(element["codes"]), read_value(element["categories"]), ordered
    reference = element.attrs["categories"]
    if hasattr(element, "parent"):  # HDF5: a reference, or a path
        categories = element.parent[reference]
    else:
        import zarr

        parent = element.path.rpartition("/")[0]
        categories = zarr.open_group(element.store, path=parent, mode="r", use_consolidated=False)[
            reference
        ]
    return element[()], read_value(categories), bool(attribute(categories, "ordered", False))


def _read_frame(group: Any) -> pd.DataFrame:
    import pandas as pd

    columns = [str(name) for name in attribute(group, "column-order")]
    index = attribute(group, "_index")
    frame = pd.DataFrame(
        {name: read_value(group[name]) for name in columns},
        index=read_value(group[index]),
        columns=columns or None,
    )
    if index != "_index":
        frame.index.name = index
    return frame


def _read_sparse(group: Any, kind: str) -> sp.csr_matrix | sp.csc_matrix:
    import scipy.sparse as sp

    # Assigned one by one, as the constructor would change the type of the indices.
    matrix = (sp.csr_matrix if kind == "csr_matrix" else sp.csc_matrix)(
        stored_shape(group), dtype=group["data"].dtype
    )
    matrix.data, matrix.indices, matrix.indptr = (
        group[part][...] for part in ("data", "indices", "indptr")
    )
    return matrix


def stored_shape(element: Any) -> tuple[int, ...]:
    """Return the shape of an array or a sparse matrix without reading it."""
    shape = getattr(element, "shape", None)
    if shape is None:
        shape = element.attrs.get("shape", element.attrs.get("h5sparse_shape"))
    return tuple(int(n) for n in shape)


def read_index_values(element: Any) -> np.ndarray:
    """Read the index of a data frame, also one that pandas 3 wrote, as an array of objects."""
    if encoding(element) == "nullable-string-array" and not element["mask"][()].any():
        element = element["values"]
    return np.asarray(read_value(element), dtype=object)


def is_plain(value: Any) -> bool:
    """Return whether `write_plain` can write a value."""
    if isinstance(value, dict):
        return all(
            isinstance(key, str) and "/" not in key and is_plain(item)
            for key, item in value.items()
        )
    if type(value) is np.ndarray:
        return value.dtype.kind in "biuf"
    return value is None or isinstance(value, (str, *NUMBER)) or _is_csr(value)


def write_plain(group: zarr.Group, key: str, value: Any, *, chunks: Any = "auto") -> None:
    """Write a value for which `is_plain` is true.

    Parameters
    ----------
    group
        The group to write into.
    key
        Name of the new element.
    value
        A numeric array, a CSR matrix, a text, a number, None or a mapping of these.
    chunks
        Chunk shape of an array; by default zarr's choice.
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
    if not value.ndim:
        options |= {"filters": None, "fill_value": None}
    elif (fill_value := missing_chunk_value(value.dtype)) is not None:
        options["fill_value"] = fill_value
    array = group.create_array(key, shape=value.shape, dtype=value.dtype, **options)
    array[...] = value


def missing_chunk_value(dtype: np.dtype) -> float | int | None:
    """Return the fill value that zarr reads for a lost chunk: NaN, -1; None: its default, 0.

    Zeros would be taken for data. An index of -1 is refused, a code of -1 is a missing category.
    """
    return {"f": float("nan"), "i": -1}.get(np.dtype(dtype).kind)


def write_texts(group: zarr.Group, key: str, texts: np.ndarray, encoding: str) -> None:
    """Write one text (`encoding` ``string``) or several (``string-array``), in one chunk."""
    from zarr.core.dtype import VariableLengthUTF8

    # Format 2 needs a filter, format 3 has none.
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
    # Without importing SciPy, which a step may not need.
    return type(value).__module__.startswith("scipy.sparse") and value.format == "csr"


def plain_text(value: Any) -> Any:
    """Convert text without missing values to objects.

    anndata then writes it as ``string-array``, which every version from 0.8 on reads, with any
    version of pandas; text with missing values remains a ``nullable-string-array``.

    Parameters
    ----------
    value
        A data frame, a column, an index, a mapping of these, or anything else, which is returned
        unchanged. It is not modified.
    """
    import pandas as pd

    if isinstance(value, dict):
        return {key: plain_text(item) for key, item in value.items()}
    if isinstance(value, pd.DataFrame):
        return _plain_frame(value)
    if isinstance(value, pd.Categorical):
        return value.rename_categories(plain_text(value.categories))
    if isinstance(value, np.ndarray):
        # anndata refuses objects that are not text; converted they would be other values.
        is_column = value.dtype == object and value.ndim == 1 and _is_text(value)
        return pd.array(value, dtype="string") if is_column and pd.isna(value).any() else value
    if not isinstance(value, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        return value
    if not _is_text(value):
        return value
    return value.astype("string" if pd.isna(value).any() else object)


def _plain_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Convert the columns of text, the categories and the index of a data frame."""
    import pandas as pd

    # By astype, as pandas 3 makes text of objects that a data frame is constructed from.
    texts = [name for name in frame.columns if _is_text(frame[name])]
    types = {name: "string" if frame[name].isna().any() else object for name in texts}
    categories = {
        name: plain_text(frame[name].array)
        for name in frame.columns
        if isinstance(frame[name].dtype, pd.CategoricalDtype)
    }
    return frame.astype(types).assign(**categories).set_axis(plain_text(frame.index))


def _is_text(values: Any) -> bool:
    import pandas as pd

    if isinstance(values.dtype, pd.StringDtype):
        return True
    return values.dtype == object and pd.api.types.infer_dtype(values, skipna=True) == "string"
