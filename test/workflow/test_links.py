"""An atlas links to other stores: what happens where one is gone, or an input was changed."""

import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import yaml
import zarr
from running import INPUT, read, snakemake, write_config

from utils.palette import COLORS, category_colors

STORES = {
    "prepared.zarr": "prepare",
    "pca.zarr": "pca",
    "harmony/embedding.zarr": "harmony",
    "harmony/neighbors.zarr": "neighbors",
    "harmony/umap.zarr": "umap",
    "harmony/clustering/leiden_0.5_2.zarr": "subclustering",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Run two levels of a linked .zarr input; return the folder."""
    folder = tmp_path_factory.mktemp("links")
    adata = anndata.read_h5ad(INPUT / "pancreas_mini.h5ad")[:300, :400].copy()
    adata.obs["Batch"], adata.obs["BATCH"] = adata.obs["batch"].to_numpy(), "one"
    adata.uns["log1p"] = {"base": None}  # as scanpy leaves it, and anndata 0.10 cannot read it
    adata.uns["batch_colors"] = np.array(["#010203"] * adata.obs["batch"].nunique(), dtype=object)
    adata.write_zarr(folder / "input.zarr")
    config = write_config(
        folder,
        mini={
            "input": {"preprocessing": "input.zarr"},
            "preprocessing": {"n_top_genes": 200, "n_comps": 10},
            "integration": {"batch": "Batch"},
            "clustering": {"resolutions": [0.5], "hierarchy": 2, "umap_colors": ["Batch", "BATCH"]},
            "evaluation": {"metrics": False, "trees": False},
        },
    )
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "h5ad": True}))
    snakemake(folder, "--configfile", "my.yaml")
    return folder


def assert_same(value, expected):
    """Compare elements of AnnData, whatever they are."""
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(value, expected)
    elif hasattr(expected, "keys"):
        names = [name for name in expected if name is not None]  # X, with anndata 0.13
        assert set(names) == {name for name in value if name is not None}
        for name in names:
            assert_same(value[name], expected[name])
    elif sp.issparse(expected):
        assert (value != expected).nnz == 0
    else:
        np.testing.assert_array_equal(value, expected)


def planned(folder: Path) -> str:
    done = snakemake(folder, "--configfile", "my.yaml", "-n")
    return done.stdout + done.stderr


def test_columns_that_differ_by_case_only_are_read_in_every_store(finished):
    given = anndata.read_h5ad(INPUT / "pancreas_mini.h5ad").obs["batch"][:300]
    stores = ["prepared.zarr", "pca.zarr", "harmony/embedding.zarr", "harmony/atlas.zarr"]
    for store in stores:
        obs = read(finished / "results/mini" / store).obs
        assert obs["batch"].tolist() == obs["Batch"].tolist() == given.tolist()
        assert obs["BATCH"].tolist() == ["one"] * 300


@pytest.mark.parametrize("store", STORES)
def test_what_is_gone_is_never_read_as_zeros(finished, tmp_path, store):
    results = tmp_path / "results"
    shutil.copytree(finished / "results", results, symlinks=True)
    # The links of prepared.zarr lead out of the results.
    (tmp_path / "input.zarr").symlink_to(finished / "input.zarr")
    whole = read(results / "mini/harmony/atlas.zarr")
    shutil.rmtree(results / "mini" / store)
    try:
        left = read(results / "mini/harmony/atlas.zarr")
    except KeyError:  # a column of obs or var
        left = None
    if left is not None:
        for slot in ("obsm", "obsp", "varm"):
            for key, value in getattr(left, slot).items():
                assert_same(value, getattr(whole, slot)[key])
        assert left.X is None or (left.X != whole.X).nnz == 0
        # What prepared.zarr has of a .zarr input is a link, and the atlas links to where it leads.
        fewer = set(left.obsm) < set(whole.obsm) or set(left.obsp) < set(whole.obsp)
        assert fewer == (store != "prepared.zarr")
    root = zarr.open_group(results / "mini/harmony/atlas.zarr", mode="r")
    for name in ("X/data", "obsm/X_pca", "obsm/X_umap", "obsp/distances/data"):
        assert name not in root or np.any(root[name][...])


@pytest.mark.parametrize("store", ["prepared.zarr", "harmony/embedding.zarr"])
def test_a_store_that_is_gone_is_planned_again(finished, store):
    assert "Nothing to be done" in planned(finished)
    place, away = finished / "results/mini" / store, finished / "away"
    place.rename(away)
    try:
        text = planned(finished)
    finally:
        away.rename(place)
    assert f"Missing output files: results/mini/{store}" in text


def test_an_input_that_was_changed_in_place_is_noticed(finished):
    column = zarr.open_group(finished / "input.zarr", mode="r+", use_consolidated=False)
    values = column["X/data"][:]
    column["X/data"][:] = values
    assert "mini: prepare" in planned(finished)


def test_the_file_that_stands_alone_is_the_atlas(finished):
    folder = finished / "results/mini/harmony"
    atlas, file = read(folder / "atlas.zarr"), anndata.read_h5ad(folder / "atlas.h5ad")
    for slot in ("X", "obs", "var", "obsm", "varm", "obsp", "layers"):
        assert_same(getattr(file, slot), getattr(atlas, slot))
    assert file.uns["log1p"] == {}
    colors = {f"leiden_0.5_{level}_colors" for level in (1, 2)}
    assert set(file.uns) == set(atlas.uns) | colors
    for name in colors:
        categories = file.obs[name.removesuffix("_colors")].cat.categories
        assert len(file.uns[name]) == len(categories)
    assert file.uns["batch_colors"].tolist() == ["#010203"] * file.obs["batch"].nunique()


def test_a_file_that_is_there_is_kept(finished, tmp_path, script):
    folder = finished / "results/mini/harmony"
    mine = tmp_path / "mine.h5ad"
    mine.write_text("my only copy")
    merge = ["clustering/scripts/merge.py", folder / "umap.zarr", tmp_path / "atlas.zarr"]
    merge += ["--clustering", folder / "clustering/leiden_0.5_1.zarr", "--h5ad", mine]
    assert "mine.h5ad: exists; keeping it" in script(*merge).stderr
    assert mine.read_text() == "my only copy"
    script(*merge, "--overwrite")
    assert anndata.read_h5ad(mine).shape == (300, 400)


def test_an_atlas_that_is_copied_alone_has_no_zeros(finished, tmp_path):
    alone = tmp_path / "far/away/alone.zarr"
    shutil.copytree(finished / "results/mini/harmony/atlas.zarr", alone, symlinks=True)
    with pytest.raises(KeyError):
        read(alone)
    root = zarr.open_group(alone, mode="r")
    assert not [
        name for name in ("X", "obsm/X_pca", "obsm/X_umap", "obsp/distances") if name in root
    ]


def test_a_category_without_cells_has_a_color_too():
    labels = pd.Categorical(["b", "a", "b"], categories=["a", "unused", "b"])
    first, second = (f"#{color}" for color in COLORS.split()[:2])
    assert category_colors(labels).tolist() == [first, "#d9d9d9", second]


def test_anndata_of_2024_opens_it(finished):
    # Next to the environment that runs the tests: `make test` installs both.
    python = Path(f"{sys.prefix}-anndata010") / "bin" / "python"
    if not python.exists():
        pytest.skip(f"anndata 0.10 is not installed (make {python.parents[1].name}/installed)")
    program = (
        "import anndata, sys; a = anndata.read_h5ad(sys.argv[1]); print(anndata.__version__, "
        "*a.shape, a.X.sum(), *a.obsm, *a.obs['leiden_0.5_2'].cat.categories, "
        "*a.uns['leiden_0.5_2_colors'])"
    )
    file = finished / "results/mini/harmony/atlas.h5ad"
    done = subprocess.run([python, "-c", program, file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    here = anndata.read_h5ad(file)
    assert done.stdout.split() == [
        *("0.10.9", "300", "400", str(here.X.sum()), *here.obsm),
        *here.obs["leiden_0.5_2"].cat.categories,
        *here.uns["leiden_0.5_2_colors"],
    ]


def test_the_file_must_have_its_ending(finished, script):
    folder = finished / "results/mini/harmony"
    done = script(
        "clustering/scripts/merge.py",
        folder / "umap.zarr",
        finished / "other.zarr",
        *("--clustering", folder / "clustering/leiden_0.5_1.zarr", "--h5ad", "atlas.zarr"),
        check=False,
    )
    assert done.returncode == 2
    assert "atlas.zarr: the file of --h5ad must end in .h5ad" in done.stderr
    assert not (finished / "other.zarr").exists()
