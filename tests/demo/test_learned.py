"""What the demo says it learned, on lists small enough to count by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from persona_cli.demo.learned import Tastes, best_of, example_of, example_user, known_tastes, lift_line
from persona_cli.errors import MissingInput


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    truth = [
        {"user_id": "a", "likes": {"tea": 0.9, "milk": 0.05}},
        {"user_id": "b", "likes": {"tea": 0.9}, "drift": {"since": "2026-08-01T00:00:00Z", "likes": {"coffee": 1.0}}},
        {"user_id": "c", "likes": {"milk": 1.0}},
    ]
    items = [
        {"item_id": f"{c}-{n}", "title": f"{c} {n}", "category": c} for c in ("tea", "coffee", "milk") for n in (1, 2)
    ]
    for name, records in (("truth", truth), ("items", items)):
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path / "truth", tmp_path / "items"


def line(user: str, *items: str, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "stage": "individual", "items": [{"item_id": item} for item in items], **more}


def test_shares_count_items_of_liked_categories_by_the_later_taste(files: tuple[Path, Path]) -> None:
    served = [
        line("a", "tea-1", "milk-1", "coffee-1"),  # 2 of 3
        line("b", "coffee-1", "tea-1"),  # 1 of 2: tea was given up
        line("c", "tea-1", "milk-1", holdout=True),  # 1 of 2
        line("stranger", "tea-1"),  # nothing is known of them
        line("a", "coffee-1", stage="cohort"),
    ]
    tastes = known_tastes(*files, served)
    assert tastes.shares == {"individual": pytest.approx(3 / 5), "holdout": pytest.approx(1 / 2)}


def test_only_the_first_ten_items_count(files: tuple[Path, Path]) -> None:
    tastes = known_tastes(*files, [line("c", *["milk-1"] * 10, *["tea-1"] * 10)])
    assert tastes.shares == {"individual": 1.0}


def test_the_example_is_the_first_user_with_a_history_of_their_own() -> None:
    tastes = Tastes({"b": {"tea": 1.0}, "c": {}}, {}, {}, {})
    served = [line("z"), line("c"), line("b"), line("a", holdout=True), line("0", stage="context")]
    assert example_user(served, tastes) == "b"
    assert example_user([line("z", stage="context")], tastes) == "z"
    with pytest.raises(MissingInput):
        example_user([], tastes)


def test_the_example_shows_what_was_done_liked_and_given(files: tuple[Path, Path]) -> None:
    served = [line("a", "tea-1", "gone")]
    top = [{"item_id": "tea-2"}, {"item_id": "x"}]
    found = example_of("a", {"events": 3, "top_items": top}, served, known_tastes(*files, served))
    assert found["did"] == ["tea 2 (tea)", "x"]
    assert found["likes"] == {"tea": 0.9, "milk": 0.05}
    assert found["gets"] == ["tea 1 (tea)", "gone"]


def test_the_lift_is_stated_with_open_ends_where_there_is_none() -> None:
    def evaluated(lift: Any) -> dict[str, Any]:
        figure = {"value": 0.25, "low": 0.2, "high": 0.3}
        models = [
            {
                "model": "knn",
                "metrics": {"ndcg@5": figure},
                "lift": {"ndcg@5": lift},
                "chosen": ["individual"],
                "chosen_with_later_data": False,
            },
            {"model": "popular", "metrics": {"ndcg@5": figure | {"value": 0.0}}, "lift": {}},
        ]
        return {"k": [20, 5], "users": 3, "models": models}

    assert best_of(evaluated(None))["model"] == "knn"
    assert lift_line(evaluated(None)) == "NDCG@5 0.250 against 0.000 of the popular list: no lift over nothing, 3 users"
    open_end = {"value": 0.5, "low": -0.1, "high": None}
    assert "+50 % (95 %: -10 % to ?)" in lift_line(evaluated(open_end))
