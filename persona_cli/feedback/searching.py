"""How strengths of event types are searched for: past cuts judged at any of them.

The search for better strengths: one coordinate after the other, moved only where that is a clear and steady gain.

One past cut judged at any strengths of the event types: events are folded once, and only sums are made anew.

A history row is made of so many events of each signal, and other strengths are one more sum over these numbers. A
signal is a key of `[signals.strengths]` (`purchase`, `rating>=4`), or an event type that the table does not list.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.intervals import Interval, mean_interval, paired_difference
from persona_cli.evaluation.judging import Beside
from persona_cli.evaluation.rolling import pooled
from persona_cli.feedback.candidates import ALONE, Panel, Values
from persona_cli.models import kinds
from persona_cli.models.base import Interactions
from persona_cli.models.interactions import interactions
from persona_cli.models.layered import Layered
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import prepared
from persona_cli.profiles.history import KEY, fold_history
from persona_cli.profiles.preferences import lifted_in
from persona_cli.profiles.signal_fit import RATED
from persona_cli.profiles.signals import THOUSANDTHS
from persona_cli.workspace.setting import parse_condition
from persona_cli.workspace.settings import Settings

LEVEL = 0.95
SWEEPS = 3
log = logging.getLogger("persona")


class Coordinate(NamedTuple):
    """One number that may change, or several strengths that may come to one number together."""

    places: tuple[int | None, ...]
    """Positions in `Point.strengths`; None: the half-life."""
    values: tuple[float, ...]
    """Thousandths or days that may be tried, those nearest to what is declared first."""


class Search:
    """The point reached, judged at every cut."""

    def __init__(self, pasts: Sequence[Past], start: Point) -> None:
        self.pasts, self.start, self.here = pasts, start, start

    def run(self, coordinates: Sequence[Coordinate]) -> None:
        """Move along one coordinate after the other while it is a clear gain."""
        for _ in range(SWEEPS):
            before = self.here
            for coordinate in coordinates:
                others = self.others(coordinate)
                better = [point for point in others if self._wins(point, len(others))]
                # Of equal ones the nearest to what is declared, which is the first.
                self.here = max(better, key=lambda point: self.mean(point), default=self.here)
            if self.here == before:
                return

    def others(self, coordinate: Coordinate) -> list[Point]:
        """This point with every other value of a coordinate."""
        points = [moved(self.here, coordinate.places, value) for value in coordinate.values]
        return [point for point in points if point != self.here]

    def gain(self, point: Point, than: Point, of: int = 1) -> Interval:
        """Of the mean over users, each user's mean over the cuts; the interval holds over `of` such comparisons."""
        both = self._pooled(point, than)
        return paired_difference(both["ours"], both["theirs"], level=1.0 - (1.0 - LEVEL) / of)

    def value(self, point: Point) -> Interval:
        """NDCG@20, with an interval of 95 % that holds for itself alone."""
        return mean_interval(self._pooled(point, point)["ours"])

    def mean(self, point: Point) -> float:
        """NDCG@20."""
        return float(self._pooled(point, point)["ours"].mean())

    def runner_up(self, coordinate: Coordinate) -> Point | None:
        """The best other value by the first cut, where all have been judged; None: no value makes a difference."""
        first = self.pasts[0]
        differ = [point for point in self.others(coordinate) if not first.alike(point, self.here)]
        return max(differ, key=lambda point: float(first.values(point).mean()), default=None)

    def _wins(self, point: Point, of: int) -> bool:
        for one in self.pasts:  # one cut at which it is worse decides, and saves the others
            log.debug("strengths: %s at %s", point, one.exam.headline)
            if one.values(point).mean() < one.values(self.here).mean():
                return False
        low = self.gain(point, self.here, of).low
        return low is not None and low > 0.0

    def _pooled(self, point: Point, than: Point) -> dict[str, Values]:
        frames = [
            pl.DataFrame({"user_id": one.users, "ours": one.values(point), "theirs": one.values(than)})
            for one in self.pasts
        ]
        together = pooled(frames)
        return {name: together[name].to_numpy() for name in ("ours", "theirs")}


def moved(point: Point, places: Sequence[int | None], value: float) -> Point:
    """`point` with the value at each of `places`."""
    if None in places:
        return point._replace(half_life=value)
    return point._replace(
        strengths=tuple(int(value) if place in places else old for place, old in enumerate(point.strengths))
    )


def value_at(point: Point, place: int | None) -> float:
    """The value at a place: thousandths, or days."""
    return point.half_life if place is None else float(point.strengths[place])


Ints = NDArray[np.int64]
CLIPPING = ("knn", "ease", "als", "spectral")
"""Models that read no strength beyond model.gram.cap."""
_HALF_LIFE = "signals.half_life_days"
_COLUMN, _SHARE = "signal", "share"
_WHOLE = 1_000_000


class Point(NamedTuple):
    """What is judged."""

    strengths: tuple[int, ...]
    """Thousandths of each signal; of one that means never 0."""
    half_life: float
    """signals.half_life_days."""


def with_signal(events: pl.DataFrame, settings: Settings) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """`events` (event_type, value, strength, …) with `signal` and `share`, and the names that `signal` numbers.

    Names are the keys of the table in its order, then the event types of events that are under none of them, sorted.
    `share`, in millionths, is how far an event counts by itself, whatever the strength of its signal: in full, but for
    events that are graded by their value.
    """
    table = settings.table("signals.strengths")
    listed, signal = list(table), np.full(events.height, -1, dtype=np.int64)
    conditions = [(number, parse_condition(key)) for number, key in enumerate(listed)]
    # The first that holds counts, comparisons first: so those that are tried last are put in first.
    for number, condition in reversed(conditions):
        if condition.op is None:
            signal[(events["event_type"] == condition.event_type).to_numpy()] = number
    compared = [(number, condition) for number, condition in conditions if condition.op is not None]
    places = np.flatnonzero(events["event_type"].is_in([one.event_type for _, one in compared]).to_numpy())
    pairs = zip(*(events[name].gather(places).to_list() for name in ("event_type", "value")), strict=True)
    for place, (event_type, value) in zip(places, pairs, strict=True):
        signal[place] = next((number for number, one in compared if one.holds(event_type, value)), signal[place])
    others = events["event_type"].filter(pl.Series(signal < 0)).unique().sort()
    unlisted = np.flatnonzero(signal < 0)
    signal[unlisted] = len(listed) + others.search_sorted(events["event_type"].gather(unlisted)).to_numpy()
    names = (*listed, *others)
    stated = [table.get(name, settings.number("signals.other")) for name in names]
    declared = np.array([0.0 if isinstance(entry, str) else THOUSANDTHS * entry for entry in stated])[signal]
    strength = events["strength"].to_numpy()
    shares = np.divide(strength, declared, out=np.ones(events.height), where=declared != 0)
    if RATED in events.columns:  # ratings that are centred speak by themselves, whatever is declared
        shares[events[RATED].is_not_null().to_numpy()] = 0.0
    share = np.round(shares * _WHOLE).astype(np.int64)
    return events.with_columns(pl.Series(_COLUMN, signal), pl.Series(_SHARE, share)), names


class Past:
    """The users asked at one cut, and what they would be shown at given strengths."""

    def __init__(self, exam: Exam, settings: Settings, model: str, beside: Beside = ALONE) -> None:
        """`exam.train` has columns `signal` and `share`, and is what users are scored from too."""
        self.exam, self.settings, self.model = exam, settings, model
        self.users = exam.users
        self.ordered = kinds.ordered(model, settings)
        self.beside, self.catalogue = beside, beside.items(exam)
        self.history, self.lifted = fold_history(exam.train), lifted_in(exam.train)
        keyed = (
            exam.train.lazy().filter(pl.col("item_id").is_not_null()).with_columns(day=pl.col("timestamp").dt.date())
        )
        counted = keyed.group_by(*KEY, _COLUMN).agg(pl.col(_SHARE).sum())
        placed = self.history.lazy().select(KEY).with_row_index("row").join(counted, on=KEY).sort("row", _COLUMN)
        found = placed.select("row", _COLUMN, _SHARE).collect()
        rows = found["row"].to_numpy()
        self.starts: Ints = np.flatnonzero(np.diff(rows, prepend=-1))  # where each history row begins
        self.signals, self.shares = found[_COLUMN].to_numpy(), found[_SHARE].to_numpy()
        self.found: dict[bytes, Values] = {}
        self.known: dict[Point, bytes] = {}

    def values(self, point: Point) -> Values:
        """NDCG@20 of what would be served, layered around the model, for each of `users` (n_users,)."""
        return self.found[self._digest_of(point)]

    def alike(self, point: Point, other: Point) -> bool:
        """Whether two points come to the same numbers in models."""
        return self._digest_of(point) == self._digest_of(other)

    def history_at(self, point: Point) -> pl.DataFrame:
        """The history as if the events had been folded at these strengths."""
        parts = _scaled(np.array(point.strengths, dtype=np.int64)[self.signals], self.shares)
        return self.history.with_columns(strength=pl.Series(np.add.reduceat(parts, self.starts)))

    def _digest_of(self, point: Point) -> bytes:
        """The digest under which the figures of a point are found from now on."""
        if point not in self.known:
            settings = self.settings.with_flags({_HALF_LIFE: point.half_life})
            strengths = np.array(point.strengths, dtype=np.int64)
            matrix = interactions(self.history_at(point), settings, lifted=self.lifted)
            digest = self._digest(matrix, strengths > 0)
            if digest not in self.found:
                self.found[digest] = self._judged(matrix, strengths, settings)
            self.known[point] = digest
        return self.known[point]

    def _judged(self, matrix: Interactions, strengths: Ints, settings: Settings) -> Values:
        train = self.exam.train
        scaled = _scaled(strengths[train[_COLUMN].to_numpy()], train[_SHARE].to_numpy())
        if RATED in train.columns:
            scaled = np.where(train[RATED].is_not_null().to_numpy(), train["strength"].to_numpy(), scaled)
        events = train.with_columns(strength=pl.Series(scaled))
        training = prepared(matrix, events, settings, self.exam.as_of, catalogue=self.catalogue, ordered=self.ordered)
        popular = Popular.from_settings(settings).fit(training)
        individual = kinds.unfitted(self.model, settings).fit(training)
        panel = Panel(self.exam, settings, training.interactions, self.ordered, self.beside)
        evidence = settings.number_or_word("model.layered.evidence")
        return panel.values(Layered(popular, individual, evidence).joined()).to_numpy()

    def _digest(self, matrix: Interactions, wanted: NDArray[np.bool_]) -> bytes:
        """Of all that the figures depend on: strengths that differ beyond the cap alone make no difference."""
        cap = np.float32(self.settings.number("model.gram.cap") if self.model in CLIPPING else np.inf)
        found = hashlib.sha256(wanted.tobytes())
        for one in (matrix.strengths, matrix.dislikes):
            for part in () if one is None else _parts(one, cap):
                found.update(part.tobytes())
        return found.digest()


def _scaled(strengths: Ints, shares: Ints) -> Ints:
    """Thousandths of a strength times millionths of events, in thousandths."""
    return np.round(strengths * (shares / _WHOLE)).astype(np.int64)


def _parts(matrix: sparse.csr_array, cap: np.float32) -> tuple[NDArray[np.generic], ...]:
    return np.minimum(matrix.data, cap), matrix.indices, matrix.indptr
