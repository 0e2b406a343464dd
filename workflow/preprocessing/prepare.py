"""The input files to one store: open them, choose cells and genes, join, stream the matrices.

Peak memory: obs, var, obsm and obsp of all files, and three blocks of rows of a matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from utils.blocks import matrix_shape, n_blocks, row_blocks, write_blocks
from utils.cli import progress, say
from utils.encoding import encoding
from utils.io import (
    keys,
    length,
    new_store,
    obs_column,
    open_store,
    read_element,
    read_index,
    write_element,
)
from utils.messages import bad_name, missing

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
    join: str = "inner",
    var_names: str | None = None,
    keep_genes: Sequence[str] = (),
    keep_cells: Sequence[str] = (),
    qc: Mapping[str, str] | None = None,
    subset: Mapping[str, Sequence[Any] | Mapping[str, float]] | None = None,
    min_genes: int = 0,
    min_cells: int = 0,
    recompute_umap: bool = False,
    recompute_neighbors: bool = False,
) -> tuple[int, int]:
    """Write one zarr store with the chosen cells and genes of some files.

    Parameters
    ----------
    files
        As a user writes them; the cells are in their order.
    out
        The ``.zarr`` folder to write, atomically. It links to a single ``.zarr`` file of which all
        cells and genes are kept.
    batch
        Batch columns. Of several files, the first of these that no file has names the file
        (``file`` where all are there).
    stage
        Where the data set enters. At ``preprocessing`` only features that are genes are kept and
        several files must hold values of one kind; later they must share an embedding.
    layer
        The matrix in which genes are detected; ``None``: ``X``. ``raw`` becomes X, with its genes.
    values
        What this matrix holds, if the user knows better.
    join
        Genes of several files: ``inner``, those of all, or ``outer``, those of any, with zeros.
    var_names
        The var column with the names of the genes.
    keep_genes, keep_cells
        Columns of var and obs that are true for what is kept.
    qc
        Name of a group of genes to a regular expression: adds columns of obs.
    subset
        Column to values, or to a range ``{min: ..., max: ...}``: the cells to keep.
    min_genes
        Drop cells with fewer detected genes.
    min_cells
        Drop genes detected in fewer of the kept cells.
    recompute_umap, recompute_neighbors
        Whether the layout and the graph are computed anew after this.

    Returns
    -------
    (int, int)
        Number of cells and genes.

    Raises
    ------
    ValueError, KeyError, TypeError
        If a file, column, value or layer is not there, files do not fit, or nothing is left.
    """
    sources = open_sources(
        [str(file) for file in files],
        layer=layer,
        var_names=var_names,
        stage=stage,
        needs_counts=_needs_counts(len(files), stage, qc, min_genes, min_cells),
    )
    obsm: list[str] = []
    if len(sources) > 1:
        obsm = common_embeddings(
            sources,
            stage=stage,
            recompute_umap=recompute_umap,
            recompute_neighbors=recompute_neighbors,
        )
        genes = [which[found >= min_cells] for which in genes]
        _log_kept("genes", len(genes[0]), len(found), f"min_cells {min_cells}")
        if not len(genes[0]):
            raise ValueError(f"{files[0]}: no gene is detected in {min_cells} cells")

    parts = [
        _without_matrices(root)[cell, gene].copy()
        for root, cell, gene in zip(roots, cells, genes, strict=True)
    ]
    whole = _join(parts, files, batch)
    matrices = [name for name in _matrices(roots[0]) if all(name in root for root in roots)]
    with new_store(out) as store:
        for slot in ("obs", "var", "obsm", "varm", "obsp", "varp", "uns"):
            value = getattr(whole, slot)
            write_element(store, slot, value if slot in ("obs", "var") else dict(value))
        write_element(store, "layers", {})
        for name in matrices:
            parent, _, key = name.rpartition("/")
            write_blocks(
                store[parent] if parent else store,
                key,
                _chosen_blocks(roots, name, cells, genes),
                n_cells=whole.n_obs,
                n_genes=whole.n_vars,
            )
        if len(roots) == 1 and "raw" in roots[0] and "X" in keys(roots[0], "raw"):
            _write_raw(store, roots[0], cells[0])
    return whole.n_obs, whole.n_vars


def _check_names(root: Any, file: Path) -> None:
    """Refuse names that a zarr store cannot have; HDF5 reads them as a path."""
    for slot in ("obs", "var", "obsm", "varm", "obsp", "varp", "layers"):
        names = keys(root, slot)
        if slot in ("obs", "var"):
            names = [str(name) for name in root[slot].attrs.get("column-order", names)]
        else:
            # "a/b" is a group a, which says nothing about itself, with a b in it.
            names += [
                f"{name}/{next(iter(root[slot][name]), '')}"
                for name in names
                if hasattr(root[slot][name], "keys") and not len(root[slot][name].attrs)
            ]
        for name in names:
            if problem := bad_name(name):
                raise ValueError(f"{file}: adata.{slot}: {problem}; rename it")


def _shape(root: Any) -> tuple[int, int]:
    return length(root, "obs"), length(root, "var")


def _common_genes(roots: list[Any], files: Sequence[Path]) -> list[np.ndarray]:
    """Positions of the common genes in each file, in the order of the first."""
    if len(roots) == 1:
        return [np.arange(_shape(roots[0])[1])]
    names = [read_index(root, "var") for root in roots]
    for file, found in zip(files, names, strict=True):
        unique, counts = np.unique(found, return_counts=True)
        if (counts > 1).any():
            raise ValueError(
                f"{file}: gene {unique[counts > 1][0]!r} stands {counts.max()} times; make the "
                "names unique before files are joined (adata.var_names_make_unique())"
            )
    common = set(names[0]).intersection(*map(set, names[1:]))
    if not common:
        raise ValueError(
            f"{files[0]} and {files[-1]} have no gene in common ({names[0][0]}, {names[-1][0]}); "
            "use the same kind of gene names"
        )
    order = [name for name in names[0] if name in common]
    _log_kept("genes", len(common), len(names[0]), f"in all {len(files)} files")
    positions = [{name: i for i, name in enumerate(found)} for found in names]
    return [np.array([where[name] for name in order]) for where in positions]


def _chosen_cells(root: Any, file: Path, subset: Mapping[str, Sequence[Any]]) -> np.ndarray:
    """Mark the cells to keep; a value is compared as it is and as text."""
    chosen = np.ones(_shape(root)[0], dtype=bool)
    for column, values in subset.items():
        found = obs_column(root, column)
        wanted = {str(value) for value in values}
        there = set(found.dropna().astype(str))
        for value in sorted(wanted - there):
            raise ValueError(missing(f'{file}: adata.obs["{column}"] has no', value, sorted(there)))
        chosen &= found.astype(str).isin(wanted).to_numpy() & found.notna().to_numpy()
        _log_kept("cells", int(chosen.sum()), len(chosen), f"subset {column}")
    return chosen


def _detected(matrix: Any, genes: np.ndarray, cells: np.ndarray, *, axis: int) -> np.ndarray:
    """Count non-zero values: per gene (axis 0) or per chosen cell (axis 1)."""
    found = [
        np.asarray((block[:, genes] != 0).sum(axis=axis)).ravel()
        for block in _selected(matrix, np.arange(matrix_shape(matrix)[1]), cells, "counting")
    ]
    return np.sum(found, axis=0) if axis == 0 else np.concatenate([np.empty(0, int), *found])


def _selected(
    matrix: Any, genes: np.ndarray, cells: np.ndarray, desc: str
) -> Iterator[sp.csr_matrix | np.ndarray]:
    start = 0
    all_genes = len(genes) == matrix_shape(matrix)[1] and (np.diff(genes) == 1).all()
    for block in progress(row_blocks(matrix), desc=desc, total=n_blocks(matrix)):
        mask = cells[start : start + block.shape[0]]
        start += block.shape[0]
        rows = block if mask.all() else block[mask]
        yield rows if all_genes else rows[:, genes]


def _chosen_blocks(
    roots: list[Any], name: str, cells: list[np.ndarray], genes: list[np.ndarray]
) -> Iterator[sp.csr_matrix | np.ndarray]:
    for root, cell, gene in zip(roots, cells, genes, strict=True):
        yield from _selected(root[name], gene, cell, f"writing {name}")


def _matrices(root: Any) -> list[str]:
    names = [f"layers/{key}" for key in keys(root, "layers")]
    return ["X", *names] if "X" in root and _is_matrix(root["X"]) else names


def _is_matrix(element: Any) -> bool:
    return encoding(element) in ("array", "csr_matrix", "csc_matrix")


def _without_matrices(root: Any) -> AnnData:
    from anndata import AnnData

    slots = ("obs", "var", "obsm", "varm", "obsp", "varp", "uns")
    return AnnData(**{slot: read_element(root, slot) for slot in slots if slot in root})


def _join(parts: list[AnnData], files: Sequence[Path], batch: Sequence[str]) -> AnnData:
    """Join the annotations of the files; make the names of the cells unique."""
    if len(parts) == 1:
        whole = parts[0]
    else:
        write_one(sources[0], names, out, var_names=var_names)
    return sum(int(source.cells.sum()) for source in sources), len(names)


def _needs_counts(
    n_files: int, stage: str, qc: Mapping[str, str] | None, min_genes: int, min_cells: int
) -> str:
    """Say what needs the counts; empty: nothing does."""
    wanted = {"qc": qc, "min_genes": min_genes, "min_cells": min_cells}
    wanting = [key for key, value in wanted.items() if value]
    if wanting:
        return f"{' and '.join(wanting)} {'need' if len(wanting) > 1 else 'needs'}"
    return "the other files have" if n_files > 1 and stage == "preprocessing" else ""


def _choose(
    sources: list[Source],
    *,
    join: str,
    qc: Mapping[str, str],
    cells_by: Sequence[str],
    genes_by: Sequence[str],
    subset: Mapping[str, Any],
    min_genes: int,
    min_cells: int,
) -> np.ndarray:
    """Mark the cells and genes of each file that are kept; return the names of the genes."""
    if len(sources) == 1:
        names = sources[0].gene_names
    else:
        check_common(sources)
        lists, files = [s.gene_names for s in sources], [s.file for s in sources]
        names, positions = join_genes(lists, files, join=join)
        for source, position in zip(sources, positions, strict=True):
            # -1 stays: the last of one more than there are.
            source.genes = np.append(source.genes, -1)[position]
    if qc:
        choose.add_quality(sources, names, qc)
    choose.keep_cells(sources, cells_by, subset)
    marked = choose.keep_genes(sources, genes_by, names)
    names = _take_genes(sources, names, marked)
    detected = choose.keep_detected(sources, len(names), min_genes=min_genes, min_cells=min_cells)
    return _take_genes(sources, names, detected)


def _take_genes(sources: list[Source], names: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    for source in sources:
        source.genes = source.genes[chosen]
    return names[chosen]
