"""Which of a month's new rows are new: occurrence numbers for identical rows of one file, and duplicates.

Ids are compared by 64-bit keys first, since keys of a month fit in memory where ids do not; only rows whose key was
seen before are compared by the whole id. A duplicate is looked for within its month: a given id that comes back under
another month is another event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from persona_cli.events.batch import SEPARATOR

Keys = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Policy = Literal["keep-first", "keep-last", "error"]


def keys_of(ids: pl.Series) -> Keys:
    """(rows,) 64-bit keys of ids; the same within this process, in no stored format."""
    return ids.hash(seed=0x70657273).to_numpy()


def numbered(base: str, occurrence: int) -> str:
    """The id of the second (1), third (2), … of identical rows in one file. Part of the workspace format."""
    return hashlib.md5(f"{base}{SEPARATOR}{occurrence}".encode(), usedforsecurity=False).hexdigest()


@dataclass
class Segment:
    """The ids of one file of the month, by sorted keys; `read` gives the ids themselves."""

    name: str
    keys: Keys
    read: Callable[[], pl.Series]

    def among(self, ids: pl.Series) -> Mask:
        """(len(ids),) which of the ids are in this file."""
        found = contained(keys_of(ids), self.keys)
        if found.any():
            candidates = ids.filter(pl.Series(found)).unique()
            there = self.read()
            confirmed = there.filter(there.is_in(candidates.implode()))
            found &= ids.is_in(confirmed.implode()).to_numpy()
        return found


@dataclass
class Distinct:
    """How many different keys there were."""

    parts: list[Keys] = field(default_factory=list)
    waiting: int = 0

    @property
    def count(self) -> int:
        self.merge()
        return len(self.parts[0])

    def add(self, keys: Keys) -> None:
        self.parts.append(distinct(keys))
        self.waiting += len(self.parts[-1])
        if self.waiting > 2_000_000:
            self.merge()

    def merge(self) -> None:
        self.parts = [distinct(np.concatenate([np.empty(0, np.uint64), *self.parts]))]
        self.waiting = 0


@dataclass
class Occurrences:
    """The keys of all ids made by hash that came so far in one file and month, sorted, each as often as it came.

    Two ids of one file under one key (one file of ten million lines in 300,000) would at worst be numbered from 1
    instead of 0; they stay distinct.
    """

    keys: Keys = field(default_factory=lambda: np.empty(0, np.uint64))

    def before(self, keys: Keys) -> npt.NDArray[np.int64]:
        """(rows,) how often each key came before."""
        times = np.zeros(len(keys), np.int64)
        rows = np.flatnonzero(contained(keys, self.keys))
        wanted = keys[rows]
        times[rows] = np.searchsorted(self.keys, wanted, "right") - np.searchsorted(self.keys, wanted, "left")
        return times

    def add(self, keys: Keys) -> None:
        self.keys = np.sort(np.concatenate([self.keys, keys]))


@dataclass
class Month:
    """What is known of one month while an ingest runs."""

    segments: list[Segment] = field(default_factory=list)
    occurrences: Occurrences = field(default_factory=Occurrences)
    file: int = -1
    """The input file that `occurrences` is about."""


@dataclass(frozen=True)
class Verdict:
    """`ids` (rows,) final; `keep` (rows,) those to store; `again` names rows already in a file of the month."""

    ids: pl.Series
    keys: Keys
    keep: Mask
    again: Mask


def number_occurrences(month: Month, ids: pl.Series, given: Mask, files: npt.NDArray[np.int32]) -> pl.Series:
    """`ids` with a number worked into those that came before in the same input file; files are in ascending order."""
    if given.all():
        return ids
    keys = keys_of(ids)
    last = int(files[-1])
    hashed = ~given
    within = repeated(keys[hashed])
    suspects = hashed & contained(keys, within) if len(within) else np.zeros(len(ids), bool)
    before = np.zeros(len(ids), np.int64)
    continued = hashed & (files == month.file)
    if continued.any():
        before[continued] = month.occurrences.before(keys[continued])
        candidates = before > 0
        if candidates.any():
            rows = np.flatnonzero(candidates)
            # The first of them is in a file of the month, whether it was new or a duplicate.
            real = _in_any(month.segments, ids.gather(rows))
            before[rows[~real]] = 0
            suspects |= before > 0
    if last != month.file:
        month.occurrences, month.file = Occurrences(), last
    month.occurrences.add(keys[hashed & (files == last)])
    if not suspects.any():
        return ids
    rows = np.flatnonzero(suspects)
    frame = pl.DataFrame({"id": ids.gather(rows), "file": files[rows]})
    order = frame.select(pl.int_range(pl.len()).over("file", "id")).to_series().to_numpy() + before[rows]
    again = np.flatnonzero(order > 0)
    if not len(again):
        return ids
    bases = frame["id"].gather(again).to_list()
    made = [numbered(base, int(number)) for base, number in zip(bases, order[again], strict=True)]
    return ids.clone().scatter(rows[again], pl.Series(made, dtype=pl.String))


def judge_ids(month: Month, ids: pl.Series, policy: Policy) -> Verdict:
    """Which rows to keep of those with these (final) ids, given what the month holds.

    `keep-first` drops a row whose id is in the month or stands earlier among these; `keep-last` keeps the last of
    each; `again` then says which kept rows take the place of one in the month.
    """
    keys = keys_of(ids)
    keep = np.ones(len(ids), bool)
    twice = repeated(keys)
    if len(twice):
        rows = np.flatnonzero(contained(keys, twice))
        candidates = ids.gather(rows)
        chosen = candidates.is_last_distinct() if policy == "keep-last" else candidates.is_first_distinct()
        keep[rows] = chosen.to_numpy()
    again = np.zeros(len(ids), bool)
    suspects = np.zeros(len(ids), bool)
    for segment in month.segments:
        suspects |= contained(keys, segment.keys)
    suspects &= keep
    if suspects.any():
        rows = np.flatnonzero(suspects)
        again[rows] = _in_any(month.segments, ids.gather(rows))
        if policy != "keep-last":
            keep &= ~again
    return Verdict(ids, keys, keep, again)


def distinct(keys: Keys) -> Keys:
    """The keys without repetition, sorted; np.unique hashes, which is slow for millions."""
    ordered = np.sort(keys)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


def repeated(keys: Keys) -> Keys:
    """The keys that come more than once, sorted."""
    ordered = np.sort(keys)
    return distinct(ordered[1:][ordered[1:] == ordered[:-1]])


def contained(keys: Keys, ordered: Keys) -> Mask:
    """(len(keys),) which keys are among `ordered` (sorted)."""
    if not len(ordered) or not len(keys):
        return np.zeros(len(keys), bool)
    if len(keys) > 1000:
        # Looked up in order the search stays in the cache; mostly there is no match, and this is the end of it.
        mine = np.sort(keys)
        at = np.minimum(np.searchsorted(ordered, mine), len(ordered) - 1)
        matched = distinct(mine[ordered[at] == mine])
        if not len(matched):
            return np.zeros(len(keys), bool)
        ordered = matched
    at = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    found: Mask = ordered[at] == keys
    return found


def _in_any(segments: Sequence[Segment], ids: pl.Series) -> Mask:
    found = np.zeros(len(ids), bool)
    for segment in segments:
        left = np.flatnonzero(~found)
        if not len(left):
            break
        found[left] = segment.among(ids.gather(left))
    return found
