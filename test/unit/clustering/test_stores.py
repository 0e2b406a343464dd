"""What the clustering steps read and write: the order of cells beside the neighbors."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from clustering import communities
from clustering.connectivities import neighbor_graph
from clustering.stores import neighbors_params, read_community_graph, write_neighbors
from utils.h5ad import write_h5ad
from utils.io import new_store, open_store, write_element


@pytest.fixture
def neighbors(tmp_path, monkeypatch):
    """Write the neighbors of 300 cells, whose graph counts as large."""
    monkeypatch.setattr(communities, "REORDER_ABOVE", 0)
    X = np.random.default_rng(0).normal(size=(300, 5))
    with new_store(tmp_path / "source.zarr") as store:
        write_element(store, "obs", pd.DataFrame(index=[f"cell{i}" for i in range(300)]))
        write_element(store, "var", pd.DataFrame(index=pd.Index([], dtype=str)))

    def write(key: str = "neighbors", X=X):
        file = tmp_path / f"{key}.zarr"
        source = tmp_path / "source.zarr"
        write_neighbors(file, neighbor_graph(X), source=source, neighbors_key=key, params={"a": 1})
        return file

    return write


@pytest.mark.parametrize("key", ["neighbors", "other"])
def test_the_order_is_written_once_and_read(neighbors, key):
    file = neighbors(key)
    adata = anndata.read_zarr(file)
    uns = adata.uns[key]
    assert uns["order"].dtype == np.int32
    np.testing.assert_array_equal(np.sort(uns["order"]), np.arange(300))
    assert uns["params"]["a"] == 1
    assert uns["connectivities_key"] in adata.obsp
    assert neighbors_params(open_store(file), key) == uns["params"]
    graph = read_community_graph(open_store(file), key)
    np.testing.assert_array_equal(graph.order, uns["order"])


def test_the_order_outlives_an_h5ad_file_and_not_another_order_of_cells(neighbors, tmp_path):
    file = neighbors()
    write_h5ad(open_store(file), tmp_path / "one.h5ad")
    stored = read_community_graph(open_store(tmp_path / "one.h5ad"), "neighbors")
    assert stored.order is not None
    adata = anndata.read_h5ad(tmp_path / "one.h5ad")
    adata[np.arange(299, -1, -1)].copy().write_h5ad(tmp_path / "reversed.h5ad")
    assert "order" in anndata.read_h5ad(tmp_path / "reversed.h5ad").uns["neighbors"]
    graph = read_community_graph(open_store(tmp_path / "reversed.h5ad"), "neighbors")
    assert graph.order is None


def test_neighbors_without_an_order_are_read_as_before(neighbors, tmp_path):
    adata = anndata.read_zarr(neighbors())
    adata.uns["neighbors"]["order"] = np.array(["a"] * 300)
    adata.write_h5ad(tmp_path / "text.h5ad")
    del adata.uns["neighbors"]["order"]
    adata.write_h5ad(tmp_path / "none.h5ad")
    for file in ("text.h5ad", "none.h5ad"):
        assert read_community_graph(open_store(tmp_path / file), "neighbors").order is None


def test_cells_without_coordinates_leave_no_order(neighbors):
    X = np.random.default_rng(0).normal(size=(300, 5))
    X[7] = np.nan
    file = neighbors(X=X)
    assert "order" not in anndata.read_zarr(file).uns["neighbors"]
    assert read_community_graph(open_store(file), "neighbors").order is None
