"""Did integration work? Scores of an embedding, its neighbor graph and its clusters.

Plain functions on arrays, and `method_metrics`, which puts all of them into one table. Labels are
codes (-1: none) as in `evaluation.scores.agreement`. Batch scores ask how well batches are mixed,
label scores how well known cell types are kept; neither is of use alone. The silhouette of batches
is left out on purpose: it rewards embeddings in which batches are not mixed at all (Rautenstrauch &
Ohler 2025).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluation.scores.agreement import (
    adjusted_rand_index,
    contingency,
    normalized_mutual_information,
)
from evaluation.scores.batch_mixing import Neighborhoods, kbet_accepted, lisi
from evaluation.scores.neighbor_labels import f1_scores, same_label_share, transferred_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd
    import scipy.sparse as sp

# Up to here the silhouette and the label transfer are of all cells; above, of a sample.
SILHOUETTE_CELLS = 20_000
MIN_TRANSFER_CELLS = 20  # of a cell type that counts in the mean F1 of all
DISTANCE_ROWS = 1024
BATCH_METRICS = ("ilisi", "kbet", "kbet_within_label", "pc_regression", "pc_regression_change")
LABEL_METRICS = (
    "clisi",
    "same_label",
    "label_transfer",
    "graph_connectivity",
    "silhouette",
    "nmi",
    "ari",
)
COLUMNS = ["metric", "key", "group_by", "group", "n_cells", "value", "raw"]


class Labeling(NamedTuple):
    """A column of obs as codes."""

    name: str
    codes: np.ndarray  # -1: no value
    groups: list[str]


def graph_connectivity(connectivities: sp.spmatrix, codes: np.ndarray) -> np.ndarray:
    """Share of each label's cells in the largest connected part of its own graph.

    Parameters
    ----------
    connectivities
        Cells x cells, symmetric.
    codes
        Label of each cell.

    Returns
    -------
    numpy.ndarray
        float64, one per label, above 0 to 1; NaN for a label without cells. scib's score is the
        mean (Luecken et al. 2022, Nature Methods 19).
    """
    import scipy.sparse as sp
    from scipy.sparse.csgraph import connected_components

    codes = np.asarray(codes)
    graph = sp.coo_matrix(connectivities)
    # One search for all labels: edges between two labels are left out.
    same = (codes[graph.row] == codes[graph.col]) & (codes[graph.row] >= 0)
    edges = (np.ones(int(same.sum()), np.int8), (graph.row[same], graph.col[same]))
    parts = connected_components(sp.csr_matrix(edges, shape=graph.shape), directed=False)[1]
    known = codes >= 0
    sizes = np.bincount(parts[known], minlength=int(parts.max(initial=-1)) + 1)
    largest = np.zeros(int(codes.max(initial=-1)) + 1)
    np.maximum.at(largest, codes[known], sizes[parts[known]])
    with np.errstate(invalid="ignore", divide="ignore"):
        return largest / np.bincount(codes[known], minlength=len(largest))


def pc_regression(X: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Share of an embedding's variance that lies between batches, by batch.

    The sum is the principal component regression of Büttner et al. (2019): the R squared of batch
    on each component, weighted by its variance. Over all components that is the trace of the
    between-batch scatter over the trace of the whole, so neither a PCA nor a regression is needed.

    Parameters
    ----------
    X
        Cells x dimensions.
    codes
        Batch of each cell.

    Returns
    -------
    numpy.ndarray
        float64, the contribution of each batch. Cells without batch or coordinates are left out.
    """
    codes = np.asarray(codes)
    keep = (codes >= 0) & np.isfinite(X).all(axis=1)
    X, codes = np.asarray(X)[keep], codes[keep]
    if not len(X):
        return np.zeros(0)
    means, counts = _group_means(X, codes)
    center = counts @ means / len(X)
    total = sum(
        float(((X[start : start + DISTANCE_ROWS] - center) ** 2).sum())
        for start in range(0, len(X), DISTANCE_ROWS)
    )
    between = counts * ((means - center) ** 2).sum(axis=1)
    return between / total if total > 0 else np.zeros(len(counts))


def _group_means(X: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (0 where there are no cells) and number of cells of each group, in float64."""
    counts = np.bincount(codes)
    sums = np.stack([np.bincount(codes, column, len(counts)) for column in X.T], axis=1)
    return sums / np.maximum(counts, 1)[:, None], counts


def silhouette(X: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Silhouette of every cell: how much nearer its own label is than the next (euclidean).

    Parameters
    ----------
    X
        Cells x dimensions.
    codes
        Label of each cell, -1 for none.

    Returns
    -------
    numpy.ndarray
        float64, -1 to 1; 0 for a label of one cell, NaN for a cell without label or coordinates,
        and for all where there is one label. Equal to scikit-learn's `silhouette_samples`.

    Notes
    -----
    Exact, and quadratic in cells: seconds for 20,000, the most that `sample_cells` leaves. Memory:
    a few blocks of 1024 x cells in float64.
    """
    codes = np.asarray(codes)
    X = np.asarray(X, dtype=np.float64)
    keep = np.flatnonzero((codes >= 0) & np.isfinite(X).all(axis=1))
    result = np.full(len(codes), np.nan)
    used, codes = np.unique(codes[keep], return_inverse=True)
    if len(used) < 2:
        return result
    # Cells label after label: the sums of distances to a label are then sums of neighbors.
    order = np.argsort(codes, kind="stable")
    X = X[keep[order]] - X[keep].mean(axis=0)
    codes = codes[order]
    counts = np.bincount(codes)
    starts = np.cumsum(counts) - counts
    norms = np.einsum("ij,ij->i", X, X)
    for start in range(0, len(X), DISTANCE_ROWS):
        rows = np.arange(start, min(start + DISTANCE_ROWS, len(X)))
        squared = norms[rows, None] + norms - 2 * (X[rows] @ X.T)
        squared[np.arange(len(rows)), rows] = 0
        distance = np.sqrt(np.maximum(squared, 0))
        sums = np.add.reduceat(distance, starts, axis=1)
        itself = np.arange(len(rows)), codes[rows]
        size = counts[codes[rows]]
        inside = sums[itself] / np.maximum(size - 1, 1)
        outside = sums / counts
        outside[itself] = np.inf
        outside = outside.min(axis=1)
        score = (outside - inside) / np.maximum(np.maximum(inside, outside), 1e-300)
        result[keep[order[rows]]] = np.where(size > 1, score, 0)
    return result


def sample_cells(codes: np.ndarray, max_cells: int, *, seed: int = 0) -> np.ndarray:
    """Take at most this many cells, of each label its share, at least two where it has them.

    Returns
    -------
    numpy.ndarray
        int64, increasing; all cells with a label where these are few enough.
    """
    codes = np.asarray(codes)
    known = np.flatnonzero(codes >= 0)
    if len(known) <= max_cells:
        return known
    rng = np.random.default_rng(seed)
    # In random order within each label, the first cells of each are taken.
    mixed = rng.permutation(known)
    mixed = mixed[np.argsort(codes[mixed], kind="stable")]
    counts = np.bincount(codes[mixed])
    place = np.arange(len(mixed)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = np.maximum(counts * max_cells // len(known), 2)
    return np.sort(mixed[place < share[codes[mixed]]])


def method_metrics(
    *,
    embedding: np.ndarray,
    near: Neighborhoods,
    connectivities: sp.spmatrix,
    uncorrected: np.ndarray | None = None,
    batches: list[Labeling] = (),
    label: Labeling | None = None,
    clusters: Mapping[str, np.ndarray] | None = None,
    perplexity: float | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score one method: over all cells, by batch and by cell type.

    Parameters
    ----------
    embedding
        Cells x dimensions, what the method made.
    near, connectivities
        Its neighbor graph.
    uncorrected
        Cells x dimensions, what it started from.
    batches
        The batch columns; each is scored by itself.
    label
        The known cell types. Without them only the batch metrics are computed.
    clusters
        Codes by name of the cluster column, compared with `label`.
    perplexity
        As for `lisi`.
    seed
        Of the sample that the silhouette and label transfer of more than `SILHOUETTE_CELLS` cells
        are of.

    Returns
    -------
    pandas.DataFrame
        One row per metric and group of cells: `metric`, `key` (the column that is scored),
        `group_by` and `group` (the cells: `all`, or those of a batch or label), `n_cells`, `value`
        (0 to 1, 1 is best) and `raw` (in the metric's own unit).

    Notes
    -----
    Memory besides the input: that of the graph once more; time: linear in cells, apart from the
    silhouette and the label transfer.
    """
    import pandas as pd

    views = [*batches, *([label] if label else [])]
    rows: list[tuple] = []
    for batch in batches:
        rows += _batch_rows(batch, label, views, embedding, uncorrected, near, perplexity)
    if label is not None:
        rows += _label_rows(label, views, embedding, near, connectivities, perplexity, seed)
        rows += _cluster_rows(label, clusters or {})
        if batches:
            rows += _transfer_rows(label, batches[0], embedding, seed)
    return pd.DataFrame(rows, columns=COLUMNS)


def _batch_rows(
    batch: Labeling,
    label: Labeling | None,
    views: list[Labeling],
    embedding: np.ndarray,
    uncorrected: np.ndarray | None,
    near: Neighborhoods,
    perplexity: float | None,
) -> Iterator[tuple]:
    name = batch.name
    mixed = lisi(near, batch.codes, perplexity=perplexity)
    max_others = max(len(batch.groups) - 1, 1)
    yield from _rows("ilisi", name, mixed, views, np.nanmedian, lambda raw: (raw - 1) / max_others)
    accepted = kbet_accepted(near, batch.codes)
    yield from _rows("kbet", name, accepted, [batch], np.nanmean, float)
    if label is not None:
        inside = kbet_accepted(near, batch.codes, within=label.codes)
        rows = list(_rows("kbet_within_label", name, inside, [label], np.nanmean, float))
        # As scib: every cell type counts the same.
        mean = _mean([row[-1] for row in rows[1:]])
        yield (*rows[0][:5], mean, mean)
        yield from rows[1:]
    parts = pc_regression(embedding, batch.codes)
    total = float(parts.sum())
    known = int((batch.codes >= 0).sum())
    yield "pc_regression", name, "", "all", known, 1 - total, total
    sizes = np.bincount(batch.codes[batch.codes >= 0], minlength=len(parts))
    for group, size, raw in zip(batch.groups, sizes, parts, strict=False):
        yield "pc_regression", name, name, group, int(size), float(1 - raw), float(raw)
    for code, group in enumerate(label.groups if label is not None else ()):
        cells = label.codes == code
        raw = float("nan")
        if len(np.setdiff1d(batch.codes[cells], [-1])) > 1:
            raw = float(pc_regression(embedding[cells], batch.codes[cells]).sum())
        yield "pc_regression", name, label.name, group, int(cells.sum()), 1 - raw, raw
    if uncorrected is not None:
        before = float(pc_regression(uncorrected, batch.codes).sum())
        change = (before - total) / before if before > 0 else 0.0
        value = float(np.clip(change, 0, 1))
        yield "pc_regression_change", name, "", "all", known, value, change


def _label_rows(
    label: Labeling,
    views: list[Labeling],
    embedding: np.ndarray,
    near: Neighborhoods,
    connectivities: sp.spmatrix,
    perplexity: float | None,
    seed: int,
) -> Iterator[tuple]:
    name = label.name
    max_others = max(len(label.groups) - 1, 1)
    label_lisi = lisi(near, label.codes, perplexity=perplexity)
    yield from _rows(
        "clisi", name, label_lisi, views, np.nanmedian, lambda raw: 1 - (raw - 1) / max_others
    )
    same_label = same_label_share(near, label.codes)
    yield from _rows("same_label", name, same_label, views, np.nanmean, float)
    parts = graph_connectivity(connectivities, label.codes)
    sizes = np.bincount(label.codes[label.codes >= 0], minlength=len(parts))
    mean = _mean(parts)
    yield "graph_connectivity", name, "", "all", int(sizes.sum()), mean, mean
    for group, size, raw in zip(label.groups, sizes, parts, strict=False):
        yield "graph_connectivity", name, name, group, int(size), float(raw), float(raw)
    cells = sample_cells(label.codes, SILHOUETTE_CELLS, seed=seed)
    near_own = np.full(len(label.codes), np.nan)
    near_own[cells] = silhouette(embedding[cells], label.codes[cells])
    yield from _rows("silhouette", name, near_own, views, np.nanmean, lambda raw: (raw + 1) / 2)


def _transfer_rows(
    label: Labeling, batch: Labeling, embedding: np.ndarray, seed: int
) -> Iterator[tuple]:
    """Predict the labels of each batch from the others: F1, and as `raw` the share predicted right.

    The F1 of all is the mean of the types with `MIN_TRANSFER_CELLS` cells or more, as far as there
    are any: that of a few cells is noise.
    """
    cells = sample_cells(label.codes, SILHOUETTE_CELLS, seed=seed)
    codes = label.codes[cells]
    predicted = transferred_labels(embedding[cells], codes, batch.codes[cells])
    tested = predicted >= 0
    f1 = f1_scores(codes, predicted)
    sizes = np.bincount(codes[tested], minlength=len(f1))
    right = np.bincount(codes[tested & (predicted == codes)], minlength=len(f1))
    large = sizes >= MIN_TRANSFER_CELLS
    mean = _mean(f1[large] if large.any() else f1)
    total = int(sizes.sum())
    share = float(right.sum() / total) if total else float("nan")
    yield "label_transfer", label.name, "", "all", total, mean, share
    for group, size, score, n_right in zip(label.groups, sizes, f1, right, strict=False):
        recall = float(n_right / size) if size else float("nan")
        yield "label_transfer", label.name, label.name, group, int(size), float(score), recall


def _cluster_rows(label: Labeling, clusters: Mapping[str, np.ndarray]) -> Iterator[tuple]:
    """Compare each cluster column with the labels; `all` is the best of them, as in scib."""
    tables = {name: contingency(codes, label.codes) for name, codes in clusters.items()}
    for metric, score in (("nmi", normalized_mutual_information), ("ari", adjusted_rand_index)):
        scores = {name: float(score(table)) for name, table in tables.items() if table.sum()}
        if not scores:
            continue
        best = max(scores, key=scores.__getitem__)
        for group, name in (("all", best), *((name, name) for name in scores)):
            by = "" if group == "all" else "clusters"
            raw, n = scores[name], int(tables[name].sum())
            yield metric, label.name, by, group, n, max(raw, 0.0), raw


def _mean(values: Sequence[float] | np.ndarray) -> float:
    """Average what is known; NaN where nothing is, without NumPy's warning."""
    known = np.asarray(values)[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _rows(
    metric: str,
    key: str,
    scores: np.ndarray,
    views: list[Labeling],
    summary: Callable[[np.ndarray], float],
    scaled: Callable[[float], float],
) -> Iterator[tuple]:
    """Summarize the scores of cells: of all, and of each group of each view."""
    known = np.isfinite(scores)

    def row(by: str, group: str, cells: np.ndarray) -> tuple:
        chosen = scores[cells & known]
        raw = float(summary(chosen)) if len(chosen) else float("nan")
        return metric, key, by, group, len(chosen), float(np.clip(scaled(raw), 0, 1)), raw

    yield row("", "all", known)
    for view in views:
        for code, group in enumerate(view.groups):
            yield row(view.name, group, view.codes == code)
