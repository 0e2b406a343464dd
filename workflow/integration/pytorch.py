"""What the methods on PyTorch share: one thread on the CPU, whether there is a GPU."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let PyTorch use one thread: the bits of its products depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def torch_gpu_problem() -> str | None:
    """Say why PyTorch can use no GPU here; ``None`` where it can."""
    return None if torch.cuda.is_available() else "torch sees no GPU"
