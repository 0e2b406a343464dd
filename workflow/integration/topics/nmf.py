"""Poisson NMF, which is the multinomial topic model, by coordinate descent on sparse counts.

X ~ Poisson(L F'). With u the column sums of F, topics are F / u, and L u = scale * weights, with
rows of the weights that sum to 1. F is kept at u = 1, so that L holds the counts of each cell that
a topic explains. Each half of an iteration holds one factor and updates every row of the other on
its own, first by EM (multiplicative updates: Lee and Seung 2001), then by coordinate descent (Hsieh
and Dhillon 2011; Lin and Boutros 2020; fastTopics: Carbonetto 2021).
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from integration.options import N_TOPICS_LADDER, TopicsOptions
from integration.topics.kernel import sweep
from integration.topics.model import (
    TopicModel,
    check_n_topics,
    positive_counts,
    put_back,
    without_empty,
)
from utils.log import progress
from utils.threads import workers

if TYPE_CHECKING:
    from collections.abc import Callable

    import scipy.sparse as sp

    # (rows of counts, factor of the columns, factor of the rows) -> counts out of place, fit
    Sweep = Callable[..., tuple[float, float]]

TASKS_PER_THREAD = 16  # several, as rows differ in length


def poisson_nmf(
    counts: Any,
    n_topics: int = N_TOPICS_LADDER[0],
    *,
    n_em: int = 4,
    n_inner: int = 4,
    max_iter: int = 100,
    tol: float = TopicsOptions.tol,
    n_restarts: int = 1,
    floor: float = 1e-10,
    init: tuple[np.ndarray, np.ndarray] | None = None,
    dtype: Any = np.float32,
    seed: int = 0,
    threads: int = 1,
    verbose: bool = False,
) -> TopicModel:
    """Fit a topic model to counts.

    Parameters
    ----------
    counts
        Cells x genes, 0 or more; a SciPy sparse matrix, or an array.
    n_topics
        Number of topics, less than the cells and the genes.
    n_em
        Iterations of EM at the start; `max_iter` makes all of them EM.
    n_inner
        Rounds of coordinate descent over the topics of a row, per iteration.
    max_iter
        Maximum of iterations, those of EM included.
    tol
        Stop when the KKT residual, the share of all counts in the wrong place, is below.
    n_restarts
        Random starts; the one with the lowest deviance is returned.
    floor
        Smallest value of a factor.
    init
        Start from these: cells x topics (in counts) and genes x topics, 0 or more; one start.
    dtype
        float32, or float64 for twice the memory and time.
    seed
        Of the starts.
    threads
        Rows that are updated at the same time; the result does not depend on it.
    verbose
        Show a progress bar.

    Returns
    -------
    TopicModel

    Raises
    ------
    TypeError, ValueError
        Wrong input or parameters, in one line.

    Warns
    -----
    UserWarning
        If cells or genes have no counts: they take no part and become NaN.

    Notes
    -----
    Time per iteration is O(non-zeros * n_topics). Peak memory beside `counts`: 16 bytes per
    non-zero (the counts by cell and by gene; 24 in float64), 8 bytes per topic and cell or gene,
    and per thread 4 bytes per topic and cell of the gene that most cells have.
    """
    if n_restarts < 1:
        raise ValueError(f"n_restarts must be at least 1; found {n_restarts}")
    if init is not None and n_restarts > 1:
        raise ValueError(f"init is one start; found n_restarts={n_restarts}")
    if max_iter < 1:
        raise ValueError(f"max_iter must be at least 1; found {max_iter}")
    by_cell, cells, genes = without_empty(positive_counts(counts, dtype))
    check_n_topics(n_topics, by_cell.shape)
    by_gene = by_cell.T.tocsr()
    total = float(by_cell.sum(dtype=np.float64))
    best, deviances = None, []
    with workers(threads) as run:
        sweeps = partial(_sweep_all, run, n_tasks=threads * TASKS_PER_THREAD, floor=floor)
        for start in range(n_restarts):
            if init is None:
                rng = np.random.default_rng([seed, start])
                L, F = _random_start(by_cell.shape, n_topics, total, rng)
            else:
                L, F = _given_start(init, cells, genes, n_topics)
            L, F = (np.ascontiguousarray(np.maximum(item, floor), dtype) for item in (L, F))
            iterations = range(1, max_iter + 1)
            name = f"topics, start {start + 1}" if n_restarts > 1 else "topics"
            converged = False
            for iteration in progress(iterations, desc=name, disable=not verbose):
                em = iteration <= n_em
                moved, _ = sweeps(by_cell, F, L, n_inner=n_inner, em=em)
                moved_genes, _ = sweeps(by_gene, L, F, n_inner=n_inner, em=em)
                _unit_columns(F, L)
                if not em and max(moved, moved_genes) < tol * total:
                    converged = True
                    break
            if n_em < max_iter:
                _improve_cells(sweeps, by_cell, F, L, n_inner, max_iter, tol * total)
            moved, fit = sweeps(by_cell, F, L)
            moved_genes, _ = sweeps(by_gene, L, F)
            residual = max(moved, moved_genes) / total
            deviance = 2 * (fit - total + float(L.sum(dtype=np.float64)))
            deviances.append(deviance)
            if best is None or deviance < best[0]:
                best = deviance, residual, iteration, converged, L, F
    deviance, residual, iteration, converged, L, F = best
    order = np.argsort(-L.sum(axis=0, dtype=np.float64), kind="stable")
    weights, scale = _weights(L[:, order])
    return TopicModel(
        weights=put_back(weights, cells),
        topics=put_back(F[:, order], genes),
        topic_scale=put_back(scale, cells),
        deviance=deviance,
        residual=residual,
        n_iterations=iteration,
        converged=converged,
        deviances=deviances,
    )


def project_poisson_nmf(
    counts: Any,
    topics: np.ndarray,
    *,
    n_inner: int = 4,
    max_iter: int = 100,
    tol: float = TopicsOptions.tol,
    floor: float = 1e-10,
    dtype: Any = np.float32,
    threads: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Project new cells onto the topics of a fitted model; the problem is convex.

    Parameters
    ----------
    counts
        Cells x genes, the genes those of `topics`.
    topics
        As in `TopicModel`; the counts of a gene that is NaN are left out.
    n_inner, max_iter, tol, floor, dtype, threads
        As in `poisson_nmf`.

    Returns
    -------
    weights, topic_scale
        As in `TopicModel`.

    Raises
    ------
    TypeError, ValueError
        Wrong input or parameters, in one line.
    """
    by_cell = positive_counts(counts, dtype)
    F = np.asarray(topics)
    if F.ndim != 2 or len(F) != by_cell.shape[1]:
        raise ValueError(f"{by_cell.shape[1]:,} genes have counts, topics have {len(F):,}")
    known = ~np.isnan(F).any(axis=1)
    if not known.all():
        by_cell = by_cell[:, known]
    F = np.ascontiguousarray(np.maximum(F[known], floor), dtype)
    by_cell, cells, genes = without_empty(by_cell)
    F = F[genes]
    total = by_cell.sum(axis=1, dtype=np.float64)
    L = np.repeat(np.asarray(total) / F.shape[1], F.shape[1], axis=1).astype(dtype)
    _unit_columns(F, L)
    with workers(threads) as run:
        sweeps = partial(_sweep_all, run, n_tasks=threads * TASKS_PER_THREAD, floor=floor)
        _improve_cells(sweeps, by_cell, F, L, n_inner, max_iter, tol * float(total.sum()))
    weights, scale = _weights(L)
    return put_back(weights, cells), put_back(scale, cells)


def _improve_cells(
    sweeps: Sweep,
    by_cell: sp.csr_matrix,
    F: np.ndarray,
    L: np.ndarray,
    n_inner: int,
    max_iter: int,
    tolerance: float,
) -> None:
    """Update the factor of the cells alone, in place."""
    for _ in range(max_iter):
        moved, _ = sweeps(by_cell, F, L, n_inner=n_inner)
        if moved < tolerance:
            break


def _sweep_all(
    run: Callable[..., None],
    counts: sp.csr_matrix,
    other: np.ndarray,
    factor: np.ndarray,
    *,
    n_tasks: int,
    floor: float,
    n_inner: int = 0,
    em: bool = False,
) -> tuple[float, float]:
    """Update all rows of a factor, or only measure them (`n_inner` 0, no `em`).

    A row's update depends on that row and the fixed factor alone, and sums over rows are made
    afterwards in the order of the rows: the number of threads changes no bit.

    Returns
    -------
    tuple
        Counts out of place, and the fit.
    """
    n = len(factor)
    total = other.sum(axis=0, dtype=np.float64).astype(factor.dtype)
    residual, fit = np.zeros(n), np.zeros(n)
    indices = counts.indices.view(f"u{counts.indices.itemsize}")
    smallest = factor.dtype.type(floor)
    edges = np.unique(np.searchsorted(counts.indptr, np.linspace(0, counts.nnz, n_tasks + 1)))
    edges[-1] = n

    def task(rows: tuple[int, int], _: None) -> None:
        sweep(counts.indptr, indices, counts.data, other, total, factor,
              *rows, n_inner, em, smallest, residual, fit)  # fmt: skip

    run(task, list(itertools.pairwise(edges)))
    return float(residual.sum()), float(fit.sum())


def _random_start(
    shape: tuple[int, int], n_topics: int, total: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw both factors, with the total of the counts and column sums 1."""
    L, F = (rng.random((size, n_topics)) for size in shape)
    return L * (total / L.sum()), F / F.sum(axis=0)


def _given_start(
    init: tuple[np.ndarray, np.ndarray], cells: np.ndarray, genes: np.ndarray, n_topics: int
) -> tuple[np.ndarray, np.ndarray]:
    factors = []
    for values, has_counts, name in zip(init, (cells, genes), ("cells", "genes"), strict=True):
        shape = (len(has_counts), n_topics)
        factor = np.array(values, dtype=np.float64)
        if factor.shape != shape:
            raise ValueError(f"init of the {name} must have shape {shape}; found {factor.shape}")
        factor = factor[has_counts]
        if not (factor >= 0).all() or not np.isfinite(factor).all():
            raise ValueError(f"init of the {name} must be finite and not negative")
        factors.append(factor)
    L, F = factors
    if not (F.sum(axis=0) > 0).all():
        raise ValueError("init of the genes has a topic without any gene")
    _unit_columns(F, L)
    return L, F


def _unit_columns(F: np.ndarray, L: np.ndarray) -> None:
    """Scale the columns of F to sum 1 and those of L against it, in place."""
    size = F.sum(axis=0, dtype=np.float64)
    F /= size.astype(F.dtype)
    L *= size.astype(L.dtype)


def _weights(L: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = L.sum(axis=1, dtype=np.float64)
    return (L / scale[:, None]).astype(L.dtype), scale
