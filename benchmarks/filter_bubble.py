"""A filter bubble: 50 rounds in which users click, and the model learns from the clicks alone, with and without rules.

    python benchmarks/filter_bubble.py [--users 1000] [--items 600] [--rounds 50] [--arms none,guarded] [--every 10]

Users and items are the busiest of ml-1m. What users like is the ground truth, which the model never sees: a truncated
SVD (rank 32) of all their pairs; an item attracts a user by its score over the user's 99.5 % quantile of scores, cut to
0 … 1, times 0.6. At the start the model knows the first 20 items of each user. Every round (a week) `ease` is fitted
anew on all that is known, each user gets a list of 20, and clicks at position k with the chance attraction / log2(1 +
k): the position-based model (Craswell et al. 2008). Draws of one user and round are the same in every arm. What was
clicked may be shown again, as songs or sections are, else no list could stay what it is (--hide: never again).

Printed per round are the Shannon entropy of first genres, of a list on average and of all lists together (bits), the
share of the items that are in some list, the Gini coefficient of how often items are, and accuracy: expected clicks a
list by the ground truth. The rules are those of `[rules]`, applied by the functions that serve them.
"""

from __future__ import annotations

import argparse
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from convert import source
from numpy.typing import NDArray
from rules import ruled, ruling
from scipy import sparse
from scipy.sparse.linalg import svds

from persona_cli.feedback.bubble import gini
from persona_cli.models.base import Training
from persona_cli.models.ease import Ease
from persona_cli.models.gram import build_gram
from persona_cli.models.interactions import interactions
from persona_cli.models.ranking import ranking
from persona_cli.models.stored import positions
from persona_cli.profiles.history import NOBODY
from persona_cli.serving.context import Audience
from persona_cli.workspace.settings import load

K, KNOWN, FIRST = 20, 20, date(2025, 1, 1)
ARMS: dict[str, dict[str, Any]] = {
    "none": {},
    "quota": {"rules.max_per_category": 5, "rules.min_categories": 6},
    "exploration": {"rules.exploration.share": 0.3},
    "guarded": {"rules.exploration.share": 0.2, "rules.min_categories": 4, "signals.half_life_days": 0},
}


def world(n_users: int, n_items: int) -> tuple[NDArray[np.int64], NDArray[np.float64], pl.DataFrame]:
    """The first items of each user (n, KNOWN), what attracts them (n, n_items), and the items with their genres."""
    pairs = pl.read_parquet(source() / "ml-1m/events.parquet")
    busy = pairs.group_by("item").len().sort("len", "item", descending=[True, False]).head(n_items)["item"].sort()
    pairs = pairs.filter(pl.col("item").is_in(busy.implode()))
    most = pairs.group_by("user").len().sort("len", "user", descending=[True, False]).head(n_users)["user"].sort()
    pairs = pairs.filter(pl.col("user").is_in(most.implode())).sort("user", "pos")
    row, column = positions_of(pairs["user"], most), positions_of(pairs["item"], busy)
    had = sparse.csr_array((np.ones(len(row)), (row, column)), shape=(len(most), len(busy)))
    left, strength, right = svds(had, k=32, v0=np.ones(min(had.shape)))
    score = (left * strength) @ right
    attraction = 0.6 * np.clip(score / np.quantile(score, 0.995, axis=1, keepdims=True), 0, 1)
    starts = np.searchsorted(row, np.arange(len(most)))
    first = column[starts[:, None] + np.arange(KNOWN)]
    genres = pl.read_parquet(source() / "ml-1m/items.parquet").filter(pl.col("item").is_in(busy.implode())).sort("item")
    tags = genres["genres"].str.split("|")
    items = pl.DataFrame(
        {"item_id": [f"i{name:05d}" for name in busy], "category": tags.list.first(), "tags": tags},
        schema_overrides={"category": pl.String},
    )
    return first, attraction, items


def positions_of(values: pl.Series, sorted_: pl.Series) -> NDArray[np.int64]:
    return np.searchsorted(sorted_.to_numpy(), values.to_numpy()).astype(np.int64)


def known(row: NDArray[np.int64], column: NDArray[np.int64], when: int, users: pl.Series, items: pl.Series,
          hide: bool) -> pl.DataFrame:  # fmt: skip
    """Clicks of a round as rows of the history table."""
    frame = pl.DataFrame({"user_id": users.gather(row), "item_id": items.gather(column)})
    given = {"day": pl.lit(FIRST + timedelta(weeks=when)), "strength": pl.lit(1000), "n": pl.lit(1)}
    given |= {"consumed": pl.lit(int(hide)), "never": pl.lit(0)}
    more = [given.get(name, pl.lit(0)).cast(kind).alias(name) for name, kind in NOBODY.schema.items()
            if name not in frame.columns]  # fmt: skip
    return frame.with_columns(more).select(NOBODY.columns)


def entropy(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Shannon entropy in bits along the last axis."""
    share = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    return -(share * np.log2(np.where(share > 0, share, 1))).sum(axis=-1)


def play(arm: dict[str, Any], first: NDArray[np.int64], attraction: NDArray[np.float64], items: pl.DataFrame,
         rounds: int, hide: bool) -> pl.DataFrame:  # fmt: skip
    """A row a round: entropy of a list and of all, coverage, Gini, accuracy, clicks, share of lists that gave way."""
    n_users, n_items = attraction.shape
    names = items["item_id"]
    users = pl.Series("user_id", [f"u{number:05d}" for number in range(n_users)])
    settings = load(None, {}).with_flags({"compute.threads": 1, **arm})
    rules = ruled(arm) if any(key.startswith("rules.") for key in arm) else None
    kinds, of_item = items["category"].unique().sort(), items["category"].rank("dense").to_numpy().astype(int) - 1
    chance = 1 / np.log2(2 + np.arange(K))
    nowhere = pl.DataFrame(
        {name: pl.repeat(None, n_users, dtype=pl.String, eager=True) for name in ("device", "country")}
    )
    history = [known(np.repeat(np.arange(n_users), KNOWN), first.ravel(), 0, users, names, hide)]
    told = []
    for number in range(1, rounds + 1):
        matrix = interactions(pl.concat(history).sort("user_id", "item_id", "day"), settings, items=names)
        now = datetime.combine(FIRST + timedelta(weeks=number), datetime.min.time(), UTC)
        model = Ease.from_settings(settings)
        model.fit(Training(matrix, build_gram(matrix, settings), pl.DataFrame(), now))
        asked = Audience(users, matrix, positions(users, matrix.users), nowhere, np.zeros(n_users, dtype=bool))
        choosing = None
        if rules is not None:
            made = ruling(rules, asked, items, now)
            choosing = type(made)(**{**made.__dict__, "seed": number, "extra": names})
        made = ranking(model, asked, K, settings, choosing=choosing)
        blocks = list(made.blocks)
        order = positions(made.vocabulary, names)
        shown = order[np.concatenate([block.places for block in blocks])]
        there = np.concatenate([block.scores for block in blocks]) > -np.inf
        gave = [getattr(block, "gave_way", np.zeros((len(block.places), 1), bool)).any(axis=1) for block in blocks]
        expected = np.where(there, np.take_along_axis(attraction, shown, 1) * chance, 0.0)
        # One draw a user and item, so that arms differ by what they show and not by luck.
        luck = np.take_along_axis(np.random.default_rng([11, number]).random((n_users, n_items)), shown, 1)
        clicked = np.nonzero(luck < expected)
        history.append(known(clicked[0], shown[clicked], number, users, names, hide))
        counts = np.bincount(shown[there], minlength=n_items)
        per_list = np.zeros((n_users, len(kinds)))
        np.add.at(per_list, (np.nonzero(there)[0], of_item[shown[there]]), 1)
        wide = (float(entropy(per_list).mean()), float(entropy(per_list.sum(axis=0))), float((counts > 0).mean()))
        liked = (float(expected.sum(axis=1).mean()), len(clicked[0]) / n_users)
        told.append((number, *wide, gini(np.sort(counts)), *liked, float(np.concatenate(gave).mean())))
    columns = ["round", "entropy", "entropy of all", "coverage", "gini", "accuracy", "clicks", "gave way"]
    return pl.DataFrame(told, schema=columns, orient="row")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--arms", default="none,guarded")
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--hide", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the arm `given`")
    given = parser.parse_args()
    first, attraction, items = world(given.users, given.items)
    print(f"{given.users:,} users, {given.items:,} items, {items['category'].n_unique()} genres, {given.rounds} rounds")
    own: dict[str, Any] = {}
    for key, _, value in (one.partition("=") for one in given.set):
        own[key] = value if value.isalpha() else float(value) if "." in value else int(value)
    base: pl.DataFrame | None = None
    for name in given.arms.split(","):
        told = play(own if name == "given" else ARMS[name], first, attraction, items, given.rounds, given.hide)
        base = told if base is None else base
        print(f"\n{name}: {own if name == 'given' else ARMS[name]}")
        print("| round | " + " | ".join(told.columns[1:]) + " |\n|" + "---|" * len(told.columns))
        for row in told.filter((pl.col("round") == 1) | (pl.col("round") % given.every == 0)).iter_rows():
            print("| " + " | ".join(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row) + " |")
        wide = ("entropy", "entropy of all", "coverage")
        kept = {one: told[one].item(-1) / base[one].item(0) for one in wide}
        mine = {one: told[one].item(-1) / told[one].item(0) for one in wide}
        cost = told["accuracy"].mean() / base["accuracy"].mean() - 1  # type: ignore[operator]
        print(f"kept of round 1 of {given.arms.split(',')[0]}: " + ", ".join(f"{k} {v:.1%}" for k, v in kept.items()))
        print("kept of its own round 1: " + ", ".join(f"{k} {v:.1%}" for k, v in mine.items()))
        last = told["accuracy"].item(-1) / base["accuracy"].item(-1) - 1
        print(f"accuracy over all rounds {cost:+.1%}, in the last {last:+.1%}", flush=True)


if __name__ == "__main__":
    main()
