"""Harmony side by side with brisc and harmonypy: time, memory and mixing on the same data.

Every run is a process of its own; the runs of one size and thread count take turns, so that a
busy machine slows all of them. Writes the Harmony section of RESULTS.md.

    python test/bench/bench_harmony.py --peers-python /path/to/peers/bin/python

The peers' environment needs brisc and harmonypy (``pip install brisc==0.2.3 harmonypy==2.1.0``).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
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
PEERS = {"brisc": "brisc", "harmonypy": "harmonypy"}
OURS = ("cellstrata", "cellstrata lean")
ITERATIONS, PASSES, TYPES = 10, 5, 30


def make_data(n_cells: int, n_dims: int, n_batches: int, folder: Path) -> None:
    """Write overlapping types with batch effects that differ between types; float32.

    The types overlap so much that no competitor converges within the iterations.
    """
    rng = np.random.default_rng(0)
    scale = np.linspace(2, 0.3, n_dims)
    centers = rng.normal(size=(TYPES, n_dims)) * np.linspace(1.6, 0.2, n_dims)
    shifts = (rng.normal(size=(n_batches, 1, n_dims)) * scale).astype(np.float32)
    shifts = shifts + rng.normal(size=(n_batches, TYPES, n_dims)) * scale / 2
    types = rng.choice(TYPES, n_cells, p=rng.dirichlet(np.full(TYPES, 3.0)))
    batches = rng.integers(n_batches, size=n_cells)
    cells = np.empty((n_cells, n_dims), np.float32)
    for start in range(0, n_cells, 100_000):
        rows = slice(start, start + 100_000)
        noise = rng.standard_normal(cells[rows].shape, np.float32)
        noise *= np.linspace(1.5, 0.7, n_dims, dtype=np.float32)
        cells[rows] = centers[types[rows]] + shifts[batches[rows], types[rows]] + noise
    np.save(folder / "cells.npy", cells)
    np.save(folder / "batches.npy", batches)
    np.save(folder / "types.npy", types)


def run_ours(cells: np.ndarray, batches: np.ndarray, threads: int, lean: bool, clusters: int):
    """Run this project's Harmony; return a function to time."""
    sys.path.insert(0, str(WORKFLOW))
    from integration.harmony import harmonize

    def run():
        result = harmonize(
            cells,
            batches,
            threads=threads,
            lean=lean,
            tol_harmony=None,
            max_iter_harmony=ITERATIONS,
            max_iter_clustering=PASSES,
            n_clusters=clusters,
        )
        return result.corrected, len(result.rounds)

    return run


def run_brisc(cells: np.ndarray, batches: np.ndarray, threads: int, clusters: int):
    """Run brisc; the iterations are read from what it prints."""
    import polars as pl
    from brisc import SingleCell
    from scipy import sparse

    data = SingleCell(
        X=sparse.csr_array((len(cells), 1), dtype=np.float32),
        obs=pl.DataFrame(
            {"cell": np.arange(len(cells)).astype(str), "batch": batches.astype(np.int32)}
        ),
        var=pl.DataFrame({"gene": ["gene"]}),
        obsm={"pca": cells},
        num_threads=threads,
    )

    def run():
        with tempfile.TemporaryFile() as log:
            sys.stdout.flush()
            stdout = os.dup(1)
            os.dup2(log.fileno(), 1)
            try:
                result = data.harmonize(
                    QC_column=None,
                    batch_column="batch",
                    PC_key="pca",
                    num_threads=threads,
                    num_clusters=clusters,
                    max_iterations=ITERATIONS,
                    max_clustering_iterations=PASSES,
                    tolerance=1e-12,
                    verbose=True,
                )
                sys.stdout.flush()
            finally:
                os.dup2(stdout, 1)
            log.seek(0)
            done = re.findall(r"Completed (\d+) of", log.read().decode())
        return result.obsm["harmony"], int(done[-1])

    return run


def run_harmonypy(cells: np.ndarray, batches: np.ndarray, threads: int, clusters: int):
    """Run harmonypy 2; it never stops early with a tolerance of minus infinity."""
    import harmonypy

    def run():
        result = harmonypy.run_harmony(
            cells,
            {"batch": batches},
            "batch",
            nclust=clusters,
            max_iter_harmony=ITERATIONS,
            max_iter_kmeans=PASSES,
            epsilon_cluster=-1.0,
            epsilon_harmony=-np.inf,
            ncores=threads,
            verbose=False,
        )
        corrected = np.asarray(result.Z_corr)
        iterations = len(result.objective_harmony) - 1
        return corrected if corrected.shape == cells.shape else corrected.T, iterations

    return run


def work(name: str, folder: Path, threads: int, clusters: int) -> None:
    """Run one competitor in this process and print its figures as JSON."""
    cells, batches = np.load(folder / "cells.npy"), np.load(folder / "batches.npy")
    if name in OURS:
        run = run_ours(cells, batches, threads, name == OURS[1], clusters)
    else:
        run = {"brisc": run_brisc, "harmonypy": run_harmonypy}[name](
            cells, batches, threads, clusters
        )
    wall, cpu = time.perf_counter(), time.process_time()
    corrected, iterations = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    types = np.load(folder / "types.npy")
    figures = {
        "seconds": wall,
        "cpu": cpu,
        "peak": peak,
        "iterations": iterations,
        "ilisi": lisi(corrected, batches),
        "clisi": lisi(corrected, types),
        "unit_rows": bool(np.allclose(np.linalg.norm(corrected[:100], axis=1), 1, atol=1e-3)),
    }
    print(json.dumps(figures))


def lisi(embedding: np.ndarray, labels: np.ndarray, n_cells: int = 300, k: int = 30) -> float:
    """Mean inverse Simpson index of the labels among the k nearest of some cells."""
    chosen = np.random.default_rng(0).choice(len(embedding), n_cells, replace=False)
    squares = np.einsum("ij,ij->i", embedding, embedding)
    nearest = np.empty((n_cells, k), dtype=labels.dtype)
    for number, cell in enumerate(chosen):  # one by one: a row of distances is as long as N
        distances = squares - 2 * (embedding @ embedding[cell])
        distances[cell] = np.inf
        nearest[number] = labels[np.argpartition(distances, k)[:k]]
    shares = np.stack([(nearest == label).mean(axis=1) for label in range(labels.max() + 1)])
    return float((1 / (shares**2).sum(axis=0)).mean())


def measure(
    name: str, folder: Path, threads: int, clusters: int, peers_python: str | None
) -> dict[str, float]:
    """Run one competitor in a process of its own."""
    python = peers_python if name in PEERS else sys.executable
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment["OPENBLAS_NUM_THREADS"] = str(threads)
    command = [python, HERE, "--worker", name, "--folder", folder]
    command += ["--threads", str(threads), "--clusters", str(clusters)]
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        sys.exit(f"{name} left with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def machine_rates(n_dims: int, clusters: int) -> dict[str, float]:
    """One core's nanoseconds per element of S: product, exp, and a pass over S in memory."""
    sys.path.insert(0, str(WORKFLOW))
    from threadpoolctl import threadpool_limits

    def fastest(function, repeats=50):
        times = []
        for _ in range(repeats):
            start = time.process_time()
            function()
            times.append(time.process_time() - start)
        return min(times)

    rng = np.random.default_rng(0)
    rows = 1024
    cells = rng.standard_normal((rows, n_dims), np.float32)
    weights = rng.standard_normal((n_dims, clusters), np.float32)
    S = np.empty((rows, clusters), np.float32)
    large = np.ones((200_000, clusters), np.float32)
    vector = np.ones(clusters, np.float32)
    with threadpool_limits(1, user_api="blas"):
        product = fastest(lambda: [np.matmul(cells, weights, out=S) for _ in range(10)]) / 10
        S[...] = 0.5
        logarithm = fastest(lambda: [np.exp(S, out=S.copy()) for _ in range(10)]) / 10
        copy = fastest(lambda: [S.copy() for _ in range(10)]) / 10
        one_pass = fastest(
            lambda: [large[i : i + rows] @ vector for i in range(0, len(large), rows)], 5
        )
    return {
        "product": 1e9 * product / S.size,
        "exp": 1e9 * max(logarithm - copy, 0) / S.size,
        "pass": 1e9 * one_pass / large.size,
    }


def time_parts(folder: Path, clusters: int) -> dict[str, float]:
    """CPU seconds of the parts of one run on one thread, S kept."""
    sys.path.insert(0, str(WORKFLOW))
    from integration.harmony import algorithm, chunks, harmonize, soft_clusters

    spent: dict[str, float] = {}

    def clock(owner, name, part):
        function = getattr(owner, name)

        def timed(*args, **kwargs):
            start = time.process_time()
            result = function(*args, **kwargs)
            spent[part] = spent.get(part, 0) + time.process_time() - start
            return result

        setattr(owner, name, timed)

    clock(algorithm, "_start_centroids", "k-means")
    clock(chunks, "sort_cells", "sort")
    clock(soft_clusters.SoftClusters, "assign", "first S")
    clock(soft_clusters.SoftClusters, "update", "block updates, regression sums")
    clock(soft_clusters.SoftClusters, "correct_and_assign", "correction, next S")
    clock(soft_clusters.SoftClusters, "corrected_cells", "last correction")
    cells, batches = np.load(folder / "cells.npy"), np.load(folder / "batches.npy")
    start = time.process_time()
    harmonize(
        cells,
        batches,
        threads=1,
        lean=False,
        tol_harmony=None,
        max_iter_harmony=ITERATIONS,
        max_iter_clustering=PASSES,
        n_clusters=clusters,
    )
    spent["everything else"] = time.process_time() - start - sum(spent.values())
    return spent


def parts_table(folder: Path, n_cells: int, n_dims: int, clusters: int) -> list[str]:
    """Each part's CPU time beside what the machine's rates allow."""
    rates, spent = machine_rates(n_dims, clusters), time_parts(folder, clusters)
    per_element = {
        "first S": rates["product"] + rates["exp"] + 2 * rates["pass"],
        "block updates, regression sums": ITERATIONS * (PASSES * rates["pass"] + rates["product"]),
        "correction, next S": (ITERATIONS - 1)
        * (2 * rates["product"] + rates["exp"] + 2 * rates["pass"]),
        "last correction": rates["product"] + rates["pass"],
    }
    lines = [
        f"Parts of the run on {n_cells:,} cells, one thread, CPU seconds, S kept. The limit "
        f"counts products ({rates['product']:.2f} ns per element of S), exp "
        f"({rates['exp']:.2f} ns) and passes over S in memory ({rates['pass']:.2f} ns), each "
        "measured on its own just before.",
        "",
        "| part | seconds | limit | share of the limit |",
        "|---|---|---|---|",
    ]
    for part, seconds in spent.items():
        if part in per_element:
            limit = per_element[part] * n_cells * clusters / 1e9
            lines.append(f"| {part} | {seconds:.2f} | {limit:.2f} | {limit / seconds:.0%} |")
        else:
            lines.append(f"| {part} | {seconds:.2f} | | |")
    return lines


def compare(arguments: argparse.Namespace, folder: Path, n_cells: int) -> list[str]:
    """Run everybody on one size; return the section's lines."""
    make_data(n_cells, arguments.dims, arguments.batches, folder)
    names = list(OURS)
    if arguments.peers_python:
        names += PEERS
    if n_cells > arguments.lean_above:
        names = [OURS[1]]
    lines = [
        f"### {n_cells:,} cells x {arguments.dims}, {arguments.batches} batches, "
        f"K = {arguments.clusters}",
        "",
        "| | threads | seconds | CPU s | brisc / this (CPU) | harmonypy / this (CPU) | peak GB "
        "| iterations | iLISI | cLISI |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    notes = set()
    for threads in arguments.threads:
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(arguments.repeat):
            for name in names:
                figures = measure(name, folder, threads, arguments.clusters, arguments.peers_python)
                runs[name].append(figures)
                print(n_cells, threads, name, figures, file=sys.stderr, flush=True)
        for name in names:
            middle = {
                key: float(np.median([run[key] for run in runs[name]])) for key in runs[name][0]
            }
            ratios = []
            for peer in PEERS:
                if peer not in runs:
                    ratios.append("")
                    continue
                pairs = list(zip(runs[peer], runs[name], strict=True))
                wall, cpu = (
                    np.median([theirs[key] / ours[key] for theirs, ours in pairs])
                    for key in ("seconds", "cpu")
                )
                ratios.append(f"{wall:.1f} ({cpu:.1f})")
            if middle["unit_rows"]:
                notes.add(f"{name} returned rows of unit length, on which its LISI was taken.")
            lines.append(
                f"| {name} | {threads} | {middle['seconds']:.2f} | {middle['cpu']:.2f} | "
                f"{ratios[0]} | {ratios[1]} | {middle['peak']:.2f} | {middle['iterations']:.0f} | "
                f"{middle['ilisi']:.2f} | {middle['clisi']:.2f} |"
            )
    lines += ["", *sorted(notes), ""] if notes else [""]
    if n_cells <= arguments.lean_above:
        lines += [*parts_table(folder, n_cells, arguments.dims, arguments.clusters), ""]
    return lines


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers-python", help="interpreter that has brisc and harmonypy")
    parser.add_argument("--cells", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--dims", type=int, default=50)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--lean-above", type=int, default=2_000_000, help="above so many cells: only ours, lean"
    )
    parser.add_argument("--results", type=Path, default=HERE.parent / "RESULTS.md")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.folder, arguments.threads[0], arguments.clusters)
        return
    lines = [
        "## Harmony",
        "",
        f"{ITERATIONS} iterations of {PASSES} clustering passes, early stopping "
        "off (brisc has no such switch; its tolerance is 1e-12), k-means "
        f"included; median of {arguments.repeat} runs in processes of their own that take turns; "
        f"peak memory of the process, data included. NumPy {np.__version__}, "
        f"{platform.machine()}, {os.cpu_count()} cores. CPU seconds tell more than seconds where "
        "other jobs shared the machine.",
        "",
    ]
    for n_cells in arguments.cells:
        with tempfile.TemporaryDirectory() as folder:
            lines += compare(arguments, Path(folder), n_cells)
    write_section(arguments.results, "harmony", "\n".join(lines))


if __name__ == "__main__":
    main()
