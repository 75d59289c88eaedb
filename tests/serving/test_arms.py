"""Arms of a surface: who gets which, by what chance, and what is refused."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deciding import NOW, decided, sides, workspace

from persona_cli.cli.main import run
from persona_cli.errors import BadSettings
from persona_cli.models import bandits
from persona_cli.models.bandits import Learned
from persona_cli.serving.surfaces import surface_of
from persona_cli.serving.surfaces.arms import arm_names, columns_of, digest_of, encoded, told_features
from persona_cli.workspace.home import SETTINGS_FILE, Home, create, open_home

SETTINGS = """
[surface.nav]
kind = "ui"
entries = ["home", "search"]
arms.plain = {}
arms.dense = { density = "compact" }
bandit = { features = ["device", "maturity"], epsilon = 0.1 }
"""


def learned(home: Home, rewards: dict[tuple[str, str], tuple[int, int]], name: str = "nav") -> None:
    """Keep sums of (arm, device): (decisions, rewards)."""
    surface = surface_of(home, name)
    names, columns = arm_names(surface), columns_of(surface)
    x, arm, reward = [], [], []
    for (one, device), (n, k) in rewards.items():
        row = np.zeros(len(columns))
        row[[0, columns.index(f"device={device}")]] = 1
        x += [row] * n
        arm += [names.index(one)] * n
        reward += [1.0] * k + [0.0] * (n - k)
    sums = bandits.sums_of(np.array(x), np.array(arm), np.array(reward), len(names))
    bandits.keep_learned(home, name, Learned(digest_of(surface), tuple(names), sums))


def visit(users: list[str], device: str = "desktop") -> list[dict[str, Any]]:
    return [
        {"user_id": user, "event_type": "click", "item_id": "i", "timestamp": NOW - timedelta(days=1), "device": device}
        for user in users
    ]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return workspace(tmp_path / "w", SETTINGS, [])


def test_arms_that_nobody_tried_are_drawn_alike_and_the_kind_decides_by_them(home: Home) -> None:
    people, held = sides(home, 600)
    lines = decided(home, "nav", people + held)
    arms = [lines[user]["arm"] for user in people]
    assert set(arms) == {"plain", "dense"}
    assert abs(arms.count("dense") / len(people) - 0.5) < 0.1
    for user in people:
        line = lines[user]
        assert line["config"]["density"] == ("compact" if line["arm"] == "dense" else "comfortable")
        assert (line["policy"], line["propensity"]) == ("thompson", 0.5)
    for user in held:
        assert (lines[user]["arm"], lines[user]["policy"], lines[user]["propensity"]) == (None, "default", 1.0)
        assert lines[user]["config"]["density"] == "comfortable"


def test_an_arm_follows_from_the_person_and_the_period_alone(home: Home) -> None:
    people, _ = sides(home, 100)
    first = {user: line["arm"] for user, line in decided(home, "nav", people).items()}
    assert {user: line["arm"] for user, line in decided(home, "nav", people[::-1]).items()} == first
    assert decided(home, "nav", people[:1])[people[0]]["arm"] == first[people[0]]
    same_day = decided(home, "nav", people, at=NOW.replace(hour=23))
    assert {user: line["arm"] for user, line in same_day.items()} == first
    next_day = decided(home, "nav", people, at=NOW + timedelta(days=1))
    moved = sum(next_day[user]["arm"] != first[user] for user in people) / len(people)
    assert 0.3 < moved < 0.7


def test_each_kind_of_visitor_gets_what_earns_most_with_them(home: Home) -> None:
    people, _ = sides(home, 400)
    learned(
        home,
        {
            ("plain", "mobile"): (2000, 400),
            ("dense", "mobile"): (2000, 40),
            ("plain", "desktop"): (2000, 40),
            ("dense", "desktop"): (2000, 400),
        },
    )
    for device, best in (("mobile", "plain"), ("desktop", "dense")):
        lines = decided(home, "nav", people, context={"device": device})
        for line in lines.values():
            assert line["propensity"] == pytest.approx(0.95 if line["arm"] == best else 0.05, abs=1e-9)
        share = sum(line["arm"] == best for line in lines.values()) / len(lines)
        assert abs(share - 0.95) < 0.04


def test_propensities_are_those_of_the_policy_and_add_up(home: Home) -> None:
    people, _ = sides(home, 200)
    learned(home, {("plain", "desktop"): (40, 8), ("dense", "desktop"): (40, 9)})
    lines = decided(home, "nav", people, context={"device": "desktop"})
    by_arm = {line["arm"]: line["propensity"] for line in lines.values()}
    assert sum(by_arm.values()) == pytest.approx(1)
    assert 0.5 < by_arm["dense"] < 0.95


def test_where_the_features_are_others_than_were_learned_from_it_is_said(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    people, _ = sides(home, 20)
    learned(home, {("dense", "desktop"): (2000, 2000), ("plain", "desktop"): (2000, 0)})
    path = home.path(SETTINGS_FILE)
    path.write_text(path.read_text().replace('["device", "maturity"]', '["device"]'))
    with caplog.at_level(logging.WARNING, "persona"):
        lines = decided(open_home(home.root), "nav", people, context={"device": "desktop"})
    assert {line["propensity"] for line in lines.values()} == {0.5}
    assert "persona bandit update nav" in caplog.text


def test_an_arm_is_open_to_those_whom_it_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shut = SETTINGS.replace("{ density", "{ when = \"device = 'desktop'\", density").replace(
        "plain = {}", "plain = { when = \"device = 'tablet'\" }"
    )
    home = workspace(tmp_path / "w", shut, [])
    people, _ = sides(home, 40)
    lines = decided(home, "nav", people, context={"device": "desktop"})
    assert {(line["arm"], line["propensity"]) for line in lines.values()} == {("dense", 1.0)}
    assert not caplog.text
    with caplog.at_level(logging.WARNING, "persona"):
        lines = decided(home, "nav", people, context={"device": "mobile"})
    for line in lines.values():
        assert (line["arm"], line["policy"], line["rules"][-1]) == (None, "default", "no_arm_open")
    assert f"no arm of [surface.nav] is open to any of {len(people)} people" in caplog.text


def test_content_and_feature_surfaces_have_arms_too(tmp_path: Path) -> None:
    from persona_cli import Workspace

    settings = """
[surface.home]
kind = "content"
top = 5
arms.short = { top = 2 }
arms.long = {}
[surface.help]
kind = "feature"
items.tour = { type = "onboarding", when = "events >= 0", default = false }
arms.help = {}
arms.alone = { items = { tour = { type = "onboarding", when = "events < 0", default = false } } }
"""
    home = workspace(tmp_path / "w", settings, [])
    people, _ = sides(home, 30)
    events = [
        {**one, "item_id": f"i{(place + number) % 17}", "timestamp": (NOW - timedelta(days=1)).isoformat()}
        for number, user in enumerate(people)
        for place, one in enumerate(visit([user]) * 4)
    ]
    file = tmp_path / "e.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in events))
    shop = Workspace(home.root)
    shop.ingest(file)
    shop.train("popular")
    lines = decided(shop.home, "home", people)
    assert {(line["arm"], len(line["items"])) for line in lines.values()} == {("short", 2), ("long", 5)}
    lines = decided(shop.home, "help", people)
    assert {(line["arm"], *line["config"]["onboarding"]) for line in lines.values()} == {("help", "tour"), ("alone",)}


def test_features_are_bounded_and_no_finer_than_declared(tmp_path: Path) -> None:
    settings = SETTINGS.replace(
        '["device", "maturity"]', '{ country = ["DE", "FR"], purchases = [0, 20], network = ["slow", "fast"] }'
    )
    surface = surface_of(workspace(tmp_path / "w", settings, []), "nav")
    import polars as pl

    rows = pl.DataFrame(
        {"country": ["DE", "US", None], "purchases": [5, 70, None], "network": ["3g", "wifi", "cellular"]}
    )
    told = told_features(surface, rows)
    assert told.to_dicts() == [
        {"country": "DE", "purchases": 5.0, "network": "slow"},
        {"country": None, "purchases": 20.0, "network": "fast"},
        {"country": None, "purchases": None, "network": None},
    ]
    assert told_features(surface, told).equals(told)
    assert columns_of(surface) == ["constant", "country=DE", "country=FR", "purchases", "network=slow", "network=fast"]
    assert encoded(surface, told, 3).tolist() == [[1, 1, 0, 0.25, 1, 0], [1, 0, 0, 1, 0, 1], [1, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("arms.dense = { density", "arms.dense = { densty"), "'densty'"),
        (('"compact"', '"tiny"'), "one of auto, comfortable, compact"),
        (('arms.dense = { density = "compact" }\n', ""), "2 to 50 arms"),
        (("epsilon = 0.1", "epsilon = 2"), "bandit.epsilon"),
        (("epsilon = 0.1", "polcy = 2"), "'polcy'"),
        (('"maturity"', '"maturty"'), "maturity"),
        (('["device", "maturity"]', "{ purchases = [3] }"), "purchases"),
        (('["device", "maturity"]', "{ purchases = [9, 3] }"), "purchases"),
        (("bandit =", "bandits ="), "bandit"),
    ],
)
def test_what_is_misspelt_is_refused_by_name(home: Home, change: tuple[str, str], said: str) -> None:
    path = home.path(SETTINGS_FILE)
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(BadSettings, match=r"surface\.nav") as caught:
        open_home(home.root)
    assert said in str(caught.value)


def test_plans_have_no_arms(tmp_path: Path) -> None:
    home = create(tmp_path / "w")
    with home.path(SETTINGS_FILE).open("a") as file:
        file.write(
            '\n[surface.plans]\nkind = "plan"\nplans.free = { price = 0, limits = { seats = 3 } }\n'
            'plans.team = { price = 9, limits = { seats = 30 } }\nuses.seats = { count = "size" }\n'
            "arms.a = {}\narms.b = { months = 3 }\n"
        )
    with pytest.raises(BadSettings, match="people of the same use get the same advice"):
        open_home(home.root)


def test_features_and_conditions_that_are_not_there_are_named(home: Home) -> None:
    path = home.path(SETTINGS_FILE)
    text = path.read_text()
    path.write_text(text.replace('["device", "maturity"]', "{ purchaces = [0, 5] }"))
    with pytest.raises(BadSettings, match="purchases"):
        decided(open_home(home.root), "nav", ["u1"])
    path.write_text(text.replace("{ density", "{ when = \"devise = 'mobile'\", density"))
    with pytest.raises(BadSettings, match=r"arms.dense.when"):
        decided(open_home(home.root), "nav", ["u1"])


def test_nobody_is_decided_for_where_nobody_is_asked_for(home: Home) -> None:
    assert decided(home, "nav", []) == {}


def test_reasons_name_the_arm_and_its_chance(home: Home) -> None:
    people, _ = sides(home, 3)
    for line in decided(home, "nav", people, explain=True).values():
        assert f"arm {line['arm']}, which had a chance of 0.500" in line["reasons"]


def test_decide_writes_the_arm(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    people, _ = sides(home, 5)
    users = [word for user in people for word in ("--user", user)]
    assert run(["decide", "nav", "-w", str(home.root), "--dry-run", *users]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["arm"] for line in lines} <= {"plain", "dense"}
    assert all(line["policy"] == "thompson" for line in lines)
