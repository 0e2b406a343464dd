"""Time, memory and quality of neighbours, communities, sub-clustering and layout beside peers.

Every measurement runs in its own process: seconds (wall and of all cores together), the peak
memory beyond what the process held before, and a quality. Peers run in the interpreter given as
`--peers-python`; one that is not installed there is left out. Rewrites its section of RESULTS.md.

    python test/bench/bench_clustering.py --peers-python peers/bin/python
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from data import mixture

HERE = Path(__file__).resolve()
WORKFLOW = HERE.parents[2] / "workflow"
RESULTS = HERE.with_name("RESULTS.md")
START, END = "<!-- clustering:start -->", "<!-- clustering:end -->"
RESOLUTIONS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.6, 2.0)
K = 15


# What is measured: each function prepares (not timed) and returns the call that is timed.


def neighbours_cellstrata(data, threads):
    from clustering.search import nearest_neighbors

    X = data["X"]
    return lambda: {"indices": nearest_neighbors(X, K, threads=threads).indices}


def neighbours_faiss_ivf(data, threads):
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


def neighbours_brisc(data, threads):
    cells = _brisc(data["X"], threads)
    return lambda: {
        "indices": cells.neighbors(QC_column=None, num_neighbors=K - 1).obsm["neighbors"]
    }


def neighbours_scanpy_warm(data, threads):
    import scanpy as sc

    def run(X):
        adata = sc.AnnData(obsm={"X_pca": X})
        sc.pp.neighbors(adata, n_neighbors=K, use_rep="X_pca")
        return {"indices": adata.obsp["distances"].indices.reshape(len(X), -1)}

    run(data["X"][:9000])
    return lambda: run(data["X"])


def graph_cellstrata(data, threads):
    from clustering.graph import neighbor_graph

    return lambda: {"indices": neighbor_graph(data["X"], n_neighbors=K, threads=threads)
                    .distances.indices.reshape(-1, K - 1)}  # fmt: skip


def connectivities_cellstrata(data, threads):
    from clustering.graph import fuzzy_connectivities

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

        weights = _weights(data)

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


def _communities_brisc(resolutions):
    def prepare(data, threads):
        # It takes its own graph of shared neighbours only; that is made before the clock starts.
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

        adata = sc.AnnData(obsp={"connectivities": _weights(data)})

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
    from clustering.layout import umap_layout

    weights = _weights(data)
    return lambda: {"layout": umap_layout(weights, threads=threads)}


def layout_umap_learn_warm(data, threads):
    import scanpy as sc

    def run(epochs):
        adata = sc.AnnData(obsm={"X_pca": data["X"]})
        adata.obsp["distances"], adata.obsp["connectivities"] = _distances(data), _weights(data)
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

    from clustering.columns import write_clustering
    from utils.io import new_store, write_element

    folder = Path(tempfile.mkdtemp())
    names = [f"cell{i}" for i in range(len(data["X"]))]
    with new_store(folder / "neighbors.zarr") as root:
        write_element(root, "obs", pd.DataFrame(index=names))
    codes = data["groups"].astype(np.int64)
    paths = {"input_file": folder / "neighbors.zarr", "output_file": folder / "out.zarr"}

    def run():
        write_clustering(
            argparse.Namespace(**paths), "leiden_1.0_1", codes, [*map(str, range(17))], {}
        )
        files = [f for f in (folder / "out.zarr").rglob("*") if not f.is_dir()]
        size = sum(f.lstat().st_size for f in files)
        return {"files": len(files), "bytes": size}

    return run


STAGES = {
    "neighbours": [
        neighbours_cellstrata,
        neighbours_faiss_ivf,
        neighbours_brisc,
    ],
    "neighbours of a million": [neighbours_cellstrata, neighbours_brisc],
    "neighbours and connectivities": [graph_cellstrata, neighbours_scanpy_warm],
    "connectivities": [connectivities_cellstrata, connectivities_umap_learn_warm],
    "communities": {
        "leiden cellstrata": _communities("leiden", "cellstrata"),
        "leiden igraph": _communities("leiden", "igraph"),
        "leiden leidenalg": _communities("leiden", "leidenalg"),
        "louvain cellstrata": _communities("louvain", "cellstrata"),
        "louvain igraph": _communities("louvain", "igraph"),
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
CELLS = {"layout": 50_000, "neighbours of a million": 1_000_000, "writing labels": 1_000_000}
PEERS = ("faiss", "brisc", "scanpy", "umap_learn")


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


def _weights(data):
    import scipy.sparse as sp

    n = len(data["X"])
    return sp.csr_matrix((data["w_data"], data["w_indices"], data["w_indptr"]), shape=(n, n))


def _distances(data):
    import scipy.sparse as sp

    n, k = data["indices"].shape
    starts = np.arange(0, n * k + 1, k)
    parts = (data["distances"].ravel(), data["indices"].ravel(), starts)
    return sp.csr_matrix(parts, shape=(n, n))


# One measurement.


def measure(stage: str, name: str, file: str, threads: int, out: str) -> None:
    """Run one subject in this process; write its seconds, memory and result."""
    with np.load(file) as stored:
        data = dict(stored)
    run = subjects(stage)[name](data, threads)
    before = peak_memory(reset=True)
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    np.savez(out, wall=wall, cpu=cpu, memory=peak_memory() - before, **result)


def peak_memory(*, reset: bool = False) -> float:
    """Return the most MB that this process has held, since the last reset (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def true_neighbours(X: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the nearest neighbours of some rows, by comparing them with all."""
    X = X - X.mean(axis=0)
    lengths = np.einsum("ij,ij->i", X, X)
    found = []
    for row in rows:
        distance = lengths - 2 * (X @ X[row])
        distance[row] = np.inf
        found.append(np.argpartition(distance, K - 1)[: K - 1])
    return np.array(found)


def quality(stage: str, result: dict, data: dict) -> str:
    """Return what a result is worth."""
    from clustering.communities import modularity
    from clustering.search import nearest_neighbors

    if "indices" in result:
        sample = np.sort(np.random.default_rng(1).choice(len(data["X"]), 1000, replace=False))
        truth = true_neighbours(data["X"], sample)
        return f"recall {shared(truth, result['indices'][sample]):.4f}"
    if stage.startswith("communities"):
        labels = result["labels"]
        return f"Q {modularity(_weights(data), labels):.4f}, {len(np.unique(labels))} clusters"
    if "labels" in result:
        return f"{len(np.unique(result['labels']))} children"
    if "layout" in result:
        near = nearest_neighbors(result["layout"].astype(np.float32), K).indices
        return f"{shared(data['indices'], near):.3f} of neighbours kept"
    if "files" in result:
        return f"{int(result['files'])} files, {int(result['bytes']) / 1e6:.2f} MB"
    return f"{int(result['nnz']):,} weights"


def shared(truth: np.ndarray, found: np.ndarray) -> float:
    """Return the share of `truth` that is in the same row of `found`."""
    return float((truth[:, :, None] == found[:, None, :]).any(axis=2).mean())


def run_all(args: argparse.Namespace) -> list[tuple]:
    """Measure every subject; return the rows of the table."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sizes = {stage: CELLS.get(stage, args.cells) for stage in args.stages}
        files = {n: make_data(n, Path(folder), args) for n in set(sizes.values())}
        for stage, n in sizes.items():
            with np.load(files[n]) as stored:
                data = dict(stored)
            for name in subjects(stage):
                peer = any(word in name.replace(" ", "_") for word in PEERS)
                python = args.peers_python if peer else sys.executable
                if python is None:
                    continue
                out = Path(folder) / "out.npz"
                runs = []
                for _ in range(args.repeats):
                    out.unlink(missing_ok=True)
                    command = [python, str(HERE), "--one", stage, name, str(files[n]), str(out)]
                    command += ["--threads", str(args.threads)]
                    done = subprocess.run(command, env=environment(args.threads), text=True,
                                          capture_output=True, check=False)  # fmt: skip
                    if not out.exists():
                        print(f"{stage}, {name}: {done.stderr.strip().splitlines()[-1]}")
                        break
                    with np.load(out) as stored:
                        runs.append(dict(stored))
                if not runs:
                    continue
                best = min(runs, key=lambda run: run["wall"])
                rows.append(
                    (stage, n, name, best["wall"], best["cpu"], best["memory"],
                     quality(stage, best, data))
                )  # fmt: skip
                print("{}, {:,} cells, {}: {:.2f} s, cpu {:.2f} s, {:.0f} MB, {}".format(*rows[-1]))
    return rows


def make_data(n: int, folder: Path, args: argparse.Namespace) -> Path:
    """Write the cells, their neighbours and their graph."""
    from clustering.graph import fuzzy_connectivities
    from clustering.search import nearest_neighbors

    X, groups = mixture(n)
    found = nearest_neighbors(X, K, threads=args.threads)
    weights = fuzzy_connectivities(found.indices, found.distances)
    file = folder / f"{n}.npz"
    np.savez(file, X=X, groups=groups, indices=found.indices, distances=found.distances,
             w_data=weights.data, w_indices=weights.indices, w_indptr=weights.indptr)  # fmt: skip
    return file


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a measurement: its number of threads."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(threads))}


def import_times() -> list[tuple[str, float]]:
    """Return the best of three times that each import takes beyond Python's own start."""
    modules = ("clustering.search", "clustering.graph", "clustering.communities",
               "clustering.hierarchy", "clustering.layout", "scipy.sparse", "pandas",
               "clustering.leiden", "igraph", "leidenalg", "zarr", "anndata")  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(WORKFLOW)}

    def seconds(code: str) -> float:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], env=environment, check=True)
            times.append(time.perf_counter() - start)
        return min(times)

    bare = seconds("")
    return [(module, seconds(f"import {module}") - bare) for module in modules]


def write(rows: list[tuple], imports: list[tuple[str, float]], args: argparse.Namespace) -> None:
    """Replace the section of RESULTS.md."""
    lines = [
        START,
        "## Neighbours, communities, sub-clustering, layout",
        "",
        f"{datetime.date.today()}, {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, {args.threads} threads, load {os.getloadavg()[1]:.1f}, "
        f"Python {platform.python_version()}, best of {args.repeats}; k = {K}, 50 dimensions. "
        "cpu: seconds of all cores together, which says more than the wall where the machine is "
        "shared. MB: beyond what the process held before. Rows that were not measured again keep "
        "the figures of their own run.",
        "",
        "| step | cells | | wall, s | cpu, s | MB | quality |",
        "|---|--:|---|--:|--:|--:|---|",
    ]
    text = RESULTS.read_text() if RESULTS.exists() else "# Measured\n"
    for stage in STAGES:
        lines += [
            f"| {stage} | {n:,} | {name} | {wall:.2f} | {cpu:.2f} | {memory:.0f} | {worth} |"
            for step, n, name, wall, cpu, memory, worth in rows
            if step == stage
        ]
        if stage not in args.stages:  # stays as it was measured before
            lines += [line for line in text.splitlines() if line.startswith(f"| {stage} | ")]
    lines += ["", "| import | seconds |", "|---|--:|"]
    lines += [f"| {module} | {seconds:.2f} |" for module, seconds in imports]
    section = "\n".join([*lines, END])
    if START in text:
        text = text[: text.index(START)] + section + text[text.index(END) + len(END) :]
    else:
        text = text.rstrip() + f"\n\n{section}\n"
    RESULTS.write_text(text)


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=200_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--peers-python", help="interpreter that has the peers (optional)")
    parser.add_argument("--dry", action="store_true", help="leave RESULTS.md as it is")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    sys.path.insert(0, str(WORKFLOW))
    if args.one:
        stage, name, file, out = args.one
        measure(stage, name, file, args.threads, out)
        return
    rows = run_all(args)
    if not args.dry:
        write(rows, import_times(), args)


if __name__ == "__main__":
    main()
