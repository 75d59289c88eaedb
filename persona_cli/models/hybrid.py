"""Factors of items and of what the catalogue says of them, learned by ranking; items without events have scores too."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import polars as pl
from scipy import linalg, sparse
from threadpoolctl import threadpool_limits

from persona_cli.errors import BadSettings, Unavailable
from persona_cli.models.als import by_size, liked_rows
from persona_cli.models.base import Floats, Histories, Training
from persona_cli.models.item_features import item_features
from persona_cli.models.stored import load_array, load_items, positions, save_array, save_items, union, with_columns
from persona_cli.models.topk import products
from persona_cli.workspace.settings import Settings

log = logging.getLogger("persona")
MOST_FACTORS = 64
"""Where factors is "auto"."""
MOST_EPOCHS, LEAST_EPOCHS, STEPS = 30, 5, 12_000_000
"""Where epochs is "auto": as many as make so many steps, between these bounds."""
_SHRINKING = 2 / 3
_RIDGE = 1e-3  # of the mean diagonal


class Hybrid:
    """Factorisation with item features: LightFM (Kula 2015), under the ranking loss WARP (Weston et al. 2011).

        q_i = e_i + Σ_f e_f,   b_i = c_i + Σ_f c_f,   score = p_u·(q_i - q̄) + b_i - b̄

    e and c are an embedding and a bias of every item and of every feature f that the catalogue states of two items or
    more: category, tags, fifth of the prices. Items without events that the catalogue describes are covered too: their
    e_i and c_i are the means over the items that have events. q̄ and b̄ are means, so that 0 says nothing.

    Only items are kept. LightFM learns a vector for each user; here p is told from the history h of n items,

        p = B [Σ_i s_i (q_i - q̄) / (s̄ n^⅔), 1]

    with s the strengths and s̄ their mean, and B the ridge regression of LightFM's own user vectors on their histories.
    Such users rank as well as LightFM's own, mostly better: what a history does not support is left out. No history:
    scores are 0.

    LightFM shuffles by a seed and runs on one thread, since several would race for the same embeddings.
    """

    name: ClassVar[str] = "hybrid"
    exact: ClassVar[bool] = False
    items: pl.Series
    """Items that somebody likes or that have a feature, sorted (n_items,)."""
    factors_: Floats
    """q - q̄, and b - b̄ in the last column, float32 (n_items, n_factors + 1)."""
    folding_: Floats
    """Bᵀ: from a history's sum and 1 to p, float32 (n_factors + 1, n_factors)."""
    epochs_: int

    def __init__(
        self,
        factors: int | str = "auto",
        epochs: int | str = "auto",
        learning_rate: float = 0.05,
        seed: int = 0,
        cap: float = 1.0,
    ) -> None:
        self.factors = factors
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.seed = seed
        self.cap = cap

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        factors, epochs = (settings.number_or_word(f"model.hybrid.{name}") for name in ("factors", "epochs"))
        return cls(
            factors if isinstance(factors, str) else int(factors),
            epochs if isinstance(epochs, str) else int(epochs),
            settings.number("model.hybrid.learning_rate"),
            settings.whole("model.hybrid.seed"),
            settings.number("model.gram.cap"),
        )

    def settings(self) -> Mapping[str, Any]:
        return {
            "factors": self.folding_.shape[1],
            "epochs": self.epochs_,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
        }

    def fit(self, training: Training) -> Self:
        began = time.monotonic()
        liked, rows = liked_rows(training.interactions, self.cap)  # (n_users, n_liked)
        features = item_features(training.catalogue, _described(liked, training.catalogue))
        known = features.described()
        known[positions(liked, features.items)] = True
        self.items = features.items.filter(pl.Series(known))
        matrix = sparse.csr_array(features.matrix[known])  # (n_items, n_features)
        places = positions(liked, self.items)
        n_factors = min(MOST_FACTORS, by_size(*rows.shape)) if isinstance(self.factors, str) else int(self.factors)
        self.epochs_ = epochs_for(rows.nnz) if isinstance(self.epochs, str) else int(self.epochs)
        learned = self._learned(rows, sparse.csr_array(matrix[places]), n_factors)
        embeddings = _of_all(learned.own, learned.features, matrix, places)
        self.factors_ = embeddings - embeddings[places].mean(axis=0, dtype=np.float64) if len(places) else embeddings
        self.factors_ = self.factors_.astype(np.float32)
        with threadpool_limits(1, user_api="blas"):
            history = self._histories(with_columns(rows, places, len(self.items)))
            self.folding_ = _ridge(history, learned.users)
        log.debug("hybrid: %d epochs in %.1f s", self.epochs_, time.monotonic() - began)
        return self

    def scores(self, histories: Histories) -> Floats:
        users = products(self._histories(histories.rows), np.ascontiguousarray(self.folding_.T))
        biased = np.concatenate((users, np.ones((len(users), 1), dtype=np.float32)), axis=1)
        biased[np.diff(histories.rows.indptr) == 0] = 0
        return products(biased, self.factors_)

    def save(self, folder: Path) -> None:
        save_items(folder, self.items)
        save_array(folder, "factors", self.factors_)
        save_array(folder, "folding", self.folding_)

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any]) -> Self:
        model = cls(**settings)
        model.epochs_ = int(settings["epochs"])
        model.items = load_items(folder)
        model.factors_, model.folding_ = load_array(folder, "factors"), load_array(folder, "folding")
        return model

    def _histories(self, rows: sparse.csr_array) -> Floats:
        """Σ_i s_i (q_i - q̄) / (s̄ n^⅔) and 1 for each history (n_users, n_factors + 1)."""
        lengths = np.diff(rows.indptr)
        # Sums of each row by itself: reduceat would not do for rows without entries.
        totals = np.bincount(np.repeat(np.arange(len(lengths)), lengths), rows.data, len(lengths))
        scale = np.maximum(lengths, 1) ** (1 - _SHRINKING) / np.where(totals > 0, totals, 1.0)
        sums = (rows @ self.factors_) * scale.astype(np.float32)[:, None]
        sums[:, -1] = 1
        return np.asarray(sums, dtype=np.float32)

    def _learned(self, rows: sparse.csr_array, features: sparse.csr_array, n_factors: int) -> _Learned:
        """What LightFM learns of users, items and features; `features`: (n_liked, n_features)."""
        n_users, n_liked = rows.shape
        if not rows.nnz:
            nothing = np.zeros((n_liked + features.shape[1], n_factors + 1), dtype=np.float32)
            return _Learned(np.zeros((n_users, n_factors), dtype=np.float32), nothing[:n_liked], nothing[n_liked:])
        own = sparse.eye_array(n_liked, dtype=np.float32, format="csr")
        described = _narrow(sparse.csr_matrix(sparse.hstack([own, features], format="csr")))
        entries = sparse.coo_matrix(_narrow(sparse.csr_matrix(rows)))
        weights = None
        if rows.data.min() < rows.data.max():
            weights = sparse.coo_matrix((rows.data / rows.data.mean(), (entries.row, entries.col)), shape=rows.shape)
        model = _lightfm()(
            no_components=n_factors, loss="warp", learning_rate=self.learning_rate, random_state=self.seed
        )
        try:
            model.fit(entries, item_features=described, sample_weight=weights, epochs=self.epochs_, num_threads=1)
        except ValueError as error:
            if not np.isfinite(model.item_embeddings).all():
                raise BadSettings(
                    f"with model.hybrid.learning_rate = {self.learning_rate:g} the descent leaves all bounds",
                    "persona train --model hybrid --set hybrid.learning_rate=0.01",
                ) from error
            raise
        biased = np.concatenate((model.item_embeddings, model.item_biases[:, None]), axis=1)
        return _Learned(model.user_embeddings, biased[:n_liked], biased[n_liked:])


class _Learned(NamedTuple):
    users: Floats
    """LightFM's own user vectors (n_users, n_factors)."""
    own: Floats
    """e and c of each item that somebody likes (n_liked, n_factors + 1)."""
    features: Floats
    """e and c of each feature (n_features, n_factors + 1)."""


def epochs_for(n_interactions: int) -> int:
    """Passes over so many interactions where none are given."""
    return max(LEAST_EPOCHS, min(MOST_EPOCHS, STEPS // max(n_interactions, 1)))


def _described(liked: pl.Series, catalogue: pl.DataFrame | None) -> pl.Series:
    """Items that are liked or in the catalogue, sorted."""
    return liked if catalogue is None else union(liked, catalogue["item_id"].drop_nulls())


def _of_all(own: Floats, features: Floats, matrix: sparse.csr_array, places: Any) -> Floats:
    """q and b of all items (n_items, n_factors + 1); the items at `places` have embeddings of their own."""
    mean = own.mean(axis=0, dtype=np.float64) if len(own) else np.zeros(own.shape[1])
    made = np.tile(mean.astype(np.float32), (matrix.shape[0], 1))
    made[places] = own
    return np.asarray(made + matrix @ features, dtype=np.float32)


def _narrow(matrix: sparse.csr_matrix[Any]) -> sparse.csr_matrix[Any]:
    """The same with indices of 32 bits, which are all that LightFM takes."""
    parts = (matrix.data, matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32))
    return sparse.csr_matrix(parts, shape=matrix.shape)


def _ridge(inputs: Floats, wanted: Floats) -> Floats:
    """Coefficients (n_inputs, n_outputs) of `wanted` (n, n_outputs) on `inputs` (n, n_inputs)."""
    exact = inputs.astype(np.float64)
    gram = exact.T @ exact
    gram[np.diag_indices(len(gram))] += max(_RIDGE * float(np.trace(gram)) / len(gram), 1e-9)
    return np.asarray(linalg.solve(gram, exact.T @ wanted.astype(np.float64), assume_a="pos"), dtype=np.float32)


def _lightfm() -> Any:
    """The class of LightFM; Unavailable where it is not installed, or was built for another machine."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it was built without OpenMP: one thread is all that is used
            from lightfm import LightFM
    except (ImportError, OSError) as error:
        raise Unavailable(
            f"the model hybrid needs LightFM, which cannot be imported ({error})", "pip install 'persona-cli[hybrid]'"
        ) from error
    return LightFM
