"""What people decide about their own lists: it is stored as events, can be taken back, and pauses are receipts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from persona_cli import Workspace
from persona_cli.cli.main import run
from persona_cli.consent.gate import Gate
from persona_cli.consent.receipts import receipts, record
from persona_cli.errors import Refused, UsageError
from persona_cli.privacy import own_data

ME = "u01"


@pytest.fixture
def shop(films: Callable[[int], Path]) -> Workspace:
    root = films(6)
    items = [
        {"item_id": f"f{n:02d}", "category": "war" if n % 2 else "comedy", "tags": ["war", "old"]} for n in range(40)
    ]
    (root.parent / "items.jsonl").write_text("\n".join(map(json.dumps, items)) + "\n")
    assert run(["ingest", "-w", "w", "items.jsonl", "--kind", "items", "-q"]) == 0
    return Workspace(root)


def test_nothing_is_said_by_default_also_by_strangers(shop: Workspace) -> None:
    nothing = own_data.Own({}, (), {}, {})
    assert shop.privacy.preferences(ME) == nothing == shop.privacy.preferences("stranger")


def test_what_is_set_and_blocked_is_in_the_profile_and_can_be_taken_back(shop: Workspace) -> None:
    before = shop.profile(ME)
    now = shop.privacy.set_preferences(ME, {"tone": "calm"}, block=["topic:war", "item:f01"])
    assert dict(now.settings) == {"tone": "calm"}
    assert now.blocked == ("category:war", "item:f01", "tag:war")
    told = shop.profile(ME)["told"]
    assert told["preferences"] == {"tone": "calm"} and told["blocked"]["categories"] == ["war"]
    assert shop.privacy.set_preferences(ME, {"tone": "loud"}, unblock=["tag:war"]).blocked == (
        "category:war",
        "item:f01",
    )
    gone = shop.privacy.set_preferences(ME, reset=True)
    assert gone == own_data.Own({}, (), {}, {})
    assert shop.profile(ME)["told"] == before["told"]
    # The words are there as events, so an old file that comes again changes nothing.
    types = shop.events().filter(pl.col("source") == own_data.SOURCE).collect()["event_type"].value_counts()
    assert dict(types.iter_rows()) == {"preference": 3, "block": 3, "unblock": 3}


def test_reset_takes_back_answers_and_show_me_less_of_the_app_too(shop: Workspace, elsewhere: Path) -> None:
    said = [
        {"event_type": "survey_answer", "target": "taste", "props": {"answer": ["a", "b"]}},
        {"event_type": "show_less", "target": "category:comedy"},
    ]
    lines = [json.dumps({"user_id": ME, "timestamp": "2026-01-12T00:00:00Z", **one}) for one in said]
    (elsewhere / "said.jsonl").write_text("\n".join(lines) + "\n")
    shop.ingest(elsewhere / "said.jsonl")
    before = shop.privacy.preferences(ME)
    assert before.answers == {"taste": ("a", "b")} and list(before.show_less) == ["category:comedy"]
    assert shop.privacy.set_preferences(ME, reset=True) == own_data.Own({}, (), {}, {})


@pytest.mark.parametrize(
    ("block", "unblock", "message"),
    [
        (["f01"], [], "names nothing"),
        (["item:"], [], "names nothing"),
        (["topic:wra"], [], "did you mean 'war'"),
        (["item:f1"], ["item:f1"], "at once"),
    ],
)
def test_what_cannot_be_blocked(shop: Workspace, block: list[str], unblock: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        shop.privacy.set_preferences(ME, block=block, unblock=unblock)


def test_a_pause_is_a_receipt_and_ends_where_it_began(shop: Workspace) -> None:
    home, ids = shop.home, pl.Series([ME])
    shop.privacy.set_preferences(ME, paused=True)
    shop.privacy.set_preferences(ME, paused=True)
    assert [one.state for one in receipts(home, [ME])] == ["paused"]
    gate = Gate.of(home)
    assert not gate.permits("personalization", ids)[0] and gate.permits("analytics", ids)[0]
    shop.privacy.set_preferences(ME, paused=False)
    assert Gate.of(home).permits("personalization", ids)[0] and not own_data.paused(home, ME)
    record(home, [ME], ["personalization"], "objected")
    shop.privacy.set_preferences(ME, paused=True)
    shop.privacy.set_preferences(ME, paused=False)
    assert not Gate.of(home).permits("personalization", ids)[0]  # the end of a pause is no consent


def test_no_consent_is_made_by_ending_a_pause(shop: Workspace) -> None:
    settings = shop.home.root / "persona.toml"
    text = settings.read_text()
    section = text.index("[privacy.purposes.personalization]")
    settings.write_text(text[:section] + text[section:].replace('basis = "contract"', 'basis = "consent"', 1))
    again = Workspace(shop.home.root)
    again.privacy.set_preferences(ME, paused=True)
    again.privacy.set_preferences(ME, paused=False)
    assert not own_data.paused(again.home, ME)
    assert not Gate.of(again.home).permits("personalization", pl.Series([ME]))[0]


def test_who_opted_out_has_no_settings_stored(shop: Workspace) -> None:
    record(shop.home, [ME], ["personalization", "analytics", "model_training"], "objected")
    with pytest.raises(Refused, match="nothing of this person is stored"):
        shop.privacy.set_preferences(ME, {"tone": "calm"})


def test_no_manifest_names_the_person_or_what_they_set(shop: Workspace) -> None:
    words = ["privacy", "preferences", "-w", "w", ME, "--set", " religion = none", "--block", "topic:war", "--pause"]
    assert run(words) == 0 and run([*words[:5], "--set=religion=some"]) == 0
    for path in shop.home.path("runs").glob("*.json"):
        text = path.read_text()
        assert ME not in text and "religion" not in text
