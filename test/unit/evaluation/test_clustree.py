"""Trees and composition: right where the answer is known, drawn whatever the number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.clusters.composition import composition, composition_table
from evaluation.figures.charts import composition_chart
from evaluation.figures.clustree import draw_tree, place_nodes, stability, tree_tables
from evaluation.figures.page import save_figure
from evaluation.scores.metrics import Labeling


def layer(name, codes):
    codes = np.asarray(codes)
    return Labeling(name, codes, [str(i) for i in range(codes.max() + 1)])


def test_edges_and_parents():
    first, second = layer("a", [0, 0, 0, 0, 1, 1]), layer("b", [0, 0, 1, 1, 1, 2])
    nodes, edges = tree_tables([first, second])
    assert list(nodes["n_cells"]) == [4, 2, 2, 3, 1]
    assert list(nodes["parent"]) == ["", "", "0", "0", "1"]
    found = {(e.from_cluster, e.to_cluster): (e.n_cells, e.share_from, e.share_to)
             for e in edges.itertuples()}  # fmt: skip
    assert found["0", "1"] == (2, 0.5, pytest.approx(2 / 3))
    assert found["1", "1"] == (1, 0.5, pytest.approx(1 / 3))
    assert ("1", "0") not in found


def test_stability_by_hand():
    same = [0, 0, 1, 1]
    np.testing.assert_allclose(np.concatenate(stability([np.array(same)] * 3)), 1)
    one, two = stability([np.zeros(4, int), np.array(same)])
    np.testing.assert_allclose(one, [2 * 1 / 2**2])
    np.testing.assert_allclose(two, [0.5, 0.5])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(0, 3)), min_size=3))
def test_every_node_has_its_own_place(rows):
    codes = np.array(rows).T
    layers = []
    for i, values in enumerate(codes):
        layers.append(layer(str(i), np.unique(values, return_inverse=True)[1]))
    nodes, edges = tree_tables(layers)
    nodes["row"] = place_nodes(nodes)
    assert nodes["row"].notna().all()
    for _, part in nodes.groupby("column"):
        assert (np.diff(np.sort(part["row"])) > 0).all()
    assert edges.groupby(["to_column", "to_cluster"])["share_to"].sum().to_numpy() == pytest.approx(
        1
    )
    for values in stability([item.codes for item in layers]):
        assert ((values > 0) & (values <= 1 + 1e-9)).all()


@pytest.mark.parametrize("n", [5, 300])
def test_trees_and_bars_are_drawn(tmp_path, n):
    rng = np.random.default_rng(0)
    fine = rng.integers(0, n, 3000)
    fine[:n] = np.arange(n)
    layers = [layer("leiden_1.0_1", fine // 3), layer("leiden_1.0_2", fine)]
    nodes, edges = tree_tables(layers)
    gradual = {("leiden_1.0_2", "1"), ("leiden_1.0_1", "0")}
    figure = draw_tree(nodes, edges, title="a tree", gradual=gradual)
    assert figure.get_size_inches().max() <= 41
    save_figure(figure, tmp_path / "tree.png")
    others = [layer("batch", rng.integers(0, 4, 3000)), layer("type", fine % 7)]
    bars, notes = composition(layers[1], others)
    save_figure(
        composition_chart(layers[1].groups, bars, title="x", notes=notes), tmp_path / "b.png"
    )
    assert all(path.stat().st_size > 5000 for path in tmp_path.iterdir())
    table = composition_table(layers[1], others)
    assert table.groupby(["by", "cluster"])["share"].sum().to_numpy() == pytest.approx(1)
    assert table.groupby("by")["n_cells"].sum().eq(3000).all()


def test_a_cluster_of_cells_that_had_no_cluster_has_no_parent(tmp_path):
    before = Labeling("a", np.array([0, 0, 1, -1, -1]), ["0", "1"])
    after = Labeling("b", np.array([0, 0, 1, 2, 2]), ["x", "y", "z"])
    nodes, edges = tree_tables([before, after])
    assert list(nodes["parent"]) == ["", "", "0", "1", ""]
    assert np.isfinite(place_nodes(nodes)).all()
    assert set(edges["to_cluster"]) == {"x", "y"}
    save_figure(draw_tree(nodes, edges, title="t"), tmp_path / "t.png")
