"""Stores of this stage: find the counts or values that a step needs, write components.

Every step that starts from counts, and the markers, find them here, so that log-normalized values
are never taken for counts in one step and refused in another.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numerics.normalize import WrongValue, check_counts
from preprocessing.matrix_kind import COUNTS, EMPTY, FRACTIONS, LINEAR, LOG, describe_matrix
from utils.blocks import matrix_shape, row_blocks, write_blocks
from utils.errors import listed, missing
from utils.io import keys, new_store, read_index, write_element
from utils.log import say
from utils.opening import location

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd

    from preprocessing.pca import PrincipalComponents
    from utils.blocks import Block


class StoredMatrix(NamedTuple):
    """A matrix of cells x genes in a store."""

    values: Any  # for `utils.blocks.row_blocks`
    name: str  # where it is: X, layers/counts, raw/X
    var: str  # the frame with its genes: var, raw/var
    root: Any

    @property
    def label(self) -> str:
        """The matrix and its file, for errors."""
        return f"{self.name} of {location(self.root)}"


def stored_matrix(root: Any, layer: str | None = None, *, own_genes: bool = False) -> StoredMatrix:
    """Find X, a layer, or with ``raw`` the matrix of raw, if there is one.

    Parameters
    ----------
    root
        As returned by `utils.io.open_store`.
    layer
        Name of a layer, ``raw``, or None for X.
    own_genes
        Accept raw with genes other than those of var.

    Raises
    ------
    KeyError
        If it is missing; lists those that exist.
    ValueError
        If raw has other genes than var.
    """
    layers = keys(root, "layers")
    if layer == "raw" and _has_raw(root):
        if not own_genes and not _same_genes(root):
            raise ValueError(
                f"raw of {location(root)} has other genes than X ({_n_genes(root, 'raw/X'):,}, X "
                f"has {_n_genes(root, 'X'):,}): take raw with its genes when the file is read, "
                "preprocessing: {layer: raw} in the config or prepare.py --layer raw"
            )
        return StoredMatrix(root["raw/X"], "raw/X", "raw/var", root)
    if layer is not None:
        if layer not in layers:
            available = [*layers, "raw"] if _has_raw(root) else layers
            raise KeyError(missing("adata.layers has no", layer, available))
        return StoredMatrix(root[f"layers/{layer}"], f"layers/{layer}", "var", root)
    if not has_x(root):
        available = [*layers, "raw"] if _has_raw(root) else layers
        raise KeyError(
            f"{location(root)}: has no X; name a --layer. Available: {listed(available)}"
        )
    return StoredMatrix(root["X"], "X", "var", root)


def has_x(root: Any) -> bool:
    """Return whether a store has an X."""
    return "X" in root and root["X"].attrs.get("encoding-type") != "null"


def _has_raw(root: Any) -> bool:
    return "raw" in root and "X" in keys(root, "raw") and "var" in keys(root, "raw")


def _same_genes(root: Any) -> bool:
    return np.array_equal(read_index(root, "raw/var"), read_index(root, "var"))


def _n_genes(root: Any, name: str) -> int:
    return matrix_shape(root[name])[1] if name in root else 0


def counts_of(
    root: Any,
    layer: str | None = None,
    *,
    needed_by: str,
    values: str | None = None,
    as_they_are: str = "",
    own_genes: bool = False,
    quiet: bool = False,
) -> StoredMatrix:
    """Find the counts of a store; log if they have fractions.

    Parameters
    ----------
    root, layer, own_genes
        As for `stored_matrix`.
    needed_by
        What needs counts, for the error: ``PCA with normalize: true``.
    values
        ``counts`` or ``log-normalized`` if the user says so; None: recognized.
    as_they_are
        What to write so that the values are used without normalization; empty: they cannot be.
    quiet
        Log nothing.

    Raises
    ------
    ValueError
        If it holds no counts: one line with what it holds and where counts are.
    KeyError
        As `stored_matrix`.
    """
    stored = stored_matrix(root, layer, own_genes=own_genes)
    if values == COUNTS:
        return stored
    if values is None:
        described = describe_matrix(stored.values)
        if described.kind == FRACTIONS and not quiet:
            say(f"{stored.name}: {described}, taken as counts")
        # Whole numbers of which some are negative are damaged counts: reading them names one.
        if described.kind in (*LINEAR, EMPTY) or described.whole_share == 1:
            return stored
        what = f"holds {described}"
    else:
        described, what = None, f"holds {values} values, as --values says"
    where = where_counts_are(root, stored.name)
    if not where:
        where = "no other matrix of the file holds counts"
        if as_they_are:
            where += f"; to use these values as they are, write {as_they_are}"
        if described is not None and described.kind == LOG:
            where += (
                f"{', or,' if as_they_are else ';'} if they are counts after all, "
                "preprocessing: {values: counts} (by hand --values counts)"
            )
    raise ValueError(f"{stored.label} {what}, and {needed_by} needs counts; {where}")


def where_counts_are(root: Any, name: str, *, stage: str = "preprocessing") -> str:
    """Name other matrices that hold counts, and the line to write; empty: there are none.

    Parameters
    ----------
    root
        A store.
    name
        The matrix that holds no counts, as `StoredMatrix.name`.
    stage
        ``preprocessing`` or ``evaluation``: whose keys name a layer.
    """
    prefix = "" if stage == "preprocessing" else "markers_"
    option = f"{prefix}layer"
    others = {f"layers/{key}": key for key in keys(root, "layers")}
    if _has_raw(root):
        others.pop("layers/raw", None)  # "raw" means raw
        others["raw/X"] = "raw"
    others.pop(name, None)
    holding = {path: key for path, key in others.items() if _holds_counts(root[path])}
    if holding:
        first = next(iter(holding.values()))
        by_hand = f"--{option} {first}"
        if stage == "preprocessing" and "raw/X" in holding and first == "raw":
            by_hand = by_hand if _same_genes(root) else "prepare.py --layer raw"
        return (
            f"there are counts in {listed(list(holding))}: write {stage}: {{{option}: {first}}} "
            f"(by hand {by_hand})"
        )
    if name != "X" and has_x(root) and _holds_counts(root["X"]):
        return f"there are counts in X: leave out {stage}.{option} (by hand --{option})"
    return ""


def _holds_counts(matrix: Any) -> bool:
    if not (hasattr(matrix, "shape") or "shape" in matrix.attrs):
        return False
    return describe_matrix(matrix).kind == COUNTS


def counts_blocks(
    matrix: StoredMatrix, *, rows: int | None = None, threads: int = 1
) -> Iterator[Block]:
    """Read counts in blocks of rows; a negative or not finite one is an error with its names."""
    n_read = 0
    for block in row_blocks(matrix.values, rows=rows, threads=threads):
        with named_values(matrix):
            check_counts(block, first_cell=n_read)
        yield block
        n_read += block.shape[0]


@contextlib.contextmanager
def named_values(matrix: StoredMatrix) -> Iterator[None]:
    """Name the matrix, cell and gene in the error of a wrong value."""
    try:
        yield
    except WrongValue as error:
        cells, genes = read_index(matrix.root, "obs"), read_index(matrix.root, matrix.var)
        raise ValueError(
            f'{matrix.label}: cell "{cells[error.cell]}", gene "{genes[error.gene]}": '
            f"{error.problem}"
        ) from error


def write_pca(
    out: str | Path,
    source: str | Path,
    pca: PrincipalComponents,
    scores: Iterator[np.ndarray],
    *,
    genes: np.ndarray | None,
    columns: pd.DataFrame | None,
    shape: tuple[int, int],
    threads: int = 1,
) -> None:
    """Write principal components into a store that links to its source, in scanpy's layout.

    Parameters
    ----------
    out, source
        As for `utils.io.new_store`.
    pca
        The components.
    scores
        The scores of consecutive blocks of cells: ``obsm/X_pca``.
    genes
        Positions of the genes of the components; None: all. The others get loadings of 0.
    columns
        Columns of var to add; None: none.
    shape
        Number of cells and of all genes.
    threads
        Chunks that are written at the same time.
    """
    n_cells, n_genes = shape
    n_chosen, n_comps = pca.components.shape
    columns = {} if columns is None else columns
    new = ["obsm/X_pca", "varm/PCs", "uns/pca", *(f"var/{name}" for name in columns)]
    with new_store(out, source=source, new=new) as store:
        write_blocks(
            store["obsm"], "X_pca", scores, n_cells=n_cells, n_genes=n_comps, threads=threads
        )
        loadings = np.zeros((n_genes, n_comps), dtype=pca.components.dtype)
        loadings[slice(None) if genes is None else genes] = pca.components
        write_element(store, "varm/PCs", loadings)
        params = {"zero_center": True, "n_top_genes": n_chosen}
        variances = {"variance": pca.variance, "variance_ratio": pca.variance_ratio}
        write_element(store, "uns/pca", {"params": params, **variances})
        for name, column in columns.items():
            write_element(store, f"var/{name}", column)
    say(
        f"{out}: X_pca of {n_cells:,} cells, {n_comps} components of {n_chosen:,} genes "
        f"({pca.variance_ratio.sum():.1%} of their variance)"
    )
