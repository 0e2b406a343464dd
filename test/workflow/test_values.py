"""What a matrix holds, on the command line: refused in one line, or the bits of counts."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from running import INPUT, read

PCA = "preprocessing/scripts/pca.py"
WORDS = ("--n_top_genes", 200, "--n_comps", 10)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Write the same cells with counts in X, in raw, in a layer, and as no counts at all."""
    folder = tmp_path_factory.mktemp("values")
    counts = anndata.read_h5ad(INPUT / "liu_mini.h5ad")
    counts = anndata.AnnData(counts.X, obs=counts.obs[["batch"]], var=counts.var[[]])
    counts.obs["leiden_1.0_1"] = pd.Categorical(np.where(np.arange(counts.n_obs) % 2, "0", "1"))
    log = counts.copy()
    log.X = sp.csr_matrix(log.X / log.X.sum(axis=1) * 1e4).log1p()
    adatas = {"counts": counts, "log": log, "in_raw": log.copy(), "in_layer": log.copy()}
    adatas["in_raw"].raw = counts
    adatas["in_layer"].layers["umis"] = counts.X
    twice = sp.csr_matrix(counts.X, dtype="float32")
    halves = [np.repeat(part, 2) for part in (twice.data / 2, twice.indices)]
    adatas["twice"] = counts.copy()
    adatas["twice"].X = sp.csr_matrix((*halves, twice.indptr * 2), shape=twice.shape)
    for name, adata in adatas.items():
        adata.write_zarr(folder / f"{name}.zarr")
    return folder


def components(script, source, out, *words):
    script(PCA, source, out, *WORDS, *words)
    return read(out).obsm["X_pca"]


def test_components_of_counts_wherever_they_are(script, made, tmp_path):
    expected = components(script, made / "counts.zarr", tmp_path / "a.zarr")
    for name, words in {
        "in_raw": ("--layer", "raw"),
        "in_layer": ("--layer", "umis"),
        "twice": (),
    }.items():
        found = components(script, made / f"{name}.zarr", tmp_path / f"{name}.zarr", *words)
        np.testing.assert_array_equal(found, expected)


STEPS = {
    PCA: WORDS,
    "integration/scripts/mnn.py": ("--method", "fast_mnn", "--batch", "batch"),
    "integration/scripts/topics.py": (),
    "clustering/scripts/clustering.py": ("--level", 2, "--refine", "pca"),
}


@pytest.mark.parametrize("step", STEPS)
def test_every_step_refuses_logarithms_in_one_line(script, made, tmp_path, step):
    done = script(step, made / "in_raw.zarr", tmp_path / "o.zarr", *STEPS[step], check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "holds log-normalized values (largest 8.9" in done.stderr
    assert "in raw/X: write preprocessing: {layer: raw} (by hand --layer raw)" in done.stderr
    assert not any(tmp_path.iterdir())


def test_markers_of_raw_are_those_of_counts(script, made, tmp_path):
    tables = []
    for name, words in (("counts", ()), ("in_raw", ("--markers_layer", "raw"))):
        out = tmp_path / f"{name}.tsv"
        script("evaluation/scripts/markers.py", made / f"{name}.zarr", out, "--clusters",
               "leiden_1.0_1", *words)  # fmt: skip
        tables.append(out.read_text())
    assert tables[0] == tables[1]


def test_genes_of_a_list_and_excluded_ones(script, made, tmp_path):
    names = list(read(made / "counts.zarr").var_names)
    (tmp_path / "genes.txt").write_text("\n".join([*names[:30], "no_gene"]), encoding="utf-8")
    use = f'{{"use": "{tmp_path}/genes.txt"}}'
    done = script(PCA, made / "counts.zarr", tmp_path / "use.zarr", "--hvg", use, "--n_comps", 9)
    assert "30 of 31 genes" in done.stderr and "no_gene" in done.stderr
    assert np.flatnonzero(read(tmp_path / "use.zarr").var["highly_variable"]).tolist() == [
        *range(30)
    ]
    done = script(PCA, made / "counts.zarr", tmp_path / "o.zarr", "--hvg", use, *WORDS, check=False)
    assert done.returncode == 2 and "n_top_genes would have no effect" in done.stderr
    exclude = '{"exclude": ["^A", "^no gene"]}'
    script(PCA, made / "counts.zarr", tmp_path / "ex.zarr", "--hvg", exclude, *WORDS)
    var = read(tmp_path / "ex.zarr").var
    assert var["highly_variable"].sum() == 200
    assert not var["highly_variable"][var.index.str.startswith("A")].any()
