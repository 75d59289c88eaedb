"""Beyond accuracy: what lists are like as a whole, judged against what could be shown, was known and is expected.

    beyond(lists, hits, background, ks) -> Beyond     every metric of `BEYOND` at every k, of one model's lists

`lists` are user_id, item_id, rank, score; `hits` are theirs (`find_hits` at depth max(ks) or deeper). Of a metric that
is the mean over users of a value that each user has, the values are given, so that an interval can be made of them;
of one that is a ratio of two such means, both; of one that only lists as a whole have, the figure. What a metric needs
and the background lacks makes it None: not stated, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.models.base import Interactions

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Background:
    """What lists are relative to, all as of the moment up to which the models learned."""

    items: pl.Series
    """item_id of everything that could be shown, sorted (n_items,)."""
    popularity: pl.DataFrame
    """item_id, users: training users with the item at strength > 0, one row for each of `items`."""
    n_users: int
    """Training users with a history, at least 1."""
    learned: Interactions | None = None
    """What models learn from: who has which items together."""
    known: Interactions | None = None
    """The histories that the users asked are scored from."""
    first_seen: pl.DataFrame | None = None
    """item_id, first Datetime[us, UTC]: when the item was published, else when it first had an event."""
    as_of: datetime | None = None
    """The moment the lists are made for (UTC)."""
    catalogue: pl.DataFrame | None = None
    """item_id, category String (nullable), tags List[String] (nullable); None: there is no catalogue."""
    expected: pl.DataFrame | None = None
    """Lists of the popular baseline: what anybody would have expected to be shown."""


@dataclass(frozen=True)
class Beyond:
    """The metrics of one model's lists, keyed `metric@k`; each key is in exactly one of the three."""

    per_user: dict[str, Floats]
    """The metric is the mean of these: one value for each user who has one, in order of user_id; at least one."""
    ratios: dict[str, Floats]
    """The metric is mean of column 0 / mean of column 1 - 1: (n_users, 2) in order of user_id, as `lift_intervals`."""
    whole: dict[str, float | None]
    """The metric as such: of the lists as a whole, or None where it cannot be stated."""
    bins: list[dict[str, Any]] | None = field(default=None, repr=False)
    """Hit rate by score, at the largest k: low, high, entries, hit_rate, hit_low, hit_high, from low scores to high."""
