"""The shares of layers and the divergence that moves them: closed cases, drawn samples and a straight recomputation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.spatial.distance import jensenshannon

from persona_cli.models.cohort import Cohort
from persona_cli.models.layering import (
    _LENGTHS,
    Divergence,
    _at,
    cells,
    chance,
    individual_share,
    jensen_shannon,
    risen,
)

LISTS = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.05, 0.15, 0.8]])


def three_cohorts(per_cell: int = 10) -> Cohort:
    """Three cohorts, each with `per_cell` items of its own that it likes alike, by `LISTS`."""
    model = Cohort()
    model.shares_ = np.repeat(LISTS.T / per_cell, per_cell, axis=0).astype(np.float32)  # (n_items, n_cohorts)
    model.sizes_ = np.array([100, 100, 100])
    return model


def history(*items: int, n_items: int = 30) -> sparse.csr_array:
    return sparse.csr_array(
        (np.ones(len(items), dtype=np.float32), (np.zeros(len(items), dtype=int), items)), shape=(1, n_items)
    )


@given(st.lists(st.integers(0, 20), min_size=3, max_size=3).filter(any))
def test_it_is_the_divergence_of_scipy(counts: list[int]) -> None:
    p = np.array(counts) / sum(counts)
    for q in LISTS:
        assert jensen_shannon(p[None], q[None])[0] == pytest.approx(jensenshannon(p, q) ** 2, abs=1e-12)


def test_chance_is_that_of_drawn_histories() -> None:
    random = np.random.default_rng(3)
    lists = random.dirichlet(np.full(20, 0.5), 2)
    means, deviations = chance(lists)
    for number, n in enumerate(_LENGTHS):
        drawn = jensen_shannon(random.multinomial(n, lists[1], 4_000) / n, lists[1])
        assert means[1, number] == pytest.approx(drawn.mean(), rel=0.03)
        # Cells as if they were independent: never too small, and right for long histories.
        assert deviations[1, number] > 0.9 * drawn.std()
    assert deviations[1, -1] == pytest.approx(drawn.std(), rel=0.1)


def test_between_lengths_chance_is_interpolated_and_beyond_it_falls() -> None:
    means, _ = chance(LISTS)
    row = np.zeros(5, dtype=np.int64)
    found = _at(np.array([1.0, 64.0, 7.0, 1.5, 128.0]), means, row)
    at = dict(zip(_LENGTHS.tolist(), means[0].tolist(), strict=True))
    assert found == pytest.approx([at[1], at[64], (at[6] + at[8]) / 2, (at[1] + at[2]) / 2, at[64] / 2])


def test_items_belong_to_the_cohort_that_likes_them_beyond_what_all_do() -> None:
    liked = np.array([[0.6, 0.5], [0.3, 0.1], [0.1, 0.4]])
    assert cells(liked, np.array([10, 30])).tolist() == [0, 0, 1]


def test_divergence_by_hand() -> None:
    found = Divergence(three_cohorts())
    # Twelve items, all of the second cell, by a user of the first cohort.
    rows = history(*range(10, 20), 20, 21)
    p = np.array([0, 10, 2]) / 12
    at = _LENGTHS.tolist().index(12)
    by_chance = found.means[0, at] + found.deviations[0, at]
    expected = (jensenshannon(p, LISTS[0]) ** 2 - by_chance) / np.log(2)
    assert expected > 0.1
    assert found.of(rows, np.float32([[0.8, 0.1, 0.1]]))[0] == pytest.approx(expected, rel=1e-5)
    assert found.of(rows, np.float32([[0.1, 0.8, 0.1]]))[0] == 0, "as the second cohort likes it"


def test_what_chance_explains_is_no_divergence_and_one_item_changes_little() -> None:
    found, random = Divergence(three_cohorts()), np.random.default_rng(1)
    first = np.float32([[1, 0, 0]])
    # A single item of the rarest cell is little to go by, however far it is from the list.
    assert individual_share(np.array([1]), found.of(history(29), first), 5_000, 15.0, 1_000)[0] < 0.02
    drawn = []
    for _ in range(200):
        cell = random.choice(3, 12, p=LISTS[0])
        counts = np.bincount(cell, minlength=3)
        items = [10 * k + i for k in range(3) for i in range(min(counts[k], 10))]
        drawn.append(found.of(history(*items), first)[0])
    assert np.mean(np.array(drawn) > 0) < 0.3
    assert np.mean(drawn) < 0.02


def test_who_has_no_cohort_or_is_in_the_only_one_does_not_diverge() -> None:
    found = Divergence(three_cohorts())
    assert found.of(history(10, 11, 12), np.zeros((1, 3), dtype=np.float32)).tolist() == [0.0]
    alone = Cohort()
    alone.shares_, alone.sizes_ = np.float32([[0.5], [0.5]]), np.array([50])
    assert Divergence(alone).of(history(0, n_items=2), np.float32([[1.0]])).tolist() == [0.0]
    nobody = Cohort()
    nobody.shares_, nobody.sizes_ = np.zeros((2, 0), dtype=np.float32), np.zeros(0, dtype=np.int64)
    assert Divergence(nobody).of(history(0, n_items=2), np.zeros((1, 0), dtype=np.float32)).tolist() == [0.0]


def test_shares_by_hand() -> None:
    events, none, shares = np.array([0, 15, 30, 45]), np.zeros(4), [0.0, 1 / 2, 16 / 17, 81 / 82]
    assert individual_share(events, none, 5_000, 15.0, 1_000).tolist() == shares
    # Below few_users the prior grows, by half at the most: here from 12 to 15.
    assert individual_share(events, none, 500, 12.0, 1_000).tolist() == shares
    assert individual_share(events, none, 250, 15.0, 0).tolist() == shares
    assert risen(np.array([0, 5, 15]), 5.0).tolist() == [0.0, 0.5, 0.75]
    assert risen(np.array([0, 1]), 0.0).tolist() == [0.0, 1.0]


@given(st.integers(1, 200), st.floats(0, 1), st.floats(0, 1), st.integers(1, 5_000))
def test_who_diverges_more_is_served_more_individually_and_evidence_never_hurts(
    n: int, one: float, other: float, users: int
) -> None:
    less, more = sorted((one, other))
    share = individual_share(np.array([n, n, n + 1]), np.array([less, more, less]), users, 15.0, 1_000)
    assert share[0] <= share[1]
    assert share[0] <= share[2]
    assert (share >= 0).all()
    assert (share <= 1).all()
