"""Tables and the figure of what ``bench_splits.py`` ran."""

from __future__ import annotations

import numpy as np
from populations import CONTINUA, NULLS, TREES

ALPHA = 0.05
HEADER = (
    "| data sets | not absent | share, % | distinct | share, % |",
    "|---|---|---|---|---|",
)
# `refine` and `target_sum` of the trees.
TREE_SETTINGS = (
    ("neighbors", 1e4), ("integration", 1e4), ("neighbors", None), ("integration", None)
)  # fmt: skip
# What a hierarchy of a real data set was made with, and what its labels are called in the table.
SETTING = ("resolution", "refine", "gradual")
NAMES = {"cell_type_broad": "broad", "cell_type": "fine"}
# What others say of the time of theirs, and where.
PUBLISHED = (
    ("sc-SHC", "1,154 cells, 32,738 genes, 2 clusters", "2 cores", "about 1 minute",
     "[demo of the package](https://github.com/igrabski/sc-SHC/blob/main/vignettes/demo.Rmd)"),
    ("sc-SHC (`testClusters`)", "172,049 cells, 32,786 genes", "64 GB of memory",
     "out of memory; about 18,000 of the cells ran",
     "[a user](https://github.com/igrabski/sc-SHC/issues/5)"),
    ("CHOIR", "data of the vignette", "a standard laptop", "less than 10 minutes",
     "[README](https://github.com/corceslab/CHOIR)"),
    ("CHOIR", "170,036 cells, 33,034 genes", "100 CPUs given",
     "more than 6 hours for the tree, before any test",
     "[a user](https://github.com/corceslab/CHOIR/issues/44)"),
    ("CHOIR", "about 270,000 cells", "48 cores", "not finished after 20 hours",
     "[a user](https://github.com/corceslab/CHOIR/issues/32)"),
    ("CHOIR", "500,000 cells", "not said", "at least 24 hours",
     "[vignette](https://www.choirclustering.com/articles/atlas_scale_data.html)"),
)  # fmt: skip
FLAT = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)


def exact_limits(k, n):
    """Return the 95 % limits of Clopper and Pearson."""
    from scipy.stats import beta

    low = beta.ppf(0.025, k, n - k + 1) if k else 0.0
    return low, beta.ppf(0.975, k + 1, n - k) if k < n else 1.0


def share(k, n):
    low, high = exact_limits(k, n)
    return f"{k} of {n} | {100 * k / n:.1f} % ({100 * low:.1f}-{100 * high:.1f})"


def found_by_size(runs):
    """Return, by size of the leaf, how many have a cluster of Jaccard index 0.6 or more."""
    leaves = np.array([leaf for run in runs for leaf in run["leaves"]])
    table = {}
    for low, high in ((20, 50), (50, 100), (100, 500)):
        inside = (leaves[:, 0] >= low) & (leaves[:, 0] < high)
        table[low, high] = (int((leaves[inside, 1] >= 0.6).sum()), int(inside.sum()))
    return table


def scale(target_sum):
    return "null" if target_sum is None else f"{target_sum:,.0f}"


def per_1000_cells(runs, key):
    return 1000 * sum(run[key] for run in runs) / max(sum(run["n_cells"] for run in runs), 1)


def tables(runs, arguments):
    """Write the section."""
    lines = [
        "## Tested splits",
        "",
        "`hierarchy: auto` at resolution 1.0, alpha 0.05, batch given, run in memory "
        f"(`make bench-splits`); seeds from {arguments.seed}, on which nothing was tuned. A data "
        "set counts as split where a split at any level is not `absent`; in brackets exact 95 % "
        "limits. CPU seconds of one thread on a machine that other jobs shared.",
        "",
        "### One population",
        "",
        "300, 500 or 1,000 cells, 1,500 genes (a real type: 4,000).",
        "",
        *HEADER,
    ]

    def row(name, part):
        n = len(part)
        split = sum(bool(set(run["verdicts"]) - {"absent"}) for run in part)
        distinct = sum("distinct" in run["verdicts"] for run in part)
        return f"| {name} | {share(split, n)} | {share(distinct, n)} |"

    def of(kind, **more):
        return [run for run in runs if run["kind"] == kind
                and all(run.get(key) == value for key, value in more.items())]  # fmt: skip

    nulls = [run for run in runs if run["kind"] in NULLS]
    lines += [row(kind, of(kind)) for kind in NULLS]
    lines.append(row("**all**", nulls))
    if of("one cell line"):
        lines.append(row("one real cell line", of("one cell line")))
    lines += ["", "### Continua", "", *HEADER]
    continua = [run for run in runs if run["kind"] in CONTINUA]
    lines += [row(kind, of(kind)) for kind in CONTINUA]
    lines.append(row("**all**", continua))
    lines += [
        "",
        "### Trees",
        "",
        "1,500 cells, two batches, 3 x 2 x 2 leaves (`deep`: 18); adjusted Rand index of the "
        "deepest level with the leaves, mean (least). `refine`: what the neighbors within a parent "
        "are computed in; `target_sum`: of the components of all cells (`null`: the median total, "
        "here about 2,500).",
        "",
        "| | refine | target_sum | data sets | ARI | clusters |",
        "|---|---|---|---|---|---|",
    ]
    for kind in (*TREES, "small leaves"):
        for refine, target_sum in TREE_SETTINGS:
            part = of(kind, refine=refine, target_sum=target_sum)
            if not part:
                continue
            aris = [run["ari"] for run in part]
            n_clusters = np.mean([run["n_clusters"] for run in part])
            lines.append(
                f"| {kind} | {refine} | {scale(target_sum)} | {len(part)} "
                f"| {np.mean(aris):.3f} ({min(aris):.3f}) | {n_clusters:.1f} |"
            )
    lines += [
        "",
        "Leaves of `small leaves` that are found (a cluster of Jaccard index 0.6 or more):",
        "",
        "| cells | refine | target_sum | found | share, % |",
        "|---|---|---|---|---|",
    ]
    for refine, target_sum in TREE_SETTINGS:
        part = of("small leaves", refine=refine, target_sum=target_sum)
        lines += (
            [
                f"| {low}-{high - 1} | {refine} | {scale(target_sum)} | {share(*counts)} |"
                for (low, high), counts in found_by_size(part).items()
            ]
            if part
            else []
        )
    trees = [run for run in runs if run["kind"] in TREES and run["refine"] == "neighbors"]
    lines += [
        "",
        f"Time per 1,000 cells: nulls {per_1000_cells(nulls, 'seconds'):.1f} CPU s, of which the "
        f"test {per_1000_cells(nulls, 'test_seconds'):.1f}; trees "
        f"{per_1000_cells(trees, 'seconds'):.1f}, the test "
        f"{per_1000_cells(trees, 'test_seconds'):.1f}.",
    ]
    if any("aris" in run for run in runs):
        lines += real_table(runs)
    lines += [
        "",
        "### Published times of other tests",
        "",
        "Not measured here. What is said of run times by their authors and users:",
        "",
        "| method | data | machine | time | said by |",
        "|---|---|---|---|---|",
        *("| " + " | ".join(row) + " |" for row in PUBLISHED),
    ]
    return lines


def real_table(runs):
    """Compare the best level of each tested hierarchy with the best flat clustering."""
    flat = {run["kind"]: run["flat"] for run in runs if "flat" in run}
    columns = [(kind, column) for kind, best in flat.items() for column in best]
    tested = [run for run in runs if "aris" in run]
    settings = sorted({tuple(run[key] for key in SETTING) for run in tested})
    lines = [
        "",
        "### Real data",
        "",
        "Harmony over the batches. ARI with the labels; flat Leiden: the best of the resolutions "
        + ", ".join(map(str, FLAT))
        + ". Tested: the best level of the tree (in brackets which, of how many). Resolution and "
        "level are both chosen with the labels; bold: at least the best flat clustering.",
        "",
        "| resolution | refine | gradual | "
        + " | ".join(f"{kind}, {NAMES[column]}" for kind, column in columns)
        + " |",
        "|---" * (3 + len(columns)) + "|",
        "| flat, best | | | "
        + " | ".join("{:.3f} (at {})".format(*flat[kind][column]) for kind, column in columns)
        + " |",
    ]
    best = [
        max((max(run["aris"][column]), run["resolution"]) for run in tested if run["kind"] == kind)
        for kind, column in columns
    ]
    lines.append(
        "| tested, best | | | " + " | ".join(f"{ari:.3f} (at {r})" for ari, r in best) + " |"
    )
    for setting in settings:
        of_kind = {
            run["kind"]: run for run in tested if tuple(run[key] for key in SETTING) == setting
        }
        cells = [
            best_level(of_kind[kind]["aris"][column], flat[kind][column][0])
            if kind in of_kind
            else ""
            for kind, column in columns
        ]
        lines.append("| " + " | ".join([*map(str, setting), *cells]) + " |")
    lines += [
        "",
        "All levels, with `refine: neighbors`:",
        "",
        "| | cells | resolution | gradual | clusters | ARI with broad types | with fine types "
        "| absent, gradual, distinct | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in sorted(tested, key=lambda run: [*flat].index(run["kind"])):
        if run["refine"] != "neighbors":
            continue
        verdicts = [str(run["verdicts"].get(v, 0)) for v in ("absent", "gradual", "distinct")]
        aris = {
            NAMES[column]: ", ".join(f"{value:.3f}" for value in values)
            for column, values in run["aris"].items()
        }
        lines.append(
            f"| {run['kind']} | {run['n_cells']:,} | {run['resolution']} | {run['gradual']} "
            f"| {', '.join(map(str, run['clusters']))} | {aris.get('broad', '')} | {aris['fine']} "
            f"| {', '.join(verdicts)} | {run['seconds']:.0f} |"
        )
    return lines


def best_level(aris, flat):
    """Write the ARI of the best level, its number and that of all; bold if no less than `flat`."""
    level = int(np.argmax(aris))
    text = f"{aris[level]:.3f} ({level + 1} of {len(aris)})"
    return f"**{text}**" if aris[level] >= flat - 5e-4 else text


def draw_figure(runs, file):
    """Draw the share of nulls that are split at each alpha, and the leaves found by size."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), constrained_layout=True)
    levels = np.linspace(0, 0.2, 201)

    def split_at(part):
        p = np.sort([run["p"] for run in part])
        return np.searchsorted(p, levels, side="right") / len(p)

    for kind in NULLS:
        part = [run for run in runs if run["kind"] == kind]
        axes[0].plot(levels, split_at(part), lw=1, alpha=0.7, label=f"{kind} ({len(part)})")
    nulls = [run for run in runs if run["kind"] in NULLS]
    k = np.round(split_at(nulls) * len(nulls)).astype(int)
    limits = np.array([exact_limits(int(i), len(nulls)) for i in k]).T
    axes[0].fill_between(levels, *limits, color="black", alpha=0.12, lw=0)
    axes[0].plot(levels, k / len(nulls), color="black", lw=2, label=f"all ({len(nulls)})")
    axes[0].plot(levels, levels, color="grey", ls="--", lw=1)
    axes[0].axvline(ALPHA, color="grey", lw=0.5)
    axes[0].set(
        xlabel="alpha", ylabel="share of nulls that are split", xlim=(0, 0.2), ylim=(0, 0.3)
    )
    axes[0].legend(fontsize=6.5, frameon=False, loc="upper left")
    for shift, refine in ((-0.18, "neighbors"), (0.18, "integration")):
        part = [
            r
            for r in runs
            if (r["kind"], r.get("refine"), r.get("target_sum")) == ("small leaves", refine, 1e4)
        ]
        if not part:
            continue
        table = found_by_size(part)
        x = np.arange(len(table)) + shift
        height = np.array([k / n for k, n in table.values()])
        limits = np.array([exact_limits(k, n) for k, n in table.values()]).T
        axes[1].bar(x, height, 0.34, label=f"refine: {refine}")
        errors = np.abs(limits - height)
        axes[1].errorbar(x, height, errors, color="black", fmt="none", capsize=2, lw=1)
    axes[1].set_xticks(range(len(table)), [f"{low}-{high - 1}" for low, high in table])
    axes[1].set(xlabel="cells of the type", ylabel="share of types found", ylim=(0, 1.05))
    axes[1].legend(fontsize=7, frameon=False, loc="lower right")
    figure.savefig(file, dpi=110)
