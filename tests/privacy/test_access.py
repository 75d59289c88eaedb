"""What a person is handed: all that is held of them, nobody else, in a form that can be taken in again."""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from persona_cli import Workspace
from persona_cli.cli.main import run
from persona_cli.consent.receipts import record
from persona_cli.consent.subjects import lift
from persona_cli.errors import MissingInput, UsageError
from persona_cli.privacy.erasure import forget
from persona_cli.privacy.recipients import recipients

ME, DEVICE, OTHER, SHORT, BRIEF = "user-000001", "device-000001", "user-000002", "7", "u07"
EVIL = 'i<script>alert("1")</script>'
Parts = dict[str, Any]


def _events() -> list[dict[str, Any]]:
    mine = [
        {
            "user_id": ME,
            "event_type": "click",
            "item_id": f"i{n % 5:02d}",
            "value": n / 3,
            "props": {"n": 1.10, "k": "x"},
        }
        for n in range(8)
    ]
    mine += [
        {"anon_id": DEVICE, "event_type": "view", "item_id": EVIL, "context": {"device": "mobile", "country": "DE"}},
        {"anon_id": DEVICE, "user_id": ME, "event_type": "identify"},
        {"user_id": ME, "event_type": "search", "query": f"who is {OTHER}, or {BRIEF}?"},
        {
            "user_id": ME,
            "event_type": "share",
            "props": {"user": {"uid": SHORT}, "to": [OTHER, "nobody-9"], "value": 7},
        },
        {
            "user_id": ME,
            "anon_id": "device-000002",
            "event_type": "click",
            "item_id": "i07",
            "target": f"/u/{OTHER}#top",
        },
        {"user_id": ME, "event_type": "preference", "target": "tone", "props": {"value": "calm"}},
        {"user_id": ME, "event_type": "block", "item_id": "i04"},
    ]
    theirs = [
        {"user_id": who, "event_type": "click", "item_id": f"i{(n * step) % 9:02d}"}
        for step, who in enumerate((OTHER, SHORT, BRIEF, *(f"user-0001{n:02d}" for n in range(20))), 1)
        for n in range(6)
    ]
    theirs += [{"user_id": OTHER, "anon_id": "device-000002", "event_type": "identify"}]
    return [
        {"timestamp": f"2026-01-{n % 28 + 1:02d}T10:{n % 60:02d}:00.{n:06d}Z", **event}
        for n, event in enumerate([*theirs[:40], *mine, *theirs[40:]])
    ]


@pytest.fixture
def shop(elsewhere: Path) -> Workspace:
    made = Workspace.create(elsewhere / "w")
    lines = [json.dumps(event) for event in _events()]
    lines.append(json.dumps({"user_id": ME, "event_type": "click", "timestamp": "yesterday", "friend_id": OTHER}))
    lines.append(json.dumps({"user_id": OTHER, "event_type": "click", "timestamp": "yesterday"}))
    (elsewhere / f"export-{OTHER}.jsonl").write_text("\n".join(lines) + "\n")
    made.ingest(elsewhere / f"export-{OTHER}.jsonl")
    users = [{"user_id": one, "role": "buyer", "account_id": "acme"} for one in (ME, OTHER)]
    (elsewhere / "users.jsonl").write_text("\n".join(map(json.dumps, users)) + "\n")
    made.ingest(elsewhere / "users.jsonl", kind="users")
    return made


def _handed(shop: Workspace, user: str = ME, name: str = "out.zip") -> Parts:
    path = shop.home.root.parent / name
    shop.privacy.access(user, path)
    with zipfile.ZipFile(path) as archive:
        texts = {one: archive.read(one).decode() for one in archive.namelist()}
    found: Parts = {one: json.loads(text) if one.endswith(".json") else text for one, text in texts.items()}
    found["events"] = [json.loads(line) for line in texts["events.jsonl"].splitlines()]
    found["all"] = "".join(texts.values())
    return found


def test_all_that_is_held_is_in_it(shop: Workspace) -> None:
    record(shop.home, [ME], ["messaging.email"], "given", notice="v3")
    noted = shop.privacy.open_request("objection", DEVICE)
    found = _handed(shop)
    assert len(found["events"]) == 15
    assert found["attributes.json"]["users"][0]["role"] == "buyer"
    assert [(one["anon_id"], one["user_id"]) for one in found["attributes.json"]["links"]] == [(DEVICE, ME)]
    assert [(one["purpose"], one["state"], one["notice"]) for one in found["consents.json"]] == [
        ("messaging.email", "given", "v3")
    ]
    assert [one["id"] for one in found["requests.json"]] == [noted.id]
    assert [one["number"] for one in found["rejected.json"]] == [len(_events()) + 1]
    profile = {one["name"]: one for one in found["profile.json"]["values"]}
    assert profile["ids"]["value"] == [DEVICE, ME] and profile["events"]["value"] == 15
    assert all(one["means"] for one in profile.values())
    days = pl.DataFrame(found["history.json"]["days"])
    assert days["n"].sum() == 11
    information = found["information.json"]
    assert [one["purpose"] for one in information["purposes"] if one["used"]] == [
        "personalization",
        "analytics",
        "model_training",
    ]
    assert information["where"]["events"] == 15 and information["retention"] and information["rights"]
    assert found["recommendations.json"]["why_none"] == "no model has been trained yet"


def test_nobody_else_is_in_it(shop: Workspace) -> None:
    found = _handed(shop)
    assert OTHER not in found["all"] and "device-000002" not in found["all"] and "user-0001" not in found["all"]
    shared = next(event for event in found["events"] if event["event_type"] == "share")
    # A short id counts under the name of a person's field only: a value that is 7 stays.
    assert shared["props"] == {"user": {"uid": "[somebody else]"}, "to": ["[somebody else]", "nobody-9"], "value": 7}
    searched = next(event for event in found["events"] if event["event_type"] == "search")
    assert searched["query"] == "who is [somebody else], or [somebody else]?"
    assert ME in found["all"] and DEVICE in found["all"]


def test_the_page_holds_ids_as_text_and_the_manifest_the_digests(shop: Workspace) -> None:
    found = _handed(shop)
    page = found["index.html"]
    assert "<script" not in page and "&lt;script&gt;alert(&quot;1&quot;)" in page
    assert "default-src &#x27;none&#x27;" in page or "default-src 'none'" in page
    with zipfile.ZipFile(shop.home.root.parent / "out.zip") as archive:
        stated = found["manifest.json"]["files"]
        assert set(stated) == set(archive.namelist()) - {"manifest.json"}
        for name, one in stated.items():
            assert hashlib.sha256(archive.read(name)).hexdigest() == one["sha256"]


def test_equal_contents_are_equal_bytes_and_only_the_owner_reads_them(shop: Workspace) -> None:
    path = shop.home.root.parent / "one.zip"
    path.write_text("was readable")
    path.chmod(0o644)
    first = shop.privacy.access(ME, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert shop.privacy.access(DEVICE, path.with_name("two.zip")).sha256 == first.sha256
    assert [(one.kind, one.closed is not None) for one in shop.privacy.requests()] == [("access", True)] * 2


def test_what_is_handed_over_can_be_taken_in_again(shop: Workspace, elsewhere: Path) -> None:
    # Without what names others, of which the archive has no ids.
    plain = Workspace.create(elsewhere / "plain")
    events = [one for one in _events() if OTHER not in json.dumps(one) or one.get("user_id") == OTHER]
    (elsewhere / "plain.jsonl").write_text("\n".join(map(json.dumps, events)) + "\n")
    plain.ingest(elsewhere / "plain.jsonl")
    before, rows = plain.profile(ME), plain.events().filter(pl.col("user_id") == ME).sort("event_id").collect()
    handed = _handed(plain)
    forget(plain.home, [ME])
    with pytest.raises(MissingInput):
        plain.profile(ME)
    lift(plain.home, [ME, DEVICE])
    (elsewhere / "back.jsonl").write_text(handed["events.jsonl"])
    report = plain.ingest(elsewhere / "back.jsonl")
    assert (report.accepted, report.rejected) == (len(handed["events"]), 0)
    after = plain.events().filter(pl.col("user_id") == ME).sort("event_id").collect()
    left_out = ("source", "ingested_at")
    shared = rows.filter(pl.col("event_type") != "share").drop(left_out)
    assert after.filter(pl.col("event_type") != "share").drop(left_out).equals(shared)
    assert plain.profile(ME) == before


def test_a_person_without_events(shop: Workspace) -> None:
    record(shop.home, ["quiet-person"], ["messaging.email"], "given")
    found = _handed(shop, "quiet-person")
    assert found["events"] == [] and found["profile.json"] is None and len(found["consents.json"]) == 1
    assert "No event of yours is stored" in found["index.html"]


def test_a_person_who_opted_out_gets_everything_that_is_left(shop: Workspace) -> None:
    record(shop.home, [ME, DEVICE], ["personalization", "analytics", "model_training"], "objected")
    found = _handed(shop)
    assert len(found["events"]) == 15
    assert not any(one["used"] for one in found["information.json"]["purposes"])
    assert {one["state"] for one in found["consents.json"]} == {"objected"}


def test_of_somebody_erased_or_unknown_nothing_is_held(shop: Workspace) -> None:
    out = shop.home.root.parent / "none.zip"
    forget(shop.home, [ME])
    with pytest.raises(MissingInput, match="erased on"):
        shop.privacy.access(ME, out)
    assert [one.outcome for one in shop.privacy.requests() if one.kind == "access"] == ["nothing is held"]
    with pytest.raises(MissingInput, match="nothing is held of 'stranger'"):
        shop.privacy.access("stranger", out)
    assert not out.exists()


def test_an_archive_in_the_workspace_is_refused(shop: Workspace) -> None:
    with pytest.raises(UsageError, match="in the workspace"):
        shop.privacy.access(ME, shop.home.root / "reports" / "me.zip")
    assert shop.privacy.requests() == []


def test_to_another_service_at_the_persons_wish(shop: Workspace, elsewhere: Path) -> None:
    done = shop.privacy.access(ME, elsewhere / "p.zip", recipient="Other shop")
    (given,) = recipients(shop.home)
    assert (given.recipient, given.digest) == ("Other shop", done.sha256)
    assert [one.kind for one in shop.privacy.requests()] == ["portability"]


def test_the_command_tells_why_these_items(films: Callable[[int], Path], capsys: pytest.CaptureFixture[str]) -> None:
    root = films(30)
    Workspace(root).train("knn")
    capsys.readouterr()
    assert run(["privacy", "access", "-w", "w", "u01", "--out", "me.zip", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["held"]["events"] == 12 and told["ids"] == ["u01"]
    with zipfile.ZipFile("me.zip") as archive:
        found = json.loads(archive.read("recommendations.json"))
    if not found["held_out"]:
        assert found["rests_on"].startswith("knn/") and any("goes with" in why for why in found["items"][0]["why"])
    assert any("same people liked" in text for text in found["logic"]) or found["held_out"]
    assert not any("u01" in path.read_text() for path in root.glob("runs/*.json"))
    assert run(["privacy", "access", "-w", "w", "nobody", "--out", "me2.zip"]) == 66
