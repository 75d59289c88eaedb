"""What a simulation takes from the workspace: who comes, how often, what each likes, and how lists are clicked.

people      users with something new after the cut of `evaluate`; what that was is relevant to them, by both models
            trained again on what was before it. What nobody has shown to like is clicked at a stated base rate
visits      sessions of each of them within `days` days of the first one after the cut
clicks      position-based or cascade (`clicks.py`), fitted by EM on logged lists where there are enough of them,
            else as stated here; then the base rate is that with which A gets as many clicks a list as were logged
spread      how much readier to act some are than others: a factor of mean 1, gamma or lognormal, the likelier of
            the two for counts that are Poisson given the factor (a negative binomial, Greenwood and Yule 1920; the
            Poisson-lognormal, Bulmer 1974)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from scipy import optimize, special

from persona_cli.errors import MissingInput, UsageError
from persona_cli.evaluation import exams
from persona_cli.evaluation.contenders import Recipe, recipes, sit
from persona_cli.evaluation.exams import Exam
from persona_cli.experiments.clicks import CascadeModel, PositionModel, click_chances, fit_cascade, fit_position
from persona_cli.experiments.merging import Flags, Floats, Ints
from persona_cli.feedback import outcomes
from persona_cli.feedback.decisions import LISTS
from persona_cli.models import registry
from persona_cli.profiles.permitted import MEASURING, person_events
from persona_cli.profiles.sessions import with_sessions
from persona_cli.profiles.signals import with_signals
from persona_cli.workspace.home import Home

ClickModel = Literal["position", "cascade"]
CLICK_MODELS: tuple[ClickModel, ...] = ("position", "cascade")
RELEVANT, BASE = 0.4, 0.02
"""Chance of a click on an item that is looked at: of one that the person turned to later, and of any other."""
STOP, ABANDON = 0.7, 0.15
"""Of the cascade where nothing is logged; the position-based model then looks at place k with chance 1 / k."""
LEAST_LISTS, LEAST_CLICKS, NEWEST_LISTS = 200, 100, 50_000
LEAST_PEOPLE, LEAST_ANSWERS = 20, 50
MOST_VISITS = 100
_DAY = timedelta(days=1)
_FACTORS = 1 << 16
_WIDEST = 3.0  # of a spread, as the sd of the factor's logarithm
_COUNTS = 4000  # distinct (count, exposure) that a spread is fitted on at most


class Spread(NamedTuple):
    """How a person's readiness to click differs from the mean."""

    law: Literal["gamma", "lognormal", "none"]
    size: float
    """lognormal: sd of the logarithm; gamma: 1 / shape, the variance of the factor; none: 0."""
    people: int
    """On whom it was fitted."""
    source: str

    def factors(self) -> Floats:
        """Equally likely factors in rising order, of mean 1 (n,)."""
        if self.law == "none":
            return np.ones(1)
        level = (np.arange(_FACTORS) + 0.5) / _FACTORS
        if self.law == "gamma":
            found = special.gammaincinv(1 / self.size, level)
        else:
            found = np.exp(self.size * special.ndtri(level))
        return np.asarray(found / found.mean())


@dataclass(frozen=True)
class Clicking:
    """How people go through a list; `chance` is of a click on what is looked at, on what is relevant and what not."""

    model: ClickModel
    relevant: float
    base: float
    examination: Floats
    """(k,) position: chance of a look at each place."""
    stop: float
    abandon: float
    lists: int = 0
    """Logged lists that it was fitted on; 0: as stated above."""
    told: str = ""
    """Where it comes from, a sentence."""

    def of(self, relevant: Flags) -> PositionModel | CascadeModel:
        """The model of lists whose items are relevant or not, (n, n_items)."""
        chance = np.where(relevant, self.relevant, self.base)
        if self.model == "position":
            return PositionModel(chance, self.examination)
        return CascadeModel(chance, self.stop, self.abandon)


@dataclass(frozen=True)
class People:
    """Whom the simulated people are drawn from, and what both models would show them."""

    a: Ints
    """(n_users, k) items of A's lists, best first, numbered within each user; -1 after the end."""
    b: Ints
    relevant: Flags
    """(n_users, n_items) whether the user turned to that item after the cut."""
    visits: Ints
    """(n_users,) sessions within `days` days."""
    days: float
    arrivals: Floats
    """(n_users,) days from the cut to each first visit, rising."""
    headline: str
    labels: tuple[str, str]

    def overlap(self) -> float:
        """The mean share of A's list that is in B's too."""
        common = ((self.a[:, :, None] == self.b[:, None, :]) & (self.a >= 0)[:, :, None]).any(axis=2).sum(axis=1)
        return float((common / np.maximum((self.a >= 0).sum(axis=1), 1)).mean())

    def relevant_share(self) -> tuple[float, float]:
        """What share of A's and of B's entries is relevant."""
        shares = []
        for lists in (self.a, self.b):
            hits = np.take_along_axis(self.relevant, np.maximum(lists, 0), axis=1) & (lists >= 0)
            shares.append(float(hits.sum() / max((lists >= 0).sum(), 1)))
        return shares[0], shares[1]

    def days_for(self, people: float) -> float:
        """Days until so many have come for the first time and the last was followed for `days` days.

        As they came after the cut; beyond those, at their mean rate.
        """
        n, span = len(self.arrivals), max(float(self.arrivals[-1]), 1.0)
        came = float(self.arrivals[int(np.ceil(people)) - 1]) if people <= n else people * span / n
        return came + self.days


@dataclass(frozen=True)
class Behaviour:
    """All of it."""

    people: People
    clicking: Clicking
    spread: Spread
    notes: tuple[str, ...]


def behaviour(
    home: Home,
    a: str,
    b: str | None,
    *,
    k: int = 10,
    days: float = 14.0,
    clicks: ClickModel | None = None,
    relevant: float = RELEVANT,
    base: float = BASE,
) -> Behaviour:
    """Fit what a simulation of models `a` and `b` (None: `a` again) needs; lists of `k`.

    UsageError for a model that is none, one model twice, or chances that are none; MissingInput where nothing was
    ingested or fewer than 20 people with 50 items in all have something new after the cut.
    """
    if not 0 < base <= relevant < 1:
        raise UsageError(
            f"a base rate of {base:g} and {relevant:g} for what is relevant; expected 0 < base <= relevant < 1"
        )
    wanted = _pair(home, a, b)
    columns = ("user_id", "item_id", "timestamp", "event_type", "value", "device", "country", "position", "query")
    stored = person_events(home, purpose=MEASURING).select(*columns, "session_id")
    events = with_signals(stored, home.settings).collect()
    if not events.height:
        raise MissingInput("there are no users to simulate: the workspace has no events", "persona ingest FILE")
    exam = exams.by_split(events, "time", home.settings.number("evaluate.test_share"))
    if len(exam.users) < LEAST_PEOPLE or exam.answers.height < LEAST_ANSWERS:
        raise MissingInput(
            f"too few held-out events: {len(exam.users):,} users have {exam.answers.height:,} items that are new to "
            f"them after the cut, and a simulation needs {LEAST_PEOPLE} with {LEAST_ANSWERS}",
            "ingest more events, or hold out more of them: --set evaluate.test_share=0.4",
        )
    lists = sit(home, wanted, exam, k, baselines=False).lists
    sessions = with_sessions(events, home.settings.number("profiles.session_gap_minutes"))
    people = _people(exam, [lists[one.label] for one in wanted[: 1 if b is None else 2]], sessions, days)
    people = replace(people, labels=(wanted[0].label, wanted[0 if b is None else 1].label))
    logged = logged_lists(home, k)
    clicking = fitted(logged, k, clicks, relevant, base)
    notes = list(exam.notes)
    if clicking.lists:
        assert logged is not None
        clicking, reached = _scaled(clicking, people, logged)
        if not reached:
            notes.append("lists get fewer clicks here than were logged, at the largest base rate: raise --relevant")
        counted, source = logged.by_person, "clicks on logged lists"
    else:
        counted, source = _acts(sessions), "events of interest a session"
    return Behaviour(people, clicking, spread_of(*counted, source=source), tuple(notes))


def _pair(home: Home, a: str, b: str | None) -> list[Recipe]:
    """The recipes of both and of the popular list, A first."""
    given = [name for name in (a, b) if name is not None]
    names = [registry.load_model(home).reference if name == "latest" else name for name in given]
    wanted = recipes(home, names)
    if b is None:
        return wanted
    saved = [one.saved.reference if one.saved else one.name for one in wanted[:2]]
    if len(set(names)) < 2 or saved[0] == saved[1]:
        raise UsageError(
            f"A and B are the same model, {names[0]}: there is nothing to tell apart",
            f"name another with --b, or see how often nothing looks like something: persona simulate aa --a {a}",
        )
    return wanted


def _people(exam: Exam, lists: Sequence[pl.DataFrame], sessions: pl.DataFrame, days: float) -> People:
    """Lists as numbers, relevance and visits of the exam's users, in their order."""
    users = exam.users.to_frame().with_row_index("row")
    pair = ["user_id", "item_id"]
    numbered = (
        pl.concat([one.select(pair) for one in lists])
        .unique()
        .sort(pair)
        .with_columns(number=pl.int_range(pl.len()).over("user_id"))
        .join(exam.answers.with_columns(relevant=pl.lit(True)), on=pair, how="left")
        .join(users, on="user_id")
    )
    width = int(numbered["number"].max()) + 1 if numbered.height else 1  # type: ignore[arg-type]
    relevant = np.zeros((users.height, width), dtype=np.bool_)
    relevant[numbered["row"].to_numpy(), numbered["number"].to_numpy()] = numbered["relevant"].fill_null(False)
    matrices = []
    for one in lists:
        entries = one.join(numbered.select(*pair, "row", "number"), on=pair)
        matrix = np.full((users.height, int(one["rank"].max() or 1)), -1, dtype=np.int64)  # type: ignore[arg-type]
        matrix[entries["row"].to_numpy(), entries["rank"].to_numpy() - 1] = entries["number"].to_numpy()
        matrices.append(matrix)
    # What came after the last event that may be learned from: in a split by time, everything from the cut on.
    last = exam.train.group_by("user_id").agg(known=pl.col("timestamp").max())
    held = (
        sessions.join(users, on="user_id")
        .join(last, on="user_id", how="left")
        .filter(pl.col("known").is_null() | (pl.col("timestamp") > pl.col("known")))
        .group_by("row", "session")
        .agg(start=pl.col("timestamp").min())
        .with_columns(first=pl.col("start").min().over("row"))
    )
    end, span = sessions["timestamp"].max(), timedelta(days=days)
    counted = (
        held.group_by("row")
        .agg(pl.col("first").first(), more=(pl.col("start") < pl.col("first") + span).sum() - 1)
        .with_columns(seen=pl.min_horizontal(pl.lit(end) - pl.col("first"), pl.lit(span)))
        .with_columns(more=pl.col("more") * (span / pl.max_horizontal("seen", pl.lit(min(span, _DAY)))))
    )
    visits = np.ones(users.height, dtype=np.int64)
    visits[counted["row"].to_numpy()] += np.rint(counted["more"].to_numpy()).astype(np.int64)
    begin = exam.as_of if exam.split["kind"] == "time" else None
    starts = (
        counted["first"]
        if begin is not None
        else sessions.join(users, on="user_id").group_by("row").agg(pl.col("timestamp").min())["timestamp"]
    )
    offsets = np.sort((starts - (begin or starts.min())).dt.total_seconds().to_numpy() / 86_400.0)
    visits = np.minimum(visits, MOST_VISITS)
    return People(matrices[0], matrices[-1], relevant, visits, days, offsets, exam.headline, ("", ""))


class Logged(NamedTuple):
    """Lists that were shown, with their clicks."""

    items: Ints
    """(n, k) items numbered from 0, -1 after the end."""
    clicks: Flags
    by_person: tuple[Floats, Floats]
    """Clicks and lists of each person (n_people,) both."""


def logged_lists(home: Home, k: int) -> Logged | None:
    """The newest lists of `persona recommend` that people saw, to place `k`; None where nothing was logged."""
    found = outcomes.join(home)
    seen = (pl.col("surface") == LISTS) & (pl.col("exposed") | ~pl.col("tracked"))
    made = found.decisions.filter(seen).tail(NEWEST_LISTS).select("decision_id", "user_id").with_row_index("row")
    entries = found.items.filter(pl.col("position").is_between(1, k)).join(made, on="decision_id")
    if not entries.height:
        return None
    number = entries["item_id"].rank("dense").to_numpy().astype(np.int64) - 1
    place = (entries["row"].to_numpy().astype(np.int64), entries["position"].to_numpy().astype(np.int64) - 1)
    items = np.full((made.height, int(place[1].max()) + 1), -1, dtype=np.int64)
    clicks = np.zeros(items.shape, dtype=np.bool_)
    items[place], clicks[place] = number, (entries["clicks"].fill_null(0) > 0).to_numpy()
    counted = made.with_columns(clicks=pl.Series(clicks.sum(axis=1))).group_by("user_id")
    sums = counted.agg(pl.col("clicks").sum(), lists=pl.len()).sort("user_id")
    return Logged(items, clicks, (sums["clicks"].to_numpy().astype(float), sums["lists"].to_numpy().astype(float)))


def fitted(logged: Logged | None, k: int, model: ClickModel | None, relevant: float, base: float) -> Clicking:
    """How lists are clicked: by EM on logged lists where there are 200 with 100 clicks, else as stated.

    Where no `model` is named, the one with the smaller AIC; the cascade where nothing is fitted.
    """
    lists, clicks = (0, 0) if logged is None else (len(logged.items), int(logged.clicks.sum()))
    if logged is None or lists < LEAST_LISTS or clicks < LEAST_CLICKS:
        chosen = model or "cascade"
        how = (
            f"{STOP:.0%} leave after a click, {ABANDON:.0%} after an item passed over"
            if chosen == "cascade"
            else "place k is looked at with chance 1 / k"
        )
        told = (
            f"clicks: {chosen} model with stated defaults ({how}), since {lists:,} lists with {clicks:,} clicks are "
            f"logged and a fit needs {LEAST_LISTS} with {LEAST_CLICKS}"
        )
        return Clicking(chosen, relevant, base, 1.0 / np.arange(1, k + 1), STOP, ABANDON, 0, told)
    cascade = fit_cascade(logged.items, logged.clicks) if model != "position" else None
    position = fit_position(logged.items, logged.clicks) if model != "cascade" else None
    if cascade is not None and position is not None:
        better = position.log_likelihood - len(position.examination) + 1 > cascade.log_likelihood - 2
        cascade = None if better else cascade
    if cascade is not None:
        told = (
            f"clicks: cascade model fitted on {lists:,} logged lists ({cascade.stop:.0%} leave after a click, "
            f"{cascade.abandon:.0%} after an item passed over)"
        )
        return Clicking("cascade", relevant, base, np.ones(k), cascade.stop, cascade.abandon, lists, told)
    assert position is not None
    deep = np.pad(position.examination[:k], (0, max(k - len(position.examination), 0)), mode="edge")
    told = f"clicks: position-based model fitted on {lists:,} logged lists (place {k} is looked at with {deep[-1]:.0%})"
    return Clicking("position", relevant, base, deep, STOP, ABANDON, lists, told)


def _scaled(clicking: Clicking, people: People, logged: Logged) -> tuple[Clicking, bool]:
    """The base rate with which A's lists get as many clicks as the logged; False: none below `relevant` is enough.

    Where what is relevant alone gets more than that, both chances are lowered by one factor instead.
    """
    wanted = float(logged.clicks.sum() / len(logged.clicks))
    weights = people.visits / people.visits.sum()

    def lowered(times: float) -> Clicking:
        return replace(clicking, relevant=times * clicking.relevant, base=times * clicking.base)

    def over(model: Clicking) -> float:
        clicks = click_chances(model.of(people.relevant), people.a).sum(axis=1)
        return float((clicks * weights).sum()) - wanted

    if over(replace(clicking, base=1e-6)) >= 0:
        return lowered(float(optimize.brentq(lambda x: over(lowered(x)), 1e-6, 1.0))), True
    if over(most := replace(clicking, base=clicking.relevant)) <= 0:
        return most, False
    base = float(optimize.brentq(lambda x: over(replace(clicking, base=x)), 1e-6, clicking.relevant))
    return replace(clicking, base=base), True


def _acts(sessions: pl.DataFrame) -> tuple[Floats, Floats]:
    """Events of interest and sessions of each person (n_people,) both."""
    of_interest = pl.col("item_id").is_not_null() & (pl.col("strength") > 0) & ~pl.col("never")
    sums = sessions.group_by("user_id").agg(acts=of_interest.sum(), sessions=pl.col("session").n_unique())
    return sums["acts"].to_numpy().astype(np.float64), sums["sessions"].to_numpy().astype(np.float64)


def spread_of(counts: Floats, exposure: Floats, source: str = "") -> Spread:
    """The law of factors f for which counts (n,) are Poisson(f * mean * exposure) with the greater likelihood."""
    people, total = len(counts), float(counts.sum())
    if people < 2 or total == 0:
        return Spread("none", 0.0, people, source)
    cells, weight = np.unique(np.stack([counts, exposure], axis=1), axis=0, return_counts=True)
    if len(cells) > _COUNTS:  # evenly through the sorted cells: none of chance in it
        kept = np.linspace(0, len(cells) - 1, _COUNTS).round().astype(np.int64)
        cells, weight = cells[kept], weight[kept]
    y, mean = cells[:, 0], cells[:, 1] * total / float(exposure.sum())

    def gamma(size: float) -> float:
        shape = 1 / size
        log = special.gammaln(y + shape) - special.gammaln(shape) - special.gammaln(y + 1)
        log += shape * np.log(shape / (shape + mean)) + y * np.log(mean / (shape + mean))
        return -float((weight * log).sum())

    steps = np.linspace(-6.0, 6.0, 401)
    density = np.exp(-(steps**2) / 2)
    density /= density.sum()

    def lognormal(size: float) -> float:
        log_factor = size * steps - size * size / 2
        log = y[:, None] * (np.log(mean)[:, None] + log_factor) - mean[:, None] * np.exp(log_factor)
        top = log.max(axis=1)
        chance = (np.exp(log - top[:, None]) * density).sum(axis=1)
        return -float((weight * (np.log(chance) + top - special.gammaln(y + 1))).sum())

    plain = y * np.log(mean) - mean - special.gammaln(y + 1)
    found: list[tuple[float, Any, float]] = [(-float((weight * plain).sum()), "none", 0.0)]
    for law, loss, widest in (("gamma", gamma, _WIDEST**3), ("lognormal", lognormal, _WIDEST)):
        # over the logarithm: sizes differ by orders of magnitude
        best = optimize.minimize_scalar(
            lambda log, loss=loss: loss(float(np.exp(log))), bounds=(np.log(1e-3), np.log(widest)), method="bounded"
        )
        found.append((float(best.fun) + 1.0, law, float(np.exp(best.x))))  # a parameter more: AIC
    _, law, size = min(found, key=lambda one: one[0])
    return Spread(law, size, people, source)
