"""Parts of a prepared store: obs and var of the chosen cells and genes, matrices in blocks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from preprocessing.join_columns import say_dropped
from preprocessing.sources import named_genes
from utils.blocks import convert_block, stored_type, write_blocks
from utils.io import is_matrix, keys, read_element, read_index, write_element
from utils.log import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from preprocessing.sources import Source


def say_raw(source: Source) -> list[str]:
    """Log what raw replaces; return the slots that do not fit its genes."""
    root = source.root
    names = "adata.raw" if source.x == "raw/X" else 'adata.layers["raw"]'
    say(f"{source.file}: {names} becomes X" + ("; the X of the file is dropped" * ("X" in root)))
    if source.var == "var" or np.array_equal(read_index(root, "var"), read_index(root, "raw/var")):
        return []
    slots = ["layers", "varm", "varp"]
    dropped = [f"{slot}/{name}" for slot in slots for name in keys(root, slot)]
    dropped += [f"var/{name}" for name in keys(root, "var") if name not in keys(root, "raw/var")]
    say_dropped("element", "raw has other genes", dropped)
    return slots


def chosen_var(source: Source, names: np.ndarray) -> pd.DataFrame:
    """Read var of the chosen genes of X, with their new names."""
    frame = read_element(source.root, source.var)
    if source.var == "raw/var":
        var = read_element(source.root, "var")
        if var.index.equals(frame.index):  # of the same genes: keep its columns too
            frame = frame.assign(**{name: var[name].array for name in var if name not in frame})
    frame = frame.iloc[source.genes]
    return renamed(frame, names) if source.is_renamed else frame


def renamed(frame: pd.DataFrame, names: np.ndarray) -> pd.DataFrame:
    """Rename genes; the old names become a column, ``ids`` or as the index is called."""
    import pandas as pd

    old = str(frame.index.name or "ids")
    while old in frame or old == "index":
        old = "ids" if old == "index" else f"{old}_"
    frame = frame.assign(**{old: frame.index.astype(str)})
    frame.index = pd.Index(names)
    return frame


def raw_vars(sources: Sequence[Source], var_names: str | None) -> list[pd.DataFrame]:
    """Read var of raw, with gene names from its column `var_names` where it has one."""
    frames = [read_element(source.root, "raw/var") for source in sources]
    named = [i for i, frame in enumerate(frames) if var_names in frame]
    names_of_files = named_genes(
        [sources[i] for i in named],
        ["raw/var"] * len(named),
        str(var_names),
        several=len(sources) > 1,
    )
    for i, names in zip(named, names_of_files, strict=True):
        frames[i] = renamed(frames[i], names)
    return frames


def data_frames(root: Any, slot: str) -> list[tuple[str, str]]:
    """List the elements that are data frames, which repeat the names of cells or genes."""
    return [(slot, name) for name in keys(root, slot) if "_index" in root[slot][name].attrs]


def with_index(value: Any, index: Any) -> Any:
    return value.set_axis(index) if hasattr(value, "iloc") else value


def take_rows(value: Any, chosen: np.ndarray) -> Any:
    return value.iloc[chosen] if hasattr(value, "iloc") else value[chosen]


def chosen_obs(source: Source) -> pd.DataFrame:
    """Read obs of the chosen cells, with their quality; unused categories stay."""
    frame = read_element(source.root, "obs")
    for column, values in source.quality.items():
        frame[column] = values
    return frame.iloc[np.flatnonzero(source.cells)]


def unique_index(obs: pd.DataFrame) -> pd.Index:
    """Return unique names of the cells, in an index not called like a different column."""
    index = obs.index
    if not index.is_unique:
        from anndata.utils import make_index_unique

        say("some cells share a name: a number is added to the later ones")
        index = make_index_unique(index.astype(str))
    is_column = index.name in obs and not (index == obs[index.name].to_numpy()).all()
    return index.rename(None) if is_column else index


def write_matrices(
    store: Any, sources: list[Source], *, emptied: Sequence[str], n_genes: int
) -> None:
    """Write X and the layers that all files have; log which are dropped.

    Parameters
    ----------
    store
        The group to write into, with a group of layers.
    sources
        The files.
    emptied
        Slots that stay empty: ``layers``.
    n_genes
        Number of genes of the data set.
    """
    of_files = [
        _matrices(source, [] if "layers" in emptied else keys(source.root, "layers"))
        for source in sources
    ]
    union = dict.fromkeys(name for elements in of_files for name in elements)
    in_all = {name: all(name in elements for elements in of_files) for name in union}
    partial = [name for name in union if not in_all[name]]
    say_dropped("element", f"not in all {len(sources)} files", partial)
    for name in filter(in_all.get, union):
        parent, _, key = name.rpartition("/")
        elements = [elements[name] for elements in of_files]
        _stream(store[parent] if parent else store, key, sources, elements, n_genes=n_genes)


def _matrices(source: Source, layers: Sequence[str]) -> dict[str, str]:
    """Return what X and the layers of the new store are in a file; log what is no matrix."""
    elements = {"X": source.x, **{f"layers/{name}": f"layers/{name}" for name in layers}}
    if source.x == "layers/raw":
        elements.pop("layers/raw", None)
    root = source.root
    matrices = {k: v for k, v in elements.items() if v in root and is_matrix(root[v])}
    others = [name for name in elements if name not in matrices and name != "X"]
    say_dropped("element", f"no matrix in {source.file}", others)
    return matrices


def write_raw(
    store: Any,
    sources: list[Source],
    genes: Sequence[np.ndarray | None],
    var: pd.DataFrame,
    varm: dict[str, Any],
) -> None:
    """Write raw of the chosen cells, with its genes (None: all) and their annotations."""
    store.create_group("raw", attributes={"encoding-type": "raw", "encoding-version": "0.1.0"})
    names = ["raw/X"] * len(sources)
    genes = [np.arange(len(var)) if part is None else part for part in genes]
    _stream(store["raw"], "X", sources, names, n_genes=len(var), genes=genes)
    write_element(store, "raw/var", var)
    write_element(store, "raw/varm", varm)


def _stream(
    parent: Any,
    key: str,
    sources: list[Source],
    elements: Sequence[str],
    *,
    n_genes: int,
    genes: Sequence[np.ndarray] | None = None,
) -> None:
    """Write the chosen cells of all files as one matrix, of a type that holds all values."""
    matrices = [source.root[name] for source, name in zip(sources, elements, strict=True)]
    dtype = np.result_type(*map(stored_type, matrices))
    sparse = any(not hasattr(matrix, "shape") for matrix in matrices)
    blocks = (
        block
        for i, source in enumerate(sources)
        for block in source.blocks(
            elements[i],
            elements[i],
            None if genes is None else genes[i],
            function=partial(convert_block, dtype=dtype, sparse=sparse),
            kept=True,
        )
    )
    write_blocks(
        parent,
        key,
        blocks,
        n_cells=sum(int(source.cells.sum()) for source in sources),
        n_genes=n_genes,
        dtype=dtype,
        sparse=sparse,
        threads=max(source.threads for source in sources),
    )
