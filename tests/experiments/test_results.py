"""What experiments brought: first exposures, who is left out, sums by variant, bandits and interleaved lists."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from persona_cli.cli.common import plain
from persona_cli.cli.main import run
from persona_cli.errors import Refused, UsageError
from persona_cli.experiments import results
from persona_cli.experiments.assignment import allotted, layer_key
from persona_cli.experiments.preference import interleave_lists, measure_preferences
from persona_cli.experiments.running import change, load, start, stop
from persona_cli.experiments.sequential import spending_bounds
from persona_cli.feedback.decisions import TYPES, log
from persona_cli.workspace.home import Home, create, open_home

START = datetime(2026, 3, 1, tzinfo=UTC)
UNTIL = START + timedelta(days=30)
SETTINGS = """
[metric.spent]
event = "purchase"
value = "sum"
[metric.bought]
event = "purchase"
value = "any"
before_days = 0
[metric.complaints]
event = "complaint"
before_days = 0
direction = "down"
[segments.many]
when = "events >= 3"
"""
AB = ("a=latest", "b=rules.strength=0.5")


@pytest.fixture
def home(elsewhere: Path) -> Home:
    create(elsewhere / "persona-workspace")
    with (elsewhere / "persona-workspace" / "persona.toml").open("a") as stream:
        stream.write(SETTINGS)
    return open_home(elsewhere / "persona-workspace")


def ingest(rows: list[tuple[str, str, datetime, float]]) -> None:
    columns = ["user_id", "event_type", "timestamp", "value"]
    frame = pl.DataFrame([(u, kind, at.isoformat(), v) for u, kind, at, v in rows], schema=columns, orient="row")
    frame.write_ndjson("events.jsonl")
    assert run(["ingest", "events.jsonl"]) == 0


def logs(home: Home, name: str, variant: dict[str, str], at: Callable[[int], datetime]) -> None:
    """One decision a person, at a moment of each one's own (whole days are one commit)."""
    for number in range(5):
        rows = [{"user_id": u, "variant": f"{name}:{v}", "surface": "recommend"} for u, v in variant.items()]
        frame = pl.DataFrame(rows[number::5], schema={k: TYPES[k] for k in ("user_id", "variant", "surface")})
        if frame.height:
            log(home, frame, at=at(number))


def shop(home: Home, n: int = 400, lift: float = 3.0, seed: int = 1) -> tuple[dict[str, str], pl.DataFrame]:
    """An ab experiment: everybody has a past, variant b adds `lift` to what is spent after the exposure."""
    start(home, "x", AB, metric="spent", guardrails=["complaints"], at=START)
    rng = np.random.default_rng(seed)
    users = [f"u{number:04d}" for number in range(n)]
    arm = dict(zip(users, np.where(rng.permutation(n) % 2 == 1, "b", "a").tolist(), strict=True))
    rows, truth = [], []
    for number, user in enumerate(users):
        at = START + timedelta(days=number % 5)
        taste = rng.gamma(4.0, 5.0)
        before, after = taste + rng.normal(0, 2), taste + lift * (arm[user] == "b") + rng.normal(0, 2)
        rows += [(user, "purchase", at - timedelta(days=2), before), (user, "purchase", at + timedelta(days=1), after)]
        if rng.random() < 0.3:
            rows.append((user, "complaint", at + timedelta(days=2), 1.0))
        truth.append((user, arm[user], before, after))
    ingest(rows)
    logs(home, "x", arm, lambda k: START + timedelta(days=k))
    return arm, pl.DataFrame(truth, schema=["user_id", "variant", "before", "after"], orient="row")


def test_an_ab_experiment_is_measured_from_the_first_exposure(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    _, truth = shop(home)
    logs(home, "x", dict(truth.select("user_id", "variant").iter_rows()), lambda k: START + timedelta(days=9 + k))
    found = results.measure_experiment(home, "x", UNTIL)
    spent, complaints = found.measured.findings
    y, x, t = truth["after"].to_numpy(), truth["before"].to_numpy(), (truth["variant"] == "b").to_numpy()
    theta = np.cov(y, x)[0, 1] / x.var(ddof=1)
    left = y - theta * x
    assert spent.difference == pytest.approx(left[t].mean() - left[~t].mean(), rel=1e-2)
    assert spent.variance_cut > 0.8 and spent.verdict == "better" and complaints.role == "guardrail"
    assert found.measured.counts == (200, 200) and found.measured.srm == "ok"
    plain = results.measure_experiment(home, "x", UNTIL, asked=["bought"]).measured.findings[0]
    assert plain.value == 1 and plain.kind == "proportion"
    assert "u0" not in found.sums.write_json()
    assert found.sums["n"].to_list() == [200] * 4
    capsys.readouterr()
    assert run(["measure", "experiment", "x", "--as-of", UNTIL.isoformat(), "--segment", "many", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["metrics"][0]["difference"] == pytest.approx(spent.difference) and "spent: b +" in said["words"][1]
    (folder,) = home.path("reports").glob("experiment-x-*")
    assert json.loads((folder / "measured.json").read_text()) == said
    assert pl.read_parquet(folder / "sums.parquet").columns == ["metric", "variant", "n", "mean", "cross"]
    assert run(["measure", "experiment", "x", "--as-of", UNTIL.isoformat()]) == 0
    assert capsys.readouterr().out.startswith("200 : 200 units of a, b")


def test_planned_looks_are_taken_one_after_another(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """Five days, a fifth of the people each, and as many looks planned."""
    arm, _ = shop(home, lift=1.0)
    stop(home, "x", at=START + timedelta(days=20))
    start(
        home,
        "y",
        ["a=latest", "b=recommend.top=5"],
        metric="bought",
        planned_units=800,
        looks=4,
        layer="other",
        at=START,
    )
    logs(home, "y", arm, lambda k: START + timedelta(days=k))

    def look(day: float, *more: str) -> dict[str, Any]:
        capsys.readouterr()
        at = START + timedelta(days=day)
        assert run(["measure", "experiment", "y", "--metric", "spent", "--as-of", at.isoformat(), "--json", *more]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    first = look(1.5)
    assert (first["look"]["number"], first["look"]["people"], first["looks"]) == (1, 160, [0.2])
    assert first["peek"] == "looks" and first["metrics"][0]["verdict"] == "unknown"
    assert look(1.9)["metrics"] == first["metrics"], "no more people: the same look again"
    second = look(2.5)
    assert second["looks"] == [0.2, 0.3] and second["look"]["number"] == 2
    said = second["metrics"][0]
    bound = spending_bounds([0.2, 0.3])[-1]
    assert (said["high"] - said["difference"]) / said["se"] == pytest.approx(bound)
    assert look(2.6)["notes"][0].startswith("as at look 2, of 2026-03-03 12:00 UTC: no more people than then")
    assert look(3.5, "--peek", "open", "--planned", "800")["looks"] == [], "intervals for any look need no plan"
    assert look(30)["looks"] == [0.2, 0.3, 0.5]
    assert results.looks_of(home, "y", ("bought",), UNTIL) == [], "other metrics are looked at by themselves"


def test_a_look_counts_people_whose_window_is_over(home: Home) -> None:
    with (home.root / "persona.toml").open("a") as stream:
        stream.write('[metric.soon]\nevent = "purchase"\nvalue = "sum"\nwindow_days = 2\n')
    home = open_home(home.root)
    arm, _ = shop(home)
    stop(home, "x", at=START + timedelta(days=20))
    start(
        home, "y", ["a=latest", "b=recommend.top=5"], metric="soon", planned_units=300, looks=4, layer="other", at=START
    )
    logs(home, "y", arm, lambda k: START + timedelta(days=k))
    found = results.measure_experiment(home, "y", START + timedelta(days=4.5))
    assert found.look is not None and (found.look.people, found.look.fraction) == (240, 0.8)
    assert sum(found.measured.counts) == 240
    assert "160 people count from a later look on: their 2 days are not over yet" in found.measured.notes
    last = results.measure_experiment(home, "y", UNTIL)
    assert last.look is not None and (last.look.people, last.look.fraction) == (400, 1.0)
    results.write(home, "y", "r1", {"experiment": "y", "look": plain(last.look._asdict())})
    again = results.measure_experiment(home, "y", UNTIL + timedelta(days=9))
    assert again.until == UNTIL and again.measured.notes[0].endswith("the plan is over")


def test_who_was_seen_in_two_variants_or_drawn_for_a_dropped_one_is_left_out(home: Home) -> None:
    start(home, "x", ["a=latest", "b=rules.strength=0.5", "c=rules.strength=0.1"], metric="bought", at=START)
    made = load(home, "x")
    users = pl.Series("user_id", [f"u{number:04d}" for number in range(300)])
    drawn = allotted(users, layer_key(home.salt, "recommend"), bytes.fromhex(made.salt), made.shares)
    ingest([(u, "purchase", START - timedelta(days=1), 1.0) for u in users])
    arm = {u: "abc"[n] for u, n in zip(users, drawn.tolist(), strict=True)}
    early, late = dict(list(arm.items())[:150]), dict(list(arm.items())[150:])
    logs(home, "x", early, lambda k: START + timedelta(days=1))
    change(home, "x", drop=["c"], at=START + timedelta(days=2))
    logs(home, "x", {u: v.replace("c", "a") for u, v in late.items()}, lambda k: START + timedelta(days=3))
    crossed = [u for u, v in early.items() if v == "a"][:3]
    logs(home, "x", dict.fromkeys(crossed, "b"), lambda k: START + timedelta(days=4))
    found = results.exposed(home, load(home, "x"), UNTIL)
    assert found.names == ("a", "b") and found.shares == pytest.approx((0.5, 0.5))
    assert (found.crossed, found.moved) == (3, sum(v == "c" for v in arm.values()))
    kept = {u: v for u, v in arm.items() if v != "c" and u not in crossed}
    assert dict(found.people.select("user_id", "variant").iter_rows()) == kept


def test_only_those_who_saw_it_count_where_impressions_are_sent(home: Home) -> None:
    start(home, "x", AB, metric="bought", at=START)
    arm = {f"u{number:03d}": "ab"[number % 2] for number in range(60)}
    frame = pl.DataFrame(
        [{"user_id": u, "variant": f"x:{v}", "surface": "recommend"} for u, v in arm.items()],
        schema={k: TYPES[k] for k in ("user_id", "variant", "surface")},
    )
    ids = log(home, frame, at=START + timedelta(days=1))
    at = (START + timedelta(days=1, hours=1)).isoformat()
    seen = [
        {"user_id": u, "event_type": "impression", "timestamp": at, "decision_id": d}
        for u, d in list(zip(arm, ids, strict=True))[:44]
    ]
    pl.DataFrame(seen).write_ndjson("events.jsonl")
    assert run(["ingest", "events.jsonl"]) == 0
    assert results.exposed(home, load(home, "x"), UNTIL).people["user_id"].to_list() == sorted(arm)[:44]


def test_small_and_broken_experiments_are_refused(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    start(home, "x", AB, at=START)
    users = [f"u{number:03d}" for number in range(300)]
    ingest([(u, "purchase", START + timedelta(days=3), 1.0) for u in users])
    logs(home, "x", {u: "ab"[number < 19] for number, u in enumerate(users[:60])}, lambda k: START)
    with pytest.raises(UsageError, match="without a metric"):
        results.measure_experiment(home, "x", UNTIL)
    with pytest.raises(Refused, match="'b' has 19"):
        results.measure_experiment(home, "x", UNTIL, asked=["bought"])
    logs(home, "x", {u: "ab"[number < 40] for number, u in enumerate(users[60:])}, lambda k: START)
    assert run(["measure", "experiment", "x", "--metric", "bought", "--as-of", UNTIL.isoformat()]) == 77
    assert "not those planned" in capsys.readouterr().err
    assert run(["measure", "experiment", "x", "--metric", "bought", "--as-of", UNTIL.isoformat(), "--force"]) == 0
    assert run(["measure", "experiment", "y"]) == 66 and run(["measure", "interleave", "x"]) == 2
    assert not list(home.path("reports").glob("experiment-y*"))


def test_a_bandits_means_are_weighted_by_chance(home: Home) -> None:
    """Early people buy less; the better variant gets most of the late ones, which makes its plain mean look better."""
    start(home, "x", AB, kind="bandit", metric="bought", at=START)
    change(home, "x", shares=[0.1, 0.9], at=START + timedelta(days=2))
    rng = np.random.default_rng(5)
    arm: dict[str, str] = {}
    for day, share, chance in ((0, 0.5, 0.1), (3, 0.9, 0.5)):
        users = [f"u{day}{number:04d}" for number in range(1500)]
        part = {u: "ab"[int(rng.random() < share)] for u in users}
        logs(home, "x", part, lambda k, day=day: START + timedelta(days=day))  # type: ignore[misc]
        ingest([(u, "purchase", START + timedelta(days=day + 1), 1.0) for u in users if rng.random() < chance])
        arm |= part
    found = results.measure_experiment(home, "x", UNTIL).measured
    (bought,) = found.findings
    assert abs(bought.difference) < 3 * bought.se < 0.15 and bought.verdict == "unknown"
    assert found.srm == "adaptive" and any("chance" in note for note in found.notes)
    with pytest.raises(UsageError, match="--peek"):
        results.measure_experiment(home, "x", UNTIL, peek="open", planned=100)


@pytest.mark.parametrize("method", ["team-draft", "balanced", "probabilistic"])
def test_interleaved_lists_are_measured_as_they_were_logged(
    home: Home, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    start(home, "x", ["a=latest", "b=rules.strength=0.5"], kind="interleave", method=method, at=START)
    rng = np.random.default_rng(3)
    users = [f"u{number:03d}" for number in range(120)]
    rankings = [
        pl.DataFrame({"user_id": users, "items": [[f"i{one}" for one in rng.permutation(8)[:5]] for _ in users]})
        for _ in "ab"
    ]
    merged = interleave_lists(rankings[0], rankings[1], method, "salt")
    extra = [name for name in ("credit", "rank_a", "rank_b") if name in merged.columns]
    rows, clicked, events = [], [], []
    for row in merged.iter_rows(named=True):
        choice = {"teams": row["teams"], **{name: row[name] for name in extra}}
        items = [{"item_id": item, "position": place, "propensity": 1.0} for place, item in enumerate(row["items"], 1)]
        rows.append(
            {"user_id": row["user_id"], "variant": "x:interleaved", "surface": "recommend", "items": items,
             "choice": json.dumps(choice)}
        )  # fmt: skip
        chances = [0.5 if team == "b" else 0.2 for team in row["teams"]]
        clicks = [int(rng.random() < chance) for chance in chances]
        clicked.append(clicks)
        events += [
            {"user_id": row["user_id"], "event_type": "click", "item_id": item,
             "timestamp": (START + timedelta(days=1, minutes=place)).isoformat()}
            for place, (item, click) in enumerate(zip(row["items"], clicks, strict=True)) if click
        ]  # fmt: skip
    names = ("user_id", "variant", "surface", "items", "choice")
    log(home, pl.DataFrame(rows, schema={name: TYPES[name] for name in names}), at=START + timedelta(days=1))
    pl.DataFrame(events).write_ndjson("events.jsonl")
    assert run(["ingest", "events.jsonl"]) == 0
    stop(home, "x", at=START + timedelta(days=9))
    found = results.measure_interleaved(home, "x", UNTIL)[0, 1]
    assert found == measure_preferences(merged.with_columns(clicks=pl.Series(clicked)), method)
    assert found.preference < 0
    capsys.readouterr()
    assert run(["measure", "interleave", "x", "--as-of", UNTIL.isoformat()]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith("b wins ") and ("is preferred" in shown) == (found.high < 0)
    assert run(["measure", "interleave", "x", "--as-of", UNTIL.isoformat(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["p"] == pytest.approx(found.p)
    if method == "team-draft":
        wins = stats.binomtest(found.wins_b, found.wins_a + found.wins_b).pvalue
        assert (found.p < 0.05) == (wins < 0.05)
