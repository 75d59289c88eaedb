"""Pairs and neighbours: scores of given pairs, and items that go with an item.

Scores of given pairs (user, item), on the same scale as in the lists of `persona recommend`.

Items that go with an item: what the individual model would recommend to somebody with that one in the history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.errors import MissingInput, UsageError, nearest
from persona_cli.events.catalogue import unavailable
from persona_cli.models import registry
from persona_cli.models.base import Histories, Model, reads_order, reads_queries
from persona_cli.models.layered import Layered
from persona_cli.models.popular import CELL
from persona_cli.models.ranking import hidden_now, model_scores, rank, spared_now
from persona_cli.models.stored import positions
from persona_cli.serving.context import audience
from persona_cli.serving.recommend import rounded
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings

_BLOCK = 512


def score(
    home: Home,
    pairs: pl.DataFrame,
    *,
    model: str | None = None,
    as_of: datetime | None = None,
    context: Mapping[str, str] | None = None,
    include_holdout: bool = False,
) -> pl.DataFrame:
    """`pairs` (user_id, item_id and whatever else) with columns `score` and `blocked`, rows and order kept.

    A user of whom nothing is known, who is held out, or whom personalization does not cover gets the score of the
    popular list. Consumed items are scored like others. An item that the model has never seen has no score (null):
    nothing can be said of it. Nor has one that the user has blocked, or whose category or tag; there `blocked` is true,
    elsewhere null.
    """
    saved = registry.load_model(home, model)
    reads = {"ordered": reads_order(saved.model), "queries": reads_queries(saved.model)}
    asked = audience(home, pairs["user_id"], as_of, context, include_holdout, **reads)
    settings = saved.recipe(home.settings)
    histories, hidden = asked.histories(saved.model.items, settings), asked.excluded(saved.model.items)
    users = positions(pairs["user_id"], asked.users)
    items = positions(pairs["item_id"], saved.model.items)
    order = np.argsort(users, kind="stable")
    bounds = np.searchsorted(users[order], np.arange(0, len(asked.users) + _BLOCK, _BLOCK))
    found = np.full(pairs.height, np.nan, dtype=np.float32)
    blocked = np.zeros(pairs.height, dtype=bool)
    wished = None if asked.wishes is None else asked.wishes.over(saved.model.items)
    for number, start in enumerate(range(0, len(asked.users), _BLOCK)):
        rows = order[bounds[number] : bounds[number + 1]]
        rows = rows[items[rows] >= 0]
        stop = min(start + _BLOCK, len(asked.users))
        these = slice(start, stop)
        part, out = histories.block(start, stop), hidden_now(hidden, wished, these)
        scores = model_scores(saved.model, part, out, spared_now(wished, these))
        if wished is not None:
            wished.adjust(scores, these, part.events)
            blocked[rows] = wished.hidden(these)[users[rows] - start, items[rows]]
        found[rows] = scores[users[rows] - start, items[rows]]
    found[blocked] = np.nan
    scored = rounded(found.astype(np.float64)).fill_nan(None)
    told = pl.Series("blocked", blocked).replace_strict({True: True, False: None}, return_dtype=pl.Boolean)
    return pairs.with_columns(scored.alias("score"), told)


@dataclass(frozen=True)
class _Items:
    """Items in the place of users: each has itself as its whole history. An `Asked` of `models.ranking`."""

    users: pl.Series

    def histories(self, vocabulary: pl.Series, settings: Settings) -> Histories:
        context = pl.DataFrame([pl.Series(name, [None] * len(self.users), dtype=pl.String) for name in CELL])
        return Histories(self._alone(vocabulary, np.float32), np.ones(len(self.users), dtype=np.int64), context)

    def excluded(self, vocabulary: pl.Series) -> sparse.csr_array:
        return self._alone(vocabulary, np.bool_)

    def _alone(self, vocabulary: pl.Series, dtype: Any) -> sparse.csr_array:
        places: NDArray[np.int64] = positions(self.users, vocabulary)
        there = np.flatnonzero(places >= 0)
        entries = (np.ones(len(there), dtype=dtype), (there, places[there]))
        return sparse.csr_array(entries, shape=(len(self.users), len(vocabulary)))


def similar(
    home: Home,
    item: str | None = None,
    *,
    top: int | None = None,
    model: str | None = None,
    as_of: datetime | None = None,
) -> pl.DataFrame:
    """The `top` items that go best with `item` (None: with every item): item_id, rank, similar_id, score.

    Scores are the weights of the individual model inside what is served, or of `model`; only those above 0 count, and
    items that are not available are left out. MissingInput for an item that the model does not cover, UsageError for a
    model that knows no item by its fellows.
    """
    saved = registry.load_model(home, model)
    inside = saved.model.individual if isinstance(saved.model, Layered) else saved.model
    if inside is None or inside.name == "popular":
        raise UsageError(
            f"{saved.reference} holds the popular list alone, which says nothing of which items go together",
            "persona similar ITEM --model knn",
        )
    items = inside.items if item is None else pl.Series("item_id", [_covered(item, inside)])
    settings = saved.recipe(home.settings)
    lists = rank(
        inside, _Items(items), top or settings.whole("recommend.top"), settings, never=unavailable(home, as_of)
    )
    found = lists.filter(pl.col("score") > 0)
    return found.select(
        pl.col("user_id").alias("item_id"),
        "rank",
        pl.col("item_id").alias("similar_id"),
        rounded(found["score"].to_numpy()).alias("score"),
    )


def _covered(item: str, model: Model) -> str:
    if not model.items.is_in([item]).any():
        raise MissingInput(f"{model.name} knows no item {item!r}{_near(item, model.items)}", "persona similar --all")
    return item


def _near(item: str, items: pl.Series) -> str:
    close = nearest(item, items.head(100_000).to_list())
    return close if close.startswith("; did") else ""
