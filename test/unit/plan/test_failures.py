"""What is said of a run that failed, from Snakemake's log and those of the jobs."""

import pytest

from plan.failures import failure_lines, failures

ERROR = """
[Sat Nov 28 12:50:59 2026]
Error in rule {rule}:
    message: None
    jobid: {job}
    input: results/{name}/prepared.zarr
    log: {log} (check log file(s) for error details)
    shell:
        python x.py 2>&1 | tee {log} >&2
        (command exited with non-zero exit code)
"""
STATUS = "Command 'python x.py 2>&1 | tee {log} >&2' returned non-zero exit status {status}.\n"
GROUP = """
[Sat Nov 28 12:50:59 2026]
    message: None
    jobs:
        rule {rule}:
            jobid: {job}
            log: {log} (check log file(s) for error details)
    [Sat Nov 28 12:50:59 2026]
    Error in rule merge:
        message: None
        jobid: 7
        log: {other} (check log file(s) for error details)
    [Sat Nov 28 12:50:59 2026]
    Error in rule {rule}:
        message: None
        jobid: {job}
        log: {log}, slurm/1.log (check log file(s) for error details)
"""


@pytest.fixture
def job(tmp_path):
    """Write the log of a job; return what stands for it in Snakemake's."""

    def write(text, name="lung", rule="pca"):
        log = tmp_path / "logs" / name / f"{rule}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(text)
        return {"rule": rule, "job": len(name), "name": name, "log": log}

    return write


def lines(text, tmp_path):
    return failure_lines(text, logs=str(tmp_path / "logs"))


def test_the_error_of_each_job_and_its_log(job, tmp_path):
    first = job("reading\npca.py: error: no column\n")
    second = job("mnn.py: error: one\nmnn.py: error: two\n", "skin/mnn", "mnn")
    text = STATUS.format(**first, status=2) + ERROR.format(**first) + ERROR.format(**second)
    assert lines(text, tmp_path) == [
        "2 jobs failed:",
        "  lung, pca",
        "    pca.py: error: no column",
        f"    log: {first['log']}",
        "  skin, mnn, mnn",
        "    mnn.py: error: one",
        "    mnn.py: error: two",
        f"    log: {second['log']}",
    ]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (137, "was killed, most likely because it ran out of memory"),
        (7, "ended with exit status 7 and without an error line"),
        (None, "ended without an error line; it may have been killed"),
    ],
)
def test_a_job_that_said_nothing(job, tmp_path, status, words):
    killed = job("reading X\n\n")
    text = STATUS.format(**killed, status=status) if status else ""
    found = lines(text + ERROR.format(**killed), tmp_path)
    assert found[0] == "1 job failed:"
    assert words in found[2]
    assert found[3] == "    its last line: reading X"
    killed["log"].unlink()
    assert len(lines(text + ERROR.format(**killed), tmp_path)) == 4, "no log at all"


def test_a_job_that_succeeded_when_tried_again_did_not_fail(job):
    text = ERROR.format(**job("pca.py: error: x\n"))
    assert len(failures(text)) == 1
    assert failures(text + "Finished jobid: 4 (Rule: pca)\n") == []


def test_of_a_group_the_job_that_failed(job, tmp_path):
    failed = job("plots.py: error: no column\n", "lung/harmony", "plots")
    well = job("written\n", "lung/harmony", "merge")
    assert lines(GROUP.format(**failed, other=well["log"]), tmp_path)[1:3] == [
        "  lung, harmony, plots",
        "    plots.py: error: no column",
    ]


def test_where_snakemake_is_quiet_the_logs_of_the_jobs_tell(job, tmp_path):
    failed = job("pca.py: error: x\n")
    killed, well = job("reading\n", "skin", "mnn"), job("written\n", "skin", "merge")
    logs = [str(log["log"]) for log in (failed, killed, well)]
    quiet = failure_lines("", logs=str(tmp_path / "logs"), job_logs=logs)
    assert quiet[:3] == ["1 job failed:", "  lung, pca", "    pca.py: error: x"]
    text = STATUS.format(**failed, status=2) + STATUS.format(**killed, status=137)
    both = failure_lines(text, logs=str(tmp_path / "logs"), job_logs=logs)
    assert both[0] == "2 jobs failed:"
    assert "was killed" in both[5]
    stopped = job("reading\npca.py: interrupted (Ctrl-C)\n", "skin", "pca")
    last = failure_lines("", logs=str(tmp_path / "logs"), job_logs=[str(stopped["log"])])
    assert len(last) == 1
    assert last[0].startswith("interrupted (Ctrl-C)")


def test_an_interrupted_run_is_called_that(job, tmp_path):
    text = "Terminating processes on user request, this might take some time.\n"
    stopped = job("pca.py: interrupted (Ctrl-C)\n")
    text += STATUS.format(**stopped, status=130) + ERROR.format(**stopped)
    last = "interrupted (Ctrl-C); run the same command again with --rerun-incomplete"
    assert lines(text, tmp_path) == [last]
    text += ERROR.format(**job("mnn.py: error: x\n", "skin", "mnn"))
    assert lines(text, tmp_path)[0] == "1 job failed:", "before it was interrupted"
    assert lines(text, tmp_path)[-1] == last
    assert lines("Building DAG of jobs...\n", tmp_path) == []
