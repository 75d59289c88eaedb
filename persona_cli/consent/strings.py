"""Consent strings of the IAB Transparency and Consent Framework, version 2: which purposes were consented to.

The core is the part before the first dot: base64url without padding, so each character is six bits. Its first six bits
are the version; bits 152 to 175 are the consents to purposes 1 to 24, bits 176 to 199 say for which of them a
legitimate interest was made known and not objected to (IAB Tech Lab, Consent string and vendor list formats v2).
"""

from __future__ import annotations

import re
from typing import NamedTuple

_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_VALUE = {digit: value for value, digit in enumerate(_DIGITS)}
_FORM = re.compile(r"^[A-Za-z0-9_-]{20,}={0,2}(\.[A-Za-z0-9_-]+={0,2})*$")
_BITS = 6
_CONSENTS, _INTERESTS, _PURPOSES = 152, 176, 24
# A core has 213 bits before its first list of vendors.
_SHORTEST = 213
VERSION = 2

TCF_PURPOSES = {"personalization": (5, 6), "analytics": (8, 9), "model_training": (10,)}
"""Our purposes → theirs, all of which are needed: 5 and 6 are making profiles for content and choosing content by them,
8 and 9 measuring content and knowing the audience by statistics, 10 developing and improving services."""


class Consented(NamedTuple):
    """What a string says: purposes consented to, and purposes with a legitimate interest that nobody objected to."""

    consents: frozenset[int]
    interests: frozenset[int]


def is_string(text: str) -> bool:
    """Whether a text has the form of a consent string, of whatever version: long, and nothing but its characters."""
    return _FORM.match(text) is not None


def decode(text: str) -> Consented | None:
    """What a TCF v2 string says; None for another version and for what cannot be read: both are no consent."""
    core = text.partition(".")[0].rstrip("=")
    if not is_string(text) or len(core) * _BITS < _SHORTEST or _VALUE[core[0]] != VERSION:
        return None
    return Consented(_flags(core, _CONSENTS), _flags(core, _INTERESTS))


def _flags(core: str, start: int) -> frozenset[int]:
    """Numbers from 1 of the bits that are set among the 24 from `start` on."""
    return frozenset(n + 1 for n in range(_PURPOSES) if _bit(core, start + n))


def _bit(core: str, place: int) -> bool:
    return bool(_VALUE[core[place // _BITS]] >> (_BITS - 1 - place % _BITS) & 1)
