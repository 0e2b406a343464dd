"""Write a store, with all that it links to, as one .h5ad file; matrices in blocks of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from utils.blocks import ARRAY_ATTRIBUTES, matrix_shape, n_blocks, row_blocks
from utils.encoding import plain_text
from utils.io import ANNDATA, SLOTS, is_matrix, keys, read_element
from utils.log import progress, say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import h5py

    from utils.io import Group

CHUNK_VALUES = 1 << 18
# The fastest setting of the filter that every HDF5 library has.
COMPRESSION = {"compression": "gzip", "compression_opts": 1, "shuffle": True}


def write_h5ad(root: Group, path: Path, *, uns: Mapping[str, Any] | None = None) -> None:
    """Write all elements of a store into one file without links.

    Parameters
    ----------
    root
        As returned by `utils.io.open_store`.
    path
        The file to write; an existing one is replaced.
    uns
        Further elements of ``uns``; those of the store take precedence.

    Notes
    -----
    X, layers, raw and obsp are copied in blocks of rows, CSC as CSR; text is written for anndata
    0.8 and later. Peak memory: obs, var, obsm, varm and uns, and three blocks of a matrix.
    """
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs.update(ANNDATA)
        for slot in SLOTS:
            if slot in ("X", "layers", "obsp"):
                _copy_matrices(file, slot, root)
            elif slot == "raw":
                _copy_raw(file, root)
            else:
                value = read_element(root, slot) if slot in root else {}
                _write(file, slot, {**(uns or {}), **value} if slot == "uns" else value)


def _copy_matrices(file: h5py.Group, slot: str, root: Group) -> None:
    """Copy X, or all elements of a mapping of matrices."""
    if slot == "X":
        if "X" in root and is_matrix(root["X"]):
            _copy_matrix(file, "X", root["X"])
        return
    _write(file, slot, {})
    for name in keys(root, slot):
        element = root[f"{slot}/{name}"]
        if is_matrix(element):
            _copy_matrix(file[slot], name, element)
        else:
            _write(file[slot], name, read_element(root, f"{slot}/{name}"))


def _copy_raw(file: h5py.Group, root: Group) -> None:
    if "X" not in keys(root, "raw"):
        return
    group = file.create_group("raw")
    group.attrs.update({"encoding-type": "raw", "encoding-version": "0.1.0"})
    _copy_matrix(group, "X", root["raw/X"])
    for name in keys(root, "raw"):
        if name != "X":
            _write(group, name, read_element(root, f"raw/{name}"))


def _write(group: h5py.Group, name: str, value: Any) -> None:
    import anndata
    from anndata.io import write_elem

    where = f"{group.name}/{name}".strip("/")
    with anndata.settings.override(allow_write_nullable_strings=True):
        write_elem(group, name, plain_text(_for_anndata_010(value, where)))


def _for_anndata_010(value: Any, where: str) -> Any:
    """Drop what anndata 0.10 cannot read (None); make text with missing values categorical."""
    import pandas as pd

    if isinstance(value, dict):
        for name in [name for name, item in value.items() if item is None]:
            say(f"{where}/{name} is None, which anndata 0.10 cannot read: left out of the file")
        return {
            name: _for_anndata_010(item, f"{where}/{name}")
            for name, item in value.items()
            if item is not None
        }
    if not isinstance(value, pd.DataFrame):
        return value
    texts = {
        name: pd.Categorical(value[name])
        for name in value
        if value[name].isna().any()
        and pd.api.types.infer_dtype(value[name], skipna=True) == "string"
    }
    return value.assign(**texts)


def _copy_matrix(parent: h5py.Group, name: str, matrix: Any) -> None:
    """Copy a stored matrix, dense or sparse, in blocks of rows."""
    n_cells, n_genes = matrix_shape(matrix)
    blocks = progress(row_blocks(matrix), desc=f"writing {name}", total=n_blocks(matrix))
    if hasattr(matrix, "shape"):
        array = parent.create_dataset(
            name,
            shape=(n_cells, n_genes),
            dtype=matrix.dtype,
            chunks=(max(1, min(n_cells, CHUNK_VALUES // max(n_genes, 1))), max(n_genes, 1)),
            **COMPRESSION,
        )
        array.attrs.update(ARRAY_ATTRIBUTES)
        start = 0
        for block in blocks:
            array[start : start + len(block)] = block
            start += len(block)
        return
    group = parent.create_group(name)
    group.attrs.update(
        {
            "encoding-type": "csr_matrix",
            "encoding-version": "0.1.0",
            "shape": np.array([n_cells, n_genes]),
        }
    )
    arrays = {
        part: group.create_dataset(
            part, shape=(0,), maxshape=(None,), chunks=(CHUNK_VALUES,), dtype=dtype, **COMPRESSION
        )
        for part, dtype in (("data", matrix["data"].dtype), ("indices", np.int32))
    }
    pointers = [np.zeros(1, np.int64)]
    n_values = 0
    for block in blocks:
        rows = sp.csr_matrix(block)
        rows.sort_indices()  # R's readers expect it
        for part, array in arrays.items():
            array.resize((n_values + rows.nnz,))
            array[n_values:] = getattr(rows, part)
        pointers.append(rows.indptr[1:].astype(np.int64) + n_values)
        n_values += rows.nnz
    group.create_dataset("indptr", data=np.concatenate(pointers), **COMPRESSION)
    for array in group.values():
        array.attrs.update(ARRAY_ATTRIBUTES)
