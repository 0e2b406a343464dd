"""CuPy as a test sees it: arrays that, like CuPy's, refuse to be mixed with NumPy's.

They say nothing about a real GPU. The variable STANDIN makes it fail as one fails. `calls` counts
what a real one would be asked for: each takes some 10 microseconds, however little is to be done.
"""

import os
from collections import Counter
from types import SimpleNamespace

import numpy as np

FAULT = os.environ.get("STANDIN", "")
calls = Counter()


def refuse_host(*values):
    for value in values:
        if isinstance(value, (list, tuple)):
            refuse_host(*value)
        elif type(value) is np.ndarray and value.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")


def to_device(value):
    if isinstance(value, tuple):
        return tuple(map(to_device, value))
    return value.view(ndarray) if isinstance(value, np.ndarray) else value


def to_host(value):
    if isinstance(value, (list, tuple)):
        return type(value)(map(to_host, value))
    return value.view(np.ndarray) if isinstance(value, ndarray) else value


class ndarray(np.ndarray):
    """An array that stands for one on a GPU."""

    __module__ = "cupy"

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        calls["on the card"] += 1
        refuse_host(*inputs, out or ())
        if out is not None:
            options["out"] = to_host(out)
        return to_device(getattr(ufunc, method)(*to_host(inputs), **options))

    def __array_function__(self, function, types, arguments, options):
        calls["on the card"] += 1
        refuse_host(*arguments, *options.values())
        options = {name: to_host(value) for name, value in options.items()}
        return to_device(function(*to_host(arguments), **options))

    def __getitem__(self, index):
        refuse_host(index)
        return to_device(self.view(np.ndarray)[to_host(index)])

    def __setitem__(self, index, value):
        calls["on the card"] += 1
        refuse_host(index, value)
        self.view(np.ndarray)[to_host(index)] = to_host(value)

    def get(self):
        calls["to the host"] += 1
        return self.view(np.ndarray).copy()


def on_device(name):
    function = getattr(np, name)

    def call(*arguments, **options):
        calls["on the card"] += 1
        refuse_host(*arguments, *options.values())
        options = {key: to_host(value) for key, value in options.items()}
        return to_device(function(*to_host(arguments), **options))

    return call


for name in (
    *("arange", "concatenate", "empty", "empty_like", "full", "ones", "zeros"),
    *("divide", "exp", "isfinite", "log", "sqrt", "subtract"),
    *("bincount", "dot", "flatnonzero", "take"),
):
    globals()[name] = on_device(name)
float32, float64 = np.float32, np.float64


def norm(rows, axis):
    """Sum as the CPU does, so that results can be compared to the bit."""
    calls["on the card"] += 1
    rows = to_host(rows)
    return to_device(np.sqrt(np.einsum("ij,ij->i", rows, rows)))


linalg = SimpleNamespace(norm=norm)


def put(array, indices, values):
    refuse_host(array, indices, values)
    calls["on the card"] += 1
    np.put(to_host(array), to_host(indices), to_host(values))


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


def asarray(value, dtype=None):
    if FAULT == "out of memory":
        raise OutOfMemoryError("Out of memory allocating 80 bytes\n(allocated so far: 0 bytes)")
    if FAULT == "driver gone":
        raise CUDARuntimeError("cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy")
    calls["to the card"] += isinstance(value, np.ndarray)
    return to_device(np.array(to_host(value), dtype=dtype))


def ascontiguousarray(value, dtype=None):
    return asarray(value, dtype)


def asnumpy(value):
    return value.get()


def device_count():
    if FAULT == "no driver":
        raise CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")
    return 0 if FAULT == "no device" else 1


_device = SimpleNamespace(mem_info=(1 << 40, 1 << 40))
cuda = SimpleNamespace(
    Device=lambda: _device,
    runtime=SimpleNamespace(getDeviceCount=device_count, CUDARuntimeError=CUDARuntimeError),
)
