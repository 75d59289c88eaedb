"""A corrected event: everything is what it would be had the event come in right, and the former one is nowhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from persona_cli import Workspace
from persona_cli.cli.main import run
from persona_cli.consent.receipts import record
from persona_cli.errors import MissingInput, Refused, UsageError
from persona_cli.models import gram_store
from persona_cli.privacy import settling

Event = dict[str, Any]
WRONG = 77  # the event that is wrong
SECRET = "i-was-never-there"


def _events() -> list[Event]:
    made = [
        {
            "event_id": f"e{user}-{day}",
            "user_id": f"u{user}",
            "event_type": "rating",
            "item_id": f"i{(3 * user + day * (1 + user % 3)) % 11:02d}",
            "value": 1 + (user + day) % 5,
            "timestamp": f"2026-01-{day + 1:02d}T{user % 24:02d}:00:00Z",
            "props": {"size": "L"},
        }
        for user in range(12)
        for day in range(9)
    ]
    made[WRONG] |= {"item_id": SECRET}
    return made


def _workspace(at: Path, events: Sequence[Event], *train: str) -> Workspace:
    made = Workspace.create(at)
    file = at.parent / f"{at.name}.jsonl"
    file.write_text("\n".join(map(json.dumps, events)) + "\n")
    made.ingest(file)
    if train:
        made.train(*train)
    return made


def _read(path: Path) -> str:
    """What is in a file; of Parquet, whose pages are compressed, all rows."""
    text = path.read_bytes().decode("utf-8", "replace")
    return text if path.suffix != ".parquet" else text + str(pl.read_parquet(path, hive_partitioning=False).to_dicts())


def _same_but_for_bookkeeping(one: Workspace, other: Workspace) -> None:
    rows = [shop.events().drop("source", "ingested_at").sort("event_id").collect() for shop in (one, other)]
    assert_frame_equal(*rows)
    assert_frame_equal(one.history(), other.history())
    profiles = [shop.profiles().drop("holdout").collect().sort("user_id") for shop in (one, other)]
    assert_frame_equal(*profiles)


def test_everything_is_as_if_the_event_had_come_in_right(elsewhere: Path) -> None:
    events = _events()
    id = events[WRONG]["event_id"]
    shop = _workspace(elsewhere / "w", events, "ease")
    done = shop.privacy.correct(id, {"item_id": "i03", "value": "2", "props.size": "M", "query": ""})
    assert done.fields == ("item_id", "props", "value") and not done.returns
    right = _events()
    right[WRONG] |= {"item_id": "i03", "value": 2, "props": {"size": "M"}}
    _same_but_for_bookkeeping(shop, fresh := _workspace(elsewhere / "right", right, "ease"))
    assert gram_store.stored_digest(shop.home) == gram_store.stored_digest(fresh.home)
    # Of all bytes below the workspace none is of the former event, the items of trained models included.
    assert not [path for path in shop.home.root.rglob("*") if path.is_file() and SECRET in _read(path)]
    (request,) = shop.privacy.requests()
    assert (request.kind, request.outcome, request.id) == ("rectification", "corrected", done.request)
    assert shop.privacy.correct(id, {"value": "2"}).fields == ()
    # The file that it came from changes nothing: the event is there already.
    assert shop.ingest(elsewhere / "w.jsonl").accepted == 0


def test_deleting_equals_never_having_had_it(elsewhere: Path) -> None:
    events = _events()
    shop = _workspace(elsewhere / "w", events)
    done = shop.privacy.correct(events[WRONG]["event_id"], delete=True)
    assert done.deleted and done.returns
    _same_but_for_bookkeeping(shop, _workspace(elsewhere / "right", events[:WRONG] + events[WRONG + 1 :]))


def test_a_time_in_another_month_moves_the_event(elsewhere: Path) -> None:
    shop = _workspace(elsewhere / "w", _events())
    assert shop.privacy.correct("e3-4", {"timestamp": "2025-12-31T10:00:00+01:00"}).returns
    rows = shop.events().filter(pl.col("event_id") == "e3-4").collect()
    assert rows["month"].to_list() == ["2025-12"] and rows["timestamp"].dt.hour().to_list() == [9]


def test_an_open_request_of_the_person_is_taken_up(elsewhere: Path) -> None:
    shop = _workspace(elsewhere / "w", _events())
    noted = shop.privacy.open_request("rectification", "u3")
    assert shop.privacy.correct("e3-4", {"value": "5"}).request == noted.id
    assert [one.outcome for one in shop.privacy.requests()] == ["corrected"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vlaue": "3"}, "did you mean 'value'"),
        ({"event_id": "x"}, "no such field"),
        ({"value": "many"}, "value: expected a number"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": ""}, "timestamp: missing"),
        ({"user_id": ""}, "user_id: missing"),
        ({"position": "1.5"}, "position: expected a whole number"),
        ({"props": "[1]"}, "JSON object"),
        ({}, "not both"),
    ],
)
def test_what_no_event_can_have_changes_nothing(elsewhere: Path, changes: dict[str, str], message: str) -> None:
    shop = _workspace(elsewhere / "w", _events()[:30])
    before = shop.events().sort("event_id").collect()
    with pytest.raises(UsageError, match=message):
        shop.privacy.correct("e1-1", changes)
    assert_frame_equal(shop.events().sort("event_id").collect(), before)
    assert shop.privacy.requests() == []


def test_events_that_are_not_there_or_there_twice(elsewhere: Path) -> None:
    twice = [_events()[0], {**_events()[0], "timestamp": "2026-02-01T00:00:00Z"}]
    shop = _workspace(elsewhere / "w", twice)
    with pytest.raises(MissingInput, match="no event 'e9'"):
        shop.privacy.correct("e9", {"value": "3"})
    with pytest.raises(UsageError, match="2026-01, 2026-02"):
        shop.privacy.correct("e0-0", {"value": "3"})
    shop.privacy.correct("e0-0", delete=True, month="2026-02")
    assert shop.events().collect()["month"].to_list() == ["2026-01"]


def test_an_event_is_not_made_one_of_somebody_who_is_not_collected(elsewhere: Path) -> None:
    shop = _workspace(elsewhere / "w", _events()[:30])
    record(shop.home, ["gone"], ["personalization", "analytics", "model_training"], "objected")
    with pytest.raises(Refused, match="not stored"):
        shop.privacy.correct("e1-1", {"user_id": "gone"})


def test_the_command(films: Callable[[int], Path], capsys: pytest.CaptureFixture[str]) -> None:
    root = films(2)
    id = Workspace(root).events().collect()["event_id"][0]
    assert run(["privacy", "correct", "-w", "w", id, "--set", "value=3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fields"] == ["value"]
    assert run(["privacy", "correct", "-w", "w", id, "--delete"]) == 2  # nobody can be asked
    assert run(["privacy", "correct", "-w", "w", id, "--delete", "--yes"]) == 0
    assert "brings the former event back" in capsys.readouterr().err
    assert not any(id in path.read_text() for path in root.glob("runs/*.json"))


@pytest.mark.parametrize("delete", [False, True])
def test_a_run_that_was_killed_is_completed_by_the_next(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, delete: bool
) -> None:
    events = _events()
    shop, id = _workspace(elsewhere / "w", events), events[WRONG]["event_id"]
    changes = {} if delete else {"item_id": "i03"}

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(settling, "settle", killed)
        shop.privacy.correct(id, changes, delete=delete)
    assert [one.closed for one in shop.privacy.requests()] == [None]
    if delete:
        with pytest.raises(MissingInput):
            shop.privacy.correct(id, delete=True)
    else:
        assert shop.privacy.correct(id, changes).fields == ()
        assert [one.outcome for one in shop.privacy.requests()] == ["corrected"]
    assert not [path for path in shop.home.root.rglob("*") if path.is_file() and SECRET in _read(path)]
