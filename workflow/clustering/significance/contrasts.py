"""Differences between the two sides of a division, within batches."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Genes whose t is not larger than this do not count.
THRESHOLD = 1.0
# Towards a multiple of the identity, of the components' covariance within the sides.
SHRINKAGE = 0.1
# The offset of a batch counts as much as that of all with so many cells.
PRIOR_CELLS = 5
# A side needs so many cells among those that are not held out.
MIN_SIDE = 3


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


def gene_weights(
    sums: np.ndarray, squares: np.ndarray, sizes: np.ndarray, half: np.ndarray
) -> np.ndarray:
    """Weight each gene by its soft-thresholded t statistic between the sides.

    Arguments are of shape (batches, 2 sides[, genes]); `half` is that of each gene. The score of
    either half has variance 1 within the sides.
    """
    contrast = _contrast(sums, squares, sizes)
    if contrast is None or not contrast.variance.any():
        return np.zeros(sums.shape[-1])
    positive = contrast.variance[contrast.variance > 0]
    # A gene of little variance would have any t.
    variance = contrast.variance + 0.1 * np.median(positive)
    t = contrast.difference * np.sqrt(contrast.weight / variance)
    weights = np.sign(t) * np.maximum(np.abs(t) - THRESHOLD, 0) / np.sqrt(variance)
    norms = np.sqrt([(weights**2 * variance * (half == number)).sum() for number in (0, 1)])
    return weights / np.where(norms > 0, norms, 1)[half]


def slope_within(group: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Regress `y` on `x` within groups, with the same slopes in each."""
    return np.linalg.lstsq(_centered(x, group), _centered(y, group), rcond=None)[0]


def _centered(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    sizes = np.maximum(np.bincount(group), 1)
    means = _sums_by(group, values, len(sizes)) / sizes[:, None]
    return values - means[group]


def _sums_by(group: np.ndarray, values: np.ndarray, n_groups: int) -> np.ndarray:
    """Sum rows by group, in their order; returns groups x columns."""
    n_columns = values.shape[1]
    place = group[:, None] * n_columns + np.arange(n_columns)
    sums = np.bincount(place.ravel(), weights=values.ravel(), minlength=n_groups * n_columns)
    return sums.reshape(n_groups, n_columns)


def without_means(score: np.ndarray, fold: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Subtract the means of folds and batches."""
    for _ in range(4):
        for group in (fold, batch):
            score = _centered(score[:, None], group)[:, 0]
    return score


def midway_between(score: np.ndarray, side: np.ndarray, batch: np.ndarray) -> np.ndarray:
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


def discriminant_scores(features: np.ndarray, side: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Score cells by the linear discriminant of the sides, of variance 1 within them."""
    known = side >= 0
    n_batches, n_features = int(batch.max()) + 1, features.shape[1]
    group = batch[known] * 2 + side[known]
    sizes = np.bincount(group, minlength=2 * n_batches).reshape(n_batches, 2)
    shape = (n_batches, 2, n_features)
    sums, squares = (
        _sums_by(group, x, 2 * n_batches).reshape(shape)
        for x in (features[known], features[known] ** 2)
    )
    contrast = _contrast(sums, squares, sizes)
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
    return score - midway_between(score, side, batch)
