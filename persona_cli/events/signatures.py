"""Which lines are built alike: a 64-bit number for each line from its keys, their order and the kinds of their values.

Only a hint where to look for a layout: lines of one signature may still differ, and `Layout.fit` decides.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from persona_cli.events.scan import Positions, Scan

Words = npt.NDArray[np.uint64]

# Bytes of a key that count, by its length.
_FIRST_BYTES = np.array([(1 << 8 * length) - 1 for length in range(9)], np.uint64)
# How a value begins; all numbers are one kind.
_KINDS = np.arange(256, dtype=np.uint64)
_KINDS[[*b"-0123456789"]] = ord("0")
_COLON, _SPACE = b": "
_MIXERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64)


def signatures(scan: Scan, rows: Positions) -> Words:
    """(rows,) signatures of plain lines, each with an even number of quotes, at least two."""
    counts = scan.mark_count[rows]
    begins = np.concatenate(([0], np.cumsum(counts)[:-1]))
    quotes = scan.marks[np.repeat(scan.first_mark[rows] - begins, counts) + np.arange(counts.sum())]
    opening, closing = quotes[0::2], quotes[1::2]
    length = np.minimum(closing - opening - 1, 8)
    behind = scan.octets[closing + 1]
    value = np.where(scan.octets[closing + 2] == _SPACE, scan.octets[closing + 3], scan.octets[closing + 2])
    key = (scan.words[opening + 1] & _FIRST_BYTES[length]) * _MIXERS[0] + _KINDS[value] * _MIXERS[1]
    mixed = np.where(behind == _COLON, key + length.astype(np.uint64), _KINDS[behind] * _MIXERS[2])
    mixed = (mixed ^ (mixed >> np.uint64(29))) * _MIXERS[3]
    place = np.arange(len(opening)) - np.repeat(begins // 2, counts // 2)
    # A different odd factor for each place, so that the order counts.
    mixed = (mixed ^ (mixed >> np.uint64(32))) * (_MIXERS[0] + np.uint64(2) * place.astype(np.uint64))
    return np.add.reduceat(mixed, begins // 2)
