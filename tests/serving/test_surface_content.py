"""`kind = "content"`: the lists of `recommend` as decisions."""

from __future__ import annotations

import pytest
from deciding import NOW, Row, decided
from shop import user

from persona_cli.errors import MissingInput
from persona_cli.serving.recommend import recommend
from persona_cli.workspace.home import SETTINGS_FILE, Home, create, open_home

SETTINGS = '\n[surface.home]\nkind = "content"\ntop = 4\n'


def with_settings(home: Home, text: str = SETTINGS) -> Home:
    with (home.root / SETTINGS_FILE).open("a") as file:
        file.write(text)
    return open_home(home.root)


def lists(lines: dict[str, Row]) -> dict[str, list[str]]:
    return {name: [entry["item_id"] for entry in line["items"]] for name, line in lines.items()}


def test_lists_are_those_of_recommend(home: Home) -> None:
    home = with_settings(home)
    lines = decided(home, "home")
    made = {row["user_id"]: row for block in recommend(home, top=4).blocks for row in block.to_dicts()}
    assert lists(lines) == lists(made)
    for name, line in lines.items():
        assert (line["model"], line["base"], line["holdout"]) == tuple(
            made[name][key] for key in ("model", "base", "holdout")
        )
        assert line["stage"] == made[name]["stage"]
        assert line["policy"] == ("default" if line["holdout"] else "model")
        assert (line["propensity"], line["rules"]) == (1.0, [])


def test_the_context_and_the_reasons_reach_the_list(home: Home) -> None:
    home = with_settings(home)
    line = decided(home, "home", ["new"], context={"device": "mobile", "network": "slow"}, explain=True)["new"]
    assert line["items"][0]["reasons"] == ["popular on mobile"]
    assert line["items"][0]["shares"] == [{"kind": "context", "item_id": None, "share": 1.0}]
    assert line["layers"]["context"] == 1


def test_careful_lists_are_the_popular_one(home: Home) -> None:
    home = with_settings(home, SETTINGS + "min_confidence = 0.5\n")  # 12 / (12 + 20) is less
    lines = decided(home, "home", [user(0), user(1)])
    popular = {
        row["user_id"]: row
        for name in (user(0), user(1))
        for block in recommend(home, top=4, model="popular").blocks
        for row in block.to_dicts()
        if row["user_id"] == name
    }
    assert lists(lines) == lists(popular)
    assert {(line["policy"], *line["rules"]) for line in lines.values() if not line["holdout"]} == {
        ("default", "min_confidence")
    }


def test_nothing_trained_and_nobody_known_are_said(tmp_path: object, home: Home) -> None:
    bare = with_settings(create(home.root.parent / "bare"))
    with pytest.raises(MissingInput, match="no model has been trained"):
        decided(bare, "home", ["u"])
    with pytest.raises(MissingInput, match="no user is known"):
        decided(bare, "home", at=NOW)
