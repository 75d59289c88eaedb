from __future__ import annotations

from pathlib import Path

import pytest
from ingesting import Record, event, stored, write

from persona_cli.api import Workspace
from persona_cli.errors import MissingInput, UsageError
from persona_cli.events.catalogue import current
from persona_cli.events.quarantine import lines
from persona_cli.workspace import runs, tables
from persona_cli.workspace.home import Home


def ingested(home: Home, path: Path, records: list[Record | str], **options: object) -> str:
    return Workspace.of(home).ingest(write(path, records), profiles=False, **options).run  # type: ignore[arg-type]


def test_undo_takes_back_exactly_what_a_run_added(home: Home, tmp_path: Path) -> None:
    space = Workspace.of(home)
    first = ingested(home, tmp_path / "a", [event("u1"), event("u2"), "bad"])
    before = stored(home)
    second = ingested(home, tmp_path / "b", [event("u2"), event("u3"), event("u4", at="2026-03-01"), "worse"])
    assert space.undo(second, profiles=False) == 2
    assert stored(home).equals(before)
    assert lines(home).collect()["run"].to_list() == [first]
    assert space.undo(second, profiles=False) == 0
    assert space.undo(first, profiles=False) == 2
    assert stored(home).height == 0


def test_what_was_taken_back_can_be_ingested_again(home: Home, tmp_path: Path) -> None:
    records: list[Record | str] = [event("u1"), event("u1"), "bad"]
    ingested(home, tmp_path / "a", records)
    before = stored(home)
    assert Workspace.of(home).undo("latest", profiles=False) == 2
    ingested(home, tmp_path / "a", records)
    assert stored(home).equals(before)
    assert lines(home).collect().height == 1


def test_rows_in_a_file_rewritten_by_a_later_run_are_found(home: Home, tmp_path: Path) -> None:
    first = ingested(home, tmp_path / "a", [event(event_id="e1"), event(event_id="e2")])
    second = ingested(
        home, tmp_path / "b", [event("u2", event_id="e2"), event(event_id="e3")], on_duplicate="keep-last"
    )
    table = tables.open_table(home, "events")
    assert table is not None
    whole = table.scan().collect()
    table.commit([table.write(whole, {"month": "2026-01"})], table.files)  # as compaction does
    assert Workspace.of(home).undo(first, profiles=False) == 1
    assert stored(home)["event_id"].to_list() == ["e2", "e3"]
    # e2 as it was before keep-last does not come back.
    assert Workspace.of(home).undo(second, profiles=False) == 2
    assert stored(home).height == 0


def test_a_catalogue_goes_back_to_what_held_before(home: Home, tmp_path: Path) -> None:
    ingested(home, tmp_path / "a", [{"item_id": "a", "title": "one"}], kind="items")
    run = ingested(home, tmp_path / "b", [{"item_id": "a", "title": "two"}, {"item_id": "b"}], kind="items")
    assert Workspace.of(home).undo(run) == 2
    assert current(home, "items").select("item_id", "title").rows() == [("a", "one")]


def test_profiles_follow(home: Home, tmp_path: Path) -> None:
    space = Workspace.of(home)
    space.ingest(write(tmp_path / "a", [event("u1", item_id="x")]))
    kept = space.history()
    space.ingest(write(tmp_path / "b", [event("u1", item_id="y"), event("u2", item_id="x")]))
    assert space.profiles().collect().height == 2
    space.undo()
    assert space.history().equals(kept)
    assert space.profiles().collect()["user_id"].to_list() == ["u1"]


def test_latest_is_the_newest_that_added_something_and_is_still_there(home: Home, tmp_path: Path) -> None:
    for number in range(3):
        ingested(home, tmp_path / "a", [event(f"u{number}")])
    ingested(home, tmp_path / "a", [event("u2")])
    ingested(home, tmp_path / "i", [{"item_id": "a"}], kind="items")
    space = Workspace.of(home)
    assert space.undo(profiles=False) == 1
    assert current(home, "items").height == 0
    for left in (["u0", "u1"], ["u0"], []):
        assert space.undo(profiles=False) == 1
        assert sorted(stored(home)["user_id"].to_list()) == left
    with pytest.raises(MissingInput, match="nothing to take back"):
        space.undo()


def test_only_an_ingest_can_be_taken_back(home: Home, tmp_path: Path) -> None:
    space = Workspace.of(home)
    with pytest.raises(MissingInput, match="nothing to take back"):
        space.undo()
    with pytest.raises(MissingInput, match="no run 'r99'"):
        space.undo("r99")
    with runs.recording(home, ["train"]) as run:
        pass
    with pytest.raises(UsageError, match="is of 'train', not an ingest"):
        space.undo(run.id)
    done = ingested(home, tmp_path / "a", [event()])
    assert space.undo(done[:-2], profiles=False) == 1


def test_a_retry_can_be_taken_back_too(home: Home, tmp_path: Path) -> None:
    space = Workspace.of(home)
    ingested(home, tmp_path / "a", [event(), {"user_id": "u1", "event_type": "save", "sent": "2026-01-05"}])
    before = stored(home)
    done = space.retry(maps=["timestamp=sent"], profiles=False)
    assert done.accepted == 1
    assert space.undo(done.run, profiles=False) == 1
    assert stored(home).equals(before)


def test_a_run_killed_after_its_commit_can_be_taken_back(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the run's manifest would have said at its end is not needed."""
    with monkeypatch.context() as patch:
        patch.setattr("persona_cli.api.Workspace.sync", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            Workspace.of(home).ingest(write(tmp_path / "a", [event()]))
    assert stored(home).height == 1
    assert Workspace.of(home).undo("latest", profiles=False) == 1


def test_a_run_is_found_by_its_manifest_where_the_log_no_longer_reaches(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ingested(home, tmp_path / "a", [event("u1")])
    ingested(home, tmp_path / "b", [event("u2")])
    monkeypatch.setattr(tables.Table, "history", lambda self: [])
    assert Workspace.of(home).undo(run, profiles=False) == 1
    assert stored(home)["user_id"].to_list() == ["u2"]
