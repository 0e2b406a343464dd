"""How a run starts and ends: check the config, say what runs, show a table."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from clustering.options import AUTO
from integration.method_chains import missing_package
from plan.config import VERSION
from plan.preflight import input_problems
from plan.validate import check_config, readable_data_sets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from plan.config import Config, DataSet
    from plan.plan import Plan

DEMO = Path(__file__).resolve().parents[2] / "config" / "config.yaml"


def use_own_python() -> None:
    """Make ``python`` the one that Snakemake runs on, also where its environment is not active."""
    folder = Path(sys.executable).parent
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


def read_config(
    mapping: dict[str, Any],
    files: Iterable[str | Path],
    *,
    own_packages: bool = True,
    check_inputs: bool = True,
) -> Config:
    """Check the config; where it is wrong, say all that is wrong and leave with exit code 2.

    Parameters
    ----------
    mapping
        What Snakemake read.
    files
        The files that it read.
    own_packages
        Whether the jobs run with the packages of this Python; else what a method needs is not
        looked for here.
    check_inputs
        Open the input files and look for what the config names. Jobs need not do it again.
    """
    paths = [Path(file) for file in files]
    texts = {
        str(path): path.read_text(encoding="utf-8", errors="replace")
        for path in paths
        if path.suffix in (".yaml", ".yml")
    }
    config, problems = check_config(mapping, yaml_texts=texts)
    datasets = config.DATASETS if config else readable_data_sets(mapping)
    if check_inputs:
        problems += input_problems({name: (item, bool(config)) for name, item in datasets.items()})
    if own_packages:
        problems += _missing_packages(datasets)
    if problems or config is None:
        _print_problems(problems, ", ".join(texts) or "the config", paths)
        raise SystemExit(2)
    return config


def _print_problems(problems: list[str], where: str, paths: list[Path]) -> None:
    """Print all that is wrong with a config."""
    print(f"cellstrata: {where}: {len(problems)} problem(s)", file=sys.stderr)
    if DEMO in [path.resolve() for path in paths]:
        how = "no DATASETS were given (--configfile my.yaml), so these are the demo's"
        print(f"  {how}", file=sys.stderr)
    for line in problems:
        print(f"  {line}", file=sys.stderr)


def _missing_packages(datasets: Mapping[str, DataSet]) -> list[str]:
    return [
        f"DATASETS.{name}.integration.methods.{method}: {problem}"
        for name, dataset in datasets.items()
        for method, params in dataset.methods.items()
        if (problem := missing_package(type(params)))
    ]


def banner(plan: Plan, files: Iterable[str | Path]) -> None:
    """Say on stderr what will run, from which config files, on which data and where."""
    config = plan.config
    names = [os.path.relpath(file) for file in files]
    lines = [
        f"cellstrata {VERSION}, {', '.join(names) or 'config from the command line'}: "
        f"{len(config.DATASETS)} data set(s) -> {config.output_dir}/"
    ]
    for name, dataset in config.DATASETS.items():
        clustering = dataset.clustering
        levels = len(clustering.stored_levels)
        depth = f"{levels} level{'s' if levels > 1 else ''}"
        if clustering.hierarchy == AUTO:
            depth = "as many levels as have splits"
        files = dataset.input[dataset.stage]
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        lines += [
            f"  {name}: {files[0]}{more}, enters at {dataset.stage}",
            f"    methods {', '.join(dataset.methods)}; "
            f"{' and '.join(clustering.algorithm)} at {', '.join(map(str, clustering.resolutions))}"
            f"; {depth}; {_where(plan, name)}",
        ]
        if isinstance(clustering.hierarchy, dict):
            split = ", ".join(f"{key} at {value}" for key, value in clustering.hierarchy.items())
            lines.append(f"    splits only clusters {split}")
    print("\n".join(lines), file=sys.stderr)


def _where(plan: Plan, name: str) -> str:
    """Say where the stages of a data set run that can run on a GPU."""
    methods = plan.config.DATASETS[name].methods.values()
    stages = ["integration"] if any(params.has_gpu for params in methods) else []
    uses = {
        stage: plan.setting(SimpleNamespace(dataset=name), stage, "use_gpu")
        for stage in [*stages, "clustering"]
    }
    if len(set(uses.values())) == 1:
        return "GPU where it pays" if uses["clustering"] else "CPU"
    return ", ".join(
        f"{stage} on {'a GPU where it pays' if gpu else 'the CPU'}" for stage, gpu in uses.items()
    )


def check_report(plan: Plan) -> None:
    """Refuse a report that is requested before the results exist."""
    if not any(word == "--report" or word.startswith("--report=") for word in sys.argv):
        return
    wanted = [*plan.targets("plots"), *plan.evaluations(), *plan.comparisons(), *plan.explorers()]
    absent = [path for path in wanted if not Path(path).exists()]
    if absent:
        print(
            f"cellstrata: no report yet, {len(absent)} of {len(wanted)} results are missing, such "
            f"as {absent[0]}; run the workflow first, with the same config",
            file=sys.stderr,
        )
        raise SystemExit(2)


def summary(table: str | Path) -> None:
    """Print the final table: data set x method x column, number of clusters, sizes."""
    if not Path(table).exists():  # only some of the outputs were asked for
        return
    rows = [line.split("\t") for line in Path(table).read_text().splitlines()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(file=sys.stderr)
    for row in rows:
        cells = [
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip(), file=sys.stderr)
    folder = Path(table).parent
    print(
        f"\natlas:    {folder}/<data set>/<method>/atlas.zarr   (anndata.read_zarr)\n"
        f"explorer: {folder}/<data set>/explorer.html   (open it in a browser)\n"
        f"pictures: {folder}/<data set>/<method>/plots/\n"
        f"table:    {table}",
        file=sys.stderr,
    )


def leave_at_once() -> None:
    """Cancel the timers of Snakemake's scheduler, whose threads would hold the exit for a second.

    Each is set after a selection of jobs, to look again when more may be started
    (``--max-jobs-per-timespan``); after the last job there is nothing to look for.
    """
    for thread in threading.enumerate():
        waits = isinstance(thread, threading.Timer)
        if waits and str(thread.function.__module__).startswith("snakemake."):
            thread.cancel()
