"""The plan: what a config asks for, without touching a file."""

import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from plan.plan import STEPS, make_plan
from plan.validate import load_config

WORKFLOW = Path(__file__).resolve().parents[3] / "workflow"


class Wildcards(SimpleNamespace):
    """What Snakemake hands to an input function."""

    def items(self):
        return vars(self).items()


def plan_of(text):
    return make_plan(load_config(yaml.safe_load(text)))


def at(**names):
    return Wildcards(dataset="a", method="unintegrated", algorithm="leiden", **names)


SEED = plan_of((WORKFLOW / "clustering" / "config.yaml").read_text())


def test_importing_the_plan_is_light():
    code = (
        "import sys; import plan.plan, plan.launch, utils.resources;"
        "heavy = {'numpy', 'anndata', 'scanpy', 'snakemake', 'zarr'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=WORKFLOW, check=True
    )
    assert done.stdout.strip() == "[]"


def test_seed_configurations():
    columns = {(run.dataset, run.column) for run in SEED.runs}
    assert columns == {
        *(("test_level1_multiresolution", f"leiden_{r}_1") for r in (0.2, 0.3, 0.4)),
        *(("test_hierarchical", f"leiden_0.5_{level}") for level in (1, 2)),
        *(("test_hierarchical_int", f"leiden_0.5_{level}") for level in (1, 2, 3)),
    }
    wildcards = Wildcards(
        dataset="test_hierarchical",
        method="unintegrated",
        algorithm="leiden",
        resolution="0.5",
        level="2",
    )
    options = shlex.split(SEED.options("clustering", wildcards))
    assert options[options.index("--hierarchy") + 1] == '{"1": 0.1, "3": 0.2}'
    assert options[options.index("--resolution") + 1] == "0.5"


def test_names_of_resolutions_are_floats():
    plan = plan_of(
        "DATASETS: {a: {input: {clustering: x.h5ad}, clustering: {resolutions: [1, 0.25]}}}"
    )
    assert [run.column for run in plan.runs] == ["leiden_1.0_1", "leiden_0.25_1"]


@pytest.mark.parametrize(
    ("hierarchy", "levels"),
    [
        ("3", 3),
        ("{1: 0.1}", 2),
        ("{'3_0_1': 0.1}", 4),
        ("[0.5, 1]", 3),
        ("{CD4_Mem: 0.1, T cell (CD8): 1}", 2),
        ("{CD4_Mem: 0.1, CD4_Mem_0: 1}", 3),
    ],
)
def test_depth(hierarchy, levels):
    section = f"clustering: {{hierarchy: {hierarchy}}}"
    plan = plan_of(f"DATASETS: {{a: {{input: {{clustering: x.h5ad}}, {section}}}}}")
    assert plan.config.DATASETS["a"].clustering.stored_levels == list(range(1, levels + 1))
    assert max(run.level for run in plan.runs) == levels


def test_a_list_gives_each_level_its_parameters():
    plan = plan_of(
        """
        DATASETS:
          a:
            input: {clustering: x.h5ad}
            clustering:
              clustering_args: {n_iterations: 3}
              hierarchy: [0.5, {n_neighbors: 7, clustering_args: {flavor: igraph}}]
        """
    )
    second, third = (
        shlex.split(plan.options("clustering", at(resolution="1.0", level=level)))
        for level in ("2", "3")
    )
    assert second[second.index("--resolution") + 1] == "0.5"
    assert third[third.index("--resolution") + 1] == "1.0"
    assert '"n_neighbors": 7' in third[third.index("--neighbors_args") + 1]
    assert third[third.index("--clustering_args") + 1] == '{"n_iterations": 3, "flavor": "igraph"}'


def test_sub_levels_of_the_graph_search_nothing():
    plan = plan_of(
        "DATASETS: {a: {input: {clustering: x.zarr},"
        " clustering: {refine: graph, hierarchy: [0.5, {refine: neighbors}]}}}"
    )
    second, third = (
        plan.options("clustering", at(resolution="1.0", level=level)) for level in ("2", "3")
    )
    assert "--refine graph" in second
    assert "--neighbors_args" not in second
    assert "--refine" not in third
    assert "--neighbors_args" in third
    assert "--given_file results/a/unintegrated/neighbors.zarr" in second


def test_sub_levels_that_go_back_to_the_counts():
    plan = plan_of(
        "DATASETS: {a: {input: {integration: x.h5ad}, preprocessing: {n_comps: 20, layer: counts},"
        " integration: {batch: c, methods: {unintegrated: , strong: {method: harmony, theta: 4}}},"
        " clustering: {refine: integration, hierarchy: [0.5, {refine: neighbors}]}}}"
    )

    def words(method, level):
        run = Wildcards(
            dataset="a", method=method, algorithm="leiden", resolution="1.0", level=level
        )
        return plan.options("clustering", run)

    pca = "--pca_args '{\"n_comps\": 20}'"
    harmony = "--harmony_args '{\"theta\": 4.0}' --layer counts --batch c"
    assert f"--refine integration {pca} {harmony}" in words("strong", "2")
    assert f"--refine pca {pca}" in words("unintegrated", "2")
    assert "--batch" not in words("unintegrated", "2")
    assert "--refine" not in words("strong", "1") + words("strong", "3")


def test_the_split_test_rests_on_the_genes_that_can_be_variable():
    plan = plan_of(
        "DATASETS: {a: {input: {preprocessing: x.h5ad}, preprocessing: {hvg: {exclude: '^MT-'}},"
        " integration: {methods: {unintegrated: }}, clustering: {significance: 0.05,"
        " hierarchy: [0.5, {refine: pca}]}}}"
    )
    for level in ("1", "2", "3"):
        run = Wildcards(
            dataset="a", method="unintegrated", algorithm="leiden", resolution="1.0", level=level
        )
        line = plan.options("clustering", run)
        assert line.count("""--pca_args '{"hvg": {"exclude": ["^MT-"]}}'""") == 1
    run = Wildcards(dataset="a", method="unintegrated")
    assert """--pca_args '{"hvg": {"exclude": ["^MT-"]}}'""" in plan.options("splits", run)


def test_raw_is_x_once_the_files_are_prepared():
    plan = plan_of(
        "DATASETS: {a: {input: {preprocessing: [x.h5ad, y.h5ad]}, integration: {batch: c, methods:"
        " {fast_mnn: }}, preprocessing: {layer: raw, join: outer, qc: {mt: '^MT-'},"
        " subset: {pct_counts_mt: {max: 20}}}, clustering: {refine: pca, hierarchy: 2}}}"
    )
    run = Wildcards(dataset="a", method="fast_mnn", algorithm="leiden", resolution="1.0", level="2")
    words = plan.options("prepare", run)
    assert "--layer raw --join outer" in words
    assert """--qc '{"mt": "^MT-"}' --subset '{"pct_counts_mt": {"max": 20.0}}'""" in words
    for script in ("pca", "mnn", "clustering"):
        assert "--layer" not in plan.options(script, run)


def test_where_several_files_enter_is_said_to_prepare():
    text = "DATASETS: {{a: {{input: {{{}: [x.h5ad, y.h5ad]}}, clustering: {{{}: true}}}}}}"
    run = Wildcards(dataset="a")
    words = plan_of(text.format("clustering", "recompute_umap")).options("prepare", run)
    assert words == "--stage clustering --recompute_umap"
    words = plan_of(text.format("integration", "recompute_neighbors")).options("prepare", run)
    assert words == "--stage integration --recompute_neighbors"


def test_siblings_only_where_ids_are_named():
    plan = plan_of(
        "DATASETS: {a: {input: {clustering: x.h5ad},"
        " clustering: {resolutions: [1, 2], hierarchy: {0: 1}}}}"
    )
    assert plan.siblings(at(resolution="1.0", level="2")) == [
        "results/a/unintegrated/clustering/leiden_2.0_1.zarr"
    ]


def test_use_gpu_of_the_nearest_section_counts():
    plan = plan_of(
        "{use_gpu: true, n_cell_cpu: 5, DATASETS: {a: {input: {clustering: x.h5ad}},"
        " b: {input: {clustering: x.h5ad}, use_gpu: false, clustering: {n_cell_cpu: 7}}}}"
    )
    a, b = (Wildcards(dataset=name, method="unintegrated") for name in "ab")
    assert plan.job(a).device("clustering") == {"use_gpu": True, "n_cell_cpu": 5}
    assert plan.job(b).device("clustering") == {"use_gpu": False, "n_cell_cpu": 7}
    assert "--use_gpu --n_cell_cpu 5" in plan.options("neighbors", a)
    assert "--no-use_gpu --n_cell_cpu 7" in plan.options("neighbors", b)
    assert plan.environment("clustering")(a) == "../../envs/rapids_singlecell.yaml"
    assert plan.environment("clustering")(b) == "../../envs/scanpy.yaml"


def test_communities_with_arguments_of_their_own_ask_for_no_gpu():
    plan = plan_of(
        "{use_gpu: true, DATASETS: {a: {input: {clustering: x.h5ad}},"
        " b: {input: {clustering: x.h5ad}, clustering: {clustering_args: {flavor: igraph}}}}}"
    )
    a, b = (Wildcards(dataset=name, method="unintegrated") for name in "ab")
    assert STEPS["clustering"].device(plan.job(a)) == plan.job(a).device("clustering")
    assert STEPS["clustering"].device(plan.job(b)) == {
        **plan.job(b).device("clustering"),
        "use_gpu": False,
    }


def test_what_the_input_brings_is_used_only_at_clustering():
    plan = plan_of(
        "DATASETS: {a: {input: {clustering: x.h5ad}},"
        " b: {input: {integration: x.h5ad}, integration: {batch: c}}}"
    )
    assert "--overwrite" not in plan.options("neighbors", at())
    assert "--overwrite" not in plan.options("umap", at())
    b = Wildcards(dataset="b", method="harmony")
    assert "--overwrite --use_rep X_harmony" in plan.options("neighbors", b)
    assert "--overwrite" in plan.options("umap", b)
    assert plan.embedding(b) == "results/b/harmony/embedding.zarr"
    assert plan.basis(b) == "results/b/prepared.zarr"


def test_names_of_columns_reach_the_shell_as_they_are():
    column = "a b; touch $(x) 'y'"
    plan = make_plan(
        load_config(
            {
                "DATASETS": {
                    "a": {
                        "input": {"integration": "x.h5ad"},
                        "integration": {"batch": column},
                        "clustering": {"umap_colors": [column]},
                    }
                }
            }
        )
    )
    wildcards = Wildcards(dataset="a", method="harmony")
    for script in ("harmony", "plots", "explorer"):
        assert column in shlex.split(plan.options(script, wildcards))


def test_a_method_starts_from_the_result_of_another():
    plan = plan_of(
        "DATASETS: {a: {input: {preprocessing: x.h5ad}, integration: {batch: c,"
        " methods: {twice: {method: harmony, basis: X_harmony}, harmony: {basis: X_pca}}}}}"
    )
    first = Wildcards(dataset="a", method="harmony")
    second = Wildcards(dataset="a", method="twice")
    assert plan.source(first) == "results/a/pca.zarr"
    assert plan.source(second) == "results/a/harmony/embedding.zarr"
    assert plan.options("harmony", first) == "--batch c --overwrite --no-use_gpu"
    words = shlex.split(plan.options("harmony", second))
    assert words[:6] == ["--batch", "c", "--basis", "X_harmony", "--key_added", "X_twice"]


def test_a_method_on_counts_is_told_the_layer_and_no_basis():
    plan = plan_of(
        "DATASETS: {a: {input: {integration: x.h5ad}, preprocessing: {layer: counts},"
        " integration: {batch: c, basis: X_pvae, methods: {pvae: {},"
        " mix: {method: gmvae, label_dim: 7, covariates: [c, d]}}}}}"
    )
    first, second = (Wildcards(dataset="a", method=name) for name in ("pvae", "mix"))
    assert plan.source(first) == plan.source(second) == "results/a/prepared.zarr"
    words = "--batch c --layer counts --overwrite --no-use_gpu"
    assert plan.options("vae", first) == words
    words = shlex.split(plan.options("vae", second))
    assert words[4:6] == ["--key_added", "X_mix"]
    assert words[words.index("--covariates") + 1] == '["c", "d"]'
    assert words[words.index("--label_dim") + 1] == "7"


def test_method_patterns():
    plan = plan_of(
        "DATASETS: {a: {input: {integration: x.h5ad}, integration: {batch: c,"
        " methods: {unintegrated: , harmony: , a.b: {method: harmony}}}}}"
    )
    assert plan.names("harmony") == r"a\.b|harmony"
    assert plan.names("mnn") == "(?!)"


def test_methods_are_scored_beside_the_uncorrected_data():
    head = "DATASETS: {a: {input: {integration: x.h5ad}, "
    plan = plan_of(head + "integration: {batch: [c, d e]}, evaluation: {label: t}}}")
    wildcards = Wildcards(dataset="a", method="harmony")
    beside = Wildcards(dataset="a", method="unintegrated")
    folders = ["results/a/unintegrated", "results/a/harmony"]
    assert plan.scores(wildcards) == [f"{folder}/metrics.tsv" for folder in folders]
    assert plan.comparisons() == ["results/a/comparison"]
    assert plan.scored_store(beside) == "results/a/unintegrated/neighbors.zarr"
    assert plan.scored_store(wildcards) == "results/a/harmony/clustered.zarr"
    words = "--batch c 'd e' --clusters leiden_1.0_1 --use_rep X_harmony --uncorrected X_pca"
    assert plan.options("metrics", wildcards) == f"{words} --label t"
    assert "--clusters" not in plan.options("metrics", beside)
    for off in ("evaluation: {metrics: false}, integration: {batch: c}", "evaluation: {}"):
        plan = plan_of(head + off + "}}")
        assert plan.scores(wildcards) == []
        assert plan.comparisons() == []


def test_many_data_sets_are_planned_in_one_pass():
    names = [f"d{i}" for i in range(200)]
    config = {
        "DATASETS": {
            name: {
                "input": {"clustering": "x.h5ad"},
                "clustering": {"resolutions": [0.1 * i for i in range(1, 9)], "hierarchy": 3},
            }
            for name in names
        }
    }
    looked_at = 0

    class Counted(tuple):
        __slots__ = ()

        def __iter__(self):
            nonlocal looked_at
            looked_at += len(self)
            return super().__iter__()

    plan = make_plan(load_config(config))
    plan = replace(plan, runs=Counted(plan.runs))
    assert len(plan.runs) == 200 * 8 * 3
    for name in names:
        wildcards = Wildcards(dataset=name, method="unintegrated")
        assert len(plan.clusterings(wildcards)) == 24
        plan.options("plots", wildcards)
    assert len(plan.targets("atlas")) == 200
    assert looked_at == len(plan.runs)


def test_all_levels_are_one_job_whose_columns_are_named_by_a_pattern():
    plan = plan_of(
        "DATASETS: {a: {input: {preprocessing: x.h5ad}, preprocessing: {layer: counts},"
        " integration: {batch: c}, evaluation: {rounds: 2},"
        " clustering: {resolutions: [0.2, 1], hierarchy: auto, min_cluster_size: 30}}}"
    )
    runs = [(run.level, run.column) for run in plan.runs]
    assert runs == [("auto", "leiden_0.2_*"), ("auto", "leiden_1.0_*")]
    stores = [f"results/a/harmony/clustering/leiden_{r}_auto.zarr" for r in ("0.2", "1.0")]
    run = Wildcards(
        dataset="a", method="harmony", algorithm="leiden", resolution="0.2", level="auto"
    )
    assert plan.clusterings(run) == stores
    assert set(stores) <= set(plan.linked_stores())
    assert plan.options("autoclustering", run) == (
        "--algorithm leiden --level auto --resolution 0.2 --neighbors_args "
        """'{"n_neighbors": 15, "use_rep": "X_harmony", "metric": "euclidean"}' """
        "--layer counts --batch c --min_cluster_size 30 --no-use_gpu"
    )
    for step in ("plots", "trees", "robustness", "splits"):
        assert "--clusters 'leiden_0.2_*' 'leiden_1.0_*'" in plan.options(step, run)


def test_a_test_of_the_splits_gets_counts_and_batch_at_every_level():
    text = (
        "DATASETS: {{a: {{input: {{integration: x.h5ad}}, preprocessing: {{layer: counts}},"
        " integration: {{batch: c}}, clustering: {{hierarchy: 2, min_cluster_size: 9{}}}}}}}"
    )

    def words(plan, level):
        run = Wildcards(
            dataset="a", method="harmony", algorithm="leiden", resolution="1.0", level=level
        )
        return plan.options("clustering", run)

    tested = plan_of(text.format(", significance: 0.01, gradual: join"))
    for level in ("1", "2"):
        assert "--layer counts --batch c --significance 0.01 --gradual join" in words(tested, level)
        assert "--min_cluster_size 9" in words(tested, level)
    plain = plan_of(text.format(""))
    assert "--min_cluster_size 9" in words(plain, "2")
    assert "--layer" not in words(plain, "1") + words(plain, "2")
    assert "--min_cluster_size" not in words(plain, "1"), "level 1 stays as it is found"
