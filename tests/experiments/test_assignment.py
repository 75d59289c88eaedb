"""Who gets what: the same for ever, in the shares planned, and nobody moves when a ramp grows or ids are merged."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from persona_cli.errors import UsageError
from persona_cli.experiments.assignment import (
    NOBODY,
    Part,
    allotted,
    by_shares,
    checked_shares,
    free_part,
    layer_key,
    positions,
)

IDS = pl.Series("id", [f"u{n}" for n in range(40_000)])
KEY = layer_key(b"s" * 16, "recommend")
KNOWN = [[0.059058, 0.680032], [0.076603, 0.915475]]
LEAST = 1e-4
"""Of a fixed seed, so that a test never fails by chance."""


def uniform(values: np.ndarray, cells: int = 50) -> bool:
    return bool(stats.chisquare(np.bincount((values * cells).astype(int), minlength=cells)).pvalue > LEAST)


def test_draws_are_uniform_and_independent() -> None:
    drawn = np.hstack([positions(IDS, KEY), positions(IDS, b"one", 2), positions(IDS, b"two", 2)])
    assert drawn.min() >= 0 and drawn.max() < 1
    assert all(uniform(column) for column in drawn.T)
    table = [[np.histogram2d(one, other, bins=8)[0] for one in drawn.T] for other in drawn.T]
    for a in range(5):
        for b in range(a):
            assert stats.chi2_contingency(table[a][b]).pvalue > LEAST


def test_similar_ids_are_not_alike() -> None:
    assert uniform(positions(pl.Series([f"{n:012d}" for n in range(20_000)]), b"x")[:, 0])
    assert uniform(positions(pl.Series([f"{n}@shop.example" for n in range(20_000)]), b"x")[:, 0])


def test_known_draws_stay_what_they_were() -> None:
    """A change of the hash would move everybody in a running experiment."""
    assert positions(pl.Series(["u1", "ü\u0000"]), b"salt", 2).round(6).tolist() == KNOWN


@given(st.lists(st.text(max_size=8), min_size=1, max_size=20), st.randoms())
def test_an_id_keeps_its_variant_whoever_else_is_there(ids: list[str], random: object) -> None:
    together = allotted(pl.Series(ids, dtype=pl.String), KEY, b"s", (0.3, 0.7))
    for one, found in zip(ids, together.tolist(), strict=True):
        assert allotted(pl.Series([one]), KEY, b"s", (0.3, 0.7)).tolist() == [found]


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=6), st.floats(0, 1), st.floats(0, 1))
def test_a_ramp_only_adds(weights: list[float], one: float, other: float) -> None:
    shares = [weight / sum(weights) for weight in weights]
    ids = IDS.head(500)
    before = allotted(ids, KEY, b"s", shares, ramp=min(one, other))
    after = allotted(ids, KEY, b"s", shares, ramp=max(one, other))
    there = before != NOBODY
    assert (before[there] == after[there]).all()
    assert (allotted(ids, KEY, b"s", shares)[after != NOBODY] == after[after != NOBODY]).all()


@given(st.lists(st.floats(0.02, 0.3), min_size=1, max_size=8))
def test_parts_of_a_layer_do_not_overlap(sizes: list[float]) -> None:
    taken: dict[str, Part] = {}
    for number, size in enumerate(sizes):
        try:
            taken[str(number)] = free_part(taken, size, "l")
        except UsageError:
            assert sum(part.end - part.begin for part in taken.values()) + size > 1 - 1e-6
    ids = IDS.head(500)
    inside = [allotted(ids, KEY, b"s", (0.5, 0.5), part=part) != NOBODY for part in taken.values()]
    assert (np.sum(inside, axis=0) <= 1).all()


def test_a_part_that_was_freed_is_given_again_and_a_full_layer_says_who_has_it() -> None:
    taken = {"a": Part(0, 0.25), "c": Part(0.5, 1)}
    assert free_part(taken, 0.2, "l") == Part(0.25, 0.45)
    assert free_part(taken, None, "l") == Part(0.25, 0.5)
    with pytest.raises(UsageError, match=r"the layer 'l' has no part of 0.3 left: a, c have all but 0.25 of it"):
        free_part(taken, 0.3, "l")
    with pytest.raises(UsageError, match="has no part left: a has all of it"):
        free_part({"a": Part()}, None, "l")


def test_layers_are_independent() -> None:
    one, other = (positions(IDS, layer_key(b"s" * 16, name))[:, 0] < 0.5 for name in ("a", "b"))
    assert (
        stats.chi2_contingency(
            [[np.sum(one & other), np.sum(one & ~other)], [np.sum(~one & other), np.sum(~one & ~other)]]
        ).pvalue
        > LEAST
    )


def test_shares_are_met_and_variants_do_not_depend_on_the_layer() -> None:
    shares = (0.5, 0.3, 0.2)
    found = allotted(IDS, KEY, b"s", shares, part=Part(0.2, 0.9), ramp=0.8)
    counts = np.bincount(found[found != NOBODY], minlength=3)
    assert stats.chisquare(counts, np.array(shares) * counts.sum()).pvalue > LEAST
    assert abs((found != NOBODY).mean() - 0.7 * 0.8) < 0.01
    everybody = allotted(IDS, KEY, b"s", shares)
    assert (everybody[found != NOBODY] == found[found != NOBODY]).all()


def test_nobody_is_in_a_variant_without_a_share_and_a_dropped_one_goes_to_the_first() -> None:
    draw = np.array([0.0, 0.5, 1 - 2**-53])
    assert by_shares(draw, (0.5, 0.0, 0.5)).tolist() == [0, 2, 2]
    assert by_shares(draw, (0.0, 1.0, 0.0)).tolist() == [1, 1, 1]
    before, after = (allotted(IDS, KEY, b"s", (0.4, 0.3, 0.3), dropped=gone) for gone in ((), (1,)))
    assert (after[before == 1] == 0).all() and (after[before != 1] == before[before != 1]).all()
    assert (allotted(IDS, KEY, b"s", (0.4, 0.3, 0.3), dropped=(0,))[before == 0] == 1).all()


def test_shares_that_are_wrong_are_said() -> None:
    assert checked_shares((), ("a", "b")) == (0.5, 0.5)
    assert checked_shares((0.2, 0.8), ("a", "b")) == (0.2, 0.8)
    for shares, said in (
        ((0.5,), "1 shares for 2 variants"),
        ((0.5, 0.6), "0.5 \\+ 0.6 add up to 1.1"),
        ((0, 1), "over 0"),
    ):
        with pytest.raises(UsageError, match=said):
            checked_shares(shares, ("a", "b"))
