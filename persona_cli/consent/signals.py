"""What an event says of consent: the field `consent`, and the browser's Global Privacy Control.

`consent` is a word (`granted`, `denied`), names of purposes (those not named are refused), `purpose=yes` or `=denied`
(those not named are left as they are), or a TCF string. A text that says nothing of the three purposes in one of these
ways cannot be read; like a string of an unknown version it is no consent.

TCF strings are those of the IAB Transparency and Consent Framework, version 2. The core is the part before the first
dot: base64url without padding, so each character is six bits. Its first six bits are the version; bits 152 to 175 are
the consents to purposes 1 to 24, bits 176 to 199 say for which of them a legitimate interest was made known and not
objected to (IAB Tech Lab, Consent string and vendor list formats v2).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from persona_cli.consent.receipts import COVERING, INTEREST, State

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


Words = dict[str, State]
"""Purpose → what was said about it."""
_YES = frozenset(
    [
        "granted",
        "grant",
        "given",
        "yes",
        "true",
        "1",
        "all",
        "accepted",
        "accept",
        "allowed",
        "allow",
        "opt_in",
        "opt-in",
        "optin",
        "in",
    ]
)
_NO = frozenset(
    [
        "denied",
        "deny",
        "none",
        "no",
        "false",
        "0",
        "rejected",
        "reject",
        "refused",
        "withdrawn",
        "opt_out",
        "opt-out",
        "optout",
        "out",
    ]
)
# What consent-mode fields of others are called.
_ALSO = {"analytics_storage": "analytics", "personalization_storage": "personalization"}
# Snowplow says on which basis an event was processed, and not what the person said.
_BASES = frozenset(
    [
        "consent",
        "contract",
        "legal_obligation",
        "vital_interests",
        "vital_interest",
        "public_task",
        "legitimate_interests",
        "legitimate_interest",
    ]
)
_SEPARATORS = re.compile(r"[,;\s]+")
_SIGNALS = frozenset({"gpc", "secgpc", "globalprivacycontrol"})
MAYBE_SIGNAL = "(?i)gpc|global.?privacy.?control"
"""What a JSON text matches in which `opts_out` can find a signal."""
_NESTED = 4


def said(text: str | None, bases: Mapping[str, str]) -> Words | None:
    """What a consent field says about the purposes that events are collected for; None: it cannot be read.

    `bases` (purpose → lawful basis) decide whether the bits of a legitimate interest in a TCF string count.
    """
    word = (text or "").strip().lower()
    if not word or word in _BASES:
        return {}
    if word in _YES:
        return dict.fromkeys(COVERING, "given")
    if word in _NO:
        return dict.fromkeys(COVERING, "withdrawn")
    if is_string((text or "").strip()) and word not in COVERING:
        return _of_string((text or "").strip(), bases)
    parts = [part for part in _SEPARATORS.split(word) if part]
    if all("=" in part for part in parts):
        return _of_pairs(parts)
    named = {_ALSO.get(part, part) for part in parts}
    if not named & set(COVERING):
        return None
    return {purpose: "given" if purpose in named else "withdrawn" for purpose in COVERING}


def _of_string(text: str, bases: Mapping[str, str]) -> Words | None:
    found = decode(text)
    if found is None:
        return None
    words: Words = {}
    for purpose, theirs in TCF_PURPOSES.items():
        allowed = found.consents | (found.interests if bases.get(purpose) == INTEREST else frozenset())
        words[purpose] = "given" if allowed.issuperset(theirs) else "withdrawn"
    return words


def _of_pairs(parts: list[str]) -> Words | None:
    words: Words = {}
    for part in parts:
        name, _, value = part.partition("=")
        purpose = _ALSO.get(name, name)
        if purpose not in COVERING:
            continue
        if value not in _YES | _NO:
            return None
        refused = value in _NO or words.get(purpose) == "withdrawn"
        words[purpose] = "withdrawn" if refused else "given"
    return words


def opts_out(props: str) -> bool:
    """Whether the rest of an event (JSON text) says what a browser signals: `Sec-GPC: 1` or `gpc` true, inside too."""
    try:
        return _signalled(json.loads(props), _NESTED)
    except (ValueError, RecursionError):
        return False


def _signalled(value: Any, depth: int) -> bool:
    if not isinstance(value, dict) or not depth:
        return False
    for name, inner in value.items():
        if re.sub(r"[-_\s]", "", name).lower() in _SIGNALS and _set(inner):
            return True
        if _signalled(inner, depth - 1):
            return True
    return False


def _set(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() in ("1", "true")) or value == 1
