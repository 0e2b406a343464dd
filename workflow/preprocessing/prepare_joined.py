"""Write a store from several files: annotations are joined, matrices streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from preprocessing.join import join_genes, join_uns
from preprocessing.join_columns import join_obs, join_var
from preprocessing.prepare_parts import (
    chosen_obs,
    raw_vars,
    renamed,
    say_raw,
    take_rows,
    unique_index,
    with_index,
    write_matrices,
    write_raw,
)
from utils.io import keys, new_store, read_element, write_element
from utils.log import say
from utils.paths import split_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from preprocessing.sources import Source


def write_joined(
    sources: list[Source],
    names: np.ndarray,
    out: Path,
    *,
    batch: Sequence[str],
    embeddings: Sequence[str],
    join: str,
    var_names: str | None,
) -> None:
    """Join the annotations and `embeddings` of the files and stream their matrices."""
    files = [source.file for source in sources]
    emptied = [slot for source in sources if source.takes_raw for slot in say_raw(source)]
    frames = [chosen_obs(source) for source in sources]
    label = _label(sources, batch)
    obs = _joined_obs(sources, frames, label)
    var = join_var(
        [_file_var(source) for source in sources],
        [source.genes for source in sources],
        names,
        files,
    )
    uns = [read_element(source.root, "uns") if "uns" in source.root else {} for source in sources]
    raw = _common_raw(sources, join=join, var_names=var_names)
    with new_store(out) as store:
        write_element(store, "obs", obs)
        write_element(store, "var", var)
        stacked = {name: _stack_embedding(sources, name, obs.index) for name in embeddings}
        write_element(store, "obsm", stacked)
        for slot in ("varm", "obsp", "varp", "layers"):
            write_element(store, slot, {})
        write_element(store, "uns", join_uns(uns, frames, obs))
        write_matrices(store, sources, emptied=emptied, n_genes=len(names))
        if raw is not None:
            write_raw(store, sources, *raw)


def _label(sources: list[Source], batch: Sequence[str]) -> str:
    """Return the column that names the file of each cell: the first batch column no file has."""
    label = None
    for key in batch:
        without = [source.file for source in sources if key not in keys(source.root, "obs")]
        if without and len(without) < len(sources):
            raise ValueError(
                f'{without[0]}: adata.obs has no column "{key}", other files of the data set do'
            )
        if without and label is None:
            label = key
    label = label or "file"
    replaced = [source.file for source in sources if label in keys(source.root, "obs")]
    if replaced:
        say(f'obs["{label}"] of {", ".join(replaced[:3])} is replaced by the name of the file')
    return label


def _joined_obs(sources: list[Source], frames: list[pd.DataFrame], label: str) -> pd.DataFrame:
    import pandas as pd

    short = _file_names([source.file for source in sources])
    frames = [frame.drop(columns=label, errors="ignore") for frame in frames]
    if len(set().union(*(frame.index for frame in frames))) < sum(map(len, frames)):
        say(f"cells of several files share names: the file is added to each (-{short[0]})")
        frames = [
            frame.set_axis(
                pd.Index([f"{cell}-{name}" for cell in frame.index], name=frame.index.name)
            )
            for frame, name in zip(frames, short, strict=True)
        ]
    obs = join_obs(frames, [source.file for source in sources])
    obs[label] = pd.Categorical.from_codes(
        np.repeat(np.arange(len(frames)), [len(frame) for frame in frames]), categories=short
    )
    say(f'{len(frames)} files joined; obs["{label}"] names the file')
    obs.index = unique_index(obs)
    return obs


def _file_var(source: Source) -> pd.DataFrame:
    """Read var of all genes of a file, with the names used for joining."""
    frame = read_element(source.root, source.var)
    return renamed(frame, source.names) if source.is_renamed else frame


def _file_names(files: Sequence[str]) -> list[str]:
    """Name the files by their stems, with as many parent folders as make them unique."""
    paths = [split_file(file) for file in files]
    parts = [
        (*path.parts[:-1], path.stem, *([group.rpartition("/")[2]] if group else []))
        for path, group in paths
    ]
    for n_parts in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-n_parts:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(files)


def _stack_embedding(sources: list[Source], name: str, index: pd.Index) -> Any:
    """Read an embedding of the chosen cells of all files, which `index` names."""
    parts = [take_rows(read_element(s.root, f"obsm/{name}"), s.cells) for s in sources]
    return with_index(_stacked(parts), index)


def _stacked(parts: list[Any]) -> Any:
    if hasattr(parts[0], "iloc"):
        import pandas as pd

        return pd.concat(parts)
    if any(hasattr(part, "tocsr") for part in parts):
        import scipy.sparse as sp

        return sp.vstack(parts, format="csr")
    return np.concatenate(parts)


def _common_raw(
    sources: list[Source], *, join: str, var_names: str | None
) -> tuple[list[np.ndarray], pd.DataFrame, dict[str, Any]] | None:
    """Return the positions of the joined genes of raw and their var; None: raw is dropped."""
    with_raw = [source for source in sources if "X" in keys(source.root, "raw")]
    if not with_raw or any(source.x == "raw/X" for source in sources):
        return None
    files = [source.file for source in sources]
    if len(with_raw) < len(sources):
        say(f"dropped: raw, which is in {len(with_raw)} of {len(sources)} files")
        return None
    frames = raw_vars(sources, var_names)
    lists = [frame.index.to_numpy(dtype=object) for frame in frames]
    try:
        names, positions = join_genes(lists, files, join=join, what="genes of raw")
    except ValueError as error:
        say(f"dropped: raw of all files: {error}")
        return None
    n_common = int(np.all(np.array(positions) >= 0, axis=0).sum())
    fewest = min(map(len, lists))
    if 2 * n_common < fewest or not n_common:
        say(f"dropped: raw of all files, which share {n_common:,} of {fewest:,} genes")
        return None
    return positions, join_var(frames, positions, names, files, what="raw.var"), {}
