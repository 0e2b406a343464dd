"""Work on several threads whose results do not depend on their number; cores and memory."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_shared_pool: ContextVar[ThreadPoolExecutor | None] = ContextVar("shared_pool", default=None)

OPENBLAS_MAX_THREADS = 64  # the build in NumPy's wheels has no buffers for more callers


def available_threads() -> int:
    """Count the cores that this process may use: its affinity mask where the system has one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_threads(threads: int | None) -> int:
    """Turn `None` or -1 into the number of available cores, at most what OpenBLAS allows."""
    if threads is None or threads == -1:
        threads = available_threads()
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ValueError(f"threads must be a positive integer, -1 or None; found {threads!r}")
    return min(threads, OPENBLAS_MAX_THREADS)


def available_memory() -> int | None:
    """Return the bytes that can be allocated now; None where this is unknown (not Linux)."""
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
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread: for products that run on several threads, and for equal bits.

    The limit does not reach a BLAS that is loaded after it was set (SciPy has its own).
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


def ordered_map(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    *,
    threads: int,
    in_flight: int | None = None,
) -> Iterator[_Result]:
    """Call a function for every item on several threads and yield the results in order.

    Parameters
    ----------
    function
        Called with one item; where there is one thread, on the calling one.
    items
        Read on the calling thread.
    threads
        Calls that run at a time.
    in_flight
        Items that are read and whose results are not yielded yet, at most. None: all; the threads
        then wait for no result, which is better where calls take unequally long.

    Notes
    -----
    Opening the threads takes 0.1 ms: for many short maps see `workers`. For maps that read each
    other's results see `shared_workers`.
    """
    if threads == 1:
        yield from map(function, items)
        return
    shared = _shared_pool.get()
    with nullcontext(shared) if shared else ThreadPoolExecutor(threads) as pool:
        futures: deque = deque()
        try:
            for item in items:
                futures.append(pool.submit(function, item))
                if len(futures) == in_flight:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:  # where a call fails or the caller stops, those that wait are not made
            for future in futures:
                future.cancel()


@contextmanager
def shared_workers(threads: int) -> Iterator[None]:
    """Let all `ordered_map` of the calling thread use the same threads.

    A map whose items are another map's results then takes no threads of its own. Functions must
    not wait for calls that have not started.
    """
    with ThreadPoolExecutor(threads) as pool:
        token = _shared_pool.set(pool)
        try:
            yield
        finally:
            _shared_pool.reset(token)


@contextmanager
def workers(
    threads: int, make_scratch: Callable[[], Any] = lambda: None
) -> Iterator[Callable[..., None]]:
    """Open `threads` workers for many short tasks, each with a scratch buffer of its own.

    A task costs some microseconds, one of `ordered_map` 50. BLAS has one thread meanwhile.

    Parameters
    ----------
    threads
        Number of workers; the calling thread is one of them.
    make_scratch
        Called once per worker; its result is passed to every call that the worker makes.

    Yields
    ------
    ``run(function, items, consume=None, brief=False)``: calls ``function(item, scratch)`` for
    every item on all workers and returns the results in the order of `items`. With `consume`
    it keeps none of them: ``consume(item, result)`` is called for one item at a time, in their
    order, so that a sum made there does not depend on the number of workers. Work that is
    `brief`, less than waking a thread takes (0.1 ms), stays on the calling thread.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1; found {threads}")
    scratch = [make_scratch() for _ in range(threads)]
    with one_blas_thread(), ThreadPoolExecutor(max(threads - 1, 1)) as pool:

        def run(
            function: Callable[[Any, Any], Any],
            items: Sequence[Any],
            consume: Callable[[Any, Any], None] | None = None,
            *,
            brief: bool = False,
        ) -> list[Any]:
            results: list[Any] = [None] * len(items)
            lock = Lock()
            queue = iter(range(len(items)))
            finished: dict[int, Any] = {}
            n_consumed = 0

            def work(buffer: Any) -> None:
                nonlocal n_consumed
                while True:
                    with lock:
                        index = next(queue, None)
                    if index is None:
                        return
                    result = function(items[index], buffer)
                    if consume is None:
                        results[index] = result
                        continue
                    with lock:
                        finished[index] = result
                        while n_consumed in finished:
                            consume(items[n_consumed], finished.pop(n_consumed))
                            n_consumed += 1

            others = 0 if brief else min(threads, len(items)) - 1
            futures = [pool.submit(work, buffer) for buffer in scratch[1 : others + 1]]
            work(scratch[0])
            for future in futures:
                future.result()
            return results

        yield run
