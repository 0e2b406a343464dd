"""Harmony's front doors: ``run_harmony`` as harmonypy's, ``harmony_integrate`` as scanpy's."""

from __future__ import annotations

import inspect
import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from integration.batches import factorize
from integration.harmony.algorithm import Harmonized, harmonize
from integration.harmony.gpu import harmonize_with_rapids
from numerics.arrays import normalize_rows, to_host
from utils.device import gpu_problem
from utils.errors import missing, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anndata import AnnData

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
CORRECTION_METHODS = ("fast", "original", "batched")


class HarmonyResult:
    """The result of :func:`run_harmony`, under harmonypy's names and in its shapes.

    N cells, d dimensions, K clusters, B batches (the levels of all keys). The large arrays are
    formed when they are asked for; R costs N x K numbers.
    """

    def __init__(self, Z: np.ndarray, harmonized: Harmonized) -> None:
        self._harmonized = harmonized
        self.corrected: np.ndarray = to_host(harmonized.corrected)
        self.Z_corr: np.ndarray = self.corrected.T
        self.Z_orig: np.ndarray = Z.T
        self.Y: np.ndarray = harmonized.centroids.T
        self.O: np.ndarray = harmonized.observed.T
        self.E: np.ndarray = harmonized.expected.T
        self.theta: np.ndarray = harmonized.parameters.theta
        self.sigma: np.ndarray = harmonized.parameters.sigma
        self.K: int = harmonized.parameters.n_clusters
        self.d, self.N = self.Z_corr.shape
        self.B: int = harmonized.batches.n_levels
        self.batches: tuple[Any, ...] = harmonized.batches.names
        self.objective_harmony: list[float] = harmonized.objective
        self.kmeans_rounds: list[int] = harmonized.rounds
        self.converged: bool = harmonized.converged

    @cached_property
    def R(self) -> np.ndarray:
        """Soft assignments, shape (K, N); every column sums to 1."""
        return to_host(self._harmonized.assignments()).T

    @cached_property
    def Z_cos(self) -> np.ndarray:
        """Corrected embedding with columns of length 1, shape (d, N)."""
        return normalize_rows(self.corrected, np).T

    @cached_property
    def Phi(self) -> np.ndarray:
        """Batch indicators, shape (B, N); a column has a 1 per key."""
        batches = self._harmonized.batches
        indicators = np.zeros((batches.n_levels, len(batches.combinations)), np.float32)
        for levels in batches.levels[batches.combinations].T:
            indicators[levels, np.arange(len(levels))] = 1
        return indicators

    @property
    def Phi_moe(self) -> np.ndarray:
        """``Phi`` below a row of ones for the intercept, shape (B + 1, N)."""
        return np.vstack([np.ones_like(self.Phi[:1]), self.Phi])

    @property
    def Pr_b(self) -> np.ndarray:
        """Share of every batch, shape (B,); sums to 1 for each key."""
        batches = self._harmonized.batches
        return batches.sizes / len(batches.combinations)

    @property
    def lamb(self) -> np.ndarray:
        """Ridge penalty, shape (B + 1,): 0 for the intercept; -1 marks alpha * E."""
        fixed = self._harmonized.parameters.ridge_lambda
        return np.concatenate([[0.0], np.full(self.B, -1.0) if fixed is None else fixed])

    def result(self) -> np.ndarray:
        """Return ``Z_corr``, as harmonypy 0.0.x did."""
        return self.Z_corr


def run_harmony(
    data_mat: Any,
    meta_data: Any,
    vars_use: str | Sequence[str],
    *,
    QC_column: Any = None,
    device: str | None = None,
    **options: Any,
) -> HarmonyResult:
    """Integrate an embedding, called as harmonypy's function of the same name.

    Parameters
    ----------
    data_mat
        Embedding, (n_cells, n_dims) or (n_dims, n_cells): an array, or a data frame, of which
        the columns that are not numbers are left out.
    meta_data
        One row per cell: a data frame, or a mapping of column names to arrays.
    vars_use
        Name or names of the batch columns of ``meta_data``.
    QC_column
        Cells that take part: a boolean column of ``meta_data``, a boolean array, or a function
        of ``meta_data`` that returns one. The others become NaN.
    device
        None or "cpu"; "cuda" computes with CuPy where there is one; "mps" warns and runs on the
        CPU, as does "cuda" without a GPU.
    **options
        Every option of :func:`harmonize`, or harmonypy's names: ``nclust``,
        ``max_iter_kmeans``, ``epsilon_cluster``, ``epsilon_harmony`` (negative: never stop
        early), ``lamb``, ``block_size``, ``batch_prop_cutoff``, ``random_state`` (None is
        seed 0: two runs are equal), ``ncores``.
        ``lamb=None`` means 1 as in harmonypy 0.2, -1 the dynamic penalty; harmony2 always uses
        the dynamic one. ``max_iter_kmeans`` of 4 or more and ``epsilon_cluster`` switch
        ``early_stopping`` on, as harmonypy has it.

    Returns
    -------
    Object with ``corrected`` (n_cells, n_dims) and harmonypy's attributes; ``Z_corr`` is
    (n_dims, n_cells).

    Raises
    ------
    KeyError
        A column that ``meta_data`` does not have.
    TypeError, ValueError
        Anything else that is wrong with the input, in one line.

    Notes
    -----
    Peak memory: that of :func:`harmonize` with ``keep_assignments=True``.
    """
    keys = [vars_use] if isinstance(vars_use, str) else list(vars_use)
    if not keys:
        raise ValueError("vars_use names no column; give at least one")
    columns = [_column(meta_data, key, "meta_data") for key in keys]
    Z = _embedding(data_mat, len(columns[0]))
    options = _translate(options)
    mask = None if QC_column is None else _boolean(meta_data, QC_column, "meta_data", meta_data)
    device_Z = _to_device(Z, device)
    harmonized = harmonize(
        device_Z, columns, key_names=keys, mask=mask, keep_assignments=True, **options
    )
    return HarmonyResult(Z, harmonized)


def harmony_integrate(
    adata: AnnData | Sequence[AnnData],
    key: Any = None,
    *,
    basis: str = "X_pca",
    adjusted_basis: str = "X_pca_harmony",
    QC_column: Any = None,
    overwrite: bool = False,
    backend: Literal["cpu", "cupy", "rapids"] = "cpu",
    correction_method: str | None = None,
    colsum_algo: str | None = None,
    **options: Any,
) -> None:
    """Integrate the batches of one data set, or of several, and store the result in ``obsm``.

    Parameters
    ----------
    adata
        Annotated data, or a list of them; with several, every data set's batches are batches of
        their own.
    key
        Batch: a column of ``obs``, an array, or a function of the data set that returns one; a
        list of these for several keys. With several data sets, a tuple gives each its own, and
        None makes every data set one batch.
    basis, adjusted_basis
        Names in ``obsm`` of the embedding to integrate and of the result.
    QC_column
        Cells that take part: a boolean column of ``obs``, a boolean array, or a function of the
        data set; with several data sets, a list or tuple gives each its own. The others are NaN
        in the result.
    overwrite
        Replace ``adjusted_basis`` where it exists.
    backend
        "cpu"; "cupy" for the same lines on a GPU, where there is none they warn and run on the
        CPU; or "rapids" for rapids-singlecell (one data set). The result is on the CPU.
    correction_method, colsum_algo
        Passed to rapids: "fast", "original" or "batched" (0.18 warns of "original" and takes
        another), and how it adds up columns. Here they have no effect, which is said: there is
        one way, which is exact.
    **options
        Options of :func:`harmonize`; harmonypy's and rapids' names for them are understood.

    Raises
    ------
    KeyError
        A column or embedding that is not there.
    RuntimeError
        backend="rapids" without RAPIDS or a GPU; says which.
    TypeError, ValueError
        Anything else that is wrong with the input, in one line.

    Notes
    -----
    Peak memory: that of :func:`harmonize`, and with several data sets one more embedding.
    """
    several = isinstance(adata, (list, tuple))
    data_sets = list(adata) if several else [adata]
    if not data_sets:
        raise ValueError("there is no data set to integrate")
    for number, data_set in enumerate(data_sets):
        where = _name(number, several)
        if basis not in data_set.obsm:
            raise KeyError(missing(f"{where}.obsm has no embedding", basis, data_set.obsm.keys()))
        if adjusted_basis in data_set.obsm and not overwrite:
            raise ValueError(
                f"{where}.obsm already has {adjusted_basis!r}; set overwrite=True to replace it"
            )
    options = _translate(options)
    if backend not in ("cpu", "cupy", "rapids"):
        raise ValueError(f"backend must be 'cpu', 'cupy' or 'rapids'; found {backend!r}")
    if correction_method not in (None, *CORRECTION_METHODS):
        found = unknown("correction_method", correction_method, CORRECTION_METHODS)
        raise ValueError(found)
    if backend == "rapids":
        if several:
            raise ValueError("backend='rapids' takes one data set; concatenate them first")
        if QC_column is not None:
            raise ValueError("backend='rapids' knows no QC_column; subset the data set first")
        for column in [key] if isinstance(key, str) else key:
            _column(adata.obs, column, "adata.obs")
        harmonize_with_rapids(
            adata, key, basis, adjusted_basis, correction_method, colsum_algo, options
        )
        return
    rapids = {"correction_method": correction_method, "colsum_algo": colsum_algo}
    given = [name for name, value in rapids.items() if value is not None]
    if given:
        text = f"{' and '.join(given)}: no effect with backend={backend!r}"
        warnings.warn(text, stacklevel=2)
    Z = [_embedding(data.obsm[basis], data.n_obs) for data in data_sets]
    if len({part.shape[1] for part in Z}) > 1:
        raise ValueError(
            f"obsm[{basis!r}] has {[part.shape[1] for part in Z]} dimensions in the data sets; "
            "compute one embedding for all of them"
        )
    names, labels = _batch_labels(data_sets, key, several)
    mask = _qc_mask(data_sets, QC_column, several)
    cells = _to_device(
        Z[0] if len(Z) == 1 else np.concatenate(Z), "cuda" if backend == "cupy" else None
    )
    harmonized = harmonize(cells, labels, key_names=names, mask=mask, **options)
    corrected = to_host(harmonized.corrected)
    start = 0
    for data_set in data_sets:
        data_set.obsm[adjusted_basis] = corrected[start : start + data_set.n_obs]
        start += data_set.n_obs


def _translate(options: dict[str, Any]) -> dict[str, Any]:
    """Give every option its own name here; refuse unknown ones."""
    known = set(inspect.signature(harmonize).parameters) - {"Z", "batches", "key_names", "mask"}
    known -= {"keep_assignments"}
    for name in options:
        if name not in known and name not in HARMONYPY_NAMES:
            raise TypeError(unknown("option of Harmony", name, [*sorted(known), *HARMONYPY_NAMES]))
    translated = {}
    for name, value in options.items():
        target = HARMONYPY_NAMES.get(name, name)
        if target in translated:
            raise TypeError(f"{target} is given twice, once under harmonypy's name")
        translated[target] = value
    if options.get("lamb", 1) is None:
        del translated["ridge_lambda"]  # harmonypy's None is the default of 1
    if translated.get("theta", 2) is None:
        del translated["theta"]
    if "theta" in translated:
        translated["theta"] = to_host(translated["theta"])
    if "epsilon_harmony" in options and options["epsilon_harmony"] < 0:
        translated["tol_harmony"] = None
    if options.get("ncores", 1) == 0:
        translated["threads"] = None
    if options.get("random_state", 0) is None:
        translated["seed"] = 0
    if {"max_iter_kmeans", "epsilon_cluster"} & options.keys():
        translated.setdefault("early_stopping", translated.get("max_iter_clustering", 5) >= 4)
    return translated


def _name(number: int, several: bool) -> str:
    return f"data set {number}" if several else "adata"


def _column(table: Any, name: Any, where: str) -> Any:
    """Fetch a column of a data frame or mapping."""
    if name not in table:
        raise KeyError(missing(f"{where} has no column", name, table.keys()))
    return table[name] if hasattr(table[name], "dtype") else np.asarray(table[name])


def _resolve(table: Any, spec: str | Callable[[Any], Any] | Any, where: str, owner: Any) -> Any:
    """Fetch labels: a column's name, a function of ``owner``, or the labels themselves."""
    if isinstance(spec, str):
        return _column(table, spec, where)
    labels = spec(owner) if callable(spec) else spec
    if np.ndim(labels) != 1:
        raise TypeError(f"{where}: expected a column name, a function or labels; found {spec!r}")
    return labels if hasattr(labels, "dtype") else np.asarray(labels)


def _boolean(table: Any, spec: Any, where: str, owner: Any) -> np.ndarray:
    """Fetch a QC mask."""
    values = _resolve(table, spec, where, owner)
    what = f"QC column {spec!r}" if isinstance(spec, str) else "the QC mask"
    n_missing = int(np.sum(factorize(values)[0] < 0))
    if n_missing:
        raise ValueError(f"{where}: {what} is missing for {n_missing} of {len(values)} cells")
    array = np.asarray(values)
    if array.dtype == object and all(isinstance(value, (bool, np.bool_)) for value in array):
        array = array.astype(bool)
    if array.dtype != bool:
        raise TypeError(f"{where}: {what} must be boolean; found dtype {array.dtype}")
    return array


def _qc_mask(data_sets: list[AnnData], spec: Any, several: bool) -> np.ndarray | None:
    if spec is None:
        return None
    specs = list(spec) if several and isinstance(spec, (list, tuple)) else [spec] * len(data_sets)
    if len(specs) != len(data_sets):
        raise ValueError(f"there are {len(data_sets)} data sets but {len(specs)} QC columns")
    masks = []
    for number, (data_set, one) in enumerate(zip(data_sets, specs, strict=True)):
        where = f"{_name(number, several)}.obs"
        if one is None:
            masks.append(np.ones(data_set.n_obs, dtype=bool))
            continue
        mask = _boolean(data_set.obs, one, where, data_set)
        if len(mask) != data_set.n_obs:
            raise ValueError(f"{where} has {data_set.n_obs} cells but the QC mask {len(mask)}")
        masks.append(mask)
    return np.concatenate(masks)


def _batch_labels(data_sets: list[AnnData], key: Any, several: bool) -> tuple[list[str], list[Any]]:
    """Fetch the labels of every key; those of several data sets are kept apart and numbered."""
    if key is None and not several:
        raise ValueError("key is None; name the batch column")
    if several and isinstance(key, tuple):
        if len(key) != len(data_sets):
            raise ValueError(f"there are {len(data_sets)} data sets but {len(key)} batch keys")
        specs = [one if isinstance(one, list) else [one] for one in key]
    else:
        specs = [list(key) if isinstance(key, (list, tuple)) else [key]] * len(data_sets)
    if len({len(one) for one in specs}) != 1 or not specs[0]:
        raise ValueError(f"give every data set the same number of batch keys; found {key!r}")
    names = [
        one if isinstance(one, str) else f"key {number}" for number, one in enumerate(specs[0])
    ]
    columns: list[list[Any]] = [[] for _ in names]
    offsets = [0] * len(names)
    for number, (data_set, keys) in enumerate(zip(data_sets, specs, strict=True)):
        where = f"{_name(number, several)}.obs"
        for position, spec in enumerate(keys):
            if spec is None:
                labels = np.zeros(data_set.n_obs, dtype=np.intp)
            else:
                labels = _resolve(data_set.obs, spec, where, data_set)
            if len(labels) != data_set.n_obs:
                raise ValueError(f"{where} has {data_set.n_obs} cells but {len(labels)} labels")
            if several:
                codes, levels = factorize(labels)
                labels = np.where(codes < 0, np.nan, codes + offsets[position])
                offsets[position] += len(levels)
            columns[position].append(labels)
    if several:
        return names, [np.concatenate(parts) for parts in columns]
    return names, [parts[0] for parts in columns]


def _embedding(data: Any, n_cells: int) -> np.ndarray:
    """Get the embedding as an array with the cells in rows."""
    if hasattr(data, "select_dtypes"):
        data = data.select_dtypes(include="number")
    if hasattr(data, "toarray"):
        data = data.toarray()
    if hasattr(data, "to_numpy"):
        data = data.to_numpy()
    data = np.asarray(data)
    if data.ndim != 2:
        raise ValueError(f"the embedding must have two dimensions; found shape {data.shape}")
    if data.shape[0] == n_cells:
        return data
    if data.shape[1] == n_cells:
        return data.T
    raise ValueError(f"there are {n_cells} cells, but the embedding has shape {data.shape}")


def _to_device(Z: np.ndarray, device: str | None) -> Any:
    """Move the embedding to the GPU where that is asked for and possible."""
    if device in (None, "cpu"):
        return Z
    kind = str(device).partition(":")[0]
    if kind not in ("cuda", "mps"):
        raise ValueError(f"device must be 'cpu', 'cuda' or 'mps'; found {device!r}")
    if kind == "mps":
        warnings.warn("Harmony does not compute on 'mps'; it runs on the CPU", stacklevel=3)
        return Z
    if why := gpu_problem(["cupy"]):
        warnings.warn(f"{why}; Harmony runs on the CPU", stacklevel=3)
        return Z
    import cupy

    return cupy.asarray(Z)
