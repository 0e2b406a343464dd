"""Harmony's lines on an array type that, like CuPy's, refuses to be mixed with NumPy's.

This checks that host and device arrays are kept apart; it is no test of a GPU.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from integration.harmony import harmonize, run_harmony


def refuse_host(*values):
    for value in values:
        if isinstance(value, (list, tuple)):
            refuse_host(*value)
        elif type(value) is np.ndarray and value.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")


def to_device(value):
    if isinstance(value, tuple):
        return tuple(map(to_device, value))
    return value.view(DeviceArray) if isinstance(value, np.ndarray) else value


def to_host(value):
    if isinstance(value, (list, tuple)):
        return type(value)(map(to_host, value))
    return value.view(np.ndarray) if isinstance(value, DeviceArray) else value


class DeviceArray(np.ndarray):
    """An array that stands for one on a GPU."""

    __module__ = "cupy"

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        refuse_host(*inputs, out or ())
        if out is not None:
            options["out"] = to_host(out)
        return to_device(getattr(ufunc, method)(*to_host(inputs), **options))

    def __array_function__(self, function, types, arguments, options):
        refuse_host(*arguments, *options.values())
        options = {name: to_host(value) for name, value in options.items()}
        return to_device(function(*to_host(arguments), **options))

    def __getitem__(self, index):
        refuse_host(index)
        return to_device(self.view(np.ndarray)[to_host(index)])

    def __setitem__(self, index, value):
        refuse_host(index, value)
        self.view(np.ndarray)[to_host(index)] = to_host(value)

    def get(self):
        return self.view(np.ndarray).copy()


@pytest.fixture
def cupy(monkeypatch):
    module = ModuleType("cupy")

    def on_device(name):
        function = getattr(np, name)

        def call(*arguments, **options):
            refuse_host(*arguments, *options.values())
            options = {key: to_host(value) for key, value in options.items()}
            return to_device(function(*to_host(arguments), **options))

        return call

    creation = ["arange", "concatenate", "empty", "empty_like", "full", "ones", "zeros"]
    elementwise = ["exp", "isfinite", "log", "sqrt", "subtract"]
    for name in [*creation, *elementwise, "bincount", "einsum", "flatnonzero", "matmul", "take"]:
        setattr(module, name, on_device(name))
    module.asarray = lambda value, dtype=None: to_device(np.array(to_host(value), dtype=dtype))
    module.ascontiguousarray = lambda value, dtype=None: module.asarray(value, dtype)
    module.asnumpy = lambda value: value.get()
    module.float32, module.float64 = np.float32, np.float64
    runtime = SimpleNamespace(getDeviceCount=lambda: 1, CUDARuntimeError=RuntimeError)
    device = SimpleNamespace(mem_info=(1 << 40, 1 << 40))
    module.cuda = SimpleNamespace(Device=lambda: device, runtime=runtime)
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lean": True},
        {"lean": True, "flavor": "harmony1"},
        {"sigma": 0.01},
        {"sigma": np.linspace(0.05, 0.2, 10)},
        {"kmeans_init": "k-means||"},
        {"kmeans_init": "random", "kmeans_cells": 100},
        {"n_keys": 2},
        {"mask": np.arange(300) % 3 > 0, "n_clusters": 10},
    ],
    ids=lambda options: "-".join(options) or "defaults",
)
def test_the_same_result_on_another_namespace(cupy, options):
    rng = np.random.default_rng(0)
    keys = [rng.integers(3, size=300), rng.integers(20, size=300)]
    Z = rng.normal(size=(300, 4)) + keys[0][:, None]
    options = {"dtype": np.float64, "chunk_size": 1024, **options}
    batches = keys[: options.pop("n_keys", 1)]
    there = harmonize(cupy.asarray(Z), batches, keep_assignments=True, **options)
    here = harmonize(Z, batches, keep_assignments=True, **options)
    assert type(there.corrected) is DeviceArray
    assert np.array_equal(there.corrected.get(), here.corrected, equal_nan=True)
    assert np.array_equal(there.assignments().get(), here.assignments())


def test_run_harmony_brings_the_result_back(cupy):
    rng = np.random.default_rng(0)
    meta = {"batch": rng.integers(3, size=300)}
    Z = rng.normal(size=(300, 4))
    ho = run_harmony(Z, meta, "batch", device="cuda")
    assert type(ho.Z_corr) is type(ho.R) is type(ho.Z_cos) is np.ndarray
