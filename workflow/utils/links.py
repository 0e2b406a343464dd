"""Relative links between stores: make them, replace them by copies, find broken ones."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


def link_children(
    source: Path, target: Path, written: set[str], fresh: set[str], prefix: str = ""
) -> None:
    """Link the elements of a group, except those that are written.

    Parameters
    ----------
    source, target
        Folders of the group in the two stores.
    written
        Elements that are not linked: paths from the root of the store.
    fresh
        Groups that start empty; a data frame keeps its index.
    prefix
        Path of the group from the root of the store, with ``/`` at the end.
    """
    if prefix:
        target.mkdir()
    _copy_metadata(source, target)
    linkable = _clear_columns(target) if prefix.rstrip("/") in fresh else None
    for child in sorted(source.iterdir()):
        name = prefix + child.name
        if child.name.startswith(".") or not child.is_dir():
            continue
        if linkable is not None and child.name not in linkable:
            continue
        holds_written = any(item.startswith(f"{name}/") for item in written)
        if name in fresh or (holds_written and is_group(child)):
            link_children(child, target / child.name, written, fresh, f"{name}/")
        elif name not in written:
            link(child, target / child.name)


def _copy_metadata(source: Path, target: Path) -> None:
    """Copy what a group says of itself, but for consolidated metadata: no longer true."""
    for name in METADATA:
        if (source / name).is_file():
            meta = json.loads((source / name).read_text())
            meta.pop("consolidated_metadata", None)
            (target / name).write_text(json.dumps(meta))


def _clear_columns(folder: Path) -> set[str]:
    """Clear the list of columns of a data frame and return the name of its index."""
    path = folder / ("zarr.json" if (folder / "zarr.json").is_file() else ".zattrs")
    meta = json.loads(path.read_text())
    attributes = meta["attributes"] if path.name == "zarr.json" else meta
    if "column-order" in attributes:
        attributes["column-order"] = []
    path.write_text(json.dumps(meta))
    return {attributes["_index"]} if "_index" in attributes else set()


def link(source: Path, target: Path) -> None:
    """Make `target` a relative link to the files of an element, which may be links themselves."""
    # The temporary store is beside the final one, so the relative path is the same from both.
    target.symlink_to(os.path.relpath(source.resolve(), target.parent.resolve()))


def copy_linked(folder: Path) -> None:
    """Replace all links below a folder by copies."""
    for item in sorted(folder.iterdir()):
        if item.is_symlink():
            linked = item.resolve()
            item.unlink()
            shutil.copytree(linked, item)  # follows the links in it
        elif item.is_dir() and is_group(item):
            copy_linked(item)


def ignores_case(store: Path) -> bool:
    """Return whether `a` and `A` are one name where a store is, as on most Macs."""
    return any((store / name.upper()).exists() for name in METADATA)


def is_group(folder: Path) -> bool:
    """Return whether a folder of a store is a group, rather than an array."""
    if (folder / ".zgroup").is_file():
        return True
    meta = folder / "zarr.json"
    return meta.is_file() and json.loads(meta.read_text())["node_type"] == "group"


def broken_link(group: Path) -> Path | None:
    """Return an element of a store, at any depth, whose link is broken; None if there is none."""
    for item in sorted(group.iterdir()):
        if not item.exists():
            return item
        if item.is_dir() and is_group(item) and (broken := broken_link(item)):
            return broken
    return None
