"""How a run ends."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from plan.launch import banner, leave_at_once
from plan.plan import make_plan
from plan.validate import load_config

WORKFLOW = Path(__file__).resolve().parents[3] / "workflow"
SNAKEFILE = f"""
import sys, threading
sys.path.insert(0, {str(WORKFLOW)!r})
from plan.launch import leave_at_once

rule all:
    shell: "true"

onsuccess:
    waiting = [t for t in threading.enumerate() if isinstance(t, threading.Timer)]
    leave_at_once()
    print("timers", len(waiting), [t.finished.is_set() for t in waiting])
"""


def test_no_timer_of_snakemake_holds_the_exit(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "all"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    # Where Snakemake sets none any more, leave_at_once can go.
    assert "timers 1 [True]" in done.stdout + done.stderr


def test_other_timers_stay():
    timer = threading.Timer(60, print)
    timer.start()
    try:
        leave_at_once()
        assert not timer.finished.is_set()
    finally:
        timer.cancel()


@pytest.mark.parametrize(
    ("integration", "clustering", "words"),
    [
        ({}, {}, "1 level; CPU"),
        ({"use_gpu": True}, {"use_gpu": True}, "1 level; GPU where it pays"),
        ({"use_gpu": True}, {}, "integration on a GPU where it pays, clustering on the CPU"),
        ({"use_gpu": True, "methods": ["mnn"]}, {}, "1 level; CPU"),
    ],
)
def test_the_banner_says_where_each_stage_runs(integration, clustering, words, capsys):
    section = {
        "input": {"integration": "a.h5ad"},
        "integration": {"batch": "donor", **integration},
        "clustering": clustering,
    }
    banner(make_plan(load_config({"DATASETS": {"a": section}})), [])
    assert words in capsys.readouterr().err
