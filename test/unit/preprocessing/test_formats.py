"""Inputs that are no AnnData file, or hold several tables: read, or refused in one clear line."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import zipfile

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy
import scipy.io
import scipy.sparse as sp
import zarr
from anndata.io import read_elem, write_elem

from preprocessing.formats import open_counts
from utils.blocks import row_blocks
from utils.io import keys, new_store, open_store, read_anndata, read_element, read_index
from utils.paths import disk_path, name_problem

CELLS = ["AAAC-1", "AAAG-1", "AAAT-1", "AACA-1"]
SYMBOLS = ["A1BG", "NA", "MATR3", "MATR3", 'CD"3', "Ab_CD3"]
IDS = [f"ENSG{i}" for i in range(6)]
KINDS = ["Gene Expression"] * 5 + ["Antibody Capture"]
COUNTS = sp.csr_matrix(np.random.default_rng(0).poisson(1, (4, 6)).astype("int32"))


def write_v3(path, *, genomes=("GRCh38",) * 6):
    with h5py.File(path, "w") as root:
        group = root.create_group("matrix")
        for name, value in {
            "data": COUNTS.data,
            "indices": COUNTS.indices.astype("int64"),
            "indptr": COUNTS.indptr.astype("int64"),
            "shape": np.array([6, 4], dtype="int32"),
            "barcodes": np.array(CELLS, dtype="S"),
        }.items():
            group[name] = value
        features = group.create_group("features")
        for name, value in {
            "name": SYMBOLS, "id": IDS, "feature_type": KINDS, "genome": genomes,
        }.items():  # fmt: skip
            features[name] = np.array(value, dtype="S")
    return path


def write_v2(path, genomes):
    with h5py.File(path, "w") as root:
        for genome in genomes:
            group = root.create_group(genome)
            for name, value in {
                "data": COUNTS.data,
                "indices": COUNTS.indices.astype("int64"),
                "indptr": COUNTS.indptr.astype("int64"),
                "shape": np.array([6, 4], dtype="int32"),
                "barcodes": np.array(CELLS, dtype="S"),
                "genes": np.array(IDS, dtype="S"),
                "gene_names": np.array(SYMBOLS, dtype="S"),
            }.items():
                group[name] = value
    return path


def write_folder(folder, *, prefix="", genes="features.tsv", packed=True):
    """Write the files of Cell Ranger: 3 (features, packed) or 2 (genes, not packed)."""
    folder.mkdir(exist_ok=True)
    matrix = folder / f"{prefix}matrix.mtx"
    scipy.io.mmwrite(matrix, COUNTS.T)
    kinds = [KINDS] if genes.startswith("features") else []
    rows = zip(IDS, SYMBOLS, *kinds, strict=True)
    (folder / f"{prefix}{genes}").write_text("".join("\t".join(row) + "\n" for row in rows))
    (folder / f"{prefix}barcodes.tsv").write_text("".join(f"{cell}\n" for cell in CELLS))
    if packed:
        for path in list(folder.glob(f"{prefix}*")):
            with gzip.open(f"{path}.gz", "wb") as out:
                out.write(path.read_bytes())
            path.unlink()
    return folder


def read(file):
    """Read what `open_counts` returns, as plain anndata sees it."""
    return read_elem(open_counts(file))


def check(cells):
    assert cells.X.dtype == np.float32
    assert (cells.X != COUNTS).nnz == 0
    assert cells.obs_names.tolist() == CELLS
    assert cells.var_names.tolist() == ["A1BG", "NA", "MATR3", "MATR3-1", 'CD"3', "Ab_CD3"]
    assert cells.var["gene_ids"].tolist() == IDS


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_files_of_cell_ranger_are_read_as_scanpy_reads_them(tmp_path, capsys):
    file = write_v3(tmp_path / "filtered_feature_bc_matrix.h5")
    cells = read(str(file))
    check(cells)
    said = capsys.readouterr().err
    assert "4 cells x 6 features" in said
    assert "1 Antibody Capture, 5 Gene Expression" in said
    assert "repeated gene symbols (1, such as MATR3)" in said
    plain = scanpy.read_10x_h5(file, gex_only=False)
    plain.var_names_make_unique()
    pd.testing.assert_frame_equal(cells.var, plain.var, check_dtype=False)
    assert cells.var["genome"].unique().tolist() == ["GRCh38"]

    old = write_v2(tmp_path / "old.h5", ["hg19"])
    check(read(str(old)))
    two = write_v2(tmp_path / "two.h5", ["hg19", "mm10"])
    check(read(f"{two}::mm10"))
    with pytest.raises(ValueError, match=r"several genomes; name one: .*two.h5::hg19, .*::mm10"):
        open_counts(two)
    with pytest.raises(KeyError, match=r'no genome "mm9". Available: hg19, mm10'):
        open_counts(f"{two}::mm9")

    mixed = write_v3(tmp_path / "mixed.h5", genomes=["a"] * 4 + ["b", "b"])
    assert read(str(mixed)).n_vars == 6
    assert "4 a, 2 b (var/genome); all are kept" in capsys.readouterr().err
    assert read(f"{mixed}::b").var_names.tolist() == ['CD"3', "Ab_CD3"]
    with pytest.raises(KeyError, match=r'no genome "c"'):
        open_counts(f"{mixed}::c")


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("genes", ["features.tsv", "genes.tsv"])
@pytest.mark.parametrize("prefix", ["", "GSM1_S1_"])
def test_folders_of_cell_ranger_are_read(prefix, genes, packed, tmp_path):
    folder = write_folder(tmp_path / "sample.1", prefix=prefix, genes=genes, packed=packed)
    cells = read(folder)
    check(cells)
    assert ("feature_types" in cells.var) == (genes == "features.tsv")
    if packed == (genes == "features.tsv"):  # what scanpy reads; but it takes NA for missing
        plain = scanpy.read_10x_mtx(folder, gex_only=False, prefix=prefix, var_names="gene_ids")
        assert plain.obs_names.equals(cells.obs_names)
        assert plain.var_names.tolist() == cells.var["gene_ids"].tolist()
        assert (plain.X != cells.X).nnz == 0
        if "feature_types" in cells.var:
            assert plain.var["feature_types"].tolist() == cells.var["feature_types"].tolist()


def test_a_group_in_memory_is_like_one_of_a_file(tmp_path):
    root = open_counts(write_folder(tmp_path / "in"))
    assert keys(root, "var") == ["gene_ids", "feature_types"]
    assert read_index(root, "obs").tolist() == CELLS
    assert (next(row_blocks(root["X"])) != COUNTS).nnz == 0
    with pytest.raises(KeyError, match=f'{tmp_path / "in"} has no obsm and so no "X_pca"'):
        read_element(root, "obsm/X_pca")


def test_an_anndata_file_is_opened_as_it_is(tmp_path):
    anndata.AnnData(X=COUNTS).write_h5ad(tmp_path / "a.h5ad")
    assert open_counts(tmp_path / "a.h5ad").file.filename == str(tmp_path / "a.h5ad")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "barcodes.tsv.gz").unlink(), "has no barcodes.tsv.gz or barcodes.tsv"),
        (lambda f: (f / "features.tsv.gz").unlink(), "has no features.tsv.gz or .* or genes.tsv"),
        (lambda f: (f / "matrix.mtx.gz").unlink(), "without a matrix.mtx or matrix.mtx.gz$"),
        (lambda f: shutil.move(f, f / "../x") and (f.mkdir(), shutil.move(f / "../x", f / "deep")),
         "without a matrix.mtx or matrix.mtx.gz; there is one in .*deep"),
        (lambda f: (f / "barcodes.tsv").write_text("a\nb\n") and (f / "barcodes.tsv.gz").unlink(),
         "barcodes.tsv: has 2 lines, matrix.mtx.gz has 6 genes x 4 cells"),
        (lambda f: (f / "features.tsv").write_text("a\nb\tc\n")
         and (f / "features.tsv.gz").unlink(), "features.tsv: its lines have 1 to 2 columns"),
        (lambda f: (f / "matrix.mtx.gz").write_bytes((f / "matrix.mtx.gz").read_bytes()[:60]),
         "cannot be read, it may be damaged"),
        (lambda f: write_folder(f, prefix="a_") and write_folder(f, prefix="b_")
         and (f / "matrix.mtx.gz").unlink(), "several matrices; name one: .*::a_, .*::b_"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_one_line(change, words, tmp_path):
    folder = write_folder(tmp_path / "in")
    change(folder)
    with pytest.raises(ValueError, match=words) as error:
        open_counts(folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_one_of_several_matrices_is_named_by_its_prefix(tmp_path):
    folder = write_folder(tmp_path / "in", prefix="a_")
    write_folder(folder, prefix="b_", genes="genes.tsv", packed=False)
    assert "feature_types" in read(f"{folder}::a_").var
    assert "feature_types" not in read(f"{folder}::b_").var
    with pytest.raises(KeyError, match=r'no matrix with the prefix "c_"'):
        open_counts(f"{folder}::c_")


def test_an_h5_of_another_kind_is_one_line(tmp_path):
    with h5py.File(tmp_path / "molecule_info.h5", "w") as root:
        root["barcodes"], root["umi"] = [1], [2]
    with pytest.raises(ValueError, match=r"is no 10x matrix, it holds barcodes, umi"):
        open_counts(tmp_path / "molecule_info.h5")
    anndata.AnnData(X=COUNTS).write_h5ad(tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"is an AnnData file; rename it to a.h5ad"):
        open_counts(tmp_path / "a.h5")
    (tmp_path / "x.h5").write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match=r"x.h5: cannot be read, it may be damaged"):
        open_counts(tmp_path / "x.h5")
    with h5py.File(write_v3(tmp_path / "y.h5"), "r+") as root:
        del root["matrix/indices"]
    with pytest.raises(ValueError, match=r"y.h5: cannot be read, it may be damaged"):
        open_counts(tmp_path / "y.h5")
    (tmp_path / "x.dat").write_bytes(b"")
    with pytest.raises(ValueError, match=r"neither an AnnData file .* nor a 10x .h5"):
        open_counts(tmp_path / "x.dat")
    with pytest.raises(FileNotFoundError, match=r"gone: no such file"):
        open_counts(tmp_path / "gone")


# ---------------------------------------------------------------- tables of a file


def a_table(n_genes):
    obs = pd.DataFrame({"batch": pd.Categorical(list("abab"))}, index=CELLS)
    return anndata.AnnData(X=COUNTS[:, :n_genes].astype("float32"), obs=obs)


def write_h5mu(path):
    """Write the layout of MuData."""
    with h5py.File(path, "w") as root:
        root.attrs["encoding-type"] = "MuData"
        for name, n_genes in (("rna", 5), ("prot", 2)):
            write_elem(root.require_group("mod"), name, a_table(n_genes))
        write_elem(root, "obs", pd.DataFrame(index=CELLS))
        write_elem(root, "var", pd.DataFrame(index=SYMBOLS[:1]))
        write_elem(root, "obsmap", {"rna": np.arange(4), "prot": np.arange(4)})
    return path


def write_spatialdata(path):
    """Write a store with a table and an image."""
    root = zarr.open_group(path, mode="w", zarr_format=2)
    write_elem(root.require_group("tables"), "table", a_table(5))
    root.create_group("images").create_array("he", shape=(2, 2), dtype="uint8")
    return path


def test_a_modality_is_a_data_set(tmp_path):
    file = write_h5mu(tmp_path / "a.h5mu")
    for name in ("rna", "mod/rna"):
        cells = read_anndata(f"{file}::{name}", verbose=False)
        assert (COUNTS[:, :5] != cells.X).nnz == 0
        assert cells.obs["batch"].tolist() == list("abab")
    with pytest.raises(KeyError, match=r"a.h5mu::mod/rna: obsm has no \"X_gone\""):
        read_element(open_store(f"{file}::rna"), "obsm/X_gone")
    with pytest.raises(KeyError, match=r'no table "mod/rnaa"; did you mean "mod/rna"'):
        open_store(f"{file}::rnaa")
    with pytest.raises(KeyError, match=r'no table "mod/rna/X/data"'):
        open_store(f"{file}::rna/X/data")
    with pytest.raises(ValueError, match=r"several modalities; name one: .*a.h5mu::rna"):
        open_store(file)
    renamed = file.rename(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match=r"rename it to a.h5mu .*a.h5mu::prot, .*a.h5mu::rna"):
        open_store(renamed)


def test_a_table_of_a_store_is_a_data_set_that_can_be_linked(tmp_path):
    store = write_spatialdata(tmp_path / "a.zarr")
    file = f"{store}::tables/table"
    assert (COUNTS[:, :5] != read_anndata(file, verbose=False).X).nnz == 0
    with pytest.raises(ValueError, match=r"several tables; name one: .*a.zarr::tables/table"):
        open_store(store)
    with pytest.raises(KeyError, match=r'no table "tables/tabel"; did you mean "tables/table"'):
        open_store(f"{store}::tables/tabel")
    with pytest.raises(ValueError, match=r"is not an AnnData file, it has no obs"):
        open_store(f"{store}::images")
    with new_store(tmp_path / "out.zarr", source=file, new=["uns/x"]) as root:
        write_elem(root["uns"], "x", 1)
    assert (tmp_path / "out.zarr" / "X").resolve() == disk_path(file) / "X"
    assert anndata.read_zarr(tmp_path / "out.zarr").obs["batch"].tolist() == list("abab")
    shutil.rmtree(store / "tables" / "table" / "X")
    with pytest.raises(FileNotFoundError, match=r"X is a link to .* which does not exist"):
        open_store(tmp_path / "out.zarr")


def test_what_cannot_be_opened_says_why(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zarr", "w") as packed:
        packed.writestr("zarr.json", "{}")
    (tmp_path / "b.zarr").write_text("")
    (tmp_path / "c.zarr").mkdir()
    (tmp_path / "d.h5ad").mkdir()
    zarr.open_group(tmp_path / "e.h5ad", mode="w")
    zarr.open_group(tmp_path / "f.zarr", mode="w").create_group("obs")
    for name, words in {
        "a.zarr": "is a zip file, a .zarr store is a folder; unpack it",
        "b.zarr": "is a file, a .zarr store is a folder",
        "c.zarr": "is a folder without a zarr store in it",
        "d.h5ad": "is a folder, .h5ad is a file",
        "e.h5ad": "it is a zarr store: rename it to .zarr",
        "f.zarr": "obs is not a data frame",
        "g.H5AD": "write the ending in lower case, .h5ad",
        "h.h5ad::x": "holds one table; remove ::x",
        "i.loom": ".loom cannot be read; convert it",
        "j.h5": "a 10x matrix has only counts and enters at preprocessing",
    }.items():
        with pytest.raises(ValueError, match=words) as error:
            open_store(tmp_path / name)
        assert str(tmp_path / name.partition("::")[0]) in str(error.value)
    for address in ("s3://bucket/x.zarr", "https://host/x.h5ad", "s3:/bucket/x.zarr"):
        assert "URLs cannot be read" in name_problem(address)
    for name in ("a.h5", "folder", "sample.1", "a.zarr::tables/table", "a.h5mu::rna", "C:/a.h5ad"):
        assert not name_problem(name)


@pytest.mark.parametrize(
    ("options", "end", "words"),
    [
        ("", "input()", "is locked, another process has it open for writing"),
        (", libver='latest'", "os._exit(0)", "was killed while writing.*h5clear -s"),
    ],
)
def test_a_file_that_is_being_written_is_not_called_damaged(options, end, words, tmp_path):
    path = tmp_path / "a.h5ad"
    code = f"import os, h5py; f = h5py.File({str(path)!r}, 'w'{options}); f['x'] = 1; f.flush(); "
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}print(flush=True); {end}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as writer:
        writer.stdout.readline()
        if "exit" in end:
            writer.wait()
        with pytest.raises(ValueError, match=words) as error:
            open_store(path)
        writer.communicate(b"\n")
    assert "damaged" not in str(error.value)


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.h5ad"
    anndata.AnnData(X=COUNTS).write_h5ad(path)

    def refuse(*_, **__):
        raise OSError(95, "unable to lock file, errno = 95, error message = 'not supported'")

    monkeypatch.setattr(h5py, "File", refuse)
    with pytest.raises(ValueError, match=r"has no locks; set HDF5_USE_FILE_LOCKING=FALSE"):
        open_store(path)
