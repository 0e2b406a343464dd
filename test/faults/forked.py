"""Run scripts in forks of one process that has imported what they need: a start takes milliseconds.

Reads one JSON object per line, ``{"script", "args", "kill_after"}``, answers with one. `kill_after`
is a number of seconds after which the fork is killed with SIGKILL, or null.
"""

import gc
import json
import os
import runpy
import signal
import sys
import tempfile
import time
import traceback
from importlib.util import find_spec
from pathlib import Path

WORKFLOW = Path(__file__).resolve().parents[2] / "workflow"
MODULES = (
    "anndata.io h5py pandas pydantic scipy.sparse zarr igraph"
    " clustering.stores clustering.communities clustering.connectivities clustering.hierarchy"
    " clustering.umap clustering.leiden clustering.cluster_tree"
    " integration.harmony integration.mnn integration.topics"
    " preprocessing.hvg preprocessing.pca preprocessing.prepare plan.validate"
    " scipy.fft scipy.linalg scipy.optimize scipy.sparse.csgraph scipy.sparse.linalg scipy.spatial"
)
VAE_MODULES = "integration.vae.models torch._dynamo"  # seconds, which not every session needs


def run_script(script: str, args: list[str]) -> int:
    sys.argv = [script, *args]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def fork(script: str, args: list[str], kill_after: float | None) -> dict:
    with tempfile.TemporaryFile() as said:
        begin = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            code = run_script(str(WORKFLOW / script), args)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        done, status = 0, 0
        while not done:
            done, status = os.waitpid(pid, os.WNOHANG)
            if not done and kill_after is not None and time.monotonic() - begin > kill_after:
                os.kill(pid, signal.SIGKILL)
                done, status = os.waitpid(pid, 0)
            time.sleep(0.001)
        said.seek(0)
        return {
            "returncode": os.waitstatus_to_exitcode(status),
            "stderr": said.read().decode(),
            "seconds": time.monotonic() - begin,
        }


def load(names: str) -> None:
    for name in names.split():
        __import__(name)
    gc.freeze()  # a fork that does not look through it does not copy it


def main() -> None:
    sys.path[0] = str(WORKFLOW)
    load(MODULES)
    for line in sys.stdin:
        request = json.loads(line)
        if request["script"].endswith("/vae.py") and find_spec("torch"):
            load(VAE_MODULES)
        print(json.dumps(fork(**request)), flush=True)


if __name__ == "__main__":
    main()
