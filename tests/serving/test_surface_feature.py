"""`kind = "feature"`: what is shown grows with the person, and nothing that was used is taken away."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from deciding import NOW, decided, sides, workspace
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persona_cli.errors import BadSettings
from persona_cli.profiles.sync import sync
from persona_cli.serving.surfaces import Surface
from persona_cli.serving.surfaces.feature import decide
from persona_cli.serving.surfaces.visitors import visitors
from persona_cli.workspace.home import Home, open_home

SETTINGS = """
[surface.help]
kind = "feature"
items.tour = { type = "onboarding", when = "maturity < 0.2" }
items.setup = { type = "workflow", when = "role = 'admin' and sessions < 5" }
items.sql = { type = "panel", when = "maturity >= 0.4", feature = "query", default = false }
items.keys = { type = "hint", when = "sessions >= 20 and device = 'desktop'" }
"""
NOTHING: dict[str, list[str]] = {"onboarding": [], "workflow": [], "panel": [], "hint": [], "kept": []}


def visits(user: str, n: int, **more: Any) -> list[dict[str, Any]]:
    """One session a day, up to `NOW`."""
    return [
        {
            "user_id": user,
            "event_type": "page_view",
            "timestamp": NOW - timedelta(days=day),
            "session_id": str(day),
            "device": "desktop",
            **more,
        }
        for day in range(n)
    ]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return workspace(tmp_path / "w", SETTINGS, [])


def filled(home: Home, events: list[dict[str, Any]]) -> Home:
    from shop import add

    add(home, events)
    sync(home)
    return open_home(home.root)


def test_what_is_shown_follows_conditions_on_the_person(home: Home) -> None:
    from shop import START

    from persona_cli.events.schema import stored_schema
    from persona_cli.workspace import tables

    (new, old, admin, stranger, *_), _ = sides(home)
    home = filled(home, visits(new, 1) + visits(old, 60) + visits(admin, 3))
    schema = stored_schema("users")
    table = tables.open_or_create(home, "users", schema)
    import polars as pl

    empty = pl.DataFrame(pl.from_arrow(schema.empty_table())).schema
    row = dict.fromkeys(empty) | {"user_id": admin, "role": "admin", "ingested_at": START}
    table.commit([table.write(pl.DataFrame([row], schema=empty, orient="row"))])
    lines = decided(home, "help", [new, old, admin, stranger], explain=True)
    assert lines[new]["config"] == {**NOTHING, "onboarding": ["tour"]}
    assert lines[old]["config"] == {**NOTHING, "panel": ["sql"], "hint": ["keys"]}
    assert lines[admin]["config"] == {**NOTHING, "onboarding": ["tour"], "workflow": ["setup"]}
    assert lines[stranger]["config"] == lines[new]["config"]  # has no use at all, so little of it
    assert lines[old]["reasons"] == ["sql: maturity >= 0.4", "keys: sessions >= 20 and device = 'desktop'"]
    assert {line["policy"] for line in lines.values()} == {"conditions"}


def test_the_context_of_the_visit_counts_before_the_profile(home: Home) -> None:
    (old, *_), _ = sides(home)
    home = filled(home, visits(old, 60))
    assert decided(home, "help", [old], context={"device": "mobile"})[old]["config"]["hint"] == []


def test_what_was_used_stays(home: Home) -> None:
    (ann, *_), (held, *_) = sides(home)
    used = [{"event_type": "feature_use", "target": "query"}, {"event_type": "click", "target": "keys"}]
    home = filled(home, [visits(user, 1)[0] | event for user in (ann, held) for event in used])
    line = decided(home, "help", [ann], explain=True)[ann]
    assert line["config"] == {
        "onboarding": ["tour"],
        "workflow": [],
        "panel": ["sql"],
        "hint": ["keys"],
        "kept": ["sql", "keys"],
    }
    assert line["rules"] == ["kept_used"]
    assert line["reasons"] == ["tour: maturity < 0.2", "sql: used before", "keys: used before"]
    # The held out have the tools that everybody has, and what they used.
    line = decided(home, "help", [held])[held]
    assert (line["config"], line["policy"], line["holdout"]) == (
        {**NOTHING, "workflow": ["setup"], "panel": ["sql"], "hint": ["keys"], "kept": ["sql", "keys"]},
        "default",
        True,
    )


def test_of_whom_too_little_is_known_the_default_is_shown(home: Home) -> None:
    path = home.root / "persona.toml"
    path.write_text(path.read_text() + "min_confidence = 0.5\n")
    (new, old, *_), _ = sides(home)
    home = filled(open_home(home.root), visits(new, 4) + visits(old, 60))  # 4 / (4 + 5) and 60 / (60 + 5)
    lines = decided(home, "help", [new, old])
    assert lines[new]["config"] == {**NOTHING, "workflow": ["setup"]}
    assert (lines[new]["policy"], lines[new]["rules"]) == ("default", ["min_confidence"])
    assert lines[old]["policy"] == "conditions"


CONDITIONS = ("maturity < 0.1", "sessions >= 3", "device = 'desktop'", "events > 1000", "days_since_last < 0")


@given(
    st.lists(st.tuples(st.sampled_from(CONDITIONS), st.booleans()), min_size=1, max_size=4),
    st.floats(0, 1),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_used_is_ever_taken_away(
    shown_once: tuple[Home, dict[int, set[str]]], items: list[tuple[str, bool]], least: float
) -> None:
    home, used = shown_once
    options = {
        "items": {
            name: {"type": "panel", "when": when, "feature": name, "default": default}
            for name, (when, default) in zip("abcd", items, strict=False)
        },
        "min_confidence": least,
    }
    surface = Surface("any", "feature", options)
    asked = visitors(home, ("features_used", "clicked", "events", "maturity", "sessions", "days_since_last"), at=NOW)
    found = decide(home, surface, asked)
    for user, config in zip(asked.users, found["config"], strict=True):
        assert used[int(user[1:])] & set(options["items"]) <= set(config["panel"])


@pytest.fixture(scope="module")
def shown_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, dict[int, set[str]]]:
    """Forty users of whom each has used another set of features, the held out among them."""
    home = workspace(tmp_path_factory.mktemp("used") / "w", "", [])
    used = {number: {name for place, name in enumerate("abcd") if number >> place & 1} for number in range(40)}
    events = [
        visits(f"u{number:03d}", 1 + number % 3)[-1]
        | {"event_type": ("feature_use", "click")[number % 2], "target": name}
        for number, names in used.items()
        for name in names
    ]
    return filled(home, events + [one for number in used for one in visits(f"u{number:03d}", 1)]), used


def test_a_condition_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    text = '[surface.help]\nkind = "feature"\nitems.tour = { type = "onboarding", when = "maturty < 0.2" }\n'
    home = workspace(tmp_path / "w", text, [])
    with pytest.raises(BadSettings, match=r"surface.help.items.tour.when: .*'maturty'; did you mean 'maturity'"):
        decided(home, "help", ["u"])
    path = home.root / "persona.toml"
    whole = path.read_text()
    for right, wrong in (("when", "whn"), ("type", "tipe")):
        path.write_text(whole.replace(f"{right} =", f"{wrong} ="))
        with pytest.raises(BadSettings, match=f"did you mean '{right}'"):
            open_home(home.root)
