"""Reads the counts that sub-clustering goes back to, and that splits are tested by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from utils.elements import read_column
from utils.io import n_rows, read_index
from utils.opening import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from clustering.hierarchy import Represent
    from clustering.significance.splits import SplitTest
    from preprocessing.options import PCAOptions, VariableGenesOptions


def read_own_components(
    root: Any,
    *,
    refine: str,
    layer: str | None,
    options: PCAOptions,
    values: Mapping[str, Any],
    harmony: Mapping[str, Any],
    batch: Sequence[str],
    batch_file: str | None,
    seed: int,
) -> Represent:
    """Return a function that computes components of each cluster from the counts of a store.

    Parameters
    ----------
    root
        Store with the counts.
    refine
        ``pca`` or ``integration``, for messages.
    layer, values
        As for `preprocessing.stores.counts_of`.
    options, harmony, seed
        As for `clustering.refine.own_components`.
    batch, batch_file
        Columns of the batch, and the store with them; None: `root`.
    """
    from functools import partial

    from clustering.refine import own_components
    from preprocessing.gene_choice import read_gene_choice
    from preprocessing.stores import counts_blocks, counts_of, stored_matrix
    from utils.blocks import row_blocks, rows_of_small_blocks

    store = open_store(batch_file) if batch_file else root
    batches = [read_column(store, column) for column in batch]
    stored = stored_matrix(root, layer)
    if options.normalize:
        needed_by = f"refine: {refine} with normalize: true"
        as_they_are = "preprocessing: {normalize: false}"
        stored = counts_of(root, layer, needed_by=needed_by, as_they_are=as_they_are, **values)
    # Few cells of each block are taken: small ones stay in the cache.
    rows = rows_of_small_blocks(stored.values)
    return partial(
        own_components,
        lambda: (
            counts_blocks(stored, rows=rows)
            if options.normalize
            else row_blocks(stored.values, rows=rows)
        ),
        options=options,
        choice=read_gene_choice(root, read_index(root, stored.var), options.hvg),
        batches=batches,
        seed=seed,
        **harmony,
    )


def read_split_test(
    root: Any,
    *,
    layer: str | None,
    values: Mapping[str, Any],
    batch: Sequence[str],
    batch_file: str | None,
    representation: np.ndarray | None,
    threads: int = 1,
    hvg: VariableGenesOptions | None = None,
    needed_by: str = "--significance (clustering: {significance: ...})",
    **options: Any,
) -> SplitTest:
    """Find what splits are tested by.

    Parameters
    ----------
    root
        Store with the counts.
    layer, values
        As for `preprocessing.stores.counts_of`.
    batch, batch_file
        Columns of the batch, and the store with them; None: `root`.
    representation
        All cells x dimensions, in which children are ordered; None: by the counts.
    threads
        That read counts, and of the test.
    hvg
        Which genes can be variable; None: all.
    needed_by
        What needs counts, for the error.
    **options
        Further attributes of `clustering.significance.splits.SplitTest`.

    Raises
    ------
    ValueError
        If the store holds no counts.
    """
    import numpy as np
    import pandas as pd

    from clustering.significance.splits import SplitTest
    from preprocessing.gene_choice import read_gene_choice
    from preprocessing.stores import counts_blocks, counts_of
    from utils.blocks import gather_rows, rows_of_small_blocks

    stored = counts_of(root, layer, needed_by=needed_by, **values)
    n_cells = n_rows(root, "obs")
    codes = np.zeros(n_cells, dtype=np.int64)
    if batch:
        store = open_store(batch_file) if batch_file else root
        columns = pd.DataFrame({name: read_column(store, name).to_numpy() for name in batch})
        codes = columns.groupby(batch, sort=False, dropna=False, observed=True).ngroup().to_numpy()
    names = read_index(root, stored.var)
    return SplitTest(
        read=lambda parts: gather_rows(
            # Few cells of each block are taken: small ones stay in the cache.
            counts_blocks(stored, rows=rows_of_small_blocks(stored.values), threads=threads),
            parts,
        ),
        threads=threads,
        batch=codes,
        representation=representation,
        n_cells=n_cells,
        genes=names,
        choice=read_gene_choice(root, names, hvg),
        **options,
    )
