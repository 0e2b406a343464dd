"""Prepare a store from input files: open them, choose cells and genes, join, stream the matrices.

Peak memory: obs, var, obsm and obsp of all files, and per thread some blocks of a matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from preprocessing import choose
from preprocessing.join import check_common, check_kinds, common_embeddings, join_genes
from preprocessing.options import PrepareOptions
from preprocessing.prepare_joined import write_joined
from preprocessing.prepare_one import is_kept_whole, write_linked, write_one
from preprocessing.sources import open_sources
from utils.paths import is_linkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from preprocessing.sources import Source


def prepare_store(
    files: Sequence[str | Path],
    out: Path,
    *,
    batch: Sequence[str] = (),
    stage: str = "preprocessing",
    layer: str | None = None,
    values: str | None = None,
    join: str = PrepareOptions.join,
    var_names: str | None = None,
    keep_genes: Sequence[str] = (),
    keep_cells: Sequence[str] = (),
    qc: Mapping[str, str] | None = None,
    subset: Mapping[str, Sequence[Any] | Mapping[str, float]] | None = None,
    min_genes: int = 0,
    min_cells: int = 0,
    recompute_umap: bool = False,
    recompute_neighbors: bool = False,
    threads: int = 1,
) -> tuple[int, int]:
    """Write one zarr store with the chosen cells and genes of some files.

    Parameters
    ----------
    files
        As the user writes them; the cells are in their order.
    out
        The ``.zarr`` folder to write, atomically. It links to a single ``.zarr`` file if all cells
        and genes of that are kept.
    batch
        Batch columns. With several files, the first of these that no file has will name the file
        (``file`` if they have all).
    stage
        Where the data set enters. At ``preprocessing`` only features that are genes are kept and
        several files must hold values of one kind; later they must share an embedding.
    layer
        The matrix in which genes are detected; ``None``: ``X``. ``raw`` becomes X, with its genes.
    values
        What this matrix holds, if it is not to be recognized.
    join
        Genes of several files: ``inner``, those of all, or ``outer``, those of any, with zeros.
    var_names
        The column of var with the names of the genes.
    keep_genes, keep_cells
        Columns of var and obs that are true for genes and cells to keep.
    qc
        Name of a group of genes to a regular expression for gene names: adds columns of obs.
    subset
        Column to values, or to a range ``{min: ..., max: ...}``: the cells to keep.
    min_genes
        Drop cells with fewer detected genes.
    min_cells
        Drop genes detected in fewer of the kept cells.
    recompute_umap, recompute_neighbors
        Whether the layout and the graph are computed again later.
    threads
        Blocks that are read and chunks that are written at the same time.

    Returns
    -------
    (int, int)
        Number of cells and genes.

    Raises
    ------
    ValueError, KeyError, TypeError
        If a file, column, value or layer is missing, files do not fit, or nothing is left.
    """
    file_names = [str(file) for file in files]
    _check_files(file_names)
    sources = open_sources(
        file_names,
        layer=layer,
        var_names=var_names,
        stage=stage,
        needs_counts=_needs_counts(len(files), stage, qc, min_genes, min_cells),
        threads=threads,
    )
    if not any(len(source.cells) for source in sources):
        raise ValueError(f"{file_names[0]}: no cell is left of 0")
    embeddings: list[str] = []
    if len(sources) > 1:
        embeddings = common_embeddings(
            sources,
            stage=stage,
            recompute_umap=recompute_umap,
            recompute_neighbors=recompute_neighbors,
        )
        if stage == "preprocessing" and values is None:
            check_kinds(sources)
    names = _choose(
        sources,
        join=join,
        qc=qc or {},
        keep_cells=keep_cells,
        keep_genes=keep_genes,
        subset=subset or {},
        min_genes=min_genes,
        min_cells=min_cells,
    )
    if len(sources) > 1:
        write_joined(
            sources,
            names,
            out,
            batch=batch,
            embeddings=embeddings,
            join=join,
            var_names=var_names,
        )
    elif is_linkable(sources[0].file) and is_kept_whole(sources[0]):
        write_linked(sources[0], names, out, var_names=var_names)
    else:
        write_one(sources[0], names, out, var_names=var_names)
    return sum(int(source.cells.sum()) for source in sources), len(names)


def _check_files(files: Sequence[str]) -> None:
    if repeated := sorted({file for file in files if files.count(file) > 1}):
        raise ValueError(f"{', '.join(repeated)} is listed twice")


def _needs_counts(
    n_files: int, stage: str, qc: Mapping[str, str] | None, min_genes: int, min_cells: int
) -> str:
    """Name the options that need the counts, with a verb; empty: none does."""
    options = {"qc": qc, "min_genes": min_genes, "min_cells": min_cells}
    given = [key for key, value in options.items() if value]
    if given:
        return f"{' and '.join(given)} {'need' if len(given) > 1 else 'needs'}"
    return "joined files need" if n_files > 1 and stage == "preprocessing" else ""


def _choose(
    sources: list[Source],
    *,
    join: str,
    qc: Mapping[str, str],
    keep_cells: Sequence[str],
    keep_genes: Sequence[str],
    subset: Mapping[str, Any],
    min_genes: int,
    min_cells: int,
) -> np.ndarray:
    """Mark the cells and genes of each file that are kept; return the gene names."""
    if len(sources) == 1:
        names = sources[0].gene_names
    else:
        check_common(sources)
        lists, files = [s.gene_names for s in sources], [s.file for s in sources]
        names, positions = join_genes(lists, files, join=join)
        for source, position in zip(sources, positions, strict=True):
            # -1 takes the last one, which is appended.
            source.genes = np.append(source.genes, -1)[position]
    if qc:
        choose.add_quality(sources, names, qc)
    choose.keep_cells(sources, keep_cells, subset)
    marked = choose.keep_genes(sources, keep_genes, names)
    names = _take_genes(sources, names, marked)
    detected = choose.keep_detected(
        sources,
        len(names),
        min_genes=min_genes,
        min_cells=min_cells,
        counted=bool(qc) and bool(marked.all()),
    )
    return _take_genes(sources, names, detected)


def _take_genes(sources: list[Source], names: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    for source in sources:
        source.genes = source.genes[chosen]
    return names[chosen]
