"""Lists as numbers, checked: a row for each user, whole numbers for items, ranks in order.

    lists      user_id String, item_id String, rank integer from 1, score Float; an item and a rank once per user
    relevant   user_id String, item_id String, unique: what each user was found to want in the test part

Text is compared once, when it is coded; everything after that is on codes. Codes are exact: equal ids have equal codes
and different ids different ones. Frames whose rows stand user by user, users and ranks ascending, are taken as they
are; rows in any other order are put into that order first, so that no figure depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import BadData
from persona_cli.models.vocabulary import positions

Integers = NDArray[np.int64]
Codes = NDArray[np.int32]
Floats = NDArray[np.float64]
_Part = TypeVar("_Part")
_Done = TypeVar("_Done")

BLOCK = 20_000
"""Users that are worked on at once by a thread."""
_KEYS = 2**32


@dataclass(frozen=True)
class Coded:
    """Entries of users, user by user: those of row u are at starts[u]:starts[u + 1]."""

    users: pl.Series
    """user_id with at least one entry, sorted (n_users,)."""
    starts: Integers
    """(n_users + 1,)."""
    items: pl.Series
    """item_id of each code: the vocabulary given, then what it lacks, sorted (n_items,)."""
    codes: Codes
    """Place of each entry's item in `items` (n_entries,)."""
    ranks: Integers | None = None
    """Rank of each entry, ascending within a row (n_entries,); None for pairs without ranks."""
    order: Integers | None = field(default=None, repr=False)
    """Row of the frame that each entry was (n_entries,); None: entry i was row i."""

    @property
    def lengths(self) -> Integers:
        """Entries of each row (n_users,)."""
        return np.diff(self.starts)

    def column(self, values: pl.Series) -> pl.Series:
        """Another column of the frame that was coded, its values in the order of the entries (n_entries,)."""
        return values if self.order is None else values.gather(self.order)

    def shown(self, k: int, n_items: int | None = None) -> Integers:
        """How often each item stands in a first k: (n_items,), by default of all `items`."""
        assert self.ranks is not None
        total = np.zeros(max(len(self.items), n_items or 0), dtype=np.int64)
        for start, stop in pairwise(_edges(len(self.codes), 2**20)):
            first = self.codes[start:stop][self.ranks[start:stop] <= k]
            total += np.bincount(first, minlength=len(total))
        return total

    def means(self, values: Floats, k: int) -> tuple[Integers, Floats]:
        """Mean of `values` (n_items,) over each list's first k: rows that have an entry there, and their means.

        Sums are taken in the order of ranks: the same rows in any order give the same bits.
        """
        assert self.ranks is not None
        ranks, starts = self.ranks, self.starts

        def block(rows: slice) -> tuple[Integers, Floats]:
            begin, end = starts[rows.start], starts[rows.stop]
            counted = ranks[begin:end] <= k
            worth = np.where(counted, values[self.codes[begin:end]], 0.0)
            inside = starts[rows.start : rows.stop] - begin
            return np.add.reduceat(counted, inside, dtype=np.int64), np.add.reduceat(worth, inside)

        found = in_threads(block, blocks(len(self.users)))
        if not found:
            return np.zeros(0, dtype=np.int64), np.zeros(0)
        counts, sums = (np.concatenate(part) for part in zip(*found, strict=True))
        rows = np.flatnonzero(counts)
        return rows, sums[rows] / counts[rows]


def coded_lists(lists: pl.DataFrame, vocabulary: pl.Series | None = None) -> Coded:
    """`lists` as numbers; `vocabulary` are distinct items that take the first codes.

    Raises BadData when a list holds an item or a rank twice, or when an id or a rank is missing or of a wrong type.
    """
    check_lists(lists)
    below = 0 if not lists.height or lists["rank"].min() >= 1 else lists.filter(pl.col("rank") < 1).height  # type: ignore[operator]
    if below:
        raise BadData(f"the lists hold {below} entries with a rank below 1; ranks start from 1")
    return _coded(lists, "the lists", vocabulary, lists["rank"].to_numpy().astype(np.int64, copy=False))


def coded_pairs(relevant: pl.DataFrame, vocabulary: pl.Series | None = None) -> Coded:
    """`relevant` as numbers, without ranks. Raises BadData when a pair is given twice or an id is missing."""
    check_frame(relevant, "the relevant pairs", {"user_id": pl.String, "item_id": pl.String})
    return _coded(relevant, "the relevant pairs", vocabulary, None)


def check_lists(lists: pl.DataFrame) -> None:
    """Raise BadData where `lists` lacks a column, an id or a rank, or holds one of a wrong type."""
    check_frame(lists, "the lists", {"user_id": pl.String, "item_id": pl.String, "rank": None})
    if not lists.schema["rank"].is_integer():
        raise BadData(f"the lists have ranks of type {lists.schema['rank']}; expected whole numbers from 1")


def check_frame(frame: pl.DataFrame, name: str, columns: dict[str, type[pl.DataType] | None]) -> None:
    """Raise BadData where a column is missing, not of its type, or empty in some row (`score` may be)."""
    for column, dtype in columns.items():
        if column not in frame.columns:
            raise BadData(f"{name} have no column {column!r}; seen: {', '.join(frame.columns) or 'none'}")
        if dtype is not None and frame.schema[column] != dtype:
            raise BadData(f"{name} have {column} of type {frame.schema[column]}; ids are text")
        if column != "score" and (missing := frame[column].null_count()):
            raise BadData(f"{name} hold {missing} rows without {column}")


def in_threads(work: Callable[[_Part], _Done], parts: Iterable[_Part]) -> list[_Done]:
    """`work` done on every part, answers in the order of the parts, whatever the number of threads."""
    with ThreadPoolExecutor(pl.thread_pool_size(), thread_name_prefix="judge") as pool:
        return list(pool.map(work, parts))


def blocks(n_rows: int, size: int = BLOCK) -> list[slice]:
    """Rows in blocks of at most `size`."""
    return [slice(start, stop) for start, stop in pairwise(_edges(n_rows, size))]


def _edges(n: int, size: int) -> list[int]:
    return [*range(0, n, size), n]


def _coded(frame: pl.DataFrame, name: str, vocabulary: pl.Series | None, ranks: Integers | None) -> Coded:
    codes, items = _codes(frame["item_id"], vocabulary)
    users, rows, starts = _rows(frame["user_id"])
    order = None
    ordered = ranks is None or (rows is None and _ascending(ranks, starts))
    if rows is not None or not ordered:
        if rows is None:
            rows = np.repeat(np.arange(len(users)), np.diff(starts))
        order = np.lexsort((codes if ranks is None else ranks, rows))
        codes = codes[order]
        ranks = None if ranks is None else ranks[order]
        starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(users)))])
    found = Coded(users, starts, items, codes, ranks, order)
    if _twice(found):
        _refuse(frame, "item_id", name)
    if ranks is not None and not (ordered or _ascending(ranks, starts)):
        _refuse(frame, "rank", name)
    return found


def _codes(ids: pl.Series, vocabulary: pl.Series | None) -> tuple[Codes, pl.Series]:
    """Code of each id, and the vocabulary with what it lacked."""
    parts = [ids.slice(start, stop - start) for start, stop in pairwise(_edges(len(ids), _share(len(ids))))]
    if vocabulary is None or not len(vocabulary):
        distinct = in_threads(lambda part: part.unique(), parts) or [pl.Series(dtype=pl.String)]
        vocabulary = pl.concat(distinct).unique().sort()
    known = pl.Enum(vocabulary)

    def code(part: pl.Series) -> Codes:
        found = part.cast(known, strict=False).to_physical().cast(pl.Int32).fill_null(-1).to_numpy()
        return np.asarray(found, dtype=np.int32)

    codes = np.concatenate([np.zeros(0, dtype=np.int32), *in_threads(code, parts)])
    unknown = np.flatnonzero(codes < 0)
    if not len(unknown):
        return codes, vocabulary.rename("item_id")
    lacking = ids.gather(unknown)
    extra = lacking.unique().sort()
    codes[unknown] = len(vocabulary) + positions(lacking, extra)
    return codes, pl.concat([vocabulary.rename("item_id"), extra.rename("item_id")])


def _share(n: int) -> int:
    """Rows of one part where every thread takes one; handing over a vocabulary costs as much as coding many rows."""
    return max(100_000, -(-n // pl.thread_pool_size()))


def _rows(users: pl.Series) -> tuple[pl.Series, Integers | None, Integers]:
    """Distinct users sorted, the row of each entry (None: entries are in that order), where each row starts."""

    def heads(part: slice) -> Integers:
        own = users.slice(part.start, part.stop - part.start)
        before = users.slice(part.start - 1, part.stop - part.start)
        found: Integers = np.flatnonzero((own != before).to_numpy()) + part.start
        return found

    n = len(users)
    after = in_threads(heads, [slice(s + 1, e + 1) for s, e in pairwise(_edges(max(n - 1, 0), _share(n)))])
    first = np.concatenate([np.arange(min(n, 1)), *after])
    runs = users.gather(first).rename("user_id")
    if n == 0 or bool((runs.slice(1) > runs.slice(0, len(runs) - 1)).all()):
        return runs, None, np.append(first, n)
    distinct = runs.unique().sort()
    rows = np.repeat(positions(runs, distinct), np.diff(np.append(first, n)))
    return distinct, rows, first


def _ascending(ranks: Integers, starts: Integers) -> bool:
    """Whether ranks grow within every row."""
    grows = np.append(ranks[1:] > ranks[:-1], True)
    grows[starts[1:] - 1] = True
    return bool(grows.all())


def _twice(entries: Coded) -> bool:
    """Whether some row holds an item twice."""
    starts, n_items = entries.starts, len(entries.items)

    def block(rows: slice) -> bool:
        keys = np.repeat(
            np.arange(rows.stop - rows.start, dtype=np.uint32), np.diff(starts[rows.start : rows.stop + 1])
        )
        keys *= np.uint32(n_items)
        keys += entries.codes[starts[rows.start] : starts[rows.stop]].view(np.uint32)
        keys.sort()
        return bool((keys[1:] == keys[:-1]).any())

    return any(in_threads(block, blocks(len(entries.users), max(1, min(BLOCK, (_KEYS - 1) // max(n_items, 1))))))


def _refuse(frame: pl.DataFrame, column: str, name: str) -> None:
    counts = frame.group_by("user_id", column).len().filter(pl.col("len") > 1)
    first = counts.sort("user_id", column).row(0, named=True)
    raise BadData(
        f"{name} hold {column} {first[column]!r} {first['len']} times for user {first['user_id']!r}; expected once"
    )
