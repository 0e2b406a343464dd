"""Many data sets: how long planning and a dry run take.

    python test/bench/bench_plan.py

writes a config of so many data sets x 8 resolutions x 3 levels, checks and plans it, lets Snakemake
list all jobs, and puts the table into ``RESULTS.md``.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from copy import deepcopy
from pathlib import Path

import anndata
import numpy as np
import yaml
from results_page import write_section

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
PLAN = """
import sys, time
from pathlib import Path
import yaml
from plan.plan import make_plan
from plan.preflight import input_problems
from plan.validate import load_config
text = Path(sys.argv[1]).read_text()
mapping = yaml.safe_load(text)
begin = time.perf_counter()
plan = make_plan(load_config(mapping, yaml_texts={sys.argv[1]: text}))
planned = time.perf_counter()
assert not input_problems({name: (item, True) for name, item in plan.config.DATASETS.items()})
print(planned - begin, time.perf_counter() - planned, len(plan.runs))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-sets", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--results", type=Path, default=HERE / "RESULTS.md")
    args = parser.parse_args()
    lines = [
        "## Planning",
        "",
        f"A config of many data sets, Harmony, 8 resolutions, 3 levels; median of {args.runs} runs "
        "in processes of their own. Planning: the config checked and expanded. Inputs: a file of "
        "each data set opened, and what the config names looked for. Dry run: the whole of "
        "`snakemake -n`.",
        "",
        "| data sets | cluster columns | jobs | planning, s | inputs, s | dry run, s |",
        "|---|---|---|---|---|---|",
    ]
    for n in args.data_sets:
        lines.append(measure(n, args.runs))
        print(lines[-1], flush=True)
    write_section(args.results, "plan", "\n".join(lines))


def measure(n: int, runs: int) -> str:
    """Plan and list the jobs of n data sets; return a row of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cells = anndata.AnnData(np.ones((3, 2), "float32"))
        cells.obs["donor"] = ["a", "b", "b"]
        for i in range(n):
            cells.write_h5ad(folder / f"d{i}.h5ad")
        data_set = {
            "integration": {"batch": "donor"},
            "clustering": {
                "resolutions": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0],
                "hierarchy": 3,
                "umap_colors": ["donor"],
            },
        }
        config = folder / "my.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "DATASETS": {
                        f"d{i}": {
                            "input": {"preprocessing": str(folder / f"d{i}.h5ad")},
                            **deepcopy(data_set),
                        }
                        for i in range(n)
                    }
                }
            )
        )
        planned, opened, dry = [], [], []
        for _ in range(runs):
            command = [sys.executable, "-c", PLAN, config]
            done = subprocess.run(
                command, cwd=REPO / "workflow", capture_output=True, text=True, check=True
            )
            seconds, more, columns = done.stdout.split()
            planned.append(float(seconds))
            opened.append(float(more))
            command = [sys.executable, "-m", "snakemake", "-s", REPO / "Snakefile", "-n"]
            begin = time.perf_counter()
            done = subprocess.run(
                [*command, "--configfile", config, "--quiet", "rules"],
                cwd=folder,
                capture_output=True,
                text=True,
                check=True,
            )
            dry.append(time.perf_counter() - begin)
        jobs = re.findall(r"^total +(\d+)", done.stdout + done.stderr, flags=re.MULTILINE)[0]
    medians = [statistics.median(times) for times in (planned, opened, dry)]
    seconds = f"{medians[0]:.2f} | {medians[1]:.2f} | {medians[2]:.1f}"
    return f"| {n} | {int(columns):,} | {int(jobs):,} | {seconds} |"


if __name__ == "__main__":
    main()
