"""Parts of a store: obs and var of what is chosen, and matrices in blocks of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from preprocessing.join_columns import say_dropped
from preprocessing.sources import named_genes
from utils.blocks import stored_type, write_blocks
from utils.io import is_matrix, keys, read_element, read_index, write_element
from utils.log import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from preprocessing.sources import Source


def say_raw(source: Source) -> list[str]:
    """Say what raw takes the place of; return the slots that do not fit to its genes."""
    root = source.root
    names = "adata.raw" if source.x == "raw/X" else 'adata.layers["raw"]'
    say(f"{source.file}: {names} becomes X" + ("; the X of the file is dropped" * ("X" in root)))
    if source.var == "var" or np.array_equal(read_index(root, "var"), read_index(root, "raw/var")):
        return []
    lost = [f"{slot}/{name}" for slot in ("layers", "varm", "varp") for name in keys(root, slot)]
    lost += [f"var/{name}" for name in keys(root, "var") if name not in keys(root, "raw/var")]
    say_dropped("element", "raw has other genes", lost)
    return ["layers", "varm", "varp"]


def chosen_var(source: Source, names: np.ndarray) -> pd.DataFrame:
    """Read the frame of the genes of X that are chosen, with their new names."""
    frame = read_element(source.root, source.var)
    if source.var == "raw/var":
        var = read_element(source.root, "var")
        if var.index.equals(frame.index):  # nothing that var knows of them is lost
            frame = frame.assign(**{name: var[name].array for name in var if name not in frame})
    frame = frame.iloc[source.genes]
    return renamed(frame, names) if source.is_renamed else frame


def renamed(frame: pd.DataFrame, names: np.ndarray) -> pd.DataFrame:
    """Give genes other names; the old ones become a column, ``ids`` or as the index is called."""
    import pandas as pd

    old = str(frame.index.name or "ids")
    while old in frame or old == "index":
        old = "ids" if old == "index" else f"{old}_"
    frame = frame.assign(**{old: frame.index.astype(str)})
    frame.index = pd.Index(names)
    return frame


def raw_vars(sources: Sequence[Source], var_names: str | None) -> list[pd.DataFrame]:
    """Read the frames of the genes of raw, with the names that `var_names` has there."""
    frames = [read_element(source.root, "raw/var") for source in sources]
    with_it = [i for i, frame in enumerate(frames) if var_names in frame]
    named = named_genes(
        [sources[i] for i in with_it],
        ["raw/var"] * len(with_it),
        str(var_names),
        several=len(sources) > 1,
    )
    for i, names in zip(with_it, named, strict=True):
        frames[i] = renamed(frames[i], names)
    return frames


def data_frames(root: Any, slot: str) -> list[tuple[str, str]]:
    """Name the elements that are data frames, which repeat the names of cells or genes."""
    return [(slot, name) for name in keys(root, slot) if "_index" in root[slot][name].attrs]


def with_index(value: Any, index: Any) -> Any:
    return value.set_axis(index) if hasattr(value, "iloc") else value


def take_rows(value: Any, chosen: np.ndarray) -> Any:
    return value.iloc[chosen] if hasattr(value, "iloc") else value[chosen]


def chosen_obs(source: Source) -> pd.DataFrame:
    """Read obs of the chosen cells, with the columns of quality; unused categories stay."""
    frame = read_element(source.root, "obs")
    for column, values in source.quality.items():
        frame[column] = values
    return frame.iloc[np.flatnonzero(source.cells)]


def unique_index(obs: pd.DataFrame) -> pd.Index:
    """Return the names of the cells, each once, and called as no column is that differs."""
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
    """Write X and the layers that all files have; say which are dropped.

    Parameters
    ----------
    store
        Where to write; it has a group of layers.
    sources
        The files.
    emptied
        Slots that are not taken: ``layers``.
    n_genes
        Number of genes of the data set.
    """
    layers = [[] if "layers" in emptied else keys(source.root, "layers") for source in sources]
    of_files = [
        {"X": source.x, **{f"layers/{name}": f"layers/{name}" for name in names}}
        for source, names in zip(sources, layers, strict=True)
    ]
    for source, elements in zip(sources, of_files, strict=True):
        elements.pop("layers/raw" if source.x == "layers/raw" else "", None)
        for name in list(elements):
            if elements[name] not in source.root or not is_matrix(source.root[elements[name]]):
                del elements[name]
                say_dropped("element", f"no matrix in {source.file}", [name] * (name != "X"))
    everything = list(dict.fromkeys(name for elements in of_files for name in elements))
    shared = [name for name in everything if all(name in elements for elements in of_files)]
    lost = [name for name in everything if name not in shared]
    say_dropped("element", f"not in all {len(sources)} files", lost)
    for name in shared:
        parent, _, key = name.rpartition("/")
        elements = [elements[name] for elements in of_files]
        _stream(store[parent] if parent else store, key, sources, elements, n_genes=n_genes)


def write_raw(
    store: Any,
    sources: list[Source],
    genes: Sequence[np.ndarray | None],
    var: pd.DataFrame,
    varm: dict[str, Any],
) -> None:
    """Write raw of the chosen cells; it has genes of its own."""
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
    """Write the chosen cells of all files as one matrix, in a type that holds all values."""
    matrices = [source.root[name] for source, name in zip(sources, elements, strict=True)]
    blocks = (
        block
        for i, source in enumerate(sources)
        for block in source.kept_blocks(elements[i], None if genes is None else genes[i])
    )
    write_blocks(
        parent,
        key,
        blocks,
        n_cells=sum(int(source.cells.sum()) for source in sources),
        n_genes=n_genes,
        dtype=np.result_type(*map(stored_type, matrices)),
        sparse=any(not hasattr(matrix, "shape") for matrix in matrices),
    )
