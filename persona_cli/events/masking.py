"""The shape of a rejected line without what it says, for messages."""

from __future__ import annotations

import re

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?(\s*:)?|\b(?:true|false|null)\b|[^\W\d_]|\d', re.DOTALL)


def masked(raw: bytes, longest: int = 160) -> str:
    """A line of which one sees the shape: keys stay, letters of values become x and their digits 0."""
    text = raw[: 4 * longest].decode("utf-8", "replace")

    def mask(found: re.Match[str]) -> str:
        token = found[0]
        if found[1] is not None or token in ("true", "false", "null"):
            return token
        return re.sub(r"[^\W\d_]", "x", re.sub(r"\d", "0", token))

    shown = _TOKEN.sub(mask, text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"
