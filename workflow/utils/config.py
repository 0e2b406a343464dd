"""The config: every key with its type, default, help and check.

This module is the only place where a key or a default is stated. ``config/schema.json`` and the
tables of ``config/README.md`` are generated from it (``utils/config_docs.py``), the scripts take
their options from it (``utils/cli.py``), and the plan writes the scripts' command lines with it.
``utils/validate.py`` applies it. It imports neither Snakemake nor scanpy and reads no file.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from utils.config_evaluation import Evaluation
from utils.config_methods import Harmony, Method, Unintegrated, by_name, chain_problems
from utils.config_preparation import Preparation
from utils.config_values import (
    NAME,
    Columns,
    ElementName,
    Model,
    Normalization,
    Plain,
    Values,
    VariableGenes,
    as_list,
    hierarchy_levels,
    input_stage,
    resolution_list,
)
from utils.device import N_CELL_CPU
from utils.paths import name_problem

STAGES = ("preprocessing", "integration", "clustering")
VERSION = "0.1.0"


class Device(Model):
    """Where a stage may run."""

    use_gpu: bool | None = Field(
        None, description="Use a GPU where one is visible. Unset: as set one section above."
    )
    n_cell_cpu: int | None = Field(
        None,
        ge=0,
        description="Below this number of cells the CPU is used even where there is a GPU. "
        "Unset: as set one section above.",
    )


class PCA(Normalization):
    """Counts to principal components (``pca.py``); only where a data set enters here."""

    n_top_genes: int | None = Field(
        2000,
        ge=1,
        description="Number of highly variable genes. More than there are, or `null`: all genes.",
    )
    flavor: Literal["seurat", "seurat_v3"] = Field(
        "seurat", description="How variable genes are found; `seurat_v3` needs raw counts."
    )
    batch_key: str | None = Field(
        None, description="Find variable genes within each level of this obs column, then join."
    )
    hvg: VariableGenes | None = Field(
        None, description="Genes to leave out of the variable ones, or a list of your own."
    )
    n_comps: int = Field(50, ge=1, description="Number of principal components.")

    @model_validator(mode="after")
    def _one_choice(self) -> PCA:
        """Refuse options of a choice that is not made."""
        if self.hvg is None or self.hvg.use is None:
            return self
        default = PCA.model_fields
        idle = [
            name
            for name in ("n_top_genes", "flavor", "batch_key")
            if getattr(self, name) != default[name].default
        ]
        if idle:
            raise ValueError(
                f"hvg.use names the genes, so that {' and '.join(idle)} would have no effect; "
                f"remove {'it' if len(idle) == 1 else 'them'}, or hvg.use"
            )
        if self.hvg.exclude:
            raise ValueError("hvg.use names the genes, hvg.exclude chooses among all; give one")
        return self


class Preprocessing(PCA, Preparation, Values):
    """What is kept of the input, and how counts become principal components."""


class Integration(Device):
    """How batches are brought together."""

    batch: Columns | None = Field(
        None, description="The obs column that names the batch, or a list of them."
    )
    basis: str = Field(
        "X_pca", description="The obsm key that methods without one of their own start from."
    )
    methods: Annotated[dict[str, Method], BeforeValidator(by_name)] | None = Field(
        None,
        description="`{method: {parameter: value}}`; a name of your own says `method:` among its "
        "parameters. Unset: `harmony` where `batch` is set, else `unintegrated`.",
    )


class Neighbors(Model):
    """The neighbor graph (``neighbors.py``)."""

    n_neighbors: int = Field(15, ge=2, description="Neighbors per cell, itself included.")
    use_rep: str | None = Field(
        None,
        description="The obsm key to search in. Unset: the method's own embedding; "
        "where a data set enters at clustering, `X_pca`.",
    )
    metric: Literal["euclidean", "cosine"] = Field("euclidean", description="Distance.")


class SubLevel(Model):
    """Parameters of one level of a `hierarchy` list."""

    resolution: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Resolution within each parent. Unset: the level-1 resolution."
    )
    n_neighbors: Annotated[int, Field(ge=2)] | None = Field(
        None, description="Neighbors within each parent."
    )
    use_rep: str | None = Field(None, description="The obsm key to search in.")
    metric: Literal["euclidean", "cosine"] | None = Field(None, description="Distance.")
    refine: Literal["neighbors", "graph", "pca", "integration"] | None = Field(
        None, description="As `refine`, for this level."
    )
    clustering_args: dict[str, Plain] = Field(
        default_factory=dict, description="As `clustering_args`, for this level."
    )


class UMAP(Model):
    """The layout (``umap.py``)."""

    min_dist: float = Field(0.5, ge=0, description="How tightly points are packed.")
    spread: float = Field(1.0, gt=0, description="Scale of the layout.")
    n_epochs: int | None = Field(
        None, ge=1, description="Optimization passes. Unset: by number of cells."
    )


class Clustering(Device):
    """Neighbors, communities at every resolution and level, layout and pictures."""

    algorithm: Annotated[list[Literal["leiden", "louvain"]], BeforeValidator(as_list)] = Field(
        ["leiden"], min_length=1, description="`leiden`, `louvain` or a list of them."
    )
    resolutions: Annotated[list[float], BeforeValidator(resolution_list)] = Field(
        [1.0], description="Resolutions of level 1, such as `[0.2, 0.4, 0.8]`."
    )
    hierarchy: Annotated[
        Annotated[int, Tag("int")]
        | Annotated[dict[str, float], Tag("dict[id]")]
        | Annotated[list[SubLevel], Tag("list[level]")],
        Discriminator(lambda value: {int: "int", dict: "dict[id]"}.get(type(value), "list[level]")),
        BeforeValidator(hierarchy_levels),
    ] = Field(
        1,
        description="Sub-clustering: a depth (`3`: all clusters, down to level 3, at the level-1 "
        "resolution), or `{cluster_id: resolution}` (only these are split; quote deeper ids: "
        '`"3_0"`; the clusters of a column that came with the input go by their names, and one '
        "whose name ends in `_` and a number may be of a deeper level, which is then made), or a "
        "list with one resolution (or mapping of parameters) per level below the first.",
    )
    refine: Literal["neighbors", "graph", "pca", "integration"] = Field(
        "neighbors",
        description="What a sub-level does anew within each parent: neighbors; or nothing "
        "(`graph`: the parent's part of the level-1 graph is split, the choice for a graph that is "
        "itself the integration, such as BBKNN's); or also PCA on the "
        "parent's own variable genes (from the counts, by the keys of `preprocessing`); or also "
        "Harmony on those (methods that are Harmony; others stay at PCA).",
    )
    neighbors_key: ElementName = Field(
        "neighbors", description="The key of the neighbors in `uns`; existing ones are used."
    )
    recompute_neighbors: bool = Field(
        False, description="Compute neighbors even where the input has them."
    )
    neighbors: Neighbors = Field(
        Neighbors(), description="Parameters of the neighbor graph, sub-levels included."
    )
    overwrite: bool = Field(False, description="Recompute results that already exist.")
    max_cluster_factor: float = Field(
        50,
        gt=0,
        description="After a GPU run, more than factor x resolution tiny clusters are taken for a "
        "failure and the CPU is used.",
    )
    clustering_args: dict[str, Plain] = Field(
        default_factory=dict,
        description="Arguments for the algorithm, such as `{flavor: igraph, n_iterations: 5}`; "
        "with any, the CPU is used.",
    )
    recompute_umap: bool = Field(
        False, description="Compute the layout even where the input has an `X_umap`."
    )
    umap: UMAP = Field(UMAP(), description="Parameters of the layout.")
    umap_colors: Columns = Field(
        [], description="obs columns to color the layout by; every cluster column is added."
    )

    @model_validator(mode="after")
    def _heard(self) -> Clustering:
        """Refuse parameters of a level that `refine` leaves without effect."""
        idle = {"graph": {"n_neighbors", "use_rep", "metric"}, "neighbors": set()}
        levels = self.hierarchy if isinstance(self.hierarchy, list) else []
        problems = [
            f"hierarchy[{i}].{key}: has no effect with refine: {refine}; remove it"
            for i, level in enumerate(levels)
            for refine in [level.refine or self.refine]
            for key in sorted(idle.get(refine, {"use_rep"}) & level.model_fields_set)
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def refines(self) -> bool:
        """Whether a sub-level goes back to the counts."""
        levels = self.hierarchy if isinstance(self.hierarchy, list) else []
        return {self.refine, *(level.refine for level in levels)} & {"pca", "integration"} != set()

    @field_validator("algorithm", "umap_colors")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        twice = sorted({v for v in value if value.count(v) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is listed twice")
        return value


class DataSet(Device):
    """One data set: where it enters and what is done with it."""

    input: Annotated[
        dict[
            Literal["preprocessing", "integration", "clustering"],
            Annotated[list[str], BeforeValidator(as_list)],
        ],
        BeforeValidator(input_stage),
    ] = Field(
        description="`{stage: file}` or `{stage: [file, ...]}` (.h5ad or .zarr); the stage "
        "(`preprocessing`, `integration`, `clustering`) is where the data set enters. "
        "Several files are joined on their genes (`join`); the log says what they do not share."
    )
    seed: int | None = Field(None, ge=0, description="Random seed. Unset: the config's.")
    preprocessing: Preprocessing = Field(Preprocessing(), description="See below.")
    integration: Integration = Field(Integration(), description="See below.")
    clustering: Clustering = Field(Clustering(), description="See below.")
    evaluation: Evaluation = Field(Evaluation(), description="See below.")

    @property
    def stage(self) -> str:
        """The stage at which the data set enters."""
        return next(iter(self.input))

    @field_validator("input")
    @classmethod
    def _one_stage(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        if len(value) != 1:
            raise ValueError(
                f"must name exactly one stage of {', '.join(STAGES)}, found {len(value)}"
            )
        files = next(iter(value.values()))
        if not files:
            raise ValueError("names no file")
        for file in files:
            if problem := name_problem(file, stage=next(iter(value))):
                raise ValueError(problem)
            if re.search(r"[{}]", file):
                raise ValueError(
                    f"{file!r} has a brace, which Snakemake takes for a placeholder; rename it, or "
                    "make a link to it: ln -s FILE NAME"
                )
        paths = [str(PurePath(file)) for file in files]
        if twice := sorted({path for path in paths if paths.count(path) > 1}):
            raise ValueError(f"{', '.join(twice)} is listed twice")
        return value

    @model_validator(mode="after")
    def _possible(self, info: ValidationInfo) -> DataSet:
        """Refuse keys that could have no effect where the data set enters."""
        if info.context and info.context.get("alone"):  # only its keys are looked at
            return self
        problems = []
        if self.stage != "preprocessing" and not self.clustering.refines:
            idle = sorted(self.preprocessing.model_fields_set & set(PCA.model_fields))
            problems += [
                f"preprocessing.{key}: has no effect where the data set enters at {self.stage}; "
                f"remove it, or write input: {{preprocessing: ...}}"
                for key in idle
            ]
        if self.stage == "clustering" and self.integration.model_fields_set - {"batch"}:
            key = sorted(self.integration.model_fields_set - {"batch"})[0]
            problems.append(
                f"integration.{key}: has no effect where the data set enters at clustering; "
                f"remove it, or write input: {{integration: ...}}"
            )
        if self.stage == "preprocessing" and "basis" in self.integration.model_fields_set:
            problems.append(
                "integration.basis: the data set enters at preprocessing, where X_pca is computed; "
                "remove it, or write input: {integration: ...}"
            )
        if self.stage != "clustering" and self.clustering.neighbors.use_rep is not None:
            problems.append(
                "clustering.neighbors.use_rep: would override the embedding of every method; "
                "remove it, or write input: {clustering: ...}"
            )
        if not self.integration.batch:
            problems += [
                f"integration.batch: is missing; method {name} needs the obs column that names "
                "the batch"
                for name, params in self.methods.items()
                if params.needs_batch
            ]
        problems += [
            f"integration.methods.{line}"
            for line in chain_problems(
                self.methods, self.integration.basis, computed=self.stage == "preprocessing"
            )
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def methods(self) -> dict[str, Method]:
        """The methods that run, by name."""
        if self.stage != "clustering" and self.integration.methods is not None:
            return self.integration.methods
        if self.stage != "clustering" and self.integration.batch:
            return {"harmony": Harmony()}
        return {"unintegrated": Unintegrated()}


class Config(Model):
    """The whole config."""

    DATASETS: dict[str, DataSet] = Field(
        min_length=1, description="`{name: data set}`; every data set is run on its own."
    )
    output_dir: str = Field("results", min_length=1, description="Where the results go.")
    use_gpu: bool = Field(False, description="Use a GPU where one is visible and pays.")
    n_cell_cpu: int = Field(
        N_CELL_CPU, ge=0, description="Below this number of cells the CPU is used."
    )
    seed: int = Field(0, ge=0, description="Random seed of every step.")
    materialize: bool = Field(
        False,
        description="Copy everything into every atlas, so that it can be moved on its own. "
        "`false`: an atlas links to the other stores.",
    )
    h5ad: bool = Field(
        False,
        description="Also write every atlas as one `atlas.h5ad` that stands alone, for CELLxGENE "
        "and R.",
    )

    @field_validator("DATASETS")
    @classmethod
    def _names(cls, value: dict[str, DataSet]) -> dict[str, DataSet]:
        for name in value:
            if not NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} cannot name a folder; use letters, digits, '_', '-' and '.', "
                    "a letter or digit first"
                )
        used: dict[str, str] = {}
        for dataset in value.values():
            for name, params in dataset.methods.items():
                if used.setdefault(name, params.method) != params.method:
                    raise ValueError(
                        f'method name "{name}" stands for {used[name]} in one data set and for '
                        f"{params.method} in another; give them different names"
                    )
        return value

    @field_validator("output_dir")
    @classmethod
    def _folder(cls, value: str) -> str:
        if re.search(r"[\s{}$`;&|<>*?\"'\\]", value):
            raise ValueError(f"{value!r} has a space, brace or shell character; use a plain path")
        return value.rstrip("/") or "/"
