"""Select highly variable genes of a matrix that is read in blocks of cells.

Flavor ``seurat`` takes one pass, ``seurat_v3`` two. Both select what
``scanpy.pp.highly_variable_genes`` selects, with its column names.

Sums are added value by value in the order of the cells, so the size of the blocks does not change a
bit of the result.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy.sparse as sp

from numerics.normalize import check_counts, numbered
from preprocessing.options import PCAOptions
from preprocessing.running_moments import Groups, RunningMoments, add_by_gene
from utils.errors import listed
from utils.log import say
from utils.threads import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd

    from numerics.normalize import Blocks

VALUES_AT_ONCE = 1 << 22  # summed together
GENE_RANGES = 4  # of which threads sum one each
# Columns that are no scores: an excluded gene has 0.
COUNT_COLUMNS = {
    "highly_variable": bool,
    "highly_variable_nbatches": np.int64,
    "highly_variable_intersection": bool,
}


def highly_variable_genes(
    blocks: Blocks,
    n_genes: int,
    *,
    n_top_genes: int = PCAOptions.n_top_genes,
    flavor: Literal["seurat", "seurat_v3"] = PCAOptions.flavor,
    batch: np.ndarray | None = None,
    batch_names: Sequence[str] | None = None,
    gene_names: Sequence[str] | None = None,
    n_bins: int = 20,
    span: float = 0.3,
    excluded: np.ndarray | None = None,
    threads: int = 1,
) -> pd.DataFrame:
    """Select the genes that vary more than others of the same mean.

    Parameters
    ----------
    blocks
        Cells x genes: log-normalized values for ``seurat``, raw counts for ``seurat_v3``.
    n_genes
        Number of genes.
    n_top_genes
        Number of genes to select; if it exceeds `n_genes`, all. As in scanpy, ``seurat`` without
        batches takes more where genes tie, and fewer where too few genes vary.
    flavor
        ``seurat``: dispersion of the normalized values, scaled within bins of mean expression.
        ``seurat_v3``: variance of the counts over what a loess fit expects at that mean; with
        batches, means and variances are running ones (as in scanpy 1.12; 1.11 sums, which differs
        in the last bits, and so by up to 0.5 % of a gene's variance after the fit).
    batch
        Code of each cell's batch: genes are ranked within each batch, then across them. A negative
        code is no batch; these cells and batches of one cell are left out with a log line.
    batch_names
        Names of the codes, for the log and errors.
    gene_names
        Names, the index of the result. With batches ``seurat`` orders genes that tie by name.
    n_bins
        ``seurat``: number of bins of mean expression.
    span
        ``seurat_v3``: share of the genes in each local fit.
    excluded
        True for genes to ignore: they are not chosen, and no gene is compared with them.
    threads
        Pieces whose values are computed at the same time; the result does not depend on it.

    Returns
    -------
    pandas.DataFrame
        One row per gene; ``highly_variable`` and

        - ``seurat``: ``means``, ``dispersions``, ``dispersions_norm``, and with batches
          ``highly_variable_nbatches``, ``highly_variable_intersection``;
        - ``seurat_v3``: ``means``, ``variances``, ``variances_norm``, ``highly_variable_rank`` and
          with batches ``highly_variable_nbatches``.

    Raises
    ------
    ValueError
        If an option or a value is invalid, or the fit of ``seurat_v3`` fails.

    Notes
    -----
    Methods of Satija et al. 2015 (``seurat``) and Stuart et al. 2019 (``seurat_v3``). Peak memory:
    per thread a block and about 60 MB, and 60 bytes per gene and batch.
    """
    _check_options(flavor, n_top_genes, n_genes, gene_names)
    groups = _group(batch, batch_names)
    candidates = _find_candidates(excluded, n_genes)
    names = None if gene_names is None else np.asarray(gene_names, dtype=object)
    sums = partial(_sums, blocks, n_genes, groups, threads=threads)
    if flavor == "seurat_v3":
        table = _seurat_v3(sums, n_genes, candidates, n_top_genes, groups, span)
    else:
        candidate_names = None if names is None else names[candidates]
        table = _seurat(sums, candidates, n_top_genes, groups, candidate_names, n_bins)
    if len(candidates) < n_genes:
        table = table.set_axis(candidates).reindex(np.arange(n_genes))  # without scores
        for name in table.columns.intersection(COUNT_COLUMNS):
            table[name] = table[name].fillna(0).astype(COUNT_COLUMNS[name])
    if names is not None:
        table.index = list(names)
    return table


def _check_options(
    flavor: str, n_top_genes: int, n_genes: int, gene_names: Sequence[str] | None
) -> None:
    """Refuse an unknown flavor, and numbers that do not fit."""
    if flavor not in ("seurat", "seurat_v3"):
        raise ValueError(f'flavor must be "seurat" or "seurat_v3"; found {flavor!r}')
    if n_top_genes < 1:
        raise ValueError(f"n_top_genes must be at least 1; found {n_top_genes}")
    if n_genes < 1:
        raise ValueError("there is no gene to select from")
    if gene_names is not None and len(gene_names) != n_genes:
        raise ValueError(f"{len(gene_names)} gene names for {n_genes} genes")


def _find_candidates(excluded: np.ndarray | None, n_genes: int) -> np.ndarray:
    """Return the positions of the genes that can be chosen."""
    if excluded is None:
        return np.arange(n_genes)
    candidates = np.flatnonzero(~_mask(excluded, n_genes))
    if not len(candidates):
        raise ValueError(f"all {n_genes:,} genes are excluded; none is left to choose")
    return candidates


def _mask(excluded: np.ndarray, n_genes: int) -> np.ndarray:
    excluded = np.asarray(excluded)
    if excluded.shape != (n_genes,) or excluded.dtype != bool:
        raise ValueError(
            f"excluded must hold true or false for each of {n_genes} genes; found "
            f"{excluded.dtype}, shape {excluded.shape}"
        )
    return excluded


def _group(batch: np.ndarray | None, names: Sequence[str] | None) -> Groups:
    if batch is None:
        return Groups(None, 1, [""])
    batch = np.asarray(batch)
    if batch.ndim != 1 or batch.dtype.kind not in "iu":
        raise ValueError(
            f"batch must hold one integer code per cell; found {batch.dtype}, shape {batch.shape}"
        )
    codes, number, sizes = np.unique(batch, return_inverse=True, return_counts=True)
    is_used = (codes >= 0) & (sizes > 1)
    labels = [str(code if names is None or code < 0 else names[code]) for code in codes]
    if n_without := sizes[codes < 0].sum():
        say(f"{n_without:,} cells have no batch and take no part in the selection of genes")
    if single := [labels[i] for i in np.flatnonzero((codes >= 0) & (sizes == 1))]:
        say(
            f"{listed(single)}: {'batches' if len(single) > 1 else 'a batch'} of one cell, without "
            "part in the selection of genes"
        )
    if not is_used.any():
        raise ValueError(f"no batch has two cells or more; found {len(batch)} cells with a batch")
    n_used = int(is_used.sum())
    new_codes = np.where(is_used, np.cumsum(is_used) - 1, n_used)
    return Groups(new_codes[number], n_used, [labels[i] for i in np.flatnonzero(is_used)])


def _sums(
    blocks: Blocks,
    n_genes: int,
    groups: Groups,
    values_of: Callable[[sp.csr_matrix, int, np.ndarray], np.ndarray],
    in_order: Callable[[sp.csr_matrix, int], None] | None = None,
    *,
    threads: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum values and squares over the cells of each batch.

    Returns cells per batch, sums and sums of squares (batches x genes); the last batch holds the
    cells without one. ``values_of(piece, first_cell, batch)`` returns what to sum for each stored
    value, on any thread; ``in_order(piece, first_cell)`` is called for one piece after the other.
    """
    cells = np.zeros(groups.n + 1, dtype=np.int64)
    sums, squares = np.zeros((2, groups.n + 1, n_genes))
    n_cells = 0

    def of_piece(numbered_piece: tuple[int, sp.csr_matrix]) -> tuple:
        first_cell, piece = numbered_piece
        if not piece.has_sorted_indices:  # as `add_by_gene` needs it
            piece = piece.sorted_indices()
        group = groups.rows(first_cell, piece.shape[0])
        if len(group) < piece.shape[0]:
            n = first_cell + piece.shape[0] - 1
            raise ValueError(f"batch has {len(groups.of_cell)} codes for more than {n} cells")
        values = values_of(piece, first_cell, group)
        # Squared in the type of the values, as scanpy does: for a constant gene, whose variance
        # is nothing but rounding, the selection depends on it.
        squared = values * values
        if values.dtype not in (np.float32, np.float64):
            values, squared = values.astype(np.float64), squared.astype(np.float64)
        return first_cell, piece, group, values, squared

    pieces = ordered_map(of_piece, _pieces(blocks, n_genes), threads=threads, in_flight=threads + 1)
    n_ranges = min(threads, GENE_RANGES)
    bounds = np.linspace(0, n_genes, n_ranges + 1).astype(int)

    def pieces_by_range() -> Iterator[tuple]:
        nonlocal n_cells
        for first_cell, piece, group, values, squared in pieces:
            n_cells = first_cell + piece.shape[0]
            cells[:] += np.bincount(group, minlength=groups.n + 1)
            if in_order is not None:
                in_order(piece, first_cell)
            for genes in itertools.pairwise(bounds):
                yield *genes, group, piece.indptr, piece.indices, values, squared

    # So many in flight that a range of genes has added one piece before it gets the next.
    added = ordered_map(
        lambda arguments: add_by_gene(sums, squares, *arguments),
        pieces_by_range(),
        threads=threads,
        in_flight=n_ranges,
    )
    for _ in added:
        pass
    if n_cells == 0:
        raise ValueError("there is no cell to select genes from")
    if groups.of_cell is not None and len(groups.of_cell) != n_cells:
        raise ValueError(f"batch has {len(groups.of_cell)} codes for {n_cells} cells")
    return cells, sums, squares


def _pieces(blocks: Blocks, n_genes: int) -> Iterator[tuple[int, sp.csr_matrix]]:
    """Cut large blocks into sparse pieces of about `VALUES_AT_ONCE` values."""
    for first_cell, block in numbered(blocks(), n_genes):
        n_values = block.nnz if sp.issparse(block) else block.size
        rows = max(1, VALUES_AT_ONCE * block.shape[0] // max(n_values, 1))
        for start in range(0, block.shape[0], rows):
            piece = block if rows >= block.shape[0] else block[start : start + rows]
            yield first_cell + start, piece if sp.issparse(piece) else _all_stored(piece)


def _all_stored(dense: np.ndarray) -> sp.csr_matrix:
    """Return a dense matrix as CSR that stores the zeros as well."""
    rows, genes = dense.shape
    indices = np.tile(np.arange(genes), rows)
    return sp.csr_matrix((dense.ravel(), indices, np.arange(rows + 1) * genes), shape=dense.shape)


def _mean_var(n: int, sums: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance (n - 1) per gene."""
    mean = sums / n
    var = squares / n - mean**2
    return mean, var * (n / (n - 1)) if n > 1 else var


def _seurat(
    sums_of: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]],
    candidates: np.ndarray,
    n_top_genes: int,
    groups: Groups,
    gene_names: Sequence[str] | None,
    n_bins: int,
) -> pd.DataFrame:
    import pandas as pd

    def values_of(piece: sp.csr_matrix, first_cell: int, _: np.ndarray) -> np.ndarray:
        check_counts(piece, first_cell=first_cell)
        with np.errstate(over="ignore"):
            values = np.expm1(piece.data)
            too_large = values.size and np.isinf(values.max() ** 2)
        if too_large:
            raise ValueError(
                f"flavor seurat needs log-normalized values; found {piece.data.max()}, "
                "whose exponential is too large: are these counts? Then normalize them"
            )
        return values

    cells, sums, squares = sums_of(values_of)
    sums, squares = sums[:, candidates], squares[:, candidates]
    if groups.of_cell is None:
        table = _dispersions(*_mean_var(cells[0], sums[0], squares[0]), n_top_genes, n_bins)
        if n_top_genes > len(candidates):
            table["highly_variable"] = True
        return table

    tables = []
    for n, batch_sums, batch_squares in zip(cells[:-1], sums, squares, strict=False):
        # A gene without a count in the batch is not compared there and scores 0.
        expressed = batch_sums > 0
        table = pd.DataFrame(
            {"means": 0.0, "dispersions": 0.0, "dispersions_norm": 0.0, "highly_variable": False},
            index=range(len(candidates)),
        )
        if expressed.any():
            moments = _mean_var(n, batch_sums[expressed], batch_squares[expressed])
            scored = _dispersions(*moments, n_top_genes, n_bins)
            table.loc[expressed] = scored.set_index(np.flatnonzero(expressed))
        tables.append(table)
    return _join_batches(tables, n_top_genes, gene_names)


def _dispersions(mean: np.ndarray, var: np.ndarray, n_top_genes: int, n_bins: int) -> pd.DataFrame:
    """Scale the logarithm of variance / mean within bins of log mean; select the largest."""
    import pandas as pd

    mean = np.where(mean == 0, 1e-12, mean)
    dispersion = var / mean
    with np.errstate(invalid="ignore"):
        dispersion = np.log(np.where(dispersion == 0, np.nan, dispersion))
    mean = np.log1p(mean)
    table = pd.DataFrame({"means": mean, "dispersions": dispersion})
    bins = pd.cut(table["means"], bins=n_bins, labels=False)
    of_bin = table["dispersions"].groupby(bins).agg(["mean", "std"])
    # The only gene of its bin has no spread: its normalized dispersion is 1.
    is_single = of_bin["std"].isna()
    of_bin.loc[is_single, "std"] = of_bin.loc[is_single, "mean"]
    of_bin.loc[is_single, "mean"] = 0.0
    center, spread = (of_bin[name].loc[bins].to_numpy() for name in ("mean", "std"))
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = (dispersion - center) / spread
    table["dispersions_norm"] = scaled
    ranked = np.sort(scaled[~np.isnan(scaled)])[::-1]
    if ranked.size:
        cutoff = ranked[min(n_top_genes, ranked.size) - 1]
        table["highly_variable"] = np.nan_to_num(scaled, nan=-np.inf) >= cutoff
    else:
        table["highly_variable"] = False
    return table


def _join_batches(
    tables: list[pd.DataFrame], n_top_genes: int, gene_names: Sequence[str] | None
) -> pd.DataFrame:
    """Take the genes selected in most batches; among these the largest mean dispersion."""
    import pandas as pd

    joined = pd.concat(tables)
    joined["highly_variable"] = joined["highly_variable"].astype(int)
    by_gene = joined.groupby(level=0)
    table = by_gene[["means", "dispersions", "dispersions_norm"]].mean()
    table["highly_variable_nbatches"] = by_gene["highly_variable"].sum()
    table["highly_variable_intersection"] = table["highly_variable_nbatches"] == len(tables)
    n_genes = len(table)
    names = np.arange(n_genes) if gene_names is None else np.asarray(gene_names, dtype=object)
    order = (
        table.loc[np.argsort(names, kind="stable")]
        .sort_values(["highly_variable_nbatches", "dispersions_norm"], ascending=False)
        .index
    )
    table["highly_variable"] = False
    table.loc[order[:n_top_genes], "highly_variable"] = True
    return table


def _seurat_v3(
    sums_of: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]],
    n_genes: int,
    candidates: np.ndarray,
    n_top_genes: int,
    groups: Groups,
    span: float,
) -> pd.DataFrame:
    import pandas as pd

    running = None if groups.of_cell is None else RunningMoments(groups, n_genes)

    def counts(piece: sp.csr_matrix, first_cell: int, _: np.ndarray) -> np.ndarray:
        check_counts(piece, first_cell=first_cell)
        return piece.data if piece.dtype.kind == "f" else piece.data.astype(np.float64)

    cells, sums, squares = sums_of(counts, None if running is None else running.update)
    sums, squares = sums[:, candidates], squares[:, candidates]
    mean, var = _mean_var(cells.sum(), sums.sum(axis=0), squares.sum(axis=0))
    table = pd.DataFrame({"means": mean, "variances": var})

    if running is None:
        moments = [_mean_var(cells[i], sums[i], squares[i]) for i in range(groups.n)]
    else:
        moments = [
            (mean[candidates], var[candidates]) for mean, var in running.mean_var(cells[: groups.n])
        ]
    spread = np.array(
        [
            _expected_spread(*moment, span, "" if groups.of_cell is None else f" in batch {name}")
            for moment, name in zip(moments, groups.names, strict=True)
        ]
    )
    means = np.array([mean for mean, _ in moments])
    n = cells[: groups.n, None]
    ceiling = np.full((groups.n + 1, n_genes), np.inf)
    ceiling[: groups.n, candidates] = spread * np.sqrt(n) + means

    def clipped(piece: sp.csr_matrix, _: int, group: np.ndarray) -> np.ndarray:
        of_value = np.repeat(group, np.diff(piece.indptr))
        return np.minimum(piece.data, ceiling[of_value, piece.indices])

    _, sums, squares = sums_of(clipped)
    sums, squares = sums[: groups.n, candidates], squares[: groups.n, candidates]
    scaled = (1 / ((n - 1) * np.square(spread))) * (
        (n * np.square(means)) + squares - 2 * sums * means
    )

    # Sorted as in scanpy, so that genes that tie have the same order.
    rank = np.argsort(np.argsort(-scaled, axis=1), axis=1).astype(np.float32)
    of_top = rank < n_top_genes
    median = np.ma.median(np.ma.masked_array(rank, ~of_top), axis=0)
    table["highly_variable_rank"] = np.ma.filled(median, np.nan)
    table["variances_norm"] = scaled.mean(axis=0)
    table["highly_variable_nbatches"] = of_top.sum(axis=0)
    order = table.sort_values(
        ["highly_variable_rank", "highly_variable_nbatches"], ascending=[True, False]
    ).index
    table["highly_variable"] = False
    table.loc[order[:n_top_genes], "highly_variable"] = True
    return table.drop(columns="highly_variable_nbatches") if groups.of_cell is None else table


def _expected_spread(mean: np.ndarray, var: np.ndarray, span: float, where: str) -> np.ndarray:
    """Fit log variance on log mean; return the expected standard deviation (1 if constant)."""
    from skmisc.loess import loess

    log_var = np.zeros(len(mean))
    varies = var > 0
    if varies.any():
        if int(span * varies.sum()) < 3:  # skmisc writes beyond its memory where this is 0
            raise ValueError(
                f"flavor seurat_v3 cannot fit {varies.sum()} genes that vary{where}: span {span} "
                f'of them must be 3 genes or more; use flavor "seurat" or a larger span'
            )
        model = loess(np.log10(mean[varies]), np.log10(var[varies]), span=span, degree=2)
        try:
            model.fit()
        except ValueError as error:
            reason = str(error).strip().removeprefix("b'").rstrip("'")
            raise ValueError(
                f"the loess fit of flavor seurat_v3 failed{where} on {varies.sum()} genes that "
                f'vary ({reason}); use flavor "seurat", a larger span or larger batches'
            ) from None
        log_var[varies] = model.outputs.fitted_values
    return np.sqrt(10**log_var)
