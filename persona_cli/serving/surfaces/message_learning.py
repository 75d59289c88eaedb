"""How messages are answered, by channel and local hour: everybody, then the cohort, then the user.

Each rate is the mean of a Beta distribution after k opens of n messages, drawn towards the wider one as if m more
messages had been answered at its rate (Beta-Binomial, empirical Bayes; Efron and Morris 1975):

    rate = (k + m p) / (n + m)

p of (channel) is `open_rate`; of (channel, hour) that of the channel; of (cohort, channel, hour) that of everybody; of
a user that of the cohort times how much more than the cohort the user opens at all, f = (k + m p) / (E + m p) with E
the opens that the cohort's rates would have made of the user's messages. A user's message d hours away counts as
exp(-d²/2s²) of one, with s = `spread_hours`: a habit is seldom of one hour alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from persona_cli.events.countries import country_zone
from persona_cli.models.stored import positions
from persona_cli.profiles import SMALLEST_CELL
from persona_cli.profiles.coding import Ints
from persona_cli.profiles.context import DAY, HOUR, Codes, local_time, zone_of
from persona_cli.profiles.features import Floats
from persona_cli.profiles.fold import profile_rows
from persona_cli.profiles.permitted import PERSONALIZATION, person_events
from persona_cli.profiles.read import profiles
from persona_cli.serving.surfaces.use import cohorts
from persona_cli.serving.surfaces.visitors import Flags, Visitors
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.surface_declarations import CHANNELS, MOMENTS

HOURS = 24
_TYPES = {"user_id": pl.String, "event_type": pl.String, "target": pl.String, "at": pl.Int64, "zone": pl.String}


class Heard(NamedTuple):
    """What is known of messages to everybody (users of whom personalization may read)."""

    sent: pl.DataFrame
    """user_id, channel (place in `CHANNELS`), at (µs), hour (local), moment (place in `MOMENTS`, -1), n (1), opened;
    and an open of a message of which no sending is known: n is null. Sorted."""
    refused: pl.DataFrame
    """user_id, channel: what was unsubscribed from and stays so. Sorted, each once."""
    left: Ints
    """Unsubscriptions by channel (C,)."""


class Rates(NamedTuple):
    """What messages are answered by, of everybody and of each cohort."""

    overall: Floats
    """Opens a message by channel (C,)."""
    by_hour: Floats
    """Of everybody (place 0) and each cohort (G, C, 24)."""
    unsubscribe: Floats
    """Unsubscriptions a message by channel (C,)."""
    by_moment: Floats
    """Opens a message in the product (3,)."""


def shrunk(opened: Floats, sent: Floats, towards: Floats, prior: float) -> Floats:
    """(k + m p) / (n + m), at most 1: a rate after k of n, drawn towards p."""
    found: Floats = np.minimum((opened + prior * towards) / (sent + prior), 1.0)
    return found


def zones(rows: pl.DataFrame, default: str) -> pl.Series:
    """The zone of time of each row by tz, else country, else the default (n,)."""
    where = rows.select("tz", "country").unique()
    found = [
        tz
        if tz is not None and zone_of(tz) is not None
        else (None if country is None else country_zone(country)) or default
        for tz, country in where.iter_rows()
    ]
    where = where.with_columns(zone=pl.Series(found, dtype=pl.String))
    joined = rows.select("tz", "country").join(
        where, on=["tz", "country"], how="left", nulls_equal=True, maintain_order="left"
    )
    return joined["zone"]


def local(at: Ints, zone: pl.Series) -> Ints:
    """Moments (n,) by the clock on the wall in each one's zone; µs."""
    values = zone.unique().sort()
    return local_time(at, Codes(positions(zone, values), values), Codes(None, values.clear()))


def heard(home: Home, options: dict[str, Any], visitors: Visitors) -> Heard:
    """Messages, what was opened of them, and unsubscriptions, before the decision is made."""
    until = round(visitors.at.timestamp() * 1_000_000)
    events = _events(home, options, visitors, until)
    channel = pl.col("target").replace_strict(
        list(CHANNELS), list(range(len(CHANNELS))), default=-1, return_dtype=pl.Int64
    )
    events = events.with_columns(channel.alias("channel"), hour=pl.Series(_hours(events)))
    refused, left = _refused(events, options)
    events = events.filter(pl.col("channel") >= 0)
    key = ["user_id", "channel"]
    sent = events.filter(pl.col("event_type").is_in(list(options["sent"])))
    sent = sent.sort(*key, "at", "hour", "moment").with_row_index("message")
    opened = events.filter(pl.col("event_type").is_in(list(options["opened"]))).sort(*key, "at", "hour", "moment")
    matched = opened.join_asof(
        sent.select(*key, "at", "message").sort("at"),
        on="at",
        by=key,
        strategy="backward",
        tolerance=round(options["open_hours"] * HOUR),
        check_sortedness=False,
    ) if sent.height else opened.with_columns(message=pl.lit(None, pl.UInt32))  # fmt: skip
    answered = matched["message"].drop_nulls().unique()
    known = sent.with_columns(opened=pl.col("message").is_in(answered.implode()), n=pl.lit(1.0))
    # An open and the click after it are one answer.
    orphans = matched.filter(pl.col("message").is_null()).with_columns(slot=pl.col("at") // HOUR)
    orphans = orphans.unique([*key, "slot"], keep="first", maintain_order=True)
    orphans = orphans.with_columns(opened=pl.lit(True), n=pl.lit(None, pl.Float64))
    columns = [*key, "at", "hour", "moment", "n", "opened"]
    return Heard(pl.concat([known.select(columns), orphans.select(columns)]).sort(*key, "at"), refused, left)


def _events(home: Home, options: dict[str, Any], visitors: Visitors, until: int) -> pl.DataFrame:
    if not tables.exists(home, "events"):
        return pl.DataFrame(schema={**_TYPES, "moment": pl.Int64})
    types = [name for key in ("sent", "opened", "unsubscribed", "subscribed") for name in options[key]]
    moment = pl.col("props").str.json_path_match("$.moment")
    places = moment.replace_strict(list(MOMENTS), list(range(len(MOMENTS))), default=-1, return_dtype=pl.Int64)
    events = (
        person_events(home, visitors.as_of, purpose=PERSONALIZATION)
        .filter(pl.col("event_type").is_in(types))
        .select(
            "user_id",
            "event_type",
            "target",
            "tz",
            "country",
            pl.col("timestamp").to_physical().alias("at"),
            moment=places.fill_null(-1),
        )
        .filter(pl.col("at") < until)
        .collect()
    )
    # Whoever sends seldom knows where the reader is: the profile does.
    columns = ("user_id", "items", "tz", "country")
    if visitors.as_of is None:
        known = profile_rows(home, columns, purpose=PERSONALIZATION)
    else:
        known = profiles(home, False, visitors.as_of, None, columns, purpose=PERSONALIZATION).collect()
    theirs = events.join(known.select("user_id", "tz", "country"), on="user_id", how="left", maintain_order="left")
    where = theirs.select(pl.coalesce("tz", "tz_right").alias("tz"), pl.coalesce("country", "country_right"))
    zone = zones(where, home.settings.text("ingest.assume_tz"))
    return events.select("user_id", "event_type", "target", "at", "moment", zone=zone)


def _hours(events: pl.DataFrame) -> Ints:
    if not events.height:
        return np.zeros(0, dtype=np.int64)
    return local(events["at"].to_numpy(), events["zone"]) // HOUR % HOURS


def _refused(events: pl.DataFrame, options: dict[str, Any]) -> tuple[pl.DataFrame, Ints]:
    """The last word about each channel decides, of equal moments the refusal; an unsubscription that names no channel
    is of all of them."""
    out, back = (pl.col("event_type").is_in(list(options[key])) for key in ("unsubscribed", "subscribed"))
    words = events.filter(out | (back & (pl.col("channel") >= 0))).select("user_id", "channel", "at", out=out)
    every = pl.when(pl.col("channel") >= 0).then(pl.concat_list("channel"))
    spread = words.with_columns(channel=every.otherwise(pl.lit(list(range(len(CHANNELS)))))).explode("channel")
    last = spread.sort("user_id", "channel", "at", "out").group_by("user_id", "channel", maintain_order=True).last()
    left = np.bincount(spread.filter("out")["channel"].to_numpy(), minlength=len(CHANNELS))
    return last.filter("out").select("user_id", "channel"), left


def learned(home: Home, options: dict[str, Any], visitors: Visitors, told: Heard) -> tuple[Rates, Ints]:
    """Rates of everybody and of each cohort of 20 people or more with messages, and each visitor's place (n,).

    Messages of the last 24 hours are left out: they may be opened yet. Fewer than 20 people are not everybody.
    """
    ripe, left = _ripe(told.sent, visitors), told.left
    if ripe["user_id"].n_unique() < SMALLEST_CELL:
        ripe, left = ripe.clear(), np.zeros_like(left)
    cohort = options["cohort"]
    place = np.zeros(len(visitors.users), dtype=np.int64)
    groups = np.zeros(ripe.height, dtype=np.int64)
    n_groups = 1
    if cohort != "none" and ripe.height:
        of = ripe.select("user_id").join(cohorts(home, cohort, visitors.as_of), on="user_id", how="left",
                                         maintain_order="left")  # fmt: skip
        people = of.drop_nulls().group_by("cohort").agg(pl.col("user_id").n_unique().alias("people"))
        names = people.filter(pl.col("people") >= SMALLEST_CELL)["cohort"].sort()
        groups = positions(of["cohort"], names) + 1
        mine = visitors.rows["stage" if cohort == "stage" else cohort]
        place = np.where(visitors.personal, positions(mine, names) + 1, 0)
        n_groups += len(names)
    return rates(ripe, groups, n_groups, left, options), place


def rates(ripe: pl.DataFrame, groups: Ints, n_groups: int, left: Ints, options: dict[str, Any]) -> Rates:
    """The rates from messages (rows of `Heard.sent`) and the place of the cohort of each, 0: none (n_rows,)."""
    prior, base = float(options["prior_sends"]), float(options["open_rate"])
    opened, sent = counts(ripe, groups, n_groups, base)
    both = [part.sum(axis=0) for part in (opened, sent)]
    alone = [part.sum(axis=1) for part in both]
    overall = shrunk(alone[0], alone[1], np.full(len(CHANNELS), base), prior)
    everybody = shrunk(both[0], both[1], overall[:, None], prior)
    by_hour = np.concatenate([everybody[None], shrunk(opened[1:], sent[1:], everybody, prior)])
    rare = np.full(len(CHANNELS), float(options["unsubscribe_rate"]))
    inside = ripe.filter((pl.col("moment") >= 0) & pl.col("n").is_not_null())
    at = inside["moment"].to_numpy()
    hits: Floats = np.bincount(at, inside["opened"].to_numpy().astype(float), len(MOMENTS)).astype(float)
    trials = np.bincount(at, minlength=len(MOMENTS)).astype(float)
    pooled = shrunk(hits.sum(keepdims=True), trials.sum(keepdims=True), np.full(1, base), prior)
    return Rates(
        overall, by_hour, shrunk(left.astype(float), alone[1], rare, prior), shrunk(hits, trials, pooled, prior)
    )


def counts(sent: pl.DataFrame, rows: Ints, n_rows: int, base: float) -> tuple[Floats, Floats]:
    """Opens and messages (n_rows, C, 24) of messages by the row that each is of.

    An open of a message of which no sending is known stands for 1 / `open_rate` messages, evenly over the day: the
    hours of opens tell something, their number nothing.
    """
    shape = (n_rows, len(CHANNELS), HOURS)
    cell = rows * len(CHANNELS) + sent["channel"].to_numpy()
    where = cell * HOURS + sent["hour"].to_numpy()
    size = n_rows * len(CHANNELS) * HOURS
    known = sent["n"].is_not_null().to_numpy()
    opened = np.bincount(where, sent["opened"].to_numpy().astype(float), size).astype(float).reshape(shape)
    trials = np.bincount(where[known], minlength=size).reshape(shape).astype(float)
    orphans = np.bincount(cell[~known], minlength=n_rows * len(CHANNELS)).reshape(shape[:2])
    return opened, trials + orphans[:, :, None] / (base * HOURS)


def own(opened: Floats, sent: Floats, cohort: Floats, overall: Floats, prior: float, spread: float) -> Floats:
    """The rate of each user by channel and hour (n, C, 24), from counts and the cohort's rates (n, C, 24)."""
    m = prior * overall[None, :]
    more = (opened.sum(axis=2) + m) / ((sent * cohort).sum(axis=2) + m)  # (n, C)
    near = _near(spread)
    found: Floats = shrunk(opened @ near, sent @ near, np.minimum(more[:, :, None] * cohort, 1.0), prior)
    return found


def _near(spread: float) -> Floats:
    """How much a message at one hour says of another (24, 24): 1 of its own."""
    if not spread:
        return np.eye(HOURS)
    apart = np.abs(np.arange(HOURS)[:, None] - np.arange(HOURS)[None, :])
    apart = np.minimum(apart, HOURS - apart)
    found: Floats = np.exp(-0.5 * (apart / spread) ** 2)
    found[found < 1e-3] = 0.0
    return found


def response(opened: Floats, expected: Floats, prior: float, base: float) -> Floats:
    """Opens of the last days over those expected (n,), as if m more messages had been answered as expected."""
    found: Floats = (opened + prior * base) / (expected + prior * base)
    return found


def recent(sent: pl.DataFrame, visitors: Visitors, days: float) -> Flags:
    """Which messages are of the last days (n_rows,)."""
    found: Flags = sent["at"].to_numpy() >= visitors.at.timestamp() * 1_000_000 - days * DAY
    return found


def _ripe(sent: pl.DataFrame, visitors: Visitors) -> pl.DataFrame:
    return sent.filter(pl.col("at") < round(visitors.at.timestamp() * 1_000_000) - DAY)
