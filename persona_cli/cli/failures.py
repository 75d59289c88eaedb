"""From any exception to words and an exit code: the one place where faults of disk and pipe get their meaning."""

from __future__ import annotations

import errno
import re

from persona_cli.errors import CannotWrite, MissingInput, PersonaError

INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143

_CANNOT_WRITE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EFBIG: "the file is too large for this file system",
}
# Engines written in Rust and C++ raise their own classes; the operating system's words are in the text.
_IN_TEXT = (
    (re.compile(r"No space left on device|os error 28\b", re.IGNORECASE), errno.ENOSPC),
    (re.compile(r"Disk quota exceeded|os error 122\b", re.IGNORECASE), errno.EDQUOT),
    (re.compile(r"Read-only file system|os error 30\b", re.IGNORECASE), errno.EROFS),
    (re.compile(r"Permission denied|os error 13\b", re.IGNORECASE), errno.EACCES),
)
_PIPE_IN_TEXT = re.compile(r"Broken pipe|os error 32\b", re.IGNORECASE)


def is_broken_pipe(error: BaseException) -> bool:
    """Whether the reader of our output went away (`| head`)."""
    if isinstance(error, BrokenPipeError):
        return True
    return not isinstance(error, PersonaError) and bool(_PIPE_IN_TEXT.search(str(error)))


def explained(error: BaseException) -> PersonaError | None:
    """The error as one that persona can explain, or None if it is unexpected."""
    if isinstance(error, PersonaError):
        return error
    number = _errno(error)
    if number is not None:
        where = getattr(error, "filename", None)
        what = _CANNOT_WRITE[number]
        message = f"cannot write{f' {where}' if where else ''}: {what}"
        hint = "persona doctor" if number in (errno.ENOSPC, errno.EDQUOT) else None
        return CannotWrite(message, hint)
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError) and error.filename:
        return MissingInput(f"cannot read {error.filename}: {(error.strerror or 'not there').lower()}")
    return None


def _errno(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
        return error.errno
    seen: BaseException | None = error
    while seen is not None:
        for pattern, number in _IN_TEXT:
            if pattern.search(str(seen)):
                return number
        seen = seen.__cause__
    return None
