"""The memory that every job of a run takes, beside the `mem_mb` that it was granted.

    python test/bench/bench_memory.py --cells 0 50000 200000

Runs every rule but the summary on the demo's data and on synthetic counts of other sizes, reads the
peak of each job's processes from the kernel while they run, and writes a section of RESULTS.md.
Leaves with exit code 1 where a job needs more than it is granted: on a cluster it would be killed.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_job import REPO, RESULTS, machine
from data import GENES, draw_cells
from results_page import write_section

DEMO = REPO / "test" / "input" / "pancreas.h5ad"
# On a cluster a job holds Snakemake itself too, twice: that of the job and that of its step.
SNAKEMAKE_MB = 2 * 130
CORRECT_GENES = 10_000  # cells up to which mnn_correct is for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--cells", type=int, nargs="+", default=[0, 50_000], help="Sizes; 0 is the demo"
    )
    parser.add_argument("--no-vae", action="store_true", help="Without torch, or without patience")
    parser.add_argument("--folder", type=Path, help="Where the data are written")
    args = parser.parse_args()
    found = {}
    for n_cells in args.cells:
        with tempfile.TemporaryDirectory(dir=args.folder) as name:
            folder = Path(name)
            data = DEMO
            if n_cells:
                data = folder / "counts.h5ad"
                draw_cells(data, n_cells)
                add_types(data)
            targets = write_config(folder, data, n_cells=n_cells, vae=not args.no_vae)
            found[n_cells] = measure(folder, targets)
        print(table(found), flush=True)
    over = [
        f"{name}, {size(n_cells)}: {used:.0f} of {granted} MB"
        for n_cells, rows in found.items()
        for name, (used, granted) in rows.items()
        if used + SNAKEMAKE_MB > granted
    ]
    verdict = f"Over: {'; '.join(over)}." if over else "No job is over."
    write_section(
        RESULTS,
        "memory",
        "\n".join(
            [
                "## Memory",
                "",
                f"{machine()} The peak of each job's processes together as the kernel counts it "
                "(of several jobs of a step the one that used the largest share), and the `mem_mb` "
                f"that the rule asks for at the first attempt. Of the latter {SNAKEMAKE_MB} MB are "
                "left to Snakemake itself, which on a cluster runs within the job. The demo: "
                "5,211 pancreas cells. The others: "
                f"synthetic counts, {GENES:,} genes, 5 batches, cell types at random. {verdict}",
                "",
                table(found),
            ]
        ),
    )
    sys.exit("\n".join(over) or None)


def add_types(file: Path) -> None:
    """Add cell types, drawn at random: the scores' memory does not depend on what they say."""
    import anndata
    import pandas as pd

    cells = anndata.read_h5ad(file)
    types = np.random.default_rng(1).integers(0, 20, cells.n_obs).astype(str)
    cells.obs["cell_type"] = pd.Categorical(types)
    cells.write_h5ad(file)


def write_config(folder: Path, data: Path, *, n_cells: int, vae: bool) -> list[str]:
    """Write a config; return what to make of it.

    One data set with everything that can be asked for of clusters, few rounds; one for what the
    other methods compute, in one epoch where they have epochs.
    """
    methods = {"mnn": {}, "fast_mnn": {}, "topics": {}}
    if n_cells <= CORRECT_GENES:
        methods["mnn_correct"] = {"n_comps": 30}
    if vae:
        methods |= {name: {"max_epochs": 1} for name in ("pvae", "gmvae", "scvi")}
    start = {
        "input": {"preprocessing": str(data)},
        "preprocessing": {"batch_key": "batch"},
    }
    whole = {
        **start,
        "integration": {"batch": "batch"},
        "clustering": {
            "algorithm": ["leiden", "louvain"],
            "resolutions": [0.5],
            "hierarchy": [{}, {"refine": "pca"}, {"refine": "integration"}],
            "umap_colors": ["batch", "cell_type"],
        },
        "evaluation": {"label": "cell_type", "n_markers": 20, "rounds": 2},
    }
    others = {**start, "integration": {"batch": "batch", "methods": methods}}
    config = {"DATASETS": {"whole": whole, "others": others}}
    (folder / "config.yaml").write_text(json.dumps(config))
    ends = ["comparison", "explorer.html", "harmony/plots", "harmony/splits.tsv", "harmony/trees"]
    return [
        *(f"results/whole/{end}" for end in ends),
        *(f"results/others/{method}/embedding.zarr" for method in methods),
    ]


def measure(folder: Path, targets: list[str]) -> dict[str, tuple[float, int]]:
    """Run the workflow; return MB used and granted by step."""
    import psutil

    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--quiet", "all"]
    command += ["--benchmark-extended", "--snakefile", str(REPO / "Snakefile")]
    command += ["--directory", str(folder), "--configfile", str(folder / "config.yaml")]
    peaks: dict[str, float] = {}
    log = folder / "log"
    with log.open("w") as out:
        process = psutil.Popen([*command, "--", *targets], stdout=out, stderr=subprocess.STDOUT)
        while process.poll() is None:
            for name, held in held_by_jobs(process).items():
                peaks[name] = max(peaks.get(name, 0), held)
            time.sleep(0.05)
    if process.returncode:
        sys.exit(f"left with {process.returncode}\n{log.read_text()[-3000:]}")
    return by_step(folder / "results", peaks)


def held_by_jobs(snakemake) -> dict[str, float]:
    """Return the MB that each running job has held, by the name of its log."""
    import psutil

    found: dict[str, float] = {}
    for shell in snakemake.children(recursive=True):
        try:
            words = " ".join(shell.cmdline())
            named = re.search(r"\| tee (\S*|'[^']*') >&2$", words)
            if named and "python" not in Path(shell.exe()).name:
                log = shlex.split(named[1])[0]
                parts = [shell, *shell.children(recursive=True)]
                found[log] = max(found.get(log, 0), sum(peak_mb(part.pid) for part in parts))
        except psutil.Error:
            continue  # it has ended since
    return found


def peak_mb(pid: int) -> float:
    """Return the most that a process has held, as the kernel counts it; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(peak[1]) / 1024 if peak else 0


def by_step(results: Path, peaks: dict[str, float]) -> dict[str, tuple[float, int]]:
    """Bring used and granted together; of each step the job that used the largest share."""
    found: dict[str, tuple[float, int]] = {}
    for path in sorted((results / "benchmarks").rglob("*.tsv")):
        header, row = (line.split("\t") for line in path.read_text().splitlines()[:2])
        job = dict(zip(header, row, strict=True))
        log = results / "logs" / path.relative_to(results / "benchmarks").with_suffix(".log")
        used = peaks.get(str(log.relative_to(results.parent)), 0)
        granted = int(re.search(r"['\"]?mem_mb['\"]?[:=] ?(\d+)", job["resources"])[1])
        name = step_name(job, path)
        if name not in found or used / granted > found[name][0] / found[name][1]:
            found[name] = used, granted
    return found


def step_name(job: dict[str, str], path: Path) -> str:
    """Name a step: the rule, with the method where each has a script or options of its own."""
    if job["rule_name"] in ("vae", "mnn"):
        return path.parent.name
    if job["rule_name"] in ("clustering", "subclustering"):
        how = {"3": ", own components", "4": ", own integration"}.get(path.stem[-1], "")
        return f"{job['rule_name']}, {path.stem.split('_')[0]}{how}"
    return job["rule_name"]


def size(n_cells: int) -> str:
    return f"{n_cells:,} cells" if n_cells else "demo"


def table(found: dict[int, dict[str, tuple[float, int]]]) -> str:
    """Write used / granted of every step and size; steps over are marked."""
    names = sorted({name for rows in found.values() for name in rows})
    lines = [
        f"| step | {' | '.join(map(size, found))} |",
        "|---|" + "--:|" * len(found),
    ]
    for name in names:
        cells = []
        for rows in found.values():
            used, granted = rows.get(name, (0, 0))
            mark = " **over**" if used + SNAKEMAKE_MB > granted else ""
            cells.append(f"{used:,.0f} / {granted:,}{mark}" if used else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
