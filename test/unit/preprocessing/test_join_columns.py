"""A column of several files as one: values and missing values as they were, in any order."""

import itertools

import anndata
import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.join_columns import join_column, join_obs, join_var
from utils.io import new_store, write_element


def _ints(missing):
    return pd.array([3, 1, None if missing else 2, 3], dtype="Int64")


COLUMNS = {
    "int64": np.array([1, 2, 2, -5]),
    "large": np.array([2**60 + 1, 1, 2, 3]),
    "float": np.array([0.5, np.nan, 1.0, 2.0]),
    "Int64 missing": _ints(missing=True),
    "bool": np.array([True, False, True, True]),
    "boolean": pd.array([True, None, False, True], dtype="boolean"),
    "text": np.array(["1", "True", "b", "nan"], dtype=object),
    "text missing": pd.array(["a", None, "<NA>", "1.0"], dtype="string"),
    "categories": pd.Categorical(["b", "1", None, "b"], categories=["b", "1", "unused"]),
    "ordered": pd.Categorical(["lo", "hi", "lo", None], categories=["lo", "hi"], ordered=True),
    "categories int": pd.Categorical([1, 2, 2, None]),
    "categories bool": pd.Categorical([True, False, None, True]),
    "nothing": np.full(4, np.nan),
    "no category": pd.Categorical([None] * 4, categories=["x"]),
}


def _file(name, tag):
    index = [f"{tag}{i}" for i in range(4)]
    return pd.DataFrame({"donor": COLUMNS[name]}, index=index)


def _check(joined, names):
    before = pd.concat([_file(name, tag)["donor"].astype(object)
                        for tag, name in zip("abc", names, strict=False)])  # fmt: skip
    missing = before.isna().to_numpy()
    assert np.array_equal(joined.isna().to_numpy(), missing), names
    values, given_ = joined.astype(object)[~missing], before[~missing]
    if any(isinstance(value, str) for value in values):
        assert list(values) == list(map(str, given_)), names  # as each file writes it
    else:
        assert list(values) == list(given_), names


def test_two_files_of_any_types_open_in_plain_anndata(tmp_path):
    pairs = list(itertools.product(COLUMNS, repeat=2))
    frames = [
        pd.DataFrame({" + ".join(pair): COLUMNS[pair[i]] for pair in pairs},
                     index=[f"{tag}{cell}" for cell in range(4)])
        for i, tag in enumerate("ab")
    ]  # fmt: skip
    with new_store(tmp_path / "out.zarr") as store:
        write_element(store, "obs", join_obs(frames, ["a.h5ad", "b.h5ad"]))
        write_element(store, "var", pd.DataFrame(index=["g"]))
    obs = anndata.read_zarr(tmp_path / "out.zarr").obs
    for pair in pairs:
        _check(obs[" + ".join(pair)], pair)
    assert obs["ordered + ordered"].cat.ordered


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=3, max_size=3))
def test_three_files_in_any_order(names):
    frames = [_file(name, tag) for tag, name in zip("abc", names, strict=True)]
    found = []
    for order in ([0, 1, 2], [2, 0, 1]):
        joined = join_obs([frames[i] for i in order], ["a", "b", "c"])["donor"]
        found.append(joined.astype(object).sort_index())
    left, right = found
    assert np.array_equal(left.isna(), right.isna())
    assert list(left.dropna()) == list(right.dropna())


def test_whole_numbers_beyond_float64_are_kept():
    for name, first in (("float", str(2**60 + 1)), ("nothing", 2**60 + 1)):
        joined = join_column([COLUMNS["large"], COLUMNS[name]], 'obs["donor"]', ["A", "B"])
        assert pd.Series(joined).iloc[0] == first


def test_types_that_differ_are_said(capsys):
    join_column([COLUMNS["Int64 missing"], COLUMNS["text"]], 'obs["donor"]', ["A", "B"])
    assert 'obs["donor"] is Int64 in A, text in B: joined as text' in capsys.readouterr().err
    join_column([COLUMNS["Int64 missing"], COLUMNS["float"]], 'obs["donor"]', ["A", "B"])
    assert capsys.readouterr().err == ""


def test_columns_of_genes_are_kept_where_equal(capsys):
    one = pd.DataFrame({"chrom": ["1", "2", "X"], "gc": [0.1, np.nan, 0.3], "n": [1, 2, 3]},
                       index=["a", "b", "c"])  # fmt: skip
    other = pd.DataFrame({"gc": [0.3, 0.9, np.nan], "chrom": ["X", "9", "2"], "n": [3, 9, 9]},
                         index=["c", "d", "b"])  # fmt: skip
    other["chrom"] = other["chrom"].astype("category")
    names = np.array(["a", "b", "c", "d"], dtype=object)
    positions = [np.array([0, 1, 2, -1]), np.array([-1, 2, 0, 1])]
    joined = join_var([one, other], positions, names, ["A", "B"])
    assert list(joined["chrom"]) == ["1", "2", "X", "9"]
    assert joined["gc"].tolist()[::2] == [0.1, 0.3]
    assert np.isnan(joined["gc"].iloc[1])
    assert "dropped: 1 var column (n), not equal in all files" in capsys.readouterr().err
