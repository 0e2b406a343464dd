"""Cluster columns in stores: their names, what they are made from, how they are written."""

from __future__ import annotations

import contextlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clustering.cluster_names import (
    ClusterColumn,
    check_names,
    deepest_level,
    is_below,
    natural_order,
    parse_column,
)
from utils.elements import (
    read_categorical,
    read_csr,
    read_embedding,
    read_text,
    write_categorical,
)
from utils.errors import missing
from utils.io import keys, new_store, open_store, read_element, read_index, write_element
from utils.log import say
from utils.paths import is_linkable

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping, Sequence

    import numpy as np
    import scipy.sparse as sp


# scanpy's and rapids-singlecell's names for weights of nearest neighbors.
KNN_METHODS = ("umap", "gauss", "jaccard", "rapids")


def parent_column(columns: Sequence[str], algorithm: str, resolution: float, level: int) -> str:
    """Find the column of the level above.

    Parameters
    ----------
    columns
        The obs columns that are there.
    algorithm, resolution, level
        What is looked for. Where the resolution has no column, the only column of that algorithm
        and level is taken.

    Returns
    -------
    str
        The name of the column.

    Raises
    ------
    KeyError
        If there is none, or several to choose from; lists them.
    """
    wanted = str(ClusterColumn(algorithm, resolution, level))
    if wanted in columns:
        return wanted
    parsed = [column for column in map(parse_column, columns) if column is not None]
    others = [str(c) for c in parsed if (c.algorithm, c.level) == (algorithm, level)]
    if len(others) == 1:
        return others[0]
    if others:
        raise KeyError(
            f'adata.obs has no column "{wanted}" and several of level {level}: '
            f"{', '.join(others)}; give the --resolution of one of them"
        )
    raise KeyError(
        missing("adata.obs has no column", wanted, columns)
        + f"; cluster at --level {level} first and give its output as the input"
    )


def read_graph(root: Any, neighbors_key: str) -> sp.csr_matrix:
    """Read the connectivities that ``uns[neighbors_key]`` names, however they are stored.

    Raises
    ------
    KeyError
        If there are none; lists what there is.
    """
    name = graph_key(root, neighbors_key, "connectivities")
    if name not in keys(root, "obsp"):
        raise KeyError(missing("adata.obsp has no", name, keys(root, "obsp")))
    return read_csr(root, f"obsp/{name}")


def graph_key(root: Any, neighbors_key: str, matrix: str) -> str:
    """Return the obsp key of the ``connectivities`` or ``distances`` of some neighbors."""
    if neighbors_key not in keys(root, "uns"):
        raise KeyError(
            missing("adata.uns has no neighbors", neighbors_key, keys(root, "uns"))
            + "; compute them first (neighbors.py), or name others with --neighbors_key"
        )
    default = matrix if neighbors_key == "neighbors" else f"{neighbors_key}_{matrix}"
    # Old files have neither key.
    return read_text(root, f"uns/{neighbors_key}/{matrix}_key") or default


def neighbors_params(root: Any, neighbors_key: str) -> dict[str, Any]:
    """Return what ``uns[neighbors_key]`` says on how neighbors were made, if it does."""
    named = read_element(root, f"uns/{neighbors_key}") if neighbors_key in keys(root, "uns") else {}
    params = named.get("params") if isinstance(named, dict) else None
    return params if isinstance(params, dict) else {}


def foreign_graph(params: Mapping[str, Any]) -> str:
    """Name what says that a graph is more than the nearest neighbors in a representation.

    Parameters
    ----------
    params
        As `neighbors_params` returns them.

    Returns
    -------
    str
        Such as ``method wnn``, or ``bbknn`` where these parameters have a section of that name;
        empty where nothing says so.
    """
    method = params.get("method")
    if isinstance(method, str) and method not in KNN_METHODS:
        return f"method {method}"
    # BBKNN says that its method is umap, and has a section of its own.
    sections = [key for key, value in params.items() if isinstance(value, dict)]
    return next((key for key in sections if not key.endswith(("_kwds", "_kwargs"))), "")


def read_representation(
    root: Any, use_rep: str | None, neighbors_key: str
) -> tuple[str, np.ndarray]:
    """Read what neighbors are searched in, and its obsm key.

    `use_rep`, else that of the existing neighbors, else ``X_pca``.
    """
    key = use_rep
    if key is None and neighbors_key in keys(root, "uns"):
        key = read_text(root, f"uns/{neighbors_key}/params/use_rep")
    key = key or "X_pca"
    return key, read_embedding(root, key)


def read_record(root: Any, column: str) -> dict[str, Any]:
    """Return how `write_clustering` says that a column was made; nothing for columns of others."""
    try:
        record = json.loads(read_text(root, f"uns/{column}") or "{}")
    except json.JSONDecodeError:
        return {}
    return record if isinstance(record, dict) and "clustering_args" in record else {}


def check_cluster_ids(
    hierarchy: Mapping[str, float],
    parents: Sequence[str],
    column: str,
    level: int,
    siblings: Sequence[str],
) -> dict[str, float]:
    """Return the part of ``{cluster_id: resolution}`` that concerns this level.

    Parameters
    ----------
    hierarchy
        As given: ids of every level.
    parents
        The clusters of the level above.
    column
        Their name, for the message.
    level
        The level that is made.
    siblings
        Stores with the level above at other resolutions, where an id may occur as well.

    Returns
    -------
    dict
        Ids that are among `parents`, with their resolutions.

    Raises
    ------
    KeyError
        If an id occurs at no resolution and could not be of a deeper level; lists those that do.
    """
    present = set(parents)
    elsewhere: set[str] = set()
    for file in siblings:
        root = open_store(file)
        for name in keys(root, "obs"):
            elsewhere |= set(read_categorical(root, name)[1])
    known = present | elsewhere
    for key in hierarchy:
        if key in present and any(is_below(name, key) for name in present):
            say(f"{column} has a cluster {key}, and so has a level above: both are split")
        # One that a level above has was split there; one that may be deeper is looked for there.
        split_above = any(is_below(name, key) for name in known)
        if key in present or split_above or deepest_level(key) != level - 1:
            continue
        if key in elsewhere:
            say(f"{column} has no cluster {key}, other resolutions do: nothing to split here")
            continue
        hint = ""
        if key.isdigit() and len(key) > 1 and level == 2:
            hint = f'; for a deeper cluster quote the id: "{key[0]}_{key[1:]}"'
        where = f"hierarchy: {column} has no cluster"
        if siblings:
            where = f"hierarchy: {column} and the other resolutions have no cluster"
        raise KeyError(missing(where, key, natural_order(known)) + hint)
    return {key: float(value) for key, value in hierarchy.items() if key in present}


def read_clusters(root: Any, column: str) -> tuple[np.ndarray, list[str]]:
    """Read a cluster column: codes (-1: missing) and names, in natural order.

    Raises
    ------
    KeyError
        If it is not there; lists what is.
    ValueError
        If a name cannot be that of a cluster (`clustering.cluster_names.check_names`).
    """
    from clustering.hierarchy import in_natural_order

    codes, names = in_natural_order(*read_categorical(root, column))
    check_names(names, f'adata.obs["{column}"]')
    return codes, names


def read_colors(root: Any, column: str, names: Sequence[str]) -> np.ndarray | None:
    """Read ``uns/{column}_colors``, the colors of clusters, in the order of their `names`.

    None where there are none, or, which is said, fewer than the column has categories.
    """
    key = f"{column}_colors"
    if key not in keys(root, "uns"):
        return None
    import numpy as np
    import pandas as pd

    colors = np.atleast_1d(read_element(root, f"uns/{key}"))
    values = read_element(root, f"obs/{column}")
    values = values if isinstance(values, pd.Categorical) else pd.Categorical(values)
    if len(colors) < len(values.categories):
        say(f"uns has {len(colors)} {key} for {len(values.categories)} clusters: left out")
        return None
    place = {str(name): i for i, name in enumerate(values.categories)}
    return colors[[place[name] for name in names]]


def write_clustering(
    args: Namespace,
    column: str,
    codes: np.ndarray,
    names: Sequence[str],
    record: dict[str, Any],
    *,
    colors: np.ndarray | None = None,
) -> None:
    """Write the store of one cluster column: the column, how it was made, links to the rest.

    `colors` are those of the clusters, where they came with the column. An ``.h5ad`` cannot be
    linked into: its obsm and neighbors' uns are copied, so that the next level finds the
    representation.
    """
    import numpy as np

    source = Path(args.input_file)
    if not names:
        raise ValueError(f"{source}: no cell has a label to make {column} of")
    sizes = np.bincount(codes[codes >= 0], minlength=len(names))
    record["n_clusters"] = len(names)
    record["versions"] = _versions()
    # One JSON text: a mapping would be a file or two for each of its entries.
    text = json.dumps(record, sort_keys=True)
    uns: dict[str, Any] = {column: text}
    if colors is not None:
        uns[f"{column}_colors"] = colors
    if is_linkable(source):
        # Colors of other clusters under the name of this column are not linked.
        new = [f"obs/{column}", f"uns/{column}", f"uns/{column}_colors"]
        with new_store(args.output_file, source=source, new=new, fresh=["obs"]) as store:
            write_categorical(store, column, codes, names)
            for name, value in uns.items():
                write_element(store, f"uns/{name}", value)
    else:
        _write_copy(args, column, codes, names, uns)
    say(
        f"{args.output_file}: {column} has {len(names)} clusters of "
        f"{len(codes):,} cells (largest {sizes.max():,}, smallest {sizes.min():,})"
    )


def _write_copy(
    args: Namespace, column: str, codes: np.ndarray, names: Sequence[str], uns: dict[str, Any]
) -> None:
    import pandas as pd

    root = open_store(args.input_file)
    if args.neighbors_key in keys(root, "uns"):
        uns = {**uns, args.neighbors_key: read_element(root, f"uns/{args.neighbors_key}")}
    with new_store(args.output_file) as store:
        write_element(store, "obs", pd.DataFrame(index=read_index(root, "obs")))
        write_element(store, "var", pd.DataFrame(index=pd.Index([], dtype=str)))
        write_element(store, "obsm", read_element(root, "obsm") if "obsm" in root else {})
        write_element(store, "uns", uns)
        write_categorical(store, column, codes, names)


def _versions() -> dict[str, str]:
    """Versions of what the labels depend on, as far as it is there."""
    found = {}
    for name in ("numpy", "scipy", "igraph", "leidenalg", "numba"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def count_clusters(codes: np.ndarray) -> tuple[int, int, int, int]:
    """Return number of clusters, largest, smallest, and cells without a label (-1)."""
    import numpy as np

    sizes = np.bincount(codes[codes >= 0])
    sizes = sizes[sizes > 0]
    if not len(sizes):
        return 0, 0, 0, len(codes)
    return len(sizes), int(sizes.max()), int(sizes.min()), int((codes < 0).sum())
