"""Every error that persona shows to a user, and the exit code each one owns.

PersonaError                     1   unexpected
├── UsageError                   2   the command line is wrong
├── CheckFailed                 10   a check ran and found something
├── BadData                     65   input that cannot be accepted
├── MissingInput                66   a file, workspace, model or user that is not there
├── Unavailable                 69   a service or an optional extra is missing
├── CannotWrite                 74   disk full, read-only, no permission
├── Busy                        75   another run holds the lock
├── Refused                     77   a guard said no (consent, budget, overlap)
└── BadSettings                 78   persona.toml, an environment variable or --set

A message is one sentence with the value seen and what was expected; `hint` is the way out, printed after a blank line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PersonaError(Exception):
    """Base of every error with a message meant for the user."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PersonaError):
    exit_code = 2


class CheckFailed(PersonaError):
    exit_code = 10


class BadData(PersonaError):
    exit_code = 65


class MissingInput(PersonaError):
    exit_code = 66


class Unavailable(PersonaError):
    exit_code = 69


class CannotWrite(PersonaError):
    exit_code = 74


class Busy(PersonaError):
    exit_code = 75


class Refused(PersonaError):
    exit_code = 77


class BadSettings(PersonaError):
    exit_code = 78


def nearest(name: str, known: Iterable[str]) -> str:
    """The closest known name as `; did you mean 'x'?`, or the known names when none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""
