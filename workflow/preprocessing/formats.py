"""Counts as they leave the sequencing pipeline, opened like any other store.

AnnData stores are read in blocks. A 10x matrix is read whole, as its formats allow no other way
(one is text, the other has no order that is promised), and is handed on as a store in memory with
the layout of anndata, so that the steps that follow know one kind of input only.
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

from utils.cli import say
from utils.io import open_store
from utils.messages import one_line
from utils.paths import is_store, name_problem, split_file

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

    from utils.io import Group

# Files of a folder, by what they hold: what Cell Ranger 3 and later, and 2, call them.
_PARTS = {
    "matrix": ("matrix.mtx",),
    "features": ("features.tsv", "genes.tsv"),
    "barcodes": ("barcodes.tsv",),
}


def open_counts(file: str | Path) -> Group:
    """Open counts for reading: an AnnData store, or a 10x matrix.

    Parameters
    ----------
    file
        What `utils.io.open_store` takes; a 10x ``.h5`` file (Cell Ranger 2 and later); or a folder
        with ``matrix.mtx``, ``features.tsv`` (or ``genes.tsv``) and ``barcodes.tsv``, each as it is
        or with ``.gz``, and all with the same prefix where they have one.

    Returns
    -------
    h5py.Group or zarr.Group
        The root group. Of a 10x matrix it is in memory: ``X`` is CSR of float32, ``var`` is named
        by the symbols of the genes, made unique, and has the columns ``gene_ids`` and, where the
        file has it, ``feature_types``; features of all kinds are there, which is said where there
        are several.

    Raises
    ------
    FileNotFoundError
        If the file, or a part of the folder, is not there.
    ValueError
        If it is of another format, damaged, or holds several matrices.

    Notes
    -----
    Peak memory of a 10x matrix: about 40 bytes for every stored value.
    """
    if is_store(file):
        return open_store(file)
    if problem := name_problem(str(file)):
        raise ValueError(problem)
    path = split_file(file)[0]
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.is_dir():
        adata = _read_folder(path)
    elif path.suffix == ".h5":
        adata = _read_h5(path)
    else:
        raise ValueError(
            f"{path}: is no .h5ad, .zarr, .h5mu or 10x .h5 file, and no folder with matrix.mtx"
        )
    _describe(adata, path)
    return _in_memory(adata, path)


def _read_h5(path: Path) -> AnnData:
    """Read a 10x ``.h5`` file, all features of it."""
    import h5py

    try:
        with h5py.File(path, "r") as root:
            names = sorted(root)
            legacy = [name for name in names if isinstance(root[name], h5py.Group)]
            legacy = [name for name in legacy if {"genes", "barcodes", "indptr"} <= {*root[name]}]
            shape = "matrix" in root and "features" in root["matrix"]
    except OSError as error:
        raise ValueError(f"{path}: {_unread(error)}") from error
    if {"obs", "var"} <= {*names}:
        raise ValueError(f"{path}: is an AnnData file; let its name end in .h5ad")
    if not shape and not legacy:
        listed = ", ".join(map(one_line, names[:10])) or "nothing"
        raise ValueError(f"{path}: is no 10x matrix, it has no matrix/features; it has {listed}")
    if not shape and len(legacy) > 1:
        raise ValueError(
            f"{path}: holds several genomes, {', '.join(legacy)}; write the one that you want: "
            f'scanpy.read_10x_h5("{path.name}", genome="{legacy[0]}").write_h5ad(...)'
        )
    import scanpy

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*names are not unique")
            return scanpy.read_10x_h5(path, gex_only=False)
    except Exception as error:  # whatever the reader makes of a damaged file
        reason = error.__cause__ or error
        raise ValueError(f"{path}: cannot be read, it may be damaged: {_line(reason)}") from error


def _unread(error: OSError) -> str:
    if "lock" in str(error):
        return (
            "is locked: another process has it open for writing, or its file system has no locks "
            "(then set HDF5_USE_FILE_LOCKING=FALSE)"
        )
    return f"cannot be read, it may be damaged: {_line(error)}"


def _read_folder(path: Path) -> AnnData:
    """Read a folder with a matrix in text, its genes and its cells.

    Not by scanpy, which takes some pairs of names and compressions only, and takes the gene
    symbols NA and NAN for missing ones.
    """
    import numpy as np
    import scipy.io
    import scipy.sparse as sp
    from anndata import AnnData

    files = _parts(path)
    features, barcodes = _table(files["features"]), _table(files["barcodes"])
    if features.shape[1] < 2:
        # Of STARsolo, alevin and velocyto some name genes by one column only.
        features[1] = features[0]
    try:
        counts = scipy.io.mmread(files["matrix"])
    except Exception as error:  # whatever SciPy makes of a damaged file
        raise ValueError(
            f"{files['matrix']}: cannot be read, it may be damaged: {_line(error)}"
        ) from error
    expected = (len(features), len(barcodes))
    if counts.shape != expected:
        raise ValueError(
            f"{files['matrix']}: is {counts.shape[0]:,} x {counts.shape[1]:,}, but there are "
            f"{expected[0]:,} genes in {files['features'].name} and {expected[1]:,} cells in "
            f"{files['barcodes'].name}"
        )
    adata = AnnData(sp.csr_matrix(counts.T, dtype=np.float32))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names are not unique")
        adata.obs_names = barcodes[0].to_numpy()
        adata.var_names = features[1].to_numpy()
    adata.var["gene_ids"] = features[0].to_numpy()
    if features.shape[1] > 2:
        adata.var["feature_types"] = features[2].to_numpy()
    return adata


def _parts(path: Path) -> dict[str, Path]:
    """Find the three files of a folder; with a prefix where they have one."""
    pattern = re.compile(r"(.*)matrix\.mtx(\.gz)?", re.DOTALL)
    prefixes = [match[1] for item in path.iterdir() if (match := pattern.fullmatch(item.name))]
    prefixes = sorted(set(prefixes))
    if not prefixes:
        inner = sorted({item.parent for item in path.glob("*/*matrix.mtx*")})
        hint = f"; {' and '.join(map(str, inner[:5]))} has one" if inner else ""
        raise FileNotFoundError(
            f"{path}: is a folder without matrix.mtx or matrix.mtx.gz, and no .zarr store{hint}"
        )
    if len(prefixes) > 1:
        raise ValueError(
            f"{path}: holds several matrices, "
            f"{', '.join(f'{one_line(prefix)}matrix.mtx' for prefix in prefixes)}; put each in a "
            "folder of its own, with its genes and cells"
        )
    files = {}
    for part, names in _PARTS.items():
        wanted = [f"{prefixes[0]}{name}{end}" for name in names for end in ("", ".gz")]
        present = [name for name in wanted if (path / name).is_file()]
        if not present:
            raise FileNotFoundError(f"{path}: has no {' or '.join(wanted)}")
        if len(present) > 1:
            raise ValueError(f"{path}: has both {' and '.join(present)}; remove all but one")
        files[part] = path / present[0]
    return files


def _table(file: Path) -> pd.DataFrame:
    """Read a table of text, in which nothing stands for a missing value."""
    import csv

    import pandas as pd

    try:
        return pd.read_csv(
            file, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=csv.QUOTE_NONE
        )
    except Exception as error:  # whatever pandas makes of a damaged or empty file
        raise ValueError(f"{file}: cannot be read, it may be damaged: {_line(error)}") from error


def _describe(adata: AnnData, path: Path) -> None:
    """Make the names of genes unique, and say so; say of features that are no genes."""
    repeated = adata.var_names.duplicated()
    if repeated.any():
        symbols = adata.var_names[repeated].unique()
        example = one_line(symbols[0])
        say(
            f'{path}: {len(symbols):,} gene symbols occur more than once, such as "{example}"; '
            f'they are made unique: "{example}-1", ... (var/gene_ids tells them apart)'
        )
        with warnings.catch_warnings():
            # A name with "-1" may be taken; anndata then takes the next one.
            warnings.filterwarnings("ignore", message="Suffix used")
            adata.var_names_make_unique()
    if "feature_types" in adata.var:
        kinds = adata.var["feature_types"].value_counts()
        if len(kinds) > 1:
            listed = ", ".join(f"{n:,} {one_line(kind)}" for kind, n in kinds.items())
            say(f"{path}: holds features of several kinds: {listed}")


def _in_memory(adata: AnnData, path: Path) -> Group:
    """Return a zarr group in memory that holds the data, and names its file in errors."""
    import zarr
    from anndata.io import write_elem
    from zarr.storage import MemoryStore

    store = MemoryStore()
    store.root = path  # type: ignore[attr-defined]  # as a LocalStore has it
    write_elem(zarr.open_group(store, mode="w", zarr_format=2), "/", adata)
    return zarr.open_group(store, mode="r+")  # opened again: its attributes are known now


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
