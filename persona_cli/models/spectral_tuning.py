"""Exponents, penalty and weight of a spectral model: by rule, and away from it where held-out interactions insist.

Of at most `ASKED` users one in five interactions is held out, by a hash of the ids, so that the same events are cut the
same way whatever their order. Starting from the rule, one setting after another is tried over a coarse grid, in the
blend as it would be served, and moves where NDCG@20 gains more than `MARGIN`. The margin is what keeps it honest: on
public logs a random cut of the past misjudged the best exponents by about 0.1, and following it to the last per mille
was worse than the rule. Which parts there are is not chosen at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.base import Floats
from persona_cli.models.eigen import Linear, Ridge, Spectrum, item_gram, normalised, power, spectrum_of
from persona_cli.models.layered import entries, top_means
from persona_cli.models.topk import topk

ASKED = 1000
"""Users asked at the most."""
FEW = 50
"""With fewer users that can be asked, nothing is tuned."""
MARGIN = 0.015
"""Gain, as a share of the figure, below which a setting stays."""
SHARE = 5
"""One of so many interactions of a user is held out."""
DEPTH = 20
FACTORS = 256
"""Eigenpairs while settings are tried."""
LARGE = 20_000
"""Items from which settings that need another decomposition stay as they are."""
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
    "user": (0.2, 0.4, 0.6),
    "item": (0.15, 0.25, 0.35, 0.5),
    "ridge": (0.003, 0.01, 0.03, 0.1, 0.3),
    "left": (0.5, 0.8),
    "output": (-0.4, -0.25, -0.15, -0.05, 0.05),
    "right": (0.0, 0.1, 0.2, 0.3, 0.4),
    "weight": (0.0, 0.1, 0.3, 0.7, 1.2),
}
"""In the order in which they are tried."""
DEAR = {"user", "item"}
"""Those that need the Gram or its eigenvectors anew."""
_OF_LINEAR, _OF_RIDGE = {"user", "left", "right"}, {"user", "item", "ridge", "output"}


def by_rule(n_users: int, degrees: NDArray[np.float64]) -> Choice:
    """Where to start from, and to stay without reason to leave.

    In dense data long histories share popular items by chance, so neighbours say little; and degrees say more of the
    items themselves than of how well they are known.
    """
    share = float(degrees.mean()) / max(n_users, 1) if len(degrees) else 0.0
    if share >= DENSE:
        return Choice(user=0.4, left=0.5, right=0.4, item=0.25, ridge=0.02, output=-0.2, weight=0.1)
    return Choice(user=0.4, left=0.8, right=0.2, item=0.35, ridge=0.03, output=-0.15, weight=0.7)


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


class _Parts(NamedTuple):
    """What scores of the users asked are made of; None: not computed yet."""

    cells: sparse.csr_array | None
    spectrum: Spectrum | None
    raw_linear: Floats | None
    raw_ridge: Floats | None
    linear: Floats | None
    ridge: Floats | None


class Tuning:
    """The model as it would be without what was held out, and how well it finds that."""

    def __init__(
        self,
        made: Cut,
        threads: int,
        grids: Mapping[str, Sequence[float]] = GRIDS,
        margin: float = MARGIN,
        factors: int = FACTORS,
    ) -> None:
        self.grids, self.margin, self.factors = grids, margin, factors
        self.all, self.known = made.rows, sparse.csr_array(made.rows[made.asked])
        self.relevant, self.threads = made.relevant, threads
        self.degrees = np.maximum(np.bincount(made.rows.indices, minlength=made.rows.shape[1]), 1).astype(np.float64)

    def choose(self, start: Choice, given: Collection[str]) -> Choice:
        """`start`, with each setting that is not given moved where that pays."""
        best, parts = start, self._parts(start, start, None)
        figure = self._judge(parts, best.weight)
        for name, values in self.grids.items():
            if name in given:
                continue
            around, here = best, parts
            for value in values:
                if value == getattr(around, name):
                    continue
                choice = replace(around, **{name: value})
                tried = self._parts(choice, around, here)
                found = self._judge(tried, choice.weight)
                if found > figure * (1 + (self.margin if best is around else 0.0)):
                    best, parts, figure = choice, tried, found
        return best

    def _parts(self, choice: Choice, before: Choice, parts: _Parts | None) -> _Parts:
        """Scores by `choice`; what it shares with the choice before is taken from there."""
        moved = {field.name for field in fields(Choice) if getattr(choice, field.name) != getattr(before, field.name)}
        if parts is None:
            moved = {field.name for field in fields(Choice)}
            parts = _Parts(None, None, None, None, None, None)
        scaled = normalised(self.all, choice.user) if moved & {"user", "item"} else None
        if "user" in moved:
            assert scaled is not None
            parts = parts._replace(cells=item_gram(scaled))
        if moved & {"user", "left"}:
            assert parts.cells is not None
            parts = parts._replace(raw_linear=Linear.of(parts.cells, self.degrees, choice.left, 0.0).scores(self.known))
        if moved & {"user", "item"}:
            assert scaled is not None
            found = spectrum_of(scaled, self.degrees, choice.item, self.factors, self.threads, steps=2)
            parts = parts._replace(spectrum=found)
        if moved & {"user", "item", "ridge"}:
            assert parts.spectrum is not None
            model = Ridge.of(parts.spectrum, self.degrees, choice.item, choice.ridge, 0.0)
            parts = parts._replace(raw_ridge=model.scores(self.known))
        if moved & _OF_LINEAR:
            assert parts.raw_linear is not None
            parts = parts._replace(linear=self._level(parts.raw_linear * power(self.degrees, -choice.right)))
        if moved & _OF_RIDGE:
            assert parts.raw_ridge is not None
            parts = parts._replace(ridge=self._level(parts.raw_ridge * power(self.degrees, choice.output)))
        return parts

    def _level(self, scores: Floats) -> Floats:
        """Each user's scores in units of the mean of his best."""
        for start, stop in self._blocks():
            part = scores[start:stop]
            part /= scales(part, self.known[start:stop])[:, None]
        return scores

    def _judge(self, parts: _Parts, weight: float) -> float:
        """Mean NDCG@20 of the users asked."""
        assert parts.ridge is not None and parts.linear is not None
        total = 0.0
        discounts = 1 / np.log2(np.arange(2, DEPTH + 2))
        ideal = np.cumsum(discounts)
        for start, stop in self._blocks():
            part = parts.ridge[start:stop] + np.float32(weight) * parts.linear[start:stop]
            known, wanted = self.known[start:stop], self.relevant[start:stop]
            part[entries(known)] = -np.inf
            places, _ = topk(part, DEPTH)
            there = np.repeat(np.arange(stop - start), places.shape[1]), places.ravel()
            hits = np.asarray(wanted[there]).reshape(places.shape)
            lengths = np.minimum(np.diff(wanted.indptr), DEPTH)
            total += float(((hits * discounts[: places.shape[1]]).sum(axis=1) / ideal[lengths - 1]).sum())
        return total / len(parts.ridge)

    def _blocks(self) -> Iterable[tuple[int, int]]:
        n_users, n_items = self.known.shape
        size = max(1, _CELLS // max(n_items, 1))
        return ((start, min(start + size, n_users)) for start in range(0, n_users, size))


def given_of(values: dict[str, float | str]) -> dict[str, float]:
    """Those of the settings that are numbers already."""
    names = {field.name for field in fields(Choice)}
    return {name: float(value) for name, value in values.items() if name in names and not isinstance(value, str)}


def scales(scores: Floats, known: sparse.csr_array) -> Floats:
    """Mean of each user's best `DEPTH` scores outside the history (n_users,); 1 where it is not positive."""
    means = top_means(scores, known)
    return np.where(means > 0, means, 1.0).astype(np.float32)


def _only(rows: sparse.csr_array, kept: NDArray[np.bool_]) -> sparse.csr_array:
    ends = np.concatenate(([0], np.cumsum(kept)))[rows.indptr]
    return sparse.csr_array((rows.data[kept], rows.indices[kept], ends), shape=rows.shape)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
