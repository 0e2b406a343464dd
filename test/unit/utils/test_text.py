"""How text is written: for any anndata to read, whichever pandas is installed."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr

import utils.io
from utils.encoding import plain_text
from utils.h5ad import write_h5ad
from utils.io import new_store, open_store, write_element
from utils.links import ignores_case

NAMES = ["x", "y", "z"]


def encodings(group: zarr.Group) -> set[str]:
    """Return how the arrays below a group say that they are encoded."""
    found = {str(item.attrs.get("encoding-type")) for _, item in group.members(max_depth=None)}
    return found


@pytest.mark.parametrize("dtype", [object, "string", "category"])
def test_text_without_missing_values_is_a_string_array(tmp_path, dtype):
    frame = pd.DataFrame(
        {"text": pd.Series(NAMES, index=NAMES, dtype=dtype)}, index=pd.Index(NAMES, dtype="string")
    )
    with new_store(tmp_path / "a.zarr") as store:
        write_element(store, "obs", frame)
        write_element(store, "uns", {"names": np.array(NAMES, dtype=object), "table": frame})
        kinds = encodings(store)
    assert "string-array" in kinds
    assert "nullable-string-array" not in kinds


@pytest.mark.parametrize("values", [["x", None, "z"], pd.array(["x", pd.NA, "z"], dtype="string")])
def test_missing_text_stays_missing(tmp_path, values):
    frame = pd.DataFrame({"text": values}, index=pd.Index(NAMES, dtype=object))
    with new_store(tmp_path / "a.zarr") as store:
        write_element(store, "obs", frame)
        write_element(store, "obs/more", pd.Series(values, index=NAMES))
        write_element(store, "var", frame[[]])
        assert store["obs/text"].attrs["encoding-type"] == "nullable-string-array"
    obs = anndata.read_zarr(tmp_path / "a.zarr").obs
    for name in ("text", "more"):
        assert obs[name].isna().tolist() == [False, True, False]
        assert obs[name].dropna().tolist() == ["x", "z"]


def test_what_is_written_is_not_changed(tmp_path):
    frame = pd.DataFrame({"text": pd.array(NAMES, dtype="string")}, index=pd.Index(NAMES))
    before = frame.copy()
    with new_store(tmp_path / "a.zarr") as store:
        write_element(store, "obs", frame)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("values", [[1, None], [True, None], [{"a": 1}, None], [1.5, "x", None]])
def test_objects_that_are_no_text_are_not_made_text(values):
    array = np.array(values, dtype=object)
    assert plain_text(array) is array


def test_names_that_the_file_system_cannot_tell_apart_are_refused(tmp_path, monkeypatch):
    index = pd.Index(NAMES, dtype=object)
    frame = pd.DataFrame({"Batch": 1, "batch": 2}, index=index)
    with new_store(tmp_path / "a.zarr") as store:
        write_element(store, "obs", frame)
        write_element(store, "var", frame[[]])
        assert not ignores_case(Path(store.store.root))
    assert anndata.read_zarr(tmp_path / "a.zarr").obs.iloc[0].tolist() == [1, 2]

    monkeypatch.setattr(utils.io, "ignores_case", lambda store: True)
    line = 'has "Batch" and "batch", which are the same to the file system of the output'
    for value in (frame, dict(frame)):
        with pytest.raises(ValueError, match=line), new_store(tmp_path / "b.zarr") as store:
            write_element(store, "obs", value)
    with pytest.raises(ValueError, match=line), new_store(tmp_path / "b.zarr") as store:
        write_element(store, "obs", frame[["Batch"]])
        write_element(store, "obs/batch", frame["batch"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("name", ["ZARR.JSON", ".ZGROUP"])
def test_a_file_system_that_ignores_case_is_known_by_its_metadata(tmp_path, name):
    assert not ignores_case(tmp_path)
    (tmp_path / name).touch()
    assert ignores_case(tmp_path)


def test_a_file_for_older_versions_has_no_none_and_no_nullable_text(tmp_path, capsys):
    frame = pd.DataFrame({"text": pd.array(["x", pd.NA, "z"], dtype="string")}, index=NAMES)
    with new_store(tmp_path / "a.zarr") as store:
        write_element(store, "obs", frame)
        write_element(store, "var", frame)
        write_element(store, "uns", {"log1p": {"base": None}, "kept": {"a": 1}})
    write_h5ad(open_store(tmp_path / "a.zarr"), tmp_path / "a.h5ad")
    adata = anndata.read_h5ad(tmp_path / "a.h5ad")
    for values in (adata.obs["text"], adata.var["text"]):
        assert values.dtype == "category"
        assert values.isna().tolist() == [False, True, False]
        assert values.dropna().tolist() == ["x", "z"]
    assert adata.uns["log1p"] == {}
    assert adata.uns["kept"] == {"a": 1}
    assert "uns/log1p/base is None, which anndata 0.10 cannot read" in capsys.readouterr().err
