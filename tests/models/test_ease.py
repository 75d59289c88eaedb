from __future__ import annotations

import logging

import numpy as np
import polars as pl
import pytest
from histories import DEFAULTS, Entry, entries, histories, liked, training
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from persona_cli.errors import BadSettings
from persona_cli.models import ease as ease_module
from persona_cli.models.base import Histories
from persona_cli.models.ease import AUTO_LAMBDA, Ease, most_popular
from persona_cli.models.gram import quantise

SQUARES = liked([(user, item) for user in range(30) for item in range(12) if (user * item) % 7 in (1, 2)])


def dense(gram: np.ndarray, penalty: float) -> np.ndarray:
    """Steck's closed form in doubles (n_items, n_items)."""
    inverse = np.linalg.inv(gram + penalty * np.eye(len(gram)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


@given(entries(), st.floats(0.01, 100), st.integers(1, 20))
def test_equals_the_closed_form(rows: list[Entry], penalty: float, block: int) -> None:
    given_training = training(rows)
    quantised = quantise(given_training.interactions.strengths, DEFAULTS).toarray() / 65536
    quantised = quantised[:, quantised.any(axis=0)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ease_module, "_BLOCK", block)
        model = Ease(penalty).fit(given_training)
    wanted = dense(quantised.T @ quantised, penalty)
    who = histories(given_training.interactions, model.items)
    assert np.allclose(model.scores(who), who.rows.toarray() @ wanted, rtol=1e-5, atol=1e-6)


def test_the_weights_minimise_the_ridge_regression_of_each_item() -> None:
    # Without the closed form: least squares of column j on all others, with the penalty as extra rows.
    given_training = training(SQUARES)
    rows = quantise(given_training.interactions.strengths, DEFAULTS).toarray() / 65536
    rows = rows[:, rows.any(axis=0)]
    model = Ease(0.7).fit(given_training)
    n = rows.shape[1]
    for item in range(n):
        others = np.flatnonzero(np.arange(n) != item)
        design = np.vstack((rows[:, others], np.sqrt(0.7) * np.eye(n - 1)))
        wanted = np.linalg.lstsq(design, np.append(rows[:, item], np.zeros(n - 1)), rcond=None)[0]
        assert np.allclose(weights(model)[others, item], wanted, atol=1e-6)


def weights(model: Ease) -> np.ndarray:
    """B (n_items, n_items), read off the scores of histories of one item each."""
    n = len(model.items)
    nowhere = pl.DataFrame({"device": [None] * n, "country": [None] * n})
    alone = sparse.eye_array(n, dtype=np.float32, format="csr")
    return model.scores(Histories(alone, np.ones(n, dtype=np.int64), nowhere))


def test_rows_of_the_weights_are_the_scores_of_single_items() -> None:
    model = Ease(1.0).fit(training(SQUARES))
    assert np.array_equal(model.weights_of(np.array([4, 0])), weights(model)[[4, 0]])


def test_many_users_and_few_are_scored_by_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    given_training = training(SQUARES)
    monkeypatch.setattr(ease_module, "STRIP", 4)
    model = Ease(1.0).fit(given_training)
    assert model.strips_.shape == (3, 10, 4)
    who = histories(given_training.interactions, model.items)
    few = model.scores(who)
    monkeypatch.setattr(ease_module, "_MANY_USERS", 1)
    assert np.array_equal(model.scores(who), few)
    monkeypatch.undo()
    assert np.array_equal(Ease(1.0).fit(given_training).scores(who), few)


def test_little_memory_solves_in_single_precision() -> None:
    given_training = training(SQUARES)
    double, single = Ease(1.0).fit(given_training), Ease(1.0, memory_gb=1e-9).fit(given_training)
    assert not np.array_equal(weights(double), weights(single))
    assert np.allclose(weights(double), weights(single), atol=1e-5)


def test_auto_follows_the_scale_of_the_gram() -> None:
    model = Ease().fit(training(SQUARES))
    mean = training(SQUARES).gram.diagonal.mean() / 2**32
    assert model.settings()["lambda"] == pytest.approx(AUTO_LAMBDA * mean)
    half = training(SQUARES, DEFAULTS.with_flags({"model.gram.cap": 0.5, "model.gram.user_exponent": 0}))
    full = training(SQUARES, DEFAULTS.with_flags({"model.gram.user_exponent": 0}))
    # Strengths half as large: a quarter of the penalty, and the same weights.
    assert Ease().fit(half).settings()["lambda"] == pytest.approx(Ease().fit(full).settings()["lambda"] / 4)
    assert np.allclose(weights(Ease().fit(half)), weights(Ease().fit(full)), atol=1e-6)


def test_only_the_most_popular_items_are_covered() -> None:
    given_training = training(liked([(0, 3), (1, 3), (0, 2), (1, 1), (1, 0), (2, 2)]))
    model = Ease(1.0, max_items=3).fit(given_training)
    assert model.items.to_list() == ["i0", "i2", "i3"]  # i0 and i1 have one user each: the lower position
    assert most_popular(given_training.gram, 4) is given_training.gram


def test_memory_is_announced_before_it_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "persona"):
        Ease(1.0).fit(training(SQUARES))
    assert caplog.messages[0] == "ease: 10 items take 0.0 GiB"
    assert caplog.records[0].levelno == logging.DEBUG, "a user is told only where it is much"


def test_a_gram_that_cannot_be_inverted_is_a_setting_to_change() -> None:
    same = training(liked([(0, 0), (0, 1)]))
    with pytest.raises(BadSettings, match=r"model\.ease\.lambda is 0, too small"):
        Ease(0.0).fit(same)
