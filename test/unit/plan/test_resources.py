"""What a job asks for."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

from utils import resources


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_cells_are_counted_from_metadata(tmp_path, zarr_format):
    store = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=zarr_format)
    anndata.io.write_elem(store, "obs", pd.DataFrame(index=[f"c{i}" for i in range(17)]))
    path = str(tmp_path / "x.zarr")
    assert resources.n_cells(path) == 17
    assert resources.memory_mb(path, 2, base=100, per_million=1_000_000) == 234
    wanted = {"base": 100, "per_million": 1_000_000, "use_gpu": True}
    assert resources.memory_mb(path, 2, n_cell_cpu=17, **wanted) == 234 + 2 * resources.GPU_MB
    assert resources.memory_mb(path, 2, n_cell_cpu=18, **wanted) == 234
    assert resources.gpus(path, True, 17) == 1
    assert resources.gpus(path, True, 18) == resources.gpus(path, False, 0) == 0


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
    assert resources.markers_mb(str(path), 2) == 3000


def test_components_of_all_genes_ask_for_their_pairs(tmp_path):
    path = str(tmp_path / "x.zarr")
    anndata.AnnData(np.ones((4, 5000), np.float32)).write_zarr(path)
    assert resources.pca_mb(path, 1, 2000) == 2000 + 144
    assert resources.pca_mb(path, 1, 9000) == resources.pca_mb(path, 1, None) == 2000 + 900
    assert resources.pca_mb(path, 2, None) == 2 * 2900


def test_counts_of_all_genes_are_held_in_memory(tmp_path):
    path = tmp_path / "x.zarr"
    adata = anndata.AnnData(sp.csr_matrix(np.ones((1000, 500), np.float32)))
    adata.write_zarr(path)
    wanted = {"base": 100, "per_million": 0}
    assert resources.counts_mb(str(path), 2, **wanted) == 2 * (100 + 16)
    adata.var["highly_variable"] = np.arange(500) < 7
    adata.write_zarr(path)
    assert resources.counts_mb(str(path), 2, **wanted) == 2 * 100
    assert resources.counts_mb(str(path), 2, all_genes=True, **wanted) == 2 * (100 + 16)


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
    assert resources.prepare_mb(tables, 2) == 2 * (1000 + 2 * 5)
    # A 10x matrix is read whole.
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "s1_matrix.mtx.gz").write_bytes(b"0" * 4_000_000)
    assert resources.prepare_mb([f"{tmp_path}/e::s1_"], 1) >= 1000 + 11 * 4


def test_a_step_beside_others_takes_half_the_cores():
    assert [resources.half(cores) for cores in (None, 1, 2, 3, 8)] == [2, 1, 1, 1, 4]
