"""What must not become one when files are joined: genes, embeddings, colors, the same file."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from preprocessing.prepare import prepare_store

N_CELLS = 6


def make(tag, genes, symbols=None, seed=0):
    counts = sp.csr_matrix(np.random.default_rng(seed).poisson(2, (N_CELLS, len(genes))) + 1)
    obs = pd.DataFrame({"n": range(N_CELLS)}, index=[f"{tag}{i}" for i in range(N_CELLS)])
    adata = anndata.AnnData(counts.astype("float32"), obs, pd.DataFrame(index=list(genes)))
    if symbols is not None:
        adata.var["symbol"] = list(symbols)
    return adata


def prepared(tmp_path, parts, **options):
    files = [tmp_path / f"{'abc'[i]}.h5ad" for i in range(len(parts))]
    for part, file in zip(parts, files, strict=True):
        part.write_h5ad(file)
    out = tmp_path / "out.zarr"
    prepare_store(files, out, **options)
    return anndata.read_zarr(out)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("join", ["inner", "outer"])
def test_a_repeated_symbol_never_takes_different_genes_for_one(tmp_path, join, order, capsys):
    # HBB is two genes of the first file, in an order of its own, and one of the second.
    a = make("a", ["e1", "e2", "e3", "e4"], ["HBB", "HBB", "CD4", "MS4A1"])
    b = make("b", ["e2", "e1", "e4", "e3"], ["HBB", "HBA", "MS4A1", "CD4"], seed=1)
    a.raw, b.raw = a, b
    whole = prepared(tmp_path, [a, b][::order], var_names="symbol", join=join)
    values = {part.obs_names[0][0]: part for part in (a, b)}
    for names, read in (
        (whole.var_names, lambda gene: whole[:, gene].X),
        (whole.raw.var_names, lambda gene: whole.raw[:, gene].X),
    ):
        assert {"CD4", "MS4A1", "e2"} <= set(names)
        assert not {"HBB", "HBB-1"} & set(names)
        for gene, id in (("CD4", "e3"), ("MS4A1", "e4"), ("e2", "e2")):
            expected = np.vstack([values[tag][:, id].X.toarray() for tag in "ab"[::order]])
            assert np.array_equal(read(gene).toarray(), expected)
    assert "var/symbol: 1 name of several genes of a file (HBB)" in capsys.readouterr().err


def test_data_frames_in_obsm_with_other_columns_are_no_common_embedding(tmp_path):
    parts = [make("a", ["g1", "g2"]), make("b", ["g1", "g2"])]
    for part, column in zip(parts, ["CD3", "CD19"], strict=True):
        part.obsm["protein"] = pd.DataFrame({column: np.ones(N_CELLS)}, index=part.obs_names)
    words = r"obsm/protein has the columns CD3 in .*a\.h5ad, the columns CD19 in .*b\.h5ad"
    with pytest.raises(ValueError, match=words):
        prepared(tmp_path, parts, stage="integration")
    assert not (tmp_path / "out.zarr").exists()


def test_colors_of_a_column_that_is_gone_are_dropped(tmp_path, capsys):
    parts = [make("a", ["g1", "g2"]), make("b", ["g1", "g2"])]
    for part in parts:
        part.uns["donor_colors"] = ["#ff0000", "#00ff00"]
    whole = prepared(tmp_path, parts, batch=["donor"])  # which names the file now
    assert "donor_colors" not in whole.uns
    assert "donor_colors" in capsys.readouterr().err


def test_a_file_is_not_joined_with_itself(tmp_path):
    make("a", ["g1", "g2"]).write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match=r"^\S+a\.h5ad is listed twice$"):
        prepare_store([tmp_path / "a.h5ad"] * 2, tmp_path / "out.zarr")


def test_raw_of_which_less_than_half_is_common_is_dropped(tmp_path, capsys):
    parts = [make("a", ["g1", "g2"]), make("b", ["g1", "g2"])]
    parts[0].raw = make("a", ["e1", "e2", "e3", "g1"])
    parts[1].raw = make("b", ["h1", "h2", "h3", "g1"])
    whole = prepared(tmp_path, parts, join="outer")
    assert whole.raw is None
    assert "dropped: raw of all files, which share 1 of 4 genes" in capsys.readouterr().err


def test_features_that_are_no_genes_are_left_out_of_raw_that_becomes_x(tmp_path):
    adata = make("a", ["g1", "g2", "g3"])
    adata.raw = adata
    adata.var["feature_types"] = ["Gene Expression", "Antibody Capture", "Gene Expression"]
    assert list(prepared(tmp_path, [adata], layer="raw").var_names) == ["g1", "g3"]


def test_files_without_any_matrix_are_said(tmp_path):
    parts = [make("a", ["g1", "g2"]), make("b", ["g1", "g2"])]
    for part in parts:
        part.X = None
    with pytest.raises(KeyError, match="has no X, which joined files need"):
        prepared(tmp_path, parts)
