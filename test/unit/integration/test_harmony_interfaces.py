"""Harmony under the names and shapes of harmonypy, scanpy and rapids-singlecell."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from integration.harmony import harmonize, harmony_integrate, rapids_backend, run_harmony

SHARED = Path(__file__).resolve().parents[4] / "shared"


def make_adata(n_cells=240, seed=0):
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(rng.choice(["a", "b", "c"], n_cells)),
            "donor": rng.choice(["d1", "d2"], n_cells),
            "passed_QC": rng.random(n_cells) < 0.9,
        },
        index=[f"cell{number}" for number in range(n_cells)],
    )
    adata = ad.AnnData(obs=obs)
    centers = 4 * rng.normal(size=(4, 5))
    shifts = rng.normal(size=(3, 5))[obs["batch"].cat.codes]
    Z = centers[rng.integers(4, size=n_cells)] + shifts + rng.normal(size=(n_cells, 5))
    adata.obsm["X_pca"] = Z.astype(np.float32)
    return adata


@pytest.fixture
def adata():
    return make_adata()


def test_run_harmony_has_harmonypys_attributes_and_shapes(adata):
    data = pd.DataFrame(adata.obsm["X_pca"], columns=[f"PC{i + 1}" for i in range(5)])
    ho = run_harmony(data, adata.obs, ["batch"])
    N, d, K, B = 240, 5, 8, 3
    assert (ho.N, ho.d, ho.K, ho.B) == (N, d, K, B)
    shapes = {
        "Z_corr": (d, N),
        "Z_orig": (d, N),
        "Z_cos": (d, N),
        "R": (K, N),
        "Y": (d, K),
        "O": (K, B),
        "E": (K, B),
        "Phi": (B, N),
        "Phi_moe": (B + 1, N),
        "Pr_b": (B,),
        "theta": (B,),
        "sigma": (K,),
        "lamb": (B + 1,),
        "corrected": (N, d),
    }
    for name, shape in shapes.items():
        assert getattr(ho, name).shape == shape, name
    np.testing.assert_allclose(ho.R.sum(axis=0), 1, rtol=1e-4)
    np.testing.assert_allclose(ho.O, ho.R @ ho.Phi.T, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(ho.E, np.outer(ho.R.sum(axis=1), ho.Pr_b), rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(ho.Z_cos, axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(ho.Y, axis=0), 1, rtol=1e-5)
    assert np.array_equal(ho.Z_orig.T, data)
    assert np.array_equal(ho.result(), ho.corrected.T)
    assert ho.batches == ("a", "b", "c")
    assert len(ho.objective_harmony) == len(ho.kmeans_rounds) + 1


def test_r_of_the_last_clustering_gives_the_correction(adata):
    ho = run_harmony(adata.obsm["X_pca"], adata.obs, "batch", dtype=np.float64, lean=True)
    kept = run_harmony(adata.obsm["X_pca"], adata.obs, "batch", dtype=np.float64, lean=False)
    assert np.array_equal(ho.R, kept.R)
    Z, corrected = ho.Z_orig.T.astype(float), ho.Z_orig.T.astype(float)
    for k in range(ho.K):
        weighted = ho.Phi_moe * ho.R[k]
        penalty = np.diag(np.concatenate([[0], 0.2 * ho.E[k]]))
        W = np.linalg.solve(weighted @ ho.Phi_moe.T + penalty, weighted @ Z)
        W[0] = 0
        corrected = corrected - weighted.T @ W
    np.testing.assert_allclose(ho.corrected, corrected, atol=1e-8)


def test_harmonypys_names(adata):
    Z = adata.obsm["X_pca"]
    theirs = run_harmony(
        Z,
        adata.obs,
        "batch",
        nclust=6,
        max_iter_kmeans=4,
        epsilon_cluster=1e-3,
        epsilon_harmony=1e-3,
        block_size=0.1,
        random_state=3,
        lamb=None,
        ncores=0,
        device="cpu",
    )
    ours = harmonize(
        Z,
        adata.obs["batch"],
        n_clusters=6,
        max_iter_clustering=4,
        early_stopping=True,
        tol_harmony=1e-3,
        block_proportion=0.1,
        seed=3,
    )
    assert np.array_equal(theirs.corrected, ours.corrected)
    endless = run_harmony(Z, adata.obs, "batch", epsilon_harmony=-np.inf, max_iter_harmony=7)
    assert len(endless.kmeans_rounds) == 7


def test_lamb_means_what_it_means_in_harmonypy(adata):
    Z, obs = adata.obsm["X_pca"], adata.obs
    one = run_harmony(Z, obs, "batch", flavor="harmony1", lamb=1)
    assert np.array_equal(
        one.corrected, run_harmony(Z, obs, "batch", flavor="harmony1", lamb=None).corrected
    )
    np.testing.assert_array_equal(one.lamb, [0, 1, 1, 1])
    dynamic = run_harmony(Z, obs, "batch", flavor="harmony1", lamb=-1)
    np.testing.assert_array_equal(dynamic.lamb, [0, -1, -1, -1])
    assert not np.allclose(dynamic.corrected, one.corrected)


def test_data_in_either_orientation_and_metadata_as_a_mapping(adata):
    Z = adata.obsm["X_pca"]
    frame = pd.DataFrame(Z)
    frame.insert(0, "barcode", adata.obs_names.to_numpy())
    expected = run_harmony(Z, adata.obs, "batch").corrected
    meta = {"batch": list(adata.obs["batch"])}
    for data in (Z.T, frame):
        assert np.array_equal(run_harmony(data, meta, "batch").corrected, expected)


def test_wrong_calls_of_run_harmony(adata):
    Z = adata.obsm["X_pca"]
    with pytest.raises(KeyError, match='did you mean "batch"'):
        run_harmony(Z, adata.obs, "batchh")
    with pytest.raises(TypeError, match='did you mean "nclust"'):
        run_harmony(Z, adata.obs, "batch", nclst=4)
    with pytest.raises(TypeError, match="n_clusters is given twice"):
        run_harmony(Z, adata.obs, "batch", nclust=4, n_clusters=4)
    with pytest.raises(ValueError, match="240 cells, but the embedding has shape"):
        run_harmony(Z[:-1], adata.obs, "batch")
    with pytest.raises(ValueError, match="names no column"):
        run_harmony(Z, adata.obs, [])
    with pytest.raises(ValueError, match="device must be"):
        run_harmony(Z, adata.obs, "batch", device="tpu")


@pytest.mark.parametrize("device", ["mps", "cuda"])
def test_without_a_gpu_it_warns_and_runs_on_the_cpu(adata, device, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    Z = adata.obsm["X_pca"]
    with pytest.warns(UserWarning, match="runs on the CPU"):
        ho = run_harmony(Z, adata.obs, "batch", device=device)
    assert np.array_equal(ho.corrected, run_harmony(Z, adata.obs, "batch").corrected)


def test_seeds(adata):
    def run(seed):
        options = {"max_iter_harmony": 2, "max_iter_kmeans": 2, "verbose": False}
        Z = adata.obsm["X_pca"]
        return run_harmony(Z, adata.obs, ["donor"], random_state=seed, **options).Z_corr

    assert np.array_equal(run(42), run(42))
    assert np.abs(run(123) - run(456)).sum() > 1


def test_harmony_integrate_stores_the_result(adata):
    before = adata.obsm["X_pca"].copy()
    assert harmony_integrate(adata, "batch", seed=1) is None
    expected = harmonize(before, adata.obs["batch"], seed=1).corrected
    assert np.array_equal(adata.obsm["X_pca_harmony"], expected)
    assert np.array_equal(adata.obsm["X_pca"], before)
    with pytest.raises(ValueError, match="already has 'X_pca_harmony'; set overwrite=True"):
        harmony_integrate(adata, "batch")
    harmony_integrate(adata, "batch", random_state=1, overwrite=True)
    assert np.array_equal(adata.obsm["X_pca_harmony"], expected)


def test_harmony_integrate_with_several_keys(adata):
    harmony_integrate(adata, ["batch", "donor"], theta=[2, 1])
    expected = harmonize(
        adata.obsm["X_pca"], [adata.obs["batch"], adata.obs["donor"]], theta=[2, 2, 2, 1, 1]
    )
    assert np.array_equal(adata.obsm["X_pca_harmony"], expected.corrected)
    harmony_integrate(
        adata,
        [lambda data: data.obs["batch"], adata.obs["donor"].to_numpy()],
        theta=[2, 1],
        adjusted_basis="again",
    )
    assert np.array_equal(adata.obsm["again"], expected.corrected)


@pytest.mark.parametrize("form", ["column", "array", "function"])
def test_cells_that_fail_qc_are_nan(adata, form):
    passed = adata.obs["passed_QC"].to_numpy()
    column = {"column": "passed_QC", "array": passed, "function": lambda d: d.obs["passed_QC"]}
    harmony_integrate(adata, "batch", QC_column=column[form])
    alone = harmonize(adata.obsm["X_pca"][passed], adata.obs["batch"][passed]).corrected
    assert np.isnan(adata.obsm["X_pca_harmony"][~passed]).all()
    assert np.array_equal(adata.obsm["X_pca_harmony"][passed], alone)
    if form == "column":
        ho = run_harmony(adata.obsm["X_pca"], adata.obs, "batch", QC_column="passed_QC")
        assert np.array_equal(ho.corrected, adata.obsm["X_pca_harmony"], equal_nan=True)


def test_several_data_sets():
    first, second = make_adata(seed=1), make_adata(180, seed=2)
    together = np.concatenate([first.obsm["X_pca"], second.obsm["X_pca"]])
    which = np.repeat([0, 1], [240, 180])
    harmony_integrate([first, second])
    expected = harmonize(together, which).corrected
    assert np.array_equal(first.obsm["X_pca_harmony"], expected[:240])
    assert np.array_equal(second.obsm["X_pca_harmony"], expected[240:])
    codes = np.concatenate([first.obs["batch"].cat.codes, second.obs["batch"].cat.codes])
    harmony_integrate([first, second], "batch", adjusted_basis="split")
    expected = harmonize(together, which * 3 + codes).corrected
    assert np.array_equal(second.obsm["split"], expected[240:])
    harmony_integrate(
        [first, second], ("batch", None), QC_column=("passed_QC", None), adjusted_basis="each"
    )
    mask = np.concatenate([first.obs["passed_QC"], np.ones(180, bool)])
    expected = harmonize(together, np.where(which == 0, codes, 3), mask=mask).corrected
    assert np.array_equal(first.obsm["each"], expected[:240], equal_nan=True)
    assert np.array_equal(second.obsm["each"], expected[240:], equal_nan=True)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"key": "batchh"}, KeyError, r'adata.obs has no column "batchh"; did you mean "batch"'),
        ({"key": "batch", "basis": "X_pc"}, KeyError, 'did you mean "X_pca".* Available: X_pca'),
        ({"key": None}, ValueError, "name the batch column"),
        ({"key": []}, ValueError, "same number of batch keys"),
        ({"key": "batch", "QC_column": "donor"}, TypeError, "must be boolean"),
        ({"key": "batch", "QC_column": "QC"}, KeyError, 'no column "QC"'),
        ({"key": "batch", "backend": "gpu"}, ValueError, "backend must be"),
        ({"key": "batch", "correction_method": "quick"}, ValueError, "correction_method"),
        ({"key": "batch", "gamma": 1}, TypeError, 'unknown option of Harmony "gamma"'),
        ({"key": np.arange(7)}, ValueError, "240 cells but 7 labels"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else None,
)
def test_wrong_calls_of_harmony_integrate(adata, arguments, error, message):
    with pytest.raises(error, match=message):
        harmony_integrate(adata, **arguments)
    assert list(adata.obsm) == ["X_pca"]


def test_missing_values_name_their_column(adata):
    adata.obs["batch"] = adata.obs["batch"].where(np.arange(240) > 4)
    with pytest.raises(ValueError, match="batch 'batch' is missing for 5 of 240 cells"):
        harmony_integrate(adata, "batch")
    adata.obs["passed_QC"] = adata.obs["passed_QC"].astype(object).where(np.arange(240) > 2)
    with pytest.raises(ValueError, match="'passed_QC' is missing for 3 of 240"):
        harmony_integrate(adata, "donor", QC_column="passed_QC")


# Of rapids-singlecell 0.15: every parameter, with its default where it has one.
RAPIDS_OPTIONS = {
    "basis": "X_pca",
    "adjusted_basis": "X_pca_harmony",
    "dtype": np.float64,
    "flavor": "harmony2",
    "n_clusters": None,
    "max_iter_harmony": 10,
    "max_iter_clustering": 200,
    "tol_harmony": 0.0001,
    "tol_clustering": 1e-05,
    "sigma": 0.1,
    "theta": 2.0,
    "tau": 0,
    "ridge_lambda": 1.0,
    "alpha": 0.2,
    "batch_prune_threshold": 1e-05,
    "correction_method": None,
    "colsum_algo": None,
    "block_proportion": 0.05,
    "random_state": 0,
    "verbose": False,
}


@pytest.mark.parametrize("flavor", ["harmony2", "harmony1"])
def test_every_parameter_of_rapids_is_understood(adata, flavor):
    options = {**RAPIDS_OPTIONS, "flavor": flavor, "max_iter_clustering": 5}
    harmony_integrate(adata, "batch", **options)
    names = {"n_clusters", "sigma", "theta", "tau", "ridge_lambda", "alpha", "block_proportion"}
    expected = harmonize(
        adata.obsm["X_pca"],
        adata.obs["batch"],
        dtype=np.float64,
        flavor=flavor,
        tol_harmony=1e-4,
        **{name: options[name] for name in names},
    )
    assert adata.obsm["X_pca_harmony"].dtype == np.float64
    assert np.array_equal(adata.obsm["X_pca_harmony"], expected.corrected)


@pytest.mark.parametrize("method", ["fast", "original", "batched"])
def test_rapids_options_without_effect_cause_a_warning(adata, method):
    harmony_integrate(adata, "batch")
    with pytest.warns(UserWarning, match="correction_method and colsum_algo: no effect"):
        harmony_integrate(
            adata, "batch", adjusted_basis="b", correction_method=method, colsum_algo="benchmark"
        )
    assert np.array_equal(adata.obsm["b"], adata.obsm["X_pca_harmony"])


def test_without_a_gpu_the_cupy_backend_warns_and_runs_on_the_cpu(adata, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.warns(UserWarning, match="cupy is not installed; Harmony runs on the CPU"):
        harmony_integrate(adata, "batch", backend="cupy")
    harmony_integrate(adata, "batch", adjusted_basis="b")
    assert np.array_equal(adata.obsm["b"], adata.obsm["X_pca_harmony"])


def test_without_a_gpu_the_rapids_backend_is_refused(adata, monkeypatch):
    monkeypatch.setattr(rapids_backend, "gpu_problem", lambda: "no GPU is visible: no driver")
    with pytest.raises(RuntimeError, match="no GPU is visible: no driver; use backend='cpu'"):
        harmony_integrate(adata, "batch", backend="rapids")


def test_rapids_is_called_with_its_own_names(adata, monkeypatch):
    calls = []
    monkeypatch.setattr(rapids_backend, "gpu_problem", lambda: None)
    module = ModuleType("rapids_singlecell")
    module.pp = SimpleNamespace(harmony_integrate=lambda *args, **kwargs: calls.append(kwargs))
    monkeypatch.setitem(sys.modules, "rapids_singlecell", module)
    harmony_integrate(
        adata, "batch", backend="rapids", seed=4, tol_harmony=None, correction_method="fast"
    )
    assert calls[0]["random_state"] == 4
    assert calls[0]["tol_harmony"] == -np.inf
    assert calls[0]["correction_method"] == "fast"
    assert calls[0]["max_iter_clustering"] == 5
    with pytest.raises(ValueError, match="does not have original"):
        harmony_integrate(adata, "batch", backend="rapids", original=True)


def test_harmonypys_example_data():
    path = SHARED / "data" / "harmonypy_pbmc3500_pcs.h5ad"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside the repository")
    data = ad.read_h5ad(path)
    result = [name for name in data.obsm if "harm" in name.lower()]
    basis = next(name for name in data.obsm if name not in result)
    ho = run_harmony(np.asarray(data.obsm[basis]), data.obs, ["batch"])
    expected = np.asarray(data.obsm[result[0]])
    for ours, theirs in zip(ho.Z_corr, expected.T, strict=True):
        assert np.corrcoef(ours, theirs)[0, 1] >= 0.9
