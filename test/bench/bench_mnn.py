"""MNN side by side with scranpy's, and beside Harmony on real data: time, memory, mixing.

Every run is a process of its own. Writes the MNN section of RESULTS.md.

    python test/bench/bench_mnn.py --peers-python /path/to/peers/bin/python

The peers' environment needs scranpy; mnnpy 0.1.9.5 cannot be compiled for Python 3.11 and later.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from results_page import write_section

HERE = Path(__file__).resolve()
WORKFLOW = HERE.parents[2] / "workflow"
INPUT = HERE.parents[1] / "input" / "pancreas.h5ad"
PEER = "scranpy correct_mnn"
TYPES = 30


def make_data(n_cells: int, n_dims: int, n_batches: int, folder: Path) -> None:
    """Write types with a batch effect that differs a little between them; float32."""
    rng = np.random.default_rng(0)
    centers = 2 * rng.normal(size=(TYPES, n_dims)) * np.linspace(1.6, 0.2, n_dims)
    scale = np.linspace(2, 0.3, n_dims)
    shifts = rng.normal(size=(n_batches, 1, n_dims)) * scale
    shifts = shifts + rng.normal(size=(n_batches, TYPES, n_dims)) * scale / 5
    types = rng.choice(TYPES, n_cells, p=rng.dirichlet(np.full(TYPES, 3.0)))
    batches = rng.integers(n_batches, size=n_cells)
    cells = np.empty((n_cells, n_dims), np.float32)
    for start in range(0, n_cells, 100_000):
        rows = slice(start, start + 100_000)
        noise = rng.standard_normal(cells[rows].shape, np.float32)
        noise *= np.linspace(1.5, 0.7, n_dims, dtype=np.float32)
        cells[rows] = centers[types[rows]] + shifts[batches[rows], types[rows]] + noise
    for name, array in (("cells", cells), ("batches", batches), ("types", types)):
        np.save(folder / f"{name}.npy", array)


def run_ours(cells: np.ndarray, batches: np.ndarray, threads: int):
    """Return a call of this project's `reduced_mnn`."""
    sys.path.insert(0, str(WORKFLOW))
    from integration.mnn import reduced_mnn

    return lambda: reduced_mnn(cells, batches, threads=threads, verbose=True).corrected


def run_harmony(cells: np.ndarray, batches: np.ndarray, threads: int):
    """Return a call of this project's Harmony."""
    sys.path.insert(0, str(WORKFLOW))
    from integration.harmony import harmonize

    return lambda: harmonize(cells, batches, threads=threads).corrected


def run_scranpy(cells: np.ndarray, batches: np.ndarray, threads: int):
    """Return a call of scranpy's `correct_mnn`, which takes columns of cells."""
    import scranpy

    columns, labels = cells.T, batches.tolist()
    options = {"num_neighbors": 20, "merge_policy": "input", "num_threads": threads}
    return lambda: np.array(
        scranpy.correct_mnn(columns, labels, **options)["corrected"].T, order="C"
    )


RUNS = {
    "uncorrected": lambda cells, batches, threads: lambda: cells,
    "Harmony": run_harmony,
    "cellstrata": run_ours,
    PEER: run_scranpy,
}


def work(name: str, folder: Path, threads: int) -> None:
    """Run one competitor in this process and print its figures as JSON."""
    parts = ("cells", "batches", "types")
    cells, batches, types = (np.load(folder / f"{part}.npy") for part in parts)
    run = RUNS[name](cells, batches, threads)
    wall, cpu = time.perf_counter(), time.process_time()
    corrected = run()
    figures = {
        "seconds": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "ilisi": lisi(corrected, batches),
        "clisi": lisi(corrected, types),
    }
    print(json.dumps(figures))


def lisi(embedding: np.ndarray, labels: np.ndarray, n_cells: int = 1000, k: int = 30) -> float:
    """Mean inverse Simpson index of the labels among the k nearest of some cells."""
    n_cells = min(n_cells, len(embedding))
    chosen = np.random.default_rng(0).choice(len(embedding), n_cells, replace=False)
    squares = np.einsum("ij,ij->i", embedding, embedding)
    nearest = np.empty((n_cells, k), dtype=labels.dtype)
    for start in range(0, n_cells, 16):  # few at a time: a row of distances is as long as N
        cells = chosen[start : start + 16]
        distances = squares - 2 * (embedding[cells] @ embedding.T)
        distances[np.arange(len(cells)), cells] = np.inf
        nearest[start : start + 16] = labels[np.argpartition(distances, k, axis=1)[:, :k]]
    shares = np.stack([(nearest == label).mean(axis=1) for label in range(labels.max() + 1)])
    return float((1 / (shares**2).sum(axis=0)).mean())


def measure(name: str, folder: Path, threads: int, peers_python: str | None) -> dict[str, float]:
    """Run one competitor in a process of its own."""
    python = peers_python if name == PEER else sys.executable
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment["OPENBLAS_NUM_THREADS"] = str(threads)
    command = [python, HERE, "--worker", name, "--folder", folder, "--threads", threads]
    done = subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, text=True, env=environment
    )
    if done.returncode:
        sys.exit(f"{name} left with {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def synthetic(arguments: argparse.Namespace, n_cells: int, folder: Path) -> list[str]:
    """Compare on one size; return the section's lines."""
    make_data(n_cells, arguments.dims, arguments.batches, folder)
    names = ["uncorrected", "Harmony", "cellstrata"]
    if arguments.peers_python and n_cells <= arguments.peers_up_to:
        names.append(PEER)
    lines = [
        f"### {n_cells:,} cells x {arguments.dims}, {arguments.batches} batches, "
        f"{arguments.threads} threads",
        "",
        "| | seconds | CPU s | peak GB | iLISI | cLISI |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name in names:
        found = measure(name, folder, arguments.threads, arguments.peers_python)
        print(n_cells, name, found, file=sys.stderr, flush=True)
        cost = f"{found['seconds']:.1f} | {found['cpu']:.1f} | {found['peak']:.2f}"
        cost = " | | " if name == "uncorrected" else cost
        lines.append(f"| {name} | {cost} | {found['ilisi']:.2f} | {found['clisi']:.2f} |")
    return [*lines, ""]


def real(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Compare with Harmony on the pancreas data, which the workflow's scripts prepare."""
    import anndata
    import pandas as pd

    def script(name: str, *options: object) -> None:
        command = [sys.executable, WORKFLOW / name, *options]
        subprocess.run([str(part) for part in command], check=True, stderr=subprocess.DEVNULL)

    prepared, pca = folder / "prepared.zarr", folder / "pca.zarr"
    script("preprocessing/scripts/prepare.py", INPUT, prepared)
    script("preprocessing/scripts/pca.py", prepared, pca, "--batch_key", "batch", "--n_comps", 30)
    options = ["--batch", "batch", "--threads", arguments.threads]
    runs = {
        "unintegrated": None,
        "Harmony": ("harmony.py", "X_harmony", []),
        "mnn on X_pca": ("mnn.py", "X_mnn", []),
        "mnn on X_pca, auto_merge": ("mnn.py", "X_mnn", ["--auto_merge"]),
        "fast_mnn, 30 components": (
            "mnn.py",
            "X_fast_mnn",
            ["--method", "fast_mnn", "--n_comps", 30],
        ),
        "mnn_correct, 30 components": (
            "mnn.py",
            "X_mnn_correct",
            ["--method", "mnn_correct", "--n_comps", 30],
        ),
    }
    lines = [
        "### Pancreas: 5,211 cells of five studies, 14 cell types",
        "",
        "| | seconds, script | iLISI (batch) | cLISI (cell type) |",
        "|---|--:|--:|--:|",
    ]
    for name, run in runs.items():
        store, key, cost = pca, "X_pca", ""
        if run:
            store, key = folder / "out.zarr", run[1]
            start = time.perf_counter()
            script(f"integration/scripts/{run[0]}", pca, store, "--overwrite", *options, *run[2])
            cost = f"{time.perf_counter() - start:.1f}"
        adata = anndata.read_zarr(store)
        labels = [pd.factorize(adata.obs[column])[0] for column in ("batch", "cell_type")]
        scores = [lisi(adata.obsm[key].astype(np.float32), label) for label in labels]
        print(name, cost, scores, file=sys.stderr, flush=True)
        lines.append(f"| {name} | {cost} | {scores[0]:.2f} | {scores[1]:.2f} |")
    return [*lines, ""]


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers-python", help="interpreter that has scranpy")
    parser.add_argument("--cells", type=int, nargs="+", default=[20_000, 100_000, 1_000_000])
    parser.add_argument("--peers-up-to", type=int, default=20_000, help="cells, which take minutes")
    parser.add_argument("--dims", type=int, default=50)
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=HERE.parent / "RESULTS.md")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.folder, arguments.threads)
        return
    lines = [
        "## MNN",
        "",
        "k = 20, batches merged in the order of their labels; one run each, in a process of its "
        "own; peak memory of the process, data included. LISI: k = 30, of 1,000 cells; iLISI of "
        "batches (5 is best), cLISI of types (1 is best). The search is exact up to "
        "50,000 x 50,000 distances and approximate above. Not measured: mnnpy 0.1.9.5, which "
        "cannot be compiled for Python 3.11 and later (it includes `longintrepr.h`). Harmony is "
        "this project's. CPU seconds tell more than seconds where other jobs shared the machine. "
        f"NumPy {np.__version__}, {platform.machine()}, {os.cpu_count()} cores.",
        "",
    ]
    for n_cells in arguments.cells:
        with tempfile.TemporaryDirectory() as folder:
            lines += synthetic(arguments, n_cells, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        lines += real(arguments, Path(folder))
    write_section(arguments.results, "mnn", "\n".join(lines))


if __name__ == "__main__":
    main()
