"""Whether an evaluation leaks: six checks of what the lists could have known of the right answers.

What can be audited exactly is: events learned from at or after the cut, histories that hold more than was known, items
nobody could know of, users nobody had met. What cannot is tested against what honest evaluations show: copies of events
(`leakage_repeats`), attributes made from answers, lists that go with the future
(`leakage_signs`). Statistical checks alarm where both the effect is large and chance is ruled out; a leak that moves
few users or items can stay below that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import polars as pl

from persona_cli.evaluation import leakage_repeats, leakage_signs
from persona_cli.evaluation.baselines import NAMES
from persona_cli.evaluation.exams import Exam
from persona_cli.models.base import Interactions
from persona_cli.models.interactions import contexts

Status = Literal["ok", "leak", "skipped"]
PAST, PROFILE, DUPLICATES = "train is past", "target in profile", "duplicates across the cut"
UNBORN, CANARIES, POPULARITY = "unborn items", "canary users", "future popularity"
CHECKS = (PAST, PROFILE, DUPLICATES, UNBORN, CANARIES, POPULARITY)
_CLEARLY = 4.2
"""Standard errors beyond which lists of strangers are no chance: once in 40,000."""


@dataclass(frozen=True)
class Evidence:
    """What can be looked at; None: not there, and what needs it is skipped."""

    exam: Exam
    lists: Mapping[str, pl.DataFrame]
    """model → user_id, item_id, rank, score."""
    events: pl.DataFrame | None = field(default=None, repr=False)
    """All events of both sides of the cut: rows of `profiles.history.signal_events`."""
    known: Interactions | None = field(default=None, repr=False)
    """The histories that users were really scored from."""
    births: pl.DataFrame | None = field(default=None, repr=False)
    """item_id, first (UTC): when the catalogue knew the item or says that it came out, whichever is earlier."""
    offered: pl.Series | None = field(default=None, repr=False)
    """item_id of what could be shown at the cut; None: whatever has events. What is sold out is known to be."""
    attributes: pl.DataFrame | None = field(default=None, repr=False)
    """user_id and what else models are told of users, String columns; None: device and country of known events."""


@dataclass(frozen=True)
class Check:
    """What one check found."""

    name: str
    status: Status
    detail: str
    """One sentence: how many, and what to do. Names nobody."""


def check(evidence: Evidence) -> list[Check]:
    """Every check of `CHECKS`, in that order."""
    return [
        _past(evidence),
        _profile(evidence),
        _duplicates(evidence),
        _unborn(evidence),
        _canaries(evidence),
        _popularity(evidence),
    ]


def _past(evidence: Evidence) -> Check:
    cut = _cut(evidence.exam)
    if cut is None:
        return _no_cut(evidence, PAST)
    exam = evidence.exam
    learned = (exam.train["timestamp"] >= cut).sum()
    scored = 0 if exam.known is exam.train else (exam.known["timestamp"] >= cut).sum()
    if not learned and not scored:
        return Check(PAST, "ok", f"all {exam.train.height:,} events learned from are before the cut")
    return Check(
        PAST,
        "leak",
        f"{max(learned, scored):,} events at or after the cut are among those learned or scored from: "
        "cut the events by time before anything is computed from them",
    )


def _profile(evidence: Evidence) -> Check:
    exam = evidence.exam
    answers = exam.answers.select("user_id", "item_id").unique()
    there = _pairs(exam.known)
    if exam.asked_from is not None:
        known = exam.known.filter(pl.col("consumed"))
        asked = _pairs(known).join(answers, on=["user_id", "item_id"], how="semi").height
        if asked:
            return _in_profile(asked, answers.height)
    if evidence.known is not None:
        held = _held(evidence.known)
        extra = held.join(answers, on=["user_id", "item_id"], how="semi").join(
            there, on=["user_id", "item_id"], how="anti"
        )
        if extra.height:
            return _in_profile(extra.height, answers.height)
        more = _longer(evidence.known, exam).join(answers.select("user_id").unique(), on="user_id", how="semi")
        more = more.filter(pl.col("known") > 0)
        if more.height:
            return Check(
                PROFILE,
                "leak",
                f"{more.height:,} users are scored from more events than were known of them: "
                "build histories from the events before the cut alone",
            )
    return _telling(evidence, answers)


def _in_profile(n: int, of: int) -> Check:
    return Check(
        PROFILE,
        "leak",
        f"{n:,} of {of:,} right answers are in the histories that their users are scored from: "
        "build histories from the events before the cut alone",
    )


def _telling(evidence: Evidence, answers: pl.DataFrame) -> Check:
    """An attribute that says more of the answers than of the past."""
    exam = evidence.exam
    given = evidence.attributes
    if given is None:
        given = _contexts(exam, evidence.events)
    past = _pairs(exam.known.filter("relevant") if "relevant" in exam.known.columns else exam.known)
    new = answers.join(past, on=["user_id", "item_id"], how="anti")
    tested = 0
    for name in given.columns:
        if name == "user_id" or given.schema[name] != pl.String:
            continue
        values = given.select("user_id", value=name).drop_nulls()
        gain, z, n_users = leakage_signs.telling_attribute(values, answers, past)
        ratio, alike, n_alike = leakage_signs.alike_by_answers(values, answers, past)
        tested += n_users >= 40
        # The second z has a cautious error: on honest logs it varies by 0.8. Both are seldom raised at once.
        shared = ratio > 1.5 and (alike > 2.1 or (alike > 1.7 and z > 2.2))
        if not shared and (gain <= 0.03 or z <= 4.2):
            continue
        # What people have again and again is a larger part of a short time than of a long one; what is new is not.
        if leakage_signs.alike_by_answers(values, new, past)[1] > 0:
            return Check(
                PROFILE,
                "leak",
                f"the {name} of {max(n_users, n_alike):,} users tells of their right answers what it does not tell of "
                f"their past (z = {max(z, alike):.1f}): take it as it was before the cut, or leave it out",
            )
    looked = "histories hold no right answer" if evidence.known is not None else "known events hold no right answer"
    return Check(PROFILE, "ok", f"{looked}, and none of {tested} attributes of users tells one")


def _contexts(exam: Exam, events: pl.DataFrame | None) -> pl.DataFrame:
    """user_id, device and country as models are told them, and of users of whom neither is known as it comes later.

    What is made from answers is so for everybody, and those without a past have no part in it that could excuse it.
    """
    users = exam.users
    told = contexts(exam.known, users)
    cut = _cut(exam)
    if events is not None and cut is not None:
        later = contexts(events.filter(pl.col("timestamp") >= cut), users)
        told = told.select(pl.coalesce(name, later[name].alias(f"{name} later")) for name in told.columns)
    return pl.concat([users.to_frame("user_id"), told], how="horizontal")


def _duplicates(evidence: Evidence) -> Check:
    cut = _cut(evidence.exam)
    if cut is None:
        return _no_cut(evidence, DUPLICATES)
    if evidence.events is None:
        return Check(DUPLICATES, "skipped", "the events after the cut are not there to be compared")
    events = evidence.events
    end = evidence.exam.split.get("end")
    if isinstance(end, datetime):
        events = events.filter(pl.col("timestamp") < end)
    found = leakage_repeats.copied(leakage_repeats.coded(events), cut)
    if found is None:
        return Check(DUPLICATES, "ok", "events repeat across the cut no more than people repeat themselves")
    return Check(
        DUPLICATES,
        "leak",
        f"{found.n:,} more events than by chance come again {found.sign}: ingest every event once, under its own time",
    )


def _unborn(evidence: Evidence) -> Check:
    cut = _cut(evidence.exam)
    if cut is None:
        return _no_cut(evidence, UNBORN)
    exam = evidence.exam
    before = pl.col("timestamp") < cut
    there = [frame.filter(before)["item_id"] for frame in (exam.train, exam.known)]
    if evidence.events is not None:
        there.append(evidence.events.filter(before)["item_id"])
    if evidence.births is not None:
        there.append(evidence.births.filter(pl.col("first") < cut)["item_id"])
    known = pl.concat([one.unique() for one in there]).unique()
    shown = pl.concat([lists["item_id"].unique() for lists in evidence.lists.values()]).unique()
    unborn = shown.filter(~shown.is_in(known.implode()))
    if not len(unborn):
        return Check(UNBORN, "ok", f"all {len(shown):,} items in the lists were known before the cut")
    return Check(
        UNBORN,
        "leak",
        f"{len(unborn):,} items in the lists were known by no event and no catalogue row before the cut: "
        "train on what was there at the cut",
    )


def _canaries(evidence: Evidence) -> Check:
    cut = _cut(evidence.exam)
    if cut is None:
        return _no_cut(evidence, CANARIES)
    exam = evidence.exam
    strangers = exam.users.to_frame("user_id").join(
        exam.known.filter(pl.col("timestamp") < cut), on="user_id", how="anti"
    )
    if not strangers.height:
        return Check(CANARIES, "skipped", "everybody asked has an event before the cut")
    if evidence.known is not None:
        met = _longer(evidence.known, exam).join(strangers, on="user_id", how="semi")
        if met.height:
            return Check(
                CANARIES,
                "leak",
                f"{met.height:,} of {strangers.height:,} users without an event before the cut are scored from a "
                "history: build histories from the events before the cut alone",
            )
    context = strangers
    if evidence.attributes is not None:
        context = strangers.join(evidence.attributes, on="user_id", how="left")
    past = _pairs(exam.train)
    for name in sorted(set(evidence.lists) - set(NAMES)):
        n, z = leakage_signs.strangers_known(evidence.lists[name], context, exam.answers, past)
        if z > _CLEARLY:
            return Check(
                CANARIES,
                "leak",
                f"lists of {name} for {n:,} users without an event before the cut go with what each of them did "
                f"afterwards (z = {z:.1f}): see what the model is told of them",
            )
    return Check(CANARIES, "ok", f"{strangers.height:,} users without an event before the cut get what anybody gets")


def _popularity(evidence: Evidence) -> Check:
    cut = _cut(evidence.exam)
    if cut is None:
        return _no_cut(evidence, POPULARITY)
    if evidence.events is None:
        return Check(POPULARITY, "skipped", "the events after the cut are not there to be compared")
    exam = evidence.exam
    wanted = evidence.events.filter(pl.col("item_id").is_not_null() & (pl.col("strength") > 0) & ~pl.col("never"))
    if evidence.offered is not None:
        wanted = wanted.filter(pl.col("item_id").is_in(evidence.offered.implode()))
    future = wanted.filter(pl.col("timestamp") >= cut)
    end = exam.split.get("end")
    if isinstance(end, datetime):
        future = future.filter(pl.col("timestamp") < end)
    before = wanted.filter(pl.col("timestamp") < cut)
    past = leakage_signs.past_of(before, future, exam.users, exam.exclude, cut)
    if past is None:
        return Check(POPULARITY, "skipped", "too few items or events to tell lists from the future")
    # The baselines are made here, from what is before the cut, and are what others are told from.
    for name in sorted(set(evidence.lists) - set(NAMES)):
        tie = leakage_signs.future_tie(past, evidence.lists[name])
        clear = tie.correlation > 0.29 and tie.z > 4.6
        correlation, z = leakage_signs.future_scores(before, future, evidence.lists[name], cut)
        scored = correlation > 0.4 and z > 4.0
        # Ranks and scores err for different reasons, so both may be weaker where they agree.
        scored |= correlation > 0.3 and min(z, tie.z) > 2.0 and z + tie.z > 5.5
        if clear or scored or (tie.gap > 0.4 and tie.correlation > 0.15):
            return Check(
                POPULARITY,
                "leak",
                f"what {name} shows beyond what the past explains goes with what {len(past.items):,} items became "
                f"after the cut (partial correlation {max(tie.correlation, correlation):.2f}): "
                "see that it is fitted on events before the cut alone",
            )
    n_lists = len(set(evidence.lists) - set(NAMES))
    return Check(POPULARITY, "ok", f"no list of {n_lists:,} models knows what {len(past.items):,} items became")


def _cut(exam: Exam) -> datetime | None:
    cut = exam.split.get("cut")
    return cut if isinstance(cut, datetime) else None


def _no_cut(evidence: Evidence, name: str) -> Check:
    kind = evidence.exam.split.get("kind", "this")
    return Check(name, "skipped", f"a {kind} split has no instant before which everything is past")


def _pairs(events: pl.DataFrame) -> pl.DataFrame:
    return events.select("user_id", "item_id").drop_nulls().unique()


def _held(matrix: Interactions) -> pl.DataFrame:
    """user_id, item_id of every pair that a history holds."""
    pairs = (matrix.strengths + matrix.seen.astype(matrix.strengths.dtype)).tocoo()
    return pl.DataFrame({"user_id": matrix.users.gather(pairs.row), "item_id": matrix.items.gather(pairs.col)})


def _longer(matrix: Interactions, exam: Exam) -> pl.DataFrame:
    """user_id, known of those whose history counts more events than are known of them (`known`, with an item)."""
    counted = exam.known.filter(pl.col("item_id").is_not_null()).group_by("user_id").agg(known=pl.len().cast(pl.Int64))
    scored = pl.DataFrame({"user_id": matrix.users, "scored": matrix.events})
    both = scored.join(counted, on="user_id", how="left").with_columns(pl.col("known").fill_null(0))
    return both.filter(pl.col("scored") > pl.col("known")).select("user_id", "known")
