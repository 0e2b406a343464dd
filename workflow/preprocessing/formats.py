"""Open what counts come in."""

from __future__ import annotations

from typing import Any

from utils.io import open_store


def open_counts(file: str) -> Any:
    """Open an AnnData store."""
    return open_store(file)
