"""Splits by hand: what falls on which side, what is tested, and when a global cut is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from persona_cli.errors import BadData, MissingInput, UsageError
from persona_cli.evaluation import splits
from persona_cli.evaluation.splits import Split

START = datetime(2026, 1, 1, tzinfo=UTC)


def events_of(rows: list[tuple[str, str | None, float]], **columns: list[object]) -> pl.DataFrame:
    """Events from (user, item, hours since the start)."""
    return pl.DataFrame(
        {
            "user_id": pl.Series([user for user, _, _ in rows], dtype=pl.String),
            "item_id": pl.Series([item for _, item, _ in rows], dtype=pl.String),
            "timestamp": pl.Series(
                [START + timedelta(hours=hours) for _, _, hours in rows], dtype=pl.Datetime("us", "UTC")
            ),
            **columns,
        }
    )


def spread(n_users: int, n_events: int, hours: float = 24.0) -> pl.DataFrame:
    """Every user has one event every `hours`, each of a new item."""
    return events_of([(f"u{u:03d}", f"i{e}", e * hours) for u in range(n_users) for e in range(n_events)])


def test_time_cut_tests_the_last_fifth() -> None:
    events = events_of([("u", f"i{n}", n) for n in range(10)])
    split = splits.time_cut(events)
    assert split.cut == START + timedelta(hours=8)
    assert split.kind == "time" and split.reason is None
    assert "2026-01-01 08:00:00 UTC" in split.headline and "20 %" in split.headline
    parts = splits.apply(split, events)
    assert parts.train["item_id"].to_list() == [f"i{n}" for n in range(8)]
    assert parts.known.equals(parts.train)
    assert parts.test.rows() == [("u", "i8"), ("u", "i9")]


def test_events_at_the_cuts_instant_are_all_tested() -> None:
    events = events_of([("u", f"i{n}", min(n, 5)) for n in range(10)])  # five events at hour 5 and after
    split = splits.time_cut(events)
    assert split.cut == START + timedelta(hours=5)
    assert splits.sides(split, events).to_list() == ["train"] * 5 + ["test"] * 5


def test_a_crowded_first_instant_is_left_to_train_on() -> None:
    events = events_of([("u", f"i{n}", max(0, n - 8)) for n in range(10)])  # nine events at hour 0, one at hour 1
    split = splits.time_cut(events)
    assert split.cut == START + timedelta(hours=1)
    assert splits.sides(split, events).to_list() == ["train"] * 9 + ["test"]
    with pytest.raises(BadData, match="all 3 events have the time 2026-01-01 00:00:00 UTC"):
        splits.time_cut(events_of([("u", "a", 0), ("v", "a", 0), ("w", "b", 0)]))


def test_times_of_other_units_and_zones_give_the_same_cut() -> None:
    events = events_of([("u", f"i{n}", n) for n in range(10)])
    utc = pl.col("timestamp")
    for other in (
        events.with_columns(utc.dt.convert_time_zone("America/New_York")),
        events.with_columns(utc.dt.replace_time_zone(None)),
        events.with_columns(utc.dt.cast_time_unit("ms")),
    ):
        assert splits.time_cut(other) == splits.time_cut(events)
        assert splits.apply(splits.time_cut(events), other).test.height == 2


def test_known_pairs_and_repeats_are_not_tested_and_events_without_an_item_follow_their_time() -> None:
    events = events_of(
        [
            *[("u", "a", 0), ("u", None, 1), ("u", "b", 2), ("v", "a", 3)],
            *[("u", "a", 9), ("u", "c", 9), ("u", "c", 10), ("u", None, 11), ("v", "b", 12)],
        ]
    )
    parts = splits.apply(Split("time", START + timedelta(hours=9), "by hand"), events)
    assert parts.test.rows() == [("u", "c"), ("v", "b")]
    assert parts.train.height == 4 and parts.train["item_id"].null_count() == 1


def test_relevant_and_consumed_events_decide_what_is_a_right_answer() -> None:
    rows: list[tuple[str, str | None, float]] = [
        ("u", "seen", 0),  # an impression: neither relevant nor consumed
        ("u", "bought", 1),
        ("u", "seen", 9),
        ("u", "bought", 9),
        ("u", "disliked", 9),
    ]
    events = events_of(rows, relevant=[False, True, True, True, False], consumed=[False, True, True, True, True])
    parts = splits.apply(Split("time", START + timedelta(hours=9), "by hand"), events)
    assert parts.test.rows() == [("u", "seen")]


def test_per_user_cut_tests_the_last_fifth_of_each_user_and_at_least_one() -> None:
    rows = [("ten", f"i{n}", n) for n in range(10)] + [("nine", f"i{n}", n) for n in range(9)]
    rows += [("two", "a", 0), ("two", "b", 1), ("one", "a", 5)]
    parts = splits.apply(splits.per_user_cut(events_of(rows)), events_of(rows))
    assert parts.test.rows() == [("nine", "i8"), ("ten", "i8"), ("ten", "i9"), ("two", "b")]
    assert parts.train.height == 8 + 8 + 1 + 1


@pytest.mark.parametrize(("share", "tested"), [(0.29, 29), (0.3, 30), (0.1, 10), (0.999, 99)])
def test_shares_are_not_lost_to_rounding(share: float, tested: int) -> None:
    events = events_of([("u", f"i{n:03d}", n) for n in range(100)])
    assert splits.apply(splits.per_user_cut(events, share), events).test.height == tested


def test_ties_within_a_user_favour_no_item() -> None:
    # 400 users with the same ten items at one instant: with ties by item, all users would be tested on the same two.
    events = events_of([(f"u{u}", f"i{n}", 0) for u in range(400) for n in range(10)])
    test = splits.apply(splits.per_user_cut(events), events).test
    counts = test.group_by("item_id").len()["len"]
    assert test.height == 800 and len(counts) == 10
    assert counts.min() > 45 and counts.max() < 120  # 80 each, standard deviation 8


def test_the_order_column_breaks_ties_where_times_are_unusable_and_only_there() -> None:
    crowded = events_of([("u", f"i{n}", 0) for n in range(10)], order=list(reversed(range(10))))
    split = splits.decide("time", crowded)
    assert split.kind == "per-user" and split.by_order
    assert splits.apply(split, crowded).test.rows() == [("u", "i0"), ("u", "i1")]
    usable = spread(3, 10).with_columns(order=pl.int_range(pl.len(), 0, -1))
    assert not splits.per_user_cut(usable).by_order
    assert not splits.decide("time", crowded.drop("order")).by_order


def test_leave_last_out_tests_the_last_new_item_of_each_user() -> None:
    rows: list[tuple[str, str | None, float]] = [
        *[("plain", item, hour) for hour, item in enumerate("abc")],
        *[("returning", item, hour) for hour, item in enumerate("abab")],
        *[("faithful", "a", hour) for hour in range(3)],
    ]
    parts = splits.apply(splits.leave_last_out(events_of(rows)), events_of(rows))
    assert parts.test.rows() == [("plain", "c"), ("returning", "b")]
    assert parts.train.rows() == [
        *events_of([("plain", "a", 0), ("plain", "b", 1), ("returning", "a", 0)]).rows(),
        *events_of([("faithful", "a", hour) for hour in range(3)]).rows(),
    ]


def test_leave_last_out_looks_for_an_item_that_can_still_be_recommended() -> None:
    # `d` is disliked last; `c` was only shown before: its click at hour 4 is the last right answer that was not known.
    rows = [("u", item, hour) for hour, item in enumerate("abcacd")]
    relevant, consumed = [True, True, False, True, True, False], [True, True, False, True, True, True]
    events = events_of(rows, relevant=list(relevant), consumed=list(consumed))
    parts = splits.apply(splits.leave_last_out(events), events)
    assert parts.test.rows() == [("u", "c")]
    assert parts.train.height == 4
    seen_counts = events.with_columns(consumed=pl.lit(True))  # now the first showing of `c` takes it out
    assert splits.apply(splits.leave_last_out(seen_counts), seen_counts).train.height == 2


def test_user_split_holds_out_whole_users_and_folds_their_first_part_in() -> None:
    events = spread(500, 10)
    parts = splits.apply(splits.user_split(events, salt="s"), events)
    held_out = set(parts.known["user_id"])
    assert 60 <= len(held_out) <= 140  # 100 expected, standard deviation 9
    assert held_out.isdisjoint(parts.train["user_id"]) and set(parts.test["user_id"]) == held_out
    assert set(parts.known["item_id"]) == {f"i{n}" for n in range(8)}
    assert set(parts.test["item_id"]) == {"i8", "i9"}
    assert parts.train.height + parts.known.height + parts.test.height == events.height


def test_held_out_users_depend_on_the_salt_and_on_nothing_else() -> None:
    def chosen(events: pl.DataFrame, share: float = 0.2, salt: str = "") -> set[str]:
        return set(splits.apply(splits.user_split(events, share, salt=salt), events).known["user_id"])

    few, many = spread(100, 3), spread(300, 7)
    assert chosen(few) == chosen(many) & set(few["user_id"])
    assert chosen(many, 0.1) < chosen(many, 0.4)
    assert chosen(many) != chosen(many, salt="other")
    # The same on every machine and in every later version.
    assert sorted(chosen(spread(20, 3))) == ["u005", "u012", "u017", "u018"]


def test_usable_times_are_cut_globally() -> None:
    events = spread(150, 10)
    assert splits.usable_time(events) is None
    split = splits.decide("time", events)
    assert split.kind == "time" and split.cut == START + timedelta(days=8)


def test_one_crowded_second_is_refused() -> None:
    rows = [(f"u{n}", "a", 0.0001 * (n % 2)) for n in range(90)] + [(f"u{n}", "b", 24 + n) for n in range(10)]
    events = events_of(rows)
    assert splits.usable_time(events) == "90 % of events fall in one second, 2026-01-01 00:00:00 UTC"
    split = splits.decide("time", events)
    assert split.kind == "per-user"
    assert split.headline == (
        "per-user split: tested on the last 20 % of each user's events "
        "(no global cut: 90 % of events fall in one second, 2026-01-01 00:00:00 UTC)"
    )
    assert splits.usable_time(events_of(rows[1:])) is None


def test_a_short_span_is_refused_with_many_users_only() -> None:
    assert splits.usable_time(spread(101, 10, hours=2)) == "all events of 101 users fall within 18.0 hours"
    assert splits.usable_time(spread(100, 10, hours=2)) is None
    assert splits.usable_time(spread(101, 13, hours=2)) is None  # 24 hours from first to last


def test_users_gone_before_the_cut_refuse_it() -> None:
    # Each user active for one day of ten: as in MovieLens, where people rate in one sitting.
    rows = [(f"u{u}", f"i{e}", 24 * (u % 10) + e) for u in range(50) for e in range(5)]
    assert splits.usable_time(events_of(rows)) == (
        "only 10 of 50 users with 5 events or more have one after 2026-01-09 00:00:00 UTC"
    )
    four = [row for row in rows if row[1] != "i4"]  # users of fewer events have no say
    assert splits.usable_time(events_of(four)) is None


def test_events_without_an_item_do_not_move_the_cut() -> None:
    events = spread(10, 10)
    views = events_of([(f"u{n:03d}", None, 240 + n) for n in range(100)])
    both = pl.concat([events, views])
    assert splits.time_cut(both).cut == splits.time_cut(events).cut
    assert splits.usable_time(both) is None
    assert splits.apply(splits.per_user_cut(both), both).test.equals(
        splits.apply(splits.per_user_cut(events), events).test
    )


def test_decide_knows_four_kinds() -> None:
    events = spread(10, 10)
    for kind in ("time", "per-user", "leave-last", "user"):
        assert splits.decide(kind, events).kind == kind
    with pytest.raises(UsageError, match="did you mean 'leave-last'"):
        splits.decide("leave-lst", events)


def test_what_cannot_be_split_is_refused() -> None:
    events = spread(2, 3)
    with pytest.raises(MissingInput, match="no events with an item"):
        splits.decide("time", events.clear())
    with pytest.raises(UsageError, match=r"test_share is 1\.0; expected more than 0"):
        splits.decide("time", events, 1.0)
    with pytest.raises(UsageError, match=r"fold_in is 0\.0"):
        splits.user_split(events, fold_in=0.0)
    with pytest.raises(BadData, match="expected Datetime"):
        splits.time_cut(events.with_columns(pl.col("timestamp").cast(pl.Int64)))
    with pytest.raises(BadData, match="1 events have no user_id"):
        gap = events.with_columns(pl.col("user_id").replace("u000", None).head(1).extend_constant("v", 5))
        splits.time_cut(gap)
    with pytest.raises(BadData, match="ids are text"):
        coded = events.with_columns(user_id=pl.lit(7))
        splits.apply(splits.per_user_cut(coded), coded)


def test_a_random_split_tests_its_share_of_pairs_whenever_they_happened() -> None:
    events = spread(100, 50)
    split = splits.decide("random", events, 0.2)
    parts = splits.apply(split, events)
    assert split.kind == "random" and "the future" in split.headline and "too good" in split.headline
    assert parts.test.height == pytest.approx(1000, abs=4 * (5000 * 0.2 * 0.8) ** 0.5)
    assert parts.train.height + parts.test.height == 5000
    tested = events.join(parts.test, on=["user_id", "item_id"], how="semi")["timestamp"]
    middle = START + timedelta(hours=24 * 25)
    assert (tested < middle).mean() == pytest.approx(0.5, abs=0.07)
    assert splits.apply(splits.random_pairs(events, 0.2, salt="x"), events).test.height != parts.test.height
    with pytest.raises(MissingInput, match="no events with an item"):
        splits.random_pairs(events_of([("u", None, 0)]))


def test_rolling_windows_by_hand() -> None:
    events = events_of([("u", f"i{n}", n) for n in range(10)])
    first, second = splits.rolling_time(events, 0.4, 2)
    assert (first.cut, first.end) == (START + timedelta(hours=6), START + timedelta(hours=8))
    assert (second.cut, second.end) == (START + timedelta(hours=8), None)
    assert first.headline == (
        "time split, cut 1 of 2: trained before 2026-01-01 06:00:00 UTC, "
        "tested on the 20 % of events from then to 2026-01-01 08:00:00 UTC"
    )
    assert second.headline.endswith("tested on the 20 % of events from then on")
    assert splits.apply(first, events).test.rows() == [("u", "i6"), ("u", "i7")]
    assert splits.apply(first, events).train.height == 6 and splits.apply(second, events).train.height == 8
    assert splits.rolling_time(events, 0.4, 1) == [splits.time_cut(events, 0.4)]
    with pytest.raises(UsageError, match="0 cuts are asked for; expected at least 1"):
        splits.rolling_time(events, 0.4, 0)


def test_instants_are_never_divided_so_there_may_be_fewer_windows() -> None:
    events = events_of([("u", f"i{n}", min(n, 7)) for n in range(10)])  # hour 7 has three events
    rolled = splits.rolling_time(events, 0.4, 4)
    assert [split.cut for split in rolled] == [START + timedelta(hours=hour) for hour in (6, 7)]
    assert "cut 2 of 2" in rolled[1].headline


def test_rolling_windows_within_users_ask_everybody_in_turn() -> None:
    events = spread(300, 5)  # one of five events is tested: at one of the three cuts
    rolled = splits.rolling_per_user(events, 0.2, 3, reason="no times")
    tests = [splits.apply(split, events).test for split in rolled]
    assert sum(test.height for test in tests) == 300
    assert all(test.height == pytest.approx(100, abs=40) for test in tests)
    assert all(set(test["item_id"]) == {"i4"} for test in tests)
    assert rolled[1].headline == (
        "per-user split, cut 2 of 3: tested on part 2 of 3 of the last 20 % of each user's events "
        "(no global cut: no times)"
    )
    ten = events_of([("u", f"i{n}", n) for n in range(10)])
    counts = [splits.apply(split, ten).test.height for split in splits.rolling_per_user(ten, 0.6, 3)]
    assert counts == [2, 2, 2]
    assert [splits.apply(split, ten).train.height for split in splits.rolling_per_user(ten, 0.6, 3)] == [4, 6, 8]
