"""Which of several resolutions to take, or none: robust, separated, and as fine as both allow.

Three things are measured of each clustering of level 1. `robustness` tells whether its clusters
come back from a part of the cells on the stored graph; pieces of noise come back as well, because
the graph is the same. `reweighted_agreement` therefore searches neighbors again, with the
dimensions of the embedding weighted at random: pieces of noise do not survive that.
`least_separation` tells how far apart the least separated clusters are. Where there are counts,
the test of the splits adds `absent_share`: how many cells are split off for no reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from clustering.options import NeighborsOptions
from evaluation.clusters.robustness import STABLE
from evaluation.options import RobustnessOptions
from evaluation.scores.agreement import adjusted_rand_index, contingency
from utils.threads import one_blas_thread, ordered_map

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

# All thresholds are from the data sets of test/bench/RESULTS.md, section Resolutions.
# The largest agreement of 280 null data sets was 0.74 (next 0.58), the smallest of what was
# suggested for 76 others 0.80.
REPRODUCED = 0.7
# Two clusters have to be further apart: tails of one population were up to 5.4 apart from the rest
# (with agreements below 0.75), the first two of most real data more than 6.
TWO_CLUSTERS_APART = 6.0
# How far the mean Jaccard index may be below that of the most robust clustering.
TOLERANCE = 0.1
# What the number of clusters and the mean Jaccard index are worth beside the separation.
CLUSTER_EXPONENT, JACCARD_EXPONENT = 3, 12
# What splits for no reason cost: the worth is multiplied by exp(-9 x share of the cells). Chosen on
# seven pancreas data sets, where 7 to 12 do as well, as they do on twelve others.
ABSENT_COST = 9.0
# Shape of the gamma distribution of the weights of dimensions: their standard deviation is 0.5.
WEIGHT_SHAPE = 4
# Smaller clusters have no separation.
MIN_SIZE = 10
# Neighboring clusters that each cluster is compared to, and cells that are taken of each.
N_NEAREST, N_SAMPLED = 3, 400
# Cells that a round of `reweighted_agreement` takes at most.
REWEIGHTED_CELLS = 100_000


def reweighted_agreement(
    columns: Mapping[str, np.ndarray],
    X: np.ndarray,
    communities: Mapping[str, Mapping[str, Any]],
    *,
    n_neighbors: int = NeighborsOptions.n_neighbors,
    metric: str = NeighborsOptions.metric,
    rounds: int = 10,
    subsample: float = RobustnessOptions.subsample,
    threads: int = 1,
    seed: int = 0,
) -> dict[str, float]:
    """Compare clusterings to those of other weights of the dimensions.

    Each round takes a part of the cells, multiplies the squared distances along each dimension by
    a weight from a gamma distribution (mean 1, standard deviation 0.5), searches neighbors and
    finds communities.

    Parameters
    ----------
    columns
        Cluster of each cell, -1: none, by name of the clustering.
    X
        Cells x dimensions, what the stored graph was computed of; rows with NaN take no part.
    communities
        By the same names, the options of `clustering.communities.find_communities`; with
        `n_clusters` where a test of the splits left so many.
    n_neighbors, metric
        Of the stored graph.
    rounds, subsample, seed
        As for `robustness`.
    threads
        Rounds that run beside each other; the result does not depend on it.

    Returns
    -------
    dict
        By name, the mean adjusted Rand index over the rounds; NaN where no round was possible.

    Notes
    -----
    Memory and time: per thread those of neighbors and communities of `REWEIGHTED_CELLS` cells, of
    which a larger data set is sampled.
    """
    from clustering.children import join_nearest
    from clustering.communities import build, find_communities
    from clustering.connectivities import fuzzy_connectivities
    from numerics.knn import finite_rows, search

    known = np.flatnonzero(finite_rows(X))
    size = min(round(subsample * len(known)), REWEIGHTED_CELLS)
    if size < 3:
        return dict.fromkeys(columns, np.nan)

    def one_round(number: int) -> list[float]:
        rng = np.random.default_rng([seed, number, 1])
        cells = np.sort(rng.choice(known, size, replace=False))
        weights = np.sqrt(rng.gamma(WEIGHT_SHAPE, 1 / WEIGHT_SHAPE, X.shape[1]))
        points = X[cells] * weights.astype(np.float32)
        neighbors = search(points, n_neighbors, metric=metric, seed=seed, quiet=True)
        graph = build(fuzzy_connectivities(neighbors.indices, neighbors.distances))
        agreements = []
        for name, codes in columns.items():
            options = dict(communities[name])
            n_clusters = options.pop("n_clusters", None)
            labels = find_communities(graph, seed=seed + 1 + number, **options)
            if n_clusters is not None:
                labels = join_nearest(graph.adjacency, labels, n_clusters)
            agreements.append(adjusted_rand_index(contingency(codes[cells], labels)))
        return agreements

    with one_blas_thread():
        agreements = list(ordered_map(one_round, range(rounds), threads=threads))
    return dict(zip(columns, np.mean(agreements, axis=0).tolist(), strict=True))


def least_separation(codes: np.ndarray, X: np.ndarray, *, seed: int = 0) -> float:
    """Measure how far apart the least separated of neighboring clusters are.

    Parameters
    ----------
    codes
        Cluster of each cell, -1: none. Clusters of fewer than `MIN_SIZE` cells are left out.
    X
        Cells x dimensions.
    seed
        Of the sample, and of its halves.

    Returns
    -------
    float
        The smallest d' of a cluster and one of the `N_NEAREST` with the nearest centroids: the
        distance of their means over their standard deviation, along Fisher's discriminant. Each
        half of at most `N_SAMPLED` cells of both lies on the discriminant of the other half. Two
        halves of one cloud have about 2.5, cell types that nobody disputes more than 6. NaN where
        fewer than two clusters are large enough.
    """
    from numerics.knn import finite_rows

    rng = np.random.default_rng(seed)
    codes = np.where(finite_rows(X), codes, -1)
    sizes = np.bincount(codes[codes >= 0])
    large = np.flatnonzero(sizes >= MIN_SIZE)
    if len(large) < 2:
        return np.nan
    members = [np.flatnonzero(codes == cluster) for cluster in large]
    centroids = np.stack([X[cells].mean(axis=0, dtype=np.float64) for cells in members])
    samples = [
        X[cells if len(cells) <= N_SAMPLED else rng.choice(cells, N_SAMPLED, replace=False)]
        for cells in members
    ]
    distances = np.square(centroids[:, None] - centroids).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argsort(axis=1, kind="stable")[:, : min(N_NEAREST, len(large) - 1)]
    pairs = sorted({(min(i, j), max(i, j)) for i, row in enumerate(nearest) for j in row})
    with one_blas_thread():
        return min(_held_out_distance(samples[i], samples[j], rng) for i, j in pairs)


def _held_out_distance(first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> float:
    """Return d' of two clusters, each half of their cells on the discriminant of the other."""
    points = np.concatenate([first, second]).astype(np.float64)
    is_second = np.repeat([False, True], [len(first), len(second)])
    # Half of each cluster, so that both halves have some of both.
    half = np.concatenate([rng.permutation(len(part)) % 2 for part in (first, second)])
    scores = np.empty(len(points))
    for held_out in (0, 1):
        train = half != held_out
        low, high = points[train & ~is_second], points[train & is_second]
        means = low.mean(axis=0), high.mean(axis=0)
        residuals = np.concatenate([low - means[0], high - means[1]])
        within = residuals.T @ residuals / max(len(residuals) - 2, 1)
        scale = np.trace(within) / len(within)
        if scale == 0:
            return np.inf
        axis = np.linalg.solve(0.9 * within + 0.1 * scale * np.eye(len(within)),
                               means[1] - means[0])  # fmt: skip
        start, end = means[0] @ axis, means[1] @ axis
        if start == end:
            return 0.0
        scores[~train] = (points[~train] @ axis - start) / (end - start)
    low, high = scores[~is_second], scores[is_second]
    deviation = np.sqrt((low.var() + high.var()) / 2)
    difference = max(float(np.median(high) - np.median(low)), 0.0)
    return difference / deviation if deviation else np.inf


def absent_share(splits: pd.DataFrame, n_cells: int) -> float:
    """Return how many cells the splits of a clustering cut off that the test does not accept.

    Parameters
    ----------
    splits
        Rows of the table of `splits.py`, of one column of level 1.
    n_cells
        Cells of the clustering.

    Returns
    -------
    float
        Cells on the smaller side of the splits that are `absent` and were not joined, relative to
        all (more than 1 where splits of splits are); NaN where no split was tested.
    """
    if not splits.empty and splits["verdict"].isna().all():
        return np.nan
    made = splits[(splits["verdict"] == "absent") & (splits["left"] != splits["right"])]
    return float(made[["n_left", "n_right"]].min(axis=1).sum() / n_cells)


def suggest_resolution(compared: pd.DataFrame) -> tuple[str, str]:
    """Choose the clustering that is robust, separated and fine, or none.

    Considered are clusterings of at least two clusters whose `reweighted` agreement reaches
    `REPRODUCED` (of two clusters also those whose `separation` reaches `TWO_CLUSTERS_APART`); of
    these, those whose `mean_jaccard` is at most `TOLERANCE` below the largest; of these, the one
    with the largest ``separation * n_clusters**3 * mean_jaccard**12 * exp(-9 * absent)``, the finer
    of equal ones.

    Parameters
    ----------
    compared
        A row per clustering: `column`, `n_clusters`, `mean_jaccard`, `reweighted`, `separation`,
        `absent` (NaN: its splits were not tested).

    Returns
    -------
    tuple
        The name, empty for none, and why.
    """
    known = compared[compared["mean_jaccard"].notna()]
    if known.empty:
        return "", "no clustering can be computed again"
    if (known["n_clusters"] < 2).all():
        return "", "none is robust: every clustering has one cluster"
    known = known[known["n_clusters"] >= 2]
    if known["reweighted"].isna().all():
        return "", "none is suggested: the embedding that neighbors were searched in is not known"
    known = known[known["separation"].notna()]
    if known.empty:
        return "", f"none is robust: no clustering has two clusters of {MIN_SIZE} cells"
    reproduced = known[known["reweighted"] >= REPRODUCED]
    if reproduced.empty:
        best = known.loc[known["reweighted"].idxmax()]
        return "", (
            f"none is robust: with other weights of the dimensions clusters differ (adjusted Rand "
            f"index at most {best.reweighted:.2f}, of {best.column}; {REPRODUCED} is needed)"
        )
    apart = (reproduced["n_clusters"] > 2) | (reproduced["separation"] >= TWO_CLUSTERS_APART)
    reproduced = reproduced[apart]
    if reproduced.empty:
        return "", (
            f"none is robust: only two clusters are, and they are less than {TWO_CLUSTERS_APART:g} "
            "standard deviations apart"
        )
    most = reproduced["mean_jaccard"].max()
    robust = reproduced[reproduced["mean_jaccard"] >= most - TOLERANCE]
    worth = np.log(np.maximum(robust["separation"], 0.5))
    worth += CLUSTER_EXPONENT * np.log(robust["n_clusters"])
    worth += JACCARD_EXPONENT * np.log(np.maximum(robust["mean_jaccard"], 0.05))
    worth -= ABSENT_COST * robust["absent"].fillna(0)
    best = robust.loc[worth.iloc[::-1].idxmax()]
    tested = (
        "" if np.isnan(best.absent) else f"; {best.absent:.0%} of the cells split off for no reason"
    )
    return best.column, (
        f"{best.n_clusters} clusters, the best of number, separation (at least "
        f"{best.separation:.1f} standard deviations) and robustness among the {len(robust)} of "
        f"{len(compared)} clusterings that are robust (mean Jaccard index "
        f"{best.mean_jaccard:.2f}, with other weights of the dimensions adjusted Rand index "
        f"{best.reweighted:.2f}{tested})"
    )


def resolution_table(
    robustness: pd.DataFrame,
    families: Mapping[str, list[str]],
    reweighted: Mapping[str, float],
    separation: Mapping[str, float],
    *,
    splits: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Compare the resolutions of each family of columns, and suggest one or none.

    Parameters
    ----------
    robustness
        The table of `robustness.py`.
    families
        Columns that differ in their resolution only, by the name of the family; coarse first.
    reweighted, separation
        By column, of `reweighted_agreement` and `least_separation`; a column may be missing.
    splits
        The table of `splits.py`.

    Returns
    -------
    pandas.DataFrame
        A row per column: `family`, `column`, `n_clusters`, `median_score`, `median_jaccard`,
        `n_stable` (Jaccard at least 0.75), `mean_jaccard` (over cells), `reweighted`,
        `separation`, `absent` (`absent_share`), `suggested` (yes or empty), `reason` (of the
        suggested one; of all where none is suggested).
    """
    import pandas as pd

    tables = []
    for family, columns in families.items():
        rows = []
        for name in columns:
            part = robustness[robustness["column"] == name]
            known = part[part["jaccard"].notna()]
            absent = np.nan
            if splits is not None:
                of_column = splits[splits["column"] == name]
                absent = absent_share(of_column, part["n_cells"].sum())
            mean = np.average(known["jaccard"], weights=known["n_cells"]) if len(known) else np.nan
            rows.append(
                {"family": family, "column": name, "n_clusters": len(part),
                 "median_score": part["score"].median(), "median_jaccard": part["jaccard"].median(),
                 "n_stable": int((part["jaccard"] >= STABLE).sum()), "mean_jaccard": mean,
                 "reweighted": reweighted.get(name, np.nan),
                 "separation": separation.get(name, np.nan), "absent": absent}
            )  # fmt: skip
        table = pd.DataFrame(rows)
        best, reason = suggest_resolution(table)
        table["suggested"] = np.where(table["column"] == best, "yes", "")
        table["reason"] = np.where((table["column"] == best) | (best == ""), reason, "")
        tables.append(table)
    names = ["family", "column", "n_clusters", "median_score", "median_jaccard", "n_stable",
             "mean_jaccard", "reweighted", "separation", "absent", "suggested",
             "reason"]  # fmt: skip
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=names)
