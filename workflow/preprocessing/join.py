"""Several files as one data set: what they have in common, and a line for all that is dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from preprocessing.join_columns import say_dropped
from preprocessing.matrix_kind import COUNTS, EMPTY, FRACTIONS, describe_matrix
from utils.errors import listed
from utils.io import keys, read_element, read_index
from utils.log import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from preprocessing.sources import Source

LAYOUTS = ("umap", "tsne", "draw_graph")
START_OVER = "compute it on all cells together: input: {preprocessing: [...]}"


# ---------------------------------------------------------------- genes


def join_genes(
    lists: Sequence[np.ndarray], files: Sequence[str], *, join: str, what: str = "genes"
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Find the genes of the joined data set.

    Parameters
    ----------
    lists
        The names of the genes of each file.
    files
        The files, for the log.
    join
        ``inner``: the genes of all files, in the order of the first; ``outer``: those of any, in
        the order in which they appear.
    what
        What they are called in the log.

    Returns
    -------
    names, positions
        The names, and for each file the position of every gene in its list; -1: it lacks it.

    Raises
    ------
    ValueError
        If a gene is in a file twice, or no gene is in all files.
    """
    for names, file in zip(lists, files, strict=True):
        unique, counts = np.unique(names, return_counts=True)
        if (counts > 1).any():
            raise ValueError(
                f"{file}: gene {unique[counts > 1][0]!r} is listed {counts.max()} times; make the "
                "names unique before files are joined (adata.var_names_make_unique())"
            )
    common = set(lists[0]).intersection(*map(set, lists[1:]))
    everything = list(dict.fromkeys(name for names in lists for name in names))
    joined = [name for name in everything if name in common] if join == "inner" else everything
    say(f"{len(common):,} {what} are in all {len(lists)} files, {len(everything):,} in any of them")
    for names, file in zip(lists, files, strict=True):
        if join == "inner" and len(names) > len(joined):
            say(
                f"dropped: {len(names) - len(joined):,} of {len(names):,} {what} of {file}, which "
                "are not in all files (join: outer keeps them)"
            )
        if join == "outer" and len(names) < len(joined):
            lacking = len(joined) - len(names)
            say(f"{file} lacks {lacking:,} of {len(joined):,} {what}: their values are 0 there")
    positions = []
    for names in lists:
        place = {name: i for i, name in enumerate(names)}
        positions.append(np.array([place.get(name, -1) for name in joined], dtype=np.intp))
    return np.array(joined, dtype=object), positions


def check_common(sources: Sequence[Source]) -> None:
    """Refuse files of which less than half of the genes are in all: other names, other species.

    Raises
    ------
    ValueError
        Shows names of two files, and where there are others of the same kind.
    """
    sets = [set(source.gene_names) for source in sources]
    n_common = len(sets[0].intersection(*sets[1:]))
    fewest = min(range(len(sets)), key=lambda i: len(sets[i]))
    if n_common and 2 * n_common >= len(sets[fewest]):
        return
    # The file that differs most from it shows what is the matter.
    others = [i for i in range(len(sets)) if i != fewest]
    one, other = sorted((fewest, min(others, key=lambda i: len(sets[fewest] & sets[i]))))
    shown = []
    for i, j in ((one, other), (other, one)):
        names = [name for name in sources[i].gene_names if name not in sets[j]][:3]
        shown.append(f"{', '.join(map(str, names))} in {sources[i].file}")
    hint = _hint_names(sources[one], sources[other], sets[one], sets[other])
    raise ValueError(
        f"{n_common:,} of the {len(sets[fewest]):,} genes of {sources[fewest].file} are in all "
        f"{len(sets)} files, which is less than half: they are called {' and '.join(shown)}; {hint}"
    )


def _hint_names(one: Source, other: Source, names: set[str], others: set[str]) -> str:
    """Say how two files might get the same names of genes."""
    for source, wanted in ((one, others), (other, names)):
        for column in keys(source.root, source.var):
            values = np.asarray(read_element(source.root, f"{source.var}/{column}"), dtype=object)
            texts = set(map(str, values.ravel()))
            if 2 * len(texts & wanted) > min(len(texts), len(wanted)):
                return (
                    f"var/{column} of {source.file} has names of the other kind: "
                    f"preprocessing: {{var_names: {column}}}"
                )
    first, second = (
        {str(n).rpartition(".")[0] or str(n) for n in part} for part in (names, others)
    )
    if 2 * len(first & second) > min(len(first), len(second)):
        return "one has versions after a dot; take them off (adata.var_names.str.split('.').str[0])"
    return "use the same kind of names in all files, or leave out the file with other genes"


def check_kinds(sources: Sequence[Source]) -> None:
    """Refuse counts in one file and, say, log-normalized values in another.

    Raises
    ------
    ValueError
        Names both files and what they hold.
    """
    values = [describe_matrix(source.root[source.counts]) for source in sources]
    filled = [(v, s) for v, s in zip(values, sources, strict=True) if v.kind != EMPTY]
    alike = {COUNTS: FRACTIONS}
    for value, source in filled[1:]:
        first, reference = filled[0]
        if alike.get(value.kind, value.kind) != alike.get(first.kind, first.kind):
            raise ValueError(
                f"{reference.counts} of {reference.file} holds {first}, {source.counts} of "
                f"{source.file} {value}: join files of one kind (preprocessing: {{layer: ...}} "
                "names the counts; values: counts, if that is what they all are)"
            )
    if len({value.kind for value, _ in filled}) > 1:
        named = (f"{value.kind} in {source.file}" for value, source in filled)
        say(f"{sources[0].counts} holds counts and counts with fractions: {', '.join(named)}")


# ---------------------------------------------------------------- embeddings, graphs, uns


def common_embeddings(
    sources: Sequence[Source], *, stage: str, recompute_umap: bool, recompute_neighbors: bool
) -> list[str]:
    """Return the keys of obsm that several files share; say what is dropped.

    Parameters
    ----------
    sources
        The files.
    stage
        Where the data set enters. At ``preprocessing`` embeddings are computed on all cells; later
        the files are parts of one data set, whose embedding they share.
    recompute_umap, recompute_neighbors
        Whether layouts and graphs are computed anew, so that those of the files do not matter.

    Raises
    ------
    ValueError
        At ``integration`` and ``clustering``, where an embedding cannot be a common one, or there
        are layouts or graphs of several files.
    """
    n_files = len(sources)
    of_files = [keys(source.root, "obsm") for source in sources]
    everything = list(dict.fromkeys(name for names in of_files for name in names))
    others = [
        f"{slot}/{name}"
        for slot in ("varm", "varp")
        for source in sources
        for name in keys(source.root, slot)
    ]
    graphs = [f"obsp/{name}" for source in sources for name in keys(source.root, "obsp")]
    if stage == "preprocessing":
        embeddings = [f"obsm/{name}" for name in everything]
        say_dropped("element", "each file has its own", [*embeddings, *graphs, *others])
        return []
    layouts = [name for name in everything if any(part in name.lower() for part in LAYOUTS)]
    shared = [name for name in everything if all(name in names for names in of_files)]
    shared = [name for name in shared if name not in layouts]
    problems = [line for name in shared for line in _width_problems(sources, name)]
    if "X_pca" in shared and not problems:
        problems += _component_problems(sources)
    with_layout = [s.file for s, names in zip(sources, of_files, strict=True) if "X_umap" in names]
    if with_layout and not recompute_umap:
        problems.append(
            f"obsm/X_umap of {listed(with_layout, 2)}: the layouts of several files are not one; "
            "write clustering: {recompute_umap: true}"
        )
    with_graph = [source.file for source in sources if keys(source.root, "obsp")]
    if with_graph and not recompute_neighbors:
        problems.append(
            f"{graphs[0]} of {listed(with_graph, 2)}: the graphs of several files are not one; "
            "write clustering: {recompute_neighbors: true}"
        )
    if problems:
        raise ValueError("\n".join(problems))
    partial = [name for name in everything if name not in shared and name not in layouts]
    say_dropped("embedding", f"not in all {n_files} files", partial)
    own = [*(f"obsm/{name}" for name in layouts), *graphs, *others]
    say_dropped("element", "each file has its own", own)
    if shared:
        say(f"{listed(shared)} of {n_files} files: taken as one embedding")
    return shared


def _width_problems(sources: Sequence[Source], name: str) -> list[str]:
    """Say where the columns of an embedding are others than in the first file."""
    of_files = [_columns(source.root[f"obsm/{name}"]) for source in sources]
    for source, columns in zip(sources, of_files, strict=True):
        if columns != of_files[0]:
            return [
                f"obsm/{name} has {_written(of_files[0])} in {sources[0].file}, "
                f"{_written(columns)} in {source.file}: no common embedding; {START_OVER}"
            ]
    return []


def _columns(element: Any) -> list[str] | tuple[int, ...]:
    """Return the names of the columns of a data frame in obsm; of an array, how many there are."""
    shape = getattr(element, "shape", None)
    if shape is None:
        shape = element.attrs.get("shape")  # sparse
    if shape is None:
        return [str(name) for name in element.attrs["column-order"]]
    return tuple(int(n) for n in shape[1:])


def _written(columns: list[str] | tuple[int, ...]) -> str:
    if isinstance(columns, list):
        return f"the columns {listed(columns, 10)}"
    return "1 column" if columns in ((), (1,)) else f"{' x '.join(map(str, columns))} columns"


def _component_problems(sources: Sequence[Source]) -> list[str]:
    """Say whether each file has components of its own."""
    genes = [read_index(source.root, "var").astype(str) for source in sources]
    common = sorted(set(genes[0]).intersection(*map(set, genes[1:])))
    first = None
    for source, names in zip(sources, genes, strict=True):
        values = _arrays(read_element(source.root, "uns/pca")) if _has(source, "uns", "pca") else []
        if _has(source, "varm", "PCs"):
            place = {name: i for i, name in enumerate(names)}
            loadings = np.asarray(read_element(source.root, "varm/PCs"))
            values.append(loadings[[place[name] for name in common]])
        first = values if first is None else first
        if len(values) != len(first) or not all(map(_same, values, first)):
            return [
                f"uns/pca and varm/PCs of {sources[0].file} and {source.file} differ: X_pca is "
                f"no common embedding; {START_OVER} (if it is one, delete both from the files)"
            ]
    return []


def _has(source: Source, slot: str, name: str) -> bool:
    return name in keys(source.root, slot)


def _arrays(value: Any) -> list[np.ndarray]:
    if isinstance(value, dict):
        return [item for key in sorted(value) for item in _arrays(value[key])]
    return [value] if isinstance(value, np.ndarray) and value.dtype.kind == "f" else []


def join_uns(
    parts: Sequence[Mapping[str, Any]], frames: Sequence[pd.DataFrame], obs: pd.DataFrame
) -> dict[str, Any]:
    """Keep what is equal in all files, and the colors of categories on which they agree.

    Parameters
    ----------
    parts
        The uns of each file.
    frames
        The obs of each file.
    obs
        The joined obs.
    """
    joined: dict[str, Any] = {}
    dropped = []
    for name in dict.fromkeys(name for part in parts for name in part):
        column = name.removesuffix("_colors")
        value = None
        if name.endswith("_colors") and column in obs:
            value = _join_colors(parts, name, frames, obs)
        elif all(name in part and _same(part[name], parts[0][name]) for part in parts):
            value = parts[0][name]
        if value is None or (isinstance(value, dict) and "connectivities_key" in value):
            dropped.append(name)  # with a graph goes what describes it
        else:
            joined[name] = value
    say_dropped("uns element", f"not equal in all {len(parts)} files", dropped)
    return joined


def _join_colors(
    parts: Sequence[Mapping[str, Any]], name: str, frames: Sequence[pd.DataFrame], obs: pd.DataFrame
) -> np.ndarray | None:
    """Give each category of a joined column the color that it has in the files; None: unknown."""
    column = name.removesuffix("_colors")
    color: dict[str, str] = {}
    for part, frame in zip(parts, frames, strict=True):
        if name not in part or column not in frame or not hasattr(frame[column], "cat"):
            continue
        given = np.asarray(part[name], dtype=object).ravel()
        for category, value in zip(frame[column].cat.categories, given, strict=False):
            if color.setdefault(str(category), str(value)) != str(value):
                return None
    categories = map(str, obs[column].cat.categories) if hasattr(obs[column], "cat") else [""]
    colors = [color.get(category) for category in categories]
    return None if None in colors else np.array(colors, dtype=object)


def _same(left: Any, right: Any) -> bool:
    """Whether two elements are equal, whatever they are; NaN equals NaN."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if hasattr(left, "equals"):  # a data frame
        return type(left) is type(right) and left.equals(right)
    if hasattr(left, "tocsr") and hasattr(right, "tocsr"):
        return left.shape == right.shape and (left != right).nnz == 0
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return np.array_equal(left, right, equal_nan=left.dtype.kind == right.dtype.kind == "f")
    return type(left) is type(right) and bool(np.all(left == right))
