"""The config as a whole: its sections are the options of the stages (``<stage>/options.py``).

Imports neither Snakemake nor scanpy and reads no file. `plan.validate` applies it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from clustering.options import ClusteringOptions
from evaluation.options import EvaluationOptions
from integration.method_chains import chain_problems
from integration.options import (
    NAME,
    HarmonyOptions,
    IntegrationOptions,
    MethodOptions,
    UnintegratedOptions,
)
from preprocessing.options import PCAOptions, PreprocessingOptions
from utils.device import N_CELL_CPU, DeviceOptions
from utils.option_checks import as_list
from utils.options import options_of
from utils.paths import name_problem
from utils.validation import Model, section

STAGES = ("preprocessing", "integration", "clustering")
VERSION = "0.1.0"


@dataclass(frozen=True, kw_only=True)
class IntegrationSection(IntegrationOptions, DeviceOptions):
    """How batches are brought together."""


@dataclass(frozen=True, kw_only=True)
class ClusteringSection(ClusteringOptions, DeviceOptions):
    """Neighbors, communities at every resolution and level, layout and pictures."""


def _input_stage(value: Any) -> Any:
    """Let a user who left out the stage, or wrote names of scAtlasTb, know what to write."""
    if isinstance(value, str | list):
        shown = value if isinstance(value, str) else ", ".join(map(str, value)).join("[]")
        raise ValueError(
            "names no stage; write where the data set enters, such as "
            f"{{preprocessing: {shown}}}, {{integration: ...}} or {{clustering: ...}}"
        )
    for stage, files in value.items() if isinstance(value, dict) else ():
        if isinstance(files, dict):
            name, file = next(iter(files.items()), ("name", "file"))
            raise ValueError(
                f"{stage}: maps names to files; here each file becomes a data set of its own, "
                f"such as DATASETS: {{{name}: {{input: {{{stage}: {file}}}}}}}; files to be joined "
                "are a list"
            )
    return value


class DataSet(Model):
    """One data set: where it enters and what is done with it."""

    input: Annotated[
        dict[
            Literal["preprocessing", "integration", "clustering"],
            Annotated[list[str], BeforeValidator(as_list)],
        ],
        BeforeValidator(_input_stage),
    ] = Field(
        description="`{stage: file}` or `{stage: [file, ...]}` (.h5ad or .zarr); the stage "
        "(`preprocessing`, `integration`, `clustering`) is where the data set enters. "
        "Several files are joined on their genes (`join`); the log says what they do not share."
    )
    use_gpu: bool | None = Field(None, description=options_of(DeviceOptions)["use_gpu"].description)
    n_cell_cpu: int | None = Field(
        None, ge=0, description=options_of(DeviceOptions)["n_cell_cpu"].description
    )
    seed: int | None = Field(None, ge=0, description="Random seed. Unset: the config's.")
    preprocessing: section(PreprocessingOptions) = Field(
        default_factory=PreprocessingOptions, description="See below."
    )
    integration: section(IntegrationSection) = Field(
        default_factory=IntegrationSection, description="See below."
    )
    clustering: section(ClusteringSection) = Field(
        default_factory=ClusteringSection, description="See below."
    )
    evaluation: section(EvaluationOptions) = Field(
        default_factory=EvaluationOptions, description="See below."
    )

    @property
    def stage(self) -> str:
        """The stage at which the data set enters."""
        return next(iter(self.input))

    @property
    def methods(self) -> dict[str, MethodOptions]:
        """The methods that run, by name."""
        if self.stage != "clustering" and self.integration.methods is not None:
            return self.integration.methods
        if self.stage != "clustering" and self.integration.batch:
            return {"harmony": HarmonyOptions()}
        return {"unintegrated": UnintegratedOptions()}

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
        problems = [*self._idle_keys(), *self._methods_without_batch()]
        problems += [
            f"integration.methods.{line}"
            for line in chain_problems(
                self.methods, self.integration.basis, computed=self.stage == "preprocessing"
            )
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _idle_keys(self) -> list[str]:
        """Name the keys that could have no effect where the data set enters."""
        given = self.integration.given
        problems = []
        if self.stage != "preprocessing" and not self.clustering.refines:
            problems += [
                f"preprocessing.{name}: has no effect where the data set enters at {self.stage}; "
                f"remove it, or write input: {{preprocessing: ...}}"
                for name in sorted(self.preprocessing.given & set(options_of(PCAOptions)))
            ]
        if self.stage == "clustering" and given - {"batch"}:
            problems.append(
                f"integration.{min(given - {'batch'})}: has no effect where the data set enters at "
                "clustering; remove it, or write input: {integration: ...}"
            )
        if self.stage == "preprocessing" and "basis" in given:
            problems.append(
                "integration.basis: the data set enters at preprocessing, where X_pca is computed; "
                "remove it, or write input: {integration: ...}"
            )
        if self.stage != "clustering" and self.clustering.neighbors.use_rep is not None:
            problems.append(
                "clustering.neighbors.use_rep: would override the embedding of every method; "
                "remove it, or write input: {clustering: ...}"
            )
        return problems

    def _methods_without_batch(self) -> list[str]:
        """Name the methods that need a batch where none is given."""
        if self.integration.batch:
            return []
        return [
            f"integration.batch: is missing; method {name} needs the obs column that names "
            "the batch"
            for name, params in self.methods.items()
            if params.needs_batch
        ]


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
        description="Also write every atlas as one self-contained `atlas.h5ad`, for CELLxGENE "
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
                        f'method name "{name}" means {used[name]} in one data set and '
                        f"{params.method} in another; give them different names"
                    )
        return value

    @field_validator("output_dir")
    @classmethod
    def _folder(cls, value: str) -> str:
        if re.search(r"[\s{}$`;&|<>*?\"'\\]", value):
            raise ValueError(f"{value!r} has a space, brace or shell character; use a plain path")
        return value.rstrip("/") or "/"
