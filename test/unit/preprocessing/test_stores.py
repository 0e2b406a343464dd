"""Where counts are found in a store, and what is said where they are not."""

import re

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from evaluation.stores import read_expression
from integration.stores import read_counts
from numerics.normalize import check_counts
from preprocessing.gene_choice import read_gene_choice, read_gene_list, select_genes
from preprocessing.options import VariableGenesOptions
from preprocessing.stores import counts_of, named_values, stored_matrix
from utils.blocks import row_blocks
from utils.io import open_store
from utils.validation import check_options

COUNTS = np.random.default_rng(0).poisson(2.0, (60, 40)).astype(np.float32)
LOG = np.log1p(COUNTS / COUNTS.sum(axis=1, keepdims=True) * 1e4)


def frames(n_genes=40):
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(60)])
    return {"obs": obs, "var": pd.DataFrame(index=[f"g{i}" for i in range(n_genes)])}


@pytest.fixture
def store(tmp_path):
    def make(X, *, raw=None, raw_genes=40, ending="zarr", **layers):
        adata = anndata.AnnData(None if X is None else sp.csr_matrix(X), **frames())
        if raw is not None:
            adata.raw = anndata.AnnData(sp.csr_matrix(raw), **frames(raw_genes))
        for name, values in layers.items():
            adata.layers[name] = sp.csr_matrix(values)
        path = tmp_path / f"in.{ending}"
        getattr(adata, "write_zarr" if ending == "zarr" else "write_h5ad")(path)
        return open_store(path)

    return make


def blocks(found):
    return np.concatenate([block.toarray() for block in row_blocks(found.values)])


@pytest.mark.parametrize("ending", ["zarr", "h5ad"])
def test_counts_are_found_by_name(store, ending):
    root = store(LOG, raw=COUNTS, counts=COUNTS + 1, ending=ending)
    for layer, name, values in (("raw", "raw/X", COUNTS), ("counts", "layers/counts", COUNTS + 1)):
        found = counts_of(root, layer, needed_by="a test")
        assert found.name == name and np.array_equal(blocks(found), values)
        assert np.array_equal(read_counts(found, np.array([3, 1])).toarray(), values[:, [3, 1]])


def test_raw_is_meant_where_a_layer_is_called_so_too(tmp_path):
    adata = anndata.AnnData(sp.csr_matrix(LOG), layers={"raw": sp.csr_matrix(LOG)}, **frames())
    adata.raw = anndata.AnnData(sp.csr_matrix(COUNTS), **frames())
    adata.write_zarr(tmp_path / "in.zarr")
    found = counts_of(open_store(tmp_path / "in.zarr"), "raw", needed_by="a test")
    assert found.name == "raw/X"


@pytest.mark.parametrize(
    ("X", "others", "words"),
    [
        (LOG, {"raw": COUNTS}, "counts in raw/X: write preprocessing: {layer: raw} (by hand --la"),
        (
            LOG,
            {"umis": COUNTS, "log": LOG},
            "counts in layers/umis: write preprocessing: {layer: u",
        ),
        (LOG, {"a": COUNTS, "raw": COUNTS}, "counts in layers/a, raw/X: write"),
        (LOG, {"raw": LOG}, "no other matrix of the file holds counts; to use these values as"),
        (LOG, {}, "counts after all, preprocessing: {values: counts}"),
        (LOG - 1, {}, "scaled values (smallest -1"),
    ],
)
def test_one_line_says_where_counts_are(store, X, others, words):
    root = store(X, **others)
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        counts_of(root, needed_by="PCA", as_they_are="normalize: false")
    line = str(caught.value)
    assert line.startswith("X of ") and "PCA needs counts" in line and "\n" not in line
    assert f"largest {X.max():.3g}, " in line


def test_counts_in_x_are_named_where_a_layer_holds_none(store):
    with pytest.raises(ValueError, match=r"counts in X: leave out preprocessing\.layer"):
        counts_of(store(COUNTS, log=LOG), "log", needed_by="PCA")


def test_the_user_knows_better(store, capsys):
    assert counts_of(store(LOG), needed_by="PCA", values="counts").name == "X"
    with pytest.raises(ValueError, match=r"log-normalized values, as --values says"):
        counts_of(store(COUNTS), needed_by="PCA", values="log-normalized")
    assert capsys.readouterr().err == ""


def test_fractions_are_taken_and_said(store, capsys):
    assert counts_of(store(COUNTS * 0.9), needed_by="PCA").name == "X"
    assert re.fullmatch(
        r"X: counts with fractions \(largest [\d.]+, .*whole numbers\), taken as counts\n",
        capsys.readouterr().err,
    )


def test_raw_with_other_genes_is_for_markers_only(store):
    raw = np.hstack([COUNTS, COUNTS])
    root = store(LOG, raw=raw, raw_genes=80)
    with pytest.raises(
        ValueError, match=r"other genes than X \(80, X has 40\).*prepare\.py --layer"
    ):
        stored_matrix(root, "raw")
    with pytest.raises(ValueError, match=r"raw\} \(by hand prepare\.py --layer raw\)"):
        counts_of(root, needed_by="PCA")
    found, normalize = read_expression(root, "raw")
    assert found.var == "raw/var"
    assert normalize(next(row_blocks(found.values)), 0).max() > 5


def test_what_is_not_there(store):
    with pytest.raises(KeyError, match=r'no "count"; did you mean "counts".*counts, raw'):
        stored_matrix(store(LOG, raw=COUNTS, counts=COUNTS), "count")
    with pytest.raises(KeyError, match=r"has no X; name a --layer\. Available: counts"):
        stored_matrix(store(None, counts=COUNTS))
    assert read_expression(store(None, counts=COUNTS), None) == (None, None)


@pytest.mark.parametrize(
    ("X", "values", "normalized"),
    [(COUNTS, None, True), (COUNTS * 0.9, None, True), (LOG, None, False), (LOG, "counts", True),
     (COUNTS, "log-normalized", False)],
)  # fmt: skip
def test_markers_normalize_what_is_linear(store, X, values, normalized):
    found, normalize = read_expression(store(X), None, values)
    block = next(row_blocks(found.values))
    assert ((normalize(block, 0) != block).nnz > 0) == normalized


def test_markers_refuse_scaled_values(store):
    with pytest.raises(ValueError, match=r"evaluation: \{markers_layer: raw\}"):
        read_expression(store(LOG - 3, raw=COUNTS), None)


def test_a_wrong_value_has_names(store):
    X = COUNTS.copy()
    X[44, 7] = -2
    found = stored_matrix(store(LOG, umis=X), "umis")
    with pytest.raises(
        ValueError, match=r'layers/umis of .*: cell "cell44", gene "g7": every valu'
    ):
        read_counts(found, None)
    words = r'cell "cell44", gene "g7".*found -2\.0; are these scaled'
    with pytest.raises(ValueError, match=words), named_values(found):
        check_counts(X, first_cell=0)


# ---------------------------------------------------------------- genes


@pytest.fixture
def choose(tmp_path):
    adata = anndata.AnnData(sp.csr_matrix(COUNTS), **frames())
    adata.var["mt"] = np.arange(40) < 3
    adata.var["some"] = pd.array([True, None] * 20, dtype="boolean")
    adata.var["text"] = "x"
    adata.write_zarr(tmp_path / "genes.zarr")
    root = open_store(tmp_path / "genes.zarr")
    names = adata.var_names.to_numpy()

    def run(**hvg):
        choice = read_gene_choice(root, names, VariableGenesOptions(**hvg))
        return [None if mask is None else np.flatnonzero(mask).tolist() for mask in choice]

    return run


def test_genes_are_excluded_by_column_and_by_pattern(choose, capsys):
    excluded, used = choose(exclude=["mt", "^g3$", "9", "^ERCC"])
    assert excluded == [0, 1, 2, 3, 9, 19, 29, 39] and used is None
    assert capsys.readouterr().err.splitlines() == [
        "hvg.exclude mt (column of var): 3 genes",
        "hvg.exclude ^g3$ (names): 1 gene",
        "hvg.exclude 9 (names): 4 genes",
        "hvg.exclude ^ERCC (names): 0 genes: it matches nothing, genes are called g0, g1, g2 and "
        "37 more",
        "8 of 40 genes take no part in the choice",
    ]
    with pytest.raises(ValueError, match="excludes all 40 genes"):
        choose(exclude=["^g"])
    with pytest.raises(ValueError, match="nor a regular expression: missing"):
        check_options(VariableGenesOptions, {"exclude": ["("]})
    with pytest.raises(ValueError, match="would exclude every gene"):
        check_options(VariableGenesOptions, {"exclude": [""]})


def test_genes_of_a_column_or_file_are_used(choose, capsys, tmp_path):
    assert choose(use="mt") == [None, [0, 1, 2]]
    assert choose(use="some") == [None, list(range(0, 40, 2))]
    file = tmp_path / "genes.txt"
    file.write_text("# mine\ng5\n\ng1 # twice\r\ng1\nAPOE\n", encoding="utf-8")
    assert choose(use=str(file)) == [None, [1, 5]]
    assert "2 of 3 genes of" in (said := capsys.readouterr().err) and "are 1: APOE" in said
    file.write_text("APOE\nACTB\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"none of the 2 genes .*APOE, ACTB.* called g0, g1, g2"):
        choose(use=str(file))
    file.write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no name"):
        read_gene_list(file)
    with pytest.raises(ValueError, match="must be true or false"):
        choose(use="text")
    with pytest.raises(
        FileNotFoundError, match=r"neither a file nor a column of var\. Columns: mt"
    ):
        choose(use="nowhere")


def test_the_choice_is_kept_where_nothing_is_selected(choose):
    from preprocessing.gene_choice import GeneChoice

    excluded = np.arange(40) < 3
    genes, table = select_genes(list, 40, GeneChoice(excluded=excluded), n_top_genes=None)
    assert genes.tolist() == list(range(3, 40))
    assert np.array_equal(table["highly_variable"], ~excluded)
    assert select_genes(list, 40, GeneChoice(), n_top_genes=None) == (None, None)
