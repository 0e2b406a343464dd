"""Scores, tables and pictures: what they write, their command lines, memory and time."""

from __future__ import annotations

import shlex
from typing import Any

from clustering.steps import key_words
from evaluation.options import MarkersOptions, MetricsOptions, RobustnessOptions
from preprocessing.steps import hvg_words, matrix_words
from utils.options import named, option_words, words
from utils.resources import n_values
from utils.steps import Step

STORES = {
    "plots": "{dataset}/{method}/plots",
    "structure": "{dataset}/{method}/topics/structure.png",
    "metrics": "{dataset}/{method}/metrics.tsv",
    "markers": "{dataset}/{method}/markers.tsv",
    "robustness": "{dataset}/{method}/robustness.tsv",
    "resolutions": "{dataset}/{method}/resolutions.tsv",
    "splits": "{dataset}/{method}/splits.tsv",
    "doublet_clusters": "{dataset}/{method}/doublets.tsv",
    "trees": "{dataset}/{method}/trees",
    "comparison": "{dataset}/comparison",
    "summary": "clusters.tsv",
}


def scored_methods(dataset: Any) -> list[str]:
    """Return the methods that are scored, the uncorrected data beside them."""
    if not dataset.evaluation.metrics:
        return []
    if not (dataset.integration.batch or dataset.evaluation.label):
        return []
    beside = [] if dataset.stage == "clustering" else ["unintegrated"]
    return list(dict.fromkeys([*beside, *dataset.methods]))


def cluster_tables(dataset: Any) -> list[str]:
    """Return which tables about clusters are made.

    `splits` with any other, and with a test; `resolutions` with `robustness`.
    """
    evaluation, clustering = dataset.evaluation, dataset.clustering
    amounts = {"markers": evaluation.n_markers, "robustness": evaluation.rounds}
    tables = [store for store, amount in amounts.items() if amount]
    tested = clustering.significance_of(clustering.hierarchy) is not None
    tables += ["splits"] if tables or tested else []
    return [*tables, "resolutions"] if evaluation.rounds else tables


def _title(job: Any) -> list[str]:
    return ["--title", shlex.quote(f"{job.wildcards.dataset}, {job.method}")]


def _plots(job: Any) -> list[str]:
    colors = named("--colors", job.dataset.clustering.umap_colors)
    return [*colors, *named("--clusters", job.columns), *_title(job)]


def _structure(job: Any) -> list[str]:
    key = f"X_{job.method}"
    return words(key=None if key == "X_topics" else key, groups=job.params.groups)


def _comparison(job: Any) -> list[str]:
    dataset = job.dataset
    colors = dataset.clustering.umap_colors if len(dataset.methods) > 1 else []
    return [
        *named("--names", dataset.methods),
        *named("--colors", colors),
        *words(batch=(dataset.integration.batch or [None])[0], label=dataset.evaluation.label),
    ]


def _metrics(job: Any) -> list[str]:
    dataset = job.dataset
    entered_with_neighbors = dataset.stage == "clustering"
    return [
        *named("--batch", dataset.integration.batch or []),
        *named("--clusters", job.columns if dataset.evaluation.label else []),
        *words(
            use_rep=job.representation,
            uncorrected=None if entered_with_neighbors else dataset.integration.basis,
        ),
        *key_words(dataset.clustering),
        *option_words(MetricsOptions, dataset.evaluation),
        *job.run_words("evaluation", device=False),
    ]


def _markers(job: Any) -> list[str]:
    options = option_words(MarkersOptions, job.dataset.evaluation)
    return [*named("--clusters", job.columns), *options]


def _markers_memory(job: Any, inputs: list[str]) -> float:
    """At most four blocks of 2**21 values are turned round at a time."""
    return 24 * min(n_values(inputs[0]), 2**23) / 1e6


def _values_memory(job: Any, inputs: list[str]) -> float:
    """At most 2**26 values are held: some samples of cells."""
    return 32 * min(n_values(inputs[0]), 2**26) / 1e6


def _robustness(job: Any) -> list[str]:
    return [
        *named("--clusters", job.columns),
        *key_words(job.dataset.clustering),
        *option_words(RobustnessOptions, job.dataset.evaluation),
        *job.run_words("evaluation", device=False),
    ]


def _splits(job: Any) -> list[str]:
    dataset = job.dataset
    return [
        *named("--clusters", job.columns),
        *named("--batch", dataset.integration.batch or []),
        *words(use_rep=job.representation, significance=dataset.clustering.significance),
        *matrix_words(dataset.preprocessing),
        *hvg_words(dataset.preprocessing),
        *key_words(dataset.clustering),
        *job.run_words("evaluation", device=False),
    ]


def _doublet_clusters(job: Any) -> list[str]:
    return [
        *named("--clusters", job.columns),
        *words(use_rep=job.representation),
        *key_words(job.dataset.clustering),
    ]


def _trees(job: Any) -> list[str]:
    dataset = job.dataset
    colors = dict.fromkeys([*(dataset.integration.batch or []), dataset.evaluation.label])
    colors = named("--colors", [name for name in colors if name])
    return [*named("--clusters", job.columns), *colors, *_title(job)]


STEPS = {
    "plots": Step(
        script="evaluation/scripts/plots.py", words=_plots, memory=(1500, 1000), minutes=(30, 0)
    ),
    "structure": Step(
        script="evaluation/scripts/structure.py",
        words=_structure,
        memory=(1000, 1000),
        minutes=(30, 0),
    ),
    "metrics": Step(
        script="evaluation/scripts/metrics.py",
        words=_metrics,
        memory=(1500, 3000),
        minutes=(10, 20),
    ),
    "markers": Step(
        script="evaluation/scripts/markers.py",
        words=_markers,
        memory=(700, 300),
        more_memory=_markers_memory,
        minutes=(10, 30),
    ),
    "robustness": Step(
        script="evaluation/scripts/robustness.py",
        words=_robustness,
        memory=(1000, 6000),
        minutes=(10, 600),
    ),
    "resolutions": Step(
        script="evaluation/scripts/resolutions.py",
        words=_robustness,
        memory=(1000, 6000),
        minutes=(10, 600),
    ),
    "splits": Step(
        script="evaluation/scripts/splits.py",
        words=_splits,
        memory=(1500, 1500),
        more_memory=_values_memory,
        minutes=(10, 60),
    ),
    "doublet_clusters": Step(
        script="evaluation/scripts/doublet_clusters.py",
        words=_doublet_clusters,
        memory=(1000, 1000),
        minutes=(10, 10),
    ),
    "trees": Step(
        script="evaluation/scripts/trees.py", words=_trees, memory=(1000, 2000), minutes=(10, 30)
    ),
    "comparison": Step(
        script="evaluation/scripts/comparison.py",
        words=_comparison,
        memory=(1000, 500),
        minutes=(30, 0),
    ),
    "summary": Step(
        script="evaluation/scripts/summary.py",
        words=lambda job: [],
        memory=(500, 0),
        minutes=(5, 0),
    ),
}
