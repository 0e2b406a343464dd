"""Open an AnnData file, or one table of a file that holds several; say in one line why not."""

from __future__ import annotations

import contextlib
import errno
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import zarr

from utils.errors import missing
from utils.links import broken_link, is_group
from utils.paths import disk_path, name_problem, split_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import h5py

    Group = h5py.Group | zarr.Group

# Where files of several tables keep them: MuData, SpatialData, SpatialData before 0.1.
HOLDERS = ("mod", "tables", "table")

# Two things that zarr 3 says of every v3 store that anndata writes; nothing can be done about them.
warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
warnings.filterwarnings("ignore", message="(?s).*does not have a Zarr V3 specification")


def open_store(file: str | Path) -> Group:
    """Open an AnnData file for reading.

    Parameters
    ----------
    file
        An ``.h5ad`` file, a ``.zarr`` folder, or one table of several: ``file.h5mu::rna``,
        ``store.zarr::tables/table``.

    Returns
    -------
    h5py.Group or zarr.Group
        The group that holds ``obs``, read-only.

    Raises
    ------
    FileNotFoundError
        If the file, or an element that it links to, is not there.
    ValueError
        If it is no AnnData file, one of before anndata 0.7, a locked or a damaged one.
    KeyError
        If it holds no such table; lists those that it holds.
    """
    path, group = split_file(file)
    if problem := name_problem(str(file), stage=""):
        raise ValueError(problem)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        whole = _open_zarr(path, group) if path.suffix == ".zarr" else open_hdf5(path)
        root = whole.get(group) if group else whole
        root = root if hasattr(root, "keys") else None
        tables = _tables(whole)
        if root is not None:
            _check_frames(root, file, tables)
    except (FileNotFoundError, Refused):
        raise
    except Exception as error:  # whatever the libraries make of a damaged file
        raise damaged(f"{path}:", error) from error
    if root is None:
        raise KeyError(missing(f"{path} has no table", group, tables))
    return root


class Refused(ValueError):
    """A file that is in order, but not to be read as it is."""


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading; a lock is named as one."""
    import h5py

    if path.is_dir():
        hint = "; it is a zarr store: rename it to .zarr" if is_group(path) else ""
        raise Refused(f"{path}: is a folder, {path.suffix} is a file{hint}")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        words = str(error)
        if "unable to lock file" in words:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise Refused(
                    f"{path}: is locked, another process has it open for writing; wait until it "
                    "is closed"
                ) from error
            raise Refused(
                f"{path}: its file system has no locks; set HDF5_USE_FILE_LOCKING=FALSE in the "
                f"environment ({_line(error)})"
            ) from error
        if "already open for write" in words:
            raise Refused(
                f"{path}: another process is writing it, or was killed while it did; if it is "
                f"complete, clear the mark: h5clear -s {path}"
            ) from error
        raise


def _open_zarr(path: Path, group: str) -> Group:
    if path.is_file():
        if zipfile.is_zipfile(path):
            raise Refused(f"{path}: is a zip file, a .zarr store is a folder; unpack it")
        raise Refused(f"{path}: is a file, a .zarr store is a folder")
    if not is_group(path):
        raise Refused(f"{path}: is a folder without a zarr store in it")
    folder = disk_path(f"{path}::{group}")
    if folder.is_dir() and (gone := broken_link(folder)):
        raise FileNotFoundError(
            f"{path}: {gone.relative_to(path)} is a link to {gone.readlink()}, which is gone; "
            "put it back, or make this store again"
        )
    # Consolidated metadata would hide what is gone, and cannot be read where two names differ
    # by case only (zarr-python issue 4226).
    return zarr.open_group(path, mode="r", use_consolidated=False)


def _tables(whole: Group) -> list[str]:
    """List what may stand behind ``::``."""
    return [
        f"{holder}/{name}"
        for holder in HOLDERS
        if holder in whole and hasattr(whole[holder], "keys")
        for name in sorted(whole[holder].keys())
        if hasattr(whole[holder][name], "keys") and "obs" in whole[holder][name]
    ]


def _check_frames(root: Group, file: str | Path, tables: list[str]) -> None:
    """Refuse a group that is no AnnData object of anndata 0.7 or later."""
    path, group = split_file(file)
    if tables and not group and ("obs" not in root or "mod" in root):
        if path.suffix == ".h5ad":  # a renamed .h5mu
            path = path.with_suffix(".h5mu")
            raise Refused(
                f"{file}: holds several tables; rename it to {path.name} and name one: "
                f"{_choices(path, tables)}"
            )
        raise Refused(f"{file}: holds several tables; name one: {_choices(path, tables)}")
    if "obs" not in root:
        raise Refused(f"{file}: is no AnnData file, it has no obs")
    for frame in ("obs", "var"):
        if frame not in root:
            continue
        if not hasattr(root[frame], "keys"):
            new, kind = f"{path.stem}_new{path.suffix}", path.suffix[1:]
            # Later ones read its zarr stores no more.
            by = "anndata 0.7 to 0.10" if kind == "zarr" else "anndata"
            raise Refused(
                f"{file}: is in the format of anndata 0.6 or older; write it anew with {by}: "
                f'anndata.read_{kind}("{path}").write_{kind}("{new}")'
            )
        if "_index" not in root[frame].attrs:
            raise Refused(
                f"{file}: {frame} is no data frame, it names no index; write the file with anndata"
            )


def _choices(path: Path, tables: list[str]) -> str:
    short = [name.removeprefix("mod/") if path.suffix == ".h5mu" else name for name in tables]
    return ", ".join(f"{path}::{name}" for name in short)


@contextlib.contextmanager
def reading(found: Any, name: str = "") -> Iterator[None]:
    """Say what cannot be read of which file, whatever the libraries make of a damaged one.

    Parameters
    ----------
    found
        A group or array of an opened store.
    name
        What is read in it; empty: all of it.
    """
    try:
        yield
    except Exception as error:
        where = f"{location(found)}: {name}" if name else location(found).replace("::", ": ", 1)
        raise damaged(where, error) from error


def location(element: Any) -> str:
    """Return the file that a group or array is in, ``::`` and its path in the file."""
    file = element.file.filename if hasattr(element, "file") else element.store.root
    inside = element.name.strip("/")
    return f"{file}::{inside}" if inside else str(file)


def damaged(where: str, error: Exception) -> ValueError:
    """Return the error of what cannot be read."""
    return ValueError(f"{where} cannot be read, it may be damaged: {_line(error)}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
