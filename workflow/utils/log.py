"""Report to the user: lines in a log, progress on a terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_Item = TypeVar("_Item")


def say(text: str) -> None:
    """Write one line to the log."""
    print(text, file=sys.stderr, flush=True)


def progress(
    iterable: Iterable[_Item], *, desc: str, total: int | None = None, disable: bool = False
) -> Iterator[_Item]:
    """Iterate with a progress bar on a terminal, with a line every 20 seconds in a log.

    Parameters
    ----------
    iterable
        The items.
    desc
        Name of the step, shown before the bar.
    total
        Number of items; by default ``len(iterable)`` where it has a length.
    disable
        Show nothing.

    Yields
    ------
    The items of `iterable`.
    """
    if disable:
        yield from iterable
        return
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(iterable, desc=desc, total=total, leave=False, mininterval=0.2)
        return
    last_line = time.monotonic()
    for done, item in enumerate(iterable):
        if time.monotonic() - last_line > 20:
            last_line = time.monotonic()
            share = f"{done}/{total} ({100 * done // total} %)" if total else f"{done}"
            print(f"{desc}: {share}", file=sys.stderr, flush=True)
        yield item
