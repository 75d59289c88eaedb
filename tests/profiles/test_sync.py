"""Tables that follow the events: incremental = rebuilt, whatever came, went, or was killed in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import oracle
import polars as pl
import pytest
import strategies
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from stored import Event, add, at, frame, take_back, with_settings

from persona_cli.errors import Busy, MissingInput
from persona_cli.profiles import buckets, fold
from persona_cli.profiles import history as histories
from persona_cli.profiles import sync as syncing
from persona_cli.profiles.folds import activity, context
from persona_cli.profiles.history import history
from persona_cli.profiles.sync import behind, sync
from persona_cli.workspace import artifacts, tables
from persona_cli.workspace.home import Home

MakeHome = Callable[[], Home]
# Columns that the plain second version knows.
PLAIN = ["user_id", *(field.name for part in (activity, context) for field in part.FIELDS if field.name in fold.SHOWN)]
PATIENT = examples(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def profiles(home: Home) -> pl.DataFrame:
    return fold.profile_rows(home, fold.COLUMNS).sort("user_id")


def files(home: Home, name: str) -> list[tables.File]:
    table = tables.open_table(home, name)
    return table.files if table else []


def expected(home: Home, events: Sequence[Event]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """History and profiles of these events by the plain second version."""
    settings = home.settings
    rows = oracle.history(
        events,
        settings.table("signals.strengths"),
        settings.number("signals.other"),
        settings.texts("recommend.consumed_by"),
    )
    people = oracle.profiles(events, settings.number("profiles.session_gap_minutes"))
    shown = pl.DataFrame(people, schema=fold.NOBODY.select(PLAIN).schema)
    return pl.DataFrame(rows, schema=history(home).schema, orient="row"), shown


def assert_follows(home: Home, events: Sequence[Event]) -> None:
    rows, people = expected(home, events)
    assert history(home).equals(rows)
    assert profiles(home).select(PLAIN).equals(people)


@PATIENT
@given(st.data())
def test_incremental_equals_rebuilt_whatever_comes_and_goes(make_home: MakeHome, data: st.DataObject) -> None:
    home = make_home()
    present: dict[str, list[Event]] = {}
    for _ in range(data.draw(st.integers(1, 6))):
        if present and data.draw(st.booleans(), label="undo"):
            gone = data.draw(st.lists(st.sampled_from(sorted(present)), unique=True, min_size=1, max_size=2))
            take_back(home, gone)
            for path in gone:
                del present[path]
        else:
            batch = data.draw(strategies.events)
            for path in add(home, batch):
                month = path.split("/")[0].removeprefix("month=")
                present[path] = [event for event in batch if f"{event['timestamp']:%Y-%m}" == month]
        if data.draw(st.booleans(), label="sync"):
            sync(home)
    sync(home)
    assert behind(home) is None
    left = [event for events in present.values() for event in events]
    assert_follows(home, left)
    kept = history(home), profiles(home)
    assert sync(home, rebuild=True).mode == "rebuilt"
    assert history(home).equals(kept[0])
    assert profiles(home).equals(kept[1])


@PATIENT
@given(st.lists(strategies.event(), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_shuffled_input_makes_the_same_tables(make_home: MakeHome, events: list[Event], random: Any) -> None:
    shuffled = events.copy()
    random.shuffle(shuffled)
    first, second = make_home(), make_home()
    half = len(shuffled) // 2
    add(first, events)
    sync(first)
    for batch in (shuffled[:half], shuffled[half:]):
        add(second, batch)
        sync(second)
    assert history(first).equals(history(second))
    assert profiles(first).equals(profiles(second))


@PATIENT
@given(strategies.events, strategies.events, st.sampled_from(("signals.other", "recommend.consumed_by", "both")))
def test_other_settings_rebuild_and_equal_a_fresh_build(
    make_home: MakeHome, before: list[Event], after: list[Event], changed: str
) -> None:
    home = make_home()
    add(home, [{"item_id": "x"}, *before])
    sync(home)
    add(home, after)
    new: dict[str, Any] = {"signals__strengths": {"rating>2": 7, "view": "never"}} if changed == "both" else {}
    if changed != "recommend.consumed_by":
        new["signals__other"] = 2.5
    if changed != "signals.other":
        new["recommend__consumed_by"] = ["view", "rating"]
    home = with_settings(home, **new)
    assert behind(home) is not None
    done = sync(home)
    assert (done.mode, "signals" in done.reason) == ("rebuilt", True)
    assert_follows(home, [{"user_id": "u", "event_type": "click", "timestamp": at(), "item_id": "x"}, *before, *after])


def test_what_is_unchanged_is_left_alone(home: Home) -> None:
    assert sync(home).mode == "unchanged"  # no events at all
    add(home, [{"item_id": "x"}, {"user_id": "v"}])
    first = sync(home)
    assert (first.mode, first.users, first.events) == ("rebuilt", 2, 2)
    versions = [tables.open_table(home, name).version for name in ("history", "profiles")]  # type: ignore[union-attr]
    assert sync(home).mode == "unchanged"
    again = [tables.open_table(home, name).version for name in ("history", "profiles")]  # type: ignore[union-attr]
    assert versions == again


def test_only_the_half_life_changing_rebuilds_nothing(home: Home) -> None:
    add(home, [{"item_id": "x"}])
    sync(home)
    assert sync(with_settings(home, signals__half_life_days=3)).mode == "unchanged"


def test_a_changed_weight_leaves_profiles_alone_and_a_changed_gap_the_history(home: Home) -> None:
    add(home, [{"item_id": "x"}, {"timestamp": at(minutes=20)}])
    sync(home)
    before = files(home, "profiles"), files(home, "history")
    home = with_settings(home, signals__other=2)
    assert sync(home).mode == "rebuilt"
    assert files(home, "profiles") == before[0]
    assert files(home, "history") != before[1]
    kept = files(home, "history")
    home = with_settings(home, profiles__session_gap_minutes=10)
    done = sync(home)
    assert (done.mode, done.users) == ("rebuilt", 1)
    assert files(home, "history") == kept
    assert profiles(home)["sessions"].to_list() == [2]


def test_other_buckets_move_every_row(home: Home) -> None:
    events: list[Event] = [{"user_id": f"u{n}", "item_id": "x"} for n in range(20)]
    add(home, events)
    sync(home)
    home = with_settings(home, profiles__buckets=5)
    assert sync(home).mode == "rebuilt"
    assert {file.partition["bucket"] for file in files(home, "history")} == set("01234")
    rows = tables.scan(home, fold.NAME, fold.SCHEMA, ["bucket"]).collect()
    assert rows["bucket"].to_list() == buckets.buckets_of(rows["user_id"], 5).to_list()
    assert rows.height == 20


def test_increments_touch_their_buckets_only_and_are_compacted(home: Home) -> None:
    add(home, [{"user_id": f"u{n}", "item_id": "x"} for n in range(20)])
    sync(home)
    mine = str(buckets.buckets_of(pl.Series(["u"]), 3)[0])
    others = [file for file in files(home, "profiles") if file.partition["bucket"] != mine]
    for day in range(2 * fold.MAX_FILES):
        add(home, [{"item_id": "x", "timestamp": at(day)}])
        assert sync(home).mode == "incremental"
        held = [file for file in files(home, "history") if file.partition["bucket"] == mine]
        assert len(held) <= fold.MAX_FILES
        assert len(files(home, "history")) == len(held) + 2
    assert [file for file in files(home, "profiles") if file.partition["bucket"] != mine] == others
    assert history(home).filter(pl.col("user_id") == "u")["n"].to_list() == [1] * 2 * fold.MAX_FILES


def test_events_taken_back_take_their_user_along(home: Home) -> None:
    add(home, [{"item_id": "x"}])
    gone = add(home, [{"user_id": "guest", "item_id": "x"}, {"item_id": "y", "timestamp": at(0.1)}])
    sync(home)
    take_back(home, gone)
    done = sync(home)
    assert (done.mode, done.users, done.events) == ("incremental", 2, 2)
    assert profiles(home)["user_id"].to_list() == ["u"]
    assert history(home)["item_id"].to_list() == ["x"]


def test_a_file_written_again_without_one_row_folds_its_user_alone(home: Home) -> None:
    events: list[Event] = [{"user_id": f"u{n}", "item_id": "x", "event_id": f"e{n}"} for n in range(20)]
    (path,) = add(home, events)
    sync(home)
    table = tables.open_table(home, "events")
    assert table is not None
    kept = frame([event for event in events if event["user_id"] != "u7"])
    new = frame([{"user_id": "u3", "item_id": "y", "event_id": "new", "timestamp": at(1)}])
    files = [table.write(rows, {"month": "2026-01"}) for rows in (kept, new)]
    table.commit(files, [file for file in table.files if file.path == path])
    done = sync(home)
    assert (done.mode, done.users) == ("incremental", 2)
    assert profiles(home)["user_id"].n_unique() == 19
    assert profiles(home).filter(pl.col("user_id") == "u3")["events"].to_list() == [2]
    kept_rows = profiles(home)
    sync(home, rebuild=True)
    assert profiles(home).equals(kept_rows)


def test_profiles_of_another_version_are_made_again(home: Home) -> None:
    add(home, [{"item_id": "x"}])
    old = tables.open_or_create(home, fold.NAME, fold.SCHEMA.remove(2), ["bucket"])
    old.commit([], metadata={"events_version": "0"})
    with pytest.raises(MissingInput, match="another version"):
        fold.profile_rows(home)
    assert sync(home).mode == "rebuilt"
    assert profiles(home)["events"].to_list() == [1]
    assert not artifacts.leftovers(home.root)


def test_taken_back_files_that_are_gone_from_disk_rebuild(home: Home) -> None:
    add(home, [{"item_id": "x"}])
    gone = add(home, [{"item_id": "y", "timestamp": at(0.1)}])
    sync(home)
    take_back(home, gone)
    tables.vacuum(home)
    done = sync(home)
    assert (done.mode, "are gone" in done.reason) == ("rebuilt", True)
    assert history(home)["item_id"].to_list() == ["x"]


def test_another_events_table_under_the_same_name_rebuilds(home: Home) -> None:
    add(home, [{"item_id": "x"}])
    sync(home)
    artifacts.remove(home.path("events"))
    add(home, [{"item_id": "y"}])
    done = sync(home)
    assert (done.mode, "another one" in done.reason) == ("rebuilt", True)
    assert history(home)["item_id"].to_list() == ["y"]


@pytest.mark.parametrize("first", [True, False], ids=["first build", "increment"])
@pytest.mark.parametrize("name", ["history", "profiles"])
def test_a_run_killed_before_a_commit_is_completed_by_the_next(
    home: Home, monkeypatch: pytest.MonkeyPatch, name: str, first: bool
) -> None:
    events: list[Event] = [{"item_id": "x", "user_id": f"u{n % 5}", "timestamp": at(n / 100)} for n in range(30)]
    if not first:
        add(home, events[:20])
        sync(home)
    add(home, events if first else events[20:])
    commit = tables.Table.commit

    def killed(table: tables.Table, *args: Any, **more: Any) -> int:
        if table.root.name == name:
            raise KeyboardInterrupt
        return commit(table, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(tables.Table, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            sync(home)
    assert behind(home) is not None
    assert sync(home).mode == ("rebuilt" if first else "incremental")
    assert_follows(home, [{"event_type": "click", **event} for event in events])
    assert sync(home).mode == "unchanged"


def test_a_fold_that_fails_leaves_the_tables_and_no_file(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    add(home, [{"user_id": f"u{n}", "item_id": "x"} for n in range(20)])
    sync(home)
    before = history(home), profiles(home)
    add(home, [{"user_id": f"u{n}", "item_id": "y"} for n in range(20)])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(syncing.folding, "fold_coded", full)
    with pytest.raises(OSError, match="No space"):
        sync(home, rebuild=True)
    assert history(home).equals(before[0])
    assert profiles(home).equals(before[1])
    assert not tables.orphans(home)
    assert not artifacts.leftovers(home.root)


def test_many_events_go_through_temporary_files_to_the_same_tables(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = [
        {"user_id": f"u{n % 7}", "item_id": f"i{n % 3}", "event_type": "view", "timestamp": at(n % 11)}
        for n in range(60)
    ]
    add(home, events)
    monkeypatch.setattr(buckets, "IN_MEMORY", 10)
    monkeypatch.setattr(syncing, "_PIECE", 4)
    seen: list[int] = []
    spill = buckets._spill

    def watched(parts: list[pl.DataFrame], *rest: Any) -> None:
        seen.append(sum(part.height for part in parts))
        spill(parts, *rest)

    monkeypatch.setattr(buckets, "_spill", watched)
    sync(home)
    assert sum(seen) == 60
    assert max(seen) < 30
    assert_follows(home, events)
    assert not list(home.root.glob(".tmp-*"))


def test_one_writer_at_a_time(home: Home) -> None:
    import threading

    from persona_cli.workspace import locks

    add(home, [{"item_id": "x"}])
    caught: list[Exception] = []

    def other() -> None:
        try:
            sync(home)
        except Busy as busy:
            caught.append(busy)

    with locks.hold(home, "tables", "ingest"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(caught) == 1
    assert histories.history(home).height == 0
