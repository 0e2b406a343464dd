"""Options of neighbors, clusters at every resolution and level, and the layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from clustering.cluster_names import deepest_level
from utils.option_checks import (
    AS_TEXT,
    as_list,
    column_names_once,
    element_name,
    number_in,
    once,
    plain_values,
)
from utils.options import Options, key

MAX_LEVELS = 20
ALGORITHM, RESOLUTION = "leiden", 1.0
# The error rate of splits that are tested without one being named.
SIGNIFICANCE = 0.05
# As many levels as there are splits to find: `hierarchy: auto`, `--level auto`.
AUTO = "auto"

Refinement = Literal["neighbors", "graph", "pca", "integration"]
Metric = Literal["euclidean", "cosine"]


def cluster_ids(value: dict) -> dict[str, float]:
    """``{1: 0.1, "3_0": 0.2}`` with the ids as text, or a message that says what to write."""
    resolutions: dict[str, float] = {}
    for key_, resolution in value.items():
        name = str(key_)
        number = isinstance(key_, int) and not isinstance(key_, bool) and key_ >= 0
        if not (number or (isinstance(key_, str) and key_)):
            raise ValueError(
                f"{key_!r} is not a cluster id; write the number of a level-1 cluster (3), a "
                'quoted deeper label ("3_0") or a quoted name of the input\'s own column, and its '
                "resolution"
            )
        if deepest_level(name) >= MAX_LEVELS:
            raise ValueError(f"cluster {name}: there are at most {MAX_LEVELS} levels")
        if isinstance(resolution, bool) or not isinstance(resolution, int | float):
            raise ValueError(
                f"cluster {name}: the resolution must be a number, found {resolution!r}"
            )
        if not 0 < resolution < float("inf"):
            raise ValueError(f"cluster {name}: the resolution must be above 0, found {resolution}")
        if name in resolutions:
            raise ValueError(f"cluster {name} is named twice")
        resolutions[name] = float(resolution)
    if not resolutions:
        raise ValueError("names no cluster; write {cluster_id: resolution} or a depth such as 2")
    return resolutions


def _hierarchy(value: Any) -> Any:
    if isinstance(value, dict):
        return cluster_ids(value)
    if value == AUTO:
        return value
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
            f"must be a depth (3), {AUTO}, {{cluster_id: resolution}} or a list with one entry per "
            f"level below the first, found {value!r}"
        )
    if not 1 <= value <= MAX_LEVELS:
        raise ValueError(f"the depth must be between 1 and {MAX_LEVELS}, found {value}")
    return value


def _resolutions(value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    for item in values:
        if isinstance(item, bool) or not isinstance(item, int | float):
            hint = ""
            if isinstance(item, str) and (number := number_in(item)) is not None:
                hint = f", a text; write {number} {AS_TEXT}"
            raise ValueError(f"must be numbers above 0, found {item!r}{hint}")
        if not 0 < item < float("inf"):
            raise ValueError(f"must be numbers above 0, found {item}")
    if not values:
        raise ValueError("is empty; give at least one resolution, such as [1.0]")
    return once([float(item) for item in values])


@dataclass(frozen=True, kw_only=True)
class NeighborsOptions(Options):
    """The neighbor graph (``neighbors.py``)."""

    n_neighbors: int = key(15, "Neighbors per cell, itself included.", ge=2)
    use_rep: str | None = key(
        None,
        "The obsm key to search in. Unset: the method's own embedding; "
        "where a data set enters at clustering, `X_pca`.",
    )
    metric: Metric = key("euclidean", "Distance.")


@dataclass(frozen=True, kw_only=True)
class SubLevelOptions(Options):
    """Parameters of one level of a `hierarchy` list."""

    resolution: float | None = key(
        None, "Resolution within each parent. Unset: the level-1 resolution.", gt=0
    )
    n_neighbors: int | None = key(None, "Neighbors within each parent.", ge=2)
    use_rep: str | None = key(None, "The obsm key to search in.")
    metric: Metric | None = key(None, "Distance.")
    refine: Refinement | None = key(None, "As `refine`, for this level.")
    clustering_args: dict[str, Any] = key(
        {}, "As `clustering_args`, for this level.", before=plain_values
    )


@dataclass(frozen=True, kw_only=True)
class UMAPOptions(Options):
    """The layout (``umap.py``)."""

    min_dist: float = key(0.5, "How tightly points are packed.", ge=0)
    spread: float = key(1.0, "Scale of the layout.", gt=0)
    n_epochs: int | None = key(None, "Optimization passes. Unset: by number of cells.", ge=1)


@dataclass(frozen=True, kw_only=True)
class NeighborsKeyOptions(Options):
    """Which neighbors of a store are meant."""

    neighbors_key: str = key(
        "neighbors",
        "The key of the neighbors in `uns`; existing ones are used.",
        after=element_name,
    )


@dataclass(frozen=True, kw_only=True)
class SplitOptions(Options):
    """Which splits are kept."""

    significance: float | None = key(
        None,
        "Test every split, and join what it does not tell apart: the family-wise error rate of "
        "all splits of a clustering, such as `0.05`. Unset: no test, but 0.05 with "
        "`hierarchy: auto`.",
        gt=0,
        lt=1,
    )
    gradual: Literal["keep", "join"] = key(
        "keep", "What to do with the children of a significant split that no gap separates."
    )
    min_cluster_size: int = key(
        20,
        "A cluster of a sub-level with fewer cells is joined to its nearest sibling (of most "
        "weight in the graph between them), and a cluster with fewer than twice as many is not "
        "split. At level 1 only with `significance`.",
        ge=1,
    )

    def significance_of(self, level: int | str) -> float | None:
        """Return the error rate that the splits of a level (or `AUTO`) are tested at, if any."""
        return SIGNIFICANCE if self.significance is None and level == AUTO else self.significance


@dataclass(frozen=True, kw_only=True)
class CommunityOptions(SplitOptions, NeighborsKeyOptions):
    """What every clustering of a data set shares (``clustering.py``)."""

    refine: Refinement = key(
        "neighbors",
        "What a sub-level does anew within each parent: neighbors; or nothing "
        "(`graph`: the parent's part of the level-1 graph is split, the choice for a graph that is "
        "itself the integration, such as BBKNN's); or also PCA on the "
        "parent's own variable genes (from the counts, by the keys of `preprocessing`, but scaled "
        "to the parent's median total where `target_sum` is the default, and with at most the "
        "square root of its cells as components); or also Harmony on those (methods that are "
        "Harmony; others stay at PCA).",
    )
    max_cluster_factor: float = key(
        50.0,
        "After a GPU run, more than factor x resolution tiny clusters are taken for a "
        "failure and the CPU is used.",
        gt=0,
    )
    clustering_args: dict[str, Any] = key(
        {},
        "Arguments for the algorithm, such as `{flavor: igraph, n_iterations: 5}`; "
        "with any, the CPU is used.",
        before=plain_values,
    )


@dataclass(frozen=True, kw_only=True)
class ClusteringOptions(CommunityOptions):
    """Neighbors, communities at every resolution and level, layout and pictures."""

    algorithm: list[Literal["leiden", "louvain"]] = key(
        [ALGORITHM],
        "`leiden`, `louvain` or a list of them.",
        before=as_list,
        after=once,
        min_length=1,
    )
    resolutions: list[float] = key(
        [RESOLUTION], "Resolutions of level 1, such as `[0.2, 0.4, 0.8]`.", before=_resolutions
    )
    hierarchy: int | Literal["auto"] | dict[str, float] | list[SubLevelOptions] = key(
        1,
        "Sub-clustering: a depth (`3`: all clusters, down to level 3, at the level-1 "
        "resolution), or `auto` (level after level at that resolution, until no cluster is split; "
        "with `significance`), or `{cluster_id: resolution}` (only these are split; quote deeper "
        'ids: `"3_0"`; the clusters of a column that came with the input go by their names, and '
        "one whose name ends in `_` and a number may be of a deeper level, which is then made), or "
        "a list with one resolution (or mapping of parameters) per level below the first.",
        before=_hierarchy,
    )
    recompute_neighbors: bool = key(False, "Compute neighbors even where the input has them.")
    neighbors: NeighborsOptions = key(
        NeighborsOptions(),
        "Parameters of the neighbor graph, sub-levels included.",
        config_only=True,
    )
    overwrite: bool = key(False, "Recompute results that already exist.")
    recompute_umap: bool = key(False, "Compute the layout even where the input has an `X_umap`.")
    umap: UMAPOptions = key(UMAPOptions(), "Parameters of the layout.", config_only=True)
    umap_colors: list[str] = key(
        [],
        "obs columns to color the layout by; every cluster column is added.",
        before=column_names_once,
    )

    def check(self) -> None:
        """Refuse parameters that others leave without effect."""
        idle = {"graph": {"n_neighbors", "use_rep", "metric"}, "neighbors": set()}
        problems = [
            f"hierarchy[{i}].{name}: has no effect with refine: {refine}; remove it"
            for i, level in enumerate(self.levels)
            for refine in [level.refine or self.refine]
            for name in sorted(idle.get(refine, {"use_rep"}) & level.given)
        ]
        if self.gradual != SplitOptions.gradual and self.significance_of(self.hierarchy) is None:
            problems.append("gradual: has no effect without significance; remove it")
        if problems:
            raise ValueError("\n".join(problems))

    @property
    def levels(self) -> list[SubLevelOptions]:
        """The levels that have parameters of their own."""
        return self.hierarchy if isinstance(self.hierarchy, list) else []

    @property
    def refines(self) -> bool:
        """Whether a sub-level goes back to the counts."""
        return {self.refine, *(level.refine for level in self.levels)} & {
            "pca",
            "integration",
        } != set()

    @property
    def reads_counts(self) -> bool:
        """Whether clusters need the counts: for `refine`, or to test splits."""
        return self.refines or self.tests_splits

    @property
    def tests_splits(self) -> bool:
        """Whether the splits of any level are tested."""
        return any(self.significance_of(level) is not None for level in self.stored_levels)

    @property
    def stored_levels(self) -> list[int | str]:
        """The levels that have a store of their own; `AUTO` is the one of all levels."""
        if self.hierarchy == AUTO:
            return [AUTO]
        depth = self.hierarchy if isinstance(self.hierarchy, int) else len(self.hierarchy) + 1
        if isinstance(self.hierarchy, dict):
            depth = max(map(deepest_level, self.hierarchy)) + 1
        return list(range(1, depth + 1))
