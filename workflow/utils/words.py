"""Options of a script as words of a command line, quoted for the shell."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel


def fields(model: type[BaseModel], section: BaseModel) -> list[str]:
    """Write the fields of a model that differ from their defaults."""
    defaults = {
        name: field.get_default(call_default_factory=True)
        for name, field in model.model_fields.items()
        if name not in ("method", "basis")
    }
    return changed({name: getattr(section, name) for name in defaults}, defaults)


def changed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Write the values that differ from their defaults, each as an option."""
    words = []
    for name, value in values.items():
        if value == defaults[name]:
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [f"--{name}", shlex.quote(value) if isinstance(value, str) else as_json(value)]
    return words


def as_json(value: Any) -> str:
    """Write any value as JSON, of a section what differs from its defaults."""

    def of_section(section: BaseModel) -> dict[str, Any]:
        return section.model_dump(exclude_defaults=True)

    return shlex.quote(json.dumps(value, ensure_ascii=False, default=of_section))
