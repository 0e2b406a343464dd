"""Inputs of 10x, with scanpy's own reading as the judge."""

import gzip
import io
import itertools

import anndata
import h5py
import numpy as np
import pytest
import scanpy
import scipy.io
import scipy.sparse as sp

from preprocessing.formats import open_counts
from utils.io import keys, length, read_element, read_index

N_CELLS, N_GENES = 7, 5
IDS = np.array([f"ENSG{i}" for i in range(N_GENES)])
SYMBOLS = np.array(["CD3E", "NA", "MATR3", "nan", "MATR3"])  # two are no missing values
TYPES = np.array([*["Gene Expression"] * 4, "Antibody Capture"])
CELLS = np.array([f"ACGT{i}-1" for i in range(N_CELLS)])


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    return sp.csr_matrix(rng.poisson(0.7, (N_CELLS, N_GENES)).astype(np.int32))


def write_h5(path, counts, *, genomes=("GRCh38",), version=3):
    """Write a matrix as Cell Ranger does: genes x cells by columns, which are our rows."""
    with h5py.File(path, "w") as root:
        for genome in ("matrix",) if version == 3 else genomes:
            group = root.create_group(genome)
            group["data"], group["indices"] = counts.data, counts.indices.astype(np.int64)
            group["indptr"] = counts.indptr.astype(np.int64)
            group["shape"] = np.array(counts.shape[::-1], dtype=np.int32)
            group["barcodes"] = CELLS.astype("S")
            if version == 2:
                group["genes"], group["gene_names"] = IDS.astype("S"), SYMBOLS.astype("S")
            else:
                features = group.create_group("features")
                features["id"], features["name"] = IDS.astype("S"), SYMBOLS.astype("S")
                features["feature_type"] = TYPES.astype("S")
                features["genome"] = np.resize(genomes, N_GENES).astype("S")
                features["_all_tag_keys"] = np.array([b"genome"])
    return path


def write_folder(
    path, counts, *, genes="features.tsv", prefix="", packed=True, symbols=SYMBOLS, types=TYPES
):
    path.mkdir(parents=True, exist_ok=True)
    matrix = io.BytesIO()
    scipy.io.mmwrite(matrix, sp.coo_matrix(counts.T), field="integer")
    columns = (IDS, symbols, types) if genes == "features.tsv" else (IDS, symbols)
    texts = {
        "matrix.mtx": matrix.getvalue(),
        genes: "".join("\t".join(row) + "\n" for row in zip(*columns, strict=True)).encode(),
        "barcodes.tsv": "".join(f"{cell}\n" for cell in CELLS).encode(),
    }
    for name, text in texts.items():
        if packed:
            (path / f"{prefix}{name}.gz").write_bytes(gzip.compress(text))
        else:
            (path / f"{prefix}{name}").write_bytes(text)
    return path


def same(root, judge):
    """Compare a root group with an AnnData object, element by element."""
    read = anndata.io.read_elem(root)
    np.testing.assert_array_equal(read.X.toarray(), judge.X.toarray())
    assert read.X.dtype == judge.X.dtype == np.float32
    assert read_element(root, "X").format == "csr"
    assert list(read_index(root, "obs")) == list(judge.obs_names)
    assert list(read_index(root, "var")) == list(judge.var_names)
    assert {*keys(root, "var")} == {*judge.var}
    for column in judge.var:
        assert list(read.var[column]) == list(judge.var[column])


@pytest.mark.filterwarnings("ignore:.*names are not unique")
@pytest.mark.parametrize("version", [2, 3])
def test_an_h5_file_is_read_as_scanpy_reads_it(tmp_path, counts, version, capsys):
    file = write_h5(tmp_path / "filtered.h5", counts, version=version)
    judge = scanpy.read_10x_h5(file, gex_only=False)
    judge.var_names_make_unique()
    same(open_counts(str(file)), judge)
    said = capsys.readouterr().err
    assert 'more than once, such as "MATR3"; they are made unique: "MATR3-1"' in said
    assert ("features of several kinds: 4 Gene Expression, 1 Antibody Capture" in said) == (
        version == 3
    )


def test_several_genomes_are_all_read_where_the_file_tells_them_apart(tmp_path, counts):
    file = write_h5(tmp_path / "both.h5", counts, genomes=("GRCh38", "mm10"))
    root = open_counts(file)
    assert length(root, "var") == N_GENES
    assert {*read_element(root, "var/genome")} == {"GRCh38", "mm10"}


@pytest.mark.parametrize(
    ("genes", "prefix", "packed"),
    [*itertools.product(["features.tsv", "genes.tsv"], ["", "GSM1_s[1]_"], [True, False])],
)
def test_a_folder_is_read_whatever_its_names_and_compression(
    tmp_path, counts, genes, prefix, packed
):
    folder = write_folder(tmp_path / "gex", counts, genes=genes, prefix=prefix, packed=packed)
    root = open_counts(folder)
    np.testing.assert_array_equal(read_element(root, "X").toarray(), counts.toarray())
    # scanpy would name two of these genes nan.
    assert list(read_index(root, "var")) == ["CD3E", "NA", "MATR3", "nan", "MATR3-1"]
    assert list(read_index(root, "obs")) == list(CELLS)
    assert list(read_element(root, "var/gene_ids")) == list(IDS)
    assert ("feature_types" in keys(root, "var")) == (genes == "features.tsv")


@pytest.mark.filterwarnings("ignore:.*names are not unique")
@pytest.mark.parametrize(("genes", "packed"), [("features.tsv", True), ("genes.tsv", False)])
@pytest.mark.parametrize("prefix", ["", "GSM1_"])
def test_a_folder_is_read_as_scanpy_reads_it(tmp_path, counts, genes, packed, prefix):
    symbols = np.array(["CD3E", "A", "MATR3", "B", "MATR3"])
    folder = write_folder(
        tmp_path / "gex", counts, genes=genes, prefix=prefix, packed=packed, symbols=symbols
    )
    judge = scanpy.read_10x_mtx(folder, gex_only=False, prefix=prefix)
    same(open_counts(folder), judge)


def test_an_anndata_store_is_opened_as_it_is(tmp_path, counts):
    adata = anndata.AnnData(counts.astype(np.float32))
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    for file in ("a.h5ad", "a.zarr"):
        root = open_counts(str(tmp_path / file))
        np.testing.assert_array_equal(read_element(root, "X").toarray(), counts.toarray())


def remove(name):
    return lambda path, counts: (write_folder(path, counts) / name).unlink()


def cut(path, counts):
    file = write_folder(path, counts, packed=False) / "matrix.mtx"
    file.write_bytes(file.read_bytes()[:-8])


def empty(path, counts):
    (write_folder(path, counts, packed=False) / "barcodes.tsv").write_bytes(b"")


def two_samples(path, counts):
    write_folder(path, counts, prefix="a_")
    write_folder(path, counts, prefix="b_")


def packed_and_not(path, counts):
    write_folder(path, counts)
    write_folder(path, counts, packed=False)


def a_cell_less(path, counts):
    file = write_folder(path, counts, packed=False) / "barcodes.tsv"
    file.write_text("".join(f"{cell}\n" for cell in CELLS[1:]))


BAD_FOLDERS = {
    "no genes": (remove("features.tsv.gz"), "has no features.tsv or features.tsv.gz or genes.tsv"),
    "no cells": (remove("barcodes.tsv.gz"), "has no barcodes.tsv or barcodes.tsv.gz"),
    "no matrix": (remove("matrix.mtx.gz"), "is a folder without matrix.mtx"),
    "cut": (cut, "matrix.mtx: cannot be read, it may be damaged"),
    "empty": (empty, "barcodes.tsv: cannot be read, it may be damaged"),
    "two samples": (two_samples, "holds several matrices, a_matrix.mtx, b_matrix.mtx; put each"),
    "twice": (packed_and_not, "has both matrix.mtx and matrix.mtx.gz; remove all but one"),
    "a cell less": (a_cell_less, r"is 5 x 7, but there are 5 genes in features.tsv and 6 cells"),
    "one level up": (
        lambda path, counts: write_folder(path / "inner", counts),
        r"no .zarr store; \S*inner has one",
    ),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_a_folder_that_cannot_be_read_is_one_line(tmp_path, counts, case):
    make, words = BAD_FOLDERS[case]
    folder = tmp_path / "gex"
    make(folder, counts)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as error:
        open_counts(folder)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(folder))


def other_hdf5(path, counts):
    with h5py.File(path, "w") as root:
        root["counts"] = counts.toarray()


def no_values(path, counts):
    write_h5(path, counts)
    with h5py.File(path, "r+") as root:
        del root["matrix/indices"]


BAD_H5 = {
    "anndata": (
        lambda path, counts: anndata.AnnData(counts.astype(np.float32)).write_h5ad(path),
        "is an AnnData file; let its name end in .h5ad",
    ),
    "other": (other_hdf5, "is no 10x matrix, it has no matrix/features; it has counts"),
    "no HDF5": (lambda path, counts: path.write_text("<html>"), "may be damaged"),
    "no values": (no_values, "may be damaged: .*indices"),
    "genomes": (
        lambda path, counts: write_h5(path, counts, genomes=("hg19", "mm10"), version=2),
        'holds several genomes, hg19, mm10; .*genome="hg19"',
    ),
}


@pytest.mark.parametrize("case", BAD_H5)
def test_an_h5_file_that_cannot_be_read_is_one_line(tmp_path, counts, case):
    make, words = BAD_H5[case]
    file = tmp_path / "counts.h5"
    make(file, counts)
    with pytest.raises(ValueError, match=words) as error:
        open_counts(file)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(file))


@pytest.mark.parametrize("name", ["a.loom", "a.mtx", "a.H5AD", "a"])
def test_another_format_is_one_line(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=name) as error:
        open_counts(tmp_path / name)
    assert "\n" not in str(error.value)
