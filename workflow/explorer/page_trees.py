"""Cluster columns as trees: one per algorithm and resolution, with a node per cluster and level."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from clustering.cluster_names import parse_column
from clustering.cluster_tree import parent_codes
from evaluation.figures.column_values import read_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from clustering.cluster_names import ClusterColumn
    from evaluation.figures.column_values import Values


class Tree(NamedTuple):
    """Clusters of one algorithm and resolution; nodes stand level by level, parents first."""

    name: str  # ``{algorithm}_{resolution}``, or its first column where it starts further down
    columns: list[str]  # one per level
    level_names: list[str]  # numbers of their levels
    labels: list[str]  # of the nodes
    levels: list[int]  # place of each node's column in `columns`
    parents: list[int]  # -1: none
    sizes: list[int]  # cells
    nodes: np.ndarray  # (cells,) int32: the deepest node of each cell; -1: none


def cluster_columns(names: Iterable[str]) -> list[str]:
    """Find the names of cluster columns, ``{algorithm}_{resolution}_{level}``, in their order."""
    return [name for name in names if parse_column(name)]


def cluster_trees(columns: Mapping[str, Values]) -> list[Tree]:
    """Join the levels of each algorithm and resolution to a tree.

    Parameters
    ----------
    columns
        Names as `cluster_columns` finds them, labels of all cells.

    Returns
    -------
    list of Tree
        In the order of the columns. Levels whose clusters do not lie within those above start a
        tree of their own.
    """
    families: dict[str, list[ClusterColumn]] = {}
    for column in map(parse_column, columns):
        families.setdefault(column.family, []).append(column)
    trees = []
    for levels in families.values():
        tree = None
        for column in sorted(levels):
            labels, codes = read_values(columns[str(column)], title=str(column), as_categories=True)
            above = None if tree is None else _parents(tree, labels, codes)
            if above is None:
                if tree is not None:
                    trees.append(tree)
                name = column.family if tree is None else str(column)
                nodes = np.full(len(codes), -1, dtype=np.int32)
                tree = Tree(name, [], [], [], [], [], [], nodes)
                above = [-1] * len(labels)
            tree = _grow(tree, column, labels, codes, above)
        trees.append(tree)
    return trees


def _parents(tree: Tree, labels: list[str], codes: np.ndarray) -> list[int] | None:
    """Find the node above each label; none where the labels do not lie within those above."""
    first = sum(level < len(tree.columns) - 1 for level in tree.levels)
    # A cell without a label at the level above has no place in the tree here.
    above = parent_codes(codes, len(labels), np.where(tree.nodes >= first, tree.nodes, -1))
    return None if above is None else above.tolist()


def _grow(
    tree: Tree, column: ClusterColumn, labels: list[str], codes: np.ndarray, parents: list[int]
) -> Tree:
    """Add a level."""
    first = len(tree.labels)
    sizes = np.bincount(codes[codes >= 0], minlength=len(labels))
    return Tree(
        tree.name,
        [*tree.columns, str(column)],
        [*tree.level_names, str(column.level)],
        tree.labels + labels,
        tree.levels + [len(tree.columns)] * len(labels),
        tree.parents + parents,
        tree.sizes + sizes.tolist(),
        np.where(codes >= 0, codes + first, tree.nodes).astype(np.int32),
    )
