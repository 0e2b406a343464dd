"""Several stores to one: select cells and genes, join files, stream the matrices.

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
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import scipy.sparse as sp
    from anndata import AnnData


def prepare_store(
    files: Sequence[Path],
    out: Path,
    *,
    batch: Sequence[str] = (),
    subset: Mapping[str, Sequence[Any]] | None = None,
    min_genes: int = 0,
    min_cells: int = 0,
    layer: str | None = None,
) -> tuple[int, int]:
    """Write one zarr store with the chosen cells and genes of some files.

    Parameters
    ----------
    files
        ``.h5ad`` or ``.zarr`` files; several are joined on their common genes (inner join), their
        cells in the order of the files.
    out
        The ``.zarr`` folder to write, atomically.
    batch
        Batch columns. Of several files, the first of these that no file has names the file
        (``file`` where all are there).
    subset
        Column to values: the cells to keep; several columns must all hold.
    min_genes
        Drop cells with fewer detected genes.
    min_cells
        Drop genes detected in fewer of the kept cells.
    layer
        The matrix in which genes are detected; ``None``: ``X``.

    Returns
    -------
    (int, int)
        Number of cells and genes.

    Raises
    ------
    ValueError, KeyError
        If a file, column, value or layer is not there, or nothing is left.
    """
    roots = [open_store(file) for file in files]
    counts = f"layers/{layer}" if layer else "X"
    for root, file in zip(roots, files, strict=True):
        if layer and layer not in keys(root, "layers"):
            raise KeyError(missing(f"{file}: adata.layers has no", layer, keys(root, "layers")))
        if (min_genes or min_cells) and counts not in root:
            raise KeyError(f"{file}: has no {counts}, which min_genes and min_cells need")
        _check_names(root, file)
    if len(files) == 1 and files[0].suffix == ".zarr" and not (subset or min_genes or min_cells):
        say(f"linking {files[0]}")
        with new_store(out, source=files[0]):
            pass
        return _shape(roots[0])

    genes = _common_genes(roots, files)
    cells = [
        _chosen_cells(root, file, subset or {}) for root, file in zip(roots, files, strict=True)
    ]
    if min_genes:
        for i, root in enumerate(roots):
            detected = _detected(root[counts], genes[i], cells[i], axis=1)
            cells[i][cells[i]] = detected >= min_genes
        _log_kept("cells", sum(map(np.sum, cells)), sum(map(len, cells)), f"min_genes {min_genes}")
    if not sum(map(np.sum, cells)):
        raise ValueError(f"{files[0]}: no cell is left of {sum(map(len, cells)):,}")
    if min_cells:
        found = sum(
            _detected(root[counts], genes[i], cells[i], axis=0) for i, root in enumerate(roots)
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
        import anndata
        import pandas as pd

        names = _file_names(files)
        missing_in = {key: [key not in part.obs for part in parts] for key in batch}
        for key, absent in missing_in.items():
            if any(absent) and not all(absent):
                without = files[absent.index(True)]
                raise ValueError(
                    f'{without}: adata.obs has no column "{key}", other files of the data set do'
                )
        label = next((key for key, absent in missing_in.items() if all(absent)), "file")
        if len(set().union(*(part.obs_names for part in parts))) < sum(p.n_obs for p in parts):
            for part, name in zip(parts, names, strict=True):
                part.obs_names = [f"{cell}-{name}" for cell in part.obs_names]
            say(f"cells of several files share names: the file is added to each (-{names[0]})")
        sizes = [part.n_obs for part in parts]
        whole = anndata.concat(parts, join="inner", merge="same", uns_merge="same")
        whole.obs[label] = pd.Categorical.from_codes(
            np.repeat(np.arange(len(parts)), sizes), categories=names
        )
        say(f'{len(parts)} files joined; obs["{label}"] names the file')
    if not whole.obs_names.is_unique:
        say("some cells share a name: a number is added to the later ones")
        whole.obs_names_make_unique()
    return whole


def _file_names(files: Sequence[Path]) -> list[str]:
    """Name the files by their stems, with as many folders as make them unique."""
    for n_folders in range(max(len(file.parts) for file in files)):
        names = ["/".join((*file.parts[:-1][-n_folders:], file.stem)) for file in files]
        if n_folders == 0:
            names = [file.stem for file in files]
        if len(set(names)) == len(names):
            return names
    return [str(file) for file in files]


def _write_raw(store: Any, root: Any, cells: np.ndarray) -> None:
    """Copy raw with the chosen cells; it has genes of its own."""
    store.create_group("raw", attributes={"encoding-type": "raw", "encoding-version": "0.1.0"})
    matrix = root["raw/X"]
    genes = np.arange(matrix_shape(matrix)[1])
    blocks = _selected(matrix, genes, cells, "writing raw/X")
    write_blocks(store["raw"], "X", blocks, n_cells=int(cells.sum()), n_genes=len(genes))
    for slot in ("var", "varm"):
        if slot in root["raw"]:
            write_element(store, f"raw/{slot}", read_element(root, f"raw/{slot}"))


def _log_kept(what: str, left: int, of: int, why: str) -> None:
    say(f"{left:,} of {of:,} {what} kept ({why})")
