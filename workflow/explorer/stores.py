"""Reading what the page shows from atlases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.page import MethodResult
from explorer.page_trees import cluster_columns
from utils.elements import read_embedding
from utils.errors import missing
from utils.io import keys, read_element, read_index

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd


def check_same_cells(files: Sequence[Path], roots: Sequence[Any]) -> None:
    """Raise a ValueError where an atlas holds other cells than the first, or another order."""
    cells = read_index(roots[0], "obs")
    for file, root in zip(files[1:], roots[1:], strict=True):
        if not np.array_equal(read_index(root, "obs"), cells):
            raise ValueError(f"{file}: holds other cells than {files[0]}, or in another order")


def read_method(
    root: Any,
    *,
    name: str,
    basis: str,
    markers: pd.DataFrame | None,
    splits: pd.DataFrame | None,
) -> MethodResult:
    """Read layout and cluster columns of an atlas.

    Parameters
    ----------
    root
        As returned by `utils.io.open_store`.
    name
        Name of the method.
    basis
        Key of the layout in obsm.
    markers, splits
        Tables of the method, where there are any.

    Raises
    ------
    KeyError
        If obsm has no such layout; suggests a similar key.
    """
    if basis not in keys(root, "obsm"):
        raise KeyError(missing(f"{name}: adata.obsm has no", basis, keys(root, "obsm")))
    columns = cluster_columns(keys(root, "obs"))
    clusters = {column: read_element(root, f"obs/{column}") for column in columns}
    return MethodResult(name, read_embedding(root, basis, n_dims=2), clusters, markers, splits)
