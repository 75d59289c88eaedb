"""How two rankings become one list, given the coins: the algebra of `interleaving.py`, over blocks of columns.

Rankings are columns here, int (k, n) with a row's items down a column, -1 after the end: a step of a method is an
operation on all rows at once. Chance is counted, not drawn from a stream: a key and a number give a random number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona_cli.profiles.draws import STEP, Keys, mixed

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Teams = NDArray[np.int8]
Clicks = NDArray[Any]  # Booleans or numbers
Words = NDArray[Any]  # 64 bits, or Python's numbers

PADDING = -1
NOBODY = -1
TEAM_A, TEAM_B = 0, 1
SHARPNESS = 3  # of the softmax over ranks, tau of Hofmann et al. 2011


def draws(keys: Keys, index: int) -> Keys:
    """The `index`-th of the 64-bit random numbers of each key (n,)."""
    return mixed(keys + np.uint64((index + 1) * int(STEP) % 2**64))


def uniforms(keys: Keys, index: int) -> Floats:
    """The `index`-th random number of each key, in [0, 1), with 53 bits (n,)."""
    return (draws(keys, index) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def coins(keys: Keys, count: int) -> Flags:
    """Fair coins (count, n): True where A goes first."""
    tossed = np.empty((count, len(keys)), dtype=np.bool_)
    for start in range(0, count, 64):
        word = draws(keys, start // 64)
        for bit in range(start, min(start + 64, count)):
            tossed[bit] = (word >> np.uint64(bit - start)) & np.uint64(1)
    return tossed


def distinct(lists: Ints) -> Ints:
    """Rankings (n, k) as columns (k, n): no item twice (the first counts), no gaps, -1 after the end."""
    columns = np.array(lists.T, order="C")
    odd = ((columns[1:] >= 0) & (columns[:-1] < 0)).any(axis=0) | (columns < PADDING).any(axis=0)
    for apart in range(1, len(columns)):
        odd |= ((columns[apart:] == columns[:-apart]) & (columns[apart:] >= 0)).any(axis=0)
    if odd.any():
        wrong = np.flatnonzero(odd)
        repaired = columns[:, wrong]
        for place in range(1, len(repaired)):
            repaired[place, (repaired[:place] == repaired[place]).any(axis=0)] = PADDING
        order = np.argsort(repaired < 0, axis=0, kind="stable")
        columns[:, wrong] = np.maximum(np.take_along_axis(repaired, order, axis=0), PADDING)
    return columns


def places(of: Ints, within: Ints) -> Ints:
    """Where each item of `of` (k, n) stands in the same row of `within` (m, n): 0 first, m + 1 where it does not."""
    absent = len(within) + 1
    kind = np.uint8 if absent < 256 else np.int32
    found = np.full(of.shape, absent, dtype=kind)
    for place, items in enumerate(within):
        found -= (of == np.where(items < 0, -2, items)).astype(kind) * kind(absent - place)
    return found


def draft(a: Ints, b: Ints, tossed: Flags, want: Ints, paired: bool) -> tuple[Ints, Teams]:
    """Items and teams (width, n) of a draft between columns `a` (k, n) and `b` (m, n), coins (width, n) given.

    A round begins with a coin; its winner picks first, then the other. Picks are credited down to the length of the
    shorter ranking: so far both can always pick, and a list's teams are as likely as their mirror image. `paired`: an
    item that both want is placed for nobody, and no round is spent on it.
    """
    width, n = tossed.shape
    rows = np.arange(n)
    # What is taken of a ranking is a number a row, bit r for rank r: the first item left is the lowest zero bit. Masks
    # choose between two numbers several times as fast as np.where does between coins. Long lists take Python's numbers.
    deep = max(len(a), len(b))
    common = np.minimum((a >= 0).sum(axis=0), (b >= 0).sum(axis=0))
    word: type = np.uint64 if deep < 63 else object
    one: Any = np.array(1, dtype=word)[()]
    bits: Words = np.array([1 << rank for rank in range(deep)] + [0, 0], dtype=word)  # none where an item is absent
    bits_in_b, bits_in_a = (
        bits.take(np.concatenate((np.minimum(places(own, other), deep), np.full((1, n), deep)))).ravel()
        for own, other in ((a, b), (b, a))
    )
    ended = np.full((1, n), PADDING, dtype=a.dtype)
    listed_a, listed_b = np.concatenate((a, ended)).ravel(), np.concatenate((b, ended)).ravel()
    taken_a: Words = np.zeros(n, dtype=word)
    taken_b: Words = np.zeros(n, dtype=word)
    items = np.empty((width, n), dtype=a.dtype)
    teams = np.empty((width, n), dtype=np.int8)
    second = np.full(n, False)  # in the middle of a round: the team that did not begin it picks
    turn = np.full(n, False)  # whether A picks
    for step in range(width):
        bit_a, bit_b = ~taken_a & (taken_a + one), ~taken_b & (taken_b + one)
        at_a = np.bitwise_count(bit_a - one).astype(np.int64) * n + rows
        at_b = np.bitwise_count(bit_b - one).astype(np.int64) * n + rows
        first_a, first_b = listed_a.take(at_a), listed_b.take(at_b)
        has_a, has_b = first_a >= 0, first_b >= 0
        both = has_a & has_b
        same = first_a == first_b
        turn = tossed[step] ^ (second & (tossed[step] ^ ~turn))  # the coin, or the other way round
        by_a = (turn & has_a) | ~has_b
        credited = step < common
        if paired:
            credited &= second | ~same
        items[step] = first_b ^ ((first_a ^ first_b) & -by_a.astype(a.dtype))
        teams[step] = (2 - by_a.view(np.int8)) * credited.view(np.int8) - 1
        second = both & ~second & ~(same & paired)
        mask, there_a, there_b = -by_a.astype(word), bits_in_a.take(at_b), bits_in_b.take(at_a)
        going = -(has_a | has_b).astype(word)
        taken_a |= (there_a ^ ((there_a ^ bit_a) & mask)) & going
        taken_b |= (bit_b ^ ((there_b ^ bit_b) & mask)) & going
    hidden = np.arange(width)[:, None] >= want
    items[hidden] = PADDING
    teams[hidden] = NOBODY
    return items, teams


def alternate(a: Ints, b: Ints, a_first: Flags, want: Ints) -> tuple[Ints, Teams, NDArray[np.int16]]:
    """Balanced lists of columns `a` (k, n) and `b` (m, n), A beginning where `a_first` (n,): items, teams, ranks.

    The item of rank r joins at step 2r or 2r + 1, unless the other ranking has brought it before.
    """
    width, n = int(want.max(initial=0)), len(want)
    in_b, in_a = places(a, b), places(b, a)
    common = np.minimum((a >= 0).sum(axis=0), (b >= 0).sum(axis=0))
    items = np.full((width, n), PADDING, dtype=np.int64)
    teams = np.full((width, n), NOBODY, dtype=np.int8)
    ranks = np.zeros((width, n, 2), dtype=np.int16)
    filled = np.zeros(n, dtype=np.int64)
    for step in range(2 * max(len(a), len(b))):
        rank = step // 2
        for team, own, beside, others in ((TEAM_A, a, in_b, len(b)), (TEAM_B, b, in_a, len(a))):
            if rank >= len(own):
                continue
            late = step % 2  # the second of this rank: what the other has at the same rank was there before
            going = (a_first == (team == TEAM_A)) == (late == 0)
            going &= (own[rank] >= 0) & (beside[rank] >= rank + late) & (filled < want)
            at = np.flatnonzero(going)
            items[filled[at], at] = own[rank, at]
            teams[filled[at], at] = team
            there = np.where(beside[rank, at] < others, beside[rank, at] + 1, 0)
            both = np.array((np.full(len(at), rank + 1), there)[:: 1 if team == TEAM_A else -1])
            ranks[filled[at], at] = np.where(both <= common[at], both, 0).T
            filled[at] += 1
    return items, teams, ranks


def sampled(a: Ints, b: Ints, tossed: Flags, chances: Floats, want: Ints) -> tuple[Ints, Teams, Floats]:
    """Probabilistic lists of columns `a` (k, n) and `b` (m, n): items, teams that drew them, and marginalised credit.

    `tossed` and `chances` (width, n): the coin of each position, and the number in [0, 1) that draws the item. Credit
    is P(A drew it) - P(B drew it), given the list: (p_A - p_B) / (p_A + p_B) of the two softmaxes over what was left.
    """
    width, n = tossed.shape
    deep = max(len(a), len(b))
    common = np.minimum((a >= 0).sum(axis=0), (b >= 0).sum(axis=0))
    rows = np.arange(n)
    rankings = [np.concatenate((own, np.full((deep - len(own), n), PADDING, own.dtype))) for own in (a, b)]
    listed = [own.ravel() for own in rankings]
    softmax = np.arange(1, deep + 1, dtype=np.float64)[:, None] ** -SHARPNESS
    left = [np.concatenate((np.where(own >= 0, softmax, 0.0), np.zeros((2, n)))) for own in rankings]
    flat = [weights.reshape(-1) for weights in left]
    beside = places(rankings[0], rankings[1]), places(rankings[1], rankings[0])
    elsewhere = [(there.astype(np.int64) * n + rows).ravel() for there in beside]
    kind = beside[0].dtype
    chosen = np.empty((deep, n), dtype=np.int64)
    summed = chosen.view(np.float64)
    items = np.full((width, n), PADDING, dtype=a.dtype)
    teams = np.full((width, n), NOBODY, dtype=np.int8)
    credit = np.zeros((width, n))
    for step in range(width):
        of_a, of_b = left[TEAM_A][:deep], left[TEAM_B][:deep]
        total_a, total_b = of_a.sum(axis=0), of_b.sum(axis=0)
        by_a = (tossed[step] & (total_a > 0)) | (total_b <= 0)
        mask = -by_a.astype(np.int64)
        np.bitwise_xor(of_a.view(np.int64), of_b.view(np.int64), out=chosen)
        np.bitwise_and(chosen, mask, out=chosen)
        np.bitwise_xor(chosen, of_b.view(np.int64), out=chosen)  # the weights of the ranking whose turn it is
        for rank in range(1, deep):  # several times as fast as np.cumsum down columns
            summed[rank] += summed[rank - 1]
        drawn = np.minimum(chances[step] * summed[-1], np.nextafter(summed[-1], 0.0))
        place = np.minimum((summed <= drawn).sum(axis=0, dtype=kind), deep - 1).astype(np.int64) * n + rows
        across_b, across_a = elsewhere[TEAM_A].take(place), elsewhere[TEAM_B].take(place)
        at_a, at_b = across_a ^ ((across_a ^ place) & mask), place ^ ((place ^ across_b) & mask)
        fair = step < common
        chance_a = flat[TEAM_A].take(at_a) / np.where(total_a > 0, total_a, 1.0)
        chance_b = flat[TEAM_B].take(at_b) / np.where(total_b > 0, total_b, 1.0)
        best_a, best_b = listed[TEAM_A].take(place), listed[TEAM_B].take(place)
        items[step] = best_b ^ ((best_a ^ best_b) & mask.astype(best_a.dtype))
        teams[step] = (2 - by_a.view(np.int8)) * fair.view(np.int8) - 1
        both = chance_a + chance_b
        credit[step] = (chance_a - chance_b) / np.where(both > 0, both, 1.0) * fair
        items[step, (step >= want) | (summed[-1] <= 0)] = PADDING
        flat[TEAM_A][at_a] = 0.0
        flat[TEAM_B][at_b] = 0.0
    hidden = np.arange(width)[:, None] >= want
    teams[hidden] = NOBODY
    credit[hidden] = 0.0
    return items, teams, credit
