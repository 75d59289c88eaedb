"""ingest --replace: a newer state of a file takes the place of the older one, and undo brings the older one back."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingesting import Record, comparable, event, files, stored, versions, write

from persona_cli.api import Workspace
from persona_cli.errors import BadData, Busy, UsageError
from persona_cli.events.ingest import Report
from persona_cli.events.store import EventStore, scan_events
from persona_cli.workspace import locks, tables
from persona_cli.workspace.home import Home


def take(home: Home, path: Path, records: Sequence[Record | str], **options: object) -> Report:
    return Workspace.of(home).ingest(write(path, records), profiles=False, **options)  # type: ignore[arg-type]


def full(home: Home) -> pl.DataFrame:
    return scan_events(home).collect().sort("month", "event_id")


def test_events_that_do_not_come_again_leave_and_changed_ones_take_their_new_values(home: Home, tmp_path: Path) -> None:
    other = take(home, tmp_path / "b", [event("u9", event_id="x")]).run
    first = take(home, tmp_path / "a", [event(f"u{n}", event_id=f"e{n}") for n in range(4)])
    again = take(
        home,
        tmp_path / "a",
        [event("u0", event_id="e0"), event("u1", event_id="e1", type="view"), event("u7", event_id="e7")],
        replace=True,
    )
    assert (again.accepted, again.duplicates, again.replaced, again.withdrawn) == (1, 2, 1, 2)
    rows = full(home)
    assert rows.select("event_id", "event_type").rows() == [
        ("e0", "click"), ("e1", "view"), ("e7", "click"), ("x", "click"),
    ]  # fmt: skip
    unchanged = rows.filter(pl.col("ingested_at") == first.ingested_at)
    assert unchanged["event_id"].to_list() == ["e0"]
    assert other in {commit.get("run") for commit in tables.open_table(home, "events").history()}  # type: ignore[union-attr]


def test_months_that_the_newer_file_does_not_reach_are_cleared_too(home: Home, tmp_path: Path) -> None:
    take(home, tmp_path / "a", [event(at="2026-01-05"), event(at="2026-02-05"), event(at="2026-03-05")])
    assert take(home, tmp_path / "a", [event(at="2026-02-05")], replace=True).withdrawn == 2
    assert stored(home)["month"].to_list() == ["2026-02"]


def test_identical_rows_of_which_fewer_come_again(home: Home, tmp_path: Path) -> None:
    take(home, tmp_path / "a", [event()] * 3)
    assert take(home, tmp_path / "a", [event()] * 2, replace=True).withdrawn == 1
    assert stored(home).height == 2


def test_undo_brings_back_exactly_what_was_there(home: Home, tmp_path: Path) -> None:
    take(home, tmp_path / "b", [event("u9", event_id="x"), event("u9", at="2026-02-01")])
    take(home, tmp_path / "a", [event(f"u{n}", event_id=f"e{n}") for n in range(4)])
    before = full(home)
    run = take(
        home, tmp_path / "a", [event("u1", event_id="e1", type="view"), event("u5", at="2026-04-01")], replace=True
    ).run
    take(home, tmp_path / "c", [event("u8", event_id="c")])
    assert Workspace.of(home).undo(run, profiles=False) == 2 + 4
    assert full(home).filter(pl.col("event_id") != "c").equals(before)
    assert Workspace.of(home).undo(run, profiles=False) == 0


def test_undo_of_a_run_that_only_withdrew_and_profiles_that_follow(home: Home, tmp_path: Path) -> None:
    space = Workspace.of(home)
    space.ingest(write(tmp_path / "a", [event("u1", item_id="x"), event("u2", item_id="y")]))
    kept = space.history()
    run = space.ingest(write(tmp_path / "a", [event("u1", item_id="x")]), replace=True)
    assert (run.accepted, run.withdrawn) == (0, 1)
    assert space.profiles().collect()["user_id"].to_list() == ["u1"]
    assert space.undo() == 1
    assert space.history().equals(kept)
    assert space.profiles().collect()["user_id"].sort().to_list() == ["u1", "u2"]


def test_of_two_states_the_later_is_taken_back_first(home: Home, tmp_path: Path) -> None:
    space = Workspace.of(home)
    states = [[event("u1"), event("u2")], [event("u2")], [event("u3")]]
    runs = [take(home, tmp_path / "a", state, replace=True).run for state in states]
    with pytest.raises(UsageError, match=runs[2]):
        space.undo(runs[1], profiles=False)
    space.undo(runs[2], profiles=False)
    assert stored(home)["user_id"].to_list() == ["u2"]
    space.undo(runs[1], profiles=False)
    assert set(stored(home)["user_id"]) == {"u1", "u2"}


def test_what_was_taken_back_meanwhile_does_not_come_back(home: Home, tmp_path: Path) -> None:
    space = Workspace.of(home)
    first = take(home, tmp_path / "a", [event("u1"), event("u2")]).run
    second = take(home, tmp_path / "a", [event("u2"), event("u3")], replace=True).run
    space.undo(first, profiles=False)
    space.undo(second, profiles=False)
    assert stored(home).height == 0


def test_an_event_that_another_file_brought_since_is_there_once(home: Home, tmp_path: Path) -> None:
    take(home, tmp_path / "a", [event("u1", event_id="e1")])
    run = take(home, tmp_path / "a", [event("u2", event_id="e2")], replace=True).run
    take(home, tmp_path / "b", [event("u1", event_id="e1")])
    Workspace.of(home).undo(run, profiles=False)
    assert full(home).select("event_id", pl.col("source").str.slice(-1)).rows() == [("e1", "b")]


def test_files_before_it_that_are_gone_are_said_and_nothing_happens(home: Home, tmp_path: Path) -> None:
    take(home, tmp_path / "a", [event("u1"), event("u2")])
    run = take(home, tmp_path / "a", [event("u2")], replace=True).run
    tables.vacuum(home)
    before = versions(home)
    with pytest.raises(UsageError, match="kept no longer"):
        Workspace.of(home).undo(run, profiles=False)
    assert versions(home) == before and stored(home)["user_id"].to_list() == ["u2"]


@pytest.mark.parametrize(
    "options",
    [{"kind": "items"}, {"on_duplicate": "keep-first"}, {"on_duplicate": "error"}],
    ids=["items", "keep-first", "error"],
)
def test_what_does_not_go_with_it(home: Home, tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="--replace"):
        take(home, tmp_path / "a", [event() | {"item_id": "i"}], replace=True, **options)
    with pytest.raises(UsageError, match="standard input"):
        Workspace.of(home).ingest("-", replace=True)


def test_a_refused_or_damaged_file_takes_nothing_away(home: Home, tmp_path: Path) -> None:
    take(home, tmp_path / "a", [event(f"u{n}") for n in range(3)])
    before, files_before = full(home), files(home)
    with pytest.raises(BadData):
        take(home, tmp_path / "a", ["bad"] * 30, replace=True)
    packed = gzip.compress("".join(json.dumps(event("u0")) + "\n" for _ in range(999)).encode())
    (tmp_path / "a").write_bytes(packed[: len(packed) - 20])
    with pytest.raises(BadData, match="damaged"):
        Workspace.of(home).ingest(tmp_path / "a", replace=True, profiles=False)
    assert full(home).equals(before) and files(home) == files_before


def test_a_run_killed_before_its_commit_leaves_all_as_it_was(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(home, tmp_path / "a", [event(f"u{n}") for n in range(3)])
    before = full(home)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EventStore, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            take(home, tmp_path / "a", [event("u7")], replace=True)
    assert full(home).equals(before)
    assert take(home, tmp_path / "a", [event("u7")], replace=True).withdrawn == 3


def test_two_at_once_wait_or_give_up(home: Home, tmp_path: Path) -> None:
    take(home, tmp_path / "a", [event("u1")])
    with locks.hold(home, "tables", "ingest", 0), pytest.raises(Busy):
        _in_another_thread(lambda: take(home, tmp_path / "a", [event("u2")], replace=True))
    assert stored(home)["user_id"].to_list() == ["u1"]


def _in_another_thread(work: Callable[[], object]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


@st.composite
def happened(draw: st.DrawFn) -> Record:
    found = event(
        draw(st.sampled_from(("u1", "u2"))),
        draw(st.sampled_from(("2026-01-05T10:00:00Z", "2026-01-06T10:00:00Z", "2026-02-05T10:00:00Z"))),
        value=draw(st.sampled_from((1, 2))),
    )
    identity = draw(st.sampled_from((None, None, "e1", "e2", "e3")))
    return found if identity is None else found | {"event_id": identity}


state = st.lists(happened(), max_size=8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(older=state, newer=state, other=state)
def test_the_newer_state_as_though_the_older_had_never_been(
    make_home: Callable[[], Home], tmp_path: Path, older: list[Record], newer: list[Record], other: list[Record]
) -> None:
    """For files that share no event."""
    apart = [record | {"user_id": "o", "event_id": f"o{n}"} for n, record in enumerate(other)]
    once, twice = make_home(), make_home()
    for home in (once, twice):
        take(home, tmp_path / "b", apart)
    take(twice, tmp_path / "a", older, on_duplicate="keep-last")
    before = full(twice)
    run = take(twice, tmp_path / "a", newer, replace=True)
    take(once, tmp_path / "a", newer, on_duplicate="keep-last")
    assert comparable(stored(twice)) == comparable(stored(once))
    assert run.read == run.accepted + run.duplicates + run.rejected
    Workspace.of(twice).undo(run.run, profiles=False)
    assert full(twice).equals(before)
