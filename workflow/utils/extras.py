"""Packages that only some methods need: whether they are there, how to install them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

# Integration method: the package it needs, which is the extra of the same file in envs/.
NEEDS = {"pvae": "torch", "gmvae": "torch"}
EXTRAS = {"torch": "vae"}


def missing_package(method: str) -> str | None:
    """Say what a method needs and is not installed, and the command that installs it.

    Parameters
    ----------
    method
        An integration method of the config.

    Returns
    -------
    str or None
        ``None`` where nothing is missing. Nothing is imported to find out.
    """
    package = NEEDS.get(method)
    if package is None or importlib.util.find_spec(package) is not None:
        return None
    pins = Path(__file__).resolve().parents[2] / "envs" / f"{EXTRAS[package]}.txt"
    return (
        f"method {method} needs {package}, which is not installed; "
        f"run: python -m pip install -r {pins}"
    )
