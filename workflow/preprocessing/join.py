"""Several files as one data set: what they have in common, and a line for all that is dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from utils.cli import say
from utils.io import keys, read_element, read_index
from utils.messages import listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from preprocessing.sources import Source


# ---------------------------------------------------------------- genes


def join_genes(sources: Sequence[Source], *, join: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Find the genes of the joined data set.

    Parameters
    ----------
    sources
        The files, each with its names of genes and those that may be taken.
    join
        ``inner``: the genes of all files, in the order of the first; ``outer``: those of any.

    Returns
    -------
    names, positions
        Names; for each file the position of every gene in it (-1: it lacks it).

    Raises
    ------
    ValueError
        If a gene is in a file twice, or less than half of the genes of the smallest file are in
        all of them.
    """
    if len(sources) == 1:
        (source,) = sources
        return source.names[source.genes], [source.genes]
    lists = []
    for source in sources:
        names = source.names[source.genes]
        unique, counts = np.unique(names, return_counts=True)
        if (counts > 1).any():
            raise ValueError(
                f"{source.file}: gene {unique[counts > 1][0]!r} is there {counts.max()} times; "
                "make the names unique before files are joined (adata.var_names_make_unique())"
            )
        lists.append(names)
    common = set(lists[0]).intersection(*map(set, lists[1:]))
    _check_common(sources, lists, len(common))
    if join == "inner":
        names = [name for name in lists[0] if name in common]
        for source, of_file in zip(sources, lists, strict=True):
            if len(of_file) > len(names):
                dropped = len(of_file) - len(names)
                say(
                    f"{source.file}: {dropped:,} of {len(of_file):,} genes are dropped, which are "
                    "not in all files (join: outer keeps them)"
                )
        say(f"{len(names):,} genes are in all {len(sources)} files")
    else:
        names = list(dict.fromkeys(name for of_file in lists for name in of_file))
        for source, of_file in zip(sources, lists, strict=True):
            if len(of_file) < len(names):
                lacking = len(names) - len(of_file)
                say(f"{source.file}: lacks {lacking:,} of {len(names):,} genes, whose counts are 0")
    positions = []
    for source, of_file in zip(sources, lists, strict=True):
        place = dict(zip(of_file, source.genes.tolist(), strict=True))
        positions.append(np.array([place.get(name, -1) for name in names], dtype=np.intp))
    return np.array(names, dtype=object), positions


def _check_common(sources: Sequence[Source], lists: list[np.ndarray], n_common: int) -> None:
    fewest = min(range(len(lists)), key=lambda i: len(lists[i]))
    if 2 * n_common >= len(lists[fewest]) and n_common:
        return
    # The two files that differ most show what is the matter.
    others = [i for i in range(len(lists)) if i != fewest]
    other = min(others, key=lambda i: len(set(lists[fewest]) & set(lists[i])))
    first, second = sorted((fewest, other))
    shown = " and ".join(
        f"{listed([name for name in lists[i] if name not in set(lists[j])], 3)} in "
        f"{sources[i].file}"
        for i, j in ((first, second), (second, first))
    )
    raise ValueError(
        f"only {n_common:,} of the {len(lists[fewest]):,} genes of {sources[fewest].file} are in "
        f"all {len(lists)} files: genes are called {shown}; "
        + _hint_names(sources[first], lists[first], sources[second], lists[second])
    )


def _hint_names(one: Source, names: np.ndarray, other: Source, others: np.ndarray) -> str:
    """Say how two files might get the same names of genes."""
    for source, wanted in ((one, others), (other, names)):
        for column in keys(source.root, source.var):
            values = np.asarray(read_element(source.root, f"{source.var}/{column}"), dtype=object)
            texts = set(map(str, values.ravel()))
            if 2 * len(texts & set(wanted)) > min(len(texts), len(wanted)):
                return (
                    f"{source.file} has names of that kind in var/{column}: write preprocessing: "
                    f"{{var_names: {column}}} (by hand --var_names {column})"
                )
    stems, other_stems = (
        {str(name).rpartition(".")[0] or str(name) for name in part} for part in (names, others)
    )
    if 2 * len(stems & other_stems) > min(len(stems), len(other_stems)):
        return "they differ by a version after the dot; take it off in one of them"
    return "use the same kind of names in all files, or leave out the file that is of other genes"


# ---------------------------------------------------------------- columns of obs and var


def type_of(values: Any) -> str:
    """Name what a column holds: text, numbers, truth values, or nothing but missing values."""
    import pandas as pd

    if isinstance(values.dtype, pd.CategoricalDtype):
        if not (values.codes >= 0).any():
            return "empty"
        inside = type_of(pd.Series(values.categories))
        return inside if inside in ("text", "empty") else f"categories of {inside}"
    if pd.isna(values).all():
        return "empty"
    if pd.api.types.is_bool_dtype(values.dtype):
        return "truth values"
    if pd.api.types.is_numeric_dtype(values.dtype):
        return "numbers"
    inferred = pd.api.types.infer_dtype(values, skipna=True)
    return {"string": "text", "boolean": "truth values"}.get(inferred, inferred)


def join_column(parts: Sequence[Any], where: str, files: Sequence[str]) -> Any:
    """Join a column of several files.

    Parameters
    ----------
    parts
        Its values in each file: arrays, extension arrays or categoricals.
    where
        What it is, for the log: ``obs["donor"]``.
    files
        The files, for the log.

    Returns
    -------
    array
        Values of one type: numbers and truth values as pandas joins them, text as categories where
        one file has these. Values of several types become text as each file writes them, which is
        said. Missing values stay missing.
    """
    import pandas as pd

    types = [type_of(part) for part in parts]
    known = [kind for kind in dict.fromkeys(types) if kind != "empty"]
    if len(known) > 1:
        named = ", ".join(f"{kind} in {files[types.index(kind)]}" for kind in known)
        say(f"{where} holds {named}: its values are joined as text")
        return _categories([_as_text(part) for part in parts])
    if not known:
        return np.full(sum(map(len, parts)), np.nan)
    (kind,) = known
    filled = [part for part, of_part in zip(parts, types, strict=True) if of_part != "empty"]
    if kind.startswith("categories") or any(
        isinstance(p.dtype, pd.CategoricalDtype) for p in filled
    ):
        return _categories(
            [
                pd.Categorical(part) if of_part != "empty" else len(part)
                for part, of_part in zip(parts, types, strict=True)
            ],
            where,
        )
    if kind == "text":
        return np.concatenate([pd.array(part, dtype="string").astype(object) for part in parts])
    values = [
        pd.Series(part) if of_part != "empty" else _missing(len(part), kind)
        for part, of_part in zip(parts, types, strict=True)
    ]
    joined = pd.concat(values, ignore_index=True).array
    if isinstance(joined.dtype, pd.Float32Dtype | pd.Float64Dtype):
        # anndata has no nullable fractions: their missing value is NaN.
        return joined.to_numpy(dtype=joined.dtype.numpy_dtype, na_value=np.nan)
    return joined if pd.api.types.is_extension_array_dtype(joined.dtype) else joined.to_numpy()


def _missing(n: int, kind: str) -> pd.Series:
    import pandas as pd

    if kind == "truth values":
        return pd.Series(pd.array([pd.NA] * n, dtype="boolean"))
    return pd.Series(np.full(n, np.nan))


def _as_text(values: Any) -> pd.Categorical:
    """Write each value as text, a missing one as missing."""
    import pandas as pd

    if isinstance(values.dtype, pd.CategoricalDtype):
        return values.rename_categories(_unique_texts(values.categories))
    codes, uniques = pd.factorize(values)
    return pd.Categorical.from_codes(codes, [str(value) for value in uniques])


def _unique_texts(categories: Any) -> list[str]:
    return [str(value) for value in categories]


def _categories(parts: Sequence[pd.Categorical | int], where: str = "") -> pd.Categorical:
    """Join categories in the order in which they appear; a number is that of missing values."""
    import pandas as pd

    filled = [part for part in parts if not isinstance(part, int)]
    place: dict[Any, int] = {}
    codes = []
    for part in parts:
        if isinstance(part, int):
            codes.append(np.full(part, -1))
            continue
        lookup = [place.setdefault(value, len(place)) for value in part.categories]
        codes.append(np.array([*lookup, -1])[part.codes])
    first = filled[0]
    alike = all(list(part.categories) == list(first.categories) for part in filled)
    ordered = alike and all(part.ordered for part in filled)
    if where and not ordered and any(part.ordered for part in filled):
        say(f"{where}: the order of its categories differs from file to file and is dropped")
    return pd.Categorical.from_codes(np.concatenate(codes), list(place), ordered=ordered)


def _values(column: pd.Series) -> Any:
    """Return an array of NumPy where that is what the column holds, else the extension array."""
    import pandas as pd

    is_extension = pd.api.types.is_extension_array_dtype(column.dtype)
    return column.array if is_extension else column.to_numpy()


def join_obs(frames: Sequence[pd.DataFrame], files: Sequence[str]) -> pd.DataFrame:
    """Join the obs of several files: the columns of all, in the order of the first."""
    import pandas as pd

    columns = [name for name in frames[0] if all(name in frame for frame in frames)]
    say_dropped(
        "columns of obs", [name for frame in frames for name in frame if name not in columns]
    )
    joined = {
        name: join_column([_values(frame[name]) for frame in frames], f'obs["{name}"]', files)
        for name in columns
    }
    index = pd.Index(np.concatenate([frame.index.to_numpy(dtype=object) for frame in frames]))
    return pd.DataFrame(joined, index=index)


def join_var(
    frames: Sequence[pd.DataFrame], positions: Sequence[np.ndarray], names: np.ndarray, what: str
) -> pd.DataFrame:
    """Join the var of several files: the columns on which all that have a gene agree."""
    import pandas as pd

    columns = [name for name in frames[0] if all(name in frame for frame in frames)]
    dropped = [name for frame in frames for name in frame if name not in columns]
    joined = {}
    for name in columns:
        values, agree = None, True
        for frame, position in zip(frames, positions, strict=True):
            here = position >= 0
            column = pd.Series(frame[name].array).astype(object)
            own = pd.Series(np.full(len(names), None, dtype=object))
            own[here] = column.to_numpy()[position[here]]
            own[own.isna().to_numpy()] = None
            if values is None:
                values, seen = own, here.copy()
                continue
            both = here & seen
            left, right = values[both], own[both]
            agree = agree and bool(((left == right) | (left.isna() & right.isna())).all())
            values[here & ~seen] = own[here & ~seen]
            seen |= here
        if not agree:
            dropped.append(name)
            continue
        dtype = frames[0][name].dtype
        if isinstance(dtype, pd.CategoricalDtype):
            joined[name] = pd.Categorical(values)
        elif values.isna().any():
            joined[name] = values.infer_objects().to_numpy()
        else:
            joined[name] = values.astype(dtype).array
    say_dropped(f"columns of {what}, which are not in all files or differ", dropped)
    return pd.DataFrame(joined, index=pd.Index(names))


# ---------------------------------------------------------------- embeddings, graphs, uns


def say_dropped(what: str, names: Sequence[str]) -> None:
    """Say what of several files is not taken along, each name once."""
    unique = list(dict.fromkeys(names))
    if unique:
        say(f"dropped: {len(unique)} {what} ({listed(unique, 10)})")


def common_embeddings(
    sources: Sequence[Source], *, stage: str, recompute_umap: bool, recompute_neighbors: bool
) -> list[str]:
    """Return the keys of obsm that several files share; say what is dropped.

    Parameters
    ----------
    sources
        The files.
    stage
        Where the data set enters. At ``preprocessing`` nothing is taken along; later the files
        stand for parts of one data set, whose embedding they share.
    recompute_umap, recompute_neighbors
        Whether layouts and graphs are computed anew, so that those of the files do not matter.

    Raises
    ------
    ValueError
        At ``integration`` and ``clustering``, where an embedding cannot be a common one, or there
        are layouts or graphs of several files.
    """
    of_files = [keys(source.root, "obsm") for source in sources]
    graphs = [name for source in sources for name in keys(source.root, "obsp")]
    everything = list(dict.fromkeys(name for names in of_files for name in names))
    if stage == "preprocessing":
        say_dropped("embeddings, each of one file only", everything)
        say_dropped("graphs, each of one file only", graphs)
        return []
    layouts = [name for name in everything if name in LAYOUTS]
    shared = [
        name for name in everything if all(name in n for n in of_files) and name not in layouts
    ]
    for name in shared:
        _check_widths(sources, name)
    _check_one_decomposition(sources)
    files = f"{sources[0].file} and {sources[-1].file}"
    for what, names, recompute, key in (
        ("one layout", [f"obsm/{name}" for name in layouts], recompute_umap, "recompute_umap"),
        ("one graph", [f"obsp/{name}" for name in graphs], recompute_neighbors, _NEIGHBORS),
    ):
        if names and not recompute:
            raise ValueError(
                f"{files}: {names[0]} of several files is not {what}; write clustering: "
                f"{{{key}: true}} to compute it anew (by hand --{key})"
            )
    say_dropped("layouts, each of one file only", layouts)
    say_dropped("graphs, each of one file only", graphs)
    say_dropped(
        "embeddings that are not in all files",
        [name for name in everything if name not in (*shared, *layouts)],
    )
    if shared:
        say(f"{listed(shared)} of {len(sources)} files: taken as one embedding")
    return shared


LAYOUTS = ("X_umap", "umap", "X_tsne", "tsne")
_NEIGHBORS = "recompute_neighbors"


def _check_widths(sources: Sequence[Source], name: str) -> None:
    widths = [_width(source.root[f"obsm/{name}"]) for source in sources]
    for source, width in zip(sources, widths, strict=True):
        if width != widths[0]:
            raise ValueError(
                f"obsm/{name} has {widths[0]} columns in {sources[0].file} and {width} in "
                f"{source.file}: these are no common embedding; {_START_OVER}"
            )


_START_OVER = "compute it on all cells together, from the counts: input: {preprocessing: [...]}"


def _width(element: Any) -> int:
    shape = getattr(element, "shape", None) or element.attrs.get("shape")
    if shape is None:  # a data frame
        return len(element.attrs.get("column-order", ()))
    return int(shape[1]) if len(shape) > 1 else 1


def _check_one_decomposition(sources: Sequence[Source]) -> None:
    """Refuse components that each file has of its own."""
    with_it = []
    for source in sources:
        values = []
        if "pca" in keys(source.root, "uns"):
            values += _arrays(read_element(source.root, "uns/pca"))
        if "PCs" in keys(source.root, "varm"):
            loadings = np.asarray(read_element(source.root, "varm/PCs"))
            genes = read_index(source.root, "var").astype(str)
            values.append(loadings[np.argsort(genes, kind="stable")])
        if values:
            with_it.append((source, values))
    for source, values in with_it[1:]:
        first, reference = with_it[0]
        if len(values) != len(reference) or not all(map(np.array_equal, values, reference)):
            raise ValueError(
                f"{first.file} and {source.file} have principal components of their own (uns/pca, "
                f"varm/PCs), so that X_pca is no common embedding; {_START_OVER}"
            )


def _arrays(value: Any) -> list[np.ndarray]:
    if isinstance(value, dict):
        return [item for key in sorted(value) for item in _arrays(value[key])]
    return [value] if isinstance(value, np.ndarray) and value.dtype.kind == "f" else []


def join_uns(
    parts: Sequence[Mapping[str, Any]], obs: pd.DataFrame, frames: Sequence[pd.DataFrame]
) -> dict[str, Any]:
    """Keep what is the same in all files, and the colors of categories that agree.

    Parameters
    ----------
    parts
        The uns of each file.
    obs
        The joined obs.
    frames
        Those of the files.
    """
    joined, dropped = {}, []
    for name in dict.fromkeys(name for part in parts for name in part):
        column = name.removesuffix("_colors")
        if name.endswith("_colors") and column in obs:
            colors = _join_colors(parts, name, obs[column], [frame.get(column) for frame in frames])
            if colors is not None:
                joined[name] = colors
                continue
        elif all(name in part and _same(part[name], parts[0][name]) for part in parts):
            joined[name] = parts[0][name]
            continue
        dropped.append(name)
    say_dropped("entries of uns, which are not in all files or differ", dropped)
    return joined


def _join_colors(
    parts: Sequence[Mapping[str, Any]], name: str, column: Any, columns: Sequence[Any]
) -> np.ndarray | None:
    """Give each category of a joined column the color that it has in the files; None: unknown."""
    color: dict[str, str] = {}
    for part, values in zip(parts, columns, strict=True):
        if name not in part or not hasattr(values, "cat"):
            continue
        given = list(np.asarray(part[name], dtype=object).ravel())
        for category, value in zip(values.cat.categories, given, strict=False):
            if color.setdefault(str(category), str(value)) != str(value):
                return None
    if not hasattr(column, "cat"):
        return None
    categories = [str(category) for category in column.cat.categories]
    if not all(category in color for category in categories):
        return None
    return np.array([color[category] for category in categories], dtype=object)


def _same(left: Any, right: Any) -> bool:
    """Whether two elements of uns are equal, whatever they are."""
    from anndata.tests.helpers import assert_equal

    try:
        assert_equal(left, right, exact=True)
    except AssertionError:
        return False
    return True
