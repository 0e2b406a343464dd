"""Trees of clusterings: how the clusters of one become those of the next (Zappia & Oshlack 2018).

The layers are clusterings of the same cells, coarse to fine: resolutions of one level, or levels of
one resolution. An edge joins two clusters of neighboring layers that share cells.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.collections import LineCollection

from evaluation.figures.color_scale import COLORMAP, PALE, color_scale
from evaluation.figures.legend import draw_color_bar
from evaluation.figures.page import new_page, page_heading, shorten, text_width, write_text
from evaluation.scores.agreement import contingency

if TYPE_CHECKING:
    from collections.abc import Collection

    from matplotlib.figure import Figure

    from evaluation.scores.metrics import Labeling

EDGES_FROM = 0.05  # share of a cluster's cells below which an edge is not drawn
TALLEST = 40.0  # inches; a taller tree is drawn with less room for each cluster


def tree_tables(layers: list[Labeling]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Describe a tree of clusterings.

    Parameters
    ----------
    layers
        Clusterings of the same cells, in the order in which they are drawn.

    Returns
    -------
    nodes : pandas.DataFrame
        `column`, `cluster`, `n_cells`, `stability` (see `stability`), `parent`: the cluster of
        the layer before that most of its cells come from; empty in the first layer and where
        none of its cells is in a cluster of the layer before.
    edges : pandas.DataFrame
        `from_column`, `from_cluster`, `to_column`, `to_cluster`, `n_cells`, `share_from` and
        `share_to`: of the cells of either cluster.
    """
    nodes, edges = [], []
    stable = stability([layer.codes for layer in layers])
    for i, layer in enumerate(layers):
        sizes = np.bincount(layer.codes[layer.codes >= 0], minlength=len(layer.groups))
        parents = [""] * len(layer.groups)
        if i:
            before = layers[i - 1]
            table = contingency(
                before.codes, layer.codes, shape=(len(before.groups), len(layer.groups))
            )
            parents = [
                before.groups[row] if shared else ""
                for row, shared in zip(table.argmax(axis=0), table.any(axis=0), strict=True)
            ]
            own = np.bincount(before.codes[before.codes >= 0], minlength=len(before.groups))
            rows, columns = np.nonzero(table)
            shared = table[rows, columns]
            edges.append(
                pd.DataFrame(
                    {
                        "from_column": before.name,
                        "from_cluster": np.array(before.groups, dtype=object)[rows],
                        "to_column": layer.name,
                        "to_cluster": np.array(layer.groups, dtype=object)[columns],
                        "n_cells": shared,
                        "share_from": shared / own[rows],
                        "share_to": shared / sizes[columns],
                    }
                )
            )
        nodes.append(
            pd.DataFrame(
                {
                    "column": layer.name,
                    "cluster": layer.groups,
                    "n_cells": sizes,
                    "stability": stable[i],
                    "parent": parents,
                }
            )
        )
    return pd.concat(nodes, ignore_index=True), pd.concat(edges, ignore_index=True)


def stability(layers: list[np.ndarray]) -> list[np.ndarray]:
    """SC3's stability of each cluster: 1 where it is the same in every layer.

    Parameters
    ----------
    layers
        Codes of the same cells, two or more clusterings.

    Returns
    -------
    list of numpy.ndarray
        Per layer, for each cluster the mean over the other layers of the sum over the clusters
        that overlap it of their shared part (of the other's cells) over the square of how many
        there are (Kiselev et al. 2017, as R's clustree computes it).
    """
    by_layer = [np.zeros(int(codes.max(initial=-1)) + 1) for codes in layers]
    for i, j in itertools.permutations(range(len(layers)), 2):
        table = contingency(layers[i], layers[j], shape=(len(by_layer[i]), len(by_layer[j])))
        of_other = table / np.maximum(table.sum(axis=0), 1)
        overlaps = np.maximum((table > 0).sum(axis=1), 1)
        by_layer[i] += of_other.sum(axis=1) / overlaps**2 / (len(layers) - 1)
    return by_layer


def place_nodes(nodes: pd.DataFrame) -> np.ndarray:
    """Give every node a row: leaves one each, the others the middle of their children.

    Children follow their parent's order and then their own, so that the edges to the main parents
    do not cross.
    """
    columns = list(dict.fromkeys(nodes["column"]))
    at = {key: i for i, key in enumerate(zip(nodes["column"], nodes["cluster"], strict=True))}
    children: list[list[int]] = [[] for _ in range(len(nodes))]
    for i, (column, parent) in enumerate(zip(nodes["column"], nodes["parent"], strict=True)):
        if parent:
            children[at[columns[columns.index(column) - 1], parent]].append(i)
    rows = np.full(len(nodes), np.nan)
    free = itertools.count()

    def place(node: int) -> float:
        below = [place(child) for child in children[node]]
        rows[node] = (below[0] + below[-1]) / 2 if below else next(free)
        return rows[node]

    for node in np.flatnonzero(nodes["parent"] == ""):
        place(node)
    return rows


def draw_tree(
    nodes: pd.DataFrame,
    edges: pd.DataFrame,
    *,
    title: str,
    notes: str = "",
    gradual: Collection[tuple[str, str]] = (),
) -> Figure:
    """Draw a tree of clusterings, coarse at the left and fine at the right.

    Parameters
    ----------
    nodes, edges
        From `tree_tables`.
    title, notes
        Above the tree.
    gradual
        Column and name of the clusters that no gap separates from a sibling.

    Returns
    -------
    matplotlib.figure.Figure
        Disks by size in the color of their stability; edges as wide as their cells are many, and
        the darker the more of the finer cluster they carry, dashed to `gradual` ones. For
        `evaluation.figures.page.save_figure`.
    """
    columns = list(dict.fromkeys(nodes["column"]))
    rows = place_nodes(nodes)
    n_rows = rows.max() + 1
    line = min(0.3 if n_rows <= 30 else 0.22, (TALLEST - 2) / n_rows)
    name_width = text_width(list(nodes["cluster"]))
    left, step = 0.55, 1.9 + name_width
    width = max(left + step * (len(columns) - 1) + name_width + 1.9, 5.5)
    notes = (
        "Disks: clusters, by size; bright ones stay the same in the other layers (SC3 stability). "
        f"Edges: shared cells, dark where they are most of the finer cluster. {notes}"
    )
    is_gradual = [key in gradual for key in zip(nodes["column"], nodes["cluster"], strict=True)]
    if any(is_gradual):
        notes += "Dashed outlines and edges: clusters without a gap to a sibling (gradual)."
    heading = page_heading(title, notes, width)
    top = 0.65 + heading.height
    height = max(top + line * n_rows + 0.3, top + 2.2)
    fig, page = new_page(width, height, heading)
    layer = nodes["column"].map({column: i for i, column in enumerate(columns)}).to_numpy()
    x, y = left + step * layer, top + (rows + 0.5) * line
    at = {key: i for i, key in enumerate(zip(nodes["column"], nodes["cluster"], strict=True))}
    total = nodes.loc[nodes["column"] == columns[0], "n_cells"].sum()
    shown = edges[edges["share_to"] >= EDGES_FROM].sort_values("share_to", kind="stable")
    start = [at[key] for key in zip(shown["from_column"], shown["from_cluster"], strict=True)]
    end = [at[key] for key in zip(shown["to_column"], shown["to_cluster"], strict=True)]
    curves = [_curve((x[i], y[i]), (x[j], y[j])) for i, j in zip(start, end, strict=True)]
    share = shown["share_to"].to_numpy()
    page.add_collection(
        LineCollection(
            curves,
            linewidths=0.5 + 7 * np.sqrt(shown["n_cells"].to_numpy() / total),
            colors=np.column_stack([np.zeros((len(share), 3)), 0.05 + 0.45 * share]),
            linestyles=[(0, (2, 1.5)) if is_gradual[node] else "solid" for node in end],
            capstyle="butt",
            snap=False,  # else level lines jump from pixel to pixel
            zorder=1,
        )
    )
    size = nodes["n_cells"].to_numpy() / total
    shades = colormaps[COLORMAP](nodes["stability"].to_numpy())
    largest = min(320.0, (line * 72 * 0.95) ** 2 * 2.2)
    disks = np.maximum(largest * np.sqrt(size), 10)
    page.scatter(x, y, s=disks, c=shades, edgecolors="white", linewidths=0.6, zorder=2)
    marked = np.flatnonzero(is_gradual)
    if len(marked):
        page.scatter(
            x[marked], y[marked], s=disks[marked] + 30, facecolors="none", edgecolors="black",
            linewidths=0.8, linestyles=(0, (3, 2)), zorder=2,
        )  # fmt: skip
    letters = min(8.0, line * 72 * 0.62)
    for i, name in enumerate(nodes["cluster"]):
        gap = np.sqrt(disks[i]) / 72 / 2 + 0.05
        write_text(page, x[i] + gap, y[i], shorten(name, 20), size=letters, va="center",
              zorder=3, bbox={"color": "white", "alpha": 0.85, "pad": 0.3, "lw": 0})  # fmt: skip
    for i, column in enumerate(columns):
        style = {"size": 9, "weight": "bold", "va": "bottom"}
        write_text(page, left + step * i - 0.15, top - 0.22, shorten(column), **style)
        count = int((layer == i).sum())
        write_text(
            page, left + step * i - 0.15, top - 0.05, f"{count} clusters", size=8, color=PALE
        )
    scale, _ = color_scale(np.array([0.0, 1.0]))
    scale.set_clim(0, 1)
    draw_color_bar(page, scale, "neither", [0], width - 0.75, top, 1.5)
    write_text(page, width - 0.8, top - 0.1, "stability", size=8, color=PALE)
    return fig


def _curve(start: tuple[float, float], end: tuple[float, float]) -> np.ndarray:
    """Leave and arrive horizontally: a cubic curve in 24 steps."""
    t = np.linspace(0, 1, 25)[:, None]
    first, last = np.array(start), np.array(end)
    middle = (start[0] + end[0]) / 2
    one, two = np.array([middle, start[1]]), np.array([middle, end[1]])
    return (
        (1 - t) ** 3 * first + 3 * (1 - t) ** 2 * t * one + 3 * (1 - t) * t**2 * two + t**3 * last
    )
