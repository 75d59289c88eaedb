"""The layered model against its formula, computed user by user in plain numpy."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from histories import AS_OF, DEFAULTS, Entry, entries, history, liked, matrix
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from persona_cli.models.base import Histories, Training
from persona_cli.models.ease import Ease
from persona_cli.models.gram import build_gram
from persona_cli.models.interactions import dislikes_for, rows_for, seen_for
from persona_cli.models.knn import Knn
from persona_cli.models.layered import AUTO_EVIDENCE, Layered
from persona_cli.models.popular import Popular

ROWS = liked([(u, i) for u in range(12) for i in range(30) if (u + i) % 3 == 0 or i < u])


def trained(rows: list[Entry] = ROWS) -> Training:
    """Users alternate between two devices; popularity counts them."""
    made = matrix(rows)
    known = history(rows).filter((pl.col("strength") > 0) & (pl.col("never") == 0))
    device = pl.when(pl.col("user_id").str.slice(1).cast(pl.Int64) % 2 == 0).then(pl.lit("mobile"))
    counts = known.with_columns(device=device.otherwise(pl.lit("web")), country=pl.lit(None, dtype=pl.String))
    counts = counts.group_by("item_id", "day", "device", "country").agg(n=pl.col("n").sum().cast(pl.Int64))
    return Training(made, build_gram(made, DEFAULTS), counts.sort("item_id", "day", "device"), AS_OF)


def asked(training: Training, vocabulary: pl.Series) -> Histories:
    made = training.interactions
    device = ["mobile" if int(user[1:]) % 2 == 0 else "web" for user in made.users]
    context = pl.DataFrame(
        {"device": device, "country": [None] * len(device)},
        schema_overrides={"device": pl.String, "country": pl.String},
    )
    return Histories(rows_for(made, vocabulary, DEFAULTS), made.events, context)


def by_hand(model: Layered, training: Training, hidden: np.ndarray) -> np.ndarray:
    """The formula of the docstring, one user at a time (n_users, n_items)."""
    assert model.individual is not None
    own = asked(training, model.individual.items)
    personal = np.asarray(model.individual.scores(own), dtype=np.float64)
    general = np.asarray(model.popular.scores(asked(training, model.popular.items)), dtype=np.float64)
    items, scores = model.items.to_list(), np.zeros((len(own.events), len(model.items)))
    for user, n in enumerate(own.events):
        shown = [item for place, item in enumerate(items) if not hidden[user, place]]
        one = dict(zip(model.individual.items, personal[user], strict=True))
        all_ = dict(zip(model.popular.items, general[user], strict=True))

        def mean(found: dict[str, float], shown: list[str] = shown) -> float:
            best = sorted((found[item] for item in shown if item in found), reverse=True)[:20]
            return float(np.mean(best)) if best else 0.0

        w = n / (n + model.evidence_) if own.rows[[user]].nnz and mean(one) > 0 else 0.0
        for place, item in enumerate(items):
            scores[user, place] += w * one.get(item, 0.0) / mean(one) if w else 0.0
            scores[user, place] += (1 - w) * all_.get(item, 0.0) / mean(all_) if mean(all_) > 0 else 0.0
    return scores


@pytest.mark.parametrize("individual", [Knn(), Ease(3.0), Ease(3.0, max_items=9)], ids=["knn", "ease", "ease of 9"])
def test_scores_are_those_of_the_formula(individual) -> None:
    training = trained()
    model = Layered(Popular(), individual, 4.0).fit(training)
    histories = asked(training, model.items)
    for hidden in (sparse.csr_array(histories.rows.shape, dtype=bool), seen_for(training.interactions, model.items)):
        expected = by_hand(model, training, hidden.toarray())
        np.testing.assert_allclose(model.scores(histories, hidden), expected, rtol=2e-5, atol=1e-6)


@given(entries(), st.sampled_from([0.0, 1.0, 50.0]))
def test_scores_are_those_of_the_formula_for_any_history(rows: list[Entry], evidence: float) -> None:
    training = trained(rows)
    model = Layered(Popular(), Knn(), evidence).fit(training)
    histories = asked(training, model.items)
    hidden = seen_for(training.interactions, model.items)
    expected = by_hand(model, training, hidden.toarray())
    np.testing.assert_allclose(model.scores(histories, hidden), expected, rtol=1e-4, atol=1e-5)


def test_a_user_without_a_history_gets_the_popular_list_of_the_context() -> None:
    training = trained()
    model = Layered(Popular(), Knn(), 4.0).fit(training)
    histories = asked(training, model.items)
    nobody = Histories(histories.rows[[0]] * 0, np.zeros(1, dtype=np.int64), histories.context[:1])
    popular = model.popular.scores(Histories(nobody.rows, nobody.events, nobody.context))
    np.testing.assert_allclose(model.scores(nobody) / model.scores(nobody).max(), popular / popular.max(), rtol=1e-5)


def test_more_events_move_the_list_from_the_popular_to_the_users_own() -> None:
    training = trained()
    model = Layered(Popular(), Knn(), 10.0).fit(training)
    one = asked(training, model.items).block(3, 4)
    weights = [model.weights(Histories(one.rows, np.array([n]), one.context))[0] for n in (0, 10, 90)]
    assert weights == [0.0, 0.5, 0.9]


def test_items_that_the_individual_model_does_not_cover_keep_their_popular_part() -> None:
    training = trained()
    model = Layered(Popular(), Ease(3.0, max_items=5), 4.0).fit(training)
    assert len(model.individual.items) == 5
    assert len(model.items) == 30
    uncovered = np.flatnonzero(~model.items.is_in(model.individual.items.implode()).to_numpy())
    scores = model.scores(asked(training, model.items))
    assert (scores[:, uncovered] > 0).all()


def test_without_an_individual_model_it_is_the_popular_list() -> None:
    training = trained()
    model = Layered(Popular()).fit(training)
    histories = asked(training, model.items)
    order = np.argsort(-model.scores(histories), axis=1, kind="stable")
    np.testing.assert_array_equal(order, np.argsort(-model.popular.scores(histories), axis=1, kind="stable"))


def test_evidence_by_rule_and_refit() -> None:
    assert Layered(Popular(), Knn()).fit(trained()).settings() == {"evidence": AUTO_EVIDENCE}
    model = Layered(Popular(), Knn(), 7.0)
    model.fit(trained(liked([(0, 0), (0, 1), (1, 1), (1, 0)])))
    assert model.items.to_list() == ["i0", "i1"]
    assert len(model.fit(trained()).items) == 30


def test_the_scores_of_a_user_do_not_depend_on_the_others_in_the_block() -> None:
    training = trained()
    model = Layered(Popular(), Ease(3.0), 4.0).fit(training)
    histories, hidden = asked(training, model.items), seen_for(training.interactions, model.items)
    together = model.scores(histories, hidden)
    for user in range(len(histories.events)):
        alone = model.scores(histories.block(user, user + 1), hidden[[user]])
        np.testing.assert_array_equal(alone[0], together[user])


def test_a_user_who_has_hidden_everything_has_finite_scores() -> None:
    training = trained(liked([(0, 0), (0, 1), (1, 0), (1, 1)]))
    model = Layered(Popular(), Knn(), 4.0).fit(training)
    assert np.isfinite(model.scores(asked(training, model.items), seen_for(training.interactions, model.items))).all()


def test_what_goes_with_a_dislike_comes_later_and_nothing_else_changes() -> None:
    """Two groups of items; users 8 and 9 like one item of the first group, and 9 dislikes one of the second."""
    groups = [(u, i) for u in range(8) for i in range(6) if u % 2 == i % 2]
    rows = [*liked(groups), (8, 0, 0, 1000, False), (9, 0, 0, 1000, False), (9, 1, 0, -3000, False)]
    training = trained(rows)
    model = Layered(Popular(), Knn()).fit(training)
    made = training.interactions
    context = pl.DataFrame(
        {"device": [None] * 10, "country": [None] * 10}, schema={"device": pl.String, "country": pl.String}
    )
    events = np.full(10, 2)  # as much evidence of either
    told = Histories(
        rows_for(made, model.items, DEFAULTS), events, context, None, dislikes_for(made, model.items, DEFAULTS)
    )
    scores = model.scores(told)
    odd, even = [1, 3, 5], [0, 2, 4]
    np.testing.assert_allclose(scores[9, even], scores[8, even], rtol=1e-6)
    assert (scores[9, [3, 5]] < scores[8, [3, 5]]).all(), "what users of the disliked item like"
    untold = model.scores(Histories(told.rows, events, context))
    np.testing.assert_array_equal(scores[:9], untold[:9])
    assert (untold[9, odd] == untold[8, odd]).all()


def test_a_negative_sum_is_a_dislike_until_later_events_outweigh_it() -> None:
    assert matrix([(0, 0, 0, 3000, False), (0, 0, 1, -3500, False)]).dislikes.nnz == 1  # type: ignore[union-attr]
    assert matrix([(0, 0, 0, -3000, False), (0, 0, 1, 3500, False)]).dislikes is None
