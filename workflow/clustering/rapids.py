"""Neighbors, communities and the layout on a GPU, by rapids-singlecell.

Labels come back numbered like those of the CPU: GPU algorithms skip numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clustering.communities import build, renumber_by_size
from clustering.connectivities import NeighborGraph, expand_graph
from clustering.options import NeighborsOptions, UMAPOptions
from clustering.umap import check_layout_options, default_epochs, expand_layout, first_state
from numerics.knn import finite_rows

if TYPE_CHECKING:
    import numpy as np
    import scipy.sparse as sp
    from anndata import AnnData

    from clustering.communities import CommunityGraph


def takes_seed(algorithm: str) -> bool:
    """Whether the same seed gives the same labels: not for Louvain (cugraph #5516)."""
    return algorithm != "louvain"


def find_communities_gpu(
    graph: CommunityGraph, *, algorithm: str = "leiden", resolution: float = 1.0, seed: int = 0
) -> np.ndarray:
    """Cluster a graph with cuGraph's Leiden or Louvain, which go on until nothing improves.

    Parameters
    ----------
    graph
        From `clustering.communities.build`.
    algorithm
        ``leiden`` or ``louvain``.
    resolution
        Resolution of the modularity.
    seed
        Random seed; cuGraph's Louvain takes none (`takes_seed`).

    Returns
    -------
    numpy.ndarray
        One int per cell, numbered by size.
    """
    import rapids_singlecell as rsc

    adata = _annotated(graph.adjacency.shape[0])
    # In float32 cuGraph's Leiden can return one cluster per cell (rapids-singlecell #417).
    options = {"adjacency": graph.adjacency, "dtype": "float64", "key_added": "labels"}
    if takes_seed(algorithm):
        options["random_state"] = seed
    getattr(rsc.tl, algorithm)(adata, resolution, **options)
    return renumber_by_size(adata.obs["labels"].astype(int).to_numpy())


def neighbor_graph_gpu(
    X: np.ndarray,
    *,
    n_neighbors: int = NeighborsOptions.n_neighbors,
    metric: str = NeighborsOptions.metric,
    seed: int = 0,
) -> NeighborGraph:
    """Compute neighbors with cuVS, exactly, and connectivities with cuML.

    Parameters
    ----------
    X
        Cells x dimensions; a row with NaN or infinity takes no part, as on the CPU.
    n_neighbors
        Neighbors per cell, itself included.
    metric
        ``euclidean`` or ``cosine``.
    seed
        Random seed.

    Returns
    -------
    NeighborGraph
        As `clustering.connectivities.neighbor_graph` returns it.
    """
    import numpy as np
    import rapids_singlecell as rsc

    keep = finite_rows(np.asarray(X))
    X = np.ascontiguousarray(X if keep.all() else X[keep], dtype=np.float32)
    adata = _annotated(len(X), X_basis=X)
    rsc.pp.neighbors(
        adata, n_neighbors=n_neighbors, use_rep="X_basis", metric=metric, random_state=seed
    )
    params = {
        "n_neighbors": n_neighbors,
        "method": "umap",
        "random_state": seed,
        "metric": metric,
    }
    distances = _without_self(adata.obsp["distances"], n_neighbors)
    connectivities = adata.obsp["connectivities"].tocsr()
    connectivities.sort_indices()
    return expand_graph(NeighborGraph(distances, connectivities, params, "rapids", None), keep)


def umap_layout_gpu(
    connectivities: sp.csr_matrix | CommunityGraph,
    *,
    min_dist: float = UMAPOptions.min_dist,
    spread: float = UMAPOptions.spread,
    n_epochs: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Lay out cells with cuML's UMAP, from the same initial coordinates as on the CPU.

    cuML's own are eigenvectors, and random from a million cells on.

    Parameters
    ----------
    connectivities, min_dist, spread, n_epochs, seed
        As for `clustering.umap.umap_layout`.

    Returns
    -------
    numpy.ndarray
        float32, cells x 2; NaN for cells without coordinates.

    Raises
    ------
    FloatingPointError
        If a coordinate is not finite.
    ValueError
        As `clustering.umap.umap_layout`.
    """
    import numpy as np
    import rapids_singlecell as rsc

    check_layout_options(min_dist, spread, n_epochs, seed)
    prepared = build(connectivities)
    graph, start, cells = first_state(prepared, seed=seed)
    adata = _annotated(len(cells), start=start)
    adata.obsp["connectivities"] = graph
    adata.uns["neighbors"] = {"connectivities_key": "connectivities", "params": {"method": "umap"}}
    rsc.tl.umap(
        adata,
        min_dist=min_dist,
        spread=spread,
        maxiter=n_epochs or default_epochs(len(cells)),
        init_pos="start",
        random_state=seed,
        key_added="layout",
    )
    layout = np.asarray(adata.obsm["layout"], dtype=np.float32)
    bad = int((~finite_rows(layout)).sum())
    if bad:
        raise FloatingPointError(f"the layout is not finite in {bad:,} cells")
    return expand_layout(layout, cells, prepared.adjacency.shape[0])


def _annotated(n_cells: int, **obsm: np.ndarray) -> AnnData:
    """Wrap arrays as rapids-singlecell takes them."""
    import pandas as pd
    from anndata import AnnData

    return AnnData(obs=pd.DataFrame(index=pd.RangeIndex(n_cells).astype(str)), obsm=obsm)


def _without_self(distances: sp.csr_matrix, n_neighbors: int) -> sp.csr_matrix:
    """Remove each cell from its own row, where rapids stores it and scanpy does not.

    Among duplicates a cell may be missing from its row: then the farthest is removed.
    """
    import numpy as np
    import scipy.sparse as sp

    n = distances.shape[0]
    indices = distances.indices.reshape(n, n_neighbors)
    values = distances.data.reshape(n, n_neighbors)
    is_self = indices == np.arange(n)[:, None]
    removed = np.where(is_self.any(axis=1), is_self.argmax(axis=1), values.argmax(axis=1))
    is_other = np.arange(n_neighbors) != removed[:, None]
    starts = np.arange(0, n * (n_neighbors - 1) + 1, n_neighbors - 1)
    return sp.csr_matrix((values[is_other], indices[is_other], starts), shape=distances.shape)
