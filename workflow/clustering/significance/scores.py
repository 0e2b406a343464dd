"""Scores of held-out cells on a division of a cluster, once from each half of the genes.

A part of the cells is held out, the others are clustered anew, and what tells the two sides apart
among them is measured on the cells held out: from one half of the genes, and from the other. Where
there is nothing but noise, the two scores of a cell have nothing to do with each other, whatever
the distribution of the counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from clustering.significance.contrasts import (
    MIN_SIDE,
    discriminant_scores,
    gene_weights,
    midway_between,
    slope_within,
    without_means,
)
from clustering.significance.verdicts import structure_p

if TYPE_CHECKING:
    import scipy.sparse as sp

N_FOLDS = 5  # of the cells
N_HALVINGS = 4  # of the genes
N_COMPONENTS = 20
# Relative; the eigenvectors are exact to more digits than float32 has.
EIGENVALUE_TOLERANCE = 1e-4


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
        all_loadings = np.hstack([loadings for loadings, _ in self._refits])
        ends = np.cumsum([0, *(loadings.shape[1] for loadings, _ in self._refits)])
        trained = [np.flatnonzero(clusters >= 0) for _, clusters in self._refits]
        groups = [
            _joint(clusters[rows], self.batch[rows])
            for rows, (_, clusters) in zip(trained, self._refits, strict=True)
        ]
        features = []
        for halving in self.halvings:
            scores = self._half_scores(
                halving, halving.log, np.arange(len(self.fold)), all_loadings
            )
            of_folds = []
            for fold, (rows, group) in enumerate(zip(trained, groups, strict=True)):
                halves = []
                for score, depth in zip(scores, halving.depth, strict=True):
                    of_fold = score[:, ends[fold] : ends[fold + 1]]
                    slope = slope_within(group, depth[rows], of_fold[rows])
                    halves.append(of_fold - depth @ slope)
                of_folds.append(tuple(halves))
            features.append(of_folds)
        return features

    def scores(self, cells: np.ndarray, side: np.ndarray, *, max_p: float = 1.0) -> HeldOutScores:
        """Score cells on a division.

        Parameters
        ----------
        cells
            Positions of the cells of the division, in increasing order.
        side
            int of shape (cells,), 0 or 1.
        max_p
            Where `structure_p` of the linear scores is larger, the log scores are left 0: they
            take most of the time.
        """
        # Sides as the clusters found without the fold tell them.
        sides = [_recovered(clusters[cells], side) for _, clusters in self._refits]
        batch = np.unique(self.batch[cells], return_inverse=True)[1]
        division = _Division(cells, batch, self.fold[cells], sides)
        linear = np.zeros((N_HALVINGS, 2, len(cells)))
        log, scored = np.zeros_like(linear), division.scored
        if not scored.any():
            return HeldOutScores(linear, log, 0.0, scored)
        fold, batch = division.fold[scored], batch[scored]
        for number, halving in enumerate(self.halvings):
            scores = self._gene_scores(halving, halving.linear, division)
            for half in (0, 1):
                held_out = scores[half, scored, fold]
                linear[number, half, scored] = without_means(held_out, fold, batch)
        if structure_p(linear[:, :, scored]) <= max_p:
            self._add_log_scores(division, log)
        return HeldOutScores(linear, log, division.share, scored)

    def _gene_scores(self, halving: Halving, values: np.ndarray, division: _Division) -> np.ndarray:
        """Score cells by genes as they are weighted without each fold: 2 halves x cells x folds."""
        from clustering.significance.kernels import group_sums

        n_genes, n_batches = self.counts.shape[1], int(division.batch.max()) + 1
        matrix = self.counts.indptr, self.counts.indices, values
        groups = division.groups
        sums = group_sums(*matrix, division.cells, groups, 2 * n_batches, n_genes)
        weights = np.zeros((n_genes, N_FOLDS))
        for fold, group in enumerate(groups):
            if division.sides[fold] is not None:
                sizes = np.bincount(group[group >= 0], minlength=2 * n_batches)
                sizes = sizes.reshape(n_batches, 2)
                of_sides = np.moveaxis(sums[fold], -1, 0).reshape(2, n_batches, 2, n_genes)
                weights[:, fold] = gene_weights(*of_sides, sizes, halving.half)
        return self._half_scores(halving, values, division.cells, weights)

    def _half_scores(
        self, halving: Halving, values: np.ndarray, cells: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        from clustering.significance.kernels import half_scores

        matrix = self.counts.indptr, self.counts.indices, values
        return half_scores(*matrix, cells, halving.half, np.ascontiguousarray(weights))

    def _add_log_scores(self, division: _Division, log: np.ndarray) -> None:
        """Fill in the log scores, halvings x 2 halves x cells."""
        cells, batch, groups = division.cells, division.batch, division.groups
        folds = [
            (fold, side, np.flatnonzero(division.fold == fold), groups[fold] >= 0)
            for fold, side in enumerate(division.sides)
            if side is not None and (division.fold == fold).any()
        ]
        joint = {
            fold: _joint(self._refits[fold][1][cells][rows], batch[rows])
            for fold, _, _, rows in folds
        }
        for number, halving in enumerate(self.halvings):
            scores = self._gene_scores(halving, halving.log, division)
            for fold, side, out, rows in folds:
                for half in (0, 1):
                    score, depth = scores[half, :, fold], halving.depth[half][cells]
                    slope = slope_within(joint[fold], depth[rows], score[rows, None])[:, 0]
                    score = score - depth @ slope
                    features = self._features[number][fold][half][cells]
                    log[number, half, out] = (
                        score
                        - midway_between(score, side, batch)
                        + discriminant_scores(features, side, batch)
                    )[out]


@dataclass
class _Division:
    """Cells that are scored on a division."""

    cells: np.ndarray  # positions in the sample
    batch: np.ndarray  # codes without gaps
    fold: np.ndarray
    sides: list[np.ndarray | None]  # without each fold, whose cells have -1; None: not found

    @cached_property
    def scored(self) -> np.ndarray:
        """Cells of the folds without which both sides were found."""
        return np.array([side is not None for side in self.sides])[self.fold]

    @cached_property
    def groups(self) -> np.ndarray:
        """Batch and side of each cell without each fold, -1: none; folds x cells."""
        groups = np.full((len(self.sides), len(self.cells)), -1)
        for group, side in zip(groups, self.sides, strict=True):
            if side is not None:
                group[side >= 0] = (self.batch * 2 + side)[side >= 0]
        return groups

    @property
    def share(self) -> float:
        """Share of the cells that are on side 1, mean over the folds that are scored."""
        sides = [self.sides[fold] for fold in np.unique(self.fold[self.scored])]
        return float(np.mean([(side == 1).sum() / (side >= 0).sum() for side in sides]))


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
    from clustering.significance.kernels import half_scores

    order = np.argsort(totals, kind="stable")
    n_pairs = len(order) // 2
    first = rng.integers(0, 2, n_pairs)
    half = np.zeros(len(order), dtype=np.int64)
    half[order[0 : 2 * n_pairs : 2]] = first
    half[order[1 : 2 * n_pairs : 2]] = 1 - first
    cells = np.arange(counts.shape[0])
    ones = np.ones((len(order), 1))
    matrix = counts.indptr, counts.indices, counts.data
    depths = half_scores(*matrix, cells, half, ones)[:, :, 0].T
    rows, of_half = np.repeat(cells, np.diff(counts.indptr)), half[counts.indices]
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
    from scipy.sparse.linalg import LinearOperator, eigsh

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
    transposed = values.T

    def project(x: np.ndarray) -> np.ndarray:
        return values @ x - (means @ x)[batch]

    def project_back(y: np.ndarray) -> np.ndarray:
        return transposed @ y - np.bincount(batch, weights=y, minlength=len(sizes)) @ means

    def of_cells(y: np.ndarray) -> np.ndarray:
        return project(project_back(y.ravel()))

    def of_genes(x: np.ndarray) -> np.ndarray:
        return project_back(project(x.ravel()))

    # The eigenvectors of the smaller one of the two Gram matrices.
    wide = n_genes > n_cells
    shape = (min(values.shape), min(values.shape))
    gram = LinearOperator(shape, matvec=of_cells if wide else of_genes, dtype=np.float64)
    start = start[: shape[0]]
    _, vectors = eigsh(gram, k=n_components, v0=start, tol=EIGENVALUE_TOLERANCE)
    loadings = np.ascontiguousarray(vectors[:, ::-1])
    if wide:
        projected = transposed @ loadings - means.T @ np.asarray(of_batch.T @ loadings)
        loadings = np.linalg.svd(projected, full_matrices=False)[0]
    # The sign is whatever the iteration ended with.
    loadings *= np.where(loadings[np.abs(loadings).argmax(axis=0), range(n_components)] < 0, -1, 1)
    return loadings, project(loadings)


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
