"""Stores that link: relative links to where an element really is, laid, copied or found broken."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


def link_children(
    source: Path, target: Path, own: set[str], fresh: set[str], prefix: str = ""
) -> None:
    """Link the children of a group, except those that are written anew."""
    if prefix:
        target.mkdir()
    for name in METADATA:
        if (source / name).is_file():
            # Without consolidated metadata, which would not be true any more.
            meta = json.loads((source / name).read_text())
            meta.pop("consolidated_metadata", None)
            (target / name).write_text(json.dumps(meta))
    keep: set[str] | None = None
    if prefix.rstrip("/") in fresh:
        keep = _start_afresh(target)
    for child in sorted(source.iterdir()):
        name = prefix + child.name
        if child.name.startswith(".") or not child.is_dir():
            continue
        if keep is not None and child.name not in keep:
            continue
        inside = any(item.startswith(f"{name}/") for item in own)
        if name in fresh or (inside and is_group(child)):
            link_children(child, target / child.name, own, fresh, f"{name}/")
        elif name not in own:
            link(child, target / child.name)


def _start_afresh(folder: Path) -> set[str]:
    """Empty the list of columns of a data frame; return what stays: its index."""
    path = folder / ("zarr.json" if (folder / "zarr.json").is_file() else ".zattrs")
    meta = json.loads(path.read_text())
    attributes = meta["attributes"] if path.name == "zarr.json" else meta
    if "column-order" in attributes:
        attributes["column-order"] = []
    path.write_text(json.dumps(meta))
    return {attributes["_index"]} if "_index" in attributes else set()


def link(source: Path, place: Path) -> None:
    """Make a relative link to where an element really is."""
    # The temporary store lies beside the final one, so the way from either is the same.
    place.symlink_to(os.path.relpath(source.resolve(), place.parent.resolve()))


def copy_linked(folder: Path) -> None:
    """Put copies in the place of all links below a folder."""
    for item in sorted(folder.iterdir()):
        if item.is_symlink():
            target = item.resolve()
            item.unlink()
            shutil.copytree(target, item)  # follows the links in it
        elif item.is_dir() and is_group(item):
            copy_linked(item)


def ignores_case(store: Path) -> bool:
    """Whether a store lies where `a` and `A` are one name, as on most Macs."""
    return any((store / name.upper()).exists() for name in METADATA)


def is_group(folder: Path) -> bool:
    """Whether a folder of a store holds other elements, rather than an array."""
    if (folder / ".zgroup").is_file():
        return True
    meta = folder / "zarr.json"
    return meta.is_file() and json.loads(meta.read_text())["node_type"] == "group"


def broken_link(group: Path) -> Path | None:
    """Find an element of a store, at any depth, that links to what is not there."""
    for item in sorted(group.iterdir()):
        if not item.exists():
            return item
        if item.is_dir() and is_group(item) and (found := broken_link(item)):
            return found
    return None
