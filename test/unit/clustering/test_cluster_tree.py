"""The tree of clusters: sizes add up, every cluster stands below its parent, whatever its name."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustering.cluster_tree import cluster_tree, newick, parent_codes

NAMES = st.text(st.sampled_from("ab01_ ,;:()[]'\"&=\\/.-é漢"), min_size=1, max_size=5)


def coded(labels):
    values = pd.Categorical(labels)
    return np.asarray(values.codes), list(values.categories)


def read_newick(text):
    """Read a file of trees as the format is defined: {tree: [(name, parent, n_cells), ...]}."""
    token = re.compile(r"'(?:[^']|'')*'|\[&&NHX:n=\d+\]|:1|[(),;\n]|[^\s()\[\]':;,]+")
    tokens = token.findall(text)
    assert "".join(tokens) == text, "something in it is no Newick"
    trees, at = {}, 0

    def take():
        nonlocal at
        at += 1
        return tokens[at - 1]

    def node():
        nonlocal at
        children = []
        if tokens[at] == "(":
            while take() in "(,":
                children.append(node())
                assert tokens[at] in ",)"
        name = take()
        name = name[1:-1].replace("''", "'") if name[0] == "'" else name
        n_cells = int(re.search(r"\d+", take())[0]) if tokens[at] == ":1" and take() else None
        return name, n_cells, children

    def walk(children, parent):
        for name, n_cells, below in children:
            yield name, parent, n_cells
            yield from walk(below, name)

    while at < len(tokens):
        name, _, children = node()
        assert (take(), take()) == (";", "\n")
        trees[name] = sorted(walk(children, ""))
    return trees


def agree(rows):
    """Whether the Newick text holds what the rows do."""
    expected = {}
    for tree, _, _, name, parent, n_cells, *_ in rows:
        expected.setdefault(tree, []).append((name, parent, n_cells))
    return read_newick(newick(rows)) == {tree: sorted(nodes) for tree, nodes in expected.items()}


def test_a_small_tree():
    rows = cluster_tree(
        {
            "leiden_1.0_2": coded(["0_0", "0_1", "0_0", "1_0", None]),
            "leiden_1.0_1": coded(["0", "0", "0", "1", "1"]),
            "leiden_0.5_1": coded(["0"] * 5),
            "leiden_1e-05_1": coded(["0"] * 5),
        }
    )
    assert rows == [
        ("leiden_1e-05", 1, "leiden_1e-05_1", "0", "", 5, "", ""),
        ("leiden_0.5", 1, "leiden_0.5_1", "0", "", 5, "", ""),
        ("leiden_1.0", 1, "leiden_1.0_1", "0", "", 3, "", ""),
        ("leiden_1.0", 1, "leiden_1.0_1", "1", "", 2, "", ""),
        ("leiden_1.0", 2, "leiden_1.0_2", "0_0", "0", 2, "", ""),
        ("leiden_1.0", 2, "leiden_1.0_2", "0_1", "0", 1, "", ""),
        ("leiden_1.0", 2, "leiden_1.0_2", "1_0", "1", 1, "", ""),
    ]
    assert newick(rows) == (
        "(0:1[&&NHX:n=5])leiden_1e-05;\n"
        "(0:1[&&NHX:n=5])leiden_0.5;\n"
        "((0_0:1[&&NHX:n=2],0_1:1[&&NHX:n=1])0:1[&&NHX:n=3],"
        "(1_0:1[&&NHX:n=1])1:1[&&NHX:n=2])leiden_1.0;\n"
    )
    assert agree(rows)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1))
def test_children_add_up_to_their_parent(cells):
    columns = {
        f"louvain_2.0_{level}": coded(["_".join(map(str, c[:level])) for c in cells])
        for level in (1, 2, 3)
    }
    rows = cluster_tree(columns)
    size = {row[3]: row[5] for row in rows}
    for level in (1, 2, 3):
        assert sum(row[5] for row in rows if row[1] == level) == len(cells)
    for name, n_cells in size.items():
        children = [row[5] for row in rows if row[4] == name]
        assert not children or sum(children) == n_cells
    assert newick(rows).count("NHX") == len(rows)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(NAMES, min_size=1, max_size=4, unique=True),
    st.lists(NAMES, min_size=1, max_size=9, unique=True),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=40),
)
def test_parents_are_those_of_the_cells_and_newick_comes_back(above, below, cells):
    """Any names, at any level, also the same ones: `below` is cut up among `above` at random."""
    first = [above[i % len(above)] for i, _ in cells]
    owner = {name: above[i % len(above)] for i, name in enumerate(below)}
    second = []
    for parent, (_, j) in zip(first, cells, strict=True):
        children = [name for name in below if owner[name] == parent]
        second.append(children[j % len(children)] if children else None)
    columns = {"leiden_1.0_1": coded(first), "leiden_1.0_2": coded(second)}
    rows = cluster_tree(columns)
    assert agree(rows)
    for tree, level, _, name, parent, n_cells, *_ in rows:
        assert tree == "leiden_1.0"
        assert parent == (owner[name] if level == 2 else "")
        assert n_cells == (second if level == 2 else first).count(name)
    assert {row[3] for row in rows if row[1] == 1} == set(first)
    assert {row[3] for row in rows if row[1] == 2} == set(second) - {None}


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (["a", "a", "b", "b"], 'cells of "a" are in "x" and "y"'),
        (["a", "b", "b", "c"], 'cells of "b" are in "y" and "z"'),
        (["a", "b", "b", "b"], 'cells of "b" are in no cluster and "y"'),
    ],
)
def test_levels_that_do_not_nest_are_trees_of_their_own_and_that_is_said(second, words, capsys):
    first = ["x", "y", "z", "z"] if "no cluster" not in words else ["x", "y", None, "y"]
    columns = {
        "leiden_1.0_1": coded(first),
        "leiden_1.0_2": coded(second),
        "leiden_1.0_3": coded([f"{name}_0" for name in second]),
    }
    rows = cluster_tree(columns)
    assert {row[0] for row in rows if row[1] == 1} == {"leiden_1.0"}
    assert {row[0] for row in rows if row[1] > 1} == {"leiden_1.0_2"}
    assert {row[4] for row in rows if row[1] < 3} == {""}
    assert {row[4] for row in rows if row[1] == 3} == set(second)
    assert agree(rows)
    said = capsys.readouterr().err
    assert f"leiden_1.0_2 does not lie within leiden_1.0_1: {words}" in said
    assert len(said.splitlines()) == 1


def test_parents_without_children_and_clusters_without_cells():
    assert parent_codes(np.array([0, 2, -1]), 3, np.array([1, 0, 0])).tolist() == [1, -1, 0]
    assert parent_codes(np.array([0, 0]), 1, np.array([0, -1])) is None
    rows = cluster_tree({"leiden_1.0_1": (np.array([1, 1]), ["none here", "b"])})
    assert [row[3:] for row in rows] == [("b", "", 2, "", "")]


def test_other_columns_are_refused():
    with pytest.raises(ValueError, match='"cell_type" is not the name of a cluster column'):
        cluster_tree({"cell_type": coded(["a"])})


def test_the_verdict_of_the_split_that_separates_a_cluster():
    def split(left, right, verdict, p):
        return {"left": left.split(), "right": right.split(), "verdict": verdict, "p": p}

    splits = [
        split("0 2", "1", "distinct", 1e-9),
        split("0", "2", "gradual", 0.01),
        split("1", "1", "absent", 0.7),
    ]
    columns = {"leiden_1.0_1": coded([*"001122"]), "leiden_1.0_2": coded(["0_0"] * 6)}
    rows = cluster_tree(columns, {"leiden_1.0_1": splits})
    found = {row[3]: row[6:] for row in rows}
    assert found["0"] == found["2"] == ("gradual", 0.01)
    assert found["1"] == ("distinct", 1e-9), "what is joined separates nothing"
    assert found["0_0"] == ("", "")
