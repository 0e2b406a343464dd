"""Run Snakemake as a person would, in a folder of its own."""

import hashlib
import os
import subprocess
import sys
import warnings
from pathlib import Path

import anndata
import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
INPUT = REPO / "test" / "input"


def snakemake(
    folder: Path, *args: object, check: bool = True, cores: int | None = 2
) -> subprocess.CompletedProcess:
    """Run Snakemake with this project's Snakefile in `folder`."""
    command = [sys.executable, "-m", "snakemake", "-s", REPO / "Snakefile"]
    command += [] if cores is None else ["--cores", cores]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, [*command, *args])], cwd=folder, capture_output=True, text=True, env=environment
    )
    if check and done.returncode:
        pytest.fail(f"snakemake {args} left with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def write_config(folder: Path, **datasets: dict) -> Path:
    """Write a config with these data sets."""
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump({"DATASETS": datasets}, sort_keys=False))
    return path


def read(path: Path) -> anndata.AnnData:
    """Open a store as a user would."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return anndata.read_zarr(path)


def hashes(results: Path) -> dict[str, str]:
    """Return every result with its SHA-256, every link with where it points to.

    Left out is what depends on time: the measured benchmarks, and logs, which tell every 20 seconds
    how far a step is.
    """
    found = {}
    for path in sorted(results.rglob("*")):
        name = str(path.relative_to(results))
        if name.startswith(("benchmarks/", "logs/")):
            continue
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
