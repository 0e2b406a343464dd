"""Sub-clustering: every cluster of one level is split within its own neighbours."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import pandas as pd
    import scipy.sparse as sp

    from clustering.search import Neighbors

    Represent = Callable[[list[np.ndarray]], list[np.ndarray | str]]

# Fewer cells than this have no neighbourhood worth a graph.
MIN_CELLS = 10
# Parents are worked on together up to this number of cells: calls cost more than tiny arrays.
BATCH = 4096
# Where the counts are read again, which is one pass for each batch.
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
        Parents that stay whole, as ``{parent}_0``, each with the reason.
    missing_ids
        Ids of a resolution mapping that are not among the parents.
    """

    codes: np.ndarray
    names: list[str]
    unsplit: dict[str, str]
    missing_ids: list[str]

    @cached_property
    def labels(self) -> pd.Categorical:
        """The labels as pandas has them."""
        import pandas as pd

        return pd.Categorical.from_codes(self.codes, self.names)


def split(
    parents: pd.Categorical | np.ndarray | tuple[np.ndarray, list[str]],
    representation: np.ndarray | Represent,
    *,
    resolution: float | Mapping[str, float] = 1.0,
    algorithm: str = "leiden",
    n_neighbors: int = 15,
    metric: str = "euclidean",
    threads: int = 1,
    seed: int = 0,
    min_cells: int = MIN_CELLS,
    **clustering_args: Any,
) -> SplitResult:
    """Split clusters, all of them in one process, the largest first.

    Each parent's neighbours are computed anew among its own cells.

    Parameters
    ----------
    parents
        Labels of the level above, text; missing (None, NaN) for cells that take no part. Or their
        codes (-1: missing) and names.
    representation
        Cells x dimensions, in which neighbours are searched. A row with NaN stays in a child of
        its own parent only where the parent is not split; where it is, it has no label. Or a
        function that takes the positions of the cells of several parents and returns for each its
        own representation, or a text that says why it has none (such as
        `clustering.refine.own_components`); it is called for `REFINED_BATCH` cells at a time.
    resolution
        One for all parents, or ``{parent: resolution}``: then the others are not split.
    algorithm, seed, **clustering_args
        As for `clustering.communities.find_communities`.
    n_neighbors, metric
        As for `clustering.search.nearest_neighbors`.
    threads
        Batches of parents that are worked on at a time; one that is most of the work searches its
        neighbours with several. The result does not depend on it.
    min_cells
        A parent with fewer cells is not split.

    Returns
    -------
    SplitResult
        Labels, which parents were not split and why, and ids that no parent has.

    Raises
    ------
    ValueError
        If the lengths of `parents` and `representation` differ, and as `find_communities`.

    Notes
    -----
    Peak memory: `threads` times a copy of the largest parent's rows and its graph (about 100
    bytes per cell and neighbour), or of `BATCH` cells (`REFINED_BATCH` where it is a function).
    """
    from threadpoolctl import threadpool_limits

    from utils.cli import progress

    codes, names = parents if isinstance(parents, tuple) else _coded(parents)
    refined = callable(representation)
    if not refined and len(codes) != len(representation):
        raise ValueError(
            f"parents have {len(codes)} cells, the representation {len(representation)}"
        )
    from clustering.communities import check_options, check_resolution
    from clustering.search import check_search

    check_options(algorithm, **clustering_args)
    check_search(n_neighbors, metric, threads)
    resolutions = _resolutions(resolution, names)
    for value in resolutions.values():
        check_resolution(value)
    child = np.where(codes >= 0, 0, -1).astype(np.int32)
    unsplit: dict[str, str] = {}
    jobs = []
    # One stable sort instead of a search for each parent.
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(names) + 1))
    for code, name in enumerate(names):
        rows = order[ends[code] : ends[code + 1]]
        if not len(rows):
            continue
        if name not in resolutions:
            unsplit[name] = "not among the clusters to split"
        elif len(rows) < max(min_cells, 3):
            unsplit[name] = f"{len(rows)} cells, fewer than {max(min_cells, 3)}"
        else:
            jobs.append((name, rows))
    jobs.sort(key=lambda job: -len(job[1]))
    batches = _batches(jobs, REFINED_BATCH if refined else BATCH)
    work = [sum(len(rows) ** 1.5 for _, rows in batch) for batch in batches]

    def one_batch(number: int) -> list[tuple[np.ndarray, str | None]]:
        batch = batches[number]
        parts = [rows for _, rows in batch]
        return _split_batch(
            representation(parts) if refined else [representation[rows] for rows in parts],
            [len(rows) for rows in parts],
            [resolutions[name] for name, _ in batch],
            n_neighbors=n_neighbors,
            metric=metric,
            # A batch that is most of the work takes the threads that would wait for it.
            threads=max(1, round(threads * work[number] / sum(work))),
            seed=seed,
            min_cells=max(min_cells, 3),
            algorithm=algorithm,
            **clustering_args,
        )

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        found = pool.map(one_batch, range(len(batches)))
        bar = progress(found, desc="sub-clustering", total=len(batches))
        for batch, results in zip(batches, bar, strict=True):
            for (name, rows), (labels, reason) in zip(batch, results, strict=True):
                child[rows] = labels
                if reason is not None:
                    unsplit[name] = reason
    children, texts = _children(codes, child, order, ends, names)
    ids = resolution if not isinstance(resolution, int | float) else ()
    return SplitResult(
        children,
        texts,
        {name: unsplit[name] for name in natural_order(unsplit)},
        [str(name) for name in ids if str(name) not in set(names)],
    )


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
        # What stands between two parents in `order` is nothing: the ends are the next starts.
        counts[full] = np.maximum.reduceat(child[order[: ends[-1]]], ends[full]) + 1
    texts = [
        f"{name}_{i}" for name, n in zip(names, counts.tolist(), strict=True) for i in range(n)
    ]
    before = np.concatenate([[0], np.cumsum(counts)])
    inside = (codes >= 0) & (child >= 0)
    return in_natural_order(np.where(inside, before[codes] + child, -1), texts)


def _resolutions(resolution: float | Mapping[str, float], names: list[str]) -> dict[str, float]:
    if isinstance(resolution, int | float):
        return dict.fromkeys(names, float(resolution))
    return {str(name): float(value) for name, value in resolution.items()}


def _batches(jobs: list[tuple[str, np.ndarray]], most: int) -> list[list[tuple[str, np.ndarray]]]:
    """Group parents, in their order, until a group has `most` cells."""
    batches: list[list[tuple[str, np.ndarray]]] = []
    cells = most
    for job in jobs:
        if cells >= most:
            batches.append([])
            cells = 0
        batches[-1].append(job)
        cells += len(job[1])
    return batches


def _split_batch(
    parts: list[np.ndarray | str],
    sizes: list[int],
    resolutions: list[float],
    *,
    n_neighbors: int,
    metric: str,
    threads: int,
    seed: int,
    min_cells: int,
    **options: Any,
) -> list[tuple[np.ndarray, str | None]]:
    """Cluster each parent's cells; return labels, and a reason where a parent stays whole."""
    from clustering.communities import CommunityGraph, find_communities
    from clustering.search import finite_rows, search

    results: list[tuple[np.ndarray, str | None]] = []
    keeps, found, which = [], [], []
    for i, X in enumerate(parts):
        results.append((np.zeros(sizes[i], dtype=np.int32), X if isinstance(X, str) else None))
        if isinstance(X, str):
            continue
        keep = finite_rows(X)
        if keep.sum() < min_cells:
            reason = f"{keep.sum()} cells with coordinates, fewer than {min_cells}"
            results[i] = results[i][0], reason
            continue
        X = X if keep.all() else X[keep]
        found.append(search(X, n_neighbors, metric=metric, threads=threads, seed=seed, quiet=True))
        keeps.append(keep)
        which.append(i)
    for i, keep, graph in zip(which, keeps, _graphs(found), strict=True):
        inside = find_communities(
            CommunityGraph(graph), seed=seed, resolution=resolutions[i], **options
        )
        if inside.max() == 0:
            results[i] = results[i][0], f"one community at resolution {resolutions[i]}"
            continue
        labels = np.full(len(keep), -1, dtype=np.int32)
        labels[keep] = inside
        results[i] = labels, None
    return results


def _graphs(found: list[Neighbors]) -> list[sp.csr_matrix]:
    """Return the connectivities of several sets of cells, computed as one of separate blocks."""
    import scipy.sparse as sp

    from clustering.graph import fuzzy_connectivities

    graphs: dict[int, sp.csr_matrix] = {}
    # Sets with fewer cells than neighbours have rows of their own length.
    for width in {part.indices.shape[1] for part in found}:
        same = [i for i, part in enumerate(found) if part.indices.shape[1] == width]
        sizes = [len(found[i].indices) for i in same]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        indices = [found[i].indices + start for i, start in zip(same, starts, strict=False)]
        distances = [found[i].distances for i in same]
        whole = fuzzy_connectivities(np.concatenate(indices), np.concatenate(distances))
        for i, start, size in zip(same, starts, sizes, strict=False):
            rows = whole.indptr[start : start + size + 1]
            part = slice(rows[0], rows[-1])
            graphs[i] = sp.csr_matrix(
                (whole.data[part], whole.indices[part] - start, rows - rows[0]), shape=(size, size)
            )
    return [graphs[i] for i in range(len(found))]


def in_natural_order(codes: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Give codes (-1: missing) and their names the order in which people count."""
    ordered = natural_order(names)
    place = {name: i for i, name in enumerate(ordered)}
    return np.array([*(place[name] for name in names), -1])[codes], ordered


def natural_order(labels: Iterable[str]) -> list[str]:
    """Sort labels by their parts as numbers: ``9_11`` before ``10_2``.

    Parts that are no numbers come after those that are, in alphabetical order.
    """
    return sorted(labels, key=_natural_key)


def _natural_key(label: str) -> list[tuple[int, int, str]]:
    parts = str(label).split("_")
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]
