"""The inner loops of the rank-sum test, compiled: a gene is sorted once, for all clusterings.

Of its sorted values, those of a segment of cells are sorted too. So the ranks within any segments
and their sums over any clusters follow from walks along them.
"""

from __future__ import annotations

import numpy as np

from utils.jit import compiled

DIGIT = 11  # bits that one pass of the sort orders by
INSERTION = 48  # values up to which an insertion sort is faster
# What is summed for each cluster,
RANKS, VALUES, NEGATIVE, POSITIVE = range(4)
# and counted for each segment: values so far, those below the last one, its bits; the same from the
# largest value on; negative values.
COUNT, BELOW, BITS, COUNT_BACK, ABOVE, BITS_BACK, N_NEGATIVE = range(7)
# Where a clustering is in the arrays of all clusters and segments.
FIRST_CLUSTER, END_CLUSTER, FIRST_SEGMENT, END_SEGMENT, IS_NEW = range(5)
# What is computed of each cluster beside the score.
AUC, LOG2FC, INSIDE, OUTSIDE = range(4)
N_EFFECTS = 4


@compiled()
def transpose(indptr, indices, data, n_genes):
    """Order the values of some cells by gene, then by cell; zeros are left out.

    Parameters
    ----------
    indptr, indices, data
        CSR matrix, at most 65,536 cells x `n_genes`; float32.

    Returns
    -------
    tuple
        `pointers` (uint32 of shape (n_genes + 1,)), `cells` (uint16) and `values` (float32).
    """
    pointers = np.zeros(n_genes + 1, dtype=np.uint32)
    for i in range(data.size):
        pointers[indices[i] + 1] += data[i] != 0
    for gene in range(n_genes):
        pointers[gene + 1] += pointers[gene]
    next_place = pointers[:-1].copy()
    cells = np.empty(pointers[n_genes], dtype=np.uint16)
    values = np.empty(pointers[n_genes], dtype=np.float32)
    for cell in range(indptr.size - 1):
        for i in range(indptr[cell], indptr[cell + 1]):
            if data[i] != 0:
                place = next_place[indices[i]]
                next_place[indices[i]] = place + 1
                cells[place] = cell
                values[place] = data[i]
    return pointers, cells, values


@compiled()
def rank_sum_test(genes, index, thresholds, tie_correct):
    """Test some genes in all clusters of all clusterings.

    Parameters
    ----------
    genes
        An `evaluation.clusters.gene_file.GeneValues`, as a plain tuple: classes would be looked up
        by name in the cache on disk.
    index
        An `evaluation.clusters.markers.ClusterIndex`, as a tuple.
    thresholds
        float64, a score of each cluster: all else is computed of scores above it.
    tie_correct
        Whether the variance is corrected for ties.

    Returns
    -------
    tuple
        `scores` (float64 of shape (genes, clusters); NaN for a cluster without others) and
        `effects` (float32 of shape (genes, clusters, 4), undefined where not computed).
    """
    block_starts, first_cells, pointers, cells, values = genes
    codes, _, _, _, sizes, segment_sizes = index
    n_genes, n_blocks = pointers.shape[1] - 1, first_cells.size
    n_clusters, n_segments = sizes.size, segment_sizes.size
    longest = 0
    for gene in range(n_genes):
        n = 0
        for block in range(n_blocks):
            n += pointers[block, gene + 1] - pointers[block, gene]
        longest = max(longest, n)
    packed, buffer = np.empty(longest, dtype=np.uint64), np.empty(longest, dtype=np.uint64)
    clusters = np.empty(longest, dtype=codes.dtype)
    digits = np.empty((3, 1 << DIGIT), dtype=np.uint32)
    sums, totals = np.empty((n_clusters, 4)), np.empty((n_segments, 3))
    counts, ties = np.empty((n_segments, 8), dtype=np.int64), np.empty(n_segments)
    scores = np.empty((n_genes, n_clusters))
    effects = np.empty((n_genes, n_clusters, N_EFFECTS), dtype=np.float32)
    bits = values.view(np.uint32)
    for gene in range(n_genes):
        n = 0
        low, high = np.uint64(0xFFFFFFFF), np.uint64(0)
        for block in range(n_blocks):
            start = block_starts[block] - pointers[block, 0]
            for i in range(start + pointers[block, gene], start + pointers[block, gene + 1]):
                # Of negative numbers the bits are turned round, to order as the numbers do.
                flip = np.uint32(0xFFFFFFFF if bits[i] >> np.uint32(31) else 1 << 31)
                key = np.uint64(bits[i] ^ flip)
                low, high = min(low, key), max(high, key)
                packed[n] = (key << np.uint64(32)) | np.uint64(first_cells[block] + cells[i])
                n += 1
        ordered, free = packed, buffer
        if n > 1 and _sort(packed, buffer, n, low, high, digits):
            ordered, free = buffer, packed
        sums[:], counts[:], ties[:] = 0, 0, 0
        counts[:, BITS], counts[:, BITS_BACK] = -1, -1
        _sum_ranks(ordered, free, clusters, n, index, sums, counts, ties)
        _score(sums, counts, ties, totals, index, thresholds, tie_correct, scores[gene],
               effects[gene])  # fmt: skip
    return scores, effects


@compiled()
def _sort(packed, buffer, n, low, high, digits):
    """Sort by the upper 32 bits, last digits first; return whether the result is in `buffer`."""
    if n < INSERTION:
        for i in range(1, n):
            item, place = packed[i], i
            while place > 0 and packed[place - 1] >> np.uint64(32) > item >> np.uint64(32):
                packed[place] = packed[place - 1]
                place -= 1
            packed[place] = item
        return False
    n_bits = 0
    while (high - low) >> np.uint64(n_bits):
        n_bits += 1
    n_passes = -(-n_bits // DIGIT)
    if n_passes == 0:
        return False
    width = np.uint64(-(-n_bits // n_passes))
    mask = (np.uint64(1) << width) - np.uint64(1)
    base = low << np.uint64(32)
    digits[:n_passes, : mask + np.uint64(1)] = 0
    for i in range(n):
        key = (packed[i] - base) >> np.uint64(32)
        for p in range(n_passes):
            digits[p, key & mask] += np.uint32(1)
            key >>= width
    for p in range(n_passes):
        total = np.uint32(0)
        for digit in range(mask + np.uint64(1)):
            count = digits[p, digit]
            digits[p, digit] = total
            total += count
        shift = np.uint64(32) + width * np.uint64(p)
        for i in range(n):
            digit = ((packed[i] - base) >> shift) & mask
            buffer[digits[p, digit]] = packed[i]
            digits[p, digit] += np.uint32(1)
        packed, buffer = buffer, packed
    return n_passes % 2 == 1


@compiled()
def _sum_ranks(ordered, free, clusters, n, index, sums, counts, ties):
    """Rank the sorted values of a gene within segments, and sum over clusters."""
    codes, places, order, segments, sizes, _ = index
    halves = ordered.view(np.uint32)
    cells, bits = halves[0 : 2 * n : 2], halves[1 : 2 * n : 2]
    values = ordered.view(np.float32)[1 : 2 * n : 2]
    ranks = free.view(np.float64)
    n_negative = 0
    for i in range(n):
        is_negative = not bits[i] >> np.uint32(31)
        bits[i] ^= np.uint32(0xFFFFFFFF if is_negative else 1 << 31)
        n_negative += is_negative
    for grouping in order:
        of_cells, first = codes[grouping], places[grouping, FIRST_CLUSTER]
        for i in range(n):
            clusters[i] = of_cells[cells[i]]
        start, end = places[grouping, FIRST_SEGMENT], places[grouping, END_SEGMENT]
        if places[grouping, IS_NEW]:
            if end - start == 2 and sizes[first] == 0:
                ties[start + 1] = _rank_all(bits, n, ranks)
                counts[start + 1, COUNT], counts[start + 1, N_NEGATIVE] = n, n_negative
            else:
                of_clusters = segments[first:]
                _count_below(bits, clusters, of_clusters, counts, ranks, 0, n_negative)
                counts[start:end, N_NEGATIVE] = counts[start:end, COUNT]
                _count_below(bits, clusters, of_clusters, counts, ranks, n_negative, n)
                _rank(bits, clusters, of_clusters, counts, ties, ranks, n)
        _add(ranks, values, clusters, sums[first:], n_negative, n, POSITIVE)
        _add(ranks, values, clusters, sums[first:], 0, n_negative, NEGATIVE)


@compiled()
def _rank_all(bits, n, ranks):
    """Rank sorted values; equal ones share the mean of their ranks. Return the tie sum."""
    ties, n_below, up_to = 0.0, 0, n
    for i in range(n):
        n_below = n_below if i > 0 and bits[i] == bits[i - 1] else i
        ranks[i] = n_below
    for i in range(n - 1, -1, -1):
        up_to = up_to if i < n - 1 and bits[i] == bits[i + 1] else i + 1
        length = up_to - ranks[i]
        ties += length * length - 1  # over all that are equal: the cube of their number less it
        ranks[i] = (ranks[i] + up_to + 1) / 2
    return ties


@compiled()
def _count_below(bits, clusters, segments, counts, below, start, end):
    """Count for each of some sorted values those of its segment that are smaller."""
    for i in range(start, end):
        segment = segments[clusters[i]]
        n_before = counts[segment, COUNT]
        is_equal = counts[segment, BITS] == bits[i]
        n_below = counts[segment, BELOW] if is_equal else n_before
        counts[segment, COUNT] = n_before + 1
        counts[segment, BELOW] = n_below
        counts[segment, BITS] = bits[i]
        below[i] = n_below


@compiled()
def _rank(bits, clusters, segments, counts, ties, ranks, n):
    """Turn numbers of smaller values into ranks; equal ones share the mean of theirs."""
    for i in range(n - 1, -1, -1):
        segment = segments[clusters[i]]
        n_before = counts[segment, COUNT_BACK]
        is_equal = counts[segment, BITS_BACK] == bits[i]
        n_above = counts[segment, ABOVE] if is_equal else n_before
        counts[segment, COUNT_BACK] = n_before + 1
        counts[segment, ABOVE] = n_above
        counts[segment, BITS_BACK] = bits[i]
        up_to = counts[segment, COUNT] - n_above
        length = up_to - ranks[i]
        ties[segment] += length * length - 1
        ranks[i] = (ranks[i] + up_to + 1) / 2


@compiled()
def _add(ranks, values, clusters, sums, start, end, sign):
    """Add ranks, values and their number to the sums of their clusters."""
    for i in range(start, end):
        total = sums[clusters[i]]
        total[RANKS] += ranks[i]
        total[VALUES] += values[i]
        total[sign] += 1


@compiled()
def _score(sums, counts, ties, totals, index, thresholds, tie_correct, scores, effects):
    """Turn the sums of a gene into the statistics of each cluster."""
    _, places, _, segments, sizes, segment_sizes = index
    totals[:] = 0  # values, positive values, deviation of a rank sum without the clusters' sizes
    for place in places:
        if place[IS_NEW]:
            for cluster in range(place[FIRST_CLUSTER], place[END_CLUSTER]):
                totals[segments[cluster], 0] += sums[cluster, VALUES]
                totals[segments[cluster], 1] += sums[cluster, POSITIVE]
    # Values that are not stored are zeros: they stand between negative and positive ones.
    for segment in range(segment_sizes.size):
        n = segment_sizes[segment]
        n_zeros = n - counts[segment, COUNT]
        share = (ties[segment] + n_zeros**3 - n_zeros) / (n**3 - n) if tie_correct else 0.0
        totals[segment, 2] = np.sqrt(max(1 - share, 0) * (n + 1) / 12)
    for cluster in range(sizes.size):
        segment = segments[cluster]
        n, n_in = segment_sizes[segment], sizes[cluster]
        n_out = n - n_in
        if n_in == 0 or n_out == 0:
            scores[cluster] = np.nan
            effects[cluster] = np.nan
            continue
        total = sums[cluster]
        n_zeros = n - counts[segment, COUNT]
        zero_rank = counts[segment, N_NEGATIVE] + (n_zeros + 1) / 2
        n_zeros_in = n_in - total[NEGATIVE] - total[POSITIVE]
        rank_sum = total[RANKS] + n_zeros * total[POSITIVE] + n_zeros_in * zero_rank
        spread = totals[segment, 2] * np.sqrt(n_in * n_out)
        score = (rank_sum - n_in * (n + 1) / 2) / spread if spread > 0 else 0.0
        scores[cluster] = score
        if score > thresholds[cluster]:
            effect = effects[cluster]
            effect[AUC] = (rank_sum - n_in * (n_in + 1) / 2) / (n_in * n_out)
            mean_in = total[VALUES] / n_in
            mean_out = (totals[segment, 0] - total[VALUES]) / n_out
            effect[LOG2FC] = np.log2((np.expm1(mean_in) + 1e-9) / (np.expm1(mean_out) + 1e-9))
            effect[INSIDE] = total[POSITIVE] / n_in
            effect[OUTSIDE] = (totals[segment, 1] - total[POSITIVE]) / n_out
