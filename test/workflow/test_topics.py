"""Topics as a method of the workflow, and the script by hand, on real counts."""

import json

import numpy as np
import pandas as pd
import pytest
from running import INPUT, read, snakemake, write_config

SCRIPT = "integration/scripts/topics.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run topics, and Harmony on the topics; return the folder."""
    folder = tmp_path_factory.mktemp("topics")
    config = write_config(
        folder,
        pancreas={
            "input": {"preprocessing": str(INPUT / "pancreas_mini.h5ad")},
            "preprocessing": {"n_top_genes": 800, "n_comps": 20},
            "integration": {
                "batch": "batch",
                "methods": {
                    "topics": {"n_topics": 10, "groups": "cell_type"},
                    "harmonized": {"method": "harmony", "basis": "X_topics"},
                },
            },
        },
    )
    results = "results/pancreas"
    targets = [f"{results}/{name}/embedding.zarr" for name in ("topics", "harmonized")]
    targets.append(f"{results}/topics/topics/structure.png")
    snakemake(folder, *targets, "--configfile", config)
    return folder / results


def test_the_method_in_the_workflow(run):
    adata = read(run / "topics" / "embedding.zarr")
    weights = adata.obsm["X_topics"]
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    topics = adata.varm["topics"]
    assert (np.isnan(topics).all(axis=1) == ~adata.var["highly_variable"]).all()
    np.testing.assert_allclose(np.nansum(topics, axis=0), 1, rtol=1e-5)
    total = np.asarray(adata[:, adata.var["highly_variable"]].X.sum(axis=1)).ravel()
    np.testing.assert_allclose(adata.obs["topic_scale"], total, rtol=1e-3)
    record = json.loads(adata.uns["X_topics"])
    assert record["converged"] and record["residual"] < 2e-3 and record["n_genes"] == 800
    # Some topic tells each of the large cell types from all other cells.
    for name in ("Alpha cells", "Acinar cells", "Ductal cells"):
        inside = (adata.obs["cell_type"] == name).to_numpy()
        assert (weights[inside].mean(axis=0) - weights[~inside].mean(axis=0)).max() > 0.4
    table = pd.read_csv(run / "topics" / "topics" / "top_genes.tsv", sep="\t")
    assert len(table) == 200 and set(table["gene"]) <= set(adata.var_names)
    assert (run / "topics" / "topics" / "structure.png").stat().st_size > 10_000


def test_the_structure_plot_by_hand(script, run, tmp_path):
    source, plot = run / "topics" / "embedding.zarr", "evaluation/scripts/structure.py"
    script(plot, source, tmp_path / "by_hand.png", "--groups", "cell_type")
    workflow = run / "topics" / "topics" / "structure.png"
    assert (tmp_path / "by_hand.png").read_bytes() == workflow.read_bytes()
    for name, options, words in (
        ("x.jpeg", [], "a figure is written as .png, .pdf or .svg"),
        ("x.png", ["--groups", "cel_type"], 'did you mean "cell_type"?'),
        ("x.png", ["--key", "X_topic"], 'did you mean "X_topics"?'),
    ):
        done = script(plot, source, tmp_path / name, *options, check=False)
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
        assert not (tmp_path / name).exists()


def test_another_method_starts_from_the_topics(run):
    adata = read(run / "harmonized" / "embedding.zarr")
    assert adata.obsm["X_harmonized"].shape == adata.obsm["X_topics"].shape
    assert adata.varm["topics"].shape == (1500, 10)


def test_the_script_by_hand(script, tmp_path):
    source = INPUT / "pancreas_mini.h5ad"
    options = ["--n_topics", 5, "--max_iter", 8]
    found = []
    for threads in (1, 2):
        out = tmp_path / f"{threads}.zarr"
        script(SCRIPT, source, out, "--threads", threads, *options, "--key_added", "X_five")
        found.append(read(out))
    one, two = found
    assert (one.obsm["X_five"] == two.obsm["X_five"]).all()
    assert (one.varm["topics"] == two.varm["topics"]).all()
    script(SCRIPT, source, tmp_path / "lda.zarr", "--model", "lda", "--n_topics", 3)
    assert read(tmp_path / "lda.zarr").obsm["X_topics"].shape == (766, 3)


def test_the_number_of_topics_is_chosen(script, tmp_path):
    source, out = INPUT / "liu_mini.h5ad", tmp_path / "out.zarr"
    done = script(SCRIPT, source, out, "--max_iter", 5)
    adata = read(out)
    record = json.loads(adata.uns["X_topics"])
    selection = record["n_topics_selection"]
    assert record["params"]["n_topics"] == selection["n_topics"] == adata.obsm["X_topics"].shape[1]
    assert (
        selection["n_topics"]
        in selection["ladder"]
        == [10, 15, 20, 30, 40][: len(selection["deviances"])]
    )
    assert f"n_topics: {selection['n_topics']}, the fewest within a standard error" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--n_topics", 5000], "n_topics must be less than the cells and genes"),
        (["--layer", "cuonts"], 'adata.layers has no "cuonts"'),
        (["--groups", "cel_type"], 'did you mean "cell_type"?'),
        (["--topic_prior", 1], "topic_prior has no effect with model: poisson_nmf"),
        (["--model", "lda", "--n_restarts", 3], "n_restarts has no effect with model: lda"),
        (["--n_topics", 2, "--max_iter", 0], "max_iter"),
    ],
)
def test_one_line_says_what_is_wrong(script, tmp_path, options, words):
    out = tmp_path / "out.zarr"
    done = script(SCRIPT, INPUT / "pancreas_mini.h5ad", out, *options, check=False)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not any(tmp_path.iterdir())


def test_normalized_values_are_refused(script, tmp_path):
    source = INPUT / "pbmc68k.h5ad"
    done = script(SCRIPT, source, tmp_path / "out.zarr", check=False)
    assert done.returncode == 2
    assert "scaled values (smallest" in done.stderr and done.stderr.count("\n") == 1
