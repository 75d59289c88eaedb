"""Lists that take no learning: what a model must beat to be worth its while.

    popular         what everybody wants, by context (the model `popular`; lifts are over it)
    recent-popular  what was wanted in the last `evaluate.recent_days` before the cut, then the popular list
    last-items      the user's own latest items that may be shown again, newest first, then the popular list
    random          items in an order of the user's own that means nothing

They are made from the same events and under the same masks as the lists of the models. Where everything that a user
has had is kept out of the lists, `last-items` is the popular list.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.judging import Asked
from persona_cli.evaluation.timelines import stable_hashes
from persona_cli.models.base import Interactions, Training
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import popularity
from persona_cli.models.ranking import rank
from persona_cli.workspace.settings import Settings

Integers = NDArray[np.int64]
POPULAR, RECENT, LAST, RANDOM = "popular", "recent-popular", "last-items", "random"
NAMES = (POPULAR, RECENT, LAST, RANDOM)
_CELLS = 20_000_000
"""Places drawn at once for random lists."""


def baseline_lists(
    exam: Exam,
    asked: Asked,
    learned: Interactions,
    popular: Popular,
    popular_lists: pl.DataFrame,
    depth: int,
    settings: Settings,
    never: pl.Series,
) -> dict[str, pl.DataFrame]:
    """Lists (user_id, item_id, rank, score) of every baseline but `popular`, whose model and lists are given."""
    return {
        RECENT: recent_popular(exam, asked, learned, popular, depth, settings, never),
        LAST: last_items(exam, asked.users, popular_lists, depth, never),
        RANDOM: random_lists(popular.items, asked, depth, never),
    }


def recent_popular(
    exam: Exam,
    asked: Asked,
    learned: Interactions,
    popular: Popular,
    depth: int,
    settings: Settings,
    never: pl.Series,
) -> pl.DataFrame:
    """Counts of the last days alone, unfaded; what those say nothing of follows as in the popular list."""
    since = exam.as_of - timedelta(days=settings.number("evaluate.recent_days"))
    events = exam.train.filter(pl.col("timestamp") >= since)
    recent = popularity(events)
    if not recent.height:
        return rank(popular, asked, depth, settings, never=never)
    # Counts are all that a popular list reads; neither matrix nor Gram is looked at.
    counts = Training(learned, None, recent, exam.as_of, events=events)  # type: ignore[arg-type]
    model = Popular(half_life_days=0.0, context_weight=popular.context_weight).fit(counts)
    return rank(model, asked, depth, settings, fill=popular, never=never)


def last_items(exam: Exam, users: pl.Series, popular_lists: pl.DataFrame, depth: int, never: pl.Series) -> pl.DataFrame:
    """The items of each user's latest events first, equal times by item_id; the popular list behind them."""
    own = (
        exam.known.filter(pl.col("item_id").is_not_null() & pl.col("user_id").is_in(users.implode()))
        .group_by("user_id", "item_id")
        .agg(pl.col("timestamp").max())
        .join(exam.exclude, on=["user_id", "item_id"], how="anti")
        .filter(~pl.col("item_id").is_in(never.implode()))
        .sort("user_id", "timestamp", "item_id", descending=[False, True, False])
        .select("user_id", "item_id", part=pl.lit(0), place=pl.int_range(pl.len()).over("user_id"))
    )
    rest = popular_lists.select("user_id", "item_id", part=pl.lit(1), place=pl.col("rank").cast(pl.Int64))
    return (
        pl.concat([own, rest])
        .sort("user_id", "part", "place")
        .unique(["user_id", "item_id"], keep="first", maintain_order=True)
        .with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id"))
        .filter(pl.col("rank") <= depth)
        .select("user_id", "item_id", "rank", score=1.0 / pl.col("rank"))
    )


def random_lists(items: pl.Series, asked: Asked, depth: int, never: pl.Series) -> pl.DataFrame:
    """Every user's items in the order (b + j a) mod n of their positions, a and b from a hash of the user_id.

    With a prime to n that is a permutation; each item is as likely as any other at each place. The same user gets the
    same list in every run, whoever else is asked.
    """
    offered = items.filter(~items.is_in(never.implode()))
    n_items, users = len(offered), asked.users
    places = np.full((len(users), min(depth, n_items)), -1, dtype=np.int64)
    hidden = asked.excluded(offered)
    start, step = _permutations(users, n_items)
    block = max(1, _CELLS // (4 * depth))
    for first in range(0, len(users), block):
        part = slice(first, first + block)
        places[part] = _drawn(start[part], step[part], hidden[part], n_items, places.shape[1])
    there = places >= 0
    return pl.DataFrame(
        {
            "user_id": users.gather(np.repeat(np.arange(len(users)), there.sum(axis=1))),
            "item_id": offered.gather(places[there]),
            "rank": np.broadcast_to(np.arange(1, places.shape[1] + 1), places.shape)[there],
        }
    ).with_columns(score=1.0 / pl.col("rank"))


def _permutations(users: pl.Series, n_items: int) -> tuple[Integers, Integers]:
    """First place and step of every user's order (n_users,); the step is prime to n_items."""
    start = (stable_hashes(users, "random start") % np.uint64(max(n_items, 1))).astype(np.int64)
    step = (stable_hashes(users, "random step") % np.uint64(max(n_items - 1, 1))).astype(np.int64) + 1
    while len(common := np.flatnonzero(np.gcd(step, n_items) > 1)):
        step[common] = step[common] % n_items + 1
    return start, step


def _drawn(start: Integers, step: Integers, hidden: sparse.csr_array, n_items: int, depth: int) -> Integers:
    """The first `depth` places of each order that are not hidden (n, depth); -1 where there are fewer."""
    found = np.full((len(start), depth), -1, dtype=np.int64)
    rows = np.repeat(np.arange(len(start)), np.diff(hidden.indptr))
    taken = np.sort(rows * n_items + hidden.indices)  # keys of what may not be shown
    open_rows, length = np.arange(len(start)), min(2 * depth, n_items)
    while len(open_rows):
        places = (start[open_rows, None] + step[open_rows, None] * np.arange(length)) % n_items
        keys = open_rows[:, None] * n_items + places
        at = np.searchsorted(taken, keys)
        free = np.ones(places.shape, dtype=bool)
        inside = at < len(taken)
        free[inside] = taken[at[inside]] != keys[inside]
        order = np.cumsum(free, axis=1)
        done = (order[:, -1] >= depth) | (length == n_items)
        kept = free & (order <= depth) & done[:, None]
        row, column = np.nonzero(kept)
        found[open_rows[row], order[row, column] - 1] = places[row, column]
        open_rows, length = open_rows[~done], min(4 * length, n_items)
    return found
