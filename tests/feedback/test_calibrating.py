"""`persona surface calibrate`: what is right is what came, of whom it may be known; and the curve says how often."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from deciding import NOW, sides, workspace
from shop import START, add, shop, user

from persona_cli.cli.main import run
from persona_cli.consent.receipts import record
from persona_cli.errors import MissingInput, UsageError
from persona_cli.feedback.calibrating import FOLDS, LEAST, Held, calibrate, crossed, learned
from persona_cli.feedback.training import train
from persona_cli.profiles.permitted import ANALYTICS, PERSONALIZATION, TRAINING, in_holdout
from persona_cli.profiles.sync import sync
from persona_cli.serving.recommend import recommend
from persona_cli.serving.surfaces import confidence, surface_of
from persona_cli.workspace.home import SETTINGS_FILE, Home, open_home

UI = """
[surface.nav]
kind = "ui"
entries = ["a", "b", "c", "d", "e", "f"]
cohort = "none"
prior_uses = 2
half_life_days = 100000
threshold = 0

[surface.help]
kind = "feature"
items.tour = { type = "onboarding", when = "sessions < 3" }
items.sql = { type = "panel", when = "sessions >= 3", default = false }

[surface.plan]
kind = "survey"
"""


def clicks(name: str, targets: Sequence[str], last: float) -> list[dict[str, Any]]:
    """Uses a minute apart, the last so many days before `NOW`."""
    end = NOW - timedelta(days=last)
    return [
        {"user_id": name, "event_type": "click", "target": target, "timestamp": end - timedelta(minutes=number)}
        for number, target in enumerate(reversed(targets))
    ]


@pytest.fixture
def used(tmp_path: Path) -> tuple[Home, list[str], list[str]]:
    """People of two kinds: of the even ten uses are known, and they use again what they used most; of the others one.

    Those who are held out, and five who withdrew, do what nothing would foresee.
    """
    home = workspace(tmp_path / "w", UI, [])
    ours, held = sides(home, 330)
    gone = ours[-5:]
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(ours):
        known = ["e"] * 8 + ["f"] * 2 if number % 2 == 0 else ["e"]
        then = "a" if name in gone else "e" if number % 2 == 0 or number % 4 == 1 else "d"
        rows += clicks(name, known, 10) + clicks(name, [then], 1)
    for name in held:
        rows += clicks(name, ["e"] * 10, 10) + clicks(name, ["d"], 1)
    add(home, rows)
    for purpose, name in zip((PERSONALIZATION, ANALYTICS, TRAINING, PERSONALIZATION, ANALYTICS), gone, strict=True):
        record(home, [name], [purpose], "withdrawn", at=NOW, source="test")
    sync(home)
    path = home.root / SETTINGS_FILE
    text = path.read_text()
    assert "test_share = 0.2" in text
    path.write_text(text.replace("test_share = 0.2", "test_share = 0.05"))  # from the last use on
    return open_home(home.root), ours[:-5], gone


def test_right_is_what_was_used_next_of_those_who_may_be_asked(used: tuple[Home, list[str], list[str]]) -> None:
    home, ours, _ = used
    document = calibrate(home, "nav")
    even, odd = len(ours[::2]), len(ours[1::2])
    right = even + len(ours[1::4])
    assert (document["people"], document["right"]) == (len(ours), round(right / len(ours), 6))
    assert document["choice"] == "the entry used next is among the first 2 of 6"
    assert (document["evidence"], document["half"]) == ("faded uses", 2.0)
    assert sum(row["people"] for row in document["bins"]) == len(ours)
    assert {row["right"] / row["people"] for row in document["bins"] if row["at"] > 5} == {1.0}
    assert min(row["people"] for row in document["bins"]) >= 20
    few = [row for row in document["bins"] if row["at"] < 2]
    assert sum(row["people"] for row in few) == odd and sum(row["right"] for row in few) == len(ours[1::4])
    check = document["check"]
    assert check["error"]["calibrated"] < 0.05 < check["error"]["evidence"]
    assert confidence.read(home, "nav") == document
    text = confidence.path_of(home, "nav").read_text()
    assert not any(name in text for name in ours), "nobody is named"
    before = confidence.path_of(home, "nav").read_bytes()
    calibrate(home, "nav")
    assert confidence.path_of(home, "nav").read_bytes() == before, "the same of the same"


def test_what_was_kept_before_changes_nothing(used: tuple[Home, list[str], list[str]]) -> None:
    home, *_ = used
    document = calibrate(home, "nav")
    confidence.path_of(home, "nav").write_text("damaged")
    assert calibrate(home, "nav") == document
    path = home.root / SETTINGS_FILE
    path.write_text(path.read_text().replace("threshold = 0", "threshold = 0\nmin_confidence = 1"))
    assert calibrate(open_home(home.root), "nav") == document  # how careful it is says nothing of how right it is


def test_a_feature_is_right_while_all_that_is_shown_still_would_be(used: tuple[Home, list[str], list[str]]) -> None:
    home, ours, _ = used
    extra = ours[:50]  # a third session after the cut: the tour goes, which was shown
    more = [row | {"target": None, "event_type": "page_view"} for name in extra for row in clicks(name, ["x"], 0.5)]
    add(home, more)
    sync(home)
    document = calibrate(open_home(home.root), "help")
    assert document["people"] == len(ours)
    assert document["right"] == round(1 - len(extra) / len(ours), 6)
    assert document["half"] == home.settings.whole("profiles.cohort_from")


CONTENT = '\n[surface.home]\nkind = "content"\ntop = 3\nmodel = "knn"\n'


@pytest.fixture
def listed(tmp_path: Path) -> Home:
    home = shop(tmp_path / "w", 160)
    with (home.root / SETTINGS_FILE).open("a") as file:
        file.write(CONTENT)
    train(home, ["knn"])
    return open_home(home.root)


def test_content_is_right_where_the_next_item_is_in_the_list_of_then(listed: Home) -> None:
    document = calibrate(listed, "home")
    cut = START + timedelta(weeks=9, minutes=96)  # after 80 % of 12 weeks of 160 clicks each
    assert document["cut"] == cut.isoformat()
    events = pl.scan_parquet(listed.root / "events" / "**" / "*.parquet").collect()
    after = events.filter(pl.col("timestamp") >= cut).sort("timestamp").unique("user_id", keep="first")
    after = after.filter(~in_holdout(listed, after["user_id"])).sort("user_id")
    # As an own workspace would have served it then: the same signals, trained as of the cut.
    train(listed, ["knn"], as_of=cut)
    made = pl.concat(recommend(listed, users=after["user_id"], top=3, model="knn", as_of=cut).blocks)
    ids = made.select("user_id", pl.col("items").list.eval(pl.element().struct.field("item_id")))
    right = after.join(ids, on="user_id").select(pl.col("items").list.contains(pl.col("item_id")).mean()).item()
    assert document["people"] == after.height >= LEAST
    assert document["right"] == round(right, 6)
    assert document["half"] == 20.0


def test_too_few_people_are_said_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = workspace(tmp_path / "w", UI, [])
    ours, _ = sides(home, 60)
    add(home, [row for name in ours for row in clicks(name, ["e"], 10) + clicks(name, ["a"], 1)])
    sync(home)
    with pytest.raises(MissingInput, match=rf"\[surface.nav\]: {len(ours)} people .*; a curve takes 100"):
        calibrate(home, "nav")
    assert not confidence.path_of(home, "nav").exists()
    for words in (["surface", "calibrate"], ["surface", "calibrate", "nav"], ["surface", "show"]):
        assert run([*words, "-w", str(home.root)]) == MissingInput.exit_code
    assert "no surface was calibrated yet" in capsys.readouterr().err
    with pytest.raises(UsageError, match="kind survey, which has no min_confidence; content, ui, feature have one"):
        calibrate(home, "plan")
    with pytest.raises(MissingInput, match="no surface is named 'navi'; did you mean 'nav'"):
        calibrate(home, "navi")


def test_nothing_happened_is_said(tmp_path: Path) -> None:
    home = workspace(tmp_path / "w", UI, [])
    for name in ("nav", "help"):
        with pytest.raises(MissingInput):
            calibrate(home, name)


def simulated(n_people: int, seed: int) -> tuple[Held, np.ndarray[Any, Any]]:
    """People of known chances: 0.1 at no evidence, towards 0.6 with much."""
    draws = np.random.default_rng(seed)
    n = np.floor(draws.pareto(1.0, n_people) * 4)
    chance = 0.1 + 0.5 * n / (n + 3)
    users = pl.Series("user_id", [f"p{seed}-{number}" for number in range(n_people)])
    return Held(users, n, draws.random(n_people) < chance, 20.0, START, "as simulated"), chance


def test_chances_that_are_known_are_found(tmp_path: Path) -> None:
    surface = surface_of(workspace(tmp_path / "w", UI, []), "nav")
    inside, total = 0, 0
    for seed in range(20):
        held, chance = simulated(4_000, seed)
        document = learned(surface, held)
        error = document["check"]["error"]
        assert error["calibrated"] < 0.5 * error["evidence"]
        assert error["calibrated"] < 3 * document["check"]["by_chance"]
        curve = confidence.points(document)
        assert np.abs(curve.of(held.n) - chance).mean() < 0.03
        # The true mean chance of a bin within two standard errors of its share: curve and count tell the same people.
        of = confidence.bins(held.n)
        truth = np.bincount(of, chance) / curve.people
        spread = np.sqrt(truth * (1 - truth) / curve.people)
        inside += int((np.abs(curve.right / curve.people - truth) <= 2 * spread).sum())
        total += len(truth)
    assert inside / total > 0.92


def test_people_are_told_by_the_curve_of_others() -> None:
    held, _ = simulated(500, 1)
    told = crossed(held)
    turned = held._replace(right=held.right.copy())
    turned.right[7] ^= True
    changed = np.flatnonzero(told != crossed(turned))
    assert 7 not in changed and len(changed) > 0.5 * len(told) * (FOLDS - 1) / FOLDS * 0.2
    shuffled = np.random.default_rng(0).permutation(len(told))
    again = crossed(Held(held.users[shuffled], held.n[shuffled], held.right[shuffled], 20.0, START, ""))
    assert again == pytest.approx(told[shuffled])


def test_the_command_says_it_in_words_and_as_json(
    used: tuple[Home, list[str], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    home, ours, _ = used
    root = ["-w", str(home.root)]
    assert run(["surface", "calibrate", *root]) == 0
    out = capsys.readouterr().out
    assert f"of {len(ours):,} people" in out and "expected calibration error: " in out and "help (feature)" in out
    assert run(["surface", "show", "nav", "--json", *root]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told == {**(confidence.read(home, "nav") or {}), "current": True}
    assert run(["decide", "nav", "--user", ours[0], "--dry-run", *root]) == 0
    line = json.loads(capsys.readouterr().out)
    expected = confidence.points(told).of(np.array([10.0]))[0]
    assert line["confidence"] == pytest.approx(expected, abs=2e-3)
    path = home.root / SETTINGS_FILE
    path.write_text(path.read_text().replace('"e", "f"]', '"f", "e"]'))
    assert run(["surface", "show", "nav", *root]) == 0
    assert "the surface was changed since" in capsys.readouterr().out
    assert user(1) not in confidence.path_of(home, "nav").read_text()
