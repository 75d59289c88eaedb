"""A block of lines as a numpy array of bytes: where its lines, quotes and separators lie, and which lines are plain.

A *plain* line is valid UTF-8 without control characters and backslashes, so what stands between two of its quotes is
the text itself, and a cell is a JSON text as it stands. The fast reader looks at plain lines only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NEWLINE, RETURN, FIRST_PRINTABLE, QUOTE, BACKSLASH = b'\n\r "\\'
# Eight bytes are read at once from any position inside a line: the last lines need room behind them.
PADDING = 16


@dataclass(frozen=True)
class Scan:
    """Lines and marks (quotes, or the separators of a table) of one block. Positions are bytes from its start."""

    data: bytes
    octets: npt.NDArray[np.uint8]  # (size + PADDING,)
    words: npt.NDArray[np.uint64]  # (size + PADDING - 7,): the eight bytes from each position, little-endian
    starts: Positions  # (lines,)
    ends: Positions  # (lines,) of the newlines
    marks: Positions
    first_mark: Positions  # (lines,) index into marks
    mark_count: Positions  # (lines,)
    plain: Mask  # (lines,)

    def line(self, row: int) -> bytes:
        """The bytes of one line, without its newline."""
        return self.data[self.starts[row] : self.ends[row]]


def scan(block: bytes, mark: int) -> Scan:
    """Scan whole lines (`block` ends with a newline) for the byte `mark`."""
    data = block + bytes(PADDING)
    padded = np.frombuffer(data, np.uint8)
    body = padded[: len(block)]
    low = np.flatnonzero(body < FIRST_PRINTABLE)
    is_end = body[low] == NEWLINE
    ends, control = low[is_end], low[~is_end]
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    plain = np.ones(len(ends), bool)
    harmless = (body[control] == mark) | ((body[control] == RETURN) & (padded[control + 1] == NEWLINE))
    plain[np.searchsorted(ends, control[~harmless])] = False
    if b"\\" in block:
        plain[np.searchsorted(ends, np.flatnonzero(body == BACKSLASH))] = False
    if not block.isascii() and not _is_utf8(block):
        for row in np.unique(np.searchsorted(ends, np.flatnonzero(body >= 128))):
            plain[row] &= _is_utf8(block[starts[row] : ends[row]])
    marks = np.flatnonzero(body == mark)
    edges = np.searchsorted(marks, ends)
    first_mark = np.concatenate(([0], edges[:-1])).astype(np.int64)
    words: Any = np.ndarray((len(data) - 7,), dtype="<u8", buffer=data, strides=(1,))
    return Scan(data, padded, words, starts, ends, marks, first_mark, edges - first_mark, plain)


def line_starts(block: bytes) -> Positions:
    """(lines + 1,) where each line starts, and the end of the block."""
    return np.concatenate(([0], np.flatnonzero(np.frombuffer(block, np.uint8) == NEWLINE) + 1))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
