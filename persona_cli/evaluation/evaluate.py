"""`persona evaluate`: an exam is set, every contender is fitted and asked, and the answers are judged and kept.

Refit, a contender sees the train side of the exam and nothing else: profiles, popularity, Gram and catalogue are all as
of the cut. The popular list is always among the contenders.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from persona_cli.errors import MissingInput, UsageError
from persona_cli.evaluation import exams, online
from persona_cli.evaluation.asking import Asked, asked
from persona_cli.evaluation.contenders import BASELINE, Contender, Recipe, as_saved, baseline_of, full_keys, recipes
from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.judging import Judgement, as_json, catalogue, judge, stacked
from persona_cli.events.lists import read_ids
from persona_cli.models.base import Interactions, Training
from persona_cli.models.interactions import interactions
from persona_cli.models.layered import Layered
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import prepared
from persona_cli.models.ranking import rank
from persona_cli.profiles.history import fold_history, signal_events
from persona_cli.profiles.holdout import in_holdout
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
    folder: Path
    files: dict[str, str]
    """Name → sha256 of what is in the folder."""


def evaluate(
    home: Home,
    run: str,
    *,
    split: str | None = None,
    models: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    ks: Sequence[int] | None = None,
    test: str | None = None,
    holdout: bool = False,
    refit: bool = True,
    as_of: datetime | None = None,
) -> Evaluation:
    """Evaluate `models` (default: the recipe of latest) and keep the result as evaluations/<run>/.

    split: time (default), per-user, leave-last or user; `test` names a file of right answers instead. `overrides` are
    settings for this run; only events before `as_of` exist. Without `refit`, saved models are scored on what happened
    after they were trained. MissingInput where there is no model, nothing to learn from or nothing to ask.
    """
    _check(split, overrides, test, refit)
    given = full_keys(overrides or {}, models)
    home = dataclasses.replace(home, settings=home.settings.with_flags(given))
    settings = home.settings
    lengths = tuple(ks or settings.wholes("evaluate.k"))
    wanted = recipes(home, models, given)
    events = signal_events(home, as_of).drop("value").collect()
    if not events.height:
        when = "" if as_of is None else f" before {as_of:%Y-%m-%d %H:%M:%S} UTC"
        raise MissingInput(f"there are no events{when} to evaluate on", "persona ingest FILE")
    if not refit:
        contenders, trained_until = as_saved(wanted)
        exam = exams.by_cut(events, trained_until, ", ".join(one.title for one in contenders))
    else:
        exam = _exam(events, split, test, settings.number("evaluate.test_share"))
    learned = interactions(fold_history(exam.train), settings)
    if refit:
        contenders = _fitted(wanted, exam, learned, reuse=test is not None)
    # Where users are scored from what was learned from, the matrix is the same one.
    known = learned if exam.known is exam.train else interactions(fold_history(exam.known), settings)
    roster = asked(exam, known)
    lists = _lists(contenders, roster, max(lengths) + 1)
    held = catalogue(learned, [one.model.items for one in contenders])
    judged = judge(lists, exam.answers, held, lengths, BASELINE, settings.whole("evaluate.bootstrap"))
    result = {
        "run": run,
        "split": exam.split,
        "users": len(roster.users),
        "test_pairs": exam.answers.height,
        "items": held.popularity.height,
        "train_events": exam.train.height,
        "k": list(lengths),
        "as_of": exam.as_of,
        "refit": refit,
        "models": [_entry(one, exam, judged[one.recipe.label]) for one in contenders],
        "notes": list(exam.notes),
    }
    if holdout:
        share = settings.number("holdout.share")
        result["online"] = online.compared(events, in_holdout(home, events["user_id"]), share)
    result = json.loads(json.dumps(result, default=_text, allow_nan=False))
    return _kept(home, run, result, stacked(judged))


def _check(split: str | None, overrides: Mapping[str, Any] | None, test: str | None, refit: bool) -> None:
    if test is not None and split is not None:
        raise UsageError(f"--test brings its own right answers and --split {split} makes others; give one of them")
    if refit:
        return
    given = {"--split": split, "--test": test, "--set": overrides}
    if named := [name for name, value in given.items() if value]:
        raise UsageError(
            f"--no-refit scores saved models on what happened after they were trained; {', '.join(named)} cannot apply",
            "leave --no-refit out",
        )


def _exam(events: pl.DataFrame, split: str | None, test: str | None, test_share: float) -> Exam:
    if test is None:
        return exams.by_split(events, split or "time", test_share)
    return exams.by_pairs(events, read_ids(test, ["user_id", "item_id"]), test)


def _fitted(wanted: Sequence[Recipe], exam: Exam, learned: Interactions, reuse: bool) -> list[Contender]:
    """Every recipe fitted on the train side; with `reuse`, a saved model that was trained on just that is taken."""
    trainings: dict[str, Training] = {}
    contenders = []
    for recipe in wanted:
        if reuse and recipe.is_saved_from(exam.train.height, exam.as_of):
            assert recipe.saved is not None
            contenders.append(Contender(recipe, recipe.saved.model))
            continue
        # Recipes may differ in how rows are normalised, and then in their Gram.
        key = recipe.settings.digest(["model.gram."])
        if key not in trainings:
            trainings[key] = prepared(learned, exam.train, recipe.settings, exam.as_of)
        contenders.append(Contender(recipe, recipe.unfitted().fit(trainings[key])))
    return contenders


def _lists(contenders: Sequence[Contender], roster: Asked, k: int) -> dict[str, pl.DataFrame]:
    """What each contender would show, made as `recommend` makes it: where it says nothing, the popular list goes on."""
    popular = baseline_of(contenders)
    return {
        one.recipe.label: rank(
            one.model,
            roster,
            k,
            one.recipe.settings,
            fill=None if isinstance(one.model, Popular | Layered) else popular,
        )
        for one in contenders
    }


def _entry(contender: Contender, exam: Exam, judgement: Judgement) -> dict[str, Any]:
    recipe = contender.recipe
    return {
        "model": recipe.label,
        "version": None if recipe.saved is None else recipe.saved.reference,
        "base": recipe.individual,
        "settings": _settings(contender),
        "chosen": list(recipe.chosen),
        "chosen_with_later_data": recipe.chosen_after(exam.asked_from),
        "metrics": {name: as_json(interval) for name, interval in judgement.metrics.items()},
        "lift": {name: as_json(interval) for name, interval in judgement.lift.items()},
    }


def _settings(contender: Contender) -> dict[str, Any]:
    """Settings in force, with nothing "auto" left; of a layered model also those of its parts."""
    model = contender.model
    own = {f"model.{model.name}.{key}": value for key, value in model.settings().items()}
    if not isinstance(model, Layered):
        return own
    for part in (model.popular, model.individual):
        if part is not None:
            own |= {f"model.{part.name}.{key}": value for key, value in part.settings().items()}
    return own


def _kept(home: Home, run: str, result: dict[str, Any], per_user: pl.DataFrame) -> Evaluation:
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
