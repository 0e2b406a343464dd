"""Write a store from one file: linked if nothing is dropped, else copied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from preprocessing.prepare_parts import (
    chosen_obs,
    chosen_var,
    data_frames,
    raw_vars,
    say_raw,
    take_rows,
    unique_index,
    with_index,
    write_matrices,
    write_raw,
)
from utils.io import keys, new_store, read_element, write_element
from utils.log import say
from utils.paths import disk_path

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from preprocessing.sources import Source

ALIGNED = ("obsm", "varm", "obsp", "varp")


def is_kept_whole(source: Source) -> bool:
    """Return whether all cells and genes of a file are kept."""
    all_genes = np.arange(len(source.names))
    return bool(source.cells.all()) and np.array_equal(source.genes, all_genes)


def write_linked(source: Source, names: np.ndarray, out: Path, *, var_names: str | None) -> None:
    """Link to a store of which everything is kept; write elements that are new or renamed."""
    root, path = source.root, disk_path(source.file)
    say(f"linking {source.file}")
    new = [f"obs/{column}" for column in source.quality]
    links, emptied = {}, []
    if source.takes_raw:
        emptied = say_raw(source)
        new += ["var", *emptied, "raw" if source.x == "raw/X" else source.x]
        links["X"] = path / source.x
    elif var_names is not None:
        new += ["var", *(["raw/var"] if var_names in keys(root, "raw/var") else [])]
        new += [f"{slot}/{name}" for slot, name in data_frames(root, "varm")]
    with new_store(out, source=source.file, new=new, links=links) as store:
        for column, values in source.quality.items():
            write_element(store, f"obs/{column}", values)
        for slot in emptied:
            write_element(store, slot, {})
        if "var" in new:
            write_element(store, "var", chosen_var(source, names))
        if "raw/var" in new:
            write_element(store, "raw/var", raw_vars([source], var_names)[0])
        for name in new:
            if name.startswith("varm/"):
                write_element(store, name, with_index(read_element(root, name), names))


def write_one(source: Source, names: np.ndarray, out: Path, *, var_names: str | None) -> None:
    """Copy the chosen cells and genes of a file."""
    import pandas as pd

    root = source.root
    obs = chosen_obs(source)
    obs.index = unique_index(obs)
    emptied = say_raw(source) if source.takes_raw else []
    with new_store(out) as store:
        write_element(store, "obs", obs)
        write_element(store, "var", chosen_var(source, names))
        for slot in ALIGNED:
            index = obs.index if slot.startswith("obs") else pd.Index(names)
            elements = {} if slot in emptied else _read_chosen(source, slot, index)
            write_element(store, slot, elements)
        write_element(store, "uns", read_element(root, "uns") if "uns" in root else {})
        write_element(store, "layers", {})
        write_matrices(store, [source], emptied=emptied, n_genes=len(names))
        if "X" in keys(root, "raw") and source.x != "raw/X":
            varm = {name: read_element(root, f"raw/varm/{name}") for name in keys(root, "raw/varm")}
            write_raw(store, [source], [None], raw_vars([source], var_names)[0], varm)


def _read_chosen(source: Source, slot: str, index: pd.Index) -> dict[str, Any]:
    """Read the elements of a slot for the chosen cells or genes, which `index` names."""
    chosen = source.cells if slot.startswith("obs") else source.genes
    elements = {}
    for name in keys(source.root, slot):
        value = take_rows(read_element(source.root, f"{slot}/{name}"), chosen)
        value = value[:, chosen] if slot.endswith("p") else value
        elements[name] = with_index(value, index)
    return elements
