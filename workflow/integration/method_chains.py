"""What methods start from, one from another's result, and the packages that they need."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from integration.options import EmbeddingMethodOptions
from utils.errors import unknown

if TYPE_CHECKING:
    from integration.options import MethodOptions


def start(name: str, methods: dict[str, Any], basis: str) -> tuple[str, str | None]:
    """Return the obsm key that a method starts from, and the method whose result that is."""
    key = getattr(methods[name], "basis", None) or basis
    before = key.removeprefix("X_") if key.startswith("X_") else ""
    return key, before if before in methods and before != "unintegrated" else None


def chain_problems(methods: dict[str, Any], basis: str, *, computed: bool) -> list[str]:
    """Say what is wrong with the methods that start from another's result.

    Parameters
    ----------
    methods
        The methods by name.
    basis
        The obsm key that a method without a `basis` of its own starts from.
    computed
        Whether `basis` is all there is; else the input may bring other keys.

    Returns
    -------
    list of str
        One line per method that starts from itself, by way of others or not, or from nothing.
    """
    problems = []
    for name, params in methods.items():
        if not isinstance(params, EmbeddingMethodOptions):
            continue
        key, before = start(name, methods, basis)
        chain = [name]
        while before is not None and before not in chain:
            chain.append(before)
            before = start(before, methods, basis)[1]
        if before == name:
            problems.append(f"{name}.basis: starts from itself ({' <- '.join([*chain, name])})")
        elif computed and len(chain) == 1 and key != basis:
            known = [basis, *(f"X_{n}" for n in methods if n not in (name, "unintegrated"))]
            problems.append(f"{name}.basis: {unknown('embedding', key, known)}")
    return problems


def missing_package(cls: type[MethodOptions]) -> str | None:
    """Say what a method needs and is not installed, and the command that installs it.

    ``None`` where nothing is missing. Nothing is imported to find out.
    """
    if cls.package is None or importlib.util.find_spec(cls.package) is not None:
        return None
    pins = Path(__file__).resolve().parents[2] / "envs" / f"{cls.extra}.txt"
    return (
        f"method {cls.method} needs {cls.package}, which is not installed; "
        f"run: python -m pip install -r {pins}"
    )
