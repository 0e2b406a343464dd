"""Write what is made of the options: config/schema.json and the tables of config/README.md.

Run with ``make docs``.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from clustering.options import ClusteringOptions, NeighborsOptions, SubLevelOptions, UMAPOptions
from evaluation.options import EvaluationOptions
from integration.options import METHODS, IntegrationOptions
from plan.config import Config, DataSet
from preprocessing.options import (
    DoubletOptions,
    PCAOptions,
    PrepareOptions,
    PreprocessingOptions,
    ValuesOptions,
    VariableGenesOptions,
)
from utils.device import DeviceOptions
from utils.options import options_of

FOLDER = Path(__file__).resolve().parents[2] / "config"
BEGIN, END = "<!-- tables: begin (make docs) -->", "<!-- tables: end -->"


def tables() -> str:
    """Return one Markdown table per section of the config."""
    device = options_of(DeviceOptions)
    top = {name: _of_field(field) for name, field in Config.model_fields.items()}
    dataset = {name: _of_field(f) for name, f in DataSet.model_fields.items() if name not in device}
    sections = [
        ("Top level", top),
        ("`DATASETS.{name}`", dataset),
        *(
            (title, {name: (o.type, o.default, o.description) for name, o in options.items()})
            for title, options in _sections()
        ),
    ]
    return "\n".join(_table(title, rows) for title, rows in sections if rows)


def _doublets() -> dict[str, Any]:
    every = options_of(PreprocessingOptions)
    return {name: every[name] for name in ("doublets", *options_of(DoubletOptions))}


def _sections() -> list[tuple[str, dict[str, Any]]]:
    return [
        ("`preprocessing`: what is kept, at every stage of entry", options_of(PrepareOptions)),
        (
            "`preprocessing`: what the matrix holds, at every stage of entry",
            options_of(ValuesOptions),
        ),
        ("`preprocessing`: counts to components", options_of(PCAOptions)),
        ("`preprocessing`: doublets, at every stage of entry", _doublets()),
        ("`preprocessing.hvg`", options_of(VariableGenesOptions)),
        ("`integration`", options_of(IntegrationOptions)),
        *(
            (
                f"`integration.methods`: `{method}`",
                {name: o for name, o in options_of(cls).items() if name != "method"},
            )
            for method, cls in METHODS.items()
        ),
        ("`clustering`", options_of(ClusteringOptions)),
        ("`clustering.hierarchy`: one level of a list", options_of(SubLevelOptions)),
        ("`clustering.neighbors`", options_of(NeighborsOptions)),
        ("`clustering.umap`", options_of(UMAPOptions)),
        ("`evaluation`", options_of(EvaluationOptions)),
        (
            "`use_gpu` and `n_cell_cpu`: in a data set, `integration` or `clustering`",
            options_of(DeviceOptions),
        ),
    ]


def _of_field(field: Any) -> tuple[Any, Any, str]:
    if field.is_required():
        return field.annotation, ..., field.description
    return field.annotation, field.get_default(call_default_factory=True), field.description


def _table(title: str, rows: dict[str, tuple[Any, Any, str]]) -> str:
    lines = [f"### {title}", "", "| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, (kind, default, description) in rows.items():
        text = description.replace("|", "\\|")
        lines.append(f"| `{name}` | {_type(kind)} | {_default(default)} | {text} |")
    return "\n".join([*lines, ""])


def _default(value: Any) -> str:
    if value is ...:
        return "required"
    if value is None:
        return "unset"
    if dataclasses.is_dataclass(value):
        return "see below"
    return f"`{json.dumps(value)}`"


def _type(annotation: Any) -> str:
    """Name a type as a writer of YAML would."""
    args = [arg for arg in get_args(annotation) if arg is not type(None)]
    origin = get_origin(annotation)
    if hasattr(annotation, "__metadata__"):
        return _type(args[0])
    if annotation is bool:
        return "true, false"
    if annotation in (int, float):
        return {int: "integer", float: "number"}[annotation]
    if annotation is str:
        return "text"
    if origin is Literal:
        return ", ".join(f"`{arg}`" for arg in args)
    if origin is list:
        return f"{_type(args[0])} or list"
    if origin is dict or isinstance(annotation, type):
        return "mapping"
    if annotation is Any:
        return "any value"
    return " or ".join(dict.fromkeys(map(_type, args)))


def schema() -> str:
    """Return the JSON schema of the config."""
    return json.dumps(Config.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def readme(text: str) -> str:
    """Return the text of config/README.md with new tables."""
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n\n{tables()}\n{END}", text)


def main() -> None:
    """Write the files."""
    (FOLDER / "schema.json").write_text(schema())
    page = FOLDER / "README.md"
    page.write_text(readme(page.read_text()))


if __name__ == "__main__":
    main()
