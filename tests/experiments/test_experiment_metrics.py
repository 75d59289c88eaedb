"""Metrics of a workspace: each person's sums against a loop over events, what settings may say, and the check."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from persona_cli.cli.main import run
from persona_cli.errors import BadSettings, UsageError
from persona_cli.experiments import metrics
from persona_cli.experiments.inference import of_values
from persona_cli.workspace.home import Home, create, open_home

START = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = """
[metric.orders]
event = "event_type = 'purchase' and value > 10"
value = "value - 10"
window_days = 5
before_days = 10
[metric.looks]
event = ["view", "click"]
per = "impression"
[metric.cheap]
event = "purchase"
value = "value < 10"
[metric.bought]
event = "purchase"
value = "any"
[metric.nps]
event = "survey"
[metric.time]
event = ["view", "click", "purchase"]
value = "seconds"
per = "session"
"""
TYPES = ("view", "click", "purchase", "impression", "survey")


def events(seed: int = 1, n: int = 3000, users: int = 60) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    kind = rng.choice(TYPES, n, p=[0.3, 0.2, 0.2, 0.2, 0.1])
    value = np.where(kind == "survey", rng.integers(0, 11, n), rng.integers(1, 30, n)).astype(float)
    return pl.DataFrame(
        {
            "user_id": [f"u{one:02d}" for one in rng.integers(0, users, n)],
            "event_type": kind,
            "item_id": [f"i{one}" for one in rng.integers(0, 9, n)],
            "timestamp": [
                (START + timedelta(seconds=int(one))).isoformat() for one in rng.choice(30 * 86400, n, replace=False)
            ],
            "value": value,
        }
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("metrics")
    create(folder / "w")
    path = folder / "events.jsonl"
    events().write_ndjson(path)
    with (folder / "w" / "persona.toml").open("a") as stream:
        stream.write(SETTINGS)
    assert run(["ingest", str(path), "--workspace", str(folder / "w")]) == 0
    return open_home(folder / "w")


def exposed() -> pl.DataFrame:
    """Everybody but ten, at moments of their own."""
    rng = np.random.default_rng(7)
    days = rng.uniform(8, 20, 50)
    return pl.DataFrame(
        {
            "user_id": [f"u{one:02d}" for one in range(50)],
            "variant": ["a", "b"] * 25,
            "at": [START + timedelta(seconds=int(86400 * day)) for day in days],
        }
    )


def test_sums_are_those_of_a_loop(home: Home) -> None:
    until = START + timedelta(days=25)
    names = ["orders", "looks", "cheap", "bought", "nps", "time"]
    found = metrics.units(home, metrics.named(home, names), exposed(), until)
    rows = events().with_columns(pl.col("timestamp").str.to_datetime(time_zone="UTC")).sort("timestamp")
    rows = rows.filter(pl.col("timestamp") < until)
    day = timedelta(days=1)
    for (user, variant, at), got in zip(exposed().iter_rows(), found.iter_rows(named=True), strict=True):
        his = [
            (one["event_type"], one["timestamp"], one["value"])
            for one in rows.filter(user_id=user).iter_rows(named=True)
        ]
        first: dict[str, datetime] = {}
        answers = set()  # moments of events that follow an impression of their item
        for one in rows.filter(user_id=user).iter_rows(named=True):
            if one["event_type"] == "impression":
                first.setdefault(one["item_id"], one["timestamp"])
            elif one["item_id"] in first:
                answers.add(one["timestamp"])
        after = [one for one in his if one[1] >= at]
        before = [one for one in his if at - 28 * day <= one[1] < at]
        expected = {
            "user_id": user,
            "variant": variant,
            "0 value": sum(v - 10 for t, w, v in after if t == "purchase" and v > 10 and w < at + 5 * day),
            "0 value before": sum(v - 10 for t, w, v in before if t == "purchase" and v > 10 and w >= at - 10 * day),
            "1 value": sum(t in ("view", "click") and w in answers for t, w, _ in after),
            "1 below": sum(t == "impression" for t, _, _ in after),
            "1 value before": sum(t in ("view", "click") and w in answers for t, w, _ in before),
            "1 below before": sum(t == "impression" for t, _, _ in before),
            "2 value": sum(t == "purchase" and v < 10 for t, _, v in after),
            "2 value before": sum(t == "purchase" and v < 10 for t, _, v in before),
            "3 value": float(any(t == "purchase" for t, _, _ in after)),
            "3 value before": float(any(t == "purchase" for t, _, _ in before)),
        }
        scores = [1 if v >= 9 else -1 if v <= 6 else 0 for t, _, v in after if t == "survey"]
        expected["4 value"] = float(np.mean(scores)) if scores else None
        gap = timedelta(minutes=home.settings.number("profiles.session_gap_minutes"))
        pauses = [timedelta(0)] + [b[1] - a[1] for a, b in itertools.pairwise(his)]
        pauses = [one if one <= gap else timedelta(0) for one in pauses]
        ends = [b[1] - a[1] > gap for a, b in itertools.pairwise(his)] + [True]
        told = list(zip(his, pauses, ends, strict=True))
        for suffix, inside in (("", after), (" before", before)):
            expected[f"5 value{suffix}"] = sum(
                pause.total_seconds() for one, pause, _ in told if one in inside and one[0] in TYPES[:3]
            )
            expected[f"5 below{suffix}"] = sum(end for one, _, end in told if one in inside)
        assert got == pytest.approx(expected), user


@pytest.mark.parametrize(
    ("shown", "clicked", "counts"),
    [
        (("d1", "i1"), ("d1", "i1"), True),
        (("d1", "i1"), ("d1", "i2"), False),
        (("d1", None), ("d1", "i2"), True),
        (("d1", None), ("d2", "i2"), False),
        (("d1", "i1"), ("d2", "i1"), False),
        (("d1", "i1"), (None, "i1"), True),
        ((None, "i1"), (None, "i2"), False),
        (("d1", None), (None, "i1"), False),
        ((None, None), (None, "i1"), True),
        ((None, None), (None, None), True),
        ((None, "i1"), (None, None), False),
    ],
)
def test_per_impression_only_answers_count(
    shown: tuple[str | None, str | None], clicked: tuple[str | None, str | None], counts: bool
) -> None:
    rows = pl.DataFrame(
        [(0, 1, "click", *clicked), (0, 2, "impression", *shown), (0, 3, "click", *clicked), (1, 3, "click", *clicked)],
        schema=["row", "timestamp", "event_type", "decision_id", "item_id"], orient="row",
    )  # fmt: skip
    found = rows.with_columns(answers=metrics._answers(pl.col("event_type") == "impression"))
    assert found.filter(event_type="click")["answers"].to_list() == [False, counts, False]


def test_moments_by_variant_are_those_of_the_units(home: Home) -> None:
    asked = metrics.named(home, ["looks", "orders"])
    until = START + timedelta(days=40)
    found = metrics.moments(home, asked, exposed(), until)
    frame = metrics.units(home, asked, exposed(), until)
    for variant in "ab":
        part = frame.filter(variant=variant).select(asked[0].question(0).columns)
        assert found[variant]["looks"].cross == pytest.approx(of_values(part.to_numpy()).cross)
        assert found[variant]["looks"].n == 25


def test_ready_metrics_are_there_and_can_be_changed(home: Home) -> None:
    known = metrics.metrics(home)
    assert {"ctr", "session_duration", "pages_per_session", "adoption", "free_to_paid", "activation"} <= set(known)
    assert {"purchase", "expansion", "arpu", "nps", "orders"} <= set(known)
    assert known["nps"].types == ("survey",) and known["nps"].kind == "nps", "what is not named stays"
    assert known["ctr"].types == home.settings.texts("decisions.click") and known["ctr"].kind == "ratio"
    with pytest.raises(UsageError, match="did you mean 'orders'"):
        metrics.named(home, ["order"])


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ('[metric.x]\nvalue = "sum"', "event ="),
        ('[metric.x]\nevent = "purchase"\nvalu = "sum"', "did you mean 'value'"),
        ('[metric.x]\nevent = "purchase"\nvalue = "any"\nper = "session"', 'per = "user"'),
        ('[metric.x]\nevent = "purchase"\nvalue = "seconds"\nper = "impression"', "seconds"),
        ('[metric.x]\nevent = "purchase"\nper = "week"', "user"),
        ('[metric.x]\nevent = "purchase"\nwinsor = 2', "winsor"),
        ('[metric.x]\nevent = "purchase"\ndirection = "left"', "direction"),
        ("[metric.x]\nevent = \"event_tipe = 'purchase'\"", "event_tipe"),
        ('[metric.x]\nevent = "purchase"\nvalue = "item_id"', "no number"),
        ('[metric.x]\nevent = "purchase"\nvalue = "price * 2"', "price"),
    ],
)
def test_wrong_settings_are_told(tmp_path: Path, section: str, words: str) -> None:
    create(tmp_path / "w")
    with (tmp_path / "w" / "persona.toml").open("a") as stream:
        stream.write(section)
    with pytest.raises(BadSettings, match="metric") as told:
        metrics.metrics(open_home(tmp_path / "w"))
    assert words in told.value.message


def test_check_says_what_there_is_and_10_where_there_is_nothing(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["metric", "check", "orders", "looks", "-w", str(home.root), "--days", "20", "--json"]) == 0
    orders, looks = json.loads(capsys.readouterr().out)
    his = events().with_columns(pl.col("timestamp").str.to_datetime(time_zone="UTC"))
    begin = his["timestamp"].max() - timedelta(days=20)  # type: ignore[operator]
    recent = his.filter(pl.col("timestamp") >= begin)
    first = recent.filter(
        (pl.col("event_type") == "purchase")
        & (pl.col("value") > 10)
        & (pl.col("timestamp") < begin + timedelta(days=5))
    )
    assert orders["people"] == recent["user_id"].n_unique()
    assert orders["value"] == pytest.approx((first["value"] - 10).sum() / orders["people"])
    assert orders["detectable_relative"] > 0 and looks["kind"] == "ratio" and looks["variance"] > 0
    assert run(["metric", "check", "arpu", "activation", "-w", str(home.root)]) == 10
    assert "activation (no event of type activation, onboarding_complete)" in capsys.readouterr().err
    assert run(["metric", "check", "-w", str(home.root)]) == 0, "what nobody declared need not be there"
    assert run(["metric", "list", "-w", str(home.root), "--format", "csv"]) == 0
    assert "orders,mean,event_type = 'purchase' and value > 10,value - 10,user,5.0" in capsys.readouterr().out
