"""Compile inner loops that array operations cannot express, on first use, with a cache on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba

if TYPE_CHECKING:
    from collections.abc import Callable


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """Return a decorator that compiles a function when it is first called; it releases the GIL.

    The first run of an installation compiles for some seconds; the result is cached in
    ``__pycache__`` (or ``NUMBA_CACHE_DIR``).

    Parameters
    ----------
    **options
        Further options of `numba.njit`.
    """
    options = {"nogil": True, "error_model": "numpy", **options}

    def decorate(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no writable folder for the cache
            return numba.njit(**options)(function)

    return decorate
