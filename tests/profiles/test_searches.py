from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from persona_cli.profiles.history import RECENT, recent_queries

START = datetime(2026, 1, 1, tzinfo=UTC)
SCHEMA = {"user_id": pl.String, "timestamp": pl.Datetime("us", "UTC"), "query": pl.String}


def searched(*rows: tuple[str, int, str | None]) -> pl.DataFrame:
    return pl.DataFrame(
        [(user, START + timedelta(hours=hour), text) for user, hour, text in rows], SCHEMA, orient="row"
    )


def test_the_latest_different_queries_one_a_line() -> None:
    events = searched(
        ("u", 0, "lion"),
        ("u", 1, " late \n payers "),
        ("u", 2, None),
        ("u", 3, "lion"),
        ("v", 0, "  "),
        ("w", 1, "tea"),
    )
    assert recent_queries(events, pl.Series(["x", "v", "u"])).to_list() == [None, None, "lion\nlate payers"]


def test_older_ones_than_the_last_ten_are_not_read() -> None:
    events = searched(*[("u", hour, f"q{hour:02d}") for hour in range(RECENT + 5)], ("u", 99, "q00"))
    told = recent_queries(events, pl.Series(["u"]))[0].split("\n")
    assert told == ["q00", *[f"q{hour:02d}" for hour in range(RECENT + 4, 5, -1)]]


def test_nobody_and_nothing() -> None:
    assert recent_queries(searched(), pl.Series(["u"])).to_list() == [None]
    assert recent_queries(searched(("u", 0, "lion")), pl.Series([], dtype=pl.String)).to_list() == []


@given(
    st.lists(st.tuples(st.sampled_from("uv"), st.integers(0, 5), st.sampled_from(["a", "b", "c d", None]))), st.data()
)
def test_the_order_of_rows_does_not_matter(rows: list[tuple[str, int, str | None]], data: st.DataObject) -> None:
    users = pl.Series(["u", "v"])
    shuffled = data.draw(st.permutations(rows))
    assert recent_queries(searched(*rows), users).equals(recent_queries(searched(*shuffled), users), null_equal=True)
