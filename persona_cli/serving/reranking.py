"""Objectives that trade score against what a list holds already, one entry at a time, for a block of users.

    mmr         (1 - s) r(i) - s max_j sim(i, j), j in the list; sim: cosine of the sets of category and tags
                Carbonell and Goldstein, SIGIR 1998
    calibrated  (1 - s) sum r(i) - s KL(p || q~), q~ = 0.99 q + 0.01 p; p: shares of the categories in the history,
                q: in the list. Steck, RecSys 2018; one entry more changes it by
                (1 - s) r(i) + s p_c [log(.99 (w_c + 1) / t + .01 p_c) - log(.99 w_c / t + .01 p_c)]
                and by what is equal for all candidates; w_c of the entries are of the category c, t entries with i

r(i) is the score on the scale where a user's best candidate has 1 and the one at twice the length of the list 0.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from persona_cli.models.base import Floats

Integers = NDArray[np.int64]
_ALPHA = 0.01


class Reranking(Protocol):
    """What makes the next entry good, given those already in the list."""

    def values(self) -> Floats:
        """(n_users, n_candidates)"""
        ...

    def took(self, rows: Integers, columns: Integers) -> None:
        """These users got these candidates into their lists."""
        ...


def relevance(scores: Floats, top: int) -> Floats:
    """Scores (n_users, n_candidates), best first in each row, as r(i) of the module; -inf stays."""
    there = scores > -np.inf
    last = np.maximum(np.minimum(there.sum(axis=1), 2 * top) - 1, 0)
    best = scores.max(axis=1, initial=-np.inf)
    low = np.where(last > 0, np.take_along_axis(scores, last[:, None], 1)[:, 0], best - 1)
    with np.errstate(invalid="ignore"):
        width = np.where(best > low, best - low, 1)
        found = (scores - low[:, None]) / width[:, None]
    return np.where(there, found, -np.inf).astype(np.float32)


class Mmr:
    """Maximal marginal relevance."""

    def __init__(self, relevance: Floats, categories: Integers, tags: Integers, strength: float) -> None:
        self.tags = np.concatenate((categories[:, :, None], np.where(tags >= 0, tags + _APART, -1)), axis=2)
        self.sizes = np.sqrt(np.maximum((self.tags >= 0).sum(axis=2), 1)).astype(np.float32)
        self.relevance, self.strength = relevance * np.float32(1 - strength), np.float32(strength)
        self.nearest = np.zeros(relevance.shape, dtype=np.float32)

    def values(self) -> Floats:
        found: Floats = self.relevance - self.strength * self.nearest
        return found

    def took(self, rows: Integers, columns: Integers) -> None:
        own = self.tags[rows, columns]  # (n, n_tags)
        theirs = self.tags[rows]
        shared = np.zeros(theirs.shape[:2], dtype=np.float32)
        for number in range(own.shape[1]):
            tag = own[:, number, None, None]
            if (tag >= 0).any():
                shared += ((theirs == tag) & (tag >= 0)).sum(axis=2)
        similar = shared / (self.sizes[rows] * self.sizes[rows, columns][:, None])
        self.nearest[rows] = np.maximum(self.nearest[rows], similar)


_APART = 1 << 32
"""Numbers of tags are kept apart from those of categories by this."""


class Calibrated:
    """Shares of the categories of a list drawn to those of the history."""

    def __init__(self, relevance: Floats, categories: Integers, own: Integers, shares: Floats, strength: float) -> None:
        """`own`: the categories of each user's history, -1 for none, and their `shares` (n_users, n_slots)."""
        self.relevance, self.strength = relevance * np.float32(1 - strength), np.float32(strength)
        self.shares = shares.astype(np.float32)
        self.slot = np.full(categories.shape, -1, dtype=np.int64)
        for number in range(own.shape[1]):
            mine = own[:, number, None]
            self.slot[(categories == mine) & (mine >= 0)] = number
        self.weights = np.zeros(shares.shape, dtype=np.float32)
        self.length = np.zeros(len(shares), dtype=np.float32)

    def values(self) -> Floats:
        if not self.shares.shape[1]:
            return self.relevance
        inside, base = (1 - _ALPHA) / (self.length[:, None] + 1), _ALPHA * self.shares
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = np.log(inside * (self.weights + 1) + base) - np.log(inside * self.weights + base)
            gain = np.where(self.shares > 0, self.shares * gain, 0)
        gains = np.take_along_axis(gain, np.maximum(self.slot, 0), 1)
        found: Floats = self.relevance + self.strength * np.where(self.slot >= 0, gains, 0).astype(np.float32)
        return found

    def took(self, rows: Integers, columns: Integers) -> None:
        self.length[rows] += 1
        slot = self.slot[rows, columns]
        known = slot >= 0
        self.weights[rows[known], slot[known]] += 1
