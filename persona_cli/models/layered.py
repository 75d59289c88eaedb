"""What is wanted in general, by users of like taste and by this user, weighed by how much is known of the user."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.base import Floats, Histories, Model, Training, known
from persona_cli.models.cohort import Cohort
from persona_cli.models.layering import COHORT_EVIDENCE, EVIDENCE, FEW_USERS, Divergence, individual_share, risen
from persona_cli.models.popular import CELL, Popular
from persona_cli.models.stored import positions, union, with_columns
from persona_cli.models.topk import products, topk
from persona_cli.workspace.settings import Settings

AUTO_EVIDENCE = 1.0
"""Events at which both weigh the same, where evidence is "auto", nothing was compared and there is no cohort part."""
DEPTH = 20
"""A score is in units of the mean of the user's best 20, so that models of different scales can be added."""

Columns = NDArray[np.int64]


class Layers(NamedTuple):
    """The layers of scores: `factor` · individual scores + `from_cohort` + `from_context` + `disliked`."""

    individual: NDArray[np.float64]
    """Weight of each layer (n_users,)."""
    cohort: NDArray[np.float64]
    context: NDArray[np.float64]
    factor: NDArray[np.float64]
    """By which the scores of the individual model are multiplied (n_users,)."""
    from_cohort: Floats
    """What each layer adds (n_users, n_items)."""
    from_context: Floats
    disliked: Floats
    """Not above 0: what goes with that which the user dislikes (n_users, n_items)."""


class Layered:
    """A blend of the popular list of the user's context, that of a cohort if there is one, and an individual model.

        score = w · s_individual / m_individual + (1 - w) · s_popular / m_popular - v · d · s_disliked / m_disliked
        w = n / (n + evidence) where the individual model says something, else 0;   v = n / (n + evidence)

    n is the number of the user's events with an item, of a user without any that of the recent queries; m is the mean
    of the user's own top 20 of that model, hidden items left out. Where the individual model says nothing (no history
    or search, or none that it knows) w is 0, so a new user gets the popular list. Items that the individual model does
    not cover keep their popular part. A pseudo-count prior of strength `evidence`, as in empirical-Bayes shrinkage
    (Efron & Morris 1975). s_disliked are the individual model's
    scores for what the user dislikes as if it was liked, so what goes with it comes later; d is the share of dislikes
    in all that the user felt of items (as in Rocchio's relevance feedback, 1971).

    With a cohort part, w is by evidence and divergence from the cohort, and what is left of 1 is shared by the lists of
    cohort and context, as `layering` says. Where the cohort model says nothing its share goes to the context.
    """

    name: ClassVar[str] = "layered"
    exact: bool
    items: pl.Series
    """Items of all parts, sorted (n_items,)."""
    evidence_: float
    """Events at which the individual part weighs as much as the rest."""

    def __init__(
        self,
        popular: Popular,
        individual: Model | None = None,
        evidence: float | str = "auto",
        cohort: Cohort | None = None,
        cohort_evidence: float | str = "auto",
        few_users: float = FEW_USERS,
    ) -> None:
        self.popular = popular
        self.individual = individual
        self.evidence = evidence
        self.cohort = cohort
        self.cohort_evidence = cohort_evidence
        self.few_users = few_users

    @classmethod
    def from_settings(cls, settings: Settings, individual: Model | None = None) -> Self:
        """Unfitted, around an unfitted `individual`; None: the popular list alone, but for the cohort's if any.

        There is a cohort part where model.layered.cohort_evidence is a number.
        """
        from_cohort = settings.number_or_word("model.layered.cohort_evidence")
        return cls(
            Popular.from_settings(settings),
            individual,
            settings.number_or_word("model.layered.evidence"),
            None if isinstance(from_cohort, str) else Cohort.from_settings(settings),
            from_cohort,
            settings.number("model.layered.few_users"),
        )

    def settings(self) -> Mapping[str, Any]:
        said = {"evidence": self._evidence()}
        if self.cohort is None:
            return said
        return {**said, "cohort_evidence": self._cohort_evidence(), "few_users": float(self.few_users)}

    def fit(self, training: Training) -> Self:
        """Fit all parts."""
        for part in self.parts().values():
            part.fit(training)
        return self.joined()

    def joined(self) -> Self:
        """Take the parts as they are: fitted already, or loaded."""
        self.evidence_ = self._evidence()
        parts = list(self.parts().values())
        self.exact = all(part.exact for part in parts)
        self.items = reduce(union, (part.items for part in parts))
        self._popular_places = positions(self.popular.items, self.items)  # (n_popular,)
        if self.individual is not None:
            self._places = positions(self.individual.items, self.items)  # (n_individual,)
            self._columns = positions(self.items, self.individual.items)  # (n_items,), -1: not covered
        if self.cohort is not None:
            self._cohort_places = positions(self.cohort.items, self.items)  # (n_cohort,)
            self._cohort_columns = positions(self.items, self.cohort.items)  # (n_items,), -1: not covered
            self._divergence = Divergence(self.cohort)
        return self

    def scores(
        self, histories: Histories, hidden: sparse.csr_array | None = None, spared: sparse.csr_array | None = None
    ) -> Floats:
        """Scores (n_users, n_items); `hidden` (same shape) marks items that cannot be shown: they set no scale.

        `spared` (same shape) marks items that dislikes do not lower: what the user wants less of by name is lowered
        for that elsewhere (`models.wishes`), and counts once. What goes with it is lowered here.
        """
        n_users, n_items = len(histories.events), len(self.items)
        hidden = sparse.csr_array((n_users, n_items), dtype=bool) if hidden is None else hidden
        weights = self.weights(histories)
        scores = np.zeros((n_users, n_items), dtype=np.float32)
        if self.individual is not None and weights.any():
            own = self.individual.scores(self._own(histories))  # (n_users, n_individual)
            scale = top_means(own, with_columns(hidden, self._columns, len(self.individual.items)))
            weights = np.where(scale > 0, weights, 0.0)
            own *= np.divide(weights, scale, out=np.zeros_like(scale), where=scale > 0).astype(np.float32)[:, None]
            if own.shape == scores.shape:
                scores = own
            else:
                scores[:, self._places] = own
        if self.individual is not None and histories.dislikes is not None:
            self._take_disliked(scores, histories, spared)
        rest = 1.0 - weights
        if self.cohort is not None:
            rest = self._add_cohort(scores, rest, histories, hidden)
        self._add_popular(scores, rest, histories.context, hidden)
        return scores

    def layers(
        self, histories: Histories, hidden: sparse.csr_array | None = None, spared: sparse.csr_array | None = None
    ) -> Layers:
        """What `scores` of the same users adds up, layer by layer, to explain them."""
        n_users, n_items = len(histories.events), len(self.items)
        hidden = sparse.csr_array((n_users, n_items), dtype=bool) if hidden is None else hidden
        weights, factors = self.weights(histories), np.zeros(n_users)
        cohort, popular, disliked = (np.zeros((n_users, n_items), dtype=np.float32) for _ in range(3))
        if self.individual is not None and weights.any():
            own = self.individual.scores(self._own(histories)).copy()
            scale = top_means(own, with_columns(hidden, self._columns, own.shape[1]))
            weights = np.where(scale > 0, weights, 0.0)
            factors = np.divide(weights, scale, out=factors, where=scale > 0)
        if self.individual is not None and histories.dislikes is not None:
            self._take_disliked(disliked, histories, spared)
        rest = 1.0 - weights
        left = rest if self.cohort is None else self._add_cohort(cohort, rest, histories, hidden)
        self._add_popular(popular, left, histories.context, hidden)
        return Layers(weights, rest - left, left, factors, cohort, popular, disliked)

    def weights(self, histories: Histories) -> NDArray[np.float64]:
        """w of each user (n_users,): 0 where the individual model knows none of the history."""
        if self.individual is None:
            return np.zeros(len(histories.events))
        told, n = known(self.individual, self._own(histories)), _evidence(histories)
        if self.cohort is None:
            events = n.astype(np.float64)
            return np.where(told, events / np.maximum(events + self.evidence_, 1e-300), 0.0)
        differs = self._divergence.of(*self._placed(histories))
        users = int(self.cohort.sizes_.sum())
        return np.where(told, individual_share(n, differs, users, self.evidence_, self.few_users), 0.0)

    def save(self, folder: Path) -> None:
        """Nothing of its own: the parts are artifacts that the manifest names, the evidence is a setting."""

    def parts(self) -> Mapping[str, Model]:
        inside = {"cohort": self.cohort, "individual": self.individual}
        return {"popular": self.popular, **{role: part for role, part in inside.items() if part is not None}}

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any], parts: Mapping[str, Model]) -> Self:
        popular, cohort = parts["popular"], parts.get("cohort")
        assert isinstance(popular, Popular)
        assert cohort is None or isinstance(cohort, Cohort)
        further = () if cohort is None else (cohort, settings["cohort_evidence"], settings["few_users"])
        return cls(popular, parts.get("individual"), settings["evidence"], *further).joined()

    def _evidence(self) -> float:
        auto = AUTO_EVIDENCE if self.cohort is None else EVIDENCE
        return auto if isinstance(self.evidence, str) else float(self.evidence)

    def _cohort_evidence(self) -> float:
        return COHORT_EVIDENCE if isinstance(self.cohort_evidence, str) else float(self.cohort_evidence)

    def _own(self, histories: Histories) -> Histories:
        """The same users over the vocabulary of the individual model."""
        assert self.individual is not None
        if len(self.individual.items) == len(self.items):
            return histories
        return histories.over(self._columns, len(self.individual.items))

    def _placed(self, histories: Histories) -> tuple[sparse.csr_array, Floats]:
        """Histories over the items of the cohort model, and memberships (n_users, n_cohorts)."""
        assert self.cohort is not None
        told = histories.over(self._cohort_columns, len(self.cohort.items))
        return told.rows, self.cohort.memberships(told)

    def _add_cohort(
        self, scores: Floats, rest: NDArray[np.float64], histories: Histories, hidden: sparse.csr_array
    ) -> NDArray[np.float64]:
        """Add the cohort's share of `rest` to `scores` (n_users, n_items); answers what is left for the context."""
        assert self.cohort is not None
        own = products(self._placed(histories)[1], self.cohort.shares_)  # (n_users, n_cohort)
        own = own if own.flags.writeable else own.copy()
        scale = top_means(own, with_columns(hidden, self._cohort_columns, own.shape[1]))
        part = np.where(scale > 0, rest * risen(_evidence(histories), self._cohort_evidence()), 0.0)
        own *= np.divide(part, scale, out=np.zeros_like(scale), where=scale > 0).astype(np.float32)[:, None]
        if own.shape == scores.shape:
            scores += own
        else:
            scores[:, self._cohort_places] += own
        return rest - part

    def _take_disliked(self, scores: Floats, histories: Histories, spared: sparse.csr_array | None) -> None:
        """Take from `scores` (n_users, n_items) what goes with that which the user dislikes."""
        own = self._own(histories)
        assert own.dislikes is not None and self.individual is not None
        against, for_ = (np.asarray(one.sum(axis=1), dtype=np.float64).ravel() for one in (own.dislikes, own.rows))
        users = np.flatnonzero(against > 0)
        if not len(users):
            return
        felt = Histories(own.dislikes[users], own.events[users], own.context[users])
        disliked = np.maximum(self.individual.scores(felt), 0.0)
        scale = top_means(disliked, own.rows[users].astype(bool))
        if spared is not None:
            disliked[entries(with_columns(spared, self._columns, len(self.individual.items))[users])] = 0
        events = own.events[users].astype(np.float64)
        weights = events / np.maximum(events + self.evidence_, 1e-300) * against[users] / (against + for_)[users]
        disliked *= np.divide(weights, scale, out=np.zeros_like(scale), where=scale > 0).astype(np.float32)[:, None]
        scores[np.ix_(users, self._places)] -= disliked

    def _add_popular(
        self, scores: Floats, weights: NDArray[np.float64], context: pl.DataFrame, hidden: sparse.csr_array
    ) -> None:
        """Add the popular part to `scores` (n_users, n_items), list by list: many users share one."""
        lists, which = context_lists(self.popular, context)  # (n_lists, n_popular), (n_users,)
        spread = np.zeros((len(lists), len(self.items)), dtype=np.float32)
        spread[:, self._popular_places] = lists
        scale = _shared_top_means(spread, which, hidden)
        factors = np.divide(weights, scale, out=np.zeros_like(scale), where=scale > 0).astype(np.float32)
        order = np.argsort(which, kind="stable")
        bounds = np.searchsorted(which[order], np.arange(len(lists) + 1))
        for number in range(len(lists)):
            for user in order[bounds[number] : bounds[number + 1]]:
                scores[user] += factors[user] * spread[number]


def _evidence(histories: Histories) -> NDArray[np.int64]:
    """Events with an item of each user; of those without any, what they searched for (n_users,)."""
    if histories.queries is None:
        return histories.events
    searches = histories.queries.str.count_matches("\n", literal=True).cast(pl.Int64) + 1
    return np.where(histories.events > 0, histories.events, searches.fill_null(0).to_numpy())


def context_lists(popular: Popular, context: pl.DataFrame) -> tuple[Floats, NDArray[np.int64]]:
    """The popular scores of each distinct context (n_lists, n_popular), and the list of each user (n_users,)."""
    cells = context.select(pl.col(CELL).cast(pl.String))
    distinct = cells.unique().sort(CELL, nulls_last=False)
    which = cells.join(distinct.with_row_index("list"), on=CELL, how="left", nulls_equal=True, maintain_order="left")[
        "list"
    ]
    n_lists = distinct.height
    none = np.zeros(0, dtype=np.int64)
    nobody = sparse.csr_array((none.astype(np.float32), (none, none)), shape=(n_lists, len(popular.items)))
    lists = popular.scores(Histories(nobody, np.zeros(n_lists, dtype=np.int64), distinct))
    return lists, which.to_numpy().astype(np.int64)


def top_means(scores: Floats, hidden: sparse.csr_array) -> NDArray[np.float64]:
    """Mean of each row's best `DEPTH` scores that are not hidden (n_users,); 0 where none is left."""
    rows, columns = entries(hidden)
    kept = scores[rows, columns]
    scores[rows, columns] = -np.inf
    _, values = topk(scores, DEPTH)
    scores[rows, columns] = kept
    return _means(values)


def _shared_top_means(lists: Floats, which: NDArray[np.int64], hidden: sparse.csr_array) -> NDArray[np.float64]:
    """As `top_means` for users who share lists: each list is sorted as deep as its users hide items, plus 20."""
    hides = np.diff(hidden.indptr)
    means = np.zeros(len(which))
    for number in np.unique(which):
        users = np.flatnonzero(which == number)
        best, values = topk(lists[[number]], DEPTH + int(hides[users].max(initial=0)))
        rank = np.full(lists.shape[1], -1, dtype=np.int64)
        rank[best[0]] = np.arange(best.shape[1])
        rows, columns = entries(hidden[users])
        covered = rank[columns] >= 0
        shown = np.broadcast_to(values, (len(users), values.shape[1])).copy()
        shown[rows[covered], rank[columns[covered]]] = -np.inf
        # Still in order, so the first 20 that are left are the best 20.
        left = np.cumsum(shown > -np.inf, axis=1)
        means[users] = _means(np.where(left <= DEPTH, shown, np.float32(-np.inf)))
    return means


def _means(values: Floats) -> NDArray[np.float64]:
    """Row means without the -inf; at most 20 values a row that are not."""
    there = values > -np.inf
    sums = np.where(there, values, np.float32(0.0)).sum(axis=1, dtype=np.float64)
    return np.asarray(sums / np.maximum(there.sum(axis=1), 1), dtype=np.float64)


def entries(matrix: sparse.csr_array) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Rows and columns of the entries of a matrix, each (n_entries,)."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return rows, matrix.indices
