"""What logged decisions say of other settings: against values known by simulation, and by hand."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from persona_cli import Workspace
from persona_cli.errors import BadSettings, MissingInput, Refused
from persona_cli.experiments import logged, off_policy
from persona_cli.experiments.what_if import Answer, Asked, of_arms, of_models, of_settings, page, replayed
from persona_cli.feedback.decisions import TYPES, log, logged_lists
from persona_cli.reports.parts import as_lines
from persona_cli.serving.recommend import recommend
from persona_cli.workspace.home import IDENTITY_FILE, Home, open_home

START = datetime(2026, 1, 1, tzinfo=UTC)
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
USERS, ITEMS, TOP, DAYS = 150, 24, 5, 3
RULES = "\n[rules]\nexploration = { share = 0.4 }\n"


def attraction(item: str) -> float:
    """Chance of a click where it is shown: more for items of high numbers, which are not the popular ones."""
    return 0.05 + 0.6 * int(item[1:]) / ITEMS


def chance(*words: object) -> float:
    """A number of [0, 1) that follows from words alone."""
    return int.from_bytes(hashlib.blake2b(repr(words).encode(), digest_size=6).digest(), "big") / 2**48


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Lists of the popular model on three days, two of five entries drawn, clicked as `attraction` has it."""
    made = Workspace.create(tmp_path_factory.mktemp("explored") / "w")
    path = made.home.root / "persona.toml"
    path.write_text(path.read_text().split("[rules]")[0] + RULES)
    identity = made.home.root / IDENTITY_FILE  # draws follow from the salt: the same in every run of the tests
    identity.write_text(json.dumps({**json.loads(identity.read_text()), "holdout_salt": "5a" * 16}))
    home = open_home(made.home.root)
    rows = [
        {
            "user_id": f"u{user:03d}",
            "event_type": "view",
            "item_id": f"i{int(ITEMS * chance(user, turn) ** 2):02d}",
            "timestamp": (START + timedelta(days=turn, minutes=user)).isoformat(),
        }
        for user in range(USERS)
        for turn in range(4)
    ]
    _ingest(home, rows)
    shop = Workspace(home.root)
    shop.train("popular", "knn")
    clicks = []
    for day in range(DAYS):
        at = AT + timedelta(days=day)
        found = recommend(home, model="popular", top=TOP, as_of=at)
        with logged_lists(home, found.blocks, found.context, surface="recommend", run=f"run{day}", at=at) as blocks:
            lines = [line for block in blocks for line in block.to_dicts()]
        clicks += [
            {
                "user_id": line["user_id"],
                "event_type": "click",
                "item_id": entry["item_id"],
                "timestamp": (at + timedelta(minutes=5)).isoformat(),
                "decision_id": line["decision_id"],
            }
            for line in lines
            for entry in line["items"]
            if chance("click", day, line["user_id"], entry["item_id"]) < attraction(entry["item_id"])
        ]
    _ingest(home, clicks)
    return home


def _ingest(home: Home, rows: list[dict[str, Any]]) -> None:
    file = home.root.parent / "events.jsonl"
    file.write_bytes(pl.DataFrame(rows).write_ndjson().encode())
    Workspace(home.root).ingest(file)


def truth(home: Home, model: str) -> float:
    """Mean attraction of what the model would add to each page, told from its lists and those that were logged."""
    drawn = logged.drawn_slots(home)
    shown: dict[str, list[dict[str, Any]]] = {}
    for entry in drawn.entries.sort("position").to_dicts():
        shown.setdefault(entry["decision_id"], []).append(entry)
    bare = open_home(home.root)
    bare.settings.values["rules.exploration.share"] = 0.0  # type: ignore[index]
    values = []
    for day in range(DAYS):
        at = AT + timedelta(days=day)
        found = recommend(bare, model=model, top=TOP, as_of=at)
        lists = {row["user_id"]: row["items"] for block in found.blocks for row in block.to_dicts()}
        for row in drawn.decisions.filter(pl.col("at") == at).to_dicts():
            page_ = shown[row["decision_id"]]
            for place, slot in enumerate(page_):
                if not slot["drawn"]:
                    continue
                there = {one["item_id"] for n, one in enumerate(page_) if n < place or not one["drawn"]}
                free = [one["item_id"] for one in lists[row["person"]] if one["item_id"] not in there]
                if free:
                    values.append(np.mean([attraction(item) for item in free]))
    return float(np.mean(values))


@pytest.fixture(scope="module")
def by_models(explored: Home) -> Answer:
    return of_models(explored, ["knn", "popular"], Asked())


@pytest.mark.parametrize("place", [0, 1])
def test_a_model_is_worth_what_its_items_attract(explored: Home, by_models: Answer, place: int) -> None:
    entry = by_models.entries[place]
    true = truth(explored, entry.name)
    for value in (entry.ips, entry.snips, entry.dr):
        assert value is not None and value.low < true < value.high
        assert value.high - value.low < 0.3
    assert entry.ess > off_policy.SMALLEST_ESS
    assert entry.mean_weight == pytest.approx(1, abs=0.2)
    drawn = logged.drawn_slots(explored)
    attracts = drawn.slots["item_id"].map_elements(attraction, return_dtype=pl.Float64).mean()
    assert entry.logged.low < attracts < entry.logged.high  # type: ignore[operator]
    # By hand: the weights are those of the module's definition.
    rows = entry.probabilities
    assert entry.ips is not None
    assert entry.ips.value == pytest.approx((rows["probability"] / rows["propensity"] * rows["reward"]).mean())


def test_drawn_entries_that_nobody_is_known_to_have_seen_are_told(explored: Home, tmp_path: Path) -> None:
    shutil.copytree(explored.root, tmp_path / "w")
    home = open_home(tmp_path / "w")
    (first,) = log(home, pl.DataFrame({"user_id": ["u001"], "surface": ["recommend"]}), at=AT - timedelta(days=1))
    seen = {"user_id": "u001", "event_type": "impression", "decision_id": first}
    _ingest(home, [{**seen, "timestamp": (AT - timedelta(hours=20)).isoformat()}])
    with pytest.raises(MissingInput, match="drawn entries, and none of these was seen by an impression"):
        logged.drawn_slots(home)


def test_what_is_said(by_models: Answer) -> None:
    text = "\n".join(as_lines(page(by_models.result)))
    assert "An item that knn/1 would add" in text and "IPS" in text and "as served" in text
    first = by_models.result["policies"][0]
    assert set(first) >= {"ips", "snips", "dm", "dr", "ess", "largest", "mean_weight", "people"}
    assert by_models.result["served"]["low"] < by_models.result["served"]["high"]


def test_settings_of_lists(explored: Home, tmp_path: Path, by_models: Answer) -> None:
    file = tmp_path / "new.toml"
    file.write_text('model = "knn"\n[rules]\nexploration.share = 0.0\n')
    same = of_settings(explored, file, Asked())
    assert same.entries[0].snips == by_models.entries[0].snips
    # All drawn is what was drawn: every weight is 1, and every estimate the plain mean.
    file.write_text("[surface.recommend.rules]\nexploration.share = 1.0\n")
    drawn = of_settings(explored, file, Asked()).entries[0]
    assert drawn.ess == pytest.approx(drawn.rows)
    for value in (drawn.ips, drawn.snips, drawn.dr):
        assert value is not None and value.value == pytest.approx(drawn.logged.value)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("signals.half_life_days = 3", Refused, "changes signals"),
        ('model = "knn"\nrules.exploration.share = 0.1', Refused, "candidates"),
        ("rules.max_per_kategory = 1", BadSettings, "max_per_category"),
        ("", BadSettings, "changes nothing"),
        ("a = ", BadSettings, "no TOML"),
        ("model = 1", BadSettings, "expected a name"),
        ("[shares]\na = 1.0", MissingInput, "none was drawn among variants or arms"),
    ],
)
def test_settings_that_are_refused(explored: Home, tmp_path: Path, text: str, error: Any, said: str) -> None:
    file = tmp_path / "new.toml"
    file.write_text(text)
    with pytest.raises(error, match=said):
        of_settings(explored, file, Asked())


ARMS = {"trial:a": (0.7, 0.1), "trial:b": (0.3, 0.4)}
"""Variant → its share, and the chance that it earns a click."""


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """800 people in two variants of a banner."""
    home = Workspace.create(tmp_path_factory.mktemp("tried") / "w").home
    rows, names = [], list(ARMS)
    for user in range(800):
        variant = names[chance("variant", user) >= ARMS[names[0]][0]]
        rows.append({"user_id": f"u{user}", "variant": variant, "propensity": ARMS[variant][0], "surface": "banner"})
    frame = pl.DataFrame(rows).with_columns(holdout=pl.lit(False), choice=pl.lit('{"x":1}'))
    clicks = []
    for day in range(2):
        part = frame[day * 400 : (day + 1) * 400]
        ids = log(
            home, part.select(pl.col(name).cast(TYPES[name]) for name in part.columns), at=AT + timedelta(days=day)
        )
        clicks += [
            {
                "user_id": row["user_id"],
                "event_type": "click",
                "timestamp": (AT + timedelta(days=day, hours=1)).isoformat(),
                "decision_id": id_,
                "item_id": "banner",
            }
            for row, id_ in zip(part.to_dicts(), ids, strict=True)
            if chance("click", row["user_id"]) < ARMS[row["variant"]][1]
        ]
    _ingest(home, clicks)
    return home


def test_always_one_arm(tried: Home) -> None:
    found = of_arms(tried, Asked(surface="banner"))
    for entry in found.entries:
        for value in (entry.ips, entry.snips, entry.dr):
            assert value is not None and value.low < ARMS[entry.name][1] < value.high
    assert found.entries[0].gain is not None and found.entries[0].gain.high < 0
    assert "so it does worse" in found.result["words"][0] and "so it does better" in found.result["words"][1]


def test_other_shares_and_a_bandit(tried: Home, tmp_path: Path) -> None:
    file = tmp_path / "new.toml"
    asked = Asked(surface="banner")
    file.write_text('surface = "banner"\nshares = { a = 0.2, "trial:b" = 0.8 }')
    entry = of_settings(tried, file, Asked()).entries[0]
    assert entry.snips is not None and entry.snips.low < 0.2 * 0.1 + 0.8 * 0.4 < entry.snips.high
    weights = entry.probabilities["probability"] / entry.probabilities["propensity"]
    assert set(weights.round(6)) == {round(0.2 / 0.7, 6), round(0.8 / 0.3, 6)}
    file.write_text("[bandit]\nfloor = 0.1\n")
    bandit = of_settings(tried, file, asked).entries[0]
    assert bandit.gain is not None and bandit.gain.low > 0
    shares = replayed(logged.arms(tried, "banner"), floor=0.1)
    # Nothing is known on the first day; on the second the better arm is beyond doubt.
    assert shares[0] == pytest.approx([0.5, 0.5]) and shares[-1] == pytest.approx([0.1, 0.9], abs=1e-3)
    with pytest.raises(Refused, match="all decisions are of 2026-03-01, and the bandit would allocate at midnight"):
        of_settings(tried, file, asked._replace(until=AT + timedelta(hours=2)))
    for text, said in (("a = 0.5", "add up to 0.5"), ("c = 1.0", "no such arm"), ("a = 2", "from 0 to 1")):
        file.write_text(f"[shares]\n{text}")
        with pytest.raises(BadSettings, match=said):
            of_settings(tried, file, asked)


def test_nothing_is_told_of_a_thin_log(tried: Home) -> None:
    thin = Asked(surface="banner", until=AT + timedelta(seconds=1))
    assert len(of_arms(tried, thin).entries) == 2
    found = logged.arms(tried, "banner")
    few = found._replace(
        **{name: getattr(found, name)[:40] for name in ("ids", "arm", "propensity", "reward", "people", "features")}
    )
    assert all(one.snips is None and one.ess < 50 for one in logged.always(few))
    assert all(one.snips is not None for one in logged.always(few, force=True))
    with pytest.raises(MissingInput, match="no decision of 'other' is logged"):
        of_arms(tried, Asked(surface="other"))
    with pytest.raises(MissingInput, match="no list of 'other'"):
        of_models(tried, ["popular"], Asked(surface="other"))
