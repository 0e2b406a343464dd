"""The tree of clusters: every cluster of every level with its parent and its size."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from clustering.hierarchy import natural_order

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = ("tree", "level", "column", "cluster", "parent", "n_cells")


def cluster_tree(columns: Mapping[str, tuple[np.ndarray, list[str]]]) -> list[tuple]:
    """List the clusters of all columns.

    Parameters
    ----------
    columns
        Codes (-1: missing) and names by column, ``{algorithm}_{resolution}_{level}``; a name is
        its parent's with one part more.

    Returns
    -------
    list of tuple
        The `COLUMNS`: tree (``{algorithm}_{resolution}``), level, column, cluster, parent (empty
        at level 1) and number of cells; by tree, then level, then cluster.
    """
    rows = []
    for column, (codes, names) in sorted(columns.items(), key=lambda item: _key(item[0])):
        tree, _, level = column.rpartition("_")
        sizes = np.bincount(codes[codes >= 0], minlength=len(names))
        size = dict(zip(names, sizes.tolist(), strict=True))
        rows += [
            (tree, int(level), column, name, name.rpartition("_")[0], size[name])
            for name in natural_order(size)
            if size[name]
        ]
    return rows


def _key(column: str) -> tuple[str, float, int]:
    algorithm, resolution, level = re.fullmatch(r"(.*)_([^_]+)_(\d+)", column).groups()
    return algorithm, float(resolution), int(level)


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
        cells stands in NHX comments, every branch has length 1.
    """
    children: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for tree, _, _, name, parent, n_cells in rows:
        children.setdefault((tree, parent), []).append((name, n_cells))

    def write(tree: str, parent: str) -> str:
        parts = [
            f"{write(tree, name)}{name}:1[&&NHX:n={n_cells}]"
            for name, n_cells in children.get((tree, parent), [])
        ]
        return f"({','.join(parts)})" if parts else ""

    trees = dict.fromkeys(tree for tree, *_ in rows)
    return "".join(f"{write(tree, '')}{tree};\n" for tree in trees)
