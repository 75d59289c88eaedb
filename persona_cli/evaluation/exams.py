"""What is asked of a model: the events it may learn from, the users it is asked about, and the right answers.

Ways to set an exam, all over rows of `profiles.history.signal_events`:

    by_split    events divided by a split (`splits`): refit on the train side, tested on the other
    rolling     several exams, one after the other: each refit on all before its window of time, tested on that window
    by_cut      one given instant, for an artifact that was trained until then
    by_pairs    right answers from a file; everything ingested may be learned from

`with_beginnings` asks beside another exam about users of whom nothing was learned, as they become known.

A right answer is an item with an event of strength > 0 (and not "never") that was not known before; known is an item
with an event of `recommend.consumed_by`, or one never to be shown again. Those items are kept out of the lists too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from persona_cli.errors import MissingInput, UsageError, nearest
from persona_cli.evaluation import splits
from persona_cli.evaluation.timelines import some_of, timeline

_MICROSECOND = timedelta(microseconds=1)
FOLLOWING = 20
"""Events that are asked about after the beginning of a new user."""
RESERVED, FEWEST_RESERVED = 0.1, 100
"""Share of users who are taken out where there is no cut in time; nobody is where that is fewer than so many."""


@dataclass(frozen=True)
class Exam:
    """One exam, the same for every model."""

    headline: str
    """What was asked and, where it differs from what was wanted, why."""
    split: dict[str, Any]
    """The same for machines."""
    train: pl.DataFrame
    """Events that may be learned from."""
    known: pl.DataFrame
    """Events that the users asked about are scored from."""
    answers: pl.DataFrame
    """user_id, item_id: distinct right answers, sorted; at least one."""
    as_of: datetime
    """Models are as of this instant (UTC): nothing in `train` is at or after it, except in splits by user."""
    exclude: pl.DataFrame = field(repr=False)
    """user_id, item_id: distinct pairs that no list may hold."""
    notes: tuple[str, ...] = ()
    """What else people should know, a sentence each."""
    asked_from: datetime | None = None
    """No event that is asked about is earlier; None where the right answers are no events."""

    @property
    def users(self) -> pl.Series:
        """Users asked about, sorted: those with a right answer."""
        return self.answers["user_id"].unique().sort()


def by_split(events: pl.DataFrame, kind: str, test_share: float) -> Exam:
    """Divide the events as `splits.decide` says; MissingInput where nothing is left to learn from or to ask."""
    if not events["item_id"].count():
        raise MissingInput("there are no events with an item to evaluate on", "persona ingest FILE")
    flagged = _flagged(events)
    return _divided(splits.decide(kind, flagged, test_share), flagged)


def rolling(events: pl.DataFrame, kind: str, test_share: float, cuts: int, always: bool = False) -> list[Exam]:
    """One exam for each of `cuts` consecutive windows of what `by_split` would test, earliest first.

    kind: "time" or "per-user"; where a global time is unusable, "time" is per-user with the reason in every headline,
    unless it is `always` to be time.
    Each exam is learned from all events before its window and asks about that window alone: what became known before it
    is no right answer, and what is later does not exist. One cut is `by_split`. Where many events share an instant
    there may be fewer windows than asked for; every headline says how many there are.

    MissingInput where a window leaves nothing to learn from or to ask, UsageError for a kind without windows.
    """
    if kind not in ("time", "per-user"):
        raise UsageError(
            f"a {kind} split has no windows in time; several cuts are of time or per-user"
            if kind in splits.KINDS
            else f"split is {kind!r}{nearest(kind, splits.KINDS)}"
        )
    if not events["item_id"].count():
        raise MissingInput("there are no events with an item to evaluate on", "persona ingest FILE")
    flagged = _flagged(events)
    reason = splits.usable_time(flagged, test_share) if kind == "time" and not always else None
    if kind == "per-user" or reason:
        decided = splits.rolling_per_user(flagged, test_share, cuts, reason)
    else:
        decided = splits.rolling_time(flagged, test_share, cuts)
    return [_divided(split, flagged) for split in decided]


def by_cut(events: pl.DataFrame, cut: datetime, who: str) -> Exam:
    """Ask `who`, trained until `cut`, about the events from then on; MissingInput (66) where there are none."""
    text = f"{cut:%Y-%m-%d %H:%M:%S} UTC"
    if not (events["timestamp"] >= cut).any():
        raise MissingInput(
            f"no event is later than what {who} was trained on ({text}), so nothing is unseen to score it on",
            "ingest newer events, or leave --no-refit out to refit the recipe before a cut",
        )
    description = f"no refit: {who} as trained until {text}, tested on the events from then on"
    return _divided(splits.Split("time", cut, description), _flagged(events))


def with_beginnings(
    exam: Exam, events: pl.DataFrame, after_events: Sequence[int], users: int
) -> tuple[Exam, Exam | None]:
    """An exam, and one of the same models about the beginnings of users of whom nothing was learned.

    `events` are those that the exam divides. Where it has a cut in time these users came after it; else up to
    `RESERVED` of all are taken out of it. Either way at most so many `users`, those whose ids have the smallest hashes.
    One is there as "n user_id" for each n of `after_events`, is known by the first n events with an item, and asked
    about the next `FOLLOWING`. None where there is nobody, or would be fewer than `FEWEST_RESERVED` taken out.
    """
    learned = exam.train["user_id"].unique().sort()
    if exam.split["kind"] == "time":
        theirs = events.filter(pl.col("timestamp") >= exam.as_of).join(learned.to_frame(), on="user_id", how="anti")
        chosen = some_of(theirs["user_id"].unique().sort(), users, "beginnings")
    else:
        users = min(users, int(RESERVED * len(learned)))
        if users < FEWEST_RESERVED:
            return exam, None
        chosen = some_of(learned, users, "beginnings")
        theirs = events
        train, known, answers, exclude = (
            frame.join(chosen.to_frame(), on="user_id", how="anti")
            for frame in (exam.train, exam.known, exam.answers, exam.exclude)
        )
        known = train if exam.known is exam.train else known
        exam = replace(exam, train=train, known=known, answers=answers.sort("user_id", "item_id"), exclude=exclude)
    theirs = _flagged(theirs.join(chosen.to_frame(), on="user_id", how="semi"))
    theirs = theirs.with_columns(place=pl.Series(timeline(theirs).place, dtype=pl.Int64))
    past, asked = [], []
    for n in after_events:
        named = theirs.with_columns(user_id=pl.lit(f"{n} ") + pl.col("user_id"))
        past.append(named.filter(pl.col("place") < n))
        later = named.filter(pl.col("place").is_between(n, n + FOLLOWING - 1) & pl.col("relevant"))
        asked.append(_pairs(later).join(_pairs(past[-1]), on=["user_id", "item_id"], how="anti"))
    answers, known = pl.concat(asked).sort("user_id", "item_id"), pl.concat(past).drop("place")
    if not answers.height:
        return exam, None
    return exam, replace(exam, known=known, answers=answers, exclude=_pairs(known.filter("consumed")), notes=())


def by_pairs(events: pl.DataFrame, pairs: pl.DataFrame, source: str) -> Exam:
    """Ask about the (user_id, item_id) `pairs` of a file; every pair that was ingested is kept out of the lists.

    Pairs that were ingested can not be asked for and are left out, with a note.
    """
    known = _pairs(events)
    distinct = pairs.select("user_id", "item_id").unique()
    answers = distinct.join(known, on=["user_id", "item_id"], how="anti").sort("user_id", "item_id")
    notes = []
    if ingested := distinct.height - answers.height:
        notes.append(f"{ingested:,} of the {distinct.height:,} pairs were ingested and are not asked for")
    if not answers.height:
        raise MissingInput(f"{source} holds no pair that was not ingested: there is nothing to ask for")
    strangers = answers["user_id"].unique().is_in(events["user_id"].unique().implode()).not_().sum()
    if strangers:
        notes.append(f"{strangers:,} users of {source} have no event; they get the popular list")
    headline = f"test file: trained on everything ingested, tested on {answers.height:,} pairs of {Path(source).name}"
    return Exam(
        headline,
        {"kind": "test", "source": source, "headline": headline},
        events,
        events,
        answers,
        after(events),
        known,
        tuple(notes),
    )


def after(events: pl.DataFrame) -> datetime:
    """The first instant that is later than every event."""
    last = events["timestamp"].max()
    if not isinstance(last, datetime):
        raise MissingInput("there are no events", "persona ingest FILE")
    return last + _MICROSECOND


def _divided(split: splits.Split, flagged: pl.DataFrame) -> Exam:
    train, known, answers = splits.apply(split, flagged)
    if not train.filter(pl.col("item_id").is_not_null() & pl.col("relevant")).height:
        raise MissingInput(f"{split.description}: no event of interest is left to learn from", "ingest more events")
    if not answers.height:
        raise MissingInput(f"{split.description}: no user has an item there that is new to them", "ingest more events")
    return Exam(
        split.headline,
        {
            "kind": split.kind,
            "cut": split.cut,
            "reason": split.reason,
            "headline": split.headline,
            **({} if split.end is None else {"end": split.end}),
        },
        train,
        known,
        answers,
        split.cut or after(train),
        _pairs(known.filter("consumed")),
        asked_from=_first_asked(split, flagged),
    )


def _first_asked(split: splits.Split, flagged: pl.DataFrame) -> datetime:
    if split.cut is not None:
        return split.cut
    first = flagged.filter(splits.sides(split, flagged) == "test")["timestamp"].min()
    assert isinstance(first, datetime)
    return first


def _flagged(events: pl.DataFrame) -> pl.DataFrame:
    """`events` with `relevant`, and `consumed` also where an item is never to be shown again."""
    return events.with_columns(
        relevant=(pl.col("strength") > 0) & ~pl.col("never"), consumed=pl.col("consumed") | pl.col("never")
    )


def _pairs(events: pl.DataFrame) -> pl.DataFrame:
    return events.filter(pl.col("item_id").is_not_null()).select("user_id", "item_id").unique().sort(pl.all())
