"""Whether lists narrow: entropy, coverage and what is kept of the first weeks, from logged decisions."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from itertools import combinations
from math import log2
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_cli import Workspace
from persona_cli.cli.main import run
from persona_cli.errors import CheckFailed
from persona_cli.evaluation.diversity import gini
from persona_cli.feedback.bubble import bubble, expected_items
from persona_cli.feedback.decisions import TYPES, log
from persona_cli.workspace.home import Home, open_home

MONDAY = datetime(2026, 1, 5, 9, tzinfo=UTC)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_expected_items_are_the_mean_over_all_draws(counts: list[int], data: st.DataObject) -> None:
    m = data.draw(st.integers(1, sum(counts)))
    entries = [item for item, n in enumerate(counts) for _ in range(n)]
    drawn = [len({entries[place] for place in places}) for places in combinations(range(len(entries)), m)]
    assert expected_items(np.array(counts), m) == pytest.approx(sum(drawn) / len(drawn), abs=1e-5)


def test_gini_by_hand() -> None:
    assert gini(np.array([5, 5, 5])) == 0
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(0.75)
    assert gini(np.array([1, 3])) == pytest.approx(0.25)  # mean difference 2·2/4 over twice the mean 2


@pytest.fixture
def home(elsewhere: Path) -> Home:
    shop = Workspace.create(elsewhere / "w")
    items = elsewhere / "items.jsonl"
    rows = [{"item_id": f"i{n}", "category": f"c{n % 4}"} for n in range(8)]
    items.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shop.ingest(items, kind="items")
    return shop.home


def served(home: Home, week: int, lists: list[list[str]], holdout: bool = False, surface: str = "home") -> None:
    items = [[{"item_id": name, "position": n + 1, "propensity": 1.0} for n, name in enumerate(one)] for one in lists]
    frame = pl.DataFrame(
        {"user_id": [f"u{n}" for n in range(len(lists))], "surface": surface, "policy": "model", "items": items,
         "holdout": holdout},
        schema_overrides={"items": TYPES["items"]},
    )  # fmt: skip
    log(home, frame, at=MONDAY + timedelta(weeks=week))


WIDE = [["i0", "i1", "i2", "i3"], ["i4", "i5", "i6", "i7"]] * 10
NARROW = [["i0", "i4", "i1", "i5"]] * 20


def test_weeks_by_hand_and_what_is_kept(home: Home) -> None:
    for week, lists in enumerate((WIDE, WIDE, NARROW, WIDE[:19])):
        served(home, week, lists)
    served(home, 2, WIDE, holdout=True)
    home = open_home(home.root)
    settings = home.settings.with_flags({"decisions.bubble_weeks": 2})
    found = bubble(Home(home.root, settings, home.salt))
    weeks = found.weeks.to_dicts()
    assert [row["week"] for row in weeks] == [date(2026, 1, 5) + timedelta(weeks=n) for n in range(4)]
    assert [row["decisions"] for row in weeks] == [20, 20, 20, None]  # 19 people: no figures
    assert [row["entropy"] for row in weeks] == [log2(4), log2(4), 1.0, None]
    assert [row["coverage"] for row in weeks] == [8, 8, 4, None]
    assert [row["entropy_kept"] for row in weeks] == [None, None, 0.5, None]
    assert [row["coverage_kept"] for row in weeks] == [None, None, 0.5, None]
    assert found.narrow == [
        "home: entropy of the week of 2026-01-19 is 50% of that of the first 2 weeks",
        "home: coverage of the week of 2026-01-19 is 50% of that of the first 2 weeks",
    ]
    assert bubble(home).narrow == []  # four first weeks: nothing to judge
    assert bubble(home, surface="other").weeks.height == 0


def test_a_busier_week_is_not_wider_for_being_busy(home: Home) -> None:
    served(home, 0, WIDE)
    served(home, 1, WIDE * 5)
    weeks = bubble(home).weeks
    assert weeks["coverage"].to_list() == pytest.approx([8, 8], abs=0.01)
    assert weeks["people"].to_list() == [20, 100]


def test_the_command_ends_with_10(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    for week, lists in enumerate((WIDE, NARROW)):
        served(home, week, lists)
    path = home.root / "persona.toml"
    path.write_text(path.read_text().replace("bubble_weeks = 4", "bubble_weeks = 1"))
    assert run(["decisions", "bubble", "-w", str(home.root), "--json"]) == CheckFailed.exit_code
    told = capsys.readouterr()
    assert "coverage of the week of 2026-01-12 is 50%" in told.err
    assert json.loads(told.out)[1]["entropy"] == 1.0
    path.write_text(path.read_text().replace("bubble_kept = 0.9", "bubble_kept = 0.5"))
    assert run(["decisions", "bubble", "-w", str(home.root)]) == 0
