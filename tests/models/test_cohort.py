from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from histories import AS_OF, Entry, histories, liked, training
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from persona_cli.models.base import Training
from persona_cli.models.cohort import Cohort
from persona_cli.models.popular import Popular
from persona_cli.profiles import SMALLEST_CELL

# Three groups of users with items of their own: sizes, and the items of each.
SIZES = (40, 30, 25)
ITEMS = (range(10), range(10, 18), range(18, 24))
GROUP = np.repeat(np.arange(3), SIZES)


def blocks(seed: int = 1) -> list[Entry]:
    rng = np.random.default_rng(seed)
    pairs = [(user, int(item)) for user, g in enumerate(GROUP) for item in rng.choice(list(ITEMS[g]), 4, replace=False)]
    return liked(sorted(set(pairs)))


def order(given_training: Training) -> np.ndarray:
    """The group of each user, in the order of the matrix."""
    numbers = given_training.interactions.users.str.strip_prefix("u").cast(int).to_numpy()
    groups: np.ndarray = GROUP[numbers]
    return groups


def saved(model: Cohort, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    model.save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_groups_of_like_taste_are_found() -> None:
    given_training = training(blocks())
    model = Cohort(cohorts=3).fit(given_training)
    assert sorted(model.sizes_.tolist(), reverse=True) == list(SIZES)
    who = histories(given_training.interactions, model.items)
    nearest = model.memberships(who).argmax(axis=1)
    groups = order(given_training)
    assert all(len(set(nearest[groups == group])) == 1 for group in range(3))
    assert model.settings()["cohorts"] == 3


def test_shares_by_hand() -> None:
    given_training = training(blocks())
    model = Cohort(cohorts=3, half_life_days=0, overall=50).fit(given_training)
    rows = given_training.interactions.strengths.toarray() > 0
    who = histories(given_training.interactions, model.items)
    nearest = model.memberships(who).argmax(axis=1)
    whole = rows.sum(axis=0)
    for cohort in range(3):
        own = rows[nearest == cohort].sum(axis=0)
        wanted = (own + 50 * whole / whole.sum()) / (own.sum() + 50)
        assert np.allclose(model.shares_[:, cohort], wanted, rtol=1e-5)
    assert np.allclose(model.scores(who), model.memberships(who) @ model.shares_.T, rtol=1e-5)


def timed(entries: list[Entry], ages: list[int]) -> pl.DataFrame:
    """One event an entry, so many days before the training ends."""
    return pl.DataFrame(
        {
            "user_id": [f"u{entry[0]}" for entry in entries],
            "item_id": [f"i{entry[1]}" for entry in entries],
            "timestamp": [AS_OF - timedelta(days=age, hours=1) for age in ages],
            "strength": [entry[3] for entry in entries],
            "never": [False] * len(entries),
            "device": [None] * len(entries),
            "country": [None] * len(entries),
        },
        schema_overrides={"timestamp": pl.Datetime("us", "UTC"), "device": pl.String, "country": pl.String},
    )


def test_events_fade_and_unwanted_ones_do_not_count() -> None:
    entries = blocks()
    events = timed(entries, [(n % 3) * 10 for n in range(len(entries))])
    seen = events.head(5).with_columns(strength=pl.lit(0, dtype=pl.Int64))
    given_training = dataclasses.replace(training(entries), events=pl.concat([events, seen]))
    model = Cohort(cohorts=1, half_life_days=10, overall=0).fit(given_training)
    counts = dict.fromkeys(model.items, 0.0)
    for n, entry in enumerate(entries):
        counts[f"i{entry[1]}"] += 0.5 ** (n % 3)
    wanted = np.array(list(counts.values())) / sum(counts.values())
    assert np.allclose(model.shares_[:, 0], wanted, rtol=1e-5)


def test_one_cohort_is_the_popular_list() -> None:
    entries = blocks()
    events = timed(entries, [n % 50 for n in range(len(entries))])
    counts = (
        events.with_columns(day=pl.col("timestamp").dt.date())
        .group_by("item_id", "day")
        .agg(n=pl.len().cast(pl.Int64))
        .with_columns(device=pl.lit(None, pl.String), country=pl.lit(None, pl.String))
    )
    given_training = dataclasses.replace(
        training(entries), events=events, popularity=counts.select("item_id", "day", "device", "country", "n")
    )
    model, popular = Cohort(cohorts=1).fit(given_training), Popular().fit(given_training)
    who = histories(given_training.interactions, model.items)
    assert np.allclose(model.scores(who), popular.scores(who), rtol=1e-4)


def test_few_events_mix_and_many_decide() -> None:
    model = Cohort(cohorts=3).fit(training(blocks()))
    one, many = [(0, 0)], [(0, item) for item in ITEMS[0]]
    soft, hard = (
        model.memberships(histories(training(liked(pairs)).interactions, model.items)).max() for pairs in (one, many)
    )
    assert 1 / 3 < soft < hard


def test_nobody_and_unknown_items_get_no_score() -> None:
    model = Cohort(cohorts=3).fit(training(blocks()))
    stranger = histories(training(liked([(0, 99)])).interactions, model.items)
    assert (model.scores(stranger) == 0).all()
    assert (
        Cohort().fit(training([])).scores(histories(training([]).interactions, pl.Series([], dtype=pl.String))).size
        == 0
    )


@given(st.integers(2, 60), st.integers(1, 12), st.integers(0, 5))
@examples(max_examples=25)
def test_no_cohort_is_smaller_than_the_smallest_cell(n_users: int, cohorts: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = sorted({(u, int(i)) for u in range(n_users) for i in rng.choice(15, 3, replace=False)})
    model = Cohort(cohorts=cohorts).fit(training(liked(pairs)))
    assert model.sizes_.sum() == n_users
    assert len(model.sizes_) == 1 or model.sizes_.min() >= SMALLEST_CELL
    assert np.allclose(model.shares_.sum(axis=0), 1, atol=1e-5)


def test_the_number_follows_from_the_users() -> None:
    rng = np.random.default_rng(2)
    pairs = sorted({(u, int(i)) for u in range(450) for i in rng.choice(30, 4, replace=False)})
    assert 1 < Cohort().fit(training(liked(pairs))).settings()["cohorts"] <= 4
    assert Cohort().fit(training(blocks())).settings()["cohorts"] == 1


def test_order_and_threads_do_not_matter(tmp_path: Path) -> None:
    entries = blocks()
    events = timed(entries, [n % 50 for n in range(len(entries))])
    models = []
    for threads, shuffled in ((1, events), (2, events.sample(fraction=1, shuffle=True, seed=4))):
        with threadpool_limits(threads):
            models.append(Cohort(cohorts=3).fit(dataclasses.replace(training(entries), events=shuffled)))
    assert saved(models[0], tmp_path / "a") == saved(models[1], tmp_path / "b")
    loaded = Cohort.load(tmp_path / "a", models[0].settings())
    who = histories(training(entries).interactions, loaded.items)
    assert np.array_equal(loaded.scores(who), models[0].scores(who))
    parts = [loaded.scores(who.block(start, start + 11)) for start in range(0, len(GROUP), 11)]
    assert np.array_equal(np.concatenate(parts), loaded.scores(who))


def test_the_day_of_training_counts_in_full() -> None:
    entries = liked([(user, 0) for user in range(25)])
    midnight = datetime(2026, 3, 1, tzinfo=UTC)
    assert midnight == AS_OF
    events = timed(entries, [0] * 24 + [30])
    given_training = dataclasses.replace(training(entries), events=events)
    assert Cohort(half_life_days=30, overall=0).fit(given_training).shares_.tolist() == [[1.0]]
