"""persona privacy consent and optout: what the commands write, show and refuse."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from persona_cli.api import Workspace
from persona_cli.cli.main import run
from persona_cli.consent.gate import Gate
from persona_cli.consent.receipts import COVERING, PURPOSES, STATES, receipts
from persona_cli.privacy.consent_documents import consent_receipt, digest, schema
from persona_cli.privacy.requests import requests
from persona_cli.workspace.home import Home, open_home

Said = pytest.CaptureFixture[str]


@pytest.fixture
def shop(elsewhere: Path, capsys: Said) -> Home:
    """anna on her phone and laptop, bert on anna's phone, carl."""
    rows = [
        {"anon_id": "phone", "event_type": "click", "item_id": "a"},
        {"anon_id": "phone", "user_id": "anna", "event_type": "identify"},
        {"anon_id": "laptop", "user_id": "anna", "event_type": "identify"},
        {"anon_id": "phone", "user_id": "bert", "event_type": "identify"},
        {"user_id": "carl", "event_type": "click", "item_id": "b"},
    ]
    stamped = [{**row, "timestamp": f"2026-03-01T00:0{n}:00Z"} for n, row in enumerate(rows)]
    Path("e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in stamped))
    assert run(["init", "w"]) == 0
    assert run(["ingest", "-w", "w", "e.jsonl"]) == 0
    capsys.readouterr()
    return open_home(Path("w"))


def told(capsys: Said, *words: str) -> Any:
    assert run(["privacy", *words, "-w", "w", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def states(home: Home, id: str) -> dict[str, str]:
    return {one.purpose: one.state for one in receipts(home, [id])}


def test_optout_reaches_every_linked_id_and_nobody_else(shop: Home, capsys: Said) -> None:
    done = told(capsys, "optout", "laptop")
    assert (done["people"], done["ids"], len(done["receipts"])) == (1, 3, 12)
    for id in ("anna", "phone", "laptop"):
        assert states(shop, id) == dict.fromkeys(PURPOSES, "objected")
    assert states(shop, "bert") == states(shop, "carl") == {}
    assert [(one.kind, one.closed is not None) for one in requests(shop)] == [("objection", True)]
    Path("more.jsonl").write_text('{"anon_id":"phone","event_type":"click","item_id":"z","timestamp":"2026-03-02"}\n')
    assert run(["ingest", "-w", "w", "more.jsonl", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dropped"] == {"opted_out": 1}


def test_a_browsers_signal_reaches_the_other_ids_of_the_person(shop: Home, capsys: Said) -> None:
    event = {"anon_id": "laptop", "event_type": "click", "item_id": "z", "timestamp": "2026-03-02", "gpc": 1}
    Path("more.jsonl").write_text(json.dumps(event) + "\n")
    assert run(["ingest", "-w", "w", "more.jsonl", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["opted_out_by_signal"], report["receipts"]) == (1, 12)
    for id in ("anna", "phone", "laptop"):
        assert states(shop, id) == dict.fromkeys(PURPOSES, "objected")
    assert states(shop, "bert") == states(shop, "carl") == {}
    assert run(["ingest", "-w", "w", "more.jsonl", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["opted_out_by_signal"], report["receipts"]) == (0, 0)


def test_an_optout_taken_back_restores_what_was_said(shop: Home, capsys: Said) -> None:
    told(capsys, "consent", "grant", "anna", "--purpose", "messaging.email", "--purpose", "analytics")
    told(capsys, "consent", "withdraw", "anna", "--purpose", "model_training")
    before = {one["purpose"]: one["permitted"] for one in told(capsys, "consent", "show", "anna")["purposes"]}
    assert before == {
        "personalization": True, "analytics": True, "model_training": False, "messaging": False, "messaging.email": True
    }  # fmt: skip
    told(capsys, "optout", "anna")
    out = told(capsys, "consent", "show", "phone")["purposes"]
    assert {one["permitted"] for one in out} == {False}
    told(capsys, "optout", "phone", "--undo")
    after = {one["purpose"]: one["permitted"] for one in told(capsys, "consent", "show", "anna")["purposes"]}
    assert after == {**before, "messaging.email": True}
    assert told(capsys, "optout", "carl", "--undo")["receipts"] == [], "who did not opt out"


def test_what_was_taken_back_is_no_consent(shop: Home, capsys: Said) -> None:
    told(capsys, "optout", "carl")
    told(capsys, "optout", "carl", "--undo")
    assert set(states(shop, "carl").values()) == {"cleared"}
    assert Gate.of(shop).collects(pl.Series(["carl"]), pl.Series([None], dtype=pl.String)).item()
    assert not Gate.of(shop).permits("messaging", pl.Series(["carl"])).item(), "messaging rests on consent"


def test_a_withdrawal_is_a_request_and_a_grant_is_none(shop: Home, capsys: Said) -> None:
    Path("notice.md").write_text("what we do\n")
    done = told(capsys, "consent", "grant", "carl", "--purpose", "analytics", "--notice", "notice.md",
                "--source", "web form", "--proof", "F-1017", "--at", "2026-03-01T10:00:00Z")  # fmt: skip
    assert done["request"] is None
    one = receipts(shop, ["carl"])[0]
    sha = hashlib.sha256(b"what we do\n").hexdigest()
    assert (one.notice, one.notice_sha256, one.source, one.proof) == ("notice.md", sha, "web form", "F-1017")
    assert shop.path("privacy", "notices", f"{sha}.md").read_text() == "what we do\n"
    done = told(capsys, "consent", "withdraw", "carl")
    assert len(done["receipts"]) == 4
    assert [(one.id, one.kind, one.outcome) for one in requests(shop)] == [
        (done["request"], "consent_withdrawal", f"withdrawn for {', '.join(sorted(PURPOSES))}")
    ]


def test_many_people_from_a_file_or_standard_input(shop: Home, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("ids.txt").write_text("carl\n\nbert\n")
    assert told(capsys, "optout", "--file", "ids.txt")["people"] == 2
    monkeypatch.setattr(sys, "stdin", io.StringIO("anna\n"))
    assert told(capsys, "consent", "grant", "-", "--purpose", "analytics")["ids"] == 3
    for words in (["optout"], ["optout", "a", "--file", "ids.txt"], ["consent", "grant", "a"]):
        assert run(["privacy", *words, "-w", "w"]) == 2
    assert run(["privacy", "optout", "--file", "none.txt", "-w", "w"]) == 66


def test_refused_is_what_would_name_the_person_or_is_no_purpose(shop: Home, capsys: Said) -> None:
    for words in (["--proof", "mail of anna"], ["--source", "anna"]):
        assert run(["privacy", "consent", "withdraw", "anna", *words, "-w", "w"]) == 2
        assert "must not" in capsys.readouterr().err
    assert run(["privacy", "consent", "grant", "anna", "--purpose", "analytic", "-w", "w"]) == 2
    assert "did you mean 'analytics'" in capsys.readouterr().err
    assert run(["privacy", "consent", "grant", "anna", "--purpose", "analytics", "--at", "2999-01-01", "-w", "w"]) == 2
    assert receipts(shop, ["anna"]) == [] and requests(shop) == []


def test_no_id_in_manifests_receipts_or_requests(shop: Home, capsys: Said) -> None:
    told(capsys, "optout", "carl")
    told(capsys, "consent", "show", "carl")
    Path("c.csv").write_text("user_id,purpose,state,at\ncarl,analytics,given,2026-03-01\n")
    told(capsys, "consent", "import", "c.csv")
    for folder in ("runs", "privacy", "consents", ".locks"):
        for path in shop.path(folder).rglob("*"):
            if path.is_file():
                assert b"carl" not in path.read_bytes(), path
                if path.suffix == ".parquet":
                    assert "carl" not in str(pl.read_parquet(path).to_dicts())


def test_a_receipt_validates_against_its_schema(shop: Home, capsys: Said) -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator(schema())
    validator.check_schema(schema())
    told(capsys, "consent", "grant", "anna", "--purpose", "messaging.email", "--source", "form", "--proof", "F-1")
    told(capsys, "optout", "anna")
    for one in receipts(shop, ["anna", "phone"]):
        document = consent_receipt(shop, one.receipt_id)
        validator.validate(document)
        text = json.dumps(document["record"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert document["receipt"]["record_sha256"] == hashlib.sha256(text.encode()).hexdigest()
        assert document["record"]["events"][-1]["event_state"] == one.state
        changed = {**document["record"], "pii_principal_id": "0" * 32}
        assert digest(changed) != document["receipt"]["record_sha256"]
        assert list(validator.iter_errors({**document, "record": {**document["record"], "email": "x"}}))
    listed = schema()["properties"]["record"]["properties"]["events"]["items"]["properties"]["event_state"]["enum"]
    assert tuple(listed) == STATES
    assert run(["privacy", "consent", "receipt", one.receipt_id, "-w", "w"]) == 0
    assert json.loads(capsys.readouterr().out) == document
    assert run(["privacy", "consent", "receipt", "nothing", "-w", "w"]) == 66
    capsys.readouterr()
    assert run(["privacy", "consent", "receipt", "-", "--schema", "-w", "w"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()


def test_purposes_count_the_people_permitted(shop: Home, capsys: Said) -> None:
    told(capsys, "optout", "phone")
    rows = {row["purpose"]: row for row in told(capsys, "consent", "purposes")}
    assert [(row["basis"], row["people"], row["permitted"]) for row in rows.values()] == [
        ("contract", 3, 2), ("contract", 3, 2), ("contract", 3, 2), ("consent", 3, 0),
    ]  # fmt: skip
    assert rows["analytics"]["ids_refused"] == 3


def test_import_writes_all_or_nothing_and_once(shop: Home, capsys: Said) -> None:
    lines = ["user_id,purpose,state,at,source"]
    lines += ["anna,analytics,granted,2026-03-01T10:00:00+01:00,cmp", 'bert,messaging.sms,denied,1772366400,"a, b"']
    Path("c.csv").write_text("\n".join(lines) + "\n")
    assert told(capsys, "consent", "import", "c.csv") == {"lines": 2, "receipts": 4, "people": 2}
    assert states(shop, "laptop") == {"analytics": "given"}
    assert receipts(shop, ["anna"])[0].at.isoformat() == "2026-03-01T09:00:00+00:00"
    assert told(capsys, "consent", "import", "c.csv")["receipts"] == 0
    rows = [{"user_id": 7, "purpose": "analytics", "state": "objected", "at": "2026-03-01"}]
    Path("c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert told(capsys, "consent", "import", "c.jsonl")["receipts"] == 1
    assert states(shop, "7") == {"analytics": "objected"}


@pytest.mark.parametrize(
    ("line", "told_why"),
    [
        ("x,analytic,given,2026-03-01", "did you mean 'analytics'"),
        ("x,analytics,perhaps,2026-03-01", "state: "),
        ("x,analytics,given,yesterday", "at: "),
        ("x,analytics,given,2999-01-01", "from 1990 until now"),
        (",analytics,given,2026-03-01", "user_id: missing"),
        ("x,analytics,given", "3 cells; expected 4"),
        ('x,"analytics,given,2026-03-01', "not CSV"),
    ],
)
def test_bad_lines_are_named_and_nothing_is_written(shop: Home, capsys: Said, line: str, told_why: str) -> None:
    Path("c.csv").write_text(f"user_id,purpose,state,at\ncarl,analytics,given,2026-03-01\n{line}\n")
    assert run(["privacy", "consent", "import", "c.csv", "-w", "w"]) == 65
    err = capsys.readouterr().err
    assert "line 3" in err and told_why in err and "nothing was written" in err
    assert receipts(shop, ["carl"]) == []


def test_bad_files_are_refused(shop: Home, capsys: Said) -> None:
    for text, why in (
        ("user_id,purpose,stat,at\n", "did you mean 'state'"),
        ("user_id,purpose,state\n", "lacks at"),
        ("", "empty"),
        ('{"user_id":"a"}\n[1]\n{"user":"a"}\n', "3 of 3"),
    ):
        Path("c.csv").write_text(text)
        assert run(["privacy", "consent", "import", "c.csv", "-w", "w"]) == 65
        assert why in capsys.readouterr().err
    assert run(["privacy", "consent", "import", "none.csv", "-w", "w"]) == 66


def test_from_python(shop: Home) -> None:
    privacy = Workspace("w").privacy
    assert len(privacy.say(["carl"], "given", ["analytics"], source="call").receipts) == 1
    assert privacy.optout(["carl"]).ids == 1
    assert [row["permitted"] for row in privacy.purposes()] == [2, 2, 2, 0]
    assert [row["purpose"] for row in privacy.purposes() if row["collects"]] == list(COVERING)
