"""Why a run failed, said last: the line of each job that failed, and where its log is."""

from __future__ import annotations

import atexit
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Words of Snakemake's own log. The jobs of a group are indented, those that went well among them.
_BLOCK = re.compile(
    r"^(?P<indent> *)Error in rule (?P<rule>\w+):\n(?P<body>(?:(?P=indent) +.*\n?)+)", re.M
)
_JOB = re.compile(r"^ +jobid: (\d+)$", re.M)
_LOG = re.compile(r"^ +log: (.+?)(?: \(check log file\(s\).*)?$", re.M)
_INTERRUPTED = "Terminating processes on user request"
_KILLED = {
    137: "was killed, most likely as there was not enough memory",
    139: "crashed (segmentation fault)",
    143: "was ended from outside (SIGTERM)",
}


@dataclass(frozen=True)
class Failure:
    """A job that failed."""

    rule: str
    log: str
    status: int | None  # exit status of its command, where Snakemake names it
    grouped: bool  # whether it ran with others as one job, each of which may be the one that failed


def failures(text: str) -> list[Failure]:
    """Find the jobs that failed, and did not succeed when tried again, in a log of Snakemake.

    Parameters
    ----------
    text
        The whole log of a run.
    """
    jobs: dict[str, Failure] = {}
    for block in _BLOCK.finditer(text):
        job, log = _JOB.search(block["body"]), _LOG.search(block["body"])
        finished = job and re.search(rf"^Finished jobid: {job[1]}\b", text[block.end() :], re.M)
        if log is None or finished:
            continue
        path = log[1].split(", ")[0]  # a cluster's log stands behind
        before = text[: block.start()]
        status = re.search(rf"{re.escape(path)}[^\n]* non-zero exit status (\d+)", before)
        jobs[path] = Failure(
            block["rule"], path, int(status[1]) if status else None, grouped=bool(block["indent"])
        )
    return list(jobs.values())


def failure_lines(text: str, *, logs: str) -> list[str]:
    """Say why a run ended.

    Parameters
    ----------
    text
        The log of Snakemake.
    logs
        The folder of the jobs' logs, whose folders are data sets and methods.

    Returns
    -------
    list of str
        For each job that failed what failed, its error and its log; what was interrupted is not
        called a failure.
    """
    interrupted = _INTERRUPTED in text
    lines = []
    found = [(failure, *_reasons(failure)) for failure in failures(text)]
    some_said = any(failure.grouped and said for failure, _, said in found)
    failed = [
        (failure, reasons)
        for failure, reasons, said in found
        if said or not (interrupted or (failure.grouped and some_said))
    ]
    if failed:
        lines.append(f"{len(failed)} job{'s' if len(failed) > 1 else ''} failed:")
    for failure, reasons in failed:
        path = Path(failure.log)
        parts = path.relative_to(logs).parts if path.is_relative_to(logs) else (path.name,)
        lines.append(f"  {', '.join([*parts[:-1], Path(parts[-1]).stem])}")
        lines += [f"    {reason}" for reason in reasons]
        lines.append(f"    log: {failure.log}")
    if interrupted:
        lines.append("interrupted (Ctrl-C); run the same command again with --rerun-incomplete")
    return lines


def _reasons(failure: Failure) -> tuple[list[str], bool]:
    """Return the lines to show of a job's log, and whether these are errors that it printed."""
    try:
        log = Path(failure.log).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        log = []
    # A script prints its errors in one go, last.
    errors = [line for line in log[-50:] if re.match(r"\S+\.py: error: ", line)]
    if errors:
        return errors, True
    how = _KILLED.get(failure.status or 0) or (
        "left without an error line; it may have been killed (no memory, no time left)"
        if failure.status is None
        else f"left with exit status {failure.status} and without an error line"
    )
    last = next((line for line in reversed(log) if line.strip()), None)
    return [how, *([f"its last line: {last.strip()[:200]}"] if last else [])], False


def tell_failures(snakemake_logs: Iterable[str], *, logs: str) -> None:
    """Print why a run failed, when this process ends: behind all that Snakemake still says."""
    texts = [Path(log).read_text(encoding="utf-8", errors="replace") for log in snakemake_logs]
    if lines := failure_lines("\n".join(texts), logs=logs):
        text = "\n".join(["", f"cellstrata: {lines[0]}", *lines[1:]])
        atexit.register(print, text, file=sys.stderr, flush=True)
