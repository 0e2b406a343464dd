"""Sub-clustering: every cluster of one level is split within its own neighbors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from clustering.children import Unsplit, accepted_children
from clustering.cluster_names import child_name, natural_order
from clustering.options import NeighborsOptions, SplitOptions
from utils.log import progress, say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd
    import scipy.sparse as sp

    from clustering.significance.splits import SplitTest
    from numerics.knn import NearestNeighbors

    Represent = Callable[[list[np.ndarray]], list[np.ndarray | str]]

# Small parents are split together up to this number of cells: calls cost more than tiny arrays.
BATCH = 4096
# The same where the counts are read again, which is one pass for each batch.
REFINED_BATCH = 100_000


@dataclass(frozen=True)
class SplitResult:
    """Labels of the next level.

    Attributes
    ----------
    codes
        int64, the position of each cell's label in `names`; -1 where the parent is missing.
    names
        ``{parent}_{i}``, i by size within the parent; in natural order.
    unsplit
        Parents that are not split, ``{parent}_0`` in `names`, each with the reason.
    splits
        What was tested, by parent and from the top down, as
        `clustering.significance.splits.TestedSplit.record` gives it; empty without a test.
    """

    codes: np.ndarray
    names: list[str]
    unsplit: dict[str, Unsplit]
    splits: list[dict[str, Any]]

    @cached_property
    def labels(self) -> pd.Categorical:
        """The labels as a categorical."""
        import pandas as pd

        return pd.Categorical.from_codes(self.codes, self.names)


def split_level(
    parents: tuple[np.ndarray, list[str]],
    basis: tuple[str, np.ndarray | sp.csr_matrix | Represent],
    *,
    resolution: float | Mapping[str, float],
    algorithm: str,
    refine: str,
    min_cluster_size: int,
    neighbors_args: dict[str, Any],
    clustering_args: dict[str, Any],
    threads: int,
    seed: int,
    known_unsplit: Mapping[str, Unsplit] | None = None,
    test: SplitTest | None = None,
) -> tuple[np.ndarray, list[str], dict[str, Any]]:
    """Run `split`, and record how.

    Parameters
    ----------
    parents, resolution, algorithm, min_cluster_size, threads, seed, known_unsplit, test
        As for `split`; `parents` as codes and names.
    basis
        Name of the representation for the record, and the representation.
    refine
        What is computed within each parent: ``graph`` (nothing), ``neighbors``, ``pca`` or
        ``integration``.
    neighbors_args, clustering_args
        Further keyword arguments of `split`.

    Returns
    -------
    (numpy.ndarray, list of str, dict)
        Codes of the cells, names of the clusters, the record.
    """
    from clustering.communities import DEFAULT_FLAVOR

    use_rep, representation = basis
    result = split(
        parents,
        representation,
        resolution=resolution,
        algorithm=algorithm,
        threads=threads,
        seed=seed,
        min_cluster_size=min_cluster_size,
        known_unsplit=known_unsplit,
        test=test,
        **neighbors_args,
        **clustering_args,
    )
    n_lost = int(((result.codes < 0) & (parents[0] >= 0)).sum())
    if n_lost:
        what = "neighbors within it" if refine == "graph" else "coordinates"
        say(f"{n_lost:,} cells of a cluster that is split have no {what} and get no label")
    record = {
        "use_rep": use_rep,
        "neighbors_args": {} if refine == "graph" else neighbors_args,
        "refine": refine,
        "min_cluster_size": min_cluster_size,
        "flavor": clustering_args.get("flavor", DEFAULT_FLAVOR),
        "clustering_args": clustering_args,
        "device": "cpu",
        "reason": "sub-clustering runs on the CPU",
        "unsplit": {name: why._asdict() for name, why in result.unsplit.items()},
        "splits": result.splits,
    }
    return result.codes, result.names, record


def split(
    parents: pd.Categorical | np.ndarray | tuple[np.ndarray, list[str]],
    representation: np.ndarray | sp.csr_matrix | Represent,
    *,
    resolution: float | Mapping[str, float] = 1.0,
    algorithm: str = "leiden",
    n_neighbors: int = NeighborsOptions.n_neighbors,
    metric: str = NeighborsOptions.metric,
    threads: int = 1,
    seed: int = 0,
    min_cluster_size: int = SplitOptions.min_cluster_size,
    known_unsplit: Mapping[str, Unsplit] | None = None,
    test: SplitTest | None = None,
    **clustering_args: Any,
) -> SplitResult:
    """Split clusters, the largest first, in threads of one process.

    Each parent is split by neighbors computed among its own cells, or by its part of a graph.

    Parameters
    ----------
    parents
        Labels of the level above, text; missing (None, NaN) for cells that take no part. Or their
        codes (-1: missing) and names.
    representation
        Cells x dimensions, in which neighbors are computed. A cell with NaN gets a label only where
        its parent is not split. Or a function that takes the positions of the cells of several
        parents and returns for each its own representation, or a text with the reason why it has
        none (such as `clustering.refine.own_components`); it is called for `REFINED_BATCH` cells
        at a time. Or the symmetric connectivities of all cells (`clustering.communities.build`):
        then no neighbors are computed, and a cell with none in its parent is as one with NaN.
    resolution
        One for all parents, or ``{parent: resolution}``: then the others are not split.
    algorithm, seed, **clustering_args
        As for `clustering.communities.find_communities`.
    n_neighbors, metric
        As for `numerics.knn.nearest_neighbors`.
    threads
        Batches of parents that are split at a time; one that is most of the work computes its
        neighbors with several. The result does not depend on it.
    min_cluster_size
        A parent with fewer than twice as many cells is not split; of one that is, smaller children
        are joined to their nearest sibling (`clustering.children.join_small`).
    known_unsplit
        Parents that are not split, and why: those that were left whole a level above.
    test
        Joins children that are not told apart; None: none are.

    Returns
    -------
    SplitResult
        Labels, and which parents were not split and why.

    Raises
    ------
    ValueError
        If the lengths of `parents` and `representation` differ, and as `find_communities`.

    Notes
    -----
    Peak memory: `threads` times a copy of the largest parent's rows and its graph (about 100
    bytes per cell and neighbor), or of `BATCH` cells (`REFINED_BATCH` where it is a function).
    """
    from scipy.sparse import issparse

    from utils.threads import one_blas_thread, ordered_map

    codes, names = parents if isinstance(parents, tuple) else _coded(parents)
    refined = callable(representation)
    if not refined and len(codes) != representation.shape[0]:
        raise ValueError(
            f"parents have {len(codes)} cells, the representation {representation.shape[0]}"
        )
    from clustering.communities import check_algorithm_options, check_resolution
    from numerics.knn import check_search

    check_algorithm_options(algorithm, **clustering_args)
    check_search(n_neighbors, metric, threads)
    resolutions = _resolutions(resolution, names)
    for value in resolutions.values():
        check_resolution(value)
    min_cells = max(2 * min_cluster_size, 3)
    child = np.where(codes >= 0, 0, -1).astype(np.int32)
    unsplit: dict[str, Unsplit] = {}
    jobs = []
    # One stable sort instead of a search for each parent.
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(names) + 1))
    for code, name in enumerate(names):
        rows = order[ends[code] : ends[code + 1]]
        if not len(rows):
            continue
        if known_unsplit and name in known_unsplit:
            unsplit[name] = known_unsplit[name]
        elif name not in resolutions:
            unsplit[name] = Unsplit("not_chosen", "not among the clusters to split")
        elif len(rows) < min_cells:
            text = f"{len(rows)} cells, fewer than {min_cells}"
            unsplit[name] = Unsplit("too_few_cells", text)
        else:
            jobs.append((name, rows))
    jobs.sort(key=lambda job: -len(job[1]))
    batches = _batches(jobs, REFINED_BATCH if refined else BATCH)
    work = [sum(len(rows) ** 1.5 for _, rows in batch) for batch in batches]

    part_of = partial(graph_within, representation) if issparse(representation) else None

    def one_batch(number: int) -> list[tuple[np.ndarray, Unsplit | None]]:
        batch = batches[number]
        parts = [rows for _, rows in batch]
        if part_of is not None:
            bases = [part_of(rows) for rows in parts]
        else:
            bases = representation(parts) if refined else [representation[rows] for rows in parts]
        return _split_batch(
            bases,
            parts,
            [resolutions[name] for name, _ in batch],
            n_neighbors=n_neighbors,
            metric=metric,
            # A batch that is most of the work takes the threads that would wait for it.
            threads=max(1, round(threads * work[number] / sum(work))),
            seed=seed,
            min_cells=min_cells,
            min_cluster_size=min_cluster_size,
            algorithm=algorithm,
            **clustering_args,
        )

    with one_blas_thread():
        split_batches = ordered_map(one_batch, range(len(batches)), threads=threads)
        bar = progress(split_batches, desc="sub-clustering", total=len(batches))
        for batch, results in zip(batches, bar, strict=True):
            for (name, rows), (labels, reason) in zip(batch, results, strict=True):
                child[rows] = labels
                if reason is not None:
                    unsplit[name] = reason
    splits = _tested(child, jobs, resolutions, unsplit, test) if test is not None else []
    children, texts = _children(codes, child, order, ends, names)
    unsplit = {name: unsplit[name] for name in natural_order(unsplit)}
    return SplitResult(children, texts, unsplit, splits)


def _tested(
    child: np.ndarray,
    jobs: list[tuple[str, np.ndarray]],
    resolutions: Mapping[str, float],
    unsplit: dict[str, Unsplit],
    test: SplitTest,
) -> list[dict[str, Any]]:
    """Test the splits of all parents: changes `child` and `unsplit`, returns the records."""
    from clustering.significance.splits import Division, count_verdicts

    divisions, parents = [], []
    for name, rows in jobs:
        if name not in unsplit:
            cells = rows[child[rows] >= 0]
            divisions.append(Division(cells, child[cells], resolutions[name]))
            parents.append(name)
    records, splits = {}, []
    for name, division, tested in zip(parents, divisions, test(divisions), strict=True):
        child[division.cells] = tested.labels
        if tested.unsplit is not None:
            unsplit[name] = tested.unsplit
        records[name] = [
            {"parent": name, **split.record(partial(child_name, name))} for split in tested.splits
        ]
        splits += tested.splits
    say(count_verdicts(splits))
    return [record for name in natural_order(records) for record in records[name]]


def _coded(parents: pd.Categorical | np.ndarray) -> tuple[np.ndarray, list[str]]:
    import pandas as pd

    if isinstance(parents, pd.Series):
        parents = parents.array
    if not isinstance(parents, pd.Categorical):
        parents = pd.Categorical(parents)
    return np.asarray(parents.codes), [str(name) for name in parents.categories]


def _children(
    codes: np.ndarray, child: np.ndarray, order: np.ndarray, ends: np.ndarray, names: list[str]
) -> tuple[np.ndarray, list[str]]:
    """Return the children of all parents, in natural order: codes of cells, and names.

    `order` has the cells parent after parent, those of parent i from ``ends[i]`` on.
    """
    counts = np.zeros(len(names), dtype=np.int64)
    full = np.flatnonzero(np.diff(ends))
    if len(full):
        # Parents follow each other in `order` without gaps: each end is the next start.
        counts[full] = np.maximum.reduceat(child[order[: ends[-1]]], ends[full]) + 1
    texts = [
        child_name(name, i)
        for name, n in zip(names, counts.tolist(), strict=True)
        for i in range(n)
    ]
    before = np.concatenate([[0], np.cumsum(counts)])
    inside = (codes >= 0) & (child >= 0)
    return in_natural_order(np.where(inside, before[codes] + child, -1), texts)


def _resolutions(resolution: float | Mapping[str, float], names: list[str]) -> dict[str, float]:
    if isinstance(resolution, int | float):
        return dict.fromkeys(names, float(resolution))
    return {str(name): float(value) for name, value in resolution.items()}


def _batches(jobs: list[tuple[str, np.ndarray]], size: int) -> list[list[tuple[str, np.ndarray]]]:
    """Group parents, in their order, until a group has `size` cells."""
    batches: list[list[tuple[str, np.ndarray]]] = []
    n_cells = size
    for job in jobs:
        if n_cells >= size:
            batches.append([])
            n_cells = 0
        batches[-1].append(job)
        n_cells += len(job[1])
    return batches


def graph_within(graph: sp.csr_matrix, rows: np.ndarray) -> sp.csr_matrix:
    """Return the part of a graph among some cells, given in increasing order.

    Not ``graph[rows][:, rows]``, which takes an array of all cells for each part.
    """
    import scipy.sparse as sp

    part = graph[rows]
    position = np.searchsorted(rows, part.indices)
    inside = rows[np.minimum(position, len(rows) - 1)] == part.indices
    ends = np.concatenate([[0], np.cumsum(inside)])[part.indptr]
    return sp.csr_matrix((part.data[inside], position[inside], ends), shape=(len(rows), len(rows)))


def _split_batch(
    bases: list[np.ndarray | sp.csr_matrix | str],
    cells: list[np.ndarray],
    resolutions: list[float],
    *,
    n_neighbors: int,
    metric: str,
    threads: int,
    seed: int,
    min_cells: int,
    min_cluster_size: int,
    **options: Any,
) -> list[tuple[np.ndarray, Unsplit | None]]:
    """Cluster the cells of each parent; return labels, and a reason where it is not split."""
    from clustering.communities import CommunityGraph, find_communities
    from numerics.knn import finite_rows, search

    results: list[tuple[np.ndarray, Unsplit | None]] = []
    keeps, graphs, neighbors, which = [], [], [], []
    for i, part in enumerate(bases):
        one_child = np.zeros(len(cells[i]), dtype=np.int32)
        if isinstance(part, str):
            results.append((one_child, Unsplit("no_representation", part)))
            continue
        is_graph = hasattr(part, "indptr")
        keep = np.diff(part.indptr) > 0 if is_graph else finite_rows(part)
        if keep.sum() < min_cells:
            what = "neighbors within it" if is_graph else "coordinates"
            text = f"{keep.sum()} cells with {what}, fewer than {min_cells}"
            results.append((one_child, Unsplit("too_few_cells", text)))
            continue
        results.append((one_child, None))
        keeps.append(keep)
        which.append(i)
        if is_graph:
            graphs.append(part if keep.all() else graph_within(part, np.flatnonzero(keep)))
            continue
        X = part if keep.all() else part[keep]
        neighbors.append(
            search(X, n_neighbors, metric=metric, threads=threads, seed=seed, quiet=True)
        )
    for i, keep, graph in zip(which, keeps, graphs or _graphs(neighbors), strict=True):
        inside = find_communities(
            CommunityGraph(graph), seed=seed, resolution=resolutions[i], **options
        )
        unsplit = Unsplit("one_community", f"one community at resolution {resolutions[i]}")
        if inside.max() > 0:
            inside, unsplit = accepted_children(graph, inside, min_cluster_size=min_cluster_size)
        if unsplit is not None:
            results[i] = results[i][0], unsplit
            continue
        labels = np.full(len(keep), -1, dtype=np.int32)
        labels[keep] = inside
        results[i] = labels, None
    return results


def _graphs(neighbors: list[NearestNeighbors]) -> list[sp.csr_matrix]:
    """Return the connectivities of several sets of cells, computed as one of separate blocks."""
    import scipy.sparse as sp

    from clustering.connectivities import fuzzy_connectivities

    graphs: dict[int, sp.csr_matrix] = {}
    # Sets with fewer cells than neighbors have rows of their own length.
    for width in {part.indices.shape[1] for part in neighbors}:
        same = [i for i, part in enumerate(neighbors) if part.indices.shape[1] == width]
        sizes = [len(neighbors[i].indices) for i in same]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        indices = [neighbors[i].indices + start for i, start in zip(same, starts, strict=False)]
        distances = [neighbors[i].distances for i in same]
        joint = fuzzy_connectivities(np.concatenate(indices), np.concatenate(distances))
        for i, start, size in zip(same, starts, sizes, strict=False):
            rows = joint.indptr[start : start + size + 1]
            part = slice(rows[0], rows[-1])
            graphs[i] = sp.csr_matrix(
                (joint.data[part], joint.indices[part] - start, rows - rows[0]), shape=(size, size)
            )
    return [graphs[i] for i in range(len(neighbors))]


def in_natural_order(codes: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Renumber codes (-1: missing) so that their names are in natural order."""
    ordered = natural_order(names)
    position = {name: i for i, name in enumerate(ordered)}
    return np.array([*(position[name] for name in names), -1])[codes], ordered
