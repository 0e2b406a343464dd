"""The stores of the integration: what a method starts from is read here, its result written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from integration.options import TopicsOptions
from preprocessing.options import NormalizationOptions
from preprocessing.stores import counts_blocks, counts_of, stored_matrix
from utils.blocks import matrix_shape, n_blocks, row_blocks
from utils.elements import read_column
from utils.io import (
    keys,
    new_store,
    open_store,
    read_element,
    read_index,
    write_element,
)
from utils.log import progress, say
from utils.opening import location
from utils.paths import is_linkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    import scipy.sparse as sp

    from preprocessing.stores import StoredMatrix
    from utils.blocks import Block

MAX_COMPONENT_GENES = 10_000  # their products, and the components, take 16 bytes a pair


@dataclass(frozen=True)
class StoredExpression:
    """Expression values of a store, read in blocks of cells.

    Attributes
    ----------
    blocks
        Returns, each time it is called, blocks of consecutive cells x genes.
    genes
        Positions of the highly variable genes among all genes.
    n_genes
        Number of all genes.
    """

    blocks: Callable[[], Iterator[Block]]
    genes: np.ndarray
    n_genes: int


def check_new_elements(root: Any, names: Sequence[str], *, overwrite: bool) -> None:
    """Refuse to replace elements of a store, such as ``obsm/X_mnn``, without `overwrite`."""
    present = [name for name in names if name.partition("/")[2] in keys(root, name.split("/")[0])]
    if present and not overwrite:
        raise ValueError(
            f"{location(root)} has {' and '.join(present)} already; --overwrite replaces it, "
            "--key_added names another"
        )


def highly_variable_positions(root: Any) -> np.ndarray | None:
    """Read the positions of the genes in ``var/highly_variable``; None where it is missing."""
    if "highly_variable" not in keys(root, "var"):
        return None
    return np.flatnonzero(np.asarray(read_element(root, "var/highly_variable"), dtype=bool))


def read_counts(
    matrix: StoredMatrix, genes: np.ndarray | None, *, dtype: str = TopicsOptions.dtype
) -> sp.csr_matrix:
    """Read the counts of some genes, or of all, in blocks of rows; CSR, cells x genes.

    Peak memory: 8 bytes (float32) per count above 0, twice.
    """
    import scipy.sparse as sp

    blocks = progress(counts_blocks(matrix), desc="counts", total=n_blocks(matrix.values))
    parts = [
        sp.csr_matrix(block if genes is None else block[:, genes], dtype=dtype) for block in blocks
    ]
    return sp.vstack(parts, format="csr")


def open_expression(
    root: Any,
    layer: str | None,
    *,
    method: str,
    values: str | None = None,
    normalize: bool = True,
    target_sum: float | None = NormalizationOptions.target_sum,
    all_genes: bool = False,
) -> StoredExpression:
    """Prepare to read log-expression values of the highly variable genes in blocks.

    Parameters
    ----------
    root
        As returned by `utils.io.open_store`.
    layer
        Name of a layer, ``raw``, or None for X.
    method
        The method that needs them, for error messages.
    values
        ``counts`` or ``log-normalized`` where the user knows; None: looked at.
    normalize
        Scale counts to `target_sum` per cell and take log1p; else take the values as they are.
    target_sum
        None: the median of the cells' totals.
    all_genes
        Blocks have all genes, not only the highly variable ones.

    Raises
    ------
    ValueError, KeyError
        If the matrix is missing or holds no counts, or more genes than 10,000 are marked.
    """
    from numerics.normalize import (
        count_totals,
        median_target_sum,
        normalize_block,
        row_totals,
    )

    if normalize:
        as_they_are = f"normalize: false under {method} (by hand --no-normalize)"
        matrix = counts_of(root, layer, needed_by=method, values=values, as_they_are=as_they_are)
    else:
        matrix = stored_matrix(root, layer)
    n_genes = matrix_shape(matrix.values)[1]
    genes = highly_variable_positions(root)
    if genes is None:
        genes = np.arange(n_genes)
    if len(genes) > MAX_COMPONENT_GENES:
        raise ValueError(
            f"components of all {len(genes):,} genes need {16 * len(genes) ** 2 / 1e9:.0f} GB; "
            "mark fewer in var/highly_variable (pca.py does)"
        )
    say(f"{len(genes):,} of {n_genes:,} genes")
    chosen_genes = np.arange(n_genes) if all_genes else genes

    def stored_blocks() -> Iterator[Block]:
        blocks = counts_blocks(matrix) if normalize else row_blocks(matrix.values)
        return progress(blocks, desc="counts", total=n_blocks(matrix.values))

    if normalize and target_sum is None:
        target_sum = median_target_sum(count_totals(stored_blocks))

    def blocks() -> Iterator[Block]:
        for block in stored_blocks():
            chosen = block[:, chosen_genes]
            if normalize:
                totals = row_totals(block)  # of all genes, not only of the chosen ones
                chosen = normalize_block(chosen, target_sum=target_sum, totals=totals)
            yield chosen

    return StoredExpression(blocks, genes, n_genes)


def read_covariates(
    root: Any, names: Sequence[str], *, batch: Sequence[str]
) -> dict[str, pd.Series]:
    """Read covariates from obs; those of the batch are categories, whatever their type."""
    columns = {name: read_column(root, name) for name in names}
    return {k: v.astype(object) if k in batch else v for k, v in columns.items()}


def to_all_genes(
    values: np.ndarray, genes: np.ndarray | None, n_genes: int, *, fill: float = np.nan
) -> np.ndarray:
    """Return a row for each of `n_genes`: `values` in the rows `genes` (None: all), else `fill`."""
    if genes is None:
        return values
    rows = np.full((n_genes, values.shape[1]), fill, dtype=values.dtype)
    rows[genes] = values
    return rows


def write_embedding(
    output_file: str | Path,
    input_file: str | Path,
    key: str,
    embedding: np.ndarray,
    record: Mapping[str, Any],
    others: Mapping[str, Any] | None = None,
) -> None:
    """Write an embedding to a new store that links to all else of the input.

    Parameters
    ----------
    output_file
        The ``.zarr`` folder to write.
    input_file
        The store that the method started from. Nothing can link to an ``.h5ad`` file: of it the
        names of cells and genes are written.
    key
        Key of the embedding in obsm, and of its record in uns.
    embedding
        Cells x dimensions.
    record
        How the embedding was made; written as JSON.
    others
        Further elements by their path in the store, such as ``varm/topics``.
    """
    elements = {f"obsm/{key}": embedding, **(others or {}), f"uns/{key}": json.dumps(record)}
    source = input_file if is_linkable(input_file) else None
    if source is None:
        import pandas as pd

        root = open_store(input_file)
        frames = {name: pd.DataFrame(index=read_index(root, name)) for name in ("obs", "var")}
        elements = frames | elements
    with new_store(output_file, source=source, new=elements) as store:
        for name, value in elements.items():
            write_element(store, name, value)
