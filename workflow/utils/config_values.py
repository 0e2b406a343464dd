"""Values of the config that can be written in several ways: checked, brought to one form.

Each check says in one line what was found and what to write.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from clustering.cluster_names import deepest_level
from utils.errors import bad_name

MOST_LEVELS = 20
# Said of numbers that came as text.
AS_TEXT = "without quotes, in a file: inside the {...} of --config numbers are read as text"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Model(BaseModel):
    """A section of the config: no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Normalization(Model):
    """How counts become log-expression values."""

    normalize: bool = Field(
        True,
        description="Scale every cell to `target_sum` and take log1p. "
        "`false`: the values are taken as they are.",
    )
    target_sum: float | None = Field(
        1e4, gt=0, description="Total of every cell after scaling. `null`: the median total."
    )


def as_list(value: Any) -> Any:
    """Let a single value stand for a list of one."""
    return value if value is None or isinstance(value, list) else [value]


def _patterns(value: list[str]) -> list[str]:
    """Refuse what is no regular expression."""
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


class Values(Model):
    """What the matrix holds, where the user knows better than a look at it."""

    values: Literal["counts", "log-normalized"] | None = Field(
        None, description="What `layer`, or `X`, holds. Unset: looked at."
    )


class VariableGenes(Model):
    """Which genes can be variable genes, or which are."""

    exclude: Annotated[list[str], BeforeValidator(as_list), AfterValidator(_patterns)] = Field(
        default_factory=list,
        description="Genes that are never chosen: names of true/false columns of var, or regular "
        "expressions for gene names (`^MT-`, `^RP[SL]`), found anywhere in the name.",
    )
    use: str | None = Field(
        None,
        min_length=1,
        description="Take these genes and choose none: a true/false column of var, or a file with "
        "one name per line.",
    )


def number_in(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _plain(value: Any) -> Any:
    """Refuse what only YAML knows, such as a date: it could not be told to a script."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"must be text, a number, true or false, found {value!r}; quote it"
        ) from None
    return value


Plain = Annotated[Any, BeforeValidator(_plain)]


def _column(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        raise ValueError(f"must be the name of a column, found {value!r}; quote it if it is one")
    return value


Columns = Annotated[list[Annotated[str, BeforeValidator(_column)]], BeforeValidator(as_list)]


def _element_name(value: str) -> str:
    if problem := bad_name(value):
        raise ValueError(problem)
    return value


ElementName = Annotated[str, AfterValidator(_element_name)]


def _one_or_many(value: Any) -> Any:
    """Accept one number or a list of numbers, in one clear message."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, bool) or not isinstance(item, int | float):
            raise ValueError(f"must be a number or a list of numbers, found {item!r}")
    return value


Numbers = Annotated[float | list[float], BeforeValidator(_one_or_many)]


def cluster_ids(value: dict) -> dict[str, float]:
    """``{1: 0.1, "3_0": 0.2}`` with the ids as text, or a message that says what to write."""
    found: dict[str, float] = {}
    for key, resolution in value.items():
        name = str(key)
        number = isinstance(key, int) and not isinstance(key, bool) and key >= 0
        if not (number or (isinstance(key, str) and key)):
            raise ValueError(
                f"{key!r} is not a cluster id; write the number of a level-1 cluster (3), a quoted "
                'deeper label ("3_0") or a quoted name of the input\'s own column, and its '
                "resolution"
            )
        if deepest_level(name) >= MOST_LEVELS:
            raise ValueError(f"cluster {name}: there are at most {MOST_LEVELS} levels")
        if isinstance(resolution, bool) or not isinstance(resolution, int | float):
            raise ValueError(
                f"cluster {name}: the resolution must be a number, found {resolution!r}"
            )
        if not 0 < resolution < float("inf"):
            raise ValueError(f"cluster {name}: the resolution must be above 0, found {resolution}")
        if name in found:
            raise ValueError(f"cluster {name} is named twice")
        found[name] = float(resolution)
    if not found:
        raise ValueError("names no cluster; write {cluster_id: resolution} or a depth such as 2")
    return found


def input_stage(value: Any) -> Any:
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


def hierarchy_levels(value: Any) -> Any:
    if isinstance(value, dict):
        return cluster_ids(value)
    if isinstance(value, list):
        if not value:
            raise ValueError("the list is empty; give one resolution per level below the first")
        levels = []
        for level, item in enumerate(value, start=2):
            if isinstance(item, bool) or not isinstance(item, int | float | dict):
                raise ValueError(
                    f"level {level}: must be a resolution or a mapping of parameters, "
                    f"found {item!r}"
                )
            levels.append(item if isinstance(item, dict) else {"resolution": item})
        return levels
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(
            f"must be a depth (3), {{cluster_id: resolution}} or a list with one entry per level "
            f"below the first, found {value!r}"
        )
    if not 1 <= value <= MOST_LEVELS:
        raise ValueError(f"the depth must be between 1 and {MOST_LEVELS}, found {value}")
    return value


def resolution_list(value: Any) -> Any:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, bool) or not isinstance(item, int | float):
            hint = ""
            if isinstance(item, str) and (number := number_in(item)) is not None:
                hint = f", a text; write {number} {AS_TEXT}"
            raise ValueError(f"must be numbers above 0, found {item!r}{hint}")
        if not 0 < item < float("inf"):
            raise ValueError(f"must be numbers above 0, found {item}")
    values = [float(item) for item in (value if isinstance(value, list) else [value])]
    if not values:
        raise ValueError("is empty; give at least one resolution, such as [1.0]")
    twice = sorted({str(v) for v in values if values.count(v) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is listed twice")
    return values
