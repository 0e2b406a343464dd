"""The names of what a file holds: columns, layers, embeddings. Their values are not read."""

from __future__ import annotations

from dataclasses import dataclass

from utils.paths import is_store, split_file


@dataclass(frozen=True)
class Contents:
    """The names that a file holds, by the slot of AnnData."""

    file: str
    slots: dict[str, list[str]]
    has_x: bool
    has_raw: bool

    def __getitem__(self, slot: str) -> list[str]:
        return self.slots[slot]


def read_contents(file: str) -> Contents | str:
    """Read the names in a file; text where that cannot be done, and why."""
    path, _ = split_file(file)
    if not path.exists():
        expanded = path.expanduser() if file.startswith("~") else path
        return f"no such file: {file}" + (
            f'; "~" is not expanded, write {expanded}' if expanded != path else ""
        )
    if not is_store(file):
        return Contents(file, {}, has_x=True, has_raw=False)
    from utils.io import keys, open_store

    try:
        root = open_store(file)
        names = ("layers", "obsm", "uns", "raw", "obs", "var", "raw/var")
        slots = {slot: keys(root, slot) for slot in names}
        top = keys(root)
        has_x = "X" in top and root["X"].attrs.get("encoding-type") != "null"
    except Exception as error:  # whatever the libraries make of a damaged file
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        return text if file in text or str(path) in text else f"{file}: {text}"
    if hasattr(root, "close"):
        root.close()
    return Contents(file, slots, has_x=has_x, has_raw="X" in slots["raw"])
