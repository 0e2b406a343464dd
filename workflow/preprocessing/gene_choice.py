"""Choose the variable genes of a data set: among all or some genes, or named by the user."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from utils.errors import listed
from utils.io import keys, read_element
from utils.log import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd

    from preprocessing.options import VariableGenesOptions


class GeneChoice(NamedTuple):
    """Masks of the genes that are never chosen, and of those that the user names."""

    excluded: np.ndarray | None = None
    used: np.ndarray | None = None

    def among(self, genes: np.ndarray) -> GeneChoice:
        """Return the choice for some of the genes, of which the positions are given."""
        return GeneChoice(*(None if mask is None else mask[genes] for mask in self))


def read_gene_choice(root: Any, names: np.ndarray, hvg: VariableGenesOptions | None) -> GeneChoice:
    """Turn the option `hvg` into masks of the genes; log how many these are.

    Parameters
    ----------
    root
        A store, as returned by `utils.io.open_store`; its var may have named columns.
    names
        Names of the genes, shape (n_genes,).
    hvg
        The option; None: no choice.

    Raises
    ------
    ValueError
        If no gene is left, no named one exists, or a column does not hold true and false.
    FileNotFoundError
        If `use` is neither a column of var nor a file.
    """
    if hvg is None:
        return GeneChoice()
    if hvg.use is not None:
        return GeneChoice(used=_used(root, names, hvg.use))
    if not hvg.exclude:
        return GeneChoice()
    return GeneChoice(excluded=_excluded(root, names, hvg.exclude))


def _excluded(root: Any, names: np.ndarray, entries: Iterable[str]) -> np.ndarray:
    excluded = np.zeros(len(names), dtype=bool)
    for entry in entries:
        genes = _column(root, entry)
        if genes is None:
            pattern = re.compile(entry)
            genes = np.array([pattern.search(str(name)) is not None for name in names], dtype=bool)
            kind = "names"
        else:
            kind = "column of var"
        n_genes = int(genes.sum())
        note = "" if n_genes else f": it matches nothing, genes are called {listed(list(names), 3)}"
        say(
            f"hvg.exclude {entry} ({kind}): {n_genes:,} {'gene' if n_genes == 1 else 'genes'}{note}"
        )
        excluded |= genes
    if excluded.all():
        raise ValueError(f"hvg.exclude: excludes all {len(names):,} genes; none is left to choose")
    say(f"{int(excluded.sum()):,} of {len(names):,} genes take no part in the choice")
    return excluded


def _column(root: Any, name: str) -> np.ndarray | None:
    """Return a true/false column of var; None if there is none of this name."""
    if name not in keys(root, "var"):
        return None
    column = read_element(root, f"var/{name}")
    if getattr(column, "dtype", None) not in (bool, "boolean"):
        return None
    if hasattr(column, "to_numpy"):
        return column.to_numpy(dtype=bool, na_value=False)
    return np.asarray(column, dtype=bool)


def _used(root: Any, names: np.ndarray, use: str) -> np.ndarray:
    column = _column(root, use)
    if column is not None:
        if not column.any():
            raise ValueError(
                f'hvg.use: adata.var["{use}"] is true for none of {len(names):,} genes'
            )
        say(f"hvg.use: {int(column.sum()):,} genes, of var/{use}")
        return column
    if use in keys(root, "var"):
        dtype = getattr(read_element(root, f"var/{use}"), "dtype", "no column")
        raise ValueError(f'hvg.use: adata.var["{use}"] must be true or false, found {dtype}')
    path = Path(use)
    if not path.is_file():
        raise FileNotFoundError(
            f"hvg.use: {use} is neither a file nor a column of var. "
            f"Columns: {listed(keys(root, 'var'))}"
        )
    wanted = read_gene_list(path)
    used = np.isin(names.astype(str), wanted)
    if not used.any():
        raise ValueError(
            f"hvg.use: none of the {len(wanted):,} genes of {use} is in var "
            f"({listed(wanted, 3)}); its genes are called {listed(list(names), 3)}"
        )
    absent = sorted(set(wanted) - set(names.astype(str)))
    also = f"; not in var are {len(absent):,}: {listed(absent, 5)}" if absent else ""
    say(f"hvg.use: {int(used.sum()):,} of {len(wanted):,} genes of {use}{also}")
    return used


def read_gene_list(path: Path) -> list[str]:
    """Read a file with one gene per line; ``#`` starts a comment, names count once."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text file ({error.reason})") from None
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    names = list(dict.fromkeys(line for line in lines if line))
    if not names:
        raise ValueError(f"{path}: holds no name; write one gene per line")
    return names


def select_genes(
    blocks: Callable[[], Iterable[Any]],
    n_genes: int,
    choice: GeneChoice,
    **options: Any,
) -> tuple[np.ndarray | None, pd.DataFrame | None]:
    """Return the positions of the variable genes (None: all) and a table of all genes.

    Parameters
    ----------
    blocks, n_genes, **options
        As for `preprocessing.hvg.highly_variable_genes`; ``n_top_genes=None``: all genes, or those
        that are not excluded.
    choice
        From `read_gene_choice`.
    """
    import pandas as pd

    from preprocessing.hvg import highly_variable_genes

    marked = choice.used
    if options["n_top_genes"] is None and marked is None and choice.excluded is not None:
        marked = ~choice.excluded
    if marked is not None:
        return np.flatnonzero(marked), pd.DataFrame({"highly_variable": marked})
    if options["n_top_genes"] is None:
        return None, None
    table = highly_variable_genes(blocks, n_genes, excluded=choice.excluded, **options)
    genes = np.flatnonzero(table["highly_variable"])
    return genes if len(genes) < n_genes else None, table
