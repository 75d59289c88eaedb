"""The result of an evaluation as one document, and the folder that it is kept in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from persona_cli.evaluation.baselines import NAMES
from persona_cli.evaluation.contenders import Contender
from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.judging import Judgement, as_json
from persona_cli.models.layered import Layered
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home

FOLDER = "evaluations"


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found, and where it is kept."""

    result: dict[str, Any]
    """The JSON document: run, split, users, models and more."""
    per_user: pl.DataFrame
    """model, user_id and every accuracy metric."""
    folder: Path | None = None
    """None where there was no workspace to keep it in."""
    files: Mapping[str, str] | None = None
    """Name → sha256 of what is in the folder."""

    @property
    def leaks(self) -> list[str]:
        """A sentence for each thing that the lists could only know from later; empty where there is none."""
        checks = self.result.get("leakage", {}).get("checks", ())
        return [f"{one['name']}: {one['detail']}" for one in checks if one["status"] == "leak"]


def of_contender(contender: Contender, exam: Exam, judgement: Judgement) -> dict[str, Any]:
    """The entry of a model."""
    recipe = contender.recipe
    return {
        "model": recipe.label,
        "baseline": recipe.label in NAMES,
        "version": None if recipe.saved is None else recipe.saved.reference,
        "base": recipe.individual,
        "settings": _settings(contender),
        "chosen": list(recipe.chosen),
        "chosen_with_later_data": recipe.chosen_after(exam.asked_from),
        **_figures(judgement),
    }


def of_lists(label: str, judgement: Judgement) -> dict[str, Any]:
    """The entry of lists without a model: another baseline, or a file."""
    return {
        "model": label,
        "baseline": label in NAMES,
        "version": None,
        "base": None,
        "settings": {},
        "chosen": [],
        "chosen_with_later_data": False,
        **_figures(judgement),
    }


def _figures(judgement: Judgement) -> dict[str, Any]:
    return {
        "metrics": {name: as_json(interval) for name, interval in judgement.metrics.items()},
        "lift": {name: as_json(interval) for name, interval in judgement.lift.items()},
        "curve": {name: [[k, value] for k, value in points] for name, points in judgement.curve.items()},
        "calibration": judgement.calibration,
    }


def _settings(contender: Contender) -> dict[str, Any]:
    """Settings in force, with nothing "auto" left; of a layered model also those of its parts."""
    model = contender.model
    own = {f"model.{model.name}.{key}": value for key, value in model.settings().items()}
    if not isinstance(model, Layered):
        return own
    for part in model.parts().values():
        own |= {f"model.{part.name}.{key}": value for key, value in part.settings().items()}
    return own


def plain(result: Mapping[str, Any]) -> dict[str, Any]:
    """The document with JSON types alone: times as text."""
    found: dict[str, Any] = json.loads(json.dumps(result, default=_text, allow_nan=False))
    return found


def kept(home: Home, run: str, result: dict[str, Any], per_user: pl.DataFrame) -> Evaluation:
    """Write result.json and users.parquet as one folder, whole or not at all."""
    folder = home.path(FOLDER, run)
    with artifacts.publish(folder) as beside:
        text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (beside / "result.json").write_text(text, encoding="utf-8")
        per_user.write_parquet(beside / "users.parquet", compression="zstd")
        manifest = artifacts.write_manifest(
            beside, {"kind": "evaluation", "run": run, "settings": home.settings.digest()}
        )
    files = {name: str(entry["sha256"]) for name, entry in manifest["files"].items()}
    return Evaluation(result, per_user, folder, files)


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} has no JSON form")
