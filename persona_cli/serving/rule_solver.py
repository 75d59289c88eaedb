"""Lists of a block of users under rules, all users at a time: numpy over (n_users, n_candidates).

Four stages fill each list, every stage one entry of all users at a time:

    pins      what is pinned, in its order
    needs     what a list must hold at the least, of each need the best by score; the scarcest need of a user first
    fill      the best by score, or by the objective of a re-ranking (`serving.rule_items`)
    draws     entries drawn from what may still stand in the list: uniformly, so that an entry's propensity is
              1 / candidates, or with chances of their own, so that it is w / Σ w over the candidates

Limits (so many of one category, of one tag, nothing excluded) hold in all stages. Where no candidate is left under the
limits, those that are weaker than what is being filled are exceeded, the weakest first, and by no more than needed.
Nothing here decides whether a rule was kept: `serving.rule_checks` looks at the finished lists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from persona_cli.models.base import Floats
from persona_cli.serving.rule_items import Reranking

Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Need:
    """At least `wanted` (n_users,) of the candidates in `mask` (n_users, n_candidates)."""

    name: str
    mask: Bools
    wanted: Integers


@dataclass(frozen=True)
class Pin:
    """At most `at_most` of the candidates that have an `order` below infinity (n_users, n_candidates), lowest first."""

    order: Floats
    at_most: int


@dataclass(frozen=True)
class Candidates:
    """What lists are made from; columns are in order of score, so that ties go to the first."""

    scores: Floats
    """-inf: may not be shown at all (n_users, n_candidates)."""
    categories: Integers
    """Number of the category, -1: none (n_users, n_candidates)."""
    tags: Integers
    """Numbers of the tags, -1: none (n_users, n_candidates, n_tags)."""
    excluded: Bools
    """May be shown only if exclusions give way (n_users, n_candidates)."""
    pins: list[Pin]
    needs: list[Need]
    personal: Bools
    """Whom the rules but pins and exclusions are for (n_users,)."""
    draws: NDArray[np.uint64]
    """Random keys (n_users, n_candidates); the lowest is drawn."""
    chances: NDArray[np.float64] | None = None
    """w: how likely each is drawn beside the others, above 0 where it may be (n_users, n_candidates); None: alike."""


@dataclass(frozen=True)
class Wanted:
    """How lists are to be."""

    top: int
    drawn: Integers
    """Entries that are drawn (n_users,)."""
    max_per_category: int
    max_per_tag: int
    min_categories: int
    strengths: dict[str, int]
    """Name of a rule → its place in the order of giving way; the highest gives way last."""
    objective: Callable[[], Reranking] | None = None
    """Begins a re-ranking of these candidates; None: by score."""


class Solved(NamedTuple):
    """Columns of the candidates in order, -1 from the end of a list on."""

    columns: Integers
    """(n_users, top)"""
    pinned: Integers
    """Entries of each list, its first ones, that are pinned (n_users,)."""
    drawn: Bools
    """(n_users, top)"""
    propensity: NDArray[np.float64]
    """1 where nothing was drawn (n_users, top)."""


def likelihoods(scores: Floats) -> NDArray[np.float64]:
    """w of candidates by their scores (n_users, n_candidates): the score, where above 0, and a tenth of the best.

    So nobody's chance is more than eleven times that of another, and who has no score above 0 is drawn evenly.
    """
    there = np.where(scores > -np.inf, np.maximum(scores, 0.0), 0.0).astype(np.float64)
    best = there.max(axis=1, keepdims=True, initial=0.0)
    return np.where(best > 0, there + best / 10, 1.0)


def solve(candidates: Candidates, wanted: Wanted) -> Solved:
    """The lists; see the module."""
    return _Making(candidates, wanted).lists()


class _Making:
    """Lists under way."""

    def __init__(self, candidates: Candidates, wanted: Wanted) -> None:
        self.given, self.wanted = candidates, wanted
        self.n, self.m = candidates.scores.shape
        self.rows = np.arange(self.n)
        self.open = candidates.scores > -np.inf  # neither closed nor taken
        self.columns = np.full((self.n, wanted.top), -1, dtype=np.int64)
        self.length = np.zeros(self.n, dtype=np.int64)
        self.drawn = np.zeros((self.n, wanted.top), dtype=bool)
        self.propensity = np.ones((self.n, wanted.top))
        self.reranking = None if wanted.objective is None else wanted.objective()
        self.base = candidates.scores
        if candidates.chances is not None:
            # Exponential clocks: of any that are left, each is the next with the chance w / Σ w.
            uniform = ((candidates.draws >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
            self.clocks = -np.log(uniform) / np.maximum(candidates.chances, 1e-300)
        self.have = {need.name: np.zeros(self.n, dtype=np.int64) for need in candidates.needs}
        self.distinct = np.zeros(self.n, dtype=np.int64)
        self.new_category = candidates.categories >= 0  # no entry of the list is of it yet
        self.over: dict[str, Bools] = {}  # candidates that would exceed a limit
        if candidates.excluded.any():
            self.over["exclude"] = candidates.excluded
        if wanted.max_per_category:
            self.over["max_per_category"] = np.zeros((self.n, self.m), dtype=bool)
        if wanted.max_per_tag:
            self.over["max_per_tag"] = np.zeros((self.n, self.m), dtype=bool)

    def lists(self) -> Solved:
        for pin in self.given.pins:
            for _ in range(min(pin.at_most, self.wanted.top)):
                if not self._take(pin.order < np.inf, -pin.order, "pin", self.length < self.wanted.top).any():
                    break
        pinned = self.length.copy()
        self._needs()
        chosen = self.length.copy()
        everybody = np.ones((self.n, self.m), dtype=bool)
        draws = np.where(self.given.personal, np.minimum(self.wanted.drawn, self.wanted.top - chosen), 0)
        self._fill(everybody, self.wanted.top - draws)
        settled = self.length.copy()
        for _ in range(int(draws.max(initial=0))):
            self._draw(self.length < np.minimum(self.wanted.top, settled + draws))
        random = self.length.copy()
        self._fill(everybody, np.full(self.n, self.wanted.top))
        self._sort(pinned, settled, random)
        return Solved(self.columns, pinned, self.drawn, self.propensity)

    def _needs(self) -> None:
        """Take the best of what the list must hold, the scarcest first; where slots are few, what serves most needs."""
        needs = list(self.given.needs)
        least = self.wanted.min_categories
        names = [need.name for need in needs] + ["min_categories"] * bool(least)
        if not names:
            return
        strength = np.array([self.wanted.strengths[name] for name in names])
        weak_draws = np.array([self.wanted.strengths["exploration"] < one for one in strength])
        given_up = np.zeros((self.n, len(names)), dtype=bool)
        for _ in range(self.wanted.top * len(names)):
            missing = [need.wanted - self.have[need.name] for need in needs]
            masks = [need.mask for need in needs]
            if least:
                missing.append(np.where(self.given.personal, least - self.distinct, 0))
                masks.append(self.new_category)
            short = np.maximum(np.stack(missing, axis=1), 0)  # (n, n_needs)
            slots = np.where(weak_draws[None, :], self.wanted.top, self.wanted.top - self.wanted.drawn[:, None])
            active = (short > 0) & ~given_up & (self.length[:, None] < slots)
            busy = active.any(axis=1)
            if not busy.any():
                return
            free = self.wanted.top - self.length
            tight = (short * active).sum(axis=1) > free
            under = self.open & ~self._exceeding()
            left = np.stack([(mask & under).sum(axis=1) for mask in masks], axis=1)
            urgency = np.where(tight[:, None], -strength[None, :], left - short).astype(np.float64)
            urgency[~active] = np.inf
            which = urgency.argmin(axis=1)
            cover = np.zeros((self.n, self.m), dtype=np.float32)
            if tight.any():
                for number, mask in enumerate(masks):
                    cover += mask & active[:, number, None]
                cover[~tight] = 0
            # What serves more needs comes first, whatever the score: only its rank may decide among equals.
            value = self.base if not tight.any() else _ranked(self.base) + cover
            for number, name in enumerate(names):
                mine = busy & (which == number)
                if mine.any():
                    took = self._take(masks[number], value, name, mine)
                    given_up[mine & ~took, number] = True

    def _fill(self, mask: Bools, until: Integers) -> None:
        """Take by objective until each list has so many entries or nothing is left."""
        dry = np.zeros(self.n, dtype=bool)
        for _ in range(self.wanted.top):
            rows = (self.length < until) & ~dry
            if not rows.any():
                return
            value = self.base if self.reranking is None else self._objective()
            dry |= rows & ~self._take(mask, value, "length", rows)

    def _objective(self) -> Floats:
        assert self.reranking is not None
        return np.where(self.given.personal[:, None], self.reranking.values(), self.base)

    def _draw(self, rows: Bools) -> None:
        allowed = self.open & ~self._exceeding() & rows[:, None]
        among = allowed.sum(axis=1)
        some = among > 0
        if self.given.chances is None:
            column = np.where(allowed, self.given.draws, np.uint64(2**64 - 1)).argmin(axis=1)
        else:
            column = np.where(allowed, self.clocks, np.inf).argmin(axis=1)
        # A key may itself be the largest number.
        column = np.where(allowed[self.rows, column], column, allowed.argmax(axis=1))
        here = np.flatnonzero(some)
        self.drawn[here, self.length[here]] = True
        if self.given.chances is None:
            self.propensity[here, self.length[here]] = 1.0 / among[here]
        else:
            open_ = np.where(allowed, self.given.chances, 0.0)
            # Added up one by one: what a list depends on is its user alone, not the width of the block.
            sums = open_.cumsum(axis=1)[:, -1]
            self.propensity[here, self.length[here]] = open_[here, column[here]] / sums[here]
        self._put(here, column[here])

    def _take(self, mask: Bools, value: Floats, rule: str, rows: Bools) -> Bools:
        """One more entry for `rows` from `mask`, the highest `value`; for whom there was one (n_users,)."""
        eligible = self.open & mask
        eligible &= rows[:, None]
        allowed = eligible & ~self._exceeding()
        took = np.asarray(allowed.any(axis=1))
        weaker = sorted(
            (name for name in self.over if self.wanted.strengths[name] < self.wanted.strengths[rule]),
            key=lambda name: self.wanted.strengths[name],
        )
        for last in range(1, len(weaker) + 1):  # limits that give way before this rule does, the weakest first
            none = rows & ~took
            if not none.any():
                break
            kept = self._exceeding(tuple(weaker[:last]))
            allowed[none] = (eligible & ~kept)[none]
            took = np.asarray(allowed.any(axis=1))
        here = np.flatnonzero(took)
        if len(here):
            best = np.where(allowed[here], value[here], -np.inf)
            column = best.argmax(axis=1)
            # Every value may be -inf by itself.
            column = np.where(allowed[here, column], column, allowed[here].argmax(axis=1))
            self._put(here, column)
        return took

    def _exceeding(self, without: tuple[str, ...] = ()) -> Bools:
        found = np.zeros((self.n, self.m), dtype=bool)
        for name, over in self.over.items():
            if name not in without:
                found |= over
        return found

    def _put(self, rows: Integers, columns: Integers) -> None:
        """Add one entry to the list of each of `rows`."""
        given = self.given
        self.columns[rows, self.length[rows]] = columns
        self.length[rows] += 1
        self.open[rows, columns] = False
        for need in given.needs:
            self.have[need.name][rows] += need.mask[rows, columns]
        category = given.categories[rows, columns]
        if self.wanted.min_categories:
            self.distinct[rows] += self.new_category[rows, columns]
            self.new_category[rows] &= given.categories[rows] != category[:, None]
        if self.wanted.max_per_category:
            entries = np.where(
                self._listed(rows), np.take_along_axis(given.categories[rows], self._columns(rows), 1), -2
            )
            full = ((entries == category[:, None]).sum(axis=1) >= self.wanted.max_per_category) & (category >= 0)
            full &= given.personal[rows]
            here = rows[full]
            self.over["max_per_category"][here] |= given.categories[here] == category[full, None]
        if self.wanted.max_per_tag:
            self._close_tags(rows, columns)
        if self.reranking is not None:
            self.reranking.took(rows, columns)

    def _close_tags(self, rows: Integers, columns: Integers) -> None:
        own = self.given.tags[rows, columns]  # (n, n_tags)
        listed = np.where(
            self._listed(rows)[:, :, None], self.given.tags[rows[:, None], self._columns(rows)], -2
        )  # (n, top, n_tags)
        for number in range(own.shape[1]):
            tag = own[:, number]
            full = ((listed == tag[:, None, None]).sum(axis=(1, 2)) >= self.wanted.max_per_tag) & (tag >= 0)
            full &= self.given.personal[rows]
            here = rows[full]
            if len(here):
                self.over["max_per_tag"][here] |= (self.given.tags[here] == tag[full, None, None]).any(axis=2)

    def _listed(self, rows: Integers) -> Bools:
        return self.columns[rows] >= 0

    def _columns(self, rows: Integers) -> Integers:
        return np.maximum(self.columns[rows], 0)

    def _sort(self, pinned: Integers, settled: Integers, random: Integers) -> None:
        """Pins; the others by score, or by the objective; what exclusions that gave way let in; what was drawn."""
        at = np.arange(self.wanted.top)[None, :]
        draws = (at >= settled[:, None]) & (at < random[:, None])
        columns = np.maximum(self.columns, 0)
        yielded = np.take_along_axis(self.given.excluded, columns, 1)
        part = np.where(draws, 3, np.where(self.columns >= 0, np.where(yielded, 2, 1), 4))
        part = np.where(at < pinned[:, None], 0, part)
        scores = np.take_along_axis(self.base, columns, 1)
        value = np.where((part == 1) | (part == 2), -scores, at.astype(np.float32))
        if self.reranking is not None:  # what was needed came first, but belongs where the objective puts it
            value = np.where((part == 1) & self.given.personal[:, None], self._places(part == 1), value)
        order = np.lexsort((columns, value, part), axis=1)
        for name in ("columns", "drawn", "propensity"):
            setattr(self, name, np.take_along_axis(getattr(self, name), order, 1))

    def _places(self, mine: Bools) -> Floats:
        """The places of these entries when the objective takes them one after the other (n_users, top)."""
        assert self.wanted.objective is not None
        again = self.wanted.objective()
        before = np.flatnonzero((~mine & (self.columns >= 0)).any(axis=1))
        for place in range(self.wanted.top):  # pins count among what the list holds
            rows = before[~mine[before, place] & (self.columns[before, place] >= 0) & ~self.drawn[before, place]]
            if len(rows):
                again.took(rows, self.columns[rows, place])
        places = np.zeros(mine.shape, dtype=np.float32)
        left = mine.copy()
        columns = np.maximum(self.columns, 0)
        for number in range(self.wanted.top):
            rows = np.flatnonzero(left.any(axis=1))
            if not len(rows):
                break
            values = np.where(left[rows], np.take_along_axis(again.values()[rows], columns[rows], 1), -np.inf)
            # Ties: the first column of the candidates, not of the list.
            best = np.lexsort((columns[rows], -values), axis=1)[:, 0]
            places[rows, best] = number
            left[rows, best] = False
            again.took(rows, columns[rows, best])
        return places


def _ranked(scores: Floats) -> Floats:
    """Scores as numbers between 0 and 1 in their order, equal ones equal, of each row (n_users, n_candidates)."""
    order = np.argsort(-scores, axis=1, kind="stable")
    sorted_ = np.take_along_axis(scores, order, 1)
    steps = np.zeros(scores.shape, dtype=np.float32)
    steps[:, 1:] = np.cumsum(sorted_[:, 1:] != sorted_[:, :-1], axis=1)
    found = np.empty_like(steps)
    np.put_along_axis(found, order, 1 - (steps + 1) / (scores.shape[1] + 1), axis=1)
    return found
