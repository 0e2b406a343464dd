"""Measure whether the assumptions of MNN hold at each merge, and note where they do not.

Haghverdi 2018 assumes (i) a population that both batches have, (ii) a batch effect that is almost
orthogonal to the biology, (iii) a batch effect that is much smaller than the differences between
cell types. Each has a few measures; a measure beyond its bound is a note.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from integration.batches import factorize
from numerics.kmeans import kmeans
from utils.log import say
from utils.threads import workers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from integration.mnn.arguments import MNNBatches
    from integration.mnn.orders import Part

FEW_CELLS = 20  # in pairs, below which the batch effect is uncertain
MUCH_LOST = 0.1  # share of a batch's variance
LOW_SIZE = 0.5  # batch size below which the vectors do not agree
SMALL_CLUSTER = 10  # cells, below which a cluster often has no pairs by chance
# Preliminary clusters of a batch: cells for each, the maximum, cells that k-means runs on.
CELLS_PER_CLUSTER, MAX_CLUSTERS, KMEANS_CELLS = 50, 20, 10_000
BIOLOGY = 0.9  # share of the variance between clusters that spans the biological subspace
MAX_PAIRS = 100_000  # whose distances are measured


@dataclass(frozen=True)
class Clusters:
    """Preliminary clusters within batches.

    Attributes
    ----------
    label
        Cluster of every cell, -1 for none.
    names
        Name of every cluster.
    """

    label: np.ndarray
    names: tuple[str, ...]


def find_clusters(
    cells: np.ndarray, batches: MNNBatches, clusters: Any, *, threads: int, seed: int
) -> Clusters:
    """Take the given clusters, or run k-means in every batch.

    Parameters
    ----------
    cells
        Cells x dimensions.
    batches
        Their batches.
    clusters
        One label per cell (the same label in two batches are two clusters), or None.
    """
    if clusters is not None:
        label, names = factorize(clusters)
        if len(label) != len(cells):
            raise ValueError(f"there are {len(cells)} cells but {len(label)} clusters")
        return Clusters(label, tuple(map(str, names)))
    label = np.zeros(len(cells), dtype=np.intp)
    rng = np.random.default_rng(seed)
    n_clusters = 1
    with workers(threads) as run:
        for number in range(len(batches.labels)):
            rows = np.flatnonzero(batches.codes == number)
            count = min(MAX_CLUSTERS, max(1, len(rows) // CELLS_PER_CLUSTER))
            sample = cells[np.sort(rng.choice(rows, min(len(rows), KMEANS_CELLS), replace=False))]
            centers = kmeans(sample, count, rng=rng, run=run, init="k-means++")
            half = (centers**2).sum(axis=1) / 2
            for start in range(0, len(rows), KMEANS_CELLS):
                part = rows[start : start + KMEANS_CELLS]
                label[part] = (cells[part] @ centers.T - half).argmax(axis=1)
            n_clusters = max(n_clusters, count)
    return Clusters(label, tuple(str(number) for number in range(n_clusters)))


def describe(
    sides: tuple[Part, Part],
    data: tuple[np.ndarray, np.ndarray],
    pairs: np.ndarray,
    direction: np.ndarray,
    batches: MNNBatches,
    clusters: Clusters,
) -> tuple[dict[str, Any], list[str]]:
    """Measure a merge before it moves a cell.

    Parameters
    ----------
    sides
        The left and the right part.
    data
        Their coordinates.
    pairs
        Positions left and right of the cells in pairs.
    direction
        The mean of the vectors from right to left.
    batches, clusters
        Of all cells.

    Returns
    -------
    dict
        ``left``, ``right`` (names of the batches, joined by +), ``n_pairs``, ``pairs`` (rows of
        the input), ``left_paired`` and ``right_paired`` (share of the cells that are in pairs),
        ``paired_{batch}`` (the same per batch), ``unpaired_clusters``; ``bio_alignment`` (share
        of the length of `direction` within the biological subspace) and ``random_alignment`` (what
        a random direction has: the root of the share of dimensions); ``effect_ratio`` (square of
        that length over the variance between clusters), ``pair_distance`` (median distance of
        pairs over the median distance between neighboring centroids).
    list of str
        Notes on these, one line each.
    """
    names = [_short(part, batches) for part in sides]
    cells = np.stack([part.cells[pairs[:, side]] for side, part in enumerate(sides)], axis=1)
    row: dict[str, Any] = {
        "left": "+".join(map(batches.name, sides[0].batches)),
        "right": "+".join(map(batches.name, sides[1].batches)),
        "n_pairs": len(pairs),
        "pairs": cells[np.lexsort((cells[:, 1], cells[:, 0]))],
    }
    notes: list[str] = []
    unpaired: list[str] = []
    in_pairs = []
    for side, part in enumerate(sides):
        paired = np.zeros(len(part.cells), dtype=bool)
        paired[pairs[:, side]] = True
        pairable = np.ones_like(paired)
        if part.pairable is not None:
            pairable[:] = False
            pairable[part.pairable] = True
        row[("left_paired", "right_paired")[side]] = paired.sum() / pairable.sum()
        in_pairs.append(int(paired.sum()))
        for number, start, stop in _segments(part):
            rows = slice(start, stop)
            row[f"paired_{batches.name(number)}"] = paired[rows].sum() / pairable[rows].sum()
            unpaired += _unpaired(
                batches.name(number),
                clusters.label[part.cells[rows]][pairable[rows]],
                paired[rows][pairable[rows]],
                clusters.names,
            )
    if min(in_pairs) < FEW_CELLS:
        notes.append(
            f"only {in_pairs[0]} cells of {names[0]} and {in_pairs[1]} of {names[1]} are in pairs: "
            f"fewer than {FEW_CELLS} say little about the batch effect"
        )
    notes += _unpaired_batches(sides, pairs, batches)
    row["unpaired_clusters"] = "; ".join(unpaired)
    if unpaired:
        notes.append(f"without pairs, batch-specific or mismatched: {'; '.join(unpaired)}")
    measures, more = _compare_with_biology(sides, data, pairs, direction, clusters, names)
    return {**row, **measures}, notes + more


def describe_loss(
    row: dict[str, Any],
    sides: tuple[Part, Part],
    lost: dict[int, float],
    batches: MNNBatches,
    notes: list[str],
) -> None:
    """Add the share of its variance that each batch lost to the row of a merge, and notes on it."""
    for number in range(len(batches.labels)):
        row[f"lost_var_{batches.name(number)}"] = lost.get(number, 0.0)
    large = {number: share for number, share in lost.items() if share > MUCH_LOST}
    if not large:
        return
    named = ", ".join(f"{batches.name(number)} {share:.0%}" for number, share in large.items())
    if row["batch_size"] < LOW_SIZE:
        notes.append(
            f"no consistent batch effect between {_short(sides[0], batches)} and "
            f"{_short(sides[1], batches)}, but it costs variance ({named}): min_batch_skip above "
            f"{row['batch_size']:.2f} leaves them as they are"
        )
    else:
        notes.append(
            f"removing the batch effect took much of the variance ({named}): was it biology?"
        )


def dimensions(cells: np.ndarray) -> int:
    """Count the dimensions that an embedding fills; proportions of K topics fill K - 1."""
    return cells.shape[1] - int(on_simplex(cells))


def on_simplex(cells: np.ndarray) -> bool:
    """Whether every row is a composition: nothing negative, sum 1."""
    return cells.min() >= 0 and bool(np.allclose(cells.sum(axis=1), 1, atol=1e-4))


def dimensions_note(n_dims: int, n_removed: int) -> str | None:
    """Return a note where the batch vectors cost a third of the dimensions or more."""
    if n_removed == 0 or n_removed < n_dims / 3:
        return None
    return (
        f"{n_removed} batch vectors were removed from {n_dims} dimensions, "
        f"{n_removed / n_dims:.0%}: more dimensions (topics) would lose less"
    )


def merge_table(rows: Sequence[dict[str, Any]], batches: MNNBatches) -> pd.DataFrame:
    """Make a table of all merges: what `describe` and `describe_loss` return, and the notes."""
    import pandas as pd

    names = [batches.name(number) for number in range(len(batches.labels))]
    columns = [
        *("left", "right", "n_pairs", "batch_size", "skipped"),
        *(f"lost_var_{name}" for name in names),
        *("left_paired", "right_paired"),
        *(f"paired_{name}" for name in names),
        *("bio_alignment", "random_alignment", "effect_ratio", "pair_distance"),
        *("unpaired_clusters", "notes", "pairs"),
    ]
    return pd.DataFrame(rows, columns=columns)


def say_merge(
    row: dict[str, Any], sides: tuple[Part, Part], batches: MNNBatches, number: int
) -> None:
    """Report a merge: one line, and one for each note."""
    left, right = (_short(part, batches) for part in sides)
    lost = [(share, name[9:]) for name, share in row.items() if name.startswith("lost_var_")]
    largest = max((item for item in lost if item[0] == item[0]), default=None)
    say(
        f"merge {number} of {len(batches.labels) - 1}, {left} <- {right}: {row['n_pairs']:,} pairs "
        f"of {row['left_paired']:.0%} and {row['right_paired']:.0%} of the cells, batch size "
        f"{row['batch_size']:.2f}{', skipped' if row['skipped'] else ''}"
        + (f", most variance lost {largest[0]:.1%} ({largest[1]})" if largest else "")
    )
    for note in row["notes"]:
        say(f"  {note}")


def _short(part: Part, batches: MNNBatches) -> str:
    """Name a part by its first batch and the number of others."""
    more = len(part.batches) - 1
    return batches.name(part.batches[0]) + (f" and {more} more" if more else "")


def _segments(part: Part) -> list[tuple[int, int, int]]:
    """List the batches of a part with their first cell and the end."""
    return [
        (number, int(part.edges[i]), int(part.edges[i + 1]))
        for i, number in enumerate(part.batches)
    ]


def _unpaired(
    name: str, label: np.ndarray, paired: np.ndarray, names: tuple[str, ...]
) -> list[str]:
    """Name the clusters of a batch without a cell in a pair."""
    known = label >= 0
    sizes = np.bincount(label[known], minlength=len(names))
    hits = np.bincount(label[known & paired], minlength=len(names))
    alone = np.flatnonzero((hits == 0) & (sizes >= SMALL_CLUSTER))
    if not len(alone):
        return []
    listed = ", ".join(f"{names[cluster]} ({sizes[cluster]} cells)" for cluster in alone)
    return [f"{name} cluster {listed}"]


def _unpaired_batches(
    sides: tuple[Part, Part], pairs: np.ndarray, batches: MNNBatches
) -> list[str]:
    """Name the batches that share no pair."""
    left, right = (
        np.searchsorted(part.edges, pairs[:, side], side="right") - 1
        for side, part in enumerate(sides)
    )
    together = np.zeros((len(sides[0].batches), len(sides[1].batches)), dtype=bool)
    together[left, right] = True
    notes = []
    for j, number in enumerate(sides[1].batches):
        others = [batches.name(sides[0].batches[i]) for i in np.flatnonzero(~together[:, j])]
        if others:
            plural = "batches" if len(others) > 1 else "batch"
            size = int(sides[1].edges[j + 1] - sides[1].edges[j])
            notes.append(
                f"batch {batches.name(number)} and {plural} {', '.join(others)} share no "
                f"population: 0 of {size:,} cells are in pairs"
            )
    return notes


def _compare_with_biology(
    sides: tuple[Part, Part],
    data: tuple[np.ndarray, np.ndarray],
    pairs: np.ndarray,
    direction: np.ndarray,
    clusters: Clusters,
    names: list[str],
) -> tuple[dict[str, float], list[str]]:
    """Compare the batch effect with the differences between clusters of the same batch."""
    dims = len(direction)
    scatter = np.zeros((dims, dims))
    gaps: list[np.ndarray] = []
    n_batches = 0
    for part, cells in zip(sides, data, strict=True):
        for _, start, stop in _segments(part):
            centers, sizes = _centroids(
                cells[start:stop], clusters.label[part.cells[start:stop]], len(clusters.names)
            )
            if len(centers) < 2:
                continue
            n_batches += 1
            shares = sizes / sizes.sum()
            centered = centers - shares @ centers
            scatter += (centered * shares[:, None]).T @ centered
            apart = np.linalg.norm(centers[:, None] - centers[None], axis=2)
            np.fill_diagonal(apart, np.inf)
            gaps.append(apart.min(axis=1))
    length = float(np.linalg.norm(direction))
    measures = dict.fromkeys(
        ("bio_alignment", "random_alignment", "effect_ratio", "pair_distance"), np.nan
    )
    if not n_batches:
        return measures, []
    notes = []
    scatter /= n_batches
    variance, axes = np.linalg.eigh(scatter)
    variance, axes = np.maximum(variance[::-1], 0), axes[:, ::-1]
    total = float(variance.sum())
    if total > 0 and length > 0:
        rank = int(np.searchsorted(np.cumsum(variance), BIOLOGY * total)) + 1
        aligned = float(np.linalg.norm(direction @ axes[:, :rank]) / length)
        random = float(np.sqrt(rank / dims))
        measures |= {"bio_alignment": aligned, "random_alignment": random}
        if aligned > (1 + random) / 2:
            notes.append(
                f"the batch effect lies along the biology: {aligned:.2f} of its length is within "
                f"the {rank} of {dims} dimensions that separate clusters, {random:.2f} by chance"
            )
        measures["effect_ratio"] = length**2 / total
        if measures["effect_ratio"] > 1:
            notes.append(
                f"the batch effect is as large as the biology: its square is "
                f"{measures['effect_ratio']:.1f} times the variance between clusters"
            )
    gap = float(np.median(np.concatenate(gaps)))
    if gap > 0:
        sample = pairs[:: -(-len(pairs) // MAX_PAIRS)]
        apart = np.linalg.norm(data[0][sample[:, 0]] - data[1][sample[:, 1]], axis=1)
        measures["pair_distance"] = float(np.median(apart)) / gap
        if measures["pair_distance"] > 1:
            notes.append(
                f"the pairs of {names[0]} and {names[1]} lie {measures['pair_distance']:.2f} times "
                "as far apart as neighboring clusters: the two share no population, or the batch "
                "effect hides which"
            )
    return measures, notes


def _centroids(
    cells: np.ndarray, label: np.ndarray, n_clusters: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the means and sizes of the clusters that have cells."""
    from scipy import sparse

    rows = np.flatnonzero(label >= 0)
    sizes = np.bincount(label[rows], minlength=n_clusters)
    member = sparse.csr_array(
        (np.ones(len(rows)), (label[rows], rows)), shape=(n_clusters, len(cells))
    )
    used = np.flatnonzero(sizes)
    return (member @ cells)[used] / sizes[used, None], sizes[used]
