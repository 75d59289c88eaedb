"""The search for better strengths: one coordinate after the other, moved only where that is a clear and steady gain."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from persona_cli.evaluation.intervals import Interval, mean_interval, paired_difference
from persona_cli.evaluation.rolling import pooled
from persona_cli.feedback.candidates import Values
from persona_cli.feedback.refolding import Past, Point

LEVEL = 0.95
SWEEPS = 3
log = logging.getLogger("persona")


class Coordinate(NamedTuple):
    """One number that may change."""

    place: int | None
    """Position in `Point.strengths`; None: the half-life."""
    values: tuple[float, ...]
    """Thousandths or days that it may have, those nearest to what is declared first; that itself is one of them."""


class Search:
    """The point reached, judged at every cut."""

    def __init__(self, pasts: Sequence[Past], start: Point) -> None:
        self.pasts, self.start, self.here = pasts, start, start
        self.tried = 1
        """Values beside those declared that it could have come to by one step: so many comparisons every interval holds
        over."""

    def run(self, coordinates: Sequence[Coordinate]) -> None:
        """Move along one coordinate after the other while it is a clear gain."""
        self.tried = max(1, sum(len(one.values) - 1 for one in coordinates))
        for _ in range(SWEEPS):
            before = self.here
            for coordinate in coordinates:
                better = [point for point in self.others(coordinate) if self._wins(point)]
                # Of equal ones the nearest to what is declared, which is the first.
                self.here = max(better, key=lambda point: self.mean(point), default=self.here)
            if self.here == before:
                return

    def others(self, coordinate: Coordinate) -> list[Point]:
        """This point with every other value of a coordinate."""
        points = [moved(self.here, coordinate.place, value) for value in coordinate.values]
        return [point for point in points if point != self.here]

    def gain(self, point: Point, than: Point) -> Interval:
        """Of the mean over users, each user's mean over the cuts; the interval holds over all values tried."""
        both = self._pooled(point, than)
        return paired_difference(both["ours"], both["theirs"], level=1.0 - (1.0 - LEVEL) / self.tried)

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

    def _wins(self, point: Point) -> bool:
        for one in self.pasts:  # one cut at which it is worse decides, and saves the others
            log.debug("strengths: %s at %s", point, one.exam.headline)
            if one.values(point).mean() < one.values(self.here).mean():
                return False
        low = self.gain(point, self.here).low
        return low is not None and low > 0.0

    def _pooled(self, point: Point, than: Point) -> dict[str, Values]:
        frames = [
            pl.DataFrame({"user_id": one.users, "ours": one.values(point), "theirs": one.values(than)})
            for one in self.pasts
        ]
        together = pooled(frames)
        return {name: together[name].to_numpy() for name in ("ours", "theirs")}


def moved(point: Point, place: int | None, value: float) -> Point:
    """`point` with another value of the coordinate at `place`."""
    if place is None:
        return point._replace(half_life=value)
    strengths = list(point.strengths)
    strengths[place] = int(value)
    return point._replace(strengths=tuple(strengths))


def value_at(point: Point, place: int | None) -> float:
    """The value of the coordinate at `place`: thousandths, or days."""
    return point.half_life if place is None else float(point.strengths[place])
