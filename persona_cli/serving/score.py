"""Scores of given pairs (user, item), on the same scale as in the lists of `persona recommend`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import numpy as np
import polars as pl

from persona_cli.models import registry
from persona_cli.models.base import reads_order, reads_queries
from persona_cli.models.ranking import hidden_now, model_scores, spared_now
from persona_cli.models.vocabulary import positions
from persona_cli.serving.context import audience
from persona_cli.serving.recommend import rounded
from persona_cli.workspace.home import Home

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
