"""The data of the explorer page: which cells are drawn, how values are packed, what is left out."""

from __future__ import annotations

import base64
import json
import re
import zlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.pack import (
    MISSING_CODE,
    Buffer,
    choose_cells,
    describe_column,
    pack_codes,
    quantize_layout,
)
from explorer.page import MethodResult, explorer_page
from explorer.page_trees import cluster_columns, cluster_trees


def unpacked(page: str) -> tuple[dict, bytes]:
    """Read the data as the page does: its description and its arrays."""
    data = re.search(r'id="data">([^<]*)<', page)[1]
    payload = zlib.decompress(base64.b64decode(data))
    start = 4 + int.from_bytes(payload[:4], "little")
    return json.loads(payload[4:start]), payload[start:]


def values(place: dict, data: bytes, n: int) -> np.ndarray:
    planes = np.frombuffer(data, np.uint8, place["bytes"] * n, place["at"]).reshape(-1, n)
    return planes[0] if len(planes) == 1 else planes[0] * np.uint16(256) + planes[1]


def cells(n: int, seed: int = 0) -> tuple[MethodResult, dict[str, pd.Series]]:
    """Make n cells in clusters of very different sizes, on two levels."""
    rng = np.random.default_rng(seed)
    first = np.minimum(rng.geometric(0.4, n) - 1, 9)
    clusters = {"leiden_1.0_1": pd.Series(first).astype(str)}
    clusters["leiden_1.0_2"] = clusters["leiden_1.0_1"] + "_" + pd.Series(first % 2).astype(str)
    columns = {"batch": pd.Series(rng.choice(list("abc"), n)), "score": pd.Series(rng.random(n))}
    return MethodResult("m", rng.normal(size=(n, 2)), clusters), columns


# ---------------------------------------------------------------- cells


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 3000),
    st.integers(10, 1000),
    st.lists(st.integers(1, 40), min_size=0, max_size=3),
    st.integers(0, 5),
)
def test_some_of_every_cluster_are_drawn(n, max_cells, sizes, seed):
    rng = np.random.default_rng(seed)
    clusterings = [rng.integers(-1, rng.integers(1, k + 1, n)) for k in sizes]
    rows = choose_cells(clusterings, n, max_cells=max_cells, seed=seed)
    assert (np.diff(rows) > 0).all()
    n_clusters = sum(len(np.unique(codes[codes >= 0])) for codes in clusterings)
    assert len(rows) == min(n, max_cells) if n_clusters <= max_cells else len(rows) <= n_clusters
    for codes in clusterings:
        assert set(codes[codes >= 0]) <= set(codes[rows])
    np.testing.assert_array_equal(
        rows, choose_cells(clusterings, n, max_cells=max_cells, seed=seed)
    )


def test_a_cluster_keeps_fifty_cells_and_the_rest_is_a_fair_sample():
    codes = np.repeat([0, 1, 2], [89_900, 10_000, 100])
    drawn = np.bincount(codes[choose_cells([codes], 100_000, max_cells=10_000)])
    assert drawn.sum() == 10_000
    assert drawn[2] >= 50
    assert 900 < drawn[1] < 1100


def test_the_page_says_that_it_shows_a_sample():
    method, columns = cells(3000)
    page = explorer_page([method], columns, title="x", max_cells=500)
    about, data = unpacked(page.html)
    assert (about["cells"], about["drawn"]) == (3000, 500)
    tree = about["methods"][0]["trees"][0]
    counts = pd.concat([method.clusters[c].value_counts() for c in tree["columns"]])
    sizes = dict(zip(tree["labels"], tree["sizes"], strict=True))
    assert sizes == counts.to_dict(), "sizes are those of all cells"
    nodes = np.array(tree["labels"])[values(tree["data"], data, 500)]
    np.testing.assert_array_equal(nodes, method.clusters["leiden_1.0_2"][page.rows])
    batch = about["columns"][0]
    names = np.array(batch["names"])[values(batch["data"], data, 500)]
    np.testing.assert_array_equal(names, columns["batch"][page.rows])


def test_the_page_stays_below_its_size():
    method, columns = cells(20_000)
    columns |= {f"noise {i}": pd.Series(np.random.default_rng(i).random(20_000)) for i in range(9)}
    page = explorer_page([method], columns, title="x", max_bytes=200_000)
    assert 120_000 < len(page.html) <= 200_000
    assert 1000 < len(page.rows) < 20_000
    with pytest.raises(ValueError, match=r"5,000 are allowed; give it fewer columns"):
        explorer_page([method], columns, title="x", max_bytes=5_000)


def test_the_same_bytes_in_every_run():
    method, columns = cells(2000)
    first, second = (explorer_page([method], columns, title="x", max_cells=300) for _ in range(2))
    assert first.html == second.html


# ---------------------------------------------------------------- values


@settings(deadline=None)
@given(st.lists(st.floats(-1e9, 1e9) | st.just(np.nan), min_size=1, max_size=50))
def test_numbers_come_back_to_one_step(numbers):
    numbers = np.array(numbers)
    if np.isnan(numbers).all():
        with pytest.raises(ValueError, match="no value"):
            describe_column(numbers, name="x")
        return
    about, steps = describe_column(numbers, name="x")
    np.testing.assert_array_equal(steps == MISSING_CODE, np.isnan(numbers))
    known = steps != MISSING_CODE
    found = about["min"] + about["step"] * steps[known]
    np.testing.assert_allclose(found, numbers[known], atol=about["step"], rtol=1e-9)
    assert about["missing"] == np.isnan(numbers).sum()
    assert about["low"] <= about["high"]


def test_whole_numbers_are_exact():
    about, steps = describe_column(np.arange(300, 2000), name="x")
    assert (about["min"], about["step"]) == (300, 1)
    assert json.loads(json.dumps(about)) == about
    np.testing.assert_array_equal(steps, np.arange(1700))


@pytest.mark.parametrize("n", [1, 254, 255, 256, 1000])
def test_codes_take_a_byte_where_they_fit(n):
    codes = np.append(np.arange(n), -1)
    packed = pack_codes(codes, n)
    assert packed.dtype == (np.uint8 if n <= 254 else np.uint16)
    missing = 255 if n <= 254 else MISSING_CODE
    np.testing.assert_array_equal(packed, np.append(np.arange(n), missing))
    buffer = Buffer()
    buffer.add(np.zeros(3, dtype=np.uint8))
    place = buffer.add(packed)
    np.testing.assert_array_equal(values(place, b"".join(buffer.parts), n + 1), packed)


def test_layouts_keep_their_shape():
    layout = np.array([[0, 0], [10, 0], [10, 5], [np.nan, 1], [5, np.inf]])
    steps = quantize_layout(layout)
    assert (steps[3:] == MISSING_CODE).all()
    np.testing.assert_allclose(steps[:3] - steps[0].astype(float), layout[:3] * 6553.4, atol=1)
    with pytest.raises(ValueError, match=r"must have shape \(cells, 2\)"):
        quantize_layout(layout[:, :1])
    with pytest.raises(ValueError, match="none of the 5 cells"):
        quantize_layout(layout * np.nan)


def test_what_is_left_out_is_named():
    method, columns = cells(1500)
    columns["barcode"] = pd.Series([f"cell {i}" for i in range(1500)])
    columns["empty"] = pd.Series([None] * 1500, dtype=object)
    about, _ = unpacked(explorer_page([method], columns, title="x", batch=["empty", "batch"]).html)
    why = {item["name"]: item["why"] for item in about["leftOut"]}
    assert why == {"barcode": "1,500 different values", "empty": "no value"}
    assert about["batch"] == ["batch"]
    assert [column["name"] for column in about["columns"]] == ["batch", "score"]


# ---------------------------------------------------------------- clusters


def test_cluster_columns_are_known_by_their_names():
    names = ["leiden_0.5_1", "louvain_1e-05_2", "cell_type", "leiden", "leiden_0.5", "x_1_a"]
    assert cluster_columns(names) == ["leiden_0.5_1", "louvain_1e-05_2"]


def test_levels_that_lie_within_each_other_are_one_tree():
    first = pd.Series(["0", "0", "1", "1", None])
    second = pd.Series(["0_0", "0_1", "1_0", "1_0", None])
    other = pd.Series(["0_0", "0_1", "0_1", "1_0", None])
    (tree,) = cluster_trees({"leiden_1.0_2": second, "leiden_1.0_1": first})
    assert tree.columns == ["leiden_1.0_1", "leiden_1.0_2"]
    assert tree.labels == ["0", "1", "0_0", "0_1", "1_0"]
    assert tree.parents == [-1, -1, 0, 0, 1]
    assert tree.levels == [0, 0, 1, 1, 1]
    assert tree.sizes == [2, 2, 1, 1, 2]
    np.testing.assert_array_equal(tree.deepest, [2, 3, 4, 4, -1])
    (named,) = cluster_trees({"leiden_1.0_1": first, "leiden_1.0_2": pd.Series([*"abcc", None])})
    assert (named.name, named.level_names) == ("leiden_1.0", ["1", "2"])
    assert named.parents == [-1, -1, 0, 0, 1], "parents are counted, not read from names"
    shorter = pd.Series(["0_0", None, "1_0", "1_0", None])
    third = pd.Series(["0_0_0", None, "1_0_0", "1_0_1", None])
    (tree,) = cluster_trees({"leiden_1.0_1": first, "leiden_1.0_2": shorter, "leiden_1.0_3": third})
    assert tree.parents == [-1, -1, 0, 1, 2, 3, 3]
    assert tree.sizes == [2, 2, 1, 2, 1, 1, 1]
    np.testing.assert_array_equal(tree.deepest, [4, 0, 5, 6, -1], "where a cell's labels end")
    astray = cluster_trees({"leiden_1.0_1": first, "leiden_1.0_2": shorter, "leiden_1.0_3": second})
    assert [t.name for t in astray] == ["leiden_1.0", "leiden_1.0_3"]
    for wrong in (other, second.fillna("0_0")):
        trees = cluster_trees({"leiden_1.0_1": first, "leiden_1.0_2": wrong})
        assert [t.columns for t in trees] == [["leiden_1.0_1"], ["leiden_1.0_2"]]
        assert [t.name for t in trees] == ["leiden_1.0", "leiden_1.0_2"]
        assert all(t.parents == [-1] * len(t.labels) for t in trees)


def test_warnings_are_listed():
    method, columns = cells(50)
    row = {"method": "m", "warning": "clisi", "where": "<b>", "figure": "0.9", "advice": "less"}
    about, _ = unpacked(
        explorer_page([method], columns, title="t", warnings=pd.DataFrame([row])).html
    )
    assert about["warnings"] == [row]
    about, _ = unpacked(explorer_page([method], columns, title="t").html)
    assert about["warnings"] == []


def test_an_atlas_without_clusters_or_metadata():
    about, _ = unpacked(
        explorer_page([MethodResult("m", np.eye(3)[:, :2], {})], {}, title="x").html
    )
    assert about["methods"][0]["trees"] == []
    assert about["columns"] == []


def test_tables_are_sorted_by_cluster():
    method, columns = cells(100)
    markers = pd.DataFrame({"column": "leiden_1.0_1", "cluster": [0, 0, 1], "rank": [1, 2, 1]})
    markers = markers.assign(auc=[1.23456, np.nan, 3], gene=list("abc"))
    about, _ = unpacked(explorer_page([method._replace(markers=markers)], columns, title="x").html)
    assert about["methods"][0]["markers"] == {
        "fields": ["gene", "auc"],
        "rows": {"leiden_1.0_1": {"0": [["a", 1.235], ["b", None]], "1": [["c", 3.0]]}},
    }
    splits = pd.DataFrame(
        {
            "column": "leiden_1.0_1",
            "left": ["0,2", "0", "1"],
            "right": ["1", "2", "1"],
            "verdict": ["distinct", "gradual", "absent"],
            "suggestion": ["keep", "keep", "merge"],
            "jaccard_left": [0.5, 0.6, 0.8],
            "jaccard_right": [0.9, np.nan, 0.8],
            "other": 1,
        }
    )
    about, _ = unpacked(explorer_page([method._replace(splits=splits)], columns, title="x").html)
    assert about["methods"][0]["splits"] == {
        "fields": ["verdict", "suggestion", "against", "jaccard"],
        "rows": {
            "leiden_1.0_1": {
                "0": [["gradual", "keep", "2", 0.6]],
                "1": [["distinct", "keep", "0,2", 0.9]],
                "2": [["gradual", "keep", "0", None]],
            }
        },
    }
    with pytest.raises(ValueError, match='no column "left"; it has column, cluster'):
        explorer_page([method._replace(splits=markers)], columns, title="x")


# ---------------------------------------------------------------- errors


@pytest.fixture
def atlas(tmp_path):
    from anndata import AnnData

    adata = AnnData(np.zeros((9, 1), dtype=np.float32))
    adata.obs["batch"] = pd.Categorical(list("aab") * 3)
    adata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(9, 2))
    path = tmp_path / "atlas.h5ad"
    adata.write_h5ad(path)
    adata[::-1].copy().write_h5ad(tmp_path / "other.h5ad")
    return path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--colors", "bach"], 'obs has no "bach"; did you mean "batch"?'),
        (["--basis", "X_tsne"], 'adata.obsm has no "X_tsne"'),
        (["--compare", "{other}"], "holds other cells than"),
        (["--names", "a", "b"], "--names has 2 entries for 1 atlases"),
        (["--markers", "none.tsv"], "none.tsv: no such file"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(script, atlas, tmp_path, options, words):
    options = [str(tmp_path / "other.h5ad") if word == "{other}" else word for word in options]
    out = tmp_path / "out" / "page.html"
    done = script("explorer/scripts/explorer.py", atlas, out, *options, check=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not out.exists()


def test_the_script_writes_a_page(script, atlas, tmp_path):
    out = tmp_path / "page.html"
    done = script("explorer/scripts/explorer.py", atlas, out, "--batch", "batch")
    assert "9 cells, 1 method, " in done.stderr
    assert unpacked(out.read_text(encoding="utf-8"))[0]["batch"] == ["batch"]
