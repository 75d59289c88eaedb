"""`kind = "content"`: the lists of `recommend` as decisions."""

from __future__ import annotations

import pytest
from deciding import NOW, Row, decided
from shop import add_items, user

from persona_cli.errors import BadSettings, MissingInput
from persona_cli.serving.recommend import recommend
from persona_cli.serving.rule_checks import contradictions
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


RULES = """
[rules]
max_per_category = 2
pin.season.items = ["a00"]

[surface.home]
kind = "content"
top = 4

[surface.letter]
kind = "content"
top = 3

[surface.letter.rules]
exclude.b.when = "item_id >= 'b'"
pin.season = false
pin.mine = { items = ["a19"] }
max_per_category = 0
"""


def ruled(home: Home, text: str = RULES) -> Home:
    path = home.root / SETTINGS_FILE
    path.write_text(f"{path.read_text().split('[rules]')[0]}\n{text}")
    return open_home(home.root)


def test_a_surface_has_rules_of_its_own_over_the_common_ones(home: Home) -> None:
    add_items(home, [{"item_id": f"{side}{n:02d}", "category": side} for side in "ab" for n in range(20)])
    home = ruled(home)
    ahead = ["x1", "x2"]  # of whom nothing is known, so nothing hides a pin
    common, own = (lists(decided(home, name, ahead)) for name in ("home", "letter"))
    for shown in common.values():
        assert (shown[0], len(shown)) == ("a00", 4)
        assert sum(item.startswith("a") for item in shown) == 2  # of a category two at the most
    for shown in own.values():
        assert (shown[0], len(shown)) == ("a19", 3)  # the common pin is off, the quota too
        assert all(item.startswith("a") for item in shown)
    assert home.settings.values["rules.max_per_category"] == 2


def test_check_names_the_surface_whose_rules_cannot_be_met(home: Home) -> None:
    add_items(home, [{"item_id": f"{side}{n:02d}", "category": side} for side in "ab" for n in range(20)])
    assert contradictions(ruled(home, RULES)) == [
        "rules.max_per_category is 2, with which the catalogue fills 4 of 20 entries of a list",
    ]
    text = RULES.replace("max_per_category = 2", "") + "min_categories = 5\nfresh = { share = 0.5 }\n"
    found = contradictions(ruled(home, text))
    assert "surface.letter: rules.min_categories is 5 and a list has 3 entries" in found
    assert all(sentence.startswith("surface.letter: ") for sentence in found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_per_categori = 2", "did you mean .*max_per_category"),
        ("max_per_category = -1", "a whole number of at least 0 for rules.max_per_category"),
        ("fresh.share = 2", "a number from 0 to 1 for rules.fresh.share"),
        ("pin.season = { item = ['a'] }", r"\[rules.pin.season\]"),
        ("fresh = 1", "keys of .rules., and rules.fresh is none"),
    ],
)
def test_misspelt_rules_of_a_surface_are_refused(home: Home, text: str, words: str) -> None:
    with pytest.raises(BadSettings, match=words) as told:
        ruled(home, f'[surface.home]\nkind = "content"\n[surface.home.rules]\n{text}\n')
    assert "surface.home" in str(told.value)
