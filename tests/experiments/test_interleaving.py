"""Merged lists: their exact distributions, fairness to somebody who clicks at random, and credit."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_cli.errors import UsageError
from persona_cli.experiments.interleaving import METHODS, Merged, interleave, outcomes
from persona_cli.experiments.merging import alternate, coins, distinct, draft, mixed, sampled, uniforms
from persona_cli.experiments.multileaving import contests, distribution, multileave

Listed = tuple[tuple[int, int | None], ...]  # (item, team) in order

LONGEST = 4


def rankings(longest: int) -> Iterator[tuple[list[int], list[int]]]:
    """All pairs of rankings up to that length: A is 0, 1, …; B an order of some of these and of new ones 100, 101, …"""
    for size_a, size_b in itertools.product(range(longest + 1), repeat=2):
        for common in range(min(size_a, size_b) + 1):
            new = [100 + i for i in range(size_b - common)]
            for own in itertools.combinations(range(size_a), common):
                for order in itertools.permutations([*own, *new]):
                    if [item for item in order if item >= 100] == new:
                        yield list(range(size_a)), list(order)


PAIRS = list(rankings(LONGEST))


def block(lists: list[list[int]], width: int) -> np.ndarray:
    return np.array([row + [-1] * (width - len(row)) for row in lists], dtype=np.int64).reshape(len(lists), width)


def keys(n: int, salt: int = 0) -> np.ndarray:
    return mixed(np.arange(n, dtype=np.uint64) + np.uint64(salt * 10**9))


def listed(items: np.ndarray, teams: np.ndarray) -> Listed:
    return tuple((int(i), int(t) if t >= 0 else None) for i, t in zip(items, teams, strict=True) if i >= 0)


# Each method once more, one list at a time and as its paper tells it.


def drafted(a: list[int], b: list[int], tosses: tuple[bool, ...], length: int, paired: bool) -> Listed:
    shown: list[tuple[int, int | None]] = []
    while len(shown) < length:
        left = [[x for x in own if x not in [item for item, _ in shown]] for own in (a, b)]
        if not left[0] and not left[1]:
            break
        if not left[0] or not left[1]:
            shown.append(((left[0] or left[1])[0], None))
            continue
        agreed = left[0][0] == left[1][0]
        if agreed and paired:
            shown.append((left[0][0], None))
            continue
        first = 0 if tosses[len(shown)] else 1
        shown.append((left[first][0], first))
        if len(shown) == length:
            break
        after = [[x for x in own if x != left[first][0]] for own in left]
        if after[1 - first]:
            shown.append((after[1 - first][0], 1 - first))
        elif after[first]:
            shown.append((after[first][0], first))
    fair = min(len(a), len(b))
    return (*shown[:fair], *((item, None) for item, _ in shown[fair:]))


@pytest.mark.parametrize("paired", [False, True], ids=["team-draft", "competitive-pairs"])
def test_drafts_are_those_of_every_sequence_of_coins(paired: bool) -> None:
    a, b = (block([pair[side] for pair in PAIRS], LONGEST) for side in (0, 1))
    want = np.array([max(len(x), len(y)) for x, y in PAIRS])
    for tosses in itertools.product([False, True], repeat=LONGEST):
        items, teams = draft(distinct(a), distinct(b), np.tile(np.array(tosses)[:, None], len(PAIRS)), want, paired)
        for row, (left, right) in enumerate(PAIRS):
            assert listed(items[:, row], teams[:, row]) == drafted(left, right, tosses, int(want[row]), paired)


def test_team_draft_of_two_lists_by_hand() -> None:
    found = interleave(block([[1, 2, 3]] * 4000, 3), block([[2, 4, 1]] * 4000, 3), keys(4000), "team-draft")
    counts = Counter(listed(*row) for row in zip(found.items, found.teams, strict=True))
    assert set(counts) == {  # the third position has a coin of its own
        ((1, 0), (2, 1), (3, 0)),
        ((1, 0), (2, 1), (4, 1)),
        ((2, 1), (1, 0), (3, 0)),
        ((2, 1), (1, 0), (4, 1)),
    }
    assert all(abs(count / 4000 - 0.25) < 0.03 for count in counts.values())


def test_agreed_items_are_nobodys_under_competitive_pairs() -> None:
    found = interleave(block([[7, 1, 2, 9]], 4), block([[7, 3, 2, 8]], 4), keys(1), "competitive-pairs")
    assert found.items[0, 0] == 7 and found.teams[0, 0] == -1
    assert sorted(found.items[0, 1:3].tolist()) == [1, 3] and sorted(found.teams[0, 1:3].tolist()) == [0, 1]
    assert found.items[0, 3] == 2 and found.teams[0, 3] == -1


def test_balanced_lists_are_those_of_both_coins() -> None:
    a, b = (distinct(block([pair[side] for pair in PAIRS], LONGEST)) for side in (0, 1))
    want = np.array([max(len(x), len(y)) for x, y in PAIRS])
    for a_first in (True, False):
        items, teams, _ = alternate(a, b, np.full(len(PAIRS), a_first), want)
        for row, (left, right) in enumerate(PAIRS):
            at, shown = [0, 0], []
            while len(shown) < want[row] and (at[0] < len(left) or at[1] < len(right)):
                turn = 0 if at[0] < at[1] or (at[0] == at[1] and a_first) else 1
                if at[turn] < len((left, right)[turn]) and (left, right)[turn][at[turn]] not in [x for x, _ in shown]:
                    shown.append(((left, right)[turn][at[turn]], turn))
                at[turn] += 1
            assert listed(items[:, row], teams[:, row]) == tuple(shown)


def drawn(a: list[int], b: list[int], length: int) -> dict[Listed, Fraction]:
    """Chances of all probabilistic lists with the teams that drew each item."""
    grown: dict[Listed, Fraction] = {(): Fraction(1)}
    for _ in range(length):
        longer: dict[Listed, Fraction] = {}
        for shown, chance in grown.items():
            gone = [item for item, _ in shown]
            masses = [{x: Fraction(1, (r + 1) ** 3) for r, x in enumerate(own) if x not in gone} for own in (a, b)]
            teams = [team for team in (0, 1) if masses[team]]
            fair = len(shown) < min(len(a), len(b))
            for team in teams:
                for item, mass in masses[team].items():
                    entry = (*shown, (item, team if fair else None))
                    part = chance * mass / sum(masses[team].values()) / len(teams)
                    longer[entry] = longer.get(entry, Fraction(0)) + part
            if not teams:
                longer[shown] = chance
        grown = longer
    return grown


def test_probabilistic_lists_come_as_often_as_enumerated() -> None:
    """Each coin with each of 32 evenly spread draws a position: frequencies are exact up to the grid of draws."""
    grid = (np.arange(32) + 0.5) / 32
    for a, b in PAIRS[::5]:
        length = min(max(len(a), len(b)), 2)
        cells = list(itertools.product([False, True], grid, repeat=length))
        tossed = np.array([[cell[2 * step] for cell in cells] for step in range(length)], dtype=np.bool_)
        chances = np.array([[cell[2 * step + 1] for cell in cells] for step in range(length)])
        if length == 0:
            continue
        columns = [distinct(np.tile(block([own], max(len(own), 1)), (len(cells), 1))) for own in (a, b)]
        items, teams, _ = sampled(*columns, tossed, chances, np.full(len(cells), length))
        kinds, number = np.unique(np.concatenate((items, teams)).T, axis=0, return_counts=True)
        counts = Counter({listed(*np.split(kind, 2)): int(n) for kind, n in zip(kinds, number, strict=True)})
        expected = drawn(a, b, length)
        assert set(counts) <= set(expected)
        for entry, chance in expected.items():
            assert counts[entry] / len(cells) == pytest.approx(float(chance), abs=0.05)


def test_probabilistic_credit_is_marginalised_over_who_drew_the_item() -> None:
    a, b = [1, 2, 3], [2, 4, 1]
    n = 3000
    found = interleave(block([a] * n, 3), block([b] * n, 3), keys(n), "probabilistic")
    assert found.credit is not None
    by_list: dict[tuple[int, ...], dict[tuple[int | None, ...], Fraction]] = {}
    for entry, chance in drawn(a, b, 3).items():
        items, teams = zip(*entry, strict=True)
        by_list.setdefault(items, {})[teams] = chance
    for row in range(50):
        chances = by_list[tuple(found.items[row].tolist())]
        for place in range(3):
            lead = sum(chance * (1 if teams[place] == 0 else -1) for teams, chance in chances.items())
            assert found.credit[row, place] == pytest.approx(float(lead / sum(chances.values())))
        clicks = np.array([[1, 0, 1]])
        said = sum(np.sign(sum((t[0] == 0, t[2] == 0)) - 1) * float(c) for t, c in chances.items())
        one = Merged(found.items[row : row + 1], found.teams[row : row + 1], found.credit[row : row + 1])
        assert outcomes(one, clicks, "probabilistic")[0] == pytest.approx(said / float(sum(chances.values())))


def test_probabilistic_lists_of_keys_follow_the_enumeration() -> None:
    n = 20_000
    found = interleave(block([[0, 1, 2]] * n, 3), block([[1, 100, 0]] * n, 3), keys(n), "probabilistic")
    counts = Counter(listed(*row) for row in zip(found.items, found.teams, strict=True))
    expected = drawn([0, 1, 2], [1, 100, 0], 3)
    # Pearson's statistic against its mean and four standard deviations
    statistic = sum((counts[entry] - n * float(p)) ** 2 / (n * float(p)) for entry, p in expected.items())
    assert statistic < len(expected) - 1 + 4 * np.sqrt(2 * (len(expected) - 1))


def test_optimised_lists_of_the_known_example() -> None:
    found = distribution(2, 2, 2, (1, -1))  # [1, 2] and [2, 3]
    assert found is not None
    assert sorted(map(tuple, found.lists.tolist())) == [(0, 1), (1, 0), (1, 3)]
    assert found.chances == pytest.approx(1 / 3)
    n = 30_000
    merged = interleave(block([[1, 2]] * n, 2), block([[2, 3]] * n, 2), keys(n), "optimised")
    counts = Counter(tuple(row) for row in merged.items.tolist())
    assert set(counts) == {(1, 2), (2, 1), (2, 3)}
    assert all(abs(count / n - 1 / 3) < 0.012 for count in counts.values())


def test_optimised_lists_are_unbiased_at_every_position_and_of_the_two_rankings() -> None:
    none = Counter[bool]()
    for a, b in PAIRS:
        depth = max(len(a), len(b))
        beside = tuple(item if item < 100 else -1 for item in b) + (-1,) * (depth - len(b))
        found = distribution(len(a), len(b), depth, beside)
        none[len(a) == len(b)] += found is None
        if found is None:
            continue
        assert np.abs(found.chances @ found.credit).max(initial=0) < 1e-9
        assert found.chances.sum() == pytest.approx(1) and (found.chances >= 0).all()
        numbers = [x if x < 100 else depth + b.index(x) for x in b]
        possible = set()  # lists made by either ranking's turn at each step
        for turns in itertools.product([a, numbers], repeat=depth):
            shown: list[int] = []
            for own in turns:
                shown += [x for x in own if x not in shown][:1]
            if len(shown) == depth:
                possible.add(tuple(shown))
        assert {tuple(row) for row in found.lists.tolist()} == possible
    assert none[True] == 0  # rankings of the same length always have a solution


# Fairness: somebody who clicks each position with a chance of its own, whatever stands there.


def lean(a: list[int], b: list[int], method: str, length: int | None = None, n: int = 2000) -> float:
    """Mean outcome over every set of clicked positions alike, by enumeration where coins alone decide."""
    size = max(len(a), len(b)) if length is None else length
    rows = [np.tile(block([own], max(size, len(own), 1)), (n, 1)) for own in (a, b)]
    merged = interleave(*rows, keys(n), method, length)
    total = 0.0
    for clicks in itertools.product([0, 1], repeat=merged.items.shape[1]):
        total += outcomes(merged, np.tile(np.array(clicks), (n, 1)), method).mean()
    return total / 2 ** merged.items.shape[1]


@pytest.mark.parametrize("paired", [False, True], ids=["team-draft", "competitive-pairs"])
def test_drafts_are_fair_position_by_position_whatever_the_lengths(paired: bool) -> None:
    a, b = (distinct(block([pair[side] for pair in PAIRS], LONGEST)) for side in (0, 1))
    want = np.array([max(len(x), len(y)) for x, y in PAIRS])
    lead = Counter[tuple[int, bytes]]()
    for tosses in itertools.product([False, True], repeat=LONGEST):
        _, teams = draft(a, b, np.tile(np.array(tosses)[:, None], len(PAIRS)), want, paired)
        signs = np.where(teams == 0, 1, np.where(teams == 1, -1, 0)).astype(np.int8)
        for row in range(len(PAIRS)):  # the whole pattern of teams is as likely as its mirror image
            lead[row, signs[:, row].tobytes()] += 1
            lead[row, (-signs[:, row]).tobytes()] -= 1
    assert not any(lead.values())


def test_balanced_counter_example_is_biased_and_no_other_method_is() -> None:
    a, b = [1, 2, 3, 4], [2, 3, 4, 1]  # B is A with its first item moved to the end
    assert abs(lean(a, b, "balanced")) > 0.05
    for method in ("team-draft", "competitive-pairs", "probabilistic", "optimised"):
        assert abs(lean(a, b, method, n=40_000)) < 0.015, method


@pytest.mark.parametrize("method", ["probabilistic", "optimised"])
def test_unequal_lengths_are_fair(method: str) -> None:
    for a, b in (([1, 2, 3, 4], [3]), ([1], [2, 3, 4, 1]), ([1, 2, 3], [2, 4]), ([], [1, 2])):
        assert abs(lean(a, b, method, n=40_000)) < 0.02, (a, b)


ids = st.lists(st.integers(-3, 12), max_size=9)


@settings(max_examples=150, deadline=None)
@given(ids, ids, st.sampled_from(METHODS), st.none() | st.integers(1, 14), st.integers(0, 2**32))
def test_every_pair_of_lists_merges_as_specified(
    a: list[int], b: list[int], method: str, length: int | None, salt: int
) -> None:
    """Unequal lengths, repeated items, gaps, nothing at all."""
    width = max(len(a), len(b), 1)
    merged = interleave(block([a], width), block([b], width), keys(1, salt), method, length)
    own = [list(dict.fromkeys(x for x in side if x >= 0)) for side in (a, b)]
    shown = [int(x) for x in merged.items[0] if x >= 0]
    union = set(own[0]) | set(own[1])
    assert len(shown) == min(len(union), length or max(len(own[0]), len(own[1])))
    assert len(set(shown)) == len(shown) and set(shown) <= union
    assert (merged.items[0, len(shown) :] == -1).all() and (merged.teams[0, len(shown) :] == -1).all()
    for item, team in zip(shown, merged.teams[0], strict=False):
        assert team == -1 or item in own[team]
    if method != "probabilistic":  # every prefix is made of the tops of the two
        for size in range(len(shown) if method != "optimised" else min(len(shown), 10)):
            tops = [next((x for x in side if x not in shown[:size]), None) for side in own]
            assert shown[size] in tops
    said = outcomes(merged, np.ones_like(merged.items), method)[0]
    assert -1 <= said <= 1
    if own[0] == own[1]:
        assert said == 0 and (merged.teams == -1).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_list_does_not_depend_on_its_neighbours(method: str) -> None:
    rng = np.random.default_rng(5)
    a, b = (np.argsort(rng.random((40, 8)), axis=1)[:, :6] for _ in range(2))
    chance = keys(40)
    order = rng.permutation(40)
    whole = interleave(a, b, chance, method)
    turned = interleave(a[order], b[order], chance[order], method)
    np.testing.assert_array_equal(whole.items[order], turned.items)
    np.testing.assert_array_equal(whole.teams[order], turned.teams)
    alone = interleave(a[7:8], b[7:8], chance[7:8], method)
    np.testing.assert_array_equal(whole.items[7:8], alone.items)


@pytest.mark.parametrize("method", ["team-draft", "competitive-pairs"])
def test_long_lists_are_drafted_as_short_ones(method: str) -> None:
    """Beyond 63 places Python's own numbers keep what is taken: the same lists one way and the other."""
    rng = np.random.default_rng(2)
    a, b = (np.argsort(rng.random((20, 90)), axis=1) for _ in range(2))
    tosses = coins(keys(20), 90)
    items, teams = draft(a.T.copy(), b.T.copy(), tosses, np.full(20, 90), method == "competitive-pairs")
    for row in range(20):
        expected = drafted(
            a[row].tolist(), b[row].tolist(), tuple(tosses[:, row].tolist()), 90, method == "competitive-pairs"
        )
        assert listed(items[:, row], teams[:, row]) == expected
        assert len(expected) == 90


def test_chance_is_fair_and_uniform() -> None:
    tosses = coins(keys(50_000), 70)
    assert np.abs(tosses.mean(axis=1) - 0.5).max() < 0.012
    assert np.abs(np.corrcoef(tosses.astype(float)) - np.eye(70)).max() < 0.03
    numbers = uniforms(keys(50_000), 3)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert np.abs(np.histogram(numbers, 20, (0, 1))[0] / 2500 - 1).max() < 0.1


def test_balanced_credit_counts_down_to_the_lowest_click() -> None:
    a, b = block([[1, 2, 3, 4]], 4), block([[2, 3, 4, 1]], 4)
    for salt in range(8):
        merged = interleave(a, b, keys(1, salt), "balanced")
        clicks = np.isin(merged.items, [1, 3]).astype(int)
        # the lowest click is 3, rank 2 of B: down to there A has one of the clicks and B has the other
        assert outcomes(merged, clicks, "balanced")[0] == 0
        assert outcomes(merged, (merged.items == 3).astype(int), "balanced")[0] == -1
        assert outcomes(merged, (merged.items == 1).astype(int), "balanced")[0] == 1


def test_unknown_methods_and_lengths_are_refused() -> None:
    one = block([[1]], 1)
    with pytest.raises(UsageError, match="did you mean 'team-draft'"):
        interleave(one, one, keys(1), "teamdraft")
    with pytest.raises(UsageError, match="expected 1 or more"):
        interleave(one, one, keys(1), length=0)
    with pytest.raises(UsageError, match="as many of each"):
        interleave(one, one, keys(2))
    with pytest.raises(UsageError, match="2 or more"):
        multileave(np.zeros((1, 1, 3), dtype=np.int64), keys(1))


# More than two rankings.


def test_multileaved_rounds_give_each_ranking_a_pick_in_every_order() -> None:
    n = 12_000
    lists = np.tile(np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), (n, 1, 1))
    items, teams = multileave(lists, keys(n))
    counts = Counter(tuple(row) for row in teams.tolist())
    assert set(counts) == set(itertools.permutations(range(3)))
    assert all(abs(count / n - 1 / 6) < 0.015 for count in counts.values())
    assert (items == lists[0, :, 0][teams]).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(ids, min_size=2, max_size=5), st.none() | st.integers(1, 14))
def test_multileaved_lists_end_and_hold_each_item_once(sides: list[list[int]], length: int | None) -> None:
    width = max(1, *(len(side) for side in sides))
    items, teams = multileave(block(sides, width)[None], keys(1), length)
    own = [list(dict.fromkeys(x for x in side if x >= 0)) for side in sides]
    shown = [int(x) for x in items[0] if x >= 0]
    assert len(shown) == min(len(set().union(*own)), length or max(len(side) for side in own))
    assert len(set(shown)) == len(shown)
    assert all(team == -1 or item in own[team] for item, team in zip(shown, teams[0], strict=False))


def test_random_clicks_prefer_none_of_many_rankings() -> None:
    rng = np.random.default_rng(0)
    sides = [[1, 2, 3, 4, 5], [3, 2], [5, 6, 7, 1], [2, 3, 4, 5, 8]]
    n = 60_000
    items, teams = multileave(np.tile(block(sides, 5), (n, 1, 1)), keys(n))
    beaten = contests(items, teams, rng.random(items.shape) < 0.3, 4)
    assert np.abs(beaten.mean(axis=0)).max() < 0.012
    np.testing.assert_array_equal(beaten, -beaten.transpose(0, 2, 1))


def test_two_rankings_multileaved_are_a_team_draft() -> None:
    rng = np.random.default_rng(0)
    lists = np.argsort(rng.random((50, 2, 12)), axis=2)[:, :, :8]
    items, teams = multileave(lists, keys(50))
    pair = interleave(lists[:, 0], lists[:, 1], keys(50), "team-draft")
    np.testing.assert_array_equal(items, pair.items)
    np.testing.assert_array_equal(teams, pair.teams)
