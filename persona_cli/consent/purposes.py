"""What data is used for, and what allows it: every purpose has a lawful basis (GDPR Art. 6(1)) in persona.toml."""

from __future__ import annotations

import re

from persona_cli.errors import BadSettings, UsageError, nearest
from persona_cli.workspace.home import Home

PURPOSES = ("personalization", "analytics", "model_training", "messaging")
COVERING = ("personalization", "analytics", "model_training")
"""The purposes for which events are collected; who is covered by none of them is not stored and not folded."""
CONSENT = "consent"
INTEREST = "legitimate_interest"
_CHANNEL = re.compile(r"^messaging\.[a-z0-9][a-z0-9_-]{0,31}$")


def basis(home: Home, purpose: str) -> str:
    """The lawful basis of a purpose; that of a channel (`messaging.email`) is the one of `messaging`.

    Raises UsageError for an unknown purpose, BadSettings where none is set, and for a legitimate interest that no
    assessment weighs against the interests of the people (GDPR Art. 6(1)(f), recital 47).
    """
    section = f"privacy.purposes.{parent(purpose)}"
    found = home.settings.text(f"{section}.basis")
    if not found:
        raise BadSettings(
            f"{parent(purpose)} has no lawful basis: {section}.basis is empty",
            f'decide on one and write it under [{section}] of persona.toml: basis = "consent"',
        )
    if found == INTEREST:
        _assessed(home, section, parent(purpose))
    return found


def parent(purpose: str) -> str:
    """The purpose of persona.toml that rules this one. Raises UsageError for an unknown one."""
    if purpose in PURPOSES:
        return purpose
    if _CHANNEL.match(purpose):
        return "messaging"
    known = (*PURPOSES, "messaging.email")
    raise UsageError(f"{purpose!r} is no purpose{nearest(purpose, known)}", "a channel is named messaging.CHANNEL")


def _assessed(home: Home, section: str, purpose: str) -> None:
    named = home.settings.text(f"{section}.assessment")
    if not named:
        raise BadSettings(
            f"{purpose} rests on a legitimate interest, and {section}.assessment names no file that weighs it",
            f'write the assessment and name it under [{section}]: assessment = "assessment.md"',
        )
    if not home.path(named).is_file():
        raise BadSettings(
            f"{section}.assessment is {named!r}, and there is no such file in {home.root}",
            "write the assessment, or name the file where it is",
        )
