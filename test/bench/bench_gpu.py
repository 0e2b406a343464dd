"""Harmony on a GPU: this project's lines on CuPy beside rapids-singlecell's, and the card's rates.

Ten iterations of five passes, 50 dimensions, 100 clusters, float32, the embedding on the card; the
first run of each is not counted, the fastest of three is. Beside them stands what the card needs
for the same passes if it did nothing but read the similarities once a pass, or multiply cells and
centroids once a pass. Writes the GPU section of RESULTS.md; without a GPU it says so and writes
nothing.

    python test/bench/bench_gpu.py --cells 1000000 10000000
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from bench_harmony import ITERATIONS, PASSES, WORKFLOW, lisi, make_data

sys.path.insert(0, str(WORKFLOW))
from results_page import write_section

from integration.harmony import harmonize
from utils.device import gpu_problem

HERE = Path(__file__).resolve().parent
REPEATS = 3
BATCHES = 10
LOOKED_AT = 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--dims", type=int, default=50)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--results", type=Path, default=HERE / "RESULTS.md")
    args = parser.parse_args()
    if why := gpu_problem(["cupy"]):
        print(f"bench_gpu measures nothing: {why}")
        return
    bandwidth, multiplied = rates(args.dims, args.clusters)
    lines = [
        "## Harmony on a GPU",
        "",
        f"{ITERATIONS} iterations of {PASSES} passes, {args.dims} dimensions, {args.clusters} "
        f"clusters, {BATCHES} batches, float32. {describe()}. Copies {bandwidth / 1e12:.2f} TB/s "
        f"(read and written); multiplies cells by centroids at {multiplied / 1e12:.1f} TFLOP/s. "
        "iLISI: 1 is unmixed.",
        "",
        "| cells | | seconds | GPU memory, GB | iLISI |",
        "|---|---|---|---|---|",
    ]
    for n_cells in args.cells:
        lines += compare(n_cells, args, bandwidth, multiplied)
        print("\n".join(lines), flush=True)
    write_section(args.results, "gpu", "\n".join(lines))


def describe() -> str:
    """Name the card and the packages."""
    import cupy

    card = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    packages = [f"CuPy {cupy.__version__}"]
    if find_spec("rapids_singlecell"):
        import rapids_singlecell

        packages.append(f"rapids-singlecell {rapids_singlecell.__version__}")
    return ", ".join([card, *packages, f"NumPy {version('numpy')}"])


def fastest(run, repeats: int = REPEATS) -> float:
    """Return the seconds of the fastest run after one that is not counted."""
    import cupy

    seconds = []
    for _ in range(repeats + 1):
        cupy.cuda.Device().synchronize()
        start = time.perf_counter()
        run()
        cupy.cuda.Device().synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def rates(n_dims: int, n_clusters: int) -> tuple[float, float]:
    """Return the bytes a second of a copy and the operations a second of Harmony's product."""
    import cupy

    source = cupy.ones(2**28, cupy.float32)
    target = cupy.empty_like(source)
    bandwidth = 2 * source.nbytes / fastest(lambda: cupy.copyto(target, source), 10)
    rows = 2**20
    cells = cupy.ones((rows, n_dims), cupy.float32)
    centroids = cupy.ones((n_dims, n_clusters), cupy.float32)
    out = cupy.empty((rows, n_clusters), cupy.float32)
    seconds = fastest(lambda: cupy.matmul(cells, centroids, out=out), 10)
    return bandwidth, 2 * rows * n_dims * n_clusters / seconds


def compare(
    n_cells: int, args: argparse.Namespace, bandwidth: float, multiplied: float
) -> list[str]:
    """Measure one size; return the rows of the table."""
    import cupy

    with tempfile.TemporaryDirectory() as folder:
        make_data(n_cells, args.dims, BATCHES, Path(folder))
        cells, batches = (np.load(Path(folder) / f"{name}.npy") for name in ("cells", "batches"))
    on_card = cupy.asarray(cells)
    pool = cupy.get_default_memory_pool()
    rows = []
    for name, run in contenders(on_card, cells, batches, args.clusters):
        pool.free_all_blocks()
        try:
            seconds = fastest(run)
            result = run()
            sample = slice(LOOKED_AT)  # the cells are in no order
            mixed = lisi(cupy.asnumpy(result[sample]), batches[sample])
            figures = f"{seconds:.3f} | {pool.total_bytes() / 1e9:.1f} | {mixed:.2f}"
        except Exception as error:  # one that fails must not hide the others
            figures = f"failed: {type(error).__name__} | | "
        rows.append(f"| {n_cells:,} | {name} | {figures} |")
    passes = ITERATIONS * PASSES
    read = passes * n_cells * args.clusters * 4 / bandwidth
    product = passes * 2 * n_cells * args.dims * args.clusters / multiplied
    rows.append(f"| {n_cells:,} | only reading the similarities | {read:.3f} | | |")
    rows.append(f"| {n_cells:,} | only multiplying | {product:.3f} | | |")
    return rows


def contenders(on_card, cells, batches, n_clusters):
    """Yield names and functions that return the corrected cells."""
    import cupy

    common = {
        "n_clusters": n_clusters,
        "max_iter_harmony": ITERATIONS,
        "max_iter_clustering": PASSES,
    }
    for name, options in (("cellstrata", {}), ("cellstrata, lean", {"lean": True})):
        options = {**common, **options, "tol_harmony": None}
        yield name, lambda options=options: harmonize(on_card, batches, **options).corrected

    def there_and_back():
        found = harmonize(cupy.asarray(cells), batches, **common, tol_harmony=None)
        return cupy.asnumpy(found.corrected)

    yield "cellstrata, from and to the CPU", there_and_back
    if not find_spec("rapids_singlecell"):
        return
    import pandas as pd
    import rapids_singlecell as rsc
    from anndata import AnnData

    index = pd.RangeIndex(len(batches)).astype(str)
    adata = AnnData(obs=pd.DataFrame({"batch": pd.Categorical(batches)}, index=index))
    adata.obsm["X_pca"] = cells

    def rapids():
        never = {"tol_harmony": -np.inf, "tol_clustering": -np.inf}
        options = {**common, **never, "dtype": np.float32}
        rsc.pp.harmony_integrate(adata, "batch", adjusted_basis="found", **options)
        return adata.obsm["found"]

    yield "rapids-singlecell, from and to the CPU", rapids


if __name__ == "__main__":
    main()
