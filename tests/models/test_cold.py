from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from histories import histories, liked, training
from scipy import sparse

from persona_cli.errors import BadSettings, MissingInput
from persona_cli.models.als import Als
from persona_cli.models.base import Histories, Training
from persona_cli.models.cold import Cold, Transfer, features_of
from persona_cli.models.ease import Ease
from persona_cli.models.item_features import described
from persona_cli.models.knn import Knn
from persona_cli.workspace.settings import load

RNG = np.random.default_rng(11)
FEATURES = sparse.csr_array((RNG.random((40, 6)) * (RNG.random((40, 6)) < 0.5)).astype(np.float32))
OTHERS = sparse.csr_array((RNG.random((5, 6)) * (RNG.random((5, 6)) < 0.7)).astype(np.float32))
FACTORS = RNG.standard_normal((40, 3)).astype(np.float32)


def unit() -> float:
    dense = FEATURES.toarray()
    return float(np.square(dense).sum()) / dense.shape[1]


@pytest.mark.parametrize("penalty", [0.05, 1.0])
def test_factors_of_new_items_are_those_of_least_squares(penalty: float) -> None:
    # Ridge as plain least squares: √λ I below the features, zeros below the factors.
    above = np.sqrt(penalty * unit()) * np.eye(6)
    worth = np.linalg.lstsq(np.vstack([FEATURES.toarray(), above]), np.vstack([FACTORS, np.zeros((6, 3))]), rcond=None)
    made = Transfer.of(FEATURES, penalty, FACTORS.T).factors(FACTORS, OTHERS)
    assert np.allclose(made, OTHERS.toarray() @ worth[0], atol=1e-4)


def test_carrying_scores_over_is_scoring_with_carried_factors() -> None:
    users = RNG.standard_normal((7, 3)).astype(np.float32)
    transfer = Transfer.of(FEATURES, 0.3, FACTORS.T)
    by_scores = transfer.coefficients(users @ FACTORS.T) @ OTHERS.toarray().T
    assert np.allclose(by_scores, users @ transfer.factors(FACTORS, OTHERS).T, atol=1e-4)


def test_the_penalty_is_that_of_generalised_cross_validation() -> None:
    truth = FEATURES.toarray() @ RNG.standard_normal((6, 9))
    examples = (truth + RNG.standard_normal(truth.shape)).T.astype(np.float32)
    dense = FEATURES.toarray().astype(np.float64)

    def gcv(penalty: float) -> float:
        hat = dense @ np.linalg.solve(dense.T @ dense + penalty * unit() * np.eye(6), dense.T)
        left = examples.T - hat @ examples.T
        return float(np.square(left).sum() / (40 - np.trace(hat)) ** 2)

    grid = np.geomspace(0.01, 100, 13)
    chosen = Transfer.of(FEATURES, None, examples).penalty
    assert chosen == grid[int(np.argmin([gcv(penalty) for penalty in grid]))]
    # What features say nothing of is drawn to the mean as far as can be.
    assert Transfer.of(FEATURES, None, RNG.standard_normal((200, 40)).astype(np.float32)).penalty > chosen


N_USERS, N_ITEMS, N_NEW, KINDS = 60, 50, 10, 5


def world(new_known: bool = True, text: bool = True) -> Training:
    """Users like items of their own kind; the last items have no events. Item n is of kind n mod 5."""
    rng = np.random.default_rng(3)
    pairs = [(u, KINDS * int(j) + u % KINDS) for u in range(N_USERS) for j in rng.choice(N_ITEMS // KINDS, 5, False)]
    items = [f"i{n}" for n in range(N_ITEMS + N_NEW)]
    catalogue = pl.DataFrame(
        {
            "item_id": items,
            "title": [f"word{n % KINDS} other{n % 7}" if text else None for n in range(len(items))],
            "category": [f"kind{n % KINDS}" if n < N_ITEMS + N_NEW - 1 else None for n in range(len(items))],
            "tags": [None] * len(items),
            "price": [None] * len(items),
        },
        schema_overrides={"title": pl.String, "tags": pl.List(pl.String), "price": pl.Float64},
    ).sort("item_id")
    if not new_known:
        catalogue = catalogue.filter(pl.col("item_id").is_in([f"i{n}" for n in range(N_ITEMS)]))
    return dataclasses.replace(training(liked(sorted(set(pairs)))), catalogue=catalogue)


def asked(model: Cold, given: Training) -> Histories:
    return histories(given.interactions, model.items)


def around(model: Ease | Knn | Als) -> Cold:
    return Cold({model.name: model}, model.name)


@pytest.mark.parametrize("inside", [Ease(), Knn(), Als(factors=8)], ids=lambda model: model.name)
def test_new_items_of_the_users_kind_are_the_best_new_ones(inside: Ease | Knn | Als) -> None:
    given = world()
    model = around(inside).fit(given)
    new = [model.items.to_list().index(f"i{n}") for n in range(N_ITEMS, N_ITEMS + N_NEW)]
    scores = model.scores(asked(model, given))[:, new]
    users = given.interactions.users.str.strip_prefix("u").cast(int).to_numpy()
    assert (scores.argmax(axis=1) % KINDS == users % KINDS).mean() > 0.95


def test_scores_of_known_items_are_those_of_the_model_inside() -> None:
    given = world()
    model, alone = around(Ease()).fit(given), Ease().fit(given)
    places = [model.items.to_list().index(item) for item in alone.items]
    wanted = alone.scores(histories(given.interactions, alone.items))
    assert np.array_equal(model.scores(asked(model, given))[:, places], wanted)
    nothing_new = around(Ease()).fit(world(new_known=False))
    assert nothing_new.items.equals(alone.items)
    assert np.array_equal(nothing_new.scores(asked(nothing_new, given)), wanted)


def test_new_items_are_spread_as_known_ones_are() -> None:
    given = world()
    model = around(Ease()).fit(given)
    who = asked(model, given)
    scores = model.scores(who).astype(np.float64)
    new = np.array([model.items.to_list().index(f"i{n}") for n in range(N_ITEMS, N_ITEMS + N_NEW - 1)])
    known = np.setdiff1d(np.arange(len(model.items)), [*new, model.items.to_list().index("i59")])
    for user in range(N_USERS):
        left = known[who.rows[[user]].toarray()[0, known] == 0]
        # New items are of the same kinds in about the same shares.
        assert abs(scores[user, new].mean() - scores[user, left].mean()) < 0.5 * scores[user, left].std()
        assert 0.4 < scores[user, new].std() / scores[user, left].std() < 2.5
    scores[who.rows.toarray() > 0] = -np.inf
    best = np.argsort(-scores, axis=1)[:, :10]
    share = np.isin(best, new).mean()
    # 9 of 54 unseen items that are described.
    assert 0.08 < share < 0.33


def test_nothing_is_said_without_a_description_or_without_a_history() -> None:
    given = world(text=False)
    model = around(Ease()).fit(given)
    who = asked(model, given)
    assert (model.scores(who)[:, model.items.to_list().index("i59")] == 0).all()
    nobody = Histories(who.rows * np.float32(0), who.events * 0, who.context)
    assert (model.scores(nobody) == 0).all()


def test_saved_and_loaded_it_scores_the_same(tmp_path: Path) -> None:
    given = world()
    model = around(Als(factors=8)).fit(given)
    model.save(tmp_path)
    assert "auto" not in model.settings().values()
    loaded = Cold.load(tmp_path, model.settings(), model.parts())
    who = asked(model, given)
    assert np.array_equal(loaded.scores(who), model.scores(who))
    parts = [loaded.scores(who.block(start, start + 7)) for start in range(0, N_USERS, 7)]
    assert np.array_equal(np.concatenate(parts), loaded.scores(who))


def test_features_beyond_the_most_are_the_rarest(monkeypatch: pytest.MonkeyPatch) -> None:
    given = world()
    assert given.catalogue is not None
    made = described(given.catalogue, given.catalogue["item_id"])
    known = np.arange(len(given.catalogue))
    whole = features_of(made, known)
    assert whole.shape[1] == made.vectors.shape[1] + 1
    monkeypatch.setattr("persona_cli.models.cold.MOST_FEATURES", 6)
    few = features_of(made, known)
    assert few.shape[1] == 6
    assert few[:, [5]].toarray().ravel().tolist() == (few[:, :5].sum(axis=1) > 0).astype(float).tolist()


def test_without_a_catalogue_it_says_how_to_get_one() -> None:
    with pytest.raises(MissingInput, match="catalogue"):
        around(Ease()).fit(dataclasses.replace(world(), catalogue=None))


@pytest.mark.parametrize("of", ["cold", "content", "layered"])
def test_it_is_around_a_model_that_learns_from_events(of: str) -> None:
    with pytest.raises(BadSettings, match=rf"model\.cold\.of is '{of}'"):
        Cold.inside(load(None, {}).with_flags({"model.cold.of": of}))
    assert Cold.inside(load(None, {})) == ["spectral"]
