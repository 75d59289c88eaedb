from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import polars as pl
import pytest
from histories import Entry, histories, liked, training
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from persona_cli.models import eigen, spectral_tuning
from persona_cli.models.base import Histories, Training
from persona_cli.models.spectral import Spectral
from persona_cli.models.spectral_tuning import GRIDS, Choice, Tuning, by_rule, cut

GIVEN: dict[str, Any] = {
    "user": 0.4,
    "left": 0.8,
    "right": 0.2,
    "item": 0.3,
    "ridge": 0.05,
    "output": -0.2,
    "weight": 0.6,
}
RNG = np.random.default_rng(11)


def groups(n_users: int = 200, n_items: int = 60) -> list[Entry]:
    """Users of four tastes, some items liked by all."""
    pairs = [
        (user, item)
        for user in range(n_users)
        for item in range(n_items)
        if RNG.random() < (0.9 if user % 4 == item % 4 else 0.04) / (1 + item / 30)
    ]
    return liked(pairs)


GROUPS = groups()


def rows_of(model: Spectral, learnt: Training) -> np.ndarray:
    return histories(learnt.interactions, model.items).rows.toarray().astype(np.float64)


def by_hand(rows: np.ndarray, choice: dict[str, float], known: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Linear and ridge scores of all users in doubles, in units of the user's best 20; by inverse, not by pairs."""
    degrees = (rows > 0).sum(axis=0).astype(float)
    scaled = rows / np.maximum(rows.sum(axis=1, keepdims=True), 1) ** choice["user"]
    gram = scaled.T @ scaled
    linear = (rows * degrees ** -choice["left"]) @ (gram - np.diag(np.diag(gram))) * degrees ** -choice["right"]
    entry = degrees ** -choice["item"]
    inner = gram * np.outer(entry, entry)
    values, vectors = np.linalg.eigh(inner)
    inner, values = inner / values[-1], values / values[-1]
    if known is not None:  # eigenvalues beyond the known ones are replaced by their mean
        values[:-known] = values[:-known].mean()
        inner = vectors @ np.diag(values) @ vectors.T
    inverse = np.linalg.inv(inner + choice["ridge"] * np.eye(len(inner)))
    weights = -inverse / np.diag(inverse)
    # The entries of the history itself are lists' to hide: only what is outside counts.
    np.fill_diagonal(weights, 0)
    ridge = (rows * entry) @ weights * degrees ** (choice["item"] + choice["output"])
    return tuple(scores / mean_of_best(scores, rows) for scores in (linear, ridge))  # type: ignore[return-value]


def mean_of_best(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    outside = np.where(rows > 0, -np.inf, scores)
    return np.array([[np.sort(row[row > -np.inf])[::-1][:20].mean()] for row in outside])


@pytest.mark.parametrize("factors", ["auto", 12])
def test_equals_the_definition(factors: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    learnt = training(GROUPS)
    model = Spectral(factors, **GIVEN).fit(learnt)
    rows = rows_of(model, learnt)
    linear, ridge = by_hand(rows, GIVEN, None if factors == "auto" else int(factors))
    wanted = ridge + GIVEN["weight"] * linear
    found = model.scores(histories(learnt.interactions, model.items))
    assert np.allclose(found[rows == 0], wanted[rows == 0], rtol=1e-3, atol=1e-3)


@hypothesis.settings(max_examples=5)
@given(st.permutations(range(120)))
def test_the_order_of_events_changes_no_bit(order: list[int]) -> None:
    some = GROUPS[:120]
    first, second = Spectral(**GIVEN).fit(training(some)), Spectral(**GIVEN).fit(training([some[at] for at in order]))
    assert first.ridge_.vectors.tobytes() == second.ridge_.vectors.tobytes()
    assert first.settings() == second.settings()


def test_chosen_settings_are_numbers_of_the_grids_and_the_same_every_time() -> None:
    learnt = training(GROUPS)
    found = Spectral().fit(learnt).settings()
    assert found == Spectral().fit(training(GROUPS[::-1])).settings()
    assert json.loads(json.dumps(found)) == found
    rule = dataclasses.asdict(by_rule(200, np.full(60, 20.0)))
    for name, values in GRIDS.items():
        assert found[name] in (*values, rule[name])
    assert found["factors"] == len(learnt.gram.items)


def test_what_is_given_stays_and_the_rest_is_chosen_beside_it() -> None:
    found = Spectral(item=0.77, weight=3.0).fit(training(GROUPS)).settings()
    assert found["item"] == 0.77
    assert found["weight"] == 3.0
    assert 0 <= found["right"] <= 0.4


def test_with_few_users_the_rule_holds() -> None:
    few = [entry for entry in GROUPS if entry[0] < spectral_tuning.FEW - 1]
    learnt = training(few)
    degrees = np.bincount(learnt.interactions.strengths.indices).astype(float)
    chosen = Spectral(right=0.33).fit(learnt).choice_
    assert chosen == dataclasses.replace(by_rule(len(learnt.interactions.users), degrees[degrees > 0]), right=0.33)


def test_one_in_five_interactions_of_a_user_is_held_out() -> None:
    made = training(GROUPS).interactions
    held = cut(made.strengths, made.users, made.items)
    assert held is not None
    lengths = np.diff(made.strengths.indptr)
    assert np.array_equal(held.asked, np.flatnonzero(lengths >= 5))
    assert np.array_equal(np.diff(held.relevant.indptr), lengths[held.asked] // 5)
    together = held.rows[held.asked].astype(bool).toarray().astype(int) + held.relevant.toarray()
    assert np.array_equal(together, made.strengths[held.asked].astype(bool).toarray().astype(int))


def test_who_is_asked_does_not_depend_on_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral_tuning, "ASKED", 60)
    made = training(GROUPS).interactions
    smaller = training([entry for entry in GROUPS if entry[0] != 7]).interactions
    one, other = cut(made.strengths, made.users, made.items), cut(smaller.strengths, smaller.users, smaller.items)
    assert one is not None and other is not None
    names = set(made.users.gather(one.asked)), set(smaller.users.gather(other.asked))
    assert len(names[0] & names[1]) >= 59


@pytest.mark.parametrize("weight", [0.0, 0.6])
def test_saved_and_loaded_it_scores_the_same_bits(tmp_path: Path, weight: float) -> None:
    learnt = training(GROUPS)
    model = Spectral(**{**GIVEN, "weight": weight}).fit(learnt)
    model.save(tmp_path)
    again = Spectral.load(tmp_path, json.loads(json.dumps(dict(model.settings()))))
    who = histories(learnt.interactions, model.items)
    assert again.scores(who).tobytes() == model.scores(who).tobytes()
    assert again.settings() == model.settings()
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy", ".parquet"}


def test_a_user_scores_the_same_bits_whoever_is_beside() -> None:
    learnt = training(GROUPS)
    model = Spectral(10, **GIVEN).fit(learnt)
    who = histories(learnt.interactions, model.items)
    whole = model.scores(who)
    for size in (1, 7, 130):
        parts = [model.scores(who.block(start, start + size)) for start in range(0, len(who.events), size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_without_history_it_says_nothing() -> None:
    model = Spectral(**GIVEN).fit(training(GROUPS))
    nobody = sparse.csr_array((2, len(model.items)), dtype=np.float32)
    nowhere = pl.DataFrame({"device": [None] * 2, "country": [None] * 2})
    assert not model.scores(Histories(nobody, np.zeros(2, dtype=np.int64), nowhere)).any()


@pytest.mark.parametrize(
    "pairs", [[], [(0, 0)], [(user, 0) for user in range(9)], [(user, item) for user in range(9) for item in range(9)]]
)
def test_degenerate_logs(pairs: list[tuple[int, int]]) -> None:
    learnt = training(liked(pairs))
    model = Spectral().fit(learnt)
    scores = model.scores(histories(learnt.interactions, model.items))
    assert scores.shape == (len(learnt.interactions.users), len(model.items))
    assert np.isfinite(scores).all()


def test_factors_give_way_where_memory_is_short() -> None:
    assert Spectral()._factors(4096) == 4096
    assert Spectral()._factors(50_000) == 1024
    short = Spectral(memory_gb=0.25)._factors(50_000)
    assert 16 <= short < 1024
    assert eigen.block_bytes(50_000, short) <= 2**27
    assert Spectral(300, memory_gb=0.25)._factors(50_000) == 300


def test_dense_and_sparse_data_have_rules_of_their_own() -> None:
    dense, thin = by_rule(1000, np.full(50, 100.0)), by_rule(1000, np.full(50, 5.0))
    assert isinstance(dense, Choice)
    assert dense.item < thin.item


def test_settings_move_only_where_the_gain_is_above_the_margin() -> None:
    made = training(GROUPS).interactions
    held = cut(made.strengths, made.users, made.items)
    assert held is not None
    poor = Choice(user=0.4, left=0.8, right=-1.0, item=0.35, ridge=0.03, output=1.0, weight=0.7)
    assert Tuning(held, 1, margin=10.0).choose(poor, ()) == poor
    moved = Tuning(held, 1, margin=0.0).choose(poor, ())
    # Lists of popular items alone find little where users are of four tastes.
    assert moved.output < poor.output
    assert Tuning(held, 1, margin=0.0).choose(poor, GRIDS) == poor
