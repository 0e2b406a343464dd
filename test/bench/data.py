"""Cells to measure on: real ones again with new counts, and synthetic ones of any number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

GENES = 2000


def repeat_cells(source: Path, file: Path, n_cells: int) -> None:
    """Write real cells again and again, each time with new Poisson counts."""
    import anndata
    import scipy.sparse as sp

    cells = anndata.read_h5ad(source)
    rng = np.random.default_rng(0)
    rows = np.arange(n_cells) % cells.n_obs
    counts = sp.csr_matrix(cells.X)[rows].astype(np.float32)
    again = slice(counts.indptr[min(cells.n_obs, n_cells)], None)
    counts.data[again] = rng.poisson(counts.data[again])
    counts.eliminate_zeros()
    obs = (
        cells.obs[["batch", "cell_type"]].iloc[rows].set_axis([f"cell{i}" for i in range(n_cells)])
    )
    anndata.AnnData(counts, obs=obs, var=cells.var[[]]).write_h5ad(file)


def draw_cells(file: Path, n_cells: int) -> None:
    """Write counts of 40 types in 5 batches, `GENES` genes, about 8 % of them above 0."""
    import anndata
    import pandas as pd
    import scipy.sparse as sp

    rng = np.random.default_rng(0)
    profiles = rng.gamma(0.4, 1, GENES) * rng.gamma(0.35, 1, (40, GENES))
    profiles /= profiles.sum(axis=1, keepdims=True)
    effects = rng.lognormal(0, 0.3, (5, GENES))
    parts, batches = [], []
    for start in range(0, n_cells, 8192):
        n = min(8192, n_cells - start)
        batch = rng.integers(0, 5, n)
        share = rng.dirichlet([0.3, 0.3], n)
        rate = sum(profiles[rng.integers(0, 40, n)] * share[:, [i]] for i in (0, 1))
        rate *= effects[batch] * rng.lognormal(np.log(235), 0.4, (n, 1))
        parts.append(sp.csr_matrix(rng.poisson(rate).astype(np.float32)))
        batches.append(batch)
    names = [f"cell{i}" for i in range(n_cells)]
    batch = pd.Categorical(np.concatenate(batches).astype(str))
    obs = pd.DataFrame({"batch": batch}, index=names)
    anndata.AnnData(sp.vstack(parts, format="csr"), obs=obs).write_h5ad(file)


def mixture(n: int, d: int = 50, latent: int = 10, groups: int = 17, seed: int = 0) -> tuple:
    """Return cells of an intrinsic dimension of about 10, and the groups they are from.

    Cells of another seed are others of the same groups.
    """
    rng = np.random.default_rng(0)
    shares, middles = rng.dirichlet(np.full(groups, 1.5)), rng.normal(0, 2.2, (groups, latent))
    parts = rng.normal(0, 1.0, (groups * 4, latent))
    bend, plane = rng.normal(0, 1 / 6, (latent, d)), rng.normal(0, 0.3, (latent, d))
    rng = np.random.default_rng(seed)
    labels = rng.choice(groups, n, p=shares)
    z = middles[labels] + parts[labels * 4 + rng.integers(0, 4, n)]
    z = (z + rng.normal(0, 0.6, (n, latent))).astype(np.float32)
    bent = np.tanh(z @ bend.astype(np.float32)) * 6
    flat = z @ plane.astype(np.float32)
    noise = rng.normal(0, 0.15, (n, d)).astype(np.float32)
    return np.ascontiguousarray(bent + flat + noise, dtype=np.float32), labels


def draw_components(store: Path, n_cells: int) -> None:
    """Write 50 components of the cells of `mixture`, a part at a time."""
    import anndata
    import pandas as pd
    import zarr

    obs = pd.DataFrame(index=[f"cell{i}" for i in range(n_cells)])
    anndata.settings.zarr_write_format = 3
    anndata.AnnData(obs=obs).write_zarr(store)
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    array = group["obsm"].create_array(
        "X_pca", shape=(n_cells, 50), chunks=(100_000, 50), dtype="float32"
    )
    array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    for start in range(0, n_cells, 1_000_000):
        n = min(1_000_000, n_cells - start)
        array[start : start + n] = mixture(n, seed=start)[0]
    zarr.consolidate_metadata(store)


def draw_full_genes(file: Path, n_cells: int, n_genes: int = 30_000) -> None:
    """Write counts of a whole transcriptome as a gzip .h5ad, about 1,500 values a cell.

    40 types in a tree of 8 x 5, 5 batches; drawn and written in blocks of cells.
    """
    import anndata
    import h5py
    import pandas as pd
    import scipy.sparse as sp
    from anndata.io import write_elem

    rng = np.random.default_rng(0)
    base = rng.normal(0, 2.2, n_genes)
    lineages = rng.normal(0, 1.2, (8, n_genes)) * (rng.random((8, n_genes)) < 0.06)
    types = np.repeat(lineages, 5, axis=0)
    types += rng.normal(0, 1, (40, n_genes)) * (rng.random((40, n_genes)) < 0.02)
    effects = rng.normal(0, 0.25, (5, n_genes))
    cumulated = np.exp(base + types[:, None] + effects).cumsum(axis=2)
    cumulated /= cumulated[:, :, -1:]
    batch = rng.integers(0, 5, n_cells)
    cell_type = rng.integers(0, 40, n_cells)
    names = [f"cell{i}" for i in range(n_cells)]
    columns = {"batch": batch, "lineage": cell_type // 5}
    columns = {name: pd.Categorical(codes.astype(str)) for name, codes in columns.items()}
    columns["cell_type"] = pd.Categorical([f"{i // 5}_{i % 5}" for i in cell_type.tolist()])
    obs = pd.DataFrame(columns, index=names)
    empty = sp.csr_matrix((n_cells, n_genes), dtype=np.float32)
    options = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
    options |= {"chunks": (1 << 18,), "maxshape": (None,)}
    anndata.AnnData(empty, obs=obs).write_h5ad(file)
    with h5py.File(file, "a") as store:
        matrix = store["X"]
        for part, dtype in (("data", "f4"), ("indices", "i4")):
            attributes = dict(matrix[part].attrs)
            del matrix[part]
            matrix.create_dataset(part, (0,), dtype, **options).attrs.update(attributes)
        indptr = [np.zeros(1, np.int64)]
        for start in range(0, n_cells, 2000):
            stop = min(start + 2000, n_cells)
            totals = np.clip(rng.lognormal(np.log(3000), 0.5, stop - start), 500, 30_000)
            rows = []
            for cell, total in zip(range(start, stop), totals.astype(int), strict=True):
                genes = np.searchsorted(cumulated[cell_type[cell], batch[cell]], rng.random(total))
                rows.append(np.bincount(genes, minlength=n_genes).astype(np.float32))
            block = sp.csr_matrix(np.stack(rows))
            n_values = int(indptr[-1][-1])
            for part in ("data", "indices"):
                matrix[part].resize(n_values + block.nnz, 0)
                matrix[part][n_values:] = getattr(block, part)
            indptr.append(block.indptr[1:].astype(np.int64) + n_values)
        attributes = dict(matrix["indptr"].attrs)
        del matrix["indptr"]
        write_elem(matrix, "indptr", np.concatenate(indptr))
