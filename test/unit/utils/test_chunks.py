"""Chunks of arrays: the same values as h5py and zarr read, each chunk decompressed once."""

import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from anndata.io import write_elem
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Blosc, GZip, Zstd
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from utils import blocks, chunks

DTYPES = ["<f4", ">f4", "<f8", "<f2", "<i8", "<i4", ">i4", "<u2", "|i1"]
# What is decoded here, and what h5py or zarr read.
HDF5 = {
    "gzip": {"compression": "gzip"},
    "shuffled gzip": {"compression": "gzip", "compression_opts": 9, "shuffle": True},
    "none": {},
    "shuffled only": {"shuffle": True},
    "lzf": {"compression": "lzf", "shuffle": True},
    "checksum": {"compression": "gzip", "fletcher32": True},
}
DECODED_HDF5 = ["gzip", "shuffled gzip", "none", "shuffled only"]
ZARR = {
    "blosc": BloscCodec(cname="lz4"),
    "blosc of bits": BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
    "zstd": ZstdCodec(),
    "gzip": GzipCodec(),
    "none": None,
}
ZARR_2 = {
    "blosc": Blosc("lz4"),
    "blosc of bits": Blosc("zstd", clevel=1, shuffle=Blosc.BITSHUFFLE),
    "zstd": Zstd(),
    "gzip": GZip(),
    "none": None,
}


def values_of(dtype, n, seed=0):
    return np.random.default_rng(seed).integers(0, 100, n).astype(dtype)


def read_in_parts(array, cuts, *, threads):
    """Read an array in the ranges between some cuts, on several threads."""
    bounds = sorted({0, array.shape[0], *(cut for cut in cuts if cut < array.shape[0])})
    reader = chunks.ChunkedArray(array)
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(reader.read, bounds[:-1], bounds[1:]))
    assert not reader._shared and not reader._n_unread  # nothing stays in memory
    assert all(part.dtype == array.dtype for part in parts)
    return np.concatenate(parts)


cuts = st.lists(st.integers(1, 200), max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    n=st.integers(1, 200),
    chunk=st.integers(1, 250),
    filters=st.sampled_from(list(HDF5)),
    cuts=cuts,
    threads=st.sampled_from([1, 3]),
)
def test_hdf5_is_read_as_h5py_reads_it(tmp_path_factory, dtype, n, chunk, filters, cuts, threads):
    values = values_of(dtype, n)
    with h5py.File(tmp_path_factory.mktemp("x") / "x.h5", "w") as file:
        array = file.create_dataset(
            "x", data=values, chunks=(chunk,), maxshape=(None,), **HDF5[filters]
        )
        assert (chunks._decoder(array) is not None) == (filters in DECODED_HDF5)
        found = read_in_parts(array, cuts, threads=threads)
        assert np.array_equal(found, array[:])


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    n=st.integers(1, 200),
    chunk=st.integers(1, 250),
    codec=st.sampled_from(list(ZARR)),
    zarr_format=st.sampled_from([2, 3]),
    cuts=cuts,
    threads=st.sampled_from([1, 3]),
)
def test_zarr_is_read_as_zarr_reads_it(
    tmp_path_factory, dtype, n, chunk, codec, zarr_format, cuts, threads
):
    values = values_of(dtype, n)
    group = zarr.open_group(
        tmp_path_factory.mktemp("x") / "x.zarr", mode="w", zarr_format=zarr_format
    )
    options = {"compressors": ZARR[codec]} if zarr_format == 3 else {}
    array = group.create_array("x", shape=(n,), dtype=dtype, chunks=(chunk,), **options)
    array[:] = values
    if dtype[0] != ">":
        assert chunks._decoder(array) is not None
    found = read_in_parts(array, cuts, threads=threads)
    assert np.array_equal(found, values)


def test_contiguous_and_sharded_arrays_are_left_to_the_library(tmp_path):
    values = values_of("f4", 100)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        array = file.create_dataset("x", data=values)
        assert array.chunks is None
        assert np.array_equal(read_in_parts(array, [7, 50], threads=2), values)
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    array = group.create_array("x", shape=(100,), dtype="f4", chunks=(10,), shards=(40,))
    array[:] = values
    assert chunks._decoder(array) is None
    assert np.array_equal(read_in_parts(array, [7, 50], threads=2), values)


@pytest.mark.parametrize("kind", ["h5", "zarr"])
def test_chunks_that_were_never_written_have_the_fill_value(tmp_path, kind):
    if kind == "h5":
        file = h5py.File(tmp_path / "x.h5", "w")
        array = file.create_dataset("x", (50,), "f4", chunks=(8,), fillvalue=7, compression="gzip")
    else:
        group = zarr.open_group(tmp_path / "x.zarr", mode="w")
        array = group.create_array("x", shape=(50,), dtype="f4", chunks=(8,), fill_value=7)
    array[16:24] = 1
    assert np.array_equal(read_in_parts(array, [20, 30], threads=2), array[:])


def test_a_chunk_that_was_written_without_its_filters_is_read(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        array = file.create_dataset("x", (20,), "f4", chunks=(10,), compression="gzip")
        array[:] = 1
        raw = np.arange(10, dtype="f4").tobytes()
        array.id.write_direct_chunk((10,), raw, filter_mask=1)
        found = read_in_parts(array, [3], threads=1)
        assert np.array_equal(found, [*[1] * 10, *range(10)])


@pytest.mark.parametrize("raw", [b"no zlib stream", zlib.compress(b"too short")])
def test_a_damaged_chunk_is_an_error_that_names_the_file(tmp_path, raw):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        options = {"chunks": (10,), "compression": "gzip"}
        write_elem(file, "X", sp.csr_matrix(np.eye(20, dtype="f4")), dataset_kwargs=options)
        file["X/data"].id.write_direct_chunk((10,), raw)
        with pytest.raises(ValueError, match=r"x\.h5: X cannot be read, it may be damaged: "):
            list(blocks.row_blocks(file["X"], threads=2))


def test_each_chunk_is_decoded_once_also_by_threads_that_wait(tmp_path, monkeypatch):
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    array = group.create_array("x", shape=(40,), dtype="i8", chunks=(40,))
    array[:] = np.arange(40)
    reader, barrier, decoded = chunks.ChunkedArray(array), threading.Barrier(4), []
    fill = reader._fill
    monkeypatch.setattr(reader, "_fill", lambda *args: (decoded.append(args[0]), fill(*args)))

    def read(start):
        barrier.wait(10)
        return reader.read(start, start + 10)

    with ThreadPoolExecutor(4) as pool:
        found = np.concatenate(list(pool.map(read, range(0, 40, 10))))
    assert found.tolist() == list(range(40)) and decoded == [0]


def test_the_error_of_a_shared_chunk_reaches_all_that_read_it(tmp_path):
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    array = group.create_array("x", shape=(40,), dtype="i8", chunks=(40,))
    array[:] = np.arange(40)
    (tmp_path / "x.zarr" / "x" / "c" / "0").write_bytes(b"damaged")
    reader = chunks.ChunkedArray(array)
    for start in (0, 20):
        with pytest.raises((RuntimeError, ValueError)):
            reader.read(start, start + 20)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    chunk=st.integers(1, 60),
    sparse=st.booleans(),
    zarr_format=st.sampled_from([2, 3]),
)
def test_files_do_not_depend_on_the_threads(tmp_path_factory, sizes, chunk, sparse, zarr_format):
    rng = np.random.default_rng(0)
    parts = [rng.poisson(0.5, (size, 5)).astype(np.float32) for size in sizes]
    whole = np.concatenate(parts)
    written = []
    for threads in (1, 3):
        path = tmp_path_factory.mktemp("x") / "x.zarr"
        group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blocks, "CHUNK", chunk)
            form = sp.csr_matrix if sparse else np.asarray
            blocks.write_blocks(
                group, "X", map(form, parts), n_genes=5, n_cells=len(whole), threads=threads
            )
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        written.append({file.relative_to(path): file.read_bytes() for file in files})
        for rows in (1, 4, 100):
            read = list(blocks.row_blocks(group["X"], rows=rows, threads=threads))
            dense = [block.toarray() if sparse else block for block in read]
            assert np.array_equal(np.concatenate([whole[:0], *dense]), whole)
    assert written[0] == written[1]
