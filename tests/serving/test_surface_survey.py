"""`kind = "survey"`: the question that tells most about this person, seldom, and never twice."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from deciding import NOW, Row, decided, sides, workspace
from shop import START, add, add_items

from persona_cli.errors import BadSettings
from persona_cli.profiles.sync import sync
from persona_cli.serving.surfaces import surface_of
from persona_cli.serving.surfaces.survey import _gains, _learned, questions
from persona_cli.serving.surfaces.visitors import visitors
from persona_cli.workspace.home import Home, open_home

SETTINGS = """
[survey.taste]
text = "Sweet or salty?"
answers.sweet = { categories = ["cake"] }
answers.salty = { categories = ["chips"] }
[survey.drink]
text = "Hot or cold?"
answers.hot = { categories = ["tea"] }
answers.cold = { categories = ["soda"] }
[survey.colour]
text = "Red or blue?"
answers.red = { categories = ["red"] }
answers.blue = { categories = ["blue"] }
[surface.ask]
kind = "survey"
"""
CATEGORIES = ("cake", "chips", "tea", "soda", "red", "blue")
DAY = timedelta(days=1)


def clicks(user: str, *categories: str) -> list[dict[str, Any]]:
    """Eight different items of each category."""
    return [
        {"user_id": user, "item_id": f"{category}{n}", "timestamp": START + timedelta(hours=n)}
        for category in categories
        for n in range(8)
    ]


@pytest.fixture(scope="module")
def asked_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, list[str], list[str]]:
    """A crowd of which everybody likes one thing: sweet or salty, fewer hot or cold, few a colour."""
    home = workspace(tmp_path_factory.mktemp("survey") / "w", SETTINGS, [])
    ordinary, held = sides(home, 300)
    crowd, others = ordinary[:160], ordinary[160:]
    likes = ["cake"] * 50 + ["chips"] * 50 + ["tea"] * 25 + ["soda"] * 25 + ["red"] * 5 + ["blue"] * 5
    add_items(home, [{"item_id": f"{name}{n}", "category": name} for name in CATEGORIES for n in range(8)])
    told = [
        {
            "user_id": others[1],
            "event_type": "survey_answer",
            "target": "taste",
            "props": '{"answer": "sweet"}',
            "timestamp": NOW - 90 * DAY,
        },
        {
            "user_id": others[2],
            "event_type": "survey_answer",
            "target": "colour",
            "props": '{"answer": "red"}',
            "timestamp": NOW - 3 * DAY,
        },
    ]
    add(
        home,
        [one for user, like in zip(crowd, likes, strict=True) for one in clicks(user, like)]
        + clicks(others[0], "cake")
        + told,
    )
    sync(home)
    return open_home(home.root), others, held


def question(line: Row) -> str | None:
    return None if line["choice"] is None else str(line["choice"]["question"])


def test_a_stranger_is_asked_what_divides_people_most(asked_once: tuple[Home, list[str], list[str]]) -> None:
    home, others, _ = asked_once
    line = decided(home, "ask", [others[3]], explain=True)[others[3]]
    assert line["choice"] == {"question": "taste", "text": "Sweet or salty?", "answers": ["sweet", "salty"]}
    assert (line["policy"], line["propensity"], line["rules"]) == ("most_telling", 1.0, [])
    assert line["reasons"][0].startswith("its answer would tell ")


def test_what_the_history_or_an_answer_tells_already_is_not_asked(
    asked_once: tuple[Home, list[str], list[str]],
) -> None:
    home, (cakes, answered, recent, stranger, *_), _ = asked_once
    at = NOW
    found = {user: _bits(home, user) for user in (cakes, answered, stranger)}
    # Whoever has eaten eight cakes is known to be of the sweet: the question tells next to nothing any more.
    assert found[cakes][0] < 0.05 * found[stranger][0]
    lines = decided(home, "ask", [answered, recent], at=at)
    assert question(lines[answered]) == "drink"  # taste is answered, long ago
    assert (question(lines[recent]), lines[recent]["rules"]) == (None, ["every_days", "never_twice"])


def test_the_gain_is_the_mutual_information_of_answer_and_topic(asked_once: tuple[Home, list[str], list[str]]) -> None:
    home, (_, _, _, stranger, *_), _ = asked_once
    asked = visitors(home, ("_answers", "items"), at=NOW, users=pl.Series("user_id", [stranger]))
    learned = _learned(home, asked, questions(home, surface_of(home, "ask")))
    assert learned is not None
    gains = _gains(home, asked, learned, np.array([0]))[0]
    for number, likes in enumerate(learned.likes):  # by the joint distribution, as the textbook has it
        size = np.bincount(learned.of[number], minlength=len(likes)) + 1.0
        joint = (size / size.sum())[:, None] * likes
        alone = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
        assert gains[number] == pytest.approx((joint * np.log2(joint / alone)).sum(), abs=2e-6)


def _bits(home: Home, user: str) -> np.ndarray:
    asked = visitors(home, ("_answers", "items"), at=NOW, users=pl.Series("user_id", [user]))
    learned = _learned(home, asked, questions(home, surface_of(home, "ask")))
    assert learned is not None
    found: np.ndarray = _gains(home, asked, learned, np.array([0]))[0]
    return found


def test_never_twice_and_not_within_some_days(asked_once: tuple[Home, list[str], list[str]]) -> None:
    home, (_, _, _, user, *_), _ = asked_once
    served: list[tuple[str, Any, Any]] = []
    told = []
    for day in range(0, 200, 10):
        line = decided(home, "ask", [user], at=NOW + day * DAY, served=served)[user]
        if line["choice"] is not None:
            told.append((day, question(line)))
        served.append((user, NOW + day * DAY, line["choice"]))
    assert told == [(0, "taste"), (30, "drink"), (60, "colour")]
    assert line["rules"] == ["never_twice"]


def test_nobody_is_asked_who_may_not_be(asked_once: tuple[Home, list[str], list[str]]) -> None:
    home, (_, _, _, user, *_), (held, *_) = asked_once
    lines = decided(home, "ask", [user, held], kept=lambda ids: pl.Series([False] * len(ids)))
    assert (lines[held]["choice"], lines[held]["rules"]) == (None, [])
    assert (lines[user]["choice"], lines[user]["rules"]) == (None, ["not_kept"])


def test_without_a_crowd_questions_come_in_their_order(tmp_path: Path) -> None:
    home = workspace(tmp_path / "w", SETTINGS + 'questions = ["colour", "taste"]\n', [])
    (user, *_), _ = sides(home)
    line = decided(home, "ask", [user], explain=True)[user]
    assert (question(line), line["policy"]) == ("colour", "in_order")
    assert line["reasons"] == ["the first question that is left"]


def test_questions_that_are_not_there_are_named(tmp_path: Path) -> None:
    home = workspace(tmp_path / "w", SETTINGS + 'questions = ["tast"]\n', [])
    with pytest.raises(BadSettings, match="'tast', which is not in \\[survey\\]; did you mean 'taste'"):
        decided(home, "ask", ["u"])
    bare = workspace(tmp_path / "v", '[surface.ask]\nkind = "survey"\n', [])
    with pytest.raises(BadSettings, match="which has none"):
        decided(bare, "ask", ["u"])
