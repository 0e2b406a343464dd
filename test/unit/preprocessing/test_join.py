"""Several files as one: values, genes, raw, embeddings, colors; and what is said of the rest."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from preprocessing.prepare import prepare_store

RNG = np.random.default_rng(0)
GENES = [f"g{i}" for i in range(12)]


def make(tag, *, genes=GENES, dtype="float32", dense=False, factor=1, n=9):
    counts = np.minimum(RNG.poisson(3, (n, len(genes))) * factor, 250).astype(dtype)
    X = counts if dense else sp.csr_matrix(counts)
    obs = pd.DataFrame({"kind": pd.Categorical(["x", "y", "x"] * (n // 3))},
                       index=[f"{tag}{i}" for i in range(n)])  # fmt: skip
    return anndata.AnnData(X, obs, pd.DataFrame(index=list(genes)))


def prepared(tmp_path, parts, **options):
    files = []
    for i, part in enumerate(parts):
        files.append(tmp_path / f"{'abc'[i]}.h5ad")
        part.write_h5ad(files[-1])
    prepare_store(files, tmp_path / "out.zarr", **options)
    return anndata.read_zarr(tmp_path / "out.zarr")


def dense(X):
    return X.toarray() if sp.issparse(X) else np.asarray(X)


TYPES = [("uint8", "float32", 0.37), ("uint16", "int32", 80), ("int64", "float32", 0.37),
         ("bool", "float32", 1), ("int32", "float64", 0.5), ("int8", "uint8", 1)]  # fmt: skip


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(("first", "second", "factor"), TYPES)
def test_the_type_holds_the_values_of_all_files(tmp_path, first, second, factor, order):
    parts = [make("a", dtype=first, dense=order > 0), make("b", dtype=second, factor=factor)]
    parts = parts[::order]
    for part in parts:
        part.layers["counts"] = part.X.copy()
        part.raw = part
    whole = prepared(tmp_path, parts, layer="counts")
    expected = np.vstack([dense(part.X) for part in parts])
    for found in (whole.X, whole.layers["counts"], whole.raw.X):
        assert found.dtype == np.result_type(first, second)
        assert np.array_equal(dense(found), expected)


@pytest.mark.parametrize("join", ["inner", "outer"])
def test_genes_as_anndata_joins_them(tmp_path, join, capsys):
    a, b = make("a"), make("b", genes=[*GENES[:2:-1], "h1", "h2"], dtype="int32")
    a.raw, b.raw = a[:, ::-1].copy(), b
    whole = prepared(tmp_path, [a, b], join=join)
    expected = anndata.concat([a, b], join=join, fill_value=0)[:, whole.var_names]
    assert set(whole.var_names) == set(anndata.concat([a, b], join=join).var_names)
    assert np.array_equal(dense(whole.X), dense(expected.X))
    assert np.array_equal(dense(whole.raw[:, whole.var_names].X), dense(expected.X))
    err = capsys.readouterr().err
    said = {
        "inner": ["dropped: 3 of 12 genes of", "dropped: 2 of 11 genes of"],
        "outer": ["b.h5ad lacks 3 of 14 genes: their values are 0 there", "a.h5ad lacks 2 of 14"],
    }
    assert all(line in err for line in said[join])


def test_what_is_dropped_is_said(tmp_path, capsys):
    a, b = make("a"), make("b")
    a.layers["spliced"] = a.X.copy()
    a.raw = a
    a.obs["age"] = 1.0
    a.var["chrom"], b.var["chrom"] = "1", ["2"] * 12
    a.obsm["X_pca"] = b.obsm["X_pca"] = RNG.normal(size=(9, 3))
    b.obsp["distances"] = sp.eye(9, format="csr")
    a.uns["title"], b.uns["title"] = "A", "B"
    a.uns["species"] = b.uns["species"] = "human"
    whole = prepared(tmp_path, [a, b])
    lines = capsys.readouterr().err.splitlines()
    for line in (
        "dropped: 2 elements (obsm/X_pca, obsp/distances), each file has its own",
        "dropped: 1 obs column (age), not in all 2 files",
        "dropped: 1 var column (chrom), not equal in all files",
        "dropped: raw, which is in 1 of 2 files",
        "dropped: 1 uns element (title), not equal in all 2 files",
        "dropped: 1 element (layers/spliced), not in all 2 files",
        "12 genes are in all 2 files, 12 in any of them",
    ):
        assert line in lines
    assert dict(whole.uns) == {"species": "human"}
    assert list(whole.obs) == ["kind", "file"]


def test_the_name_of_the_index(tmp_path):
    a, b = make("a"), make("a")
    for part in (a, b):
        part.obs.index.name, part.var.index.name = "barcode", "gene_id"
    whole = prepared(tmp_path, [a, b])
    assert (whole.obs.index.name, whole.var.index.name) == ("barcode", "gene_id")
    for part in (a, b):
        part.obs["barcode"] = part.obs_names
    whole = prepared(tmp_path, [a, b])  # the files are added to the names, which then differ
    assert list(whole.obs["barcode"]) == [*a.obs_names, *b.obs_names]
    a.obs_names = ["twice"] * 9
    a.obs["barcode"] = a.obs_names
    assert list(prepared(tmp_path, [a]).obs["barcode"]) == ["twice"] * 9


def test_fewer_than_half_of_the_genes_is_a_stop(tmp_path):
    ids = [f"ENSG{i}" for i in range(12)]
    a, b = make("a"), make("b", genes=ids)
    b.var["feature_name"] = pd.Categorical(GENES)
    match = r"0 of the 12 genes .* g0, g1, g2 in .*ENSG0, ENSG1, ENSG2 in .*var_names: feature_name"
    for join in ("inner", "outer"):
        with pytest.raises(ValueError, match=match):
            prepared(tmp_path, [a, b], join=join)
    assert not (tmp_path / "out.zarr").exists()
    whole = prepared(tmp_path, [a, b], var_names="feature_name")
    assert list(whole.var_names) == GENES
    with pytest.raises(ValueError, match="versions after a dot"):
        prepared(tmp_path, [b, make("c", genes=[f"{name}.3" for name in ids])])
    with pytest.raises(ValueError, match="5 of the 12 genes"):
        prepared(tmp_path, [a, make("c", genes=[*GENES[:5], *ids[:7]])])
    assert prepared(tmp_path, [a, make("c", genes=[*GENES[:6], *ids[:6]])]).n_vars == 6


def test_kinds_of_values_must_agree(tmp_path, capsys):
    a, b = make("a", n=30), make("b", n=30)
    logs = b.copy()
    logs.X = sp.csr_matrix(np.log1p(dense(b.X) / dense(b.X).sum(1, keepdims=True) * 1e4))
    with pytest.raises(ValueError, match=r"a\.h5ad holds counts .*b\.h5ad log-normalized values"):
        prepared(tmp_path, [a, logs])
    assert prepared(tmp_path, [a, logs], values="counts").n_obs == 60
    assert prepared(tmp_path, [a, logs], stage="integration").n_obs == 60
    b.X = b.X * 0.37
    assert prepared(tmp_path, [a, b]).n_obs == 60
    assert "counts and counts with fractions" in capsys.readouterr().err


def test_embeddings_that_were_computed_apart(tmp_path, capsys):
    a, b = make("a"), make("b")
    a.obsm["X_pca"], b.obsm["X_pca"] = RNG.normal(size=(9, 3)), RNG.normal(size=(9, 2))
    for stage in ("integration", "clustering"):
        with pytest.raises(ValueError, match=r"X_pca has 3 columns in .*a\.h5ad, 2 columns in"):
            prepared(tmp_path, [a, b], stage=stage)
    b.obsm["X_pca"] = RNG.normal(size=(9, 3))
    a.varm["PCs"], b.varm["PCs"] = RNG.normal(size=(2, 12, 3))
    with pytest.raises(ValueError, match=r"uns/pca and varm/PCs of .* differ"):
        prepared(tmp_path, [a, b], stage="clustering")
    b = b[:, ::-1].copy()
    b.varm["PCs"] = a.varm["PCs"][::-1]
    a.obsm["only"] = np.zeros((9, 1))
    whole = prepared(tmp_path, [a, b], stage="clustering")
    assert np.array_equal(whole.obsm["X_pca"], np.vstack([a.obsm["X_pca"], b.obsm["X_pca"]]))
    err = capsys.readouterr().err
    assert "X_pca of 2 files: taken as one embedding" in err
    assert "dropped: 1 embedding (only), not in all 2 files" in err


def test_layouts_and_graphs_of_several_files(tmp_path, capsys):
    a, b = make("a"), make("b")
    for part in (a, b):
        part.obsm["X_umap"] = RNG.normal(size=(9, 2))
        part.obsp["connectivities"] = sp.eye(9, format="csr")
        part.uns["neighbors"] = {"connectivities_key": "connectivities"}
    with pytest.raises(ValueError, match=r"recompute_umap: true\}\n.*recompute_neighbors: true"):
        prepared(tmp_path, [a, b], stage="clustering")
    with pytest.raises(ValueError, match="X_umap"):
        prepared(tmp_path, [a, b], stage="integration", recompute_neighbors=True)
    options = {"recompute_neighbors": True, "recompute_umap": True}
    whole = prepared(tmp_path, [a, b], stage="clustering", **options)
    assert not (whole.obsm or whole.obsp or whole.uns)
    assert "(obsm/X_umap, obsp/connectivities), each file has its own" in capsys.readouterr().err


def test_colors_of_joined_categories(tmp_path, capsys):
    a, b = make("a"), make("b")
    b.obs["kind"] = pd.Categorical(["z", "y", "y"] * 3, categories=["z", "y"])
    a.uns["kind_colors"], b.uns["kind_colors"] = ["#aa0000", "#00bb00"], ["#0000cc", "#00bb00"]
    whole = prepared(tmp_path, [a, b])
    colors = dict(zip(whole.obs["kind"].cat.categories, whole.uns["kind_colors"], strict=True))
    assert colors == {"x": "#aa0000", "y": "#00bb00", "z": "#0000cc"}
    b.uns["kind_colors"] = ["#0000cc", "#ffffff"]
    assert "kind_colors" not in prepared(tmp_path, [a, b]).uns
    assert "dropped: 1 uns element (kind_colors)" in capsys.readouterr().err
