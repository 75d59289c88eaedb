"""`kind = "message"`: whether a message goes to a user, by which channel, at which local hour, and how it is made up.

Of all channels that the user can be reached by and all hours ahead, the one of the greatest value is taken, if that is
above 0; a message of no value is none:

    value = P(open | user, channel, hour) - unsubscribe_cost · P(unsubscribe | channel)

(`message_learning` for the chances). Consent, unsubscriptions, quiet hours and caps come first and are never traded.
Where opens of the last days fall behind what was expected, the weekly cap falls with them (fatigue). The holdout gets
the first channel that it may get, at everybody's best hour, under the same limits; whom personalization does not cover
gets nothing, since caps cannot be kept of people whose past may not be read.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from persona_cli.consent.gate import Gate
from persona_cli.errors import BadSettings, nearest
from persona_cli.profiles.coding import Ints
from persona_cli.profiles.context import DAY
from persona_cli.profiles.features import Floats
from persona_cli.profiles.identity import persons
from persona_cli.profiles.permitted import verdict
from persona_cli.serving.rule_items import sensitive_items
from persona_cli.serving.surfaces import Surface, content, surface_of
from persona_cli.serving.surfaces import message_learning as learning
from persona_cli.serving.surfaces import message_timing as timing
from persona_cli.serving.surfaces.visitors import Flags, Visitors, chosen_names, known_columns
from persona_cli.workspace.filters import Filter, FilterError, parse
from persona_cli.workspace.home import SETTINGS_FILE, Home
from persona_cli.workspace.surface_declarations import CHANNELS, MOMENTS

KEY = "choice"
BECAUSE = ("no channel", "consent", "unsubscribed", "quiet hours", "cap", "fatigue", "low response")
"""Why nothing is sent, in the order in which it is asked."""
_BLOCK = 20_000
_DECIDED = pl.Struct({"send": pl.Boolean, "channel": pl.String, "send_at": pl.String})
_UTC, _WALL = "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S"


class _Where(NamedTuple):
    """Where each visitor is (n,), and the moments ahead there."""

    zone: pl.Series
    place: Ints
    """Of the zone among those of `spots`."""
    spots: timing.Slots


class _Chosen(NamedTuple):
    """Of each visitor (n,)."""

    because: Ints
    """Place in `BECAUSE`, -1: a message is sent."""
    channel: Ints
    slot: Ints
    chance: Floats
    value: Floats
    tired: Flags
    response: Floats
    bound: Flags
    """What of `BECAUSE` kept a channel, an hour or the message away (n, 7)."""


def needs(home: Home, surface: Surface) -> set[str]:
    named = {column for one in _reach(home, surface).values() for column in one.columns}
    listed = surface.options["content"]
    if listed is not None:
        place = f"{home.path(SETTINGS_FILE)}: surface.{surface.name}: content"
        kinds = {name: one["kind"] for name, one in home.settings.values["surface"].items()}
        if kinds.get(listed) != "content":
            contents = [name for name, kind in kinds.items() if kind == "content"]
            what = "of kind " + kinds[listed] if listed in kinds else "no surface"
            raise BadSettings(
                f'{place} = "{listed}" is {what}; expected one of kind content{nearest(listed, contents)}'
            )
        named |= content.needs(home, surface_of(home, listed))
    return {"items", "tz", "country", *named}


def _reach(home: Home, surface: Surface) -> dict[str, Filter]:
    """By which condition a channel reaches somebody; `BadSettings` names what is wrong and where."""
    known, found = known_columns(home), {}
    for channel, condition in surface.options["reach"].items():
        try:
            found[channel] = parse(condition, known)
        except FilterError as error:
            place = f"{home.path(SETTINGS_FILE)}: surface.{surface.name}.reach.{channel}"
            raise BadSettings(f"{place}: {error}", "persona segment list --columns") from error
    return found


def decide(home: Home, surface: Surface, visitors: Visitors, explain: bool = False) -> pl.DataFrame:
    """choice, policy, propensity, rules[, reasons] (n).

    choice: send; because (why not); channel, local_hour, send_at (UTC), local_time, moment (in_app), cadence,
    expected_open, expected_value (null where nothing is sent); items, where `content` names a surface.
    """
    options = dict(surface.options)
    told = learning.heard(home, options, visitors)
    where = _ahead(home, options, visitors)
    spots, zone = where.spots, where.place
    rates, group = learning.learned(home, options, visitors, told)
    chosen = _chosen(home, surface, visitors, told, where, rates, group)
    sending = chosen.because < 0
    n = len(visitors.users)
    at, wall, hour = (part[zone, chosen.slot] for part in (spots.at, spots.local, spots.hour))
    inside = sending & (chosen.channel == CHANNELS.index("in_app"))
    personal_moment = _moments(told.sent, visitors, rates.by_moment, float(options["prior_sends"]))
    at_once = (chosen.chance >= options["at_once_from"]) & ~chosen.tired & visitors.personal
    made = pl.DataFrame(
        {
            "send": sending,
            "because": _words(BECAUSE, chosen.because),
            "channel": _words(CHANNELS, np.where(sending, chosen.channel, -1)),
            "local_hour": pl.Series(hour),
            "send_at": _text(at, _UTC),
            "local_time": _text(wall, _WALL),
            "moment": _words(MOMENTS, np.where(inside, personal_moment, -1)),
            "cadence": _words(("digest", "at_once"), at_once.astype(np.int64)),
            "expected_open": chosen.chance.round(6),
            "expected_value": chosen.value.round(6),
        }
    )
    only = ["local_hour", "send_at", "local_time", "cadence", "expected_open", "expected_value"]
    made = made.with_columns(pl.when("send").then(pl.col(only)).name.keep())
    bound = chosen.bound
    if options["content"] is not None:
        items, unnamed = _digest(home, surface_of(home, options["content"]), visitors, sending)
        made = made.with_columns(items=items)
        bound = np.hstack([bound, unnamed[:, None]])
    rules = [word.replace(" ", "_") for word in BECAUSE] + ["sensitive"]
    found = pl.DataFrame(
        {
            KEY: made.to_struct(),
            "policy": np.where(visitors.personal, "learned", "default").tolist(),
            "propensity": np.ones(n),
            "rules": chosen_names(bound, rules[: bound.shape[1]]),
        }
    )
    return found.with_columns(reasons=_reasons(visitors, made, chosen)) if explain else found


def _ahead(home: Home, options: dict[str, Any], visitors: Visitors) -> _Where:
    zone = learning.zones(visitors.rows, home.settings.text("ingest.assume_tz"))
    if "hour" in visitors.context:  # who tells the hour tells how far it is from that of UTC
        ahead = (int(visitors.context["hour"]) - visitors.at.hour + 11) % 24 - 11
        here = f"{'-' if ahead < 0 else '+'}{abs(ahead):02d}:00"
        told = pl.when(~pl.Series(visitors.holdout)).then(pl.lit(here)).otherwise("zone").alias("zone")
        zone = zone.to_frame("zone").select(told).to_series()
    values, place = timing.numbered(zone)
    now = round(visitors.at.timestamp() * 1_000_000)
    return _Where(zone, place, timing.slots(values, now, options["window_hours"]))


def _chosen(
    home: Home,
    surface: Surface,
    visitors: Visitors,
    told: learning.Heard,
    where: _Where,
    rates: learning.Rates,
    group: Ints,
) -> _Chosen:
    options, n, n_channels = dict(surface.options), len(visitors.users), len(CHANNELS)
    prior, base = float(options["prior_sends"]), float(options["open_rate"])
    spots, zone = where.spots, where.place
    reached, agreed, kept_out = _channels(home, surface, visitors, told)
    may = reached & agreed & ~kept_out
    # The holdout: the first channel that is left, whoever they are.
    first = may & (may.cumsum(axis=1) == 1)
    may = np.where(visitors.holdout[:, None], first, may)
    rows = _rows(visitors)
    mine = told.sent.join(rows, on="user_id", how="inner").sort("row", "channel", "at")
    known = mine.filter(pl.col("n").is_not_null())
    days = _days(visitors, known, where)
    ripe = mine.filter(pl.col("at") < round(visitors.at.timestamp() * 1_000_000) - DAY)
    fresh = learning.recent(ripe, visitors, options["fatigue_days"])
    before, lately = (ripe.filter(pl.Series(flags, dtype=pl.Boolean)) for flags in (~fresh, fresh))
    is_quiet = timing.quiet(spots.hour, options["quiet_hours"])
    weekly = np.full(n, options["per_week"], dtype=np.int64)
    # Who is asked for under several ids is one person: the first of them may get a message.
    person = visitors.rows["person"]
    again = (person.is_not_null() & ~person.is_first_distinct()).to_numpy()
    daily = np.where(again, 0, options["per_day"]).astype(np.int64)
    cost = options["unsubscribe_cost"] * rates.unsubscribe
    parts = []
    for start in range(0, n, _BLOCK):
        block = slice(start, min(start + _BLOCK, n))
        size, here = block.stop - start, zone[block]
        cohort = rates.by_hour[group[block]]
        counted = [_counted(part, start, size, base) for part in (before, lately.filter(pl.col("n").is_not_null()))]
        orphans = _counted(lately.filter(pl.col("n").is_null()), start, size, base)
        quieted = visitors.personal[block][:, None, None]  # nothing of the held out is made use of
        old, new, odd = (tuple(part * quieted for part in pair) for pair in (*counted, orphans))
        usual = learning.own(old[0], old[1], cohort, rates.overall, prior, options["spread_hours"])
        expected = (new[1] * usual).sum(axis=(1, 2))
        response = learning.response(new[0].sum(axis=(1, 2)), expected, prior, base)
        tired = response < options["fatigue_below"]
        lowered = np.maximum(np.floor(weekly[block] * np.minimum(response, 1.0) + 1e-9), 1).astype(np.int64)
        lowered = np.where(tired, np.minimum(lowered, weekly[block]), weekly[block])
        opened, sent = (old[place] + new[place] + odd[place] for place in (0, 1))
        rate = learning.own(opened, sent, cohort, rates.overall, prior, options["spread_hours"])
        hours = np.broadcast_to(spots.hour[here][:, None, :], (size, n_channels, spots.hour.shape[1]))
        chance = np.take_along_axis(rate, hours, axis=2)  # (n, C, S)
        value = chance - cost[None, :, None]
        worth = np.where(visitors.holdout[block][:, None, None], chance, value)
        there, loud = spots.there[here], spots.there[here] & ~is_quiet[here]
        fits, fits_tired = (
            timing.room(days[block], spots.day[here], daily[block], week) for week in (weekly[block], lowered)
        )
        reachable = (reached[block], (reached & agreed)[block], may[block])
        stages = [np.broadcast_to(channels[:, :, None], chance.shape) & there[:, None, :] for channels in reachable]
        stages += [stages[-1] & mask[:, None, :] for mask in (loud, loud & fits, loud & fits & fits_tired)]
        tops = [timing.best(worth, stage) for stage in stages]
        channel, slot, top = tops[-1]
        order = np.stack([np.isfinite(one[2]) for one in tops], axis=1)
        # The first stage that leaves nothing; what all leave must be worth a message.
        because = np.where(order.all(axis=1), np.where(top > 0, -1, len(BECAUSE) - 1), (~order).argmax(axis=1))
        lost = np.stack([low[2] < high[2] for high, low in pairwise(tops)], axis=1)
        lost[:, 1] &= kept_out[block].any(axis=1)  # the held out have one channel anyhow
        bound = np.column_stack([~reached[block].any(axis=1), lost, because == len(BECAUSE) - 1])
        which = (np.arange(size), channel, slot)
        parts.append(
            _Chosen(because, channel, slot, chance[which], value[which], tired & (because != 1), response, bound)
        )
    if not parts:
        none, number = np.zeros(0, dtype=np.int64), np.zeros(0)
        flags = np.zeros((0, len(BECAUSE)), dtype=bool)
        return _Chosen(none, none, none, number, number, none.astype(bool), number, flags)
    return _Chosen(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _channels(home: Home, surface: Surface, visitors: Visitors, told: learning.Heard) -> tuple[Flags, Flags, Flags]:
    """Which channels reach each visitor, are consented to, and were unsubscribed from (n, C)."""
    shape = (len(visitors.users), len(CHANNELS))
    reached, agreed, out = (np.zeros(shape, dtype=bool) for _ in range(3))
    reach, gate, who = _reach(home, surface), Gate.of(home), persons(home)
    ids = who.ids_of(who.of(visitors.users))
    for place, channel in enumerate(CHANNELS):
        if channel not in surface.options["channels"]:
            continue
        reached[:, place] = True if channel not in reach else reach[channel].mask(visitors.rows).to_numpy()
        # Whoever says no to messages is in all else: the gate is asked, however few it keeps out elsewhere.
        agreed[:, place] = verdict(gate, (f"messaging.{channel}",), ids, who).of(visitors.users).to_numpy()
    agreed &= (visitors.kept & ~visitors.generic)[:, None]  # else nobody would know what was sent
    refused = told.refused.join(_rows(visitors), on="user_id", how="inner")
    out[refused["row"].to_numpy(), refused["channel"].to_numpy()] = True
    return reached, agreed, out


def _rows(visitors: Visitors) -> pl.DataFrame:
    """user_id (the person), row; a person may have been asked for under several ids."""
    rows = pl.DataFrame({"user_id": visitors.rows["person"], "row": np.arange(len(visitors.users), dtype=np.int64)})
    return rows.drop_nulls("user_id")


def _days(visitors: Visitors, known: pl.DataFrame, where: _Where) -> Ints:
    """Messages of each visitor, sent and decided, by local day around today (n, days)."""
    past = visitors.past().drop_nulls("choice")
    choice = past.select("row", pl.col("choice").str.json_decode(_DECIDED)).unnest("choice")
    channels = choice["channel"].replace_strict(
        list(CHANNELS), list(range(len(CHANNELS))), default=-1, return_dtype=pl.Int64
    )
    moment = pl.col("send_at").str.to_datetime(_UTC, time_unit="us", time_zone="UTC", strict=False).to_physical()
    decided = choice.with_columns(channel=channels, at=moment).filter("send").drop_nulls("at")
    all_ = timing.messages(known, decided)
    row, at = all_["row"].to_numpy(), all_["at"].to_numpy()
    day = learning.local(at, where.zone.gather(row)) // DAY - where.spots.today[where.place[row]]
    return timing.by_day(row, day, len(visitors.users))


def _counted(part: pl.DataFrame, start: int, size: int, base: float) -> tuple[Floats, Floats]:
    """Opens and messages (size, C, 24) of the visitors from `start` on; the part is sorted by row."""
    begin, end = np.searchsorted(part["row"].to_numpy(), [start, start + size]).tolist()
    mine = part.slice(begin, end - begin)
    return learning.counts(mine, mine["row"].to_numpy() - start, size, base)


def _moments(sent: pl.DataFrame, visitors: Visitors, everybody: Floats, prior: float) -> Ints:
    """When a message inside the product appears, by what each visitor answered (n,); of equals the first."""
    shape = (len(visitors.users), len(MOMENTS))
    rows = _rows(visitors).filter(pl.Series(visitors.personal).gather(_rows(visitors)["row"]))
    mine = sent.filter((pl.col("moment") >= 0) & pl.col("n").is_not_null()).join(rows, on="user_id", how="inner")
    where = mine["row"].to_numpy() * len(MOMENTS) + mine["moment"].to_numpy()
    size = shape[0] * shape[1]
    opened = np.bincount(where, weights=mine["opened"].to_numpy().astype(float), minlength=size).reshape(shape)
    trials = np.bincount(where, minlength=size).reshape(shape)
    rate = learning.shrunk(opened.astype(np.float64), trials.astype(np.float64), everybody[None, :], prior)
    best: Ints = rate.round(9).argmax(axis=1)
    return best


def _digest(home: Home, listed: Surface, visitors: Visitors, sending: Flags) -> tuple[pl.Series, Flags]:
    """Items to fill each message with (n,), null where none is sent, and whose list lost items that are sensitive."""
    mask, unnamed = pl.Series(sending, dtype=pl.Boolean), np.zeros(len(sending), dtype=bool)
    rows = pl.DataFrame({"row": np.flatnonzero(sending)})
    lists = pl.Series("items", [], dtype=pl.List(pl.String))
    if sending.any():
        some = replace(
            visitors,
            users=visitors.users.filter(mask),
            rows=visitors.rows.filter(mask),
            holdout=visitors.holdout[sending],
            generic=visitors.generic[sending],
            kept=visitors.kept[sending],
        )
        made = content.decide(home, listed, some)[content.KEY]
        ids = made.list.eval(pl.element().struct.field("item_id")).alias("items").to_frame()
        hidden = pl.element().is_in(sensitive_items(home, visitors.as_of).implode())
        lists = ids.select(pl.col("items").list.eval(pl.element().filter(~hidden))).to_series()
        unnamed[sending] = (lists.list.len() < ids["items"].list.len()).to_numpy()
    found = pl.DataFrame({"row": np.arange(len(sending))}).join(
        rows.with_columns(lists), on="row", how="left", maintain_order="left"
    )
    return found["items"], unnamed


def _words(words: tuple[str, ...], places: Ints) -> pl.Series:
    """The word of each place, null where it is -1 (n,)."""
    table = pl.Series([*words, None], dtype=pl.String)
    return table.gather(np.where(places < 0, len(words), places).astype(np.int64))


def _text(moments: Ints, form: str) -> pl.Series:
    return pl.Series(moments).cast(pl.Datetime("us")).dt.strftime(form)


def _reasons(visitors: Visitors, made: pl.DataFrame, chosen: _Chosen) -> pl.Series:
    """Sentences of each visitor (n,)."""
    found = []
    told = {
        "no channel": "none of the channels reaches this person",
        "consent": "this person did not agree to messages, or what was sent may not be kept",
        "unsubscribed": "this person unsubscribed from every channel that is left",
        "quiet hours": "only quiet hours are ahead",
        "cap": "as many messages as may be sent were sent or decided already",
        "fatigue": "messages were opened less than before, so fewer are sent",
        "low response": "an unsubscription would cost more than the chance of an open is worth",
    }
    for row, one in enumerate(made.iter_rows(named=True)):
        if not one["send"]:
            found.append([told[one["because"]]])
            continue
        hour = (
            f"at {one['local_hour']}:00" if visitors.personal[row] else f"at {one['local_hour']}:00 (everybody's best)"
        )
        why = [f"{one['expected_open']:.1%} of messages by {one['channel']} {hour} are expected to be opened"]
        why += ["the same for all, to measure against (holdout)"] if visitors.holdout[row] else []
        if chosen.tired[row]:
            why.append(f"lately {chosen.response[row]:.0%} of the opens that were expected: all in one message")
        found.append(why)
    return pl.Series(found, dtype=pl.List(pl.String))
