"""One writer at a time: advisory locks that the kernel releases when their holder dies, however it dies.

The lock is `flock` on `.locks/<name>.lock`; the JSON inside only says who holds it, and means nothing while it is free.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona_cli.errors import Busy

if TYPE_CHECKING:
    from persona_cli.workspace.home import Home

_POLL_SECONDS = 0.1
# A command may call another that takes the same lock (ingest builds profiles): that thread passes.
# Path → (thread, depth).
_held: dict[Path, tuple[int, int]] = {}
_guard = threading.Lock()


@contextlib.contextmanager
def hold(home: Home, name: str, command: str, wait: float = 0) -> Iterator[None]:
    """Hold the lock `name` while the body runs; `Busy` if another process still has it after `wait` seconds."""
    path = home.path(".locks", f"{name}.lock")
    with _guard:
        thread, depth = _held.get(path, (0, 0))
        nested = depth > 0 and thread == threading.get_ident()
        if nested:
            _held[path] = (thread, depth + 1)
    if nested:
        try:
            yield
        finally:
            with _guard:
                _held[path] = (thread, _held[path][1] - 1)
        return
    reading = path.with_name(f"{_READING}.lock") in _leases
    descriptor = _acquire(path, name, wait)
    try:
        if reading:
            read(home)  # again, where it was let go while waiting
        _describe(descriptor, command)
        with _guard:
            _held[path] = (threading.get_ident(), 1)
        yield
    finally:
        with _guard:
            _held.pop(path, None)
        os.close(descriptor)  # releases the lock; the file stays, since removing it would let two holders in


_READING = "readers"
# Path → descriptor of the shared lock that this process holds as a reader.
_leases: dict[Path, int] = {}


def read(home: Home) -> None:
    """Say that this process reads the workspace from now on, until `stop_reading`: no file it may have open is deleted.

    Waits for a moment in which files are being deleted. A workspace in which nothing can be written is read without.
    """
    path = home.path(".locks", f"{_READING}.lock")
    if path in _leases:
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        except BaseException:
            os.close(descriptor)
            raise
        _leases[path] = descriptor


def stop_reading() -> None:
    """Let go of what `read` took."""
    while _leases:
        os.close(_leases.popitem()[1])


@contextlib.contextmanager
def unread(home: Home, wait: float) -> Iterator[bool]:
    """Run the body, which deletes files, while nobody reads; readers that come wait until it is done.

    After `wait` seconds it runs all the same: what has to go may not be kept by a reader that never ends. Whether
    nobody read is answered.
    """
    path = home.path(".locks", f"{_READING}.lock")
    path.parent.mkdir(mode=0o700, exist_ok=True)
    mine = _leases.get(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) if mine is None else mine
    deadline = time.monotonic() + wait
    alone = False
    try:
        while not alone:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alone = True
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    break
                time.sleep(_POLL_SECONDS)
        yield alone
    finally:
        if mine is None:
            os.close(descriptor)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_SH)


def holder(home: Home, name: str) -> dict[str, Any] | None:
    """Who holds the lock now ({pid, command, host, since}), or None if it is free."""
    path = home.path(".locks", f"{name}.lock")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _read(path)
    finally:
        os.close(descriptor)


def alive(pid: int) -> bool:
    """Whether a process of this number exists on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def age_text(seconds: float) -> str:
    """`12 s`, `3 min`, `2 h`, `5 days`."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _acquire(path: Path, name: str, wait: float) -> int:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait
    lease = path.with_name(f"{_READING}.lock")
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise _busy(path, name, wait) from None
            if (reading := _leases.pop(lease, None)) is not None:
                os.close(reading)  # the holder may be waiting for readers: not for one that waits for the holder
            time.sleep(min(_POLL_SECONDS, max(deadline - time.monotonic(), 0.001)))
    except BaseException:
        os.close(descriptor)
        raise


def _describe(descriptor: int, command: str) -> None:
    who = {"pid": os.getpid(), "command": command, "host": socket.gethostname(), "since": time.time()}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(who).encode(), 0)


def _read(path: Path) -> dict[str, Any]:
    # The holder may be between taking the lock and writing its name.
    for _ in range(5):
        try:
            who = json.loads(path.read_text())
        except (OSError, ValueError):
            time.sleep(0.02)
            continue
        if isinstance(who, dict):
            return who
    return {}


def _busy(path: Path, name: str, waited: float) -> Busy:
    who = _read(path)
    pid, host = who.get("pid"), who.get("host", "")
    here = host == socket.gethostname()
    message = (
        f"the {name} of this workspace are in use by pid {pid or 'unknown'} ({who.get('command', 'unknown command')})"
    )
    message += "" if here or not host else f" on {host}"
    if "since" in who:
        message += f" for {age_text(time.time() - float(who['since']))}"
    message += f", also after waiting {age_text(waited)}" if waited else ""
    if here and isinstance(pid, int) and not alive(pid):
        cause = "that process has ended, but one that it started still holds the lock"
    elif pid == os.getpid():
        cause = "another thread of this very process holds it"
    else:
        cause = "probably an earlier run, such as a cron job, that has not finished"
    return Busy(f"{message}: {cause}", "run it again with --wait 600, or look at the locks with: persona doctor")
