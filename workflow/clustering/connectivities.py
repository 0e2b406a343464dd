"""The weighted graph of neighboring cells that clustering and layout start from.

`neighbor_graph` is what callers want: `nearest_neighbors`, then `fuzzy_connectivities`, in
scanpy's layout.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from clustering.options import NeighborsOptions
from numerics.knn import finite_rows, nearest_neighbors
from utils.log import say

if TYPE_CHECKING:
    import scipy.sparse as sp

# Cells whose bandwidths are computed at a time; bounds the memory.
CELLS_PER_BLOCK = 8192


@dataclass(frozen=True)
class NeighborGraph:
    """The neighbor graph in scanpy's layout.

    Attributes
    ----------
    distances
        CSR float32, n_neighbors - 1 stored entries per row (none for a cell that takes no part).
    connectivities
        CSR float32, symmetric, in (0, 1], nothing on the diagonal.
    params
        For ``uns[key]["params"]``: n_neighbors, method, random_state, metric.
    search
        How neighbors were found.
    recall
        As in `numerics.knn.NearestNeighbors`.
    """

    distances: sp.csr_matrix
    connectivities: sp.csr_matrix
    params: dict[str, Any] = field(default_factory=dict)
    search: str = ""
    recall: float | None = None


def fuzzy_connectivities(
    indices: np.ndarray, distances: np.ndarray, n_cells: int | None = None
) -> sp.csr_matrix:
    """Turn neighbors into UMAP's weighted graph.

    The weight from a cell to a neighbor at distance d is ``exp(-(d - rho) / sigma)``, where rho
    is the distance of its nearest neighbor that is no duplicate, and sigma is such that the
    weights add up to ``log2(n_neighbors)``. Two directed weights a and b make the edge
    ``a + b - ab`` (McInnes, Healy & Melville 2018, arXiv:1802.03426). Equal to
    ``fuzzy_simplicial_set`` of umap-learn 0.5 as scanpy calls it, to 1e-6.

    Parameters
    ----------
    indices, distances
        Of `nearest_neighbors`: cells x (n_neighbors - 1), the cell itself left out.
    n_cells
        Number of cells; must be the number of rows.

    Returns
    -------
    scipy.sparse.csr_matrix
        float32, cells x cells, symmetric, sorted indices.

    Raises
    ------
    ValueError
        If the shapes do not agree, or an index is out of range.

    Notes
    -----
    Peak memory: about 70 bytes per cell and neighbor (1 GB for a million cells at k = 15).
    """
    import scipy.sparse as sp

    indices, distances = np.asarray(indices), np.asarray(distances)
    n = len(indices) if n_cells is None else n_cells
    if indices.shape != distances.shape or indices.ndim != 2 or len(indices) != n:
        raise ValueError(
            f"indices {indices.shape} and distances {distances.shape} must both have one row for "
            f"each of {n} cells"
        )
    if indices.size and (indices.min() < 0 or indices.max() >= n):
        raise ValueError(f"neighbor indices must be from 0 to {n - 1}, found {indices.min()} to "
                         f"{indices.max()}")  # fmt: skip
    k = indices.shape[1]
    weights = np.empty((n, k), dtype=np.float32)
    for start in range(0, n, CELLS_PER_BLOCK):
        part = slice(start, start + CELLS_PER_BLOCK)
        weights[part] = _memberships(distances[part].astype(np.float32))
    starts = np.arange(0, n * k + 1, k)
    # A copy: sorting the columns must not reorder the caller's indices.
    directed = sp.csr_matrix((weights.ravel(), indices.ravel(), starts), shape=(n, n), copy=True)
    directed.sort_indices()
    directed.eliminate_zeros()
    reverse = directed.T.tocsr()
    return _sorted(directed + reverse - directed.multiply(reverse))


def _sorted(matrix: sp.csr_matrix) -> sp.csr_matrix:
    matrix = matrix.tocsr()
    matrix.sort_indices()
    matrix.eliminate_zeros()
    return matrix


def _memberships(distances: np.ndarray) -> np.ndarray:
    """Return the directed weights of some cells; in float32 as umap-learn, step by step."""
    n, k = distances.shape
    positive = distances > 0
    first = positive.argmax(axis=1)
    rho = np.where(positive.any(axis=1), distances[np.arange(n), first], np.float32(0))
    # Neighbors in rows: the sums run over whole columns of cells.
    excess = np.maximum(distances.T - rho, np.float32(0))
    sigma = _bandwidths(excess, float(np.log2(k + 1)))
    # As umap-learn: the mean counts the cell itself, and has no effect where rho is 0.
    floor = np.float32(1e-3) * distances.sum(axis=1) / np.float32(k + 1)
    sigma = np.where(rho > 0, np.maximum(sigma, floor), sigma)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.exp(-(excess / sigma))
    return np.where((excess == 0) | (sigma == 0), np.float32(1), weights).T


def _bandwidths(excess: np.ndarray, target: float) -> np.ndarray:
    """Bisect for the sigma with which the weights of each cell (a column) add up to `target`.

    As umap-learn's compiled code: sums in float64, sigmas in float32. Anything else stops one
    step earlier or later in a few cells of a thousand, and is off by 3e-6 there.
    """
    largest = np.finfo(np.float32).max
    n = excess.shape[1]
    result = np.empty(n, dtype=np.float32)
    active = np.arange(n)
    excess = excess.astype(np.float64)
    low = np.zeros(n, dtype=np.float32)
    high = np.full(n, largest, dtype=np.float32)
    middle = np.ones(n, dtype=np.float32)
    for _ in range(64):
        with np.errstate(divide="ignore", invalid="ignore"):
            # Row after row: umap-learn's order of summation. Where row is 0 the weight is 1.
            total = sum(np.where(row > 0, np.exp(row / -middle), 1.0) for row in excess)
        result[active] = middle
        left = np.abs(total - target) >= 1e-5
        if not left.any():
            break
        active, low, high, middle = active[left], low[left], high[left], middle[left]
        excess, above = excess[:, left], total[left] > target
        high = np.where(above, middle, high)
        low = np.where(above, low, middle)
        unbounded = ~above & (high >= largest)
        middle = np.where(unbounded, 2.0 * low, (low / 2.0 + high / 2.0)).astype(np.float32)
    result[active] = middle
    return result


def neighbor_graph(
    X: np.ndarray,
    *,
    n_neighbors: int = NeighborsOptions.n_neighbors,
    metric: str = NeighborsOptions.metric,
    threads: int = 1,
    seed: int = 0,
) -> NeighborGraph:
    """Compute the neighbor graph of all cells that have coordinates.

    Parameters
    ----------
    X
        Cells x dimensions; a row with NaN or infinity takes no part: its rows of the result are
        empty.
    n_neighbors, metric, threads, seed
        As for `nearest_neighbors`.

    Returns
    -------
    NeighborGraph
        Distances and connectivities of all cells, and how they were made.

    Raises
    ------
    ValueError
        As `nearest_neighbors`.

    Notes
    -----
    Peak memory: that of `nearest_neighbors`, then that of `fuzzy_connectivities`.
    """
    import scipy.sparse as sp

    keep = finite_rows(np.asarray(X))
    neighbors = nearest_neighbors(
        X if keep.all() else X[keep], n_neighbors, metric=metric, threads=threads, seed=seed
    )
    if neighbors.recall is not None:
        say(f"approximate neighbors: recall {neighbors.recall:.4f} on 1000 cells")
    connectivities = fuzzy_connectivities(neighbors.indices, neighbors.distances)
    k = neighbors.indices.shape[1]
    starts = np.arange(0, neighbors.indices.size + 1, k)
    shape = connectivities.shape
    distances = sp.csr_matrix(
        (neighbors.distances.ravel(), neighbors.indices.ravel(), starts), shape=shape
    )
    params = {"n_neighbors": k + 1, "method": "umap", "random_state": seed, "metric": metric}
    graph = NeighborGraph(distances, connectivities, params, neighbors.method, neighbors.recall)
    return expand_graph(graph, keep)


def expand_graph(graph: NeighborGraph, keep: np.ndarray) -> NeighborGraph:
    """Give the graph of the cells in the mask `keep` the empty rows of the others, and say so."""
    if keep.all():
        return graph
    n = len(keep)
    say(f"{n - keep.sum():,} of {n:,} cells have no coordinates and take no part")
    distances, connectivities = (
        _expand(matrix, keep) for matrix in (graph.distances, graph.connectivities)
    )
    return replace(graph, distances=distances, connectivities=connectivities)


def _expand(matrix: sp.csr_matrix, keep: np.ndarray) -> sp.csr_matrix:
    """Give a matrix of the kept cells the rows and columns of all cells."""
    import scipy.sparse as sp

    n = len(keep)
    starts = np.zeros(n + 1, dtype=matrix.indptr.dtype)
    starts[1:][keep] = np.diff(matrix.indptr)
    position = np.flatnonzero(keep).astype(np.int32)
    parts = (matrix.data, position[matrix.indices], np.cumsum(starts))
    return sp.csr_matrix(parts, shape=(n, n))
