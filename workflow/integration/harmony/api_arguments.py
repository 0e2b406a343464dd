"""Arguments as harmonypy, scanpy and rapids-singlecell take them, converted for `harmonize`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from integration.batches import factorize
from integration.harmony.algorithm import harmonize
from integration.options import HarmonyOptions
from numerics.arrays import to_host
from utils.device import gpu_problem
from utils.errors import missing, unknown
from utils.options import as_arguments

HARMONYPY_NAMES = {
    "nclust": "n_clusters",
    "max_iter_kmeans": "max_iter_clustering",
    "epsilon_cluster": "tol_clustering",
    "epsilon_harmony": "tol_harmony",
    "lamb": "ridge_lambda",
    "block_size": "block_proportion",
    "batch_prop_cutoff": "batch_prune_threshold",
    "random_state": "seed",
    "ncores": "threads",
}
DEFAULTS: dict[str, Any] = {**harmonize.__kwdefaults__, **as_arguments(HarmonyOptions())}
KNOWN_OPTIONS = DEFAULTS.keys() - {"key_names", "mask", "keep_assignments"}


def translate_options(options: dict[str, Any]) -> dict[str, Any]:
    """Rename harmonypy's options to those of `harmonize`; refuse unknown ones."""
    translated = {}
    for given_name, value in options.items():
        name = HARMONYPY_NAMES.get(given_name, given_name)
        if name not in KNOWN_OPTIONS:
            known = [*sorted(KNOWN_OPTIONS), *HARMONYPY_NAMES]
            raise TypeError(unknown("option of Harmony", given_name, known))
        if name in translated:
            raise TypeError(f"{name} is given twice, once under harmonypy's name")
        translated[name] = _translate_value(given_name, value)
    if {"max_iter_kmeans", "epsilon_cluster"} & options.keys():
        n_passes = translated.get("max_iter_clustering", DEFAULTS["max_iter_clustering"])
        translated.setdefault("early_stopping", n_passes >= 4)
    return translated


def _translate_value(name: str, value: Any) -> Any:
    """Translate the values that harmonypy and rapids define differently."""
    match name:
        case "lamb" | "theta" if value is None:
            return DEFAULTS[HARMONYPY_NAMES.get(name, name)]
        case "theta":
            return to_host(value)
        case "epsilon_harmony" if value < 0:
            return None
        case "ncores" if value == 0:
            return None
        case "random_state" if value is None:
            return 0
    return value


def fetch_column(table: Any, name: Any, where: str) -> Any:
    """Return a column of a data frame or mapping."""
    if name not in table:
        raise KeyError(missing(f"{where} has no column", name, table.keys()))
    return _as_array(table[name])


@dataclass(frozen=True)
class CellTable:
    """A table with a row per cell: ``obs`` of a data set, or harmonypy's ``meta_data``.

    Labels are asked for by the name of a column, as a function of ``argument`` or as an array.
    """

    table: Any
    name: str
    n_cells: int
    argument: Any

    def labels(self, source: Any, what: str = "labels") -> Any:
        """Return one label per cell; without a source all are the same."""
        if source is None:
            return np.zeros(self.n_cells, dtype=np.intp)
        if isinstance(source, str):
            labels = fetch_column(self.table, source, self.name)
        else:
            labels = _as_array(source(self.argument) if callable(source) else source)
            if np.ndim(labels) != 1:
                raise TypeError(
                    f"{self.name}: expected a column name, a function or {what}; found {source!r}"
                )
        if len(labels) != self.n_cells:
            raise ValueError(f"{self.name} has {self.n_cells} cells but {len(labels)} {what}")
        return labels

    def mask(self, source: Any) -> np.ndarray:
        """Return one boolean per cell; without a source all are true."""
        if source is None:
            return np.ones(self.n_cells, dtype=bool)
        values = self.labels(source, "QC values")
        what = f"QC column {source!r}" if isinstance(source, str) else "the QC mask"
        n_missing = int(np.sum(factorize(values)[0] < 0))
        if n_missing:
            raise ValueError(
                f"{self.name}: {what} is missing for {n_missing} of {self.n_cells} cells"
            )
        mask = np.asarray(values)
        if mask.dtype == object and all(isinstance(value, (bool, np.bool_)) for value in mask):
            return mask.astype(bool)
        if mask.dtype != bool:
            raise TypeError(f"{self.name}: {what} must be boolean; found dtype {mask.dtype}")
        return mask


def _as_array(labels: Any) -> Any:
    return labels if hasattr(labels, "dtype") else np.asarray(labels)


def as_embedding(data: Any, n_cells: int) -> np.ndarray:
    """Return the embedding as an array with the cells in rows."""
    if hasattr(data, "select_dtypes"):
        data = data.select_dtypes(include="number")
    for convert in ("toarray", "to_numpy"):
        if hasattr(data, convert):
            data = getattr(data, convert)()
    data = np.asarray(data)
    if data.ndim != 2:
        raise ValueError(f"the embedding must have two dimensions; found shape {data.shape}")
    if n_cells not in data.shape:
        raise ValueError(f"there are {n_cells} cells, but the embedding has shape {data.shape}")
    return data if data.shape[0] == n_cells else data.T


def to_device(Z: np.ndarray, device: str | None) -> Any:
    """Move the embedding to the GPU where that is requested and possible."""
    if device in (None, "cpu"):
        return Z
    kind = str(device).partition(":")[0]
    if kind not in ("cuda", "mps"):
        raise ValueError(f"device must be 'cpu', 'cuda' or 'mps'; found {device!r}")
    problem = gpu_problem(["cupy"]) if kind == "cuda" else "Harmony does not compute on 'mps'"
    if problem:
        warnings.warn(f"{problem}; Harmony runs on the CPU", stacklevel=3)
        return Z
    import cupy

    return cupy.asarray(Z)
