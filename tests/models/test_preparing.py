"""From events to a Training: popularity by hand, and nothing that depends on the order of rows."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl

from persona_cli.models.gram import build_gram
from persona_cli.models.preparing import popularity, prepare
from persona_cli.workspace.settings import load

START = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = load(None, {})


def events_of(rows: list[tuple[str, str | None, float, int, bool, str | None]]) -> pl.DataFrame:
    """Rows of (user, item, hours, thousandths, never, device)."""
    return pl.DataFrame(
        {
            "user_id": [row[0] for row in rows],
            "item_id": pl.Series([row[1] for row in rows], dtype=pl.String),
            "timestamp": pl.Series([START + timedelta(hours=row[2]) for row in rows], dtype=pl.Datetime("us", "UTC")),
            "strength": pl.Series([row[3] for row in rows], dtype=pl.Int64),
            "never": [row[4] for row in rows],
            "consumed": [True] * len(rows),
            "device": pl.Series([row[5] for row in rows], dtype=pl.String),
            "country": pl.Series([None] * len(rows), dtype=pl.String),
        }
    )


EVENTS = events_of(
    [
        ("u", "a", 0, 1000, False, "phone"),
        ("u", "a", 1, 1000, False, "phone"),
        ("v", "a", 2, 1000, False, None),
        ("v", "a", 30, 1000, False, "phone"),
        ("v", "shown", 3, 0, False, "phone"),
        ("v", "hated", 4, -3000, False, "phone"),
        ("w", "blocked", 5, 0, True, "phone"),
        ("w", None, 6, 1000, False, "phone"),
        ("w", "b", 7, 300, False, "phone"),
    ]
)


def test_popularity_counts_what_was_wanted_by_day_and_context() -> None:
    assert popularity(EVENTS).rows() == [
        ("a", date(2026, 1, 1), None, None, 1),
        ("a", date(2026, 1, 1), "phone", None, 2),
        ("a", date(2026, 1, 2), "phone", None, 1),
        ("b", date(2026, 1, 1), "phone", None, 1),
    ]
    assert popularity(EVENTS.clear()).schema == popularity(EVENTS).schema


def test_training_does_not_depend_on_the_order_of_rows() -> None:
    one = prepare(EVENTS, SETTINGS, START)
    other = prepare(EVENTS.sample(fraction=1.0, shuffle=True, seed=3), SETTINGS, START)
    assert one.gram.digest() == other.gram.digest() and one.popularity.equals(other.popularity)
    assert one.interactions.strengths.toarray().tolist() == other.interactions.strengths.toarray().tolist()
    assert one.interactions.users.to_list() == ["u", "v", "w"] and one.as_of == START
    assert set(one.gram.items) == {"a", "b"}


def test_a_gram_that_is_kept_is_taken_as_it_is() -> None:
    gram = build_gram(prepare(EVENTS[:2], SETTINGS, START).interactions, SETTINGS)
    assert prepare(EVENTS, SETTINGS, START, gram).gram is gram
