"""Cluster columns that come with the input, and graphs that are an integration of their own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zlib
from base64 import b64decode

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from running import INPUT, REPO, read, snakemake, write_config
from scipy.spatial import cKDTree

from clustering.cluster_names import parse_names
from clustering.communities import find_communities
from clustering.stores import foreign_graph

ODD = {
    "CD4_Mem": "T cell (CD4), memory",
    "CD4_Naive": "T cell [naive]; CD4's",
    "B_Mem": '"B" 1',
    "NK": " NK_1 ",
    "pDC": "3",
    "DC": "数_0",
}


def run(*words, check=True):
    command = [sys.executable, REPO / "workflow" / "clustering" / "scripts" / words[0], *words[1:]]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=check)


@pytest.fixture(scope="module")
def annotated(tmp_path_factory):
    """Run the small Liu data with its cell types as level 1; return the folder and the input."""
    folder = tmp_path_factory.mktemp("annotated")
    adata = anndata.read_h5ad(INPUT / "liu_mini.h5ad")
    types = adata.obs["cell_type"].astype(str).replace(ODD)
    types[:7] = np.nan
    categories = [*dict.fromkeys(types.dropna())]
    adata.obs["leiden_1.0_1"] = pd.Categorical(types, [*categories, "without cells"])
    adata.uns["leiden_1.0_1_colors"] = [f"#{i:06x}" for i in range(len(categories) + 1)]
    # Coarser than level 2, so it does not lie within it.
    adata.obs["leiden_1.0_3"] = pd.Categorical(np.arange(adata.n_obs) % 3)
    counts = sp.csr_matrix(adata.X, dtype=np.float32)
    basis = np.random.default_rng(0).normal(size=(adata.n_vars, 12))
    adata.obsm["X_pca"] = (counts.log1p() @ basis).astype(np.float32)
    adata.write_zarr(folder / "own.zarr")
    config = write_config(
        folder,
        liu={
            "input": {"clustering": "own.zarr"},
            "clustering": {
                "resolutions": [1, 1e-5],
                "hierarchy": 3,
                "neighbors": {"use_rep": "X_pca"},
            },
            "evaluation": {"rounds": 2, "n_markers": 2},
        },
    )
    done = snakemake(folder, "--configfile", config)
    return folder / "results/liu/unintegrated", adata, done.stdout + done.stderr


def clusters_of(obs, column):
    return obs[column].dropna().astype(str).value_counts().to_dict()


COLUMNS = [f"leiden_{resolution}_{level}" for resolution in ("1.0", "1e-05") for level in (1, 2, 3)]


def test_every_table_holds_every_cluster_and_cell(annotated):
    folder, adata, _ = annotated
    obs = read(folder / "atlas.zarr").obs
    given = adata.obs["leiden_1.0_1"].astype(object)
    assert obs["leiden_1.0_1"].astype(object).equals(given.rename("leiden_1.0_1"))
    text = {"cluster": str, "parent": str}
    tables = {
        name: pd.read_csv(folder / f"{name}.tsv", sep="\t", dtype=text, keep_default_na=False)
        for name in ("tree", "splits", "robustness", "resolutions")
    }
    nodes = pd.read_csv(folder / "trees/nodes.tsv", sep="\t", dtype=text, keep_default_na=False)
    for column in COLUMNS:
        expected = clusters_of(obs, column)
        for name in ("tree", "robustness"):
            rows = tables[name][tables[name]["column"] == column]
            sizes = dict(zip(rows["cluster"], rows["n_cells"], strict=True))
            assert sizes == expected, (name, column)
        rows = nodes[nodes["column"] == column].drop_duplicates("cluster")
        assert dict(zip(rows["cluster"], rows["n_cells"], strict=True)) == expected
    assert len(clusters_of(obs, "leiden_1.0_1")) == 17
    assert set(tables["resolutions"]["column"]) == {c for c in COLUMNS if c.endswith("_1")}
    pictures = {path.name for path in (folder / "trees").glob("tree_*.png")}
    assert "tree_leiden_1e-05_levels.png" in pictures
    assert "tree_leiden_resolutions.png" in pictures


def test_parents_are_counted_from_the_cells(annotated):
    folder, _, _ = annotated
    obs = read(folder / "atlas.zarr").obs
    tree = pd.read_csv(folder / "tree.tsv", sep="\t", dtype=str, keep_default_na=False)
    splits = pd.read_csv(folder / "splits.tsv", sep="\t", dtype=str, keep_default_na=False)
    pairs = obs[["leiden_1.0_2", "leiden_1.0_1"]].dropna().astype(str).drop_duplicates()
    expected = dict(pairs.to_numpy())
    assert (obs["leiden_1.0_1"].isna() == obs["leiden_1.0_2"].isna()).all()
    rows = tree[tree["column"] == "leiden_1.0_2"]
    assert dict(zip(rows["cluster"], rows["parent"], strict=True)) == expected
    rows = splits[splits["column"] == "leiden_1.0_2"]
    assert set(rows["parent"]) <= set(expected.values())
    for row in rows.itertuples():
        for child in (*parse_names(row.left), *parse_names(row.right)):
            assert expected[child] == row.parent
    for child, parent in expected.items():
        assert re.fullmatch(rf"{re.escape(parent)}_\d+", child)
    newick = (folder / "tree.nwk").read_text().splitlines()
    assert len(newick) == 3
    assert "'T cell [naive]; CD4''s'" in newick[1]
    assert newick[1].count("NHX") == len(tree[tree["tree"] == "leiden_1.0"])


def test_a_level_that_does_not_lie_within_the_one_above_is_kept_and_said(annotated):
    folder, adata, printed = annotated
    kept = read(folder / "atlas.zarr").obs["leiden_1.0_3"].astype(str)
    assert (kept == adata.obs["leiden_1.0_3"].astype(str)).all()
    assert "obs has leiden_1.0_3, which is kept" in printed
    assert "leiden_1.0_3 does not lie within leiden_1.0_2: cells of " in printed
    tree = pd.read_csv(folder / "tree.tsv", sep="\t", dtype=str, keep_default_na=False)
    assert set(tree["tree"][tree["column"] == "leiden_1.0_3"]) == {"leiden_1.0_3"}
    splits = pd.read_csv(folder / "splits.tsv", sep="\t", dtype=str)
    assert set(splits["parent"][splits["column"] == "leiden_1.0_3"]) == {"all"}


def test_colors_stay_with_their_clusters(annotated):
    folder, adata, _ = annotated
    atlas = read(folder / "atlas.zarr")
    before = dict(zip(adata.obs["leiden_1.0_1"].cat.categories,
                      adata.uns["leiden_1.0_1_colors"], strict=True))  # fmt: skip
    names = atlas.obs["leiden_1.0_1"].cat.categories
    assert list(atlas.uns["leiden_1.0_1_colors"]) == [before[name] for name in names]
    assert "without cells" not in names


def test_colors_of_other_clusters_are_let_go(annotated, tmp_path):
    folder, _, _ = annotated
    run("clustering.py", folder / "neighbors.zarr", tmp_path / "1.zarr", "--overwrite")
    run("merge.py", folder / "umap.zarr", tmp_path / "atlas.zarr", "--clustering",
        tmp_path / "1.zarr")  # fmt: skip
    for name in ("1.zarr", "atlas.zarr"):
        store = read(tmp_path / name)
        assert len(store.obs["leiden_1.0_1"].cat.categories) != 17
        assert "leiden_1.0_1" in store.uns
        assert "leiden_1.0_1_colors" not in store.uns


def test_what_came_with_the_input_cannot_be_made_again(annotated):
    folder, _, printed = annotated
    table = pd.read_csv(folder / "robustness.tsv", sep="\t").set_index("column")
    assert table.loc["leiden_1.0_1", "jaccard"].isna().all()
    assert table.loc["leiden_1.0_2", "jaccard"].notna().any()
    assert "leiden_1.0_1 came with the input: how it was clustered is not recorded" in printed
    record = json.loads(read(folder / "atlas.zarr").uns["leiden_1.0_2"])
    reasons = {why["reason"] for why in record["unsplit"].values()}
    assert reasons <= {"one_community", "too_few_cells", "children_too_small"}


def test_the_explorer_holds_all_of_them(annotated):
    folder, _, _ = annotated
    obs = read(folder / "atlas.zarr").obs
    page = (folder.parent / "explorer.html").read_text()
    data = zlib.decompress(b64decode(re.search(r'id="data">([^<]*)<', page)[1]))
    about = json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])
    trees = {tree["name"]: tree for tree in about["methods"][0]["trees"]}
    assert set(trees) == {"leiden_1.0", "leiden_1e-05", "leiden_1.0_3"}
    for tree in trees.values():
        for level, column in enumerate(tree["columns"]):
            nodes = [i for i, at in enumerate(tree["levels"]) if at == level]
            sizes = {tree["labels"][i]: tree["sizes"][i] for i in nodes}
            assert sizes == clusters_of(obs, column)
            for i in nodes:
                parent = tree["parents"][i]
                assert (parent < 0) == (level == 0)
    assert trees["leiden_1.0"]["columns"] == ["leiden_1.0_1", "leiden_1.0_2"]


def test_clusters_are_chosen_by_their_names(annotated, tmp_path):
    folder, _, _ = annotated
    level_1 = folder / "clustering/leiden_1.0_1.zarr"
    out = tmp_path / "two.zarr"
    words = ["clustering.py", level_1, out, "--level", 2]
    done = run(*words, "--hierarchy", json.dumps({ODD["CD4_Mem"]: 3, "数_0": 2, "NK_9": 1}))
    column = read(out).obs["leiden_1.0_2"].dropna().astype(str)
    several = column.groupby(column.str.rpartition("_")[0]).nunique()
    assert set(several[several > 1].index) <= {ODD["CD4_Mem"], "数_0"}
    assert several[ODD["CD4_Mem"]] > 1
    assert "NK_9" not in done.stderr, "it may be of a deeper level"
    deeper = ["clustering.py", out, tmp_path / "three.zarr", *words[3:4], 3, *words[5:]]
    failed = run(*deeper, "--hierarchy", '{"NK_9": 1, "数_0": 2}', check=False)
    assert failed.returncode == 2
    assert 'hierarchy: leiden_1.0_2 has no cluster "NK_9"' in failed.stderr.splitlines()[-1]
    done = run(*deeper, "--hierarchy", json.dumps({f"{ODD['CD4_Mem']}_0": 3, "数_0": 2}))
    third = read(tmp_path / "three.zarr").obs["leiden_1.0_3"].dropna().astype(str)
    assert (third.str.rpartition("_")[0] == column[third.index]).all()
    wrong = run(*words[:2], tmp_path / "no.zarr", *words[3:], "--hierarchy", '{"CD4_Memm": 1}',
                check=False)  # fmt: skip
    assert wrong.returncode == 2
    assert 'leiden_1.0_1 has no cluster "CD4_Memm"' in wrong.stderr
    assert not (tmp_path / "no.zarr").exists()


@pytest.mark.parametrize("kind", ["ints", "bools", "text"])
def test_level_1_of_every_kind(kind, tmp_path):
    rng = np.random.default_rng(0)
    values = {
        "ints": pd.Categorical(rng.integers(0, 12, 80)),
        "bools": rng.integers(0, 2, 80).astype(bool),
        "text": rng.choice(["x", "x_0", "x_0_0", "é (2)"], 80),
    }[kind]
    adata = anndata.AnnData(
        obs=pd.DataFrame({"leiden_1.0_1": values}, index=[f"c{i}" for i in range(80)]),
        obsm={"X_pca": rng.normal(size=(80, 5))},
    )
    adata.write_h5ad(tmp_path / "a.h5ad")
    run("clustering.py", tmp_path / "a.h5ad", tmp_path / "1.zarr")
    run("clustering.py", tmp_path / "1.zarr", tmp_path / "2.zarr", "--level", 2)
    first, second = (read(tmp_path / f"{i}.zarr").obs.iloc[:, 0] for i in (1, 2))
    assert (first.astype(str) == pd.Series(values).astype(str).to_numpy()).all()
    assert (second.astype(str).str.rpartition("_")[0] == first.astype(str)).all()


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a\tb", r'called "a\tb"'), ("a\nb", r'called "a\nb"'), ("", "without a name")],
)
def test_names_that_would_break_a_table_are_refused_where_they_enter(name, shown, tmp_path):
    adata = anndata.AnnData(
        obs=pd.DataFrame({"leiden_1.0_1": ["b", name]}, index=["x", "y"]),
        obsm={"X_pca": np.eye(2)},
    )
    adata.write_h5ad(tmp_path / "a.h5ad")
    for level in (1, 2):
        done = run("clustering.py", tmp_path / "a.h5ad", tmp_path / "o.zarr", "--level", level,
                   check=False)  # fmt: skip
        assert done.returncode == 2
        assert f'error: adata.obs["leiden_1.0_1"] has a cluster {shown}' in done.stderr
        assert not (tmp_path / "o.zarr").exists()


# ---------------------------------------------------------------- graphs


@pytest.fixture(scope="module")
def balanced(tmp_path_factory):
    """Write data whose batches are apart in X_pca and joined in a graph, as BBKNN's is."""
    rng = np.random.default_rng(0)
    n = 480
    batch, kind = rng.integers(0, 2, n), rng.integers(0, 4, n)
    middle = np.array([[0, 0], [0, 20], [200, 0], [200, 20]], dtype=float)[kind]
    biology = np.column_stack([middle + rng.normal(size=(n, 2)), rng.normal(size=(n, 2)) / 5])
    edges = []
    for one in (0, 1):
        cells = np.flatnonzero(batch == one)
        near = cKDTree(biology[cells]).query(biology, k=8)[1]
        edges += [(i, cells[j]) for i in range(n) for j in near[i] if cells[j] != i]
    # Some edges join kind 0 to 1 and kind 2 to 3: two clusters at level 1.
    edges += [(rng.choice(np.flatnonzero(kind == k)), rng.choice(np.flatnonzero(kind == k + 1)))
              for k in (0, 2) for _ in range(60)]  # fmt: skip
    rows, columns = np.array(edges).T
    graph = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(n, n))
    graph = graph.maximum(graph.T)
    params = {"n_neighbors": 6, "method": "umap", "metric": "euclidean", "use_rep": "X_pca",
              "bbknn": {"trim": 60, "batch_key": "batch"}}  # fmt: skip
    adata = anndata.AnnData(
        obs=pd.DataFrame({"batch": batch, "kind": kind}, index=[f"c{i}" for i in range(n)]),
        obsm={"X_pca": biology + 1000 * batch[:, None]},
        obsp={"connectivities": graph, "distances": graph},
        uns={"neighbors": {"connectivities_key": "connectivities",
                           "distances_key": "distances", "params": params}},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("balanced")
    adata.write_zarr(folder / "own.zarr")
    adata.write_h5ad(folder / "own.h5ad")
    run("clustering.py", folder / "own.zarr", folder / "1.zarr", "--resolution", 0.05)
    return folder, adata


def purity(labels, batch):
    """Mean share of the commonest batch in a cluster, by cell: 1 where no cluster mixes them."""
    table = pd.crosstab(np.asarray(labels.astype(str)), np.asarray(batch))
    return table.max(axis=1).sum() / len(labels)


def test_a_graph_that_integrates_is_said_and_can_be_split_itself(balanced, tmp_path):
    folder, adata = balanced
    batch = adata.obs["batch"]
    first = read(folder / "1.zarr").obs["leiden_0.05_1"]
    assert len(first.cat.categories) == 2
    assert purity(first, batch) < 0.65
    level_2 = ["clustering.py", folder / "1.zarr", "--level", 2, "--resolution", 0.15]
    searched = run(*level_2[:2], tmp_path / "s.zarr", *level_2[2:])
    line = (
        "uns/neighbors is not a plain nearest-neighbor graph (bbknn): neighbors within each "
        "cluster are computed in X_pca"
    )
    assert searched.stderr.count(line) == 1
    assert "refine: graph" in searched.stderr
    assert purity(read(tmp_path / "s.zarr").obs.iloc[:, 0], batch) > 0.95
    restricted = run(*level_2[:2], tmp_path / "g.zarr", *level_2[2:], "--refine", "graph")
    assert line not in restricted.stderr
    store = read(tmp_path / "g.zarr")
    second = store.obs.iloc[:, 0]
    assert purity(second, batch) < 0.65
    assert (second.astype(str).str.rpartition("_")[0] == first.astype(str)).all()
    kinds = pd.crosstab(second.to_numpy(), adata.obs["kind"].to_numpy())
    assert sorted(kinds.max()) == sorted(adata.obs["kind"].value_counts()), "two of each parent"
    record = json.loads(store.uns["leiden_0.05_2"])
    assert (record["refine"], record["use_rep"]) == ("graph", "obsp/connectivities")
    # As scanpy does with restrict_to: the communities of each parent's part of the graph.
    for parent in first.cat.categories:
        cells = np.flatnonzero(first == parent)
        part = adata.obsp["connectivities"][cells][:, cells]
        alone = find_communities(part, resolution=0.15)
        assert [f"{parent}_{i}" for i in alone] == second.iloc[cells].tolist()


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"method": "umap", "bbknn": {"batch_key": "b"}}, "bbknn"),
        ({"method": "wnn"}, "method wnn"),
        ({"n_multineighbors": 200, "use_rep": {"rna": "X_pca", "atac": "X_lsi"}}, "use_rep"),
        ({"method": "umap", "metric": "euclidean", "use_rep": "X_pca", "metric_kwds": {}}, ""),
        ({"method": "gauss", "random_state": 0, "n_pcs": 30}, ""),
        ({"method": "jaccard", "algorithm_kwds": {"nlist": 5}}, ""),
        ({}, ""),
    ],
)
def test_graphs_that_are_more_than_nearest_neighbors(params, name):
    assert foreign_graph(params) == name


def test_a_plain_graph_is_not_spoken_of(annotated):
    assert "not a plain nearest-neighbor graph" not in annotated[2]


def test_robustness_of_a_split_graph(balanced, tmp_path):
    folder, _ = balanced
    run("clustering.py", folder / "1.zarr", tmp_path / "2.zarr", "--level", 2, "--resolution", 0.15,
        "--refine", "graph")  # fmt: skip
    run("merge.py", folder / "own.zarr", tmp_path / "atlas.zarr", "--clustering", folder / "1.zarr",
        tmp_path / "2.zarr", "--tree", tmp_path / "tree.tsv")  # fmt: skip
    robustness = "../../evaluation/scripts/robustness.py"
    run(robustness, tmp_path / "atlas.zarr", tmp_path / "r.tsv", "--clusters", "leiden_0.05_1",
        "leiden_0.05_2", "--rounds", 3)  # fmt: skip
    table = pd.read_csv(tmp_path / "r.tsv", sep="\t")
    assert (table["jaccard"] > 0.8).all()
    assert table["column"].value_counts().to_dict() == {"leiden_0.05_2": 4, "leiden_0.05_1": 2}


def test_what_an_earlier_version_recorded_is_not_guessed_from_its_words(tmp_path):
    record = {"algorithm": "leiden", "level": 2, "clustering_args": {}, "parent": "leiden_1.0_1",
              "unsplit": {"0": "one community at resolution 1.0"}}  # fmt: skip
    obs = pd.DataFrame({"leiden_1.0_1": ["0"] * 9, "leiden_1.0_2": ["0_0"] * 9},
                       index=[f"c{i}" for i in range(9)])  # fmt: skip
    adata = anndata.AnnData(obs=obs, uns={"leiden_1.0_2": json.dumps(record)})
    adata.write_h5ad(tmp_path / "a.h5ad")
    done = run("../../evaluation/scripts/robustness.py", tmp_path / "a.h5ad", tmp_path / "r.tsv",
               "--clusters", "leiden_1.0_2")  # fmt: skip
    assert "leiden_1.0_2 was made by an earlier version" in done.stderr
    assert pd.read_csv(tmp_path / "r.tsv", sep="\t")["jaccard"].isna().all()


def test_a_graph_that_was_not_copied_is_one_line(balanced, tmp_path):
    folder, _ = balanced
    run("clustering.py", folder / "own.h5ad", tmp_path / "1.zarr", "--resolution", 0.05)
    done = run("clustering.py", tmp_path / "1.zarr", tmp_path / "2.zarr", "--level", 2,
               "--refine", "graph", check=False)  # fmt: skip
    assert done.returncode == 2
    assert "has no obsp/connectivities for --refine graph" in done.stderr.splitlines()[-1]
    assert "prepare.py" in done.stderr
    done = run("clustering.py", folder / "1.zarr", tmp_path / "2.zarr", "--level", 2, "--refine",
               "graph", "--neighbors_args", '{"n_neighbors": 9}', check=False)  # fmt: skip
    assert "--neighbors_args has no effect with --refine graph" in done.stderr
    assert not (tmp_path / "2.zarr").exists()
