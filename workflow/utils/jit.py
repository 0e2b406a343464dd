"""Inner loops that arrays cannot express, compiled on first use and kept beside their file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba

if TYPE_CHECKING:
    from collections.abc import Callable


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """Compile a function when it is first called; it runs without the GIL.

    The first run of an installation compiles for some seconds; the result is kept in
    ``__pycache__`` (or where ``NUMBA_CACHE_DIR`` says).

    Parameters
    ----------
    **options
        More options of `numba.njit`.
    """
    options = {"nogil": True, "error_model": "numpy", **options}

    def decorate(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no folder where the compiled code could be kept
            return numba.njit(**options)(function)

    return decorate
