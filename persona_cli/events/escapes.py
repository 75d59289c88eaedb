r"""Escapes that writers put into JSON without need, undone for whole blocks: `\/`, and `\u…` of other than ASCII.

Undoing them changes neither the value of a valid line nor whether a line is valid, since what comes in their place is
an error outside of texts too. Everything else (`\"`, `\\`, `\n`, escaped ASCII, lone surrogates) stays, and leaves its
line to `judge`.
"""

from __future__ import annotations

import re

_UNICODE = re.compile(rb"(?:\\u[0-9a-fA-F]{4})+")


def unescaped(block: bytes) -> bytes:
    """The same lines, one for one, with those escapes undone."""
    if b"\\" not in block:
        return block
    # An escaped backslash must not lend its second half to what follows. The byte put there makes its line not plain.
    block = block.replace(b"\\\\", b"\\\x01").replace(b"\\/", b"/")
    return _UNICODE.sub(_characters, block) if b"\\u" in block else block


def _characters(match: re.Match[bytes]) -> bytes:
    units = match[0].decode("unicode_escape")
    try:
        text = units.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        return match[0]
    return match[0] if min(text) < "\x80" else text.encode()
