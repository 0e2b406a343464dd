"""A step that is cancelled, run twice or given bad files leaves a whole store or none."""

import hashlib
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import anndata
import pytest

REPO = Path(__file__).resolve().parents[2]
SOURCE = REPO / "test" / "input" / "pbmc68k.h5ad"
CLUSTERING = REPO / "workflow" / "clustering" / "scripts" / "clustering.py"


def read(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return anndata.read_zarr(path)


def start(out, resolution, *options):
    words = [sys.executable, CLUSTERING, SOURCE, out, "--resolution", resolution, *options]
    return subprocess.Popen([str(word) for word in words], stderr=subprocess.DEVNULL)


@pytest.fixture
def store(tmp_path):
    """Return the output of a step, and how long the step takes."""
    out = tmp_path / "out.zarr"
    begin = time.monotonic()
    assert start(out, 0.5).wait() == 0
    return out, time.monotonic() - begin


def test_a_cancelled_step_cleans_up(store):
    out, seconds = store
    for share in (0.3, 0.7, 0.9):
        process = start(out, 0.9, "--overwrite")
        time.sleep(seconds * share)
        process.send_signal(signal.SIGTERM)
        process.wait()
    assert [path.name for path in out.parent.iterdir()] == ["out.zarr"]
    assert len(read(out).obs.columns) == 1


def test_the_same_step_twice_at_once(tmp_path):
    out = tmp_path / "out.zarr"
    both = [start(out, 0.5, "--overwrite") for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert list(read(out).obs) == ["leiden_0.5_1"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_a_damaged_input_is_one_clear_line(script, tmp_path, damage):
    content = bytearray(SOURCE.read_bytes())
    if damage == "flipped":
        content[:64] = bytes(byte ^ 255 for byte in content[:64])
    changed = {
        "truncated": content[: len(content) // 2],
        "flipped": content,
        "empty": b"",
        "text": b"not an AnnData file",
    }[damage]
    bad = tmp_path / "bad.h5ad"
    bad.write_bytes(changed)
    for name in ("clustering/scripts/clustering.py", "preprocessing/scripts/prepare.py"):
        done = script(name, bad, tmp_path / "out.zarr", check=False)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "bad.h5ad: cannot be read, it may be damaged" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.h5ad"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--level", 2], 'adata.obs has no column "leiden_1.0_1"'),
        (["--neighbors_key", "nb"], 'adata.uns has no neighbors "nb"'),
        (["--clustering_args", '{"flavr": "igraph"}'], 'did you mean "flavor"?'),
        (["--clustering_args", '{"flavor": "igrph"}'], 'did you mean "igraph"?'),
        (["--clustering_args", "{"], "is no JSON"),
        (["--resolution", 0], "--resolution must be above 0"),
        (["--level", 0], "--level must be at least 1"),
        (["--threads", 0], "--threads: must be at least 1"),
        (["--algorithm", "leyden"], "invalid choice: 'leyden'"),
        (["--hierarchy", '{"0": 1}'], "add --level 2 or more"),
    ],
)
def test_a_wrong_option_is_one_clear_line(script, tmp_path, options, words):
    before = hashlib.sha256(SOURCE.read_bytes()).hexdigest()
    name = "clustering/scripts/clustering.py"
    done = script(name, SOURCE, tmp_path / "out.zarr", *options, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert words in done.stderr
    assert not any(tmp_path.iterdir())
    assert hashlib.sha256(SOURCE.read_bytes()).hexdigest() == before


def test_what_is_there_is_kept_or_refused(script, store):
    out, _ = store
    name = "clustering/scripts/clustering.py"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert "keeping it" in script(name, SOURCE, out, "--resolution", 0.5).stderr
    done = script(name, SOURCE, out, "--resolution", 0.9, check=False)
    assert done.returncode == 2
    assert "exists with leiden_0.5_1, without leiden_0.9_1" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
