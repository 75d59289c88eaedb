"""What users said they want more and less of, over a model's vocabulary: hidden topics, lowered and raised scores.

    s' = s f^L        f = `recommend.show_less_factor`, L what is left of "show me less" on topics of the item
    s' = s + w m a    w = e / (n + e), e = `recommend.survey_evidence`, n the user's events with an item, m the user's
                      best score, a how many of the user's answers name the item
    s' = s + m        for items of the category that the user set as preferred: a setting outranks what is learned

A score below 0 is divided by f^L: what is lowered never rises. So a user without a history gets what the answers name
first, in the order of the popular list, and loses that lead as evidence grows (a pseudo-count prior, as in `layered`).

Everything is users × topics times topics × items, multiplied for a block of users at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.base import Floats
from persona_cli.models.stored import positions
from persona_cli.profiles import preferences
from persona_cli.profiles.folds.explicit import APART, CATEGORY, ITEM, TAG
from persona_cli.profiles.stated import leading
from persona_cli.workspace.settings import Settings

Rows = slice | NDArray[np.int64]
ANSWER = "answer:"
"""How the key of an answer begins; the question, APART and the answer follow."""


@dataclass(frozen=True)
class Wishes:
    """What users said, by topic; `place` is the user's position among the users asked."""

    n_users: int
    blocked: pl.DataFrame
    """place, key: topics that are never to be shown."""
    less: pl.DataFrame
    """place, key, left Float64 > 0: what is left of "show me less" by now."""
    named: pl.DataFrame
    """place, key: answers of users that name topics."""
    leading: pl.DataFrame
    """place, key: categories that users set as preferred."""
    members: pl.DataFrame
    """key, item_id: the items of each topic by name, and of each answer; item:ID has no row and is its item."""

    factor: float
    """`recommend.show_less_factor`"""
    evidence: float
    """`recommend.survey_evidence`"""

    def over(self, vocabulary: pl.Series) -> Wished | None:
        """The same over a vocabulary; None where nobody said a thing about its items."""
        spoken = [self.blocked["key"], self.less["key"], self.named["key"], self.leading["key"]]
        keys = pl.concat(spoken).unique().sort()
        if not len(keys):
            return None
        items = pl.DataFrame({"key": keys}).filter(pl.col("key").str.starts_with(ITEM))
        own = items.with_columns(item_id=pl.col("key").str.slice(len(ITEM)))
        pairs = pl.concat([self.members.select("key", "item_id"), own])
        topics, columns = positions(pairs["key"], keys), positions(pairs["item_id"], vocabulary)
        there = (topics >= 0) & (columns >= 0)
        ones = np.ones(int(there.sum()), dtype=np.float32)
        shape = (len(keys), len(vocabulary))
        of_topic = sparse.csr_array((ones, (topics[there], columns[there])), shape=shape)
        of_topic.data[:] = 1  # a pair that is there twice is one
        single = keys.str.starts_with(ITEM).to_numpy()
        less = self._matrix(self.less, keys)
        by_item = sparse.csr_array(less @ sparse.diags_array(single.astype(np.float32)))
        by_item.eliminate_zeros()
        return Wished(
            of_topic,
            self._matrix(self.blocked, keys),
            less,
            by_item,
            self._matrix(self.named, keys),
            self._matrix(self.leading, keys),
            np.float32(self.factor),
            self.evidence,
        )

    def _matrix(self, said: pl.DataFrame, keys: pl.Series) -> sparse.csr_array:
        """User × topic, float32 (n_users, n_keys)."""
        values = said["left"].to_numpy() if "left" in said.columns else np.ones(said.height)
        entries = (values.astype(np.float32), (said["place"].to_numpy(), positions(said["key"], keys)))
        return sparse.csr_array(entries, shape=(self.n_users, len(keys)))


@dataclass(frozen=True)
class Wished:
    """Wishes over a vocabulary; rows are positions among the users asked."""

    topics: sparse.csr_array
    """1 where the item is of the topic (n_topics, n_items)."""
    blocks: sparse.csr_array
    """(n_users, n_topics), as the following."""
    less: sparse.csr_array
    less_items: sparse.csr_array
    """The part of `less` that is about single items."""
    answers: sparse.csr_array
    leading: sparse.csr_array
    factor: np.float32
    """What one fresh "show me less" multiplies a score by."""
    evidence: float
    """Events at which answers count half."""

    def hidden(self, rows: Rows) -> sparse.csr_array:
        """Items of blocked topics, bool (n_rows, n_items)."""
        return sparse.csr_array(self.blocks[rows] @ self.topics).astype(bool)

    def spared(self, rows: Rows) -> sparse.csr_array:
        """Items that the users want less of by name: only `adjust` lowers them, bool (n_rows, n_items)."""
        return sparse.csr_array(self.less_items[rows] @ self.topics).astype(bool)

    def adjust(self, scores: Floats, rows: Rows, events: NDArray[np.int64]) -> None:
        """Lower and raise `scores` (n_rows, n_items) in place; `events`: those with an item of each user (n_rows,)."""
        self.lower(scores, rows)
        weight = self.evidence / np.maximum(events + self.evidence, 1e-300) * (self.evidence > 0)
        for said, share in ((self.answers, weight), (self.leading, np.ones(len(scores)))):
            named = sparse.csr_array(said[rows] @ self.topics)
            users, columns = _entries(named)
            if not len(users):
                continue
            best = np.zeros(len(scores), dtype=np.float32)  # (n_rows,)
            best[np.unique(users)] = np.max(scores[np.unique(users)], axis=1, initial=0)
            best[best <= 0] = 1
            scores[users, columns] += ((share * best)[users] * named.data).astype(np.float32)

    def lower(self, scores: Floats, rows: Rows) -> None:
        """Lower in place what users want less of."""
        less = sparse.csr_array(self.less[rows] @ self.topics)
        users, columns = _entries(less)
        left = self.factor**less.data
        found = scores[users, columns]
        scores[users, columns] = np.where(found > 0, found * left, found / left)

    def moves(self, rows: Rows) -> NDArray[np.bool_]:
        """Whose scores may be lowered or raised (n_rows,)."""
        said = sum(np.diff(one[rows].indptr) for one in (self.answers, self.less, self.leading))
        return np.asarray(said > 0)


def wishes_of(
    rows: pl.DataFrame,
    users: pl.Series,
    settings: Settings,
    catalogue: Callable[[], pl.DataFrame | None],
    impersonal: NDArray[np.bool_] | None = None,
) -> Wishes | None:
    """The wishes of `users` by rows of `profiles.preferences.spoken`; None where none of them said anything.

    `catalogue` answers the items (item_id, category, tags), if anything was said about more than single items. For the
    `impersonal` (n_users,) only blocks hold: the rest would make their lists personal.
    """
    rows = rows.filter(pl.col("user_id").is_in(users.implode()))
    if not rows.height:
        return None
    blocked = preferences.blocks(rows).filter("on")
    less = preferences.shown_less(rows, settings.number("recommend.show_less_half_life_days"))
    questions = settings.values["survey"]
    given = preferences.answers(rows).select(
        "user_id", key=pl.format(ANSWER + "{}" + APART + "{}", "question", "answer")
    )
    named = pl.DataFrame(
        [
            (f"{ANSWER}{question}{APART}{answer}", topic)
            for question, asked in questions.items()
            for answer, names in asked["answers"].items()
            for topic in (*(CATEGORY + one for one in names["categories"]), *(TAG + one for one in names["tags"]))
        ],
        schema={"key": pl.String, "topic": pl.String},
        orient="row",
    )
    given = given.join(named.select("key").unique(), on="key", how="semi")
    named = named.join(given.select("key").unique(), on="key", how="semi")
    first = leading(rows)
    by_name = pl.concat([blocked["key"], less["key"], first["key"]]).unique()
    by_name = by_name.filter(~by_name.str.starts_with(ITEM))
    members = pl.DataFrame(schema={"key": pl.String, "item_id": pl.String})
    items = catalogue() if len(by_name) or named.height else None
    if items is not None:
        wanted = pl.concat([by_name.to_frame("key").with_columns(topic="key"), named])
        members = wanted.join(preferences.topics(items), on="topic").select("key", "item_id").unique()
    places = pl.DataFrame({"user_id": users, "place": np.arange(len(users), dtype=np.int64)})
    personal = places if impersonal is None else places.filter(~pl.Series(impersonal))
    return Wishes(
        len(users),
        blocked.join(places, on="user_id").select("place", "key"),
        less.filter(pl.col("left") > 0).join(personal, on="user_id").select("place", "key", "left"),
        given.join(personal, on="user_id").select("place", "key"),
        first.join(personal, on="user_id").select("place", "key"),
        members,
        settings.number("recommend.show_less_factor"),
        settings.number("recommend.survey_evidence"),
    )


def _entries(matrix: sparse.csr_array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)), matrix.indices.astype(np.int64)
