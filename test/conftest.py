"""What tests of several rooms share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
INPUT = REPO / "test" / "input"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of data and reference outputs that may not be part of the project."""
    folder = REPO.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the reference data are not beside the project")
    return folder


@pytest.fixture
def script():
    """Run a script as a person would; return the finished process."""

    def run(name: str, *args: object, check: bool = True) -> subprocess.CompletedProcess:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            [sys.executable, REPO / "workflow" / name, *map(str, args)],
            capture_output=True,
            text=True,
            env=environment,
        )
        if check and done.returncode:
            pytest.fail(f"{name} {args} left with {done.returncode}:\n{done.stderr}")
        return done

    return run
