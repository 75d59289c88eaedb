"""`persona evaluate`: an exam is set, every contender is fitted and asked, and the answers are judged and kept.

Refit, a contender sees the train side of the exam and nothing else: profiles, popularity, Gram and catalogue are all as
of the cut. The baselines are always beside it, and every list is searched for what could not be known at the cut.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from persona_cli.errors import MissingInput, UsageError
from persona_cli.evaluation import attributes, document, exams, online
from persona_cli.evaluation.contenders import Recipe, as_saved, full_keys, recipes, sit
from persona_cli.evaluation.document import Evaluation
from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.findings import Judged, findings, judged, put_together
from persona_cli.evaluation.intervals import mean_interval
from persona_cli.evaluation.judging import Judgement, stacked
from persona_cli.evaluation.metrics import per_user
from persona_cli.events.lists import read_ids
from persona_cli.profiles.history import signal_events
from persona_cli.profiles.permitted import MEASURING, allowed, in_holdout
from persona_cli.workspace.home import Home


def evaluate(
    home: Home,
    run: str,
    *,
    split: str | None = None,
    models: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    ks: Sequence[int] | None = None,
    test: str | None = None,
    cuts: int = 1,
    slices: Sequence[str] = (),
    compat: Sequence[str] = (),
    inflation: bool = False,
    holdout: bool = False,
    refit: bool = True,
    as_of: datetime | None = None,
) -> Evaluation:
    """Evaluate `models` (default: the recipe of latest) and keep the result as evaluations/<run>/.

    split: time (default), per-user, leave-last, user or random; `test` names a file of right answers instead. More than
    one of `cuts` ask at so many windows in turn, and figures are each user's mean over them. `overrides` are settings
    for this run; only events before `as_of` exist. Without `refit`, saved models are scored on what happened after they
    were trained. `slices` are conditions on the users asked, with `segment:NAME` for a segment as it was at the cut;
    `compat` names libraries whose figures are wanted too; `inflation` adds what a random split would have said.
    MissingInput where there is no model, nothing to learn from or nothing to ask.
    """
    _check(split, overrides, test, cuts, inflation, refit)
    given = full_keys(overrides or {}, models)
    home = dataclasses.replace(home, settings=home.settings.with_flags(given))
    lengths = tuple(ks or home.settings.wholes("evaluate.k"))
    wanted = recipes(home, models, given)
    events = signal_events(home, as_of, purpose=MEASURING).collect()
    if not events.height:
        when = "" if as_of is None else f" before {as_of:%Y-%m-%d %H:%M:%S} UTC"
        raise MissingInput(f"there are no events{when} to evaluate on", "persona ingest FILE")
    saved = None
    if refit:
        papers = _exams(home, events, split, test, home.settings.number("evaluate.test_share"), cuts)
    else:
        saved, until = as_saved(wanted)
        papers = [exams.by_cut(events, until, ", ".join(one.title for one in saved))]
    for exam in papers:
        attributes.segment_conditions(home, exam, attributes.segments_named(slices))  # before the work, not after it
    taken: list[Judged] = []
    for exam in papers:
        sitting = sit(home, wanted, exam, max(lengths) + 1, saved=saved, reuse=test is not None)
        taken.append(judged(home, events, sitting, lengths, compat, slices))
        del sitting  # lists are the largest thing there is: never those of two cuts at once
    whole = put_together(taken, home.settings.whole("evaluate.bootstrap"))
    last, leading = whole.exam, f"ndcg@{max(lengths)}"
    entries = [
        document.of_contender(whole.contenders[label], last, judgement)
        if label in whole.contenders
        else document.of_lists(label, judgement)
        for label, judgement in whole.judgements.items()
    ]
    result = {
        "run": run,
        "split": last.split if len(papers) == 1 else _series(papers),
        "users": whole.attributes.height,
        "test_pairs": sum(one.exam.answers.height for one in taken),
        "items": whole.n_items,
        "train_events": last.train.height,
        "k": list(lengths),
        "as_of": last.as_of,
        "refit": refit,
        "models": entries,
        "notes": list(dict.fromkeys(note for exam in papers for note in exam.notes)),
        **findings(whole, taken, entries, slices, leading, home.settings),
    }
    if inflation:
        result["inflation"] = inflated(home, wanted, events, whole.judgements[wanted[0].label], leading)
    if holdout:
        share = home.settings.number("holdout.share")
        result["online"] = online.compared(events, in_holdout(home, events["user_id"]), share)
    return document.kept(home, run, document.plain(result), stacked(whole.judgements))


def inflated(
    home: Home, wanted: Sequence[Recipe], events: pl.DataFrame, found: Judgement, metric: str
) -> dict[str, Any]:
    """The figure of the first model beside what a random split would have said: how much a look ahead flatters."""
    exam = exams.by_split(events, "random", home.settings.number("evaluate.test_share"))
    k, label = int(metric.partition("@")[2]), wanted[0].label
    sitting = sit(home, wanted, exam, k + 1, baselines=False)
    flattered = mean_interval(per_user(sitting.lists[label], exam.answers, [k])[metric].to_numpy()).value
    figure = found.metrics[metric]
    time = None if figure is None else figure.value
    return {
        "model": label,
        "metric": metric,
        "time": time,
        "random": flattered,
        "inflation": flattered / time - 1.0 if time else None,
    }


def _check(
    split: str | None, overrides: Mapping[str, Any] | None, test: str | None, cuts: int, inflation: bool, refit: bool
) -> None:
    if test is not None and split is not None:
        raise UsageError(f"--test brings its own right answers and --split {split} makes others; give one of them")
    if test is not None and (cuts > 1 or inflation):
        raise UsageError(f"--test brings its own right answers; {'--cuts' if cuts > 1 else '--inflation'} makes others")
    if cuts < 1:
        raise UsageError(f"--cuts is {cuts}; expected a whole number from 1")
    if inflation and split not in (None, "time", "per-user"):
        raise UsageError(f"--inflation compares a split by time with a random one; --split {split} is neither")
    if refit:
        return
    given = {
        "--split": split,
        "--test": test,
        "--set": overrides,
        "--cuts": cuts > 1,
        "--inflation": inflation,
    }
    if named := [name for name, value in given.items() if value]:
        raise UsageError(
            f"--no-refit scores saved models on what happened after they were trained; {', '.join(named)} cannot apply",
            "leave --no-refit out",
        )


def _exams(
    home: Home, events: pl.DataFrame, split: str | None, test: str | None, test_share: float, cuts: int
) -> list[Exam]:
    if test is not None:
        pairs = read_ids(test, ["user_id", "item_id"])
        return [exams.by_pairs(events, allowed(home, MEASURING, pairs["user_id"].unique()).rows(pairs), test)]
    if cuts > 1:
        return exams.rolling(events, split or "time", test_share, cuts)
    return [exams.by_split(events, split or "time", test_share)]


def _series(papers: Sequence[Exam]) -> dict[str, Any]:
    """What several cuts have in common; each of them is in `cuts`."""
    kind = papers[0].split["kind"]
    headline = f"{len(papers)} cuts in turn, figures are each user's mean over those they were asked at; the last: "
    return {
        "kind": kind,
        "cut": papers[-1].split["cut"],
        "reason": papers[0].split["reason"],
        "headline": headline + papers[-1].headline,
    }
