"""Two-dimensional layout of the neighbour graph: UMAP, all cells of an epoch at once.

umap-learn moves one edge after the other, which is a loop for a compiler and is tied to one thread
if its result shall be the same twice. Here an epoch moves all cells from where they were at its
start, so that it is a few passes over arrays and any number of threads gives the same bits.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from utils.cli import progress

if TYPE_CHECKING:
    import scipy.sparse as sp

# umap-learn's number of negative samples per edge.
NEGATIVES = 5
# Cells that repel a block of cells; those of a block share them. Fewer is faster and noisier.
SAMPLE = 64
# Cells of a block; bounds the memory, must not depend on the number of threads.
BLOCK = 256
# Cells that a thread works on at a time.
TASK = 16 * BLOCK
# Share of the repulsion's stiffness in the damping: at 0 cells that are close together explode.
DAMPING = np.float32(0.5)
# No cell repels another more than this, as in umap-learn.
STRONGEST = np.float32(4)
TINY = np.float32(1e-12)


def umap_layout(
    connectivities: sp.csr_matrix,
    *,
    min_dist: float = 0.5,
    spread: float = 1.0,
    n_epochs: int | None = None,
    threads: int = 1,
    seed: int = 0,
) -> np.ndarray:
    """Lay out cells by UMAP (McInnes, Healy & Melville 2018, arXiv:1802.03426).

    Minimises umap-learn's expected loss (Damrich & Hamprecht 2021, arXiv:2103.14608): every edge
    attracts with its weight, and every cell is repelled by `NEGATIVES` random cells per unit of
    its weight. Where umap-learn draws the edges of an epoch, all are taken with their weight. The
    random cells are drawn anew for each epoch and block of cells. A step is divided by one plus
    the stiffness of the cell's springs, without which a step of all cells at once overshoots.
    Starts from the graph's first eigenvectors.

    Parameters
    ----------
    connectivities
        Weights as `clustering.graph.neighbor_graph` and scanpy store them, cells x cells; see
        `clustering.communities.build`. A cell without weights gets no place.
    min_dist, spread
        Of the layout; scanpy's defaults.
    n_epochs
        Steps; None takes 500 up to 10,000 cells and 200 above, as umap-learn.
    threads
        Tasks that are worked on at a time; the result does not depend on it.
    seed
        At least 0.

    Returns
    -------
    numpy.ndarray
        float32, cells x 2; NaN for cells without a place.

    Raises
    ------
    ValueError
        As `clustering.communities.build`, if fewer than 3 cells have neighbours, or if an option
        is out of range.

    Notes
    -----
    Peak memory: 16 bytes per weight and 200 per cell (0.6 GB for a million cells at k = 15).
    Compared with umap-learn in test/bench/RESULTS.md.
    """
    from threadpoolctl import threadpool_limits

    from clustering.communities import build

    if not 0 <= min_dist < 3 * spread:
        raise ValueError(
            f"min_dist must be from 0 to below 3 x spread ({spread}), found {min_dist}"
        )
    if n_epochs is not None and n_epochs < 1:
        raise ValueError(f"n_epochs must be at least 1, found {n_epochs}")
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed must be from 0 to {2**31 - 1}, found {seed}")
    graph = build(connectivities).adjacency
    n = graph.shape[0]
    placed = np.flatnonzero(np.diff(graph.indptr))
    if len(placed) < 3:
        raise ValueError(
            f"a layout needs at least 3 cells with neighbours, found {len(placed)} of {n}"
        )
    if len(placed) < n:
        graph = graph[placed][:, placed]
    n_epochs = n_epochs or default_epochs(len(placed))
    # Arrays are summed in an order that must not depend on the number of threads.
    with threadpool_limits(1, user_api="blas"):
        rng = np.random.default_rng(seed)
        start = _start(graph, rng)
        layout = _optimise(
            graph, start, curve(min_dist, spread), n_epochs=n_epochs, threads=threads, rng=rng
        )
    result = np.full((n, 2), np.nan, dtype=np.float32)
    result[placed] = layout
    return result


def default_epochs(n_cells: int) -> int:
    """Return umap-learn's number of epochs."""
    return 500 if n_cells <= 10_000 else 200


def curve(min_dist: float, spread: float) -> tuple[float, float]:
    """Return a and b of ``1 / (1 + a d^2b)``, fitted as umap-learn does.

    The target is 1 up to `min_dist` and falls as ``exp(-(d - min_dist) / spread)`` beyond.
    """
    from scipy.optimize import curve_fit

    d = np.linspace(0, 3 * spread, 300)
    target = np.where(d < min_dist, 1.0, np.exp(-(d - min_dist) / spread))
    (a, b), _ = curve_fit(lambda d, a, b: 1 / (1 + a * d ** (2 * b)), d, target)
    return float(a), float(b)


def _start(graph: sp.csr_matrix, rng: np.random.Generator) -> np.ndarray:
    """Return the first two eigenvectors of the random walk on the graph, scaled to +-10."""
    import scipy.sparse as sp
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh
    from threadpoolctl import threadpool_limits

    n = graph.shape[0]
    scale = 1 / np.sqrt(np.asarray(graph.sum(axis=1)).ravel())
    walk = sp.diags(scale) @ graph @ sp.diags(scale)
    if n <= 40:
        _, vectors = np.linalg.eigh(walk.toarray())
    else:
        try:
            # Again: SciPy's BLAS is its own, loaded after the first limit was set.
            with threadpool_limits(1, user_api="blas"):
                values, vectors = eigsh(walk, k=3, v0=1 / scale, ncv=32, tol=1e-4, maxiter=200)
        except ArpackNoConvergence as some:
            values, vectors = some.eigenvalues, some.eigenvectors
        vectors = vectors[:, np.argsort(values)]
    # The largest says nothing but how many neighbours a cell has.
    place = vectors[:, -3:-1][:, ::-1] * scale[:, None]
    missing = 2 - place.shape[1]
    if missing:
        place = np.hstack([place, rng.uniform(-1, 1, (n, missing))])
    # The sign of an eigenvector is arbitrary.
    place = place * np.sign(place[np.abs(place).argmax(axis=0), [0, 1]])
    place = place - place.mean(axis=0)
    place *= 10 / np.abs(place).max()
    return (place + rng.normal(0, 1e-4, place.shape)).astype(np.float32)


def _optimise(
    graph: sp.csr_matrix,
    layout: np.ndarray,
    ab: tuple[float, float],
    *,
    n_epochs: int,
    threads: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Move all cells `n_epochs` times, by less and less."""
    n = graph.shape[0]
    graph = (graph / graph.data.max()).astype(np.float32)
    # Edges that umap-learn would never draw.
    graph.data[graph.data < 1 / n_epochs] = 0
    graph.eliminate_zeros()
    strength = np.asarray(graph.sum(axis=1)).ravel()
    negatives = (strength * np.float32(NEGATIVES / SAMPLE)).astype(np.float32)
    tasks = range(0, n, TASK)
    with ThreadPoolExecutor(threads) as pool:
        for epoch in progress(range(n_epochs), desc="layout"):
            rate = np.float32(1 - epoch / n_epochs)
            drawn = rng.integers(0, n, (-(-n // BLOCK), SAMPLE))

            def moved(start: int, at=layout, rate=rate, drawn=drawn) -> np.ndarray:
                cells = slice(start, min(start + TASK, n))
                pull, stiffness = _attraction(graph, at, cells, ab)
                push, tension = _repulsion(at, cells, drawn, ab)
                force = pull + push * negatives[cells, None]
                stiffness += DAMPING * negatives[cells] * tension
                return at[cells] + rate * force / (1 + rate * stiffness)[:, None]

            layout = np.concatenate(list(pool.map(moved, tasks)))
    return layout


def _attraction(
    graph: sp.csr_matrix, at: np.ndarray, cells: slice, ab: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pull of their neighbours on some cells, and the sum of its coefficients.

    The coefficient ``2ab d^(2b-2) / (1 + a d^2b)`` counts twice: each edge moves both its ends.
    """
    import scipy.sparse as sp

    a, b = map(np.float32, ab)
    starts = graph.indptr[cells.start : cells.stop + 1]
    edges = slice(starts[0], starts[-1])
    indices, starts = graph.indices[edges], starts - starts[0]
    # One complex number is one place: half the lookups.
    places = at.view(np.complex64).ravel()
    apart = places.take(indices) - np.repeat(places[cells], np.diff(starts))
    squared = np.square(apart.real) + np.square(apart.imag)
    np.maximum(squared, TINY, out=squared)
    power = np.log(squared)
    power *= b
    np.exp(power, out=power)
    weight = power * (4 * a * b)
    weight /= squared
    power *= a
    power += 1
    weight /= power
    weight *= graph.data[edges]
    weights = sp.csr_matrix((weight, indices, starts), shape=(len(starts) - 1, len(at)))
    stiffness = np.asarray(weights.sum(axis=1), dtype=np.float32).ravel()
    return weights @ at - stiffness[:, None] * at[cells], stiffness


def _repulsion(
    at: np.ndarray, cells: slice, drawn: np.ndarray, ab: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the push of the drawn cells on some cells, and the sum of its coefficients.

    The coefficient is ``2b / ((0.001 + d^2) (1 + a d^2b))``, and at most `STRONGEST` / d.
    """
    a, b = map(np.float32, ab)
    push = np.empty((cells.stop - cells.start, 2), dtype=np.float32)
    tension = np.empty(len(push), dtype=np.float32)
    for start in range(cells.start, cells.stop, BLOCK):
        here = at[start : min(start + BLOCK, cells.stop)]
        others = at[drawn[start // BLOCK]]
        squared = here[:, :1] - others[:, 0]
        squared *= squared
        y = here[:, 1:] - others[:, 1]
        y *= y
        squared += y
        np.maximum(squared, TINY, out=squared)
        power = np.log(squared, out=y)
        power *= b
        np.exp(power, out=power)
        power *= a
        power += 1
        weight = squared + np.float32(1e-3)
        weight *= power
        np.divide(2 * b, weight, out=weight)
        np.sqrt(squared, out=squared)
        np.divide(STRONGEST, squared, out=squared)
        np.minimum(weight, squared, out=weight)
        rows = slice(start - cells.start, start - cells.start + len(here))
        tension[rows] = weight.sum(axis=1)
        push[rows] = tension[rows, None] * here - weight @ others
    return push, tension
