"""Laws of every split, on random events with many ties, repeats and events without an item."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from persona_cli.evaluation import splits
from persona_cli.evaluation.splits import Parts, Split

START = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = list(splits.KINDS)

event = st.tuples(
    st.sampled_from("uvwxyz"), st.sampled_from([*"abcdefgh", None]), st.integers(0, 12), st.booleans(), st.booleans()
)
logs = st.lists(event, min_size=1, max_size=60).filter(lambda log: any(item for _, item, *_ in log))


def events_of(log: list[tuple[str, str | None, int, bool, bool]], flags: bool, order: bool = False) -> pl.DataFrame:
    users, items, hours, relevant, consumed = zip(*log, strict=True)
    frame = pl.DataFrame(
        {
            "user_id": pl.Series(users, dtype=pl.String),
            "item_id": pl.Series(items, dtype=pl.String),
            "timestamp": [START + timedelta(hours=hour) for hour in hours],
        }
    ).with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))
    if flags:
        frame = frame.with_columns(relevant=pl.Series(relevant), consumed=pl.Series(consumed))
    return frame.with_columns(order=pl.int_range(pl.len())) if order else frame


def split_of(kind: str, events: pl.DataFrame) -> Split:
    """The split of that kind itself, where `decide` might fall back."""
    if kind != "time":
        return splits.decide(kind, events, 0.4, salt="these tests")
    assume(events.drop_nulls("item_id")["timestamp"].n_unique() > 1)
    return splits.time_cut(events)


def same(one: Parts, other: Parts) -> bool:
    return all(a.sort(pl.all()).equals(b.sort(pl.all())) for a, b in zip(one, other, strict=True))


def test_the_salt_of_these_tests_holds_some_users_out_and_not_all() -> None:
    events = events_of([(user, item, 1, True, True) for user in "uvwxyz" for item in "abc"], flags=False)
    parts = splits.apply(split_of("user", events), events)
    assert parts.train["user_id"].n_unique() >= 2 and parts.test["user_id"].n_unique() >= 2


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(log=logs, flags=st.booleans(), order=st.booleans(), seed=st.integers(0, 999))
def test_shuffling_rows_changes_nothing(kind: str, log: list, flags: bool, order: bool, seed: int) -> None:  # type: ignore[type-arg]
    events = events_of(log, flags, order)
    shuffled = events.sample(fraction=1.0, shuffle=True, seed=seed)
    split = split_of(kind, events)
    assert split_of(kind, shuffled) == split
    assert splits.decide("time", events) == splits.decide("time", shuffled)
    assert same(splits.apply(split, events), splits.apply(split, shuffled))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(log=logs, flags=st.booleans())
def test_no_tested_pair_was_known_and_every_event_is_on_one_side(kind: str, log: list, flags: bool) -> None:  # type: ignore[type-arg]
    events = events_of(log, flags)
    split = split_of(kind, events)
    parts, side = splits.apply(split, events), splits.sides(split, events)
    learnt = pl.concat([parts.train, parts.known])
    if flags:
        learnt = learnt.filter("consumed")
    assert set(parts.test.rows()).isdisjoint(learnt.select("user_id", "item_id").rows())
    assert parts.test.is_unique().all() and parts.test["item_id"].null_count() == 0
    late = events.filter(side == "test")
    if flags:
        late = late.filter("relevant")
    assert set(parts.test.rows()) <= set(late.select("user_id", "item_id").rows())
    assert parts.train.equals(events.filter(side == "train"))
    if kind == "user":
        assert set(parts.train["user_id"]).isdisjoint([*parts.known["user_id"], *parts.test["user_id"]])
    else:
        assert "known" not in side and parts.known.equals(parts.train)


def windows_of(kind: str, events: pl.DataFrame, windows: int) -> list[Split]:
    if kind == "per-user":
        return splits.rolling_per_user(events, 0.4, windows)
    assume(events.drop_nulls("item_id")["timestamp"].n_unique() > 1)
    return splits.rolling_time(events, 0.4, windows)


def whole_of(kind: str, events: pl.DataFrame) -> Split:
    return splits.per_user_cut(events, 0.4) if kind == "per-user" else splits.time_cut(events, 0.4)


@pytest.mark.parametrize("kind", ["time", "per-user"])
@settings(max_examples=40, deadline=None)
@given(log=logs, flags=st.booleans(), windows=st.integers(1, 5), seed=st.integers(0, 999))
def test_windows_are_disjoint_and_together_the_one_tested_part(
    kind: str,
    log: list,  # type: ignore[type-arg]
    flags: bool,
    windows: int,
    seed: int,
) -> None:
    events = events_of(log, flags)
    rolled = windows_of(kind, events, windows)
    shuffled = events.sample(fraction=1.0, shuffle=True, seed=seed)
    assert windows_of(kind, shuffled, windows) == rolled
    whole = splits.sides(whole_of(kind, events), events)
    sides = [splits.sides(split, events) for split in rolled]
    for number, (split, side) in enumerate(zip(rolled, sides, strict=True)):
        parts = splits.apply(split, events)
        assert same(parts, splits.apply(split, shuffled))
        assert parts.train.equals(events.filter(side == "train"))
        # Everything before the window is learned from, and everything after it is nowhere.
        for other in sides[:number]:
            assert (side.filter(other == "test") == "train").all()
        for other in sides[number + 1 :]:
            assert (side.filter(other == "test") == "later").all()
        if kind == "time":
            assert (parts.train["timestamp"] < split.cut).all()
            later = events.filter(side == "later")["timestamp"]
            assert (later >= split.end).all() if split.end else later.is_empty()
    tested = [pl.Series([side[row] == "test" for side in sides]).sum() for row in range(events.height)]
    assert tested == (whole == "test").cast(pl.Int64).to_list()
    pairs = [row for split in rolled for row in splits.apply(split, events).test.rows()]
    single = splits.apply(whole_of(kind, events), events).test.rows()
    if flags:
        assert set(pairs) <= set(single)
    else:
        assert sorted(pairs) == single, "each right answer is asked for once, when it is new"


@settings(max_examples=60, deadline=None)
@given(n=st.integers(10, 80), windows=st.integers(1, 5))
def test_windows_of_distinct_instants_hold_equal_numbers_of_events(n: int, windows: int) -> None:
    events = events_of([("u", "a", hour, True, True) for hour in range(n)], flags=False)
    rolled = splits.rolling_time(events, 0.5, windows)
    counts = [int((splits.sides(split, events) == "test").sum()) for split in rolled]
    assert len(counts) == windows and max(counts) - min(counts) <= 1 and sum(counts) == n - n // 2


@settings(max_examples=80, deadline=None)
@given(log=logs, share=st.floats(0.05, 0.95))
def test_a_random_split_keeps_all_events_of_a_pair_together(log: list, share: float) -> None:  # type: ignore[type-arg]
    events = events_of(log, flags=False)
    sided = events.with_columns(splits.sides(splits.random_pairs(events, share), events))
    assert (sided.group_by("user_id", "item_id").agg(pl.col("side").n_unique())["side"] == 1).all()
    assert (sided.filter(pl.col("item_id").is_null())["side"] == "train").all()
    # A larger share tests what a smaller one does and more, and other users' events move nothing.
    more = splits.sides(splits.random_pairs(events, min(share + 0.04, 0.99)), events)
    assert ((more == "test") | (sided["side"] == "train")).all()
    others = events.filter(pl.col("user_id") != "u")
    if others["item_id"].count():
        alone = splits.sides(splits.random_pairs(others, share), others)
        assert alone.equals(sided.filter(pl.col("user_id") != "u")["side"])


@settings(max_examples=100, deadline=None)
@given(log=logs)
def test_a_time_cut_is_one_instant_for_all_with_the_share_asked_for(log: list) -> None:  # type: ignore[type-arg]
    events = events_of(log, flags=False)
    split = split_of("time", events)
    side = splits.sides(split, events)
    assert (events.filter(side == "train")["timestamp"] < split.cut).all()
    assert (events.filter(side == "test")["timestamp"] >= split.cut).all()
    times = events.filter(pl.col("item_id").is_not_null())["timestamp"]
    assert (times > split.cut).sum() < 0.2 * len(times) or times.filter(times < split.cut).n_unique() == 1
    assert (times >= split.cut).sum() >= 0.2 * len(times) or times.filter(times < split.cut).n_unique() == 1


@pytest.mark.parametrize("kind", ["per-user", "leave-last", "user"])
@settings(max_examples=60, deadline=None)
@given(log=logs, flags=st.booleans())
def test_what_is_tested_is_the_last_part_of_each_user(kind: str, log: list, flags: bool) -> None:  # type: ignore[type-arg]
    events = events_of(log, flags)
    split = split_of(kind, events)
    sided = events.with_columns(splits.sides(split, events)).filter(pl.col("item_id").is_not_null())
    for _, own in sided.group_by("user_id"):
        late, early = own.filter(pl.col("side") == "test"), own.filter(pl.col("side") != "test")
        if late.height:
            assert early.height, "a tested user has something known"
            assert late["timestamp"].min() >= early["timestamp"].max()  # type: ignore[operator]
        if kind == "per-user" and own.height >= 2:
            assert late.height <= max(1, int(0.4 * own.height + 1e-9))


@settings(max_examples=100, deadline=None)
@given(log=logs, flags=st.booleans())
def test_leave_last_out_tests_one_pair_of_every_user_who_has_one(log: list, flags: bool) -> None:  # type: ignore[type-arg]
    events = events_of(log, flags)
    test = splits.apply(split_of("leave-last", events), events).test
    assert test["user_id"].is_unique().all()
    if not flags:
        several = events.drop_nulls("item_id").group_by("user_id").agg(pl.col("item_id").n_unique())
        assert set(test["user_id"]) == set(several.filter(pl.col("item_id") >= 2)["user_id"])


own_events = st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.booleans()), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(own=own_events)
def test_leave_last_out_cuts_as_late_as_a_right_answer_allows(own: list[tuple[str, bool, bool]]) -> None:
    events = events_of([("u", item, hour, *flags) for hour, (item, *flags) in enumerate(own)], flags=True)
    expected: tuple[int, set[str]] = (len(own), set())
    for cut in range(len(own) - 1, 0, -1):
        known = {item for item, _, consumed in own[:cut] if consumed}
        if answers := {item for item, relevant, _ in own[cut:] if relevant} - known:
            expected = (cut, answers)
            break
    parts = splits.apply(splits.leave_last_out(events), events)
    assert (parts.train.height, set(parts.test["item_id"])) == expected


@settings(max_examples=60, deadline=None)
@given(log=logs)
def test_one_user_never_moves_another_within_a_per_user_split(log: list) -> None:  # type: ignore[type-arg]
    events = events_of(log, flags=False)
    others = events.filter(pl.col("user_id") != "u")
    whole = splits.apply(splits.per_user_cut(events), events).test.filter(pl.col("user_id") != "u")
    assert whole.equals(splits.apply(splits.per_user_cut(others), others).test)
