"""The order of merges: one batch after the other, a tree, or by the number of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from utils.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from integration.mnn.arguments import MNNBatches

MergeTree = int | tuple["MergeTree", "MergeTree"]


@dataclass(frozen=True)
class Part:
    """The cells of one batch, or of several that have been merged.

    Attributes
    ----------
    batches
        Numbers of the batches, in the order in which they were merged.
    cells
        Row of every cell in the input, batch after batch in that order.
    edges
        Where each batch starts in `cells`, and the end; shape (n_batches + 1,).
    data
        Coordinates, cells x dimensions.
    output
        Coordinates in the space of the result, where that is another one; else None.
    vectors
        Unit vectors along which the cells have been centered (`reduced_mnn`).
    pairable
        Positions of the cells that may be paired; None for all.
    """

    batches: tuple[int, ...]
    cells: np.ndarray
    edges: np.ndarray
    data: np.ndarray
    output: np.ndarray | None = None
    vectors: tuple[np.ndarray, ...] = ()
    pairable: np.ndarray | None = None


P = TypeVar("P", bound=Part)


def batch_parts(
    batches: MNNBatches, data: np.ndarray, output: np.ndarray | None = None
) -> list[Part]:
    """Make one part of every batch."""
    parts = []
    order = np.argsort(batches.codes, kind="stable")
    ends = np.cumsum(np.bincount(batches.codes))
    for number, cells in enumerate(np.split(order, ends[:-1])):
        parts.append(
            Part(
                batches=(number,),
                cells=cells,
                edges=np.array([0, len(cells)]),
                data=data[cells],
                output=None if output is None else output[cells],
                pairable=(
                    None if batches.restrict is None else np.flatnonzero(batches.restrict[cells])
                ),
            )
        )
    return parts


def join_parts(
    left: Part,
    right: Part,
    data: tuple[np.ndarray, np.ndarray],
    output: tuple[np.ndarray, np.ndarray] | None = None,
    vector: np.ndarray | None = None,
) -> Part:
    """Join two parts with new coordinates of their cells."""
    pairable = None
    if left.pairable is not None:
        pairable = np.concatenate([left.pairable, right.pairable + len(left.cells)])
    return Part(
        batches=left.batches + right.batches,
        cells=np.concatenate([left.cells, right.cells]),
        edges=np.concatenate([left.edges, right.edges[1:] + len(left.cells)]),
        data=np.concatenate(data),
        output=None if output is None else np.concatenate(output),
        vectors=(*left.vectors, *right.vectors, *(() if vector is None else (vector,))),
        pairable=pairable,
    )


def merge_tree(merge_order: Any, batches: MNNBatches) -> MergeTree:
    """Turn a merge order into a tree of batch numbers.

    Parameters
    ----------
    merge_order
        None: in the order of the batches, each merged into all before it. A flat list of all
        labels: the same in that order. A nested list: a tree whose nodes have two children each,
        such as ``[["a", "b"], ["c", "d"]]``.
    batches
        Two or more batches.

    Raises
    ------
    ValueError
        If a batch is unknown, missing or named twice, or a node has not two children.
    """
    if merge_order is None:
        return _chain(range(len(batches.labels)))
    if isinstance(merge_order, np.ndarray):
        merge_order = merge_order.tolist()
    if not isinstance(merge_order, (list, tuple)):
        raise TypeError(
            f"merge_order must be a list of batches, nested or not; found {merge_order!r}"
        )
    nested = any(_is_node(item, batches) for item in merge_order)
    tree = (
        _node(merge_order, batches)
        if nested
        else _chain([_number(item, batches) for item in merge_order])
    )
    leaves = list(_leaves(tree))
    twice = {number for number in leaves if leaves.count(number) > 1}
    absent = set(range(len(batches.labels))) - set(leaves)
    for problem, numbers in (("names a batch twice", twice), ("misses a batch", absent)):
        if numbers:
            named = ", ".join(repr(batches.name(number)) for number in sorted(numbers))
            raise ValueError(f"merge_order {problem}: {named}; name every batch once")
    return tree


def _chain(numbers: Sequence[int]) -> MergeTree:
    if not len(numbers):
        raise ValueError("merge_order is empty; name every batch once")
    tree: MergeTree = numbers[0]
    for number in numbers[1:]:
        tree = (tree, number)
    return tree


def _is_node(item: Any, batches: MNNBatches) -> bool:
    """Whether this is a subtree, not the label of a batch, which may be a tuple itself."""
    return isinstance(item, list) or (isinstance(item, tuple) and item not in batches.labels)


def _node(item: Any, batches: MNNBatches) -> MergeTree:
    if not _is_node(item, batches):
        return _number(item, batches)
    if len(item) != 2:
        raise ValueError(
            f"merge_order: a node of the tree has two children, found {len(item)} in "
            f"{list(item)!r}; nest them in twos"
        )
    return _node(item[0], batches), _node(item[1], batches)


def _number(label: Any, batches: MNNBatches) -> int:
    for number, known in enumerate(batches.labels):
        if label == known:
            return number
    names = [batches.name(number) for number in range(len(batches.labels))]
    if str(label) in names:  # 1 from a config, "1" in obs
        return names.index(str(label))
    raise ValueError(f"merge_order: {unknown('batch', label, names)}")


def _leaves(tree: MergeTree) -> Iterator[int]:
    if isinstance(tree, tuple):
        for child in tree:
            yield from _leaves(child)
    else:
        yield tree


def merge_all(
    parts: list[P],
    tree: MergeTree | None,
    *,
    merge: Callable[[P, P], P],
    count: Callable[[P, Sequence[P]], list[int]],
) -> Iterator[P]:
    """Merge all parts in order; yield the result of every merge, the last with all cells.

    Parameters
    ----------
    parts
        One per batch; the list is emptied so that no part outlives its merge.
    tree
        As `merge_tree` returns it; None merges the two with most pairs first.
    merge
        Called with the left and the right part.
    count
        Returns the number of pairs of a part with each of some others.
    """
    if tree is None:
        yield from _by_pairs(parts, merge, count)
        return
    by_node: dict[MergeTree, P] = dict(enumerate(parts))
    parts.clear()
    yield from _by_tree(by_node, tree, merge)


def _by_tree(parts: dict[MergeTree, P], node: MergeTree, merge: Callable[[P, P], P]) -> Iterator[P]:
    """Merge below a node, its right child first, then the two children."""
    if not isinstance(node, tuple):
        return
    for child in reversed(node):
        yield from _by_tree(parts, child, merge)
    left, right = node
    parts[node] = merge(parts.pop(left), parts.pop(right))
    yield parts[node]


def _by_pairs(
    parts: list[P],
    merge: Callable[[P, P], P],
    count: Callable[[P, Sequence[P]], list[int]],
) -> Iterator[P]:
    """Merge the two parts with most pairs, the later one as the left, until one remains."""
    pairs = [count(part, parts[:number]) for number, part in enumerate(parts)]
    while len(parts) > 1:
        # Of equal numbers the first, column by column.
        candidates = ((j, i) for j in range(len(parts)) for i in range(j + 1, len(parts)))
        right, left = max(candidates, key=lambda place: pairs[place[1]][place[0]])
        merged = merge(parts[left], parts[right])
        for number in (left, right):
            del parts[number], pairs[number]
        pairs = [[n for i, n in enumerate(row) if i not in (left, right)] for row in pairs]
        pairs.append(count(merged, parts))
        parts.append(merged)
        yield merged
