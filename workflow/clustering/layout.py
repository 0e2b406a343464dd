"""Two-dimensional layout of the neighbour graph: UMAP, without a JIT compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import scipy.sparse as sp


def umap_layout(
    distances: sp.csr_matrix,
    *,
    min_dist: float = 0.5,
    spread: float = 1.0,
    n_epochs: int | None = None,
    threads: int = 1,
    seed: int = 0,
) -> np.ndarray:
    """Lay out cells by UMAP (McInnes, Healy & Melville 2018), from neighbours that are there.

    Starts from the graph's first eigenvectors (from random places where it is in several pieces);
    then umappp's stochastic gradient descent (C++, through scranpy). That part runs on one thread.

    Parameters
    ----------
    distances
        Neighbour distances as `clustering.graph.neighbor_graph` and scanpy store them, cells x
        cells; the diagonal plays no part. A cell that has no neighbours and is nobody's neighbour
        gets no place. Rows may be of different lengths.
    min_dist, spread
        Of the layout; scanpy's defaults.
    n_epochs
        Rounds of gradient descent; None takes 500 up to 10,000 cells and 200 above, as umap-learn.
    threads
        Of the steps before the gradient descent; the result does not depend on it.
    seed
        At least 0.

    Returns
    -------
    numpy.ndarray
        float32, cells x 2; NaN for cells without a place.

    Raises
    ------
    ValueError
        If `distances` is not square, holds NaN or negative values, or fewer than 3 cells have
        neighbours, or if an option is out of range.

    Notes
    -----
    Peak memory: about 100 bytes per cell and neighbour.

    umap-learn gives about the same picture; figures are in test/bench/RESULTS.md.
    """
    import scipy.sparse as sp

    distances = sp.csr_matrix(distances)
    if distances.shape[0] != distances.shape[1]:
        raise ValueError(f"distances must be square, found shape {distances.shape}")
    if not (np.isfinite(distances.data).all() and (distances.data >= 0).all()):
        raise ValueError("distances must be finite and at least 0")
    if not 0 <= min_dist < 3 * spread:
        raise ValueError(
            f"min_dist must be from 0 to below 3 x spread ({spread}), found {min_dist}"
        )
    if n_epochs is not None and n_epochs < 1:
        raise ValueError(f"n_epochs must be at least 1, found {n_epochs}")
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed must be from 0 to {2**31 - 1}, found {seed}")
    placed, indices, values = _neighbor_lists(distances)
    if len(placed) < 3:
        raise ValueError(
            f"a layout needs at least 3 cells with neighbours, found {len(placed)} of "
            f"{distances.shape[0]}"
        )
    from knncolle import FindKnnResults
    from scranpy import run_umap

    if n_epochs is None:
        n_epochs = 500 if len(placed) <= 10_000 else 200
    layout = run_umap(
        FindKnnResults(indices, values),
        min_dist=min_dist,
        spread=spread,
        num_epochs=n_epochs,
        initialize_seed=seed,
        optimize_seed=seed,
        num_threads=threads,
    )
    result = np.full((distances.shape[0], 2), np.nan, dtype=np.float32)
    result[placed] = layout
    return result


def _neighbor_lists(distances: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the cells that have a place, and their neighbours by distance, numbered among them."""
    rows = np.repeat(np.arange(distances.shape[0]), np.diff(distances.indptr))
    other = distances.indices != rows
    rows, columns, values = rows[other], distances.indices[other], distances.data[other]
    order = np.lexsort((columns, values, rows))
    columns, values = columns[order], values[order]
    placed = np.union1d(rows, columns)
    counts = np.bincount(rows, minlength=distances.shape[0])[placed]
    width = int(counts.max(initial=0))
    # A short row is filled with the cell itself, far away: such an edge pulls nowhere.
    indices = np.repeat(np.arange(len(placed), dtype=np.uint32)[:, None], width, axis=1)
    lengths = np.full((len(placed), width), 1e3 * values.max(initial=1), dtype=np.float64)
    filled = np.arange(width) < counts[:, None]
    indices[filled] = np.searchsorted(placed, columns)
    lengths[filled] = values
    return placed, indices, lengths
