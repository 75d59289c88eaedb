"""Lists of one user without parts of the history: virtual users, and the search for the fewest items that matter.

The user's history is folded once. Virtual users have it with some items dropped, all events with each; many are ranked
at a time, under the same rules and with the same draws. What was consumed stays hidden though it is dropped: an item
leaves since what spoke for it is gone, and not because a dropped item took its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import combinations
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.events.catalogue import unavailable
from persona_cli.models import registry
from persona_cli.models.base import reads_order, reads_queries
from persona_cli.models.interactions import interactions, with_times
from persona_cli.models.ranking import Lists, Ranking, ranking
from persona_cli.models.stored import positions
from persona_cli.models.wishes import Wishes
from persona_cli.profiles import preferences
from persona_cli.profiles.draws import keys
from persona_cli.profiles.identity import persons
from persona_cli.profiles.permitted import PERSONALIZATION, person_events
from persona_cli.profiles.read import nobody
from persona_cli.serving.context import Audience, audience, everyone, history_of
from persona_cli.serving.recommend import filling
from persona_cli.serving.rule_settings import rules_of
from persona_cli.serving.rules import Ruler, Ruling, ruling
from persona_cli.workspace.home import Home

BUDGET = 2_000
"""Lists that are made for one answer, about: sets beyond it are not tried, and the answer says so."""
_ROWS = 400_000  # of histories of virtual users at a time
_USERS = 512
_DENSE, _GROWTH = 32, 1.25  # sizes of the first sets tried: every one so far, then by this factor
Set = tuple[int, ...]
Leaves = Callable[[Sequence[Set]], Sequence[bool]]
"""Whether the item is gone from the list without each of these sets of positions."""


class Found(NamedTuple):
    """A set of positions."""

    chosen: Set
    smallest: bool
    """Whether all smaller sets were tried."""


def smallest_set(n: int, leaves: Leaves, budget: int = BUDGET) -> Found | None:
    """The fewest of n positions, those that matter most first, without which something leaves; None: none found.

    Sets are tried size by size, all of a size or, where more than the `budget` is left for, those of the positions that
    matter most; beside them the first 1, 2, 3, … positions, pruned until none can be spared. So none of the answer can
    be spared, and it says whether it is the smallest there is.
    """
    left, whole = budget, 0  # whole: up to which size every set was tried
    best: Set | None = None
    for size in range(1, n + 1):
        if best is not None and size >= len(best):
            break
        among = size
        while among < n and math.comb(among + 1, size) <= left:
            among += 1
        if math.comb(among, size) > left:
            break
        sets = list(combinations(range(among), size))
        left -= len(sets)
        hit = _first(sets, leaves)
        if hit is not None:
            best = pruned(hit, leaves)
            break
        if among == n and whole == size - 1:
            whole = size
        if size == 1:
            first = _first([tuple(range(end)) for end in _sizes(n)], leaves)
            best = None if first is None else pruned(first, leaves)
    return None if best is None else Found(best, len(best) <= whole + 1)


def pruned(chosen: Set, leaves: Leaves) -> Set:
    """A part of the set without which it leaves as well, and of which nothing can be spared."""
    while len(chosen) > 1:
        smaller = [tuple(one for one in chosen if one != out) for out in reversed(chosen)]
        spared = [out for out, gone in zip(reversed(chosen), leaves(smaller), strict=True) if gone]
        if not spared:
            break
        ends = range(len(spared), 0, -1)  # as many as possible at a time, those that matter least
        tried = [tuple(one for one in chosen if one not in set(spared[:end])) for end in ends]
        chosen = tried[list(leaves(tried)).index(True)]  # the last, without one alone, is among `smaller`
    return chosen


def _first(sets: Sequence[Set], leaves: Leaves) -> Set | None:
    for start in range(0, len(sets), _USERS):
        part = sets[start : start + _USERS]
        for one, gone in zip(part, leaves(part), strict=True):
            if gone:
                return one
    return None


def _sizes(n: int) -> Iterator[int]:
    size = 1
    while size < n:
        yield size
        size = size + 1 if size < _DENSE else max(size + 1, int(size * _GROWTH))
    yield n


@dataclass(frozen=True)
class Virtual(Audience):
    """One user many times, with parts of the history dropped, and what is hidden from the user whatever is dropped."""

    real: Audience = field(kw_only=True)

    def excluded(self, vocabulary: pl.Series) -> sparse.csr_array:
        return sparse.csr_array(self.real.excluded(vocabulary)[np.zeros(len(self.users), dtype=np.int64)])


@dataclass(frozen=True)
class _Same:
    """The rules of one user for virtual ones: what conditions say of the user stays, and so do the draws."""

    of: Ruling
    user: pl.Series

    @property
    def extra(self) -> pl.Series:
        return self.of.extra

    def over(self, vocabulary: pl.Series) -> Ruler:
        ruler = self.of.over(vocabulary)
        ruler.user_keys = np.repeat(keys(self.user, self.of.seed), len(self.of.asked.users))
        return ruler


class Trials:
    """Lists of one user without parts of the history."""

    def __init__(
        self,
        home: Home,
        user: str,
        top: int | None,
        model: str | None,
        as_of: datetime | None,
        context: Mapping[str, str] | None,
        include_holdout: bool,
    ) -> None:
        self.home = home
        self.saved = registry.load_model(home, model)
        self.settings = self.saved.recipe(home.settings)
        self.top = top or self.settings.whole("recommend.top")
        ordered = reads_order(self.saved.model)
        reads = {"ordered": ordered, "queries": reads_queries(self.saved.model)}
        self.asked = audience(home, pl.Series([user]), as_of, context, include_holdout, **reads)
        self.popular, self.fill = filling(home, self.saved)
        self.never = unavailable(home, as_of)
        rules = rules_of(home.settings)
        self.ruled = None if rules is None else ruling(home, rules, self.asked, as_of)
        self.generic = self.asked.generic is not None and bool(self.asked.generic[0])
        self.general = self.generic or bool(self.asked.holdout[0])
        person = persons(home, as_of).of(self.asked.users)
        if not self.generic and not everyone(home, as_of).is_in(person.implode()).any():
            raise nobody(user, as_of, None)
        self.history = history_of(home, person.clear() if self.generic else person, as_of)
        self.items = self.history["item_id"].unique().sort()
        said = preferences.spoken(home, person, as_of, purpose=PERSONALIZATION) if len(self.items) else None
        self.lifted = None if said is None else preferences.lifted(said)
        self.events: pl.DataFrame | None = None
        if ordered:
            events = person_events(home, as_of, purpose=PERSONALIZATION).select("user_id", "item_id", "timestamp")
            self.events = events.filter(pl.col("user_id").is_in(person.implode())).collect()
        self.spoken = self.asked.wishes is not None or (
            self.asked.queries is not None and self.asked.queries.null_count() == 0
        )
        self.made = 0

    def ranked(self, asked: Audience, top: int, ruled: Ruling | None) -> tuple[Ranking, list[Lists]]:
        same = None if ruled is None else _Same(ruled, self.asked.users)
        found = ranking(
            self.saved.model, asked, top, self.settings, fill=self.fill, never=self.never, choosing=same
        )  # fmt: skip
        self.made += len(asked.users)
        return found, list(found.blocks)

    def listed(self, item: str, dropped: Sequence[NDArray[np.int64]]) -> list[bool]:
        """Whether the item is in the list without each of these sets of `items`."""
        found: list[bool] = []
        size = min(_USERS, max(1, _ROWS // max(self.history.height, 1)))
        for start in range(0, len(dropped), size):
            part = dropped[start : start + size]
            asked = self.virtual(part)
            made, blocks = self.ranked(asked, self.top, self.ruled_for(asked))
            place = made.vocabulary.index_of(item)
            for lists in blocks:
                found += ((lists.places == place) & (lists.scores > -np.inf)).any(axis=1).tolist()
        return found

    def virtual(self, dropped: Sequence[NDArray[np.int64]]) -> Virtual:
        """The user without each of these sets of `items`."""
        n = len(dropped)
        ids = pl.Series("user_id", [f"{number:08d}" for number in range(n)])
        gone = pl.DataFrame(
            {
                "user_id": ids.gather(np.repeat(np.arange(n), [len(one) for one in dropped])),
                "item_id": self.items.gather(np.concatenate([*dropped, np.zeros(0, dtype=np.int64)])),
            }
        )
        history = self._times(self.history, ids).join(
            gone, on=["user_id", "item_id"], how="anti", maintain_order="left"
        )
        lifted = None if self.lifted is None else self._times(self.lifted, ids)
        matrix = interactions(history, self.home.settings, self.asked.matrix.items, lifted)
        if self.events is not None:
            matrix = with_times(matrix, self._times(self.events, ids))
        rows = np.zeros(n, dtype=np.int64)
        asked = self.asked
        return Virtual(
            ids,
            matrix,
            positions(ids, matrix.users),
            asked.context[rows],
            asked.holdout[rows],
            None if asked.queries is None else asked.queries[rows],
            None if asked.wishes is None else _repeated(asked.wishes, n),
            None if asked.generic is None else asked.generic[rows],
            real=asked,
        )

    def ruled_for(self, asked: Audience) -> Ruling | None:
        if self.ruled is None:
            return None
        rows = np.zeros(len(asked.users), dtype=np.int64)
        return replace(
            self.ruled, asked=asked, everybody=self.ruled.everybody[rows], treated=self.ruled.treated[rows]
        )  # fmt: skip

    @staticmethod
    def _times(rows: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
        """Rows of one user as those of every id, in their order."""
        return ids.to_frame().join(rows.drop("user_id"), how="cross", maintain_order="left_right").select(rows.columns)


def _repeated(wishes: Wishes, n: int) -> Wishes:
    places = pl.DataFrame({"place": np.arange(n)})

    def every(said: pl.DataFrame) -> pl.DataFrame:
        return places.join(said.drop("place"), how="cross")

    blocked, less, named, leading = (every(one) for one in (wishes.blocked, wishes.less, wishes.named, wishes.leading))
    return replace(wishes, n_users=n, blocked=blocked, less=less, named=named, leading=leading)
