"""Counts of a store to principal components: genes chosen, decomposed, scores written.

X is decompressed once for the choice of genes (twice by ``seurat_v3``) and once for the components.
The chosen values are then kept in a file, from which the scores are computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from preprocessing.expression import BlockFile, ExpressionReader
from preprocessing.gene_choice import read_gene_choice, select_genes
from preprocessing.pca import gram_pca, pca_scores
from preprocessing.stores import counts_of, named_values, stored_matrix, write_pca
from utils.atomic import scratch_file
from utils.elements import read_column
from utils.io import open_store, read_index
from utils.threads import shared_workers

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    import numpy as np
    import pandas as pd

    from preprocessing.options import VariableGenesOptions


def add_pca(
    source: str | Path,
    out: str | Path,
    *,
    layer: str | None,
    values: str | None,
    n_comps: int,
    n_top_genes: int | None,
    flavor: str,
    batch_key: str | None,
    hvg: VariableGenesOptions | None,
    normalize: bool,
    target_sum: float | None,
    threads: int,
) -> None:
    """Choose genes, compute principal components and write them.

    Parameters
    ----------
    source
        A zarr store; the new one links to its elements.
    out
        The ``.zarr`` folder to write, atomically.
    layer, values
        As for `preprocessing.stores.counts_of`.
    n_comps, n_top_genes, flavor, batch_key, hvg, normalize, target_sum
        The keys of ``preprocessing`` with these names.
    threads
        Blocks that are read and multiplied at the same time; the result does not depend on it.

    Raises
    ------
    ValueError, KeyError
        If the values are not what the options need, or no component can be computed.

    Notes
    -----
    Peak memory: as `preprocessing.pca.gram_pca`, and 8 bytes per cell. Disk space beside `out`
    while this runs: as `preprocessing.expression.BlockFile` for the chosen genes.
    """
    root = open_store(source)
    chooses = n_top_genes is not None and not (hvg and hvg.use)
    if normalize:
        stored = counts_of(
            root,
            layer,
            needed_by="PCA with normalize: true",
            values=values,
            as_they_are="preprocessing: {normalize: false} (by hand --no-normalize)",
        )
    elif chooses and flavor == "seurat_v3":
        stored = counts_of(root, layer, needed_by="flavor: seurat_v3", values=values)
    else:
        stored = stored_matrix(root, layer)
    expression = ExpressionReader(
        stored.values, normalize=normalize, target_sum=target_sum, threads=threads
    )
    # The last bits of dense scores may depend on the rows of a block.
    rows = None if hasattr(stored.values, "shape") else expression.small
    with named_values(stored), scratch_file(out) as file, shared_workers(threads):
        genes, columns = _choose_genes(
            root, expression, n_top_genes=n_top_genes, flavor=flavor, batch_key=batch_key, hvg=hvg
        )
        chosen = BlockFile(file)
        pca = gram_pca(
            lambda: chosen.write(expression.blocks("products", genes, rows=rows)),
            n_comps=n_comps,
            threads=threads,
        )
        scores = pca_scores(chosen.read, pca.components, pca.mean, threads=threads)
        write_pca(
            out,
            source,
            pca,
            scores,
            genes=genes,
            columns=columns,
            shape=expression.shape,
            threads=threads,
        )


def _choose_genes(
    root: Any,
    expression: ExpressionReader,
    *,
    n_top_genes: int | None,
    flavor: str,
    batch_key: str | None,
    hvg: VariableGenesOptions | None,
) -> tuple[np.ndarray | None, pd.DataFrame | None]:
    """Return the positions of the genes to use (None: all) and the columns of var about them."""
    gene_names = read_index(root, "var")
    choice = read_gene_choice(root, gene_names, hvg)
    batch, batch_names = None, None
    if batch_key:
        column = read_column(root, batch_key).astype("category").cat
        batch, batch_names = column.codes.to_numpy(), list(map(str, column.categories))

    def blocks() -> Any:
        if flavor == "seurat_v3":  # works on the counts themselves
            return expression.stored_blocks("variable genes")
        return expression.blocks("variable genes", rows=expression.small)

    return select_genes(
        blocks,
        expression.n_genes,
        choice,
        n_top_genes=n_top_genes,
        flavor=flavor,
        batch=batch,
        batch_names=batch_names,
        gene_names=gene_names,
        threads=expression.threads,
    )
