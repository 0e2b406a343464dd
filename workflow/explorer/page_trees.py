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


class ClusterTree(NamedTuple):
    """Clusters of one algorithm and resolution; nodes are listed by level, parents first."""

    name: str  # ``{algorithm}_{resolution}``, or its first column where it starts further down
    columns: list[str]  # one per level
    level_names: list[str]  # numbers of the levels, as text
    labels: list[str]  # one per node
    levels: list[int]  # of each node, as an index into `columns`
    parents: list[int]  # of each node; -1: none
    sizes: list[int]  # cells of each node
    deepest: np.ndarray  # (cells,) int32: the deepest node of each cell; -1: none


def cluster_columns(names: Iterable[str]) -> list[str]:
    """List the cluster columns, ``{algorithm}_{resolution}_{level}``, among some columns."""
    return [name for name in names if parse_column(name)]


def cluster_trees(columns: Mapping[str, Values]) -> list[ClusterTree]:
    """Join the levels of each algorithm and resolution to a tree.

    Parameters
    ----------
    columns
        Labels of all cells, by the name of their column, as `cluster_columns` lists them.

    Returns
    -------
    list of ClusterTree
        In the order of the columns. A level whose clusters do not lie within those above starts a
        tree of its own.
    """
    families: dict[str, list[ClusterColumn]] = {}
    for column in map(parse_column, columns):
        families.setdefault(column.family, []).append(column)
    trees = []
    for levels in families.values():
        tree = None
        for column in sorted(levels):
            labels, codes = read_values(columns[str(column)], title=str(column), as_categories=True)
            parents = None if tree is None else _parents(tree, labels, codes)
            if parents is None:
                if tree is not None:
                    trees.append(tree)
                name = column.family if tree is None else str(column)
                no_nodes = np.full(len(codes), -1, dtype=np.int32)
                tree = ClusterTree(name, [], [], [], [], [], [], no_nodes)
                parents = [-1] * len(labels)
            tree = _with_level(tree, column, labels, codes, parents)
        trees.append(tree)
    return trees


def _parents(tree: ClusterTree, labels: list[str], codes: np.ndarray) -> list[int] | None:
    """Find the parent of each label; None if a label has cells of several clusters above."""
    first = sum(level < len(tree.columns) - 1 for level in tree.levels)
    # A cell without a label at the level above has no parent here.
    above = np.where(tree.deepest >= first, tree.deepest, -1)
    parents = parent_codes(codes, len(labels), above)
    return None if parents is None else parents.tolist()


def _with_level(
    tree: ClusterTree,
    column: ClusterColumn,
    labels: list[str],
    codes: np.ndarray,
    parents: list[int],
) -> ClusterTree:
    """Add a level to a tree."""
    first = len(tree.labels)
    sizes = np.bincount(codes[codes >= 0], minlength=len(labels))
    return ClusterTree(
        tree.name,
        [*tree.columns, str(column)],
        [*tree.level_names, str(column.level)],
        tree.labels + labels,
        tree.levels + [len(tree.columns)] * len(labels),
        tree.parents + parents,
        tree.sizes + sizes.tolist(),
        np.where(codes >= 0, codes + first, tree.deepest).astype(np.int32),
    )
