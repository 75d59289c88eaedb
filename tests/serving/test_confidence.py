"""How sure a surface is: the curve, its file, and what `min_confidence` makes of it."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from deciding import NOW, Row, decided, sides, workspace
from hypothesis import given
from hypothesis import strategies as st
from shop import START, add, add_items, user
from sklearn.isotonic import IsotonicRegression

from persona_cli.consent.receipts import record
from persona_cli.errors import BadData, BadSettings
from persona_cli.profiles.permitted import PERSONALIZATION, in_holdout
from persona_cli.profiles.sync import sync
from persona_cli.serving.recommend import recommend
from persona_cli.serving.surfaces import confidence, surface_of
from persona_cli.serving.surfaces.confidence import SMALLEST_CELL, bins, curve_of, digest_of, isotonic, keep, read
from persona_cli.serving.surfaces.content import lengths_of
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import SETTINGS_FILE, Home, open_home

NUMBERS = st.lists(st.tuples(st.floats(0, 1), st.floats(0.5, 100)), min_size=1, max_size=40)
EVIDENCE = st.lists(st.tuples(st.integers(0, 40), st.booleans()), min_size=1, max_size=400)


def test_violators_are_pooled() -> None:
    found = isotonic(np.array([0.1, 0.5, 0.2, 0.2, 0.9, 0.6]), np.array([1.0, 1, 1, 2, 3, 1]))
    assert found == pytest.approx([0.1, 0.275, 0.275, 0.275, 0.825, 0.825])
    assert isotonic(np.zeros(0), np.zeros(0)).shape == (0,)


@given(NUMBERS)
def test_the_sequence_is_that_of_an_oracle(rows: list[tuple[float, float]]) -> None:
    values, weights = np.array(rows).T
    oracle = IsotonicRegression().fit(np.arange(len(values)), values, sample_weight=weights)
    assert isotonic(values, weights) == pytest.approx(oracle.predict(np.arange(len(values))), abs=1e-9)


@given(EVIDENCE, st.integers(1, 20))
def test_no_bin_is_of_few_people_and_like_people_share_one(rows: list[tuple[int, bool]], most: int) -> None:
    n = np.array([one for one, _ in rows], dtype=np.float64)
    of = bins(n, most)
    people = np.bincount(of)
    assert len(people) <= most
    assert len(people) == 1 or people.min() >= SMALLEST_CELL
    assert all(len(set(of[n == one])) == 1 for one in set(n))
    assert (np.diff(of[np.argsort(n, kind="stable")]) >= 0).all()


@given(EVIDENCE)
def test_a_curve_never_falls_and_is_a_chance(rows: list[tuple[int, bool]]) -> None:
    n, right = np.array([one for one, _ in rows], dtype=np.float64), np.array([one for _, one in rows])
    curve = curve_of(n, right)
    told = curve.of(np.arange(0, 1000, dtype=np.float64))
    assert (np.diff(told) >= -1e-12).all() and told.min() >= 0 and told.max() <= 1
    assert (curve.people.sum(), curve.right.sum()) == (len(n), right.sum())


def test_a_curve_of_two_groups_by_hand() -> None:
    n = np.repeat([0.0, 9.0], [40, 60])
    right = np.concatenate([np.arange(40) < 10, np.arange(60) < 45])
    curve = curve_of(n, right)
    # 10 of 40 and 45 of 60, each drawn to 55 of 100 by 20 people; half-way in log(1 + n) between 0 and 9.
    assert curve.confidence == pytest.approx([(10 + 11) / 60, (45 + 11) / 80])
    assert curve.of(np.array([np.sqrt(10) - 1, 500.0])) == pytest.approx([(0.35 + 0.7) / 2, 0.7])


def test_people_of_thin_steps_are_drawn_towards_all() -> None:
    n = np.repeat([1.0, 5.0], [2000, 20])
    right = np.concatenate([np.arange(2000) < 1000, np.ones(20, dtype=bool)])
    low, high = curve_of(n, right).confidence
    assert low == pytest.approx(0.5, abs=1e-3)
    assert high == pytest.approx((20 + 20 * 1020 / 2020) / 40)


def learned(home: Home, name: str, points: list[tuple[float, float]]) -> None:
    """Keep a curve as `persona surface calibrate` does."""
    surface = surface_of(home, name)
    rows = [{"at": at, "confidence": sure, "people": 50, "right": 5} for at, sure in points]
    keep(home, name, {"format": 1, "digest": digest_of(surface.kind, surface.options), "bins": rows})


UI = '\n[surface.nav]\nkind = "ui"\nentries = ["home", "search", "reports"]\nprior_uses = 4\ncohort = "none"\n'


def used(name: str, n: int) -> list[dict[str, Any]]:
    at = [NOW - timedelta(seconds=second) for second in range(n)]
    return [{"user_id": name, "event_type": "click", "target": "reports", "timestamp": one} for one in at]


@pytest.mark.parametrize(("least", "personal"), [(0.0, True), (0.3, True), (0.300001, False), (1.0, False)])
def test_min_confidence_is_met_by_as_much(tmp_path: Path, least: float, personal: bool) -> None:
    home = workspace(tmp_path / "w", UI + f"min_confidence = {least}\n", [])
    (ann, *_), _ = sides(home)
    add(home, used(ann, 12))
    sync(home)
    learned(home, "nav", [(0.0, 0.3), (100.0, 0.3)])
    line = decided(home, "nav", [ann])[ann]
    assert line["config"]["order"][0] == ("reports" if personal else "home")
    assert line["rules"] == ([] if personal else ["min_confidence"])
    assert line["confidence"] == 0.3


def test_without_a_curve_lines_are_as_ever(tmp_path: Path) -> None:
    home = workspace(tmp_path / "w", UI + "min_confidence = 0.74\n", [])
    (ann, bob, *_), _ = sides(home)
    add(home, used(ann, 12) + used(bob, 11))  # nearly 12 / 16 and 11 / 15
    sync(home)
    lines = decided(home, "nav", [ann, bob])
    assert [line["config"]["order"][0] for line in lines.values()] == ["reports", "home"]
    assert all("confidence" not in line for line in lines.values())


def test_a_surface_that_was_changed_since_goes_by_the_evidence_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = workspace(tmp_path / "w", UI + "min_confidence = 0.5\n", [])
    (ann, *_), _ = sides(home)
    add(home, used(ann, 12))
    sync(home)
    learned(home, "nav", [(0.0, 0.1), (9.0, 0.2)])
    assert decided(home, "nav", [ann])[ann]["policy"] == "default"
    path = home.root / SETTINGS_FILE
    path.write_text(path.read_text().replace("min_confidence = 0.5", "min_confidence = 0.6\ntheme = 'dark'"))
    changed = open_home(home.root)
    with caplog.at_level(logging.WARNING, "persona"):
        line = decided(changed, "nav", [ann])[ann]  # neither changes what a curve follows from
    assert (line["policy"], line["confidence"], caplog.text) == ("default", 0.2, "")
    path.write_text(path.read_text().replace('"search", "reports"', '"reports", "search"'))
    with caplog.at_level(logging.WARNING, "persona"):
        line = decided(open_home(home.root), "nav", [ann])[ann]
    assert line["policy"] == "by_use" and "confidence" not in line
    assert "persona surface calibrate nav" in caplog.text


@pytest.mark.parametrize("text", ["", "{}", '{"format": 2, "bins": []}', '{"format": 1, "digest": "x", "bins": [{}]}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    home = workspace(tmp_path / "w", UI, [])
    learned(home, "nav", [(0.0, 0.1), (9.0, 0.2)])
    path = confidence.path_of(home, "nav")
    path.write_text(text)
    with pytest.raises(BadData, match="is damaged") as error:
        read(home, "nav")
    assert str(path) in str(error.value) and error.value.hint == "persona surface calibrate nav"


def test_a_curve_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = workspace(tmp_path / "w", UI, [])
    learned(home, "nav", [(0.0, 0.1), (9.0, 0.2)])
    before = confidence.path_of(home, "nav").read_bytes()

    def fail(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifacts, "sync_file", fail)
    with pytest.raises(OSError, match="No space"):
        learned(home, "nav", [(0.0, 0.5), (9.0, 0.6)])
    assert confidence.path_of(home, "nav").read_bytes() == before
    assert [path.name for path in confidence.path_of(home, "nav").parent.iterdir()] == ["nav.json"]


# Lists that are careful by being short.

HOME = '\n[surface.home]\nkind = "content"\ntop = 8\n'


def with_settings(home: Home, text: str) -> Home:
    with (home.root / SETTINGS_FILE).open("a") as file:
        file.write(text)
    return open_home(home.root)


def lists(lines: dict[str, Row]) -> dict[str, list[str]]:
    return {name: [entry["item_id"] for entry in line["items"]] for name, line in lines.items()}


def own(home: Home, model: str | None = None, top: int = 8) -> dict[str, list[str]]:
    made = recommend(home, top=top, model=model)
    return lists({row["user_id"]: row for block in made.blocks for row in block.to_dicts()})


def test_lengths_by_confidence() -> None:
    sure = np.array([0.0, 0.01, 0.06, 0.1, 0.199, 0.2, 0.9])
    assert lengths_of(sure, 0.2, 10).tolist() == [1, 1, 3, 5, 9, 10, 10]
    assert lengths_of(sure, 0.0, 10).tolist() == [10] * 7


def test_fewer_of_the_own_list_instead_of_the_generic_one(home: Home) -> None:
    home = with_settings(home, HOME + 'min_confidence = 0.5\ncareful = "fewer"\n')  # 12 / (12 + 20) = 0.375
    _, held = sides(home)
    gone = user(2)
    record(home, [gone], [PERSONALIZATION], "withdrawn", at=START + timedelta(weeks=20), source="test")
    lines = decided(home, "home", [*(user(number) for number in range(40)), *held[:2]])
    mine, popular = own(home), own(home, "popular")
    for name, items in lists(lines).items():
        line = lines[name]
        if line["holdout"] or line.get("consent") is False:
            assert line["policy"] == "default" and len(items) == 8
            assert items == popular.get(name, items)
        else:
            assert items == mine[name][:6]  # 8 · 0.375 / 0.5
            assert (line["policy"], line["rules"]) == ("model", ["min_confidence"])
    assert lines[gone]["consent"] is False and any(line["holdout"] for line in lines.values())
    learned(home, "home", [(0.0, 0.1), (12.0, 0.125), (50.0, 0.9)])
    calibrated = decided(home, "home", [user(number) for number in range(40)])
    for name, items in lists(calibrated).items():
        line = calibrated[name]
        if line["policy"] == "model":
            assert (items, line["confidence"]) == (mine[name][:2], 0.125)  # 8 · 0.125 / 0.5
        else:
            assert line["confidence"] is None and len(items) == 8


def test_under_rules_a_short_list_keeps_them(home: Home) -> None:
    add_items(home, [{"item_id": f"{side}{n:02d}", "category": f"{side}{n % 5}"} for side in "ab" for n in range(20)])
    rules = "[surface.home.rules]\nmin_categories = 3\n"
    home = with_settings(home, HOME + 'min_confidence = 0.5\ncareful = "fewer"\n' + rules)
    learned(home, "home", [(0.0, 0.2), (50.0, 0.2)])
    lines = decided(home, "home", [user(number) for number in range(20)])
    categories = {f"{side}{n:02d}": f"{side}{n % 5}" for side in "ab" for n in range(20)}
    seen = 0
    for name, items in lists(lines).items():
        if lines[name]["policy"] == "model":
            seen += 1
            assert len(items) == 3  # 8 · 0.2 / 0.5
            assert len({categories[item] for item in items}) == 3
    assert seen > 5


def test_nothing_changes_where_nothing_is_asked_for(home: Home) -> None:
    lines = decided(with_settings(home, HOME), "home")
    path = home.root / SETTINGS_FILE
    path.write_text(path.read_text() + 'careful = "fewer"\n')
    fewer = decided(open_home(home.root), "home")
    assert lines == fewer
    assert all(len(line["items"]) == 8 for line in lines.values())


def test_a_misspelt_way_to_be_careful_is_refused(home: Home) -> None:
    with pytest.raises(BadSettings, match="careful"):
        with_settings(home, HOME + 'careful = "less"\n')


def test_who_is_held_out_is_never_called_sure(home: Home) -> None:
    home = with_settings(home, HOME)
    learned(home, "home", [(0.0, 0.4), (50.0, 0.9)])
    lines = decided(home, "home")
    held = in_holdout(home, pl.Series(list(lines)))
    for sure, out in zip((line["confidence"] for line in lines.values()), held, strict=True):
        assert (sure is None) == out
    document = json.loads(confidence.path_of(home, "home").read_text())
    assert set(document) == {"format", "digest", "bins"}
