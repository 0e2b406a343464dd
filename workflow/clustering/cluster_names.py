"""Names of cluster columns, ``{algorithm}_{resolution}_{level}``, and of the clusters in them.

The only place that writes and parses these names. Parents are determined from the cells, not from
names (`clustering.cluster_tree`): a column that came with the input has names of its own.
"""

from __future__ import annotations

import csv
import io
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from utils.errors import missing, one_line
from utils.log import say

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

ALGORITHMS = ("leiden", "louvain")
_COLUMN = re.compile(rf"({'|'.join(ALGORITHMS)})_([0-9][0-9.e+-]*)_([1-9][0-9]*)")
_DEEPER = re.compile(r"(?:_[0-9]+)*\Z")

# The parent of the clusters of level 1, in tables and records.
ALL_CELLS = "all"


class ClusterColumn(NamedTuple):
    """The parts of a cluster column's name; ``str`` writes the name, sorting is by number."""

    algorithm: str
    resolution: float
    level: int

    def __str__(self) -> str:
        """Write the name: ``leiden_1.0_1``, ``leiden_1e-05_2``."""
        return f"{self.family}_{self.level}"

    @property
    def family(self) -> str:
        """The part that all levels share: ``leiden_1.0``."""
        return f"{self.algorithm}_{resolution_text(self.resolution)}"


def resolution_text(resolution: float | str) -> str:
    """Write a resolution as in the names of columns: ``1`` is ``1.0``."""
    return str(float(resolution))


def parse_column(name: str) -> ClusterColumn | None:
    """Parse the name of a cluster column; None for other columns."""
    parts = _COLUMN.fullmatch(name)
    if parts is None:
        return None
    algorithm, resolution, level = parts.groups()
    try:
        column = ClusterColumn(algorithm, float(resolution), int(level))
    except ValueError:
        return None
    # leiden_1_1 and leiden_1.0_1 would be two columns of one name.
    return column if str(column) == name else None


def join_names(names: Sequence[str]) -> str:
    """Join names of clusters by commas; a name with a comma or quote is quoted as in CSV files."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(names)
    return text.getvalue()


def parse_names(text: str) -> list[str]:
    """Return the names of clusters that `join_names` joined."""
    return next(csv.reader([text]))


def column_above(name: str, columns: Iterable[str]) -> str | None:
    """Return the column of the nearest level above, of the same algorithm and resolution."""
    column = parse_column(name)
    if column is None:
        return None
    others = [other for other in map(parse_column, columns) if other is not None]
    above = [other for other in others if other[:2] == column[:2] and other.level < column.level]
    return str(max(above)) if above else None


def parent_column(columns: Collection[str], algorithm: str, resolution: float, level: int) -> str:
    """Find the column of the level above.

    Parameters
    ----------
    columns
        Names of the obs columns.
    algorithm, resolution, level
        Of the wanted column. Where the resolution has no column, the only column of that algorithm
        and level is taken.

    Raises
    ------
    KeyError
        If there is none, or several to choose from; lists them.
    """
    wanted = str(ClusterColumn(algorithm, resolution, level))
    if wanted in columns:
        return wanted
    parsed = [column for column in map(parse_column, columns) if column is not None]
    others = [str(c) for c in parsed if (c.algorithm, c.level) == (algorithm, level)]
    if len(others) == 1:
        return others[0]
    if others:
        raise KeyError(
            f'adata.obs has no column "{wanted}" and several of level {level}: '
            f"{', '.join(others)}; give the --resolution of one of them"
        )
    raise KeyError(
        missing("adata.obs has no column", wanted, columns)
        + f"; cluster at --level {level} first and give its output as the input"
    )


def matching_columns(patterns: Iterable[str], columns: Collection[str]) -> list[str]:
    """Find the columns that names and shell-style patterns mean.

    Parameters
    ----------
    patterns
        Names, and patterns such as ``leiden_0.2_*`` for cluster columns.
    columns
        The obs columns of a store.

    Returns
    -------
    list of str
        Each once: names as they are given, the matches of a pattern by resolution and level.

    Raises
    ------
    KeyError
        If a pattern matches no cluster column; lists those that exist.
    """
    clusterings = [str(column) for column in sorted(filter(None, map(parse_column, columns)))]
    names: list[str] = []
    for pattern in patterns:
        matches = [pattern]
        if pattern not in columns and re.search(r"[*?\[]", pattern):
            matches = [name for name in clusterings if fnmatchcase(name, pattern)]
        if not matches:
            raise KeyError(
                missing("adata.obs has no cluster column that matches", pattern, clusterings)
            )
        names += matches
    return list(dict.fromkeys(names))


def families(columns: Iterable[str], *, fixed: str) -> dict[str, list[str]]:
    """Group cluster columns that differ only in resolution, or only in level.

    Parameters
    ----------
    columns
        Names of columns; other than cluster columns are left out.
    fixed
        ``level``: those of level 1 at several resolutions, as ``leiden resolutions``;
        ``resolution``: those of several levels, as ``leiden_0.5 levels``.

    Returns
    -------
    dict
        The columns of each family, by resolution or level.
    """
    members: dict[str, list[ClusterColumn]] = {}
    for column in filter(None, map(parse_column, columns)):
        if fixed == "level" and column.level == 1:
            members.setdefault(f"{column.algorithm} resolutions", []).append(column)
        elif fixed == "resolution":
            members.setdefault(f"{column.family} levels", []).append(column)
    return {name: [str(column) for column in sorted(family)] for name, family in members.items()}


# ---------------------------------------------------------------- clusters


def child_name(parent: str, number: int) -> str:
    """Name a child: the parent's name, then its number by size.

    Children of two parents never share a name, as the name without its last part is the parent's.
    """
    return f"{parent}_{number}"


def deepest_level(cluster: str) -> int:
    """Return the deepest level that a cluster of this name can belong to.

    ``3`` and ``CD4_Mem`` are of level 1, ``3_0`` is of level 2; ``Mono_1`` may be the second child
    of ``Mono`` or a name that came with the input.
    """
    return 1 + _DEEPER.search(cluster)[0].count("_")


def is_below(cluster: str, ancestor: str) -> bool:
    """Whether a cluster's name is that of an ancestor followed by numbers."""
    rest = cluster.removeprefix(ancestor)
    return rest not in (cluster, "") and _DEEPER.match(rest) is not None


def resolutions_of_level(
    hierarchy: Mapping[str, float],
    parents: Collection[str],
    column: str,
    level: int,
    siblings: Collection[str] = (),
) -> dict[str, float]:
    """Return the part of ``{cluster_id: resolution}`` that applies to one level.

    Parameters
    ----------
    hierarchy
        Ids of every level, with the resolution to split them at.
    parents, column
        The clusters of the level above, and their column for messages.
    level
        The level that the clusters are split into.
    siblings
        Clusters of the level above at other resolutions, where an id may occur as well.

    Returns
    -------
    dict
        Ids that are among `parents`, with their resolutions.

    Raises
    ------
    KeyError
        If an id occurs at no resolution and could not be of a deeper level; lists those that do.
    """
    known = {*parents, *siblings}
    for key in hierarchy:
        if key in parents and any(is_below(name, key) for name in parents):
            say(f"{column} has a cluster {key}, and so has a level above: both are split")
        # One that a level above has was split there; one that may be deeper is looked for there.
        split_above = any(is_below(name, key) for name in known)
        if key in parents or split_above or deepest_level(key) != level - 1:
            continue
        if key in siblings:
            say(f"{column} has no cluster {key}, other resolutions do: nothing to split here")
            continue
        hint = ""
        if key.isdigit() and len(key) > 1 and level == 2:
            hint = f'; for a deeper cluster quote the id: "{key[0]}_{key[1:]}"'
        where = f"hierarchy: {column} has no cluster"
        if siblings:
            where = f"hierarchy: {column} and the other resolutions have no cluster"
        raise KeyError(missing(where, key, natural_order(known)) + hint)
    return {key: float(value) for key, value in hierarchy.items() if key in parents}


def check_names(names: Iterable[str], where: str) -> None:
    """Refuse names of clusters that tables, tree files and figures cannot show.

    Parameters
    ----------
    names
        Of the clusters of a column.
    where
        The start of the message, such as ``adata.obs["leiden_1.0_1"]``.

    Raises
    ------
    ValueError
        If one is empty, or has a tab, a line break or another control character.
    """
    for name in names:
        if not name or len(f"{name}.".splitlines()) > 1 or re.search(r"[\x00-\x1f\x7f]", name):
            what = f'a cluster called "{one_line(name)}"' if name else "a cluster without a name"
            raise ValueError(
                f"{where} has {what}; names of clusters must not be empty and must have no tab or "
                "line break: rename it in the input"
            )


def natural_order(labels: Iterable[str]) -> list[str]:
    """Sort labels by their parts as numbers: ``9_11`` before ``10_2``.

    Parts that are not numbers follow those that are, in alphabetical order.
    """
    return sorted(labels, key=_natural_key)


def _natural_key(label: str) -> list[tuple[int, int, str]]:
    parts = str(label).split("_")
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]
