"""From held-out scores to a verdict: whether a division is noise, gradual or distinct."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from clustering.significance.scores import HeldOutScores

Verdict = Literal["absent", "gradual", "distinct"]

# A step that explains less than this share (as a correlation) is taken for the curvature of a
# bell-shaped cloud: 30 clouds of correlated genes reached 0.06 with 3,000 cells, two types 0.2 to
# 0.6 (docs/significance.md).
NO_STEP = 0.03
# Between two groups with a gap, the middle has at most this share of the cells at the rarer one.
VALLEY = 0.5
# Fewer cells that are scored tell nothing.
MIN_SCORED = 20


class SplitEvidence(NamedTuple):
    """What held-out scores say of a division.

    Attributes
    ----------
    p_structure
        One-sided p value of the two halves of the genes having nothing in common.
    p_step
        The same of a bell-shaped cloud: of the cells' side saying no more of the other half's
        score than a straight line does.
    p_valley
        The same of a unimodal distribution of the scores.
    valley
        Cells in the middle third between the sides, relative to those in an equal window at the
        rarer side; above 1 where there is no valley.
    auc
        Probability that a cell of side 1 scores above one of side 0, by the half of the genes
        that did not tell the side.
    """

    p_structure: float
    p_step: float
    p_valley: float
    valley: float
    auc: float

    @property
    def p(self) -> float:
        """The p value of a division that is no more than noise or one bell-shaped cloud."""
        return max(self.p_structure, self.p_step)

    def verdict(self, alpha: float) -> Verdict:
        """Judge the division at a level of significance."""
        if not self.p <= alpha:
            return "absent"
        return "distinct" if self.p_valley <= alpha and self.valley <= VALLEY else "gradual"


NOTHING = SplitEvidence(1.0, 1.0, 1.0, 1.0, 0.5)


def weigh(scores: HeldOutScores, side: np.ndarray) -> SplitEvidence:
    """Compute what the scores say; means over the halvings of the genes.

    Parameters
    ----------
    scores
        As returned by `clustering.significance.scores.Sample.scores`.
    side
        int of shape (cells,), 0 or 1: where the middle of each side is looked for.
    """
    from scipy.stats import norm

    scored = scores.scored
    if scored.sum() < MIN_SCORED or not 0 < side[scored].mean() < 1:
        return NOTHING
    steps, valleys, areas = [], [], []
    for log in scores.log[:, :, scored]:
        steps.append(_step(log[0], log[1], scores.share))
        valleys.append(_valley(log[0] + log[1], side[scored]))
        areas += [_auc(log[1 - half], is_high(log[half], scores.share)) for half in (0, 1)]
    p_valley, valley = np.mean(valleys, axis=0)
    bound = NO_STEP * np.sqrt(scored.sum())
    return SplitEvidence(
        p_structure=structure_p(scores.linear[:, :, scored]),
        p_step=float(norm.sf(np.mean(steps) - bound)),
        p_valley=float(p_valley),
        valley=float(valley),
        auc=float(np.mean(areas)),
    )


def structure_p(linear: np.ndarray) -> float:
    """Test whether the linear scores of the two halves of the genes have anything in common.

    Parameters
    ----------
    linear
        float64 of shape (halvings, 2 halves, scored cells).
    """
    from scipy.stats import norm

    return float(norm.sf(np.mean([_self_normalized(first * second) for first, second in linear])))


def _self_normalized(products: np.ndarray) -> float:
    """Return the sum of independent terms of mean 0, in units of its standard deviation."""
    norm = np.sqrt((products**2).sum())
    return float(products.sum() / norm) if norm > 0 else 0.0


def is_high(score: np.ndarray, share: float) -> np.ndarray:
    """Check which cells are among the highest by a score, as many as side 1 has."""
    return score > np.quantile(score, 1 - share)


def _step(first: np.ndarray, second: np.ndarray, share: float) -> float:
    """Test whether the side by one score says more of the other than a straight line does."""
    total = np.zeros(len(first))
    for x, y in ((first, second), (second, first)):
        step = _residual(is_high(x, share).astype(float), x)
        residual = _residual(y, x)
        scale = step.std() * residual.std()
        if scale > 0:
            total += step * residual / scale
    return _self_normalized(total)


def _residual(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    x = x - x.mean()
    y = y - y.mean()
    square = x @ x
    return y - x * (x @ y / square) if square > 0 else y


def _valley(score: np.ndarray, side: np.ndarray) -> tuple[float, float]:
    """Compare the middle with the rarer side: p value and ratio.

    A unimodal density is in the middle at least as high as at the lower of the two sides.
    """
    from scipy.stats import binom

    low, high = score[side == 0].mean(), score[side == 1].mean()
    if not high > low:
        return 1.0, 1.0
    reach = (high - low) / 6
    middle, *sides = (
        int((np.abs(score - center) <= reach).sum()) for center in ((low + high) / 2, low, high)
    )
    rarer = min(sides)
    p = binom.cdf(middle, middle + rarer, 0.5) if middle + rarer else 1.0
    return float(p), middle / max(rarer, 1)


def _auc(score: np.ndarray, high: np.ndarray) -> float:
    from scipy.stats import rankdata

    n_high = int(high.sum())
    n_low = len(high) - n_high
    if not n_high or not n_low:
        return 0.5
    ranks = rankdata(score)[high].sum()
    return float((ranks - n_high * (n_high + 1) / 2) / (n_high * n_low))
