"""Parse the names of input files: the format, and the group in a file of several."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# How to convert formats that cannot be read, by suffix.
_CONVERSIONS = {
    ".loom": "convert it with scanpy.read_loom(...).write_h5ad(...)",
    ".csv": "convert it with scanpy.read_csv(...).write_h5ad(...)",
    ".tsv": "convert it with scanpy.read_text(...).write_h5ad(...)",
    ".txt": "convert it with scanpy.read_text(...).write_h5ad(...)",
    ".mtx": "give the folder that contains it",
    ".gz": "unpack it, or give the folder that contains it",
    ".zip": "unpack it",
    ".rds": "convert it in R, with anndataR::write_h5ad(...)",
    ".h5seurat": "convert it in R, with anndataR::write_h5ad(...)",
}


def split_file(file: str | Path) -> tuple[Path, str]:
    """Split ``file.h5mu::rna`` or ``store.zarr::tables/table`` into the path and the group.

    Parameters
    ----------
    file
        As a user writes it.

    Returns
    -------
    tuple
        The path, and the group in it: ``mod/rna``, ``tables/table``; for a 10x ``.h5`` the genome,
        for a folder the prefix of its files; empty: the whole file.
    """
    path, _, group = str(file).partition("::")
    group = group.strip("/")
    if PurePath(path).suffix == ".h5mu" and group and not group.startswith("mod/"):
        group = f"mod/{group}"
    return Path(path), group


def disk_path(file: str | Path) -> Path:
    """Return the path of a file on disk; for a table in a zarr store, the folder of the table."""
    path, group = split_file(file)
    return path / group if is_linkable(file) else path


def is_linkable(file: str | Path) -> bool:
    """Return whether a name is that of a zarr store or a table in one, which can be linked to."""
    return split_file(file)[0].suffix == ".zarr"


def is_store(file: str | Path) -> bool:
    """Return whether a name is that of an AnnData file, rather than of another count matrix."""
    return split_file(file)[0].suffix in (".h5ad", ".zarr", ".h5mu")


def name_problem(file: str, *, stage: str = "preprocessing") -> str:
    """Describe what is wrong with the name of an input file; empty: nothing.

    Parameters
    ----------
    file
        As a user writes it: ``.h5ad``, ``.zarr``, ``.h5mu::modality``, and at `stage`
        ``preprocessing`` also ``.h5`` or the folder of a 10x matrix.
    stage
        The stage at which it enters the workflow.
    """
    path, group = split_file(file)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(file)):
        return f"{file!r}: URLs cannot be read; download it first"
    if path.suffix == ".h5mu":
        return "" if group else f"{file!r} holds several modalities; name one: {path}::rna"
    if group and path.suffix.lower() == ".h5ad":
        return f"{file!r}: .h5ad holds one table; remove ::{group}"
    if path.suffix in (".h5ad", ".zarr"):
        return ""
    if path.suffix.lower() in (".h5ad", ".zarr", ".h5mu", ".h5"):
        if path.suffix != ".h5":
            return f"{file!r}: write the ending in lower case, {path.suffix.lower()}"
    elif how := _CONVERSIONS.get(path.suffix.lower()):
        return f"{file!r}: {path.suffix} cannot be read; {how}"
    if stage != "preprocessing":
        return (
            f"{file!r} is not an AnnData file (.h5ad or .zarr); a 10x matrix has only counts and "
            "enters at preprocessing"
        )
    return ""


def changed_at(files: Iterable[str | Path]) -> int:
    """Return when ``.zarr`` inputs were last written to, in nanoseconds; 0 where there are none.

    The modification time of a store, which is a folder, does not change with files further down;
    those of the folders in it do, as a rewritten chunk is renamed into one. The chunks themselves
    are not looked at, so that ten thousand of them take some milliseconds.
    """
    newest = 0
    folders = [split_file(file)[0] for file in files]
    folders = [folder for folder in folders if folder.suffix == ".zarr" and folder.is_dir()]
    while folders:
        folder = folders.pop()
        newest = max(newest, folder.stat().st_mtime_ns)
        with os.scandir(folder) as entries:
            folders += [Path(entry.path) for entry in entries if entry.is_dir()]
    return newest
