from __future__ import annotations

import builtins
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from histories import DEFAULTS, histories, liked, training
from scipy import sparse

from persona_cli.errors import BadSettings, Unavailable
from persona_cli.models.base import Histories, Training
from persona_cli.models.hybrid import LEAST_EPOCHS, MOST_EPOCHS, Hybrid, epochs_for
from persona_cli.models.interactions import rows_for

RANDOM = np.random.default_rng(4)
N_USERS, N_ITEMS, KINDS, K = 300, 80, 4, 10
# Users like one kind of items most of the time, and some items more than others.
APPEAL = RANDOM.gamma(1.0, size=N_ITEMS)
OWN_KIND = np.arange(N_USERS)[:, None] % KINDS == np.arange(N_ITEMS) % KINDS
CHANCES = np.minimum(np.where(OWN_KIND, 0.5, 0.03) * APPEAL, 0.9)
DRAWN = RANDOM.random((N_USERS, N_ITEMS)) < CHANCES
CATALOGUE = pl.DataFrame(
    {
        "item_id": [f"i{i}" for i in range(N_ITEMS + KINDS)],
        "category": [f"kind {i % KINDS}" for i in range(N_ITEMS + KINDS)],
        "tags": [["all", f"half {i % 2}"] for i in range(N_ITEMS + KINDS)],
        "price": [None] * (N_ITEMS + KINDS),
    },
    schema_overrides={"price": pl.Float64},
).sort("item_id")


def pairs(drawn: np.ndarray) -> list[tuple[int, int]]:
    return [(int(u), int(i)) for u, i in zip(*np.nonzero(drawn), strict=True)]


def world(drawn: np.ndarray = DRAWN, catalogue: pl.DataFrame | None = CATALOGUE) -> Training:
    return replace(training(liked(pairs(drawn))), catalogue=catalogue)


@pytest.fixture(autouse=True, scope="module")
def _needs_lightfm() -> None:
    try:
        import lightfm  # noqa: F401
    except (ImportError, OSError):
        pytest.skip("LightFM is not installed")


def asked(given: Training, model: Hybrid) -> Histories:
    return histories(given.interactions, model.items)


def test_ranks_as_well_as_lightfm_predicts() -> None:
    from lightfm import LightFM

    hidden = DRAWN & (RANDOM.random(DRAWN.shape) < 0.25)
    given = world(DRAWN & ~hidden, None)
    model = Hybrid(factors=8, epochs=20, seed=1).fit(given)
    rows = rows_for(given.interactions, model.items, DEFAULTS)
    peer = LightFM(no_components=8, loss="warp", random_state=1)
    peer.fit(sparse.coo_matrix(rows.toarray()), epochs=20, num_threads=1)
    n_users, n_items = rows.shape
    grid = np.indices((n_users, n_items)).reshape(2, -1).astype(np.int32)
    theirs = peer.predict(grid[0], grid[1], num_threads=1).reshape(n_users, n_items)
    names = [int(name[1:]) for name in model.items]
    users = [int(name[1:]) for name in given.interactions.users]
    truth = hidden[np.ix_(users, names)]
    assert recall(model.scores(asked(given, model)), rows, truth) > 0.97 * recall(theirs, rows, truth)
    # The items' vectors are LightFM's own.
    wanted = peer.item_embeddings - peer.item_embeddings.mean(axis=0)
    assert np.allclose(model.factors_[:, :-1], wanted, atol=1e-6)
    assert np.allclose(model.factors_[:, -1], peer.item_biases - peer.item_biases.mean(), atol=1e-6)


def recall(scores: np.ndarray, rows: sparse.csr_array, truth: np.ndarray) -> float:
    best = np.argsort(-np.where(rows.toarray() > 0, -np.inf, scores), axis=1)[:, :K]
    found = np.take_along_axis(truth, best, axis=1).sum(axis=1)
    return float((found / np.maximum(truth.sum(axis=1), 1)).mean())


def test_items_without_events_are_ranked_by_their_description() -> None:
    given = world()
    model = Hybrid(factors=8, epochs=20).fit(given)
    assert model.items.to_list() == CATALOGUE["item_id"].to_list()
    cold = [model.items.to_list().index(f"i{N_ITEMS + kind}") for kind in range(KINDS)]
    scores = model.scores(asked(given, model))[:, cold]
    kinds = np.array([int(name[1:]) % KINDS for name in given.interactions.users])
    assert (scores.argmax(axis=1) == kinds).mean() > 0.9


def test_items_that_nothing_is_known_of_are_not_covered() -> None:
    strange = pl.DataFrame(
        {"item_id": ["zzz"], "category": ["alone"], "tags": [None], "price": [None]}, schema=CATALOGUE.schema
    )
    model = Hybrid(factors=4, epochs=1).fit(world(catalogue=pl.concat([CATALOGUE, strange])))
    assert "zzz" not in model.items.to_list()
    without = Hybrid(factors=4, epochs=1).fit(world(catalogue=None))
    assert without.items.to_list() == sorted(without.items.to_list())
    assert len(without.items) == DRAWN.any(axis=0).sum()


def test_without_a_history_nothing_is_said_and_the_middle_is_zero() -> None:
    given = world()
    model = Hybrid(factors=4, epochs=3).fit(given)
    who = asked(given, model)
    nobody = Histories(sparse.csr_array(who.rows.shape, dtype=np.float32), who.events * 0, who.context)
    assert not model.scores(nobody).any()
    liked_at = np.isin(model.items.to_numpy(), [f"i{i}" for i in range(N_ITEMS)])
    assert np.allclose(model.scores(who)[:, liked_at].mean(axis=1), 0, atol=1e-4)


def test_the_unit_of_strengths_does_not_matter_but_their_ratios_do() -> None:
    rows = [(u, i, 0, 1000 if i % 2 else 250, False) for u, i in pairs(DRAWN)]
    halved = [(u, i, day, strength // 2, never) for u, i, day, strength, never in rows]
    whole, half, even = (training(each) for each in (rows, halved, liked(pairs(DRAWN))))
    found = []
    for given in (whole, half, even):
        model = Hybrid(factors=4, epochs=3).fit(given)
        found.append(model.scores(asked(given, model)))
    assert np.allclose(found[0], found[1], atol=1e-4)
    assert not np.allclose(found[0], found[2], atol=1e-2)


def test_epochs_by_rule() -> None:
    assert [epochs_for(n) for n in (0, 1000, 800_000, 100_000_000)] == [MOST_EPOCHS, MOST_EPOCHS, 15, LEAST_EPOCHS]
    assert Hybrid(factors=2).fit(world()).settings() == {
        "factors": 2,
        "epochs": MOST_EPOCHS,
        "learning_rate": 0.05,
        "seed": 0,
    }


def test_a_descent_that_leaves_all_bounds_is_a_setting_to_change() -> None:
    with pytest.raises(BadSettings, match=r"model\.hybrid\.learning_rate = 1e\+30"):
        Hybrid(factors=4, epochs=3, learning_rate=1e30).fit(world())


@pytest.mark.parametrize("failure", [ImportError("no module"), OSError("undefined symbol: __log_finite")])
def test_without_lightfm_it_says_what_to_install(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    before = builtins.__import__

    def refusing(name: str, *rest: Any, **named: Any) -> Any:
        if name == "lightfm":
            raise failure
        return before(name, *rest, **named)

    monkeypatch.delitem(sys.modules, "lightfm", raising=False)
    monkeypatch.setattr(builtins, "__import__", refusing)
    with pytest.raises(Unavailable, match="cannot be imported") as raised:
        Hybrid().fit(world())
    assert raised.value.exit_code == 69
    assert "pip install 'persona-cli[hybrid]'" in str(raised.value.hint)
