"""Open an AnnData file, or one table of a file of several; errors say in one line why not."""

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

# The groups that hold the tables of MuData, SpatialData, SpatialData before 0.1.
TABLE_GROUPS = ("mod", "tables", "table")

# zarr 3 warns so of every v3 store that anndata writes; nothing can be done about it.
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
        The group of ``obs``, read-only.

    Raises
    ------
    FileNotFoundError
        If the file, or an element that it links to, does not exist.
    ValueError
        If it is not an AnnData file, is older than anndata 0.7, locked or damaged.
    KeyError
        If it has no such table; lists those that it has.
    """
    path, group = split_file(file)
    if problem := name_problem(str(file), stage=""):
        raise ValueError(problem)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        file_root = _open_zarr(path, group) if path.suffix == ".zarr" else open_hdf5(path)
        root = file_root.get(group) if group else file_root
        root = root if hasattr(root, "keys") else None
        tables = _tables(file_root)
        if root is not None:
            _check_frames(root, file, tables)
    except (FileNotFoundError, Refused):
        raise
    except Exception as error:  # the libraries raise anything on a damaged file
        raise damaged(f"{path}:", error) from error
    if root is None:
        raise KeyError(missing(f"{path} has no table", group, tables))
    return root


class Refused(ValueError):
    """The file is not damaged, but cannot be read as it is."""


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading; an error says where a lock is the reason."""
    import h5py

    if path.is_dir():
        hint = "; it is a zarr store: rename it to .zarr" if is_group(path) else ""
        raise Refused(f"{path}: is a folder, {path.suffix} is a file{hint}")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        message = str(error)
        if "unable to lock file" in message:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise Refused(
                    f"{path}: is locked, another process has it open for writing; wait until it "
                    "is closed"
                ) from error
            raise Refused(
                f"{path}: its file system has no locks; set HDF5_USE_FILE_LOCKING=FALSE in the "
                f"environment ({_line(error)})"
            ) from error
        if "already open for write" in message:
            raise Refused(
                f"{path}: another process is writing it, or was killed while writing; if it is "
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
    if folder.is_dir() and (broken := broken_link(folder)):
        raise FileNotFoundError(
            f"{path}: {broken.relative_to(path)} is a link to {broken.readlink()}, which does not "
            "exist; put it back, or recompute this store"
        )
    # Consolidated metadata would hide missing elements, and cannot be read where two names
    # differ by case only (zarr-python issue 4226).
    return zarr.open_group(path, mode="r", use_consolidated=False)


def _tables(root: Group) -> list[str]:
    """List the tables of a file, which may be named after ``::``."""
    return [
        f"{holder}/{name}"
        for holder in TABLE_GROUPS
        if holder in root and hasattr(root[holder], "keys")
        for name in sorted(root[holder].keys())
        if hasattr(root[holder][name], "keys") and "obs" in root[holder][name]
    ]


def _check_frames(root: Group, file: str | Path, tables: list[str]) -> None:
    """Raise `Refused` if a group is not an AnnData object of anndata 0.7 or later."""
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
        raise Refused(f"{file}: is not an AnnData file, it has no obs")
    for frame in ("obs", "var"):
        if frame not in root:
            continue
        if not hasattr(root[frame], "keys"):
            new, kind = f"{path.stem}_new{path.suffix}", path.suffix[1:]
            # Later versions cannot read zarr stores of that format.
            by = "anndata 0.7 to 0.10" if kind == "zarr" else "anndata"
            raise Refused(
                f"{file}: is in the format of anndata 0.6 or older; rewrite it with {by}: "
                f'anndata.read_{kind}("{path}").write_{kind}("{new}")'
            )
        if "_index" not in root[frame].attrs:
            raise Refused(
                f"{file}: {frame} is not a data frame, it has no index; write the file with anndata"
            )


def _choices(path: Path, tables: list[str]) -> str:
    names = [name.removeprefix("mod/") if path.suffix == ".h5mu" else name for name in tables]
    return ", ".join(f"{path}::{name}" for name in names)


@contextlib.contextmanager
def reading(parent: Any, name: str = "") -> Iterator[None]:
    """Turn any error while an element is read into a ValueError that names file and element.

    Parameters
    ----------
    parent
        A group or array of an opened store.
    name
        The element of the group that is read; empty: `parent` itself.
    """
    try:
        yield
    except Exception as error:
        where = f"{location(parent)}: {name}" if name else location(parent).replace("::", ": ", 1)
        raise damaged(where, error) from error


def location(element: Any) -> str:
    """Return the file of a group or array, ``::`` and its path in the file."""
    file = element.file.filename if hasattr(element, "file") else element.store.root
    inside = element.name.strip("/")
    return f"{file}::{inside}" if inside else str(file)


def damaged(where: str, error: Exception) -> ValueError:
    """Return the error to raise for something that cannot be read."""
    return ValueError(f"{where} cannot be read, it may be damaged: {_line(error)}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
