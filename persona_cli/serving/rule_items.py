"""What rules know of items and make of scores, and re-ranking.

What rules look at in items, over a vocabulary: numbers of categories and tags, and when each came out.

What named rules do to the scores of a block (n_users, n_items), and the candidates that they ask for.

Objectives that trade score against what a list holds already, one entry at a time, for a block of users.

    mmr         (1 - s) r(i) - s max_j sim(i, j), j in the list; sim: cosine of the sets of category and tags
                Carbonell and Goldstein, SIGIR 1998
    calibrated  (1 - s) sum r(i) - s KL(p || q~), q~ = 0.99 q + 0.01 p; p: shares of the categories in the history,
                q: in the list. Steck, RecSys 2018; one entry more changes it by
                (1 - s) r(i) + s p_c [log(.99 (w_c + 1) / t + .01 p_c) - log(.99 w_c / t + .01 p_c)]
                and by what is equal for all candidates; w_c of the entries are of the category c, t entries with i

r(i) is the score on the scale where a user's best candidate has 1 and the one at twice the length of the list 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import MissingInput
from persona_cli.events.catalogue import described
from persona_cli.events.schema import stored_schema
from persona_cli.models.base import Floats
from persona_cli.models.topk import topk
from persona_cli.serving.rule_settings import About, Rules
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Catalogue:
    """The items that rules know."""

    rows: pl.DataFrame | None
    """As `events.catalogue.described`, with `born`: when each came out; None: there is no catalogue."""
    moment: datetime
    """What "lately" is counted back from."""

    @property
    def dated(self) -> bool:
        """Whether it is known of any item when it came out."""
        return self.rows is not None and self.rows["born"].count() > 0

    def lately(self, days: int) -> pl.Series:
        """item_id of what came out within so many days."""
        if self.rows is None:
            return pl.Series("item_id", [], dtype=pl.String)
        since = self.moment - timedelta(days=days)
        return self.rows.filter((pl.col("born") > since) & (pl.col("born") <= self.moment))["item_id"]


def catalogue_for(home: Home, rules: Rules, moment: datetime, as_of: datetime | None) -> Catalogue:
    """The catalogue; MissingInput where there is none, or nothing in it, of what a rule needs."""
    found = Catalogue(dated(home, as_of), moment)
    if (lacking := missing(rules, found)) is not None:
        raise MissingInput(lacking, "persona ingest items.csv --kind items, or take the rule out of persona.toml")
    return found


def dated(home: Home, as_of: datetime | None) -> pl.DataFrame | None:
    """The items as they are described at `as_of`, with `born`: when published, else first valid; None: no catalogue."""
    rows = described(home, as_of)
    if rows is None:
        return None
    table = tables.scan(home, "items", stored_schema("items"))
    first = table.group_by("item_id").agg(first=pl.col("valid_from").min()).collect()
    rows = rows.join(first, on="item_id", how="left", maintain_order="left")
    return rows.with_columns(born=pl.coalesce("published_at", "first"))


def missing(rules: Rules, catalogue: Catalogue) -> str | None:
    """What a rule needs and the catalogue has not, in a sentence; None where all is there."""
    rows = catalogue.rows
    wants = {
        "max_per_category": ("category", "a category") if rules.max_per_category else None,
        "min_categories": ("category", "a category") if rules.min_categories else None,
        "max_per_tag": ("tags", "tags") if rules.max_per_tag else None,
        "fresh.share": ("born", "a date (published_at, valid_from)") if rules.fresh_share > 0 else None,
        'rerank = "calibrated"': ("category", "a category") if rules.rerank == "calibrated" else None,
    }
    for name, wanted in wants.items():
        if wanted is not None:
            if rows is None or not rows.height:
                return f"rules.{name} is set, and there is no catalogue of items to apply it to"
            if not rows[wanted[0]].count():
                return f"rules.{name} is set, and no item of the catalogue has {wanted[1]}"
    if rules.rerank == "mmr" and (rows is None or not (rows["category"].count() or rows["tags"].count())):
        return 'rules.rerank = "mmr" is set, and no item of the catalogue has a category or tags'
    return None


def numbered(names: pl.Series) -> Integers:
    """The number of each name among the sorted different ones, -1 for null (n,)."""
    ranks = names.rank("dense").cast(pl.Int64) - 1
    return ranks.fill_null(-1).to_numpy()


def numbered_lists(names: pl.Series) -> Integers:
    """The same of lists of names, each name once (n, longest list), -1 from the end of each on."""
    rows = (
        pl.DataFrame({"row": np.arange(len(names)), "name": names})
        .explode("name")
        .drop_nulls()
        .unique()
        .sort("row", "name")
    )
    if not rows.height:
        return np.zeros((len(names), 0), dtype=np.int64)
    row = rows["row"].to_numpy()
    starts = np.searchsorted(row, np.arange(len(names)))
    column = np.arange(len(row)) - starts[row]
    found = np.full((len(names), int(column.max()) + 1), -1, dtype=np.int64)
    found[row, column] = numbered(rows["name"])
    return found


def sensitive_items(home: Home, as_of: datetime | None = None) -> pl.Series:
    """item_id of the items that `rules.sensitive` keeps out of reasons and messages, sorted."""
    names = list(home.settings.texts("rules.sensitive"))
    rows = described(home, as_of) if names else None
    if rows is None:
        return pl.Series("item_id", [], dtype=pl.String)
    tagged = pl.col("tags").list.set_intersection(names).list.len() > 0
    return rows.filter(pl.col("category").is_in(names).fill_null(False) | tagged.fill_null(False))["item_id"]


Bools = NDArray[np.bool_]


def bar(scores: Floats, about: About, users: Integers) -> Integers:
    """Close what a rule is about, in place; how many items that closed for each user (n,)."""
    closed = np.zeros(len(users), dtype=np.int64)
    rows, columns = np.flatnonzero(about.rows(users)), np.flatnonzero(about.columns)
    if len(rows) and len(columns):
        here = np.ix_(rows, columns)
        found = scores[here]
        mask = _at(about, users[rows], columns)
        closed[rows] = (mask & (found > -np.inf)).sum(axis=1)
        scores[here] = np.where(mask, np.float32(-np.inf), found)
    return closed


def scale(scores: Floats, about: About, users: Integers, whom: Bools, factor: np.float32) -> None:
    """Multiply scores above 0, divide those below, in place, of `whom` (n,): what is raised never falls."""
    rows, columns = np.flatnonzero(about.rows(users) & whom), np.flatnonzero(about.columns)
    if len(rows) and len(columns):
        here = np.ix_(rows, columns)
        found = scores[here]
        moved = np.where(found > 0, found * factor, found / factor)
        scores[here] = np.where(_at(about, users[rows], columns), moved, found)


def showable(scores: Floats, about: About, users: Integers) -> Integers:
    """How many items that a rule is about may be shown to each user (n,)."""
    columns = np.flatnonzero(about.columns)
    return np.asarray((_at(about, users, columns) & (scores[:, columns] > -np.inf)).sum(axis=1), dtype=np.int64)


def best_of(scores: Floats, columns: Integers, most: int) -> tuple[Integers, Floats]:
    """The best of some columns: places and scores (n, at most `most`)."""
    places, values = topk(scores[:, columns], min(most, len(columns)))
    return (columns[places] if len(columns) else places), values


def best_about(scores: Floats, about: About, users: Integers, most: int) -> tuple[Integers, Floats]:
    """The best of what a rule is about: places and scores (n, at most `most`)."""
    columns = np.flatnonzero(about.columns)
    found = np.where(_at(about, users, columns), scores[:, columns], np.float32(-np.inf))
    places, values = topk(found, min(most, len(columns)))
    return (columns[places] if len(columns) else places), values


def together(places: Integers, values: Floats, more: list[tuple[Integers, Floats]]) -> tuple[Integers, Floats]:
    """Candidates and further ones, each once, best first."""
    for also, theirs in more:
        again = np.zeros(also.shape, dtype=bool)
        for number in range(also.shape[1]):
            again[:, number] = ((places == also[:, number, None]) & (values > -np.inf)).any(axis=1)
        kept = np.where(again, np.float32(-np.inf), theirs)
        useful = (kept > -np.inf).any(axis=0)
        places = np.concatenate((places, also[:, useful]), axis=1)
        values = np.concatenate((values, kept[:, useful]), axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(places, order, 1), np.take_along_axis(values, order, 1)


def _at(about: About, users: Integers, columns: Integers) -> Bools:
    return about.at(users, np.broadcast_to(columns, (len(users), len(columns))))


_ALPHA = 0.01


class Reranking(Protocol):
    """What makes the next entry good, given those already in the list."""

    def values(self) -> Floats:
        """(n_users, n_candidates)"""
        ...

    def took(self, rows: Integers, columns: Integers) -> None:
        """These users got these candidates into their lists."""
        ...


def relevance(scores: Floats, top: int) -> Floats:
    """Scores (n_users, n_candidates), best first in each row, as r(i) of the module; -inf stays."""
    there = scores > -np.inf
    last = np.maximum(np.minimum(there.sum(axis=1), 2 * top) - 1, 0)
    best = scores.max(axis=1, initial=-np.inf)
    low = np.where(last > 0, np.take_along_axis(scores, last[:, None], 1)[:, 0], best - 1)
    with np.errstate(invalid="ignore"):
        width = np.where(best > low, best - low, 1)
        found = (scores - low[:, None]) / width[:, None]
    return np.where(there, found, -np.inf).astype(np.float32)


class Mmr:
    """Maximal marginal relevance."""

    def __init__(self, relevance: Floats, categories: Integers, tags: Integers, strength: float) -> None:
        self.tags = np.concatenate((categories[:, :, None], np.where(tags >= 0, tags + _APART, -1)), axis=2)
        self.sizes = np.sqrt(np.maximum((self.tags >= 0).sum(axis=2), 1)).astype(np.float32)
        self.relevance, self.strength = relevance * np.float32(1 - strength), np.float32(strength)
        self.nearest = np.zeros(relevance.shape, dtype=np.float32)

    def values(self) -> Floats:
        found: Floats = self.relevance - self.strength * self.nearest
        return found

    def took(self, rows: Integers, columns: Integers) -> None:
        own = self.tags[rows, columns]  # (n, n_tags)
        theirs = self.tags[rows]
        shared = np.zeros(theirs.shape[:2], dtype=np.float32)
        for number in range(own.shape[1]):
            tag = own[:, number, None, None]
            if (tag >= 0).any():
                shared += ((theirs == tag) & (tag >= 0)).sum(axis=2)
        similar = shared / (self.sizes[rows] * self.sizes[rows, columns][:, None])
        self.nearest[rows] = np.maximum(self.nearest[rows], similar)


_APART = 1 << 32
"""Numbers of tags are kept apart from those of categories by this."""


class Calibrated:
    """Shares of the categories of a list drawn to those of the history."""

    def __init__(self, relevance: Floats, categories: Integers, own: Integers, shares: Floats, strength: float) -> None:
        """`own`: the categories of each user's history, -1 for none, and their `shares` (n_users, n_slots)."""
        self.relevance, self.strength = relevance * np.float32(1 - strength), np.float32(strength)
        self.shares = shares.astype(np.float32)
        self.slot = np.full(categories.shape, -1, dtype=np.int64)
        for number in range(own.shape[1]):
            mine = own[:, number, None]
            self.slot[(categories == mine) & (mine >= 0)] = number
        self.weights = np.zeros(shares.shape, dtype=np.float32)
        self.length = np.zeros(len(shares), dtype=np.float32)

    def values(self) -> Floats:
        if not self.shares.shape[1]:
            return self.relevance
        inside, base = (1 - _ALPHA) / (self.length[:, None] + 1), _ALPHA * self.shares
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = np.log(inside * (self.weights + 1) + base) - np.log(inside * self.weights + base)
            gain = np.where(self.shares > 0, self.shares * gain, 0)
        gains = np.take_along_axis(gain, np.maximum(self.slot, 0), 1)
        found: Floats = self.relevance + self.strength * np.where(self.slot >= 0, gains, 0).astype(np.float32)
        return found

    def took(self, rows: Integers, columns: Integers) -> None:
        self.length[rows] += 1
        slot = self.slot[rows, columns]
        known = slot >= 0
        self.weights[rows[known], slot[known]] += 1
