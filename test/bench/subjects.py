"""What `bench_clustering.py` measures: ours and the peers', stage by stage.

Each function prepares, which is not timed, and returns the call that is timed. What a peer does not
have where it runs is left out.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

RESOLUTIONS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.6, 2.0)
K = 15


def neighbors_cellstrata(data, threads):
    from numerics.knn import nearest_neighbors

    X = data["X"]
    return lambda: {"indices": nearest_neighbors(X, K, threads=threads).indices}


def neighbors_faiss_ivf(data, threads):
    import faiss

    faiss.omp_set_num_threads(threads)
    X = data["X"]

    def run():
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(X.shape[1]), X.shape[1], int(len(X) ** 0.5))
        index.train(X)
        index.add(X)
        index.nprobe = 16
        return {"indices": index.search(X, K)[1][:, 1:]}

    return run


def neighbors_brisc(data, threads):
    cells = _brisc(data["X"], threads)
    return lambda: {
        "indices": cells.neighbors(QC_column=None, num_neighbors=K - 1).obsm["neighbors"]
    }


def neighbors_scanpy_warm(data, threads):
    import scanpy as sc

    def run(X):
        adata = sc.AnnData(obsm={"X_pca": X})
        sc.pp.neighbors(adata, n_neighbors=K, use_rep="X_pca")
        return {"indices": adata.obsp["distances"].indices.reshape(len(X), -1)}

    run(data["X"][:9000])
    return lambda: run(data["X"])


def graph_cellstrata(data, threads):
    from clustering.connectivities import neighbor_graph

    return lambda: {"indices": neighbor_graph(data["X"], n_neighbors=K, threads=threads)
                    .distances.indices.reshape(-1, K - 1)}  # fmt: skip


def connectivities_cellstrata(data, threads):
    from clustering.connectivities import fuzzy_connectivities

    return lambda: {"nnz": fuzzy_connectivities(data["indices"], data["distances"]).nnz}


def connectivities_umap_learn_warm(data, threads):
    from scanpy.neighbors._connectivity import umap

    def run(n):
        index = np.column_stack([np.arange(n), data["indices"][:n] % n])
        length = np.column_stack([np.zeros(n, np.float32), data["distances"][:n]])
        return {"nnz": umap(index, length, n_obs=n, n_neighbors=K).nnz}

    run(1000)
    return lambda: run(len(data["indices"]))


def _communities(algorithm, flavor, resolutions=(1.0,)):
    def prepare(data, threads):
        from concurrent.futures import ThreadPoolExecutor

        from clustering.communities import build, find_communities

        weights = weights_of(data)

        def run():
            graph = build(weights)

            def at(resolution):
                return find_communities(
                    graph, algorithm=algorithm, flavor=flavor, resolution=resolution
                )

            with ThreadPoolExecutor(threads) as pool:
                return {"labels": list(pool.map(at, resolutions))[resolutions.index(1.0)]}

        return run

    return prepare


def _communities_graspologic(data, threads):
    from graspologic_native import leiden_csr

    weights = weights_of(data)
    n = weights.shape[0]

    def run():
        starts, ends = weights.indptr.astype(np.int64), weights.indices.astype(np.int32)
        _, found = leiden_csr(
            starts, ends, weights.data.astype(float), n,
            resolution=1.0, randomness=0.001, iterations=2, seed=0, trials=1,
        )  # fmt: skip
        return {"labels": np.array([found[cell] for cell in range(n)])}

    return run


def _communities_networkit(data, threads):
    import networkit as nk
    import scipy.sparse as sp

    nk.setNumberOfThreads(threads)
    weights = weights_of(data)

    def run():
        nk.setSeed(0, False)
        edges = sp.triu(weights, 1, format="coo")
        ends = (edges.row.astype(np.uint64), edges.col.astype(np.uint64))
        graph = nk.GraphFromCoo((edges.data.astype(float), ends), weights.shape[0], weighted=True)
        found = nk.community.ParallelLeiden(graph, iterations=2)
        found.run()
        return {"labels": np.array(found.getPartition().getVector())}

    return run


def _communities_brisc(resolutions):
    def prepare(data, threads):
        # It takes its own graph of shared neighbors only; that is made before the clock starts.
        cells = _brisc(data["X"], threads).neighbors(QC_column=None, num_neighbors=K - 1)
        cells = cells.shared_neighbors(QC_column=None)

        def run():
            found = cells.cluster(
                QC_column=None,
                resolution=list(resolutions) if len(resolutions) > 1 else resolutions[0],
                min_cluster_size=1,
                num_threads=min(threads, len(resolutions)),
            )
            name = f"cluster_{resolutions.index(1.0)}" if len(resolutions) > 1 else "cluster"
            return {"labels": found.obs[name].cast(str).to_numpy().astype(int)}

        return run

    return prepare


def _communities_scanpy(resolutions):
    def prepare(data, threads):
        import scanpy as sc

        adata = sc.AnnData(obsp={"connectivities": weights_of(data)})

        def run():
            for resolution in resolutions:
                sc.tl.leiden(
                    adata,
                    resolution=resolution,
                    flavor="igraph",
                    n_iterations=2,
                    directed=False,
                    obsp="connectivities",
                    key_added=str(resolution),
                )
            return {"labels": adata.obs["1.0"].to_numpy().astype(int)}

        return run

    return prepare


def parents_cellstrata(data, threads):
    from clustering.hierarchy import split

    parents = data["groups"].astype(str)
    return lambda: {"labels": split(parents, data["X"], threads=threads).labels.codes}


def parents_scanpy_warm(data, threads):
    import scanpy as sc

    def run(n):
        labels = np.zeros(n, dtype=int)
        for group in np.unique(data["groups"][:n]):
            rows = data["groups"][:n] == group
            part = sc.AnnData(obsm={"X_pca": data["X"][:n][rows]})
            sc.pp.neighbors(part, n_neighbors=K, use_rep="X_pca")
            sc.tl.leiden(part, flavor="igraph", n_iterations=2, directed=False)
            labels[rows] = labels.max() + 1 + part.obs["leiden"].to_numpy().astype(int)
        return {"labels": labels}

    run(4000)
    sc.pp.neighbors(sc.AnnData(obsm={"X_pca": data["X"][:9000]}), use_rep="X_pca")
    return lambda: run(len(data["X"]))


def layout_cellstrata(data, threads):
    from clustering.umap import umap_layout

    weights = weights_of(data)
    return lambda: {"layout": umap_layout(weights, threads=threads)}


def layout_umap_learn_warm(data, threads):
    import scanpy as sc

    def run(epochs):
        adata = sc.AnnData(obsm={"X_pca": data["X"]})
        adata.obsp["distances"], adata.obsp["connectivities"] = _distances(data), weights_of(data)
        params = {"n_neighbors": K, "method": "umap", "metric": "euclidean", "use_rep": "X_pca"}
        adata.uns["neighbors"] = {
            "connectivities_key": "connectivities",
            "distances_key": "distances",
            "params": params,
        }
        sc.tl.umap(adata, maxiter=epochs)
        return {"layout": adata.obsm["X_umap"]}

    run(1)
    return lambda: run(None)


def layout_brisc(data, threads):
    near = {"neighbors": data["indices"].astype(np.uint32), "distances": data["distances"]}
    cells = _brisc(data["X"], threads, obsm=near)
    return lambda: {"layout": np.asarray(cells.umap(QC_column=None).obsm["umap"])}


def output_cellstrata(data, threads):
    import pandas as pd

    from clustering.stores import ClusterLevel, write_clustering
    from utils.io import new_store, write_element

    folder = Path(tempfile.mkdtemp())
    names = [f"cell{i}" for i in range(len(data["X"]))]
    with new_store(folder / "neighbors.zarr") as root:
        write_element(root, "obs", pd.DataFrame(index=names))
    codes = data["groups"].astype(np.int64)
    clusters = [str(i) for i in range(17)]

    def run():
        level = ClusterLevel("leiden_1.0_1", codes, clusters, record={})
        write_clustering(folder / "out.zarr", [level], source=folder / "neighbors.zarr")
        files = [f for f in (folder / "out.zarr").rglob("*") if not f.is_dir()]
        size = sum(f.lstat().st_size for f in files)
        return {"files": len(files), "bytes": size}

    return run


STAGES = {
    "neighbors": [
        neighbors_cellstrata,
        neighbors_faiss_ivf,
        neighbors_brisc,
    ],
    "neighbors of a million": [neighbors_cellstrata, neighbors_brisc],
    "neighbors and connectivities": [graph_cellstrata, neighbors_scanpy_warm],
    "connectivities": [connectivities_cellstrata, connectivities_umap_learn_warm],
    "communities": {
        "leiden cellstrata": _communities("leiden", "cellstrata"),
        "leiden igraph": _communities("leiden", "igraph"),
        "leiden leidenalg": _communities("leiden", "leidenalg"),
        "louvain cellstrata": _communities("louvain", "cellstrata"),
        "louvain igraph": _communities("louvain", "igraph"),
        "graspologic native": _communities_graspologic,
        "networkit parallel": _communities_networkit,
        "brisc, its own graph": _communities_brisc((1.0,)),
        "scanpy": _communities_scanpy((1.0,)),
    },
    "communities, 8 resolutions": {
        "leiden cellstrata": _communities("leiden", "cellstrata", RESOLUTIONS),
        "brisc, its own graph": _communities_brisc(RESOLUTIONS),
        "scanpy": _communities_scanpy(RESOLUTIONS),
    },
    "17 parents": [parents_cellstrata, parents_scanpy_warm],
    "writing labels": [output_cellstrata],
    "layout": [layout_cellstrata, layout_umap_learn_warm, layout_brisc],
}
# Stages with a number of cells of their own; the others take --cells.
CELLS = {"layout": 50_000, "neighbors of a million": 1_000_000, "writing labels": 1_000_000}
PEERS = ("faiss", "brisc", "scanpy", "umap_learn", "graspologic", "networkit")


def subjects(stage: str) -> dict:
    """Return the functions of a stage by the name in the table."""
    functions = STAGES[stage]
    if isinstance(functions, dict):
        return functions
    return {f.__name__.partition("_")[2].replace("_", " "): f for f in functions}


def _brisc(X, threads, **slots):
    import polars as pl
    import scipy.sparse as sp
    from brisc import SingleCell

    names = [str(i) for i in range(len(X))]
    return SingleCell(
        X=sp.csr_array((np.ones(len(X), np.float32), (np.arange(len(X)), np.zeros(len(X), int)))),
        obs=pl.DataFrame({"cell": names}),
        var=pl.DataFrame({"gene": ["gene"]}),
        obsm={"pca": X, **slots.get("obsm", {})},
        num_threads=threads,
    )


def weights_of(data):
    import scipy.sparse as sp

    n = len(data["X"])
    return sp.csr_matrix((data["w_data"], data["w_indices"], data["w_indptr"]), shape=(n, n))


def _distances(data):
    import scipy.sparse as sp

    n, k = data["indices"].shape
    starts = np.arange(0, n * k + 1, k)
    parts = (data["distances"].ravel(), data["indices"].ravel(), starts)
    return sp.csr_matrix(parts, shape=(n, n))
