"""Neighbours, communities and the layout on a GPU, by rapids-singlecell.

Labels come back numbered like those of the CPU: GPU algorithms skip numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clustering.communities import renumber_by_size
from clustering.graph import Graph, of_all_cells
from clustering.layout import default_epochs
from clustering.search import finite_rows

if TYPE_CHECKING:
    import numpy as np
    import scipy.sparse as sp
    from anndata import AnnData


def takes_seed(algorithm: str) -> bool:
    """Tell whether the same seed gives the same labels: not so for Louvain (cugraph #5516)."""
    return algorithm != "louvain"


def find_communities_gpu(
    connectivities: sp.csr_matrix,
    *,
    algorithm: str = "leiden",
    resolution: float = 1.0,
    seed: int = 0,
    **options: Any,
) -> np.ndarray:
    """Cluster a graph with cuGraph's Leiden or Louvain.

    Parameters
    ----------
    connectivities
        Symmetric weights, cells x cells.
    algorithm
        ``leiden`` or ``louvain``.
    resolution
        Resolution of the modularity.
    seed
        Random seed; cuGraph's Louvain takes none (`takes_seed`).
    **options
        Passed on, such as ``n_iterations``.

    Returns
    -------
    numpy.ndarray
        One int per cell, numbered by size.
    """
    import rapids_singlecell as rsc

    adata = _annotated(connectivities.shape[0])
    # In float32 cuGraph's Leiden can return one cluster per cell (rapids-singlecell #417).
    options = {"dtype": "float64", **options, "key_added": "labels"}
    if takes_seed(algorithm):
        options["random_state"] = seed
    getattr(rsc.tl, algorithm)(adata, resolution, adjacency=connectivities, **options)
    return renumber_by_size(adata.obs["labels"].astype(int).to_numpy())


def neighbor_graph_gpu(
    X: np.ndarray, *, n_neighbors: int = 15, metric: str = "euclidean", seed: int = 0
) -> Graph:
    """Compute neighbours with cuVS, exactly, and connectivities with cuML.

    Parameters
    ----------
    X
        Cells x dimensions; a row with NaN or infinity takes no part, as on the CPU.
    n_neighbors
        Neighbours per cell, itself included.
    metric
        ``euclidean`` or ``cosine``.
    seed
        Random seed.

    Returns
    -------
    Graph
        As `clustering.graph.neighbor_graph` returns it.
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
    return of_all_cells(Graph(distances, connectivities, params, "rapids", None), keep)


def umap_layout_gpu(
    connectivities: sp.csr_matrix,
    representation: np.ndarray,
    *,
    min_dist: float = 0.5,
    spread: float = 1.0,
    n_epochs: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Lay out cells with cuML's UMAP, which starts from its own spectral or random places.

    Parameters
    ----------
    connectivities
        Symmetric weights, cells x cells. A cell without weights gets no place.
    representation
        What the neighbours were searched in, cells x dimensions; cuML asks for it.
    min_dist, spread, n_epochs, seed
        As for `clustering.layout.umap_layout`.

    Returns
    -------
    numpy.ndarray
        float32, cells x 2; NaN for cells without a place.

    Raises
    ------
    FloatingPointError
        If a place is not finite.
    """
    import numpy as np
    import rapids_singlecell as rsc

    n = connectivities.shape[0]
    placed = np.flatnonzero(np.diff(connectivities.indptr))
    if len(placed) < n:
        connectivities = connectivities[placed][:, placed]
        representation = representation[placed]
    adata = _annotated(len(placed), X_basis=np.asarray(representation, dtype=np.float32))
    adata.obsp["connectivities"] = connectivities
    params = {"use_rep": "X_basis", "method": "umap", "metric": "euclidean"}
    names = {"connectivities_key": "connectivities", "distances_key": "distances"}
    adata.uns["neighbors"] = {**names, "params": params}
    rsc.tl.umap(
        adata,
        min_dist=min_dist,
        spread=spread,
        maxiter=n_epochs or default_epochs(len(placed)),
        random_state=seed,
        key_added="layout",
    )
    layout = np.asarray(adata.obsm["layout"], dtype=np.float32)
    bad = int((~finite_rows(layout)).sum())
    if bad:
        raise FloatingPointError(f"the layout is not finite in {bad:,} cells")
    result = np.full((n, 2), np.nan, dtype=np.float32)
    result[placed] = layout
    return result


def _annotated(n_cells: int, **obsm: np.ndarray) -> AnnData:
    """Wrap arrays as rapids-singlecell takes them."""
    import pandas as pd
    from anndata import AnnData

    return AnnData(obs=pd.DataFrame(index=pd.RangeIndex(n_cells).astype(str)), obsm=obsm)


def _without_self(distances: sp.csr_matrix, n_neighbors: int) -> sp.csr_matrix:
    """Leave each cell out of its own row, which rapids stores and scanpy does not.

    Among duplicates a cell may not be in its row: the farthest goes instead.
    """
    import numpy as np
    import scipy.sparse as sp

    n = distances.shape[0]
    indices = distances.indices.reshape(n, n_neighbors)
    values = distances.data.reshape(n, n_neighbors)
    own = indices == np.arange(n)[:, None]
    gone = np.where(own.any(axis=1), own.argmax(axis=1), values.argmax(axis=1))
    kept = np.arange(n_neighbors) != gone[:, None]
    starts = np.arange(0, n * (n_neighbors - 1) + 1, n_neighbors - 1)
    return sp.csr_matrix((values[kept], indices[kept], starts), shape=distances.shape)
