"""Write what is made of the config's models.

That is config/schema.json, the tables of config/README.md and the options of the scripts. Run
with ``make docs``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from utils.cli import OPTIONS
from utils.config import (
    PCA,
    UMAP,
    Clustering,
    Config,
    DataSet,
    Device,
    Integration,
    Neighbors,
    SubLevel,
)
from utils.config_evaluation import Evaluation, Markers, Metrics, Robustness
from utils.config_methods import METHODS
from utils.config_preparation import Preparation
from utils.config_values import Values, VariableGenes

FOLDER = Path(__file__).resolve().parents[2] / "config"
BEGIN, END = "<!-- tables: begin (make docs) -->", "<!-- tables: end -->"


def tables() -> str:
    """Return one Markdown table per section of the config."""
    device = tuple(Device.model_fields)
    sections = [
        ("Top level", Config.model_fields),
        ("`DATASETS.{name}`", _without(DataSet.model_fields, *device)),
        ("`preprocessing`: what is kept, at every stage of entry", Preparation.model_fields),
        ("`preprocessing`: what the matrix holds, at every stage of entry", Values.model_fields),
        ("`preprocessing`: counts to components", PCA.model_fields),
        ("`preprocessing.hvg`", VariableGenes.model_fields),
        ("`integration`", _without(Integration.model_fields, *device)),
        *(
            (f"`integration.methods`: `{name}`", fields)
            for name, model in METHODS.items()
            if (fields := _without(model.model_fields, "method"))
        ),
        ("`clustering`", _without(Clustering.model_fields, *device)),
        ("`clustering.hierarchy`: one level of a list", SubLevel.model_fields),
        ("`clustering.neighbors`", Neighbors.model_fields),
        ("`clustering.umap`", UMAP.model_fields),
        ("`evaluation`", Evaluation.model_fields),
        (
            "`use_gpu` and `n_cell_cpu`: in a data set, `integration` or `clustering`",
            Device.model_fields,
        ),
    ]
    return "\n".join(_table(title, fields) for title, fields in sections)


def _without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: field for name, field in fields.items() if name not in names}


def _table(title: str, fields: dict[str, Any]) -> str:
    lines = [f"### {title}", "", "| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in fields.items():
        text = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{name}` | {_type(field.annotation)} | {_default(field)} | {text} |")
    return "\n".join([*lines, ""])


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "unset"
    if isinstance(value, BaseModel):
        return "see below"
    return f"`{json.dumps(value)}`"


def _type(annotation: Any) -> str:
    """Name a type as a writer of YAML would."""
    args = [arg for arg in get_args(annotation) if arg is not type(None)]
    origin = get_origin(annotation)
    text = str(annotation)
    if annotation is bool:
        return "true, false"
    if annotation in (int, float):
        return {int: "integer", float: "number"}[annotation]
    if annotation is str:
        return "text"
    if "Literal" in text and origin is not dict and origin is not list and len(args) != 1:
        return ", ".join(f"`{arg}`" for arg in args)
    if origin is list:
        return f"{_type(args[0])} or list"
    if origin is dict or isinstance(annotation, type):
        return "mapping"
    if hasattr(annotation, "__metadata__"):
        return _type(args[0])
    names = dict.fromkeys(_type(arg) for arg in args)
    return " or ".join(names)


def schema() -> str:
    """Return the JSON schema of the config."""
    return json.dumps(Config.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def options() -> str:
    """Return the options that `utils.cli.add_model` gives to the scripts, for every model."""
    models = [Preparation, Values, PCA, Neighbors, UMAP, Metrics, Markers, Robustness, Config]
    found = {
        model.__name__: {
            "module": model.__module__,
            "options": {
                name: {
                    "kind": _kind(field),
                    "default": field.get_default(call_default_factory=True),
                    "help": field.description,
                }
                # The scripts have a --method and --basis of their own.
                for name, field in model.model_fields.items()
                if name not in ("method", "basis") and not field.is_required()
            },
        }
        for model in (*models, *METHODS.values())
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _kind(field: Any) -> str:
    """Say how an option is read: ``text`` is any text, ``word`` is text that is checked."""
    if field.annotation is bool:
        return "flag"
    if not _takes_text(field.annotation):
        return "json"
    return "text" if field.annotation in (str, str | None) and not field.metadata else "word"


def _takes_text(annotation: Any) -> bool:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return any(_takes_text(arg) for arg in args)
    return annotation is str or origin is Literal


def readme(text: str) -> str:
    """Return the text of config/README.md with new tables."""
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n\n{tables()}\n{END}", text)


def main() -> None:
    """Write the files."""
    (FOLDER / "schema.json").write_text(schema())
    OPTIONS.write_text(options(), encoding="utf-8")
    page = FOLDER / "README.md"
    page.write_text(readme(page.read_text()))


if __name__ == "__main__":
    main()
