"""From a config to what is run: the stores, their paths and the options of every script.

A pure function of the config: it touches no file and imports neither Snakemake nor scanpy.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from clustering.cluster_names import ClusterColumn, deepest_level, resolution_text
from utils.config import PCA, Clustering, Config, DataSet, Preprocessing, SubLevel
from utils.config_methods import Counts, Latent, start
from utils.config_preparation import Preparation
from utils.device import N_CELL_CPU
from utils.paths import split_file
from utils.plan_evaluation import OPTIONS as EVALUATION_OPTIONS
from utils.plan_evaluation import judged, scored
from utils.words import as_json, changed, fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

# Where each store lies below the output folder.
STORES = {
    "prepared": "{dataset}/prepared.zarr",
    "pca": "{dataset}/pca.zarr",
    "embedding": "{dataset}/{method}/embedding.zarr",
    "merges": "{dataset}/{method}/merges.tsv",
    "topics": "{dataset}/{method}/topics/top_genes.tsv",
    "structure": "{dataset}/{method}/topics/structure.png",
    "neighbors": "{dataset}/{method}/neighbors.zarr",
    "umap": "{dataset}/{method}/umap.zarr",
    "clustering": "{dataset}/{method}/clustering/{algorithm}_{resolution}_{level}.zarr",
    "atlas": "{dataset}/{method}/atlas.zarr",
    "h5ad": "{dataset}/{method}/atlas.h5ad",
    "clusters": "{dataset}/{method}/clusters.tsv",
    "tree": "{dataset}/{method}/tree.tsv",
    "newick": "{dataset}/{method}/tree.nwk",
    "plots": "{dataset}/{method}/plots",
    "metrics": "{dataset}/{method}/metrics.tsv",
    "markers": "{dataset}/{method}/markers.tsv",
    "robustness": "{dataset}/{method}/robustness.tsv",
    "resolutions": "{dataset}/{method}/resolutions.tsv",
    "splits": "{dataset}/{method}/splits.tsv",
    "trees": "{dataset}/{method}/trees",
    "comparison": "{dataset}/comparison",
    "explorer": "{dataset}/explorer.html",
    "summary": "clusters.tsv",
}

# What else lies in the output folder.
LOGS, BENCHMARKS, REPORTS = "logs", "benchmarks", ("report.html", "report.zip")


@dataclass(frozen=True)
class ClusterRun:
    """One cluster column of one data set and method."""

    dataset: str
    method: str
    algorithm: str
    resolution: str
    level: int

    @property
    def column(self) -> str:
        """Its name in obs."""
        return str(ClusterColumn(self.algorithm, float(self.resolution), self.level))


@dataclass(frozen=True)
class Plan:
    """What a config asks for."""

    config: Config
    runs: tuple[ClusterRun, ...]

    def pattern(self, store: str) -> str:
        """Return the path of a store, with wildcards."""
        return f"{self.config.output_dir}/{STORES[store]}"

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

    def log(self, name: str) -> str:
        """Return the path of a log."""
        return f"{self.config.output_dir}/{LOGS}/{name}"

    def benchmark(self, name: str) -> str:
        """Return the path of a table with the time and memory of a job."""
        return f"{self.config.output_dir}/{BENCHMARKS}/{name}"

    def names(self, method: str) -> str:
        """Return a pattern of the names under which an integration method runs."""
        found = [
            name
            for dataset in self.config.DATASETS.values()
            for name, params in dataset.methods.items()
            if params.method == method
        ]
        return "|".join(map(re.escape, sorted(set(found)))) or "(?!)"

    def basis(self, wildcards: Any) -> str:
        """Return the store that holds what the methods start from."""
        stage = self.dataset(wildcards).stage
        return self.path("pca" if stage == "preprocessing" else "prepared", wildcards)

    def start(self, wildcards: Any) -> tuple[str, str | None]:
        """Return the obsm key that a method starts from, and the method whose result that is."""
        dataset = self.dataset(wildcards)
        return start(wildcards.method, dataset.methods, dataset.integration.basis)

    def source(self, wildcards: Any) -> str:
        """Return the store that a method starts from."""
        params = self.dataset(wildcards).methods[wildcards.method]
        before = self.start(wildcards)[1] if isinstance(params, Latent) else None
        if before is not None:
            return self.path("embedding", wildcards, method=before)
        return self.basis(wildcards)

    def embedding(self, wildcards: Any) -> str:
        """Return the store that holds the embedding of a method."""
        if wildcards.method == "unintegrated":
            return self.basis(wildcards)
        return self.path("embedding", wildcards)

    def representation(self, wildcards: Any) -> str | None:
        """Return the obsm key that neighbors are searched in; ``None``: the script's default."""
        dataset = self.dataset(wildcards)
        if wildcards.method != "unintegrated":
            return f"X_{wildcards.method}"
        if dataset.stage == "clustering":
            return dataset.clustering.neighbors.use_rep
        return dataset.integration.basis

    def columns(self, dataset: str, method: str) -> list[ClusterRun]:
        """Return the cluster columns of a data set and method."""
        return self._columns.get((dataset, method), [])

    @cached_property
    def _columns(self) -> dict[tuple[str, str], list[ClusterRun]]:
        found: dict[tuple[str, str], list[ClusterRun]] = {}
        for run in self.runs:
            found.setdefault((run.dataset, run.method), []).append(run)
        return found

    def clusterings(self, wildcards: Any) -> list[str]:
        """Return the stores with the cluster columns of a data set and method."""
        runs = self.columns(wildcards.dataset, wildcards.method)
        return [self.path("clustering", vars(run)) for run in runs]

    def parent(self, wildcards: Any) -> str:
        """Return the store of the level above."""
        return self.path("clustering", wildcards, level=int(wildcards.level) - 1)

    def siblings(self, wildcards: Any) -> list[str]:
        """Return the level above at the other resolutions, where cluster ids may occur too."""
        clustering = self.dataset(wildcards).clustering
        if not isinstance(clustering.hierarchy, dict):
            return []
        others = [r for r in resolution_names(clustering) if r != wildcards.resolution]
        level = int(wildcards.level) - 1
        return [self.path("clustering", wildcards, resolution=r, level=level) for r in others]

    def files_option(self, name: str, files: list[str]) -> str:
        """Write an option that names files, where there are any."""
        return " ".join([name, *map(shlex.quote, files)]) if files else ""

    def device(self, wildcards: Any, stage: str) -> dict[str, Any]:
        """Return where a stage of a data set may run."""
        return {key: self.setting(wildcards, stage, key) for key in ("use_gpu", "n_cell_cpu")}

    def community_device(self, wildcards: Any) -> dict[str, Any]:
        """As `device`, for the communities alone: with arguments they stay on the CPU."""
        device = self.device(wildcards, "clustering")
        stays = bool(self.dataset(wildcards).clustering.clustering_args)
        return {**device, "use_gpu": device["use_gpu"] and not stays}

    def has_flavor(self, wildcards: Any) -> bool:
        """Tell whether communities are found by another library, which needs more memory."""
        return "flavor" in self.dataset(wildcards).clustering.clustering_args

    def environment(self, wildcards: Any, stage: str) -> str:
        """Return the conda file of a step that can run on a GPU, as seen from a module's rules."""
        gpu = self.device(wildcards, stage)["use_gpu"]
        return f"../../envs/{'rapids_singlecell' if gpu else 'scanpy'}.yaml"

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
            used = ["prepared", "neighbors", "umap"]
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
        """Return the atlases as files that stand alone, where these are asked for."""
        return self.targets("h5ad") if self.config.h5ad else []

    def each_method(self, store: str, wildcards: Any) -> list[str]:
        """Return the paths of a store of a data set, one per method."""
        methods = self.dataset(wildcards).methods
        return [self.path(store, wildcards, method=method) for method in methods]

    def tables(self, store: str, wildcards: Any) -> list[str]:
        """Return the `markers` or `splits` of a data set, one per method, where they are made."""
        return (
            self.each_method(store, wildcards)
            if store in judged(self.dataset(wildcards).evaluation)
            else []
        )

    def evaluations(self) -> list[str]:
        """Return the tables and pictures about the clusters that are asked for."""
        found = []
        for name, method in self._columns:
            place = {"dataset": name, "method": method}
            evaluation = self.config.DATASETS[name].evaluation
            stores = [store for store in judged(evaluation) if store == "splits"]
            stores += ["trees"] if evaluation.trees else []
            found += [self.path(store, place) for store in stores]
        return found

    def comparisons(self) -> list[str]:
        """Return the paths of the comparisons, where a data set has something to compare."""
        return [
            self.path("comparison", {"dataset": name})
            for name, dataset in self.config.DATASETS.items()
            if (len(dataset.methods) > 1 and dataset.clustering.umap_colors) or scored(dataset)
        ]

    def scores(self, wildcards: Any) -> list[str]:
        """Return the tables of the scores of a data set, one per method."""
        methods = scored(self.dataset(wildcards))
        return [self.path("metrics", wildcards, method=method) for method in methods]

    def scored_store(self, wildcards: Any) -> str:
        """Return the store that a method is scored from: without clusters, its neighbors do."""
        found = wildcards.method in self.dataset(wildcards).methods
        return self.path("atlas" if found else "neighbors", wildcards)

    def evidence(self, wildcards: Any) -> dict[str, str]:
        """Return the tables of a method that the splits are judged by, by name of their option."""
        stores = judged(self.dataset(wildcards).evaluation)
        return {store: self.path(store, wildcards) for store in stores if store != "splits"}

    def evidence_option(self, wildcards: Any) -> str:
        """Write the options that name them."""
        files = self.evidence(wildcards)
        return " ".join(f"--{name} {shlex.quote(file)}" for name, file in files.items())

    def explorers(self) -> list[str]:
        """Return the paths of the pages to look at, one per data set."""
        return [self.path("explorer", {"dataset": name}) for name in self.config.DATASETS]

    def setting(self, wildcards: Any, stage: str, key: str) -> Any:
        """Return a setting of a stage, else of its data set, else of the config."""
        dataset = self.dataset(wildcards)
        for section in (getattr(dataset, stage), dataset):
            value = getattr(section, key, None)
            if value is not None:
                return value
        return getattr(self.config, key)

    def options(self, script: str, wildcards: Any) -> str:
        """Return the options that a rule calls a script with, quoted for the shell."""
        return " ".join(_OPTIONS[script](self, wildcards))

    def run_options(self, wildcards: Any, stage: str, *, device: bool = True) -> list[str]:
        """Write the options on how a stage of a data set runs."""
        words = changed({"seed": self.setting(wildcards, stage, "seed")}, {"seed": 0})
        if device:
            # False has to be said: a script by hand uses the GPU that it finds.
            defaults = {"use_gpu": None, "n_cell_cpu": N_CELL_CPU}
            words += changed(self.device(wildcards, stage), defaults)
        return words


def make_plan(config: Config) -> Plan:
    """Expand a checked config to every cluster column that is made.

    Parameters
    ----------
    config
        As returned by `utils.validate.load_config`.

    Returns
    -------
    Plan
        What is run, where it lies and the options of every script.
    """
    runs = [
        ClusterRun(name, method, algorithm, resolution, level)
        for name, dataset in config.DATASETS.items()
        for method in dataset.methods
        for algorithm in dataset.clustering.algorithm
        for resolution in resolution_names(dataset.clustering)
        for level in range(1, depth(dataset.clustering) + 1)
    ]
    return Plan(config, tuple(runs))


def resolution_names(clustering: Clustering) -> list[str]:
    """Write the resolutions as they stand in the names of columns: ``1`` is ``1.0``."""
    return [resolution_text(resolution) for resolution in clustering.resolutions]


def depth(clustering: Clustering) -> int:
    """Return the number of levels."""
    hierarchy = clustering.hierarchy
    if isinstance(hierarchy, dict):
        return max(map(deepest_level, hierarchy)) + 1
    return hierarchy if isinstance(hierarchy, int) else len(hierarchy) + 1


def _prepare(plan: Plan, wildcards: Any) -> list[str]:
    dataset = plan.dataset(wildcards)
    words = fields(Preparation, dataset.preprocessing)
    if len(plan.files(wildcards)) > 1 and dataset.integration.batch:
        words += ["--batch", *map(shlex.quote, dataset.integration.batch)]
    words += changed({"values": dataset.preprocessing.values}, {"values": None})
    words += changed({"stage": dataset.stage}, {"stage": "preprocessing"})
    recompute = ("recompute_umap", "recompute_neighbors")
    if dataset.stage != "preprocessing":
        words += [f"--{key}" for key in recompute if getattr(dataset.clustering, key)]
    return words


def _pca(plan: Plan, wildcards: Any) -> list[str]:
    section = plan.dataset(wildcards).preprocessing
    return ["--overwrite", *_matrix(section), *fields(PCA, section)]


def _matrix(section: Preprocessing) -> list[str]:
    """Write where the counts are, and what the user says that they are."""
    # `raw` has become X when the files were prepared.
    layer = None if section.layer == "raw" else section.layer
    chosen = {"layer": layer, "values": section.values}
    return changed(chosen, {"layer": None, "values": None})


def _integration(plan: Plan, wildcards: Any) -> list[str]:
    """Write the options of any integration method."""
    dataset = plan.dataset(wildcards)
    params = dataset.methods[wildcards.method]
    words = []
    if params.needs_batch:
        words += ["--batch", *map(shlex.quote, dataset.integration.batch or [])]
    if isinstance(params, Latent):
        words += changed({"basis": plan.start(wildcards)[0]}, {"basis": "X_pca"})
    if isinstance(params, Counts):
        words += _matrix(dataset.preprocessing)
    return [
        *words,
        *changed({"key_added": f"X_{wildcards.method}"}, {"key_added": f"X_{params.method}"}),
        "--overwrite",
        *fields(type(params), params),
        *plan.run_options(wildcards, "integration", device=params.has_gpu),
    ]


def _fresh(plan: Plan, wildcards: Any, recompute: bool) -> list[str]:
    """Compute anew, unless the data set enters at clustering and brings what is needed."""
    enters_here = plan.dataset(wildcards).stage == "clustering"
    return [] if enters_here and not recompute else ["--overwrite"]


def _neighbors(plan: Plan, wildcards: Any) -> list[str]:
    clustering = plan.dataset(wildcards).clustering
    values = {
        "neighbors_key": clustering.neighbors_key,
        "n_neighbors": clustering.neighbors.n_neighbors,
        "use_rep": plan.representation(wildcards),
        "metric": clustering.neighbors.metric,
    }
    defaults = {"neighbors_key": "neighbors", "n_neighbors": 15, "metric": "euclidean"}
    return [
        *_fresh(plan, wildcards, clustering.recompute_neighbors),
        *changed(values, {"use_rep": None, **defaults}),
        *plan.run_options(wildcards, "clustering"),
    ]


def _umap(plan: Plan, wildcards: Any) -> list[str]:
    clustering = plan.dataset(wildcards).clustering
    return [
        *_fresh(plan, wildcards, clustering.recompute_umap),
        *changed({"neighbors_key": clustering.neighbors_key}, {"neighbors_key": "neighbors"}),
        *fields(type(clustering.umap), clustering.umap),
        *plan.run_options(wildcards, "clustering"),
    ]


def _clustering(plan: Plan, wildcards: Any) -> list[str]:
    clustering = plan.dataset(wildcards).clustering
    level = int(wildcards.level)
    hierarchy = clustering.hierarchy
    words = ["--algorithm", wildcards.algorithm, "--level", str(level)]
    sub = SubLevel()
    if level > 1 and isinstance(hierarchy, list):
        sub = hierarchy[level - 2]
    words += ["--resolution", str(sub.resolution or wildcards.resolution)]
    if level > 1:
        words += ["--given_file", shlex.quote(plan.path("neighbors", wildcards))]
        if isinstance(hierarchy, dict):
            words += ["--hierarchy", as_json(hierarchy)]
        neighbors = clustering.neighbors
        args = {
            "n_neighbors": sub.n_neighbors or neighbors.n_neighbors,
            "use_rep": sub.use_rep or plan.representation(wildcards),
            "metric": sub.metric or neighbors.metric,
        }
        refine = sub.refine or clustering.refine
        if refine != "graph":
            args = {name: value for name, value in args.items() if value is not None}
            words += ["--neighbors_args", as_json(args)]
        words += _refine(plan, wildcards, refine)
    values = {
        "clustering_args": {**clustering.clustering_args, **sub.clustering_args},
        "neighbors_key": clustering.neighbors_key,
        "max_cluster_factor": clustering.max_cluster_factor,
    }
    defaults = {"clustering_args": {}, "neighbors_key": "neighbors", "max_cluster_factor": 50}
    words += changed(values, defaults)
    if clustering.overwrite:
        words.append("--overwrite")
    return words + plan.run_options(wildcards, "clustering")


def _refine(plan: Plan, wildcards: Any, refine: str) -> list[str]:
    """Write what a sub-level does with the counts of its parents."""
    dataset = plan.dataset(wildcards)
    method = dataset.methods[wildcards.method]
    if refine == "integration" and method.method != "harmony":
        refine = "pca"
    if refine in ("neighbors", "graph"):
        return changed({"refine": refine}, {"refine": "neighbors"})
    section = dataset.preprocessing
    args = {name: getattr(section, name) for name in PCA.model_fields if name != "batch_key"}
    words = ["--refine", refine, *_matrix(section)]
    words += ["--pca_args", as_json(_differing(args, PCA()))]
    if refine == "integration":
        args = method.model_dump(exclude={"method", "basis"})
        words += ["--batch", *map(shlex.quote, dataset.integration.batch or [])]
        words += ["--batch_file", shlex.quote(plan.embedding(wildcards))]
        words += ["--harmony_args", as_json(_differing(args, type(method)()))]
    return words


def _differing(values: Mapping[str, Any], defaults: BaseModel) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value != getattr(defaults, name)}


def _merge(plan: Plan, wildcards: Any) -> list[str]:
    return ["--materialize"] if plan.config.materialize else []


_OPTIONS = {
    **EVALUATION_OPTIONS,
    "prepare": _prepare,
    "pca": _pca,
    "integration": _integration,
    "neighbors": _neighbors,
    "umap": _umap,
    "clustering": _clustering,
    "merge": _merge,
}
