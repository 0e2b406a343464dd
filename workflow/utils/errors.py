"""Text of errors about unknown names: what is missing, what was probably meant, what exists."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def listed(names: list[str], limit: int = 30) -> str:
    """Join names on one line; beyond `limit` it says how many more there are."""
    shown = ", ".join(map(one_line, names[:limit])) or "nothing"
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def one_line(name: object) -> str:
    """Return a name with line breaks and the like escaped."""
    return repr(str(name))[1:-1]


def bad_name(name: str) -> str:
    """Describe why a name cannot be that of an element of a store, a folder; empty: it can.

    Folders that start with a dot are ignored in a store, and file systems allow 255 bytes.
    """
    size = len(name.encode(errors="surrogatepass"))
    if 0 < size <= 255 and "/" not in name and name[0] != ".":
        return ""
    shown = one_line(name)
    return (
        f'the name "{shown if len(shown) < 60 else shown[:60] + "..."}" cannot be written: it must '
        'have 1 to 255 bytes, no "/" and no dot at the start'
    )


def _hint(name: object, names: list[str]) -> str:
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    if not close:  # datasets for DATASETS
        folded = {item.casefold(): item for item in reversed(names)}
        similar = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.6)
        close = [folded[item] for item in similar]
    return f'; did you mean "{close[0]}"?' if close else "."


def missing(where: str, name: object, available: Iterable[object]) -> str:
    """Return ``adata.obs has no column "batchh"; did you mean "batch"? Available: batch, donor``.

    Parameters
    ----------
    where
        The beginning, up to the name: ``adata.obs has no column``.
    name
        The name that was asked for.
    available
        The names that exist.
    """
    names = [str(item) for item in available]
    return f'{where} "{one_line(name)}"{_hint(name, names)} Available: {listed(names)}'


def unknown(what: str, name: object, known: Iterable[object]) -> str:
    """Return ``unknown key "resolutons"; did you mean "resolutions"? Known: ...``."""
    names = [str(item) for item in known]
    return f'unknown {what} "{one_line(name)}"{_hint(name, names)} Known: {listed(names)}'
