"""What a job asks for: memory and time from the size of its input, more at each attempt.

Sizes are read from the metadata of a store: the size of its folder says nothing.
"""

from __future__ import annotations

import errno
import json
from pathlib import Path


def n_cells(file: str) -> int:
    """Return the number of cells of a zarr store from its metadata, without opening it."""
    if not Path(file).exists():
        # Snakemake takes this for "not known yet" where it names an input as it stands.
        raise FileNotFoundError(errno.ENOENT, "no such store", file)
    obs = Path(file) / "obs"
    if (obs / "zarr.json").is_file():
        index = json.loads((obs / "zarr.json").read_text())["attributes"]["_index"]
        return int(json.loads((obs / index / "zarr.json").read_text())["shape"][0])
    index = json.loads((obs / ".zattrs").read_text())["_index"]
    return int(json.loads((obs / index / ".zarray").read_text())["shape"][0])


def size_mb(files: list[str]) -> float:
    """Return the size of some files or stores in MB."""
    paths = [Path(file) for file in files]
    stores = [item for path in paths if path.is_dir() for item in path.rglob("*")]
    found = [path for path in (*paths, *stores) if path.is_file()]
    return sum(path.stat().st_size for path in found) / 1e6


def prepare_mb(files: list[str], attempt: int) -> int:
    """Memory of ``prepare.py``: annotations and embeddings whole, matrices in blocks."""
    return int((1000 + 2 * size_mb(files)) * attempt)


def memory_mb(store: str, attempt: int, *, base: int, per_million: int) -> int:
    """Memory of a step: a fixed part and a part per million cells, times the attempt."""
    return int((base + per_million * n_cells(store) / 1e6) * attempt)


def minutes(store: str, attempt: int, *, per_million: int) -> int:
    """Time of a step, generously: 10 minutes and a part per million cells, times the attempt."""
    return int((10 + per_million * n_cells(store) / 1e6) * attempt)


def gpus(store: str, use_gpu: bool, n_cell_cpu: int) -> int:
    """Ask for a GPU where one is wanted and the data set is large enough to use it."""
    return int(use_gpu and n_cells(store) >= n_cell_cpu)
