"""Two workspaces of the same shop, of which one was never given some of the people, and what must be equal in them."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
from polars.testing import assert_frame_equal

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

from shop import START, clicks, taste, user

from persona_cli.events.ingest import ingest
from persona_cli.models import gram_store, registry
from persona_cli.profiles.fold import profile_rows
from persona_cli.profiles.history import history
from persona_cli.profiles.sync import behind
from persona_cli.serving.recommend import recommend
from persona_cli.workspace import artifacts, tables
from persona_cli.workspace.home import IDENTITY_FILE, SETTINGS_FILE, Home, create, open_home

N = 40
GONE = [user(3), user(8), user(21)]
DEVICE = "device-of-3"
"""Anonymous id under which user 3 did things before signing in; user 5 used the device later."""


def lines(n: int = N) -> list[dict[str, Any]]:
    """Events of a shop, in two parts of a year, with a device that changed hands and an item that one person knows."""
    made = []
    for number in range(n):
        for week, item in enumerate(clicks(number)):
            device = "mobile" if number % 4 < 2 else "desktop"
            made.append(_event(user(number), item, week, number, context={"device": device, "country": "NL"}))
    made.append(_event(user(3), "only-theirs", 5, 1))
    made.append({**_event(None, "b07", 1, 5), "anon_id": DEVICE})
    made.append({**_event(user(3), "b09", 2, 5), "anon_id": DEVICE, "event_type": "identify"})
    made.append({**_event(user(5), "b11", 30, 5), "anon_id": DEVICE})
    return made


def _event(who: str | None, item: str, week: int, minute: int, **more: Any) -> dict[str, Any]:
    at = START + timedelta(weeks=week, minutes=minute)
    event = {"event_id": f"{who}-{item}-{week}", "event_type": "click", "item_id": item, "timestamp": at.isoformat()}
    return {"user_id": who, **event, **more} if who else {**event, **more}


def is_theirs(event: dict[str, Any], gone: Sequence[str]) -> bool:
    return (event.get("user_id") or "") in gone or (event.get("user_id") is None and event.get("anon_id") == DEVICE)


def workspace(root: Path, salt_of: Home | None = None, without: Sequence[str] = ()) -> Home:
    """The shop in two ingests, with rejected lines and a users table; `without` people who never came."""
    home = create(root)
    settings = home.path(SETTINGS_FILE).read_text()
    home.path(SETTINGS_FILE).write_text(re.sub(r"(?m)^buckets = .*$", "buckets = 2", settings))  # few files: fast tests
    home = open_home(root)
    assert home.settings.whole("profiles.buckets") == 2
    if salt_of is not None:  # who is held out follows from the salt
        shutil.copy(salt_of.path(IDENTITY_FILE), home.path(IDENTITY_FILE))
        home = open_home(root)
    given = [event for event in lines() if not without or not is_theirs(event, without)]
    if without:
        for event in given:
            if event.get("anon_id") == DEVICE:
                del event["anon_id"]
    half = len(lines()) // 2
    all_lines = lines()
    for part, chosen in (("one", all_lines[:half]), ("two", all_lines[half:])):
        texts = [json.dumps(event) for event in chosen if event["event_id"] in {one["event_id"] for one in given}]
        texts = [
            json.dumps(next(one for one in given if one["event_id"] == json.loads(text)["event_id"])) for text in texts
        ]
        bad = [json.dumps({"user_id": who, "event_type": "click", "timestamp": "never"}) for who in (user(3), user(4))]
        texts += [line for line in bad if not any(f'"{who}"' in line for who in without)]
        path = root.parent / f"{root.name}-{part}.jsonl"
        path.write_text("\n".join(texts) + "\n")
        ingest(home, [str(path)])
        path.unlink()
    items = [
        {"item_id": f"{kind}{n:02d}", "title": f"thing {kind} {n}", "category": kind}
        for kind in "ab"
        for n in range(20)
    ]
    _ingest_rows(home, root, "items", items)
    people = [user(n) for n in range(N) if user(n) not in without]
    _ingest_rows(home, root, "users", [{"user_id": who, "role": taste(int(who[1:]))} for who in people])
    return home


def _ingest_rows(home: Home, root: Path, kind: Any, rows: Sequence[dict[str, Any]]) -> None:
    path = root.parent / f"{root.name}-{kind}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ingest(home, [str(path)], kind=kind)
    path.unlink()


_OF_THE_INGEST = ("source", "ingested_at", "stored_at", "file", "run", "rejected_at", "line", "offset", "month")


def rows_of(home: Home, name: str) -> pl.DataFrame:
    """Rows of a table without what says when and from which file they were taken in, sorted."""
    table = tables.open_table(home, name)
    assert table is not None
    rows = table.scan().collect()
    return rows.drop(column for column in _OF_THE_INGEST if column in rows.columns).sort(pl.all())


def assert_same_tables(home: Home, other: Home) -> None:
    assert behind(home) is None and behind(other) is None
    for name in ("events", "quarantine", "users", "items", "links", "identities"):
        if tables.exists(other, name):
            assert_frame_equal(rows_of(home, name), rows_of(other, name))
        elif tables.exists(home, name):
            assert not rows_of(home, name).height
    assert_frame_equal(history(home), history(other))
    assert_frame_equal(profile_rows(home).sort("user_id"), profile_rows(other).sort("user_id"))
    assert gram_store.stored_digest(home) == gram_store.stored_digest(other)


def assert_same_models(home: Home, other: Home) -> None:
    """What is served: exact models by the sha256 of every file, all by the lists that they make."""
    served, expected = registry.load_model(home), registry.load_model(other)
    assert {role: name.partition("/")[0] for role, name in served.parts.items()} == {
        role: name.partition("/")[0] for role, name in expected.parts.items()
    }
    for one, two in zip(
        *(
            sorted(registry.with_parts(where, [saved.reference]))
            for where, saved in ((home, served), (other, expected))
        ),
        strict=True,
    ):
        mine, theirs = (
            artifacts.read_manifest(where.path("models", name)) for where, name in ((home, one), (other, two))
        )
        assert mine["settings"] == theirs["settings"] and mine["exact"] == theirs["exact"]
        if mine["exact"]:
            assert mine["files"] == theirs["files"]
    assert_frame_equal(lists(home), lists(other))


def lists(home: Home) -> pl.DataFrame:
    return pl.concat(list(recommend(home, top=20).blocks)).drop("model", "base").sort("user_id")
