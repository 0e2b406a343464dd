"""The tree of clusters: sizes add up, every cluster stands below its parent."""

from __future__ import annotations

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from clustering.tree import cluster_tree, newick


def coded(labels):
    values = pd.Categorical(labels)
    return values.codes, list(values.categories)


def test_a_small_tree():
    rows = cluster_tree(
        {
            "leiden_1.0_2": coded(["0_0", "0_1", "0_0", "1_0", None]),
            "leiden_1.0_1": coded(["0", "0", "0", "1", "1"]),
            "leiden_0.5_1": coded(["0"] * 5),
        }
    )
    assert rows == [
        ("leiden_0.5", 1, "leiden_0.5_1", "0", "", 5),
        ("leiden_1.0", 1, "leiden_1.0_1", "0", "", 3),
        ("leiden_1.0", 1, "leiden_1.0_1", "1", "", 2),
        ("leiden_1.0", 2, "leiden_1.0_2", "0_0", "0", 2),
        ("leiden_1.0", 2, "leiden_1.0_2", "0_1", "0", 1),
        ("leiden_1.0", 2, "leiden_1.0_2", "1_0", "1", 1),
    ]
    assert newick(rows) == (
        "(0:1[&&NHX:n=5])leiden_0.5;\n"
        "((0_0:1[&&NHX:n=2],0_1:1[&&NHX:n=1])0:1[&&NHX:n=3],"
        "(1_0:1[&&NHX:n=1])1:1[&&NHX:n=2])leiden_1.0;\n"
    )


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
