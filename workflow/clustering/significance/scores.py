"""Scores of held-out cells on a division of a cluster, once from each half of the genes.

A part of the cells is held out, the others are clustered anew, and what tells the two sides apart
among them is measured on the cells held out: from one half of the genes, and from the other. Where
there is nothing but noise, the two scores of a cell have nothing to do with each other, whatever
the distribution of the counts.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import scipy.sparse as sp

N_FOLDS = 5  # of the cells
N_HALVINGS = 4  # of the genes
N_COMPONENTS = 20
# Genes whose t is not larger than this do not count.
THRESHOLD = 1.0
# Towards a multiple of the identity, of the components' covariance within the sides.
SHRINKAGE = 0.1
# The offset of a batch counts as much as that of all with so many cells.
PRIOR_CELLS = 5
# A side needs so many cells among those that are not held out.
MIN_SIDE = 3


class HeldOutScores(NamedTuple):
    """Scores of the cells of a division, float64 of shape (halvings, 2 halves, cells).

    Attributes
    ----------
    linear
        Of shares of the counts, whose expectation does not depend on the depth of a cell; without
        the means of fold and batch.
    log
        Of log-normalized values without what depth explains within clusters, 0 being midway
        between the sides of the batch.
    share
        Of the cells on side 1, mean over folds.
    scored
        bool of shape (cells,): False in a fold in which the sides were not found again.
    """

    linear: np.ndarray
    log: np.ndarray
    share: float
    scored: np.ndarray


class Halving(NamedTuple):
    """A split of the genes in two halves of similar expression."""

    half: np.ndarray  # of each gene, 0 or 1
    linear: np.ndarray  # values of the stored entries of the counts: shares of the half's total
    log: np.ndarray  # the same, log(1 + x)
    depth: np.ndarray  # (2 halves, cells, 2): logarithm of the depth, standardized, and its square


class Sample:
    """Some cells of a cluster that is divided into children.

    Parameters
    ----------
    counts
        CSR matrix, cells x genes.
    children
        int of shape (cells,), child of each cell.
    batch
        int of shape (cells,), batch of each cell; all the same: no batches.
    resolution, n_neighbors, algorithm
        Of the clustering.
    rng
        Of the folds and halves.

    Notes
    -----
    Peak memory: about 100 bytes per stored count of the variable genes.
    """

    def __init__(
        self,
        counts: sp.csr_matrix,
        children: np.ndarray,
        batch: np.ndarray,
        *,
        resolution: float,
        n_neighbors: int,
        algorithm: str,
        rng: np.random.Generator,
    ) -> None:
        self.counts = counts
        self.children = children
        self.batch = batch
        self._clustering = {
            "resolution": resolution,
            "n_neighbors": n_neighbors,
            "algorithm": algorithm,
        }
        self.fold = _folds(children, batch, rng)
        totals = np.bincount(counts.indices, weights=counts.data, minlength=counts.shape[1])
        self.halvings = [_halving(counts, totals, rng) for _ in range(N_HALVINGS)]
        self._start = rng.standard_normal(min(counts.shape))

    @cached_property
    def _log(self) -> sp.csr_matrix:
        from numerics.normalize import normalize_block

        totals = np.asarray(self.counts.sum(axis=1)).ravel()
        # Cells may lack counts of the genes that are used.
        totals = totals[totals > 0]
        target_sum = float(np.median(totals)) if len(totals) else 1.0
        return normalize_block(self.counts, target_sum=target_sum)

    @cached_property
    def components(self) -> np.ndarray:
        """Principal components of all cells without the effect of the batch."""
        _, scores = _components(self._log, self.batch, self._start)
        return _integrate(scores, self.batch)

    @cached_property
    def _refits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Loadings and clusters without each fold; the clusters of that fold's cells are -1."""
        refits = []
        for fold in range(N_FOLDS):
            rows = np.flatnonzero(self.fold != fold)
            loadings, scores = _components(self._log[rows], self.batch[rows], self._start)
            clusters = np.full(len(self.fold), -1)
            clusters[rows] = _cluster(_integrate(scores, self.batch[rows]), **self._clustering)
            refits.append((loadings, clusters))
        return refits

    @cached_property
    def _features(self) -> list[list[tuple[np.ndarray, np.ndarray]]]:
        """By halving and fold: components of each half, and the effect of depth on them."""
        features = []
        for halving in self.halvings:
            values = self._with(halving.log)
            of_folds = []
            for loadings, clusters in self._refits:
                rows = clusters >= 0
                group = _joint(clusters[rows], self.batch[rows])
                halves = []
                for half in (0, 1):
                    score = values @ (loadings * (halving.half == half)[:, None])
                    depth = halving.depth[half]
                    slope = _slope_within(group, depth[rows], score[rows])
                    halves.append(score - depth @ slope)
                of_folds.append(tuple(halves))
            features.append(of_folds)
        return features

    def _with(self, values: np.ndarray) -> sp.csr_matrix:
        import scipy.sparse as sp

        return sp.csr_matrix(
            (values, self.counts.indices, self.counts.indptr), shape=self.counts.shape
        )

    def scores(self, cells: np.ndarray, side: np.ndarray) -> HeldOutScores:
        """Score cells on a division.

        Parameters
        ----------
        cells
            Positions of the cells of the division, in increasing order.
        side
            int of shape (cells,), 0 or 1.
        """
        batch = np.unique(self.batch[cells], return_inverse=True)[1]
        fold = self.fold[cells]
        shape = (N_HALVINGS, 2, len(cells))
        linear, log = np.zeros(shape), np.zeros(shape)
        scored, shares = np.zeros(len(cells), dtype=bool), []
        # Sides as the clusters found without the fold tell them.
        sides = [_recovered(clusters[cells], side) for _, clusters in self._refits]
        for fold_number, recovered in enumerate(sides):
            out = fold == fold_number
            if recovered is not None and out.any():
                scored |= out
                shares.append((recovered == 1).sum() / (recovered >= 0).sum())
        if not scored.any():
            return HeldOutScores(linear, log, 0.0, scored)
        for number, halving in enumerate(self.halvings):
            part_linear = self._with(halving.linear)[cells]
            part_log = self._with(halving.log)[cells]
            for fold_number, recovered in enumerate(sides):
                out = np.flatnonzero(fold == fold_number)
                if recovered is None or not len(out):
                    continue
                clusters = self._refits[fold_number][1][cells]
                weights = _gene_weights(part_linear, recovered, batch)
                log_weights = _gene_weights(part_log, recovered, batch)
                rows = recovered >= 0
                group = _joint(clusters[rows], batch[rows])
                for half in (0, 1):
                    of_half = halving.half == half
                    linear[number, half, out] = part_linear[out] @ _unit(weights, of_half)
                    score = part_log @ _unit(log_weights, of_half)
                    depth = halving.depth[half][cells]
                    score -= depth @ _slope_within(group, depth[rows], score[rows, None])[:, 0]
                    features = self._features[number][fold_number][half][cells]
                    log[number, half, out] = (
                        score - _midway(score, recovered, batch)
                        + _discriminant(features, recovered, batch)
                    )[out]  # fmt: skip
            for half in (0, 1):
                linear[number, half, scored] = _without_means(
                    linear[number, half, scored], fold[scored], batch[scored]
                )
        return HeldOutScores(linear, log, float(np.mean(shares)), scored)


def _folds(children: np.ndarray, batch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Deal the cells of each child and batch out to the folds."""
    order = rng.permutation(len(children))
    group = _joint(children, batch)
    order = order[np.argsort(group[order], kind="stable")]
    fold = np.empty(len(children), dtype=np.int64)
    fold[order] = (np.arange(len(children)) + rng.integers(N_FOLDS)) % N_FOLDS
    return fold


def _joint(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return codes of the pairs of two codes, without gaps."""
    pairs = first.astype(np.int64) * (int(second.max(initial=0)) + 1) + second
    return np.unique(pairs, return_inverse=True)[1]


def _halving(counts: sp.csr_matrix, totals: np.ndarray, rng: np.random.Generator) -> Halving:
    """Put one of each two genes that follow each other in their total into either half."""
    order = np.argsort(totals, kind="stable")
    n_pairs = len(order) // 2
    first = rng.integers(0, 2, n_pairs)
    half = np.zeros(len(order), dtype=np.int64)
    half[order[0 : 2 * n_pairs : 2]] = first
    half[order[1 : 2 * n_pairs : 2]] = 1 - first
    n_cells = counts.shape[0]
    rows = np.repeat(np.arange(n_cells), np.diff(counts.indptr))
    of_half = half[counts.indices]
    depths = np.zeros((n_cells, 2))
    for number in (0, 1):
        depths[:, number] = np.bincount(
            rows, weights=counts.data * (of_half == number), minlength=n_cells
        )
    scale = np.median(depths, axis=0) / np.maximum(depths, 1)
    linear = counts.data * scale[rows, of_half]
    depth = np.log(np.maximum(depths, 1)).T
    spread = depth.std(axis=1, keepdims=True)
    depth = (depth - depth.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
    return Halving(half, linear, np.log1p(linear), np.stack([depth, depth**2], axis=2))


def _components(
    values: sp.csr_matrix, batch: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return loadings (genes x components) and scores without the means of each batch."""
    import scipy.sparse as sp
    from scipy.sparse.linalg import LinearOperator, svds

    values = values.astype(np.float64)
    n_cells, n_genes = values.shape
    n_components = max(1, min(N_COMPONENTS, n_cells // 3, n_genes - 1))
    batch = np.unique(batch, return_inverse=True)[1]
    of_batch = sp.csr_matrix((np.ones(n_cells), (np.arange(n_cells), batch)))
    sizes = np.asarray(of_batch.sum(axis=0)).ravel()
    means = np.asarray((of_batch.T @ values).todense()) / sizes[:, None]
    squares = float((values.data**2).sum())
    varies = squares - float((sizes[:, None] * means**2).sum()) > 1e-9 * squares
    if min(values.shape) < 2 or not varies:
        return np.zeros((n_genes, 1)), np.zeros((n_cells, 1))

    def centered(x: np.ndarray) -> np.ndarray:
        x = x.ravel()
        return values @ x - (means @ x)[batch]

    def transposed(x: np.ndarray) -> np.ndarray:
        x = x.ravel()
        return values.T @ x - means.T @ np.bincount(batch, weights=x, minlength=len(sizes))

    operator = LinearOperator((n_cells, n_genes), matvec=centered, rmatvec=transposed)
    start = start[: min(n_cells, n_genes)]
    _, _, right = svds(operator, k=n_components, v0=start, tol=1e-6)
    loadings = np.ascontiguousarray(right.T)
    # The sign is whatever the iteration ended with.
    loadings *= np.where(loadings[np.abs(loadings).argmax(axis=0), range(n_components)] < 0, -1, 1)
    return loadings, values @ loadings - (means @ loadings)[batch]


def _integrate(scores: np.ndarray, batch: np.ndarray) -> np.ndarray:
    if batch.min() == batch.max() or (scores == scores[0]).all():
        return scores
    import pandas as pd

    from integration.harmony import harmonize

    column = pd.Series(pd.Categorical(batch))
    return harmonize(scores.astype(np.float32), [column], threads=1).corrected


def _cluster(
    scores: np.ndarray, *, resolution: float, n_neighbors: int, algorithm: str
) -> np.ndarray:
    from clustering.communities import CommunityGraph, find_communities
    from clustering.connectivities import fuzzy_connectivities
    from numerics.knn import search

    scores = np.ascontiguousarray(scores, dtype=np.float32)
    neighbors = search(scores, n_neighbors, metric="euclidean", threads=1, seed=0, quiet=True)
    graph = fuzzy_connectivities(neighbors.indices, neighbors.distances)
    return find_communities(
        CommunityGraph(graph), algorithm=algorithm, resolution=resolution, seed=0
    )


def _recovered(clusters: np.ndarray, side: np.ndarray) -> np.ndarray | None:
    """Give each new cluster the side that most of its cells are on; None if one side is lost.

    A cell without a cluster, that is held out, gets -1.
    """
    known = clusters >= 0
    if not known.any():
        return None
    votes = np.zeros((int(clusters.max()) + 1, 2))
    np.add.at(votes, (clusters[known], side[known]), 1)
    recovered = np.where(known, votes.argmax(axis=1)[clusters], -1)
    sizes = np.bincount(recovered[known], minlength=2)
    return recovered if sizes.min() >= MIN_SIDE else None


class _Contrast(NamedTuple):
    """Differences between the sides within batches, and variances within sides and batches."""

    difference: np.ndarray
    variance: np.ndarray
    weight: float  # of the difference: its variance is variance / weight


def _contrast(sums: np.ndarray, squares: np.ndarray, sizes: np.ndarray) -> _Contrast | None:
    """Compare sides; arguments are of shape (batches, 2 sides[, values]).

    None where no batch has both sides: then a division cannot be told from one between batches.
    """
    both = (sizes > 0).all(axis=1)
    if not both.any():
        return None
    sums, squares, sizes = sums[both], squares[both], sizes[both]
    freedom = sizes.sum() - 2 * len(sizes)
    if freedom < MIN_SIDE:
        return None
    means = sums / sizes[..., None]
    difference, weight = _difference(means, sizes)
    within = (squares - sizes[..., None] * means**2).sum(axis=(0, 1)) / freedom
    return _Contrast(difference, np.maximum(within, 0), weight)


def _difference(means: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, float]:
    """Weight the differences between the sides of batches by their precision; return the weight.

    `means` is of shape (batches, 2 sides, values), `sizes` of (batches, 2 sides), all above 0.
    """
    weight = sizes.prod(axis=1) / sizes.sum(axis=1)
    total = weight.sum()
    difference = (weight[:, None] * (means[:, 1] - means[:, 0])).sum(axis=0) / total
    return difference, float(total)


def _gene_weights(
    values: sp.csr_matrix, side: np.ndarray, batch: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight of each gene, by its soft-thresholded t statistic, and its variance."""
    n_genes, n_batches = values.shape[1], int(batch.max()) + 1
    known = side >= 0
    group = np.where(known, batch * 2 + side, n_batches * 2)
    sizes = np.bincount(group, minlength=2 * n_batches + 1)[:-1].reshape(n_batches, 2)
    entries = np.repeat(group, np.diff(values.indptr)) * n_genes + values.indices
    n_entries = (2 * n_batches + 1) * n_genes
    shape = (n_batches, 2, n_genes)
    sums, squares = (
        np.bincount(entries, weights=x, minlength=n_entries)[:-n_genes].reshape(shape)
        for x in (values.data, values.data**2)
    )
    contrast = _contrast(sums, squares, sizes)
    if contrast is None or not contrast.variance.any():
        return np.zeros(n_genes), np.ones(n_genes)
    positive = contrast.variance[contrast.variance > 0]
    # A gene of little variance would have any t.
    variance = contrast.variance + 0.1 * np.median(positive)
    t = contrast.difference * np.sqrt(contrast.weight / variance)
    weights = np.sign(t) * np.maximum(np.abs(t) - THRESHOLD, 0) / np.sqrt(variance)
    return weights, variance


def _unit(weights: tuple[np.ndarray, np.ndarray], of_half: np.ndarray) -> np.ndarray:
    """Scale the weights of the genes of a half so that their score has variance 1 within sides."""
    values = weights[0] * of_half
    norm = np.sqrt((values**2 * weights[1]).sum())
    return values / norm if norm > 0 else values


def _slope_within(group: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Regress `y` on `x` within groups, with the same slopes in each."""
    return np.linalg.lstsq(_centered(x, group), _centered(y, group), rcond=None)[0]


def _centered(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    sizes = np.maximum(np.bincount(group), 1)
    means = np.stack([np.bincount(group, weights=v) / sizes for v in values.T], axis=1)
    return values - means[group]


def _without_means(score: np.ndarray, fold: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Subtract the means of folds and batches."""
    for _ in range(4):
        for group in (fold, batch):
            score = _centered(score[:, None], group)[:, 0]
    return score


def _midway(score: np.ndarray, side: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Return, for the batch of each cell, where its two sides would meet.

    Batches may have more cells of one side: their offsets are those of the additive model, side
    and batch, pulled to that of all.
    """
    known = side >= 0
    n_batches = int(batch.max()) + 1
    group = batch[known] * 2 + side[known]
    sizes = np.bincount(group, minlength=2 * n_batches).reshape(n_batches, 2)
    sums = np.bincount(group, weights=score[known], minlength=2 * n_batches).reshape(sizes.shape)
    both = (sizes > 0).all(axis=1)
    if not both.any():
        return np.zeros(len(score))
    difference = _difference((sums[both] / sizes[both])[..., None], sizes[both])[0][0]
    n_cells = sizes.sum(axis=1)
    offset = (sums.sum(axis=1) - difference * sizes[:, 1]) / np.maximum(n_cells, 1)
    overall = (offset * n_cells).sum() / n_cells.sum()
    offset = overall + (offset - overall) * n_cells / (n_cells + PRIOR_CELLS)
    return (offset + difference / 2)[batch]


def _discriminant(features: np.ndarray, side: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Score cells by the linear discriminant of the sides, of variance 1 within them."""
    known = side >= 0
    n_batches, n_features = int(batch.max()) + 1, features.shape[1]
    group = batch[known] * 2 + side[known]
    sizes = np.bincount(group, minlength=2 * n_batches).reshape(n_batches, 2)
    shape = (n_batches, 2, n_features)
    sums, squares = (
        np.stack([np.bincount(group, weights=v, minlength=2 * n_batches) for v in x.T], axis=1)
        for x in (features[known], features[known] ** 2)
    )
    contrast = _contrast(sums.reshape(shape), squares.reshape(shape), sizes)
    if contrast is None:
        return np.zeros(len(features))
    inside = _centered(features[known], group)
    covariance = inside.T @ inside / max(len(inside) - len(np.unique(group)), 1)
    scale = np.trace(covariance) / n_features
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * scale * np.eye(n_features)
    if not scale > 0:
        return np.zeros(len(features))
    direction = np.linalg.solve(covariance, contrast.difference)
    norm = np.sqrt(direction @ covariance @ direction)
    if not norm > 0:
        return np.zeros(len(features))
    score = features @ (direction / norm)
    return score - _midway(score, side, batch)
