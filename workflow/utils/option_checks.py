"""Checks of values that can be written in several ways: what to write, or the value in one form."""

from __future__ import annotations

import json
import re
from typing import Any

from utils.errors import bad_name

# Said of numbers that came as text.
AS_TEXT = "without quotes, in a file: inside the {...} of --config numbers are read as text"


def as_list(value: Any) -> Any:
    """Let a single value stand for a list of one."""
    return value if value is None or isinstance(value, list) else [value]


def column_names(value: Any) -> Any:
    """Check the name of a column, or a list of them."""
    if value is None:
        return None
    for name in as_list(value):
        if not isinstance(name, str) or not name:
            raise ValueError(f"must be the name of a column, found {name!r}; quote it if it is one")
    return as_list(value)


def column_names_once(value: Any) -> Any:
    """Check the names of columns, each listed once."""
    return value if value is None else once(column_names(value))


def once(value: list[Any]) -> list[Any]:
    """Refuse a list with the same entry twice."""
    twice = sorted({str(item) for item in value if value.count(item) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is listed twice")
    return value


def patterns(value: list[str]) -> list[str]:
    """Check names of columns of var, or regular expressions for the names of genes."""
    for text in value:
        try:
            re.compile(text)
        except re.error as error:
            raise ValueError(
                f"{text!r} is neither the name of a column nor a regular expression: {error}"
            ) from None
        if not text:
            raise ValueError("an entry is empty, which would exclude every gene")
    return value


def plain(value: Any) -> Any:
    """Refuse what only YAML knows, such as a date: it could not be told to a script."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"must be text, a number, true or false, found {value!r}; quote it"
        ) from None
    return value


def plain_values(value: Any) -> Any:
    """Check a mapping whose values a script can be told."""
    for name, item in value.items() if isinstance(value, dict) else ():
        try:
            plain(item)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return value


def element_name(value: str) -> str:
    """Check the name of something new in a store: it becomes the name of a folder."""
    if problem := bad_name(value):
        raise ValueError(problem)
    return value


def numbers(value: Any) -> Any:
    """Check one number or a list of numbers."""
    for item in value if isinstance(value, list) else [value]:
        if item is not None and (isinstance(item, bool) or not isinstance(item, int | float)):
            raise ValueError(f"must be a number or a list of numbers, found {item!r}")
    return value


def number_in(text: str) -> float | None:
    """Return the number that a text holds, None where it holds none."""
    try:
        return float(text)
    except ValueError:
        return None
