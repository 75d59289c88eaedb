"""What a model must beat: lists of the baselines against plain Python."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from persona_cli.evaluation import exams
from persona_cli.evaluation.baselines import baseline_lists
from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.judging import Asked, asked
from persona_cli.models.interactions import interactions
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import prepared
from persona_cli.models.ranking import rank
from persona_cli.profiles.history import fold_history
from persona_cli.workspace.settings import load

START = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = load(None, {})
NOTHING = pl.Series("item_id", [], dtype=pl.String)


def events(rows: list[tuple[str, str, float]], consumed: bool) -> pl.DataFrame:
    """(user, item, days since the start) as rows of signal_events."""
    return pl.DataFrame(
        {
            "user_id": [user for user, _, _ in rows],
            "item_id": [item for _, item, _ in rows],
            "timestamp": [START + timedelta(days=days) for _, _, days in rows],
        },
        schema_overrides={"timestamp": pl.Datetime("us", "UTC")},
    ).with_columns(
        device=pl.lit(None, dtype=pl.String),
        country=pl.lit(None, dtype=pl.String),
        strength=pl.lit(1000, dtype=pl.Int64),
        never=pl.lit(False),
        consumed=pl.lit(consumed),
    )


def made(frame: pl.DataFrame, depth: int, never: pl.Series = NOTHING) -> tuple[Exam, Asked, dict[str, pl.DataFrame]]:
    exam = exams.by_split(frame, "time", 0.2)
    learned = interactions(fold_history(exam.train), SETTINGS)
    training = prepared(learned, exam.train, SETTINGS, exam.as_of)
    popular = Popular.from_settings(SETTINGS).fit(training)
    roster = asked(exam, learned)
    lists = rank(popular, roster, depth, SETTINGS, never=never)
    made = baseline_lists(exam, roster, learned, popular, lists, depth, SETTINGS, never)
    return exam, roster, {"popular": lists, **made}


def world(seed: int = 0, n_users: int = 60, n_items: int = 40, n_events: int = 1500) -> list[tuple[str, str, float]]:
    draws = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, n_items + 1)
    items = draws.choice(n_items, size=n_events, p=share / share.sum())
    users, days = draws.integers(0, n_users, n_events), draws.uniform(0, 60, n_events)
    return [(f"u{u:02d}", f"i{i:02d}", float(d)) for u, i, d in zip(users, items, days, strict=True)]


def of(lists: pl.DataFrame, user: str) -> list[str]:
    return lists.filter(pl.col("user_id") == user).sort("rank")["item_id"].to_list()


@pytest.mark.parametrize("consumed", [True, False])
def test_every_list_is_whole_and_holds_nothing_that_is_hidden(consumed: bool) -> None:
    never = pl.Series("item_id", ["i00", "i05"])
    exam, roster, lists = made(events(world(), consumed), 11, never)
    hidden = set(exam.exclude.rows())
    assert set(lists) == {"popular", "recent-popular", "last-items", "random"}
    for name, frame in lists.items():
        assert not set(frame.select("user_id", "item_id").rows()) & hidden, name
        assert not set(frame["item_id"]) & {"i00", "i05"}, name
        for user in roster.users:
            own = frame.filter(pl.col("user_id") == user).sort("rank")
            left = 38 - len({item for who, item in hidden if who == user} - {"i00", "i05"})
            assert own["rank"].to_list() == list(range(1, min(11, left) + 1)), name
            assert own["item_id"].n_unique() == own.height, name
            assert own["score"].is_sorted(descending=True), name


def test_recent_popular_counts_the_last_days_alone() -> None:
    rows = world()
    exam, roster, lists = made(events(rows, consumed=True), 5)
    since = exam.as_of - timedelta(days=7)
    counts = Counter(item for _, item, day in rows if since <= START + timedelta(days=day) < exam.as_of)
    hidden = set(exam.exclude.rows())
    for user in roster.users:
        offered = [
            item for item in sorted(counts, key=lambda item: (-counts[item], item)) if (user, item) not in hidden
        ]
        shown = of(lists["recent-popular"], user)
        assert shown[: len(offered)] == offered[:5]


def test_last_items_are_the_users_own_newest_first_then_the_popular() -> None:
    rows = world()
    exam, roster, lists = made(events(rows, consumed=False), 12)
    for user in roster.users:
        newest: dict[str, float] = {}
        for who, item, day in rows:
            if who == user and START + timedelta(days=day) < exam.as_of:
                newest[item] = max(day, newest.get(item, -1.0))
        own = sorted(newest, key=lambda item: (-newest[item], item))
        rest = [item for item in of(lists["popular"], user) if item not in newest]
        assert of(lists["last-items"], user) == (own + rest)[:12]


def test_where_all_that_was_had_is_hidden_last_items_is_the_popular_list() -> None:
    _, roster, lists = made(events(world(), consumed=True), 6)
    for user in roster.users:
        assert of(lists["last-items"], user) == of(lists["popular"], user)


def test_random_lists_show_every_item_alike_and_never_change() -> None:
    rows = [(f"u{n:04d}", f"i{n % 20:02d}", day) for n in range(4000) for day in (n % 50, 51 + n % 9)]
    frame = events(rows, consumed=False)
    _, _, lists = made(frame, 5)
    again = made(frame.sample(fraction=1.0, shuffle=True, seed=3), 5)[2]
    assert lists["random"].equals(again["random"])
    for place in (1, 5):
        shown = lists["random"].filter(pl.col("rank") == place)["item_id"].value_counts()["count"].to_numpy()
        expected = shown.sum() / 20
        # A χ² of 19 degrees is above 43.8 once in a thousand.
        assert len(shown) == 20
        assert ((shown - expected) ** 2 / expected).sum() < 43.8
