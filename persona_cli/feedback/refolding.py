"""One past cut judged at any strengths of the event types: events are folded once, and only sums are made anew.

A history row is made of so many events of each signal, and other strengths are one more sum over these numbers. A
signal is a key of `[signals.strengths]` (`purchase`, `rating>=4`), or an event type that the table does not list.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.evaluation.asking import Beside
from persona_cli.evaluation.exams import Exam
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
from persona_cli.workspace.expressions import parse_condition
from persona_cli.workspace.settings import Settings

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
