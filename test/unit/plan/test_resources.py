"""What a job asks for."""

from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

from integration.options import PVAEOptions, TopicsOptions
from plan.plan import STEPS
from utils import resources
from utils.steps import Step


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_cells_are_counted_from_metadata(tmp_path, zarr_format):
    store = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=zarr_format)
    anndata.io.write_elem(store, "obs", pd.DataFrame(index=[f"c{i}" for i in range(17)]))
    path = str(tmp_path / "x.zarr")
    assert resources.n_cells(path) == 17


def step(**others):
    return Step(script="x.py", words=lambda job: [], **{"memory": (100, 1_000_000), **others})


def job(*, use_gpu=False, n_cell_cpu=0, **others):
    device = {"use_gpu": use_gpu, "n_cell_cpu": n_cell_cpu}
    return SimpleNamespace(device=lambda section: device, **others)


def store(path, *, n_obs=17, n_vars=0, n_values=1):
    n_vars = n_vars or n_values
    anndata.AnnData(np.ones((n_obs, n_vars), np.float32)).write_zarr(path)
    return [str(path)]


def test_memory_and_time_grow_with_cells_and_attempts(tmp_path):
    inputs = store(tmp_path / "x.zarr")
    here = step(minutes=(10, 1_000_000))
    assert here.mem_mb(job(), inputs, 2) == 234
    assert here.runtime(inputs, 2) == 54
    assert step(minutes=(10, 0), memory=(100, 0)).mem_mb(job(), ["not there"], 1) == 100
    threaded = step(minutes=(10, 0), memory=(100, 0), thread_memory=7)
    assert threaded.mem_mb(job(), ["not there"], 2, threads=4) == 2 * (100 + 3 * 7)


def test_a_gpu_is_asked_for_where_it_pays(tmp_path):
    inputs = store(tmp_path / "x.zarr")
    here = step(minutes=(10, 0), gpu="clustering")
    assert here.mem_mb(job(use_gpu=True, n_cell_cpu=17), inputs, 2) == 234 + 2 * resources.GPU_MB
    assert here.mem_mb(job(use_gpu=True, n_cell_cpu=18), inputs, 2) == 234
    assert here.n_gpus(job(use_gpu=True, n_cell_cpu=17), inputs) == 1
    assert here.n_gpus(job(use_gpu=True, n_cell_cpu=18), inputs) == 0
    assert here.n_gpus(job(), inputs) == step(minutes=(1, 0)).n_gpus(job(use_gpu=True), inputs) == 0


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_values_are_counted_from_metadata(tmp_path, zarr_format):
    path = tmp_path / "x.zarr"
    store = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    anndata.io.write_elem(store, "obs", pd.DataFrame(index=["a", "b", "c"]))
    assert resources.n_values(str(path)) == 0
    anndata.io.write_elem(store, "X", np.ones((3, 5)))
    assert resources.n_values(str(path)) == 15
    anndata.io.write_elem(store, "X", sp.eye_array(3, 5, format="csr"))
    assert resources.n_values(str(path)) == 3
    assert STEPS["markers"].mem_mb(job(), [str(path)], 2) == 1400


def test_components_of_all_genes_ask_for_their_pairs(tmp_path):
    inputs = store(tmp_path / "x.zarr", n_obs=4, n_vars=5000)

    def asked(n_top_genes, attempt=1):
        section = SimpleNamespace(n_top_genes=n_top_genes)
        dataset = SimpleNamespace(preprocessing=section)
        return STEPS["pca"].mem_mb(job(dataset=dataset), inputs, attempt)

    assert asked(2000) == 1000 + 144
    assert asked(9000) == asked(None) == 1000 + 900
    assert asked(None, attempt=2) == 2 * 1900


def test_counts_of_all_genes_are_held_in_memory(tmp_path):
    path = tmp_path / "x.zarr"
    adata = anndata.AnnData(sp.csr_matrix(np.ones((1000, 500), np.float32)))
    adata.write_zarr(path)

    def asked(params=PVAEOptions()):  # noqa: B008
        return STEPS["topics"].mem_mb(job(params=params), [str(path)], 2)

    base = 2 * (1000 + 12)
    assert asked() == base + 2 * 16
    adata.var["highly_variable"] = np.arange(500) < 7
    adata.write_zarr(path)
    assert asked() == asked(TopicsOptions()) == base
    assert asked(TopicsOptions(highly_variable=False)) == base + 2 * 16


def test_an_algorithm_of_another_library_asks_for_more(tmp_path):
    inputs = store(tmp_path / "x.zarr", n_obs=1000)

    def asked(arguments):
        clustering = SimpleNamespace(clustering_args=arguments, reads_counts=False)
        here = job(dataset=SimpleNamespace(clustering=clustering))
        return STEPS["clustering"].mem_mb(here, inputs, 1)

    assert asked({"flavor": "igraph"}) == asked({"n_iterations": 3}) + 2 == 1004


def test_a_store_that_is_not_there_yet_is_named(tmp_path):
    path = str(tmp_path / "x.zarr")
    with pytest.raises(FileNotFoundError) as error:
        resources.n_cells(path)
    assert error.value.filename == path


def test_size_of_files_and_stores(tmp_path):
    (tmp_path / "a.h5ad").write_bytes(b"0" * 1_000_000)
    zarr.save(tmp_path / "b.zarr", np.zeros(3))
    inside = sum(f.stat().st_size for f in (tmp_path / "b.zarr").rglob("*") if f.is_file())
    files = [str(tmp_path / name) for name in ("a.h5ad", "b.zarr")]
    assert resources.size_mb(files) == pytest.approx(1 + inside / 1e6)
    (tmp_path / "c.h5mu").write_bytes(b"0" * 2_000_000)
    (tmp_path / "d.zarr" / "tables" / "table").mkdir(parents=True)
    (tmp_path / "d.zarr" / "tables" / "table" / "0").write_bytes(b"0" * 3_000_000)
    (tmp_path / "d.zarr" / "image").write_bytes(b"0" * 9_000_000)
    tables = [str(tmp_path / name) for name in ("c.h5mu::rna", "d.zarr::tables/table")]
    assert resources.size_mb(tables) == pytest.approx(5)
    assert STEPS["prepare"].mem_mb(None, tables, 2) == 2 * (600 + 2 * 5)
    # A 10x matrix is read whole.
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "s1_matrix.mtx.gz").write_bytes(b"0" * 4_000_000)
    assert STEPS["prepare"].mem_mb(None, [f"{tmp_path}/e::s1_"], 1) >= 600 + 11 * 4


def test_a_step_beside_others_takes_half_the_cores():
    assert [resources.half(cores) for cores in (None, 1, 2, 3, 8)] == [2, 1, 1, 1, 4]
