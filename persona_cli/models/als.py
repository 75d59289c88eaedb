"""Factors of users and items by alternating least squares over everything that could have been chosen."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from persona_cli.models.base import Floats, Histories, Interactions, Training
from persona_cli.models.stored import load_array, load_items, save_array, save_items, with_columns
from persona_cli.models.topk import folded_in, products, whitened
from persona_cli.workspace.settings import Settings

log = logging.getLogger("persona")
FACTORS, LEAST_FACTORS, ITEMS_A_FACTOR = 128, 8, 8
"""Where factors is "auto": one for so many items, between these bounds."""
MANY_ITEMS, MANY_ROWS = 20_000, 200_000
"""Twice FACTORS from so many items on, while users and items together are at most so many: a fit in minutes."""
ALPHA = 0.5
"""Where alpha is "auto": this over the square root of the share of cells that are filled."""
PENALTY, DENSITY, PENALTY_GROWTH, MOST_PENALTY = 0.3, 0.001, 1 / 6, 0.6
"""Where regularization is "auto": shares of the singular value that chance makes, see `Als`."""


class Als:
    """Matrix factorisation of implicit feedback (Hu, Koren & Volinsky 2008), with weights by degree.

        min Σ_ui c_ui (p_ui - x_u·y_i)² + λ (Σ_u |x_u|² + Σ_i |y_i|²),   c_ui = 1 + w_ui,   p_ui = 1 where w_ui > 0
        w_ui = α · s_ui d_u^-a d_i^-b / mean,   score = x_u·y_i

    s is the clipped strength, d_u the items of the user, d_i the users of the item, and the mean is over what is
    filled, so that α is the mean weight. Each event of a long history, or with a popular item, weighs less: the weights
    take the place of penalties by frequency, which the best results of ALS depend on (Rendle et al. 2022). Solved by
    `implicit`, three steps of conjugate gradients a row (Takács, Pilászy & Tikk 2011). Only item factors are kept:
    users are folded in from their histories by the exact normal equations (`models.topk`).

    "auto": α = ALPHA / √density, density being the share of cells filled. λ is a share of √(Σc²/n_users) +
    √(Σc²/n_items), the largest singular value of a random matrix of as many entries of these sizes (Marchenko & Pastur
    1967): what is below λ is taken for noise, since a penalty on both sides' factors lowers every singular value by it.
    The share is PENALTY at a density of 0.001, grows with its sixth root (few factors are a penalty of their own, which
    small dense catalogues are without) and ends at MOST_PENALTY.
    """

    name: ClassVar[str] = "als"
    exact: ClassVar[bool] = False
    items: pl.Series
    """Items that somebody likes, sorted (n_items,)."""
    factors_: Floats
    """Whitened item factors Z, float32 (n_items, n_factors)."""
    weights_: NDArray[np.float64]
    """α d_i^-b / mean (n_items,)."""
    alpha_: float
    penalty_: float
    """λ in force."""

    def __init__(
        self,
        factors: int | str = "auto",
        alpha: float | str = "auto",
        regularization: float | str = "auto",
        user_exponent: float = 0.6,
        item_exponent: float = 0.35,
        iterations: int = 10,
        seed: int = 0,
        cap: float = 1.0,
        threads: int = 1,
    ) -> None:
        self.factors = factors
        self.alpha = alpha
        self.regularization = regularization
        self.user_exponent = user_exponent
        self.item_exponent = item_exponent
        self.iterations = iterations
        self.seed = seed
        self.cap = cap
        self.threads = threads

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        factors = settings.number_or_word("model.als.factors")
        return cls(
            factors if isinstance(factors, str) else int(factors),
            settings.number_or_word("model.als.alpha"),
            settings.number_or_word("model.als.regularization"),
            settings.number("model.als.user_exponent"),
            settings.number("model.als.item_exponent"),
            settings.whole("model.als.iterations"),
            settings.whole("model.als.seed"),
            settings.number("model.gram.cap"),
            settings.whole("compute.threads"),
        )

    def settings(self) -> Mapping[str, Any]:
        return {
            "factors": self.factors_.shape[1],
            "alpha": self.alpha_,
            "regularization": self.penalty_,
            "user_exponent": self.user_exponent,
            "item_exponent": self.item_exponent,
            "iterations": self.iterations,
            "seed": self.seed,
        }

    def fit(self, training: Training) -> Self:
        began = time.monotonic()
        self.items, rows = liked_rows(training.interactions, self.cap)
        n_users, n_items = rows.shape
        n_factors = by_size(n_users, n_items) if isinstance(self.factors, str) else int(self.factors)
        density = rows.nnz / max(n_users * n_items, 1)
        self.alpha_ = float(ALPHA / max(density, 1e-12) ** 0.5 if isinstance(self.alpha, str) else self.alpha)
        self.weights_ = self._item_weights(rows)
        weights = self._weights(rows)
        confidence = sparse.csr_matrix(
            ((1 + weights.data).astype(np.float32), rows.indices, rows.indptr), shape=rows.shape
        )
        by_rule = penalty_share(density) * chance(confidence)
        self.penalty_ = by_rule if isinstance(self.regularization, str) else float(self.regularization)
        self.factors_ = whitened(self._item_factors(confidence, n_factors), max(self.penalty_, 1e-6))
        log.debug("als: %d factors in %.1f s", n_factors, time.monotonic() - began)
        return self

    def scores(self, histories: Histories) -> Floats:
        return products(folded_in(self._weights(histories.rows), self.factors_), self.factors_)

    def save(self, folder: Path) -> None:
        save_items(folder, self.items)
        save_array(folder, "factors", self.factors_)
        save_array(folder, "weights", self.weights_)

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any]) -> Self:
        model = cls(**settings)
        model.alpha_, model.penalty_ = float(settings["alpha"]), float(settings["regularization"])
        model.items = load_items(folder)
        model.factors_, model.weights_ = load_array(folder, "factors"), load_array(folder, "weights")
        return model

    def _item_weights(self, rows: sparse.csr_array) -> NDArray[np.float64]:
        """α d_i^-b / mean of the rows' s d_u^-a d_i^-b (n_items,)."""
        users = np.bincount(rows.indices, minlength=rows.shape[1]).astype(np.float64)
        falling = np.maximum(users, 1.0) ** -self.item_exponent
        filled = self._user_weighted(rows) * falling[rows.indices]
        return falling * (self.alpha_ / (float(filled.mean()) if len(filled) else 1.0))

    def _weights(self, rows: sparse.csr_array) -> sparse.csr_array:
        """w of each history, float64 (n_users, n_items); entries > 0 only."""
        data = self._user_weighted(rows) * self.weights_[rows.indices]
        weights = sparse.csr_array((data, rows.indices, rows.indptr), shape=rows.shape)
        if len(data) and data.min() <= 0:
            weights = weights.copy()
            weights.eliminate_zeros()
        return weights

    def _user_weighted(self, rows: sparse.csr_array) -> NDArray[np.float64]:
        """s_ui d_u^-a, aligned with the rows' entries."""
        lengths = np.diff(rows.indptr)
        falling = np.maximum(lengths, 1).astype(np.float64) ** -self.user_exponent
        return rows.data.astype(np.float64) * np.repeat(falling, lengths)

    def _item_factors(self, confidence: sparse.csr_matrix[Any], n_factors: int) -> Floats:
        """Y (n_items, n_factors)."""
        if not confidence.nnz:
            return np.zeros((confidence.shape[1], n_factors), dtype=np.float32)
        from implicit.cpu.als import AlternatingLeastSquares

        # Every row of a half step is solved by itself, so the number of threads changes nothing; that of BLAS might.
        with threadpool_limits(1, user_api="blas"):
            solver = AlternatingLeastSquares(
                factors=n_factors,
                regularization=self.penalty_,
                iterations=self.iterations,
                num_threads=self.threads,
                random_state=self.seed,
            )
            solver.fit(confidence, show_progress=False)
        factors: Floats = solver.item_factors
        return factors


def liked_rows(interactions: Interactions, cap: float) -> tuple[pl.Series, sparse.csr_array]:
    """Items that somebody likes, sorted, and the users' strengths for them clipped to [0, cap] (n_users, n_items)."""
    strengths = interactions.strengths
    held = np.flatnonzero(np.bincount(strengths.indices, minlength=strengths.shape[1]))
    places = np.full(strengths.shape[1], -1, dtype=np.int64)
    places[held] = np.arange(len(held))
    clipped = sparse.csr_array(
        (np.minimum(strengths.data, np.float32(cap)), strengths.indices, strengths.indptr), shape=strengths.shape
    )
    return interactions.items[held], with_columns(clipped, places, len(held))


def by_size(n_users: int, n_items: int) -> int:
    """Factors where none are given."""
    if n_items >= MANY_ITEMS and n_users + n_items <= MANY_ROWS:
        return 2 * FACTORS
    return max(LEAST_FACTORS, min(FACTORS, n_items // ITEMS_A_FACTOR))


def penalty_share(density: float) -> float:
    """λ by rule, as a share of `chance`."""
    return float(min(MOST_PENALTY, PENALTY * (density / DENSITY) ** PENALTY_GROWTH))


def chance(confidence: sparse.csr_matrix[Any]) -> float:
    """About the largest singular value of a matrix of independent entries with these sums of squares."""
    squares = float(np.square(confidence.data, dtype=np.float64).sum())
    n_users, n_items = confidence.shape
    return math.sqrt(squares / max(n_users, 1)) + math.sqrt(squares / max(n_items, 1))
