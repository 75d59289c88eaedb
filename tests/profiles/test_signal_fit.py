"""What `signals fit` learns, keeps and puts in force; minimum evidence; strengths by the chance of reading."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from stored import Event, add, at, frame, with_settings

from persona_cli.errors import BadData, MissingInput
from persona_cli.profiles.coding import coded
from persona_cli.profiles.dwell import DwellFit, probabilities
from persona_cli.profiles.fitting import dwell_seconds, fit_signals, learned
from persona_cli.profiles.history import history, signal_events
from persona_cli.profiles.mixture import Mixture
from persona_cli.profiles.read import profile
from persona_cli.profiles.signal_fit import TARGETS, SignalFit, attention, load, publish
from persona_cli.profiles.signals import coded_signals, signals_digest, too_few, weights_digest, with_signals
from persona_cli.profiles.sync import behind, sync
from persona_cli.workspace import home as homes
from persona_cli.workspace.home import Home

TWO = DwellFit(
    Mixture(np.array([0.5, 0.5]), np.array([2.0, 6.0]), np.array([1.0, 1.0])),
    ("engaged", "idle"),
    1.0,
    1800.0,
    (0.7, 0.3),
    (2.0, 1.0, 3.0),
    1000,
    0.4,
    ((0.5, 1800.0, 1000),),
)
# The item `own` is read for longer: its log-odds are 4 z - 24.
OWN = pl.DataFrame([["item", "own", 60, 50, [0.5, 0.5], [4.0, 8.0], [1.0, 1.0]]], schema=TARGETS, orient="row")
FITTED = SignalFit(TWO, "dwell", {"dwell": 1000, "share": 9}, OWN)
HALF, OWN_HALF = float(np.exp(4)), float(np.exp(6))


@pytest.fixture
def fitted(home: Home) -> Home:
    publish(home, FITTED)
    return with_settings(homes.open_home(home.root), profiles__buckets=3)


def strengths(home: Home, *events: Event) -> list[int]:
    found: list[int] = with_signals(frame(events).lazy(), home.settings).collect()["strength"].to_list()
    return found


def test_a_dwell_counts_by_the_chance_that_it_was_read(fitted: Home) -> None:
    dwell = {"event_type": "dwell", "item_id": "x"}
    found = strengths(
        fitted,
        *(dwell | {"value": value} for value in (HALF, 1.0, 1e9, None, float("nan"), -1.0)),
        {"event_type": "dwell", "item_id": "own", "value": OWN_HALF},
        {"event_type": "dwell", "item_id": "x", "value": OWN_HALF},
        {"event_type": "click", "value": HALF},
    )
    # Without seconds: the share of reading.
    assert found == [500, 1000, 0, 700, 700, 700, 500, 0, 1000]


def test_without_a_fit_a_dwell_counts_in_full_and_a_scroll_by_its_depth(home: Home) -> None:
    events: list[Event] = [{"event_type": "dwell", "value": 1e9}] + [
        {"event_type": "scroll", "value": value} for value in (0.5, 7.0, -1.0, None, float("nan"), 0.123)
    ]
    assert strengths(home, *events) == [1000, 100, 200, 0, 200, 200, 25]
    assert strengths(with_settings(home, signals__graded=False), *events) == [1000] + [200] * 6


def test_what_a_comparison_says_is_not_graded(fitted: Home) -> None:
    table = {"dwell<10": 0.25, "dwell": 2, "scroll>=0.5": 1, "scroll": "never"}
    home = with_settings(fitted, signals__strengths=table)
    found = strengths(
        home,
        {"event_type": "dwell", "value": 5.0},
        {"event_type": "dwell", "value": HALF},
        {"event_type": "scroll", "value": 0.6},
        {"event_type": "scroll", "value": 0.1},
    )
    assert found == [250, 1000, 1000, 0]
    assert strengths(with_settings(home, signals__graded=False), {"event_type": "dwell", "value": HALF}) == [2000]


def test_coded_signals_agree(fitted: Home) -> None:
    rng = np.random.default_rng(0)
    events: list[Event] = [
        {
            "event_type": str(rng.choice(["dwell", "scroll", "click", "share"])),
            "item_id": [None, "own", "x"][rng.integers(3)],
            "value": [None, float("nan"), 0.4, HALF, OWN_HALF, 3.0][rng.integers(6)],
        }
        for _ in range(300)
    ]
    home = with_settings(fitted, signals__minimum={"share": 10})
    rows = with_signals(frame(events).lazy(), home.settings).collect()
    texts = ["event_type", "item_id"]
    found = coded_signals(coded(rows.select(*texts, "value"), texts), home.settings)
    assert [column.tolist() for column in found[:3]] == [
        rows[name].to_list() for name in ("strength", "never", "consumed")
    ]


def test_minimum_evidence(home: Home) -> None:
    asked = with_settings(home, signals__minimum={"share": 10, "click": 1})
    events: tuple[Event, ...] = ({"event_type": "share"}, {"event_type": "click"}, {"event_type": "view"})
    assert too_few(asked.settings) == {"share": (0, 10), "click": (0, 1)}
    assert strengths(asked, *events) == [0, 0, 300]
    publish(home, replace(FITTED, counts={"share": 9, "click": 1}))
    asked = with_settings(homes.open_home(home.root), signals__minimum={"share": 10, "click": 1, "block": 5})
    assert too_few(asked.settings) == {"share": (9, 10), "block": (0, 5)}
    assert strengths(asked, *events) == [0, 1000, 300]
    # A wish is granted from the first time on.
    assert with_signals(frame([{"event_type": "block"}]).lazy(), asked.settings).collect()["never"].to_list() == [True]


def test_digests_follow_the_fit_where_it_is_in_force(home: Home, fitted: Home) -> None:
    for digest in (signals_digest, weights_digest):
        assert digest(fitted.settings) != digest(home.settings)
        off = with_settings(fitted, signals__graded=False)
        assert digest(off.settings) == digest(with_settings(home, signals__graded=False).settings)
        few = with_settings(fitted, signals__minimum={"share": 10})
        assert digest(few.settings) != digest(fitted.settings)
        assert digest(with_settings(fitted, signals__minimum={"share": 9}).settings) == digest(fitted.settings)
        assert digest(with_settings(fitted, signals__dwell__min_events=70).settings) == digest(fitted.settings)


def test_the_same_fit_is_no_new_version_and_old_ones_go(home: Home) -> None:
    first, new = publish(home, FITTED)
    assert new and first.folder.name == "1"
    home = homes.open_home(home.root)
    assert publish(home, FITTED) == (first, False)
    assert [path.name for path in first.folder.parent.iterdir() if path.is_dir()] == ["1"]
    for n in range(2, 9):
        publish(homes.open_home(home.root), replace(FITTED, counts={"dwell": n}))
    versions = sorted(int(path.name) for path in first.folder.parent.iterdir() if path.is_dir())
    assert versions == [4, 5, 6, 7, 8]
    found = homes.open_home(home.root).settings.fitted
    assert found is not None and found.folder.name == "8"
    # Counts change no strength.
    assert found.digest == first.digest
    kept = load(found).dwell
    assert kept is not None and kept.said() == TWO.said()


def test_damaged_files_are_named(fitted: Home) -> None:
    in_force = fitted.settings.fitted
    assert in_force is not None
    (in_force.folder / "parameters.json").write_text("{}")
    with pytest.raises(BadData, match="parameters"):
        load(replace(in_force, digest="read anew"))
    (in_force.folder.parent / "latest.json").write_text("[]")
    with pytest.raises(BadData, match=r"latest\.json"):
        homes.open_home(fitted.root)


def readers(n: int, seed: int = 0) -> list[Event]:
    """Views and the dwell that follows, of 30 users."""
    rng = np.random.default_rng(seed)
    events: list[Event] = []
    for k in range(n):
        idle = rng.random() < 0.3
        seconds = float(max(np.rint(np.exp(rng.normal(np.log(700 if idle else 40), 0.6))), 1))
        begin = at(k // 20, minutes=60 * (k % 20))
        of = {"user_id": f"u{k % 30}", "item_id": "hit" if k % 3 == 0 else f"i{k}"}
        events.append(of | {"event_type": "view", "timestamp": begin})
        elsewhere = of | {"item_id": f"next{k}", "timestamp": begin + timedelta(seconds=seconds)}
        events.append(elsewhere | {"event_type": "click"})
        events.append(of | {"event_type": "dwell", "value": seconds, "timestamp": begin + timedelta(seconds=seconds)})
    return events


def test_fit_then_histories_follow_and_say_so(make_home: Callable[[], Home]) -> None:
    home = make_home()
    add(home, readers(400))
    sync(home)
    before = history(home)
    found = fit_signals(home)
    assert (found.new, found.fit.source) == (True, "dwell")
    assert found.fit.targets["target"].to_list() == ["hit"]
    assert found.fit.counts == {"click": 400, "dwell": 400, "view": 400}
    home = with_settings(homes.open_home(home.root), profiles__buckets=3)
    assert behind(home) == "settings changed"
    assert sync(home).mode == "rebuilt"
    after = history(home)
    assert after["strength"].sum() < before["strength"].sum()
    assert after.equals(history(home, as_of=at(9999)))
    assert not fit_signals(home).new
    # Later events are added by the same fit.
    add(home, readers(5, seed=1))
    assert sync(home).mode == "incremental"
    again = history(home)
    sync(home, rebuild=True)
    assert again.equals(history(home))
    assert signal_events(home).filter(pl.col("event_type") == "dwell").collect()["strength"].max() == 1000
    assert profile(home, "u0")["dwells"] > 0


def test_gaps_stand_in_for_dwell(make_home: Callable[[], Home]) -> None:
    home = make_home()
    add(home, [event for event in readers(400) if event["event_type"] != "dwell"])
    gaps = dwell_seconds(home, "gaps")
    assert gaps.height > 390 and (gaps["seconds"] <= 1800).all()
    fit = learned(home)
    assert fit.source == "gaps" and fit.dwell is not None
    assert fit.dwell.high == 1800
    assert fit.dwell.median("engaged") == pytest.approx(40, rel=0.2)
    assert learned(home, as_of=at(0, hours=2)).dwell is None


def test_a_look_lasts_until_something_else_and_begins_with_what_led_to_it(home: Home) -> None:
    steps: list[tuple[str, str | None, float]] = [
        ("login", None, 0),
        ("click", "x", 5),
        ("view", "x", 7),
        ("save", "x", 30),
        ("view", "y", 65),
        ("search", None, 80),
        ("click", "z", 90),
        ("view", "x", 5000),
    ]
    add(home, [{"event_type": kind, "item_id": item, "timestamp": at(seconds=s)} for kind, item, s in steps])
    found = dwell_seconds(home, "gaps")
    assert found.select("target", "seconds").rows() == [("x", 60.0), ("y", 15.0)]


def test_a_log_without_looks_has_gaps_between_all_events(home: Home) -> None:
    add(home, [{"event_type": "rating", "item_id": f"i{n}", "timestamp": at(seconds=n * n)} for n in range(4)])
    assert dwell_seconds(home, "gaps")["seconds"].to_list() == [1.0, 3.0, 5.0]


def test_too_little_to_fit(home: Home) -> None:
    with pytest.raises(MissingInput, match="no events"):
        fit_signals(home)
    add(home, readers(3))
    found = fit_signals(home)
    assert found.fit.dwell is None
    opened = homes.open_home(home.root)
    assert strengths(opened, {"event_type": "dwell", "value": 1e9}) == [1000]
    assert signals_digest(opened.settings) == signals_digest(homes.open_home(home.root).settings)


def test_time_is_divided_by_the_fit_in_force(home: Home, fitted: Home) -> None:
    steps = pl.Series([[{"step": 3, "n": 2, "ms": 2000}, {"step": 20, "n": 1, "ms": 54_598}], []])
    assert attention(steps, home.settings)["engaged_ms"].to_list() == [None, None]
    found = attention(steps, fitted.settings)
    chance = probabilities(TWO, np.array([1.0, 54.598]))["idle"]
    idle = round(2000 * chance[0]) + round(54_598 * chance[1])
    assert found.rows() == [(56_598 - idle, 0, idle), (0, 0, 0)]


def test_the_artifact_holds_no_user(make_home: Callable[[], Home]) -> None:
    home = make_home()
    add(home, [event | {"user_id": f"person-{event['user_id']}"} for event in readers(200)])
    folder = fit_signals(home).fitted.folder
    assert not any(b"person-" in path.read_bytes() for path in folder.iterdir())
    assert json.loads((folder / "parameters.json").read_bytes())["dwell"]["events"] == 200
