"""What a stage says of each of its steps: script, command line, memory and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from utils import resources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of the workflow.

    Attributes
    ----------
    script
        Its path below ``workflow/``.
    words
        Returns the options that the rule calls it with, for a `plan.plan.Job`.
    memory
        MB of a small data set, and for each million cells more.
    minutes
        The same of its time, generously.
    more_memory
        Returns further MB, for the job and its inputs.
    thread_memory
        MB of every thread but the first.
    gpu
        The section of the config that says whether it may run on a GPU; None: it cannot.
    device
        Returns where it may run, for the job. Unset: as its section says.
    """

    script: str
    words: Callable[[Any], list[str]]
    memory: tuple[int, int]
    minutes: tuple[int, int]
    more_memory: Callable[[Any, list[str]], float] | None = None
    thread_memory: int = 0
    gpu: str | None = None
    device: Callable[[Any], Mapping[str, Any]] | None = None

    def mem_mb(self, job: Any, inputs: list[str], attempt: int, threads: int = 1) -> int:
        """Return the memory that it asks for, more at each attempt."""
        base, per_million = self.memory
        memory = base + resources.GPU_MB * self.n_gpus(job, inputs)
        memory += self.thread_memory * (threads - 1)
        if per_million:
            memory += per_million * resources.n_cells(inputs[0]) / 1e6
        if self.more_memory:
            memory += self.more_memory(job, inputs)
        return int(memory * attempt)

    def runtime(self, inputs: list[str], attempt: int) -> int:
        """Return the minutes that it asks for, more at each attempt."""
        base, per_million = self.minutes
        more = per_million * resources.n_cells(inputs[0]) / 1e6 if per_million else 0
        return int((base + more) * attempt)

    def n_gpus(self, job: Any, inputs: list[str]) -> int:
        """Return 1 where it may use a GPU and is large enough for one."""
        if self.gpu is None:
            return 0
        wanted = self.device(job) if self.device else job.device(self.gpu)
        return int(wanted["use_gpu"] and resources.n_cells(inputs[0]) >= wanted["n_cell_cpu"])
