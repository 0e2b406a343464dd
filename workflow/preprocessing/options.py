"""Options of the steps before the integration: `prepare.py` and `pca.py`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from utils.errors import bad_name
from utils.option_checks import as_list, column_names, patterns, plain
from utils.options import Options, key, options_of

ENDS = ("min", "max")


def _values_or_range(value: Any) -> Any:
    """Accept a value, a list of values, or ``{min: number, max: number}``."""
    if value is not None and not isinstance(value, dict):
        return [plain(item) for item in as_list(value)]
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


def _subset(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    chosen = {}
    for column, item in value.items():
        try:
            chosen[column] = _values_or_range(item)
        except ValueError as error:
            raise ValueError(f"{column}: {error}") from None
    return chosen


def _gene_groups(value: dict[str, str]) -> dict[str, str]:
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


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(Options):
    """What is kept of the input (``prepare.py``); allowed whatever the stage of entry."""

    layer: str | None = key(
        None,
        "The layer that holds the counts (or the values to use); `raw` is the matrix "
        "of `.raw`, which with its genes takes the place of `X`. Unset: `X`.",
    )
    join: Literal["inner", "outer"] = key(
        "inner",
        "The genes of several files: those of all of them, or those of any "
        "(`outer`; counts of genes that a file lacks are 0).",
    )
    var_names: str | None = key(
        None,
        "The var column with the names of the genes, such as `feature_name` for "
        "symbols in place of ids: they join files and appear in markers and pictures.",
        min_length=1,
    )
    keep_genes: list[str] = key(
        [],
        "Keep the genes for which this true/false column of var is true; of several columns, all.",
        before=column_names,
    )
    keep_cells: list[str] = key(
        [],
        "Keep the cells for which this true/false column of obs is true; of several columns, all.",
        before=column_names,
    )
    qc: dict[str, str] = key(
        {},
        "Groups of genes by regular expressions for their names, such as "
        '`{mt: "^MT-", ribo: "^RP[SL]"}`: adds the obs columns `pct_counts_mt`, '
        "`total_counts_mt`, ..., `total_counts` and `n_genes_by_counts`, for `subset` and to "
        "look at.",
        after=_gene_groups,
    )
    subset: dict[str, list[Any] | dict[str, float]] = key(
        {},
        "Keep the cells whose obs column holds one of these values, "
        "`{column: [value, ...]}`, or a number in a range, `{pct_counts_mt: {max: 20}}`, ends "
        "included; several columns must all hold.",
        before=_subset,
    )
    min_genes: int = key(0, "Drop cells with fewer detected genes than this.", ge=0)
    min_cells: int = key(0, "Drop genes detected in fewer of the kept cells than this.", ge=0)


@dataclass(frozen=True, kw_only=True)
class ValuesOptions(Options):
    """What the matrix holds, where the user knows better than a look at it."""

    values: Literal["counts", "log-normalized"] | None = key(
        None, "What `layer`, or `X`, holds. Unset: looked at."
    )


@dataclass(frozen=True, kw_only=True)
class NormalizationOptions(Options):
    """How counts become log-expression values."""

    normalize: bool = key(
        True,
        "Scale every cell to `target_sum` and take log1p. "
        "`false`: the values are taken as they are.",
    )
    target_sum: float | None = key(
        1e4, "Total of every cell after scaling. `null`: the median total.", gt=0
    )


@dataclass(frozen=True, kw_only=True)
class VariableGenesOptions(Options):
    """Which genes can be variable genes, or which are."""

    exclude: list[str] = key(
        [],
        "Genes that are never chosen: names of true/false columns of var, or regular "
        "expressions for gene names (`^MT-`, `^RP[SL]`), found anywhere in the name.",
        before=as_list,
        after=patterns,
    )
    use: str | None = key(
        None,
        "Take these genes and choose none: a true/false column of var, or a file with "
        "one name per line.",
        min_length=1,
    )


@dataclass(frozen=True, kw_only=True)
class PCAOptions(NormalizationOptions):
    """Counts to principal components (``pca.py``); only where a data set enters here."""

    n_top_genes: int | None = key(
        2000,
        "Number of highly variable genes. More than there are, or `null`: all genes.",
        ge=1,
    )
    flavor: Literal["seurat", "seurat_v3"] = key(
        "seurat", "How variable genes are found; `seurat_v3` needs raw counts."
    )
    batch_key: str | None = key(
        None, "Find variable genes within each level of this obs column, then join."
    )
    hvg: VariableGenesOptions | None = key(
        None, "Genes to leave out of the variable ones, or a list of your own."
    )
    n_comps: int = key(50, "Number of principal components.", ge=1)

    def check(self) -> None:
        """Refuse options of a choice that is not made."""
        if self.hvg is None or self.hvg.use is None:
            return
        choices = {
            "n_top_genes": PCAOptions.n_top_genes,
            "flavor": PCAOptions.flavor,
            "batch_key": PCAOptions.batch_key,
        }
        idle = [name for name, default in choices.items() if getattr(self, name) != default]
        if idle:
            raise ValueError(
                f"hvg.use names the genes, so that {' and '.join(idle)} would have no effect; "
                f"remove {'it' if len(idle) == 1 else 'them'}, or hvg.use"
            )
        if self.hvg.exclude:
            raise ValueError("hvg.use names the genes, hvg.exclude chooses among all; give one")


@dataclass(frozen=True, kw_only=True)
class DoubletOptions(Options):
    """Scoring cells as doublets (``doublets.py``), at every stage of entry; needs counts."""

    sample_key: str | None = key(
        None,
        "The obs column that names the sample (the capture) within which doublets form. In a "
        "config unset: the first column of `integration.batch`; else all cells are one sample.",
        names_obs=True,
    )
    expected_doublet_rate: float = key(
        0.05, "Share of doublets that is expected (Scrublet's prior).", gt=0, lt=0.3
    )


@dataclass(frozen=True, kw_only=True)
class PreprocessingOptions(PCAOptions, PrepareOptions, ValuesOptions, DoubletOptions):
    """What is kept of the input, and how counts become principal components."""

    doublets: bool = key(
        False,
        "Score cells as doublets (Scrublet): the obs columns `doublet_score`, `doublet_like` and "
        "`relative_counts`, and `doublets.tsv` with the clusters that have their marks. No cell is "
        "dropped. Needs counts.",
        config_only=True,
    )

    def check(self) -> None:
        """Refuse options of a step that is not run."""
        super().check()
        defaults = DoubletOptions()
        idle = [
            name
            for name in sorted(options_of(DoubletOptions))
            if getattr(self, name) != getattr(defaults, name)
        ]
        if idle and not self.doublets:
            raise ValueError(f"{idle[0]} has no effect without doublets: true")
