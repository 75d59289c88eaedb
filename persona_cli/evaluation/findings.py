"""What the figures of an evaluation come to: comparisons, groups of users, slices, leaks, other libraries' figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from persona_cli.evaluation import comparisons, compat, leakage, rolling, segments
from persona_cli.evaluation.attributes import attributes, segments_named
from persona_cli.evaluation.baselines import NAMES, POPULAR
from persona_cli.evaluation.comparisons import Comparison
from persona_cli.evaluation.contenders import Contender, Sitting
from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.judging import Judgement, as_json, judge
from persona_cli.evaluation.leakage import Check
from persona_cli.evaluation.rolling import attributes_over_cuts, over_cuts
from persona_cli.events.catalogue import unavailable
from persona_cli.events.schema import stored_schema
from persona_cli.models.base import Interactions
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings


@dataclass(frozen=True)
class Judged:
    """One exam, judged; its lists are not kept."""

    exam: Exam
    contenders: dict[str, Contender]
    judgements: dict[str, Judgement]
    """Label → what it reached: contenders in their order, then the other baselines."""
    attributes: pl.DataFrame
    checks: list[Check]
    compat: list[dict[str, Any]]
    n_items: int

    def summary(self, metric: str) -> dict[str, Any]:
        """The cut as one of several: its headline, its users, and the leading figure of every model."""
        models = [
            {"model": name, "metrics": {metric: as_json(found.metrics[metric])}}
            for name, found in self.judgements.items()
        ]
        return {
            "headline": self.exam.headline,
            "cut": self.exam.as_of,
            "users": len(self.exam.users),
            "models": models,
        }


def judged(
    home: Home,
    events: pl.DataFrame,
    sitting: Sitting,
    ks: Sequence[int],
    libraries: Sequence[str] = (),
    slices: Sequence[str] = (),
) -> Judged:
    """Judge the lists of one sitting, and look into them for what could not be known; `events` are all there are.

    The attributes have the segments that `slices` name.
    """
    exam = sitting.exam
    judgements = judge(
        sitting.lists,
        exam.answers,
        sitting.background,
        ks,
        POPULAR,
        home.settings.whole("evaluate.bootstrap"),
        boundaries=sitting.boundaries,
    )
    return Judged(
        exam,
        {one.recipe.label: one for one in sitting.contenders},
        judgements,
        attributes(home, exam, home.settings, segments_named(slices)),
        leakage.check(evidence(home, exam, sitting.lists, events, sitting.background.known, sitting.background.items)),
        other_figures(sitting.lists, exam.answers, ks, libraries),
        len(sitting.background.items),
    )


def other_figures(
    lists: Mapping[str, pl.DataFrame], answers: pl.DataFrame, ks: Sequence[int], libraries: Sequence[str]
) -> list[dict[str, Any]]:
    """What other libraries would print for the lists of every model but the lesser baselines."""
    if not libraries:
        return []
    return [
        figure | {"model": name}
        for name, frame in lists.items()
        if name not in NAMES or name == POPULAR
        for figure in compat.compat(frame, answers, ks, libraries)
    ]


def put_together(taken: Sequence[Judged], bootstrap: int) -> Judged:
    """Several exams as one: figures over all cuts, leaks of any of them."""
    if len(taken) == 1:
        return taken[0]
    last = taken[-1]
    return Judged(
        last.exam,
        last.contenders,
        over_cuts([one.judgements for one in taken], bootstrap),
        attributes_over_cuts([one.attributes for one in taken]),
        worst_of([one.checks for one in taken]),
        last.compat,
        last.n_items,
    )


def worst_of(series: Sequence[Sequence[Check]]) -> list[Check]:
    """Each check once: the first leak it found at any cut, else what it said at the last."""
    found = {one.name: one for checks in series for one in checks}
    leaks = {one.name: one for checks in reversed(series) for one in checks if one.status == "leak"}
    return [leaks.get(name, one) for name, one in found.items()]


def findings(
    whole: Judged,
    taken: Sequence[Judged],
    entries: Sequence[dict[str, Any]],
    slices: Sequence[str],
    leading: str,
    settings: Settings,
) -> dict[str, Any]:
    """The parts of the document beyond the models; notes in every entry what it is within noise of, and its groups."""
    per_user = {name: one.per_user for name, one in whole.judgements.items()}
    own = [name for name in per_user if name not in NAMES]
    compared = compare_all(per_user, leading, settings.number("evaluate.margin"))
    grouped = {name: per_user[name] for name in [*own, POPULAR] if name in per_user}
    by_segment = segments.by_segment(grouped, whole.attributes, leading)
    for entry in entries:
        near = (
            one.against
            for one in compared
            if one.model == entry["model"] and one.against in NAMES and one.verdict == "within noise"
        )
        entry["within_noise_of"] = next(near, None)
        entry["segments"] = by_segment.get(entry["model"], {})
    found: dict[str, Any] = {
        "leading": leading,
        "comparisons": [comparisons.as_json(one) for one in compared],
        "served_worse": [
            row
            for name in own or [POPULAR]
            if name in per_user
            for row in segments.served_worse(per_user, whole.attributes, leading, name)
        ],
        "slices": segments.sliced(per_user, whole.attributes, slices),
        "leakage": leak_record(whole.checks),
    }
    if len(taken) > 1:
        found["cuts"] = [one.summary(leading) for one in taken]
        found["trend"] = [
            {"model": name, "metric": leading, "slope": None if slope is None else slope._asdict()}
            for name in per_user
            if (slope := _trend([one.judgements[name] for one in taken], leading)) is not None
        ]
    if whole.compat:
        found["compat"] = whole.compat
    return found


def leak_record(checks: Sequence[Check]) -> dict[str, Any]:
    """The checks as JSON types."""
    return {
        "leaked": any(one.status == "leak" for one in checks),
        "checks": [{"name": one.name, "status": one.status, "detail": one.detail} for one in checks],
    }


def compare_all(per_user: Mapping[str, pl.DataFrame], metric: str, margin: float) -> list[Comparison]:
    """Every model against each one after it and against the best of the baselines, as one family."""
    own = [name for name in per_user if name not in NAMES]
    baselines = [name for name in per_user if name in NAMES]
    pairs = [(first, second) for place, first in enumerate(own) for second in own[place + 1 :]]
    if baselines:
        best = max(baselines, key=lambda name: float(per_user[name][metric].mean() or 0.0))  # type: ignore[arg-type]
        pairs = [(name, best) for name in own] + pairs
    return comparisons.compared(per_user, metric, pairs, margin) if pairs else []


def evidence(
    home: Home | None,
    exam: Exam,
    lists: Mapping[str, pl.DataFrame],
    events: pl.DataFrame | None,
    known: Interactions | None,
    items: pl.Series,
) -> leakage.Evidence:
    """What the search for leaks can look at: lists, events on both sides of the cut, and when items became known."""
    births, offered = None, None
    if home is not None:
        sold_out = unavailable(home, exam.as_of)
        offered = items.filter(~items.is_in(sold_out.implode()))
    if home is not None and tables.exists(home, "items"):
        rows = tables.scan(home, "items", stored_schema("items")).select("item_id", "valid_from", "published_at")
        births = (
            rows.group_by("item_id")
            .agg(first=pl.min_horizontal(pl.col("valid_from").min(), pl.col("published_at").min()))
            .drop_nulls()
            .sort("item_id")
            .collect()
        )
    return leakage.Evidence(exam=exam, lists=lists, events=events, known=known, births=births, offered=offered)


def _trend(judgements: Sequence[Judgement], metric: str) -> Any:
    figures = [found.metrics[metric] for found in judgements]
    return rolling.trend([None if figure is None else figure.value for figure in figures])
