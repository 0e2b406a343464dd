"""What a job asks for: memory and time from the size of its input, more at each attempt.

Sizes are read from the metadata of a store: the size of its folder says nothing.
"""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path
from typing import Any

from utils.paths import disk_path, is_store

# On the host, for a step on a GPU: loading RAPIDS takes 600, the rest is left to the driver.
GPU_MB = 3000


def n_cells(file: str) -> int:
    """Return the number of cells of a zarr store from its metadata, without opening it."""
    return _n_rows(file, "obs")


def _n_rows(file: str, frame: str) -> int:
    try:
        folder = Path(file) / frame
        attributes = _metadata(folder)
        index = folder / attributes.get("attributes", attributes)["_index"]
        # With pandas 3 the names are a group: values, and a mask of missing ones.
        found = _metadata(index / "values" if (index / "values").is_dir() else index)
    except FileNotFoundError:
        # Of the store itself, or of one that it links to, which is made again before it. Snakemake
        # takes this for "not known yet" where it names an input as it stands.
        raise FileNotFoundError(errno.ENOENT, "no such store", file) from None
    return int(found["shape"][0])


def n_values(file: str) -> int:
    """Return the number of stored values of X of a zarr store; 0 where it has none."""
    matrix = Path(file) / "X"
    if not matrix.exists():
        return 0
    found = _metadata(matrix / "data" if (matrix / "data").is_dir() else matrix)
    return math.prod(found["shape"])


def _metadata(folder: Path) -> dict[str, Any]:
    """Read what a zarr store of either format says of an array, or the attributes of a group."""
    names = ("zarr.json", ".zarray", ".zattrs")
    path = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
    return json.loads(path.read_text())


def size_mb(files: list[str]) -> float:
    """Return the size of some files or stores, or of the tables named in them, in MB."""
    paths = [disk_path(file) for file in files]
    stores = [item for path in paths if path.is_dir() for item in path.rglob("*")]
    found = [path for path in (*paths, *stores) if path.is_file()]
    return sum(path.stat().st_size for path in found) / 1e6


def prepare_mb(files: list[str], attempt: int) -> int:
    """Memory of ``prepare.py``: annotations and embeddings whole, matrices in blocks.

    A 10x matrix is read whole: 7 times the size of its ``.h5``, 11 times that of ``.mtx.gz`` were
    measured.
    """
    tenx = [file for file in files if not is_store(file)]
    return int((1000 + 2 * size_mb(files) + 12 * size_mb(tenx)) * attempt)


def memory_mb(
    store: str,
    attempt: int,
    *,
    base: int,
    per_million: int,
    use_gpu: bool = False,
    n_cell_cpu: int = 0,
) -> int:
    """Memory of a step: a fixed part and a part per million cells, times the attempt."""
    base += GPU_MB * gpus(store, use_gpu, n_cell_cpu)
    return int((base + per_million * n_cells(store) / 1e6) * attempt)


def pca_mb(store: str, attempt: int, n_top_genes: int | None) -> int:
    """Memory of ``pca.py``: 22 to 31 bytes were measured for each pair of its genes."""
    n_genes = _n_rows(store, "var")
    pairs = min(n_top_genes or n_genes, n_genes) ** 2
    return int(36 * pairs / 1e6 * attempt) + memory_mb(store, attempt, base=2000, per_million=200)


def markers_mb(store: str, attempt: int) -> int:
    """Memory of ``markers.py``: at most 2**26 values are read at a time, 2**22 of them ranked."""
    values = 32 * min(n_values(store), 2**26) / 1e6
    return int(values * attempt) + memory_mb(store, attempt, base=1500, per_million=1000)


def counts_mb(store: str, attempt: int, *, all_genes: bool = False, **wanted: Any) -> int:
    """Memory of a method on counts: `memory_mb`, and 32 bytes for each where no gene is chosen."""
    chosen = not all_genes and (Path(store) / "var" / "highly_variable").exists()
    values = 0 if chosen else 32 * n_values(store) / 1e6
    return int(values * attempt) + memory_mb(store, attempt, **wanted)


def minutes(store: str, attempt: int, *, per_million: int) -> int:
    """Time of a step, generously: 10 minutes and a part per million cells, times the attempt."""
    return int((10 + per_million * n_cells(store) / 1e6) * attempt)


def gpus(store: str, use_gpu: bool, n_cell_cpu: int) -> int:
    """Ask for a GPU where one is wanted and the data set is large enough to use it."""
    return int(use_gpu and n_cells(store) >= n_cell_cpu)


def half(cores: int | None) -> int:
    """Return the threads of a step that others run beside: half the cores, 2 on a cluster."""
    return 2 if cores is None else max(1, cores // 2)
