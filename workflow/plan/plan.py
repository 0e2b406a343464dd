"""From a config to what is run: the stores, their paths and the command line of every job.

A pure function of the config: it touches no file and imports neither Snakemake nor scanpy. What a
step writes, its options and its memory are defined by its stage (``<stage>/steps.py``).
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import clustering.steps
import evaluation.steps
import explorer.steps
import integration.steps
import preprocessing.steps
from clustering.cluster_names import ClusterColumn, resolution_text
from clustering.options import AUTO
from evaluation.steps import cluster_tables, scored_methods
from integration.method_chains import start
from integration.options import EmbeddingMethodOptions
from utils.device import N_CELL_CPU
from utils.options import named, words
from utils.paths import split_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.options import MethodOptions
    from plan.config import Config, DataSet
    from utils.steps import Step

_STAGES = (
    preprocessing.steps,
    integration.steps,
    clustering.steps,
    evaluation.steps,
    explorer.steps,
)
# Where each store lies below the output folder, and what runs to make it.
STORES: dict[str, str] = {name: path for stage in _STAGES for name, path in stage.STORES.items()}
STEPS: dict[str, Step] = {name: step for stage in _STAGES for name, step in stage.STEPS.items()}

# What else lies in the output folder.
LOGS, BENCHMARKS, REPORTS = "logs", "benchmarks", ("report.html", "report.zip")


@dataclass(frozen=True)
class ClusterRun:
    """One clustering of one data set and method: a level, or all levels (`AUTO`)."""

    dataset: str
    method: str
    algorithm: str
    resolution: str
    level: int | str

    @property
    def column(self) -> str:
        """The name of its column in obs; of all levels, which are not known yet, a pattern."""
        level = "*" if self.level == AUTO else self.level
        return str(ClusterColumn(self.algorithm, float(self.resolution), level))


@dataclass(frozen=True)
class Job:
    """A step for some wildcards: what the stages write its command line from."""

    plan: Plan
    wildcards: Any

    @property
    def config(self) -> Config:
        """The whole config."""
        return self.plan.config

    @property
    def dataset(self) -> DataSet:
        """The section of its data set."""
        return self.plan.dataset(self.wildcards)

    @property
    def files(self) -> list[str]:
        """The input files of its data set."""
        return self.plan.files(self.wildcards)

    @property
    def method(self) -> str:
        """The name of its method."""
        return self.wildcards.method

    @property
    def params(self) -> MethodOptions:
        """The options of its method."""
        return self.dataset.methods[self.method]

    @property
    def start(self) -> tuple[str, str | None]:
        """The obsm key that its method starts from, and the method whose result that is."""
        return start(self.method, self.dataset.methods, self.dataset.integration.basis)

    @property
    def representation(self) -> str | None:
        """The obsm key that neighbors are searched in; ``None``: the script's default."""
        if self.method != "unintegrated":
            return f"X_{self.method}"
        if self.dataset.stage == "clustering":
            return self.dataset.clustering.neighbors.use_rep
        return self.dataset.integration.basis

    @property
    def columns(self) -> list[str]:
        """The cluster columns of its data set and method: names, or patterns for their names."""
        return [run.column for run in self.plan.columns(self.wildcards.dataset, self.method)]

    def path(self, store: str, **others: Any) -> str:
        """Return the path of a store."""
        return self.plan.path(store, self.wildcards, **others)

    def device(self, stage: str) -> dict[str, Any]:
        """Return where a stage of its data set may run."""
        return {key: self.plan.setting(self.wildcards, stage, key) for key in _DEVICE}

    def run_words(self, stage: str, *, device: bool = True) -> list[str]:
        """Write the options on how a stage of its data set runs."""
        line = words(seed=self.plan.setting(self.wildcards, stage, "seed") or None)
        if device:
            # False has to be said: a script by hand uses the GPU that it finds.
            where = self.device(stage)
            line += words(use_gpu=where["use_gpu"])
            line += words(n_cell_cpu=where["n_cell_cpu"]) * (where["n_cell_cpu"] != N_CELL_CPU)
        return line


_DEVICE = ("use_gpu", "n_cell_cpu")


@dataclass(frozen=True)
class Plan:
    """What a config asks for."""

    config: Config
    runs: tuple[ClusterRun, ...]
    workflow: str = "workflow"

    # ------------------------------------------------------------ what a rule consists of

    def pattern(self, store: str) -> str:
        """Return the path of a store, with wildcards."""
        return f"{self.config.output_dir}/{STORES[store]}"

    def log(self, name: str) -> str:
        """Return the path of a log."""
        return f"{self.config.output_dir}/{LOGS}/{name}"

    def benchmark(self, name: str) -> str:
        """Return the path of a table with the time and memory of a job."""
        return f"{self.config.output_dir}/{BENCHMARKS}/{name}"

    def resources(self, step: str) -> dict[str, Callable[..., int]]:
        """Return the functions for the memory, time and GPU of a step."""
        asked = STEPS[step]

        def mem_mb(wildcards: Any, input: Any, attempt: int, threads: int) -> int:
            return asked.mem_mb(self.job(wildcards), list(input), attempt, threads)

        def runtime(wildcards: Any, input: Any, attempt: int) -> int:
            return asked.runtime(list(input), attempt)

        def gpu(wildcards: Any, input: Any) -> int:
            return asked.n_gpus(self.job(wildcards), list(input))

        return {"mem_mb": mem_mb, "runtime": runtime} | ({"gpu": gpu} if asked.gpu else {})

    def params(self, step: str) -> dict[str, Callable[..., str]]:
        """Return the functions for the script of a step and its options."""

        def script(wildcards: Any, input: Any) -> str:
            # A function of the input, so that no job is run again where this folder was moved.
            return shlex.quote(f"{self.workflow}/{STEPS[step].script}")

        return {"script": script, "options": lambda wildcards: self.options(step, wildcards)}

    def options(self, step: str, wildcards: Any) -> str:
        """Return the options that a rule calls a script with, quoted for the shell."""
        return " ".join(STEPS[step].words(self.job(wildcards)))

    def job(self, wildcards: Any) -> Job:
        """Return what the stages write a command line from."""
        return Job(self, wildcards)

    def environment(self, stage: str) -> Callable[[Any], str]:
        """Return the function for the conda file of a step that can run on a GPU."""

        def conda(wildcards: Any) -> str:
            gpu = self.setting(wildcards, stage, "use_gpu")
            return f"../../envs/{'rapids_singlecell' if gpu else 'scanpy'}.yaml"

        return conda

    def method(self, wildcards: Any) -> str:
        """Return the method behind a name."""
        return self.dataset(wildcards).methods[wildcards.method].method

    def names(self, *methods: str) -> str:
        """Return a pattern of the names under which some integration methods run."""
        names = {
            name
            for dataset in self.config.DATASETS.values()
            for name, params in dataset.methods.items()
            if params.method in methods
        }
        return "|".join(map(re.escape, sorted(names))) or "(?!)"

    # ------------------------------------------------------------ what a job reads

    def path(self, store: str, wildcards: Any, **others: Any) -> str:
        """Return the path of a store; `wildcards` has the names of the pattern."""
        names = wildcards if isinstance(wildcards, dict) else dict(wildcards.items())
        return self.pattern(store).format(**{**names, **others})

    def dataset(self, wildcards: Any) -> DataSet:
        """Return the section of a data set."""
        return self.config.DATASETS[wildcards.dataset]

    def files(self, wildcards: Any) -> list[str]:
        """Return the files that a data set is made of, as the user writes them."""
        return next(iter(self.dataset(wildcards).input.values()))

    def paths(self, wildcards: Any) -> list[str]:
        """Return where these lie: of ``file.h5mu::rna`` the path alone, each once."""
        return list(dict.fromkeys(str(split_file(file)[0]) for file in self.files(wildcards)))

    def setting(self, wildcards: Any, stage: str, key: str) -> Any:
        """Return a setting of a stage, else of its data set, else of the config."""
        dataset = self.dataset(wildcards)
        for section in (getattr(dataset, stage), dataset):
            value = getattr(section, key, None)
            if value is not None:
                return value
        return getattr(self.config, key)

    def basis(self, wildcards: Any) -> str:
        """Return the store that holds what the methods start from."""
        if self.dataset(wildcards).stage == "preprocessing":
            return self.path("pca", wildcards)
        return self.cells(wildcards)

    def cells(self, wildcards: Any) -> str:
        """Return the store with the cells and all that is known of them before any embedding."""
        scored = self.dataset(wildcards).preprocessing.doublets
        return self.path("doublets" if scored else "prepared", wildcards)

    def source(self, wildcards: Any) -> str:
        """Return the store that a method starts from."""
        job = self.job(wildcards)
        before = job.start[1] if isinstance(job.params, EmbeddingMethodOptions) else None
        if before is not None:
            return self.path("embedding", wildcards, method=before)
        return self.basis(wildcards)

    def embedding(self, wildcards: Any) -> str:
        """Return the store that holds the embedding of a method."""
        if wildcards.method == "unintegrated":
            return self.basis(wildcards)
        return self.path("embedding", wildcards)

    def columns(self, dataset: str, method: str) -> list[ClusterRun]:
        """Return the clusterings of a data set and method."""
        return self._columns.get((dataset, method), [])

    @cached_property
    def _columns(self) -> dict[tuple[str, str], list[ClusterRun]]:
        runs: dict[tuple[str, str], list[ClusterRun]] = {}
        for run in self.runs:
            runs.setdefault((run.dataset, run.method), []).append(run)
        return runs

    def clusterings(self, wildcards: Any) -> list[str]:
        """Return the stores with the cluster columns of a data set and method."""
        runs = self.columns(wildcards.dataset, wildcards.method)
        return [self.path("clustering", vars(run)) for run in runs]

    def parent(self, wildcards: Any) -> str:
        """Return the store of the level above."""
        return self.path("clustering", wildcards, level=int(wildcards.level) - 1)

    def siblings(self, wildcards: Any) -> list[str]:
        """Return the level above at the other resolutions, where cluster ids may occur too."""
        section = self.dataset(wildcards).clustering
        if not isinstance(section.hierarchy, dict):
            return []
        names = map(resolution_text, section.resolutions)
        others = [name for name in names if name != wildcards.resolution]
        level = int(wildcards.level) - 1
        return [self.path("clustering", wildcards, resolution=r, level=level) for r in others]

    def each_method(self, store: str) -> Callable[[Any], list[str]]:
        """Return the function for the paths of a store of a data set, one per method."""

        def paths(wildcards: Any) -> list[str]:
            methods = self.dataset(wildcards).methods
            return [self.path(store, wildcards, method=method) for method in methods]

        return paths

    def tables(self, store: str) -> Callable[[Any], list[str]]:
        """Return the same for `markers` or `splits`, where they are made."""

        def paths(wildcards: Any) -> list[str]:
            made = store in cluster_tables(self.dataset(wildcards))
            return self.each_method(store)(wildcards) if made else []

        return paths

    def scores(self, wildcards: Any) -> list[str]:
        """Return the tables of the scores of a data set, one per method."""
        methods = scored_methods(self.dataset(wildcards))
        return [self.path("metrics", wildcards, method=method) for method in methods]

    def doublet_tables(self, wildcards: Any) -> list[str]:
        """Return the tables of clusters like doublets, one per method, where cells are scored."""
        scored = self.dataset(wildcards).preprocessing.doublets
        return self.each_method("doublet_clusters")(wildcards) if scored else []

    def scored_store(self, wildcards: Any) -> str:
        """Return the store that a method is scored from: without clusters, its neighbors do."""
        runs = wildcards.method in self.dataset(wildcards).methods
        return self.path("clustered" if runs else "neighbors", wildcards)

    def split_robustness(self, wildcards: Any) -> list[str]:
        """Return the table of a method's robustness, where it is made."""
        made = "robustness" in cluster_tables(self.dataset(wildcards))
        return [self.path("robustness", wildcards)] if made else []

    @staticmethod
    def option(name: str, files: list[str]) -> str:
        """Write an option that names files, where there are any."""
        return " ".join(named(name, files))

    # ------------------------------------------------------------ what is asked for

    def targets(self, store: str) -> list[str]:
        """Return the paths of a store for every data set and method."""
        return [self.path(store, {"dataset": d, "method": m}) for d, m in self._columns]

    def linked_stores(self) -> list[str]:
        """Return the stores that the atlases link to: without them they lack elements."""
        if self.config.materialize:
            return []
        stores = []
        for name, method in self._columns:
            place = {"dataset": name, "method": method}
            used = ["prepared", "neighbors", "clustered", "umap"]
            used += ["doublets"] if self.config.DATASETS[name].preprocessing.doublets else []
            used += ["pca"] if self.config.DATASETS[name].stage == "preprocessing" else []
            used += [] if method == "unintegrated" else ["embedding"]
            stores += [self.path(store, place) for store in used]
            stores += [self.path("clustering", vars(run)) for run in self.columns(name, method)]
        return list(dict.fromkeys(stores))

    def structures(self) -> list[str]:
        """Return the paths of the structure plots, one per topic model."""
        return [
            self.path("structure", {"dataset": name, "method": method})
            for name, dataset in self.config.DATASETS.items()
            for method, params in dataset.methods.items()
            if params.method == "topics"
        ]

    def exports(self) -> list[str]:
        """Return the atlases as self-contained files, if requested."""
        return self.targets("h5ad") if self.config.h5ad else []

    def evaluations(self) -> list[str]:
        """Return the tables and pictures about the clusters that are asked for."""
        paths = []
        for name, method in self._columns:
            place = {"dataset": name, "method": method}
            dataset = self.config.DATASETS[name]
            stores = cluster_tables(dataset)
            stores += ["trees"] if dataset.evaluation.trees else []
            paths += [self.path(store, place) for store in stores]
        return paths

    def comparisons(self) -> list[str]:
        """Return the paths of the comparisons, where a data set has something to compare."""
        names = self.config.DATASETS
        return [path for name in names for path in self.comparison_of({"dataset": name})]

    def comparison_of(self, wildcards: Any) -> list[str]:
        """Return the path of the comparison of a data set, where it has something to compare."""
        name = wildcards["dataset"] if isinstance(wildcards, dict) else wildcards.dataset
        dataset = self.config.DATASETS[name]
        drawn = len(dataset.methods) > 1 and dataset.clustering.umap_colors
        made = drawn or scored_methods(dataset) or dataset.preprocessing.doublets
        return [self.path("comparison", {"dataset": name})] if made else []

    def explorers(self) -> list[str]:
        """Return the paths of the pages to look at, one per data set."""
        return [self.path("explorer", {"dataset": name}) for name in self.config.DATASETS]


def make_plan(config: Config, *, workflow: str = "workflow") -> Plan:
    """Expand a checked config to every cluster column that is made.

    Parameters
    ----------
    config
        As returned by `plan.validate.load_config`.
    workflow
        The folder of the stages, as the command lines name it.

    Returns
    -------
    Plan
        What is run, where it lies and the command line of every job.
    """
    runs = [
        ClusterRun(name, method, algorithm, resolution_text(resolution), level)
        for name, dataset in config.DATASETS.items()
        for method in dataset.methods
        for algorithm in dataset.clustering.algorithm
        for resolution in dataset.clustering.resolutions
        for level in dataset.clustering.stored_levels
    ]
    return Plan(config, tuple(runs), workflow)
