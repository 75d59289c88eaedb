"""Times of many rows at once, for the commonest spellings; anything else is left to `judge`.

`2026-01-05`, or `2026-01-05T10:20:30` (also with a space), with 0, 3 or 6 digits of a fraction, then `Z`, an offset
`+02:00` or nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

import numpy as np
import numpy.typing as npt

from persona_cli.events.judge import EARLIEST_US
from persona_cli.events.scan import Mask, Positions, Scan

Words = npt.NDArray[np.uint64]

_FIRST_YEAR, _LAST_YEAR = 1900, 2299
_MONTHS = np.arange(f"{_FIRST_YEAR}-01", f"{_LAST_YEAR + 1}-02", dtype="M8[M]").astype("M8[D]").astype(np.int64)
_MONTH_LENGTHS = np.diff(_MONTHS)
# Length of the text → (digits of the fraction, length of the zone)
_FORMS = {19: (0, 0), 20: (0, 1), 25: (0, 6), 23: (3, 0), 24: (3, 1), 29: (3, 6), 26: (6, 0), 27: (6, 1), 32: (6, 6)}
_MINUTE_US = 60_000_000


def iso_times(scan: Scan, start: Positions, end: Positions, zone: tzinfo) -> tuple[Positions, Mask, Mask]:
    """(µs since 1970 UTC, vouched for, zone-less) of the texts at `start`…`end`; all of shape (rows,)."""
    us, known, zoneless = np.zeros(len(start), np.int64), np.zeros(len(start), bool), np.zeros(len(start), bool)
    lengths = end - start
    for length in np.flatnonzero(np.bincount(np.clip(lengths, 0, 33), minlength=34)):
        if length != 10 and length not in _FORMS:
            continue
        rows = np.flatnonzero(lengths == length)
        digits, zone_length = _FORMS.get(int(length), (0, 0))
        at = start[rows]
        value, good = _local(scan, at, int(length), digits)
        if zone_length == 1:
            good &= scan.octets[at + length - 1] == ord("Z")
        elif zone_length == 6:
            shift, shift_good = _offset(scan, at + length - 8)
            value -= shift
            good &= shift_good
        else:
            zoneless[rows] = good
            if zone is not UTC:
                good &= value >= EARLIEST_US  # before, zones changed by odd seconds
                value -= zone_offsets(value, good, zone)
        us[rows], known[rows] = value, good
    return us, known, zoneless


def epoch_times(numbers: Positions) -> Positions:
    """Whole seconds, milli-, micro- or nanoseconds, told apart by their size as in `judge`, to microseconds."""
    size = np.abs(numbers)
    scaled = np.where(size < 10**11, numbers * 1_000_000, numbers * 1_000)
    return np.where(size < 10**14, scaled, np.where(size < 10**17, numbers, numbers // 1_000))


def zone_offsets(local_us: Positions, good: Mask, zone: tzinfo) -> Positions:
    """Microseconds that local times are ahead of UTC. Zones change on whole minutes, so each minute is asked once."""
    minutes, inverse = np.unique(np.where(good, local_us // _MINUTE_US, 0), return_inverse=True)
    moments = (datetime(1970, 1, 1, tzinfo=zone) + timedelta(minutes=int(minute)) for minute in minutes)
    offsets = [(moment.utcoffset() or timedelta()) // timedelta(microseconds=1) for moment in moments]
    return np.asarray(offsets, np.int64)[inverse]


def _local(scan: Scan, at: Positions, length: int, digits: int) -> tuple[Positions, Mask]:
    if length == 10:
        date, good = _pairs(scan.words[at], "dddd-dd-")
        tail, tail_good = _pairs(scan.words[at + 2], "dd-dd-dd")
        good &= tail_good
        day = _pair(tail, 6)
        seconds = np.zeros(len(at), np.int64)
    else:
        date, good = _pairs(scan.words[at], "dddd-dd-")
        middle, middle_good = _pairs(scan.words[at + 8], "dd?dd:dd")
        clock, clock_good = _pairs(scan.words[at + 11], "dd:dd:dd")
        separator = scan.octets[at + 10]
        good &= middle_good & clock_good & ((separator == ord("T")) | (separator == ord(" ")))
        day, hour, minute, second = _pair(middle, 0), _pair(clock, 0), _pair(clock, 3), _pair(clock, 6)
        good &= (hour < 24) & (minute < 60) & (second < 60)
        seconds = (hour * 60 + minute) * 60 + second
    month = (_pair(date, 0) * 100 + _pair(date, 2) - _FIRST_YEAR) * 12 + _pair(date, 5) - 1
    good &= (_pair(date, 5) >= 1) & (_pair(date, 5) <= 12) & (month >= 0) & (month < len(_MONTH_LENGTHS))
    month = np.where(good, month, 0)
    good &= (day >= 1) & (day <= _MONTH_LENGTHS[month])
    us = ((_MONTHS[month] + day - 1) * 86_400 + seconds) * 1_000_000
    if digits == 3:
        fraction, fraction_good = _pairs(scan.words[at + 16], "?dd.ddd?")
        us += (_pair(fraction, 4) * 10 + _pair(fraction, 6) // 10) * 1_000
        good &= fraction_good
    elif digits == 6:
        fraction, fraction_good = _pairs(scan.words[at + 19], ".dddddd?")
        us += (_pair(fraction, 1) * 100 + _pair(fraction, 3)) * 100 + _pair(fraction, 5)
        good &= fraction_good
    return us, good


def _offset(scan: Scan, at: Positions) -> tuple[Positions, Mask]:
    """`+HH:MM` in the last six of the eight bytes at `at`."""
    pairs, good = _pairs(scan.words[at], "???dd:dd")
    sign = scan.octets[at + 2]
    good &= ((sign == ord("+")) | (sign == ord("-"))) & (_pair(pairs, 3) < 24) & (_pair(pairs, 6) < 60)
    minutes = _pair(pairs, 3) * 60 + _pair(pairs, 6)
    return np.where(sign == ord("-"), -minutes, minutes) * _MINUTE_US, good


def _pairs(words: Words, pattern: str) -> tuple[Words, Mask]:
    """Eight bytes at once: byte i of the answer is ten times digit i plus digit i + 1, if the pattern fits.

    In the pattern `d` is a digit, `?` anything, and any other character itself.
    """
    digits, fixed, wanted = 0, 0, 0
    for place, character in enumerate(pattern):
        if character == "d":
            digits |= 0xFF << 8 * place
        elif character != "?":
            fixed |= 0xFF << 8 * place
            wanted |= ord(character) << 8 * place
    high, low = 0xF0F0F0F0F0F0F0F0 & digits, 0x0F0F0F0F0F0F0F0F & digits
    fixed, wanted = fixed | high, wanted | (0x3030303030303030 & digits)
    nibbles = words & np.uint64(low)
    good = (words & np.uint64(fixed)) == np.uint64(wanted)
    good &= ((nibbles + np.uint64(0x0606060606060606 & digits)) & np.uint64(high)) == 0
    return nibbles * np.uint64(10) + (nibbles >> np.uint64(8)), good


def _pair(pairs: Words, place: int) -> Positions:
    return ((pairs >> np.uint64(8 * place)) & np.uint64(0xFF)).astype(np.int64)
