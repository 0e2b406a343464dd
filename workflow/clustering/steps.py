"""Neighbors, clusterings and the atlas: what they write, their command lines, memory and time."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

from clustering.options import (
    AUTO,
    ClusteringOptions,
    CommunityOptions,
    NeighborsOptions,
    SubLevelOptions,
    UMAPOptions,
)
from integration.options import HarmonyOptions
from preprocessing.options import PCAOptions
from preprocessing.steps import hvg_words, matrix_words
from utils.options import as_json, differing, named, option_words, words
from utils.resources import n_cells, n_values
from utils.steps import Step

STORES = {
    "neighbors": "{dataset}/{method}/neighbors.zarr",
    "umap": "{dataset}/{method}/umap.zarr",
    "clustering": "{dataset}/{method}/clustering/{algorithm}_{resolution}_{level}.zarr",
    "clustered": "{dataset}/{method}/clustered.zarr",
    "atlas": "{dataset}/{method}/atlas.zarr",
    "h5ad": "{dataset}/{method}/atlas.h5ad",
    "clusters": "{dataset}/{method}/clusters.tsv",
    "tree": "{dataset}/{method}/tree.tsv",
    "newick": "{dataset}/{method}/tree.nwk",
}


def key_words(clustering: ClusteringOptions) -> list[str]:
    """Write which neighbors of the store are meant."""
    key = clustering.neighbors_key
    return [] if key == ClusteringOptions.neighbors_key else words(neighbors_key=key)


def _fresh(job: Any, recompute: bool) -> list[str]:
    """Compute anew, unless the data set enters at clustering and brings what is needed."""
    return [] if job.dataset.stage == "clustering" and not recompute else ["--overwrite"]


def _neighbors(job: Any) -> list[str]:
    clustering = job.dataset.clustering
    return [
        *_fresh(job, clustering.recompute_neighbors),
        *key_words(clustering),
        *option_words(NeighborsOptions, replace(clustering.neighbors, use_rep=job.representation)),
        *job.run_words("clustering"),
    ]


def _umap(job: Any) -> list[str]:
    clustering = job.dataset.clustering
    return [
        *_fresh(job, clustering.recompute_umap),
        *key_words(clustering),
        *option_words(UMAPOptions, clustering.umap),
        *job.run_words("clustering"),
    ]


def _clustering(job: Any) -> list[str]:
    clustering, level = job.dataset.clustering, job.wildcards.level
    sub = SubLevelOptions()
    if clustering.levels and level != "1":
        sub = clustering.levels[int(level) - 2]
    tested = clustering.significance_of(level) is not None
    line = ["--algorithm", job.wildcards.algorithm, "--level", level]
    line += ["--resolution", str(sub.resolution or job.wildcards.resolution)]
    refine = "neighbors"
    if level != "1":
        refine = _refinement(job, sub)
        line += _within_parents(job, sub, refine)
    if tested and refine not in ("pca", "integration"):
        line += hvg_words(job.dataset.preprocessing)
    if tested or refine in ("pca", "integration"):
        line += matrix_words(job.dataset.preprocessing)
    if tested or refine == "integration":
        line += named("--batch", job.dataset.integration.batch or [])
    arguments = {**clustering.clustering_args, **sub.clustering_args}
    line += words(clustering_args=arguments or None)
    without = ["clustering_args", "refine"]
    if level == "1" and not tested:
        without.append("min_cluster_size")
    line += option_words(CommunityOptions, clustering, without=without)
    if clustering.overwrite:
        line.append("--overwrite")
    return line + job.run_words("clustering")


def _refinement(job: Any, sub: SubLevelOptions) -> str:
    """Return what a sub-level computes within its parents: only Harmony integrates there."""
    refine = sub.refine or job.dataset.clustering.refine
    if refine == "integration" and job.params.method != "harmony":
        return "pca"
    return refine


def _within_parents(job: Any, sub: SubLevelOptions, refine: str) -> list[str]:
    """Write how a sub-level splits its parents."""
    clustering = job.dataset.clustering
    line = []
    if job.wildcards.level != AUTO:
        line += ["--given_file", shlex.quote(job.path("neighbors"))]
    if isinstance(clustering.hierarchy, dict):
        line += ["--hierarchy", as_json(clustering.hierarchy)]
    neighbors = clustering.neighbors
    if refine != "graph":
        arguments = {
            "n_neighbors": sub.n_neighbors or neighbors.n_neighbors,
            "use_rep": sub.use_rep or job.representation,
            "metric": sub.metric or neighbors.metric,
        }
        arguments = {name: value for name, value in arguments.items() if value is not None}
        line += ["--neighbors_args", as_json(arguments)]
    if refine != ClusteringOptions.refine:
        line += words(refine=refine)
    if refine in ("pca", "integration"):
        options = differing(PCAOptions, job.dataset.preprocessing, without=("batch_key",))
        line += ["--pca_args", as_json(options)]
    if refine == "integration":
        line += ["--harmony_args", as_json(differing(HarmonyOptions, job.params))]
    return line


def _community_device(job: Any) -> dict[str, Any]:
    """With arguments for the algorithm the communities stay on the CPU."""
    device = job.device("clustering")
    stays = bool(job.dataset.clustering.clustering_args)
    return {**device, "use_gpu": device["use_gpu"] and not stays}


def _more_memory(job: Any, inputs: list[str]) -> float:
    """Another library needs twice as much; counts are those of a block and of some samples."""
    clustering = job.dataset.clustering
    has_flavor = "flavor" in clustering.clustering_args
    counts = 16 * min(n_values(inputs[0]), 5e7) / 1e6 if clustering.reads_counts else 0
    return counts + (2000 * n_cells(inputs[0]) / 1e6 if has_flavor else 0)


def _atlas(job: Any) -> list[str]:
    return ["--materialize"] if job.config.materialize else []


STEPS = {
    "neighbors": Step(
        script="clustering/scripts/neighbors.py",
        words=_neighbors,
        memory=(1000, 2000),
        minutes=(10, 30),
        gpu="clustering",
    ),
    "clustering": Step(
        script="clustering/scripts/clustering.py",
        words=_clustering,
        memory=(1000, 2000),
        more_memory=_more_memory,
        minutes=(10, 60),
        gpu="clustering",
        device=_community_device,
    ),
    "subclustering": Step(
        script="clustering/scripts/clustering.py",
        words=_clustering,
        memory=(1000, 3000),
        more_memory=_more_memory,
        minutes=(10, 60),
    ),
    "autoclustering": Step(
        script="clustering/scripts/clustering.py",
        words=_clustering,
        memory=(1000, 3000),
        more_memory=_more_memory,
        minutes=(10, 120),
        gpu="clustering",
        device=_community_device,
    ),
    "umap": Step(
        script="clustering/scripts/umap.py",
        words=_umap,
        memory=(1000, 2000),
        minutes=(10, 120),
        gpu="clustering",
    ),
    "merge": Step(
        script="clustering/scripts/merge.py",
        words=lambda job: [],
        memory=(1000, 200),
        minutes=(10, 10),
    ),
    "atlas": Step(
        script="clustering/scripts/merge.py",
        words=_atlas,
        memory=(1000, 200),
        minutes=(10, 10),
    ),
    "h5ad": Step(
        script="clustering/scripts/merge.py",
        words=lambda job: [],
        memory=(1000, 3000),
        minutes=(10, 60),
    ),
}
