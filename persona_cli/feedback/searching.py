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
