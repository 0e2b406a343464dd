"""Write files and folders as a whole or not at all.

They are written under a temporary name beside their final path and then renamed: a killed process
leaves the old one, the new one or none. Its temporary files are removed by the next process.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

# Errors of the disk or folder that is written to, not of the program.
NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` when the block ends without an error."""
    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    with _writing(path):
        try:
            yield temporary
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


@contextlib.contextmanager
def atomic_folder(out: str | Path) -> Iterator[Path]:
    """Yield a path beside `out`; the folder made there replaces `out` if there is no error."""
    out = Path(out)
    _remove_debris(out)
    tag = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    new, old = (out.with_name(f".{out.name}.{tag}.{part}") for part in ("new", "old"))
    with _writing(out), _in_place_of(out, new, old):
        yield new


@contextlib.contextmanager
def scratch_file(out: str | Path) -> Iterator[BinaryIO]:
    """Yield a file without a name on the disk of `out`, which is gone however the process ends."""
    out = Path(out)
    with _writing(out), tempfile.TemporaryFile(dir=out.parent) as file:
        yield file


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Make the parent folder of an output; errors of the disk name the output, not a file in it."""
    try:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ValueError(f"{out}: cannot be written: {out.parent} is not a folder") from None
        yield
    except OSError as error:
        if error.errno not in NO_PLACE:
            raise
        what = f"cannot be written: {os.strerror(error.errno)}"
        raise OSError(error.errno, what, str(out)) from error


@contextlib.contextmanager
def _in_place_of(out: Path, new: Path, old: Path) -> Iterator[None]:
    """Replace `out` by the folder `new`, which is made in the block; `out` is moved to `old`."""
    try:
        yield
        # A folder that is not empty cannot be replaced in one step, and another process may be
        # doing the same: move the existing one aside until the renaming succeeds.
        with _uninterrupted():
            for _ in range(100):
                with contextlib.suppress(FileNotFoundError):
                    out.rename(old)
                try:
                    new.rename(out)
                    break
                except OSError:
                    _remove(old)
            else:
                raise OSError(f"{out}: cannot be replaced, something keeps writing it")
            _remove(old)
    finally:
        with _uninterrupted():
            _remove(new)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Delay signals, so that a few renames and removals are completed.

    A signal mask would not do: another thread takes the signal, and Python runs the handler in
    the main thread all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {s: signal.signal(s, lambda number, _: received.append(number)) for s in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if received:
            signal.raise_signal(received[0])


def _remove(folder: Path) -> None:
    """Remove a folder, even while a thread that was interrupted is still writing into it."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.02)


def _remove_debris(out: Path) -> None:
    """Remove the temporary folders of processes that were killed on this machine."""
    host = socket.gethostname()
    for path in out.parent.glob(f".{glob.escape(out.name)}.{glob.escape(host)}-*"):
        pid = path.name.removeprefix(f".{out.name}.{host}-").partition("-")[0]
        if pid.isdigit() and not _is_running(int(pid)):
            _remove(path)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
