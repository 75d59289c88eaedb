"""Two stages: a simple model finds a few hundred items, gradient boosting puts them in order."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.errors import BadSettings
from persona_cli.models.base import Floats, Histories, Model, Training
from persona_cli.models.layered import top_means
from persona_cli.models.pair_features import Candidates, ItemTable, item_table, last_items, pair_features
from persona_cli.models.popular import Popular
from persona_cli.models.ranker_training import Learned, Lesson, learned_order, lesson, microseconds
from persona_cli.models.stored import load_items, positions, save_items, union, with_columns
from persona_cli.models.topk import topk
from persona_cli.models.trees import Trees
from persona_cli.workspace.settings import Settings

log = logging.getLogger("persona")
# Users whose candidates are described at a time: their features fit a second-level cache several times over.
_BLOCK = 256
# Of equal log-odds the base decides, by this much from its first candidate to its last.
_TIE = 1e-4
_OUTSIDE = 0.5


class Ranker:
    """Candidates of a base model, ranked again by gradient-boosted trees (Covington et al. 2016; Friedman 2001).

        score = 1 / (1 + exp(-f(features of user, item and moment)))          a candidate
        score = half of the user's least candidate's · s / max |s|            any other item, s: score of the base

    Candidates are the base's best items for the user, and a quarter as many of the popular list. The order is learned
    on the past alone: base and popular list are fitted on what was before a cut, features are as of the cut, right
    answers are what followed (`ranker_training`); then base and popular list are fitted on everything. Where users'
    lists of the past would not have been better for it, or there is too little to learn from, the order of the base
    stays as it is; `learned` in the settings says which, and why.

    By rule: a user of whom the base knows nothing has scores of 0 (the popular list decides). Items of the history are
    candidates only where some had come back after the cut.
    """

    name: ClassVar[str] = "ranker"
    exact: ClassVar[bool] = False
    ordered: ClassVar[bool] = True
    items: pl.Series
    """Items of the base or of the popular list, sorted (n_items,)."""
    learned_: Learned
    """What was learned of the order, and how."""

    def __init__(
        self,
        parts: Mapping[str, Model],
        base: str = "knn",
        candidates: int = 200,
        trees: int = 100,
        users: int = 5_000,
        preparing: Settings | None = None,
    ) -> None:
        """`parts`: the base by its name, and `popular`; `preparing`: how a past training is made of its events."""
        popular = parts["popular"]
        assert isinstance(popular, Popular)
        self.base_model, self.popular = parts[base], popular
        self.base = base
        self.candidates = candidates
        self.trees = trees
        self.users = users
        self.preparing = preparing

    @staticmethod
    def inside(settings: Settings) -> list[str]:
        base = settings.text("model.ranker.base")
        if base in ("ranker", "popular", "layered"):
            raise BadSettings(
                f"model.ranker.base is {base!r}; expected a model of single users, such as knn",
                "persona train --model ranker --set base=knn",
            )
        return [base, "popular"]

    @classmethod
    def from_settings(cls, settings: Settings, parts: Mapping[str, Model]) -> Self:
        whole = {name: settings.whole(f"model.ranker.{name}") for name in ("candidates", "trees", "users")}
        return cls(parts, settings.text("model.ranker.base"), preparing=settings, **whole)

    def settings(self) -> Mapping[str, Any]:
        return {
            "base": self.base,
            "candidates": self.candidates,
            "trees": self.trees,
            "users": self.users,
            **self.learned_.said(),
        }

    def parts(self) -> Mapping[str, Model]:
        return {self.base: self.base_model, "popular": self.popular}

    def fit(self, training: Training) -> Self:
        set_ = lesson(training, self.preparing)
        self.learned_ = Learned(None, set_) if isinstance(set_, str) else self._learn(set_)
        log.debug("ranker: %s", self.learned_.said())
        self._fit_parts(training)
        self.learned_ = replace(self.learned_, as_of=microseconds(training.as_of))
        return self

    def scores(self, histories: Histories) -> Floats:
        told = histories.over(self._columns, len(self.base_model.items))
        own = self.base_model.scores(told)  # (n_users, n_base)
        scores = np.zeros((len(histories.events), len(self.items)), dtype=np.float32)
        scores[:, self._places] = own
        trees = self.learned_.trees
        known = np.flatnonzero(np.abs(own).max(axis=1, initial=0.0) > 0)
        if trees is None or not len(known):
            return scores
        for start in range(0, len(known), _BLOCK):
            rows = known[start : start + _BLOCK]
            block = histories.chosen(rows)
            candidates, features = self.described(block, scores[rows], self.learned_.repeats)
            scores[rows] = _placed(scores[rows], candidates, trees.raw(features))
        return scores

    def described(self, histories: Histories, base: Floats, repeats: bool) -> tuple[Candidates, Floats]:
        """The candidates of these users, and the features of those that are there (n_pairs, n_features).

        `base`: its scores (n_users, n_items). With `repeats` items of the history may be candidates.
        """
        n = self.candidates
        barred = sparse.csr_array(histories.rows.astype(bool)) if not repeats else _none(base.shape)
        rows, columns = np.repeat(np.arange(len(base)), np.diff(barred.indptr)), barred.indices
        left = base.copy()
        left[rows, columns] = -np.inf
        scale = np.maximum(top_means(base.copy(), barred), 1e-30).astype(np.float32)[:, None]
        best, values = topk(left, n)
        there = values > 0
        popular = np.zeros_like(base)
        popular[:, self._popular_places] = self.popular.scores(histories)
        favoured = popular.copy()
        favoured[rows, columns] = -np.inf
        np.put_along_axis(favoured, best, np.where(there, -np.inf, np.take_along_axis(favoured, best, 1)), axis=1)
        more, values = topk(favoured, max(n // 4, 1))
        places, there = np.hstack([best, more]), np.hstack([there, values > 0])
        recent = last_items(histories)
        found = Candidates(
            places,
            there,
            np.take_along_axis(base, places, 1) / scale,
            self._recent(recent, places, barred),
            np.take_along_axis(popular, places, 1),
        )
        return found, pair_features(self._table, found, histories, recent, self._now(histories))

    def save(self, folder: Path) -> None:
        """What is learned of the order; base and popular list are versions of their own."""
        save_items(folder, self.items)
        if self.learned_.trees is not None:
            self.learned_.trees.save(folder)
            self._table.save(folder)

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any], parts: Mapping[str, Model]) -> Self:
        model = cls(parts, **{name: settings[name] for name in ("base", "candidates", "trees", "users")})
        model.learned_ = Learned.of(settings, Trees.load(folder) if (folder / "trees.values.npy").exists() else None)
        model._join(load_items(folder))
        if model.learned_.trees is not None:
            model._table = ItemTable.load(folder)
        return model

    def _fit_parts(self, training: Training) -> None:
        """Base, popular list and the numbers of items, as of the training."""
        self.popular.fit(training)
        self.base_model.fit(training)
        self._join(union(self.popular.items, self.base_model.items))
        overall = np.zeros(len(self.items), dtype=np.float32)
        overall[self._popular_places] = self.popular.overall_
        self._table = item_table(training, self.items, overall)

    def _join(self, items: pl.Series) -> None:
        self.items = items
        self._popular_places = positions(self.popular.items, items)  # (n_popular,)
        self._places = positions(self.base_model.items, items)  # (n_base,)
        self._columns = positions(items, self.base_model.items)  # (n_items,), -1: not in the base

    def _learn(self, set_: Lesson) -> Learned:
        self._fit_parts(set_.training)
        self.learned_ = Learned(None, "", microseconds(set_.training.as_of), set_.by_time)
        return learned_order(self, set_)

    def _recent(self, recent: Histories | None, places: NDArray[np.int64], barred: sparse.csr_array) -> Floats:
        """What the base says from the last items alone, in units of its mean best 20; NaN where none are known."""
        if recent is None:
            return np.full(places.shape, np.nan, dtype=np.float32)
        own = self.base_model.scores(recent.over(self._columns, len(self.base_model.items)))
        scale = top_means(own.copy(), with_columns(barred, self._columns, own.shape[1]))
        padded = np.zeros((len(own), len(self.items)), dtype=np.float32)
        padded[:, self._places] = own
        told = np.take_along_axis(padded, places, 1)
        return np.asarray(told / np.maximum(scale, 1e-30).astype(np.float32)[:, None], dtype=np.float32)

    def _now(self, histories: Histories) -> NDArray[np.int64]:
        """The moment that is asked about: that of the fit, or just after the user's last event where that is later."""
        n_users, times = len(histories.events), histories.times
        last = np.full(n_users, self.learned_.as_of, dtype=np.int64)
        if times is not None:
            filled = np.flatnonzero(np.diff(times.indptr))
            if len(filled):
                latest = np.maximum.reduceat(times.data, times.indptr[:-1][filled])
                last[filled] = np.maximum(last[filled], latest) if self.learned_.by_time else latest
        return last


def _placed(base: Floats, candidates: Candidates, raw: NDArray[np.float64]) -> Floats:
    """Scores of whole rows (n_users, n_items): candidates by the trees, the others behind them by the base."""
    there = candidates.there
    odds = np.full(there.shape, np.inf)
    odds[there] = raw
    ranks = np.argsort(np.argsort(np.where(there, -candidates.base, np.inf), axis=1, kind="stable"), axis=1)
    chances = 1.0 / (1.0 + np.exp(-(odds - _TIE * ranks / there.shape[1])))
    least = np.where(there, chances, 1.0).min(axis=1, initial=1.0)
    users = np.broadcast_to(np.arange(len(base))[:, None], there.shape)[there]
    rest = base.copy()
    rest[users, candidates.places[there]] = 0.0
    largest = np.maximum(np.abs(rest).max(axis=1, initial=0.0), 1e-30)
    scores = np.asarray(rest * (_OUTSIDE * least / largest).astype(np.float32)[:, None], dtype=np.float32)
    scores[users, candidates.places[there]] = chances[there].astype(np.float32)
    return scores


def _none(shape: tuple[int, ...]) -> sparse.csr_array:
    return sparse.csr_array((shape[0], shape[1]), dtype=bool)
