"""`kind = "ui"`: order by use that stays put, panels, density, theme and layout."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deciding import NOW, decided, sides, workspace
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from persona_cli.errors import BadSettings, MissingInput, UsageError
from persona_cli.serving.surfaces.ui import moved
from persona_cli.workspace.home import Home, open_home

SETTINGS = """
[surface.nav]
kind = "ui"
entries = ["home", "search", "reports"]
panels = ["filters", "notes"]
half_life_days = 10
prior_uses = 4
cohort = "none"
min_confidence = 0.5
every_days = 7
threshold = 0.05
"""
DEFAULT = {
    "order": ["home", "search", "reports"],
    "collapsed": [],
    "density": "comfortable",
    "theme": "light",
    "layout": "full",
    "since": None,
}


def use(user: str, target: str, days_ago: float, n: int = 1, **more: Any) -> list[dict[str, Any]]:
    """Uses of one entry, a second apart, that many days before `NOW`."""
    start = NOW - timedelta(days=days_ago)
    return [
        {
            "user_id": user,
            "event_type": "click",
            "target": target,
            "timestamp": start - timedelta(seconds=second),
            **more,
        }
        for second in range(n)
    ]


@pytest.fixture
def names(tmp_path: Path) -> tuple[Home, list[str], list[str]]:
    home = workspace(tmp_path / "w", SETTINGS, [])
    return (home, *sides(home))


def filled(home: Home, events: list[dict[str, Any]]) -> Home:
    from shop import add

    from persona_cli.profiles.sync import sync

    add(home, events)
    sync(home)
    return open_home(home.root)


def test_the_order_follows_use_that_fades_and_is_drawn_towards_all(names: tuple[Home, list[str], list[str]]) -> None:
    home, (ann, bob, *_), _ = names
    # Ann: 8 uses of reports now, 16 of home ten days (a half-life) ago, so 8 as well; then 4 more of reports.
    home = filled(home, use(ann, "reports", 0, 12) + use(ann, "home", 10, 16) + use(bob, "search", 0, 1))
    lines = decided(home, "nav", [ann, bob])
    # p: ann (0.4, 0, 0.6), bob (0, 1, 0) and 20 who are even: home 7.0667, search 7.6667, reports 7.2667 of 22.
    p = np.array([0.4 + 20 / 3, 1 + 20 / 3, 0.6 + 20 / 3]) / 22
    share = (np.array([8, 0, 12]) + 4 * p) / 24
    assert share[2] - share[0] > 0.05
    assert lines[ann]["config"]["order"] == ["reports", "home", "search"]
    assert (lines[ann]["policy"], lines[ann]["propensity"]) == ("by_use", 1.0)
    assert lines[ann]["config"]["since"] == "2026-03-02T12:00:00+00:00"
    # Of one use little is sure: 1 / (1 + 4) < 0.5.
    assert lines[bob]["config"] == DEFAULT
    assert (lines[bob]["policy"], lines[bob]["rules"]) == ("default", ["min_confidence"])


def test_an_order_stays_for_some_days_and_moves_from_what_was_served(names: tuple[Home, list[str], list[str]]) -> None:
    home, (ann, *_), _ = names
    home = filled(home, use(ann, "reports", 0, 20))
    day = timedelta(days=1)
    served = {"order": ["search", "home", "reports"], "since": (NOW - 3 * day).isoformat()}
    kept = decided(home, "nav", [ann], served=[(ann, NOW - day, served)])[ann]
    assert (kept["config"]["order"], kept["rules"]) == (served["order"], ["every_days"])
    assert kept["config"]["since"] == served["since"]
    served["since"] = (NOW - 8 * day).isoformat()
    line = decided(home, "nav", [ann], served=[(ann, NOW - day, served)])[ann]
    assert line["config"]["order"] == ["reports", "search", "home"]  # of the others none is ahead: as they were
    # An entry that is gone is left out, one that is new stands behind those that were there.
    older = {"order": ["gone", "reports", "search"], "since": served["since"]}
    line = decided(home, "nav", [ann], served=[(ann, NOW - day, older), (ann, NOW - 2 * day, served)])[ann]
    assert line["config"] == {**DEFAULT, "order": ["reports", "search", "home"], "since": served["since"]}


@given(
    arrays(float, (5, 4), elements=st.floats(0, 1).map(lambda value: round(value, 3))),
    st.permutations(range(4)),
    st.floats(0, 0.5),
)
def test_nothing_moves_without_an_advantage(share: np.ndarray, start: list[int], threshold: float) -> None:
    current = np.tile(np.array(start), (5, 1))
    order = moved(current, share, threshold)
    assert (np.sort(order, axis=1) == np.arange(4)).all()
    for row in range(5):
        values = share[row][order[row]]
        assert (np.diff(values) <= threshold).all()  # nobody is ahead of the one before by more
        place = {entry: where for where, entry in enumerate(order[row])}
        for before, after in ((a, b) for at, a in enumerate(start) for b in start[at + 1 :]):
            if place[after] < place[before]:  # who passed somebody is ahead
                assert share[row][after] - share[row][before] > threshold


def test_panels_that_are_not_used_fold_up_but_for_the_last(names: tuple[Home, list[str], list[str]]) -> None:
    home, (ann, bob, eve, *_), _ = names
    home = filled(
        home,
        use(ann, "filters", 31, 9)
        + use(ann, "notes", 45, 9)
        + use(ann, "home", 0, 9)
        + use(bob, "filters", 2, 9)
        + use(eve, "home", 60, 99),
    )
    lines = decided(home, "nav", [ann, bob, eve])
    assert lines[ann]["config"]["collapsed"] == ["notes"]  # both are unused for long; filters was the last
    assert lines[bob]["config"]["collapsed"] == []  # notes never, but Bob is new
    assert lines[eve]["config"]["collapsed"] == []  # has used no panel at all


def test_the_first_visit_is_served_by_its_context(names: tuple[Home, list[str], list[str]]) -> None:
    home, (ann, *_), (held, *_) = names
    context = {"network": "3g", "device": "mobile", "hour": "22"}
    lines = decided(home, "nav", [ann, held], context=context)
    assert lines[ann]["config"] == {**DEFAULT, "theme": "dark", "layout": "light"}
    assert lines[ann]["rules"] == ["min_confidence", "slow_network"]
    assert lines[held]["config"] == DEFAULT  # the same for all
    assert lines[held]["holdout"] is True
    assert decided(home, "nav", [ann])[ann]["config"] == DEFAULT
    zones = {"Asia/Tokyo": "dark", "Europe/Berlin": "light", "nowhere": "light"}  # 12:00 UTC is 21:00 in Tokyo
    for zone, theme in zones.items():
        assert decided(home, "nav", [ann], context={"tz": zone})[ann]["config"]["theme"] == theme
    with pytest.raises(UsageError, match=r"netwrk.*did you mean 'network'"):
        decided(home, "nav", [ann], context={"netwrk": "slow"})
    with pytest.raises(UsageError, match="0 to 23"):
        decided(home, "nav", [ann], context={"hour": "noon"})


def test_experts_get_a_compact_page_on_a_large_screen_and_settings_of_their_own_count(
    names: tuple[Home, list[str], list[str]],
) -> None:
    home, (ann, bob, *_), _ = names
    path = home.root / "persona.toml"
    path.write_text(path.read_text() + "expert_from = 0.3\n")
    long = [
        {**one, "session_id": str(day), "device": device}
        for user, device in ((ann, "desktop"), (bob, "mobile"))
        for day in range(40)
        for one in use(user, "home", day)
    ]
    home = filled(home, long)
    lines = decided(home, "nav", [ann, bob], explain=True)
    assert [lines[user]["config"]["density"] for user in (ann, bob)] == ["compact", "comfortable"]
    assert "an experienced user at a large screen" in lines[ann]["reasons"]
    said = {"user_id": ann, "event_type": "preference", "target": "density", "props": '{"value": "comfortable"}'}
    home = filled(home, [said | {"timestamp": NOW}])
    assert decided(home, "nav", [ann])[ann]["config"]["density"] == "comfortable"


def test_groups_of_twenty_have_a_prior_of_their_own(tmp_path: Path) -> None:
    settings = SETTINGS.replace('cohort = "none"', 'cohort = "device"').replace(
        "min_confidence = 0.5", "min_confidence = 0"
    )
    home = workspace(tmp_path / "w", settings, [])
    ordinary, _ = sides(home)
    crowd, newcomer = ordinary[:60], ordinary[60]
    home = filled(
        home,
        [
            one
            for number, user in enumerate(crowd)
            for one in use(user, ("reports", "search")[number % 2], 1, 3, device=("mobile", "desktop")[number % 2])
        ],
    )
    for device, first in (("mobile", "reports"), ("desktop", "search"), ("tablet", "search")):
        order = decided(home, "nav", [newcomer], context={"device": device})[newcomer]["config"]["order"]
        assert order[0] == first, device
    # Nobody has a tablet: everybody counts, reports and search alike, so search stays where it was declared.


def test_the_same_twice_and_the_order_of_users_changes_nothing(names: tuple[Home, list[str], list[str]]) -> None:
    home, (ann, bob, eve, *_), _ = names
    home = filled(home, use(ann, "reports", 0, 12) + use(bob, "search", 3, 9) + use(eve, "home", 1, 5))
    first = decided(home, "nav")
    assert first == decided(home, "nav", [eve, ann, bob, ann])
    assert first[ann] == decided(home, "nav", [ann])[ann]


def test_the_past_is_decided_by_what_was_there(names: tuple[Home, list[str], list[str]]) -> None:
    home, (ann, *_), _ = names
    home = filled(home, use(ann, "search", 20, 9) + use(ann, "reports", 1, 40))
    then = datetime(2026, 2, 20, tzinfo=UTC)
    line = decided(home, "nav", [ann], at=then, as_of=then)[ann]
    assert line["config"]["order"] == ["search", "home", "reports"]
    assert decided(home, "nav", [ann])[ann]["config"]["order"][0] == "reports"


def test_settings_and_names_that_are_wrong_are_named(tmp_path: Path) -> None:
    home = workspace(tmp_path / "w", SETTINGS, [])
    with pytest.raises(MissingInput, match="no surface is named 'nab'; did you mean 'nav'"):
        decided(home, "nab", ["u"])
    path = home.root / "persona.toml"
    text = path.read_text()
    for wrong, said in (
        ('[surface.x]\nkind = "uii"', "'uii' is none; did you mean 'ui'"),
        ('[surface.x]\nkind = "ui"\nentrys = ["a"]', "'entrys'; did you mean 'entries'"),
        ('[surface.x]\nkind = "ui"\nentries = ["a", "a"]', "different names for entries in \\[surface.x\\]"),
        ('[surface.x]\nkind = "ui"', "entries in \\[surface.x\\], which has none"),
        ('[surface.x]\nkind = "ui"\nentries = ["a"]\ntheme = "pink"', "one of auto, light, dark for theme"),
    ):
        path.write_text(f"{text}\n{wrong}\n")
        with pytest.raises(BadSettings, match=said):
            open_home(home.root)


def test_an_entry_and_a_panel_may_have_one_name(names: tuple[Home, list[str], list[str]]) -> None:
    home, (ann, *_), _ = names
    path = home.root / "persona.toml"
    path.write_text(path.read_text().replace('panels = ["filters", "notes"]', 'panels = ["reports", "notes"]'))
    home = filled(open_home(home.root), use(ann, "reports", 0, 12) + use(ann, "home", 60, 1))
    config = decided(home, "nav", [ann])[ann]["config"]
    assert config["order"][0] == "reports"
    assert config["collapsed"] == ["notes"]
