"""Layered with a cohort part against its formula, computed user by user from the parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from histories import DEFAULTS, histories, liked, training
from scipy import sparse

from persona_cli.models import kinds
from persona_cli.models.base import Histories, Training
from persona_cli.models.cohort import Cohort
from persona_cli.models.ease import Ease
from persona_cli.models.knn import Knn
from persona_cli.models.layered import Layered
from persona_cli.models.layering import EVIDENCE, Divergence, individual_share, risen
from persona_cli.models.popular import Popular
from persona_cli.models.stored import positions
from persona_cli.models.testing import CHECKS, SETTINGS, known_answer

WITH = {"model.layered.cohort_evidence": 5}


@pytest.fixture(scope="module")
def two_tastes() -> Training:
    """60 users of either taste like 3 to 12 of its 16 items; a few like some of both."""
    random = np.random.default_rng(11)
    pairs = []
    for user in range(120):
        own = random.permutation(16)[: 3 + user % 10]
        pairs += [(user, int(i) + 16 * (user % 2)) for i in own]
        if user % 15 == 0:
            pairs += [(user, int(i) + 16 * (1 - user % 2)) for i in random.permutation(16)[:4]]
    return training(liked(pairs))


@pytest.fixture(scope="module")
def fitted(two_tastes: Training) -> Layered:
    return Layered(Popular(), Ease(3.0, max_items=20), 6.0, Cohort(2), 4.0, 500).fit(two_tastes)


def best(scores: np.ndarray, shown: np.ndarray) -> float:
    kept = np.sort(scores[shown])[::-1][:20]
    return float(kept.mean()) or 1.0


def over(model: Layered, part: Popular | Cohort | Ease, who: Histories) -> np.ndarray:
    """Scores of a part over the items of all (n_users, n_items)."""
    told = who.over(positions(model.items, part.items), len(part.items))
    made = np.zeros((len(who.events), len(model.items)))
    made[:, positions(part.items, model.items)] = part.scores(told)
    return made


def test_scores_are_those_of_the_formula(fitted: Layered, two_tastes: Training) -> None:
    who = histories(two_tastes.interactions, fitted.items)
    hidden = who.rows.toarray() > 0
    individual, cohort, popular = (
        over(fitted, part, who) for part in (fitted.individual, fitted.cohort, fitted.popular)
    )
    there = [np.isin(fitted.items, part.items) for part in (fitted.individual, fitted.cohort, fitted.popular)]
    told = who.over(positions(fitted.items, fitted.cohort.items), len(fitted.cohort.items))
    differs = Divergence(fitted.cohort).of(told.rows, fitted.cohort.memberships(told))
    assert (differs > 0.01).any()
    n = who.events.astype(float)
    prior = 6.0 * (1 - differs) * (1 + (1 - 120 / 500) / 2)
    u, c = n**4 / (n**4 + prior**4), n / (n + 4.0)
    scores = fitted.scores(who, sparse.csr_array(hidden))
    u[~individual.any(axis=1)] = 0  # EASE covers 20 items, and some users know none of them
    assert not u.all()
    for user in range(len(n)):
        shown = ~hidden[user]
        expected = sum(
            share * one[user] / best(one[user], shown & here)
            for share, one, here in zip(
                (u[user], (1 - u[user]) * c[user], (1 - u[user]) * (1 - c[user])),
                (individual, cohort, popular),
                there,
                strict=True,
            )
        )
        np.testing.assert_allclose(scores[user], expected, rtol=2e-5, atol=1e-6)
    assert np.allclose(np.where(u > 0, individual_share(who.events, differs, 120, 6.0, 500), 0), u)
    assert np.allclose(risen(who.events, 4.0), c)


def test_without_a_history_it_is_the_context_and_without_a_cohort_its_share_is_too(
    fitted: Layered, two_tastes: Training
) -> None:
    who = histories(two_tastes.interactions, fitted.items).block(0, 1)
    nothing = Histories(who.rows * 0, np.zeros(1, dtype=np.int64), who.context)
    nothing.rows.eliminate_zeros()
    plain = Layered(fitted.popular).joined()
    scores = fitted.scores(nothing)[0]
    assert np.allclose(scores, plain.scores(nothing)[0], rtol=1e-6)
    # Events with items that no model knows are evidence of nothing.
    unknown = Histories(nothing.rows, np.array([9]), who.context)
    assert np.array_equal(fitted.scores(unknown)[0], scores)


def test_of_two_with_as_many_events_the_one_unlike_the_cohort_is_served_more_individually(
    fitted: Layered, two_tastes: Training
) -> None:
    items = pl.Series([f"i{n}" for n in (*range(8), *range(16, 20), *range(4, 8))])
    at = positions(items, fitted.items)
    rows = np.zeros((2, len(fitted.items)), dtype=np.float32)
    rows[0, at[:8]] = 1
    rows[1, at[8:]] = 1  # half of either taste
    who = Histories(
        sparse.csr_array(rows),
        np.array([8, 8]),
        pl.DataFrame({"device": [None] * 2, "country": [None] * 2}, schema={"device": pl.String, "country": pl.String}),
    )
    alike, unlike = fitted.weights(who)
    assert unlike > alike + 0.01


def test_scores_do_not_depend_on_who_else_is_asked(fitted: Layered, two_tastes: Training) -> None:
    who = histories(two_tastes.interactions, fitted.items)
    together = fitted.scores(who)
    for start, stop in ((0, 1), (1, 7), (7, 120)):
        assert np.array_equal(fitted.scores(who.block(start, stop)), together[start:stop])


def test_settings_say_whether_there_is_a_cohort_part(fitted: Layered, tmp_path: Path) -> None:
    assert Layered.from_settings(DEFAULTS).cohort is None
    assert Layered.from_settings(DEFAULTS.with_flags({"model.layered.cohort_evidence": "none"})).cohort is None
    made = Layered.from_settings(DEFAULTS.with_flags(WITH), Knn())
    assert made.settings() == {"evidence": EVIDENCE, "cohort_evidence": 5.0, "few_users": 0.0}
    assert list(made.parts()) == ["popular", "cohort", "individual"]
    again = Layered.load(tmp_path, fitted.settings(), fitted.parts())
    assert again.settings() == fitted.settings() == {"evidence": 6.0, "cohort_evidence": 4.0, "few_users": 500.0}
    assert not again.exact


@pytest.mark.parametrize("check", [one for one in CHECKS if one is not known_answer], ids=lambda one: one.__name__)
def test_contract(check) -> None:
    check(lambda: kinds.unfitted("layered", SETTINGS.with_flags(WITH), "knn"))
