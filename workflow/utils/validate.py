"""Check a config as a whole: every problem at once, each with its path and what to write."""

from __future__ import annotations

import re
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from utils.config import Config
from utils.config_methods import METHODS
from utils.config_values import number_in
from utils.messages import one_line, unknown


def load_config(mapping: dict[str, Any], *, yaml_texts: dict[str, str] | None = None) -> Config:
    """Check a config and fill in the defaults.

    Parameters
    ----------
    mapping
        The config as read from YAML.
    yaml_texts
        File name to text of the files it came from; used to point at values that YAML reads
        otherwise than they look.

    Returns
    -------
    Config
        The checked, immutable config.

    Raises
    ------
    ValueError
        With one line per problem: its path in the config, what was found, what to write.
    """
    problems = [
        line for name, text in (yaml_texts or {}).items() for line in misread_ids(name, text)
    ]
    config = None
    try:
        config = Config.model_validate(_plain(mapping))
    except ValidationError as error:
        for item in error.errors():
            problems += explain(item)
    if problems or config is None:
        raise ValueError("\n".join(dict.fromkeys(problems)))
    return config


def misread_ids(name: str, text: str) -> list[str]:
    """Find cluster ids such as ``3_0`` that YAML reads as the number 30.

    Parameters
    ----------
    name
        Name of the file, for the message.
    text
        Its YAML text.

    Returns
    -------
    list of str
        One line per unquoted id under a ``hierarchy`` key.
    """
    found: list[str] = []

    def walk(node: yaml.Node | None, inside: bool) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if inside and re.fullmatch(r"\d+(_\d+)+", key.value) and key.style is None:
                    read = int(key.value.replace("_", ""))
                    found.append(
                        f"{name}, line {key.start_mark.line + 1}: {key.value} without quotes is "
                        f'read as the number {read}; write "{key.value}"'
                    )
                walk(value, key.value == "hierarchy")
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                walk(item, False)

    try:
        walk(yaml.compose(text, Loader=yaml.SafeLoader), False)
    except yaml.YAMLError as error:
        found.append(f"{name}: not valid YAML: {' '.join(str(error).split())}")
    return found


def _plain(value: Any) -> Any:
    """Turn the mappings of a YAML reader into plain dicts."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


# What pydantic adds to a path for the branch of a union or the key of a mapping.
_BRANCH = re.compile(r"\[key\]|(list|dict)\[.*\]|int|float|str")


def _path(location: tuple[Any, ...]) -> str:
    """``("DATASETS", "a", "resolutions", 1)`` as ``DATASETS.a.resolutions[1]``."""
    if not location:
        return "the config"
    path = ""
    for i, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
        elif not (_BRANCH.fullmatch(part) or location[i - 2 : i - 1] == ("methods",)):
            name = one_line(part) or '""'
            path += f".{name}" if path else name
    return path


def _section(location: tuple[Any, ...], model: type[BaseModel]) -> type[BaseModel]:
    """Find the model of the section that a path names."""
    for i, part in enumerate(location):
        if location[i - 2 : i - 1] == ("methods",):
            model = METHODS[part]
        elif field := model.model_fields.get(str(part)):
            model = next(iter(_models(field.annotation)), model)
    return model


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in get_args(annotation) for model in _models(arg)]


def explain(item: Any, model: type[BaseModel] = Config) -> list[str]:
    """Turn one pydantic error into lines: path, what was found, what to write.

    Parameters
    ----------
    item
        One of ``ValidationError.errors()``.
    model
        What was validated.

    Returns
    -------
    list of str
        Mostly one line; a check of a whole data set may find several things.
    """
    location, kind, found = item["loc"], item["type"], item.get("input")
    path = _path(location)
    if kind == "extra_forbidden":
        known = _section(location[:-1], model).model_fields
        return [f"{path}: {unknown('key', location[-1], known)}"]
    if kind == "missing":
        return [f"{path}: is missing"]
    if kind == "value_error":
        prefix = f"{path}." if location and location[0] == "DATASETS" and len(location) == 2 else ""
        lines = str(item["ctx"]["error"]).split("\n")
        return [f"{prefix}{line}" if prefix else f"{path}: {line}" for line in lines]
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        where = _path(location[:-2]) if location[-1] == "[key]" else path
        return [f"{where}: {unknown('value', found, known)}"]
    message = item["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    message = re.sub(r"dictionary( or instance of \w+)?", "mapping", message)
    message = message.replace("boolean", "true or false")
    if kind == "bool_type" and str(found).lower() in ("true", "false"):
        right = f"{str(found).lower()} without quotes, after --config {str(found).capitalize()}"
        return [f'{path}: must be {message}, found the text "{found}"; write {right}']
    if isinstance(found, str) and number_in(found) is not None and "str" not in kind:
        return [f'{path}: must be {message}, found the text "{found}"; write {number_in(found):g}']
    shown = repr(found) if isinstance(found, str | int | float | None) else type(found).__name__
    return [f"{path}: must be {message}, found {shown}"]
