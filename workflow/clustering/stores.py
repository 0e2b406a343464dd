"""Reads what clustering starts from and writes its results: the only module with its stores."""

from __future__ import annotations

import contextlib
import json
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

from clustering.cluster_names import check_names
from clustering.options import NeighborsKeyOptions
from utils.elements import (
    read_categorical,
    read_csr,
    read_embedding,
    read_text,
    write_categorical,
)
from utils.errors import missing
from utils.io import keys, new_store, read_element, read_index, write_element
from utils.log import say
from utils.opening import location, open_store
from utils.paths import is_linkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import scipy.sparse as sp

    from clustering.communities import CommunityGraph
    from clustering.connectivities import NeighborGraph

# scanpy's and rapids-singlecell's names for weights of nearest neighbors.
KNN_METHODS = ("umap", "gauss", "jaccard", "rapids")


class ClusterLevel(NamedTuple):
    """A cluster column.

    Attributes
    ----------
    column
        Its name in obs.
    codes, names
        Cluster of each cell (-1: none), and the names of the clusters.
    record
        How the clusters were computed; goes to ``uns[column]`` as JSON.
    colors
        Of the clusters, where they came with the column.
    """

    column: str
    codes: np.ndarray
    names: list[str]
    record: dict[str, Any]
    colors: np.ndarray | None = None


# ---------------------------------------------------------------- reading


def read_graph(root: Any, neighbors_key: str) -> sp.csr_matrix:
    """Read the connectivities that ``uns[neighbors_key]`` names, in any sparse format.

    Raises
    ------
    KeyError
        If there are none; lists the available ones.
    """
    name = graph_key(root, neighbors_key, "connectivities")
    if name not in keys(root, "obsp"):
        raise KeyError(missing("adata.obsp has no", name, keys(root, "obsp")))
    return read_csr(root, f"obsp/{name}")


def read_community_graph(root: Any, neighbors_key: str) -> CommunityGraph:
    """Read the connectivities, prepared for communities and layout.

    Uses the order of cells that `write_neighbors` stored; where there is none, or that of another
    graph, it is computed when needed.
    """
    import numpy as np

    from clustering.communities import CellOrder, restore

    connectivities = read_graph(root, neighbors_key)
    stored, path = None, f"uns/{neighbors_key}"
    if {"order", "order_checksum"} <= set(keys(root, path)):
        order = np.asarray(read_element(root, f"{path}/order"))
        if order.ndim == 1 and order.dtype.kind in "iu":
            stored = CellOrder(order, read_element(root, f"{path}/order_checksum"))
    return restore(connectivities, stored)


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
    """Return ``uns[neighbors_key]["params"]``, how neighbors were computed; empty if unknown."""
    path = f"uns/{neighbors_key}"
    params = read_element(root, f"{path}/params") if "params" in keys(root, path) else None
    return params if isinstance(params, dict) else {}


def foreign_graph(params: Mapping[str, Any]) -> str:
    """Name what shows that a graph is not one of nearest neighbors in a representation.

    Parameters
    ----------
    params
        As `neighbors_params` returns them.

    Returns
    -------
    str
        Such as ``method wnn``, or ``bbknn`` where these parameters have a section of that name;
        empty where nothing shows it.
    """
    method = params.get("method")
    if isinstance(method, str) and method not in KNN_METHODS:
        return f"method {method}"
    # BBKNN stores umap as its method, and a section of its own.
    sections = [key for key, value in params.items() if isinstance(value, dict)]
    return next((key for key in sections if not key.endswith(("_kwds", "_kwargs"))), "")


def read_representation(
    root: Any, use_rep: str | None, neighbors_key: str
) -> tuple[str, np.ndarray]:
    """Return the obsm key of the representation to compute neighbors in, and its values.

    The key is `use_rep`, else that of the existing neighbors, else ``X_pca``.
    """
    key = use_rep
    if key is None and neighbors_key in keys(root, "uns"):
        key = read_text(root, f"uns/{neighbors_key}/params/use_rep")
    key = key or "X_pca"
    return key, read_embedding(root, key)


def read_record(root: Any, column: str) -> dict[str, Any]:
    """Return the record that `write_clustering` stored of a column; empty for other columns."""
    try:
        record = json.loads(read_text(root, f"uns/{column}") or "{}")
    except json.JSONDecodeError:
        return {}
    return record if isinstance(record, dict) and "clustering_args" in record else {}


def read_cluster_names(files: Sequence[str]) -> set[str]:
    """Read the names of the clusters in all columns of some stores."""
    roots = [open_store(file) for file in files]
    return {
        name
        for root in roots
        for column in keys(root, "obs")
        for name in read_categorical(root, column)[1]
    }


def read_clusters(root: Any, column: str) -> tuple[np.ndarray, list[str]]:
    """Read a cluster column: codes (-1: missing) and names, in natural order.

    Raises
    ------
    KeyError
        If it does not exist; lists the columns that do.
    ValueError
        If a name cannot be that of a cluster (`clustering.cluster_names.check_names`).
    """
    from clustering.hierarchy import in_natural_order

    codes, names = in_natural_order(*read_categorical(root, column))
    check_names(names, f'adata.obs["{column}"]')
    return codes, names


def read_colors(root: Any, column: str, names: Sequence[str]) -> np.ndarray | None:
    """Read ``uns/{column}_colors``, the colors of clusters, in the order of their `names`.

    None where there are none, or (with a message) fewer than the column has categories.
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
    position = {str(name): i for i, name in enumerate(values.categories)}
    return colors[[position[name] for name in names]]


def read_basis(
    root: Any, *, use_rep: str | None, neighbors_key: str, refine: str
) -> tuple[str, np.ndarray | sp.csr_matrix]:
    """Read what clusters are split by.

    Parameters
    ----------
    root
        Store of the level above.
    use_rep, neighbors_key
        As for `read_representation`.
    refine
        ``graph``: the connectivities; ``neighbors``: a representation, in which neighbors are
        computed.

    Returns
    -------
    (str, numpy.ndarray or scipy.sparse.csr_matrix)
        Its name for the record, and what `clustering.hierarchy.split` takes.

    Raises
    ------
    KeyError
        If it is missing.
    """
    if refine == "graph":
        name = graph_key(root, neighbors_key, "connectivities")
        if name not in keys(root, "obsp"):
            raise KeyError(
                f"{location(root)}: has no obsp/{name} for --refine graph; an output of level 1 "
                "has it where its input was a .zarr: convert an .h5ad with prepare.py first"
            )
        return f"obsp/{name}", read_community_graph(root, neighbors_key).adjacency
    key, representation = read_representation(root, use_rep, neighbors_key)
    if foreign := foreign_graph(neighbors_params(root, neighbors_key)):
        say(
            f"uns/{neighbors_key} is not a plain nearest-neighbor graph ({foreign}): neighbors "
            f"within each cluster are computed in {key}, without what that graph integrates; to "
            "split the graph itself write clustering: {refine: graph}, by hand --refine graph"
        )
    return key, representation


# ---------------------------------------------------------------- writing


def write_neighbors(
    output_file: str | Path,
    graph: NeighborGraph,
    *,
    source: str | Path,
    neighbors_key: str,
    params: Mapping[str, Any],
) -> None:
    """Write a neighbor graph as scanpy stores it, and the order of its cells in memory.

    Parameters
    ----------
    output_file, source
        The store to write, and the one that it links to.
    graph
        Distances and connectivities of all cells.
    neighbors_key
        Key in uns; ``neighbors`` leaves the keys of obsp without a prefix, as in scanpy.
    params
        Further entries of ``uns[neighbors_key]["params"]``.
    """
    from clustering.communities import order_cells

    prefix = "" if neighbors_key == "neighbors" else f"{neighbors_key}_"
    matrices = {"distances": graph.distances, "connectivities": graph.connectivities}
    record: dict[str, Any] = {f"{name}_key": prefix + name for name in matrices}
    record["params"] = {**graph.params, **params, "search": graph.search}
    if graph.recall is not None:
        record["params"]["recall"] = graph.recall
    # Once here instead of in every job that reads the graph.
    cells = order_cells(graph.connectivities)
    if cells is not None:
        record |= {"order": cells.order, "order_checksum": cells.checksum}
    new = [f"uns/{neighbors_key}", *(f"obsp/{prefix}{name}" for name in matrices)]
    with new_store(output_file, source=source, new=new) as store:
        for name, matrix in matrices.items():
            write_element(store, f"obsp/{prefix}{name}", matrix)
        write_element(store, f"uns/{neighbors_key}", record)


def write_layout(
    output_file: str | Path, layout: np.ndarray, *, source: str | Path, params: Mapping[str, Any]
) -> None:
    """Write ``obsm/X_umap``, and ``uns/umap`` with how it was computed; link all else."""
    new = ["obsm/X_umap", "uns/umap"]
    with new_store(output_file, source=source, new=new) as store:
        write_element(store, "obsm/X_umap", layout)
        write_element(store, "uns/umap", {"params": dict(params)})


def write_clustering(
    output_file: str | Path,
    levels: Sequence[ClusterLevel],
    *,
    source: str | Path,
    neighbors_key: str = NeighborsKeyOptions.neighbors_key,
) -> None:
    """Write a store of one or several cluster columns.

    Parameters
    ----------
    output_file
        The ``.zarr`` folder to write.
    levels
        The columns.
    source
        The input, to which all else is linked. An ``.h5ad`` cannot be linked to: its obsm and
        ``uns[neighbors_key]`` are copied, so that the next level finds the representation.

    Raises
    ------
    ValueError
        If no cell has a label.
    """
    import numpy as np

    uns: dict[str, Any] = {}
    for level in levels:
        if not level.names:
            raise ValueError(f"{source}: no cell has a label to make {level.column} of")
        record = {**level.record, "n_clusters": len(level.names), "versions": _versions()}
        # One JSON text: a mapping would be a file or two for each of its entries.
        uns[level.column] = json.dumps(record, sort_keys=True)
        if level.colors is not None:
            uns[f"{level.column}_colors"] = level.colors
    if is_linkable(source):
        # Colors of other clusters under the name of a column are not linked.
        elements = ("obs/{}", "uns/{}", "uns/{}_colors")
        new = [element.format(level.column) for level in levels for element in elements]
        with new_store(output_file, source=source, new=new, fresh=["obs"]) as store:
            for level in levels:
                write_categorical(store, level.column, level.codes, level.names)
            for name, value in uns.items():
                write_element(store, f"uns/{name}", value)
    else:
        _write_copy(output_file, levels, source, neighbors_key, uns)
    for level in levels:
        sizes = np.bincount(level.codes[level.codes >= 0], minlength=len(level.names))
        say(
            f"{output_file}: {level.column} has {len(level.names)} clusters of "
            f"{len(level.codes):,} cells (largest {sizes.max():,}, smallest {sizes.min():,})"
        )


def _write_copy(
    output_file: str | Path,
    levels: Sequence[ClusterLevel],
    source: str | Path,
    neighbors_key: str,
    uns: dict[str, Any],
) -> None:
    import pandas as pd

    root = open_store(source)
    if neighbors_key in keys(root, "uns"):
        uns = {**uns, neighbors_key: read_element(root, f"uns/{neighbors_key}")}
    with new_store(output_file) as store:
        write_element(store, "obs", pd.DataFrame(index=read_index(root, "obs")))
        write_element(store, "var", pd.DataFrame(index=pd.Index([], dtype=str)))
        write_element(store, "obsm", read_element(root, "obsm") if "obsm" in root else {})
        write_element(store, "uns", uns)
        for level in levels:
            write_categorical(store, level.column, level.codes, level.names)


def _versions() -> dict[str, str]:
    """Return the versions of installed packages that labels depend on."""
    versions = {}
    for name in ("numpy", "scipy", "igraph", "leidenalg", "numba"):
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def count_clusters(codes: np.ndarray) -> tuple[int, int, int, int]:
    """Return number of clusters, largest, smallest, and cells without a label (-1)."""
    import numpy as np

    sizes = np.bincount(codes[codes >= 0])
    sizes = sizes[sizes > 0]
    if not len(sizes):
        return 0, 0, 0, len(codes)
    return len(sizes), int(sizes.max()), int(sizes.min()), int((codes < 0).sum())
