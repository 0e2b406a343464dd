"""Where a step runs: on the CPU, or on a GPU through rapids-singlecell.

The decision falls once in each job, before any algorithm runs, from what is visible there.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from utils.options import Options, key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

N_CELL_CPU = 100_000


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(Options):
    """Where a stage may run."""

    use_gpu: bool | None = key(
        None, "Use a GPU where one is visible. Unset: as set one section above."
    )
    n_cell_cpu: int | None = key(
        None,
        "Below this number of cells the CPU is used even where there is a GPU. "
        "Unset: as set one section above.",
        ge=0,
    )


@dataclass(frozen=True)
class Device:
    """A decision and its reason."""

    name: Literal["cpu", "gpu"]
    reason: str

    def __str__(self) -> str:
        return f"{self.name.upper()} ({self.reason})"

    def record(self) -> dict[str, str]:
        """Return what a step writes into its record in ``uns``."""
        return {"device": self.name, "reason": self.reason}


def choose_device(
    n_cells: int,
    *,
    use_gpu: bool | None = None,
    n_cell_cpu: int = N_CELL_CPU,
    cpu_only: str | None = None,
    problem: Callable[[], str | None] | None = None,
) -> Device:
    """Decide where a step runs.

    Parameters
    ----------
    n_cells
        Number of cells that the step works on.
    use_gpu
        ``False``: never. ``True`` or ``None``: where a GPU is visible and the step is large enough.
    n_cell_cpu
        Below this number of cells the CPU is used.
    cpu_only
        Why only the CPU can do what was asked for, such as ``flavor leidenalg``.
    problem
        Says why no GPU can be used here. Unset: `gpu_problem`, for rapids-singlecell.

    Returns
    -------
    Device
        ``cpu`` or ``gpu``, with the reason.
    """
    if use_gpu is False:
        return Device("cpu", "use_gpu is false")
    if cpu_only:
        return Device("cpu", f"{cpu_only} runs on the CPU only")
    if n_cells < n_cell_cpu:
        return Device("cpu", f"{n_cells:,} cells, fewer than n_cell_cpu = {n_cell_cpu:,}")
    why = (problem or gpu_problem)()
    if why:
        return Device("cpu", why)
    return Device("gpu", f"{n_cells:,} cells, a GPU is visible")


def try_gpu(device: Device, compute: Callable[[], T]) -> tuple[T | None, Device]:
    """Compute on the GPU where that was decided; where it fails, decide for the CPU.

    Parameters
    ----------
    device
        As returned by `choose_device`.
    compute
        What to run on the GPU.

    Returns
    -------
    (result, Device)
        The result, or ``None`` where the CPU has to compute it; the device, with the reason.
    """
    if device.name == "cpu":
        return None, device
    try:
        return compute(), device
    except Exception as error:  # whatever a GPU does wrong, the CPU can do
        text = " ".join(str(error).split())
        return None, Device("cpu", f"the GPU failed: {type(error).__name__}: {text}")


def gpu_problem(packages: Sequence[str] = ("cupy", "rapids_singlecell")) -> str | None:
    """Say why no GPU can be used here with these packages; ``None`` where one can."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # no driver, one that is too old, libraries that do not load
        return f"no GPU is visible: {' '.join(str(error).split())}"
    return None if count else "no GPU is visible"
