"""The suggested resolution beside the best one, which only the labels tell; and one population.

    python test/bench/bench_resolutions.py [--seeds 300 304] [--null-seeds 300 340]

Data of the repository, and of ``shared`` beside it where that exists: studies, conditions and
protocols on their own and integrated, simulated trees, and simulated homogeneous populations, for
which none is to be suggested. Writes a section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from bench_job import RESULTS, machine
from results_page import write_section

HERE = Path(__file__).resolve()
REPO = HERE.parents[2]
sys.path[:0] = [str(REPO / "workflow")]

from clustering.communities import build, find_communities  # noqa: E402
from clustering.connectivities import neighbor_graph  # noqa: E402
from clustering.options import SIGNIFICANCE  # noqa: E402
from clustering.significance.splits import Division, SplitTest  # noqa: E402
from evaluation.clusters.resolutions import (  # noqa: E402
    REPRODUCED,
    least_separation,
    resolution_table,
    reweighted_agreement,
    suggest_resolution,
)
from evaluation.clusters.robustness import as_table, restricted, robustness  # noqa: E402
from evaluation.scores.agreement import adjusted_rand_index, contingency  # noqa: E402
from integration.harmony import run_harmony  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Load = Callable[[], tuple[anndata.AnnData, str, str | None]]

INPUT, SHARED = REPO / "test" / "input", REPO.parent / "shared"
RESOLUTIONS = (0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 4.0)
FEWER = {
    "0.01-4, 8 resolutions": (0.01, 0.05, 0.1, 0.3, 0.5, 1.0, 2.0, 4.0),
    "0.1-2, 5 resolutions": (0.1, 0.3, 0.5, 1.0, 2.0),
}
# Types of fewer cells are not counted, as in the review that this answers.
MIN_TYPE = 10
NEAR = 0.05
# Name, file, the column and value that choose cells, and the batch where there are several.
REAL = (
    ("pancreas, one study: Baron", "pancreas", "batch", "Baron et al. 2016", None),
    ("pancreas, one study: Fasolino", "pancreas", "batch",
     "Fasolino et al. 2022", None),
    ("pancreas, one study: Muraro", "pancreas", "batch", "Muraro et al. 2016", None),
    ("pancreas, one study: Tosti", "pancreas", "batch", "Tosti et al. 2021", None),
    ("pancreas, one study: Tritschler", "pancreas", "batch",
     "Tritschler et al. 2022", None),
    ("pancreas, Harmony of five studies", "pancreas", None, None, "batch"),
    ("Kang, control", "kang_ifnb_6k_4kg", "batch", "ctrl", None),
    ("Kang, stimulated", "kang_ifnb_6k_4kg", "batch", "stim", None),
    ("Kang, Harmony of both", "kang_ifnb_6k_4kg", None, None, "batch"),
    ("Liu, B1", "liu_covid_10k", "batch", "B1", None),
    ("Liu, B2", "liu_covid_10k", "batch", "B2", None),
    ("Liu, B3", "liu_covid_10k", "batch", "B3", None),
    ("Liu, Harmony of three batches", "liu_covid_10k", None, None, "batch"),
    ("cell lines, CEL-seq2, Harmony of four batches", "cellline_mixology_4kg", "protocol",
     "CEL-seq2", "batch"),
    ("cell lines, Drop-seq", "cellline_mixology_4kg", "protocol", "Drop-seq", None),
    ("cell lines, Harmony of five batches", "cellline_mixology_4kg", None, None, "batch"),
)  # fmt: skip


# Single donors, cells of the same data sets.
DONORS = (("kang_ifnb_6k_4kg", "batch"), ("pancreas", None), ("liu_covid_10k", None))
N_DONORS = 3
CHOSEN_ON = "pancreas"


def load_real(file: Path, column: str | None, value: str | None, batch: str | None) -> tuple:
    """Read some cells of a file; the labels are in `cell_type`."""
    cells = anndata.read_h5ad(file)
    if column:
        cells = cells[(cells.obs[column] == value).to_numpy()].copy()
    return cells, "cell_type", batch


def load_atlas(file: Path) -> tuple:
    cells = anndata.read_h5ad(file)
    return anndata.AnnData(cells.layers["counts"], obs=cells.obs), "bulk_labels", None


def data_sets() -> Iterator[tuple[str, Load]]:
    """Name the real data sets that exist here, and how each is read."""
    for name in ("pancreas_mini", "liu_mini"):
        yield f"{name}, Harmony", partial(load_real, INPUT / f"{name}.h5ad", None, None, "batch")
    for name, file, *choice in REAL:
        for path in (INPUT / f"{file}.h5ad", SHARED / "data" / f"{file}.h5ad"):
            if path.exists():
                yield name, partial(load_real, path, *choice)
    if (path := SHARED / "data" / "pbmc68k_atlas.h5ad").exists():
        yield "PBMC 68k, 700 cells", partial(load_atlas, path)


def donors() -> Iterator[tuple[str, Load]]:
    """Name the largest donors of the real data sets."""
    for file, batch in DONORS:
        for path in (INPUT / f"{file}.h5ad", SHARED / "data" / f"{file}.h5ad"):
            if path.exists():
                largest = anndata.read_h5ad(path, backed="r").obs["donor"].value_counts()
                for donor in largest.index[:N_DONORS]:
                    name = f"{file.split('_')[0]}, donor {donor}"
                    yield name, partial(load_real, path, "donor", donor, batch)


def embed(cells: anndata.AnnData, batch: str | None) -> np.ndarray:
    """Compute 50 components of 2,000 variable genes, by Harmony where there are batches."""
    import scanpy as sc

    sc.pp.filter_genes(cells, min_cells=1)
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    if cells.n_vars > 2000:
        sc.pp.highly_variable_genes(cells, n_top_genes=2000)
    sc.pp.pca(cells, n_comps=min(50, *(n - 1 for n in cells.shape)))
    components = cells.obsm["X_pca"].astype(np.float32)
    if batch is None or cells.obs[batch].nunique() < 2:
        return components
    corrected = np.asarray(run_harmony(components, cells.obs, batch).Z_corr)
    return np.ascontiguousarray(corrected if corrected.shape == components.shape else corrected.T)


def compare(
    X: np.ndarray, counts: sp.csr_matrix | None = None, batch: np.ndarray | None = None
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Cluster at all resolutions, and compare them as resolutions.py does.

    Without counts no splits are tested.
    """
    graph = build(neighbor_graph(X).connectivities)
    codes, tables, communities = {}, [], {}
    for resolution in RESOLUTIONS:
        name = f"leiden_{resolution}_1"
        communities[name] = {"algorithm": "leiden", "resolution": resolution}
        codes[name] = find_communities(graph, **communities[name])
        scores = robustness(codes[name], restricted(graph.adjacency, **communities[name]))
        sizes = np.bincount(codes[name])
        names = [str(cluster) for cluster in range(len(sizes))]
        tables.append(as_table(scores, names, sizes).assign(column=name))
    reweighted = reweighted_agreement(codes, X, communities)
    separation = {name: least_separation(labels, X) for name, labels in codes.items()}
    families = {"leiden resolutions": list(codes)}
    splits = None
    if counts is not None:
        considered = {n: labels for n, labels in codes.items() if reweighted[n] >= REPRODUCED}
        splits = test_splits(considered, X, counts, batch)
    table = resolution_table(pd.concat(tables), families, reweighted, separation, splits=splits)
    return codes, table


def test_splits(
    codes: dict[str, np.ndarray], X: np.ndarray, counts: sp.csr_matrix, batch: np.ndarray
) -> pd.DataFrame:
    """Test every split of clusterings of level 1 as splits.py does."""
    test = SplitTest(
        read=lambda parts: [counts[rows] for rows in parts], batch=batch, representation=X,
        n_cells=len(X), significance=SIGNIFICANCE, gradual="keep", algorithm="leiden",
        n_neighbors=15,
    )  # fmt: skip
    rows = []
    for column, labels in codes.items():
        if labels.max() > 0:
            division = Division(np.arange(len(labels)), labels, float(column.split("_")[1]))
            (tested,) = test.examine([division])
            rows += [{"column": column, **split.record(str)} for split in tested]
    names = ["column", "left", "right", "n_left", "n_right", "verdict"]
    table = pd.DataFrame(rows, columns=names)
    return table.assign(**{side: table[side].map(",".join) for side in ("left", "right")})


def suggest(compared: pd.DataFrame, resolutions: tuple[float, ...], *, tested: bool = True) -> str:
    """Suggest one of some of the resolutions."""
    names = [f"leiden_{resolution}_1" for resolution in resolutions]
    some = compared[compared["column"].isin(names)]
    return suggest_resolution(some if tested else some.assign(absent=np.nan))[0]


def measure(name: str, load: Load) -> tuple[str, Counter]:
    """Return a row of the table; and by grid and kind of rule, what the suggestion is."""
    cells, label, batch = load()
    types = pd.Categorical(cells.obs[label])
    counts = sp.csr_matrix(cells.X).astype(np.float32)
    batches = pd.factorize(cells.obs[batch])[0] if batch else np.zeros(len(counts.indptr) - 1, int)
    X = embed(cells, batch)
    codes, compared = compare(X, counts, batches)
    sizes = np.bincount(types.codes[types.codes >= 0])
    truth = np.where(sizes[types.codes] >= MIN_TYPE, types.codes, -1)
    agreement = {
        column: adjusted_rand_index(contingency(truth, labels)) for column, labels in codes.items()
    }
    outcomes = {}
    for grid, resolutions in {"all": RESOLUTIONS, **FEWER}.items():
        most = max(agreement[f"leiden_{resolution}_1"] for resolution in resolutions)
        for tested in (True, False):
            chosen = suggest(compared, resolutions, tested=tested)
            outcome = "none" if not chosen else "off"
            if chosen and agreement[chosen] >= most - NEAR:
                outcome = "near"
            outcomes[grid, tested] = outcome
    chosen = suggest(compared, RESOLUTIONS)
    untested = suggest(compared, RESOLUTIONS, tested=False)
    best = max(agreement, key=agreement.__getitem__)

    def shown(column: str) -> str:
        if not column:
            return "none"
        n_clusters = len(np.unique(codes[column]))
        return f"{column.split('_')[1]}: {n_clusters}, {agreement[column]:.2f}"

    row = (
        f"| {name} | {len(X):,} | {(sizes >= MIN_TYPE).sum()} | {shown(chosen)} | "
        f"{shown(untested)} | {shown(best)} | {outcomes['all', True]} |"
    )
    return row, Counter((grid, tested, what) for (grid, tested), what in outcomes.items())


def simulator():
    """Import the simulation that lies beside the repository; None where it is not there."""
    path = SHARED / "cases" / "simulate.py"
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location("simulate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def null_row(simulate, kind: str, seeds: range) -> str:
    """Cluster homogeneous populations of 240 to 600 cells, and count what is suggested."""
    none, n_clusters, largest = 0, [], 0.0
    for seed in seeds:
        rng = np.random.default_rng([seed, *kind.encode()])
        counts, _, batch = simulate.null(kind, rng, n=int(rng.integers(240, 601)))
        cells = anndata.AnnData(counts.astype(np.float32))
        cells.obs["batch"] = pd.Categorical(batch.astype(str))
        _, compared = compare(embed(cells, "batch"))
        none += all(not suggest(compared, grid) for grid in (RESOLUTIONS, *FEWER.values()))
        several = compared[compared["n_clusters"] > 1]
        largest = max(largest, several["reweighted"].max())
        n_clusters.append(compared["n_clusters"].max())
    return f"| {kind} | {len(seeds)} | {none} | {np.median(n_clusters):.0f} | {largest:.2f} |"


def main() -> None:
    """Measure, print and write the section."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs=2, default=(300, 304), help="Of the trees.")
    parser.add_argument("--null-seeds", type=int, nargs=2, default=(300, 340))
    args = parser.parse_args()
    start = time.perf_counter()
    outcomes: dict[str, Counter] = {}
    rows: list[str] = []

    def add(kind: str, name: str, load: Load) -> None:
        row, outcome = measure(name, load)
        print(row, flush=True)
        rows.append(row)
        outcomes.setdefault(kind, Counter()).update(outcome)

    for name, load in data_sets():
        add("pancreas" if name.startswith(CHOSEN_ON) else "other real data", name, load)
    for name, load in donors():
        add(f"single donors, {'pancreas' if name.startswith(CHOSEN_ON) else 'other'}", name, load)
    nulls = []
    if simulate := simulator():
        for kind in simulate.TREES:
            for seed in range(*args.seeds):
                name = f"simulated {kind}, seed {seed}"
                add(kind, name, lambda kind=kind, seed=seed: (
                    simulate.data(kind, seed), "truth", "batch"))  # fmt: skip
        for kind in (*simulate.NULLS, "gradient"):
            nulls.append(null_row(simulate, kind, range(*args.null_seeds)))
            print(nulls[-1], flush=True)
    grids = ["all", *FEWER]
    section = [
        "## Resolutions",
        "",
        f"{machine()} {time.perf_counter() - start:.0f} s in all.",
        "",
        f"Suggested and best of {len(RESOLUTIONS)} resolutions ({RESOLUTIONS[0]} to "
        f"{RESOLUTIONS[-1]}), Leiden on 50 components of 2,000 genes: resolution, clusters, "
        f"adjusted Rand index with the types of at least {MIN_TYPE} cells. Near: at most {NEAR} "
        "below the best, which only the labels tell; none: no resolution is suggested.",
        "",
        "What was chosen on what: the cost of splits that the test does not accept, and the "
        "tolerance of robustness, on the seven pancreas data sets, after a look at the curves of "
        "most of the others; the other thresholds earlier, on all these real data and on trees and "
        "homogeneous populations of other seeds (0-229). Nothing was chosen on single donors (but "
        "those of pancreas are cells of the data sets it was chosen on) nor on the simulated rows.",
        "",
        "| data | cells | types | suggested | without counts | best | |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        "Near / none / off, with the test of the splits and without (no counts):",
        "",
        f"| | splits tested | {len(RESOLUTIONS)} resolutions | {' | '.join(FEWER)} |",
        "|---" * (2 + len(grids)) + "|",
        *(
            f"| {kind} | {'yes' if tested else 'no'} | "
            + " | ".join(
                " / ".join(str(found[grid, tested, what]) for what in ("near", "none", "off"))
                for grid in grids
            )
            + " |"
            for kind, found in outcomes.items()
            for tested in (True, False)
        ),
        "",
        "Homogeneous populations of 240-600 cells: data sets for which none is suggested on any of "
        "the three grids, clusters at the finest resolution, largest agreement (0.7 is needed).",
        "",
        "| kind | sets | none suggested | clusters | agreement |",
        "|---|---|---|---|---|",
        *nulls,
    ]
    write_section(RESULTS, "resolutions", "\n".join(section))


if __name__ == "__main__":
    main()
