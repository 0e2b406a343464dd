"""Tested splits: how often one population is split, and how much of what is there is found.

    python test/bench/bench_splits.py --jobs 2 --figure docs/significance_calibration.png

runs `hierarchy: auto` in memory on simulated populations (`populations.py`) and on real ones, keeps
what came out as JSON (--runs), and writes the section of ``RESULTS.md``.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
sys.path[:0] = [str(REPO / "workflow"), str(HERE)]
from populations import CONTINUA, NULLS, TREES, draw_population  # noqa: E402
from results_page import write_section  # noqa: E402
from splits_report import ALPHA, FLAT, TREE_SETTINGS, draw_figure, tables  # noqa: E402

SHARED = REPO.parent / "shared" / "data"
# File (beside the project or committed) and columns of the labels.
REAL = {
    "cell lines": ((SHARED / "cellline_mixology_4kg.h5ad",), ("cell_type",)),
    "pancreas": ((REPO / "test/input/pancreas.h5ad",), ("cell_type_broad", "cell_type")),
    "Liu": (
        (SHARED / "liu_covid_10k.h5ad", REPO / "test/input/liu_mini.h5ad"),
        ("cell_type_broad", "cell_type"),
    ),
    "Kang": ((SHARED / "kang_ifnb_6k_4kg.h5ad",), ("cell_type_broad", "cell_type")),
}


def embed(counts, batch, target_sum=1e4):
    """Compute 50 principal components of 2,000 variable genes, with Harmony where it is due."""
    from clustering.refine import components_of_counts
    from integration.harmony import harmonize
    from preprocessing.options import PCAOptions

    Z = components_of_counts(counts, PCAOptions(target_sum=target_sum))
    if np.ptp(batch):
        return harmonize(Z, [pd.Series(pd.Categorical(batch))], seed=0).corrected
    return Z


def cluster_auto(
    counts, batch, *, resolution=1.0, gradual="keep", refine="neighbors", target_sum=1e4,
    max_levels=8,
):  # fmt: skip
    """Cluster level after level as `hierarchy: auto` does.

    Parameters
    ----------
    counts
        CSR matrix, cells x genes.
    batch
        int of shape (cells,).
    refine
        ``neighbors``: of the components of all cells; ``integration``: of each parent's own.
    target_sum
        Of the components of all cells; None: the median total.

    Returns
    -------
    dict
        Labels by level, records of the splits, CPU seconds of all and of the tests.
    """
    from clustering.cluster_names import ALL_CELLS, child_name
    from clustering.communities import CommunityGraph
    from clustering.connectivities import neighbor_graph
    from clustering.dispatch import cluster_cells
    from clustering.hierarchy import split_level
    from clustering.options import NeighborsOptions, SplitOptions
    from clustering.refine import own_components
    from clustering.significance.splits import SplitTest
    from preprocessing.options import PCAOptions

    begin, spent = time.process_time(), [0.0]

    class Timed(SplitTest):
        def __call__(self, divisions):
            start = time.process_time()
            tested = list(super().__call__(divisions))
            spent[0] += time.process_time() - start
            return iter(tested)

    X = embed(counts, batch, target_sum)
    test = Timed(
        read=lambda parts: [counts[rows] for rows in parts],
        batch=batch,
        representation=X,
        n_cells=len(X),
        significance=ALPHA,
        gradual=gradual,
        algorithm="leiden",
        n_neighbors=NeighborsOptions.n_neighbors,
    )
    basis = X
    if refine == "integration":
        batches = [pd.Series(pd.Categorical(batch))] if np.ptp(batch) else []
        basis = partial(
            own_components, lambda: [counts], options=PCAOptions(), batches=batches, threads=1
        )
    size = SplitOptions.min_cluster_size
    codes, names, record = cluster_cells(
        CommunityGraph(neighbor_graph(X).connectivities),
        algorithm="leiden", resolution=resolution, seed=0, max_cluster_factor=1.0,
        min_cluster_size=size, clustering_args={}, use_gpu=False, n_cell_cpu=0, test=test,
    )  # fmt: skip
    levels, splits, unsplit = [codes], list(record["splits"]), record["unsplit"]
    from clustering.children import Unsplit

    while len(levels) < max_levels:
        known = {
            "0" if name == ALL_CELLS else child_name(name, 0): Unsplit(**why)
            for name, why in unsplit.items()
        }
        codes, below, record = split_level(
            (codes, names), (refine, basis), resolution=resolution, algorithm="leiden",
            refine=refine, min_cluster_size=size, neighbors_args={}, clustering_args={}, threads=1,
            seed=0, known_unsplit=known, test=test,
        )  # fmt: skip
        splits += record["splits"]
        unsplit = record["unsplit"]
        if len(below) <= len(names):
            break
        names = below
        levels.append(codes)
    return {
        "levels": levels, "splits": splits, "seconds": time.process_time() - begin,
        "test_seconds": spent[0],
    }  # fmt: skip


def ari(truth, labels):
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(truth, labels))


def overlaps(truth, labels):
    """Return the size of each true leaf, and its Jaccard index with the cluster nearest to it."""
    table = pd.crosstab(truth, labels).to_numpy()
    sizes, clusters = table.sum(axis=1), table.sum(axis=0)
    best = (table / (sizes[:, None] + clusters - table)).max(axis=1)
    return [[int(size), float(value)] for size, value in zip(sizes, best, strict=True)]


def summary(result, truth):
    """Keep of a run what the tables need."""
    verdicts = [split["verdict"] for split in result["splits"]]
    return {
        "n_cells": len(truth),
        "n_levels": len(result["levels"]),
        "n_clusters": int(result["levels"][-1].max()) + 1,
        "p": result["splits"][0]["p"] if result["splits"] else 1.0,
        "verdicts": {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
        "ari": ari(truth, result["levels"][-1]),
        "leaves": overlaps(truth, result["levels"][-1]),
        "seconds": result["seconds"],
        "test_seconds": result["test_seconds"],
    }


def simulated(job):
    """Run one simulated population."""
    kind, seed, refine, target_sum = job
    population = draw_population(kind, seed)
    counts = sp.csr_matrix(population.counts.astype(np.float32))
    result = cluster_auto(counts, population.batch, refine=refine, target_sum=target_sum)
    about = {"kind": kind, "seed": seed, "refine": refine, "target_sum": target_sum}
    return {**about, **summary(result, population.truth)}


def real(job):
    """Run one real data set; `gradual` None: flat Leiden, without a test, at each resolution."""
    import anndata

    name, resolution, gradual, refine = job
    files, columns = REAL[name]
    cells = anndata.read_h5ad(next(file for file in files if file.exists()))
    counts = sp.csr_matrix(cells.X).astype(np.float32)
    batch = pd.factorize(cells.obs["batch"])[0]
    labels = {column: pd.factorize(cells.obs[column])[0] for column in columns}
    about = {"kind": name, "resolution": resolution, "gradual": gradual, "refine": refine,
             "n_cells": len(batch)}  # fmt: skip
    if gradual is None:
        from clustering.communities import CommunityGraph, find_communities
        from clustering.connectivities import neighbor_graph

        graph = CommunityGraph(neighbor_graph(embed(counts, batch)).connectivities)
        flat = {r: find_communities(graph, resolution=r, seed=0) for r in FLAT}
        aris = {c: max((ari(t, flat[r]), r) for r in FLAT) for c, t in labels.items()}
        return {**about, "flat": {column: list(best) for column, best in aris.items()}}
    result = cluster_auto(counts, batch, resolution=resolution, gradual=gradual, refine=refine)
    return {
        **about,
        **summary(result, labels[columns[0]]),
        "aris": {column: [ari(t, level) for level in result["levels"]]
                 for column, t in labels.items()},
        "clusters": [int(level.max()) + 1 for level in result["levels"]],
    }  # fmt: skip


def one_line(job):
    """Run the cells of one genotype: a real population without types."""
    import anndata

    name, resolution = job
    cells = anndata.read_h5ad(REAL["cell lines"][0][0])
    cells = cells[(cells.obs["cell_type"] == name).to_numpy()]
    counts = sp.csr_matrix(cells.X).astype(np.float32)
    result = cluster_auto(counts, pd.factorize(cells.obs["batch"])[0], resolution=resolution)
    return {"kind": "one cell line", "line": name, **summary(result, np.zeros(len(cells), int))}


def work(job):
    function, arguments = job
    run = {"simulated": simulated, "real": real, "one_line": one_line}[function](arguments)
    return {"job": job, **run}


def read_runs(file):
    """Read the runs of a file by their jobs."""
    runs = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return {(run["job"][0], tuple(run["job"][1])): run for run in runs}


def quiet():
    sys.stderr = io.StringIO()


def list_jobs(arguments):
    """List what is run, the tables' order not mattering."""
    seeds = range(arguments.seed, arguments.seed + arguments.nulls)
    jobs = [("simulated", (kind, seed, "neighbors", 1e4)) for seed in seeds for kind in NULLS]
    seeds = range(arguments.seed, arguments.seed + arguments.continua)
    jobs += [("simulated", (kind, seed, "neighbors", 1e4)) for seed in seeds for kind in CONTINUA]
    seeds = range(arguments.seed, arguments.seed + arguments.trees)
    for setting in TREE_SETTINGS:
        jobs += [
            ("simulated", (kind, seed, *setting))
            for seed in seeds
            for kind in (*TREES, "small leaves")
        ]
    present = [name for name, (files, _) in REAL.items() if any(file.exists() for file in files)]
    for name in present if arguments.real else ():
        jobs.append(("real", (name, None, None, None)))
        jobs += [
            ("real", (name, resolution, gradual, refine))
            for resolution in (0.02, 0.05, 0.1, 0.3, 1.0)
            for gradual, refine in (
                ("keep", "neighbors"), ("join", "neighbors"), ("keep", "integration")
            )
        ]  # fmt: skip
    if "cell lines" in present and arguments.real:
        import anndata

        lines = anndata.read_h5ad(REAL["cell lines"][0][0]).obs["cell_type"].unique()
        jobs += [("one_line", (line, 1.0)) for line in lines]
    return jobs


def draw_example(file):
    """Draw what the test does with one population, a gradient and types."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    from clustering.communities import CommunityGraph, find_communities
    from clustering.connectivities import neighbor_graph

    shown = {
        "one population": draw_population("negative binomial", 1),
        "a gradient": draw_population("gradient", 5007),
        "types": draw_population("tree", 1),
    }
    figure, axes = plt.subplots(2, len(shown), figsize=(9, 5.4), constrained_layout=True)
    for column, (title, population) in zip(axes.T, shown.items(), strict=True):
        counts = sp.csr_matrix(population.counts.astype(np.float32))
        X = embed(counts, population.batch)
        graph = CommunityGraph(neighbor_graph(X).connectivities)
        before = find_communities(graph, resolution=1.0, seed=0)
        result = cluster_auto(counts, population.batch)
        verdicts = summary(result, population.truth)["verdicts"]
        after = ", ".join(f"{n} {verdict}" for verdict, n in verdicts.items())
        for axis, labels, text in (
            (column[0], before, f"{title}\nLeiden, resolution 1.0: {before.max() + 1} clusters"),
            (column[1], result["levels"][-1],
             f"tested: {result['levels'][-1].max() + 1}\nsplits: {after}"),
        ):  # fmt: skip
            axis.scatter(X[:, 0], X[:, 1], c=labels, cmap="tab20", s=4, lw=0)
            axis.set_title(text, fontsize=9)
            axis.set(xticks=[], yticks=[])
    figure.savefig(file, dpi=80)


def main():
    """Read the command line and run."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # of the processes that this one starts
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=5000, help="the first one")
    parser.add_argument("--nulls", type=int, default=55, help="of each kind")
    parser.add_argument("--continua", type=int, default=40, help="of each kind")
    parser.add_argument("--trees", type=int, default=6, help="of each kind")
    parser.add_argument("--real", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("results/bench_splits.json"))
    parser.add_argument("--again", action="store_true", help="tables of what --runs has already")
    parser.add_argument("--resume", action="store_true", help="run only what --runs lacks")
    parser.add_argument("--figure", type=Path, help="the picture of docs/significance.md")
    parser.add_argument("--example", type=Path, help="draw the other picture of it, and no more")
    parser.add_argument("--results", type=Path, default=HERE / "RESULTS.md")
    arguments = parser.parse_args()
    if arguments.example:
        draw_example(arguments.example)
        return
    stored = read_runs(arguments.runs) if arguments.again or arguments.resume else {}
    jobs = [] if arguments.again else [job for job in list_jobs(arguments) if job not in stored]
    arguments.runs.parent.mkdir(parents=True, exist_ok=True)
    with (
        arguments.runs.open("a" if stored else "w") as file,
        get_context("spawn").Pool(arguments.jobs, quiet) as pool,
    ):
        for i, (job, run) in enumerate(zip(jobs, pool.imap(work, jobs), strict=True)):
            stored[job] = run
            file.write(json.dumps(run) + "\n")
            file.flush()
            print(f"{i + 1}/{len(jobs)} {run['kind']} {run.get('verdicts')}", flush=True)
    runs = list(stored.values())
    lines = tables(runs, arguments)
    print("\n".join(lines))
    write_section(arguments.results, "splits", "\n".join(lines))
    if arguments.figure:
        draw_figure(runs, arguments.figure)


if __name__ == "__main__":
    main()
