"""What the tests of faults share."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def forked() -> Callable[..., SimpleNamespace]:
    """Run a script as `script` does, with its imports made before; it can be killed on the way."""
    server = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("forked.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run(script: str, *args: object, kill_after: float | None = None) -> SimpleNamespace:
        request = {"script": script, "args": [*map(str, args)], "kill_after": kill_after}
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        return SimpleNamespace(**json.loads(server.stdout.readline()))

    with server:
        yield run
        server.stdin.close()
