"""What is compiled is kept where that is possible, and works where it is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WORKFLOW = Path(__file__).resolve().parents[3] / "workflow"
CODE = """
from utils.jit import compiled

@compiled()
def doubled(x):
    return 2 * x

assert doubled(21) == 42
print(type(doubled._cache).__name__)
"""


def run(script: Path, **more: str) -> str:
    environment = {"PYTHONPATH": str(WORKFLOW), "PATH": "/usr/bin:/bin", **more}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_code_is_kept_beside_its_file_or_where_the_variable_says(tmp_path):
    script = tmp_path / "one.py"
    script.write_text(CODE)
    assert run(script) == "FunctionCache"
    assert list((tmp_path / "__pycache__").glob("one.doubled*.nbc"))
    run(script, NUMBA_CACHE_DIR=str(tmp_path / "elsewhere"))
    assert list((tmp_path / "elsewhere").rglob("*.nbc"))


def test_without_a_folder_for_it_each_run_compiles(tmp_path):
    script = tmp_path / "one.py"
    # Code that no file holds has no place where it could be kept.
    script.write_text(f"exec({CODE!r})")
    assert run(script) == "NullCache"
