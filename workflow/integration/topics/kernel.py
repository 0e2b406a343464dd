"""The inner loop of the topic model, compiled: one pass over the rows of a sparse matrix.

Arrays alone do not get there. Every coordinate step needs the ratio of a row's counts to their
rates, which the step before has changed: in NumPy that is eight passes over memory per topic and
step, here one vectorized loop over values that stay in the cache. The first run of an installation
compiles for two to three seconds; the result is kept beside this file (or where ``NUMBA_CACHE_DIR``
says) and takes half a second to load.
"""

from __future__ import annotations

import numpy as np

from utils.jit import compiled

# Sums may be reordered, NaN stays NaN.
_FAST = {"reassoc", "contract", "nsz", "arcp"}


# Inlined: as a function of its own it would be optimized once alone and once within `sweep`, and
# rounds otherwise in the run that compiles than in those that load the compiled code.
@compiled(fastmath=_FAST, forceinline=True)
def _slopes(counts, rates, moved, step, feature):
    """Move the rates by `step` along `moved`, then return both sums of Newton's step."""
    first = step - step  # zero of the same type
    second = first
    for j in range(counts.size):
        rate = rates[j] + step * moved[j]
        rates[j] = rate
        ratio = feature[j] / rate
        weighted = counts[j] * ratio
        first += weighted
        second += weighted * ratio
    return first, second


@compiled(fastmath=_FAST)
def sweep(
    indptr, indices, data, other, total, factor, start, stop, n_inner, em, floor, residual, fit
):
    """Update rows of one factor in place, the other factor held fixed.

    Minimizes, for each row, ``sum_k l_k u_k - sum_j x_j log(sum_k l_k f_jk)`` over l >= 0.

    Parameters
    ----------
    indptr, indices, data
        The counts as CSR, rows as in `factor`; indices uint32.
    other
        The fixed factor f, columns of the matrix x topics.
    total
        u, the column sums of `other`.
    factor
        l, rows of the matrix x topics; rows `start` to `stop` are updated.
    n_inner
        Rounds of coordinate descent; 0 with `em` false only measures.
    em
        One multiplicative (EM) update instead.
    floor
        Smallest value of a factor.
    residual
        float64, per row: on return the counts that are out of place before the update.
    fit
        float64, per row: on return sum_j x_j log(x_j / rate_j), where only measured.
    """
    n_topics = other.shape[1]
    longest = 0
    for i in range(start, stop):
        longest = max(longest, indptr[i + 1] - indptr[i])
    table = np.empty((n_topics + 3, longest), data.dtype)
    zero = floor - floor
    one = zero + data.dtype.type(1)
    for i in range(start, stop):
        first = indptr[i]
        n = indptr[i + 1] - first
        counts, rates, ratio = table[-1, :n], table[-2, :n], table[-3, :n]
        values = factor[i]
        size = zero
        for j in range(n):
            features = other[indices[first + j]]
            rate = zero
            for k in range(n_topics):
                table[k, j] = features[k]
                rate += values[k] * features[k]
            count = data[first + j]
            counts[j] = count
            rates[j] = rate
            ratio[j] = count / rate
            size += count
        # How far the row is from its KKT conditions: its topics' shares p and the derivatives d,
        # both without a unit, have min(p, d) = 0 at the optimum. One topic is at most one row off.
        out_of_place = 0.0
        for k in range(n_topics):
            feature = table[k, :n]
            explained = zero
            for j in range(n):
                explained += ratio[j] * feature[j]
            slope = one - explained / total[k]
            share = values[k] * total[k] / size
            out_of_place += min(one, abs(min(share, slope)))
            if em:
                values[k] = max(values[k] * explained / total[k], floor)
        residual[i] = out_of_place * size
        if em:
            continue
        if n_inner == 0:
            gain = 0.0
            for j in range(n):
                gain += counts[j] * np.log(ratio[j])
            fit[i] = gain
        moved, step = 0, zero
        for _ in range(n_inner):
            for k in range(n_topics):
                explained, curvature = _slopes(counts, rates, table[moved, :n], step, table[k, :n])
                old = values[k]
                # Newton's step never passes the optimum from below; from above it can, by far,
                # so a value falls to a tenth at most.
                new = old + (explained - total[k]) / (curvature + floor)
                values[k] = max(new, old / 10, floor)
                moved, step = k, values[k] - old
