"""Options of a step: one dataclass field each, from which everything else follows.

The options of a step are a frozen dataclass in ``<stage>/options.py``. `key` states the default,
bounds and help of each, once. From it follow the section of the config, its check and its schema
(`utils.validation`), the tables of ``config/README.md``, the options of the script
(`add_options`), the words of its command line (`option_words`) and the keyword arguments of the
algorithm. Needs only the standard library, so that a script starts at once.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import shlex
from functools import cache
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin
from typing import get_type_hints as type_hints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a step, checked; subclasses have one `key` for each.

    Attributes
    ----------
    given
        The names of those that the config gives, whether or not they differ from the defaults.
    """

    given: ClassVar[frozenset[str]] = frozenset()

    def check(self) -> None:
        """Raise a ValueError where values do not go together."""


O = TypeVar("O", bound=Options)  # noqa: E741


def key(
    default: Any,
    description: str,
    *,
    before: Callable[[Any], Any] | None = None,
    after: Callable[[Any], Any] | None = None,
    config_only: bool = False,
    names_obs: bool = False,
    **bounds: Any,
) -> Any:
    """Declare an option.

    Parameters
    ----------
    default
        Its value where none is given.
    description
        Its help, in Markdown.
    before, after
        Checks that are made before and after that of the type: they return the value, perhaps in
        another form, or raise a ValueError.
    config_only
        The script and the algorithm do not have it, or have one of their own.
    names_obs
        It names columns of obs, which are looked for before anything runs.
    **bounds
        ``gt``, ``ge``, ``lt`` and ``le`` of a number, ``min_length`` of a text or list.

    Returns
    -------
    dataclasses.Field
    """
    metadata = {
        "description": description,
        "before": before,
        "after": after,
        "config_only": config_only,
        "names_obs": names_obs,
        "bounds": bounds,
    }
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Option:
    """What is known of one option."""

    name: str
    type: Any
    default: Any
    description: str
    before: Callable[[Any], Any] | None
    after: Callable[[Any], Any] | None
    config_only: bool
    names_obs: bool
    bounds: Mapping[str, Any]

    @property
    def takes_text(self) -> bool:
        """Whether its value may be a text, which a script need not read as JSON."""
        return _takes_text(self.type)

    @property
    def takes_any_text(self) -> bool:
        """Whether any text is right."""
        checked = self.before or self.after or self.bounds
        return self.type in (str, str | None) and not checked


def _takes_text(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return any(map(_takes_text, get_args(annotation)))
    return annotation is str or origin is Literal


@cache
def options_of(cls: type[Options]) -> dict[str, Option]:
    """Return the options of a step by name, those of its base classes first."""
    types = type_hints(cls)
    options = {}
    for field in dataclasses.fields(cls):
        made = field.default_factory is not dataclasses.MISSING
        default = field.default_factory() if made else field.default
        options[field.name] = Option(field.name, types[field.name], default, **field.metadata)
    return options


def script_options(cls: type[Options]) -> dict[str, Option]:
    """Return the options that the script and the algorithm of a step take."""
    return {name: option for name, option in options_of(cls).items() if not option.config_only}


def as_arguments(options: Options) -> dict[str, Any]:
    """Return the values by name, as the keyword arguments of an algorithm."""
    return {name: getattr(options, name) for name in script_options(type(options))}


def differing(cls: type[Options], section: Any, without: Iterable[str] = ()) -> dict[str, Any]:
    """Return the values that are not the defaults.

    Parameters
    ----------
    cls
        The options of the script.
    section
        What has their values as attributes.
    without
        Names to leave out.
    """
    return {
        name: getattr(section, name)
        for name, option in script_options(cls).items()
        if name not in without and getattr(section, name) != option.default
    }


def option_words(cls: type[Options], section: Any, without: Iterable[str] = ()) -> list[str]:
    """Write the values that are not the defaults as a command line, quoted for the shell."""
    changed = differing(cls, section, without)
    return [word for name, value in changed.items() for word in _word(name, value)]


def words(**values: Any) -> list[str]:
    """Write values as the options of a command line, quoted for the shell; None is left out."""
    given = {name: value for name, value in values.items() if value is not None}
    return [word for name, value in given.items() for word in _word(name, value)]


def _word(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", shlex.quote(value) if isinstance(value, str) else as_json(value)]


def named(option: str, names: Iterable[str]) -> list[str]:
    """Write an option that takes several names, where there are any."""
    quoted = [shlex.quote(name) for name in names]
    return [option, *quoted] if quoted else []


def as_json(value: Any) -> str:
    """Write a value as JSON, quoted for the shell; of options what differs from the defaults."""

    def of_options(section: Options) -> dict[str, Any]:
        return differing(type(section), section)

    return shlex.quote(json.dumps(value, ensure_ascii=False, default=of_options))


def add_options(parser: Any, cls: type[Options]) -> None:
    """Give an ``argparse.ArgumentParser``, or a group of one, the options of a step."""
    for name, option in script_options(cls).items():
        text = option.description.replace("`", "").replace("%", "%%")
        if option.type is bool:
            action = argparse.BooleanOptionalAction
            parser.add_argument(f"--{name}", action=action, default=option.default, help=text)
            continue
        shown = "unset" if option.default is None else json.dumps(option.default)
        if option.default not in ([], {}):
            text += f" (default: {shown})"
        parser.add_argument(
            f"--{name}",
            type=_reader(option.takes_text),
            default=option.default,
            metavar=name.upper(),
            help=text,
        )


def _reader(takes_text: bool) -> Callable[[str], Any]:
    """Read the text of an option: as it is if its value may be a text, else as JSON."""

    def read(text: str) -> Any:
        if text in ("null", "None"):
            return None
        if takes_text or not (text[:1] in '[{"-0123456789.' or text in ("true", "false")):
            return text
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text

    return read
