"""UMAP's layout of the neighbor graph; unlike umap-learn, all cells move at once in each epoch.

umap-learn moves the two ends of one edge after the other and draws the cells that repel them,
which needs a compiled loop and, for the same result twice, a single thread. Here an epoch moves
all cells from their positions at its start: a few passes over arrays that give the same bits on
any number of threads. Nor are repelling cells drawn: all cells repel, by a field on a grid.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING

import numpy as np

from clustering.options import UMAPOptions
from utils.log import progress
from utils.threads import one_blas_thread, workers

if TYPE_CHECKING:
    import scipy.sparse as sp

    from clustering.communities import CommunityGraph

# umap-learn's number of negative samples per edge.
NEGATIVES = 5
# Tasks that the edges are divided into; must not depend on the number of threads.
EDGE_PARTS = 4
# Distance between nodes of the grid, in distances at which two cells are half similar. A third
# keeps fewer neighbors of few cells, a twelfth takes twice as long there and keeps hardly more.
GRID_STEP = 1 / 6
# Nodes of the grid in each direction, at most: where the layout is wider, the step is doubled.
MAX_NODES = 512
# Share of the repulsion's stiffness in the damping: at 0 cells that are close together explode.
DAMPING = np.float32(0.5)
# No cell repels another more than this, as in umap-learn.
MAX_REPULSION = np.float32(4)
TINY = np.float32(1e-12)


def umap_layout(
    connectivities: sp.csr_matrix | CommunityGraph,
    *,
    min_dist: float = UMAPOptions.min_dist,
    spread: float = UMAPOptions.spread,
    n_epochs: int | None = None,
    threads: int = 1,
    seed: int = 0,
) -> np.ndarray:
    """Lay out cells by UMAP (McInnes, Healy & Melville 2018, arXiv:1802.03426).

    Minimizes umap-learn's expected loss (Damrich & Hamprecht 2021, arXiv:2103.14608): every edge
    attracts with its weight, and a cell is repelled by the mean of all cells, `NEGATIVES` times per
    unit of its weight. Where umap-learn draws the edges and the repelling cells of an epoch, here
    all of them act; the repulsion is a convolution on a grid (as Linderman et al. 2019, FIt-SNE,
    doi:10.1038/s41592-018-0308-4). A step is divided by one plus the stiffness of the cell's
    springs; otherwise moving all cells at once overshoots. Starts from
    `clustering.isomap.initial_coordinates`.

    Parameters
    ----------
    connectivities
        Weights as `clustering.connectivities.neighbor_graph` and scanpy store them, cells x cells;
        see `clustering.communities.build`. A cell without weights gets no coordinates.
    min_dist, spread
        As in umap-learn and scanpy.
    n_epochs
        Number of steps; None: 500 up to 10,000 cells and 200 above, as in umap-learn.
    threads
        Tasks that run at a time, of the `EDGE_PARTS` + 1 of an epoch; the result does not depend
        on it.
    seed
        Of the initial coordinates, at least 0; the epochs draw nothing.

    Returns
    -------
    numpy.ndarray
        float32, cells x 2; NaN for cells without coordinates.

    Raises
    ------
    ValueError
        As `clustering.communities.build`, if fewer than 3 cells have neighbors, or if an option
        is out of range.

    Notes
    -----
    Peak memory: 40 bytes per weight, most of it for reordering the cells in memory (0.16 GB
    for 200,000 cells, 0.74 GB for a million at k = 15), and up to 0.06 GB for the grid.
    Compared with umap-learn in test/bench/RESULTS.md.
    """
    from clustering.communities import build

    check_layout_options(min_dist, spread, n_epochs, seed)
    prepared = build(connectivities)
    graph, start, cells = first_state(prepared, seed=seed)
    n_epochs = n_epochs or default_epochs(len(cells))
    # Arrays are summed in an order that must not depend on the number of threads.
    with one_blas_thread():
        layout = _optimize(
            graph, start, curve(min_dist, spread), n_epochs=n_epochs, threads=threads
        )
    return expand_layout(layout, cells, prepared.adjacency.shape[0])


def check_layout_options(min_dist: float, spread: float, n_epochs: int | None, seed: int) -> None:
    """Raise a ValueError if an option of `umap_layout` is out of range."""
    if not 0 <= min_dist < 3 * spread:
        raise ValueError(
            f"min_dist must be from 0 to below 3 x spread ({spread}), found {min_dist}"
        )
    if n_epochs is not None and n_epochs < 1:
        raise ValueError(f"n_epochs must be at least 1, found {n_epochs}")
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed must be from 0 to {2**31 - 1}, found {seed}")


def first_state(
    prepared: CommunityGraph, *, seed: int
) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """Return the start of a layout, on the CPU and on a GPU.

    Parameters
    ----------
    prepared
        Connectivities of all cells.
    seed
        As for `umap_layout`.

    Returns
    -------
    (csr_matrix, numpy.ndarray, numpy.ndarray)
        The graph of the cells that have neighbors, its largest weight 1; their initial
        coordinates, float32, n x 2, the farthest 10 from the middle; the numbers of these cells.

    Raises
    ------
    ValueError
        If fewer than 3 cells have neighbors.
    """
    import scipy.sparse as sp

    from clustering.isomap import initial_coordinates

    graph, order = prepared.reordered
    n = graph.shape[0]
    linked = np.flatnonzero(np.diff(graph.indptr))
    if len(linked) < 3:
        raise ValueError(
            f"a layout needs at least 3 cells with neighbors, found {len(linked)} of {n}"
        )
    if len(linked) < n:
        graph = graph[linked][:, linked]
    # The smallest weights are not lost, or cells would be without any.
    weights = np.maximum(graph.data / graph.data.max(), TINY)
    graph = sp.csr_matrix((weights, graph.indices, graph.indptr), shape=graph.shape)
    with one_blas_thread():
        rng = np.random.default_rng(seed)
        start = initial_coordinates(graph, rng)
        start *= 10 / max(np.abs(start).max(), TINY)
        start = (start + rng.normal(0, 1e-4, start.shape)).astype(np.float32)
    return graph, start, linked if order is None else order[linked]


def expand_layout(layout: np.ndarray, cells: np.ndarray, n_cells: int) -> np.ndarray:
    """Return the layout of all cells, NaN for those without a row in `layout`."""
    expanded = np.full((n_cells, 2), np.nan, dtype=np.float32)
    expanded[cells] = layout
    return expanded


def default_epochs(n_cells: int) -> int:
    """Return umap-learn's number of epochs."""
    return 500 if n_cells <= 10_000 else 200


def curve(min_dist: float, spread: float) -> tuple[float, float]:
    """Return a and b of ``1 / (1 + a d^2b)``, fitted as umap-learn does.

    The target is 1 up to `min_dist` and falls as ``exp(-(d - min_dist) / spread)`` beyond. Fitted
    for a spread of 1 and scaled: the fit would fail for small and large ones.
    """
    from scipy.optimize import curve_fit

    d = np.linspace(0, 3, 300)
    target = np.where(d < min_dist / spread, 1.0, np.exp(min_dist / spread - d))
    # The fit passes through a b below 0.
    with np.errstate(all="ignore"):
        (a, b), _ = curve_fit(lambda d, a, b: 1 / (1 + a * d ** (2 * b)), d, target, maxfev=20_000)
        a *= np.float64(spread) ** (-2 * b)
    if not (0 < a < np.inf and b > 0):
        raise ValueError(f"no curve fits min_dist {min_dist} and spread {spread}: choose others")
    return float(a), float(b)


def _optimize(
    graph: sp.csr_matrix,
    layout: np.ndarray,
    ab: tuple[float, float],
    *,
    n_epochs: int,
    threads: int,
) -> np.ndarray:
    """Move all cells `n_epochs` times, in shrinking steps."""
    import scipy.sparse as sp

    n = graph.shape[0]
    edges = sp.triu(graph, 1, format="csr")
    # Edges that umap-learn would never draw.
    edges.data[edges.data < 1 / n_epochs] = 0
    edges.eliminate_zeros()
    ones = np.ones(n, dtype=np.float32)
    strength = edges @ ones + edges.T @ ones
    negatives = strength[:, None] * np.float32(NEGATIVES / n)
    cuts = np.searchsorted(edges.indptr, np.linspace(0, edges.nnz, EDGE_PARTS + 1))
    cuts[-1] = n
    parts = [(edges[first:last], slice(first, last)) for first, last in itertools.pairwise(cuts)]
    homogeneous = np.ones((n, 3), dtype=np.float32)
    with workers(threads) as run:
        for epoch in progress(range(n_epochs), desc="layout"):
            rate = np.float32(1 - epoch / n_epochs)
            homogeneous[:, :2] = layout
            repulsion = functools.partial(_repulsion, layout, ab)
            attractions = [
                functools.partial(_attraction, *part, layout, homogeneous, ab) for part in parts
            ]
            # In this order, so that the sums have the same bits whichever part finishes first.
            push, *pulls = run(lambda force, _: force(), [repulsion, *attractions])
            pull = functools.reduce(np.add, pulls)
            push *= negatives
            stiffness = pull[:, 2:] + DAMPING * push[:, 2:]
            force = pull[:, :2] - pull[:, 2:] * layout + push[:, :2]
            layout = layout + rate * force / (1 + rate * stiffness)
    return layout


def _attraction(
    edges: sp.csr_matrix,
    rows: slice,
    layout: np.ndarray,
    homogeneous: np.ndarray,
    ab: tuple[float, float],
) -> np.ndarray:
    """Return the sums of coefficient times (x, y, 1) of the other ends of each cell's edges.

    `edges` holds the `rows` of a triangle of the graph, `homogeneous` (x, y, 1) of all cells. The
    coefficient ``2ab d^(2b-2) / (1 + a d^2b)`` counts twice, as each edge of the triangle is two of
    umap-learn's; it is computed as ``4b / (d^2 (1 + d^-2b / a))``, which does not overflow.
    """
    import scipy.sparse as sp

    a, b = ab[0], np.float32(ab[1])
    # A cell's coordinates as one complex number: half the lookups.
    points = layout.view(np.complex64).ravel()
    difference = points.take(edges.indices)
    difference -= np.repeat(points[rows], np.diff(edges.indptr))
    squared = np.square(difference.real)
    squared += np.square(difference.imag)
    np.maximum(squared, TINY, out=squared)
    weight = np.log(squared)
    weight *= -b
    weight -= np.float32(np.log(a))
    with np.errstate(over="ignore"):
        np.exp(weight, out=weight)
        weight += 1
        weight *= squared
    np.divide(edges.data, weight, out=weight)
    weight *= 4 * b
    weights = sp.csr_matrix((weight, edges.indices, edges.indptr), shape=edges.shape)
    sums = weights.T @ homogeneous[rows]
    sums[rows] += weights @ homogeneous
    return sums


def _repulsion(layout: np.ndarray, ab: tuple[float, float]) -> np.ndarray:
    """Return the push of all cells on each, and the sum of its coefficients, cells x 3.

    A cell is spread over the four grid nodes around it; the density of the nodes is convolved with
    the kernel; a cell gets the sums at its four nodes by the same shares. So no cell moves itself,
    and two cells move each other equally.
    """
    import scipy.sparse as sp
    from scipy import fft

    a, b = ab
    n = len(layout)
    x, y = np.ascontiguousarray(layout.T)
    x -= x.min()
    y -= y.min()
    extent = float(max(x.max(), y.max()))
    step = GRID_STEP * a ** (-0.5 / b)
    if extent > step * MAX_NODES:
        step *= 2.0 ** np.ceil(np.log2(extent / (step * MAX_NODES)))
    # Rounded up, so that the cached kernel seldom changes.
    nodes = int(extent / step) // 16 * 16 + 18
    x /= np.float32(step)
    y /= np.float32(step)
    column, row = x.astype(np.int32), y.astype(np.int32)
    x -= column
    y -= row
    share = np.empty((n, 4), dtype=np.float32)
    share[:, 3] = x * y
    share[:, 2] = x - share[:, 3]
    share[:, 1] = y - share[:, 3]
    share[:, 0] = 1 - x - share[:, 1]
    node = (column * nodes + row)[:, None] + np.array([0, 1, nodes, nodes + 1], dtype=np.int32)
    starts = np.arange(0, node.size + 1, 4, dtype=np.int32)
    shares = sp.csr_matrix((share.ravel(), node.ravel(), starts), shape=(n, nodes * nodes))
    density = shares.T @ np.ones(n, dtype=np.float32)
    # Padded to twice the size: the convolution is circular.
    size = fft.next_fast_len(2 * nodes, real=True)
    field = fft.rfft2(density.reshape(nodes, nodes), s=(size, size)) * _kernel(size, step, a, b)
    field = fft.ifft(field, axis=1, overwrite_x=True)[:, :nodes]
    field = fft.irfft(field, n=size, axis=2)[:, :, :nodes]
    return shares @ np.ascontiguousarray(field.reshape(3, -1).T)


@functools.lru_cache(maxsize=2)
def _kernel(size: int, step: float, a: float, b: float) -> np.ndarray:
    """Return the Fourier transform of a cell's push on the nodes, x and y, and its coefficient.

    The coefficient is ``2b / ((0.001 + d^2) (1 + a d^2b))``, and at most `MAX_REPULSION` / d.
    """
    from scipy import fft

    def coefficient(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        squared = x * x + y * y
        with np.errstate(over="ignore"):
            weight = 2 * b / ((1e-3 + squared) * (1 + a * squared**b))
        return np.minimum(weight, MAX_REPULSION / np.sqrt(np.maximum(squared, TINY)))

    offsets = fft.fftfreq(size, 1 / size) * step
    x, y = np.meshgrid(offsets, offsets, indexing="ij")
    weight = coefficient(x, y)
    # At the cell's own node: the mean over the square around it.
    inside = ((np.arange(32) + 0.5) / 32 - 0.5) * step
    weight[0, 0] = coefficient(inside[:, None], inside).mean()
    return fft.rfft2(np.stack([weight * x, weight * y, weight]).astype(np.float32))
