"""The share of users who are the only ones with 4 of their items, against counting every set of four."""

from __future__ import annotations

import itertools
import random

import numpy as np
import polars as pl
import pytest
from scipy import sparse
from scipy.stats import binomtest

from persona_cli.evaluation.intervals import wilson
from persona_cli.privacy import anonymity as module
from persona_cli.privacy.anonymity import Pairs, matrix_of, unicity


def exact(histories: list[set[str]], items: int) -> float:
    """The expected share: of each user all subsets, with plain sets."""
    shares = []
    for own in histories:
        if len(own) >= items:
            subsets = list(itertools.combinations(sorted(own), items))
            alone = sum(sum(set(subset) <= other for other in histories) == 1 for subset in subsets)
            shares.append(alone / len(subsets))
    return float(np.mean(shares))


def matrix(histories: list[set[str]]) -> sparse.csr_array:
    pairs = Pairs()
    for user, own in enumerate(histories):
        for item in own:
            pairs.add(f"u{user}", item)
    return pairs.matrix()


def test_users_with_exactly_four_items_leave_nothing_to_chance() -> None:
    found = unicity(matrix([set("abcd"), set("abcd"), set("abce"), set("abcdf"), set("xyz")]))
    # The fourth shares abcd with two others; abce is one user's; xyz is too few.
    assert (found.users, found.eligible, found.sampled) == (5, 4, 4)
    others = unicity(matrix([set("abcd"), set("abcd"), set("abce"), set("wxyz")]))
    assert (others.unique, others.share) == (2, 0.5)
    assert others.sentence().startswith(
        "pseudonymous is not anonymous: 50.0 % of users are the only ones with 4 of their items (15.0–85.0 %; "
    )


@pytest.mark.parametrize("items", [1, 2, 4])
def test_the_estimate_is_the_share_over_all_sets(items: int) -> None:
    rng = random.Random(3)
    histories = [set(rng.sample("abcdefghij", rng.randint(2, 7))) for _ in range(60)]
    estimates = [unicity(matrix(histories), items, seed=seed).share for seed in range(200)]
    error = 0.5 / np.sqrt(200 * len(histories))
    assert abs(np.mean(estimates) - exact(histories, items)) < 4 * error


def test_the_sample_estimates_what_all_users_give() -> None:
    rng = random.Random(5)
    histories = [set(map(str, rng.sample(range(25), 6))) for _ in range(400)]
    expected = exact(histories, 4)
    covered = 0
    for seed in range(60):
        found = unicity(matrix(histories), sample=80, seed=seed)
        assert found.sampled == 80
        covered += found.low <= expected <= found.high
    assert covered >= 54


def test_neither_order_nor_repetition_nor_blocks_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    pairs = [(f"u{rng.randrange(80)}", f"i{rng.randrange(30)}") for _ in range(900)]
    frame = pl.DataFrame(pairs, schema=["user", "item"], orient="row")
    expected = unicity(matrix_of(frame["user"], frame["item"]))
    shuffled = Pairs()
    for user, item in [*reversed(pairs), *pairs[:100]]:
        shuffled.add(user, item)
    assert unicity(shuffled.matrix()) == expected
    monkeypatch.setattr(module, "_BLOCK_CELLS", 50)
    assert unicity(shuffled.matrix()) == expected


def test_nobody_with_four_items() -> None:
    found = unicity(matrix([set("abc")]))
    assert found.eligible == 0 and "no user has 4 items" in found.sentence()
    assert unicity(Pairs().matrix()).eligible == 0


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (9, 10), (10, 10), (5_900, 6_040)])
def test_the_interval_is_that_of_scipy(successes: int, trials: int) -> None:
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)
