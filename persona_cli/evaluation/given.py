"""`persona evaluate --from`: anybody's lists against given right answers, with neither a model nor a workspace needed.

The same users, right answers and definitions for every file. With a workspace, what is known in it before `as_of` is
what the lists are relative to (popularity, categories, groups of users), and the baselines are asked the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from persona_cli.errors import MissingInput, UsageError
from persona_cli.evaluation import document, exams, foreign, leakage
from persona_cli.evaluation.attributes import attributes, segments_named
from persona_cli.evaluation.baselines import NAMES, POPULAR, baseline_lists
from persona_cli.evaluation.beyond import Background
from persona_cli.evaluation.contenders import background
from persona_cli.evaluation.document import Evaluation
from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.findings import Judged, evidence, findings, other_figures
from persona_cli.evaluation.judging import asked, judge, stacked
from persona_cli.events.catalogue import unavailable
from persona_cli.models.base import Training
from persona_cli.models.interactions import interactions_of
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import popularity
from persona_cli.models.ranking import rank
from persona_cli.profiles.history import signal_events
from persona_cli.profiles.permitted import ANALYTICS, allowed
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings, load

_EVENTS: dict[str, Any] = {
    "user_id": pl.String,
    "item_id": pl.String,
    "timestamp": pl.Datetime("us", "UTC"),
    "device": pl.String,
    "country": pl.String,
}


def evaluate_lists(
    home: Home | None,
    run: str,
    sources: Sequence[str],
    test: str,
    *,
    ks: Sequence[int] | None = None,
    slices: Sequence[str] = (),
    compat: Sequence[str] = (),
    as_of: datetime | None = None,
) -> Evaluation:
    """Judge the lists of every file of `sources` on the pairs of `test`; kept where there is a workspace.

    Lists are taken as they are: nothing that a user has had is taken out of them. UsageError where two files have one
    name, or where nothing is known by which to slice; BadData for a file that cannot be read.
    """
    settings = load(None, {}) if home is None else home.settings
    lengths = tuple(ks or settings.wholes("evaluate.k"))
    answers = foreign.read_pairs(test).unique().sort("user_id", "item_id")
    if home is not None:
        answers = allowed(home, ANALYTICS, answers["user_id"].unique()).rows(answers)
    if not answers.height:
        raise MissingInput(f"{test} holds no pair to ask for of anybody who may be measured")
    lists: dict[str, pl.DataFrame] = {}
    notes: list[str] = []
    for source in sources:
        label = label_of(source)
        if label in lists or label in NAMES:
            raise UsageError(f"two lists would be called {label!r}", "rename one of the files")
        read = foreign.read_lists(source)
        lists[label] = read.lists
        notes += [f"{label}: {note}" for note in read.notes]
    exam, events = _exam(home, answers, test, as_of)
    notes += exam.notes
    whole = _relative_to(home, exam, lists, max(lengths) + 1, settings, notes)
    judgements = judge(lists, answers, whole, lengths, POPULAR, settings.whole("evaluate.bootstrap"))
    judged = Judged(
        exam,
        {},
        judgements,
        attributes(home, exam, settings, segments_named(slices)),
        leakage.check(evidence(home, exam, lists, None if home is None else events, None, whole.items)),
        other_figures(lists, answers, lengths, compat),
        len(whole.items),
    )
    entries = [document.of_lists(label, judgement) for label, judgement in judgements.items()]
    result: dict[str, Any] = {
        "run": run,
        "split": exam.split,
        "users": len(exam.users),
        "test_pairs": answers.height,
        "items": len(whole.items),
        "train_events": exam.train.height,
        "k": list(lengths),
        "as_of": None if home is None else exam.as_of,
        "refit": False,
        "models": entries,
        "notes": notes,
        **findings(judged, [judged], entries, slices, f"ndcg@{max(lengths)}", settings),
    }
    result = document.plain(result)
    per_user = stacked(judgements)
    return Evaluation(result, per_user) if home is None else document.kept(home, run, result, per_user)


def label_of(source: str) -> str:
    """What lists are called in the result: the name of their file without its endings."""
    return "lists" if source == "-" else Path(source).name.partition(".")[0] or Path(source).name


def _exam(home: Home | None, answers: pl.DataFrame, test: str, as_of: datetime | None) -> tuple[Exam, pl.DataFrame]:
    """The right answers as an exam, over the events of the workspace before `as_of`; and all its events."""
    headline = f"lists from files, tested on {answers.height:,} pairs of {Path(test).name}"
    split = {"kind": "lists", "cut": as_of, "reason": None, "source": test, "headline": headline}
    events = pl.DataFrame(schema=_EVENTS) if home is None else signal_events(home, purpose=ANALYTICS).collect()
    past = events if as_of is None else events.filter(pl.col("timestamp") < as_of)
    notes: tuple[str, ...] = ()
    if home is not None and past.height:
        known = past.select("user_id", "item_id").unique().join(answers, on=["user_id", "item_id"], how="semi").height
        if known and as_of is None:
            notes = (
                f"{known:,} of the right answers are among the events of the workspace; with --as-of TIME, the moment "
                "the lists are of, popularity and baselines would not have seen them",
            )
    exclude = past.filter(pl.col("consumed") | pl.col("never")) if past.height else past
    return (
        Exam(
            headline,
            split,
            past,
            past,
            answers,
            as_of or (exams.after(past) if past.height else datetime.now().astimezone()),
            exclude.select("user_id", "item_id").drop_nulls().unique().sort("user_id", "item_id"),
            notes,
        ),
        events,
    )


def _relative_to(
    home: Home | None,
    exam: Exam,
    lists: dict[str, pl.DataFrame],
    depth: int,
    settings: Settings,
    notes: list[str],
) -> Background:
    """What the lists are relative to; with a workspace the baselines' lists are added to `lists`."""
    named = [frame["item_id"] for frame in lists.values()]
    if home is None or not exam.train.height:
        items = pl.concat([*named, exam.answers["item_id"]]).unique().sort().rename("item_id")
        notes.append(f"coverage is of the {len(items):,} items that a list or a right answer names")
        return Background(items, None, 0)
    learned = interactions_of(exam.train, settings)
    counts = Training(learned, None, popularity(exam.train), exam.as_of, events=exam.train)  # type: ignore[arg-type]
    popular = Popular.from_settings(settings).fit(counts)
    roster, never = asked(exam, learned), unavailable(home, exam.as_of)
    expected = rank(popular, roster, depth, settings, never=never)
    others = baseline_lists(exam, roster, learned, popular, expected, depth, settings, never)
    lists |= {POPULAR: expected, **others}
    return background(home, exam, learned, learned, [popular.items, *named], expected)
