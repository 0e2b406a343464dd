"""Join several files into one data set; the log names everything that is dropped."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from preprocessing.join_columns import say_dropped
from preprocessing.matrix_kind import EMPTY, LINEAR, describe_matrix
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
        If a file lists a gene twice.
    """
    import pandas as pd

    for names, file in zip(lists, files, strict=True):
        unique, counts = np.unique(names, return_counts=True)
        if (counts > 1).any():
            raise ValueError(
                f"{file}: gene {unique[counts > 1][0]!r} is listed {counts.max()} times; make the "
                "names unique before files are joined (adata.var_names_make_unique())"
            )
    common = set(lists[0]).intersection(*map(set, lists[1:]))
    union = list(dict.fromkeys(itertools.chain(*lists)))
    say(f"{len(common):,} {what} are in all {len(lists)} files, {len(union):,} in any of them")
    joined = [name for name in union if name in common] if join == "inner" else union
    for names, file in zip(lists, files, strict=True):
        if len(names) > len(joined):
            say(
                f"dropped: {len(names) - len(joined):,} of {len(names):,} {what} of {file}, which "
                "are not in all files (join: outer keeps them)"
            )
        elif len(names) < len(joined):
            n_missing = len(joined) - len(names)
            say(f"{file} lacks {n_missing:,} of {len(joined):,} {what}: their values are 0 there")
    positions = [pd.Index(names).get_indexer(joined) for names in lists]
    return np.array(joined, dtype=object), positions


def check_common(sources: Sequence[Source]) -> None:
    """Refuse files that share less than half of their genes: other names, other species.

    Raises
    ------
    ValueError
        Shows gene names of two files, and which column has matching ones.
    """
    sets = [set(source.gene_names) for source in sources]
    n_common = len(sets[0].intersection(*sets[1:]))
    fewest = min(range(len(sets)), key=lambda i: len(sets[i]))
    if n_common and 2 * n_common >= len(sets[fewest]):
        return
    # The file that differs most from it shows the problem best.
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
    """Suggest how two files can get the same gene names."""
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
    for value, source in filled[1:]:
        first, reference = filled[0]
        both_linear = first.kind in LINEAR and value.kind in LINEAR
        if value.kind != first.kind and not both_linear:
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
    """Return the keys of obsm that all files share; log what is dropped.

    Parameters
    ----------
    sources
        The files.
    stage
        Where the data set enters. At ``preprocessing`` embeddings are computed on all cells; later
        the files are parts of one data set, whose embedding they share.
    recompute_umap, recompute_neighbors
        Whether layouts and graphs are computed again, so that those of the files do not matter.

    Raises
    ------
    ValueError
        At ``integration`` and ``clustering``, if an embedding cannot be a common one, or files
        have layouts or graphs of their own.
    """
    graphs = _elements(sources, "obsp")
    gene_elements = _elements(sources, "varm", "varp")
    if stage == "preprocessing":
        embeddings = _elements(sources, "obsm")
        say_dropped("element", "each file has its own", [*embeddings, *graphs, *gene_elements])
        return []
    of_files = [keys(source.root, "obsm") for source in sources]
    union = list(dict.fromkeys(itertools.chain(*of_files)))
    embeddings = [name for name in union if not _is_layout(name)]
    in_all = set(of_files[0]).intersection(*of_files[1:])
    shared = [name for name in embeddings if name in in_all]
    problems = _embedding_problems(sources, shared)
    if not recompute_umap:
        problems += _layout_problems(sources)
    if not recompute_neighbors:
        problems += _graph_problems(sources)
    if problems:
        raise ValueError("\n".join(problems))
    partial = [name for name in embeddings if name not in shared]
    say_dropped("embedding", f"not in all {len(sources)} files", partial)
    layouts = [f"obsm/{name}" for name in union if _is_layout(name)]
    say_dropped("element", "each file has its own", [*layouts, *graphs, *gene_elements])
    if shared:
        say(f"{listed(shared)} of {len(sources)} files: taken as one embedding")
    return shared


def _is_layout(name: str) -> bool:
    return any(layout in name.lower() for layout in LAYOUTS)


def _elements(sources: Sequence[Source], *slots: str) -> list[str]:
    """Name the elements of some slots in any of the files: ``varm/PCs``."""
    return [f"{slot}/{name}" for slot in slots for s in sources for name in keys(s.root, slot)]


def _layout_problems(sources: Sequence[Source]) -> list[str]:
    """Explain which files have a UMAP of their own."""
    files = [source.file for source in sources if "X_umap" in keys(source.root, "obsm")]
    what = f"obsm/X_umap of {listed(files, 2)}: the layouts of several files are not one"
    return [f"{what}; write clustering: {{recompute_umap: true}}"] if files else []


def _graph_problems(sources: Sequence[Source]) -> list[str]:
    """Explain which files have a graph of their own."""
    files = [source.file for source in sources if keys(source.root, "obsp")]
    if not files:
        return []
    graph = _elements(sources, "obsp")[0]
    return [
        f"{graph} of {listed(files, 2)}: the graphs of several files are not one; "
        "write clustering: {recompute_neighbors: true}"
    ]


def _embedding_problems(sources: Sequence[Source], shared: Sequence[str]) -> list[str]:
    """Explain which embeddings of the files cannot be a common one."""
    problems = [line for name in shared for line in _width_problems(sources, name)]
    return problems or (_component_problems(sources) if "X_pca" in shared else [])


def _width_problems(sources: Sequence[Source], name: str) -> list[str]:
    """Explain which file has other columns of an embedding than the first."""
    of_files = [_columns(source.root[f"obsm/{name}"]) for source in sources]
    for source, columns in zip(sources, of_files, strict=True):
        if columns != of_files[0]:
            return [
                f"obsm/{name} has {_written(of_files[0])} in {sources[0].file}, "
                f"{_written(columns)} in {source.file}: no common embedding; {START_OVER}"
            ]
    return []


def _columns(element: Any) -> list[str] | tuple[int, ...]:
    """Return the column names of a data frame in obsm, the number of columns of an array."""
    shape = element.shape if hasattr(element, "shape") else element.attrs.get("shape")  # sparse
    if shape is None:
        return [str(name) for name in element.attrs["column-order"]]
    return tuple(int(n) for n in shape[1:])


def _written(columns: list[str] | tuple[int, ...]) -> str:
    if isinstance(columns, list):
        return f"the columns {listed(columns, 10)}"
    return "1 column" if columns in ((), (1,)) else f"{' x '.join(map(str, columns))} columns"


def _component_problems(sources: Sequence[Source]) -> list[str]:
    """Explain which files have other components than the first."""
    genes = [read_index(source.root, "var").astype(str) for source in sources]
    common = sorted(set(genes[0]).intersection(*map(set, genes[1:])))
    first = None
    for source, names in zip(sources, genes, strict=True):
        values = _component_arrays(source.root, names, common)
        first = values if first is None else first
        if not _same(dict(enumerate(values)), dict(enumerate(first))):
            return [
                f"uns/pca and varm/PCs of {sources[0].file} and {source.file} differ: X_pca is "
                f"no common embedding; {START_OVER} (if it is one, delete both from the files)"
            ]
    return []


def _component_arrays(root: Any, names: np.ndarray, common: Sequence[str]) -> list[np.ndarray]:
    """Read what defines the components of a file: uns/pca, and the loadings of common genes."""
    values = []
    if "pca" in keys(root, "uns"):
        values += _float_arrays(read_element(root, "uns/pca"))
    if "PCs" in keys(root, "varm"):
        position = {name: i for i, name in enumerate(names)}
        loadings = np.asarray(read_element(root, "varm/PCs"))
        values.append(loadings[[position[name] for name in common]])
    return values


def _float_arrays(value: Any) -> list[np.ndarray]:
    if isinstance(value, dict):
        return [array for key in sorted(value) for array in _float_arrays(value[key])]
    return [value] if isinstance(value, np.ndarray) and value.dtype.kind == "f" else []


def join_uns(
    parts: Sequence[Mapping[str, Any]], frames: Sequence[pd.DataFrame], obs: pd.DataFrame
) -> dict[str, Any]:
    """Keep what is equal in all files, and colors of categories on which they agree.

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
        if name.endswith("_colors") and name.removesuffix("_colors") in obs:
            value = _join_colors(parts, name, frames, obs)
        else:
            value = _equal_value(parts, name)
        if value is None or (isinstance(value, dict) and "connectivities_key" in value):
            dropped.append(name)  # what describes a graph is dropped with it
        else:
            joined[name] = value
    say_dropped("uns element", f"not equal in all {len(parts)} files", dropped)
    return joined


def _equal_value(parts: Sequence[Mapping[str, Any]], name: str) -> Any:
    """Return an element of uns that is equal in all files, else None."""
    is_equal = all(name in part and _same(part[name], parts[0][name]) for part in parts)
    return parts[0][name] if is_equal else None


def _join_colors(
    parts: Sequence[Mapping[str, Any]], name: str, frames: Sequence[pd.DataFrame], obs: pd.DataFrame
) -> np.ndarray | None:
    """Return the colors of a joined column; None where files differ or one is unknown."""
    column = name.removesuffix("_colors")
    color_of: dict[str, str] = {}
    for part, frame in zip(parts, frames, strict=True):
        if name not in part or column not in frame or not hasattr(frame[column], "cat"):
            continue
        colors = np.asarray(part[name], dtype=object).ravel()
        for category, color in zip(frame[column].cat.categories, colors, strict=False):
            if color_of.setdefault(str(category), str(color)) != str(color):
                return None
    categories = map(str, obs[column].cat.categories) if hasattr(obs[column], "cat") else [""]
    colors = [color_of.get(category) for category in categories]
    return None if None in colors else np.array(colors, dtype=object)


def _same(left: Any, right: Any) -> bool:
    """Return whether two elements of any type are equal; NaN equals NaN."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if hasattr(left, "equals"):  # a data frame
        return type(left) is type(right) and left.equals(right)
    if hasattr(left, "tocsr") and hasattr(right, "tocsr"):
        return left.shape == right.shape and (left != right).nnz == 0
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return np.array_equal(left, right, equal_nan=left.dtype.kind == right.dtype.kind == "f")
    return type(left) is type(right) and bool(np.all(left == right))
