"""Any YAML is a valid plan inside of output_dir, or one line per problem that names its place."""

import copy
import shlex
from pathlib import PurePosixPath
from types import SimpleNamespace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plan.plan import make_plan
from plan.validate import load_config

NAMES = st.one_of(
    st.sampled_from(
        [
            "../x",
            "/x",
            ".",
            "..",
            "a/b",
            "a b",
            "$(touch x)",
            "`x`",
            ";x",
            "'",
            '"',
            "{x}",
            "\n",
            "-n",
        ]
    ),
    st.text(max_size=8),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), NAMES, st.dates(), st.binary(max_size=3)
)
KEYS = st.one_of(NAMES, st.integers(-2, 30), st.none(), st.booleans(), st.floats(), st.dates())
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
WHOLE = {
    "output_dir": "out",
    "use_gpu": False,
    "seed": 1,
    "DATASETS": {
        "a": {
            "input": {"preprocessing": ["x.h5ad", "y.h5ad"]},
            "preprocessing": {"subset": {"tissue": ["lung"]}, "batch_key": "donor", "layer": "raw"},
            "integration": {
                "batch": ["donor"],
                "methods": {"harmony": {"theta": [2, 1]}, "strong": {"method": "harmony"}},
            },
            "clustering": {
                "algorithm": ["leiden", "louvain"],
                "resolutions": [0.5, 1],
                "hierarchy": [0.5, {"resolution": 0.3, "n_neighbors": 8, "use_rep": "X_pca"}],
                "neighbors_key": "nb",
                "clustering_args": {"flavor": "igraph"},
                "umap": {"min_dist": 0.3},
                "umap_colors": ["cell_type"],
            },
        },
        "b": {
            "input": {"clustering": "z.zarr"},
            "clustering": {"hierarchy": {"1": 0.5, "3_0": 1}, "neighbors": {"use_rep": "X_scVI"}},
        },
        "c": {"input": {"integration": "c.zarr"}, "integration": {"basis": "X_lsi"}},
    },
}


def places(value, path=()):
    """Return the paths of all keys and items."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in items if isinstance(value, dict | list) else ():
        found.append((*path, key))
        if isinstance(item, dict | list):
            found += places(item, (*path, key))
    return found


@st.composite
def changed(draw):
    """Change the whole config in up to three places: another value, another key, no key."""
    config = copy.deepcopy(WHOLE)
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(places(config)))
        parent = config
        for key in path:
            parent = parent[key]
        how = draw(st.sampled_from(["value", "key", "gone"]))
        if how == "value":
            parent[last] = draw(ANYTHING)
        elif how == "key" and isinstance(parent, dict):
            parent[draw(KEYS)] = parent.pop(last)
        else:
            del parent[last]
    return config


class Wildcards(SimpleNamespace):
    """What Snakemake hands to an input function."""

    def items(self):
        return vars(self).items()


def check(mapping):
    try:
        config = load_config(mapping)
    except ValueError as error:
        for line in str(error).split("\n"):
            place, colon, words = line.partition(": ")
            assert colon and place.strip() and words.strip(), line
        return
    plan = make_plan(config)
    root = PurePosixPath(config.output_dir)
    outputs = [*plan.targets("atlas"), *plan.targets("plots"), *plan.comparisons()]
    for run in plan.runs:
        wildcards = Wildcards(**{key: str(value) for key, value in vars(run).items()})
        outputs.append(plan.path("clustering", wildcards))
        for script in ("prepare", "pca", "neighbors", "umap", "clustering", "plots", "comparison"):
            # What the shell makes of the options is what they were made of.
            words = shlex.split(plan.options(script, wildcards))
            assert shlex.split(shlex.join(words)) == words
    for output in map(PurePosixPath, outputs):
        assert output.is_relative_to(root)
        assert ".." not in output.relative_to(root).parts


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(ANYTHING)
def test_anything_is_refused_with_its_place(mapping):
    check(mapping)
    check({"DATASETS": mapping})
    check({"DATASETS": {"a": mapping}})


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(changed())
def test_a_config_with_changes_is_a_plan_or_refused_with_the_place(config):
    check(config)


@settings(max_examples=100, deadline=None)
@given(NAMES.filter(bool), NAMES.filter(bool))
def test_names_of_columns_reach_a_script_as_they_are(batch, color):
    config = copy.deepcopy(WHOLE)
    config["DATASETS"]["a"]["integration"]["batch"] = batch
    config["DATASETS"]["a"]["clustering"]["umap_colors"] = [color]
    config["DATASETS"]["a"]["integration"]["methods"] = {"harmony": {}}
    plan = make_plan(load_config(config))
    at = Wildcards(dataset="a", method="harmony")
    words = shlex.split(plan.options("harmony", at))
    assert words[words.index("--batch") + 1] == batch
    words = shlex.split(plan.options("plots", at))
    assert words[words.index("--colors") + 1] == color
