"""Cluster columns as trees: one per algorithm and resolution, with a node per cluster and level."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluation.values import read_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from evaluation.values import Values

COLUMN = re.compile(r"(?P<group>[a-z]+_\d+(?:\.\d+)?(?:e[+-]?\d+)?)_(?P<level>\d+)")


class Tree(NamedTuple):
    """Clusters of one algorithm and resolution; nodes stand level by level, parents first."""

    columns: list[str]  # one per level
    labels: list[str]  # of the nodes
    levels: list[int]  # place of each node's column in `columns`
    parents: list[int]  # -1: none
    sizes: list[int]  # cells
    nodes: np.ndarray  # (cells,) int32: the node of each cell at the last level; -1: none


def cluster_columns(names: Iterable[str]) -> list[str]:
    """Find the names of cluster columns, ``{algorithm}_{resolution}_{level}``, in their order."""
    return [name for name in names if COLUMN.fullmatch(name)]


def cluster_trees(columns: Mapping[str, Values]) -> list[Tree]:
    """Join the levels of each algorithm and resolution to a tree.

    Parameters
    ----------
    columns
        Names as `cluster_columns` finds them, labels of all cells.

    Returns
    -------
    list of Tree
        In the order of the columns. Levels whose labels do not name the clusters above as their
        parents (``0_1`` is in ``0``), or which leave other cells without a label, start a tree of
        their own.
    """
    groups: dict[str, list[str]] = {}
    for name in columns:
        groups.setdefault(COLUMN.fullmatch(name)["group"], []).append(name)
    trees = []
    for names in groups.values():
        names.sort(key=lambda name: int(COLUMN.fullmatch(name)["level"]))
        tree = None
        for name in names:
            labels, codes = read_values(columns[name], title=name, as_categories=True)
            above = None if tree is None else _parents(tree, labels, codes)
            if above is None:
                if tree is not None:
                    trees.append(tree)
                tree = Tree([], [], [], [], [], codes)
                above = [-1] * len(labels)
            tree = _grow(tree, name, labels, codes, above)
        trees.append(tree)
    return trees


def _parents(tree: Tree, labels: list[str], codes: np.ndarray) -> list[int] | None:
    """Find the node above each label; none where the labels do not lie within those above."""
    if ((codes < 0) != (tree.nodes < 0)).any():
        return None
    known = codes >= 0
    above = np.full(len(labels), -1)
    above[codes[known]] = tree.nodes[known]
    if (above[codes[known]] != tree.nodes[known]).any():
        return None
    expected = [label.rpartition("_")[0] for label in labels]
    found = [tree.labels[node] for node in above]
    return above.tolist() if expected == found else None


def _grow(
    tree: Tree, column: str, labels: list[str], codes: np.ndarray, parents: list[int]
) -> Tree:
    """Add a level."""
    first = len(tree.labels)
    sizes = np.bincount(codes[codes >= 0], minlength=len(labels))
    return Tree(
        [*tree.columns, column],
        tree.labels + labels,
        tree.levels + [len(tree.columns)] * len(labels),
        tree.parents + parents,
        tree.sizes + sizes.tolist(),
        np.where(codes >= 0, codes + first, -1).astype(np.int32),
    )
