"""Splits of events into what a model may learn from and what it is tested on.

    events   user_id String, item_id String (may be null), timestamp Datetime (naive: UTC); one row an event
             order     integer, optional: place in the input, used only where times say nothing (see below)
             relevant  Boolean, optional: the event makes its item a right answer (absent: every event does)
             consumed  Boolean, optional: the event takes its item out of later lists (absent: every event does)

Five kinds, each decided once on the events (`decide`, or the function of the kind) and then applied (`apply`):

    time         everything before one instant | everything from it on: what deployment looks like, the default
    per-user     the last 20 % of each user's events; where one global instant is unusable
    leave-last   each user's last new item
    user         a share of the users is held out whole: models never see them, score them from the first 80 % of their
                 events and are tested on the rest (strong generalisation)
    random       a share of the (user, item) pairs, whenever they happened: models know the future of everybody, so the
                 figures are too good; what many papers do, and what a time split is measured against

`rolling_time` and `rolling_per_user` divide the tested part into consecutive windows: a split of each tests one window,
learns from all that came before it, and knows nothing of what is later.

A test pair is a distinct (user, item) that the user did not have in the events known before. Events without an item
follow their time; they neither move a cut nor are tested. No result depends on the order of rows: events at the cut's
instant fall on one side together, and equal times of one user are ordered by a stable hash (see `timelines`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, get_args

import numpy as np
import polars as pl

from persona_cli.errors import BadData, MissingInput, UsageError, nearest
from persona_cli.evaluation.timelines import Integers, Timeline, pair_hashes, stable_hashes, timeline, times_of

Kind = Literal["time", "per-user", "leave-last", "user", "random"]
KINDS: tuple[Kind, ...] = get_args(Kind)

CROWDED_SECOND = 0.9
"""A second that holds this share of the events leaves times without meaning."""
ACTIVE_EVENTS, ACTIVE_SHARE = 5, 0.5
"""A global cut must leave this share of the users with so many events at least one event after it."""
SHORT_SPAN, SHORT_SPAN_USERS = timedelta(hours=24), 100
"""A span shorter than a day with more users than this has no past and future to compare."""

_SIDES = pl.Series(["train", "known", "test", "later"], dtype=pl.Enum(["train", "known", "test", "later"]))
_TRAIN, _KNOWN, _TEST, _LATER = 0, 1, 2, 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 1_000_000  # microseconds


@dataclass(frozen=True)
class Split:
    """One decided split; the same value applied to the same events, in any order, gives the same parts."""

    kind: Kind
    cut: datetime | None
    """The instant of a time split: before it is train, from it on is test (UTC)."""
    description: str
    reason: str | None = None
    """Why this kind was taken instead of the one asked for."""
    share: float = 0.2
    """Part of each user's events (per-user), of the users (user) or of the pairs (random) that is tested."""
    fold_in: float = 0.8
    """user: first part of a held-out user's events that the model may score from."""
    salt: str = ""
    """user, random: salt of the hash that chooses what is held out."""
    by_order: bool = False
    """Equal times are ordered by the `order` column before the hash."""
    end: datetime | None = None
    """time: the instant from which events are later than what is tested (UTC); None: all that follows is tested."""
    window: int = 1
    """per-user: which of the `windows` parts of each user's last events is tested, from 1; later ones do not exist."""
    windows: int = 1

    @property
    def headline(self) -> str:
        """What was done and, where it differs from what was asked, why: the first line of an evaluation."""
        return f"{self.description} (no global cut: {self.reason})" if self.reason else self.description


class Parts(NamedTuple):
    """Events divided by a split."""

    train: pl.DataFrame
    """Events to fit on, all columns, in the order given."""
    known: pl.DataFrame
    """Events that tested users may be scored from: `train` itself, except in a user split."""
    test: pl.DataFrame
    """user_id, item_id: distinct right answers that were not known, sorted."""


def decide(kind: str, events: pl.DataFrame, test_share: float = 0.2, salt: str = "") -> Split:
    """The split of the kind asked for; where no global cut is usable, `time` becomes `per-user`, with the reason."""
    if kind == "time":
        reason = usable_time(events, test_share)
        return per_user_cut(events, test_share, reason=reason) if reason else time_cut(events, test_share)
    if kind == "per-user":
        return per_user_cut(events, test_share)
    if kind == "leave-last":
        return leave_last_out(events)
    if kind == "user":
        return user_split(events, test_share, salt=salt)
    if kind == "random":
        return random_pairs(events, test_share, salt=salt)
    raise UsageError(f"split is {kind!r}{nearest(kind, KINDS)}")


def usable_time(events: pl.DataFrame, test_share: float = 0.2) -> str | None:
    """Why one global cut cannot be used on these events, or None where it can.

    It cannot when one second holds 90 % of the events or more; when the span is under 24 hours with more than 100
    users; when fewer than half of the users with 5 events or more have one from the cut on.
    """
    _checked_share(test_share, "test_share")
    times = _item_times(events)
    # A second with 90 % of the events holds the median one.
    second = int(np.partition(times, len(times) // 2)[len(times) // 2]) // _SECOND
    crowded = float((times // _SECOND == second).mean())
    if crowded >= CROWDED_SECOND:
        return f"{_percent(crowded)} of events fall in one second, {_text(second * _SECOND)}"
    span = timedelta(microseconds=int(times.max()) - int(times.min()))
    users = (
        _with_item(events)
        .group_by("user_id")
        .agg(pl.len().alias("events"), pl.col("timestamp").dt.epoch("us").max().alias("last"))
    )
    if span < SHORT_SPAN and users.height > SHORT_SPAN_USERS:
        return f"all events of {users.height:,} users fall within {span / timedelta(hours=1):.1f} hours"
    cut = _cut_micros(times, test_share)
    active = users.filter(pl.col("events") >= ACTIVE_EVENTS)
    after = active.filter(pl.col("last") >= cut).height
    if after < ACTIVE_SHARE * active.height:
        return (
            f"only {after:,} of {active.height:,} users with {ACTIVE_EVENTS} events or more have one after {_text(cut)}"
        )
    return None


def time_cut(events: pl.DataFrame, test_share: float = 0.2) -> Split:
    """One instant for everybody: the latest with at least `test_share` of the events at it or after.

    Where that is the very first instant of all, the next one, so that something is left to learn from.
    """
    _checked_share(test_share, "test_share")
    times = _item_times(events)
    cut = _cut_micros(times, test_share)
    tested = float((times >= cut).mean())
    return Split(
        "time",
        _EPOCH + timedelta(microseconds=cut),
        f"time split: trained before {_text(cut)}, tested on the {_percent(tested)} of events from then on",
        share=test_share,
    )


def rolling_time(events: pl.DataFrame, test_share: float = 0.2, windows: int = 3) -> list[Split]:
    """The events that `time_cut` tests as `windows` consecutive spans of equal event counts, one time split for each.

    An instant is never divided, so spans are as equal as equal times allow; where so many events share an instant that
    a span would be empty there are fewer.
    """
    _checked_windows(windows)
    whole = time_cut(events, test_share)
    assert whole.cut is not None
    if windows == 1:
        return [whole]
    times = np.sort(_item_times(events))
    first = int(np.searchsorted(times, _micros(whole.cut)))
    bounds = [first + number * (len(times) - first) // windows for number in range(windows)]
    starts = sorted({int(times[bound]) for bound in bounds})
    found = []
    for number, cut in enumerate(starts, 1):
        end = starts[number] if number < len(starts) else None
        tested = float(((times >= cut) & (times < (times[-1] + 1 if end is None else end))).mean())
        until = "then on" if end is None else f"then to {_text(end)}"
        description = (
            f"time split, cut {number} of {len(starts)}: trained before {_text(cut)}, "
            f"tested on the {_percent(tested)} of events from {until}"
        )
        moments = [None if micros is None else _EPOCH + timedelta(microseconds=micros) for micros in (cut, end)]
        found.append(Split("time", moments[0], description, share=test_share, end=moments[1]))
    return found


def per_user_cut(events: pl.DataFrame, share: float = 0.2, reason: str | None = None) -> Split:
    """The last `share` of each user's events, rounded down but at least one; users with one event are not tested."""
    _checked_share(share, "share")
    description = f"per-user split: tested on the last {_percent(share)} of each user's events"
    return Split("per-user", None, description, reason, share=share, by_order=_needs_order(events))


def rolling_per_user(
    events: pl.DataFrame, share: float = 0.2, windows: int = 3, reason: str | None = None
) -> list[Split]:
    """The events of each user that `per_user_cut` tests as `windows` consecutive parts, one per-user split for each.

    A user with fewer tested events than windows is asked at some of them only, which a stable hash of the user decides:
    else all such users would be asked at the last one.
    """
    _checked_windows(windows)
    whole = per_user_cut(events, share, reason)
    if windows == 1:
        return [whole]
    return [
        replace(
            whole,
            description=f"per-user split, cut {number} of {windows}: tested on part {number} of {windows} "
            f"of the last {_percent(share)} of each user's events",
            window=number,
            windows=windows,
        )
        for number in range(1, windows + 1)
    ]


def leave_last_out(events: pl.DataFrame) -> Split:
    """Each user's last new item: the cut falls as late as it can with a right answer left that was not known before.

    Without repeats that is the user's last event. From the cut on there are that item and known ones only, so exactly
    one pair is tested for each user who has one; a user with a single item is not tested.
    """
    description = "leave-last-out split: tested on the last new item of each user"
    return Split("leave-last", None, description, by_order=_needs_order(events))


def user_split(events: pl.DataFrame, share: float = 0.2, fold_in: float = 0.8, salt: str = "") -> Split:
    """Strong generalisation: users with blake2b(salt, user_id) / 2^64 < `share` are held out of training."""
    _checked_share(share, "share")
    _checked_share(fold_in, "fold_in")
    description = (
        f"user split: {_percent(share)} of users held out, scored from the first {_percent(fold_in)} of their events, "
        "tested on the rest"
    )
    return Split("user", None, description, share=share, fold_in=fold_in, salt=salt, by_order=_needs_order(events))


def random_pairs(events: pl.DataFrame, share: float = 0.2, salt: str = "") -> Split:
    """Pairs with a salted 64-bit hash of (user, item) below `share` · 2^64 are tested, with all their events.

    Events without an item are learned from. Nothing of a tested pair is known, but much of what came after it is.
    """
    _checked_share(share, "share")
    if not events["item_id"].count():
        raise MissingInput("there are no events with an item to split", hint="persona ingest FILE")
    description = (
        f"random split: tested on a random {_percent(share)} of (user, item) pairs; "
        "models know the future here, so the figures are too good"
    )
    return Split("random", None, description, share=share, salt=salt)


def sides(split: Split, events: pl.DataFrame) -> pl.Series:
    """Side of each row, aligned with `events`: train (to fit on), known (to score held-out users from), test, or later
    (after the window that is tested: it does not exist)."""
    if split.kind == "time":
        if split.cut is None:
            raise UsageError("a time split has no cut; expected an instant")
        times = times_of(events)
        side = np.where(times >= _micros(split.cut), _TEST, _TRAIN)
        if split.end is not None:
            side = np.where(times >= _micros(split.end), _LATER, side)
    elif split.kind == "random":
        side = np.where(pair_hashes(events, f"random {split.salt}") < _threshold(split.share), _TEST, _TRAIN)
        side = np.where(events["item_id"].is_null().to_numpy(), _TRAIN, side)
    else:
        line = timeline(events, split.by_order)
        if split.kind == "leave-last":
            side = np.where(line.place >= _last_new_items(events, line)[line.user], _TEST, _TRAIN)
        elif split.kind == "per-user":
            first, end = _window(line, split)
            side = np.where(line.place >= first[line.user], _TEST, _TRAIN)
            if split.window < split.windows:
                side = np.where(line.place >= end[line.user], _LATER, side)
        else:
            held_out = stable_hashes(line.users, split.salt) < _threshold(split.share)  # (n_users,)
            late = line.place >= _first_tested(line, 1.0 - split.fold_in)[line.user]
            side = np.where(held_out[line.user], np.where(late, _TEST, _KNOWN), _TRAIN)
    return _SIDES.gather(pl.Series(side)).alias("side")


def apply(split: Split, events: pl.DataFrame) -> Parts:
    """Divide `events` by `split`."""
    side = sides(split, events)
    columns = [column for column in ("relevant", "consumed") if column in events.columns]
    pairs = _with_item(events.select("user_id", "item_id", *columns, side))
    tested, before = pairs.filter(pl.col("side") == "test"), pairs.filter(pl.col("side").is_in(["train", "known"]))
    if "relevant" in columns:
        tested = tested.filter("relevant")
    if "consumed" in columns:
        before = before.filter("consumed")
    test = tested.select("user_id", "item_id").unique().join(before, on=["user_id", "item_id"], how="anti")
    train = events.filter(side == "train")
    known = events.filter(side == "known") if split.kind == "user" else train
    return Parts(train, known, test.sort("user_id", "item_id"))


def _first_tested(line: Timeline, share: float) -> Integers:
    """Place from which each user's events are tested (n_users,)."""
    tested = np.floor(share * line.counts + 1e-9).astype(np.int64)  # 1e-9: 0.29 * 100 is 28.999…
    return np.where(line.counts >= 2, line.counts - np.maximum(tested, 1), line.counts + 1)


def _window(line: Timeline, split: Split) -> tuple[Integers, Integers]:
    """Places from which and before which each user's events are tested (n_users,) both.

    Of t tested events, window j of m starts after floor(((j - 1) t + h) / m) of them, h in 0 … m - 1 by a hash of the
    user: together the windows are all t.
    """
    first = _first_tested(line, split.share)
    if split.windows == 1:
        return first, line.counts
    tested = np.maximum(line.counts - first, 0)  # (n_users,)
    shift = (stable_hashes(line.users, "windows") % np.uint64(split.windows)).astype(np.int64)
    starts = [first + (number * tested + shift) // split.windows for number in (split.window - 1, split.window)]
    return starts[0], starts[1]


def _last_new_items(events: pl.DataFrame, line: Timeline) -> Integers:
    """Latest place of each user from which one unknown right answer follows (n_users,).

    A pair can be tested from place p when it has a relevant event at p or after and no consumed event before p: for p
    up to min(first consumed, last relevant). The largest of these over the user's items belongs to one item.
    """
    flags = [pl.col(name) if name in events.columns else pl.lit(True).alias(name) for name in ("relevant", "consumed")]
    frame = _with_item(events.select("item_id", *flags, user=pl.Series(line.user), place=pl.Series(line.place)))
    last = (
        frame.group_by("user", "item_id")
        .agg(
            pl.col("place").filter(pl.col("relevant")).max().alias("relevant"),
            pl.col("place").filter(pl.col("consumed")).min().alias("consumed"),
        )
        .filter(pl.col("relevant").is_not_null())
        .group_by("user")
        .agg(pl.min_horizontal("relevant", "consumed").max().alias("place"))
        .filter(pl.col("place") > 0)  # at 0 nothing would be known of the user
    )
    places = line.counts + 1
    places[last["user"].to_numpy()] = last["place"].to_numpy()
    return places


def _cut_micros(times: Integers, test_share: float) -> int:
    place = min(int(np.floor((1.0 - test_share) * len(times) + 1e-9)), len(times) - 1)
    cut, first = int(np.partition(times, place)[place]), int(times.min())
    if cut > first:
        return cut
    later = times[times > first]
    if not len(later):
        raise BadData(f"all {len(times)} events have the time {_text(first)}; a time split needs two")
    return int(later.min())


def _needs_order(events: pl.DataFrame) -> bool:
    return "order" in events.columns and usable_time(events) is not None


def _with_item(events: pl.DataFrame) -> pl.DataFrame:
    return events.filter(pl.col("item_id").is_not_null())


def _item_times(events: pl.DataFrame) -> Integers:
    times = times_of(_with_item(events))
    if not len(times):
        raise MissingInput("there are no events with an item to split", hint="persona ingest FILE")
    return times


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _threshold(share: float) -> np.uint64:
    """A uniform 64-bit hash is below it with probability `share`."""
    return np.uint64(int(share * 2.0**64))


def _checked_windows(windows: int) -> None:
    if windows < 1:
        raise UsageError(f"{windows} cuts are asked for; expected at least 1")


def _checked_share(share: float, name: str) -> None:
    if not 0.0 < share < 1.0:
        raise UsageError(f"{name} is {share}; expected more than 0 and less than 1")


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _text(micros: int) -> str:
    return (_EPOCH + timedelta(microseconds=micros)).strftime("%Y-%m-%d %H:%M:%S UTC")
