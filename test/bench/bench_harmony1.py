"""The first Harmony against harmonypy 0.0.10: mixing of batches and types over five seeds.

    python test/bench/bench_harmony1.py --peers-python /path/to/python

The peer's environment needs ``harmonypy==0.0.10`` (envs/peers-harmony1.txt). Both run with
harmonypy's theta of 1. Writes its section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from results_page import write_section

HERE = Path(__file__).resolve()
REPO = HERE.parents[2]
FIXTURE = REPO / "test" / "fixtures" / "harmony" / "pancreas_5studies_r2.npz"
SEEDS = range(5)


def lisi(cells: np.ndarray, labels: np.ndarray, k: int = 30) -> float:
    """Return the mean inverse Simpson index of the labels of the k nearest cells."""
    from scipy.spatial import cKDTree

    codes = np.unique(labels, return_inverse=True)[1]
    near = cKDTree(cells).query(cells, k=k + 1)[1][:, 1:]
    shares = [(codes[near] == code).mean(axis=1) for code in range(codes.max() + 1)]
    return float((1 / np.square(shares).sum(axis=0)).mean())


def work(peer: bool) -> None:
    """Print iLISI and cLISI of each seed."""
    data = np.load(FIXTURE, allow_pickle=True)
    cells, batch, label = data["X"].astype(np.float64), data["batch"].astype(str), data["label"]
    for seed in SEEDS:
        if peer:
            import harmonypy
            import pandas as pd

            frame = pd.DataFrame({"batch": batch})
            result = harmonypy.run_harmony(cells, frame, ["batch"], random_state=seed).Z_corr.T
        else:
            sys.path.insert(0, str(REPO / "workflow"))
            from integration.harmony import harmonize

            result = harmonize(cells, batch, flavor="harmony1", theta=1.0, seed=seed).corrected
        print(json.dumps([lisi(result, batch), lisi(result, label)]), flush=True)


def main() -> None:
    """Run both, write the section."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers-python", required=True)
    parser.add_argument("--results", type=Path, default=HERE.parent / "RESULTS.md")
    parser.add_argument("--worker", choices=["peer", "ours"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker == "peer")
        return
    means = {}
    for name, python in (("ours", sys.executable), ("peer", arguments.peers_python)):
        command = [python, HERE, "--worker", name, "--peers-python", python]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        means[name] = np.mean(rows, axis=0)
    difference = 100 * (means["ours"] / means["peer"] - 1)
    lines = [
        "## Harmony 1 against harmonypy 0.0.10",
        "",
        f"Five pancreas studies (5,211 cells x 30), theta 1, mean of {len(SEEDS)} seeds.",
        "",
        "| | iLISI | cLISI |",
        "|---|---|---|",
        "| cellstrata, `flavor=harmony1` | {:.3f} | {:.3f} |".format(*means["ours"]),
        "| harmonypy 0.0.10 | {:.3f} | {:.3f} |".format(*means["peer"]),
        "| difference | {:+.1f} % | {:+.1f} % |".format(*difference),
    ]
    section = "\n".join(lines)
    write_section(arguments.results, "harmony1", section)
    print(section)


if __name__ == "__main__":
    main()
