"""Rules in what `recommend` writes, and what `rules check` finds."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from shop import START, add_items, clicks, user

from persona_cli.errors import BadSettings, MissingInput
from persona_cli.serving.recommend import recommend
from persona_cli.serving.rule_checks import contradictions
from persona_cli.serving.writing import flat, write_lines
from persona_cli.workspace.home import Home, open_home

AT = START + timedelta(weeks=13)


def ruled(home: Home, text: str) -> Home:
    path = home.root / "persona.toml"
    kept = path.read_text().split("[rules]")[0]
    path.write_text(f"{kept}\n{text}")
    return open_home(home.root)


def lines(home: Home, **asked: Any) -> dict[str, dict[str, Any]]:
    stream = io.BytesIO()
    write_lines(recommend(home, **asked).blocks, stream)
    return {line["user_id"]: line for line in map(json.loads, stream.getvalue().splitlines())}


def items(line: dict[str, Any]) -> list[str]:
    return [entry["item_id"] for entry in line["items"]]


@pytest.fixture
def catalogued(home: Home) -> Home:
    """Ten categories of four items; two items that nobody has touched came out this week."""
    rows = [
        {"item_id": f"{kind}{n:02d}", "category": f"c{n // 2}", "published_at": START - timedelta(days=400)}
        for kind in "ab"
        for n in range(20)
    ]
    new = [{"item_id": f"new{n}", "category": "c0", "published_at": AT - timedelta(days=3)} for n in range(2)]
    add_items(home, [*rows, *new])
    return home


def test_without_rules_not_a_byte_is_different(catalogued: Home) -> None:
    def written(home: Home) -> bytes:
        stream = io.BytesIO()
        write_lines(recommend(home, top=5).blocks, stream)
        return stream.getvalue()

    before = written(catalogued)
    assert written(ruled(catalogued, '[rules]\nsensitive = ["c1"]\ngive_way = ["pin"]\nstrength = 1.0')) == before
    assert b"rules" not in before and b"propensity" not in before


def test_a_list_has_its_new_item_its_quota_and_its_pin(catalogued: Home) -> None:
    home = ruled(
        catalogued,
        "[rules]\nmax_per_category = 1\nnew_items = { at_least = 1, within_days = 7 }\n"
        '[rules.pin.season]\nitems = ["b19"]\nwhen = "context_device = \'mobile\'"',
    )
    found = lines(home, top=5, as_of=AT, include_holdout=True)
    for number in range(80):
        line = found[user(number)]
        assert "rules" not in line
        categories = ["c0" if item.startswith("new") else f"c{int(item[1:]) // 2}" for item in items(line)]
        assert len(set(categories)) == 5
        assert any(item.startswith("new") for item in items(line))
        assert not set(items(line)) & set(clicks(number))
        mobile = number % 4 < 2
        assert (items(line)[0] == "b19") == (mobile and "b19" not in clicks(number))


def test_a_line_says_what_gave_way(catalogued: Home) -> None:
    home = ruled(catalogued, "[rules]\nnew_items = { at_least = 3, within_days = 7 }")
    line = lines(home, top=5, as_of=AT, users=None)["u01"]
    assert line["rules"] == ["new_items gave way"] and items(line)[-2:] == ["new0", "new1"]
    assert list(line)[:6] == ["user_id", "items", "model", "base", "stage", "rules"]
    rows = flat(next(iter(recommend(home, top=5, as_of=AT).blocks)))
    assert rows["rules"][0] == "new_items gave way"


def test_the_held_out_get_pins_and_exclusions_and_nothing_personal(catalogued: Home) -> None:
    home = ruled(
        catalogued,
        "[rules]\nmax_per_category = 1\nexploration = { share = 0.4 }\n"
        '[rules.pin.season]\nitems = ["new0"]\n[rules.exclude.old]\nitems = ["a01"]',
    )
    found = lines(home, top=6, as_of=AT)
    held = [line for line in found.values() if line.get("holdout")]
    assert held
    plain = lines(ruled(home, ""), top=40, as_of=AT)
    for line in held:
        expected = ["new0", *(item for item in items(plain[line["user_id"]]) if item != "a01")]
        assert items(line) == expected[:6]
        assert all(entry["propensity"] == 1 for entry in line["items"])
    drawn = [line["items"][-1]["propensity"] for line in found.values() if not line.get("holdout")]
    assert all(0 < chance < 0.2 for chance in drawn)


def test_lists_of_new_users_explore_the_popular(catalogued: Home) -> None:
    rules = '[rules]\nexploration = { share = 0.4, by = "score", users = "new" }'
    home = ruled(catalogued, rules)
    users = pl.Series("user_id", [user(number) for number in range(8)] + [f"stranger{n}" for n in range(30)])
    found = lines(home, top=5, as_of=AT, users=users)
    plain = lines(ruled(home, ""), top=5, as_of=AT, users=users)
    for line in found.values():
        chances = [entry["propensity"] for entry in line["items"]]
        if line["stage"] == "context" and not line.get("holdout"):
            assert all(chance < 1 for chance in chances[-2:]) and chances[:3] == [1, 1, 1]
            assert items(line)[:3] == items(plain[line["user_id"]])[:3]
        else:
            assert items(line) == items(plain[line["user_id"]]) and chances == [1] * 5
    assert {line["stage"] for line in found.values()} >= {"context", "cohort"}
    new = [tuple(items(line)) for line in found.values() if line["stage"] == "context" and not line.get("holdout")]
    assert len(set(new)) > len(new) / 2
    assert lines(home, top=5, as_of=AT, users=users) == found


def test_what_was_had_long_ago_comes_back(home: Home) -> None:
    later = START + timedelta(weeks=11, days=20)
    back = lines(ruled(home, "[rules]\nnever_again_days = 30"), top=40, as_of=later, include_holdout=True)
    never = lines(ruled(home, ""), top=40, as_of=later, include_holdout=True)
    for number in (0, 7):
        had = clicks(number)
        assert not set(items(never[user(number)])) & set(had)
        assert set(items(back[user(number)])) & set(had) == set(had[:10]), "the last two were had within 30 days"


def test_rules_of_people_and_of_their_request(catalogued: Home) -> None:
    home = ruled(
        catalogued, "[rules.exclude.x]\nwhen = \"item_category = 'c1' and stage = 'cohort' and device = 'mobile'\""
    )
    found = lines(home, top=40, as_of=AT, include_holdout=True)
    for number in range(80):
        mobile, of_c1 = number % 4 < 2, {"a02", "a03", "b02", "b03"}
        assert set(items(found[user(number)])) & of_c1 == (set() if mobile else of_c1 - set(clicks(number)))


def test_sensitive_items_are_no_reason_and_pins_say_so(catalogued: Home) -> None:
    plain = lines(catalogued, top=3, as_of=AT, explain=True, include_holdout=True)["u02"]
    named = {reason for entry in plain["items"] for reason in entry["reasons"]}
    worst = next(reason.split()[2] for reason in sorted(named) if reason.startswith("goes with "))
    home = ruled(catalogued, f'[rules]\nsensitive = ["c{int(worst[1:]) // 2}"]\n[rules.pin.p]\nitems = ["new1"]')
    told = lines(home, top=3, as_of=AT, explain=True, include_holdout=True)["u02"]
    assert told["items"][0]["reasons"] == ["pinned by rule p"]
    assert told["items"][0]["rules"] == ["rules.pin.p"]
    assert not any(worst in reason for entry in told["items"] for reason in entry["reasons"])
    assert worst not in {share["item_id"] for entry in told["items"] for share in entry["shares"]}


def test_rules_that_need_a_catalogue_say_so(home: Home) -> None:
    for text, words in (
        ("[rules]\nmax_per_category = 2", "rules.max_per_category is set, and there is no catalogue"),
        ('[rules]\nrerank = "mmr"', 'rules.rerank = "mmr" is set, and no item of the catalogue has a category or tags'),
    ):
        with pytest.raises(MissingInput, match=words):
            recommend(ruled(home, text))
    add_items(home, [{"item_id": "a01"}])
    with pytest.raises(MissingInput, match="no item of the catalogue has a category"):
        recommend(ruled(home, "[rules]\nmin_categories = 2"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[rules]\nmax_per_categry = 1", "did you mean 'rules.max_per_category'"),
        ('[rules]\ngive_way = ["freshness"]', "did you mean 'fresh'"),
        ("[rules.pin.x]\nat_most = 1", "items, categories, tags or when"),
        ('[rules.pin.x]\nitem = ["a"]', "did you mean 'items'"),
        ('[rules.boost.x]\nitems = ["a"]\nfactor = 0.5', "factor = a number from 1 to 1000"),
        ('[rules]\npin = "x"', "sections such as"),
    ],
)
def test_misspelt_rules_are_refused(home: Home, text: str, words: str) -> None:
    with pytest.raises(BadSettings, match=words):
        ruled(home, text)


def test_a_condition_on_a_column_that_is_not_there_is_named(home: Home) -> None:
    given = ruled(home, "[rules.bury.x]\nwhen = \"item_categry = 'c'\"")
    with pytest.raises(BadSettings, match=r"rules\.bury\.x\.when: .*did you mean 'item_category'"):
        recommend(given)
    assert "item_categry" in contradictions(given)[0]


CONTRADICTIONS = {
    '[rules.pin.p]\nitems = ["a01"]\n[rules.exclude.e]\ncategories = ["c0"]': (
        "rules.pin.p pins 'a01', which rules.exclude.e excludes"
    ),
    '[rules.pin.p]\ncategories = ["c1"]\nat_most = 30': "the pins are 30 and a list has 20 entries",
    "[rules]\nmax_per_category = 1": "rules.max_per_category is 1, with which the catalogue fills 10 of 20",
    "[rules]\nmin_categories = 12": "rules.min_categories is 12 and the catalogue has 10 categories",
    "[rules]\nnew_items = { at_least = 25 }": "rules.new_items.at_least is 25 and a list has 20 entries",
    "[rules]\nnew_items = { at_least = 1, within_days = 1 }": (
        "rules.new_items.at_least is 1, and 0 items of the catalogue came out in the last 1 days"
    ),
    "[rules]\nfresh = { share = 0.7, within_days = 36000 }\nexploration = { share = 0.5 }": "sum to more than 1",
    '[rules.pin.p]\nitems = ["zz"]': "rules.pin.p: no item 'zz' is in the catalogue",
    '[rules.exclude.e]\ncategories = ["c11"]': "rules.exclude.e: no item has the category 'c11'; did you mean 'c1'",
    '[rules.exclude.e]\nwhen = "item_price > 3"': "rules.exclude.e: its condition is true of no item",
    '[rules.boost.b]\nitems = ["a01"]\nwhen = "events > 5000"': "rules.boost.b: its condition is true of nobody",
}


@pytest.mark.parametrize("text", CONTRADICTIONS)
def test_contradictions_are_found_before_any_list(catalogued: Home, text: str) -> None:
    found = contradictions(ruled(catalogued, text))
    assert CONTRADICTIONS[text] in found[0]


def test_good_rules_and_none_have_no_contradiction(catalogued: Home) -> None:
    assert contradictions(catalogued) == []
    when = "when = \"stage = 'cohort' and context_device = 'mobile'\""
    good = f'[rules]\nmax_per_category = 3\nmin_categories = 4\n[rules.pin.p]\nitems = ["a01"]\n{when}'
    assert contradictions(ruled(catalogued, good)) == []


def test_the_command_ends_with_10_where_there_is_one(catalogued: Home) -> None:
    ruled(catalogued, "[rules]\nmin_categories = 12")
    words = [sys.executable, "-m", "persona_cli", "-w", str(catalogued.root), "rules", "check"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 10
    assert ended.stdout == "rules.min_categories is 12 and the catalogue has 10 categories\n"
    assert ended.stderr.startswith("persona: 1 contradiction in the rules")


def test_threads_and_users_asked_change_no_list(catalogued: Home) -> None:
    text = '[rules]\nmax_per_category = 2\nrerank = "mmr"\nexploration = { share = 0.2 }'
    home = ruled(catalogued, text)
    whole = lines(home, top=5, as_of=AT)
    one = Home(home.root, home.settings.with_flags({"compute.threads": 2, "compute.memory_gb": 0.25}), home.salt)
    assert lines(one, top=5, as_of=AT) == whole
    assert lines(home, top=5, as_of=AT, users=pl.Series(["u07"]))["u07"] == whole["u07"]
