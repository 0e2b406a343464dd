"""What more threads bring to the steps that others wait for, on all genes.

    python test/bench/bench_threads.py --cells 50000 200000 --threads 1 2

draws counts of 30,000 genes, runs the scripts with so many threads each, in turn, and writes a
section of RESULTS.md: seconds, CPU seconds, peak memory, and the serial share from which Amdahl's
law gives what 16 and 64 threads would bring; from two sizes also the share without what every job
takes, such as imports. On a machine with more cores name more threads. Leaves with exit code 1
where the results are not the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench_job import REPO, RESULTS, machine
from data import draw_full_genes
from results_page import write_section

if TYPE_CHECKING:
    from collections.abc import Sequence

WORKFLOW = REPO / "workflow"
# Name, script, input and output; each reads what those before it wrote.
STEPS = [
    ("prepare", "preprocessing/scripts/prepare.py", "counts.h5ad", "prepared.zarr"),
    ("pca", "preprocessing/scripts/pca.py", "prepared.zarr", "pca.zarr"),
]
MORE_THREADS = (16, 64)  # of Amdahl's law

Sizes = dict[str, Any]  # figures of each step, by threads, and the limits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[50_000, 200_000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3, help="Of which the least is taken")
    parser.add_argument("--data", type=Path, nargs="+", help="Use these .h5ad files")
    parser.add_argument("--folder", type=Path, help="Where the data are written")
    args = parser.parse_args()
    sizes: dict[str, Sizes] = {}
    different = set()
    for data in args.data or args.cells:
        with tempfile.TemporaryDirectory(dir=args.folder) as name:
            folder = Path(name)
            if args.data:
                (folder / "counts.h5ad").symlink_to(data.resolve())
            else:
                draw_full_genes(folder / "counts.h5ad", data)
            size = f"{count_cells(folder / 'counts.h5ad'):,} cells"
            sizes[size] = {"limits": call(folder, "limits", [])}
            for step, *files in STEPS:
                sizes[size][step], hashes = measure(folder, *files, args)
                different |= {step} if len(hashes) > 1 else set()
    write_section(RESULTS, "threads", report(sizes, args, sorted(different)))
    if different:
        sys.exit(f"The results depend on the threads: {', '.join(sorted(different))}")


def count_cells(file: Path) -> int:
    import h5py

    with h5py.File(file) as store:
        return store["X/indptr"].shape[0] - 1


def measure(
    folder: Path, script: str, source: str, out: str, args: argparse.Namespace
) -> tuple[dict[int, dict[str, float]], set[str]]:
    """Run a script with each number of threads; return the least of each figure, and hashes."""
    found: dict[int, dict[str, float]] = {}
    hashes = set()
    for _ in range(args.repeats):
        for threads in args.threads:
            words = [folder / source, folder / out, "--overwrite", "--threads", threads]
            run = call(folder, str(WORKFLOW / script), list(map(str, words)))
            hashes.add(digest(folder / out))
            before = found.setdefault(threads, run)
            found[threads] = {key: min(value, before[key]) for key, value in run.items()}
    return found, hashes


def call(folder: Path, task: str, words: Sequence[str]) -> dict[str, float]:
    """Run `work` in a process of its own."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--worker", task, str(folder), *words]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    return {"wall": wall, **json.loads((folder / "figures.json").read_text())}


def work(task: str, name: str, *words: str) -> None:
    """Run a script, or the codecs alone, and write what it took."""
    folder = Path(name)
    if task == "limits":
        figures = codecs_alone(folder)
    else:
        sys.argv = [task, *words]
        runpy.run_path(task, run_name="__main__")
        peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
        figures = {
            "cpu": time.process_time(),
            "main": time.thread_time(),  # what no other thread can do
            "peak": int(peak) / 1024,
        }
    (folder / "figures.json").write_text(json.dumps(figures))


def codecs_alone(folder: Path) -> dict[str, float]:
    """Measure the CPU seconds that the codecs take for all values: the limit of any reader."""
    sys.path[0] = str(WORKFLOW)
    import h5py
    import numpy as np

    from utils.chunks import ZSTD_BITSHUFFLE, zlib

    spent = dict.fromkeys(("inflate", "compress", "decompress"), 0.0)
    with h5py.File(folder / "counts.h5ad") as file:
        for array in (file["X/data"], file["X/indices"]):
            size = array.chunks[0]
            for first in range(0, array.shape[0], size):
                if array.compression == "gzip":
                    raw = array.id.read_direct_chunk((first,))[1]
                    start = time.process_time()
                    zlib.decompress(raw, bufsize=size * array.dtype.itemsize)
                    spent["inflate"] += time.process_time() - start
            for first in range(0, array.shape[0], 1 << 20):
                values = np.asarray(array[first : first + (1 << 20)])
                start = time.process_time()
                raw = ZSTD_BITSHUFFLE.encode(values)
                spent["compress"] += time.process_time() - start
                start = time.process_time()
                ZSTD_BITSHUFFLE.decode(raw)
                spent["decompress"] += time.process_time() - start
    return spent


def digest(store: Path) -> str:
    """Return a hash of all files of a store that are no links."""
    total = hashlib.sha256()
    for path in sorted(store.rglob("*")):
        if path.is_file() and not path.is_symlink():
            total.update(str(path.relative_to(store)).encode() + path.read_bytes())
    return total.hexdigest()


def report(sizes: dict[str, Sizes], args: argparse.Namespace, different: list[str]) -> str:
    lines = [
        "## Threads",
        "",
        f"`make bench-threads`: 30,000 genes, gzip h5ad; {machine()} Least of {args.repeats} runs, "
        "imports included. Codec: CPU seconds that its (de)compression takes alone, on one thread. "
        "Main: CPU seconds of the main thread, with the most threads; no other can take them.",
        "",
        "| step | | threads | seconds | CPU s | codec | main | peak, MB |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    shares = [
        "| step | | serial by CPU | by seconds |"
        + "".join(f" times as fast on {n} |" for n in MORE_THREADS),
        "|---|---|--:|--:|" + "--:|" * len(MORE_THREADS),
    ]
    for step, *_ in STEPS:
        for size, figures in sizes.items():
            limits = figures["limits"]
            codec = {
                "prepare": limits["inflate"] + limits["compress"],
                "pca": 2 * limits["decompress"],
            }.get(step, 0)
            for threads, run in figures[step].items():
                lines.append(
                    f"| {step} | {size} | {threads} | {run['wall']:.1f} | {run['cpu']:.1f} | "
                    f"{codec:.1f} | {run['main']:.1f} | {run['peak']:,.0f} |"
                )
            shares.append(share_row(step, size, figures[step], {}))
        if len(sizes) > 1:
            first, *_, last = (figures[step] for figures in sizes.values())
            shares.append(share_row(step, "each further cell", last, first))
    verdict = f"Different bits: {', '.join(different)}." if different else "The bits are the same."
    return "\n".join([*lines, "", *shares, "", verdict, ""])


def share_row(step: str, size: str, runs: dict[int, dict], less: dict[int, dict]) -> str:
    """Return the serial share of some runs, without that of smaller ones, and what follows."""
    least, most = min(runs), max(runs)

    def figure(threads: int, name: str) -> float:
        return runs[threads][name] - (less[threads][name] if less else 0)

    serial = max(figure(most, "main") / figure(least, "cpu"), 0)
    gain = least / most
    ratio = figure(most, "wall") / figure(least, "wall")
    by_wall = f"{(ratio - gain) / (1 - gain):.0%}" if most > least else ""
    if less:  # differences of seconds tell nothing
        by_wall = ""
    elif os.getloadavg()[0] > 1.5 * os.cpu_count():
        by_wall = "busy"
    speedups = "".join(f" {1 / (serial + (1 - serial) / n):.1f} |" for n in MORE_THREADS)
    return f"| {step} | {size} | {serial:.1%} | {by_wall} |{speedups}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:  # before the options, which are those of a script
        work(*sys.argv[2:])
    else:
        main()
