"""The config: what is accepted, what is refused and in which words."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from clustering.options import ClusteringOptions
from plan import docs
from plan.plan import STORES, make_plan
from plan.validate import load_config, text_problems
from utils.options import options_of

REPO = Path(__file__).resolve().parents[3]
SHIPPED = [
    "config/config.yaml",
    "workflow/clustering/config.yaml",
    "config/examples/integration_only.yaml",
    "config/examples/several_files.yaml",
    "config/examples/mnn_in_topic_space.yaml",
]


def dataset(**sections):
    return {"DATASETS": {"a": {"input": {"clustering": "x.h5ad"}, **sections}}}


def clustering(**keys):
    return dataset(clustering=keys)


def harmony(**parameters):
    return {
        "DATASETS": {
            "a": {
                "input": {"integration": "x.h5ad"},
                "integration": {"batch": "b", "methods": {"harmony": parameters}},
            }
        }
    }


def problems(mapping, **options):
    with pytest.raises(ValueError) as error:
        load_config(mapping, **options)
    return str(error.value).split("\n")


def test_defaults_are_those_of_the_documentation():
    section = load_config(dataset()).DATASETS["a"].clustering
    assert section.algorithm == ["leiden"]
    assert section.resolutions == [1.0]
    assert section.neighbors_key == "neighbors"
    assert section.hierarchy == 1
    assert section.recompute_neighbors is section.recompute_umap is section.overwrite is False
    assert section.max_cluster_factor == 50
    config = load_config(dataset())
    assert (config.use_gpu, config.n_cell_cpu) == (False, 100_000)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configs_are_valid(name):
    text = (REPO / name).read_text()
    load_config(yaml.safe_load(text), yaml_texts={name: text})


def test_everything_wrong_is_reported_at_once_with_its_path():
    found = problems(
        {
            "DATASETS": {
                "a": {
                    "input": {"clustring": "x.h5ad"},
                    "clustering": {
                        "resolutons": [1],
                        "algorithm": ["leyden"],
                        "neighbors": {"n_neighbors": 1},
                    },
                }
            },
            "outputdir": "x",
        }
    )
    assert [line.split(":")[0] for line in found] == [
        "DATASETS.a.input",
        "DATASETS.a.clustering.algorithm[0]",
        "DATASETS.a.clustering.neighbors.n_neighbors",
        "DATASETS.a.clustering.resolutons",
        "outputdir",
    ]
    assert 'did you mean "clustering"?' in found[0]
    assert 'did you mean "leiden"?' in found[1]
    assert 'did you mean "resolutions"?' in found[3]
    assert 'did you mean "output_dir"?' in found[4]


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        (clustering(resolutions=["1e-1"]), "a text; write 0.1 without quotes"),
        (clustering(resolutions=[1, 1.0]), "1.0 is listed twice"),
        (clustering(resolutions=[0]), "must be numbers above 0, found 0"),
        (clustering(resolutions=[float("nan")]), "must be numbers above 0, found nan"),
        (clustering(resolutions=[]), "at least one resolution"),
        (clustering(n_cell_cpu="1e5"), 'found the text "1e5"; write 100000'),
        (clustering(use_gpu="true"), "write true without quotes, after --config True"),
        (clustering(use_gpu="maybe"), "use_gpu: must be true or false, found 'maybe'"),
        (clustering(hierarchy=True), "must be a depth"),
        (clustering(hierarchy="atuo"), "must be a depth (3), auto, {cluster_id: resolution}"),
        (clustering(significance=0), "significance: must be greater than 0"),
        (clustering(significance=1), "significance: must be less than 1"),
        (clustering(min_cluster_size=0), "min_cluster_size: must be at least 1"),
        (clustering(gradual="join"), "gradual: has no effect without significance; remove it"),
        (clustering(hierarchy=0), "between 1 and 20"),
        (clustering(hierarchy={}), "names no cluster"),
        (clustering(hierarchy={"": 1}), "is not a cluster id"),
        (clustering(hierarchy={1.5: 1}), "1.5 is not a cluster id"),
        (clustering(hierarchy={True: 1}), "True is not a cluster id"),
        (clustering(hierarchy={-1: 1}), "-1 is not a cluster id"),
        (clustering(hierarchy={"0" + 19 * "_0": 1}), "at most 20 levels"),
        (clustering(hierarchy={1: "0.1"}), "cluster 1: the resolution must be a number"),
        (clustering(hierarchy={1: 0.1, "1": 0.2}), "cluster 1 is named twice"),
        (clustering(hierarchy=[{"resolutin": 1}]), 'did you mean "resolution"?'),
        (clustering(hierarchy=[]), "the list is empty"),
        (
            clustering(hierarchy=[{"n_neighbors": 5}], refine="graph"),
            "hierarchy[0].n_neighbors: has no effect with refine: graph; remove it",
        ),
        (
            clustering(hierarchy=[0.5, {"use_rep": "X_b", "refine": "pca"}]),
            "hierarchy[1].use_rep: has no effect with refine: pca; remove it",
        ),
        (clustering(umap_colors=["a", "a"]), "a is listed twice"),
        (clustering(algorithm=[]), "algorithm"),
        ({"DATASETS": {"../a": {"input": {"clustering": "x.h5ad"}}}}, "cannot name a folder"),
        ({"DATASETS": {}}, "DATASETS"),
        ({}, "DATASETS: is missing"),
        ({**dataset(), "output_dir": "a b"}, "use a plain path"),
        (
            {"DATASETS": {"a": {"input": {"clustering": "x.txt"}}}},
            ".txt cannot be read; convert it with",
        ),
        (
            {"DATASETS": {"a": {"input": {"clustering": ["x.h5ad", "./x.h5ad"]}}}},
            "is listed twice",
        ),
        (
            dataset(input="x.h5ad"),
            "input: names no stage; write where the data set enters, such as "
            "{preprocessing: x.h5ad}",
        ),
        (
            dataset(input={"clustering": {"t": "x.h5ad"}}),
            "DATASETS: {t: {input: {clustering: x.h5ad",
        ),
        (dataset(input={"clustering": "in {x}/a.h5ad"}), "has a brace"),
        (dataset(input={"clustering": "x.h5"}), "a 10x matrix has only counts"),
        (dataset(input={"preprocessing": "x.h5mu"}), "name one: x.h5mu::rna"),
        (
            {"DATASETS": {"a": {"input": {"clustering": "x.h5ad"}, "clustering": {1.0: None}}}},
            "clustering: has the key 1.0, which is no name; a list is written in brackets",
        ),
        ({"datasets": {}}, 'unknown key "datasets"; did you mean "DATASETS"?'),
        ({**dataset(), "env_mode": "local"}, "env_mode: is a key of scAtlasTb that is not needed"),
        (harmony(ridge_lambda=5.0), "ridge_lambda has no effect with flavor: harmony2; remove it"),
        (harmony(batch_prune_threshold=1.5), "must be less than 1, found 1.5"),
        (
            harmony(flavor="harmony1", batch_prune_threshold=0.1),
            "batch_prune_threshold has no effect with flavor: harmony1; remove it",
        ),
        (harmony(flavor="harmony1", alpha=0.5), "alpha has no effect with flavor: harmony1"),
        (dataset(preprocessing={"n_comps": 3}), "preprocessing.n_comps: has no effect"),
        (
            dataset(integration={"batch": "b", "methods": ["harmony"]}),
            "integration.methods: has no effect where the data set enters at clustering",
        ),
        (
            {
                "DATASETS": {
                    "a": {"input": {"integration": "x.h5ad"}, "integration": {"methods": "harmony"}}
                }
            },
            "method harmony needs the obs column that names the batch",
        ),
        (
            {
                "DATASETS": {
                    "a": {
                        "input": {"integration": "x.h5ad"},
                        "integration": {"batch": "b", "methods": {"hamony": {}}},
                    }
                }
            },
            'did you mean "harmony"?',
        ),
        (
            {
                "DATASETS": {
                    "a": {
                        "input": {"integration": "x.h5ad"},
                        "integration": {"batch": "b"},
                        "clustering": {"neighbors": {"use_rep": "X_pca"}},
                    }
                }
            },
            "would override the embedding of every method",
        ),
    ],
)
def test_bad_config_is_refused_in_clear_words(mapping, words):
    found = problems(mapping)
    assert any(words in line for line in found), found


def test_every_form_of_hierarchy_is_read():
    def read(value):
        return load_config(clustering(hierarchy=value)).DATASETS["a"].clustering.hierarchy

    assert read(3) == 3
    assert read({1: 0.1, "3_0": 1}) == {"1": 0.1, "3_0": 1.0}
    assert [level.resolution for level in read([0.5, {"resolution": 1}])] == [0.5, 1]
    assert read([{"n_neighbors": 5}])[0].resolution is None


def test_unquoted_deep_ids_are_pointed_at():
    text = (
        "DATASETS:\n  a:\n    input: {clustering: x.h5ad}\n"
        "    clustering:\n      hierarchy: {3_0: 1}\n"
    )
    found = problems(yaml.safe_load(text), yaml_texts={"my.yaml": text})
    assert found == ['my.yaml, line 5: 3_0 without quotes is read as the number 30; write "3_0"']


def test_underscores_in_other_numbers_are_fine():
    text = "n_cell_cpu: 100_000\nDATASETS: {a: {input: {clustering: x.h5ad}}}"
    assert load_config(yaml.safe_load(text), yaml_texts={"m": text}).n_cell_cpu == 100_000


def test_one_name_stands_for_one_method():
    both = {
        name: {
            "input": {"integration": "x.h5ad"},
            "integration": {"batch": "b", "methods": methods},
        }
        for name, methods in (("a", {"mine": {"method": "harmony"}}), ("b", {"mine": {}}))
    }
    assert any("unknown method" in line for line in problems({"DATASETS": both}))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(list(options_of(ClusteringOptions))), values, max_size=4))
def test_any_value_is_accepted_or_refused_with_its_path(section):
    try:
        load_config(clustering(**section))
    except ValueError as error:
        assert all(line.startswith("DATASETS.a.") for line in str(error).split("\n")), error


def test_schema_and_tables_are_up_to_date():
    config = REPO / "config"
    assert (config / "schema.json").read_text() == docs.schema(), "run make docs"
    text = (config / "README.md").read_text()
    assert text == docs.readme(text), "run make docs"


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("{a: {method: harmony, basis: X_a}}", r"methods\.a\.basis: starts from itself \(a <- a\)"),
        (
            "{a: {method: harmony, basis: X_b}, b: {method: harmony, basis: X_a}}",
            r"a\.basis: starts from itself \(a <- b <- a\)",
        ),
        ("{harmony: {basis: X_topic}}", r'unknown embedding "X_topic".*X_pca'),
    ],
)
def test_chains_that_lead_nowhere(methods, message):
    text = f"{{input: {{preprocessing: x.h5ad}}, integration: {{batch: c, methods: {methods}}}}}"
    with pytest.raises(ValueError, match=message):
        load_config({"DATASETS": {"d": yaml.safe_load(text)}})


def test_options_that_a_flavor_looks_at_are_accepted():
    for parameters in (
        {"alpha": 0.5, "batch_prune_threshold": 0.5, "ridge_lambda": -1},
        {"ridge_lambda": None, "batch_prune_threshold": None},
        {"flavor": "harmony1", "ridge_lambda": 5.0, "batch_prune_threshold": None},
        {"flavor": "harmony1", "ridge_lambda": -1, "alpha": 0.5},
    ):
        load_config(harmony(**parameters))


@pytest.mark.parametrize(
    ("name", "method"),
    [(name, "harmony") for name in ("clusters.tsv", "logs", "benchmarks", "report.zip")]
    + [("a", name) for name in ("comparison", "explorer.html", "prepared.zarr", "pca.zarr")]
    + [("summary.log", "pca.log")],
)
def test_names_of_the_workflows_own_files_are_refused(name, method):
    section = harmony()["DATASETS"]["a"]
    section["integration"]["methods"] = {method: {"method": "harmony"}}
    lines = problems({"DATASETS": {name: section}})
    assert lines
    for line in lines:
        where, words = line.split(": ", 1)
        assert where in (f"DATASETS.{name}", f"DATASETS.{name}.integration.methods.{method}")
        assert words == "the workflow has a file or folder of this name; use another name"


def test_no_file_of_one_data_set_lies_in_another():
    """Names that are accepted make no two outputs of which one lies in the other."""
    names = ["umap", "atlas.zarr", "plots", "trees", "markers.tsv", "clustering"]
    methods = {name: {"method": "harmony"} for name in names}
    section = {"input": {"integration": "x"}, "integration": {"batch": "b", "methods": methods}}
    section["input"] = {"integration": "x.h5ad"}
    plan = make_plan(load_config({"DATASETS": dict.fromkeys(names, section)}))
    paths = {
        Path(
            plan.path(
                store,
                {
                    "dataset": d,
                    "method": m,
                    "algorithm": "leiden",
                    "resolution": "1.0",
                    "level": "1",
                },
            )
        )
        for store in STORES
        for d in names
        for m in names
    }
    assert not any(parent in paths for path in paths for parent in path.parents)


KEYS = st.lists(st.sampled_from("abc"), min_size=1, max_size=5)


@settings(deadline=None)
@given(outer=KEYS, inner=KEYS)
def test_a_key_written_twice_is_found_wherever_it_is(outer, inner):
    text = "".join(
        f"{key}:\n" + "".join(f"  {name}: {i}\n" for name in inner) for i, key in enumerate(outer)
    )
    lines = text_problems("my.yaml", text)
    twice = len(outer) - len(set(outer)) + len(outer) * (len(inner) - len(set(inner)))
    assert len(lines) == twice


def test_a_key_written_twice_is_said_with_both_lines():
    text = (
        "DATASETS:\n  lung: {input: {clustering: a.h5ad}}\n  lung: {input: {clustering: b.h5ad}}\n"
    )
    lines = problems(yaml.safe_load(text), yaml_texts={"my.yaml": text})
    assert lines == [
        'my.yaml, line 3: the key "lung" is already in line 2, and only the last one would count; '
        "rename or remove one"
    ]
    merged = "a: &a {x: 1}\nb:\n  <<: *a\n  x: 2\nc:\n  <<: *a\n"
    assert text_problems("my.yaml", merged) == [], "merged keys are there to be replaced"
