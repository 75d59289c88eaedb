"""What is asked of models: right answers, known pairs, and the moments between them, by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from persona_cli.errors import MissingInput, UsageError
from persona_cli.evaluation import exams
from persona_cli.evaluation.timelines import some_of, stable_hashes

START = datetime(2026, 1, 1, tzinfo=UTC)


def signal_events(rows: list[tuple[str, str | None, float, float, bool]]) -> pl.DataFrame:
    """Rows of (user, item, hours since the start, strength, consumed); a strength of -99 is "never"."""
    return pl.DataFrame(
        {
            "user_id": [row[0] for row in rows],
            "item_id": pl.Series([row[1] for row in rows], dtype=pl.String),
            "timestamp": pl.Series([START + timedelta(hours=row[2]) for row in rows], dtype=pl.Datetime("us", "UTC")),
            "event_type": "click",
            "value": pl.Series([None] * len(rows), dtype=pl.Float64),
            "device": pl.Series([None] * len(rows), dtype=pl.String),
            "country": pl.Series([None] * len(rows), dtype=pl.String),
            "strength": pl.Series([0 if row[3] == -99 else int(1000 * row[3]) for row in rows], dtype=pl.Int64),
            "never": [row[3] == -99 for row in rows],
            "consumed": [row[4] for row in rows],
        }
    )


def hourly(n: int, user: str = "u") -> list[tuple[str, str | None, float, float, bool]]:
    return [(user, f"i{hour}", hour, 1.0, True) for hour in range(n)]


def test_time_split_asks_for_what_followed_the_cut() -> None:
    exam = exams.by_split(signal_events(hourly(10)), "time", 0.2)
    assert exam.as_of == START + timedelta(hours=8) and exam.split["cut"] == exam.as_of
    assert exam.answers.rows() == [("u", "i8"), ("u", "i9")]
    assert exam.train["timestamp"].max() == START + timedelta(hours=7)
    assert exam.exclude.rows() == [("u", f"i{n}") for n in range(8)]
    assert exam.headline.startswith("time split: trained before 2026-01-01 08:00:00 UTC")


def test_only_wanted_items_that_are_new_are_right_answers() -> None:
    before = [("u", "seen", 0.0, 1.0, True), ("u", "shown", 1.0, 0.0, False), ("u", "blocked", 2.0, -99, False)]
    after = [
        ("u", "seen", 8.0, 1.0, True),
        ("u", "shown", 8.0, 1.0, True),  # an impression before does not make it known
        ("u", "blocked", 8.0, 1.0, True),  # never to be shown again: no list can hold it
        ("u", "disliked", 8.0, -3.0, True),
        ("u", "ignored", 8.0, 0.0, False),
        ("v", "new", 8.0, 0.3, False),
    ]
    exam = exams.by_split(signal_events([*before, ("v", "seen", 3.0, 1.0, True), *after]), "time", 0.6)
    assert exam.answers.rows() == [("u", "shown"), ("v", "new")]
    assert exam.exclude.rows() == [("u", "blocked"), ("u", "seen"), ("v", "seen")]
    assert exam.users.to_list() == ["u", "v"]


def test_events_after_the_cut_change_nothing_that_is_learned() -> None:
    rows = hourly(8) + hourly(8, "v")
    later = [("u", "late", 8.0 + n, 1.0, True) for n in range(4)]
    other = [("v", "other", 8.0 + n, 5.0, False) for n in range(4)]
    one, two = (exams.by_split(signal_events(rows + end), "time", 0.2) for end in (later, other))
    assert one.as_of == two.as_of
    assert one.train.equals(two.train) and one.known.equals(two.known) and one.exclude.equals(two.exclude)
    assert one.answers.rows() == [("u", "late")] and two.answers.rows() == [("v", "other")]


def test_unusable_times_are_said_with_the_reason() -> None:
    rows = [(f"u{u}", f"i{n}", 0.0, 1.0, True) for u in range(3) for n in range(5)]
    exam = exams.by_split(signal_events(rows), "time", 0.2)
    assert exam.split["kind"] == "per-user" and exam.split["cut"] is None
    assert "per-user split" in exam.headline and "one second" in exam.headline
    assert exam.answers.height == 3  # one of five each
    assert exam.as_of == START + timedelta(microseconds=1)


def test_user_split_keeps_held_out_users_out_of_training() -> None:
    rows = [row for u in range(40) for row in hourly(10, f"u{u:02d}")]
    exam = exams.by_split(signal_events(rows), "user", 0.2)
    asked = set(exam.users)
    assert asked and asked.isdisjoint(exam.train["user_id"].unique())
    assert set(exam.known["user_id"].unique()) == asked
    assert exam.known.height == 8 * len(asked) and exam.answers.height == 2 * len(asked)


def test_no_refit_asks_from_the_given_instant_on() -> None:
    events = signal_events(hourly(4))
    exam = exams.by_cut(events, START + timedelta(hours=3), "ease/1")
    assert exam.answers.rows() == [("u", "i3")] and exam.train.height == 3
    assert "ease/1 as trained until 2026-01-01 03:00:00 UTC" in exam.headline
    with pytest.raises(MissingInput, match="no event is later than what ease/1 was trained on"):
        exams.by_cut(events, exams.after(events), "ease/1")


def test_pairs_of_a_file_exclude_everything_ingested() -> None:
    events = signal_events([("u", "a", 0.0, 0.0, False), ("u", "b", 1.0, 1.0, True), ("v", "a", 2.0, 1.0, True)])
    pairs = pl.DataFrame({"user_id": ["u", "u", "u", "stranger"], "item_id": ["c", "c", "a", "a"]})
    exam = exams.by_pairs(events, pairs, "test.csv")
    assert exam.answers.rows() == [("stranger", "a"), ("u", "c")]
    assert exam.exclude.rows() == [("u", "a"), ("u", "b"), ("v", "a")]  # also what was only shown
    assert exam.train.height == 3 and exam.as_of == START + timedelta(hours=2, microseconds=1)
    assert any(note.startswith("1 of the 3 pairs were ingested") for note in exam.notes)
    assert any(note.startswith("1 users of test.csv have no event") for note in exam.notes)
    with pytest.raises(MissingInput, match="holds no pair that was not ingested"):
        exams.by_pairs(events, pairs[2:3], "test.csv")


def test_nothing_to_ask_is_missing_input() -> None:
    with pytest.raises(MissingInput, match="no events with an item"):
        exams.by_split(signal_events([("u", None, 0.0, 1.0, True)]), "time", 0.2)
    with pytest.raises(MissingInput, match="no user has an item there that is new"):
        exams.by_split(signal_events([("u", "a", hour, 1.0, True) for hour in range(10)]), "time", 0.2)
    with pytest.raises(MissingInput, match="no event of interest is left to learn from"):
        exams.by_split(signal_events([("u", f"i{n}", n, 0.0 if n < 8 else 1.0, True) for n in range(10)]), "time", 0.2)


def test_rolling_exams_learn_from_all_before_their_window_and_ask_about_it_alone() -> None:
    one, two = exams.rolling(signal_events(hourly(10)), "time", 0.4, 2)
    assert [exam.answers.rows() for exam in (one, two)] == [[("u", "i6"), ("u", "i7")], [("u", "i8"), ("u", "i9")]]
    assert one.as_of == START + timedelta(hours=6) and two.as_of == START + timedelta(hours=8)
    assert one.asked_from == one.as_of and one.split["cut"] == one.as_of and one.split["end"] == two.as_of
    assert [exam.train.height for exam in (one, two)] == [6, 8]
    assert [exam.exclude.height for exam in (one, two)] == [6, 8]
    assert "cut 1 of 2" in one.headline and one.split["headline"] == one.headline
    assert exams.rolling(signal_events(hourly(10)), "time", 0.4, 1)[0].split == (
        exams.by_split(signal_events(hourly(10)), "time", 0.4).split
    )


def test_what_became_known_in_one_window_is_no_answer_in_the_next() -> None:
    rows = [*hourly(6), *[("u", item, 6.0 + n, 1.0, True) for n, item in enumerate("abac")]]
    one, two = exams.rolling(signal_events(rows), "time", 0.4, 2)
    assert one.answers.rows() == [("u", "a"), ("u", "b")] and two.answers.rows() == [("u", "c")]
    assert ("u", "a") in two.exclude.rows()


def test_rolling_without_usable_times_is_within_users_with_the_reason() -> None:
    rows = [(f"u{u:03d}", f"i{n}", 0.0, 1.0, True) for u in range(60) for n in range(10)]
    rolled = exams.rolling(signal_events(rows), "time", 0.2, 2)
    assert [exam.split["kind"] for exam in rolled] == ["per-user"] * 2
    assert all("one second" in exam.headline for exam in rolled)
    assert sum(exam.answers.height for exam in rolled) == 120
    with pytest.raises(UsageError, match="a user split has no windows in time"):
        exams.rolling(signal_events(rows), "user", 0.2, 2)
    with pytest.raises(UsageError, match="did you mean 'time'"):
        exams.rolling(signal_events(rows), "tine", 0.2, 2)
    with pytest.raises(MissingInput, match="no user has an item there that is new"):
        exams.rolling(
            signal_events([*hourly(8), ("u", "i0", 9.0, 1.0, True), ("u", "i9", 10.0, 1.0, True)]), "time", 0.2, 2
        )


def test_a_random_exam_knows_the_future_and_says_so() -> None:
    rows = [row for u in range(20) for row in hourly(10, f"u{u:02d}")]
    exam = exams.by_split(signal_events(rows), "random", 0.2)
    assert "the future" in exam.headline and exam.split["kind"] == "random" and exam.split["cut"] is None
    assert exam.as_of == exams.after(exam.train) and exam.train.height + exam.answers.height == 200
    assert exam.train["timestamp"].max() == START + timedelta(hours=9)
    assert exam.asked_from is not None and exam.asked_from < START + timedelta(hours=5)


def test_beginnings_are_of_users_who_came_after_the_cut() -> None:
    late = [("late", f"i{n}", 8.0 + n / 10, 1.0, True) for n in range(4)] + [("late", "i0", 8.5, 1.0, True)]
    events = signal_events([*hourly(8), *hourly(8, "v"), ("u", "i9", 9.5, 1.0, True), *late])
    exam = exams.by_split(events, "time", 0.25)
    assert exam.as_of == START + timedelta(hours=8)
    same, new = exams.with_beginnings(exam, events, (1, 3), 10)
    assert same is exam and new is not None
    assert new.train is exam.train
    assert new.users.to_list() == ["1 late", "3 late"]
    first = new.known.filter(pl.col("user_id") == "3 late").sort("timestamp")["item_id"].to_list()
    assert first == ["i0", "i1", "i2"]
    assert new.answers.rows() == [("1 late", "i1"), ("1 late", "i2"), ("1 late", "i3"), ("3 late", "i3")]
    assert new.exclude.filter(pl.col("user_id") == "1 late").rows() == [("1 late", "i0")]
    assert exams.with_beginnings(exam, events, (9,), 10)[1] is None, "nobody has so many events"


def test_beginnings_without_a_cut_are_of_users_taken_out_of_the_exam() -> None:
    events = signal_events([one for user in range(1000) for one in hourly(10, f"u{user}")])
    exam = exams.by_split(events, "per-user", 0.2)
    rest, new = exams.with_beginnings(exam, events, (2,), 500)
    assert new is not None
    out = new.users.str.strip_prefix("2 ")
    assert len(out) == 100, "a tenth of all"
    for frame in (rest.train, rest.answers, rest.exclude, new.train):
        assert not frame["user_id"].is_in(out.implode()).any()
    assert rest.train["user_id"].n_unique() == 900 and rest.known is rest.train
    assert new.known.height == 200 and new.answers.height == 800
    again = exams.with_beginnings(exam, events.reverse(), (2,), 500)[1]
    assert again is not None and again.answers.equals(new.answers)
    few = events.filter(pl.col("user_id").str.len_chars() < 4)  # 100 users: a tenth of them decides nothing
    small = exams.by_split(few, "per-user", 0.2)
    assert exams.with_beginnings(small, few, (2,), 500) == (small, None)


def test_some_users_are_those_with_the_smallest_hashes_in_order() -> None:
    ids = pl.Series("user_id", [f"u{n:03d}" for n in range(200)])
    hashes = stable_hashes(ids, "salt")
    few = some_of(ids, 20, "salt")
    assert few.to_list() == ids.filter(pl.Series(hashes <= np.sort(hashes)[19])).to_list()
    assert len(few) == 20 and set(few) < set(some_of(ids, 50, "salt"))
    assert some_of(ids, 200, "salt") is ids
