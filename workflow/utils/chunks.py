"""Read and write chunks of stored arrays, compressed by the thread that asks for them.

h5py holds a lock while it decompresses, zarr copies on one thread. Here only the codec runs, and
without the GIL. What is no plain array of numbers, or has other filters, is left to the library.
"""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numcodecs import Blosc, GZip, Zstd, blosc

try:
    from zlib_ng import zlib_ng as zlib  # inflates in half the time
except ImportError:
    import zlib

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Decoder = Callable[[int, np.ndarray], bool]

blosc.use_threads = False  # each thread compresses a chunk of its own
# As small as zarr's default, written in half the time.
ZSTD_BITSHUFFLE = Blosc("zstd", clevel=1, shuffle=Blosc.BITSHUFFLE)


class ChunkedArray:
    """A stored array of one dimension whose chunks several threads read, each once.

    Parameters
    ----------
    array
        An array of an opened store (h5py or zarr).

    Notes
    -----
    Peak memory: the chunks that a range shares with ranges that were not read yet.
    """

    def __init__(self, array: Any) -> None:
        self.array = array
        self.dtype = np.dtype(array.dtype)
        self._chunk = array.chunks[0] if array.chunks else 0
        self._decode = _decoder(array) if self._chunk else None
        self._lock = Lock()
        self._shared: dict[int, Future] = {}
        self._n_unread: dict[int, int] = {}

    def read(self, start: int, stop: int) -> np.ndarray:
        """Read a range of values; each value may be asked for once, by any thread."""
        if not self._chunk:
            return np.asarray(self.array[start:stop])
        values = np.empty(stop - start, self.dtype)
        for number in range(start // self._chunk, -(-stop // self._chunk)):
            first = number * self._chunk
            begin = max(start, first)
            end = min(stop, first + self._chunk)
            target = values[begin - start : end - start]
            if len(target) == self._chunk:
                self._fill(number, target)
            else:
                target[:] = self._take(number, len(target))[begin - first : end - first]
        return values

    def _fill(self, number: int, values: np.ndarray) -> None:
        """Decompress a chunk."""
        if self._decode is None or not self._decode(number, values):
            first = number * self._chunk
            stored = self.array[first : first + self._chunk]
            values[: len(stored)] = stored

    def _take(self, number: int, n_values: int) -> np.ndarray:
        """Return a chunk of which `n_values` are read; the first thread decompresses it."""
        with self._lock:
            is_first = number not in self._shared
            if is_first:
                self._shared[number] = Future()
                stop = min((number + 1) * self._chunk, self.array.shape[0])
                self._n_unread[number] = stop - number * self._chunk
            chunk = self._shared[number]
            self._n_unread[number] -= n_values
            if not self._n_unread[number]:
                del self._shared[number], self._n_unread[number]
        if is_first:
            try:
                values = np.empty(self._chunk, self.dtype)
                self._fill(number, values)
            except BaseException as error:
                chunk.set_exception(error)
                raise
            chunk.set_result(values)
        return chunk.result()


def _decoder(array: Any) -> Decoder | None:
    """Return what decompresses a whole chunk into an array, or returns False; None: the library."""
    if np.dtype(array.dtype).kind not in "iuf":
        return None
    return _hdf5_decoder(array) if hasattr(array, "file") else _zarr_decoder(array)


def _hdf5_decoder(array: Any) -> Decoder | None:
    """Decode chunks that are compressed with gzip, after a shuffle or without, or not at all."""
    from h5py import h5t, h5z

    settings = array.id.get_create_plist()
    filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
    is_shuffled, is_compressed = h5z.FILTER_SHUFFLE in filters, h5z.FILTER_DEFLATE in filters
    known = [h5z.FILTER_SHUFFLE] * is_shuffled + [h5z.FILTER_DEFLATE] * is_compressed
    n_chunks = -(-array.shape[0] // array.chunks[0])
    # Chunks that were never written have a fill value.
    if filters != known or array.id.get_num_chunks() != n_chunks:
        return None
    if not array.id.get_type().equal(h5t.py_create(array.dtype)):
        return None

    def decode(number: int, values: np.ndarray) -> bool:
        skipped_filters, raw = array.id.read_direct_chunk((number * len(values),))
        if skipped_filters:
            return False
        if is_compressed:
            try:
                raw = zlib.decompress(raw, bufsize=values.nbytes)
            except zlib.error:  # h5py names the error
                return False
        if len(raw) != values.nbytes:  # h5py would pass on what was in memory
            raise ValueError(f"chunk {number} holds {len(raw)} bytes, expected {values.nbytes}")
        stored = np.frombuffer(raw, np.uint8)
        in_bytes = values.view(np.uint8)
        if is_shuffled:
            size = values.itemsize  # first the first byte of all values, then the second
            for place, column in enumerate(stored.reshape(size, -1)):
                in_bytes[place::size] = column
        else:
            in_bytes[:] = stored
        return True

    return decode


def _zarr_decoder(array: Any) -> Decoder | None:
    """Decode chunks of a folder that one of zarr's usual codecs has compressed, or none."""
    from zarr.storage import LocalStore

    metadata = array.metadata
    codecs = {"blosc": Blosc(), "zstd": Zstd(), "gzip": GZip()}
    if metadata.zarr_format == 2:
        config = metadata.compressor.get_config() if metadata.compressor else {"id": None}
        names = [config["id"], *(metadata.filters or ())]
    else:
        steps = [codec.to_dict() for codec in metadata.codecs]
        names = [step["name"] for step in steps[1:]] or [None]
        if steps[0]["name"] != "bytes":
            return None
        if steps[0].get("configuration", {}).get("endian", "little") != "little":
            return None
    is_little = array.dtype == array.dtype.newbyteorder("<")
    if not isinstance(array.store, LocalStore) or len(names) != 1 or not is_little:
        return None
    (name,) = names
    if name is not None and name not in codecs:
        return None
    folder = Path(array.store.root, array.path)

    def decode(number: int, values: np.ndarray) -> bool:
        try:
            raw = (folder / metadata.encode_chunk_key((number,))).read_bytes()
        except FileNotFoundError:  # its values are the fill value
            return False
        if name == "blosc" and int.from_bytes(raw[4:8], "little") == values.nbytes:
            blosc.decompress(raw, values)
            return True
        decoded = raw if name is None else codecs[name].decode(raw)
        values[:] = np.frombuffer(decoded, values.dtype)
        return True

    return decode


def write_chunk(array: Any, number: int, parts: Sequence[np.ndarray]) -> None:
    """Write a chunk of a new zarr array that was made with `ZSTD_BITSHUFFLE`.

    Parameters
    ----------
    array
        The array, in a folder; chunks span all dimensions but the first.
    number
        Number of the chunk along the first dimension.
    parts
        Consecutive rows of the chunk; the last chunk of an array may have fewer than the others.
    """
    rows = np.concatenate(parts)
    n_missing = array.chunks[0] - len(rows)
    if n_missing:
        padding = np.full((n_missing, *rows.shape[1:]), array.fill_value, rows.dtype)
        rows = np.concatenate([rows, padding])
    key = array.metadata.encode_chunk_key((number, *[0] * (rows.ndim - 1)))
    path = Path(array.store.root, array.path, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(ZSTD_BITSHUFFLE.encode(np.ascontiguousarray(rows)))
