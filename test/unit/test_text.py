"""How text is written: for any anndata to read, whichever pandas is installed."""

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr

from utils.io import new_store, write_element

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
