"""A step that is killed while it writes leaves the old output, the new one or none."""

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import anndata
import pytest
from running import INPUT, REPO, read, snakemake, write_config

KILLS = 25  # of each step: 100 in all


def contents(folder: Path) -> dict[str, str] | None:
    """Return what a store holds: the SHA-256 of its files, the ends of its links."""
    if not folder.exists():
        return None
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


@pytest.fixture(scope="module")
def steps(forked, tmp_path_factory):
    """Make what the steps need; return each step with two ways to call it."""
    folder = tmp_path_factory.mktemp("steps")
    source = folder / "source.h5ad"
    anndata.read_h5ad(INPUT / "pbmc68k.h5ad")[:300, :200].copy().write_h5ad(source)
    stores = {
        name: folder / f"{name}.zarr" for name in ("prepared", "neighbors", "first", "second")
    }
    for script, *args in (
        ("preprocessing/scripts/prepare.py", source, stores["prepared"]),
        ("clustering/scripts/neighbors.py", stores["prepared"], stores["neighbors"]),
        ("clustering/scripts/clustering.py", stores["neighbors"], stores["first"]),
        ("clustering/scripts/clustering.py", stores["first"], stores["second"], "--level", 2),
    ):
        done = forked(script, *args)
        assert done.returncode == 0, done.stderr
    columns = stores["first"], stores["second"]
    return {
        "prepare": ("preprocessing", source, [], ["--subset", '{"phase": ["G1"]}']),
        "neighbors": ("clustering", stores["prepared"], [], ["--n_neighbors", 8]),
        "clustering": ("clustering", stores["neighbors"], [], ["--resolution", 0.5]),
        "merge": (
            "clustering",
            stores["neighbors"],
            ["--clustering", columns[0], "--materialize"],
            ["--clustering", *columns],
        ),
    }


def test_a_hundred_kills_leave_no_half_of_a_store(forked, steps, tmp_path):
    chance = random.Random(0)
    left, debris = [], 0
    for step, (stage, source, *ways) in steps.items():
        script = f"{stage}/scripts/{step}.py"
        out = tmp_path / step / "out.zarr"
        whole, seconds = [None], 0.0
        for way in ways:
            done = forked(script, source, out, "--overwrite", *way)
            assert done.returncode == 0, done.stderr
            assert read(out).n_obs > 100
            whole.append(contents(out))
            seconds = max(seconds, done.seconds)
        assert whole[1] != whole[2], "the two ways give different stores"
        for i in range(KILLS):
            way = ways[i % 2]
            kill_after = chance.uniform(0, seconds)
            forked(script, source, out, "--overwrite", *way, kill_after=kill_after)
            found = contents(out)
            assert found in whole, f"{step}, killed after {kill_after:.3f} s: half a store"
            left.append(whole.index(found))
            debris += any(path.name.startswith(".out.zarr") for path in out.parent.iterdir())
        assert forked(script, source, out, "--overwrite", *ways[0]).returncode == 0
        assert contents(out) == whole[1]
        assert [path.name for path in out.parent.iterdir()] == ["out.zarr"], "debris is cleared"
    assert len(left) == 4 * KILLS
    assert debris > 5, "most kills came before or after the writing"


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    config = write_config(
        tmp_path,
        a={
            "input": {"clustering": str(INPUT / "pbmc68k.h5ad")},
            "clustering": {"resolutions": [0.5, 1]},
        },
    )
    results = tmp_path / "results/a"
    target = "results/a/unintegrated/atlas.zarr"
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "-s", REPO / "Snakefile"]
    run = subprocess.Popen(
        [*map(str, [*command, "--configfile", config, "--", target])],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    clusterings = results / "unintegrated/clustering"
    while not list(clusterings.glob("*.zarr")):
        assert run.poll() is None
        time.sleep(0.02)
    time.sleep(0.5)  # into the next step
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    stores = [results / "prepared.zarr", results / "unintegrated/neighbors.zarr"]
    before = [store.stat().st_mtime_ns for store in stores]
    assert not (results / "unintegrated/atlas.zarr").exists()

    snakemake(tmp_path, "--configfile", config, "--unlock")
    again = snakemake(tmp_path, "--configfile", config, "--rerun-incomplete", "--", target)
    ran = re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", again.stdout + again.stderr)
    assert sorted(set(ran)) == ["atlas", "clustering", "merge"]  # the layout came first
    assert [store.stat().st_mtime_ns for store in stores] == before
    assert {"leiden_0.5_1", "leiden_1.0_1"} <= set(read(tmp_path / target).obs)
