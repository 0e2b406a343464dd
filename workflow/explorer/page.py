"""The page: one HTML file that needs no server, no network and no other file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib import colormaps

from evaluation.figures.color_scale import COLORMAP, MISSING
from explorer.pack import (
    Buffer,
    codes_in_bytes,
    describe_column,
    drawn_cells,
    near_order,
    quantized,
)
from explorer.page_trees import Tree, cluster_trees
from utils.palette import COLORS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from evaluation.figures.column_values import Values

MOST_CELLS = 200_000
MOST_BYTES = 15_000_000
MARKERS_SHOWN = 12  # of a cluster, and what of each, the name first
MARKER_FIELDS = ("gene", "log2fc", "auc", "p_adj", "fraction_in", "fraction_out")
SPLIT_FIELDS = ("suggestion", "reason", "jaccard", "silhouette", "batch_entropy", "nearest")

HERE = Path(__file__).parent
SCRIPTS = ("data.js", "plot.js", "color.js", "panels.js", "search.js", "explorer.js")


class Method(NamedTuple):
    """What an integration method made of the cells."""

    name: str
    layout: np.ndarray  # (cells, 2)
    clusters: Mapping[str, Values]  # cluster columns by name
    markers: pd.DataFrame | None = None  # a row per gene, as markers.py writes
    splits: pd.DataFrame | None = None  # a row per cluster, as splits.py writes


class Page(NamedTuple):
    """The page, and which cells it draws."""

    html: str
    rows: np.ndarray  # row in the data set of each cell, in the page's order


def explorer_page(
    methods: Sequence[Method],
    columns: Mapping[str, Values],
    *,
    title: str,
    batch: Sequence[str] = (),
    first: Sequence[str] = (),
    most_cells: int = MOST_CELLS,
    most_bytes: int = MOST_BYTES,
    seed: int = 0,
) -> Page:
    """Make the page of a data set.

    Parameters
    ----------
    methods
        Layouts and clusters of the same cells, at least one. The page opens with the first and
        the last of them side by side.
    columns
        Metadata of the cells to color by. Those without a value or with very many categories
        are left out, which the page says.
    title
        Name of the data set.
    batch
        Those of the columns that name the batch.
    first
        Those of the columns that stand first.
    most_cells
        Cells that are drawn; more are sampled, some of every cluster of every method.
    most_bytes
        Size of the page; fewer cells are drawn where it would be larger.
    seed
        Of the sample.

    Returns
    -------
    Page
        The same for the same input.

    Raises
    ------
    ValueError
        If there is no method, their numbers of cells differ, no cell has a place, or even few
        cells make the page too large.

    Notes
    -----
    Peak memory besides the input: about 40 bytes per cell, and 2 per cell and column.
    """
    if not methods:
        raise ValueError("the explorer needs at least one atlas")
    n_cells = len(methods[0].layout)
    for method in methods:
        if len(method.layout) != n_cells:
            raise ValueError(
                f"{method.name} has {len(method.layout):,} cells, {methods[0].name} has "
                f"{n_cells:,}; the methods must have the same cells"
            )
    layouts = [quantized(method.layout) for method in methods]
    trees = [cluster_trees(method.clusters) for method in methods]
    described, left_out = [], []
    for name in dict.fromkeys([*first, *batch, *columns]):
        try:
            described.append(describe_column(columns[name], name=name))
        except ValueError as error:
            left_out.append({"name": name, "why": str(error)})
    about = {
        "title": title,
        "cells": n_cells,
        "batch": [name for name in batch if name not in {item["name"] for item in left_out}],
        "leftOut": left_out,
        "palette": COLORS.split(),
        "scale": [_hex(color) for color in colormaps[COLORMAP](np.arange(256))],
        "missing": MISSING.removeprefix("#"),
    }
    tables = [(_markers(method.markers), _splits(method.splits)) for method in methods]
    clusterings = [tree.nodes for group in trees for tree in group]
    most = most_cells
    while True:
        rows = drawn_cells(clusterings, n_cells, most=most, seed=seed)
        codes = clusterings[0][rows] if clusterings else np.zeros(len(rows), dtype=int)
        rows = rows[near_order(layouts[0][rows], codes)]
        buffer = Buffer()
        about["drawn"] = len(rows)
        about["methods"] = [
            {
                "name": method.name,
                "x": buffer.add(layout[rows, 0]),
                "y": buffer.add(layout[rows, 1]),
                "trees": [_tree(tree, rows, buffer) for tree in group],
                "markers": markers,
                "splits": splits,
            }
            for method, layout, group, (markers, splits) in zip(
                methods, layouts, trees, tables, strict=True
            )
        ]
        about["columns"] = [item | {"data": buffer.add(data[rows])} for item, data in described]
        text = _document(title, about, buffer)
        if len(text) <= most_bytes:
            return Page(text, rows)
        if len(rows) <= 1000:
            raise ValueError(
                f"the page of {len(rows):,} cells has {len(text):,} bytes, {most_bytes:,} are "
                "allowed; give it fewer columns or methods"
            )
        most = max(int(0.95 * len(rows) * most_bytes / len(text)), 1000)


def _hex(color: np.ndarray) -> str:
    return bytes(np.rint(np.asarray(color[:3]) * 255).astype(np.uint8)).hex()


def _tree(tree: Tree, rows: np.ndarray, buffer: Buffer) -> dict[str, Any]:
    codes = codes_in_bytes(tree.nodes[rows], len(tree.labels))
    fields = {name: getattr(tree, name) for name in Tree._fields if name != "nodes"}
    return fields | {"data": buffer.add(codes)}


def _markers(frame: pd.DataFrame | None) -> dict[str, Any] | None:
    """Sort the marker genes by cluster."""
    if frame is None:
        return None
    fields = [name for name in MARKER_FIELDS if name in frame]
    return _by_cluster(frame, ["column", "cluster", "gene"], fields, MARKERS_SHOWN)


def _splits(frame: pd.DataFrame | None) -> dict[str, Any] | None:
    """Sort by cluster how well the clusters stand."""
    if frame is None:
        return None
    fields = [name for name in SPLIT_FIELDS if name in frame]
    return _by_cluster(frame, ["column", "child", "jaccard"], fields, 1)


def _by_cluster(
    frame: pd.DataFrame, needed: list[str], fields: list[str], most: int
) -> dict[str, Any]:
    """Sort a table by column and cluster: the values of the first rows of each."""
    for name in needed:
        if name not in frame:
            raise ValueError(f'the table has no column "{name}"; it has {", ".join(frame)}')
    rows: dict[str, dict[str, list]] = {}
    keys = zip(*(frame[name].astype(str) for name in needed[:2]), strict=True)
    for (column, cluster), values in zip(keys, frame[fields].itertuples(index=False), strict=True):
        found = rows.setdefault(column, {}).setdefault(cluster, [])
        if len(found) < most:
            found.append([_value(value) for value in values])
    return {"fields": fields, "rows": rows}


def _value(value: Any) -> str | float | None:
    """Write a value for the page: numbers with four digits, what is missing as none."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    number = float(value)
    return float(f"{number:.4g}") if np.isfinite(number) else None


def _document(title: str, about: dict[str, Any], buffer: Buffer) -> str:
    """Put the page together: nothing of the data is in it as text but the title, escaped."""
    words = json.dumps(about, separators=(",", ":"), allow_nan=False).encode()
    payload = len(words).to_bytes(4, "little") + words + b"".join(buffer.parts)
    script = "".join(["'use strict';\n", *((HERE / name).read_text() for name in SCRIPTS)])
    style = (HERE / "explorer.css").read_text()
    parts = {
        "title": html.escape(title),
        "policy": f"default-src 'none'; img-src data: blob:; script-src '{_digest(script)}'; "
        f"style-src '{_digest(style)}'; base-uri 'none'; form-action 'none'",
        "style": style,
        "script": script,
        "data": base64.b64encode(zlib.compress(payload, 9)).decode(),
    }
    template = (HERE / "page.html").read_text()
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _digest(text: str) -> str:
    """Hash what the page may run: the browser refuses any other script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
