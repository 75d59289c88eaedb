"""Exponents, penalty and weight of a spectral model, chosen on interactions that are kept from it.

Of at most `ASKED` users one in five interactions is held out, by a hash of the ids, so that the same events are cut the
same way whatever their order. Each setting is tried over a coarse grid while the others stay; what is best by NDCG@20
is taken. A per-user random cut tells exponents within 0.1 of what the future says; it does not tell which kinds of
components to use, so these are fixed: one linear part and one ridge part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.base import Floats
from persona_cli.models.filters import Linear, Ridge, item_gram, normalised, power, spectrum_of
from persona_cli.models.topk import topk

ASKED = 2000
"""Users asked at the most."""
FEW = 50
"""With fewer users that can be asked, nothing is tuned."""
SHARE = 5
"""One of so many interactions of a user is held out."""
DEPTH = 20
FACTORS = 256
"""Eigenpairs while the exponents are sought, where the catalogue is not decomposed as a whole."""
DENSE = 0.02
"""Share of users who hold the average item from which data count as dense."""
_CELLS = 1 << 25  # of a block of scores


@dataclass(frozen=True)
class Choice:
    """Settings of a spectral model, all of them numbers."""

    user: float
    left: float
    right: float
    item: float
    ridge: float
    output: float
    weight: float


GRIDS: dict[str, tuple[float, ...]] = {
    "left": (0.5, 0.7, 0.9),
    "right": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
    "item": (0.2, 0.3, 0.4),
    "ridge": (0.01, 0.03, 0.1),
    "output": (-0.1, 0.0, 0.1, 0.2, 0.3, 0.4),
    "weight": (0.0, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4),
}


def by_rule(n_users: int, degrees: NDArray[np.float64]) -> Choice:
    """What is in force where nothing can be tried: found good on several public logs, dense and sparse."""
    share = float(degrees.mean()) / max(n_users, 1) if len(degrees) else 0.0
    if share >= DENSE:
        return Choice(user=0.5, left=0.5, right=0.5, item=0.25, ridge=0.02, output=0.05, weight=0.1)
    return Choice(user=0.5, left=0.8, right=0.2, item=0.35, ridge=0.03, output=0.15, weight=0.5)


class Cut(NamedTuple):
    """Users asked: what is known of them, and what was held out."""

    rows: sparse.csr_array
    """All users' rows without what is held out (n_users, n_items)."""
    asked: NDArray[np.int64]
    """Positions of the users asked (n_asked,)."""
    relevant: sparse.csr_array
    """bool (n_asked, n_items)."""


def cut(rows: sparse.csr_array, users: pl.Series, items: pl.Series) -> Cut | None:
    """Hold out one interaction in five of the users asked; None where fewer than `FEW` have five."""
    able = np.flatnonzero(np.diff(rows.indptr) >= SHARE)
    if len(able) < FEW:
        return None
    names = users.gather(able).to_list()
    order = sorted(range(len(able)), key=lambda at: _digest(names[at]))[:ASKED]
    asked = np.sort(able[order])
    kept = np.ones(rows.nnz, dtype=bool)
    for user, name in zip(asked, users.gather(asked).to_list(), strict=True):
        start, stop = rows.indptr[user], rows.indptr[user + 1]
        held = items.gather(rows.indices[start:stop]).to_list()
        ranked = sorted(range(len(held)), key=lambda at: _digest(f"{name}\0{held[at]}"))
        kept[start + np.array(ranked[: len(held) // SHARE])] = False
    return Cut(_only(rows, kept), asked, sparse.csr_array(_only(rows, ~kept)[asked].astype(bool)))


class Tuning:
    """The parts as they would be without what was held out, and how well they find it."""

    def __init__(self, made: Cut, rule: Choice, given: dict[str, float], threads: int) -> None:
        self.known = sparse.csr_array(made.rows[made.asked])
        self.relevant, self.threads = made.relevant, threads
        self.degrees = np.maximum(np.bincount(made.rows.indices, minlength=made.rows.shape[1]), 1).astype(np.float64)
        self.rule, self.given = replace(rule, **given), given
        self.rows = normalised(made.rows, self.rule.user)

    def choose(self) -> Choice:
        """The best of the grids: the linear part, the ridge part, then the weight between them."""
        choice, linear = self._linear(self.rule)
        choice, ridge = self._ridge(choice)
        _, best = max((self._judge(ridge + np.float32(w) * linear), -n) for n, w in enumerate(self._grid("weight")))
        return replace(choice, weight=self._grid("weight")[-best])

    def _grid(self, name: str) -> tuple[float, ...]:
        """What is tried for a setting: nothing else where it was given."""
        return (self.given[name],) if name in self.given else GRIDS[name]

    def _linear(self, choice: Choice) -> tuple[Choice, Floats]:
        cells = item_gram(self.rows)
        best = (-1.0, choice, np.zeros((0, 0), dtype=np.float32))
        for left in self._grid("left"):
            scores = Linear.of(cells, self.degrees, left, 0.0).scores(self.known)
            for right in self._grid("right"):
                figure = self._judge(scores, power(self.degrees, -right))
                if figure > best[0]:
                    best = (figure, replace(choice, left=left, right=right), scores)
        _, choice, scores = best
        return choice, self._level(scores * power(self.degrees, -choice.right))

    def _ridge(self, choice: Choice) -> tuple[Choice, Floats]:
        best = (-1.0, choice, np.zeros((0, 0), dtype=np.float32))
        for item in self._grid("item"):
            spectrum = spectrum_of(self.rows, self.degrees, item, FACTORS, self.threads, steps=2)
            for penalty in self._grid("ridge"):
                scores = Ridge.of(spectrum, self.degrees, item, penalty, 0.0).scores(self.known)
                for output in self._grid("output"):
                    figure = self._judge(scores, power(self.degrees, output))
                    if figure > best[0]:
                        best = (figure, replace(choice, item=item, ridge=penalty, output=output), scores)
        _, choice, scores = best
        return choice, self._level(scores * power(self.degrees, choice.output))

    def _level(self, scores: Floats) -> Floats:
        """Each user's scores in units of the mean of his best."""
        for start, stop in self._blocks():
            part = scores[start:stop]
            part /= top_means(part, self.known[start:stop])[:, None]
        return scores

    def _judge(self, scores: Floats, exit_: Floats | None = None) -> float:
        """Mean NDCG@20 of the users asked."""
        total = 0.0
        discounts = 1 / np.log2(np.arange(2, DEPTH + 2))
        ideal = np.cumsum(discounts)
        for start, stop in self._blocks():
            part = scores[start:stop] * (np.float32(1) if exit_ is None else exit_)
            known, wanted = self.known[start:stop], self.relevant[start:stop]
            part[entries(known)] = -np.inf
            places, _ = topk(part, DEPTH)
            there = np.repeat(np.arange(stop - start), places.shape[1]), places.ravel()
            hits = np.asarray(wanted[there]).reshape(places.shape)
            lengths = np.minimum(np.diff(wanted.indptr), DEPTH)
            total += float(((hits * discounts[: places.shape[1]]).sum(axis=1) / ideal[lengths - 1]).sum())
        return float(total / self.known.shape[0])

    def _blocks(self) -> Iterable[tuple[int, int]]:
        n_users, n_items = self.known.shape
        size = max(1, _CELLS // max(n_items, 1))
        return ((start, min(start + size, n_users)) for start in range(0, n_users, size))


def given_of(values: dict[str, float | str]) -> dict[str, float]:
    """Those of the settings that are numbers already."""
    names = {field.name for field in fields(Choice)}
    return {name: float(value) for name, value in values.items() if name in names and not isinstance(value, str)}


def top_means(scores: Floats, known: sparse.csr_array) -> Floats:
    """Mean of each user's best `DEPTH` scores outside the history (n_users,); 1 where it is not positive."""
    at = entries(known)
    kept = scores[at]
    scores[at] = -np.inf
    _, values = topk(scores, DEPTH)
    scores[at] = kept
    there = values > -np.inf
    means = np.where(there, values, np.float32(0)).sum(axis=1, dtype=np.float64) / np.maximum(there.sum(axis=1), 1)
    return np.where(means > 0, means, 1.0).astype(np.float32)


def entries(matrix: sparse.csr_array) -> tuple[NDArray[np.int64], NDArray[Any]]:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)), matrix.indices


def _only(rows: sparse.csr_array, kept: NDArray[np.bool_]) -> sparse.csr_array:
    ends = np.concatenate(([0], np.cumsum(kept)))[rows.indptr]
    return sparse.csr_array((rows.data[kept], rows.indices[kept], ends), shape=rows.shape)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
