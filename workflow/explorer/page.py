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
import pandas as pd
from matplotlib import colormaps

from clustering.cluster_names import parse_names
from evaluation.figures.color_scale import COLORMAP, MISSING
from explorer.pack import (
    Buffer,
    choose_cells,
    compact_order,
    describe_column,
    pack_codes,
    quantize_layout,
)
from explorer.page_trees import ClusterTree, cluster_trees
from utils.palette import COLORS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evaluation.figures.column_values import Values

MAX_CELLS = 200_000
MAX_BYTES = 15_000_000
MARKERS_SHOWN = 12  # of a cluster
MARKER_FIELDS = ("gene", "log2fc", "auc", "p_adj", "fraction_in", "fraction_out")
SPLIT_FIELDS = ("verdict", "p", "suggestion", "reason", "against", "auc", "jaccard",
                "batch_entropy", "markers")  # fmt: skip

HERE = Path(__file__).parent
SCRIPTS = (
    "data.js",
    "color.js",
    "labels.js",
    "renderers.js",
    "plot.js",
    "panels.js",
    "search.js",
    "export.js",
    "explorer.js",
)


class MethodResult(NamedTuple):
    """Layout, clusters and tables of the cells by one integration method."""

    name: str
    layout: np.ndarray  # (cells, 2)
    clusters: Mapping[str, Values]  # cluster columns by name
    markers: pd.DataFrame | None = None  # a row per gene, as markers.py writes
    splits: pd.DataFrame | None = None  # a row per split, as splits.py writes


class Page(NamedTuple):
    """The page, and the cells that it draws."""

    html: str
    rows: np.ndarray  # row in the data set of each cell, in the page's order


def explorer_page(
    methods: Sequence[MethodResult],
    columns: Mapping[str, Values],
    *,
    title: str,
    batch: Sequence[str] = (),
    first: Sequence[str] = (),
    warnings: pd.DataFrame | None = None,
    max_cells: int = MAX_CELLS,
    max_bytes: int = MAX_BYTES,
    seed: int = 0,
) -> Page:
    """Make the page of a data set.

    Parameters
    ----------
    methods
        Layouts and clusters of the same cells, at least one. The page opens with the first and
        the last of them side by side.
    columns
        Metadata of the cells to color by. Columns without a value or with very many categories
        are left out; the page names them.
    title
        Name of the data set.
    batch
        Columns that name the batch.
    first
        Columns that are listed first.
    warnings
        A row per warning about the methods and clusters, as comparison.py writes them; listed on
        the page.
    max_cells
        Number of cells to draw; of more a sample is drawn, with some of every cluster.
    max_bytes
        Size of the page; fewer cells are drawn where it would be larger.
    seed
        Seed of the sample.

    Returns
    -------
    Page
        The same for the same input.

    Raises
    ------
    ValueError
        If there is no method, their numbers of cells differ, no cell has coordinates, or the page
        is too large even with 1,000 cells.

    Notes
    -----
    Peak memory besides the input: about 40 bytes per cell, and 2 per cell and column.
    """
    n_cells = _count_cells(methods)
    layouts = [quantize_layout(method.layout) for method in methods]
    trees = [cluster_trees(method.clusters) for method in methods]
    tables = [(_markers(method.markers), _splits(method.splits)) for method in methods]
    described, left_out = _describe_columns(columns, [*first, *batch, *columns])
    shown = {item["name"] for item, _ in described}
    description = {
        "title": title,
        "cells": n_cells,
        "batch": [name for name in batch if name in shown],
        "leftOut": left_out,
        "warnings": [] if warnings is None else warnings.astype(str).to_dict("records"),
        "palette": COLORS.split(),
        "scale": [_hex(color) for color in colormaps[COLORMAP](np.arange(256))],
        "missing": MISSING.removeprefix("#"),
    }
    clusterings = [tree.deepest for method_trees in trees for tree in method_trees]
    while True:
        rows = choose_cells(clusterings, n_cells, max_cells=max_cells, seed=seed)
        codes = clusterings[0][rows] if clusterings else np.zeros(len(rows), dtype=int)
        rows = rows[compact_order(layouts[0][rows], codes)]
        buffer = Buffer()
        description["drawn"] = len(rows)
        description["methods"] = [
            {
                "name": method.name,
                "x": buffer.add(layout[rows, 0]),
                "y": buffer.add(layout[rows, 1]),
                "trees": [_tree(tree, rows, buffer) for tree in method_trees],
                "markers": markers,
                "splits": splits,
            }
            for method, layout, method_trees, (markers, splits) in zip(
                methods, layouts, trees, tables, strict=True
            )
        ]
        description["columns"] = [
            item | {"data": buffer.add(data[rows])} for item, data in described
        ]
        text = _document(description, buffer)
        if len(text) <= max_bytes:
            return Page(text, rows)
        if len(rows) <= 1000:
            raise ValueError(
                f"the page of {len(rows):,} cells has {len(text):,} bytes, {max_bytes:,} are "
                "allowed; give it fewer columns or methods"
            )
        max_cells = max(int(0.95 * len(rows) * max_bytes / len(text)), 1000)


def _count_cells(methods: Sequence[MethodResult]) -> int:
    """Return the number of cells, the same in all methods."""
    if not methods:
        raise ValueError("the explorer needs at least one atlas")
    n_cells = len(methods[0].layout)
    for method in methods:
        if len(method.layout) != n_cells:
            raise ValueError(
                f"{method.name} has {len(method.layout):,} cells, {methods[0].name} has "
                f"{n_cells:,}; the methods must have the same cells"
            )
    return n_cells


def _describe_columns(
    columns: Mapping[str, Values], names: Sequence[str]
) -> tuple[list[tuple[dict, np.ndarray]], list[dict[str, str]]]:
    """Describe the columns that can be shown, and say why the others cannot."""
    described, left_out = [], []
    for name in dict.fromkeys(names):
        try:
            described.append(describe_column(columns[name], name=name))
        except ValueError as error:
            left_out.append({"name": name, "why": str(error)})
    return described, left_out


def _hex(color: np.ndarray) -> str:
    return bytes(np.rint(np.asarray(color[:3]) * 255).astype(np.uint8)).hex()


def _tree(tree: ClusterTree, rows: np.ndarray, buffer: Buffer) -> dict[str, Any]:
    fields = tree._asdict()
    codes = pack_codes(fields.pop("deepest")[rows], len(tree.labels))
    return fields | {"data": buffer.add(codes)}


def _markers(table: pd.DataFrame | None) -> dict[str, Any] | None:
    needed = ["column", "cluster", "gene"]
    return _by_cluster(table, needed, MARKER_FIELDS, max_rows=MARKERS_SHOWN)


def _splits(table: pd.DataFrame | None) -> dict[str, Any] | None:
    """Give each cluster the split that separates it from its siblings."""
    if table is None:
        return None
    _check_columns(table, ["column", "left", "right", "suggestion"])
    parts = []
    for side, other in (("left", "right"), ("right", "left")):
        # The fields of this side without its name; of the other side its clusters alone.
        names = {side: "cluster", other: "against"}
        names |= {f"{name}_{side}": name for name in ("jaccard", "batch_entropy", "markers")}
        part = table.drop(columns="batch_entropy", errors="ignore").rename(columns=names)
        clusters = part["cluster"].map(parse_names)
        part["cluster"] = clusters.str[0]
        parts.append(part[(clusters.str.len() == 1) & (table["left"] != table["right"])])
    return _by_cluster(pd.concat(parts), ["column", "cluster"], SPLIT_FIELDS, max_rows=1)


def _check_columns(table: pd.DataFrame, needed: list[str]) -> None:
    for name in needed:
        if name not in table:
            raise ValueError(f'the table has no column "{name}"; it has {", ".join(table)}')


def _by_cluster(
    table: pd.DataFrame | None, needed: list[str], fields: Sequence[str], *, max_rows: int
) -> dict[str, Any] | None:
    """Group the rows of a table by cluster column and cluster, the first two of `needed`.

    Of each cluster the first `max_rows` rows, of each row those of the `fields` that there are.
    """
    if table is None:
        return None
    _check_columns(table, needed)
    fields = [name for name in fields if name in table]
    rows: dict[str, dict[str, list]] = {}
    keys = zip(*(table[name].astype(str) for name in needed[:2]), strict=True)
    for (column, cluster), values in zip(keys, table[fields].itertuples(index=False), strict=True):
        cluster_rows = rows.setdefault(column, {}).setdefault(cluster, [])
        if len(cluster_rows) < max_rows:
            cluster_rows.append([_value(value) for value in values])
    return {"fields": fields, "rows": rows}


def _value(value: Any) -> str | float | None:
    """Convert a value to JSON: numbers with four digits, None for missing values."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    number = float(value)
    return float(f"{number:.4g}") if np.isfinite(number) else None


def _document(description: dict[str, Any], buffer: Buffer) -> str:
    """Fill the template. Of the data only the title is in it as text, escaped."""
    header = json.dumps(description, separators=(",", ":"), allow_nan=False).encode()
    payload = len(header).to_bytes(4, "little") + header + b"".join(buffer.parts)
    script = "".join(["'use strict';\n", *((HERE / name).read_text() for name in SCRIPTS)])
    style = (HERE / "explorer.css").read_text()
    parts = {
        "title": html.escape(description["title"]),
        "policy": f"default-src 'none'; img-src data: blob:; script-src '{_digest(script)}'; "
        f"style-src '{_digest(style)}'; base-uri 'none'; form-action 'none'",
        "style": style,
        "script": script,
        "data": base64.b64encode(zlib.compress(payload, 9)).decode(),
    }
    template = (HERE / "page.html").read_text()
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _digest(text: str) -> str:
    """Hash a script or style for the policy: the browser refuses any other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
