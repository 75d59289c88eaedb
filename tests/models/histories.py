"""Small histories, and what the models make of them computed densely from the definitions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
from hypothesis import strategies as st
from scipy import sparse

from persona_cli.models.base import Histories, Training
from persona_cli.models.gram import build_gram
from persona_cli.models.interactions import Interactions, interactions, rows_for, seen_for
from persona_cli.models.wishes import Wishes
from persona_cli.workspace.settings import Settings, load

DEFAULTS = load(None, {})
FIRST_DAY = date(2026, 1, 1)
AS_OF = datetime(2026, 3, 1, tzinfo=UTC)
SCHEMA = {
    "user_id": pl.String,
    "item_id": pl.String,
    "day": pl.Date,
    "strength": pl.Int64,
    "n": pl.Int32,
    "consumed": pl.Int32,
    "never": pl.Int32,
    "rated": pl.Int64,
    "ratings": pl.Int32,
}
# (user, item, day, thousandths, never)
Entry = tuple[int, int, int, int, bool]


def history(entries: list[Entry]) -> pl.DataFrame:
    """History rows, sorted as the table answers them; entries of one key are summed."""
    rows = [
        (f"u{user}", f"i{item}", FIRST_DAY + timedelta(day), strength, 1, 1, int(never), 0, 0)
        for user, item, day, strength, never in entries
    ]
    keys = ["user_id", "item_id", "day"]
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return frame.group_by(keys).agg(pl.all().sum()).select(*SCHEMA).sort(keys)


def entries(max_users: int = 8, max_items: int = 8) -> st.SearchStrategy[list[Entry]]:
    entry = st.tuples(
        st.integers(0, max_users - 1),
        st.integers(0, max_items - 1),
        st.integers(0, 400),
        st.integers(-3000, 6000),
        st.sampled_from([False] * 9 + [True]),
    )
    return st.lists(entry, max_size=40)


def matrix(rows: list[Entry], settings: Settings = DEFAULTS) -> Interactions:
    return interactions(history(rows), settings)


def liked(pairs: list[tuple[int, int]]) -> list[Entry]:
    """One event of strength 1 a (user, item) pair, all on one day."""
    return [(user, item, 0, 1000, False) for user, item in pairs]


def training(rows: list[Entry], settings: Settings = DEFAULTS, as_of: datetime = AS_OF) -> Training:
    made = matrix(rows, settings)
    counts = history(rows).group_by("item_id", "day").agg(n=pl.col("n").sum().cast(pl.Int64)).sort("item_id", "day")
    unknown = [pl.lit(None, dtype=pl.String).alias(name) for name in ("device", "country")]
    return Training(
        made,
        build_gram(made, settings),
        counts.with_columns(unknown).select("item_id", "day", "device", "country", "n"),
        as_of,
    )


def histories(made: Interactions, vocabulary: pl.Series, settings: Settings = DEFAULTS) -> Histories:
    nowhere = pl.DataFrame(
        {name: [None] * len(made.users) for name in ("device", "country")},
        schema_overrides={"device": pl.String, "country": pl.String},
    )
    return Histories(rows_for(made, vocabulary, settings), made.events, nowhere)


def dense_gram(rows: np.ndarray) -> np.ndarray:
    """Σ q qᵀ in Python's own integers (n_items, n_items)."""
    return (rows.astype(object).T @ rows.astype(object)).astype(object)


def with_signals(rows: list[tuple[str, str, datetime]], **given: pl.Expr) -> pl.DataFrame:
    """Events (user, item, instant) as `signal_events` has them: of strength 1 and consumed, unless given."""
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Datetime("us", "UTC")}
    events = pl.DataFrame(rows, schema=schema, orient="row")
    usual = {
        "device": pl.lit(None, dtype=pl.String),
        "country": pl.lit(None, dtype=pl.String),
        "strength": pl.lit(1000, dtype=pl.Int64),
        "never": pl.lit(False),
        "consumed": pl.lit(True),
    }
    return events.with_columns(**(usual | given))


@dataclass(frozen=True)
class Everyone:
    """All users of a matrix, to be given lists; `wishes` are what they said."""

    matrix: Interactions
    wishes: Wishes | None = None

    @property
    def users(self) -> pl.Series:
        return self.matrix.users

    def histories(self, vocabulary: pl.Series, settings: Settings) -> Histories:
        return histories(self.matrix, vocabulary, settings)

    def excluded(self, vocabulary: pl.Series) -> sparse.csr_array:
        return seen_for(self.matrix, vocabulary)
