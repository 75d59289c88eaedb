"""The order of each user's events, the same for every order of rows.

Events are ordered by time, then (where asked for) by the `order` column, then by a stable hash of (user, item): the
item's id, or a hash of it alone, would put the same items last in every user's ties; a hash of the pair favours none.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import BadData
from persona_cli.profiles.draws import STEP, hashed, mixed

Integers = NDArray[np.int64]
Hashes = NDArray[np.uint64]

NO_ITEM = -1


class Timeline(NamedTuple):
    """Where each event stands among its user's events."""

    users: pl.Series
    """Distinct users (n_users,)."""
    user: Integers
    """Index into `users` of each row (n_rows,)."""
    place: Integers
    """Events with an item that the user has strictly before this row (n_rows,); equal events share a place."""
    counts: Integers
    """Events with an item of each user (n_users,)."""


def timeline(events: pl.DataFrame, by_order: bool = False) -> Timeline:
    """Timeline of events (user_id, item_id or null, timestamp, and `order` where `by_order`)."""
    times = times_of(events)
    users, user = _coded(events["user_id"])
    items, item = _coded(events["item_id"])
    item_hashes = np.append(stable_hashes(items), np.uint64(0))[item]  # (n_rows,), NO_ITEM reads the last
    keys = {"user": user, "time": times, "tie": _mixed(stable_hashes(users)[user], item_hashes)}
    if by_order:
        keys["order"] = events["order"].cast(pl.Int64).fill_null(-1).to_numpy()
    by = ["user", "time", "order", "tie"] if by_order else ["user", "time", "tie"]
    ordered = pl.DataFrame({**keys, "has_item": item != NO_ITEM}).with_row_index("row").sort(by)

    n_rows = ordered.height
    # Events that agree in every key stand together and take the place of the first of them.
    new = np.zeros(n_rows, dtype=bool)
    for key in by:
        column = ordered[key].to_numpy()
        new[1:] |= column[1:] != column[:-1]
    first = np.maximum.accumulate(np.where(new, np.arange(n_rows), 0))  # (n_rows,)
    owner, has_item = ordered["user"].to_numpy(), ordered["has_item"].to_numpy()
    before = np.cumsum(has_item) - has_item  # events with an item in the rows above, of all users (n_rows,)
    starts = np.searchsorted(owner, np.arange(len(users)))  # (n_users,)
    place = np.empty(n_rows, dtype=np.int64)
    place[ordered["row"].to_numpy()] = before[first] - before[starts][owner]
    return Timeline(users, user, place, np.bincount(owner[has_item], minlength=len(users)))


def times_of(events: pl.DataFrame) -> Integers:
    """Microseconds since 1970 UTC of each row (n_rows,); a time without a zone is read as UTC."""
    if not isinstance(events.schema["timestamp"], pl.Datetime):
        raise BadData(f"the events have timestamps of type {events.schema['timestamp']}; expected Datetime")
    for column in ("user_id", "timestamp"):
        if missing := events[column].null_count():
            raise BadData(f"{missing} events have no {column}; expected one in every event")
    return events["timestamp"].dt.cast_time_unit("us").to_physical().to_numpy()


def stable_hashes(ids: pl.Series, salt: str = "") -> Hashes:
    """Keyed blake2b of each id, 64 bits (n_ids,): the same in every version and on every machine."""
    return hashed(ids, hashlib.blake2b(salt.encode(), digest_size=32).digest())[:, 0]


def some_of(ids: pl.Series, most: int, salt: str) -> pl.Series:
    """At most so many of distinct, sorted `ids`, sorted: those with the smallest hashes, so the same whenever asked."""
    if len(ids) <= most:
        return ids
    return ids.gather(np.sort(np.argsort(stable_hashes(ids, salt), kind="stable")[:most]))


def pair_hashes(events: pl.DataFrame, salt: str = "") -> Hashes:
    """A stable hash of (user, item) of each row (n_rows,); what it is where the item is null says nothing."""
    users, user = _coded(events["user_id"])
    items, item = _coded(events["item_id"])
    item_hashes = np.append(stable_hashes(items), np.uint64(0))[item]
    return _mixed(stable_hashes(users, salt)[user], item_hashes)


def _coded(ids: pl.Series) -> tuple[pl.Series, Integers]:
    """Distinct ids, and the index of each row into them: NO_ITEM where null."""
    if ids.dtype != pl.String:
        raise BadData(f"the events have {ids.name} of type {ids.dtype}; ids are text")
    distinct = ids.drop_nulls().unique().rename("id")
    table = distinct.to_frame().with_row_index("code")
    codes = ids.rename("id").to_frame().join(table, on="id", how="left", maintain_order="left")["code"]
    return distinct, codes.cast(pl.Int64).fill_null(NO_ITEM).to_numpy()


def _mixed(left: Hashes, right: Hashes) -> Hashes:
    """One well mixed 64-bit value of two."""
    return mixed(left * STEP + right)
