"""Neighbours and communities on a GPU, by rapids-singlecell.

Labels come back numbered like those of the CPU: GPU algorithms skip numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clustering.communities import renumber_by_size
from clustering.graph import Graph

if TYPE_CHECKING:
    import numpy as np
    import scipy.sparse as sp


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
        Random seed; cuGraph's Louvain takes none.
    **options
        Passed on, such as ``n_iterations``.

    Returns
    -------
    numpy.ndarray
        One int per cell, numbered by size.
    """
    import pandas as pd
    import rapids_singlecell as rsc
    from anndata import AnnData

    adata = AnnData(obs=pd.DataFrame(index=pd.RangeIndex(connectivities.shape[0]).astype(str)))
    # In float32 cuGraph's Leiden can return one cluster per cell (rapids-singlecell #417).
    options = {"dtype": "float64", "key_added": "labels", **options}
    if algorithm == "leiden":
        options["random_state"] = seed
    getattr(rsc.tl, algorithm)(adata, resolution, adjacency=connectivities, **options)
    return renumber_by_size(adata.obs["labels"].astype(int).to_numpy())


def neighbor_graph_gpu(
    X: np.ndarray, *, n_neighbors: int = 15, metric: str = "euclidean", seed: int = 0
) -> Graph:
    """Compute neighbours and connectivities with cuML and cuVS.

    Parameters
    ----------
    X
        Cells x dimensions.
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
    import rapids_singlecell as rsc
    from anndata import AnnData

    adata = AnnData(obsm={"X": X})
    rsc.pp.neighbors(adata, n_neighbors=n_neighbors, use_rep="X", metric=metric, random_state=seed)
    params = {
        "n_neighbors": n_neighbors,
        "method": "umap",
        "random_state": seed,
        "metric": metric,
    }
    graph = (adata.obsp[name] for name in ("distances", "connectivities"))
    return Graph(*graph, params, "rapids", None)
