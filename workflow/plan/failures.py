"""Report why a run failed as its last lines: the error and the log of each failed job."""

from __future__ import annotations

import atexit
import re
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# Patterns of Snakemake's own log. The jobs of a group are indented, also those that succeeded.
_BLOCK = re.compile(
    r"^(?P<indent> *)Error in rule (?P<rule>\w+):\n(?P<body>(?:(?P=indent) +.*\n?)+)", re.M
)
# All that Snakemake prints of a block with --quiet; every rule's shell command ends so.
_COMMAND = re.compile(r"\| tee (.+) >&2' returned non-zero exit status (\d+)")
_ERROR = re.compile(r"\S+\.py: error: ")
_JOB = re.compile(r"^ +jobid: (\d+)$", re.M)
_LOG = re.compile(r"^ +log: (.+?)(?: \(check log file\(s\).*)?$", re.M)
_INTERRUPTED = "Terminating processes on user request"
_INTERRUPTED_JOB = ": interrupted (Ctrl-C)"  # the last line of a script (utils/cli.py)
STARTED = time.time()
_KILLED = {
    137: "was killed, most likely because it ran out of memory",
    139: "crashed (segmentation fault)",
    143: "was terminated from outside (SIGTERM)",
}


@dataclass(frozen=True)
class Failure:
    """A job that failed."""

    log: str
    status: int | None  # exit status of its command, where Snakemake names it
    grouped: bool  # whether it ran in a group of jobs, any of which may be the one that failed


def failures(text: str, job_logs: Iterable[str] = ()) -> list[Failure]:
    """Find the jobs that failed, and did not succeed when retried, in a log of Snakemake.

    Parameters
    ----------
    text
        The whole log of a run, which is shorter with ``--quiet``.
    job_logs
        The logs that the jobs of this run wrote; a job whose log has an error failed.
    """
    jobs: dict[str, Failure] = {}
    statuses = {shlex.split(log)[0]: int(status) for log, status in _COMMAND.findall(text)}
    blocks = list(_BLOCK.finditer(text))
    for block in blocks:
        job, log = _JOB.search(block["body"]), _LOG.search(block["body"])
        finished = job and re.search(rf"^Finished jobid: {job[1]}\b", text[block.end() :], re.M)
        if log is None or finished:
            continue
        path = log[1].split(", ")[0]  # the log of a cluster follows
        jobs[path] = Failure(path, statuses.get(path), grouped=bool(block["indent"]))
    if not blocks:
        jobs = {path: Failure(path, status, grouped=False) for path, status in statuses.items()}
    for path in job_logs:
        if any(map(_ERROR.match, _tail(path))):
            jobs.setdefault(path, Failure(path, None, grouped=False))
    return list(jobs.values())


def failure_lines(text: str, *, logs: str, job_logs: Collection[str] = ()) -> list[str]:
    """Describe why a run ended.

    Parameters
    ----------
    text
        The log of Snakemake.
    logs
        The folder of the jobs' logs, whose subfolders are data sets and methods.
    job_logs
        The logs that were written in this run.

    Returns
    -------
    list of str
        For each failed job its name, its error and its log; a job that was interrupted has not
        failed.
    """
    interrupted = _INTERRUPTED in text or any(
        line.endswith(_INTERRUPTED_JOB) for path in job_logs for line in _tail(path)[-1:]
    )
    failed = _failed_jobs(failures(text, job_logs), interrupted)
    lines = [f"{len(failed)} job{'s' if len(failed) > 1 else ''} failed:"] if failed else []
    for failure, reasons in failed:
        lines += _job_lines(failure, reasons, logs)
    if interrupted:
        lines.append("interrupted (Ctrl-C); run the same command again with --rerun-incomplete")
    return lines


def _failed_jobs(jobs: Iterable[Failure], interrupted: bool) -> list[tuple[Failure, list[str]]]:
    """Return the jobs that failed by themselves, each with its reasons."""
    explained = [(failure, *_reasons(failure)) for failure in jobs]
    group_has_error = any(failure.grouped and has_error for failure, _, has_error in explained)
    return [
        (failure, reasons)
        for failure, reasons, has_error in explained
        if has_error or not (interrupted or (failure.grouped and group_has_error))
    ]


def _job_lines(failure: Failure, reasons: list[str], logs: str) -> list[str]:
    """Describe a failed job: its name, its reasons, its log."""
    path = Path(failure.log)
    parts = path.relative_to(logs).parts if path.is_relative_to(logs) else (path.name,)
    name = ", ".join([*parts[:-1], Path(parts[-1]).stem])
    return [f"  {name}", *(f"    {reason}" for reason in reasons), f"    log: {failure.log}"]


def _reasons(failure: Failure) -> tuple[list[str], bool]:
    """Return the lines to show for a job, and whether they are errors that it printed."""
    log = _tail(failure.log)
    errors = [line for line in log if _ERROR.match(line)]
    if errors:
        return errors, True
    reason = _KILLED.get(failure.status or 0) or (
        "ended without an error line; it may have been killed (out of memory or of time)"
        if failure.status is None
        else f"ended with exit status {failure.status} and without an error line"
    )
    last = next((line for line in reversed(log) if line.strip()), None)
    return [reason, *([f"its last line: {last.strip()[:200]}"] if last else [])], False


def _tail(log: str) -> list[str]:
    """Return the last lines of a log, where scripts print their errors; none if it is missing."""
    try:
        return Path(log).read_text(encoding="utf-8", errors="replace").splitlines()[-50:]
    except OSError:
        return []


def tell_failures(snakemake_logs: Iterable[str], *, logs: str) -> None:
    """Print why a run failed when this process ends, after all that Snakemake still prints."""
    texts = [Path(log).read_text(encoding="utf-8", errors="replace") for log in snakemake_logs]
    job_logs = [
        str(path) for path in sorted(Path(logs).rglob("*.log")) if path.stat().st_mtime >= STARTED
    ]
    if lines := failure_lines("\n".join(texts), logs=logs, job_logs=job_logs):
        text = "\n".join(["", f"cellstrata: {lines[0]}", *lines[1:]])
        atexit.register(print, text, file=sys.stderr, flush=True)
