"""The table of splits: what was tested, what it rests on, and what is suggested."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from clustering.cluster_names import join_names, parse_names
from evaluation.clusters.splits import SPLIT_COLUMNS, divisions_of, split_table
from evaluation.scores.metrics import Labeling
from evaluation.stores import read_table

FIRST = Labeling("leiden_1.0_1", np.repeat([0, 1, 2], [60, 50, 40]), ["0", "1", "2"])
SECOND = Labeling(
    "leiden_1.0_2",
    np.repeat([0, 1, 2, 3, 4], [30, 30, 50, 20, 20]),
    ["0_0", "0_1", "1_0", "2_0", "2_1"],
)
PARENTS = {"leiden_1.0_1": [""] * 3, "leiden_1.0_2": ["0", "0", "1", "2", "2"]}


def split(parent, left, right, verdict="distinct", p=1e-9, **more):
    return {
        "parent": parent, "left": left.split(), "right": right.split(), "n_left": 2, "n_right": 1,
        "alpha": 0.05, "p": p, "verdict": verdict, "auc": 0.9, "valley": 0.1, "joined": False,
        "markers_left": "INS (log2FC 3.0, AUC 0.95)", "markers_right": "", **more,
    }  # fmt: skip


def test_a_split_counts_if_all_above_it_do():
    splits = {
        "leiden_1.0_1": [split("all", "0", "1 2"), split("all", "1", "2", "absent", 0.7)],
        "leiden_1.0_2": [split("0", "0_0", "0_1", "gradual"), split("2", "2_0", "2_1")],
    }
    for columns in ([FIRST, SECOND], [SECOND, FIRST]):
        table = split_table(columns, splits, parents=PARENTS)
        assert list(table) == SPLIT_COLUMNS
        table = table.set_index(["left", "right"])
        assert table["significant"].to_dict() == {
            ("0", "1,2"): "yes", ("1", "2"): "no", ("0_0", "0_1"): "yes", ("2_0", "2_1"): "no",
        }  # fmt: skip
        assert table["suggestion"].to_dict() == {
            key: "keep" if value == "yes" else "merge"
            for key, value in table["significant"].items()
        }
        lost = table.loc["2_0", "2_1"]
        assert (lost["verdict"], lost["p"]) == ("absent", 1e-9)
        assert lost["reason"] == "a split above it is not significant (its own p 1e-09)"
        assert table.loc[("0_0", "0_1"), "reason"].startswith("more than noise (p 1e-09), without")
    alone = split_table([SECOND], splits, parents=PARENTS)
    assert set(alone["significant"]) == {"yes"}, "nothing is known of the level above"


def test_below_a_rejected_split_of_the_same_cluster():
    splits = [split("all", "0", "1 2", "absent", 0.2), split("all", "1", "2")]
    table = split_table([FIRST], {FIRST.name: splits}, parents=PARENTS)
    assert list(table["significant"]) == ["no", "no"]
    assert table["reason"][0] == "not told apart (p 0.2 > 0.05)"


def test_what_was_joined_is_listed():
    splits = [split("all", "0", "1 2"), split("all", "1", "1", "absent", 0.3, joined=True)]
    splits.append(split("all", "2", "2", "gradual", 0.01, joined=True))
    batch = Labeling("batch", np.arange(150) % 2, ["a", "b"])
    table = split_table([FIRST], {FIRST.name: splits}, parents=PARENTS, batch=batch)
    assert list(table["suggestion"]) == ["keep", "merge", "merge"]
    assert table["reason"][1] == "joined: not told apart (p 0.3 > 0.05)"
    assert table["reason"][2].startswith("joined: more than noise (p 0.01), without a gap")
    assert table["batch_entropy"].round(3).tolist() == [1, 1, 1]
    assert table["batch_entropy_left"].isna().tolist() == [False, True, True]


def test_robustness_and_batches_of_the_sides():
    robust = pd.DataFrame(
        {"column": FIRST.name, "cluster": ["0", "1", "2"], "jaccard": [0.9, 0.8, 0.3]}
    )
    batch = Labeling("batch", np.where(FIRST.codes == 0, 0, 1), ["a", "b"])
    table = split_table(
        [FIRST], {FIRST.name: [split("all", "0", "1 2"), split("all", "1", "2")]},
        parents=PARENTS, batch=batch, robustness=robust,
    )  # fmt: skip
    assert table["jaccard_left"].tolist() == [0.9, 0.8]
    assert table["jaccard_right"].tolist() == [0.3, 0.3]
    assert "dissolves (Jaccard 0.30)" in table["reason"][0]
    assert "along the batch (entropy 0.00 and 0.00 of 0.97)" in table["reason"][0]
    assert "along" not in table["reason"][1], "the parent is of one batch"
    assert table["markers_left"][0] == "INS (log2FC 3.0, AUC 0.95)"


def test_without_a_test_nothing_is_suggested():
    names = {"parent": "all", "left": ["0"], "right": ["1", "2"], "n_left": 60, "n_right": 90}
    below = split("0", "0_0", "0_1")
    table = split_table(
        [FIRST, SECOND], {FIRST.name: [names], SECOND.name: [below]}, parents=PARENTS
    )
    assert table.loc[0, ["p", "significant", "verdict", "suggestion"]].isna().all()
    assert table["reason"][0] == "not tested"
    assert table["suggestion"][1] == "keep"


def test_divisions():
    column = Labeling("leiden_1.0_2", np.array([0, 1, 1, 2, -1, 1, 3, 3]), list("abcd"))
    parents = ["x", "x", "y", ""]
    ((parent, names, division),) = divisions_of(column, parents, {"x": 0.3}.get)
    assert (parent, names, division.resolution) == ("x", ["b", "a"], 0.3)
    assert division.cells.tolist() == [0, 1, 2, 5]
    assert division.labels.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("names", [["0", "1"], ["B, memory", 'T "x"', "NK"], ["a\tb"], ["x"]])
def test_names_come_back(names, tmp_path):
    assert parse_names(join_names(names)) == names
    table = pd.DataFrame({"left": [join_names(names)], "right": ["NA"]})
    table.to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    back = read_table(tmp_path / "t.tsv")
    assert parse_names(back["left"][0]) == names
    assert back["right"][0] == "NA"


@pytest.fixture(scope="module")
def two_types(tmp_path_factory):
    """Write 400 cells of two types, cut in three: one cut is noise."""
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1], [200, 200])
    mean = np.exp(rng.normal(-0.5, 0.8, 300)) * np.ones((400, 1))
    mean[codes == 1, :60] *= 4
    counts = sp.csr_matrix(rng.poisson(mean).astype(np.float32))
    halves = codes * 2 + (codes == 1) * rng.integers(0, 2, 400)
    obs = pd.DataFrame(
        {"leiden_1.0_1": pd.Categorical(halves.astype(str)), "batch": list("ab") * 200},
        index=[f"c{i}" for i in range(400)],
    )
    adata = AnnData(counts, obs, pd.DataFrame(index=[f"g{i}" for i in range(300)]))
    adata.obsm["X_pca"] = np.log1p(counts.toarray()) @ rng.normal(size=(300, 10))
    path = tmp_path_factory.mktemp("splits") / "a.h5ad"
    adata.write_h5ad(path)
    adata.X = sp.csr_matrix(np.log1p(counts / counts.sum(axis=1)))
    adata.write_h5ad(path.with_name("log.h5ad"))
    del adata.X
    adata.write_h5ad(path.with_name("none.h5ad"))
    return path


def test_columns_of_the_input_are_tested_and_nothing_is_joined(two_types, script, tmp_path):
    out = tmp_path / "splits.tsv"
    words = ["--clusters", "leiden_1.0_1", "--batch", "batch"]
    done = script("evaluation/scripts/splits.py", two_types, out, *words)
    assert "2 splits, 1 to keep, 1 to merge" in done.stderr
    table = read_table(out)
    sides = [set(parse_names(table[side][0])) for side in ("left", "right")]
    assert sorted(sides, key=len) == [{"0"}, {"2", "3"}]
    assert list(table["significant"]) == ["yes", "no"]
    assert list(table["verdict"]) == ["distinct", "absent"]
    assert table["auc"][0] > 0.95
    shown = table["markers_left"][0] + table["markers_right"][0]
    assert int(shown.removeprefix("g").split()[0]) < 60, shown
    assert not table["markers_left"][1]
    again = tmp_path / "again.tsv"
    script("evaluation/scripts/splits.py", two_types, again, *words, "--threads", 2)
    assert again.read_text() == out.read_text()


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("log.h5ad", "not tested: "),
        ("none.h5ad", "there is no X: splits that were not tested by the clustering"),
    ],
)
def test_without_counts_that_is_said(two_types, script, tmp_path, file, said):
    out = tmp_path / "splits.tsv"
    source = two_types.with_name(file)
    done = script("evaluation/scripts/splits.py", source, out, "--clusters", "leiden_1.0_1")
    assert said in done.stderr
    table = read_table(out)
    assert len(table) == 2
    assert table[["p", "verdict", "suggestion"]].isna().all(axis=None)
