"""Threads that give the same bits whatever their number, and the memory that is there."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

OPENBLAS_MAX_THREADS = 64  # the build in NumPy's wheels has no buffers for more callers


def available_threads() -> int:
    """Cores that this process may use: its affinity mask where the system has one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_threads(threads: int | None) -> int:
    """Turn ``None`` or -1 into the cores there are; never more than OpenBLAS allows."""
    if threads is None or threads == -1:
        threads = available_threads()
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ValueError(f"threads must be a positive integer, -1 or None; found {threads!r}")
    return min(threads, OPENBLAS_MAX_THREADS)


def available_memory() -> int | None:
    """Bytes that can be allocated now; None where the system does not tell (not Linux)."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        if Path(limit).exists() and Path(used).exists():
            ceiling = Path(limit).read_text().strip()
            if ceiling.isdigit():
                free = min(free, int(ceiling) - int(Path(used).read_text()))
    return max(free, 0)


@contextmanager
def workers(threads: int, make_scratch: Callable[[], Any]) -> Iterator[Callable[..., None]]:
    """Open ``threads`` workers, each with a scratch buffer of its own and one BLAS thread.

    Parameters
    ----------
    threads
        Number of workers; the calling thread is one of them.
    make_scratch
        Called once per worker; its result is handed to every function that the worker runs.

    Yields
    ------
    ``run(function, items, consume=None)``: calls ``function(item, scratch)`` for every item on
    all workers; ``consume(item, result)`` is called for one item at a time, in the order of
    ``items``, so that a sum made there does not depend on the number of workers. Work that is
    ``brief``, less than waking a thread takes (0.1 ms), stays on the calling thread.
    """
    scratch = [make_scratch() for _ in range(threads)]
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(max(threads - 1, 1)) as pool:

        def run(
            function: Callable[[Any, Any], Any],
            items: Sequence[Any],
            consume: Callable[[Any, Any], None] | None = None,
            *,
            brief: bool = False,
        ) -> None:
            lock = Lock()
            queue = iter(range(len(items)))
            finished: dict[int, Any] = {}
            turn = iter(range(len(items)))
            waiting_for = next(turn, None)

            def work(buffer: Any) -> None:
                nonlocal waiting_for
                while True:
                    with lock:
                        index = next(queue, None)
                    if index is None:
                        return
                    result = function(items[index], buffer)
                    if consume is None:
                        continue
                    with lock:
                        finished[index] = result
                        while waiting_for in finished:
                            consume(items[waiting_for], finished.pop(waiting_for))
                            waiting_for = next(turn, None)

            others = 0 if brief else min(threads, len(items)) - 1
            futures = [pool.submit(work, buffer) for buffer in scratch[1 : others + 1]]
            work(scratch[0])
            for future in futures:
                future.result()

        yield run
