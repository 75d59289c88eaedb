"""Two kept evaluations against each other: which are meant, on which users, and what is said where exams differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy import stats

from persona_cli.errors import BadData, MissingInput, UsageError
from persona_cli.evaluation import comparisons, document, kept
from persona_cli.reports.parts import as_lines
from persona_cli.workspace.home import Home, create

Floats = NDArray[np.float64]
OLD, NEW = "20260101T100000-aaaaaa", "20260201T100000-bbbbbb"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return create(tmp_path / "w")


def keep(home: Home, run: str, models: Mapping[str, Floats], first_user: int = 0, **more: Any) -> None:
    """Keep an evaluation of `models` (ndcg@5 by user; recall@5 is twice that), users numbered from `first_user`."""
    users = [f"u{first_user + user:04d}" for user in range(len(next(iter(models.values()))))]
    frames = [
        pl.DataFrame({"model": [name] * len(users), "user_id": users, "ndcg@5": values, "recall@5": 2 * values})
        for name, values in models.items()
    ]
    result = {
        "run": run,
        "split": {"kind": "time", "headline": "time split: trained before then", "cut": "2026-01-01T00:00:00Z"},
        "users": len(users),
        "test_pairs": 2000,
        "items": 50,
        "train_events": 9000,
        "k": [5],
        "as_of": None,
        "refit": True,
        "notes": [],
        "models": [
            {"model": name, "base": None, "baseline": name == "popular", "settings": {f"model.{name}.size": len(run)}}
            for name in models
        ],
        **more,
    }
    document.kept(home, run, result, pl.concat(frames))


def values(seed: int, users: int = 400, gain: float = 0.0) -> Floats:
    draws = np.random.default_rng(seed)
    return np.where(draws.random(users) < 0.4, draws.random(users), 0.0) / 2 + gain


@pytest.fixture
def two(home: Home) -> Home:
    """The second evaluation has better knn on 390 of the same 400 users, and 10 users of its own."""
    keep(home, OLD, {"ease": values(1), "knn": values(2), "popular": values(3) / 2})
    noise = np.random.default_rng(9).normal(0.0, 0.02, 400)
    keep(
        home,
        NEW,
        {"knn": np.roll(values(2), -10) + 0.05 + noise, "new": values(5), "popular": np.roll(values(3), -10) / 2},
        first_user=10,
    )
    return home


def test_runs_have_names(two: Home) -> None:
    (two.path("evaluations") / ".tmp-1-000000000000").mkdir()
    assert kept.names(two) == [NEW, OLD]
    for name, run in (("latest", NEW), ("previous", OLD), (OLD, OLD), ("202602", NEW)):
        assert kept.find(two, name) == run
    with pytest.raises(UsageError, match="2 evaluations begin with '2026'"):
        kept.find(two, "2026")
    with pytest.raises(MissingInput, match=f"did you mean '{NEW}'"):
        kept.find(two, "20260201T100000-bbbbbc")
    with pytest.raises(MissingInput, match="no evaluation ''"):
        kept.find(two, "")


def test_without_kept_evaluations(home: Home) -> None:
    with pytest.raises(MissingInput, match="no evaluation is kept") as found:
        kept.contest(home)
    assert found.value.hint == "persona evaluate"
    keep(home, OLD, {"ease": values(1)})
    with pytest.raises(MissingInput, match="the only one kept"):
        kept.contest(home)


def test_the_second_is_judged_over_the_first_on_the_users_of_both(two: Home) -> None:
    found = kept.contest(two)
    assert (found.first.run, found.second.run, found.metric) == (OLD, NEW, "ndcg@5")
    assert (found.users, found.only) == (390, (10, 10))
    (row,) = found.rows  # knn alone is in both and no baseline
    old, new = found.first.of("knn")["ndcg@5"].to_numpy()[10:], found.second.of("knn")["ndcg@5"].to_numpy()[:390]
    assert row["first"] == {"run": OLD, "model": "knn", "value": pytest.approx(old.mean())}
    assert row["second"]["value"] == pytest.approx(new.mean())
    assert row["difference"]["value"] == pytest.approx(new.mean() - old.mean())
    assert row["difference"]["low"] < 0.05 < row["difference"]["high"]
    assert row["p"] == pytest.approx(stats.ttest_rel(new, old).pvalue, rel=1e-6)
    assert (row["verdict"], row["no_worse"]) == ("better", True)
    assert json.loads(json.dumps(kept.document(found), allow_nan=False))["users"] == 390
    back = kept.contest(two, "latest", "previous").rows[0]
    assert back["difference"]["value"] == pytest.approx(-row["difference"]["value"])
    assert (back["verdict"], back["p"], back["no_worse"]) == ("worse", row["p"], False)
    assert "390 users asked in both; left out: 10 only in the first, 10 only in the second" in as_lines(
        kept.parts(found)
    )


def test_any_two_models_of_any_runs(two: Home) -> None:
    row = kept.contest(two, f"{OLD}:ease", "latest:knn").rows[0]
    assert (row["first"]["model"], row["second"]["model"]) == ("ease", "knn")
    assert (row["model"], row["against"]) == (f"knn of {NEW}", f"ease of {OLD}")
    within = kept.contest(two, "previous:popular", "previous:ease")
    assert within.users == 400 and within.rows[0]["against"] == "popular"
    assert "400 users asked" in as_lines(kept.parts(within))
    assert kept.contest(two, "previous:knn", "latest").rows[0]["second"]["model"] == "knn"


def test_models_that_are_named_are_one_family(two: Home) -> None:
    found = kept.contest(two, models=["knn", "popular", "knn"], metric="recall@5")
    assert [row["first"]["model"] for row in found.rows] == ["knn", "popular"]
    assert [row["p_holm"] for row in found.rows] == comparisons.holm([row["p"] for row in found.rows])
    assert (found.rows[1]["difference"]["value"], found.rows[1]["p"]) == (0.0, 1.0)
    assert any("making several comparisons (Holm)" in line for line in as_lines(kept.parts(found)))


def test_without_a_model_in_both_it_is_the_best_of_each(home: Home) -> None:
    keep(home, OLD, {"ease": values(1), "popular": values(3, gain=1.0)})
    keep(home, NEW, {"knn": values(2), "layered": values(2, gain=0.1), "popular": values(3)})
    row = kept.contest(home).rows[0]
    assert (row["first"]["model"], row["second"]["model"]) == ("ease", "layered")


def test_the_margin_decides_what_is_no_worse(home: Home) -> None:
    keep(home, OLD, {"ease": values(1, gain=0.5)})
    keep(home, NEW, {"ease": values(1, gain=0.5) * 0.97})
    assert not kept.contest(home).rows[0]["no_worse"]
    assert kept.contest(home, margin=0.05).rows[0]["no_worse"]


def test_what_is_not_the_same_exam_is_said(home: Home) -> None:
    keep(home, OLD, {"ease": values(1)})
    keep(home, "20260102T100000-aaaaaa", {"ease": values(1)})
    assert kept.contest(home).differences == []
    split = {"kind": "leave-last", "headline": "leave-last split"}
    keep(home, NEW, {"ease": values(1)}, split=split, k=[5, 10], test_pairs=1500, train_events=9500)
    found = kept.document(kept.contest(home))
    assert not found["same_exam"] and found["differences"] == [
        "split: time in the first, leave-last in the second",
        "cut: 2026-01-01 00:00:00 in the first, none in the second",
        "k: 5 in the first, 5, 10 in the second",
        "right answers: 2,000 in the first, 1,500 in the second",
        "events to learn from: 9,000 in the first, 9,500 in the second",
    ]


def test_settings_that_changed_are_shown(home: Home) -> None:
    keep(home, OLD, {"ease": values(1)})
    keep(home, "20260102T100000-long", {"ease": values(1) * np.random.default_rng(2).uniform(0.5, 1.5, 400)})
    found = kept.contest(home)
    assert found.rows[0]["changed"] == {"model.ease.size": [22, 20]}
    text = " ".join(line.strip() for line in as_lines(kept.parts(found)))
    assert "settings that differ: model.ease.size 22 → 20" in text
    assert "cannot be told apart" in text and "four times in five" in text


def test_records_are_flat_and_alike(two: Home) -> None:
    found = kept.records(kept.contest(two, models=["knn", "popular"]))
    assert len(found) == 2 and len({tuple(record) for record in found}) == 1
    assert not any(isinstance(value, dict | list) for record in found for value in record.values())
    assert found[0]["first_run"] == OLD and found[0]["difference_low"] > 0


def test_what_cannot_be_compared_is_refused(two: Home) -> None:
    for words, error, said in (
        ({"metric": "ndgc@5"}, UsageError, "neither has the metric 'ndgc@5' by user; did you mean 'ndcg@5'"),
        ({"models": ["kn"]}, UsageError, f"{OLD} has no model 'kn'; did you mean 'knn'"),
        ({"models": ["ease"]}, UsageError, f"{NEW} has no model 'ease'"),
        ({"first": "latest:ease"}, UsageError, f"{NEW} has no model 'ease'"),
        ({"first": "latest"}, UsageError, f"knn of {NEW} would be compared with itself"),
        ({"first": "previous:knn", "models": ["knn"]}, UsageError, "leave --model out"),
        ({"margin": 1.5}, UsageError, "the margin is 1.5"),
        ({"first": "2025"}, MissingInput, "no evaluation '2025'"),
    ):
        with pytest.raises(error, match=said):
            kept.contest(two, **words)  # type: ignore[arg-type]


def test_nobody_in_both_is_nothing_to_compare(home: Home) -> None:
    keep(home, OLD, {"ease": values(1)})
    keep(home, NEW, {"ease": values(1)}, first_user=5000)
    with pytest.raises(MissingInput, match="no user was asked in both"):
        kept.contest(home)


def test_a_metric_of_one_alone(home: Home) -> None:
    keep(home, OLD, {"ease": values(1)})
    result = json.loads(home.path("evaluations", OLD, "result.json").read_text()) | {"k": [20]}
    document.kept(home, NEW, result, pl.DataFrame({"model": ["ease"], "user_id": ["u0001"], "ndcg@20": [0.5]}))
    with pytest.raises(UsageError, match="no metric in common: lists of 5 and of 20"):
        kept.contest(home)
    with pytest.raises(UsageError, match=f"only {OLD} has the metric 'ndcg@5'"):
        kept.contest(home, metric="ndcg@5")


def test_files_that_were_touched_are_refused(two: Home) -> None:
    path = two.path("evaluations", OLD, "result.json")
    path.write_text(path.read_text().replace("9000", "9001"))
    with pytest.raises(BadData, match=r"result\.json is not the file that the manifest describes"):
        kept.contest(two)
