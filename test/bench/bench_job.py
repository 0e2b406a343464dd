"""The whole job, from a file with counts to an atlas on disk, beside scanpy and brisc by hand.

    python test/bench/bench_job.py --peers-python peers/bin/python
    python test/bench/bench_job.py --grow 50000 200000 1000000
    python test/bench/bench_job.py --components 10000000

The first runs the same job with each tool, one after the other: variable genes, PCA, Harmony,
neighbors, Leiden at 8 resolutions, UMAP, pictures, files. Seconds are of the whole command, start
of Python and of Snakemake included; memory is that of all its processes together, sampled. The
second runs the workflow on synthetic counts of several sizes and reports each step, the third goes
from 50 components to the clusters of level 1. Each writes its section of RESULTS.md.
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
from functools import partial
from pathlib import Path

import numpy as np
from data import GENES, draw_cells, draw_components, repeat_cells
from results_page import write_section

HERE = Path(__file__).resolve()
REPO = HERE.parents[2]
RESULTS = HERE.with_name("RESULTS.md")
REAL = REPO.parent / "shared" / "data" / "liu_covid_10k.h5ad"
SMALL = REPO / "test" / "input" / "liu_mini.h5ad"
RESOLUTIONS = [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.6, 2.0]


# The job by hand, each in an interpreter of its own.


def scanpy_by_hand(file: Path, folder: Path, *, deep: bool = True) -> None:
    """As a careful user writes it."""
    import harmonypy
    import scanpy as sc

    adata = sc.read_h5ad(file)
    adata.layers["counts"] = adata.X.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=2000)
    sc.pp.pca(adata)
    harmony = harmonypy.run_harmony(adata.obsm["X_pca"], adata.obs, "batch", verbose=False)
    corrected = np.asarray(harmony.Z_corr)
    adata.obsm["X_harmony"] = corrected if len(corrected) == adata.n_obs else corrected.T
    sc.pp.neighbors(adata, use_rep="X_harmony")

    def leiden(part, resolution):
        sc.tl.leiden(part, resolution=resolution, flavor="igraph", n_iterations=2, directed=False)
        return part.obs["leiden"].astype(str)

    for resolution in RESOLUTIONS:
        adata.obs[f"leiden_{resolution}_1"] = leiden(adata, resolution)
        for level in (2, 3) if deep else ():
            labels = adata.obs[f"leiden_{resolution}_{level - 1}"].astype(str)
            parents = labels.groupby(labels).groups
            for parent, rows in parents.items():
                part = adata[rows].copy()
                if part.n_obs >= 10:
                    sc.pp.neighbors(part, use_rep="X_harmony")
                    labels[rows] = f"{parent}_" + leiden(part, 0.2)
            adata.obs[f"leiden_{resolution}_{level}"] = labels
    sc.tl.umap(adata)
    save_pictures(adata, folder)
    adata.write_h5ad(folder / "atlas.h5ad")


def save_pictures(adata, folder: Path) -> None:
    """Draw the layout in the colors of every column that we draw."""
    import matplotlib as mpl
    import scanpy as sc

    mpl.use("Agg")
    for column in ["batch", "cell_type", *(f"leiden_{r}_1" for r in RESOLUTIONS)]:
        figure = sc.pl.umap(adata, color=column, show=False, return_fig=True)
        figure.savefig(folder / f"{column}.png", dpi=150, bbox_inches="tight")


def brisc_by_hand(file: Path, folder: Path) -> None:
    """Its own job, without a hierarchy, pictures or an atlas on disk: it has none of these."""
    from brisc import SingleCell

    cells = SingleCell(str(file), num_threads=2).skip_qc()
    cells = cells.hvg(QC_column=None, batch_column="batch", num_genes=2000)
    cells = cells.normalize(QC_column=None).pca(QC_column=None)
    cells = cells.harmonize(batch_column="batch", QC_column=None)
    cells = cells.neighbors(QC_column=None).shared_neighbors(QC_column=None)
    cells = cells.cluster(QC_column=None, resolution=RESOLUTIONS, num_threads=2)
    cells.umap(QC_column=None)


def workflow(
    file: Path,
    folder: Path,
    *,
    hierarchy: object,
    resolutions=RESOLUTIONS,
    more=(),
    stage="preprocessing",
) -> list[str]:
    """Write a config; return the command that runs it."""
    import json

    clustering = {
        "resolutions": resolutions,
        "hierarchy": hierarchy,
        "umap_colors": ["batch", *more] if stage == "preprocessing" else [],
    }
    section = {
        "input": {stage: str(file)},
        **({"integration": {"batch": "batch"}} if stage == "preprocessing" else {}),
        "clustering": clustering,
        # What scanpy and brisc by hand do not do either.
        "evaluation": {"metrics": False, "trees": False},
    }
    config = folder / "config.yaml"
    config.write_text(json.dumps({"DATASETS": {"bench": section}, "output_dir": str(folder)}))
    return [
        *(sys.executable, "-m", "snakemake", "--cores", "2", "--quiet", "all"),
        *("-s", str(REPO / "Snakefile"), "--directory", str(folder), "--configfile", str(config)),
    ]


def timed(command: list[str], log: Path) -> tuple[float, float]:
    """Run a command; return seconds, and the most GB that its processes held together."""
    import psutil

    environment = {**os.environ, "OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"}
    # Of packages pip keeps the bytecode, of a checkout Python does, unless this forbids it.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    most, start = 0, time.perf_counter()
    with log.open("w") as out:
        process = psutil.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        while process.poll() is None:
            held = 0
            for one in [process, *process.children(recursive=True)]:
                try:
                    held += one.memory_info().rss
                except psutil.Error:
                    continue  # it has ended since
            most = max(most, held)
            time.sleep(0.1)
    if process.returncode:
        sys.exit(f"{command}: left with {process.returncode}\n{log.read_text()[-3000:]}")
    return time.perf_counter() - start, most / 1e9


def compare(args: argparse.Namespace) -> str:
    """Run the job with every tool; return the section."""
    source = REAL if REAL.exists() else SMALL
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "counts.h5ad"
        repeat_cells(source, file, args.cells)
        commands = {
            "cellstrata, 8 resolutions x 3 levels": (
                "deep",
                {"hierarchy": [0.2, 0.2], "more": ["cell_type"]},
            ),
            "cellstrata, 8 resolutions": ("flat", {"hierarchy": 1, "more": ["cell_type"]}),
            "scanpy by hand, 8 resolutions x 3 levels": ("scanpy", None),
            "scanpy by hand, 8 resolutions": ("scanpy_flat", None),
            "brisc by hand, 8 resolutions, no files": ("brisc", None),
        }
        for tool, (short, options) in commands.items():
            out = folder / short
            out.mkdir()
            if options:
                command = workflow(file, out, **options)
            else:
                command = [args.peers_python, str(HERE), "--one", short, str(file), str(out)]
            seconds, memory = timed(command, folder / f"{short}.log")
            rows.append((tool, seconds, memory))
            print(f"{tool}: {seconds:.1f} s, {memory:.2f} GB", flush=True)
    # Each is compared with scanpy doing the same number of levels.
    scanpy = {" x 3 levels" in row[0]: row for row in rows if row[0].startswith("scanpy")}
    lines = [
        "## The whole job",
        "",
        f"{machine()} {args.cells:,} cells x 1,000 genes: the real cells of {source.stem}, again "
        "with new Poisson counts. Counts to pictures and an atlas on disk; "
        "seconds of the whole command, memory of all its processes together.",
        "",
        "| | seconds | scanpy / this | peak GB | share of scanpy's |",
        "|---|--:|--:|--:|--:|",
        *(
            f"| {tool} | {seconds:.1f} | {peer[1] / seconds:.1f} | {memory:.2f} | "
            f"{memory / peer[2]:.0%} |"
            for tool, seconds, memory in rows
            for peer in [scanpy[" x 3 levels" in tool]]
        ),
    ]
    return "\n".join(lines)


def grow(args: argparse.Namespace) -> str:
    """Run the workflow on several sizes; return the section."""
    steps: dict[str, dict[int, tuple[float, float]]] = {}
    for n_cells in args.grow:
        with tempfile.TemporaryDirectory(dir=args.folder) as name:
            folder = Path(name)
            draw_cells(folder / "counts.h5ad", n_cells)
            command = workflow(folder / "counts.h5ad", folder, hierarchy=3, resolutions=[1.0])
            seconds, memory = timed(command, folder / "log")
            steps.setdefault("whole job", {})[n_cells] = seconds, memory
            for name, figures in jobs(folder).items():
                steps.setdefault(name, {})[n_cells] = figures
        print({name: found[n_cells] for name, found in steps.items()}, flush=True)
    order = sorted(steps, key=lambda name: -steps[name][max(args.grow)][0])
    lines = [
        "## How the cost grows",
        "",
        f"{machine()} Synthetic counts, {GENES:,} genes, 5 batches, one resolution, three levels: "
        "seconds and peak GB of each job. The exponent is the slope of seconds against cells "
        "between the two largest sizes, on logarithmic axes.",
        "",
        "| step | " + " | ".join(f"{n:,} cells" for n in args.grow) + " | exponent |",
        "|---|" + "--:|" * (len(args.grow) + 1),
    ]
    for name in order:
        cells = [f"{s:.1f} s, {m:.2f} GB" for s, m in (steps[name][n] for n in args.grow)]
        lines.append(f"| {name} | {' | '.join(cells)} | {exponent(steps[name], args.grow)} |")
    draw_growth(steps, order, args.grow)
    return "\n".join([*lines, "", "![seconds of each step against cells](growth.png)"])


def jobs(folder: Path) -> dict[str, tuple[float, float]]:
    """Return seconds and peak GB of each job of a run."""
    found = {}
    for table in (folder / "benchmarks").rglob("*.tsv"):
        names, values = (line.split("\t") for line in table.read_text().split("\n")[:2])
        row = dict(zip(names, values, strict=True))
        figures = float(row["s"]), float(row["max_rss"]) / 1e3
        found[table.stem.replace("_1.0_", ", level ")] = figures
    return found


def from_components(args: argparse.Namespace) -> str:
    """Run the workflow from components to the clusters of level 1; return the section."""
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        draw_components(folder / "components.zarr", args.components)
        command = workflow(
            folder / "components.zarr", folder, hierarchy=1, resolutions=[1.0], stage="clustering"
        )
        target = folder / "bench" / "unintegrated" / "clustering" / "leiden_1.0_1.zarr"
        # Behind --configfile it would be one more config.
        seconds, memory = timed([*command[:3], str(target), *command[3:]], folder / "log")
        steps = {**jobs(folder), "whole job": (seconds, memory)}
        logs = sorted((folder / "logs").rglob("*.log"))
        said = [line for log in logs for line in log.read_text().splitlines()]
    print("\n".join(said))
    lines = [
        "## From components to clusters",
        "",
        f"{machine()} {args.components:,} cells x 50 components on disk: neighbors, Leiden at "
        "one resolution.",
        "",
        "| step | seconds | peak GB |",
        "|---|--:|--:|",
        *(f"| {name} | {s:.0f} | {m:.1f} |" for name, (s, m) in steps.items()),
    ]
    return "\n".join(lines)


def exponent(found: dict[int, tuple[float, float]], sizes: list[int]) -> str:
    if len(sizes) < 2:
        return ""
    (a, b), (s, t) = sizes[-2:], (found[n][0] for n in sizes[-2:])
    return f"{np.log(t / s) / np.log(b / a):.2f}"


def draw_growth(steps: dict, order: list[str], sizes: list[int]) -> None:
    """Draw seconds against cells, both logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for name in order[:9]:
        style = {"color": "black", "lw": 2} if name == "whole job" else {"lw": 1.2}
        axes.loglog(sizes, [steps[name][n][0] for n in sizes], "o-", label=name, **style)
    axes.set(xlabel="cells", ylabel="seconds")
    axes.grid(True, which="both", alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(HERE.with_name("growth.png"), dpi=110)


def machine() -> str:
    load = os.getloadavg()[0]
    today = datetime.date.today()
    return (
        f"{today}, {platform.machine()}, {os.cpu_count()} cores, load {load:.1f} at the end, "
        f"Python {platform.python_version()}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--cells", type=int, default=51_000)
    parser.add_argument("--grow", type=int, nargs="+", help="Sizes to run the workflow on")
    parser.add_argument("--components", type=int, help="Cells of the job from components")
    parser.add_argument("--folder", type=Path, help="Where the data of these two are written")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        tool, file, folder = args.one
        flat = partial(scanpy_by_hand, deep=False)
        run = {"scanpy": scanpy_by_hand, "scanpy_flat": flat, "brisc": brisc_by_hand}[tool]
        run(Path(file), Path(folder))
    elif args.grow:
        write_section(RESULTS, "growth", grow(args))
    elif args.components:
        write_section(RESULTS, "components", from_components(args))
    else:
        write_section(RESULTS, "job", compare(args))


if __name__ == "__main__":
    main()
