"""Counts to principal components, side by side with scanpy: time, peak memory, agreement.

    python test/bench/bench_pca.py --peers-python ~/peers/bin/python

draws counts of so many cells x genes, writes them as .h5ad, selects genes and computes components
with each tool in a process of its own, and puts the table into ``RESULTS.md``. Ours reads the file
in blocks, twice; scanpy reads it once, into memory. Imports are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results_page import write_section

HERE = Path(__file__).resolve().parent
TOOLS = {
    "ours": "cellstrata",
    "arpack": "scanpy, arpack",
    "covariance_eigh": "scanpy, covariance_eigh",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[200_000])
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--counts", type=float, default=235, help="Mean counts per cell")
    parser.add_argument("--n_comps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers-python", default=sys.executable, help="Python that has scanpy")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument(
        "--most-cells", type=int, default=500_000, help="Run scanpy up to so many cells"
    )
    parser.add_argument("--results", type=Path, default=HERE / "RESULTS.md")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args)
        return
    sections = []
    for cells in args.cells:
        with tempfile.TemporaryDirectory() as folder:
            rows = compare(args, cells, Path(folder))
        sections.append(section(args, cells, rows))
        print(sections[-1], flush=True)
    text = "\n".join(["## Counts to principal components", "", *sections])
    write_section(args.results, "pca", text)


def compare(args: argparse.Namespace, cells: int, folder: Path) -> dict[str, dict]:
    """Draw the data and run every tool on them, each in a process of its own."""
    environment = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        environment[name] = str(args.threads)
    rows = {}
    for tool in ["draw", *args.tools]:
        if tool in TOOLS and tool != "ours" and cells > args.most_cells:
            continue
        python = sys.executable if tool in ("draw", "ours") else args.peers_python
        command = [python, __file__, "--worker", tool, "--folder", folder, "--cells", cells]
        for name in ("genes", "counts", "n_comps", "threads"):
            command += [f"--{name}", getattr(args, name)]
        done = subprocess.run(
            [str(part) for part in command], env=environment, stdout=subprocess.PIPE, check=True
        )
        rows[tool] = json.loads(done.stdout.decode().strip().split("\n")[-1])
    return rows


def work(args: argparse.Namespace) -> None:
    """Run one tool in this process and print its figures as JSON."""
    file = args.folder / "counts.h5ad"
    run = {"draw": draw, "ours": ours}.get(args.worker, peer)
    figures = run(file, args)
    print(json.dumps({**figures, "peak_mb": peak_mb()}))


def draw(file: Path, args: argparse.Namespace) -> dict[str, float]:
    """Draw counts of 20 cell types and mixtures of two; write them without compression."""
    import anndata
    import numpy as np
    import scipy.sparse as sp

    rng = np.random.default_rng(0)
    profiles = rng.gamma(0.4, 1, args.genes) * rng.gamma(0.35, 1, (20, args.genes))
    profiles /= profiles.sum(axis=1, keepdims=True)
    parts = []
    for start in range(0, args.cells[0], 8192):
        n = min(8192, args.cells[0] - start)
        share = rng.dirichlet([0.3, 0.3], n)
        rate = sum(profiles[rng.integers(0, 20, n)] * share[:, [i]] for i in (0, 1))
        rate *= rng.lognormal(np.log(args.counts) - 0.08, 0.4, (n, 1))
        parts.append(sp.csr_matrix(rng.poisson(rate).astype(np.float32)))
    matrix = sp.vstack(parts, format="csr")
    anndata.AnnData(matrix).write_h5ad(file)
    return {"density": matrix.nnz / np.prod(matrix.shape, dtype=float)}


def ours(file: Path, args: argparse.Namespace) -> dict[str, float]:
    """Select genes and compute components and scores from the file, in two passes."""
    sys.path[0] = str(HERE.parents[1] / "workflow")
    import h5py
    import numpy as np
    import pandas  # noqa: F401 (imported before the clock starts)

    from preprocessing.expression import BlockFile, ExpressionReader
    from preprocessing.hvg import highly_variable_genes
    from preprocessing.pca import gram_pca, pca_scores

    with h5py.File(file) as store, tempfile.TemporaryFile(dir=file.parent) as scratch:
        reader = ExpressionReader(store["X"], normalize=True, target_sum=1e4, threads=args.threads)
        values = BlockFile(scratch)
        clock = Clock()
        genes = highly_variable_genes(
            lambda: reader.blocks("genes", rows=reader.small),
            args.genes,
            n_top_genes=args.genes // 2,
            threads=args.threads,
        )
        hvg = clock.lap()
        found = gram_pca(
            lambda: values.write(reader.blocks("products")),
            n_comps=args.n_comps,
            threads=args.threads,
        )
        scores = np.empty((args.cells[0], args.n_comps), dtype=np.float32)
        start = 0
        for part in pca_scores(values.read, found.components, found.mean):
            scores[start : start + len(part)] = part
            start += len(part)
        pca = clock.lap()
    variable = genes["highly_variable"].to_numpy()
    return {
        "read": 0,
        "hvg": hvg,
        "pca": pca,
        **agreement(args, variable, found.components, found.variance),
    }


def peer(file: Path, args: argparse.Namespace) -> dict[str, float]:
    """Do the same with scanpy, in memory; its compiled parts run once on a few cells before."""
    import warnings

    import anndata
    import scanpy as sc

    warnings.simplefilter("ignore")  # of the peer, in its own process

    def prepare(data):
        sc.pp.normalize_total(data, target_sum=1e4)
        sc.pp.log1p(data)
        return data

    few = prepare(anndata.read_h5ad(file, backed="r")[:200].to_memory())
    sc.pp.highly_variable_genes(few, n_top_genes=args.genes // 2)
    clock = Clock()
    data = prepare(anndata.read_h5ad(file))
    read = clock.lap()
    sc.pp.highly_variable_genes(data, n_top_genes=args.genes // 2)
    hvg = clock.lap()
    sc.pp.pca(data, n_comps=args.n_comps, svd_solver=args.worker, mask_var=None)
    pca = clock.lap()
    variable = data.var["highly_variable"].to_numpy()
    found = agreement(args, variable, data.varm["PCs"], data.uns["pca"]["variance"])
    return {"read": read, "hvg": hvg, "pca": pca, **found}


class Clock:
    """Seconds since the last lap."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        seconds, self.start = now - self.start, now
        return seconds


def agreement(args: argparse.Namespace, variable, components, variance) -> dict[str, float]:
    """Keep what a tool found; compare it with what we found, where we ran before."""
    import numpy as np

    ours = args.folder / "ours.npz"
    basis = np.linalg.qr(components.astype(float))[0]
    if args.worker == "ours":
        np.savez(ours, variable=variable, basis=basis, variance=variance)
    if not ours.exists():
        return {}
    first = np.load(ours)
    return {
        "cosine": float(np.linalg.svd(first["basis"].T @ basis)[1].min()),
        "variance": float(np.abs(first["variance"] / variance - 1).max()),
        "genes": float((first["variable"] & variable).sum() / variable.sum()),
    }


def peak_mb() -> float:
    """Peak resident memory of this process (Linux; elsewhere what getrusage says)."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def section(args: argparse.Namespace, cells: int, rows: dict[str, dict]) -> str:
    """Write the figures of one number of cells as a table."""
    lines = [
        f"{cells:,} cells x {args.genes:,} genes, {rows['draw']['density']:.1%} non-zero; "
        f"{args.n_comps} components, {args.threads} threads, {platform.machine()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}.",
        "",
        "| tool | read, normalize, s | variable genes, s | components, scores, s | in all, s "
        "| peak, MB | smallest cosine | variances differ by | genes in common |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for tool in (name for name in TOOLS if name in rows):
        row = rows[tool]
        read = "in each pass" if tool == "ours" else f"{row['read']:.1f}"
        whole = row["read"] + row["hvg"] + row["pca"]
        line = f"| {TOOLS[tool]} | {read} | {row['hvg']:.1f} | {row['pca']:.1f} | {whole:.1f} "
        line += f"| {row['peak_mb']:,.0f} |"
        if tool == "ours" or "cosine" not in row:
            line += " | | |"
        else:
            line += f" {row['cosine']:.6f} | {row['variance']:.0e} | {row['genes']:.1%} |"
        lines.append(line)
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
