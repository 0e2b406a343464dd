"""Which cells and genes are kept, against plain anndata and scanpy."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from preprocessing.prepare import prepare_store

GENES = ["MT-1", "MT-2", "RPS3", "RPL1", "A", "B", "C", "D"]


@pytest.fixture
def adata():
    rng = np.random.default_rng(1)
    counts = rng.poisson(1.5, (30, 8)).astype(np.float32)
    counts[4] = 0
    obs = pd.DataFrame(
        {
            "good": rng.random(30) < 0.7,
            "age": np.where(np.arange(30) % 7, np.arange(30.0), np.nan),
            "n": pd.array([None, *range(29)], dtype="Int64"),
            "type": pd.Categorical(["p", "q", "r"] * 10, categories=["r", "q", "p", "none"]),
        },
        index=[f"c{i}" for i in range(30)],
    )
    adata = anndata.AnnData(sp.csr_matrix(counts), obs, pd.DataFrame(index=GENES))
    adata.var["use"] = [False, True, True, False, True, True, True, True]
    adata.var["symbol"] = pd.Categorical(["s0", "s1", "s1", None, "s4", "s5", "", "s7"])
    adata.uns["type_colors"] = ["#111111", "#222222", "#333333", "#444444"]
    adata.obsm["table"] = pd.DataFrame({"u": np.arange(30)}, index=adata.obs_names)
    adata.obsp["graph"] = sp.random(30, 30, 0.2, format="csr", random_state=0)
    adata.varm["loadings"] = rng.normal(size=(8, 2))
    adata.layers["twice"] = sp.csr_matrix(counts * 2)
    return adata


def prepared(tmp_path, adata, suffix=".h5ad", **options):
    path = tmp_path / f"in{suffix}"
    (adata.write_h5ad if suffix == ".h5ad" else adata.write_zarr)(path)
    prepare_store([path], tmp_path / "out.zarr", **options)
    return anndata.read_zarr(tmp_path / "out.zarr")


def test_quality_is_that_of_scanpy(tmp_path, adata, capsys):
    sc = pytest.importorskip("scanpy")
    adata.obs["total_counts"] = 7
    found = prepared(tmp_path, adata, qc={"mt": "^MT-", "ribo": "^RP[SL]", "no": "^mt-"})
    adata.var["mt"] = adata.var_names.str.startswith("MT-")
    adata.var["ribo"] = adata.var_names.str.match("RP[SL]")
    sc.pp.calculate_qc_metrics(adata, qc_vars=["mt", "ribo"], log1p=False, percent_top=None,
                               inplace=True)  # fmt: skip
    for column in ("n_genes_by_counts", "total_counts", "total_counts_mt", "pct_counts_ribo"):
        pd.testing.assert_series_equal(found.obs[column], adata.obs[column])
    err = capsys.readouterr().err
    assert "warning: qc no: no gene matches '^mt-'; in other case 2 do (MT-1, MT-2)" in err
    assert "obs columns of qc replace those of the file (total_counts)" in err


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_ranges_of_quality_and_of_columns(tmp_path, adata, suffix):
    subset = {"pct_counts_mt": {"max": 25.0}, "age": {"min": 3.0, "max": 20.0}}
    found = prepared(tmp_path, adata, suffix, qc={"mt": "^MT-"}, subset=subset)
    counts = adata.X.toarray()
    with np.errstate(invalid="ignore"):
        share = 100 * counts[:, :2].sum(1) / counts.sum(1)
    age = adata.obs["age"].to_numpy()
    kept = (share <= 25) & (age >= 3) & (age <= 20)
    assert 0 < kept.sum() < 15
    assert list(found.obs_names) == list(adata.obs_names[kept])
    assert list(prepared(tmp_path, adata, subset={"n": {"min": 27.0}}).obs_names) == ["c28", "c29"]


def test_true_false_columns(tmp_path, adata):
    adata.obs["known"] = pd.array([True, None, False] * 10, dtype="boolean")
    found = prepared(tmp_path, adata, keep_cells=["good", "known"], keep_genes=["use"])
    kept = adata.obs["good"] & adata.obs["known"].fillna(False).astype(bool)
    expected = adata[kept.to_numpy(), adata.var["use"].to_numpy()]
    assert np.array_equal(found.X.toarray(), expected.X.toarray())
    assert np.array_equal(found.varm["loadings"], expected.varm["loadings"])
    assert np.array_equal(found.layers["twice"].toarray(), expected.layers["twice"].toarray())


def test_a_subset_keeps_categories_and_their_colors(tmp_path, adata):
    adata.raw = adata
    found = prepared(tmp_path, adata, subset={"type": ["q"]})
    expected = adata[adata.obs["type"] == "q"]
    assert list(found.obs["type"].cat.categories) == ["r", "q", "p", "none"]
    assert list(found.uns["type_colors"]) == ["#111111", "#222222", "#333333", "#444444"]
    assert np.array_equal(found.obsp["graph"].toarray(), expected.obsp["graph"].toarray())
    assert found.obsm["table"].equals(expected.obsm["table"])
    assert np.array_equal(found.raw.X.toarray(), expected.X.toarray())
    whole = prepared(tmp_path, adata)
    assert list(whole.obs["type"].cat.categories) == ["r", "q", "p", "none"]
    assert list(whole.uns["type_colors"]) == list(adata.uns["type_colors"])


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_names_of_genes_from_a_column(tmp_path, adata, suffix, capsys):
    adata.raw = adata
    found = prepared(tmp_path, adata, suffix, var_names="symbol")
    assert list(found.var_names) == ["s0", "s1", "s1-1", "RPL1", "s4", "s5", "C", "s7"]
    assert list(found.var["ids"]) == GENES
    assert list(found.raw.var_names) == list(found.var_names)
    assert np.array_equal(found.X.toarray(), adata.X.toarray())
    assert (tmp_path / "out.zarr" / "X").is_symlink() == (suffix == ".zarr")
    err = capsys.readouterr().err
    assert "is empty for 2 of 8 genes, which keep their names" in err
    assert "2 genes share a name (s1): a number is added" in err


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("same_genes", [True, False])
def test_raw_becomes_x(tmp_path, adata, suffix, same_genes, capsys):
    full = adata.copy()
    full.X = full.X * 3
    full.var = full.var[["use"]]
    adata.raw = full
    if not same_genes:
        adata = adata[:, 2:].copy()
    found = prepared(tmp_path, adata, suffix, layer="raw", qc={"mt": "^MT-"})
    assert np.array_equal(found.X.toarray(), full.X.toarray())
    assert list(found.var_names) == GENES
    assert found.raw is None
    # anndata 0.13 counts X among the layers.
    assert set(found.layers) - {None} == ({"twice"} if same_genes else set())
    assert ("symbol" in found.var) == same_genes
    assert found.obs["total_counts"].tolist() == full.X.sum(1).A1.tolist()
    assert (tmp_path / "out.zarr" / "X").is_symlink() == (suffix == ".zarr")
    err = capsys.readouterr().err
    assert "adata.raw becomes X; the X of the file is dropped" in err
    dropped = "dropped: 3 elements (layers/twice, varm/loadings, var/symbol), raw has other genes"
    assert (dropped in err) != same_genes


def test_other_features_are_left_out(tmp_path, adata, capsys):
    adata.var["feature_types"] = ["Gene Expression"] * 6 + ["Antibody Capture", "Peaks"]
    for suffix in (".h5ad", ".zarr"):
        assert list(prepared(tmp_path, adata, suffix).var_names) == GENES[:6]
        said = "1 of Antibody Capture, 1 of Peaks are left out of the 8 features"
        assert said in capsys.readouterr().err
    assert prepared(tmp_path, adata, stage="clustering").n_vars == 8


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        (
            {"subset": {"type": {"min": 1.0}}},
            TypeError,
            r'obs\["type"\] holds \'p\' and not numbers',
        ),
        ({"subset": {"age": {"min": 99.0}}}, ValueError, "no cell is left of 30, by subset age"),
        ({"keep_cells": ["age"]}, TypeError, r'obs\["age"\] is not true or false'),
        ({"keep_genes": ["used"]}, KeyError, 'no column "used"; did you mean "use"'),
        ({"keep_cells": ["god"]}, KeyError, 'no column "god"; did you mean "good"'),
        ({"var_names": "symbols"}, KeyError, 'no column "symbols"; did you mean "symbol"'),
        ({"subset": {"pct_counts_mt": {"max": 5}}}, KeyError, 'no column "pct_counts_mt"'),
        ({"layer": "raw"}, KeyError, "has no raw; adata.layers has twice"),
    ],
)
def test_errors(tmp_path, adata, options, error, match):
    with pytest.raises(error, match=match):
        prepared(tmp_path, adata, **options)
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("keep_genes", [(), ("use",)])
def test_cells_that_detect_few_genes_go_whether_quality_is_asked_for_or_not(
    tmp_path, adata, keep_genes
):
    options = {"min_genes": 5, "keep_genes": keep_genes}
    plain = prepared(tmp_path, adata, **options)
    with_quality = prepared(tmp_path, adata, qc={"mt": "^MT-"}, **options)
    genes = adata.var["use"] if keep_genes else np.ones(8, bool)
    expected = adata.obs_names[np.asarray((adata[:, genes].X > 0).sum(axis=1)).ravel() >= 5]
    assert 0 < len(expected) < 30
    assert plain.obs_names.tolist() == with_quality.obs_names.tolist() == expected.tolist()
