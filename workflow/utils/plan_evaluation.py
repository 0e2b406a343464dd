"""The options of the evaluation's scripts, and which methods are scored."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from utils.config_evaluation import Markers, Metrics, Robustness
from utils.words import changed, fields

if TYPE_CHECKING:
    from utils.config import DataSet
    from utils.config_evaluation import Evaluation
    from utils.plan import Plan


def scored(dataset: DataSet) -> list[str]:
    """Return the methods that are scored, the uncorrected data beside them."""
    if not dataset.evaluation.metrics:
        return []
    if not (dataset.integration.batch or dataset.evaluation.label):
        return []
    beside = [] if dataset.stage == "clustering" else ["unintegrated"]
    return list(dict.fromkeys([*beside, *dataset.methods]))


def judged(evaluation: Evaluation) -> list[str]:
    """Return which tables about clusters are asked for: the evidence, then the splits."""
    made = {"markers": evaluation.n_markers, "robustness": evaluation.rounds}
    found = [store for store, count in made.items() if count]
    return [*found, "splits"] if found else []


def _plots(plan: Plan, wildcards: Any) -> list[str]:
    columns = [run.column for run in plan.columns(wildcards.dataset, wildcards.method)]
    colors = plan.dataset(wildcards).clustering.umap_colors
    title = f"{wildcards.dataset}, {wildcards.method}"
    words = ["--colors", *map(shlex.quote, colors)] if colors else []
    return [*words, "--clusters", *columns, "--title", shlex.quote(title)]


def _structure(plan: Plan, wildcards: Any) -> list[str]:
    groups = plan.dataset(wildcards).methods[wildcards.method].groups
    values = {"key": f"X_{wildcards.method}", "groups": groups}
    return changed(values, {"key": "X_topics", "groups": None})


def _comparison(plan: Plan, wildcards: Any) -> list[str]:
    dataset = plan.dataset(wildcards)
    colors = list(map(shlex.quote, dataset.clustering.umap_colors))
    if len(dataset.methods) < 2:
        colors = []
    return ["--names", *dataset.methods, *(["--colors", *colors] if colors else [])]


def _metrics(plan: Plan, wildcards: Any) -> list[str]:
    dataset = plan.dataset(wildcards)
    batch = list(map(shlex.quote, dataset.integration.batch or []))
    columns = [run.column for run in plan.columns(wildcards.dataset, wildcards.method)]
    basis = None if dataset.stage == "clustering" else dataset.integration.basis
    values = {
        "use_rep": plan.representation(wildcards),
        "uncorrected": basis,
    }
    return [
        *(["--batch", *batch] if batch else []),
        *(["--clusters", *columns] if columns and dataset.evaluation.label else []),
        *changed(values, {"use_rep": None, "uncorrected": None}),
        *_neighbors_key(plan, wildcards),
        *fields(Metrics, dataset.evaluation),
        *plan.run_options(wildcards, "evaluation", device=False),
    ]


def _clusters(plan: Plan, wildcards: Any) -> list[str]:
    columns = plan.columns(wildcards.dataset, wildcards.method)
    return ["--clusters", *(run.column for run in columns)]


def _markers(plan: Plan, wildcards: Any) -> list[str]:
    evaluation = plan.dataset(wildcards).evaluation
    return [*_clusters(plan, wildcards), *fields(Markers, evaluation)]


def _neighbors_key(plan: Plan, wildcards: Any) -> list[str]:
    key = plan.dataset(wildcards).clustering.neighbors_key
    return changed({"neighbors_key": key}, {"neighbors_key": "neighbors"})


def _robustness(plan: Plan, wildcards: Any) -> list[str]:
    return [
        *_clusters(plan, wildcards),
        *_neighbors_key(plan, wildcards),
        *fields(Robustness, plan.dataset(wildcards).evaluation),
        *plan.run_options(wildcards, "evaluation", device=False),
    ]


def _splits(plan: Plan, wildcards: Any) -> list[str]:
    batch = (plan.dataset(wildcards).integration.batch or [None])[0]
    values = {"batch": batch, "use_rep": plan.representation(wildcards)}
    return [
        *_clusters(plan, wildcards),
        *changed(values, {"batch": None, "use_rep": None}),
        *_neighbors_key(plan, wildcards),
        *plan.run_options(wildcards, "evaluation", device=False),
    ]


def _trees(plan: Plan, wildcards: Any) -> list[str]:
    dataset = plan.dataset(wildcards)
    colors = dict.fromkeys([*(dataset.integration.batch or []), dataset.evaluation.label])
    colors = [shlex.quote(name) for name in colors if name]
    title = shlex.quote(f"{wildcards.dataset}, {wildcards.method}")
    return [
        *_clusters(plan, wildcards),
        *(["--colors", *colors] if colors else []),
        *("--title", title),
    ]


def _explorer(plan: Plan, wildcards: Any) -> list[str]:
    dataset = plan.dataset(wildcards)
    words = ["--title", shlex.quote(wildcards.dataset), "--names", *dataset.methods]
    for option, columns in (
        ("--colors", dataset.clustering.umap_colors),
        ("--batch", dataset.integration.batch or []),
    ):
        words += [option, *map(shlex.quote, columns)] if columns else []
    return words + changed({"seed": plan.setting(wildcards, "clustering", "seed")}, {"seed": 0})


OPTIONS = {
    "plots": _plots,
    "structure": _structure,
    "comparison": _comparison,
    "explorer": _explorer,
    "metrics": _metrics,
    "markers": _markers,
    "robustness": _robustness,
    "splits": _splits,
    "trees": _trees,
}
