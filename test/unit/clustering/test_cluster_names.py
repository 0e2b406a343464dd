"""Names of cluster columns and of clusters: written and read in one place."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.cluster_names import (
    ALGORITHMS,
    ClusterColumn,
    check_names,
    child_name,
    column_above,
    deepest_level,
    families,
    is_below,
    matching_columns,
    natural_order,
    parse_column,
    resolution_text,
)
from clustering.communities import FLAVORS
from clustering.options import ClusteringOptions
from evaluation.stores import siblings
from utils.options import options_of

# What a person may call a cell type.
NAMES = st.text(st.sampled_from("aB0 1_.,;:()[]'\"$é漢-/"), min_size=1, max_size=6)
RESOLUTIONS = st.floats(0, exclude_min=True, allow_infinity=False, allow_nan=False)


@given(st.sampled_from(ALGORITHMS), RESOLUTIONS, st.integers(1, 20))
def test_every_name_that_is_written_is_read(algorithm, resolution, level):
    column = ClusterColumn(algorithm, resolution, level)
    assert parse_column(str(column)) == column
    assert str(column) == f"{algorithm}_{float(resolution)}_{level}"


@pytest.mark.parametrize(
    ("resolution", "text"), [(1, "1.0"), ("0.5", "0.5"), (1e-5, "1e-05"), (2e20, "2e+20")]
)
def test_resolutions_are_written_as_floats(resolution, text):
    assert resolution_text(resolution) == text
    assert str(parse_column(f"leiden_{text}_2")) == f"leiden_{text}_2"


@pytest.mark.parametrize(
    "name",
    ["cell_type", "leiden", "leiden_1.0", "leiden_1_1", "leiden_01.0_1", "leiden_1.0_0", "x_1_a",
     "leiden_1.0_01", "leiden_nan_1", "leiden_inf_1", "leiden_1e_1", "score_1.0_2", "leiden_1.0_1 ",
     "leiden_1..0_1", "leiden_1.0_\u0661", ""],
)  # fmt: skip
def test_other_columns_are_no_cluster_columns(name):
    assert parse_column(name) is None
    assert column_above(name, ["leiden_1.0_1"]) is None


def test_the_algorithms_are_those_of_the_config_and_of_the_communities():
    (items,) = get_args(options_of(ClusteringOptions)["algorithm"].type)
    assert get_args(items) == ALGORITHMS
    assert tuple(FLAVORS) == ALGORITHMS


def test_the_level_above():
    columns = ["leiden_1e-05_1", "leiden_1.0_1", "leiden_1.0_2", "louvain_1.0_3", "x"]
    assert column_above("leiden_1.0_2", columns) == "leiden_1.0_1"
    assert column_above("leiden_1.0_4", columns) == "leiden_1.0_2"
    assert column_above("leiden_1e-05_2", columns) == "leiden_1e-05_1"
    assert column_above("leiden_1.0_1", columns) is None
    assert column_above("louvain_1.0_2", columns) is None


def test_families_of_columns():
    columns = ["leiden_0.5_1", "leiden_10.0_1", "leiden_1e-05_1", "leiden_2.0_1", "leiden_0.5_2",
               "my_own_1", "x"]  # fmt: skip
    assert families(columns, fixed="level") == {
        "leiden resolutions": ["leiden_1e-05_1", "leiden_0.5_1", "leiden_2.0_1", "leiden_10.0_1"]
    }
    assert families(columns, fixed="resolution")["leiden_0.5 levels"] == [
        "leiden_0.5_1",
        "leiden_0.5_2",
    ]


@given(st.sets(st.tuples(NAMES, st.integers(0, 30)), max_size=12))
def test_two_parents_have_no_child_of_one_name(pairs):
    assert len({child_name(*pair) for pair in pairs}) == len(pairs)


@given(NAMES, st.lists(st.integers(0, 12), min_size=1, max_size=3))
def test_descendants(name, numbers):
    below = name
    for number in numbers:
        below = child_name(below, number)
    assert is_below(below, name)
    assert not is_below(name, below)
    assert not is_below(name, name)
    assert deepest_level(below) == deepest_level(name) + len(numbers)


def test_the_level_of_an_id():
    ids = {"3": 1, "3_0": 2, "3_0_12": 3, "CD4_Mem": 1, "CD4_Mem_0": 2, "Mono_1": 2, "a_": 1}
    assert {name: deepest_level(name) for name in ids} == ids
    assert not is_below("CD4_Mem", "CD4")
    assert not is_below("30_1", "3")


@pytest.mark.parametrize("name", ["", "a\tb", "a\nb", "a\rb", "a\n", "\x00", "a\x85b", "a\u2028b"])
def test_names_that_no_table_can_show_are_refused(name):
    with pytest.raises(
        ValueError, match=r"^obs has a cluster .*: rename it in the input$"
    ) as error:
        check_names(["3", name], "obs")
    assert len(str(error.value).splitlines()) == 1


@given(st.lists(NAMES))
def test_all_other_names_are_taken(names):
    check_names(names, "obs")


def test_natural_order():
    labels = ["10_2", "9_11", "9_2", "1", "10", "a_1", "1_0", "2_0_10", "2_0_9"]
    assert natural_order(labels) == [
        "1", "1_0", "2_0_9", "2_0_10", "9_2", "9_11", "10", "10_2", "a_1",
    ]  # fmt: skip


def test_siblings_have_one_parent():
    assert siblings(["a_b", "a", "a_b", "a"]).tolist() == [1, 0, 1, 0]
    assert siblings(["", ""]).tolist() == [0, 0]


COLUMNS = ["leiden_0.2_10", "leiden_0.2_2", "leiden_0.2_1", "leiden_0.25_1", "louvain_0.2_1",
           "leiden_0.2_x", "type", "odd_*"]  # fmt: skip


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["leiden_0.2_*"], ["leiden_0.2_1", "leiden_0.2_2", "leiden_0.2_10"]),
        (["*_1"], ["leiden_0.2_1", "leiden_0.25_1", "louvain_0.2_1"]),
        (["type", "leiden_0.2_?", "leiden_0.2_1"], ["type", "leiden_0.2_1", "leiden_0.2_2"]),
        (["odd_*"], ["odd_*"]),
        (["missing"], ["missing"]),
        ([], []),
    ],
)
def test_patterns_mean_cluster_columns_in_the_order_of_levels(patterns, names):
    assert matching_columns(patterns, COLUMNS) == names


@pytest.mark.parametrize("pattern", ["leiden_0.3_*", "typ?", "[ab]*"])
def test_a_pattern_without_a_match_is_refused(pattern):
    with pytest.raises(KeyError, match=r"no cluster column that matches .* leiden_0\.2_1"):
        matching_columns([pattern], COLUMNS)
