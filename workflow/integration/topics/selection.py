"""Choose the number of topics by how well they predict counts of held-out cells."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from integration.options import N_TOPICS_LADDER
from integration.topics.model import positive_counts
from integration.topics.nmf import poisson_nmf, project_poisson_nmf
from utils.log import progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    import scipy.sparse as sp

SELECTION_CELLS = 4_000  # more cells are sampled
HELD_OUT_SHARE = 0.2  # of these
FIT_ITERATIONS = 40
DISPERSION = 1.0
DEVIANCE_ROWS = 256


class TopicSelection(NamedTuple):
    """A number of topics, and the curve that it was chosen by."""

    n_topics: int
    ladder: list[int]
    deviances: list[float]  # held out, per cell
    standard_errors: list[float]  # of the difference from the lowest


def choose_n_topics(
    counts: Any,
    ladder: Sequence[int] = N_TOPICS_LADDER,
    *,
    seed: int = 0,
    dtype: Any = np.float32,
    threads: int = 1,
    verbose: bool = False,
) -> TopicSelection:
    """Choose the number of topics by the deviance of held-out counts (document completion).

    Topics are fitted to four fifths of the cells. Of the other cells every count is split
    binomially into halves (Wallach et al. 2009, for words): one gives the cell's weights, the
    other is predicted. The smallest number is taken whose deviance lies within one standard error
    of the lowest; the ladder ends where the deviance rises.

    Parameters
    ----------
    counts
        Cells x genes, 0 or more; a SciPy sparse matrix, or an array.
    ladder
        Increasing numbers of topics to try; only the first if the others are more than a tenth of
        the cells or genes, and fewer where that is too.
    seed
        Of the sample of cells, their parts, the halves of the counts and the starts.
    dtype, threads
        As for `poisson_nmf`; the choice does not depend on the threads.
    verbose
        Show a progress bar.

    Returns
    -------
    TopicSelection

    Notes
    -----
    The deviance is the negative binomial's of dispersion 1, in which a large count weighs as its
    logarithm. The halves of an overdispersed count are not independent, so that in the Poisson
    deviance many topics win by the noise of few genes: of the largest number it chose 60 in Liu and
    the pancreas, and 30 of 12 simulated types (this: 40, 60 and 15). Halves of the genes instead of
    the counts give curves too rough to choose by where single genes fill a topic (insulin).

    Peak memory beside `counts`: that of `poisson_nmf` for 4,000 cells, and 10 KB a gene. Time: up
    to a minute on one core for 2,000 genes, whatever the number of cells.
    """
    matrix = positive_counts(counts, dtype)
    matrix = matrix[np.diff(matrix.indptr) > 0]
    matrix = matrix[:, np.bincount(matrix.indices, minlength=matrix.shape[1]) > 0]
    rng = np.random.default_rng([seed, 1])
    cells = rng.permutation(matrix.shape[0])[:SELECTION_CELLS]
    n_held = max(int(HELD_OUT_SHARE * len(cells)), 1)
    held, fitted = matrix[np.sort(cells[:n_held])], matrix[np.sort(cells[n_held:])]
    given, asked = _split_counts(held, rng)
    largest = max(min(fitted.shape) // 10, 1)
    tried = [n for n in ladder if n <= largest] or [min(largest, ladder[0])]
    per_cell: list[np.ndarray] = []
    for n_topics in progress(tried, desc="number of topics", disable=not verbose):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # without counts in these cells
            topics = poisson_nmf(
                fitted,
                n_topics,
                max_iter=FIT_ITERATIONS,
                seed=seed,
                dtype=dtype,
                threads=threads,
            ).topics
            weights, scale = project_poisson_nmf(given, topics, dtype=dtype, threads=threads)
        per_cell.append(_held_out_deviance(asked, weights * scale[:, None], topics))
        best = min(per_cell, key=np.sum)
        if not _is_within_error(per_cell[-1] - best):
            break
    differences = [deviances - best for deviances in per_cell]
    chosen = next(i for i, difference in enumerate(differences) if _is_within_error(difference))
    return TopicSelection(
        tried[chosen],
        tried[: len(per_cell)],
        [float(deviances.mean()) for deviances in per_cell],
        [_standard_error(difference) for difference in differences],
    )


def _split_counts(
    counts: sp.csr_matrix, rng: np.random.Generator
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Split every count binomially; of a count with a fraction, the other half keeps that."""
    given, asked = counts.copy(), counts.copy()
    given.data[:] = np.minimum(
        rng.binomial(np.rint(counts.data).astype(np.int64), 0.5), counts.data
    )
    asked.data -= given.data
    given.eliminate_zeros()
    return given, asked


def _held_out_deviance(counts: sp.csr_matrix, factor: np.ndarray, topics: np.ndarray) -> np.ndarray:
    """Compute the deviance of each cell's counts from their rates, of genes that topics have."""
    known = ~np.isnan(topics).any(axis=1)
    topics = topics[known].astype(np.float64)
    counts = counts[:, known]
    factor = np.nan_to_num(factor.astype(np.float64))
    result = np.empty(len(factor))
    for start in range(0, len(factor), DEVIANCE_ROWS):
        rows = slice(start, start + DEVIANCE_ROWS)
        rates = np.maximum(factor[rows] @ topics.T, 1e-4)
        block = counts[rows].toarray().astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(block > 0, block * np.log(block / rates), 0)
        size = 1 / DISPERSION
        terms -= (block + size) * np.log((block + size) / (rates + size))
        result[rows] = 2 * terms.sum(axis=1)
    return result


def _standard_error(values: np.ndarray) -> float:
    return float(values.std() / len(values) ** 0.5)


def _is_within_error(difference: np.ndarray) -> bool:
    return bool(difference.mean() <= _standard_error(difference))
