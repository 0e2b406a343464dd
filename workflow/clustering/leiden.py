"""The Leiden algorithm, compiled: Traag, Waltman & van Eck 2019 (doi:10.1038/s41598-019-41695-z).

Nodes move one after the other, each seeing the moves before, which array operations cannot express.
The graph is read as it is stored, 8 bytes per weight; the aggregated ones are much smaller.
"""

from __future__ import annotations

import numpy as np

from utils.jit import compiled

# Farthest that shuffling moves a node: neighbors in memory are visited close in time.
REACH = 1024


@compiled()
def optimize(indptr, indices, weights, resolution, beta, n_iterations, seed):
    """Return communities of high modularity.

    Parameters
    ----------
    indptr, indices, weights
        A symmetric CSR matrix, int64, int32 and float32: weights of at least 0, nothing on the
        diagonal.
    resolution
        Factor of the expected weight.
    beta
        Randomness of the refinement, in units of weight; 0 leaves the refinement out, which is
        Louvain (Blondel et al. 2008).
    n_iterations
        Times that moving, refining and aggregating restart from all nodes; below 0: until nothing
        moves.
    seed
        uint64.

    Returns
    -------
    numpy.ndarray
        int32, a community for every node, numbered arbitrarily.
    """
    n = indptr.size - 1
    strength = np.zeros(n)
    for node in range(n):
        for j in range(indptr[node], indptr[node + 1]):
            strength[node] += weights[j]
    gamma = resolution / strength.sum()
    random = np.empty(1, np.uint64)
    random[0] = seed
    community = np.arange(n, dtype=np.int32)
    iteration = 0
    while iteration != n_iterations:
        iteration += 1
        moved = _one_iteration(indptr, indices, weights, strength, community, gamma, beta, random)
        if not moved:
            break
    return community


@compiled()
def _one_iteration(indptr, indices, weights, strength, community, gamma, beta, random):
    """Improve `community` in place, at this level and all above; return whether a node moved."""
    n = strength.size
    # The node of the current level that holds each cell.
    holder = np.arange(n, dtype=np.int32)
    here = community.copy()
    any_moved = False
    while True:
        moved = _move_nodes(indptr, indices, weights, strength, here, gamma, random)
        any_moved = any_moved or moved
        n_communities = _renumber(here)
        for cell in range(n):
            community[cell] = here[holder[cell]]
        if n_communities == here.size:
            return any_moved
        part, n_parts = here.copy(), n_communities
        if beta > 0:
            refined = _refine(
                indptr, indices, weights, strength, here, n_communities, gamma, beta, random
            )
            n_refined = _renumber(refined)
            # Where no nodes may merge within a community, the communities are aggregated.
            if n_refined < here.size:
                part, n_parts = refined, n_refined
        indptr, indices, weights, strength, above = _aggregate(
            indptr, indices, weights, strength, here, part, n_parts
        )
        here = above
        for cell in range(n):
            holder[cell] = part[holder[cell]]


@compiled()
def _draw(random, below):
    """Return an integer from 0 to below `below` (splitmix64)."""
    random[0] += np.uint64(0x9E3779B97F4A7C15)
    z = random[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    # The upper 32 bits scaled: the same as a remainder, without a division.
    return np.int64(((z >> np.uint64(32)) * np.uint64(below)) >> np.uint64(32))


@compiled()
def _shuffled(n, random):
    """Return the numbers from 0 to n - 1 in random order, most of them near their position."""
    order = np.arange(n, dtype=np.int32)
    for i in range(n - 1, 0, -1):
        j = i - _draw(random, min(i + 1, REACH))
        order[i], order[j] = order[j], order[i]
    return order


@compiled()
def _renumber(labels):
    """Renumber labels in place by first appearance, without gaps; return how many there are."""
    number = np.full(labels.size, -1, dtype=np.int32)
    count = 0
    for i in range(labels.size):
        if number[labels[i]] < 0:
            number[labels[i]] = count
            count += 1
        labels[i] = number[labels[i]]
    return count


@compiled()
def _move_nodes(indptr, indices, weights, strength, community, gamma, random):
    """Move nodes to the community of most gain, in place, until none gains."""
    n = strength.size
    total = np.zeros(n)
    size = np.zeros(n, dtype=np.int32)
    for node in range(n):
        total[community[node]] += strength[node]
        size[community[node]] += 1
    empty = np.empty(n, dtype=np.int32)
    n_empty = 0
    for c in range(n):
        if size[c] == 0:
            empty[n_empty] = c
            n_empty += 1
    queue = _shuffled(n, random)
    waiting = np.ones(n, dtype=np.bool_)
    towards = np.zeros(n)
    touched = np.empty(n, dtype=np.int32)
    first, length = 0, n
    any_moved = False
    while length:
        node = queue[first]
        first = first + 1 if first + 1 < n else 0
        length -= 1
        waiting[node] = False
        current = community[node]
        n_touched = 0
        for j in range(indptr[node], indptr[node + 1]):
            c = community[indices[j]]
            if towards[c] == 0:
                touched[n_touched] = c
                n_touched += 1
            towards[c] += weights[j]
        k = strength[node] * gamma
        total[current] -= strength[node]
        size[current] -= 1
        best, best_gain = current, towards[current] - k * total[current]
        for i in range(n_touched):
            c = touched[i]
            gain = towards[c] - k * total[c]
            towards[c] = 0
            if gain > best_gain + 1e-10 * strength[node]:
                best, best_gain = c, gain
        if best_gain < 0 and size[current]:
            n_empty -= 1
            best = empty[n_empty]
        total[best] += strength[node]
        size[best] += 1
        if best == current:
            continue
        if size[current] == 0:
            empty[n_empty] = current
            n_empty += 1
        community[node] = best
        any_moved = True
        for j in range(indptr[node], indptr[node + 1]):
            other = indices[j]
            if not waiting[other] and community[other] != best:
                waiting[other] = True
                last = first + length
                queue[last if last < n else last - n] = other
                length += 1
    return any_moved


@compiled()
def _refine(indptr, indices, weights, strength, community, n_communities, gamma, beta, random):
    """Merge single nodes within their communities, only where well connected; return the parts."""
    n = strength.size
    community_total = np.zeros(n_communities)
    for node in range(n):
        community_total[community[node]] += strength[node]
    part = np.arange(n, dtype=np.int32)
    total = strength.copy()
    alone = np.ones(n, dtype=np.bool_)
    # Weight from each part to the others of its community.
    outside = np.zeros(n)
    for node in range(n):
        for j in range(indptr[node], indptr[node + 1]):
            if community[indices[j]] == community[node]:
                outside[node] += weights[j]
    towards = np.zeros(n)
    touched = np.empty(n, dtype=np.int32)
    gain = np.empty(n)
    for node in _shuffled(n, random):
        rest = community_total[community[node]]
        k = strength[node] * gamma
        if not alone[node] or outside[node] < k * (rest - strength[node]):
            continue
        n_touched = 0
        for j in range(indptr[node], indptr[node + 1]):
            if community[indices[j]] == community[node]:
                c = part[indices[j]]
                if towards[c] == 0:
                    touched[n_touched] = c
                    n_touched += 1
                towards[c] += weights[j]
        # Alone, which gains nothing, is one of the choices.
        best_gain = 0.0
        for i in range(n_touched):
            c = touched[i]
            gain[i] = towards[c] - k * total[c]
            if outside[c] < gamma * total[c] * (rest - total[c]):
                gain[i] = -1
            best_gain = max(best_gain, gain[i])
        chances = np.exp(-best_gain / beta)
        for i in range(n_touched):
            if gain[i] >= 0:
                chances += np.exp((gain[i] - best_gain) / beta)
        left = chances * (_draw(random, 1 << 32) / 4294967296.0) - np.exp(-best_gain / beta)
        chosen = node
        for i in range(n_touched):
            if left >= 0 and gain[i] >= 0:
                left -= np.exp((gain[i] - best_gain) / beta)
                chosen = touched[i]
        if chosen != node:
            part[node] = chosen
            alone[chosen] = False
            total[chosen] += strength[node]
            outside[chosen] += outside[node] - 2 * towards[chosen]
        for i in range(n_touched):
            towards[touched[i]] = 0
    return part


@compiled()
def _aggregate(indptr, indices, weights, strength, community, part, n_parts):
    """Return the graph of the parts, CSR and strengths, and the community of each."""
    n = strength.size
    above = np.empty(n_parts, dtype=np.int32)
    sums = np.zeros(n_parts)
    starts = np.zeros(n_parts + 1, dtype=np.int64)
    for node in range(n):
        above[part[node]] = community[node]
        sums[part[node]] += strength[node]
        starts[part[node] + 1] += 1
    starts = np.cumsum(starts)
    members = np.empty(n, dtype=np.int32)
    filled = starts[:-1].copy()
    for node in range(n):
        members[filled[part[node]]] = node
        filled[part[node]] += 1
    # Allocated for the largest possible size; pages that are not written take no memory.
    new_indptr = np.zeros(n_parts + 1, dtype=np.int64)
    new_indices = np.empty(indices.size, dtype=np.int32)
    new_weights = np.empty(indices.size, dtype=np.float32)
    towards = np.zeros(n_parts)
    end = 0
    for p in range(n_parts):
        start = end
        for m in range(starts[p], starts[p + 1]):
            node = members[m]
            for j in range(indptr[node], indptr[node + 1]):
                c = part[indices[j]]
                if c == p:
                    continue
                if towards[c] == 0:
                    new_indices[end] = c
                    end += 1
                towards[c] += weights[j]
        for j in range(start, end):
            new_weights[j] = towards[new_indices[j]]
            towards[new_indices[j]] = 0
        new_indptr[p + 1] = end
    return new_indptr, new_indices[:end].copy(), new_weights[:end].copy(), sums, above
