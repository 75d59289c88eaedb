"""Two models: overlap by hand, the exam as `evaluate` has it, groups of users, and what cannot be compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from persona_cli.errors import MissingInput, UsageError
from persona_cli.evaluation.evaluate import evaluate
from persona_cli.evaluation.rivals import by_group, overlap, rivalry
from persona_cli.evaluation.rivals_report import document, parts, records, size
from persona_cli.feedback.training import train
from persona_cli.models import registry
from persona_cli.reports.parts import as_lines
from persona_cli.workspace.home import Home

Rows = list[tuple[str, str | None, float]]


def lists(**of: str) -> pl.DataFrame:
    """`lists(ann="abc")`: a user's items, best first."""
    rows = [(user, item, rank) for user, items in of.items() for rank, item in enumerate(items, 1)]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "rank"], orient="row", schema_overrides={"rank": pl.Int64})


def values(users: int, **of: Any) -> dict[str, pl.DataFrame]:
    names = [f"u{user:03d}" for user in range(users)]
    return {name: pl.DataFrame({"user_id": names, "ndcg@5": value}) for name, value in of.items()}


@pytest.mark.parametrize(
    ("one", "other", "k", "jaccard", "rbo", "same"),
    [
        # A_1 = 1, A_2 = 1/2, A_3 = 2/3: (0.1/0.9) (0.9 + 0.81/2 + 0.729 · 2/3) + 0.729 · 2/3
        ("abc", "acd", 3, 2 / 4, (0.9 + 0.405 + 0.486) / 9 + 0.486, 1.0),
        ("abc", "abc", 3, 1.0, 1.0, 1.0),
        ("abc", "xyz", 3, 0.0, 0.0, 0.0),
        # A_1 = 0, A_2 = 1: 0.81/9 + 0.81
        ("ab", "ba", 2, 1.0, 0.09 + 0.81, 0.0),
        # Lists that are shorter than k: the same ones are the same.
        ("ab", "ab", 5, 1.0, 1.0, 1.0),
        # What is behind k does not count.
        ("abx", "aby", 2, 1.0, 1.0, 1.0),
    ],
)
def test_overlap_by_hand(one: str, other: str, k: int, jaccard: float, rbo: float, same: float) -> None:
    found = overlap(lists(ann=one), lists(ann=other), k)
    assert (found.users, found.k) == (1, k)
    assert found.jaccard.value == pytest.approx(jaccard)
    assert found.rbo.value == pytest.approx(rbo)
    assert found.same_top.value == same


def test_overlap_is_a_mean_over_users_and_does_not_depend_on_sides_or_rows() -> None:
    one, other = lists(ann="abc", bob="abc", cat="a"), lists(ann="abc", bob="def")
    found = overlap(one, other, 3)
    assert found.users == 3
    assert found.jaccard.value == found.rbo.value == pytest.approx(1 / 3), "who has no list of the other shares nothing"
    assert overlap(other, one.sample(fraction=1, shuffle=True, seed=1), 3) == found


def test_slices_are_groups_too_and_share_in_the_correction() -> None:
    draws = np.random.default_rng(3)
    one = draws.random(200)
    attributes = pl.DataFrame({"user_id": [f"u{user:03d}" for user in range(200)], "events": np.arange(200)})
    frames = values(200, a=one, b=one + np.where(np.arange(200) < 50, 0.1, 0.0) + draws.normal(0, 0.01, 200))
    rows = by_group(frames, "ndcg@5", attributes, slices=["events < 50", "events >= 50"])
    assert [(row["segmentation"], row["group"], row["users"], row["verdict"]) for row in rows] == [
        ("slice", "events < 50", 50, "better"),
        ("slice", "events >= 50", 150, "within noise"),
    ]
    assert rows[0]["difference"]["value"] == pytest.approx(0.1, abs=0.01)
    assert rows[0]["p_holm"] == pytest.approx(2 * rows[0]["p"])


def test_groups_are_compared_within_themselves() -> None:
    draws = np.random.default_rng(2)
    mobile = np.arange(200) < 100
    one = draws.random(200)
    other = one + np.where(mobile, 0.2, 0.0) + draws.normal(0, 0.01, 200)
    attributes = pl.DataFrame(
        {"user_id": [f"u{user:03d}" for user in range(200)], "device": np.where(mobile, "mobile", "web")}
    )
    frames = values(200, a=one, b=np.where(mobile, other, one))
    rows = {row["group"]: row for row in by_group(frames, "ndcg@5", attributes)}
    assert rows["mobile"]["verdict"] == "better" and rows["mobile"]["better_for"] == [0, 100, 0]
    assert rows["mobile"]["difference"]["value"] == pytest.approx(float((other - one)[mobile].mean()))
    assert rows["web"]["verdict"] == "within noise" and rows["web"]["better_for"] == [0, 0, 100]
    assert rows["web"]["p_holm"] == 1.0 and rows["mobile"]["p_holm"] >= rows["mobile"]["p"]


@pytest.fixture
def home(ingest: Callable[..., Home]) -> Home:
    """60 users with an item a day, mostly of one of two tastes; popular, knn and ease are trained."""
    draws = np.random.default_rng(5)
    rows: Rows = []
    for user in range(60):
        weights = np.where(np.arange(30) % 2 == user % 2, 6.0, 1.0)
        chosen = draws.choice(30, size=12, replace=False, p=weights / weights.sum())
        rows += [(f"u{user:02d}", f"i{item:02d}", 24 * n + user / 100) for n, item in enumerate(chosen)]
    made = ingest(rows)
    made = dataclasses.replace(
        made, settings=made.settings.with_flags({"evaluate.k": [5], "model.layered.evidence": 1})
    )
    train(made, ["knn", "ease"])
    return made


def test_the_exam_is_that_of_evaluate(home: Home) -> None:
    found = rivalry(home, "popular", "ease")
    result = evaluate(home, "r", models=["ease", "popular"])
    known = {entry["model"]: entry["metrics"]["ndcg@5"] for entry in result.result["models"]}
    assert found.second.value._asdict() == pytest.approx(known["ease"])
    assert found.first.value._asdict() == pytest.approx(known["popular"])
    assert (found.first.model, found.second.model, found.metric) == ("popular/1", "ease/1", "ndcg@5")
    assert found.comparison.verdict == "better" and found.comparison.users == result.result["users"]
    assert sum(found.better_for) == found.comparison.users and found.better_for[1] > found.better_for[0]
    assert found.headline == result.result["split"]["headline"]


def test_the_rest_is_of_the_models_as_they_were_saved(home: Home) -> None:
    found = rivalry(home, "popular", "latest")
    one, other = found.first, found.second
    assert other.model == "layered/1" and other.base in ("knn/1", "ease/1")
    records_of = {f"{one['model']}/{one['version']}": one["bytes"] for one in registry.list_models(home)}
    assert one.bytes == records_of["popular/1"]
    assert other.bytes == records_of["layered/1"] + records_of["popular/1"] + records_of[other.base]
    assert one.users_per_second > 0 and one.fit_seconds >= 0
    assert one.figures["coverage@5"] is not None and other.figures["coverage@5"] is not None
    assert one.figures["coverage@5"].value < other.figures["coverage@5"].value, "everybody gets the same popular items"
    assert one.figures["popularity_lift@5"].value > other.figures["popularity_lift@5"].value  # type: ignore[union-attr]
    assert found.overlap.users == 60 and 0 < found.overlap.jaccard.value < 1


def test_a_model_against_its_own_newer_version(home: Home) -> None:
    train(home, ["knn"], {"model.knn.neighbours": 2})
    found = rivalry(home, "knn/1", "knn/2", "recall@5")
    assert found.metric == "recall@5" and found.first.settings != found.second.settings
    same = rivalry(home, "knn/2", "knn/1", "recall@5")
    assert same.comparison.difference.value == -found.comparison.difference.value
    assert same.overlap == found.overlap and same.better_for[:2] == found.better_for[1::-1]


def test_what_cannot_be_compared(home: Home, ingest: Callable[..., Home]) -> None:
    with pytest.raises(UsageError, match="knn/1 would be compared with itself"):
        rivalry(home, "knn", "knn/1")
    with pytest.raises(UsageError, match=r"'ndgc@5' is no metric that users have; did you mean 'ndcg@5'\?"):
        rivalry(home, "knn", "ease", "ndgc@5")
    with pytest.raises(UsageError, match="did you mean 'ease'"):
        rivalry(home, "knn", "eaze")
    with pytest.raises(MissingInput, match="there is no model knn/7"):
        rivalry(home, "knn/7", "ease")
    with pytest.raises(MissingInput, match="no model has been trained yet"):
        rivalry(ingest([("u", "i", 0)], name="new"), "latest", "knn")


def test_shown_to_machines_and_to_people(home: Home) -> None:
    found = rivalry(home, "knn", "latest")
    told = document(found)
    assert told["first"]["model"] == "knn/1" and told["second"]["base"] == found.second.base
    assert told["overlap"]["jaccard"]["value"] == found.overlap.jaccard.value
    assert told["better_for"] == dict(zip(("first", "second", "alike"), found.better_for, strict=True))
    rows = records(found)
    assert rows[0]["segmentation"] == "all" and rows[0]["difference"] == found.comparison.difference.value
    assert len(rows) == 1 + len(found.segments) and len({tuple(row) for row in rows}) == 1
    lines = as_lines(parts(found))
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("NDCG@5 ") for line in lines) and any("Jaccard" in line for line in lines)


def test_sizes_are_readable() -> None:
    assert [size(n) for n in (17, 2048, 5 * 2**20, 3 * 2**40)] == ["17 B", "2.0 KiB", "5.0 MiB", "3,072.0 GiB"]
