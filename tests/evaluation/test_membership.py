"""Slices by segments of persona.toml: members are those of the cut's moment, never of a later one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import polars as pl
import pytest

from persona_cli.errors import MissingInput, UsageError
from persona_cli.evaluation import exams, segments
from persona_cli.evaluation.attributes import as_columns, attributes, in_segments, segments_named
from persona_cli.evaluation.evaluate import evaluate
from persona_cli.profiles.history import signal_events
from persona_cli.profiles.people import members
from persona_cli.profiles.sync import sync
from persona_cli.workspace.home import Home, open_home

Row = tuple[str, str, float]
SECTIONS = "[segments.keen]\nwhen = 'events >= 6'\n[segments.busy]\nwhen = 'power_user_score > 0.5'\n"


def world() -> list[Row]:
    """60 users of 10 days each; every third had only two events before the last days, in which all catch up."""
    rows: list[Row] = []
    for user in range(60):
        late = user % 3 == 0
        days = [0, 1, *range(92, 100)] if late else [*range(0, 80, 10), 95, 96]
        rows += [(f"u{user:02d}", f"i{(user + 7 * n) % 30:02d}", 24 * day + user / 100) for n, day in enumerate(days)]
    return rows


def defined(home: Home) -> Home:
    (home.root / "persona.toml").write_text(SECTIONS)
    return open_home(home.root)


def test_members_are_those_of_the_cut_and_what_follows_changes_nothing(ingest: Callable[..., Home]) -> None:
    home = defined(ingest(world()))
    exam = exams.by_split(signal_events(home).collect(), "time", 0.4)
    earlier = [row for row in world() if row[2] < 24 * 80]
    assert exam.train.height == len(earlier)
    then = defined(ingest(earlier, name="then"))
    sync(then)
    found = in_segments(home, exam, ["keen", "busy"])
    for name in ("keen", "busy"):
        assert exam.users.filter(found[f"segment:{name}"]).to_list() == sorted(
            set(members(then, name, as_of=exam.as_of)) & set(exam.users)
        )
    assert exam.users.filter(~found["segment:keen"]).to_list() == [f"u{user:02d}" for user in range(0, 60, 3)]
    # By what came later everybody is.
    sync(home)
    assert len(members(home, "keen")) == 60


def test_an_evaluation_has_the_figures_of_the_members(ingest: Callable[..., Home]) -> None:
    home = defined(ingest(world()))
    slices = ["segment:keen", "not segment:keen", "segment:keen and activity != 'new'"]
    wanted = {"evaluate.test_share": 0.4, "evaluate.k": [5]}
    done = evaluate(home, "r1", models=["popular"], slices=slices, overrides=wanted)
    assert [(one["expression"], one["users"]) for one in done.result["slices"]] == list(
        zip(slices, (40, 20, 40), strict=True)
    )
    figures = done.per_user.filter(pl.col("model") == "popular")
    of_late = figures.filter(pl.col("user_id").str.slice(1).cast(pl.Int64) % 3 == 0)["ndcg@5"].mean()
    (model,) = [one for one in done.result["slices"][1]["models"] if one["model"] == "popular"]
    assert model["metrics"]["ndcg@5"]["value"] == pytest.approx(of_late)


def test_names_are_told_before_any_work_and_cuts_of_their_own_refused(ingest: Callable[..., Home]) -> None:
    home = defined(ingest(world()))
    with pytest.raises(MissingInput, match="'kene'; did you mean 'keen'"):
        evaluate(home, "r1", models=["popular"], slices=["segment:kene"])
    with pytest.raises(UsageError, match="leave-last split has a cut for each user"):
        evaluate(home, "r1", models=["popular"], split="leave-last", slices=["segment:keen"])
    exam = exams.by_split(signal_events(home).collect(), "time", 0.4)
    with pytest.raises(UsageError, match="need a workspace"):
        in_segments(None, exam, ["keen"])
    lists = dataclasses.replace(exam, split={"kind": "lists", "cut": None})
    with pytest.raises(UsageError, match="moment"):
        in_segments(home, lists, ["keen"])
    known = attributes(home, exam, home.settings, ["keen"])
    with pytest.raises(UsageError, match="holds 0 of the"):
        segments.within(known, "segment:keen and activity = 'none'")


def test_names_stand_outside_of_texts() -> None:
    text = """segment:a and plan = 'segment:b' or not "segment:c" or segment:d"""
    assert segments_named([text, "segment:a"]) == ["a", "d"]
    assert as_columns("segment:a or x = 'segment:b'") == """"segment:a" or x = 'segment:b'"""
