"""Open the files of a data set: find what becomes X in each, and the names of its genes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from preprocessing.formats import open_counts
from utils.blocks import map_blocks, matrix_shape, n_blocks, rows_of_small_blocks
from utils.errors import bad_name, listed, missing
from utils.io import is_matrix, keys, n_rows, read_element, read_index
from utils.log import progress, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from utils.blocks import Block

GENE_EXPRESSION = "Gene Expression"


@dataclass(eq=False)
class Source:
    """An input file and what is chosen from it.

    Attributes
    ----------
    file
        Its path as the user writes it.
    root
        The opened store.
    x
        The element that becomes X: ``X``, ``raw/X`` or ``layers/raw``.
    counts
        The element in which genes are detected: that of `x`, or ``layers/{layer}``.
    var
        The frame of its genes: ``var`` or ``raw/var``.
    names
        Names of all its genes, objects.
    genes
        Position in the file of each gene of the data set; -1 if the file lacks it.
    cells
        Marks the cells that are kept.
    quality
        Columns of obs computed from the counts of all cells.
    is_renamed
        Whether `names` are not those of the file.
    threads
        Blocks that are read at the same time.
    """

    file: str
    root: Any
    x: str
    counts: str
    var: str
    names: np.ndarray
    genes: np.ndarray
    cells: np.ndarray
    quality: dict[str, np.ndarray] = field(default_factory=dict)
    is_renamed: bool = False
    threads: int = 1

    @property
    def gene_names(self) -> np.ndarray:
        """Names of the chosen genes, before files are joined."""
        return self.names[self.genes]

    @property
    def takes_raw(self) -> bool:
        """Whether raw, or a layer of that name, becomes X."""
        return self.x != "X"

    def blocks(
        self,
        name: str,
        desc: str,
        genes: np.ndarray | None = None,
        *,
        function: Callable[[Block], Any] = lambda block: block,
        kept: bool = False,
    ) -> Iterator[Any]:
        """Read a matrix in blocks of its cells, with the genes of the data set.

        Parameters
        ----------
        name
            The element: ``X``, ``layers/counts``, ``raw/X``.
        desc
            Name of the step, for the progress.
        genes
            Positions in the file (-1: missing, its values are 0); None: those of the data set.
        function
            Called with each block, on `threads` threads.
        kept
            Read the chosen cells only, not all.

        Yields
        ------
        Any
            What `function` returns, in the order of the cells; by default the blocks.
        """
        matrix = self.root[name]
        genes = self.genes if genes is None else genes
        all_genes = np.array_equal(genes, np.arange(matrix_shape(matrix)[1]))

        def one_block(first_cell: int, block: Block) -> Any:
            block = block if all_genes else take_genes(block, genes)
            chosen = self.cells[first_cell : first_cell + block.shape[0]]
            return function(block if chosen.all() or not kept else block[chosen])

        rows = rows_of_small_blocks(matrix)
        results = map_blocks(one_block, matrix, rows=rows, threads=self.threads)
        yield from progress(results, desc=desc, total=n_blocks(matrix, rows=rows))


def take_genes(block: Block, genes: np.ndarray) -> Block:
    """Select columns of a block of cells; -1 is a column of zeros."""
    present = genes >= 0
    if present.all():
        return block[:, genes]
    chosen = block[:, genes[present]]
    if not sp.issparse(block):
        filled = np.zeros((block.shape[0], len(genes)), block.dtype)
        filled[:, present] = chosen
        return filled
    indices = np.flatnonzero(present).astype(chosen.indices.dtype)[chosen.indices]
    shape = (block.shape[0], len(genes))
    return sp.csr_matrix((chosen.data, indices, chosen.indptr), shape=shape)


def open_sources(
    files: Sequence[str],
    *,
    layer: str | None,
    var_names: str | None,
    stage: str,
    needs_counts: str,
    threads: int = 1,
) -> list[Source]:
    """Open files, find what becomes X, and the names of the genes.

    Parameters
    ----------
    files
        As the user writes them.
    layer, var_names
        As for `preprocessing.prepare.prepare_store`.
    stage
        Where the data set enters; at ``preprocessing`` features that are no genes are left out.
    needs_counts
        Which options need the matrix, with a verb; empty: none does.
    threads
        Blocks of a matrix that are read at the same time.

    Raises
    ------
    KeyError, ValueError
        If a layer, raw or the column of names is missing, or a name cannot be written.
    """
    sources = [_open(file, layer=layer, needs_counts=needs_counts) for file in files]
    for source in sources:
        source.threads = threads
        if stage == "preprocessing":
            source.genes = _gene_expression(source)
    if var_names is not None:
        _rename_genes(sources, var_names)
    return sources


def _rename_genes(sources: list[Source], var_names: str) -> None:
    """Name the genes by a column of var, in the files that have it."""
    named = [source for source in sources if var_names in keys(source.root, source.var)]
    if not named:
        columns = keys(sources[0].root, sources[0].var)
        raise KeyError(missing(f"{sources[0].file}: adata.var has no column", var_names, columns))
    for source in sources:
        if source not in named:
            say(f"{source.file}: var has no {var_names}: its genes keep their names")
    frames = [source.var for source in named]
    names_of_files = named_genes(named, frames, var_names, several=len(sources) > 1)
    for source, names in zip(named, names_of_files, strict=True):
        source.is_renamed, source.names = True, names


def _open(file: str, *, layer: str | None, needs_counts: str) -> Source:
    root = open_counts(file)
    layers = keys(root, "layers")
    _check_names(root, file)
    has_raw = "X" in keys(root, "raw")
    if layer == "raw":
        x, counts, var = _find_raw(file, layers, has_raw=has_raw)
    else:
        x, counts, var = "X", "X" if layer is None else f"layers/{layer}", "var"
        if layer is not None and layer not in layers:
            available = [*layers, "raw"] if has_raw else layers
            raise KeyError(missing(f"{file}: adata.layers has no", layer, available))
    if needs_counts and not (counts in root and is_matrix(root[counts])):
        available = [*(f"layers/{name}" for name in layers), *(["raw"] if has_raw else [])]
        raise KeyError(f"{file}: has no {counts}, which {needs_counts}; it has {listed(available)}")
    n_cells, n_genes = n_rows(root, "obs"), n_rows(root, var)
    names = read_index(root, var).astype(str).astype(object)
    return Source(
        file, root, x, counts, var, names, np.arange(n_genes), np.ones(n_cells, dtype=bool)
    )


def _find_raw(file: str, layers: Sequence[str], *, has_raw: bool) -> tuple[str, str, str]:
    """Return the elements of X, the counts and var where raw, or a layer of that name, is X."""
    if has_raw:
        if "raw" in layers:
            say(f"{file}: has both a raw and a layer of that name; raw is taken")
        return "raw/X", "raw/X", "raw/var"
    if "raw" in layers:
        return "layers/raw", "layers/raw", "var"
    raise KeyError(f"{file}: has no raw; adata.layers has {listed(layers)}")


def _check_names(root: Any, file: str) -> None:
    """Refuse names that a zarr store cannot have, such as those that HDF5 reads as a path."""
    for slot in ("obs", "var", "obsm", "varm", "obsp", "varp", "layers"):
        if slot not in root:
            continue
        names = keys(root, slot)
        if slot in ("obs", "var"):
            names = [str(name) for name in root[slot].attrs.get("column-order", names)]
        else:
            # "a/b" is a group a without attributes that holds b.
            names += [
                f"{name}/{next(iter(root[slot][name]), '')}"
                for name in names
                if hasattr(root[slot][name], "keys") and not len(root[slot][name].attrs)
            ]
        for name in names:
            if problem := bad_name(name):
                raise ValueError(f"{file}: adata.{slot}: {problem}; rename it")


def _gene_expression(source: Source) -> np.ndarray:
    """Return the positions of the genes, without features of other types such as antibodies."""
    root = source.root
    frames = [var for var in (source.var, "var") if "feature_types" in keys(root, var)]
    if not frames:
        return source.genes
    types = np.asarray(read_element(root, f"{frames[0]}/feature_types"), dtype=object).astype(str)
    if frames[0] != source.var:  # var has the genes of raw, or some of them
        of_gene = dict(zip(read_index(root, "var").astype(str), types, strict=True))
        types = np.array(
            [of_gene.get(name, GENE_EXPRESSION) for name in source.names], dtype=object
        )
    is_gene = types == GENE_EXPRESSION
    if is_gene.all() or not is_gene.any():
        return source.genes
    others, counts = np.unique(types[~is_gene], return_counts=True)
    named = ", ".join(f"{n:,} of {kind}" for kind, n in zip(others, counts, strict=True))
    where = f"{len(types):,} features ({frames[0]}/feature_types)"
    say(f"{source.file}: {named} are left out of the {where}")
    return np.flatnonzero(is_gene)


def named_genes(
    sources: Sequence[Source], frames: Sequence[str], column: str, *, several: bool
) -> list[np.ndarray]:
    """Read gene names from a column of var; log which genes keep their old ones.

    Parameters
    ----------
    sources
        The files that have the column.
    frames
        Where each file has it: ``var`` or ``raw/var``.
    column
        The column.
    several
        Whether files are joined: a name that several genes of a file share is then used in none,
        as it would make one gene of different ones. Else a number is added, as anndata does.

    Returns
    -------
    list of numpy.ndarray
        The names of all genes of each file.
    """
    import pandas as pd

    old, new = [], []
    for source, var in zip(sources, frames, strict=True):
        old.append(read_index(source.root, var).astype(str).astype(object))
        new.append(_column_names(source, old[-1], var, column))
    repeated = {name for names in new for name in names[pd.Series(names).duplicated().to_numpy()]}
    if not repeated:
        return new
    examples = listed(sorted(repeated), 5)
    if not several:
        from anndata.utils import make_index_unique

        n_genes = sum(name in repeated for name in new[0])
        where = f"{sources[0].file}: {frames[0]}/{column}"
        say(f"{where}: {n_genes:,} genes share a name ({examples}): a number is added")
        return [np.asarray(make_index_unique(pd.Index(new[0].astype(str))), dtype=object)]
    say(
        f"{frames[0]}/{column}: {len(repeated):,} name{'s' * (len(repeated) > 1)} of several genes "
        f"of a file ({examples}): these genes keep their old names, by which files are joined"
    )
    is_repeated = [np.array([name in repeated for name in names], dtype=bool) for names in new]
    return [np.where(*masked).astype(object) for masked in zip(is_repeated, old, new, strict=True)]


def _column_names(source: Source, old: np.ndarray, var: str, column: str) -> np.ndarray:
    import pandas as pd

    values = pd.Series(np.asarray(read_element(source.root, f"{var}/{column}"), dtype=object))
    unnamed = (values.isna() | (values.astype(str).str.strip() == "")).to_numpy()
    if unnamed.any():
        n_unnamed = f"{unnamed.sum():,} of {len(old):,}"
        say(f"{source.file}: {var}/{column} is empty for {n_unnamed} genes, which keep their names")
    return np.where(unnamed, old, values.astype(str).to_numpy()).astype(object)
