"""Several files to one store: choose cells and genes, join, stream the matrices.

Peak memory: obs, var, obsm and obsp of all files, and three blocks of rows of a matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from preprocessing.choose import (
    cell_statistics,
    choose_cells,
    choose_genes,
    detecting_cells,
    log_kept,
)
from preprocessing.join import (
    common_embeddings,
    join_genes,
    join_obs,
    join_uns,
    join_var,
    say_dropped,
)
from preprocessing.matrix_kind import EMPTY, LINEAR, describe_matrix
from preprocessing.sources import Source, named_genes, open_sources
from utils.blocks import stored_type, write_blocks
from utils.cli import say
from utils.io import (
    is_matrix,
    keys,
    new_store,
    read_element,
    read_index,
    write_element,
)
from utils.paths import is_zarr, split_file, store_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    import zarr


def prepare_store(
    files: Sequence[str | Path],
    out: Path,
    *,
    batch: Sequence[str] = (),
    stage: str = "preprocessing",
    join: str = "inner",
    layer: str | None = None,
    var_names: str | None = None,
    qc: Mapping[str, str] | None = None,
    subset: Mapping[str, Any] | None = None,
    keep_cells: str | None = None,
    keep_genes: str | None = None,
    min_genes: int = 0,
    min_cells: int = 0,
    recompute_umap: bool = False,
    recompute_neighbors: bool = False,
) -> tuple[int, int]:
    """Write one zarr store with the chosen cells and genes of some files.

    Parameters
    ----------
    files
        AnnData stores or 10x matrices; several are joined, their cells in the order of the files.
    out
        The ``.zarr`` folder to write, atomically.
    batch
        Batch columns. Of several files, the first of these that no file has names the file
        (``file`` where all are there).
    stage
        ``preprocessing``, ``integration`` or ``clustering``: where the data set enters, which
        tells what several files must have in common.
    join
        ``inner``: the genes of all files; ``outer``: those of any, absent counts are 0.
    layer
        The matrix in which genes are detected; ``None``: ``X``. ``raw``: the matrix of raw becomes
        X, with its genes.
    var_names
        The column of var with the names of the genes.
    qc
        Name to regular expression: groups of genes whose share of the counts becomes a column of
        obs.
    subset
        Column to values, or to ``{"min": ..., "max": ...}``: the cells to keep; several columns
        must all hold.
    keep_cells, keep_genes
        Columns of truth values in obs and var.
    min_genes
        Drop cells with fewer detected genes.
    min_cells
        Drop genes detected in fewer of the kept cells.
    recompute_umap, recompute_neighbors
        Layouts and graphs of several files are dropped rather than refused.

    Returns
    -------
    (int, int)
        Number of cells and genes.

    Raises
    ------
    ValueError, KeyError, TypeError
        If a file, column, value or layer is not there or not what it must be, the files do not
        belong together, or nothing is left.
    """
    needs = [
        name
        for name, value in (("qc", qc), ("min_genes", min_genes), ("min_cells", min_cells))
        if value
    ]
    sources = open_sources(
        [str(file) for file in files],
        layer=layer,
        var_names=var_names,
        stage=stage,
        needs_counts=" and ".join(needs),
    )
    common: list[str] = []
    if len(sources) > 1:
        common = common_embeddings(
            sources,
            stage=stage,
            recompute_umap=recompute_umap,
            recompute_neighbors=recompute_neighbors,
        )
        _check_kinds(sources, stage)
    names, positions = join_genes(sources, join=join)
    for source, genes in zip(sources, positions, strict=True):
        source.genes = genes
    chosen_genes = choose_genes(sources, keep_genes) if keep_genes is not None else None
    counted = chosen_genes if chosen_genes is not None else np.ones(len(names), dtype=bool)
    detected = cell_statistics(sources, names, qc=qc or {}, counted=counted if min_genes else None)
    for source, n_detected in zip(sources, detected, strict=True):
        choose_cells(source, subset=subset or {}, keep_cells=keep_cells)
        if n_detected is not None:
            source.cells &= n_detected >= min_genes
    n_cells, n_all = (sum(int(f(s.cells)) for s in sources) for f in (np.sum, len))
    if min_genes:
        log_kept("", "cells", n_cells, n_all, f"min_genes {min_genes}")
    if not n_cells:
        raise ValueError(f"{files[0]}: no cell is left of {n_all:,}")
    if chosen_genes is not None:
        names = _keep(sources, names, chosen_genes)
    if min_cells:
        enough = detecting_cells(sources) >= min_cells
        log_kept("", "genes", int(enough.sum()), len(enough), f"min_cells {min_cells}")
        names = _keep(sources, names, enough)
    if not len(names):
        raise ValueError(f"{files[0]}: no gene is left")
    if len(sources) == 1 and _is_whole(sources[0]) and is_zarr(sources[0].file):
        _link(sources[0], store_folder(sources[0].file), out, names, var_names)
    elif len(sources) == 1:
        _convert(sources[0], out, names, var_names)
    else:
        _join(sources, out, names, batch=batch, common=common, join=join)
    return n_cells, len(names)


def _check_kinds(sources: Sequence[Source], stage: str) -> None:
    """Refuse files of which some hold counts and others values that are none."""
    if stage != "preprocessing":
        return
    seen = [
        (source, describe_matrix(source.root[source.counts]))
        for source in sources
        if source.counts in source.root and is_matrix(source.root[source.counts])
    ]
    seen = [(source, values) for source, values in seen if values.kind != EMPTY]
    for source, values in seen[1:]:
        first, of_first = seen[0]
        if values.kind == of_first.kind:
            continue
        if values.kind in LINEAR and of_first.kind in LINEAR:
            say(f"{first.file} holds {of_first}, {source.file} {values}: both are taken as counts")
            continue
        raise ValueError(
            f"{first.counts} of {first.file} holds {of_first}, {source.counts} of {source.file} "
            f"{values}; join files of one kind (preprocessing: {{layer: ...}} names the matrix)"
        )


def _keep(sources: Sequence[Source], names: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    for source in sources:
        source.genes = source.genes[chosen]
    return names[chosen]


def _is_whole(source: Source) -> bool:
    """Whether nothing is dropped of a file."""
    return bool(source.cells.all()) and np.array_equal(source.genes, np.arange(len(source.names)))


def _link(
    source: Source, folder: Path, out: Path, names: np.ndarray, var_names: str | None
) -> None:
    """Link a store of which nothing is dropped; write what is new."""
    say(f"linking {source.file}")
    values: dict[str, Any] = {f"obs/{name}": column for name, column in source.quality.items()}
    links: dict[str, Path] = {}
    if source.x != "X":
        links["X"] = folder / source.x
        links["var"] = folder / source.var
        values |= {name: {} for name in _left_out(source)}
    if var_names is not None:
        links.pop("var", None)
        values["var"] = _renamed(read_element(source.root, source.var), names)
        if source.x == "X" and var_names in keys(source.root, "raw/var"):
            raw_names = named_genes(source, "raw/var", var_names, several=False)
            values["raw/var"] = _renamed(read_element(source.root, "raw/var"), raw_names)
    dropped = ["raw"] if source.x != "X" else []
    with new_store(out, source=folder, new=[*values, *dropped], links=links) as store:
        for name, value in values.items():
            write_element(store, name, value)


def _left_out(source: Source) -> list[str]:
    """Say what has other genes than raw, which becomes X, and return the slots."""
    say(f"{source.file}: X is that of raw; the X there was, is dropped")
    if np.array_equal(read_index(source.root, "var"), read_index(source.root, source.var)):
        return []
    slots = ("layers", "varm", "varp")
    say_dropped(
        "elements of the genes of the X there was",
        [f"{slot}/{name}" for slot in slots for name in keys(source.root, slot)],
    )
    return list(slots)


def _renamed(var: pd.DataFrame, names: np.ndarray) -> pd.DataFrame:
    """Give var new names; the old ones become a column."""
    import pandas as pd

    var = var.copy()
    old = str(var.index.name or "ids")
    while old in var or old in ("index", "_index"):
        old = f"{old}_ids"
    var[old] = var.index.astype(str).to_numpy(dtype=object)
    var.index = pd.Index(names.astype(str))
    return var


def _convert(source: Source, out: Path, names: np.ndarray, var_names: str | None) -> None:
    """Write a part of one file, or a file that cannot be linked to."""
    import pandas as pd

    root, cells, genes = source.root, source.cells, source.genes
    obs = read_element(root, "obs")[cells]
    for name, column in source.quality.items():
        obs[name] = column[cells]
    var = read_element(root, source.var).iloc[genes]
    var = _renamed(var, names) if var_names is not None else var
    obs.index, var.index = _unique_cells(obs.index.astype(str)), pd.Index(var.index.astype(str))
    left_out = _left_out(source) if source.x != "X" else []
    whole = bool(cells.all())
    with new_store(out) as store:
        write_element(store, "obs", obs)
        write_element(store, "var", var)
        for slot, rows in (("obsm", cells), ("varm", genes), ("obsp", cells), ("varp", genes)):
            values = {} if slot in left_out else _mapping(root, slot)
            for name, value in values.items():
                chosen = value[rows] if slot != "obsp" or not whole else value
                if slot.endswith("p"):
                    chosen = chosen[:, rows]
                values[name] = chosen
            write_element(store, slot, values)
        write_element(store, "uns", _mapping(root, "uns"))
        write_element(store, "layers", {})
        layers = [] if "layers" in left_out else [f"layers/{key}" for key in keys(root, "layers")]
        for target, name in [("X", source.x), *((name, name) for name in layers)]:
            if name in root and is_matrix(root[name]):
                _write_matrix(store, target, [source], name, n_cells=len(obs), n_genes=len(var))
        if source.x == "X" and "X" in keys(root, "raw"):
            _write_raw(store, source, len(obs), var_names)


def _mapping(root: Any, slot: str) -> dict[str, Any]:
    return dict(read_element(root, slot)) if slot in root else {}


def _unique_cells(names: pd.Index) -> pd.Index:
    if names.is_unique:
        return names
    from anndata.utils import make_index_unique

    say("some cells share a name: a number is added to the later ones")
    return make_index_unique(names)


def _write_matrix(
    store: zarr.Group,
    target: str,
    sources: Sequence[Source],
    name: str,
    *,
    n_cells: int,
    n_genes: int,
    genes: Sequence[np.ndarray] | None = None,
) -> None:
    """Write a matrix of all files, in a type that holds the numbers of each."""
    matrices = [source.root[name] for source in sources]
    parent, _, key = target.rpartition("/")
    positions = genes or [source.genes for source in sources]
    write_blocks(
        store[parent] if parent else store,
        key,
        (
            block
            for source, columns in zip(sources, positions, strict=True)
            for block in source.kept_blocks(name, columns)
        ),
        n_cells=n_cells,
        n_genes=n_genes,
        dtype=np.result_type(*map(stored_type, matrices)),
        sparse=any(not hasattr(matrix, "shape") for matrix in matrices),
    )


def _write_raw(store: zarr.Group, source: Source, n_cells: int, var_names: str | None) -> None:
    """Write raw with the chosen cells; it has genes of its own."""
    root = source.root
    store.create_group("raw", attributes={"encoding-type": "raw", "encoding-version": "0.1.0"})
    var = read_element(root, "raw/var")
    if var_names is not None and var_names in var:
        var = _renamed(var, named_genes(source, "raw/var", var_names, several=False))
    genes = [np.arange(len(var))]
    _write_matrix(store, "raw/X", [source], "raw/X", n_cells=n_cells, n_genes=len(var), genes=genes)
    write_element(store, "raw/var", var)
    if "varm" in root["raw"]:
        write_element(store, "raw/varm", _mapping(root, "raw/varm"))


def _join(
    sources: Sequence[Source],
    out: Path,
    names: np.ndarray,
    *,
    batch: Sequence[str],
    common: Sequence[str],
    join: str,
) -> None:
    """Write several files as one."""
    import pandas as pd

    files = [source.file for source in sources]
    frames = []
    for source in sources:
        frame = read_element(source.root, "obs")[source.cells]
        for name, column in source.quality.items():
            frame[name] = column[source.cells]
        frame.index = pd.Index(frame.index.astype(str).to_numpy(dtype=object))
        frames.append(frame)
    label, labels = _file_label(frames, files, batch), file_names(files)
    _tell_apart(frames, labels)
    obs = join_obs(frames, files)
    obs[label] = pd.Categorical.from_codes(
        np.repeat(np.arange(len(files)), [len(frame) for frame in frames]), categories=labels
    )
    obs.index = _unique_cells(obs.index)
    say(f'{len(files)} files joined; obs["{label}"] names the file')
    var = join_var(
        [read_element(source.root, source.var) for source in sources],
        [source.genes for source in sources],
        names,
        "var",
    )
    for slot in ("varm", "varp"):
        say_dropped(slot, [name for source in sources for name in keys(source.root, slot)])
    uns = join_uns([_mapping(source.root, "uns") for source in sources], obs, frames)
    if "neighbors" in uns:
        uns.pop("neighbors")  # of graphs that are dropped
    shape = {"n_cells": len(obs), "n_genes": len(var)}
    with new_store(out) as store:
        write_element(store, "obs", obs)
        write_element(store, "var", var)
        write_element(store, "obsm", {name: _stack(sources, name) for name in common})
        for slot in ("varm", "obsp", "varp", "layers"):
            write_element(store, slot, {})
        write_element(store, "uns", uns)
        for target, name in _joined_matrices(sources):
            _write_matrix(store, target, sources, name, **shape)
        _join_raw(store, sources, len(obs), join)


def _file_label(frames: Sequence[pd.DataFrame], files: Sequence[str], batch: Sequence[str]) -> str:
    """Return the column that names the file: a batch column that no file has, else ``file``."""
    for key in batch:
        absent = [key not in frame for frame in frames]
        if any(absent) and not all(absent):
            raise ValueError(
                f'{files[absent.index(True)]}: adata.obs has no column "{key}", other files of '
                "the data set do"
            )
    return next((key for key in batch if key not in frames[0]), "file")


def _tell_apart(frames: Sequence[pd.DataFrame], labels: Sequence[str]) -> None:
    """Add the file to the names of cells, where files share some."""
    different = len(set().union(*(frame.index for frame in frames)))
    if different < sum(frame.index.nunique() for frame in frames):
        for frame, label in zip(frames, labels, strict=True):
            frame.index = [f"{cell}-{label}" for cell in frame.index]
        say(f"cells of several files share names: the file is added to each (-{labels[0]})")


def _joined_matrices(sources: Sequence[Source]) -> list[tuple[str, str]]:
    """Return the matrices that all files have, each with where it is; say which are dropped."""
    of_files = []
    for source in sources:
        names = [f"layers/{key}" for key in keys(source.root, "layers")]
        names = [name for name in (source.x, *names) if name in source.root]
        of_files.append([name for name in names if is_matrix(source.root[name])])
    everything = list(dict.fromkeys(name for names in of_files for name in names))
    shared = [name for name in everything if all(name in names for names in of_files)]
    if any(source.x != "X" for source in sources):
        say("X is that of raw; the X there was, is dropped, and so are layers")
        shared = [name for name in shared if not name.startswith("layers/")]
    say_dropped(
        "matrices that are not in all files", [name for name in everything if name not in shared]
    )
    return [("X" if name == sources[0].x else name, name) for name in shared]


def _join_raw(store: zarr.Group, sources: Sequence[Source], n_cells: int, join: str) -> None:
    """Join raw, where all files have it."""
    with_it = [source for source in sources if "X" in keys(source.root, "raw")]
    if not with_it or sources[0].x != "X":
        return
    if len(with_it) < len(sources):
        say(f"dropped: raw, which {len(with_it)} of {len(sources)} files have")
        return
    raws = []
    for source in sources:
        names = read_index(source.root, "raw/var").astype(str).astype(object)
        genes = np.arange(len(names))
        raws.append(
            Source(
                source.file, source.root, "raw/X", "raw/X", "raw/var", names, genes, source.cells
            )
        )
    try:
        names, positions = join_genes(raws, join=join)
    except ValueError as error:
        say(f"dropped: raw ({error})")
        return
    var = join_var(
        [read_element(source.root, "raw/var") for source in sources], positions, names, "raw.var"
    )
    store.create_group("raw", attributes={"encoding-type": "raw", "encoding-version": "0.1.0"})
    _write_matrix(
        store, "raw/X", raws, "raw/X", n_cells=n_cells, n_genes=len(names), genes=positions
    )
    write_element(store, "raw/var", var)
    write_element(store, "raw/varm", {})


def _stack(sources: Sequence[Source], name: str) -> Any:
    """Join an embedding of several files, cell by cell."""
    import pandas as pd
    import scipy.sparse as sp

    parts = [read_element(source.root, f"obsm/{name}")[source.cells] for source in sources]
    if any(sp.issparse(part) for part in parts):
        return sp.vstack(parts, format="csr")
    if all(isinstance(part, pd.DataFrame) for part in parts):
        return pd.concat(parts)
    return np.concatenate([np.asarray(part) for part in parts])


def file_names(files: Sequence[str]) -> list[str]:
    """Name the files by their stems, with as many folders as make them unique."""
    parts = []
    for file in files:
        path, group = split_file(file)
        parts.append((*path.parts[:-1], path.stem, *([group.rpartition("/")[2]] if group else [])))
    for n_folders in range(max(map(len, parts))):
        names = ["/".join(part[-1 - n_folders :]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(file) for file in files]
