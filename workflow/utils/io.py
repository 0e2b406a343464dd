"""Read AnnData files; write zarr stores that link what they do not change.

A step of the workflow adds a little to a large data set. Its output is a zarr store in which only
the new elements are files and every other element is a relative symbolic link to its files, so
that any store opens as a full data set with plain ``anndata.read_zarr`` and nothing is copied.
Stores are written atomically (`utils.atomic`).
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr

from utils.atomic import atomic_folder
from utils.encoding import (
    MAPPING,
    attribute,
    encoding,
    is_plain,
    plain_text,
    read_index_values,
    read_value,
    write_plain,
)
from utils.errors import missing
from utils.links import copy_linked, ignores_case, link, link_children
from utils.opening import location, open_store, reading
from utils.paths import disk_path, is_linkable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import h5py
    import numpy as np
    from anndata import AnnData

    Group = h5py.Group | zarr.Group

SLOTS = ("X", "obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns", "raw")
ANNDATA = {"encoding-type": "anndata", "encoding-version": "0.1.0"}


# ---------------------------------------------------------------- reading


def read_element(root: Group, name: str) -> Any:
    """Read one element, such as ``obsm/X_pca``.

    Parameters
    ----------
    root
        As returned by `open_store`.
    name
        Path of the element in the store.

    Returns
    -------
    Any
        The element in memory: an array, a sparse matrix, a data frame, a column, a mapping.

    Raises
    ------
    KeyError
        If there is none; lists those that there are.
    """
    parent, _, key = name.rpartition("/")
    if parent and parent not in root:
        raise KeyError(f'{location(root)} has no {parent} and so no "{key}"')
    if key not in (root[parent] if parent else root):
        where = f"{location(root)}: {parent or 'the store'} has no"
        raise KeyError(missing(where, key, keys(root, parent)))
    with reading(root, name):
        return read_value(root[name])


def keys(root: Group, name: str = "") -> list[str]:
    """List the elements of a group, sorted, or the columns of a data frame, in their order."""
    with reading(root, name):
        if name and name not in root:
            return []
        group = root[name] if name else root
        if not hasattr(group, "keys"):
            return []
        elements = sorted(group.keys())
        if "column-order" in group.attrs:
            columns = [str(column) for column in attribute(group, "column-order")]
            return [column for column in columns if column in elements]
        return elements


def is_matrix(element: Any) -> bool:
    """Whether an element is a matrix, dense or sparse."""
    kind = encoding(element)
    return kind in ("csr_matrix", "csc_matrix") or (kind == "array" and len(element.shape) == 2)


def n_rows(root: Group, frame: str) -> int:
    """Return the number of cells (``obs``) or genes (``var``) without reading them."""
    with reading(root, frame):
        index = _index(root[frame])
        # With pandas 3 the names are a group: values, and a mask of missing ones.
        return int((index if hasattr(index, "shape") else index["values"]).shape[0])


def read_index(root: Group, frame: str) -> np.ndarray:
    """Read the names of the cells (``obs``) or genes (``var``)."""
    with reading(root, frame):
        return read_index_values(_index(root[frame]))


def _index(frame: Group) -> Any:
    return frame[attribute(frame, "_index")]


def read_anndata(file: str | Path, *, verbose: bool = True, **slots: str) -> AnnData:
    """Read an AnnData file, or only some of its slots.

    Parameters
    ----------
    file
        An ``.h5ad`` file or a ``.zarr`` folder.
    verbose
        Say on stderr what is read.
    **slots
        ``slot="path"``: the element of the file that is read into a slot, such as ``obs="obs"``
        or ``X="layers/counts"``. By default everything is read.

    Returns
    -------
    AnnData
        The data in memory.

    Raises
    ------
    FileNotFoundError, ValueError, KeyError
        If the file or a slot does not exist or cannot be read.
    """
    from anndata import AnnData

    unknown = [slot for slot in slots if slot not in SLOTS]
    if unknown:
        raise ValueError(f'AnnData has no slot "{unknown[0]}"; it has {", ".join(SLOTS)}')
    root = open_store(file)
    if not slots:
        slots = {slot: slot for slot in SLOTS if slot in root}
    if verbose:
        print(f"reading {file}: {', '.join(slots)}", file=sys.stderr)
    elements = {slot: read_element(root, path) for slot, path in slots.items()}
    if "obs" not in elements:
        import pandas as pd

        elements["obs"] = pd.DataFrame(index=read_index(root, "obs"))
    if "raw" in elements and elements["raw"] is None:
        del elements["raw"]
    return AnnData(**elements)


# ---------------------------------------------------------------- writing


@contextlib.contextmanager
def new_store(
    out: str | Path,
    *,
    source: str | Path | None = None,
    new: Collection[str] = (),
    links: Mapping[str, Path] | None = None,
    fresh: Collection[str] = (),
    materialize: bool = False,
) -> Iterator[zarr.Group]:
    """Write a store; `out` is replaced when the block ends without an error.

    Parameters
    ----------
    out
        The ``.zarr`` folder to write; an existing one is replaced.
    source
        A zarr store whose elements are linked. None: an empty store.
    new
        Elements that the caller writes, such as ``obsm/X_pca``; they are not linked.
    links
        Further elements to link: path in the store to the folder of the element.
    fresh
        Groups that start empty; a data frame keeps its (linked) index.
    materialize
        Copy what would be linked, so that the store can be moved on its own.

    Yields
    ------
    zarr.Group
        The root, writable, with the groups that elements of `new` belong to.

    Raises
    ------
    ValueError
        As `keep_existing`.

    Notes
    -----
    The metadata is not consolidated: where a linked element has been deleted, a reader would trust
    the shapes in it and read zeros; without it the reader finds no element, or fails.
    Nor can consolidated metadata hold names that differ by case only (zarr-python issue 4226).
    """
    out = Path(out)
    _check_output(out, source)
    links = dict(links or {})
    with atomic_folder(out) as temporary:
        zarr_format = _zarr_format(disk_path(source)) if source is not None else 3
        zarr.open_group(temporary, mode="w", zarr_format=zarr_format, attributes=dict(ANNDATA))
        written = {*new, *links, *fresh}
        if source is not None:
            link_children(disk_path(source), temporary, written, set(fresh))
        root = zarr.open_group(temporary, mode="r+", zarr_format=zarr_format)
        for name in sorted(written):
            parent = name.rpartition("/")[0]
            if parent and parent not in root:
                _require_mapping(root, parent)
        for name, target in links.items():
            link(Path(target), temporary / name)
            parent, _, column = name.rpartition("/")
            if parent in ("obs", "var"):
                add_column(root[parent], column)
        yield root
        if materialize:
            copy_linked(temporary)


def write_element(root: zarr.Group, name: str, value: Any) -> None:
    """Write one element of a store; a column of obs or var is added to its data frame.

    Parameters
    ----------
    root
        As yielded by `new_store`.
    name
        Path of the element, such as ``obsm/X_pca`` or ``obs/leiden_1.0_1``.
    value
        What to write.

    Raises
    ------
    ValueError
        If two names differ by case only and the file system cannot hold both.
    """
    parent, _, key = name.rpartition("/")
    group = root[parent] if parent else root
    in_frame = parent in ("obs", "var")
    if isinstance(value, dict):
        _check_case(root, name, value)
    elif hasattr(value, "columns"):
        _check_case(root, name, value.columns)
    elif in_frame:
        _check_case(root, parent, [*group.attrs["column-order"], key])
    chunks: Any = "auto"
    if in_frame:
        # One chunk a column: a clustering output stays a handful of files.
        value = getattr(value, "values", value)
        chunks = (max(len(value), 1),)
    if is_plain(value):
        if key in group:
            del group[key]
        write_plain(group, key, value, chunks=chunks)
    else:
        _write_any(group, key, value, chunks)
    if in_frame:
        add_column(group, key)


def _write_any(group: zarr.Group, key: str, value: Any, chunks: Any) -> None:
    import anndata
    from anndata.io import write_elem

    anndata.settings.auto_shard_zarr_v3 = False  # the same files with anndata 0.12 and 0.13
    options = {} if chunks == "auto" else {"chunks": chunks}
    with anndata.settings.override(allow_write_nullable_strings=True):
        write_elem(group, key, plain_text(value), dataset_kwargs=options)


def _check_case(root: zarr.Group, parent: str, names: Collection[Any]) -> None:
    """Raise a ValueError if names of a group are the same to the output's file system."""
    first: dict[str, str] = {}
    for name in map(str, names):
        other = first.setdefault(name.casefold(), name)
        if other != name and ignores_case(Path(str(root.store.root))):
            raise ValueError(
                f'{parent} has "{other}" and "{name}", which are the same to the file system of '
                "the output; rename one, or write to a case-sensitive file system"
            )


def write_zarr_linked(
    adata: AnnData,
    in_dir: str | Path | None,
    out_dir: str | Path,
    *,
    files_to_keep: Collection[str] = ("obs",),
) -> None:
    """Write some elements of an AnnData object and link all others to another store.

    Parameters
    ----------
    adata
        Holds the elements to write.
    in_dir
        The zarr store to link to. With None or an ``.h5ad`` file, whose elements cannot be
        linked, only `files_to_keep` and the names of cells are written.
    out_dir
        The ``.zarr`` folder to write, atomically.
    files_to_keep
        The elements to write from `adata`: slots (``obs``) or parts of one (``obsm/X_pca``,
        ``obs/leiden_1.0_1``).

    Raises
    ------
    ValueError, KeyError
        If `out_dir` cannot be written (see `keep_existing`), or `adata` has no such element.
    """
    values = {name: _element_of(adata, name) for name in files_to_keep}
    linkable = in_dir is not None and is_linkable(in_dir)
    with new_store(out_dir, source=in_dir if linkable else None, new=files_to_keep) as root:
        if not linkable and "obs" not in values:
            write_element(root, "obs", adata.obs[[]])
        for name, value in values.items():
            write_element(root, name, value)


def keep_existing(
    out: str | Path,
    *,
    overwrite: bool,
    column: str | None = None,
    source: str | Path | None = None,
) -> bool:
    """Decide, before anything is computed, whether an existing output is kept; say so on stderr.

    Parameters
    ----------
    out
        The ``.zarr`` folder that a script is to write.
    overwrite
        Never keep it.
    column
        The column of obs that an existing output must have.
    source
        The store that `out` is to link to.

    Returns
    -------
    bool
        True where `out` is a store and is kept: there is nothing to do.

    Raises
    ------
    ValueError
        If `out` exists without `column`, is not a ``.zarr`` folder that may be replaced, or cannot
        link to `source`.
    """
    _check_output(Path(out), source)
    if overwrite or not _is_zarr_store(Path(out)):
        return False
    columns = keys(open_store(out), "obs")
    if column and column not in columns:
        raise ValueError(
            f"{out}: exists with {', '.join(columns)}, without {column}; --overwrite replaces it"
        )
    print(f"{out}: exists; keeping it (--overwrite recomputes it)", file=sys.stderr)
    return True


def _check_output(out: Path, source: str | Path | None) -> None:
    """Raise a ValueError if an output cannot be written, or cannot link to its source."""
    if out.suffix != ".zarr":
        raise ValueError(f"{out}: the output must end in .zarr")
    empty = out.is_dir() and not any(out.iterdir())
    if out.exists() and not _is_zarr_store(out) and not empty:
        raise ValueError(f"{out}: exists and is not a zarr store; it is not replaced")
    if source is not None and not is_linkable(source):
        raise ValueError(
            f"{source}: only a .zarr store can be linked to; make one first: "
            f"prepare.py {source} {Path(source).stem}.zarr"
        )
    if source is not None and out.resolve() == disk_path(source).resolve():
        raise ValueError(f"{out}: is also the input; name another output")


def _is_zarr_store(path: Path) -> bool:
    return (path / "zarr.json").is_file() or (path / ".zgroup").is_file()


def _zarr_format(store: Path) -> int:
    return 3 if (store / "zarr.json").is_file() else 2


def _require_mapping(root: zarr.Group, name: str) -> None:
    if parent := name.rpartition("/")[0]:
        _require_mapping(root, parent)
    group = root.require_group(name)
    if "encoding-type" not in group.attrs:
        group.attrs.update(MAPPING)


def add_column(frame: zarr.Group, name: str) -> None:
    """Add a column that was written or linked to the list of columns of its data frame."""
    columns = [str(column) for column in frame.attrs["column-order"]]
    if name not in columns:
        frame.attrs["column-order"] = [*columns, name]


def _element_of(adata: AnnData, name: str) -> Any:
    slot, _, key = name.partition("/")
    if slot not in SLOTS:
        raise KeyError(f'AnnData has no slot "{slot}"; it has {", ".join(SLOTS)}')
    value = getattr(adata, slot)
    if not key:
        if slot in ("obsm", "varm", "obsp", "varp", "layers"):
            # anndata 0.13 counts X among the layers, under the key None.
            return {name: item for name, item in value.items() if name is not None}
        return value
    if key not in value:
        raise KeyError(missing(f"adata.{slot} has no", key, value))
    return value[key]
