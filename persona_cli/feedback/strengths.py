"""`persona strengths`: what each event type says about what users will want, learned from what followed at past cuts.

Wanted are the held-out items of one event type, the target. Strengths start as declared. Over a coarse grid all types
but the target are tried at one strength together, then each strength by itself, then the half-life of their fading
(coordinate descent), again as long as something changes. Judged is NDCG@20 of what would be served around a fast model,
at the cuts in time at which `persona train` compares models. A value takes the place of another only where it is

    clearly better    the paired interval of the difference over users, each user's mean over the cuts, lies above 0;
                      its level is 95 % over all values that are tried in its place at once (Bonferroni)
    steady            its mean is not below the other's at any cut

so noise leaves what is declared. The grid counts in units of what the target's strength comes to in a model, which is
at most model.gram.cap. Values beyond the cap differ only in how long they take to fade.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from persona_cli.errors import MissingInput
from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.intervals import Interval
from persona_cli.evaluation.judging import Beside
from persona_cli.evaluation.timelines import stable_hashes
from persona_cli.feedback.candidates import ALONE, METRIC
from persona_cli.feedback.choosing import IF_CENTRED, NEEDED
from persona_cli.feedback.searching import Coordinate, Past, Point, Search, moved, value_at, with_signal
from persona_cli.feedback.targets import Stated, Wanted, condition_of, held_out, n_asked, stated_of, targets
from persona_cli.feedback.training import hyper_parameters
from persona_cli.models import kinds
from persona_cli.profiles.history import signal_events
from persona_cli.profiles.permitted import TRAINING
from persona_cli.profiles.signals import NEVER, THOUSANDTHS
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings, render_table

GRID = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Strengths that are tried, in units of the target's; a negative strength is tried at the same values below 0."""
HALF_LIVES = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Half-lives that are tried, in days, as far as the events reach; 0: nothing fades."""
REACH = 3.0
"""A half-life longer than this many times the span of the events is as good as none."""
EVIDENCE = 50
"""Users with an event of a type, below which its strength stays as declared; and users with a held-out item of a type,
below which it is not the target by itself."""
HELD_OUT = 20
"""Users with a held-out item of the target, below which nothing is learned."""
MOST_EVENTS = 2_000_000
"""Of more events than this, those of a share of the users are learned from."""
HALF_LIFE = "signals.half_life_days"
LEARNED, TOGETHER = "learned", "learned with others"
UNCLEAR, NO_DIFFERENCE = "kept: no clear gain", "kept: no difference"


@dataclass(frozen=True)
class Weighed:
    """One event type, or the half-life."""

    event_type: str
    """As a key of `[signals.strengths]`."""
    events: int
    """Its events with an item."""
    users: int
    declared: float | str
    learned: float | str
    tried: float | None
    """The value that `gain` is of: what was learned, else the best of the others. None: none was tried."""
    gain: Interval | None
    """NDCG@20 with that value - with the declared one, all else as learned; 95 % over all values tried in its place."""
    note: str
    """`LEARNED`, `TOGETHER` where it is no clear gain by itself, or "kept: " and why."""

    @property
    def changed(self) -> bool:
        return self.declared != self.learned


@dataclass(frozen=True)
class Cut:
    """One past moment, and NDCG@20 there."""

    headline: str
    cut: datetime
    until: datetime | None
    users: int
    declared: float
    learned: float


@dataclass(frozen=True)
class Learned:
    """What was learned, from what, and how sure it is."""

    target: str
    why: str
    """Why this target."""
    model: str
    metric: str
    users: int
    """Different users asked."""
    cuts: tuple[Cut, ...]
    tried: int
    """Values on all grids beside those declared."""
    signals: tuple[Weighed, ...]
    """Most events first."""
    half_life: Weighed
    declared: Interval
    """NDCG@20 with the strengths declared."""
    learned: Interval
    gain: Interval | None
    """Of all that was learned, on the users it was chosen by; None where nothing was."""
    settings: dict[str, float | dict[str, float | str]]
    """What changes in persona.toml, whole tables; empty where nothing does."""
    notes: tuple[str, ...] = ()

    def toml(self) -> list[str]:
        """`settings` as lines of persona.toml."""
        lines = []
        if HALF_LIFE in self.settings:
            lines += ["[signals]", f"half_life_days = {self.half_life.learned:g}"]
        table = self.settings.get("signals.strengths")
        if isinstance(table, dict):
            lines += render_table("signals.strengths", {key: _short(entry) for key, entry in table.items()})
        return lines


def learn(
    home: Home,
    target: str | None = None,
    model: str = "knn",
    overrides: Mapping[str, Any] | None = None,
    as_of: datetime | None = None,
) -> Learned:
    """Learn the strengths of the workspace's event types (before `as_of`); nothing is written.

    `target`: an event type or a key of `[signals.strengths]`; default: the strongest one declared of which at least 50
    users have something held out. `overrides`: settings of models and of training, as for `persona train`. Raises
    UsageError for an unknown target or model, MissingInput where there are no events, too few users, or one event type
    alone.
    """
    settings = home.settings.with_flags(hyper_parameters(overrides or {}, [kinds.known(model, kinds.INDIVIDUAL)]))
    known = signal_events(home, as_of, purpose=TRAINING)
    events = known.select(*dict.fromkeys((*NEEDED, "value")), IF_CENTRED).collect()
    return from_events(events, settings, target, model, Beside.of(home, as_of, purpose=TRAINING))


def from_events(
    events: pl.DataFrame,
    settings: Settings,
    target: str | None = None,
    model: str = "knn",
    beside: Beside = ALONE,
) -> Learned:
    """As `learn`, of rows of `signal_events`; their order does not matter."""
    if not events["item_id"].count():
        raise MissingInput("there are no events with an item to learn strengths from", "persona ingest FILE")
    events, notes = _some(events)
    events, names = with_signal(events, settings)
    stated = stated_of(events, names, settings)
    search, wanted, why = _search(events, names, stated, target, settings, model, beside)
    coordinates = _coordinates(names, stated, wanted, events, settings)
    if not any(one.places not in ((None,), (wanted.anchor,)) for one in coordinates):
        raise MissingInput(
            f"there is nothing to weigh {names[wanted.anchor]} against: no other event type has an item of {EVIDENCE} "
            "users or more",
            "ingest events of other types, such as view",
        )
    search.run(coordinates)
    return _report(search, coordinates, names, stated, wanted, why, model, settings, notes)


def _some(events: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """All events; of too many those of a share of the users, whose ids have the smallest hashes."""
    if events.height <= MOST_EVENTS:
        return events, ()
    users = events["user_id"].unique().sort()
    drawn = stable_hashes(users, "strengths") < np.uint64(int(MOST_EVENTS / events.height * 2.0**64))
    kept = users.filter(pl.Series(drawn))
    note = f"learned from {len(kept):,} of {len(users):,} users: so many have about {MOST_EVENTS:,} events"
    return events.filter(pl.col("user_id").is_in(kept.implode())), (note,)


def _search(
    events: pl.DataFrame,
    names: Sequence[str],
    stated: Stated,
    target: str | None,
    settings: Settings,
    model: str,
    beside: Beside,
) -> tuple[Search, Wanted, str]:
    """The cuts with the held-out items of the target, and why it is this one."""
    best: tuple[Wanted, list[Exam]] | None = None
    short = []
    for wanted in targets(names, stated, target):
        exams = held_out(events, wanted, settings)
        if best is None or n_asked(exams) > n_asked(best[1]):
            best = wanted, exams
        if n_asked(exams) >= EVIDENCE:
            break
        short.append(f"{wanted.text} {n_asked(exams)}")
    if best is None:
        raise MissingInput(
            "no event type that occurs has a strength above 0, so nothing is wanted", "persona config show signals"
        )
    wanted, exams = best
    if (asked := n_asked(exams)) < HELD_OUT:
        raise MissingInput(
            f"too little is held out to learn from: {asked} users have a {wanted.text} of a new item there; "
            f"{HELD_OUT} are needed",
            "ingest more events, or give a --target that is more frequent",
        )
    why = "as asked for"
    if target is None:
        why = f"the strongest one declared ({stated.number(wanted.anchor):g}) with enough users held out"
        less = [text for text in short if not text.startswith(f"{wanted.text} ")]
        why += f" (fewer than {EVIDENCE}: {', '.join(less)})" if less else ""
    strengths = tuple(round(stated.number(signal) * THOUSANDTHS) for signal in range(len(names)))
    start = Point(strengths, settings.number(HALF_LIFE))
    return Search([Past(exam, settings, model, beside) for exam in exams], start), wanted, why


def _coordinates(
    names: Sequence[str], stated: Stated, wanted: Wanted, events: pl.DataFrame, settings: Settings
) -> list[Coordinate]:
    """What is searched: types with enough users together, each of them, most frequent first, and the half-life."""
    unit = min(stated.number(wanted.anchor), settings.number("model.gram.cap"))
    found = []
    for signal in sorted(range(len(names)), key=lambda signal: (-stated.events[signal], names[signal])):
        if _stays(names[signal], signal, stated) is not None:
            continue
        declared = round(stated.number(signal) * THOUSANDTHS)
        sign = -1 if declared < 0 else 1
        grid = {sign * round(times * unit * THOUSANDTHS) for times in GRID} | {declared}
        if signal == wanted.anchor:
            grid.discard(0)  # what is wanted says something
        found.append(Coordinate((signal,), tuple(sorted(map(float, grid), key=lambda one: (abs(one - declared), one)))))
    times = events["timestamp"].to_physical().to_numpy()
    days = float(times.max() - times.min()) / 86_400e6
    declared_life = settings.number(HALF_LIFE)
    lives = {life for life in HALF_LIVES if life <= REACH * days} | {declared_life}
    others = [one.places[0] for one in found if one.places[0] != wanted.anchor and min(one.values) >= 0]
    if len(others) > 1:
        grid = {round(times * unit * THOUSANDTHS) for times in GRID}
        found.insert(0, Coordinate(tuple(others), tuple(sorted(map(float, grid)))))
    return [*found, Coordinate((None,), tuple(sorted(lives, key=lambda one: (abs(one - declared_life), one))))]


def _stays(name: str, signal: int, stated: Stated) -> str | None:
    """Why a strength is not searched; None where it is."""
    if stated.declared[signal] == NEVER:
        return "kept: never"
    if stated.users[signal] < EVIDENCE:
        return f"kept: fewer than {EVIDENCE} users"
    return None if condition_of(name) is not None else "kept: no such key is possible"


def _report(
    search: Search,
    coordinates: Sequence[Coordinate],
    names: Sequence[str],
    stated: Stated,
    wanted: Wanted,
    why: str,
    model: str,
    settings: Settings,
    notes: tuple[str, ...],
) -> Learned:
    start, end = search.start, search.here
    by_place = {one.places[0]: one for one in coordinates if len(one.places) == 1}

    def weighed(place: int | None, name: str, events: int, users: int, declared: float | str) -> Weighed:
        was, now, scale = value_at(start, place), value_at(end, place), 1 if place is None else THOUSANDTHS
        if now != was:
            gain = search.gain(end, moved(end, (place,), was), len(by_place[place].values) - 1)
            note = LEARNED if gain.low is not None and gain.low > 0.0 else TOGETHER
            return Weighed(name, events, users, declared, now / scale, now / scale, gain, note)
        kept = Weighed(name, events, users, declared, declared, None, None, NO_DIFFERENCE)
        if place is not None and place not in by_place:
            return replace(kept, note=_stays(name, place, stated) or UNCLEAR)
        other = search.runner_up(by_place[place])
        if other is None:
            return kept
        gain = search.gain(other, end, len(by_place[place].values) - 1)
        return replace(kept, tried=value_at(other, place) / scale, gain=gain, note=UNCLEAR)

    there = [place for place in range(len(names)) if stated.events[place]]
    there.sort(key=lambda place: (-stated.events[place], names[place]))
    rows = tuple(
        weighed(place, names[place], stated.events[place], stated.users[place], stated.declared[place])
        for place in there
    )
    half_life = weighed(None, HALF_LIFE, sum(stated.events), stated.everyone, start.half_life)
    cuts = tuple(
        Cut(
            one.exam.headline,
            one.exam.as_of,
            one.exam.split.get("end"),
            len(one.users),
            float(one.values(start).mean()),
            float(one.values(end).mean()),
        )
        for one in search.pasts
    )
    changed: dict[str, float | dict[str, float | str]] = {}
    if half_life.changed:
        changed[HALF_LIFE] = end.half_life
    if given := {one.event_type: one.learned for one in rows if one.changed}:
        changed["signals.strengths"] = settings.table("signals.strengths") | given
    return Learned(
        wanted.text,
        why,
        model,
        METRIC,
        n_asked([one.exam for one in search.pasts]),
        cuts,
        sum(len(one.values) - (len(one.places) == 1) for one in coordinates),
        rows,
        half_life,
        search.value(start),
        search.value(end),
        search.gain(end, start) if end != start else None,
        changed,
        notes,
    )


def _short(entry: float | str) -> float | str:
    """Whole numbers without a point, as people write them."""
    return int(entry) if not isinstance(entry, str) and float(entry).is_integer() else entry
