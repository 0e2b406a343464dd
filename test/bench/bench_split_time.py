"""What the test of splits adds to clustering, on all genes.

    python test/bench/bench_split_time.py --cells 200000

draws counts of 30,000 genes, runs the workflow up to the neighbors, and then the clustering of
levels 1 and 2 with and without the test, in turn; writes a section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_job import REPO, RESULTS, machine
from data import draw_full_genes
from results_page import write_section

SCRIPT = REPO / "workflow" / "clustering" / "scripts" / "clustering.py"
TEST = ["--significance", "0.05", "--batch", "batch"]
CONFIG = """output_dir: {folder}/out
DATASETS:
  cells:
    input: {{preprocessing: {data}}}
    integration: {{batch: batch, methods: {{harmony: }}}}
    clustering: {{resolutions: [1.0]}}
    evaluation: {{trees: false, metrics: false}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[200_000])
    parser.add_argument("--data", type=Path, nargs="+", help="Use these .h5ad files")
    parser.add_argument("--repeats", type=int, default=3, help="Of which the least is taken")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="Where the data are written")
    args = parser.parse_args()
    rows = []
    for data in args.data or args.cells:
        with tempfile.TemporaryDirectory(dir=args.folder) as name:
            folder = Path(name)
            if not args.data:
                draw_full_genes(folder / "counts.h5ad", data)
            file = data.resolve() if args.data else folder / "counts.h5ad"
            rows += measure(folder, file, args)
            print("\n".join(rows), flush=True)
    lines = [
        "## Time of tested splits",
        "",
        f"{machine()} {args.threads} threads; runs in turn: {args.repeats}, the least of each "
        "figure. Counts of 30,000 genes, about 1,500 values a cell; Harmony, Leiden at 1.0. CPU "
        "seconds and peak memory of the whole job, imports included. Level 1 starts from the "
        "neighbors, level 2 finds those within each parent.",
        "",
        "| cells | level | clusters above | CPU s | with the test | ratio | s | with the test "
        "| MB | with the test |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *rows,
    ]
    write_section(RESULTS, "split_time", "\n".join(lines))


def measure(folder: Path, data: Path, args: argparse.Namespace) -> list[str]:
    """Return a row of the table for each level."""
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(folder=folder, data=data))
    method = folder / "out" / "cells" / "harmony"
    first = method / "clustering" / "leiden_1.0_1.zarr"
    snakemake = [sys.executable, "-m", "snakemake", "--cores", "2", "-q", "all", "--nolock"]
    command = [*snakemake, "--configfile", str(config), "--", str(first)]
    subprocess.run(command, check=True, cwd=REPO)
    parents, n_cells = count_clusters(first)
    within = ["--given_file", str(method / "neighbors.zarr")]
    within += ["--neighbors_args", '{"use_rep": "X_harmony"}']
    rows = []
    for level, source, words, n_parents in (
        (1, method / "neighbors.zarr", [], 1),
        (2, first, within, parents),
    ):
        line = [sys.executable, str(SCRIPT), str(source), str(folder / "out.zarr"), "--overwrite"]
        line += ["--level", str(level), "--resolution", "1.0", "--threads", str(args.threads)]
        figures: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
        for _ in range(args.repeats):
            for tested in (False, True):
                figures[tested].append(timed([*line, *words, *(TEST if tested else [])]))
        plain, tested = (
            [min(column) for column in zip(*runs, strict=True)] for runs in figures.values()
        )
        rows.append(
            f"| {n_cells:,} | {level} | {n_parents} | {plain[0]:.1f} | {tested[0]:.1f} "
            f"| {tested[0] / plain[0]:.1f} | {plain[1]:.1f} | {tested[1]:.1f} "
            f"| {plain[2]:,.0f} | {tested[2]:,.0f} |"
        )
    return rows


def timed(command: list[str]) -> tuple[float, float, float]:
    """Run a command; return its CPU seconds, its seconds and its peak memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
    seconds = time.perf_counter() - start
    return usage.ru_utime + usage.ru_stime, seconds, usage.ru_maxrss / 1024


def count_clusters(store: Path) -> tuple[int, int]:
    """Return the numbers of clusters and of cells."""
    sys.path[:0] = [str(REPO / "workflow")]
    from clustering.stores import read_clusters
    from utils.io import open_store

    codes, names = read_clusters(open_store(str(store)), "leiden_1.0_1")
    return len(names), len(codes)


if __name__ == "__main__":
    main()
