"""Rules over models: `[rules]` applied to the scores of a block of users, and what gave way in each list.

`Ruling` is made once for the users asked; `over` a vocabulary it answers a `Ruler`, which `models.ranking` calls with
the scores of every block. A list is solved (`serving.rule_solver`) among the user's `POOL` times `top` best candidates
and the best of whatever a rule asks for; where a rule gave way that more candidates could save, it is solved again
among `WIDER` times as many. What a list keeps is then read off the list itself (`serving.rule_checks`).

Those held out, and those whom personalization does not cover, get a list that pins and exclusions alone shape, the same
for all but for exclusions; of the latter nothing is known, so only compliance rules can hold for what is not known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.base import Floats
from persona_cli.models.ranking import Lists
from persona_cli.models.stored import positions, with_columns, with_rows
from persona_cli.models.topk import topk
from persona_cli.profiles.draws import STEP, keys, mixed
from persona_cli.profiles.identity import persons
from persona_cli.profiles.people import described as people_described
from persona_cli.profiles.permitted import PERSONALIZATION
from persona_cli.profiles.read import STAGES
from persona_cli.serving.context import Audience
from persona_cli.serving.rule_checks import Facts, broken, names_of, savable
from persona_cli.serving.rule_items import (
    Calibrated,
    Catalogue,
    Mmr,
    Reranking,
    bar,
    best_about,
    best_of,
    catalogue_for,
    numbered,
    numbered_lists,
    relevance,
    scale,
    showable,
    together,
)
from persona_cli.serving.rule_settings import (
    CONTEXT,
    ITEM,
    About,
    Rules,
    about,
    columns_of_items,
    is_about_users,
    parsed,
)
from persona_cli.serving.rule_solver import Candidates, Need, Pin, Solved, Wanted, likelihoods, solve
from persona_cli.workspace.filters import Filter
from persona_cli.workspace.home import Home

Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]
POOL = 5
"""Candidates of a list, in lengths of it."""
WIDER = 5
"""So many times as many where a rule gave way."""
_TASTES = 32
"""Categories of a history that calibration looks at, the strongest."""


@dataclass(frozen=True)
class Ruled(Lists):
    """Lists made under rules."""

    names: tuple[str, ...] = ()
    """What may give way."""
    gave_way: Bools = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))
    """(n_users, n_names)"""
    pinned: Integers = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Entries of each list, its first ones, that are pinned (n_users,)."""
    drawn: Bools = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))
    """(n_users, k')"""
    propensity: NDArray[np.float64] | None = None
    """Chance of each entry given those before it (n_users, k'); None: nothing is drawn at random."""


@dataclass(frozen=True)
class Ruling:
    """The rules in force for the users asked; see the module."""

    rules: Rules
    asked: Audience
    catalogue: Catalogue
    conditions: Mapping[str, Filter]
    everybody: pl.DataFrame
    """What conditions of exclusions may read of each user asked (n_users)."""
    treated: pl.DataFrame
    """The same for all other rules: nothing of those held out."""
    seed: int
    extra: pl.Series
    """Items that rules ask for, whether or not a model knows them."""
    explorers: Bools | None = None
    """Whose lists hold entries that are drawn (n_users,); None: all do."""

    def over(self, vocabulary: pl.Series) -> Ruler:
        return Ruler(self, vocabulary)


def ruling(
    home: Home, rules: Rules, asked: Audience, as_of: datetime | None = None, moment: datetime | None = None
) -> Ruling:
    """`rules` for these users, as of a moment (default: now). BadSettings for a condition that cannot be read,
    MissingInput where there is nothing in the catalogue that a rule needs."""
    moment = as_of or moment or datetime.now(UTC)
    conditions = parsed(home, rules)
    catalogue = catalogue_for(home, rules, moment, as_of)
    context = asked.context.select(pl.all().name.prefix(CONTEXT))
    known = context
    if any(is_about_users(condition) for condition in conditions.values()):
        people = people_described(home, as_of, purpose=PERSONALIZATION)
        ids = pl.DataFrame({"user_id": persons(home, as_of).of(asked.users)})
        if asked.generic is not None:
            ids = ids.select(pl.when(~pl.Series(asked.generic)).then("user_id").alias("user_id"))
        known = ids.join(people, on="user_id", how="left", maintain_order="left").hstack(context)
    treated = (
        known.with_columns(pl.when(~pl.Series(asked.holdout)).then(pl.all()).name.keep()) if known.width else known
    )
    named = [item for one in rules.of_kind("pin") for item in one.items]
    extra = [pl.Series("item_id", named, dtype=pl.String)]
    if rules.new_items and catalogue.dated:
        extra.append(catalogue.lately(rules.new_days))
    if rules.fresh_share > 0:
        extra.append(catalogue.lately(rules.fresh_days))
    day = hashlib.blake2b(f"{moment:%Y-%m-%d}".encode(), key=home.salt, digest_size=8).digest()
    seed = int.from_bytes(day, "big")
    asked_for = pl.concat(extra).unique().sort()
    explorers = None
    if rules.exploration > 0 and rules.draws_for == "new":
        explorers = (asked.stages(home.settings) == STAGES[0]).to_numpy()
    return Ruling(rules, asked, catalogue, conditions, known, treated, seed, asked_for, explorers)


class Ruler:
    """Rules over one vocabulary: from scores of a block to lists."""

    def __init__(self, of: Ruling, vocabulary: pl.Series) -> None:
        self.rules, asked = of.rules, of.asked
        items = columns_of_items(vocabulary, of.catalogue.rows)
        frame, tags = items.drop("tags"), items["tags"]
        self.about: dict[str, About] = {
            one.key: about(
                one,
                of.conditions.get(one.key),
                frame,
                of.everybody if one.kind == "exclude" else of.treated,
                tags,
            )
            for one in self.rules.named
        }
        self.order = {one.key: _listed(one.items, vocabulary) for one in self.rules.of_kind("pin")}
        self.categories = numbered(items[f"{ITEM}category"])
        self.tags = numbered_lists(tags) if self.rules.max_per_tag or self.rules.rerank == "mmr" else None
        generic = np.zeros(len(asked.users), dtype=bool) if asked.generic is None else asked.generic
        self.personal = ~(asked.holdout | generic)
        self.new = _mask(vocabulary, of.catalogue.lately(self.rules.new_days))
        self.fresh = _mask(vocabulary, of.catalogue.lately(self.rules.fresh_days))
        self.met = _met(asked, vocabulary) if self.rules.new_items and not of.catalogue.dated else None
        self.tastes = _tastes(asked, vocabulary, self.categories) if self.rules.rerank == "calibrated" else None
        self.explorers = self.personal if of.explorers is None else self.personal & of.explorers
        self.user_keys = self.item_keys = np.zeros(0, dtype=np.uint64)
        if self.rules.exploration > 0:
            self.user_keys, self.item_keys = keys(asked.users, of.seed), keys(vocabulary, 0)
        excluding = self.rules.of_kind("exclude")
        self.barred = [self.about[one.key] for one in excluding if one.compliance]
        self.excluded = [self.about[one.key] for one in excluding if not one.compliance]
        self.yielding = not all(self.rules.stronger("exclude", other) for other in ("length", "pin"))
        self.strengths = {name: place for place, name in enumerate(self.rules.give_way)}
        self.names = names_of(self.rules)

    def __call__(self, start: int, scores: Floats, users: Integers, top: int) -> Ruled:
        """Lists of `top`; `scores` (n, n_items), of which -inf may not be shown, are changed."""
        could = {one.key: showable(scores, self.about[one.key], users) for one in self.rules.of_kind("pin")}
        for one in self.barred:
            bar(scores, one, users)
        left_out = np.zeros(len(users), dtype=np.int64)  # items that exclusions kept out
        excluded = None
        if self.excluded and self.yielding:
            excluded = np.logical_or.reduce([one.all(users) for one in self.excluded])
        else:
            for one in self.excluded:
                left_out += bar(scores, one, users)
        for rule in self.rules.of_kind("boost", "bury"):
            scale(scores, self.about[rule.key], users, self.personal[users], np.float32(rule.factor))
        places, found, solved, facts = self._solved(scores, excluded, users, top, POOL * top, left_out, could)
        gave_way = broken(self.rules, facts)
        again = np.flatnonzero(savable(self.rules, facts, gave_way))
        if len(again) and scores.shape[1] > POOL * top:
            part = None if excluded is None else excluded[again]
            pinnable = {key: counts[again] for key, counts in could.items()}
            wider = self._solved(scores[again], part, users[again], top, WIDER * POOL * top, left_out[again], pinnable)
            anew = broken(self.rules, wider[3])
            better = _weight(anew, self.names, self.strengths) < _weight(gave_way[again], self.names, self.strengths)
            rows = again[better]
            gave_way[rows], places[rows], found[rows] = anew[better], wider[0][better], wider[1][better]
            for mine, theirs in zip(solved, wider[2], strict=True):
                mine[rows] = theirs[better]
        propensity = solved.propensity if self.rules.exploration > 0 else None
        return Ruled(start, places, found, None, None, self.names, gave_way, solved.pinned, solved.drawn, propensity)

    def _solved(
        self,
        scores: Floats,
        excluded: Bools | None,
        users: Integers,
        top: int,
        width: int,
        left_out: Integers,
        could: Mapping[str, Integers],
    ) -> tuple[Integers, Floats, Solved, Facts]:
        """Places in the vocabulary, scores, how they came about, and what there is to be checked."""
        pool, values, there = self._pool(scores, excluded, users, top, width)
        personal = self.personal[users]
        categories = self.categories[pool]
        tags = np.zeros((*pool.shape, 0), dtype=np.int64) if self.tags is None else self.tags[pool]
        kept_out = np.zeros(pool.shape, dtype=bool)
        if excluded is not None:
            kept_out = np.take_along_axis(excluded, pool, 1)
        new, fresh = self._new(users, pool), self.fresh[pool]
        needs = []
        if self.rules.new_items:
            needs.append(Need("new_items", new, np.where(personal, self.rules.new_items, 0)))
        if self.rules.fresh_share > 0:
            needs.append(Need("fresh", fresh, np.where(personal, self.rules.fresh(top), 0)))
        pins, matches = [], {}
        for one in self.rules.of_kind("pin"):
            mask = self.about[one.key].at(users, pool)
            order = self.order[one.key]
            by = -values if order is None else order[pool]
            pins.append(Pin(np.where(mask, by, np.inf).astype(np.float32), one.at_most))
            matches[one.key] = mask
        draws, chances = np.zeros((0, 0), dtype=np.uint64), None
        to_draw = np.where(self.explorers[users], self.rules.explored(top), 0)
        if self.rules.exploration > 0:
            draws = mixed((self.user_keys[users][:, None] ^ self.item_keys[pool]) + STEP)
            chances = likelihoods(values) if self.rules.draws_by == "score" else None
        wanted = Wanted(
            top,
            to_draw,
            self.rules.max_per_category,
            self.rules.max_per_tag,
            self.rules.min_categories,
            self.strengths,
            None if self.rules.rerank == "none" else lambda: self._reranking(values, categories, tags, users, top),
        )
        solved = solve(Candidates(values, categories, tags, kept_out, pins, needs, personal, draws, chances), wanted)
        columns = np.maximum(solved.columns, 0)
        listed = solved.columns >= 0
        places = np.where(listed, np.take_along_axis(pool, columns, 1), 0)
        found = np.where(listed, np.take_along_axis(values, columns, 1), -np.inf).astype(np.float32)
        facts = Facts(
            top,
            listed,
            personal,
            np.take_along_axis(categories, columns, 1),
            tags[np.arange(len(pool))[:, None], columns],
            np.take_along_axis(new, columns, 1),
            np.take_along_axis(fresh, columns, 1),
            np.take_along_axis(kept_out, columns, 1),
            solved.drawn,
            solved.pinned,
            {key: (np.take_along_axis(mask, columns, 1), could[key]) for key, mask in matches.items()},
            there,
            left_out,
            {need.name: (need.mask & (values > -np.inf)).sum(axis=1) for need in needs},
            to_draw,
        )
        return places, found, solved, facts

    def _pool(
        self, scores: Floats, excluded: Bools | None, users: Integers, top: int, width: int
    ) -> tuple[Integers, Floats, Integers]:
        """Candidates, their scores, best first (n, m), and how many items each user may be shown (n,) up to `top`."""
        open_ = scores if excluded is None else np.where(excluded, np.float32(-np.inf), scores)
        places, values = topk(open_, width)
        there = (values > -np.inf).sum(axis=1)
        more: list[tuple[Integers, Floats]] = []
        if excluded is not None:
            more.append(topk(np.where(excluded, scores, np.float32(-np.inf)), top))
            there = there + (more[0][1] > -np.inf).sum(axis=1)
        whole = places.shape[1] == scores.shape[1]
        if self.rules.new_items and not whole:
            if self.met is None:
                more.append(best_of(open_, np.flatnonzero(self.new), min(self.rules.new_items, top)))
            else:
                unmet = np.where(self.met[users].toarray(), np.float32(-np.inf), open_)
                more.append(topk(unmet, min(self.rules.new_items, top)))
        if self.rules.fresh_share > 0 and not whole:
            more.append(best_of(open_, np.flatnonzero(self.fresh), self.rules.fresh(top)))
        for one in self.rules.of_kind("pin"):
            most = scores.shape[1] if one.items else min(one.at_most, top)
            more.append(best_about(scores, self.about[one.key], users, most))
        if more:
            places, values = together(places, values, more)
        return places, values, np.minimum(there, top)

    def _new(self, users: Integers, pool: Integers) -> Bools:
        if self.met is None:
            return self.new[pool]
        return ~np.take_along_axis(self.met[users].toarray(), pool, 1)

    def _reranking(self, values: Floats, categories: Integers, tags: Integers, users: Integers, top: int) -> Reranking:
        worth = relevance(values, top)
        if self.rules.rerank == "mmr":
            return Mmr(worth, categories, tags, self.rules.strength)
        assert self.tastes is not None
        return Calibrated(worth, categories, self.tastes[0][users], self.tastes[1][users], self.rules.strength)


def _listed(items: tuple[str, ...], vocabulary: pl.Series) -> Floats | None:
    """The place of each item in a list of pins, those that a condition adds after them (n_items,); None: no list."""
    if not items:
        return None
    order = np.full(len(vocabulary), len(items), dtype=np.float32)
    places = positions(pl.Series("item_id", items, dtype=pl.String), vocabulary)
    for number in range(len(items) - 1, -1, -1):  # of an item that is named twice the first place counts
        if places[number] >= 0:
            order[places[number]] = number
    return order


def _mask(vocabulary: pl.Series, items: pl.Series) -> Bools:
    return np.asarray(vocabulary.is_in(items.implode()).to_numpy(), dtype=bool)


def _met(asked: Audience, vocabulary: pl.Series) -> sparse.csr_array:
    """What each user asked had anything to do with, bool (n_users, n_items)."""
    matrix = asked.matrix
    met = matrix.strengths.astype(bool) + matrix.seen
    if matrix.dislikes is not None:
        met = met + matrix.dislikes.astype(bool)
    rows = with_columns(sparse.csr_array(met), positions(matrix.items, vocabulary), len(vocabulary))
    return with_rows(rows.astype(bool), asked.places)


def _tastes(asked: Audience, vocabulary: pl.Series, categories: Integers) -> tuple[Integers, Floats]:
    """The categories of each user's history, the strongest `_TASTES`, and their shares (n_users, n_slots)."""
    matrix = asked.matrix
    of_item = np.append(categories, -1)[positions(matrix.items, vocabulary)]
    n_categories = int(categories.max(initial=-1)) + 1
    tastes = with_columns(matrix.strengths, of_item, n_categories)
    tastes.sum_duplicates()
    rows = np.repeat(np.arange(tastes.shape[0]), np.diff(tastes.indptr))
    order = np.lexsort((tastes.indices, -tastes.data, rows))
    place = np.arange(len(rows)) - tastes.indptr[rows]
    kept = place < _TASTES
    width = int(place.max(initial=-1)) + 1 if len(place) else 0
    own = np.full((tastes.shape[0] + 1, min(width, _TASTES)), -1, dtype=np.int64)
    shares = np.zeros(own.shape, dtype=np.float32)
    own[rows[kept], place[kept]] = tastes.indices[order][kept]
    shares[rows[kept], place[kept]] = tastes.data[order][kept]
    total = shares.sum(axis=1, keepdims=True)
    shares = np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)
    return own[asked.places], shares[asked.places]  # without a history: the last row, which is empty


def _weight(gave_way: Bools, names: tuple[str, ...], strengths: Mapping[str, int]) -> Integers:
    """What gave way as one number: the stronger rule outweighs all weaker ones (n_users,)."""
    of_name = np.array([1 << (4 * strengths[name.partition(".")[0]]) for name in names], dtype=np.int64)
    return np.asarray((gave_way * of_name[None, :]).sum(axis=1), dtype=np.int64)
