"""Markers of clusters and sub-clusters, side by side with scanpy and illico.

    python test/bench/bench_markers.py --peers-python peers/bin/python

draws counts of 30,000 genes, writes them as .h5ad (gzip), and finds the 20 best genes of 8 lineages
and of the types within each, with each tool in processes of its own: the file is read, counts are
normalized, tested, and a table is written. Ours alone then does six columns of three levels, at the
size that the peers cannot hold. Writes its section of ``RESULTS.md``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from bench_job import REPO, RESULTS, machine
from data import draw_full_genes
from results_page import write_section

SCRIPT = REPO / "workflow" / "evaluation" / "scripts" / "markers.py"
N_MARKERS = 20
LEVELS = ["leiden_1.0_1", "leiden_1.0_2"]  # as the script knows levels by their names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, default=20_000, help="beside the peers")
    parser.add_argument("--cells-alone", type=int, default=200_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--folder", type=Path, help="Where the data are written")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--worker", choices=["scanpy", "illico"], help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(by_hand(args)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        few, file = folder / "few.h5ad", folder / "cells.h5ad"
        for path, n_cells in ((few, 500), (file, args.cells)):
            draw_full_genes(path, n_cells)
            add_levels(path, resolutions=[1.0], n_levels=2)
        rows = {tool: [] for tool in ("cellstrata", "illico", "scanpy")}
        for repeat in range(-1, args.repeats):  # the first one compiles
            for tool, runs in rows.items():
                found = run(tool, args, few if repeat < 0 else file, folder / f"{tool}.tsv")
                if repeat >= 0:
                    runs.append(found)
        lines = [*beside(args, rows, folder), ""]
        file.unlink()
        draw_full_genes(file, args.cells_alone)
        n_clusters = add_levels(file, resolutions=[0.5, 1.0], n_levels=3)
        alone = run("cellstrata", args, file, folder / "alone.tsv", columns=["leiden_*"])
    lines.append(
        f"This alone, {args.cells_alone:,} cells, six columns of three levels with {n_clusters} "
        f"clusters: {alone['cpu']:.0f} CPU s, {alone['seconds']:.0f} s, {alone['gb']:.2f} GB."
    )
    print("\n".join(lines))
    write_section(args.results, "markers", "\n".join(lines))


def add_levels(file: Path, *, resolutions: list[float], n_levels: int) -> int:
    """Add cluster columns: lineages, types, parts of types at random; return their clusters."""
    import anndata
    import h5py
    import pandas as pd

    rng = np.random.default_rng(1)
    n_clusters = 0
    with h5py.File(file, "r+") as store:
        obs = anndata.io.read_elem(store["obs"])
        for i, resolution in enumerate(resolutions):
            labels = (
                obs["lineage"] if i == 0 else obs["cell_type"].str.replace("_", "")
            ).to_numpy()
            for level in range(1, n_levels + 1):
                obs[f"leiden_{resolution}_{level}"] = pd.Categorical(labels)
                n_clusters += len(set(labels))
                parts = rng.integers(0, 3, len(labels)).astype(str)
                if i == 0 and level == 1:
                    parts = obs["cell_type"].str.split("_").str[1].to_numpy()
                labels = np.array([f"{a}_{b}" for a, b in zip(labels, parts, strict=True)])
        del store["obs"]
        anndata.io.write_elem(store, "obs", obs)
    return n_clusters


def run(tool: str, args, file: Path, out: Path, columns=LEVELS) -> dict[str, float]:
    """Run a tool in a process of its own; return its seconds, CPU seconds, memory and more."""
    words = [sys.executable, SCRIPT, file, out, "--clusters", *columns]
    words += ["--n_markers", N_MARKERS, "--threads", args.threads]
    if tool != "cellstrata":
        words = [args.peers_python, __file__, "--worker", tool, "--file", file, "--out", out]
        words += ["--threads", args.threads]
    environment = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        environment[name] = str(args.threads)
    begin = time.perf_counter()
    process = subprocess.Popen([*map(str, words)], env=environment, stdout=subprocess.PIPE)
    output = process.stdout.read().decode().strip()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        sys.exit(f"{tool} left with {process.returncode}")
    return {
        "seconds": time.perf_counter() - begin,
        "cpu": usage.ru_utime + usage.ru_stime,
        "gb": usage.ru_maxrss / 1e6,
        **(json.loads(output.splitlines()[-1]) if output else {}),
    }


def by_hand(args) -> dict[str, float | str]:
    """Do with a peer, in memory, what our script does; every parent is a call of its own."""
    import warnings

    import anndata
    import pandas as pd
    import scanpy as sc

    warnings.simplefilter("ignore")
    adata = anndata.read_h5ad(args.file)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    begin = time.process_time()
    parts = [(LEVELS[0], adata)]
    for parent in adata.obs[LEVELS[0]].cat.categories:
        parts.append((LEVELS[1], adata[adata.obs[LEVELS[0]] == parent].copy()))
    tables = []
    for column, part in parts:
        part.obs[column] = part.obs[column].cat.remove_unused_categories()
        if args.worker == "scanpy":
            sc.tl.rank_genes_groups(part, column, method="wilcoxon", tie_correct=True, pts=True)
        else:
            from illico import asymptotic_wilcoxon

            part.uns["rank_genes_groups"] = asymptotic_wilcoxon(
                part, is_log1p=True, group_keys=column, n_threads=args.threads, tie_correct=True,
                use_continuity=False, exp_post_agg=True, return_as_scanpy=True,
            )  # fmt: skip
        result = part.uns["rank_genes_groups"]
        for cluster in part.obs[column].cat.categories:
            table = {"gene": result["names"][cluster], "score": result["scores"][cluster]}
            table = pd.DataFrame(table).head(N_MARKERS)
            tables.append(table.assign(column=column, cluster=cluster))
    cpu = time.process_time() - begin
    pd.concat(tables).to_csv(args.out, sep="\t", index=False)
    return {"test": cpu, "version": version(args.worker)}


def beside(args, rows: dict[str, list[dict]], folder: Path) -> list[str]:
    """Write the table of all tools."""
    import pandas as pd

    tables = {
        tool: pd.read_csv(folder / f"{tool}.tsv", sep="\t", dtype={"cluster": str}) for tool in rows
    }
    keys = ["column", "cluster", "gene"]
    lines = [
        "## Markers",
        "",
        f"{machine()} {args.cells:,} cells x 30,000 genes, counts in a gzip h5ad; the {N_MARKERS} "
        "best genes of 8 lineages, and of 5 types within each, corrected for ties. Whole commands: "
        "read, normalize, test, write a table; of the peers the test alone, too (ours is not apart "
        f"from reading). Compiled before; {args.threads} threads; the median of {args.repeats} "
        "runs. Genes in common with the first row, and the largest relative difference of scores, "
        "of which our table has five digits.",
        "",
        "| | version | CPU s | test, CPU s | seconds | peak GB | genes in common | difference |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for tool, runs in rows.items():
        middle = {name: np.median([row[name] for row in runs]) for name in ("cpu", "seconds", "gb")}
        both = tables["cellstrata"].merge(tables[tool], on=keys, suffixes=("", "_other"))
        share = len(both) / len(tables["cellstrata"])
        difference = np.abs(both["score"] - both["score_other"]) / np.abs(both["score"])
        test = f"{np.median([row['test'] for row in runs]):.1f}" if "test" in runs[0] else ""
        name = runs[0].get("version", datetime.date.today().isoformat())
        lines.append(
            f"| {tool} | {name} | {middle['cpu']:.1f} | {test} | {middle['seconds']:.1f} | "
            f"{middle['gb']:.2f} | {share:.1%} | {difference.max():.0e} |"
        )
    return lines


if __name__ == "__main__":
    main()
