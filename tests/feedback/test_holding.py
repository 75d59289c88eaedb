"""How past choices held: made with what was known, judged on what followed, never on what they were made with."""

from __future__ import annotations

from datetime import timedelta

import pytest
from shop import START, add, events

from persona_cli.errors import MissingInput
from persona_cli.feedback.holding import agreement, held, page
from persona_cli.feedback.training import train
from persona_cli.workspace.home import Home, create


@pytest.fixture
def quick(home: Home) -> Home:
    """Few models: what is tried is not what is tested here."""
    return Home(home.root, home.settings.with_flags({"train.time_limit": "1s", "train.cuts": 1}), home.salt)


def test_every_moment_is_judged_on_what_followed_and_the_regret_is_over_the_best(quick: Home) -> None:
    found = held(quick, "run", cuts=2)
    first, second = found["moments"]
    assert first["cut"] < second["cut"] and first["until"] == second["cut"]
    for moment in (first, second):
        means = {name: figure["value"] for name, figure in moment["figures"].items()}
        assert moment["best"] == max(means, key=lambda name: (means[name], name == moment["chosen"]))
        assert moment["regret"]["value"] == pytest.approx(means[moment["best"]] - means[moment["chosen"]], abs=1e-9)
        assert moment["regret"]["value"] >= 0
        assert moment["choice"]["cuts"][-1]["cut"] < moment["cut"], "chosen with what was before alone"
    assert found["summary"]["moments"] == 2
    text = "\n".join(page(found))
    assert f"before {first['cut'][:10]}" in text and "regret" in text


def test_what_follows_is_the_future_also_where_training_divides_each_users_events(tmp_path) -> None:
    """Everybody comes for an hour and never again: no instant divides these users, but there is a future."""
    home = create(tmp_path / "once")
    rows = [
        row | {"timestamp": START + timedelta(days=number, minutes=n)}
        for number in range(60)
        for n, row in enumerate(row for row in events() if row["user_id"] == f"u{number:02d}")
    ]
    add(home, rows)
    settings = home.settings.with_flags({"train.time_limit": "1s", "train.cuts": 1})
    found = held(Home(home.root, settings, home.salt), "run", cuts=2)
    first, second = found["moments"]
    assert first["cut"] < second["cut"] < (START + timedelta(days=60)).isoformat()
    assert found["notes"] == []


def test_a_saved_choice_is_judged_on_what_came_after_it(quick: Home) -> None:
    train(quick, time_limit=1.0)
    add(
        quick,
        [
            {"user_id": f"u{n:02d}", "item_id": f"{'ab'[n % 2]}{n % 20:02d}", "timestamp": START + timedelta(weeks=30)}
            for n in range(40)
        ],
    )
    (stored,) = held(quick, "run", cuts=1)["stored"]
    assert stored["model"] == "layered/1"
    assert stored["users"] <= 40
    assert stored["chosen"] in stored["figures"]


def test_nothing_to_judge_is_said(tmp_path) -> None:
    with pytest.raises(MissingInput, match="no events with an item"):
        held(create(tmp_path / "none"), "run")
    home = create(tmp_path / "one")
    add(home, [{"user_id": "u", "item_id": "i", "timestamp": START}])
    with pytest.raises(MissingInput, match="no past choice can be judged"):
        held(home, "run")


def test_agreement_is_kendalls() -> None:
    assert agreement({"a": 1, "b": 2, "c": 3}, {"a": 10, "b": 20, "c": 30}) == 1
    assert agreement({"a": 1, "b": 2, "c": 3}, {"a": 30, "b": 20, "c": 10}) == -1
    assert agreement({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3, "c": 2}) == pytest.approx(1 / 3)
    assert agreement({"a": 1}, {"a": 1}) is None
    assert agreement({"a": 1, "b": 1}, {"a": 1, "b": 2}) is None
