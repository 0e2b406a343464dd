"""The keys of `preprocessing` that say which cells and genes of the input are taken."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from utils.config_values import Columns, Model, Plain, as_list
from utils.errors import bad_name

ENDS = ("min", "max")


def _values_or_range(value: Any) -> Any:
    """Accept a value, a list of values, or ``{min: number, max: number}``."""
    if not isinstance(value, dict):
        return as_list(value)
    if not value or not set(value) <= set(ENDS):
        raise ValueError(
            f"must be values or a range such as {{min: 200, max: 5000}}, found {value}"
        )
    for end, limit in value.items():
        if isinstance(limit, bool) or not isinstance(limit, int | float) or limit != limit:
            raise ValueError(f"{end} must be a number, found {limit!r}")
    if value.get("min", -float("inf")) > value.get("max", float("inf")):
        raise ValueError(f"no number is between min {value['min']} and max {value['max']}")
    return {end: float(limit) for end, limit in value.items()}


Chosen = Annotated[list[Plain] | dict[str, float], BeforeValidator(_values_or_range)]


def _groups(value: dict[str, str]) -> dict[str, str]:
    for name, pattern in value.items():
        if problem := bad_name(f"pct_counts_{name}") or ("" if name else "a group has no name"):
            raise ValueError(problem)
        if not pattern:
            raise ValueError(f"{name}: the pattern is empty, which every gene matches")
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{name}: {pattern!r} is not a regular expression: {error}") from None
    return value


class Preparation(Model):
    """What is kept of the input (``prepare.py``); allowed whatever the stage of entry."""

    layer: str | None = Field(
        None,
        description="The layer that holds the counts (or the values to use); `raw` is the matrix "
        "of `.raw`, which with its genes takes the place of `X`. Unset: `X`.",
    )
    join: Literal["inner", "outer"] = Field(
        "inner",
        description="The genes of several files: those of all of them, or those of any "
        "(`outer`; counts of genes that a file lacks are 0).",
    )
    var_names: str | None = Field(
        None,
        min_length=1,
        description="The var column with the names of the genes, such as `feature_name` for "
        "symbols in place of ids: they join files and stand in markers and pictures.",
    )
    keep_genes: Columns = Field(
        [],
        description="Keep the genes for which this true/false column of var is true; of several "
        "columns, all.",
    )
    keep_cells: Columns = Field(
        [],
        description="Keep the cells for which this true/false column of obs is true; of several "
        "columns, all.",
    )
    qc: Annotated[dict[str, str], AfterValidator(_groups)] = Field(
        default_factory=dict,
        description="Groups of genes by regular expressions for their names, such as "
        '`{mt: "^MT-", ribo: "^RP[SL]"}`: adds the obs columns `pct_counts_mt`, '
        "`total_counts_mt`, ..., `total_counts` and `n_genes_by_counts`, for `subset` and to "
        "look at.",
    )
    subset: dict[str, Chosen] = Field(
        default_factory=dict,
        description="Keep the cells whose obs column holds one of these values, "
        "`{column: [value, ...]}`, or a number in a range, `{pct_counts_mt: {max: 20}}`, ends "
        "included; several columns must all hold.",
    )
    min_genes: int = Field(0, ge=0, description="Drop cells with fewer detected genes than this.")
    min_cells: int = Field(
        0, ge=0, description="Drop genes detected in fewer of the kept cells than this."
    )
