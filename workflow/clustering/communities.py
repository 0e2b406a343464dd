"""Communities of a weighted graph: Leiden and Louvain, on modularity with a resolution."""

from __future__ import annotations

import threading
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clustering.options import CommunityOptions
from utils.errors import unknown
from utils.log import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    import igraph
    import scipy.sparse as sp


FLAVORS = {"leiden": ("cellstrata", "igraph", "leidenalg"), "louvain": ("cellstrata", "igraph")}
# Chosen by time, modularity and determinism: test/bench/RESULTS.md.
DEFAULT_FLAVOR = "cellstrata"
# Options of each flavor and their defaults.
OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("leiden", "cellstrata"): {"n_iterations": 2, "beta": 0.01},
    ("leiden", "igraph"): {"n_iterations": 2, "beta": 0.01},
    ("leiden", "leidenalg"): {"n_iterations": 2, "max_comm_size": 0},
    ("louvain", "cellstrata"): {},
    ("louvain", "igraph"): {},
}
# Stored weights from which looking up neighbors costs more than reordering the cells.
REORDER_ABOVE = 2_000_000
# igraph has one random number generator for the whole process.
_IGRAPH = threading.Lock()
# Threads that cluster one graph at several resolutions reorder it once.
_REORDER = threading.Lock()


@dataclass(frozen=True)
class CommunityGraph:
    """A weighted graph, prepared once for any number of resolutions (see `build`).

    Attributes
    ----------
    adjacency
        CSR float32, symmetric, nothing on the diagonal, no stored zeros.
    order
        Cells in the order of `reorder`, int32; None: computed on first use.
    """

    adjacency: sp.csr_matrix
    order: np.ndarray | None = None

    @cached_property
    def reordered(self) -> tuple[sp.csr_matrix, np.ndarray | None]:
        """The same with neighbors near each other in memory, and the cells in that order.

        The graph itself and None where it is small (`REORDER_ABOVE`).
        """
        if self.adjacency.nnz < REORDER_ABOVE:
            return self.adjacency, None
        order = reorder(self.adjacency) if self.order is None else self.order
        position = np.empty(len(order), dtype=self.adjacency.indices.dtype)
        position[order] = np.arange(len(order), dtype=position.dtype)
        matrix = self.adjacency[order]
        # As matrix[:, order], without its passes over all columns.
        matrix.indices = position[matrix.indices]
        matrix.has_sorted_indices = False
        return matrix, order

    @cached_property
    def igraph(self) -> igraph.Graph:
        """The same for igraph: every edge once, with its weight."""
        import igraph
        import scipy.sparse as sp

        upper = sp.triu(self.adjacency, 1, format="coo")
        edges = np.column_stack([upper.row, upper.col]).astype(np.int64)
        graph = igraph.Graph(n=self.adjacency.shape[0], edges=edges)
        graph.es["weight"] = upper.data
        return graph


def reorder(adjacency: sp.csr_matrix) -> np.ndarray:
    """Return the cells in an order that brings neighbors together (reverse Cuthill-McKee)."""
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    return np.ascontiguousarray(reverse_cuthill_mckee(adjacency, symmetric_mode=True))


class CellOrder(NamedTuple):
    """The order of a graph's cells in memory, as the neighbors step stores it.

    Attributes
    ----------
    order
        int32 of shape (cells,), of `reorder`.
    checksum
        CRC-32 of the graph and the order: tells whether they belong together.
    """

    order: np.ndarray
    checksum: int


def order_cells(connectivities: sp.csr_matrix) -> CellOrder | None:
    """Order the cells of a graph once for all steps that read it (`restore`).

    Returns
    -------
    CellOrder or None
        None where these steps have to prepare the graph themselves: if it is so small that it is
        not reordered, if `build` changes it, or if a cell has no neighbors.
    """
    if connectivities.nnz < REORDER_ABOVE or not np.diff(connectivities.indptr).all():
        return None
    adjacency = build(connectivities).adjacency
    if _checksum(adjacency) != _checksum(connectivities):
        return None
    order = reorder(adjacency)
    return CellOrder(order, _checksum(connectivities, order))


def restore(connectivities: sp.csr_matrix, stored: CellOrder | None) -> CommunityGraph:
    """Prepare a graph as `build` does, without repeating what `order_cells` did.

    Parameters
    ----------
    connectivities
        As for `build`.
    stored
        Of `order_cells`. Ignored unless it is a permutation of these cells and the checksum is
        that of this graph: cells may have been sorted or weights changed since.
    """
    n_cells = connectivities.shape[0]
    if stored is None or len(stored.order) != n_cells:
        return build(connectivities)
    order = np.ascontiguousarray(stored.order, dtype=np.int32)
    is_permutation = np.array_equal(np.sort(order), np.arange(n_cells))
    if not is_permutation or _checksum(connectivities, order) != stored.checksum:
        return build(connectivities)
    return CommunityGraph(connectivities.astype(np.float32, copy=False), order)


def _checksum(matrix: sp.csr_matrix, order: np.ndarray | None = None) -> int:
    checksum = zlib.crc32(matrix.indptr.astype(np.int64, copy=False))
    checksum = zlib.crc32(matrix.indices.astype(np.int32, copy=False), checksum)
    checksum = zlib.crc32(matrix.data.astype(np.float32, copy=False), checksum)
    return checksum if order is None else zlib.crc32(order, checksum)


def build(connectivities: sp.spmatrix | CommunityGraph) -> CommunityGraph:
    """Prepare a graph for `find_communities` and `clustering.umap.umap_layout`.

    Parameters
    ----------
    connectivities
        Cells x cells, weights of at least 0. Where they are not symmetric, the larger one of each
        pair is taken (with a message); the diagonal is ignored. A graph that is prepared already
        is returned as it is.

    Returns
    -------
    CommunityGraph
        To be used for several resolutions.

    Raises
    ------
    ValueError
        If the matrix is empty or not square, or has weights that are negative, NaN or, as float32,
        infinite.

    Notes
    -----
    Peak memory: 8 bytes per stored weight, twice while it checks the symmetry; igraph's own graph
    takes about 100 bytes per edge.
    """
    import scipy.sparse as sp

    if isinstance(connectivities, CommunityGraph):
        return connectivities
    if connectivities.ndim != 2 or connectivities.shape[0] != connectivities.shape[1]:
        raise ValueError(f"connectivities must be square, found shape {connectivities.shape}")
    if connectivities.shape[0] == 0:
        raise ValueError("connectivities have no cells")
    with np.errstate(over="ignore"):  # what is too large becomes infinite and is refused
        matrix = sp.csr_matrix(connectivities, dtype=np.float32, copy=True)
    matrix.sum_duplicates()
    bad = int((~(np.isfinite(matrix.data) & (matrix.data >= 0))).sum())
    if bad:
        raise ValueError(f"connectivities must be finite and at least 0, found {bad} that are not")
    if matrix.diagonal().any():
        matrix.setdiag(0)
    matrix.eliminate_zeros()
    reverse = matrix.T.tocsr()
    same = np.array_equal(matrix.indptr, reverse.indptr) and np.array_equal(
        matrix.indices, reverse.indices
    )
    if not (same and np.array_equal(matrix.data, reverse.data)):
        # The last bits of a symmetric float32 matrix may differ.
        difference = abs(matrix - reverse)
        if difference.nnz and difference.max() > 1e-6 * matrix.data.max():
            say("connectivities are not symmetric: takes the larger of each pair")
        matrix = matrix.maximum(reverse).tocsr()
        matrix.sort_indices()
    return CommunityGraph(matrix)


def find_communities(
    connectivities: sp.spmatrix | CommunityGraph,
    *,
    algorithm: str = "leiden",
    resolution: float = 1.0,
    seed: int = 0,
    flavor: str | None = None,
    **options: Any,
) -> np.ndarray:
    """Find communities of high modularity.

    The objective is ``sum over pairs in one community of w_ij - resolution * k_i k_j / 2m``
    (Reichardt & Bornholdt 2006); Leiden is Traag, Waltman & van Eck 2019, Louvain Blondel et al.
    2008.

    Parameters
    ----------
    connectivities
        Symmetric weights, or what `build` makes of them.
    algorithm
        ``leiden`` or ``louvain``.
    resolution
        Above 0; the higher, the more communities.
    seed
        At least 0. The same seed gives the same labels, from any thread.
    flavor
        ``cellstrata`` (default; leaves other threads running) or ``igraph``; for ``leiden`` also
        ``leidenalg``.
    **options
        ``n_iterations`` (default 2; a negative number goes on until nothing improves) of all
        Leiden flavors. cellstrata and igraph: ``beta`` (default 0.01), the randomness of the
        refinement in units of weight. leidenalg: ``max_comm_size`` (default 0, which is no limit).

    Returns
    -------
    numpy.ndarray
        int32, one label per cell, numbered by size: see `renumber_by_size`. A cell without
        neighbors is its own community.

    Raises
    ------
    ValueError
        If an argument is out of range, or as `build`.
    TypeError
        If the flavor has no such option; lists those it has.

    Notes
    -----
    Peak memory: that of `build`, and as much again for the reordered graph.
    """
    flavor, settings = check_algorithm_options(algorithm, flavor, **options)
    check_resolution(resolution)
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed must be from 0 to {2**31 - 1}, found {seed}")
    graph = build(connectivities)
    if graph.adjacency.nnz == 0:
        return np.arange(graph.adjacency.shape[0], dtype=np.int32)
    run = {
        ("leiden", "cellstrata"): _leiden,
        ("leiden", "igraph"): _igraph_leiden,
        ("leiden", "leidenalg"): _leidenalg,
        ("louvain", "cellstrata"): _louvain,
        ("louvain", "igraph"): _igraph_louvain,
    }[algorithm, flavor]
    return renumber_by_size(run(graph, float(resolution), int(seed), **settings))


def check_resolution(resolution: float) -> None:
    """Raise a ValueError if the resolution is not above 0."""
    if not 0 < resolution < np.inf:
        raise ValueError(f"resolution must be above 0, found {resolution}")


def check_algorithm_options(
    algorithm: str, flavor: str | None = None, **options: Any
) -> tuple[str, dict[str, Any]]:
    """Check arguments of `find_communities` before any computation.

    Returns
    -------
    tuple
        The flavor, and the options of its algorithm with defaults filled in.

    Raises
    ------
    ValueError, TypeError
        As `find_communities`.
    """
    if algorithm not in FLAVORS:
        raise ValueError(unknown("algorithm", algorithm, FLAVORS))
    flavor = DEFAULT_FLAVOR if flavor is None else flavor
    if flavor not in FLAVORS[algorithm]:
        raise ValueError(unknown(f"flavor of {algorithm}", flavor, FLAVORS[algorithm]))
    known = OPTIONS[algorithm, flavor]
    for name, value in options.items():
        if name not in known:
            what = f"argument of {algorithm} (flavor {flavor})"
            raise TypeError(unknown(what, name, ["flavor", *known]))
        kinds = (int, float) if isinstance(known[name], float) else (int,)
        if isinstance(value, bool) or not isinstance(value, kinds):
            wanted = "a number" if float in kinds else "an integer"
            raise TypeError(f"{name} must be {wanted}, found {value!r}")
    settings = {**known, **options}
    if settings.get("max_comm_size", 0) < 0:
        raise ValueError(f"max_comm_size must be at least 0, found {settings['max_comm_size']}")
    if not 0 < settings.get("beta", 1) < np.inf:
        raise ValueError(f"beta must be above 0, found {settings['beta']}")
    if settings.get("n_iterations") == 0:
        raise ValueError("n_iterations must not be 0")
    return flavor, settings


def _leiden(
    graph: CommunityGraph, resolution: float, seed: int, *, n_iterations: int, beta: float
) -> np.ndarray:
    from clustering.leiden import optimize

    with _REORDER:
        matrix, order = graph.reordered
    labels = optimize(
        matrix.indptr.astype(np.int64),
        matrix.indices.astype(np.int32, copy=False),
        matrix.data,
        resolution,
        float(beta),
        n_iterations,
        np.uint64(seed),
    )
    if order is not None:
        labels[order] = labels.copy()
    return labels


def _louvain(graph: CommunityGraph, resolution: float, seed: int) -> np.ndarray:
    # Leiden without its refinement, once.
    return _leiden(graph, resolution, seed, n_iterations=1, beta=0.0)


def _igraph_leiden(
    graph: CommunityGraph, resolution: float, seed: int, *, n_iterations: int, beta: float
) -> np.ndarray:
    with _igraph_seed(seed):
        clustering = graph.igraph.community_leiden(
            objective_function="modularity",
            weights="weight",
            resolution=resolution,
            beta=beta,
            n_iterations=n_iterations,
        )
    return np.asarray(clustering.membership)


def _igraph_louvain(graph: CommunityGraph, resolution: float, seed: int) -> np.ndarray:
    with _igraph_seed(seed):
        clustering = graph.igraph.community_multilevel(weights="weight", resolution=resolution)
    return np.asarray(clustering.membership)


def _leidenalg(
    graph: CommunityGraph, resolution: float, seed: int, *, n_iterations: int, max_comm_size: int
) -> np.ndarray:
    import leidenalg

    # It has its own generator; the graph, built on first use, is shared.
    with _IGRAPH:
        clustering = leidenalg.find_partition(
            graph.igraph,
            leidenalg.RBConfigurationVertexPartition,
            weights="weight",
            resolution_parameter=resolution,
            n_iterations=n_iterations,
            max_comm_size=max_comm_size,
            seed=seed,
        )
    return np.asarray(clustering.membership)


@contextmanager
def _igraph_seed(seed: int) -> Iterator[None]:
    """Give igraph a generator of our own; Python's global one is left as it is."""
    import random

    import igraph

    with _IGRAPH:
        igraph.set_random_number_generator(random.Random(seed))
        try:
            yield
        finally:
            igraph.set_random_number_generator(random)


def renumber_by_size(labels: np.ndarray) -> np.ndarray:
    """Renumber communities by size, the largest 0; ties go by the first cell.

    Parameters
    ----------
    labels
        Integers, one per cell, in any numbering.

    Returns
    -------
    numpy.ndarray
        int32, numbered without gaps.
    """
    _, first, inverse, size = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -size))
    number = np.empty(len(order), dtype=np.int32)
    number[order] = np.arange(len(order))
    return number[inverse]


def modularity(
    connectivities: sp.spmatrix | CommunityGraph, labels: np.ndarray, resolution: float = 1.0
) -> float:
    """Return the modularity of some labels, between -0.5 and 1 where the resolution is 1.

    Parameters
    ----------
    connectivities
        As for `find_communities`.
    labels
        Integers, one per cell.
    resolution
        Factor of the expected weight.

    Returns
    -------
    float
        0 for a graph without edges.
    """
    graph = build(connectivities)
    matrix = graph.adjacency
    total = matrix.data.sum(dtype=np.float64)
    if total == 0:
        return 0.0
    _, labels = np.unique(labels, return_inverse=True)
    sources = np.repeat(labels, np.diff(matrix.indptr))
    inside = matrix.data[sources == labels[matrix.indices]].sum(dtype=np.float64)
    strengths = np.bincount(sources, weights=matrix.data)
    return float(inside / total - resolution * ((strengths / total) ** 2).sum())


def too_many_clusters(
    labels: np.ndarray,
    *,
    resolution: float,
    max_cluster_factor: float = CommunityOptions.max_cluster_factor,
) -> bool:
    """Whether a clustering fell apart into tiny clusters, as a GPU's sometimes does.

    It did if there are more than ``max(1, int(max_cluster_factor * resolution))`` clusters, the
    10 % quantile of their sizes is not above cells / that number, and the smallest has at most
    10 cells.

    Parameters
    ----------
    labels
        One per cell.
    resolution
        Resolution of the clustering.
    max_cluster_factor
        Clusters per unit of resolution that are accepted.
    """
    limit = max(1, int(max_cluster_factor * resolution))
    _, sizes = np.unique(labels, return_counts=True)
    if len(sizes) <= limit:
        return False
    return not (np.quantile(sizes, 0.1) > len(labels) / limit or sizes.min() > 10)
