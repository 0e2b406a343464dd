"""How a run is called and how it ends: all problems first, the reasons last."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from running import INPUT, REPO, snakemake, write_config

PBMC = str(INPUT / "pbmc68k.h5ad")
SMALL = {
    "input": {"clustering": PBMC},
    "clustering": {"resolutions": [0.5]},
    "evaluation": {"metrics": False, "trees": False},
}
PREPARED = "results/a/prepared.zarr"


def test_everything_is_found_before_anything_runs(tmp_path):
    config = tmp_path / "my.yaml"
    config.write_text(f"""
DATASETS:
  a:
    input: {{clustering: {PBMC}}}
    clustering: {{umap_colors: [fase], resolutionz: 3}}
  a:
    input: {{clustering: {PBMC}}}
    clustering: {{umap_colors: [fase], resolutionz: 3}}
  b:
    input: {{clustering: gone.h5ad}}
  logs:
    input: {{clustering: {PBMC}}}
    clustering: {{neighbors: {{use_rep: X_pc}}}}
""")
    done = snakemake(tmp_path, "--configfile", config, "-n", check=False)
    assert done.returncode == 2
    head, *lines = done.stderr.splitlines()
    assert "6 problem(s)" in head
    for words in (
        'line 6: the key "a" is already in line 3',
        "DATASETS.a.clustering.resolutionz: unknown key",
        "DATASETS.logs: the workflow has a file",
        "DATASETS.a.clustering.umap_colors: " + PBMC + ': adata.obs has no column "fase"',
        "DATASETS.b.input.clustering: no such file: gone.h5ad",
        "DATASETS.logs.clustering.neighbors.use_rep: " + PBMC + ': adata.obsm has no "X_pc"',
    ):
        assert sum(words in line for line in lines) == 1, words
    assert len(lines) == 6
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".yaml") in (
        [], [".snakemake"],
    )  # fmt: skip


def test_no_config_elsewhere_is_the_demo(tmp_path):
    done = snakemake(tmp_path, "-n", check=False)
    assert done.returncode == 2
    assert "no DATASETS were given (--configfile my.yaml), so these are the demo's" in done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Run the first step; return the folder."""
    folder = tmp_path_factory.mktemp("finished")
    write_config(folder, a=SMALL)
    snakemake(folder, "--configfile", "my.yaml", "--", PREPARED)
    return folder


def test_the_way_to_the_workflow_reruns_nothing(finished, tmp_path):
    """Neither another spelling nor a clone that was moved."""
    moved = tmp_path / "moved"
    for part in ("Snakefile", "workflow", "config", "envs"):
        source = REPO / part
        copy = shutil.copytree if source.is_dir() else shutil.copy
        moved.mkdir(exist_ok=True)
        copy(source, moved / part)
    for repo in (os.path.relpath(REPO, finished), moved):
        command = [sys.executable, "-m", "snakemake", "-s", f"{repo}/Snakefile", "--cores", "1"]
        done = subprocess.run(
            [*command, "--configfile", "my.yaml", "-n", "--", PREPARED],
            cwd=finished, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "Nothing to be done" in done.stdout + done.stderr, repo


def test_as_a_module_of_another_workflow(tmp_path):
    (tmp_path / "Snakefile").write_text(f"""
module cellstrata:
    snakefile: "{REPO}/Snakefile"
    config: config["cells"]

use rule * from cellstrata as cells_*

rule all:
    default_target: True
    input: rules.cells_all.input
""")
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({"cells": {"DATASETS": {"a": SMALL}}}))
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "my.yaml"]
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "check": True}
    dry = subprocess.run([*command, "-n"], **options)
    assert {"cells_prepare", "cells_clustering", "cells_summary"} <= set(dry.stdout.split())
    subprocess.run([*command, "--", PREPARED], **options)
    assert (tmp_path / PREPARED / "zarr.json").exists()


@pytest.mark.parametrize("quiet", [[], ["--quiet", "all"]])
def test_a_failed_run_ends_with_the_reason(quiet, tmp_path):
    section = {**SMALL, "preprocessing": {"subset": {"phase": ["G7"]}}}
    config = write_config(tmp_path, a=section, b=section)
    done = snakemake(tmp_path, "--configfile", config, "--keep-going", *quiet, check=False)
    assert done.returncode == 1
    lines = done.stderr.splitlines()[-7:]
    assert lines[0] == "cellstrata: 2 jobs failed:"
    assert {lines[1], lines[4]} == {"  a, prepare", "  b, prepare"}
    assert 'adata.obs["phase"] has no "G7"' in lines[2]
    assert lines[3] == f"    log: results/logs/{lines[1][2]}/prepare.log"


def test_ctrl_c_is_called_that(tmp_path):
    config = write_config(tmp_path, a=SMALL)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "-s", str(REPO / "Snakefile")]
    run = subprocess.Popen(
        [*command, "--configfile", str(config)],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # A shell starts what it puts into the background with SIGINT ignored, tests among it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    logs = tmp_path / "results/logs"
    while not list(logs.rglob("*.log")):  # a job has started
        assert run.poll() is None
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode != 0
    assert errors.splitlines()[-1] == (
        "cellstrata: interrupted (Ctrl-C); run the same command again with --rerun-incomplete"
    )
    assert "jobs failed" not in errors
    assert not list(tmp_path.rglob(".*.zarr*")), "nothing half-written"


def test_a_report_before_the_run_says_what_is_missing(tmp_path):
    config = write_config(tmp_path, a=SMALL)
    done = snakemake(
        tmp_path, "--configfile", config, "--report", "report.zip", cores=None, check=False
    )
    assert done.returncode == 2
    assert "cellstrata: no report yet, 2 of 2 results are missing" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "report.zip").exists()
