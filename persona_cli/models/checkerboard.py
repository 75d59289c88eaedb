"""A small world with a known answer, for trying models on: who liked what, what items are like, and who is asked.

The checkerboard: users and items are even or odd, and users like items of their own kind only, all but the one of
their own number. Whoever has learned anything of users recommends that one. The catalogue says of which kind items are.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import polars as pl
from scipy import sparse

from persona_cli.events.schema import stored_schema
from persona_cli.models.base import Histories, Model, Training
from persona_cli.models.interactions import interactions, rows_for, seen_for, times_for, with_times
from persona_cli.models.preparing import prepare
from persona_cli.models.stored import with_rows
from persona_cli.profiles.history import fold_history
from persona_cli.workspace.settings import Settings, load

Pairs = list[tuple[int, int]]

SETTINGS = load(None, {})
N = 24
CHECKERBOARD: Pairs = [(u, i) for u in range(N) for i in range(N) if u % 2 == i % 2 and u != i]
# Another world, with fewer items: even users like low numbers.
OTHER: Pairs = [(u, i) for u in range(N) for i in range(10) if (u % 2 == 0) == (i < 5) and (u + i) % 3]
AS_OF = datetime(2026, 6, 1, tzinfo=UTC)
_FIRST = datetime(2026, 1, 1, 9, tzinfo=UTC)


def events_of(pairs: Pairs) -> pl.DataFrame:
    """One click a pair, of user u on item i on day i, as `profiles.history.signal_events` answers events."""
    rows = [
        (f"u{u:02d}", f"i{i:02d}", _FIRST + timedelta(days=i, minutes=u), "click", "mobile" if u < N // 2 else "web")
        for u, i in pairs
    ]
    columns = ["user_id", "item_id", "timestamp", "event_type", "device"]
    return pl.DataFrame(rows, schema=columns, orient="row").with_columns(
        pl.col("timestamp").cast(pl.Datetime("us", "UTC")),
        value=pl.lit(None, dtype=pl.Float64),
        country=pl.lit(None, dtype=pl.String),
        strength=pl.lit(1000, dtype=pl.Int64),
        never=pl.lit(False),
        consumed=pl.lit(True),
    )


def catalogue_of(n_items: int) -> pl.DataFrame:
    """Items i00, i01 and so on, described by their kind."""
    rows = [
        {
            "item_id": f"i{i:02d}",
            "title": f"{kind} number {i}",
            "category": kind,
            "tags": [kind, "number"],
            "text": f"one of all those that are {kind}",
            "price": 10.0 + i % 2,
            "available": True,
            "published_at": _FIRST - timedelta(days=1),
        }
        for i in range(n_items)
        for kind in ["odd" if i % 2 else "even"]
    ]
    empty = pl.Schema(stored_schema("items")).to_frame()
    return pl.DataFrame(rows, schema=empty.schema)


@cache
def _training(pairs: tuple[tuple[int, int], ...], n_items: int) -> Training:
    return prepare(events_of(list(pairs)), SETTINGS, AS_OF, catalogue=catalogue_of(n_items), ordered=True)


def training(pairs: Pairs, n_items: int = N + 1) -> Training:
    """All that a model may learn from these pairs and a catalogue of so many items (the last of which nobody has)."""
    return _training(tuple(pairs), n_items)


class Audience:
    """The users of these pairs, as `models.ranking` asks for them; the first half of users has a known device."""

    def __init__(self, pairs: Pairs) -> None:
        events = events_of(pairs)
        self._matrix = with_times(interactions(fold_history(events), SETTINGS), events)
        self.users = self._matrix.users

    def histories(self, vocabulary: pl.Series, settings: Settings = SETTINGS) -> Histories:
        context = pl.DataFrame(
            {
                "device": ["mobile" if user < f"u{N // 2}" else None for user in self.users],
                "country": [None] * len(self.users),
            },
            schema={"device": pl.String, "country": pl.String},
        )
        matrix = self._matrix
        rows = rows_for(matrix, vocabulary, settings)
        return Histories(rows, matrix.events, context, times_for(matrix, vocabulary))

    def excluded(self, vocabulary: pl.Series) -> sparse.csr_array:
        return seen_for(self._matrix, vocabulary)


def asked(model: Model, pairs: Pairs = CHECKERBOARD) -> Histories:
    """The users of these pairs over the model's vocabulary."""
    return Audience(pairs).histories(model.items)


def nobody(who: Histories) -> Histories:
    """The same users without their history."""
    none = np.full(len(who.events), -1, dtype=np.int64)
    times = None if who.times is None else with_rows(who.times, none)
    return Histories(with_rows(who.rows, none), who.events * 0, who.context, times)


def at(who: Histories, places: list[int]) -> Histories:
    """The users at these places, in this order."""
    rows = np.array(places, dtype=np.int64)
    times = None if who.times is None else with_rows(who.times, rows)
    return Histories(with_rows(who.rows, rows), who.events[rows], who.context[places], times)
