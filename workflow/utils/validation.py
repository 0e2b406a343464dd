"""Options checked by pydantic: a model from each dataclass, its errors in one line each."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    create_model,
)

from utils.errors import one_line, unknown
from utils.option_checks import AS_TEXT, number_in
from utils.options import O, Options, options_of


class Model(BaseModel):
    """A section of the config: no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


@cache
def model_of(cls: type[Options]) -> type[Model]:
    """Make the model that checks the options of a step."""
    fields = {}
    for name, option in options_of(cls).items():
        annotation = checked_type(option.type)
        if option.after:
            annotation = Annotated[annotation, AfterValidator(option.after)]
        if option.before:
            annotation = Annotated[annotation, BeforeValidator(option.before)]
        value = option.default
        default = {"default": value}
        if isinstance(value, list | dict) or dataclasses.is_dataclass(value):
            default = {"default_factory": lambda value=value: value}
        described = {"description": option.description}
        fields[name] = (annotation, Field(**default, **described, **option.bounds))
    return create_model(cls.__name__, __base__=Model, __doc__=cls.__doc__, **fields)


@cache
def section(cls: type[Options]) -> Any:
    """Return the type of a field that holds the options of a step: checked, then as dataclass."""

    def build(model: Model) -> Options:
        options = _build(cls, model)
        options.check()
        return options

    return Annotated[model_of(cls), AfterValidator(build)]


def _build(cls: type[O], model: Model) -> O:
    options = cls(**{name: getattr(model, name) for name in type(model).model_fields})
    object.__setattr__(options, "given", frozenset(model.model_fields_set))
    return options


def checked_type(annotation: Any) -> Any:
    """Return a type with the dataclasses in it as models, its unions told apart by their kind."""
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return section(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _union(args)
    if origin in (list, dict):
        return origin[tuple(map(checked_type, args))]
    return annotation


def _union(args: tuple[Any, ...]) -> Any:
    members = [arg for arg in args if arg is not type(None)]
    types = [checked_type(member) for member in members]
    if len(members) > 1 and all(map(dataclasses.is_dataclass, members)):
        tags = [f"method[{member.method}]" for member in members]
        checked = _tagged(types, tags, lambda value: f"method[{_method(value)}]")
    elif len({get_origin(m) or m for m in members} & {list, dict}):
        kinds = [
            type(get_args(member)[0])
            if get_origin(member) is Literal
            else get_origin(member) or member
            for member in members
        ]
        tags = [kind.__name__ + "[]" * (kind in (list, dict)) for kind in kinds]

        def kind_of(value: Any) -> str:
            near = [t for k, t in zip(kinds, tags, strict=True) if isinstance(value, k)]
            return (near or tags)[0]

        checked = _tagged(types, tags, kind_of)
    else:
        checked = Union[tuple(types)]  # noqa: UP007
    return checked | None if len(members) < len(args) else checked


def _tagged(types: list[Any], tags: list[str], tag_of: Any) -> Any:
    if len(types) == 1:
        return types[0]
    tagged = [Annotated[kind, Tag(tag)] for kind, tag in zip(types, tags, strict=True)]
    return Annotated[Union[tuple(tagged)], Discriminator(tag_of)]  # noqa: UP007


def _method(value: Any) -> Any:
    return value.get("method") if isinstance(value, dict) else getattr(value, "method", None)


def check_options(
    cls: type[O], values: dict[str, Any], *, prefix: str = "", together: bool = True
) -> O:
    """Check some values and return them as options.

    Parameters
    ----------
    cls
        The options.
    values
        Name to value; what is not there takes its default.
    prefix
        Prefix of each name in an error, such as ``--``.
    together
        Also check that they go together (`Options.check`).

    Raises
    ------
    ValueError
        With one line for each value that is wrong.
    """
    try:
        options = _build(cls, model_of(cls).model_validate(values))
    except ValidationError as error:
        lines = [line for item in error.errors() for line in explain(item, model_of(cls))]
        raise ValueError("\n".join(prefix + line for line in lines)) from None
    if together:
        options.check()
    return options


# What pydantic adds to a path for the branch of a union or the key of a mapping.
_BRANCH = re.compile(r"\[key\]|\w+\[.*\]|int|float|str")


def path_of(location: tuple[Any, ...]) -> str:
    """``("DATASETS", "a", "resolutions", 1)`` as ``DATASETS.a.resolutions[1]``."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not _BRANCH.fullmatch(part):
            name = one_line(part) or '""'
            path += f".{name}" if path else name
    return path


def keys_of(location: tuple[Any, ...], model: type[BaseModel]) -> list[str]:
    """Return the names of the keys of the section that a path leads to."""
    models = [model]
    for part in location:
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        if fields:
            models = [m for field in fields for m in _models(field.annotation, field.metadata)]
        elif str(part).startswith("method["):
            named = [m for m in models if f"method[{m.model_fields['method'].default}]" == part]
            models = named or models
    return list(dict.fromkeys(name for m in models for name in m.model_fields))


def _models(*annotations: Any) -> list[type[BaseModel]]:
    models = []
    for annotation in annotations:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            models.append(annotation)
        elif isinstance(annotation, list):
            models += _models(*annotation)
        else:
            models += _models(*get_args(annotation))
    return models


def explain(item: Any, model: type[BaseModel]) -> list[str]:
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
        Mostly one line; a check of a whole section may find several things.
    """
    location, kind, value = item["loc"], item["type"], item.get("input")
    path = path_of(location) or "the config"
    if kind == "extra_forbidden":
        return [f"{path}: {unknown('key', location[-1], keys_of(location[:-1], model))}"]
    if kind in ("invalid_key", "string_type") and location[-1:] == ("[key]",):
        return [f"{path_of(location[:-2]) or 'the config'}: {_no_key(value)}"]
    if kind == "invalid_key":
        return [f"{path_of(location[:-1]) or 'the config'}: {_no_key(location[-1])}"]
    if kind == "missing":
        return [f"{path}: is missing"]
    if kind == "value_error":
        lines = str(item["ctx"]["error"]).split("\n")
        return [_below(path if location else "", line) for line in lines]
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        where = path_of(location[:-2]) if location[-1] == "[key]" else path
        return [f"{where}: {unknown('value', value, known)}"]
    return [f"{path}: must be {_needed(item)}, found {_shown(value, kind)}"]


def _needed(item: Any) -> str:
    """Say what kind of value is needed, in a user's words."""
    message = item["msg"].removeprefix("Input should be ")
    message = message.replace("greater than or equal to", "at least")
    message = message.replace("less than or equal to", "at most")
    message = re.sub(r"^a valid dictionary( or instance of \w+)?", "a mapping", message)
    message = message.replace("a valid boolean", "true or false").replace("a valid string", "text")
    return re.sub(r"^a valid (\w)", lambda m: f"a{'n' * (m[1] in 'aeiou')} {m[1]}", message)


def _shown(value: Any, kind: str) -> str:
    """Show a value, and how to write it where it came as text."""
    if kind == "bool_type" and str(value).lower() in ("true", "false"):
        right = f"{str(value).lower()} without quotes, after --config {str(value).capitalize()}"
        return f'the text "{value}"; write {right}'
    if isinstance(value, str) and number_in(value) is not None and "str" not in kind:
        return f'the text "{value}"; write {number_in(value):g} {AS_TEXT}'
    return repr(value) if isinstance(value, str | int | float | None) else type(value).__name__


def _below(path: str, line: str) -> str:
    """Put the path of a section before a line, which may begin with the key that it is about."""
    joint = "." if re.match(r"\w[\w.\[\]]*: ", line) else ": "
    return f"{path}{joint}{line}" if path else line


def _no_key(key: Any) -> str:
    return (
        f"has the key {one_line(key)}, which is no name; a list is written in brackets, such as "
        "[0.5, 1.0]"
    )
