"""How long an experiment would take: as if it had run on the last days of the workspace, with nothing changed.

For each length, the people are those who came in that many days before the last event, each from their first event on,
without the holdout and without those who may not be in an experiment; their number and the spread of the metric between
them give what a test of that length finds (`power.detectable`), or how many people an effect needs (`power.size`). Both
change with the length: more people come, and each has had more time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import polars as pl

from persona_cli.errors import MissingInput, UsageError
from persona_cli.experiments import inference, power
from persona_cli.experiments.assignment import checked_shares
from persona_cli.experiments.inference import Moments
from persona_cli.experiments.measuring import capped
from persona_cli.experiments.measuring import moments as moments_of
from persona_cli.experiments.metrics import Metric, named, units
from persona_cli.experiments.sequential import MOST_LOOKS, inflated
from persona_cli.experiments.verdicts import Question
from persona_cli.feedback.decisions import loggable
from persona_cli.profiles.permitted import ANALYTICS, PERSONALIZATION, allowed, in_holdout, person_events
from persona_cli.workspace.home import Home

LENGTHS = (7, 14, 21, 28, 42, 56, 90)
"""Days that an experiment may run, where none are given: whole weeks, since days of a week differ."""


class Row(NamedTuple):
    """A metric after so many days."""

    metric: str
    days: float
    people: int
    """Who would be in the experiment, of all variants together."""
    value: float
    """Of a person; a share, a mean, a ratio, or points of NPS."""
    variance: float
    """Of a person, after what the time before takes away (CUPED)."""
    variance_cut: float
    """The share that it takes away."""
    detectable: float
    """The smallest difference from the control that is found with the power asked for."""
    detectable_relative: float
    needed: int | None
    """People that the effect asked for needs, of all variants together; None where none was asked for."""
    enough: bool | None


def plan(
    home: Home,
    metrics: Sequence[str],
    *,
    variants: int = 2,
    shares: Sequence[float] = (),
    effect: float | None = None,
    days: Sequence[float] = (),
    enrolled: float = 1.0,
    alpha: float = 0.05,
    chance: float = 0.8,
    looks: int = 1,
    until: datetime | None = None,
) -> list[Row]:
    """Each metric after each number of `days`: n_metrics * n_days rows.

    `effect` is relative (0.05: 5 % more than the control); `enrolled`, the part of the layer times the ramp. With more
    than two variants each comparison has alpha / (variants - 1), the first step of Holm. Who looks at `looks` equal
    steps needs `sequential.inflation` times the people. Raises UsageError for an unknown metric or shares that do not
    add up, MissingInput where there is no event.
    """
    if not 1 <= looks <= MOST_LOOKS:
        raise UsageError(f"{looks} looks; expected 1 to {MOST_LOOKS}", "who looks at any time: measure --peek open")
    if variants < 2:
        raise UsageError(f"{variants} variants; expected at least 2")
    if not 0 < enrolled <= 1:
        raise UsageError(f"{enrolled:g} of the people; expected a share over 0, up to 1")
    if effect == 0:
        raise UsageError("an effect of 0 is never found; expected one such as 0.05")
    if any(length <= 0 for length in days):
        raise UsageError(f"{min(days):g} days; expected more than 0")
    asked = named(home, metrics)
    planned = checked_shares(shares, [f"variant {number + 1}" for number in range(variants)])
    events = person_events(home, until, purpose=ANALYTICS)
    first, last = events.select(pl.col("timestamp").min(), last=pl.col("timestamp").max()).collect().row(0)
    if last is None:
        raise MissingInput("there is no event to plan from", "persona ingest FILE")
    end = last + timedelta(microseconds=1)
    there = (end - first) / timedelta(days=1)
    lengths = sorted(set(days)) or [one for one in LENGTHS if one <= there] or [LENGTHS[0]]
    if lengths[-1] > there + 1:
        raise UsageError(
            f"{lengths[-1]:g} days, and the events are of {there:.0f} days: what longer ones bring cannot be told",
            f"--days {max(int(there), 1)}",
        )
    each = alpha / (variants - 1)
    times = inflated(looks, each, chance)
    found = [
        row
        for length in lengths
        for row in _after(home, asked, end, length, planned, effect, enrolled, each, chance, times)
    ]
    return sorted(found, key=lambda row: (list(metrics).index(row.metric), row.days))


def _after(
    home: Home,
    asked: Sequence[Metric],
    end: datetime,
    length: float,
    shares: Sequence[float],
    effect: float | None,
    enrolled: float,
    each: float,
    chance: float,
    times: float,
) -> list[Row]:
    begin = end - timedelta(days=length)
    events = person_events(home, end, purpose=ANALYTICS).filter(pl.col("timestamp") >= begin)
    people = events.group_by("user_id").agg(at=pl.col("timestamp").min()).sort("user_id").collect()
    ids = people["user_id"]
    may = loggable(home, ids) & allowed(home, PERSONALIZATION, ids).of(ids) & ~in_holdout(home, ids)
    people = people.filter(may).select("user_id", pl.lit("all").alias("variant"), "at")
    questions = [one.question(number) for number, one in enumerate(asked)]
    frame, _ = capped(units(home, asked, people, end), questions)
    tables = moments_of(frame, questions).get(("all",), {})
    n = round(people.height * enrolled)
    smallest = min(shares[1:])
    rows = []
    for question in questions:
        value, variance, cut = _spread(tables.get(question.name), question)
        left = variance * (1 - cut) * times
        known = bool(np.isfinite(left)) and left > 0 and n > 0
        gap = float(power.detectable(left, n * shares[0], n * smallest, each, chance)) if known else float("nan")
        needed = None
        if effect is not None and known and value:
            needed = _needed(question, value, effect, left / variance, left, shares[0], smallest, each, chance)
        relative = gap / abs(value) if value else float("nan")
        enough = None if needed is None else needed <= n
        rows.append(Row(question.name, length, n, value, variance * (1 - cut), cut, gap, relative, needed, enough))
    return rows


def _needed(
    question: Question,
    value: float,
    effect: float,
    times: float,
    left: float,
    control: float,
    treatment: float,
    alpha: float,
    chance: float,
) -> int:
    """People of all variants for a relative effect, the two compared having these shares of them.

    A proportion changes its spread with the effect: by the arcsine (Cohen 1988); `times` is what CUPED
    leaves and looks add.
    """
    after = value * (1 + effect)
    if question.kind == "proportion" and 0 < after < 1:
        arm = float(power.arcsine_size(value, after, alpha, chance)) * times
        return int(np.ceil(arm / 2 * (1 / control + 1 / treatment)))
    first = power.size(left, abs(value * effect), alpha, chance, ratio=treatment / control)
    return int(np.ceil(float(first) / control))


def _spread(whole: Moments | None, question: Question) -> tuple[float, float, float]:
    """Value, variance of a person, and the share of it that the time before takes away; NaN below two people."""
    if whole is None or float(whole.n) < 2:
        return float("nan"), float("nan"), 0.0
    kind = "ratio" if question.kind == "ratio" else "mean"
    scale = 100.0 if question.kind == "nps" else 1.0
    now = whole.columns(*range(2 if kind == "ratio" else 1))
    value, gradient = inference.linear(now, now, kind)
    variance = float(inference.quadratic(gradient, now.covariance(), gradient)) * scale**2
    cut = 0.0
    if question.adjusted and variance > 0:
        half = whole._replace(n=whole.n / 2, cross=whole.cross / 2)
        found = float(inference.cuped(half, half, kind).variance_cut)
        cut = min(max(found, 0.0), 1.0) if np.isfinite(found) else 0.0
    return float(value) * scale, variance, cut
