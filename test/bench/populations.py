"""Counts with known truth: one population, a continuum, or a tree of populations.

Each function takes a random number generator and returns a `Population`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

INPUT = Path(__file__).resolve().parents[1] / "input"
N_GENES = 1500
DEPTH, DEPTH_SPREAD = 2500, 0.35
DISPERSION = 0.1
BATCH_EFFECT = 0.2  # standard deviation of a gene's logarithm between batches
# Of the genes this share differs between siblings of a tree, by exp(N(0, s)) at each level.
CHANGED = 0.06
TREES = {"tree": (1.4, 1.0, 0.8), "weak": (1.2, 0.7, 0.5), "deep": (1.4, 1.0, 0.8, 0.8, 0.8)}


class Population(NamedTuple):
    """Counts (cells x genes), the true leaf of each cell, and its batch."""

    counts: np.ndarray
    truth: np.ndarray
    batch: np.ndarray


def profile(rng, n_genes=N_GENES):
    """Draw the shares of the genes, log-normal."""
    shares = rng.lognormal(0, 1.8, n_genes)
    return shares / shares.sum()


def changed(rng, shares, size, share_of_genes):
    """Change a part of the genes: another population, or a batch."""
    factor = np.exp(rng.normal(0, size, shares.size) * (rng.random(shares.size) < share_of_genes))
    return shares * factor / (shares * factor).sum()


def sample_counts(rng, shares, n_cells, *, spread=DEPTH_SPREAD, dispersion=DISPERSION):
    """Draw Poisson or (dispersion > 0) negative binomial counts of log-normal depth."""
    mean = rng.lognormal(np.log(DEPTH), spread, n_cells)[:, None] * np.atleast_2d(shares)
    if dispersion > 0:
        mean = mean * rng.gamma(1 / dispersion, dispersion, mean.shape)
    return rng.poisson(mean)


def one_population(counts, batch=None):
    """Label all cells alike."""
    none = np.zeros(len(counts), dtype=np.int64)
    return Population(counts, none, none if batch is None else batch)


def poisson(rng, n_cells):
    return one_population(sample_counts(rng, profile(rng), n_cells, dispersion=0))


def negative_binomial(rng, n_cells):
    dispersion = rng.uniform(0.1, 0.5)
    return one_population(sample_counts(rng, profile(rng), n_cells, dispersion=dispersion))


def unequal_depth(rng, n_cells):
    return one_population(sample_counts(rng, profile(rng), n_cells, spread=0.8))


def three_batches(rng, n_cells):
    shares = profile(rng)
    batch = rng.choice(3, n_cells, p=rng.dirichlet([5, 5, 5]))
    of_batch = np.stack([changed(rng, shares, BATCH_EFFECT, 1) for _ in range(3)])
    return one_population(sample_counts(rng, of_batch[batch], n_cells), batch)


def doublets(rng, n_cells):
    """Every tenth cell has the counts of two."""
    counts = sample_counts(rng, profile(rng), n_cells, dispersion=0.2)
    both = rng.random(n_cells) < 0.1
    counts[both] += counts[rng.integers(0, n_cells, both.sum())]
    return one_population(counts)


def permuted_type(rng, n_cells):
    """Permute every gene among the cells of one real type, which leaves its distribution."""
    import anndata

    cells = anndata.read_h5ad(INPUT / "pancreas.h5ad")
    sizes = cells.obs["cell_type"].value_counts()
    chosen = cells.obs["cell_type"] == rng.choice(sizes.index[sizes >= 150])
    counts = cells[chosen.to_numpy()].X.toarray()
    counts = counts[rng.permutation(len(counts))[:n_cells]]
    return one_population(np.stack([rng.permutation(gene) for gene in counts.T], axis=1))


def cloud(law):
    """Correlate genes by 1 to 4 latent programs of one law, without types."""

    def draw(rng, n_cells):
        n = int(rng.integers(1, 5))
        programs = {
            "normal": lambda: rng.normal(0, 1, (n_cells, n)),
            "t": lambda: rng.standard_t(5, (n_cells, n)),
            "uniform": lambda: rng.uniform(-(3**0.5), 3**0.5, (n_cells, n)),
            "exponential": lambda: rng.exponential(1, (n_cells, n)) - 1,
        }[law]()
        loadings = rng.normal(0, rng.uniform(0.2, 0.6), (n, N_GENES))
        loadings *= rng.random((n, N_GENES)) < 0.2
        shares = profile(rng) * np.exp(programs @ loadings)
        shares /= shares.sum(axis=1, keepdims=True)
        return one_population(sample_counts(rng, shares, n_cells))

    return draw


def gradient(rng, n_cells):
    """Place cells evenly on the way from one population to another."""
    start = profile(rng)
    end, where = changed(rng, start, 1.0, 0.2), rng.random(n_cells)[:, None]
    shares = start ** (1 - where) * end**where
    return one_population(sample_counts(rng, shares / shares.sum(axis=1, keepdims=True), n_cells))


def leaves_of_tree(rng, sizes, n_genes=2000):
    """Draw 3 x 2 x 2 leaves; levels after the third divide the first branch alone."""

    def grow(shares, path):
        level = len(path)
        if level == len(sizes) or (level >= 3 and path[:2] != (0, 0)):
            return [shares]
        children = (
            grow(changed(rng, shares, sizes[level], CHANGED), (*path, i))
            for i in range(2 if level else 3)
        )
        return [leaf for child in children for leaf in child]

    return np.stack(grow(profile(rng, n_genes), ()))


def with_two_batches(rng, leaves, truth):
    batch = rng.integers(0, 2, len(truth))
    effect = np.exp(rng.normal(0, 0.15, (2, leaves.shape[1])))
    shares = leaves[truth] * effect[batch]
    shares /= shares.sum(axis=1, keepdims=True)
    return Population(sample_counts(rng, shares, len(truth)), truth, batch)


def tree(kind):
    """Draw a tree of 12 (`deep`: 18) leaves of unequal size, in two batches."""

    def draw(rng, n_cells):
        leaves = leaves_of_tree(rng, TREES[kind])
        n = len(leaves)
        truth = rng.choice(n, n_cells, p=0.7 * rng.dirichlet(np.full(n, 3)) + 0.3 / n)
        return with_two_batches(rng, leaves, truth)

    return draw


def small_leaves(rng, n_cells):
    """Draw a tree with 4 leaves each of 20-49, 50-99 and 150-499 cells."""
    limits = ((20, 50), (50, 100), (150, 500))
    sizes = rng.permutation(np.concatenate([rng.integers(*limit, 4) for limit in limits]))
    truth = np.repeat(np.arange(12), sizes)
    return with_two_batches(rng, leaves_of_tree(rng, TREES["tree"]), truth)


NULLS = {
    "Poisson": poisson,
    "negative binomial": negative_binomial,
    "unequal depth": unequal_depth,
    "three batches": three_batches,
    "genes of a real type permuted": permuted_type,
    "a tenth doublets": doublets,
    "correlated genes, normal": cloud("normal"),
    "correlated genes, t": cloud("t"),
}
CONTINUA = {
    "gradient": gradient,
    "cloud, uniform": cloud("uniform"),
    "cloud, exponential": cloud("exponential"),
}
WITH_TYPES = {**{kind: tree(kind) for kind in TREES}, "small leaves": small_leaves}


def draw_population(kind, seed):
    """Draw a population of a kind; nulls and continua of 300, 500 or 1,000 cells."""
    rng = np.random.default_rng([seed, *kind.encode()])
    if kind in WITH_TYPES:
        return WITH_TYPES[kind](rng, 1500)
    return (NULLS | CONTINUA)[kind](rng, int(rng.choice([300, 500, 1000])))
