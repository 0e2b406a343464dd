"""What the scores are made from, read from a store: labels as codes, neighbors, coordinates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clustering.cluster_names import column_above, matching_columns, parse_column
from clustering.cluster_tree import parent_names
from clustering.hierarchy import in_natural_order
from clustering.options import NeighborsOptions
from clustering.stores import foreign_graph, graph_key, neighbors_params
from evaluation.scores.batch_mixing import Neighborhoods, neighborhoods
from evaluation.scores.metrics import Labeling
from utils.elements import read_categorical
from utils.io import keys, read_element
from utils.log import say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from clustering.significance.splits import SplitTest
    from evaluation.clusters.robustness import Recluster
    from preprocessing.stores import StoredMatrix


SIDES = ("left", "right")


def read_codes(root: Any, column: str) -> Labeling:
    """Read a column of obs as codes, its labels as people count (2 before 10).

    Raises
    ------
    KeyError
        If it is not there; says what was probably meant.
    ValueError
        If no cell has a value.
    """
    codes, groups = in_natural_order(*read_categorical(root, column))
    if not groups:
        raise ValueError(f'adata.obs["{column}"] has no value in any of {len(codes):,} cells')
    return Labeling(column, codes.astype(np.int32), groups)


def read_clusterings(root: Any, patterns: Sequence[str]) -> dict[str, Labeling]:
    """Read the columns that some names and patterns mean (`matching_columns`), by name.

    Raises
    ------
    KeyError, ValueError
        As `matching_columns` and `read_codes`.
    """
    names = matching_columns(patterns, keys(root, "obs"))
    return {name: read_codes(root, name) for name in names}


def read_neighborhoods(root: Any, neighbors_key: str, embedding: np.ndarray) -> Neighborhoods:
    """Read the stored distances; where there are none, search as many neighbors again."""
    name = graph_key(root, neighbors_key, "distances")
    if name in keys(root, "obsp"):
        return neighborhoods(read_element(root, f"obsp/{name}"))
    from clustering.connectivities import neighbor_graph

    n_neighbors = int(neighbors_params(root, neighbors_key).get("n_neighbors", 15))
    say(f"obsp has no {name}: {n_neighbors} neighbors are searched in the embedding")
    return neighborhoods(neighbor_graph(embedding, n_neighbors=n_neighbors).distances)


def read_parents(root: Any, columns: Mapping[str, Labeling]) -> dict[str, list[str]]:
    """Name the parent of each cluster of some columns, from the cells of the level above.

    Parameters
    ----------
    root
        As returned by `open_store`; the level above is read from it where it is not in `columns`.
    columns
        As `read_codes` returns them, by name.

    Returns
    -------
    dict
        By column, a name for each cluster; empty ones at level 1, and, which is said, where obs
        has no level above or its clusters do not hold those of the column.
    """
    parents = {}
    for name, column in columns.items():
        parents[name] = [""] * len(column.groups)
        parsed = parse_column(name)
        if parsed is None or parsed.level == 1:
            continue
        above = column_above(name, {*columns, *keys(root, "obs")})
        if above is None:
            say(f"{name}: obs has no column of a level above: all its clusters are siblings")
            continue
        holding = columns.get(above) or read_codes(root, above)
        names = parent_names(
            name, (column.codes, column.groups), above, (holding.codes, holding.groups)
        )
        parents[name] = names or parents[name]
    return parents


def read_reclustering(
    root: Any, name: str, columns: Mapping[str, Labeling], *, neighbors_key: str, threads: int
) -> Recluster | None:
    """Read from uns how a column was clustered; return a function that does it again.

    None, with a message, where that is not recorded (the column came with the input), or would take
    a whole integration in each round (parents with genes of their own).
    """
    from clustering.communities import build
    from clustering.stores import read_graph, read_record, read_representation
    from evaluation.clusters.robustness import restricted, restricted_within

    record = read_record(root, name)
    if not record:
        say(
            f"{name} came with the input: how it was clustered is not recorded, so its "
            "robustness is not known"
        )
        return None
    if any(isinstance(why, str) for why in record.get("unsplit", {}).values()):
        say(
            f"{name} was made by an earlier version, which did not record what this needs: its "
            "robustness is not known; recompute the column (clustering: {overwrite: true})"
        )
        return None
    refine = record.get("refine", "neighbors")
    if refine not in ("neighbors", "graph"):
        say(f"{name} was made from {record['use_rep']}: its robustness is not computed")
        return None
    options = {
        "algorithm": record["algorithm"],
        # Earlier versions joined no clusters.
        "min_cluster_size": record.get("min_cluster_size", 1),
        **record["clustering_args"],
    }
    tested = record.get("significance") is not None
    if record["level"] == 1:
        graph = read_graph(root, neighbors_key)
        n_clusters = len(columns[name].groups) if tested else None
        return restricted(graph, n_clusters=n_clusters, resolution=record["resolution"], **options)
    parent = columns.get(record["parent"]) or read_codes(root, record["parent"])
    wanted = record["hierarchy"] or dict.fromkeys(parent.groups, record["resolution"])
    resolutions = np.array([wanted.get(group, np.nan) for group in parent.groups])
    # A parent that stayed whole may fall apart in a part of the cells; it is tried again.
    not_tried = ("not_chosen", "too_few_cells", "no_representation")
    reasons = {group: why["reason"] for group, why in record["unsplit"].items()}
    tried = [group in wanted and reasons.get(group) not in not_tried for group in parent.groups]
    if refine == "graph":
        basis = build(read_graph(root, neighbors_key)).adjacency
    else:
        basis = read_representation(root, record["use_rep"], neighbors_key)[1]
    return restricted_within(
        parent.codes,
        basis,
        split=np.array(tried),
        n_children=_count_children(columns[name].codes, parent) if tested else None,
        resolutions=resolutions,
        threads=threads,
        seed=record["seed"],
        **record["neighbors_args"],
        **options,
    )


def _count_children(codes: np.ndarray, parent: Labeling) -> np.ndarray:
    """Return of each parent how many clusters its cells are in."""
    known = (codes >= 0) & (parent.codes >= 0)
    pairs = np.unique(np.stack([parent.codes[known], codes[known]]), axis=1)
    return np.bincount(pairs[0], minlength=len(parent.groups))


def read_neighbor_search(root: Any, neighbors_key: str) -> tuple[np.ndarray, dict[str, Any]] | None:
    """Read what the stored neighbors were searched in, and how.

    Returns
    -------
    tuple or None
        The embedding, and `n_neighbors` and `metric` for `numerics.knn.search`; None, with a
        message, where the graph is not of neighbors in an embedding that is stored.
    """
    from clustering.stores import read_representation
    from numerics.knn import METRICS

    params = neighbors_params(root, neighbors_key)
    metric = params.get("metric", "euclidean")
    why = foreign_graph(params) or (f"metric {metric}" if metric not in METRICS else "")
    if not why:
        try:
            embedding = read_representation(root, None, neighbors_key)[1]
        except (KeyError, ValueError) as error:
            why = str(error.args[0])
    if why:
        say(f"no resolution is suggested: neighbors cannot be searched again ({why})")
        return None
    n_pcs = params.get("n_pcs")  # scanpy's: the first of the components
    return embedding[:, : int(n_pcs) if n_pcs else None], {
        "n_neighbors": int(params.get("n_neighbors", NeighborsOptions.n_neighbors)),
        "metric": str(metric),
    }


def read_communities(root: Any, column: str) -> dict[str, Any] | None:
    """Read the options of `find_communities` that a column of level 1 was made with; or None.

    Also `n_clusters`, where its splits were tested.
    """
    from clustering.stores import read_record

    record = read_record(root, column)
    if record.get("level") != 1:
        return None
    tested = record.get("significance") is not None
    return {
        "algorithm": record["algorithm"],
        "resolution": record["resolution"],
        **record["clustering_args"],
        **({"n_clusters": record["n_clusters"]} if tested else {}),
    }


def read_splits(
    root: Any,
    columns: Mapping[str, Labeling],
    parents: Mapping[str, Sequence[str]],
    *,
    neighbors_key: str,
    representation: np.ndarray,
    read_test: Callable[[], SplitTest | None],
    seed: int,
) -> dict[str, list[dict[str, Any]]]:
    """Read the tested splits of cluster columns; test those that were clustered without a test.

    Parameters
    ----------
    root
        As returned by `open_store`.
    columns, parents
        As `read_clusterings` and `read_parents` return them.
    neighbors_key
        Whose number of neighbors is that of level 1.
    representation
        Cells x dimensions: orders children to a dendrogram where there is no test.
    read_test
        Returns the test, or None where there are no counts; called if a column needs one.
    seed
        Of the cells that a dendrogram is made from.

    Returns
    -------
    dict
        By column, a list of splits as `clustering.significance.splits.TestedSplit.record` gives
        them, with their `parent`; without a test they have no `p`.
    """
    from dataclasses import replace

    from clustering.options import ALGORITHM, RESOLUTION, NeighborsOptions
    from clustering.significance.splits import untested_splits
    from clustering.stores import read_record
    from evaluation.clusters.splits import divisions_of

    splits: dict[str, list[dict[str, Any]]] = {}
    for name, column in columns.items():
        record = read_record(root, name)
        if record.get("significance") is not None:
            splits[name] = record["splits"]
            continue
        chosen = record.get("hierarchy") or {}
        resolution = float(record.get("resolution", RESOLUTION))
        divisions = divisions_of(
            column,
            parents[name],
            lambda parent, chosen=chosen, default=resolution: float(chosen.get(parent, default)),
        )
        test = read_test() if divisions else None
        if test is not None:
            n_neighbors = record.get("neighbors_args", {}).get("n_neighbors")
            n_neighbors = n_neighbors or neighbors_params(root, neighbors_key).get("n_neighbors")
            test = replace(
                test,
                algorithm=record.get("algorithm", ALGORITHM),
                n_neighbors=int(n_neighbors or NeighborsOptions.n_neighbors),
            )
            results = [
                [split.record(lambda i, names=names: names[i]) for split in tested]
                for (_, names, _), tested in zip(
                    divisions, test.examine([d for *_, d in divisions]), strict=True
                )
            ]
        else:
            results = [
                [
                    {**split, **{side: [names[i] for i in split[side]] for side in SIDES}}
                    for split in untested_splits(division, representation, seed=seed)
                ]
                for _, names, division in divisions
            ]
        splits[name] = [
            {"parent": parent, **split}
            for (parent, *_), of_parent in zip(divisions, results, strict=True)
            for split in of_parent
        ]
    return splits


def read_gradual(root: Any, columns: Sequence[str]) -> set[tuple[str, str]]:
    """Return column and name of the clusters that no gap separates from their siblings."""
    from clustering.cluster_tree import separating_splits
    from clustering.stores import read_record

    return {
        (column, cluster)
        for column in columns
        for cluster, split in separating_splits(read_record(root, column).get("splits", [])).items()
        if split["verdict"] == "gradual"
    }


def siblings(parents: Sequence[str]) -> np.ndarray:
    """Give the clusters of one parent the same number; int64, from 0."""
    return np.unique(list(parents), return_inverse=True)[1]


def read_expression(
    root: Any, layer: str | None, values: str | None = None
) -> tuple[StoredMatrix | None, Callable | None]:
    """Find the expression, and how a block of its rows is log-normalized.

    Counts, with fractions or without, are scaled to the default of `preprocessing.target_sum` per
    cell, log1p; log-normalized values are taken as they are.

    Parameters
    ----------
    root
        As returned by `utils.io.open_store`.
    layer
        Name of a layer, ``raw`` (with genes of its own), or None for X.
    values
        ``counts`` or ``log-normalized`` where the user knows; None: looked at.

    Returns
    -------
    tuple
        The stored matrix, and a function of a block and the number of its first cell; None where
        there is no X.

    Raises
    ------
    ValueError
        If the values are scaled, of which no fold change can be computed.
    """
    from numerics.normalize import normalize_block
    from preprocessing.matrix_kind import LINEAR, SCALED, describe_matrix
    from preprocessing.options import NormalizationOptions
    from preprocessing.stores import has_x, stored_matrix, where_counts_are

    if layer is None and not has_x(root):
        say("there is no X: no markers")
        return None, None
    stored = stored_matrix(root, layer, own_genes=True)
    seen = describe_matrix(stored.values)
    if seen.kind == SCALED:
        where = where_counts_are(root, stored.name, stage="evaluation")
        where = where or "no other matrix of the file holds counts"
        raise ValueError(
            f"{stored.label} holds {seen}, and markers need counts or log-normalized values; "
            f"{where}"
        )
    if (values or seen.kind) not in LINEAR:
        say(f"{stored.name}: {values or seen}, taken as they are")
        return stored, lambda block, _: block
    target = NormalizationOptions.target_sum
    say(f"{stored.name}: {values or seen}, scaled to {target:g} per cell, log1p")
    return stored, lambda block, cell: normalize_block(block, target_sum=target, first_cell=cell)


def read_table(path: str) -> pd.DataFrame:
    """Read a table of this stage; a gene or cluster may be called ``NA``."""
    import pandas as pd

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    names = (
        "column",
        "cluster",
        "parent",
        "gene",
        "nearest",
        *SIDES,
        "markers_left",
        "markers_right",
    )
    text = dict.fromkeys(names, str)
    table = pd.read_csv(path, sep="\t", dtype=text, keep_default_na=False, na_values=[""])
    return table.fillna({name: "" for name in names if name in table})


def read_metrics(paths: Sequence[str | Path], methods: Sequence[str]) -> pd.DataFrame:
    """Read tables of `metrics.py`, one per method, and join them: the method comes first."""
    import pandas as pd

    # A group may be called "NA"; only what is empty is missing.
    options = {"sep": "\t", "keep_default_na": False, "na_values": {"value": "", "raw": ""}}
    tables = [
        pd.read_csv(path, dtype={"group": str}, **options).assign(method=method)
        for path, method in zip(paths, methods, strict=True)
    ]
    joined = pd.concat(tables)
    return joined[["method", *joined.columns[:-1]]]
