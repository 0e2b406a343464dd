"""Score cells as doublets: Scrublet (Wolock et al. 2019), as scanpy has it, within each sample."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from preprocessing.options import DoubletOptions
from utils.blocks import gather_rows
from utils.log import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import scipy.sparse as sp

    from utils.blocks import Block

PART_CELLS = 10_000  # larger samples are scored in random parts of at most this many cells
MIN_SAMPLE_CELLS = 100  # of fewer cells no doublets are simulated
CELLS_IN_MEMORY = 100_000
# A cell is like a doublet from this many times the expected rate on: the score is the probability
# of a doublet given that rate.
MIN_ODDS = 3
N_BINS = 256


class DoubletScores(NamedTuple):
    """Scores of all cells, and how they were judged."""

    scores: np.ndarray  # float32, NaN: not scored
    doublet_like: np.ndarray  # bool
    relative_counts: np.ndarray  # float32, total counts over the median of the sample
    thresholds: dict[str, list[float]]  # of each sample, one for each of its parts


def score_doublets(
    blocks: Callable[[], Iterable[Block]],
    samples: np.ndarray,
    names: list[str],
    *,
    expected_doublet_rate: float = DoubletOptions.expected_doublet_rate,
    seed: int = 0,
) -> DoubletScores:
    """Score every cell by its similarity to simulated doublets of its own sample.

    Parameters
    ----------
    blocks
        Returns, each time it is called, counts in blocks of consecutive cells x genes.
    samples
        Sample of each cell as a code, -1 for none: such a cell is not scored.
    names
        Names of the samples.
    expected_doublet_rate
        Share of doublets that Scrublet assumes.
    seed
        Of the simulated doublets and of the parts of large samples.

    Returns
    -------
    DoubletScores
        A cell is `doublet_like` where its score is above the threshold of its sample: Otsu's
        threshold between simulated doublets that resemble single cells (both parents of a type) and
        those that do not, and at least three times the expected rate. Doublets of two cells of one
        type are not found. Samples below 100 cells are not scored.

    Notes
    -----
    The counts are read once for each 100,000 cells. Peak memory: 8 bytes for each count of 100,000
    cells, and about 1 GB for a part of 10,000 cells. Time: about 10 seconds a part.
    """
    rng = np.random.default_rng(seed)
    scores = np.full(len(samples), np.nan, np.float32)
    doublet_like = np.zeros(len(samples), bool)
    totals = np.full(len(samples), np.nan, np.float32)
    thresholds: dict[str, list[float]] = {}
    parts = []
    for code, name in enumerate(names):
        cells = rng.permutation(np.flatnonzero(samples == code))
        if len(cells) >= MIN_SAMPLE_CELLS:
            n_parts = -(-len(cells) // PART_CELLS)
            parts += [(name, np.sort(part)) for part in np.array_split(cells, n_parts)]
    for name, cells, counts in progress(
        _read_parts(blocks, parts), desc="doublets", total=len(parts)
    ):
        totals[cells] = np.asarray(counts.sum(axis=1)).ravel()
        scores[cells], simulated = _scrublet(counts, expected_doublet_rate, seed)
        threshold = max(otsu_threshold(simulated), MIN_ODDS * expected_doublet_rate)
        thresholds.setdefault(name, []).append(threshold)
        doublet_like[cells] = scores[cells] > threshold
    for code in np.unique(samples[np.isfinite(totals)]):
        totals[samples == code] /= max(float(np.median(totals[samples == code])), 1e-12)
    return DoubletScores(scores, doublet_like, totals, thresholds)


def _read_parts(
    blocks: Callable[[], Iterable[Block]], parts: list[tuple[str, np.ndarray]]
) -> Iterator[tuple[str, np.ndarray, sp.csr_matrix]]:
    """Read the counts of the parts, as many in one pass as fit into memory."""
    n_together = CELLS_IN_MEMORY // PART_CELLS
    for first in range(0, len(parts), n_together):
        group = parts[first : first + n_together]
        rows = gather_rows(blocks(), [cells for _, cells in group])
        for (name, cells), counts in zip(group, rows, strict=True):
            yield name, cells, counts.astype(np.float32)


def _scrublet(
    counts: sp.csr_matrix, expected_doublet_rate: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of cells (NaN: too few genes) and of simulated doublets."""
    import anndata
    import pandas as pd
    import scanpy as sc

    names = pd.Index(np.arange(counts.shape[0]).astype(str))
    adata = anndata.AnnData(counts, obs=pd.DataFrame(index=names))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Its own threshold needs scikit-image and is not used; nor are approximate neighbors, which
        # fail in scanpy 1.11 with SciPy 1.16.
        sc.pp.scrublet(
            adata,
            expected_doublet_rate=expected_doublet_rate,
            threshold=1.0,
            use_approx_neighbors=False,
            random_state=seed,
            verbose=False,
        )
    simulated = np.asarray(adata.uns["scrublet"]["doublet_scores_sim"])
    return adata.obs["doublet_score"].to_numpy(np.float32), simulated


def otsu_threshold(values: np.ndarray) -> float:
    """Return the threshold that best splits values into two groups (Otsu 1979)."""
    counts, edges = np.histogram(values, N_BINS)
    centers = (edges[1:] + edges[:-1]) / 2
    below, above = np.cumsum(counts), counts.sum() - np.cumsum(counts)
    sums = np.cumsum(counts * centers)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = sums / below - (sums[-1] - sums) / above
    between = np.nan_to_num(below * above * gap**2)
    return float(edges[1 + between.argmax()])
