"""Doublets in the workflow: scores of cells, clusters with their marks, a warning on the page."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from running import read, snakemake, write_config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run the workflow on cells of three types, with doublets of any two; return the folder."""
    folder = tmp_path_factory.mktemp("doublets")
    rng = np.random.default_rng(0)
    profiles = rng.gamma(0.3, 1, (3, 600)) + 0.01
    types = rng.integers(0, 3, 1200)
    counts = rng.poisson(profiles[types] / profiles[types].sum(axis=1, keepdims=True) * 1500)
    first, second = rng.integers(0, 1200, (2, 150))
    different = types[first] != types[second]
    first, second = first[different], second[different]
    X = np.vstack([counts, counts[first] + counts[second]]).astype(np.float32)
    truth = [*types.astype(str), *["doublet"] * len(first)]
    names = [f"c{i}" for i in range(len(X))]
    obs = pd.DataFrame({"truth": pd.Categorical(truth), "lane": "one"}, index=names)
    anndata.AnnData(sp.csr_matrix(X), obs=obs).write_h5ad(folder / "cells.h5ad")
    config = write_config(
        folder,
        cells={
            "input": {"preprocessing": "cells.h5ad"},
            "preprocessing": {
                "n_top_genes": 300,
                "n_comps": 10,
                "doublets": True,
                "sample_key": "lane",
            },
            "clustering": {"resolutions": [0.5], "umap_colors": ["truth", "doublet_score"]},
        },
    )
    snakemake(folder, "--configfile", config)
    return folder / "results" / "cells"


def test_scores_are_columns_of_the_atlas(run):
    obs = read(run / "unintegrated/atlas.zarr").obs
    inside = (obs["truth"] == "doublet").to_numpy()
    assert obs["doublet_like"][inside].mean() > 0.5 > 0.05 > obs["doublet_like"][~inside].mean()
    assert obs["relative_counts"][inside].median() > 1.8
    assert (run / "unintegrated/plots/doublet_score.png").exists()


def test_their_cluster_is_warned_of(run):
    table = pd.read_csv(run / "unintegrated/doublets.tsv", sep="\t", dtype={"cluster": str})
    obs = read(run / "unintegrated/atlas.zarr").obs
    share = (obs["truth"] == "doublet").groupby(obs["leiden_0.5_1"], observed=True).mean()
    assert set(table.loc[table["flagged"] == "yes", "cluster"]) == set(share.index[share > 0.5])
    warnings = pd.read_csv(run / "comparison/warnings.tsv", sep="\t")
    assert list(warnings["warning"]) == ["doublets"] * 3, "one for each pair of types"
    assert (run / "explorer.html").exists()
