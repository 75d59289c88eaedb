"""`evaluate.rules`: lists under [rules] beside the same without, judged on the same users."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persona_cli.cli.main import run
from persona_cli.errors import UsageError

pytestmark = pytest.mark.usefixtures("elsewhere")


def ruled(films: Callable[[int], Path], text: str) -> None:
    films(30)
    path = Path("w/persona.toml")
    path.write_text(f"{path.read_text()}\n{text}\n")


def models(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, Any]]:
    assert run(["evaluate", "-w", "w", "--model", "knn", "--k", "3,5", "--json", *words]) == 0
    return {one["model"]: one["metrics"] for one in json.loads(capsys.readouterr().out)["models"]}


def test_a_rule_that_leaves_everything_out_costs_everything(
    films: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ruled(films, "[rules.exclude.all]\nwhen = \"item_id >= ''\"\ncompliance = true")
    plain = models(capsys)
    both = models(capsys, "--set", "evaluate.rules=true")
    assert list(both) == ["knn", "popular", "knn + rules", "recent-popular", "last-items", "random"]
    assert {name: one for name, one in both.items() if name != "knn + rules"} == plain
    assert both["knn + rules"]["recall@5"]["value"] == 0 < both["knn"]["recall@5"]["value"]


def test_a_rule_that_changes_no_list_costs_nothing(
    films: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ruled(films, '[rules.exclude.nothing]\nitems = ["none of these"]')
    both = models(capsys, "--set", "evaluate.rules=true")
    for metric in ("recall@3", "ndcg@5", "mrr@5"):
        assert both["knn + rules"][metric] == both["knn"][metric]


def test_without_any_rule_it_is_refused(films: Callable[[int], Path], capsys: pytest.CaptureFixture[str]) -> None:
    films(30)
    assert run(["evaluate", "-w", "w", "--model", "knn", "--set", "evaluate.rules=true"]) == UsageError.exit_code
    assert "persona.toml has no rule in force" in capsys.readouterr().err
