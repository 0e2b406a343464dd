"""Disks that are full or not to be written, sources that are damaged or gone."""

import contextlib
import hashlib
import os
import random
import shutil
import subprocess

import anndata
import pytest
from running import INPUT, read, snakemake, write_config

SOURCE = INPUT / "pbmc68k.h5ad"
PREPARE = "preprocessing/scripts/prepare.py"
CLUSTERING = "clustering/scripts/clustering.py"


@contextlib.contextmanager
def mounted(folder, options):
    """Mount a file system in memory there."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting needs root")
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def contents(folder):
    return {path: path.is_file() and path.read_bytes() for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(
    ("name", "out", "options"),
    [
        (PREPARE, "out.zarr", []),
        (CLUSTERING, "out.zarr", []),
        ("evaluation/scripts/plots.py", "plots", ["--clusters", "bulk_labels"]),
    ],
)
def test_a_full_disk_is_one_clear_line_and_leaves_no_debris(forked, tmp_path, name, out, options):
    with mounted(tmp_path, "size=16k"):
        (tmp_path / "other.txt").write_text("there before")
        done = forked(name, SOURCE, tmp_path / out, *options)
        assert done.returncode == 2
        (line,) = [line for line in done.stderr.split("\n") if "error" in line]
        assert f"error: {tmp_path / out}: cannot be written: No space left on device" in line
        assert "Traceback" not in done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


def test_what_is_there_stays_when_the_disk_is_full(forked, tmp_path):
    out = tmp_path / "out.zarr"
    with mounted(tmp_path, "size=2m"):
        assert forked(CLUSTERING, SOURCE, out).returncode == 0
        before = contents(out)
        with contextlib.suppress(OSError):
            (tmp_path / "filler").write_bytes(bytes(4_000_000))
        assert forked(CLUSTERING, SOURCE, out, "--overwrite", "--resolution", 2).returncode == 2
        assert contents(out) == before
        assert {path.name for path in tmp_path.iterdir()} == {"filler", "out.zarr"}


def test_a_place_that_is_not_to_be_written_is_one_clear_line(script, tmp_path):
    with mounted(tmp_path, "ro"):
        done = script(PREPARE, SOURCE, tmp_path / "a" / "out.zarr", check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "out.zarr: cannot be written: Read-only file system" in done.stderr


def test_a_file_in_the_place_of_a_folder_is_one_clear_line(script, tmp_path):
    (tmp_path / "file").touch()
    done = script(PREPARE, SOURCE, tmp_path / "file" / "out.zarr", check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "file/out.zarr: cannot be written: " in done.stderr


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
@pytest.mark.parametrize("seed", range(12))
def test_damage_anywhere_is_one_clear_line_or_other_values(forked, tmp_path, seed, damage):
    chance = random.Random(seed)
    content = bytearray((INPUT / "liu_mini.h5ad").read_bytes())
    if damage == "truncated":
        del content[chance.randrange(len(content)) :]
    for _ in range(20 if damage == "flipped" else 0):
        content[chance.randrange(len(content))] ^= chance.randrange(1, 256)
    bad = tmp_path / "bad.h5ad"
    bad.write_bytes(content)
    out = tmp_path / "out.zarr"
    done = forked(PREPARE, bad, out)
    assert done.returncode in ((0, 2) if damage == "flipped" else (2,)), done.stderr
    assert "Traceback" not in done.stderr
    if done.returncode == 2:
        assert done.stderr.count("\n") == 1, done.stderr
        assert "bad.h5ad" in done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["bad.h5ad"]
    else:
        read(out)
    assert hashlib.sha256(bad.read_bytes()).digest() == hashlib.sha256(content).digest()


@pytest.fixture
def atlas(script, tmp_path):
    """Return a function that makes an atlas of a zarr input; what it links to can be moved."""
    source = tmp_path / "source.zarr"
    anndata.read_h5ad(SOURCE).write_zarr(source)
    prepared, first = tmp_path / "prepared.zarr", tmp_path / "first.zarr"
    script(PREPARE, source, prepared)
    script(CLUSTERING, prepared, first)

    def make(*options):
        out = tmp_path / "atlas.zarr"
        script("clustering/scripts/merge.py", prepared, out, "--clustering", first, *options)
        return out

    return make


def test_links_into_nothing_are_named(forked, tmp_path, atlas):
    out = atlas()
    assert read(out).n_obs == 700
    for moved, script, words in (
        ("source", "clustering/scripts/umap.py", "X is a link to ../source.zarr/X"),
        ("first", "evaluation/scripts/plots.py", "obs/leiden_1.0_1 is a link to ../../first.zarr/"),
    ):
        store, elsewhere = tmp_path / f"{moved}.zarr", tmp_path / "elsewhere.zarr"
        store.rename(elsewhere)
        done = forked(script, out, tmp_path / "out.zarr")
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1, done.stderr
        assert "atlas.zarr: " in done.stderr
        assert words in done.stderr
        assert "which does not exist; put it back" in done.stderr
        assert not (tmp_path / "out").exists()
        elsewhere.rename(store)


def test_a_materialized_atlas_stands_alone(script, tmp_path, atlas):
    linked = read(atlas())
    out = atlas("--materialize", "--overwrite")
    alone = tmp_path / "elsewhere" / "atlas.zarr"
    alone.parent.mkdir()
    out.rename(alone)
    for name in ("source", "prepared", "first"):
        shutil.rmtree(tmp_path / f"{name}.zarr")
    assert not [path for path in alone.rglob("*") if path.is_symlink()]
    found = read(alone)
    assert found.obs.equals(linked.obs)
    assert (found.X == linked.X).all()
    assert set(found.obsp) == set(linked.obsp)
    script("clustering/scripts/umap.py", alone, tmp_path / "umap.zarr", "--overwrite")


def test_materialize_in_a_config(tmp_path):
    config = write_config(tmp_path, a={"input": {"clustering": str(SOURCE)}})
    config.write_text(config.read_text() + "materialize: true\n")
    snakemake(tmp_path, "--configfile", config, "--", "results/a/unintegrated/atlas.zarr")
    atlas = tmp_path / "results/a/unintegrated/atlas.zarr"
    assert not [path for path in atlas.rglob("*") if path.is_symlink()]
    assert "leiden_1.0_1" in read(atlas).obs
