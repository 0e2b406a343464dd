"""Topic models, side by side with scikit-learn's multiplicative updates: time, fit, memory.

    python test/bench/bench_topics.py --peers-python ~/peers/bin/python

draws counts of ten topics and fits ten with each tool, in processes of their own. scikit-learn runs
a fixed number of iterations; ours runs until its deviance is no higher, and again with its
defaults. Times include loading the compiled code; compiling it, once per installation, is timed
apart. Imports are not counted. The table goes into ``RESULTS.md``.
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
import warnings
from pathlib import Path

from results_page import write_section

HERE = Path(__file__).resolve().parent
N_TOPICS = 10
CASES = ("3000x2000x2300", "3000x2000x190", "100000x2000x190")
LADDER = (6, 8, 10, 12, 15, 18, 22, 26, 30, 40, 60, 80, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--cases", nargs="+", default=CASES, help="cells x genes x mean counts per cell"
    )
    parser.add_argument("--iterations", type=int, default=50, help="of scikit-learn")
    parser.add_argument("--peers-python", default=sys.executable, help="that has scikit-learn")
    parser.add_argument("--results", type=Path, default=HERE / "RESULTS.md")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--target", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        figures = {"draw": draw, "ours": ours, "compile": ours, "sklearn": sklearn}[args.worker](
            args
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**figures, "peak_mb": peak}))
        return
    lines = []
    for case in args.cases:
        with tempfile.TemporaryDirectory() as folder:
            lines += compare(args, case, Path(folder))
    write_section(args.results, "topics", "\n".join([*heading(args), *lines]).rstrip())


def compare(args: argparse.Namespace, case: str, folder: Path) -> list[str]:
    """Run both on one data set; return the lines of the table."""
    file = folder / "counts.npz"

    def run(worker: str, **options: object) -> dict:
        python = args.peers_python if worker == "sklearn" else sys.executable
        words = ["--worker", worker, "--file", file, "--cases", case]
        words += ["--iterations", args.iterations]
        for name, value in options.items():
            words += [f"--{name}", value]
        environment = dict(os.environ)
        if worker == "compile":
            environment["NUMBA_CACHE_DIR"] = str(folder / "cache")
        command = [str(word) for word in (python, __file__, *words)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout.decode().strip().split("\n")[-1])

    drawn = run("draw")
    cells, genes, _ = case.split("x")
    name = f"{int(cells):,} x {int(genes):,}, {drawn['density']:.1%} not zero"
    peer = run("sklearn")
    lines = [row(name, "scikit-learn, 1 thread", peer, peer)]
    reached = run("ours", target=peer["deviance"])
    lines.append(row(name, "cellstrata, 1 thread, to that deviance", reached, peer))
    for threads in (1, 2):
        found = run("ours", threads=threads)
        lines.append(row(name, f"cellstrata, {threads} thread{'s' * (threads > 1)}", found, peer))
    if case == args.cases[-1]:
        compiled = run("compile")
        lines += [
            "",
            f"Compiling, once per installation: {compiled['first']:.1f} s; "
            f"loading what was compiled: {reached['first']:.1f} s.",
        ]
    print("\n".join(lines), flush=True)
    return lines


def row(name: str, tool: str, figures: dict, peer: dict) -> str:
    """Write a line of the table."""
    ratio = peer["seconds"] / figures["seconds"]
    return (
        f"| {name} | {tool} | {figures['iterations']} | {figures['seconds']:.2f} | {ratio:.1f} | "
        f"{figures['deviance']:,.0f} | {figures['peak_mb']:,.0f} |"
    )


def draw(args: argparse.Namespace) -> dict:
    """Draw counts of ten topics whose genes differ in abundance."""
    import numpy as np
    import scipy.sparse as sp

    cells, genes, total = map(int, args.cases[0].split("x"))
    rng = np.random.default_rng(0)
    topics = rng.gamma(0.3, 1, (genes, N_TOPICS)) * rng.lognormal(0, 1, (genes, 1))
    topics /= topics.sum(axis=0)
    parts = []
    for start in range(0, cells, 5000):
        n = min(5000, cells - start)
        weights = rng.dirichlet(np.full(N_TOPICS, 0.2), n)
        rates = (weights * total * rng.lognormal(-0.08, 0.4, (n, 1))) @ topics.T
        parts.append(sp.csr_matrix(rng.poisson(rates).astype(np.float32)))
    matrix = sp.vstack(parts, format="csr")
    sp.save_npz(args.file, matrix, compressed=False)
    return {"density": matrix.nnz / (cells * genes)}


def ours(args: argparse.Namespace) -> dict:
    """Fit with the defaults, or with as few iterations as reach the target."""
    sys.path[0] = str(HERE.parents[1] / "workflow")
    warnings.simplefilter("ignore")
    import scipy.sparse as sp

    from integration.topics import poisson_nmf

    counts = sp.load_npz(args.file)
    begin = time.perf_counter()
    poisson_nmf(counts[:50], 2, max_iter=1, n_em=0)
    first = time.perf_counter() - begin
    if args.worker == "compile":
        return {"first": first}
    for max_iter in LADDER if args.target else (100,):
        begin = time.perf_counter()
        model = poisson_nmf(counts, N_TOPICS, max_iter=max_iter, threads=args.threads)
        seconds = time.perf_counter() - begin + first
        if args.target is None or model.deviance <= args.target:
            break
    figures = {"seconds": seconds, "deviance": model.deviance, "iterations": model.n_iterations}
    return {**figures, "first": first}


def sklearn(args: argparse.Namespace) -> dict:
    """Fit with scikit-learn's multiplicative updates from a random start."""
    warnings.simplefilter("ignore")  # of the peer, in its own process
    import scipy.sparse as sp
    from sklearn.decomposition import NMF

    counts = sp.load_npz(args.file)
    begin = time.perf_counter()
    model = NMF(
        N_TOPICS,
        init="random",
        solver="mu",
        beta_loss="kullback-leibler",
        max_iter=args.iterations,
        tol=0,
        random_state=0,
    ).fit(counts)
    seconds = time.perf_counter() - begin
    deviance = model.reconstruction_err_**2
    return {"seconds": seconds, "deviance": deviance, "iterations": model.n_iter_}


def heading(args: argparse.Namespace) -> list[str]:
    """Write what stands above the table."""
    import numpy as np

    return [
        "## Topic models",
        "",
        f"Ten topics. scikit-learn: `NMF(solver='mu', beta_loss='kullback-leibler')`, "
        f"{args.iterations} iterations from a random start. Seconds include loading the compiled "
        f"code; peak memory is that of the process, data included. NumPy {np.__version__}, "
        f"{platform.machine()}, {os.cpu_count()} cores.",
        "",
        "| cells x genes | | iterations | seconds | times faster | deviance | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]


if __name__ == "__main__":
    main()
