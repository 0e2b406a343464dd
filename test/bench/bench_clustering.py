"""Time, memory and quality of neighbors, communities, sub-clustering and layout beside peers.

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
from results_page import write_section
from subjects import CELLS, PEERS, STAGES, K, subjects, weights_of

HERE = Path(__file__).resolve()
WORKFLOW = HERE.parents[2] / "workflow"
RESULTS = HERE.with_name("RESULTS.md")


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


def true_neighbors(X: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the nearest neighbors of some rows, by comparing them with all."""
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
    from sklearn.metrics import adjusted_rand_score

    from clustering.communities import modularity
    from numerics.knn import nearest_neighbors

    if "indices" in result:
        sample = np.sort(np.random.default_rng(1).choice(len(data["X"]), 1000, replace=False))
        truth = true_neighbors(data["X"], sample)
        return f"recall {shared(truth, result['indices'][sample]):.4f}"
    if stage.startswith("communities"):
        labels = result["labels"]
        agreement = adjusted_rand_score(data["groups"], labels)
        value = modularity(weights_of(data), labels)
        return f"Q {value:.4f}, {len(np.unique(labels))} clusters, ARI with groups {agreement:.2f}"
    if "labels" in result:
        return f"{len(np.unique(result['labels']))} children"
    if "layout" in result:
        near = nearest_neighbors(result["layout"].astype(np.float32), K).indices
        return f"{shared(data['indices'], near):.3f} of neighbors kept"
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
    """Write the cells, their neighbors and their graph."""
    from clustering.connectivities import fuzzy_connectivities
    from numerics.knn import nearest_neighbors

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
    modules = ("numerics.knn", "clustering.connectivities", "clustering.communities",
               "clustering.hierarchy", "clustering.umap", "scipy.sparse", "pandas",
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
        "## Neighbors, communities, sub-clustering, layout",
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
    write_section(RESULTS, "clustering", "\n".join(lines))


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
