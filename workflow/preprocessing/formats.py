"""Open input files of any format as a group in AnnData's layout.

AnnData stores are opened as they are. A 10x matrix is read whole into a group in memory.
"""

from __future__ import annotations

import csv
import gzip
import warnings
from typing import TYPE_CHECKING, Any

from utils.errors import missing
from utils.log import say
from utils.opening import Refused, damaged, open_hdf5, open_store
from utils.paths import is_store, name_problem, split_file

if TYPE_CHECKING:
    from pathlib import Path

    import zarr
    from anndata import AnnData

    from utils.opening import Group

MATRIX_FILES, BARCODE_FILES = ("matrix.mtx.gz", "matrix.mtx"), ("barcodes.tsv.gz", "barcodes.tsv")
FEATURE_FILES = ("features.tsv.gz", "features.tsv", "genes.tsv.gz", "genes.tsv")


def open_counts(file: str | Path) -> Group:
    """Open an input file of any format for reading.

    Parameters
    ----------
    file
        An AnnData store as `utils.opening.open_store` takes it; a 10x ``.h5`` file of Cell Ranger
        2 or later (``file.h5::genome`` if it holds several); a folder with ``matrix.mtx``,
        ``barcodes.tsv`` and ``features.tsv`` or ``genes.tsv``, each also with ``.gz`` and with a
        prefix (``folder::prefix_`` if it holds several).

    Returns
    -------
    h5py.Group or zarr.Group
        The root group, read-only. Of a 10x matrix: X in float32 (CSR), genes named by their
        symbols, made unique, with ``gene_ids`` and ``feature_types`` in var; features of all types.

    Raises
    ------
    FileNotFoundError, ValueError, KeyError
        If the file is missing, incomplete, damaged or of another format.

    Notes
    -----
    Peak memory of a 10x matrix: 40 bytes per count above 0 while it is read, then about 3 bytes
    compressed.
    """
    if is_store(file):
        return open_store(file)
    path, part = split_file(file)
    if problem := name_problem(str(file)):
        raise ValueError(problem)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        if path.is_dir():
            cells = _read_folder(path, part)
        elif path.suffix == ".h5":
            cells = _read_h5(path, part)
        else:
            raise Refused(
                f"{path}: is neither an AnnData file (.h5ad, .zarr, .h5mu), nor a 10x .h5 file, "
                "nor the folder of a 10x matrix"
            )
    except (Refused, KeyError, FileNotFoundError):
        raise
    except Exception as error:  # a damaged file can raise anything in the libraries
        raise damaged(f"{path}:", error) from error
    _log_features(file, cells)
    return _in_memory(cells, str(file))


def _read_h5(path: Path, genome: str) -> AnnData:
    """Read a 10x file with scanpy."""
    with open_hdf5(path) as root:
        genome = _check_genome(path, root, genome)
    import scanpy

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        return scanpy.read_10x_h5(path, genome=genome or None, gex_only=False)


def _check_genome(path: Path, root: Any, genome: str) -> str:
    """Return the genome to read; of Cell Ranger 2, where each is a group, never an empty one."""
    if "obs" in root:
        raise Refused(f"{path}: is an AnnData file; rename it to {path.stem}.h5ad")
    if "matrix" in root:
        genomes = _genomes(root["matrix"].get("features", {})) if genome else []
    else:
        genomes = _genome_groups(path, root)
        if len(genomes) > 1 and not genome:
            choices = ", ".join(f"{path}::{name}" for name in genomes)
            raise Refused(f"{path}: holds several genomes; name one: {choices}")
        genome = genome or genomes[0]
    if genome and genome not in genomes:
        raise KeyError(missing(f"{path} has no genome", genome, genomes))
    return genome


def _genome_groups(path: Path, root: Any) -> list[str]:
    """Name the groups of a file of Cell Ranger 2 that hold a genome's matrix."""
    genomes = [name for name in sorted(root) if {"barcodes", "genes"} <= set(root[name])]
    if not genomes:
        raise Refused(
            f"{path}: is no 10x matrix, it holds {', '.join(sorted(root)) or 'nothing'}; "
            "write filtered_feature_bc_matrix.h5 or an AnnData file"
        )
    return genomes


def _genomes(features: Any) -> list[str]:
    stored = features["genome"][()] if "genome" in features else []
    return sorted({name.decode() for name in stored})


def _read_folder(path: Path, prefix: str) -> AnnData:
    """Read a folder as scanpy does, whichever of its files are compressed."""
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData
    from scipy.io import mmread

    prefix = _check_prefix(path, prefix)
    matrix, barcodes, features = (
        _one_of(path, prefix, endings) for endings in (MATRIX_FILES, BARCODE_FILES, FEATURE_FILES)
    )
    cell_rows, gene_rows = _rows(barcodes), _rows(features)
    counts = sp.csr_matrix(mmread(matrix, spmatrix=True).T, dtype=np.float32)
    n_cells, n_genes = counts.shape
    for table, rows, n_rows in ((barcodes, cell_rows, n_cells), (features, gene_rows, n_genes)):
        if len(rows) != n_rows:
            raise Refused(
                f"{table}: has {len(rows):,} lines, {matrix.name} has {n_genes:,} genes x "
                f"{n_cells:,} cells"
            )
    names = ("gene_ids", "symbols", "feature_types")
    columns = dict(zip(names, map(list, zip(*gene_rows, strict=True)), strict=False))
    columns = columns or {"gene_ids": []}
    symbols = columns.pop("symbols", columns["gene_ids"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        return AnnData(
            counts,
            obs=pd.DataFrame(index=[row[0] for row in cell_rows]),
            var=pd.DataFrame(columns, index=symbols),
        )


def _check_prefix(path: Path, prefix: str) -> str:
    """Return the prefix of the files to read."""
    names = sorted(item.name for item in path.iterdir())
    prefixes = sorted(
        {name.removesuffix(end) for name in names for end in MATRIX_FILES if name.endswith(end)}
    )
    if not prefixes:
        raise Refused(f"{path}: is a folder without a matrix.mtx or matrix.mtx.gz{_deeper(path)}")
    if prefix and prefix not in prefixes:
        raise KeyError(missing(f"{path} has no matrix with the prefix", prefix, prefixes))
    if len(prefixes) > 1 and not prefix and "" not in prefixes:
        choices = ", ".join(f"{path}::{name}" for name in prefixes)
        raise Refused(f"{path}: holds several matrices; name one: {choices}")
    return prefix or prefixes[0]


def _deeper(path: Path) -> str:
    """Name a folder below that has a matrix."""
    matrices = (item for end in MATRIX_FILES for item in sorted(path.glob(f"*/**/{end}")))
    matrix = next(matrices, None)
    return f"; there is one in {matrix.parent}" if matrix else ""


def _one_of(path: Path, prefix: str, endings: tuple[str, ...]) -> Path:
    for ending in endings:
        if (path / (prefix + ending)).is_file():
            return path / (prefix + ending)
    names = " or ".join(prefix + ending for ending in endings)
    raise Refused(f"{path}: has no {names}")


def _rows(path: Path) -> list[list[str]]:
    """Read a table without a header; names such as ``NA`` or with a quote stay as they are."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        rows = [row for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if row]
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise Refused(f"{path}: its lines have {lengths[0]} to {lengths[-1]} columns")
    return rows


def _log_features(file: str | Path, cells: AnnData) -> None:
    """Log what a 10x matrix holds, and make the names of its genes unique."""
    import numpy as np

    say(f"{file}: 10x matrix of {cells.n_obs:,} cells x {cells.n_vars:,} features")
    for column in ("feature_types", "genome"):
        kinds, counts = np.unique(cells.var.get(column, []), return_counts=True)
        if len(kinds) > 1:
            shown = ", ".join(f"{n:,} {kind}" for kind, n in zip(kinds[:9], counts, strict=False))
            shown += f" and {len(kinds) - 9:,} more" if len(kinds) > 9 else ""
            say(f"{file}: {shown} (var/{column}); all are kept")
    repeated = cells.var_names[cells.var_names.duplicated()]
    if len(repeated):
        say(
            f"{file}: repeated gene symbols ({len(repeated):,}, such as {repeated[0]}): a number "
            "is added to the later ones; var/gene_ids tells them apart"
        )
        cells.var_names_make_unique()


def _in_memory(cells: AnnData, file: str) -> zarr.Group:
    """Return a data set as a zarr group in memory."""
    import zarr

    from utils.io import ANNDATA, write_element

    store = zarr.storage.MemoryStore()
    root = zarr.open_group(store, mode="w", attributes=dict(ANNDATA))
    for slot in ("X", "obs", "var"):
        write_element(root, slot, getattr(cells, slot))
    root = zarr.open_group(store, mode="r", use_consolidated=False)
    root.store.root = file  # shown in errors
    return root
