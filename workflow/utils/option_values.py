"""Options read from a command line or from Python: checked where they differ from the defaults."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from utils.options import O, options_of, script_options

if TYPE_CHECKING:
    import argparse


def read_options(cls: type[O], args: argparse.Namespace) -> O:
    """Check the options that `add_options` gave to a parser.

    Raises
    ------
    ValueError
        With one line for each option that is wrong.
    """
    return make_options(cls, {name: getattr(args, name) for name in script_options(cls)}, "--")


def make_options(
    cls: type[O], values: dict[str, Any], prefix: str = "", *, together: bool = True
) -> O:
    """Check some values, as `utils.validation.check_options` does, where they are no defaults."""
    options = options_of(cls)
    # As JSON: 1, 1.0 and true are equal in Python.
    if all(
        name in options
        and (
            options[name].takes_any_text
            or json.dumps(value, default=repr) == json.dumps(options[name].default, default=repr)
        )
        for name, value in values.items()
    ):
        return cls(**values)
    from utils.validation import check_options  # most jobs have the defaults and need no pydantic

    return check_options(cls, values, prefix=prefix, together=together)


def read_mapping(cls: type[O], values: dict[str, Any], option: str) -> O:
    """Check options that came as one JSON mapping, the value of `option`."""
    return make_options(cls, values, f"{option}: ")
