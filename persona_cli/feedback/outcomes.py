"""What became of decisions: which event answers to which, and how often any does.

What became of decisions: which event answers to which, each event to one decision at most.

An event that carries a `decision_id` answers to that decision, however late; one with an id that is not there answers
to nothing here. Any other click, conversion or negative reaction answers to the latest decision for its person, made
at its time or up to `decisions.window_days` before, whose list holds its item. Of decisions of the same moment it is
the one that places the item highest, then the one whose id sorts first.

A decision is exposed when an impression or an outcome carries its id. Where impressions of a surface are sent at all,
only exposed decisions are answered without an id, and rates are per exposed decision; else per delivered one.

How often decisions are answered, by what made them: shares of exposed, else of delivered, with their intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import polars as pl

from persona_cli.errors import BadSettings
from persona_cli.evaluation.intervals import wilson
from persona_cli.feedback import decisions as logged
from persona_cli.profiles import SMALLEST_CELL
from persona_cli.profiles.identity import persons
from persona_cli.profiles.permitted import ANALYTICS, person_events
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings

IMPRESSION, CLICK, CONVERSION, NEGATIVE = "impression", "click", "conversion", "negative"
OUTCOMES = (CLICK, CONVERSION, NEGATIVE)
_COUNTED = {CLICK: "clicks", CONVERSION: "conversions", NEGATIVE: "negatives"}
OF_DECISION = (
    "decision_id", "user_id", "at", "surface", "policy", "model", "variant", "stage", "holdout", "propensity",
)  # fmt: skip
OF_EVENT = ("user_id", "event_type", "item_id", "timestamp", "decision_id")


class Kinds(NamedTuple):
    """Which event types are what, and how long anything may take."""

    types: dict[str, str]
    """Event type → IMPRESSION or one of OUTCOMES."""
    window: timedelta
    bounce: timedelta

    @classmethod
    def of(cls, settings: Settings) -> Kinds:
        """As `[decisions]` has it. BadSettings for an event type that is two things."""
        types: dict[str, str] = {}
        for kind in (IMPRESSION, *OUTCOMES):
            for name in settings.texts(f"decisions.{kind}"):
                if types.setdefault(name, kind) != kind:
                    raise BadSettings(
                        f"[decisions]: {name!r} is both {types[name]} and {kind}; an event is one of them"
                    )
        window = timedelta(days=settings.number("decisions.window_days"))
        return cls(types, window, timedelta(seconds=settings.number("decisions.bounce_seconds")))


@dataclass(frozen=True)
class Joined:
    """Decisions with what became of them. Seconds are from the decision to the first event of that kind."""

    decisions: pl.DataFrame
    """`OF_DECISION` with the person as user_id; listed (items), tracked (impressions of its surface are sent),
    impressions, exposed, clicks, conversions, negatives; bounced: nothing followed any of its clicks (null: no click,
    or too early to tell); click_seconds, conversion_seconds, negative_seconds. Sorted by at, decision_id."""
    items: pl.DataFrame
    """decision_id, item_id, position, propensity, and the same figures by item: an impression that names no item shows
    the whole list. Sorted by decision, position."""


def join(
    home: Home, since: datetime | None = None, until: datetime | None = None, as_of: datetime | None = None
) -> Joined:
    """Decisions from `since` on and before `until`, with all that had answered to them before `as_of`.

    Of people whom analytics cover, by the links as of then. Raises BadSettings as `Kinds.of`.
    """
    kinds = Kinds.of(home.settings)
    # Whatever could be given an event instead of one of these.
    first = None if since is None else since - kinds.window
    last = None if until is None else until + kinds.window
    made = logged.read(home, since=first, until=last, as_of=as_of)
    who = persons(home, as_of)
    rows = made.select(*OF_DECISION, "items").with_columns(who.resolved(pl.col("user_id"))).collect()
    events = person_events(home, as_of, purpose=ANALYTICS).select(OF_EVENT)
    early = rows["at"].min() if rows.height else None
    if early is not None:
        events = events.filter((pl.col("timestamp") >= early) | pl.col("decision_id").is_not_null())
    found = joined(rows, events.collect() if rows.height else events.head(0).collect(), kinds)
    inside = pl.lit(True)
    if since is not None:
        inside &= pl.col("at") >= since
    if until is not None:
        inside &= pl.col("at") < until
    kept = found.decisions.filter(inside)
    return Joined(kept, found.items.join(kept, on="decision_id", how="semi", maintain_order="left"))


def joined(rows: pl.DataFrame, events: pl.DataFrame, kinds: Kinds) -> Joined:
    """Join decisions (`OF_DECISION`, items) with events (`OF_EVENT`) of the same persons, each there once."""
    rows = rows.sort("at", "decision_id").with_row_index("d")
    listed = _listed(rows)
    kind = pl.col("event_type").replace_strict(kinds.types, default=None, return_dtype=pl.String).alias("kind")
    telling = events.with_columns(kind).filter(pl.col("kind").is_not_null())
    named = telling.join(rows.select("d", "decision_id", "surface", "at"), on="decision_id")
    shown = named.filter(pl.col("kind") == IMPRESSION)
    tracked = pl.col("surface").is_in(shown["surface"].unique().implode())
    exposed = pl.col("d").is_in(named["d"].unique().implode())
    rows = rows.with_columns(tracked=tracked.fill_null(False), exposed=exposed)
    open_ = rows.filter(pl.col("exposed") | ~pl.col("tracked"))
    free = telling.filter(pl.col("decision_id").is_null(), pl.col("kind") != IMPRESSION)
    credited = _credited(free, open_, listed, kinds.window)
    columns = ("d", "at", "user_id", "kind", "item_id", "timestamp")
    carried = named.filter(pl.col("kind") != IMPRESSION).select(*columns, carried=pl.lit(True))
    answers = pl.concat([carried, credited.select(*columns, carried=pl.lit(False))])
    answers = _with_bounces(answers, events, kinds)
    by_decision = _figures(answers, ["d"])
    seen = shown.group_by("d").agg(impressions=pl.len().cast(pl.Int64))
    decisions = rows.join(seen, on="d", how="left").join(by_decision, on="d", how="left").sort("d")
    decisions = _counted(decisions.with_columns(listed=pl.col("items").list.len().fill_null(0).cast(pl.Int64)))
    names = [f"{kind}_seconds" for kind in OUTCOMES]
    figures = ["impressions", "exposed", *_COUNTED.values(), "bounced", *names]
    return Joined(
        decisions.select(*OF_DECISION, "listed", "tracked", *figures),
        _by_item(listed, rows, shown, answers).select("decision_id", "item_id", "position", "propensity", *figures),
    )


def _listed(rows: pl.DataFrame) -> pl.DataFrame:
    """d, item_id, position, propensity: each item of a list once, where it stands highest."""
    entries = rows.select("d", "items").explode("items").drop_nulls("items").unnest("items")
    twice = entries.select(pl.struct("d", "item_id").is_duplicated().any()).item() if entries.height else False
    if twice:
        entries = entries.sort("d", "position").unique(["d", "item_id"], keep="first", maintain_order=True)
    return entries


def _credited(free: pl.DataFrame, rows: pl.DataFrame, listed: pl.DataFrame, window: timedelta) -> pl.DataFrame:
    """Events without an id, with the decision `d` (made `at`) that each answers to; of others nothing."""
    free = free.drop_nulls(["user_id", "item_id"])
    # Numbers for pairs of person and item stand for two texts each, of the pairs that events have alone.
    pairs = free.select("user_id", "item_id").unique().with_row_index("pair")
    free = free.join(pairs, on=["user_id", "item_id"]).sort("timestamp")
    whose = rows.select("d", "user_id", "at").join(pairs.select("user_id").unique(), on="user_id", how="semi")
    offers = listed.select("d", "item_id", "position").join(whose, on="d").join(pairs, on=["user_id", "item_id"])
    # Ids sort as `d` does where the moment is the same.
    offers = offers.sort("at", "pair", "position", "d").unique(["pair", "at"], keep="first", maintain_order=True)
    found = free.join_asof(
        offers.select("pair", "d", "at", made="at"),
        left_on="timestamp",
        right_on="made",
        by="pair",
        strategy="backward",
        tolerance=window,
        check_sortedness=False,
    )
    return found.filter(pl.col("d").is_not_null())


def _with_bounces(answers: pl.DataFrame, events: pl.DataFrame, kinds: Kinds) -> pl.DataFrame:
    """Answers with `bounced`: of clicks alone; null where the events end before it can be told."""
    clicks = answers.filter(pl.col("kind") == CLICK).select("user_id", "timestamp").unique()
    if not clicks.height:
        return answers.with_columns(bounced=pl.lit(None, pl.Boolean))
    horizon = events["timestamp"].max()
    seen = [name for name, kind in kinds.types.items() if kind == IMPRESSION]
    done = events.filter(~pl.col("event_type").is_in(seen)).select("user_id", then="timestamp")
    done = done.join(clicks.select("user_id").unique(), on="user_id", how="semi").unique().sort("then")
    followed = clicks.sort("timestamp").join_asof(
        done, left_on="timestamp", right_on="then", by="user_id", strategy="forward", allow_exact_matches=False,
        check_sortedness=False,
    )  # fmt: skip
    after = (pl.col("then") - pl.col("timestamp") <= kinds.bounce).fill_null(False)
    over = pl.col("timestamp") + kinds.bounce <= horizon
    followed = followed.select(
        "user_id", "timestamp", kind=pl.lit(CLICK), bounced=pl.when(after).then(False).when(over).then(True)
    )
    return answers.join(followed, on=["user_id", "timestamp", "kind"], how="left")


def _figures(answers: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """Counts, first delays in seconds, and whether all clicks bounced, of each group that has an answer."""
    counts = [(pl.col("kind") == kind).sum().cast(pl.Int64).alias(name) for kind, name in _COUNTED.items()]
    delay = (pl.col("timestamp") - pl.col("at")).dt.total_microseconds() / 1e6
    first = [delay.filter(pl.col("kind") == kind).min().alias(f"{kind}_seconds") for kind in OUTCOMES]
    clicked = pl.col("bounced").filter(pl.col("kind") == CLICK)
    stayed = (~clicked).any(ignore_nulls=True)
    bounced = pl.when(stayed).then(False).when((clicked.len() > 0) & (clicked.null_count() == 0)).then(True)
    return answers.group_by(by).agg(*counts, *first, pl.col("carried").any(), bounced=bounced)


def _by_item(listed: pl.DataFrame, rows: pl.DataFrame, shown: pl.DataFrame, answers: pl.DataFrame) -> pl.DataFrame:
    """Every item of every list, with its own figures."""
    whole = shown.filter(pl.col("item_id").is_null()).group_by("d").agg(whole=pl.len().cast(pl.Int64))
    own = shown.drop_nulls("item_id").group_by("d", "item_id").agg(own=pl.len().cast(pl.Int64))
    items = listed.join(own, on=["d", "item_id"], how="left").join(whole, on="d", how="left")
    items = items.join(_figures(answers.drop_nulls("item_id"), ["d", "item_id"]), on=["d", "item_id"], how="left")
    items = items.with_columns(impressions=pl.col("own").fill_null(0) + pl.col("whole").fill_null(0))
    items = _counted(items)
    items = items.with_columns(exposed=(pl.col("impressions") > 0) | pl.col("carried").fill_null(False))
    return items.join(rows.select("d", "decision_id"), on="d").sort("d", "position", "item_id")


def _counted(figures: pl.DataFrame) -> pl.DataFrame:
    return figures.with_columns(pl.col("impressions", *_COUNTED.values()).fill_null(0))


BY = ("surface", "policy", "model", "stage", "holdout")
SHARES = (CLICK, CONVERSION, NEGATIVE, "bounce")
_DELAYS = {f"{kind}_hours": f"{kind}_seconds" for kind in (CLICK, CONVERSION)}


def rates(decisions: pl.DataFrame) -> pl.DataFrame:
    """Rates of `outcomes.Joined.decisions`, one row for each of `BY`, sorted.

    per: impression, where impressions of the surface are sent, else delivered; decisions: how many of these; people;
    click, conversion, negative: share with at least one, each with _low and _high (Wilson, JASA 1927, 95 %); bounce:
    share, of those whose clicks can be judged, of which no click led anywhere; click_hours, conversion_hours: median
    until the first. Null is what would be about fewer than 20 people.
    """
    told = decisions.filter(pl.col("exposed") | ~pl.col("tracked")).with_columns(
        pl.when("tracked").then(pl.lit("impression")).otherwise(pl.lit("delivered")).alias("per")
    )
    counts = [
        pl.len().alias("decisions"),
        pl.col("user_id").n_unique().alias("people"),
        *((pl.col(f"{kind}s") > 0).sum().alias(kind) for kind in (CLICK, CONVERSION, NEGATIVE)),
        pl.col("bounced").sum().alias("bounce"),
        pl.col("bounced").is_not_null().sum().alias("judged"),
        pl.col("user_id").filter(pl.col("bounced").is_not_null()).n_unique().alias("judged_people"),
        *(pl.col(name).median().truediv(3600).alias(hours) for hours, name in _DELAYS.items()),
        *(pl.col("user_id").filter(pl.col(name).is_not_null()).n_unique().alias(name) for name in _DELAYS.values()),
    ]
    groups = told.group_by(*BY, "per").agg(counts).sort(*BY, nulls_last=True)
    return pl.DataFrame([_row(group) for group in groups.iter_rows(named=True)], schema=_SCHEMA)


_SCHEMA = {
    **dict.fromkeys(BY, pl.String),
    "holdout": pl.Boolean,
    "per": pl.String,
    "decisions": pl.Int64,
    "people": pl.Int64,
    **{f"{share}{end}": pl.Float64 for share in SHARES for end in ("", "_low", "_high")},
    **dict.fromkeys(_DELAYS, pl.Float64),
}


def _row(group: dict[str, object]) -> dict[str, object]:
    row = dict.fromkeys(_SCHEMA) | {name: group[name] for name in (*BY, "per")}
    if _few(group["people"]):
        return row
    row |= {"decisions": group["decisions"], "people": group["people"]}
    for share in SHARES:
        of, whose = ("judged", "judged_people") if share == "bounce" else ("decisions", "people")
        if not _few(group[whose]):
            hits, n = int(str(group[share])), int(str(group[of]))
            row[share] = hits / n
            row[f"{share}_low"], row[f"{share}_high"] = map(float, wilson(hits, n))
    for hours, seconds in _DELAYS.items():
        row[hours] = None if _few(group[seconds]) else group[hours]
    return row


def _few(people: object) -> bool:
    return int(str(people)) < SMALLEST_CELL
