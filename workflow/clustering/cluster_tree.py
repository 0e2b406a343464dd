"""The tree of clusters: every cluster of every level with its parent and its size.

Parents are determined from the cells, never from names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from clustering.cluster_names import column_above, natural_order, parse_column
from utils.errors import one_line
from utils.log import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Coded = tuple[np.ndarray, Sequence[str]]

TREE_COLUMNS = ("tree", "level", "column", "cluster", "parent", "n_cells", "verdict", "p")
# Other names are quoted: in Newick brackets, commas, colons, quotes and spaces mean something.
_PLAIN = re.compile(r"[A-Za-z0-9_.+-]+")


def parent_codes(codes: np.ndarray, n_clusters: int, above: np.ndarray) -> np.ndarray | None:
    """Find the cluster of the level above that contains each cluster.

    Parameters
    ----------
    codes, above
        Of shape (cells,): cluster of each cell at a level and at the one above, -1: none.
    n_clusters
        Number of clusters of the level.

    Returns
    -------
    numpy.ndarray or None
        int64 of shape (n_clusters,), -1 for a cluster without cells. None where a cluster does not
        lie in one cluster of the level above: then there are no parents.

    Notes
    -----
    Peak memory: about 20 bytes per cell.
    """
    known = codes >= 0
    inside, outside = codes[known], above[known]
    parents = np.full(n_clusters, -1, dtype=np.int64)
    parents[inside] = outside
    nested = (outside >= 0).all() and (parents[inside] == outside).all()
    return parents if nested else None


def parent_names(column: str, labels: Coded, above: str, labels_above: Coded) -> list[str] | None:
    """Name the parent of each cluster of a column; None, with a message, where it has no parents.

    Parameters
    ----------
    column, above
        Names of the column and of the one of the level above.
    labels, labels_above
        Their codes (-1: missing) and names.
    """
    (codes, names), (codes_above, names_above) = labels, labels_above
    parents = parent_codes(codes, len(names), codes_above)
    if parents is not None:
        return [names_above[parent] if parent >= 0 else "" for parent in parents]
    first = np.full(len(names), -1)
    first[codes[codes >= 0]] = codes_above[codes >= 0]
    astray = (codes >= 0) & ((codes_above < 0) | (first[codes] != codes_above))
    code = codes[astray].min()
    several = np.unique(codes_above[codes == code])[:2]
    where = " and ".join(
        f'"{one_line(names_above[parent])}"' if parent >= 0 else "no cluster" for parent in several
    )
    say(
        f'{column} does not lie within {above}: cells of "{one_line(names[code])}" are in {where}; '
        "it is taken as a tree of its own"
    )
    return None


def separating_splits(splits: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Find the split that separates each cluster from its siblings.

    Parameters
    ----------
    splits
        Of one column, each with `left` and `right`, names of clusters: as in the record of a
        column that was clustered with a test.

    Returns
    -------
    dict
        By cluster, the split of which it alone is a side: in a dendrogram there is one at most.
        Splits whose sides were joined separate nothing.
    """
    return {
        side[0]: split
        for split in splits
        for side in (split["left"], split["right"])
        if len(side) == 1 and split["left"] != split["right"]
    }


def cluster_tree(
    columns: Mapping[str, Coded],
    splits: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> list[tuple]:
    """List the clusters of all columns.

    Parameters
    ----------
    columns
        Codes (-1: missing) and names by column, ``{algorithm}_{resolution}_{level}``.
    splits
        By column, the tested splits of its record; may lack columns.

    Returns
    -------
    list of tuple
        Rows of `TREE_COLUMNS` (`parent` is empty at the first level of a tree), by tree, then
        level, then cluster. A tree is called ``{algorithm}_{resolution}``; one that starts further
        down, because its clusters do not lie within those of the level above, by its first column.
        `verdict` and `p` are of the split that separates the cluster from its siblings, empty
        where none was tested.

    Raises
    ------
    ValueError
        If a column is no cluster column.
    """
    for column in columns:
        if parse_column(column) is None:
            raise ValueError(
                f'"{one_line(column)}" is not the name of a cluster column, such as leiden_1.0_1'
            )
    rows = []
    trees: dict[str, str] = {}
    for parsed in sorted(map(parse_column, columns)):
        column = str(parsed)
        codes, names = columns[column]
        above = column_above(column, columns)
        parents = None
        if above is not None:
            parents = parent_names(column, columns[column], above, columns[above])
        started = parsed.family in trees.values()
        if parents is not None:
            trees[column] = trees[above]
        else:
            trees[column] = column if started else parsed.family
        parent = dict(zip(names, parents or [""] * len(names), strict=True))
        sizes = np.bincount(codes[codes >= 0], minlength=len(names))
        size = dict(zip(names, sizes.tolist(), strict=True))
        separating = separating_splits((splits or {}).get(column, ()))
        for name in filter(size.get, natural_order(size)):
            split = separating.get(name, {"verdict": "", "p": ""})
            row = (trees[column], parsed.level, column, name, parent[name], size[name])
            rows.append((*row, split["verdict"], split["p"]))
    return rows


def newick(rows: list[tuple]) -> str:
    """Write one tree a line in the Newick format.

    Parameters
    ----------
    rows
        Of `cluster_tree`.

    Returns
    -------
    str
        Such as ``((0_0:1[&&NHX:n=7],0_1:1[&&NHX:n=3])0:1[&&NHX:n=10])leiden_1.0;``; the number of
        cells is in NHX comments, every branch has length 1. A name of other characters than
        letters, digits and ``_.+-`` is in single quotes, a quote in it doubled.
    """
    # Clusters of two levels may have one name, so the column tells them apart.
    children: dict[tuple[str, str], list[tuple[str, int]]] = {}
    columns: dict[str, list[str]] = {}
    for tree, _, column, name, parent, n_cells, *_ in rows:
        levels = columns.setdefault(tree, [""])
        if column != levels[-1]:
            levels.append(column)
        children.setdefault((column, parent), []).append((name, n_cells))

    def write(levels: list[str], parent: str) -> str:
        parts = [
            f"{write(levels[1:], name)}{_quoted(name)}:1[&&NHX:n={n_cells}]"
            for name, n_cells in (children.get((levels[0], parent), []) if levels else [])
        ]
        return f"({','.join(parts)})" if parts else ""

    return "".join(f"{write(levels[1:], '')}{tree};\n" for tree, levels in columns.items())


def _quoted(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else "'" + name.replace("'", "''") + "'"
