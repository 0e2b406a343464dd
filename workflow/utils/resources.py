"""Sizes of the inputs of a job, from which follow the memory and time that it asks for.

They are read from the metadata of a store: the size of its folder says nothing.
"""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path
from typing import Any

from utils.paths import disk_path

# On the host, for a step on a GPU: loading RAPIDS takes 600, the rest is left to the driver.
GPU_MB = 3000


def n_cells(file: str) -> int:
    """Return the number of cells of a zarr store from its metadata, without opening it."""
    return _n_rows(file, "obs")


def n_genes(file: str) -> int:
    """Return the number of genes of a zarr store from its metadata."""
    return _n_rows(file, "var")


def _n_rows(file: str, frame: str) -> int:
    try:
        folder = Path(file) / frame
        attributes = _metadata(folder)
        index = folder / attributes.get("attributes", attributes)["_index"]
        # With pandas 3 the names are a group: values, and a mask of missing ones.
        metadata = _metadata(index / "values" if (index / "values").is_dir() else index)
    except FileNotFoundError:
        # Of the store itself, or of one that it links to, which is made again before it. Snakemake
        # takes this for "not known yet" where it names an input as it stands.
        raise FileNotFoundError(errno.ENOENT, "no such store", file) from None
    return int(metadata["shape"][0])


def n_values(file: str) -> int:
    """Return the number of stored values of X of a zarr store; 0 where it has none."""
    matrix = Path(file) / "X"
    if not matrix.exists():
        return 0
    metadata = _metadata(matrix / "data" if (matrix / "data").is_dir() else matrix)
    return math.prod(metadata["shape"])


def _metadata(folder: Path) -> dict[str, Any]:
    """Read what a zarr store of either format says of an array, or the attributes of a group."""
    names = ("zarr.json", ".zarray", ".zattrs")
    path = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
    return json.loads(path.read_text())


def size_mb(files: list[str]) -> float:
    """Return the size of some files or stores, or of the tables named in them, in MB."""
    paths = [disk_path(file) for file in files]
    stores = [item for path in paths if path.is_dir() for item in path.rglob("*")]
    files_within = [path for path in (*paths, *stores) if path.is_file()]
    return sum(path.stat().st_size for path in files_within) / 1e6


def all_cores(cores: int | None) -> int:
    """Return the threads of a step that others wait for: all cores, 4 on a cluster."""
    return 4 if cores is None else cores


def half(cores: int | None) -> int:
    """Return the threads of a step that others run beside: half the cores, 2 on a cluster."""
    return 2 if cores is None else max(1, cores // 2)
