"""Learned strengths: what tells of later purchases counts, what is noise does not, and luck changes nothing."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from persona_cli.errors import MissingInput, UsageError
from persona_cli.feedback import strengths
from persona_cli.feedback.searching import Past, Point, with_signal
from persona_cli.feedback.strengths import Learned, from_events
from persona_cli.feedback.targets import Wanted, held_out, stated_of, targets
from persona_cli.models.interactions import interactions
from persona_cli.profiles.history import fold_history
from persona_cli.profiles.signals import with_signals
from persona_cli.workspace.settings import Settings, load

START = datetime(2026, 1, 1, tzinfo=UTC)
TASTES, ITEMS = 8, 20
DAYS = 60
MISLED = {"view": 1, "add_to_cart": 0.1, "purchase": 5}


def settings(table: dict[str, Any] | None = None, **flags: Any) -> Settings:
    given = {} if table is None else {"signals.strengths": table}
    return load(None, {}).with_flags(given | {"compute.threads": 1, "signals.half_life_days": 0} | flags)


def raw(counts: dict[str, tuple[int, float]], n_users: int = 300, seed: int = 0) -> pl.DataFrame:
    """Users of one of eight tastes; of each type so many events, of which a share is of items of the taste."""
    draws = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        for kind, (n, telling) in counts.items():
            own = draws.random(n) < telling
            items = np.where(own, user % TASTES, draws.integers(0, TASTES, n)) * ITEMS + draws.integers(0, ITEMS, n)
            days = draws.uniform(0, DAYS, n)
            rows += [
                (f"u{user:03d}", f"i{item:03d}", kind, START + timedelta(days=float(day)))
                for item, day in zip(items, days, strict=True)
            ]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "event_type", "timestamp"], orient="row")
    empty = {name: pl.lit(None, dtype=pl.String) for name in ("device", "country", "query")}
    return frame.with_columns(
        pl.col("timestamp").dt.cast_time_unit("us"),
        value=pl.lit(None, dtype=pl.Float64),
        position=pl.lit(None, dtype=pl.Int64),
        **empty,
    )


def signalled(frame: pl.DataFrame, given: Settings) -> pl.DataFrame:
    return with_signals(frame.lazy(), given).collect()


def by_type(found: Learned) -> dict[str, Any]:
    return {one.event_type: one for one in found.signals}


NOISY = raw({"view": (10, 0.0), "add_to_cart": (6, 1.0), "purchase": (4, 0.7)}, 400)


@pytest.fixture(scope="module")
def misled() -> Learned:
    """Carts tell what is bought, views tell nothing, and the settings say the opposite."""
    given = settings(MISLED)
    return from_events(signalled(NOISY, given), given)


def test_what_tells_of_purchases_is_weighed_above_noise(misled: Learned) -> None:
    found = by_type(misled)
    assert misled.target == "purchase" and "strongest" in misled.why
    assert found["add_to_cart"].learned >= 10 * max(found["view"].learned, 0.01)
    assert found["view"].note == found["add_to_cart"].note == strengths.LEARNED
    assert misled.gain is not None and misled.gain.low is not None and misled.gain.low > 0
    assert misled.learned.value > 1.2 * misled.declared.value
    assert all(cut.learned > cut.declared for cut in misled.cuts)
    assert misled.users <= 400


def test_the_lines_for_the_settings_file_hold_the_whole_table(misled: Learned) -> None:
    found = tomllib.loads("\n".join(misled.toml()))["signals"]["strengths"]
    assert list(found) == list(MISLED)
    assert found["purchase"] == 5
    learned = by_type(misled)
    assert found["view"] == learned["view"].learned and found["add_to_cart"] == learned["add_to_cart"].learned


def test_what_was_learned_serves_later_purchases_better(misled: Learned) -> None:
    """Learned on the earlier part alone, judged on purchases after it."""
    given = settings(MISLED)
    events, names = with_signal(signalled(NOISY, given), given)
    early = events.filter(pl.col("timestamp") < START + timedelta(days=0.8 * DAYS)).drop("signal")
    learned = from_events(early, given)
    (exam,) = held_out(events, Wanted("purchase", (names.index("purchase"),)), given.with_flags({"train.cuts": 1}))
    last = Past(exam, given, "knn")

    def judged(table: dict[str, Any]) -> float:
        return float(last.values(Point(tuple(round(1000 * table[name]) for name in names), 0.0)).mean())

    assert judged(MISLED | learned.settings["signals.strengths"]) > 1.2 * judged(MISLED)  # type: ignore[operator]


@pytest.mark.parametrize("seed", [1, 2])
def test_where_all_types_tell_the_same_what_is_declared_is_kept(seed: int) -> None:
    given = settings({"view": 1, "add_to_cart": 1, "purchase": 1})
    frame = raw({"view": (6, 0.9), "add_to_cart": (6, 0.9), "purchase": (6, 0.9)}, seed=seed)
    found = from_events(signalled(frame, given), given)
    assert found.settings == {} and found.toml() == [] and found.gain is None
    assert found.learned == found.declared
    assert all(one.learned == one.declared for one in found.signals)
    assert strengths.UNCLEAR in {one.note for one in found.signals}


def test_the_order_of_rows_changes_nothing(misled: Learned) -> None:
    given = settings(MISLED)
    shuffled = signalled(NOISY, given).sample(fraction=1.0, shuffle=True, seed=3)
    assert from_events(shuffled, given) == misled


def test_refolded_counts_are_the_history_of_the_events_at_those_strengths() -> None:
    """The oracle: the events themselves, given the strengths by the settings and folded as anywhere."""
    table = {"rating>=4": 3, "rating<3": -2, "view": 0.3, "block": "never", "purchase": 5}
    frame = raw({"rating": (4, 0.5), "view": (4, 0.5), "block": (1, 0.0), "purchase": (3, 0.5), "wish": (2, 0.5)}, 40)
    frame = frame.with_columns(
        value=pl.when(pl.col("event_type") == "rating").then(pl.col("item_id").hash(7) % 5 + 1.0)
    )
    given = settings(table, **{"signals.half_life_days": 10.0})
    events, names = with_signal(signalled(frame, given), given)
    assert names[:5] == tuple(table) and set(names[5:]) == {"rating", "wish"}, "a rating of 3 is of no rule"
    (exam,) = held_out(events, Wanted("purchase", (names.index("purchase"),)), given.with_flags({"train.cuts": 1}))
    past = Past(exam, given, "knn")
    other = {"rating>=4": 0.5, "rating<3": -1, "view": 0, "block": "never", "purchase": 2, "rating": 0.25, "wish": 4}
    point = Point(tuple(0 if name == "block" else round(1000 * other[name]) for name in names), 10.0)  # type: ignore[operator]
    ours = interactions(past.history_at(point), given)
    again = signalled(exam.train.drop("strength", "never", "consumed"), settings(other))
    theirs = interactions(fold_history(again), given)
    assert (ours.strengths != theirs.strengths).nnz == 0
    assert ours.dislikes is not None and theirs.dislikes is not None and (ours.dislikes != theirs.dislikes).nnz == 0


def test_a_declared_half_life_that_forgets_what_lasts_is_learned_away() -> None:
    """Taste does not change, and one day's half-life leaves only the user's last events."""
    given = settings({"view": 1, "purchase": 1}, **{"signals.half_life_days": 1.0})
    frame = raw({"view": (8, 0.8), "purchase": (5, 0.8)}, seed=2)
    found = from_events(signalled(frame, given), given)
    assert found.half_life.note == strengths.LEARNED
    assert found.half_life.learned == 0 or found.half_life.learned > 3
    assert tomllib.loads("\n".join(found.toml()))["signals"]["half_life_days"] == found.half_life.learned


def test_negative_strengths_stay_negative_and_never_stays_never() -> None:
    given = settings({"thumbs_down": -3, "block": "never", "view": 1, "purchase": 5})
    frame = raw({"thumbs_down": (4, 0.0), "block": (1, 0.0), "view": (4, 0.9), "purchase": (4, 0.9)}, 200)
    found = by_type(from_events(signalled(frame, given), given))
    assert found["thumbs_down"].learned <= 0
    assert (found["block"].learned, found["block"].note) == ("never", "kept: never")


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is tried, where it does not matter what."""
    monkeypatch.setattr(strengths, "GRID", (0.0, 1.0))
    monkeypatch.setattr(strengths, "HALF_LIVES", (0.0,))


@pytest.mark.usefixtures("coarse")
def test_the_target_is_the_strongest_type_with_enough_held_out() -> None:
    frame = pl.concat([raw({"view": (8, 0.9), "save": (3, 0.9)}, 400), raw({"purchase": (2, 0.9)}, 30)])
    found = from_events(signalled(frame, settings()), settings())
    assert found.target == "save" and "purchase" in found.why
    assert by_type(found)["purchase"].note == "kept: fewer than 50 users"
    named = from_events(signalled(frame, settings()), settings(), target="view")
    assert (named.target, named.why) == ("view", "as asked for")


def test_a_target_may_be_a_key_or_all_keys_of_a_type() -> None:
    given = settings({"rating>=4": 3, "rating>=3": 1, "rating<3": -2, "view": 1})
    frame = raw({"rating": (6, 0.5), "view": (3, 0.5)}, 60)
    frame = frame.with_columns(
        value=pl.when(pl.col("event_type") == "rating").then(pl.col("item_id").hash(7) % 5 + 1.0)
    )
    events, names = with_signal(signalled(frame, given), given)
    stated = stated_of(events, names, given)
    assert targets(names, stated, "rating>=4") == [Wanted("rating>=4", (0,))]
    assert targets(names, stated, "rating >= 4") == [Wanted("rating >= 4", (0,))]
    assert targets(names, stated, "rating") == [Wanted("rating", (0, 1))]
    with pytest.raises(UsageError, match="strength is -2"):
        targets(names, stated, "rating<3")


def test_what_cannot_be_learned_from_is_said(tmp_path: Path) -> None:
    given = settings(MISLED)
    events = signalled(NOISY, given)
    with pytest.raises(UsageError, match="did you mean 'purchase'"):
        from_events(events, given, target="purchas")
    with pytest.raises(MissingInput, match="no events with an item"):
        from_events(events.clear(), given)
    with pytest.raises(MissingInput, match="no other event type"):
        from_events(events.filter(pl.col("event_type") == "purchase"), given)
    with pytest.raises(MissingInput, match=r"too little is held out.*20 are needed"):
        from_events(events.filter(pl.col("user_id") < "u015"), given)
    with pytest.raises(MissingInput, match="strength above 0"):
        nothing = settings({"view": 0, "add_to_cart": 0, "purchase": -1})
        from_events(signalled(NOISY, nothing), nothing)


@pytest.mark.usefixtures("coarse")
def test_of_too_many_events_those_of_some_users_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strengths, "MOST_EVENTS", NOISY.height // 2)
    given = settings(MISLED)
    found = from_events(signalled(NOISY, given), given)
    assert 120 < by_type(found)["purchase"].users < 280
    assert found.notes[0].startswith("learned from ")
