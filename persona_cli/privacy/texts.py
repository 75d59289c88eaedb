"""Whether a file of text names somebody; what counts for an id that could be anything else depends on the file."""

from __future__ import annotations

import json
import re
from typing import Any

from persona_cli.privacy.needles import Needles, person_values

_PAGES = (".html", ".svg", ".css", ".js", ".md")
_WORDS = re.compile(r"[^\s\"',;:<>{}\[\]()=]+")
_QUOTED = re.compile(r'"([^"\n]{1,1000})"')
_ID_OPTIONS = ("--user", "--users")


def in_text(text: str, name: str, needles: Needles) -> bool:
    """Whether the text of the file `name` names one of them."""
    if needles.spans(text):
        return True
    if needles.digests and needles.digest is not None and _digested(text, needles):
        return True
    if not needles.short:
        return False
    if name.startswith("runs/"):
        return _in_run(text, needles)
    # Numbers are quoted in pages and logs of tables for other reasons.
    plain = name.endswith(_PAGES) or "/_delta_log/" in f"/{name}" or name.startswith(("models/", "derived/", ".locks/"))
    return needles.mentions(text, fields=name.endswith((".csv", ".tsv")), quoted=not plain)


def _in_run(text: str, needles: Needles) -> bool:
    """A run's manifest: words of its command, but for the values of options that are no ids."""
    try:
        said: Any = json.loads(text)
        words = [str(word) for word in said["arguments"]]
    except (ValueError, KeyError, TypeError):
        return needles.mentions(text)
    if any(value in needles.short for value in person_values(text)):
        return True
    for word, before in zip(words, ["", *words], strict=False):
        option = before.startswith("-") and before.partition("=")[0] not in _ID_OPTIONS
        if not option and word.partition("=")[2 if word.startswith(_ID_OPTIONS) else 0] in needles.short:
            return True
    return False


def _digested(text: str, needles: Needles) -> bool:
    assert needles.digest is not None
    words = {*_WORDS.findall(text), *_QUOTED.findall(text)}
    return any(needles.digest(word) in needles.digests for word in words)
