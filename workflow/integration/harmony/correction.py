"""Harmony's correction step: a ridge regression per cluster, whose batch effects are subtracted.

For every cluster k the cells are regressed on an intercept and their batches' indicators with
weights R_k. Batch b has the penalty lambda_bk, the intercept none. A cell's correction is its
batches' coefficients averaged over clusters with weights R; the intercepts, scaled to unit
length, are Harmony 2's next centroids.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from integration.batches import EncodedBatches


def included_levels(
    observed: np.ndarray, batches: EncodedBatches, batch_prune_threshold: float | None
) -> np.ndarray:
    """Choose the levels that take part in each cluster's regression.

    A level of which less than ``batch_prune_threshold`` of the cells are in the cluster is left
    out, and so is a key that has fewer than two levels left. Returns booleans, shape
    (n_levels, n_clusters).
    """
    included = np.ones(observed.shape, dtype=bool)
    if batch_prune_threshold is not None:
        included = observed / batches.sizes[:, None] >= batch_prune_threshold
    stops = np.cumsum(batches.levels_per_key)
    for start, stop in itertools.pairwise([0, *stops]):
        key_included = included[start:stop]
        key_included[:, key_included.sum(axis=0) < 2] = False
    return included


def ridge_regression(
    counts: np.ndarray,
    sums: np.ndarray,
    penalty: np.ndarray,
    included: np.ndarray,
    batches: EncodedBatches,
) -> tuple[np.ndarray, np.ndarray]:
    """Solve the ridge regression of every cluster.

    Parameters
    ----------
    counts
        R summed over the cells of every combination, shape (n_combinations, n_clusters).
    sums
        R' z summed in the same way, shape (n_combinations, n_clusters, n_dims).
    penalty, included
        Ridge penalty lambda, and result of `included_levels`, shape (n_levels, n_clusters).
    batches
        The encoded batches.

    Returns
    -------
    Coefficients of the levels, shape (n_levels, n_clusters, n_dims), zero where left out, and the
    intercepts, shape (n_clusters, n_dims), zero for a cluster without any included level.
    """
    if len(batches.levels_per_key) == 1:
        return _solve_one_key(counts, sums, penalty, included)
    return _solve_several_keys(counts, sums, penalty, included, batches)


def _solve_one_key(
    counts: np.ndarray, sums: np.ndarray, penalty: np.ndarray, included: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Solve the arrowhead system in closed form, all clusters at once.

    Eliminating w_b = (s_b - r_b w_0) / (r_b + lambda_b) from the intercept's row gives
    w_0 = sum_b(g_b s_b) / sum_b(g_b r_b) with g_b = lambda_b / (r_b + lambda_b).
    """
    diagonal = np.where(included, counts + penalty, 1)
    diagonal[diagonal <= 0] = 1  # an empty cluster
    shrink = np.where(included, penalty / diagonal, 0)
    weight = (shrink * counts).sum(axis=0)
    usable = weight > 0
    intercepts = np.einsum("bk,bkd->kd", shrink, sums)
    intercepts[usable] /= weight[usable, None]
    intercepts[~usable] = 0
    coefficients = sums - counts[:, :, None] * intercepts
    coefficients *= np.where(included & usable, 1 / diagonal, 0)[:, :, None]
    return coefficients, intercepts


def _solve_several_keys(
    counts: np.ndarray,
    sums: np.ndarray,
    penalty: np.ndarray,
    included: np.ndarray,
    batches: EncodedBatches,
) -> tuple[np.ndarray, np.ndarray]:
    """Solve the normal equations of each cluster."""
    n_levels, n_clusters = included.shape
    n_keys = len(batches.levels_per_key)
    membership = batches.membership()
    coefficients = np.zeros((n_levels, n_clusters, sums.shape[2]))
    intercepts = np.zeros((n_clusters, sums.shape[2]))
    levels = batches.levels
    pairs = (levels[:, :, None] * n_levels + levels[:, None, :]).ravel()  # co-occurring levels
    for cluster in range(n_clusters):
        columns = np.flatnonzero(included[:, cluster])
        taking_part = included[levels, cluster].any(axis=1)  # leaves out cells without any level
        count = np.where(taking_part, counts[:, cluster], 0)
        total = count.sum()
        if total <= 0 or not len(columns):
            continue
        table = np.bincount(pairs, np.repeat(count, n_keys**2), minlength=n_levels**2)
        table = table.reshape(n_levels, n_levels)[np.ix_(columns, columns)]
        system = np.empty((len(columns) + 1, len(columns) + 1))
        system[0, 0] = total
        system[0, 1:] = system[1:, 0] = np.diag(table)
        system[1:, 1:] = table + np.diag(penalty[columns, cluster])
        right_side = np.empty((len(columns) + 1, sums.shape[2]))
        right_side[0] = sums[taking_part, cluster].sum(axis=0)
        right_side[1:] = (membership @ sums[:, cluster])[columns]
        solution = np.linalg.solve(system, right_side)
        intercepts[cluster] = solution[0]
        coefficients[columns, cluster] = solution[1:]
    return coefficients, intercepts
