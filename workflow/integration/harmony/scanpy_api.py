"""Harmony called as scanpy's and rapids-singlecell's function: `harmony_integrate`."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from integration.batches import factorize
from integration.harmony.algorithm import harmonize
from integration.harmony.api_arguments import (
    CellTable,
    as_embedding,
    to_device,
    translate_options,
)
from integration.harmony.rapids_backend import harmonize_with_rapids
from integration.options import IntegrationOptions
from numerics.arrays import to_host
from utils.errors import missing, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

CORRECTION_METHODS = ("fast", "original", "batched")


def harmony_integrate(
    adata: AnnData | Sequence[AnnData],
    key: Any = None,
    *,
    basis: str = IntegrationOptions.basis,
    adjusted_basis: str = "X_pca_harmony",
    QC_column: Any = None,
    overwrite: bool = False,
    backend: Literal["cpu", "cupy", "rapids"] = "cpu",
    correction_method: str | None = None,
    colsum_algo: str | None = None,
    **options: Any,
) -> None:
    """Integrate the batches of one or several data sets and store the result in ``obsm``.

    Parameters
    ----------
    adata
        Annotated data, or a list of them. Batches of different data sets are different, whatever
        their labels.
    key
        Batch: a column of ``obs``, an array, or a function of the data set that returns one; a
        list of these for several keys. With several data sets, a tuple gives each its own, and
        None makes every data set one batch.
    basis, adjusted_basis
        Names in ``obsm`` of the embedding to integrate and of the result.
    QC_column
        Cells to use: a boolean column of ``obs``, a boolean array, or a function of the data set;
        with several data sets, a list or tuple gives each its own. The others are NaN in the
        result.
    overwrite
        Replace ``adjusted_basis`` where it exists.
    backend
        "cpu"; "cupy" for the same code on a GPU, or, with a warning, on the CPU where there is
        none; or "rapids" for rapids-singlecell (one data set). The result is on the CPU.
    correction_method, colsum_algo
        Passed to rapids: "fast", "original" or "batched" (0.18 warns of "original" and uses
        another), and how it sums columns. The other backends ignore them with a warning: they
        have one method, which is exact.
    **options
        Options of `harmonize`, or harmonypy's or rapids' names for them.

    Raises
    ------
    KeyError
        A column or embedding that does not exist.
    RuntimeError
        backend="rapids" without rapids-singlecell or a GPU.
    TypeError, ValueError
        Any other invalid input, in one line.

    Notes
    -----
    Peak memory: that of `harmonize`, and with several data sets one more embedding.
    """
    several = isinstance(adata, (list, tuple))
    data_sets = {"adata": adata}
    if several:
        data_sets = {f"data set {number}": data_set for number, data_set in enumerate(adata)}
    if not data_sets:
        raise ValueError("there is no data set to integrate")
    _check_bases(data_sets, basis, adjusted_basis, overwrite)
    options = translate_options(options)
    _check_backend(backend, correction_method, several=several, masked=QC_column is not None)
    if key is None and not several:
        raise ValueError("key is None; name the batch column")
    rapids_options = {"correction_method": correction_method, "colsum_algo": colsum_algo}
    if backend == "rapids":
        bases = {"basis": basis, "adjusted_basis": adjusted_basis}
        harmonize_with_rapids(adata, key, options, **bases, **rapids_options)
        return
    given = [name for name, value in rapids_options.items() if value is not None]
    if given:
        text = f"{' and '.join(given)}: no effect with backend={backend!r}"
        warnings.warn(text, stacklevel=2)
    Z = _join_embeddings(data_sets, basis)
    tables = [
        CellTable(data_set.obs, f"{name}.obs", data_set.n_obs, data_set)
        for name, data_set in data_sets.items()
    ]
    key_names, labels = _batch_labels(tables, key, several)
    harmonized = harmonize(
        to_device(Z, "cuda" if backend == "cupy" else None),
        labels,
        key_names=key_names,
        mask=_qc_mask(tables, QC_column, several),
        **options,
    )
    stops = np.cumsum([table.n_cells for table in tables])
    parts = np.split(to_host(harmonized.corrected), stops[:-1])
    for data_set, part in zip(data_sets.values(), parts, strict=True):
        data_set.obsm[adjusted_basis] = part


def _check_bases(
    data_sets: dict[str, AnnData], basis: str, adjusted_basis: str, overwrite: bool
) -> None:
    """Refuse data sets without the embedding, or with one where the result goes."""
    for name, data_set in data_sets.items():
        if basis not in data_set.obsm:
            raise KeyError(missing(f"{name}.obsm has no embedding", basis, data_set.obsm.keys()))
        if adjusted_basis in data_set.obsm and not overwrite:
            raise ValueError(
                f"{name}.obsm already has {adjusted_basis!r}; set overwrite=True to replace it"
            )


def _check_backend(
    backend: str, correction_method: str | None, *, several: bool, masked: bool
) -> None:
    """Refuse an unknown backend or correction method, and what rapids cannot do."""
    if backend not in ("cpu", "cupy", "rapids"):
        raise ValueError(f"backend must be 'cpu', 'cupy' or 'rapids'; found {backend!r}")
    if correction_method not in (None, *CORRECTION_METHODS):
        raise ValueError(unknown("correction_method", correction_method, CORRECTION_METHODS))
    if backend == "rapids" and several:
        raise ValueError("backend='rapids' takes one data set; concatenate them first")
    if backend == "rapids" and masked:
        raise ValueError("backend='rapids' has no QC_column; subset the data set first")


def _join_embeddings(data_sets: dict[str, AnnData], basis: str) -> np.ndarray:
    """Concatenate the embeddings of all data sets."""
    parts = [as_embedding(data.obsm[basis], data.n_obs) for data in data_sets.values()]
    if len({part.shape[1] for part in parts}) > 1:
        raise ValueError(
            f"obsm[{basis!r}] has {[part.shape[1] for part in parts]} dimensions in the data sets; "
            "compute one embedding for all of them"
        )
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _batch_labels(tables: list[CellTable], key: Any, several: bool) -> tuple[list[str], list[Any]]:
    """Return the names and the labels of every key; labels of several data sets are disjoint."""
    keys = _per_data_set(key, len(tables), tuple, "batch keys") if several else [key]
    keys = [list(each) if isinstance(each, (list, tuple)) else [each] for each in keys]
    if len({len(each) for each in keys}) != 1 or not keys[0]:
        raise ValueError(f"give every data set the same number of batch keys; found {key!r}")
    names = [
        name if isinstance(name, str) else f"key {number}" for number, name in enumerate(keys[0])
    ]
    labels = [
        [table.labels(source) for source in sources]
        for table, sources in zip(tables, keys, strict=True)
    ]
    by_key = zip(*labels, strict=True)
    return names, [_disjoint_codes(parts) if several else parts[0] for parts in by_key]


def _disjoint_codes(parts: Sequence[Any]) -> np.ndarray:
    """Encode the labels of several data sets, with other codes in each; NaN where missing."""
    n_levels = 0
    encoded = []
    for labels in parts:
        codes, levels = factorize(labels)
        encoded.append(np.where(codes < 0, np.nan, codes + n_levels))
        n_levels += len(levels)
    return np.concatenate(encoded)


def _qc_mask(tables: list[CellTable], QC_column: Any, several: bool) -> np.ndarray | None:
    """Return the mask of the cells to use; None where there is no QC column."""
    if QC_column is None:
        return None
    sources = [QC_column]
    if several:
        sources = _per_data_set(QC_column, len(tables), (list, tuple), "QC columns")
    masks = [table.mask(source) for table, source in zip(tables, sources, strict=True)]
    return np.concatenate(masks)


def _per_data_set(value: Any, n_data_sets: int, kinds: Any, what: str) -> list[Any]:
    """Return one value per data set: its own where ``value`` is of ``kinds``, else the same."""
    if not isinstance(value, kinds):
        return [value] * n_data_sets
    if len(value) != n_data_sets:
        raise ValueError(f"there are {n_data_sets} data sets but {len(value)} {what}")
    return list(value)
