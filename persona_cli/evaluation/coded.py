"""Lists as numbers, checked, and where relevant items stand in them: all that a metric needs to know.

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
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.errors import BadData
from persona_cli.models.stored import positions

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


_Number = TypeVar("_Number", bound=np.generic)


def rows_among(users: pl.Series, among: pl.Series) -> Integers:
    """The row of each user among others, -1 where there is none (n_users,)."""
    return np.arange(len(users)) if users.equals(among) else positions(users, among)


def scores_of(lists: pl.DataFrame, coded: Coded) -> Floats | None:
    """The scores in the order of the entries (n_entries,), NaN for a missing one; None where no entry has one.

    NaN given as a score is taken for the lowest there is: two of them tie, a missing score ties with nothing.
    """
    if "score" not in lists.columns or lists["score"].null_count() == lists.height:
        return None
    scores = coded.column(lists["score"].cast(pl.Float64).fill_nan(-np.inf)).to_numpy()
    return np.asarray(scores + 0.0, dtype=np.float64)  # no negative zero


def entries_at(coded: Coded, rows: Integers, ranks: Integers) -> Integers:
    """The entry that each row (>= 0) holds at a rank, which it has (n_asked,)."""
    assert coded.ranks is not None
    entries: Integers = np.minimum(coded.starts[rows] + ranks - 1, len(coded.codes) - 1)
    astray = np.flatnonzero(coded.ranks[entries] != ranks)
    if len(astray):  # some list leaves places empty
        width = int(coded.ranks.max()) + 1
        keys = np.repeat(np.arange(len(coded.users)), coded.lengths) * width + coded.ranks  # ascending
        entries[astray] = np.searchsorted(keys, rows[astray] * width + ranks[astray])
    return entries


def table(coded: Coded, rows: Integers, depth: int, values: NDArray[_Number], empty: Any) -> NDArray[_Number]:
    """`values` (n_entries,) of some rows by rank: (n_rows, depth), `empty` where a list holds nothing at a rank."""
    assert coded.ranks is not None
    lengths = coded.lengths[rows]
    begins = np.cumsum(lengths) - lengths
    entries = np.arange(lengths.sum()) + np.repeat(coded.starts[rows] - begins, lengths)
    row = np.repeat(np.arange(len(rows)), lengths)
    inside = coded.ranks[entries] <= depth
    found = np.full((len(rows), depth), empty, dtype=values.dtype)
    found[row[inside], coded.ranks[entries[inside]] - 1] = values[entries[inside]]
    return found


class Hits(NamedTuple):
    """Hits sorted by user and rank."""

    users: pl.Series
    """Users with at least one relevant item, sorted (n_users,)."""
    relevant: Integers
    """Relevant items of each user, >= 1 (n_users,)."""
    user: Integers
    """Index into `users` of each hit (n_hits,)."""
    rank: Integers
    """Rank of each hit, from 1 (n_hits,)."""

    def per_user(self, weights: NDArray[Any]) -> Floats:
        """Sum of `weights` (n_hits,) over the hits of each user (n_users,)."""
        return np.bincount(self.user, weights=weights, minlength=len(self.users)).astype(np.float64, copy=False)


def find_hits(lists: pl.DataFrame, relevant: pl.DataFrame, depth: int | None = None) -> Hits:
    """Relevant items within the first `depth` ranks of each list (None: the whole lists).

    Raises BadData when a list holds an item or a rank twice, when a relevant pair is given twice, or when an id or a
    rank is missing.
    """
    coded = coded_lists(lists)
    return hits_of(coded, coded_pairs(relevant, coded.items), depth)


def hits_of(lists: Coded, relevant: Coded, depth: int | None = None) -> Hits:
    """`find_hits` of what is coded already; one vocabulary begins with the other."""
    assert lists.ranks is not None
    ranks, n_items = lists.ranks, max(len(lists.items), len(relevant.items))
    rows = rows_among(relevant.users, lists.users)

    def block(users: slice) -> tuple[Integers, Integers]:
        own = rows[users]
        entry, starts = _entries(lists, own)
        shown = _matrix(entry + 1, lists.codes[entry], starts, n_items)
        begin, end = relevant.starts[users.start], relevant.starts[users.stop]
        wanted = _matrix(
            np.ones(end - begin, dtype=np.int64),
            relevant.codes[begin:end],
            relevant.starts[users.start : users.stop + 1] - begin,
            n_items,
        )
        found = shown.multiply(wanted).tocsr()  # (n_block, n_items); places of hits in the lists, from 1
        user = np.repeat(np.arange(users.start, users.stop), np.diff(found.indptr))
        places = found.data - 1
        order = np.lexsort((places, user))
        return user[order], ranks[places[order]]

    found = in_threads(block, blocks(len(relevant.users)))
    none = np.zeros(0, dtype=np.int64)
    user, rank = (np.concatenate([none, *part]) for part in zip(*found, strict=True)) if found else (none, none)
    if depth is not None:
        near = rank <= depth
        user, rank = user[near], rank[near]
    return Hits(relevant.users, relevant.lengths, user, rank)


def _entries(lists: Coded, rows: Integers) -> tuple[Integers, Integers]:
    """Entries of some rows (-1: of none), row by row, and where each row starts among them."""
    there = rows >= 0
    lengths = np.zeros(len(rows), dtype=np.int64)
    lengths[there] = lists.lengths[rows[there]]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    shift = np.where(there, lists.starts[rows], 0) - starts[:-1]
    return np.arange(starts[-1]) + np.repeat(shift, lengths), starts


def _matrix(data: Integers, columns: NDArray[np.int32], starts: Integers, n_items: int) -> sparse.csr_array:
    """Rows as they are: no row holds a column twice, so nothing needs to be sorted."""
    return sparse.csr_array((data, columns, starts.astype(np.int32)), shape=(len(starts) - 1, n_items))


@dataclass(frozen=True)
class Metric:
    """Definition, formula, range, direction and source of one metric, in words for people and documents."""

    definition: str
    formula: str
    """Over a list's first k entries, with the names that the definition uses."""
    range: str
    better: Literal["higher", "lower", "nearer 0"]
    source: str
    """Author, venue and year of the definition; also who computes it alike."""
    of: Callable[..., Any] | None = None
    """The function that computes it: of an accuracy metric `of(hits, k)`, a value for each user (n_users,)."""
    per_user: bool = False
    """The metric is the mean over users of a value that each user has: it can be compared user by user."""
