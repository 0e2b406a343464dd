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


def draw_full_genes(file: Path, n_cells: int, *, n_genes: int = 30_000) -> None:
    """Write counts of 40 types in 8 lineages, 30,000 genes, about 1,550 of them above 0; gzip."""
    import anndata
    import h5py
    import pandas as pd

    rng = np.random.default_rng(0)
    base = np.exp(rng.normal(0, 2.2, n_genes))
    lineage = np.exp(rng.normal(0, 1.2, (8, n_genes)) * (rng.random((8, n_genes)) < 0.06))
    leaf = np.exp(rng.normal(0, 1.0, (40, n_genes)) * (rng.random((40, n_genes)) < 0.02))
    profiles = base * np.repeat(lineage, 5, axis=0) * leaf
    ends = np.cumsum(profiles, axis=1) / profiles.sum(axis=1, keepdims=True)
    shares = 1 / np.arange(1, 41) ** 0.8
    types = rng.choice(40, n_cells, p=shares / shares.sum())
    totals = np.clip(rng.lognormal(np.log(3000), 0.5, n_cells), 500, 30_000).astype(int)
    with h5py.File(file, "w") as store:  # below 2**31 values
        arrays = {
            name: store.create_dataset(
                f"X/{name}", (0,), kind, maxshape=(None,), chunks=(1 << 18,), compression="gzip",
                shuffle=True,
            )
            for name, kind in (("data", np.float32), ("indices", np.int32))
        }  # fmt: skip
        pointers, n_values = [np.zeros(1, np.int64)], 0
        for start in range(0, n_cells, 2000):
            rows = []
            for cell in range(start, min(start + 2000, n_cells)):
                draws = np.sort(rng.random(totals[cell]))
                genes, counts = np.unique(
                    np.searchsorted(ends[types[cell], :-1], draws), return_counts=True
                )
                rows.append((genes, counts))
            genes, counts = (np.concatenate(part) for part in zip(*rows, strict=True))
            for name, values in (("data", counts), ("indices", genes)):
                arrays[name].resize((n_values + len(values),))
                arrays[name][n_values:] = values
            pointers.append(n_values + np.cumsum([len(row) for row, _ in rows]))
            n_values += len(genes)
        # SciPy's loops need both of one type.
        store["X/indptr"] = np.concatenate(pointers).astype(np.int32)
        attributes = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0"}
        store["X"].attrs.update(attributes | {"shape": [n_cells, n_genes]})
        obs = pd.DataFrame(
            {
                "lineage": pd.Categorical((types // 5).astype(str)),
                "cell_type": pd.Categorical([f"{i // 5}_{i % 5}" for i in types.tolist()]),
            },
            index=[f"cell{i}" for i in range(n_cells)],
        )
        anndata.io.write_elem(store, "obs", obs)
        var = pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)])
        anndata.io.write_elem(store, "var", var)
        for name in ("layers", "obsm", "obsp", "varm", "varp", "uns"):
            anndata.io.write_elem(store, name, {})
        store.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
