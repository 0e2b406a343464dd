"""What a config names and its files lack is found from the names in the files alone."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import yaml
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plan.preflight import input_problems
from plan.validate import check_config, load_config, readable_data_sets

REPO = Path(__file__).resolve().parents[3]
SHIPPED = [
    "config/config.yaml",
    "workflow/clustering/config.yaml",
    *sorted(str(path.relative_to(REPO)) for path in (REPO / "config/examples").glob("*.yaml")),
]


def make(file, *, obs=("donor", "cell_type"), var=("symbol",), layers=(), obsm=(), raw=False):
    """Write five cells with elements of these names."""
    adata = AnnData(sp.csr_matrix(np.ones((5, 3), "float32")))
    if raw:
        adata.raw = adata
    for frame, names in ((adata.obs, obs), (adata.var, var)):
        for name in names:
            frame[name] = "a"
    for name in layers:
        adata.layers[name] = adata.X
    for name in obsm:
        adata.obsm[name] = np.ones((5, 2))
    (adata.write_zarr if file.suffix == ".zarr" else adata.write_h5ad)(file)
    return str(file)


def check(**datasets):
    config = load_config({"DATASETS": datasets})
    return input_problems({name: (item, True) for name, item in config.DATASETS.items()})


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preflight")
    return make(folder / "lung.h5ad", layers=["counts"], obsm=["X_pca", "X_scvi"])


@pytest.mark.parametrize(
    ("stage", "sections", "line"),
    [
        (
            "preprocessing",
            {"integration": {"batch": "donr"}},
            'integration.batch: {}: adata.obs has no column "donr"; did you mean "donor"? '
            "Available: donor, cell_type",
        ),
        ("preprocessing", {"preprocessing": {"batch_key": "Donor"}}, "preprocessing.batch_key: {}"),
        ("preprocessing", {"preprocessing": {"subset": {"celltype": "a"}}}, "did you mean"),
        (
            "preprocessing",
            {"preprocessing": {"layer": "count"}},
            'preprocessing.layer: {}: adata.layers has no "count"; did you mean "counts"? '
            "Available: counts",
        ),
        ("preprocessing", {"preprocessing": {"layer": "raw"}}, "preprocessing.layer: {}"),
        ("clustering", {"clustering": {"umap_colors": ["celltype"]}}, "clustering.umap_colors: {}"),
        ("clustering", {"clustering": {"umap_colors": ["leiden_2.0_1"]}}, "clustering.umap_colors"),
        ("clustering", {"evaluation": {"label": "celltype"}}, 'did you mean "cell_type"?'),
        (
            "clustering",
            {"evaluation": {"n_markers": 3, "markers_layer": "x"}},
            "evaluation.markers_layer: {}",
        ),
        (
            "clustering",
            {"clustering": {"neighbors": {"use_rep": "X_scvy"}}},
            'clustering.neighbors.use_rep: {}: adata.obsm has no "X_scvy"; did you mean "X_scvi"? '
            "Available: X_pca, X_scvi",
        ),
        ("clustering", {"clustering": {"hierarchy": [{"use_rep": "X_"}]}}, "hierarchy[0].use_rep"),
        ("integration", {"integration": {"basis": "X_pcaa"}}, "integration.basis: {}"),
        (
            "integration",
            {"integration": {"batch": "donor", "methods": {"harmony": {"basis": "X_scvy"}}}},
            "integration.methods.harmony.basis: {}",
        ),
        (
            "preprocessing",
            {
                "integration": {
                    "batch": "donor",
                    "methods": {
                        "pvae": {"covariates": ["age"]},
                        "topics": {"groups": "age"},
                        "fast_mnn": {"restrict": "age", "clusters": "age"},
                    },
                }
            },
            "integration.methods.pvae.covariates: {}",
        ),
    ],
)
def test_what_a_key_names_must_be_in_the_file(file, stage, sections, line):
    lines = check(lung={"input": {stage: file}, **sections})
    assert any(line.format(file) in found for found in lines), lines
    assert all(found.startswith("DATASETS.lung.") and "\n" not in found for found in lines)
    methods = sections.get("integration", {}).get("methods", {})
    assert len(lines) == (4 if "topics" in methods else 1)


def test_what_a_step_makes_need_not_be_there(tmp_path, file):
    raw = make(tmp_path / "raw.zarr", raw=True)
    steps = {
        "integration": {
            "batch": "donor",
            "methods": {"gmvae": {}, "topics": {}, "harmony": {"basis": "X_gmvae"}},
        },
        "clustering": {
            "resolutions": [0.5],
            "hierarchy": [{"use_rep": "X_harmony"}],
            "umap_colors": ["gmvae_label", "topic_scale", "leiden_0.5_2"],
        },
        "preprocessing": {"layer": "raw"},
    }
    graph = make(tmp_path / "graph.h5ad")
    with h5py.File(graph, "a") as store:
        store["uns"].create_group("neighbors")
    assert check(
        a={"input": {"preprocessing": raw}, **steps},
        b={"input": {"clustering": graph}},
        c={"input": {"integration": file}},
    ) == []  # fmt: skip
    assert len(check(b={"input": {"clustering": raw}})) == 1, "neither neighbors nor X_pca"


def test_several_files(tmp_path):
    files = [make(tmp_path / "a.h5ad"), make(tmp_path / "b.zarr", obs=("cell_type", "age"))]
    entry = {"input": {"preprocessing": files}}

    def batch(*columns, **clustering):
        return check(x={**entry, "integration": {"batch": [*columns]}, "clustering": clustering})

    assert batch("sample", umap_colors=["sample", "age"]) == []
    assert check(x={**entry, "clustering": {"umap_colors": ["file"]}}) == []
    (line,) = batch("donor")
    assert f'{files[1]}: adata.obs has no column "donor", other files of the data set do' in line
    (line,) = batch("sample", "dnor")
    assert 'has no column "dnor"; did you mean "donor"?' in line
    (line,) = check(x={**entry, "preprocessing": {"subset": {"age": ["a"]}}})
    assert files[0] in line, "cells are chosen in each file by itself"


NAMES = st.text("abcXY_- é", min_size=1, max_size=6).filter(str.strip)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    held=st.lists(NAMES, unique=True, max_size=4),
    wanted=st.lists(NAMES, unique=True, min_size=1, max_size=4),
    suffix=st.sampled_from([".h5ad", ".zarr"]),
)
def test_a_column_is_a_problem_where_anndata_has_none(tmp_path, held, wanted, suffix):
    file = tmp_path / f"{abs(hash((*held, suffix)))}{suffix}"
    if not file.exists():
        make(file, obs=held, obsm=["X_pca"])
    lines = check(a={"input": {"clustering": str(file)}, "clustering": {"umap_colors": wanted}})
    assert len(lines) == len(set(wanted) - set(held))


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    empty, old = tmp_path / "empty.h5ad", make(tmp_path / "old.h5ad", obsm=["X_pca"])
    empty.touch()
    with h5py.File(old, "a") as store:  # as anndata 0.7 has it
        store["obs"].create_group("__categories")
    lines = check(
        a={"input": {"clustering": str(empty)}},
        b={"input": {"clustering": str(tmp_path / "gone.zarr")}},
        c={"input": {"clustering": "~/gone.h5ad"}},
        d={"input": {"clustering": old}, "clustering": {"umap_colors": "__categories"}},
    )
    assert f"DATASETS.a.input.clustering: {empty}: cannot be read" in lines[0]
    assert lines[1].endswith(f"no such file: {tmp_path / 'gone.zarr'}")
    assert '"~" is not expanded, write /' in lines[2]
    assert lines[3].endswith("Available: donor, cell_type, leiden_1.0_1")
    assert len(lines) == 4


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configs_have_all_that_they_name(name, monkeypatch):
    monkeypatch.chdir(REPO)
    config = load_config(yaml.safe_load((REPO / name).read_text()))
    lines = input_problems({key: (item, True) for key, item in config.DATASETS.items()})
    assert [line for line in lines if "no such file" not in line] == []


@pytest.mark.parametrize("stage", ["preprocessing", "integration", "clustering"])
def test_splits_cannot_be_tested_by_values_that_are_no_counts(tmp_path, stage):
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(1, (60, 50)).astype("float32"))
    adata = AnnData(sc_log(counts), obsm={"X_pca": rng.normal(size=(60, 3))})
    adata.obs["donor"] = "a"
    adata.write_h5ad(tmp_path / "log.h5ad")
    adata.layers["counts"] = counts
    adata.write_h5ad(tmp_path / "both.h5ad")

    def lines(file, clustering, **preprocessing):
        return check(
            lung={
                "input": {stage: str(tmp_path / file)},
                "clustering": clustering,
                "preprocessing": preprocessing,
            }
        )

    (line,) = lines("log.h5ad", {"significance": 0.05})
    assert line.startswith(f"DATASETS.lung.clustering.significance: X of {tmp_path}/log.h5ad holds")
    assert "log-normalized values" in line
    assert "no other matrix of the file holds counts" in line
    assert line.endswith("; to cluster without a test, leave out significance")
    (line,) = lines("both.h5ad", {"hierarchy": "auto"})
    assert line.startswith("DATASETS.lung.clustering.hierarchy: X of")
    assert "counts in layers/counts: write preprocessing: {layer: counts}" in line
    assert line.endswith("write a depth (hierarchy: 3) in place of auto")
    assert not lines("both.h5ad", {"hierarchy": "auto"}, layer="counts")
    assert not lines("log.h5ad", {"hierarchy": "auto"}, values="counts")
    assert not lines("log.h5ad", {"hierarchy": 3})
    (line,) = lines("log.h5ad", {"significance": 0.05}, layer="count")
    assert line.startswith("DATASETS.lung.preprocessing.layer")


def sc_log(counts):
    """Return what scanpy's normalize_total and log1p make of counts."""
    totals = np.asarray(counts.sum(axis=1)).ravel()
    return sp.csr_matrix(counts.multiply(1e4 / totals[:, None])).log1p()


def test_beside_errors_of_the_config_itself(file):
    """The keys with errors are left out, and nothing is said of defaults in their place."""
    mapping = {
        "DATASETS": {
            "a": {
                "input": {"integration": file},
                "integration": {"basis": 3, "batch": "donr", "methods": {"harmoni": {}}},
                "clustering": {
                    "hierarchy": [{"x": 1, "y": 2}, {"x": 1}],
                    "umap_colors": ["celltype"],
                    "colors": 1,
                },
            },
            "b": {"input": file},
        }
    }
    config, problems = check_config(mapping)
    assert config is None
    assert len(problems) == 7
    datasets = readable_data_sets(mapping)
    lines = input_problems({name: (item, False) for name, item in datasets.items()})
    assert [line.split(":")[0] for line in lines] == [
        "DATASETS.a.integration.batch",
        "DATASETS.a.clustering.umap_colors",
    ]
