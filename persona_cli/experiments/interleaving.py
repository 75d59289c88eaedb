"""Two rankings merged into one list, so that clicks of the same person on the same page tell which ranking is better.

Rankings are int arrays (n, k), a row a list, best first, filled up with -1. What is specified for every method:

- a row's merged list is as long as its longer ranking, or `length` where that is given, and shorter only where both
  rankings together hold fewer items;
- an item that comes twice in a ranking counts where it comes first; gaps are closed;
- identical rankings (over what is merged) carry no information: no position is credited;
- positions are credited down to the length of the shorter ranking: so far both can always pick, so that somebody who
  clicks at random prefers neither, whatever the lengths (except under `balanced`, which is known to be unfair). Once a
  ranking has run out the other goes on alone;
- every loop runs over positions: each method ends after `length` steps.

Chance comes from `keys`, a 64-bit number a list: the same key gives the same list, whoever else is in the block.

balanced           Joachims 2003: alternating, one coin a list. Kept for comparison: shifted rankings bias it.
team-draft         Radlinski, Kurup and Joachims 2008: a coin each round, each ranking picks its best item left.
competitive-pairs  arXiv 2508.00751 (2025): as team draft, but where both would pick the same item it is nobody's.
probabilistic      Hofmann, Whiteson and de Rijke 2011: a coin each position, then an item with chance ~ rank^-3 of
                   those left (drawn without replacement); credit is marginalised over who may have drawn it.
optimised          Radlinski and Craswell 2013, in `multileaving.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from persona_cli.errors import UsageError, nearest
from persona_cli.experiments.merging import (
    NOBODY,
    PADDING,
    TEAM_A,
    TEAM_B,
    Clicks,
    Flags,
    Floats,
    Ints,
    Teams,
    alternate,
    coins,
    distinct,
    draft,
    sampled,
    uniforms,
)
from persona_cli.experiments.multileaving import optimised
from persona_cli.profiles.draws import Keys

METHODS = ("team-draft", "competitive-pairs", "probabilistic", "optimised", "balanced")
BLOCK = 8192  # rows worked on at once: what they need stays in the cache


class Merged(NamedTuple):
    """Merged lists of one method, with what clicks on them say."""

    items: Ints
    """(n, length) items, -1 after the end."""
    teams: Teams
    """(n, length) 0 for A, 1 for B, -1 where a click is credited to nobody; `optimised` has no teams: -1 throughout."""
    credit: Floats | None = None
    """(n, length) in [-1, 1]: what a click says for A (above 0) or for B; of `probabilistic` and `optimised`."""
    ranks: NDArray[np.int16] | None = None
    """(n, length, 2) ranks from 1 in A and in B, 0 where absent or deeper than both go; only of `balanced`."""


def interleave(a: Ints, b: Ints, keys: Keys, method: str = "team-draft", length: int | None = None) -> Merged:
    """`a` (n, k) and `b` (n, m) merged row by row, in lists of `length` or as long as each row's longer ranking.

    Raises UsageError for an unknown method, a length below 1 or blocks of different numbers of rows.
    """
    if method not in METHODS:
        raise UsageError(f"no interleaving method {method!r}{nearest(method, METHODS)}")
    if length is not None and length < 1:
        raise UsageError(f"length {length} of merged lists; expected 1 or more")
    if not len(a) == len(b) == len(keys):
        raise UsageError(f"{len(a)} lists of A, {len(b)} of B and {len(keys)} keys; expected as many of each")
    width = max(a.shape[1], b.shape[1]) if length is None else min(length, a.shape[1] + b.shape[1])
    merged = Merged(
        np.full((len(a), width), PADDING, dtype=np.result_type(a, b)),
        np.full((len(a), width), NOBODY, dtype=np.int8),
        np.zeros((len(a), width)) if method in ("probabilistic", "optimised") else None,
        np.zeros((len(a), width, 2), dtype=np.int16) if method == "balanced" else None,
    )
    for start in range(0, len(a), BLOCK):
        part = slice(start, start + BLOCK)
        left, right = (distinct(own[part].astype(merged.items.dtype, copy=False)) for own in (a, b))
        sizes = (left >= 0).sum(axis=0), (right >= 0).sum(axis=0)
        want = np.minimum(width, np.maximum(*sizes) if length is None else sizes[0] + sizes[1])
        ours = Merged(
            merged.items[part],
            merged.teams[part],
            None if merged.credit is None else merged.credit[part],
            None if merged.ranks is None else merged.ranks[part],
        )
        _merge(method, left, right, keys[part], want, ours)
        same = _identical(left, right, width if method != "probabilistic" else None)
        if same.any():
            ours.teams[same] = NOBODY
            for field in (ours.credit, ours.ranks):
                if field is not None:
                    field[same] = 0
    return merged


def outcomes(merged: Merged, clicks: Clicks, method: str) -> Floats:
    """What each list's clicks (n, length; above 0 is a click) say, in [-1, 1] (n,): above 0 for A, 0 for neither.

    balanced: more clicks among the ranks down to the lowest click, of both rankings (Joachims 2003). team-draft and
    competitive-pairs: more clicks on own items. probabilistic: P(A has more) - P(B has more) over the assignments of
    the clicked items, each independent of the others given the list (Hofmann et al. 2011). optimised: the mean credit
    of the clicked items, whose expectation is 0 at every position.
    """
    said = np.zeros(len(merged.items))
    for start in range(0, len(said), BLOCK):
        part = slice(start, start + BLOCK)
        clicked = (clicks[part] > 0) & (merged.items[part] >= 0)
        if merged.ranks is not None and method == "balanced":
            said[part] = _deepest(merged.ranks[part], clicked)
        elif merged.credit is not None and method == "probabilistic":
            said[part] = _marginal((1 + merged.credit[part]) / 2, clicked & (merged.teams[part] >= 0))
        elif merged.credit is not None:
            said[part] = (merged.credit[part] * clicked).sum(axis=1) / np.maximum(clicked.sum(axis=1), 1)
        else:
            ours, theirs = ((clicked & (merged.teams[part] == team)).view(np.int8) for team in (TEAM_A, TEAM_B))
            said[part] = np.sign((ours - theirs).sum(axis=1, dtype=np.int32))
    return said


def _deepest(ranks: NDArray[np.int16], clicked: Flags) -> Floats:
    """Whose first ranks, down to the lowest click, hold more of the clicked (n,): 1 for A, -1 for B."""
    absent = np.iinfo(np.int16).max
    of_a, of_b = (np.where(np.ascontiguousarray(ranks[:, :, team]) > 0, ranks[:, :, team], absent) for team in (0, 1))
    reached = np.minimum(of_a, of_b)
    deep = np.where(clicked & (reached < absent), reached, 0).max(axis=1, initial=0)[:, None]
    ours, theirs = ((clicked & (own <= deep)).view(np.int8) for own in (of_a, of_b))
    said: Floats = np.sign((ours - theirs).sum(axis=1, dtype=np.int32)).astype(np.float64)
    return said


def _marginal(share: Floats, clicked: Flags) -> Floats:
    """P(more of the clicked are A's) - P(more are B's) (n,), each A's with chance `share` (n, k): one by one."""
    n, width = share.shape
    lead = np.zeros((2 * width + 1, n))  # chance of each lead of A, from -width to width
    lead[width] = 1.0
    for place in range(width):
        at = np.flatnonzero(clicked[:, place])
        before = np.concatenate((np.zeros((1, len(at))), lead[:, at], np.zeros((1, len(at)))))
        lead[:, at] = before[:-2] * share[at, place] + before[2:] * (1 - share[at, place])
    gained: Floats = lead[width + 1 :].sum(axis=0) - lead[:width].sum(axis=0)
    return gained


def _merge(method: str, a: Ints, b: Ints, keys: Keys, want: Ints, out: Merged) -> None:
    width = out.items.shape[1]
    if method == "optimised":
        found = optimised(a, b, keys, want, width)
        assert out.credit is not None
        out.items[:], out.teams[:], out.credit[:] = found
        return
    if method == "balanced":
        items, teams, ranks = alternate(a[:width], b[:width], coins(keys, 1)[0], want)
        assert out.ranks is not None
        out.ranks[:, : len(ranks)] = ranks.transpose(1, 0, 2)
    elif method == "probabilistic":
        chances = np.array([uniforms(keys, width + step) for step in range(width)]).reshape(width, len(keys))
        items, teams, credit = sampled(a, b, coins(keys, width), chances, want)
        assert out.credit is not None
        out.credit[:] = credit.T
    else:
        items, teams = draft(a[:width], b[:width], coins(keys, width), want, method == "competitive-pairs")
    out.items[:, : len(items)] = items.T
    out.teams[:, : len(teams)] = teams.T


def _identical(a: Ints, b: Ints, width: int | None) -> Flags:
    """Rows (n,) whose rankings are the same down to `width`, or all the way."""
    common = slice(min(len(a), len(b), len(a) if width is None else width))
    rest = slice(common.stop, width)
    same: Flags = (a[common] == b[common]).all(axis=0) & (a[rest] < 0).all(axis=0) & (b[rest] < 0).all(axis=0)
    return same
