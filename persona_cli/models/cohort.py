"""What is wanted by people of like taste: a popular list for each group of users, and users in between."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from persona_cli.models.base import Floats, Histories, Training
from persona_cli.models.eigen import leading, normalised
from persona_cli.models.stored import load_array, load_items, positions, save_array, save_items
from persona_cli.models.topk import products
from persona_cli.profiles import SMALLEST_CELL
from persona_cli.workspace.settings import Settings

log = logging.getLogger("persona")
DIMENSIONS = 16
"""Of the space that users are grouped in; tastes that fewer dimensions do not hold are those of single users."""
USERS_A_COHORT, MOST_COHORTS = 100, 100
SHARPNESS, HALF_SHARP = 10.0, 8.0
"""Weights of cohorts fall by e for 1/b of squared distance, b being at most this and half of it at so many items."""
# Exponents of the length of a history and of the users of an item in the Gram whose eigenvectors are the space.
_USER, _ITEM = 0.5, 0.25
_MANY_USERS = 50_000
_ROUNDS = 100
_ARRAYS = ("space", "centroids", "sizes", "shares")


class Cohort:
    """Popular lists of groups of users, mixed by how near a user is to each group.

        p_u = Vᵀ D^-1/4 x_u / |·|,   w_uc ∝ exp(-b_n |p_u - μ_c|²),   b_n = 10 n² / (n² + 8²)
        score = Σ_c w_uc s_c,   s_c = (counts of cohort c + overall · shares of all) / (their sum)

    V are the leading 16 eigenvectors of the item Gram (rows divided by √length, items by the fourth root of their
    users), μ_c the centres of k-means (Lloyd 1982, k-means++ of Arthur & Vassilvitskii 2007, scikit-learn) on the p of
    all users with a history. n is the number of items in the history: of one or two nearly the list of all is left, a
    long history is of the cohorts that are near. Counts fade with `half_life_days`, and lists are shrunk towards that
    of all by `overall` events.

    "auto": a cohort for every 100 users, 100 at the most. A cohort of fewer than 20 users is dissolved, the smallest
    first, and its users go to the nearest one that is left. A user without a known item gets no score.
    """

    name: ClassVar[str] = "cohort"
    exact: ClassVar[bool] = False
    items: pl.Series
    """Items with a counted event, sorted (n_items,)."""
    space_: Floats
    """D^-1/4 Vᵀ: from a history to the space (n_items, n_dimensions)."""
    centroids_: Floats
    """μ (n_cohorts, n_dimensions)."""
    sizes_: NDArray[np.int64]
    """Users of each cohort, by the nearest centre (n_cohorts,)."""
    shares_: Floats
    """s of each item and cohort; columns sum to 1 (n_items, n_cohorts)."""

    def __init__(
        self,
        cohorts: int | str = "auto",
        half_life_days: float = 30.0,
        overall: float = 100.0,
        seed: int = 0,
        solver_threads: int = 1,
    ) -> None:
        self.cohorts = cohorts
        self.half_life_days = half_life_days
        self.overall = overall
        self.seed = seed
        self.solver_threads = solver_threads

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        cohorts = settings.number_or_word("model.cohort.cohorts")
        return cls(
            cohorts if isinstance(cohorts, str) else int(cohorts),
            settings.number("model.cohort.half_life_days"),
            settings.number("model.cohort.overall"),
            settings.whole("model.cohort.seed"),
            settings.whole("compute.solver_threads"),
        )

    def settings(self) -> Mapping[str, Any]:
        return {
            "cohorts": len(self.centroids_),
            "half_life_days": self.half_life_days,
            "overall": self.overall,
            "seed": self.seed,
            "solver_threads": self.solver_threads,
        }

    def fit(self, training: Training) -> Self:
        began = time.monotonic()
        matrix = training.interactions
        self.items = matrix.items
        users = np.bincount(matrix.strengths.indices, minlength=len(self.items)).astype(np.float64)
        falling = np.maximum(users, 1.0) ** -_ITEM
        rows = normalised(matrix.strengths, _USER)
        scaled = sparse.csr_array(
            ((rows.data * falling[rows.indices]).astype(np.float32), rows.indices, rows.indptr), shape=rows.shape
        )
        vectors = leading(scaled, DIMENSIONS, self.solver_threads).vectors
        self.space_ = (falling[:, None] * vectors).astype(np.float32)
        places = self.places(matrix.strengths)
        told = np.flatnonzero(places.any(axis=1))  # users of whom something is known
        self.centroids_, labels = self._grouped(places[told])
        self.sizes_ = np.bincount(labels, minlength=len(self.centroids_)).astype(np.int64)
        cohorts = np.full(len(matrix.users), -1, dtype=np.int64)
        cohorts[told] = labels
        self.shares_ = self._shares(training, cohorts)
        log.debug("cohort: %d cohorts in %.1f s", len(self.centroids_), time.monotonic() - began)
        return self

    def places(self, rows: sparse.csr_array) -> Floats:
        """Where users are: of length 1, or 0 where none of the history is known (n_users, n_dimensions)."""
        made = (rows @ self.space_).astype(np.float32)
        lengths = np.sqrt(np.square(made, dtype=np.float64).sum(axis=1, keepdims=True))
        # What only rounding tells from nothing has no direction.
        there = lengths > 1e-6 * np.maximum(np.asarray(rows.sum(axis=1), dtype=np.float64).reshape(-1, 1), 1e-30)
        placed: Floats = np.divide(made, lengths, out=np.zeros_like(made), where=there, casting="unsafe")
        return placed

    def memberships(self, histories: Histories) -> Floats:
        """How far each user is of each cohort; rows sum to 1, or to 0 without a known item (n_users, n_cohorts)."""
        places = self.places(histories.rows)
        if not len(self.centroids_):
            return np.zeros((len(places), 0), dtype=np.float32)
        distances = np.stack([np.square(places - centre).sum(axis=1) for centre in self.centroids_], axis=1)
        distances = distances.astype(np.float64) - distances.min(axis=1, keepdims=True)
        n = np.diff(histories.rows.indptr).astype(np.float64)
        weights = np.exp(-(SHARPNESS * n**2 / (n**2 + HALF_SHARP**2))[:, None] * distances)
        weights /= weights.sum(axis=1, keepdims=True)
        weights[~places.any(axis=1)] = 0.0
        made: Floats = weights.astype(np.float32)
        return made

    def scores(self, histories: Histories) -> Floats:
        return products(self.memberships(histories), self.shares_)

    def save(self, folder: Path) -> None:
        save_items(folder, self.items)
        for name in _ARRAYS:
            save_array(folder, name, getattr(self, f"{name}_"))

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any]) -> Self:
        model = cls(**settings)
        model.items = load_items(folder)
        for name in _ARRAYS:
            setattr(model, f"{name}_", load_array(folder, name))
        return model

    def _grouped(self, places: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """Centres (n_cohorts, n_dimensions) and the cohort of each user (n_users,)."""
        if not len(places):
            return np.zeros((0, places.shape[1]), dtype=np.float32), np.zeros(0, dtype=np.int64)
        wanted = len(places) // USERS_A_COHORT if isinstance(self.cohorts, str) else int(self.cohorts)
        wanted = max(1, min(wanted, len(places) // SMALLEST_CELL))
        if isinstance(self.cohorts, str):
            wanted = min(wanted, MOST_COHORTS)
        some = places[np.linspace(0, len(places) - 1, min(len(places), _MANY_USERS)).astype(np.int64)]
        wanted = min(wanted, len(np.unique(some, axis=0)))
        from sklearn.cluster import KMeans

        # The order in which threads add up moves the last bits of centres.
        with threadpool_limits(self.solver_threads):
            found = KMeans(wanted, n_init=1, max_iter=_ROUNDS, random_state=self.seed).fit(some)
        centroids: Floats = found.cluster_centers_.astype(np.float32)
        labels = nearest(places, centroids)
        while len(centroids) > 1:
            sizes = np.bincount(labels, minlength=len(centroids))
            smallest = int(sizes.argmin())
            if sizes[smallest] >= SMALLEST_CELL:
                break
            centroids = np.delete(centroids, smallest, axis=0)
            labels = nearest(places, centroids)
        return centroids, labels

    def _shares(self, training: Training, cohorts: NDArray[np.int64]) -> Floats:
        """The shrunk list of each cohort (n_items, n_cohorts); `cohorts`: of each user, -1 for none (n_users,)."""
        n_items, n_cohorts = len(self.items), len(self.centroids_)
        counts = self._faded(training, cohorts)  # (n_items, n_cohorts + 1): the last for users of none
        whole = counts.sum(axis=1)
        overall = whole / max(float(whole.sum()), 1e-300)
        own = counts[:, :n_cohorts]
        total = own.sum(axis=0) + self.overall
        shares = np.tile(overall[:, None], (1, n_cohorts))
        np.divide(own + self.overall * overall[:, None], total, out=shares, where=total > 0)
        return np.ascontiguousarray(shares.reshape(n_items, n_cohorts), dtype=np.float32)

    def _faded(self, training: Training, cohorts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Faded counts of events with an item (n_items, n_cohorts + 1)."""
        matrix, width = training.interactions, len(self.centroids_) + 1
        cells: NDArray[np.int64]
        if training.events is None:  # what has faded by each user's own last day stands for events
            rows = np.repeat(np.arange(len(matrix.users)), np.diff(matrix.strengths.indptr))
            cells, weights = matrix.strengths.indices * width + cohorts[rows] % width, matrix.strengths.data
        else:
            # Whole numbers by cell and day first, so that the order of events moves no bit.
            last = (training.as_of - timedelta(microseconds=1)).date()
            wanted = training.events.filter(
                (pl.col("strength") > 0) & ~pl.col("never") & pl.col("item_id").is_not_null()
            )
            users, items = positions(wanted["user_id"], matrix.users), positions(wanted["item_id"], self.items)
            ages = wanted.select((pl.lit(last) - pl.col("timestamp").dt.date()).dt.total_days().clip(0)).to_series()
            kept = (users >= 0) & (items >= 0)
            cell = items[kept] * width + cohorts[users[kept]] % width
            counted = pl.DataFrame({"cell": cell, "age": ages.to_numpy()[kept]}).group_by("cell", "age").len()
            counted = counted.sort("cell", "age")
            fading = 0.5 ** (counted["age"].to_numpy() / self.half_life_days) if self.half_life_days else 1.0
            cells, weights = counted["cell"].to_numpy(), counted["len"].to_numpy() * fading
        faded = np.bincount(cells, weights, len(self.items) * width).astype(np.float64)
        return faded.reshape(len(self.items), width)


def nearest(places: Floats, centroids: Floats) -> NDArray[np.int64]:
    """The nearest centre of each place, of equally near ones the first (n_users,)."""
    closeness = products(places, centroids) - np.square(centroids).sum(axis=1) / 2
    found: NDArray[np.int64] = closeness.argmax(axis=1).astype(np.int64)
    return found
