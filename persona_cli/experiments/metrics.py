"""Metrics of a workspace: what each person brought after their first exposure, and before it.

    [metric.big_orders]
    event = "event_type = 'purchase' and value > 100"     a type, a list of types, or a condition on events
    value = "sum"            count, sum, any, seconds, score (0 to 10), or an expression such as "value - 5"
    per = "user"             user; session or impression for a ratio over those of the person; per impression only
                             events count that answer one
    window_days = 14         from the first exposure on; without it to the end
    before_days = 28         the same before the exposure takes variance away (CUPED); 0: no
    winsor = 0.999           larger values are cut
    direction = "up"         what is better

All metrics are summed by one group-by over the events of the people asked for. A session belongs to where it ends, its
seconds to where they were spent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import polars as pl

from persona_cli.errors import BadSettings, UsageError, nearest
from persona_cli.events.schema import EVENTS
from persona_cli.experiments.inference import Moments
from persona_cli.experiments.measuring import moments as moments_of
from persona_cli.experiments.verdicts import GOAL, Question
from persona_cli.profiles.permitted import ANALYTICS, person_events
from persona_cli.profiles.sessions import with_sessions
from persona_cli.workspace.declarations import (
    ANY,
    CLICKS,
    COUNT,
    IMPRESSION,
    READY,
    SCORE,
    SECONDS,
    SESSION,
    SUM,
    VALUES,
)
from persona_cli.workspace.filters import FilterError, Value, parse, parse_value
from persona_cli.workspace.home import SETTINGS_FILE, Home

_TYPE = re.compile(r"^[\w.:/ -]+$")
_PLAIN = ("text", "number", "whole", "time", "flag")
COLUMNS = {one.name: one.type for one in EVENTS if one.type in _PLAIN and not one.transient and one.name != "user_id"}
"""Columns of events that conditions and expressions of metrics may name, with their kinds."""


class Metric(NamedTuple):
    """A metric, read."""

    name: str
    types: tuple[str, ...]
    """Event types; empty: any event, or as `condition` says."""
    condition: Value | None
    value: str
    term: Value | None
    """What an event is worth, where `value` is an expression."""
    per: str
    window_days: float | None
    before_days: float
    winsor: float | None
    direction: str

    @property
    def kind(self) -> str:
        if self.value in (ANY, SCORE):
            return "proportion" if self.value == ANY else "nps"
        return "mean" if self.per == "user" else "ratio"

    @property
    def events(self) -> str:
        """Which events it is of, in words."""
        if self.condition is not None:
            return self.condition.text
        return ", ".join(self.types) or "any event"

    def question(self, number: int, role: str = GOAL) -> Question:
        """The question about the columns that `units` makes of the metric with this number."""
        names = [f"{number} value", *([f"{number} below"] if self.kind == "ratio" else [])]
        adjusted = self.before_days > 0 and self.kind != "nps"
        columns = [*names, *(f"{name} before" for name in names)] if adjusted else names
        return Question(
            self.name, self.kind, (*columns,), adjusted, self.direction, winsor=self.winsor, role=role
        )  # fmt: skip


def metrics(home: Home) -> dict[str, Metric]:
    """The ready metrics and those of [metric.NAME]; BadSettings names what is wrong and where."""
    given = {**READY, **home.settings.values["metric"]}
    return {name: _read(home, name, one) for name, one in given.items()}


def named(home: Home, names: Iterable[str]) -> list[Metric]:
    """The metrics of those names; UsageError for one that is not there."""
    known = metrics(home)
    for name in names:
        if name not in known:
            raise UsageError(f"no metric is named {name!r}{nearest(name, known)}", "persona metric list")
    return [known[name] for name in names]


def _read(home: Home, name: str, given: Mapping[str, object]) -> Metric:
    texts = given["event"]
    assert isinstance(texts, tuple)
    place = f"{home.path(SETTINGS_FILE)}: metric.{name}"
    condition = None
    types: list[str] = []
    for text in texts:
        if text == CLICKS:
            types += home.settings.texts("decisions.click")
        elif _TYPE.match(text):
            types.append(text)
        elif len(texts) > 1:
            raise BadSettings(f"{place}.event: {text!r} in a list of event types; one condition stands alone")
        else:
            condition = _parsed(text, f"{place}.event", True)
    value = str(given["value"])
    term = None if value in VALUES else _parsed(value, f"{place}.value", False)
    if term is not None and term.kind not in ("number", "whole", "flag"):
        raise BadSettings(f"{place}.value: {value!r} is no number and no condition")
    return Metric(
        name, tuple(types), condition, value, term, str(given["per"]), _number(given["window_days"]),
        _number(given["before_days"]) or 0.0, _number(given["winsor"]), str(given["direction"]),
    )  # fmt: skip


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _parsed(text: str, where: str, condition: bool) -> Value:
    try:
        return parse(text, COLUMNS) if condition else parse_value(text, COLUMNS)
    except FilterError as error:
        raise BadSettings(f"{where}: {error}", "docs/measuring.md") from error


def units(home: Home, asked: Sequence[Metric], people: pl.DataFrame, until: datetime) -> pl.DataFrame:
    """`people` (user_id, variant, at) in their order, with the columns of each metric's `question`.

    Events before `until` count, of people whom analytics cover. A person without an event has 0, and no score.
    """
    asked_columns = {name for one in asked for value in (one.condition, one.term) if value for name in value.columns}
    sessions = any(one.per == SESSION or one.value == SECONDS for one in asked)
    shown = any(one.per == IMPRESSION for one in asked)
    needed = {"user_id", "timestamp", "event_type", "value", *asked_columns, *(["session_id"] if sessions else [])}
    needed |= {"decision_id", "item_id"} if shown else set()
    who = people.select("user_id", pl.col("at").cast(pl.Datetime("us", "UTC"))).with_row_index("row")
    events = person_events(home, until, purpose=ANALYTICS).select(sorted(needed))
    if who.height:
        longest = max(one.before_days for one in asked)
        events = events.filter(pl.col("timestamp") >= who["at"].min() - pl.duration(days=longest))
    if not sessions:
        events = events.filter(pl.any_horizontal(*(_hit(home, one) for one in asked), _seen(home)))
    rows = events.join(who.lazy(), on="user_id", how="inner")
    if sessions:
        rows = _with_sessions(rows.collect(), home.settings.number("profiles.session_gap_minutes")).lazy()
    if shown:
        rows = rows.with_columns(answers=_answers(_seen(home)))
    after, before = pl.col("timestamp") >= pl.col("at"), pl.col("timestamp") < pl.col("at")
    sums: list[pl.Expr] = []
    for number, one in enumerate(asked):
        now, past = after, before & (pl.col("timestamp") >= pl.col("at") - pl.duration(days=one.before_days))
        if one.window_days is not None:
            now = now & (pl.col("timestamp") < pl.col("at") + pl.duration(days=one.window_days))
        hit = _hit(home, one) & pl.col("answers") if one.per == IMPRESSION else _hit(home, one)
        times = ((now, ""),) if one.before_days <= 0 or one.kind == "nps" else ((now, ""), (past, " before"))
        for inside, suffix in times:
            sums.append(_worth(one, hit & inside).alias(f"{number} value{suffix}"))
            if one.kind == "ratio":
                below = pl.col("last") if one.per == SESSION else _seen(home)
                sums.append((below & inside).sum().cast(pl.Float64).alias(f"{number} below{suffix}"))
    found = rows.group_by("row").agg(sums).collect()
    whole = who.select("row").join(found, on="row", how="left", maintain_order="left").drop("row")
    scores = {f"{number} value" for number, one in enumerate(asked) if one.kind == "nps"}
    filled = [name for name in whole.columns if name not in scores]
    return pl.concat(
        [people.select("user_id", "variant"), whole.with_columns(pl.col(filled).fill_null(0.0))],
        how="horizontal",
    )


def _hit(home: Home, one: Metric) -> pl.Expr:
    if one.condition is not None:
        return one.condition.expression.fill_null(False)
    if one.types:
        return pl.col("event_type").is_in(list(one.types))
    return ~_seen(home)


def _seen(home: Home) -> pl.Expr:
    return pl.col("event_type").is_in(list(home.settings.texts("decisions.impression")))


def _answers(seen: pl.Expr) -> pl.Expr:
    """Whether an event follows an impression that it may answer, of rows of people (`row`) with impressions `seen`.

    With a decision_id: one of that decision, of the same item or of the whole list (no item). Without: one of the same
    item, or one that names neither item nor decision. A click on what nobody logged the sight of is no answer.
    """
    when, item, decision = pl.col("timestamp"), pl.col("item_id"), pl.col("decision_id")
    whole = seen & item.is_null()
    named = pl.when(seen).then(when).min().over("row", "decision_id", "item_id")
    listed = pl.when(whole).then(when).min().over("row", "decision_id")
    same = pl.when(seen & item.is_not_null()).then(when).min().over("row", "item_id")
    bare = pl.when(whole & decision.is_null()).then(when).min().over("row")
    first = pl.when(decision.is_null()).then(pl.min_horizontal(same, bare)).otherwise(pl.min_horizontal(named, listed))
    return (first <= when).fill_null(False)


def _worth(one: Metric, hit: pl.Expr) -> pl.Expr:
    """What the events that are hit are worth to their person."""
    value = pl.col("value")
    if one.value == COUNT:
        return hit.sum().cast(pl.Float64)
    if one.value == ANY:
        return hit.any().cast(pl.Float64)
    if one.value == SUM:
        return pl.when(hit & value.is_finite()).then(value).sum()
    if one.value == SECONDS:
        return pl.when(hit).then(pl.col("pause")).sum()
    if one.value == SCORE:
        score = pl.when(value >= 9).then(1.0).when(value <= 6).then(-1.0).otherwise(0.0)
        return pl.when(hit & value.is_between(0, 10)).then(score).mean()
    assert one.term is not None
    worth = one.term.expression.cast(pl.Float64)
    return pl.when(hit & worth.is_finite()).then(worth).sum()


def _with_sessions(rows: pl.DataFrame, gap_minutes: float) -> pl.DataFrame:
    """Rows with `pause`, the seconds since the event before in the same session, and `last`: a session ends here."""
    rows = with_sessions(rows, gap_minutes)
    since = (pl.col("timestamp") - pl.col("timestamp").shift()).dt.total_microseconds() / 1e6
    ends = (pl.col("session") != pl.col("session").shift(-1)).fill_null(True)
    return rows.with_columns(pause=pl.when(pl.col("position") > 0).then(since).otherwise(0.0), last=ends)


def moments(
    home: Home, asked: Sequence[Metric], people: pl.DataFrame, until: datetime
) -> dict[str, dict[str, Moments]]:
    """Sums of each metric by variant: variant → metric → Moments with the columns of its `question`."""
    questions = [one.question(number) for number, one in enumerate(asked)]
    found = moments_of(units(home, asked, people, until), questions)
    return {str(variant): tables for (variant,), tables in found.items()}


class Check(NamedTuple):
    """What a metric finds in the last days of a workspace, and what an experiment on all of its traffic would."""

    metric: str
    kind: str
    events: str
    found: int
    """Events of it, of all time."""
    missing: tuple[str, ...]
    """Event types that no event has."""
    people: int
    having: int
    """People with an event of it."""
    value: float
    variance: float
    """Of a person; of a ratio by the delta method."""
    detectable: float
    """With half of the people in each of two variants, 5 % and 80 % power; after CUPED."""
    detectable_relative: float


def check(home: Home, asked: Sequence[Metric], days: float = 28.0, until: datetime | None = None) -> list[Check]:
    """Each metric on the people seen in the last days before the last event; nothing of them is in any experiment."""
    from persona_cli.experiments import inference, power

    events = person_events(home, until, purpose=ANALYTICS)
    known = dict(events.group_by("event_type").len().collect().iter_rows())
    last = events.select(pl.col("timestamp").max()).collect().item()
    counts = events.select(_hit(home, one).sum().alias(str(number)) for number, one in enumerate(asked)).collect()
    if last is None:
        people = pl.DataFrame(schema={"user_id": pl.String, "variant": pl.String, "at": pl.Datetime("us", "UTC")})
        end = until
    else:
        begin, end = last - timedelta(days=days), last + timedelta(microseconds=1)
        seen = events.filter(pl.col("timestamp") >= begin).select("user_id").unique().sort("user_id").collect()
        people = seen.with_columns(variant=pl.lit("all"), at=pl.lit(begin))
    rows = []
    frame = units(home, asked, people, end) if end is not None and people.height else None
    tables = {} if frame is None else moments_of(frame, [one.question(n) for n, one in enumerate(asked)])
    for number, one in enumerate(asked):
        n = people.height
        missing = tuple(name for name in one.types if name not in known)
        whole = tables.get(("all",), {}).get(one.name)
        figures = (float("nan"),) * 4
        having = 0
        if frame is not None and whole is not None and float(whole.n) >= 2:
            having = int((frame[f"{number} value"].fill_null(0.0) != 0).sum())
            question = one.question(number)
            kind = "ratio" if one.kind == "ratio" else "mean"
            scale = 100.0 if one.kind == "nps" else 1.0
            value, gradient = inference.linear(whole, whole, kind)
            k = 2 if kind == "ratio" else 1
            now = whole.columns(*range(k))
            variance = float(inference.quadratic(gradient, now.covariance(), gradient)) * scale**2
            left = 1.0
            if question.adjusted:
                half = whole._replace(n=whole.n / 2, cross=whole.cross / 2)
                left = 1 - float(inference.cuped(half, half, kind).variance_cut)
                left = left if left == left else 1.0
            each = float(whole.n) / 2
            effect = float(power.detectable(variance * left, each, each)) if variance > 0 else float("nan")
            level = float(value) * scale
            figures = (level, variance, effect, effect / abs(level) if level else float("nan"))
        rows.append(Check(one.name, one.kind, one.events, int(counts[str(number)][0]), missing, n, having, *figures))
    return rows
