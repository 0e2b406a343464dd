"""rapids-singlecell as a test sees it: its signatures, answers a test can tell from the CPU's.

The variable STANDIN makes it fail as a GPU fails.
"""

import os
from types import SimpleNamespace

import numpy as np

FAULT = os.environ.get("STANDIN", "")


def fail():
    if FAULT == "out of memory":
        raise MemoryError("std::bad_alloc: out_of_memory: RMM failure\nat: pool.hpp")
    if FAULT == "driver gone":
        raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")


def neighbors(adata, n_neighbors=15, n_pcs=None, *, use_rep=None, random_state=0, metric):
    import scipy.sparse as sp
    from sklearn.neighbors import kneighbors_graph

    fail()
    X = adata.obsm[use_rep]
    assert X.dtype == np.float32
    assert np.isfinite(X).all()
    distances = kneighbors_graph(
        X, n_neighbors, mode="distance", metric=metric, include_self=True
    ).astype(np.float32)
    near = distances.copy()
    near.setdiag(0)
    near.eliminate_zeros()
    near.data[:] = 0.5
    adata.obsp["distances"] = distances
    adata.obsp["connectivities"] = sp.csr_matrix(near.maximum(near.T))


def communities(adata, key_added, dtype):
    fail()
    assert dtype == "float64"
    cells = np.arange(adata.n_obs)
    labels = cells if FAULT == "crumbled" else np.where(cells < 100, 7, 3)
    adata.obs[key_added] = labels.astype(str)


def leiden(
    adata, resolution=1.0, *, random_state=0, adjacency=None, key_added="leiden", dtype="float32"
):
    communities(adata, key_added, dtype)


def louvain(adata, resolution=1.0, *, adjacency=None, key_added="louvain", dtype="float32"):
    communities(adata, key_added, dtype)


def umap(
    adata, *, min_dist=0.5, spread=1.0, maxiter=None, init_pos="auto", random_state=0,
    key_added=None, neighbors_key=None,
):  # fmt: skip
    fail()
    names = adata.uns["neighbors"]
    assert np.isfinite(adata.obsm[init_pos]).all()
    assert adata.obsp[names["connectivities_key"]].shape == (adata.n_obs, adata.n_obs)
    assert maxiter >= 1
    layout = np.random.default_rng(random_state).normal(size=(adata.n_obs, 2)) + 1000
    if FAULT == "not finite":
        layout[:3] = np.nan
    adata.obsm[key_added] = layout.astype(np.float32)


pp = SimpleNamespace(neighbors=neighbors)
tl = SimpleNamespace(leiden=leiden, louvain=louvain, umap=umap)
