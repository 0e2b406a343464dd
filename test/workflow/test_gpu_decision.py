"""CPU or GPU: the decision and the way back, with stand-ins for CuPy and RAPIDS.

The stand-ins say nothing about a real GPU; they show that its failures end on the CPU.
"""

import json
import os
import subprocess
import sys

import pytest
from running import INPUT, REPO, read

CUPY = """
class ndarray:
    pass
class cuda:
    class runtime:
        class CUDARuntimeError(Exception):
            pass
        @staticmethod
        def getDeviceCount():
            return {count}
"""

# anndata asks for these where there is a cupy.
CUPYX = "class csr_matrix: pass\nclass csc_matrix: pass\nclass spmatrix: pass\n"

RAPIDS = """
import numpy as np
class tl:
    @staticmethod
    def leiden(adata, resolution, *, adjacency, key_added, dtype, random_state, **options):
        assert dtype == "float64"
        {body}
"""

HALVES = "adata.obs[key_added] = np.where(np.arange(adata.n_obs) < 100, '7', '3')"
EXPLODED = "adata.obs[key_added] = np.arange(adata.n_obs).astype(str)"
NO_MEMORY = "raise MemoryError('out of memory: 80 GB')"


@pytest.fixture
def cluster(tmp_path):
    def run(body, count=1, *options):
        (tmp_path / "cupy.py").write_text(CUPY.format(count=count))
        sparse = tmp_path / "cupyx" / "scipy" / "sparse"
        sparse.mkdir(parents=True, exist_ok=True)
        for folder in (sparse.parent.parent, sparse.parent):
            (folder / "__init__.py").touch()
        (sparse / "__init__.py").write_text(CUPYX)
        (tmp_path / "rapids_singlecell.py").write_text(RAPIDS.format(body=body))
        out = tmp_path / "out.zarr"
        words = [REPO / "workflow/clustering/scripts/clustering.py", INPUT / "pbmc68k.h5ad", out]
        done = subprocess.run(
            [sys.executable, *map(str, [*words, "--overwrite", *options])],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        found = read(out)
        return found.obs["leiden_1.0_1"], json.loads(found.uns["leiden_1.0_1"]), done.stderr

    return run


def test_a_gpu_that_works_is_used_and_labels_are_numbered_by_size(cluster):
    labels, record, log = cluster(HALVES, 1, "--n_cell_cpu", "10")
    assert record["device"] == "gpu"
    assert "device: GPU (700 cells, a GPU is visible)" in log
    assert labels.value_counts().to_dict() == {"0": 600, "1": 100}


@pytest.mark.parametrize(
    ("body", "count", "options", "reason"),
    [
        (NO_MEMORY, 1, ["--n_cell_cpu", "10"], "the GPU failed: MemoryError: out of memory: 80 GB"),
        (EXPLODED, 1, ["--n_cell_cpu", "10"], "the GPU found 700 clusters"),
        (HALVES, 0, ["--n_cell_cpu", "10"], "no GPU is visible"),
        (HALVES, 1, [], "fewer than n_cell_cpu = 100,000"),
        (HALVES, 1, ["--n_cell_cpu", "10", "--no-use_gpu"], "use_gpu is false"),
        (
            HALVES,
            1,
            ["--n_cell_cpu", "10", "--clustering_args", '{"flavor": "igraph"}'],
            "flavor igraph runs on the CPU only",
        ),
    ],
)
def test_otherwise_the_cpu_does_it_and_the_reason_is_kept(cluster, body, count, options, reason):
    labels, record, log = cluster(body, count, *options)
    assert record["device"] == "cpu"
    assert reason in record["reason"]
    assert reason in log
    assert 5 < labels.nunique() < 30


def test_the_cpu_result_does_not_depend_on_a_gpu(cluster):
    failed, _, _ = cluster(NO_MEMORY, 1, "--n_cell_cpu", "10")
    without, _, _ = cluster(NO_MEMORY, 0)
    assert (failed == without).all()
