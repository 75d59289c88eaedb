"""Two stages on a world where what is wanted next depends on more than who liked what."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from histories import DEFAULTS, with_signals

from persona_cli.errors import BadSettings
from persona_cli.models.base import Histories, Training, reads_order
from persona_cli.models.interactions import rows_for, times_for
from persona_cli.models.knn import Knn
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import prepare
from persona_cli.models.ranker import Ranker
from persona_cli.models.topk import topk
from persona_cli.workspace.settings import Settings, load

START = datetime(2026, 1, 1, tzinfo=UTC)
AS_OF = START + timedelta(days=60)
N_USERS, N_ITEMS, N_KINDS = 240, 240, 4


@cache
def world() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events and catalogue: items come out four a day; users take what is new of the one category they like.

    Who liked what says little: items that came out together are liked together, and the newest were liked by few.
    """
    rng = np.random.default_rng(5)
    came_out = np.arange(N_ITEMS) // 4
    rows: dict[tuple[int, int], datetime] = {}
    for user in range(N_USERS):
        for day in np.sort(rng.choice(60, 18, replace=False)):
            kind = user % N_KINDS if rng.random() < 0.9 else int(rng.integers(N_KINDS))
            there = np.arange(kind, N_ITEMS, N_KINDS)
            appeal = np.where(came_out[there] <= day, np.exp(-(day - came_out[there]) / 10), 0)
            item = int(rng.choice(there, p=appeal / appeal.sum()))
            rows.setdefault((user, item), START + timedelta(days=int(day), seconds=int(rng.integers(80_000))))
    events = with_signals(
        [(f"u{user:03d}", f"i{item:03d}", moment) for (user, item), moment in rows.items()],
        event_type=pl.lit("click"),
        device=pl.when(pl.col("user_id") < "u080").then(pl.lit("web")),
    )
    catalogue = pl.DataFrame(
        {
            "item_id": [f"i{item:03d}" for item in range(N_ITEMS)],
            "category": [f"c{item % N_KINDS}" for item in range(N_ITEMS)],
            "tags": [[f"t{item % 7}"] for item in range(N_ITEMS)],
            "price": [1.0 + item % 10 for item in range(N_ITEMS)],
            "published_at": [START + timedelta(days=int(day)) for day in came_out],
        },
        schema_overrides={"published_at": pl.Datetime("us", "UTC")},
    )
    return events, catalogue


CUT = START + timedelta(days=50)


def training(events: pl.DataFrame | None = None, as_of: datetime = CUT) -> Training:
    told, catalogue = world()
    told = told if events is None else events
    return prepare(told.filter(pl.col("timestamp") < as_of), DEFAULTS, as_of, catalogue=catalogue, ordered=True)


def ranker(preparing: Settings | None = DEFAULTS, **settings: Any) -> Ranker:
    parts = {"knn": Knn.from_settings(DEFAULTS), "popular": Popular.from_settings(DEFAULTS)}
    return Ranker(parts, **{"candidates": 60, "trees": 20, **settings}, preparing=preparing)


def histories(told: Training, model: Any) -> Histories:
    made = told.interactions
    context = made.users.to_frame("user_id").select(
        device=pl.when(pl.col("user_id") < "u080").then(pl.lit("web")), country=pl.lit(None, dtype=pl.String)
    )
    return Histories(rows_for(made, model.items, DEFAULTS), made.events, context, times_for(made, model.items))


@cache
def fitted() -> Ranker:
    return ranker().fit(training())


def hits(model: Any, told: Training) -> float:
    """Share of the next ten days' items that are among the 10 best new ones, over users."""
    who = histories(told, model)
    scores = model.scores(who)
    scores[who.rows.toarray() > 0] = -np.inf
    best = topk(scores, 10)[0]
    later = world()[0].filter(pl.col("timestamp") >= CUT)
    wanted = dict(later.group_by("user_id").agg("item_id").iter_rows())
    found = [
        len({model.items[int(one)] for one in best[row]} & set(wanted[user])) / len(set(wanted[user]))
        for row, user in enumerate(told.interactions.users)
        if user in wanted
    ]
    return float(np.mean(found))


def saved(model: Any, folder: Path) -> dict[str, str]:
    folder.mkdir()
    model.save(folder)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_what_is_new_in_the_user_s_category_is_ranked_before_what_others_of_old_liked() -> None:
    told = training()
    base = Knn.from_settings(DEFAULTS).fit(told)
    assert "right answers" in fitted().settings()["learned"]
    assert hits(fitted(), told) > 1.2 * hits(base, told)


def test_candidates_have_chances_and_the_others_follow_in_the_order_of_the_base() -> None:
    told, model = training(), fitted()
    who = histories(told, model).block(0, 20)
    scores, base = model.scores(who), Knn.from_settings(DEFAULTS).fit(told).scores(who)
    candidates, _ = model.described(who, base, repeats=False)
    for user in range(20):
        chosen = candidates.places[user][candidates.there[user]]
        assert not set(chosen) & set(who.rows[[user]].indices)  # nothing came back in this world
        assert ((scores[user, chosen] > 0) & (scores[user, chosen] < 1)).all()
        rest = np.setdiff1d(np.arange(len(model.items)), chosen)
        assert scores[user, rest].max() < scores[user, chosen].min()
        assert (np.argsort(scores[user, rest], kind="stable") == np.argsort(base[user, rest], kind="stable")).all()
        assert ((scores[user, rest] == 0) == (base[user, rest] == 0)).all()


def test_a_user_without_a_history_has_scores_of_zero() -> None:
    model = fitted()
    who = histories(training(), model)
    nobody = Histories(who.rows * np.float32(0), who.events * 0, who.context, None)
    assert not model.scores(nobody).any()


def test_scores_do_not_depend_on_who_else_is_asked() -> None:
    model = fitted()
    who = histories(training(), model)
    whole = model.scores(who)
    parts = [model.scores(who.block(start, start + 7)) for start in range(0, len(who.events), 7)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.isfinite(whole).all() and whole.dtype == np.float32


def test_without_times_it_still_ranks() -> None:
    model = fitted()
    who = histories(training(), model)
    scores = model.scores(Histories(who.rows, who.events, who.context))
    assert np.isfinite(scores).all() and (scores > 0).any()


def test_shuffled_events_and_a_second_fit_make_the_same_files(tmp_path: Path) -> None:
    shuffled = world()[0].sample(fraction=1, shuffle=True, seed=3)
    again = ranker().fit(training(as_of=AS_OF)).fit(training(shuffled))
    assert saved(again, tmp_path / "again") == saved(fitted(), tmp_path / "first")
    assert again.settings() == fitted().settings()


def test_threads_make_no_difference(tmp_path: Path) -> None:
    two = ranker(load(None, {}).with_flags({"compute.solver_threads": 2})).fit(training())
    assert saved(two, tmp_path / "two") == saved(fitted(), tmp_path / "one")


def test_saved_and_loaded_it_scores_the_same(tmp_path: Path) -> None:
    model = fitted()
    saved(model, tmp_path / "model")
    assert {path.suffix for path in (tmp_path / "model").iterdir()} == {".npy", ".parquet"}
    settings = json.loads(json.dumps(dict(model.settings())))
    loaded = Ranker.load(tmp_path / "model", settings, model.parts())
    who = histories(training(), model)
    assert np.array_equal(loaded.scores(who), model.scores(who))
    assert loaded.settings() == model.settings()
    assert set(model.parts()) == {"knn", "popular"} and reads_order(model)


def without_events(told: Training) -> Training:
    return Training(told.interactions, told.gram, told.popularity, told.as_of)


def test_with_nothing_to_learn_from_the_order_is_that_of_the_base(tmp_path: Path) -> None:
    told = training()
    crowded = world()[0].with_columns(timestamp=pl.lit(START))
    few = world()[0].head(150)
    for given, why in (
        (without_events(told), "no single events"),
        (training(crowded), "one second"),
        (training(few), "too few"),
    ):
        model = ranker().fit(given)
        assert why in model.settings()["learned"]
        base = Knn.from_settings(DEFAULTS).fit(given)
        who = histories(given, model)
        mine, theirs = model.scores(who), base.scores(who.over(np.arange(len(model.items)), len(model.items)))
        assert np.array_equal(mine, theirs)
    saved(model, tmp_path / "model")
    loaded = Ranker.load(tmp_path / "model", dict(model.settings()), model.parts())
    assert np.array_equal(loaded.scores(who), mine)


def test_an_order_that_is_no_better_than_the_base_s_is_not_used() -> None:
    events = world()[0]
    random = np.random.default_rng(0)
    noise = events.with_columns(item_id=pl.Series([f"i{one:03d}" for one in random.integers(0, 240, events.height)]))
    model = ranker().fit(prepare(noise, DEFAULTS, AS_OF, ordered=True))
    assert model.settings()["learned"].startswith("base order")


def test_items_that_come_back_may_be_recommended_again() -> None:
    """Users take one of their three items again and again; what was taken is not consumed."""
    rng = np.random.default_rng(2)
    rows = [
        (f"u{user:03d}", f"i{(user * 3 + int(rng.integers(3))) % 90:03d}", START + timedelta(days=day, seconds=user))
        for user in range(120)
        for day in range(0, 60, 3)
    ]
    events = with_signals(rows, event_type=pl.lit("play"), consumed=pl.lit(False))
    told = prepare(events, DEFAULTS, AS_OF, ordered=True)
    model = ranker().fit(told)
    assert model.settings()["repeats"] is True
    who = Histories(
        rows_for(told.interactions, model.items, DEFAULTS),
        told.interactions.events,
        pl.DataFrame(
            {"device": [None] * 120, "country": [None] * 120},
            schema_overrides=dict.fromkeys(("device", "country"), pl.String),
        ),
        times_for(told.interactions, model.items),
    )
    best = topk(model.scores(who), 3)[0]
    own = who.rows.toarray() > 0
    assert np.take_along_axis(own, best, 1).mean() > 0.9


def test_a_base_that_makes_no_sense_is_refused() -> None:
    class Given:
        def text(self, key: str) -> str:
            return "layered"

    with pytest.raises(BadSettings, match=r"model\.ranker\.base is 'layered'"):
        Ranker.inside(Given())  # type: ignore[arg-type]
