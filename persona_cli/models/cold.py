"""Items without events in a collaborative space: what descriptions say of the scores that an item would have."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from persona_cli.errors import BadSettings, MissingInput
from persona_cli.models.base import Floats, Histories, Interactions, Model, Training
from persona_cli.models.interactions import times_for
from persona_cli.models.item_features import Descriptions, described
from persona_cli.models.stored import (
    load_array,
    load_items,
    load_sparse,
    positions,
    save_array,
    save_items,
    save_sparse,
    union,
    with_columns,
)
from persona_cli.models.topk import products
from persona_cli.workspace.settings import Settings

log = logging.getLogger("persona")
MOST_FEATURES = 2048
"""Features used at the most, those of the most items with events: the ridge costs their number cubed."""
_PENALTIES = np.geomspace(0.01, 100, 13)
_ASKED = 256
# Users of one sparse product.
_BLOCK = 32


class Transfer(NamedTuple):
    """Ridge regression from the features of items to whatever known items have a number of.

        p = y F (FᵀF + λI)⁻¹ fᵀ

    F are the features of known items, f those of others, y one number a known item: a factor, or a user's scores. It
    is linear, so carrying a user's scores over is the same as carrying the item factors over and scoring with them, and
    a model needs no factors for it (attribute-to-feature mapping: Gantner et al. 2010).
    """

    features: sparse.csr_array
    """F, float32 (n_known, n_features)."""
    inverse: Floats
    """(FᵀF + λI)⁻¹ (n_features, n_features)."""
    penalty: float
    """λ."""

    @classmethod
    def of(cls, features: sparse.csr_array, penalty: float | None, examples: Floats, threads: int = 1) -> Self:
        """With λ = `penalty` times the mean diagonal of FᵀF; None: by generalised cross-validation on `examples`.

        GCV (Golub, Heath & Wahba 1979) takes the λ with the least |Y - Ŷ|² / (n - degrees of freedom)²; `examples`
        is Y, float (n_examples, n_known).
        """
        n_known, n_features = features.shape
        if not n_known or not n_features:
            return cls(features, np.zeros((n_features, n_features), dtype=np.float32), 0.0)
        exact = sparse.csr_array(features.astype(np.float64))
        with threadpool_limits(threads):
            values, vectors = np.linalg.eigh((exact.T @ exact).toarray())
            values = np.maximum(values, 0.0)
            unit = max(float(values.mean()), 1e-12)
            if penalty is None:
                turned = (examples @ exact) @ vectors  # (n_examples, n_features)
                total = float(np.square(examples, dtype=np.float64).sum())
                scores = [_gcv(total, np.square(turned).sum(axis=0), values, unit * one, n_known) for one in _PENALTIES]
                penalty = float(_PENALTIES[int(np.argmin(scores))])
            inverse = (vectors / (values + penalty * unit)) @ vectors.T
        return cls(features, inverse.astype(np.float32), penalty)

    def coefficients(self, values: Floats) -> Floats:
        """y F (FᵀF + λI)⁻¹ for rows of `values` (n, n_known): what each feature is worth (n, n_features)."""
        turned = self.features.T.tocsr()
        sums = np.empty((len(values), self.features.shape[1]), dtype=np.float32)
        for start in range(0, len(values), _BLOCK):
            block = np.ascontiguousarray(values[start : start + _BLOCK].T)
            sums[start : start + _BLOCK] = (turned @ block).T
        return products(sums, self.inverse)

    def factors(self, factors: Floats, others: sparse.csr_array) -> Floats:
        """Factors of items of features `others` (n, n_features) from those of the known (n_known, k): (n, k)."""
        made: Floats = others @ self.coefficients(np.ascontiguousarray(factors.T)).T
        return made


def features_of(made: Descriptions, known: NDArray[np.int64]) -> sparse.csr_array:
    """Features of all described items for a `Transfer` from the items at `known`: float32 (n_items, n_features).

    The unit vectors of all blocks and a 1 where there is a description; of more than `MOST_FEATURES` those that the
    most known items have.
    """
    blocks = sparse.csr_array(sparse.hstack([made.vectors, sparse.csr_array(made.embedding)], format="csr"))
    counts = np.bincount(blocks[known].indices, minlength=blocks.shape[1])
    order = np.argsort(-counts, kind="stable")[: MOST_FEATURES - 1]
    chosen = sparse.csr_array(blocks[:, np.sort(order[counts[order] > 0])])
    there = sparse.csr_array((np.diff(chosen.indptr) > 0).astype(np.float32)[:, None])
    features = sparse.csr_array(sparse.hstack([chosen, there], format="csr"))
    features.sort_indices()
    return features


class Cold:
    """A model whose scores are carried over to the items of the catalogue that it does not know.

        score of a new item = m_u + s_u (p_u - m̂_u) / ŝ_u,   p_u: `Transfer` of the user's scores to the item

    A regression draws towards the mean, so that what it says of new items would hardly ever reach a list. Hence they
    are spread as the user's scores for known items are: m_u and s_u are mean and deviation of those outside the
    history, m̂_u and ŝ_u mean and deviation of what the regression says of the known items. New items then come up about
    as often as a known item that one knows no more of would. Scores of known items stay as they are; an item without a
    description scores 0, and so does every new item where the model says nothing of the user.
    """

    name: ClassVar[str] = "cold"
    exact: ClassVar[bool] = False
    items: pl.Series
    """Items of the model inside and of the catalogue, sorted (n_items,)."""
    transfer_: Transfer
    others_: sparse.csr_array
    """Features of the items that the model inside does not know (n_new, n_features)."""

    def __init__(
        self,
        parts: Mapping[str, Model],
        of: str,
        ridge: float | str = "auto",
        cap: float = 1.0,
        solver_threads: int = 1,
    ) -> None:
        """`parts`: the model inside under its name, `of`."""
        self._parts = dict(parts)
        self.of = of
        self.ridge = ridge
        self.cap = cap
        self.solver_threads = solver_threads

    @staticmethod
    def inside(settings: Settings) -> list[str]:
        of = settings.text("model.cold.of")
        if of in ("cold", "layered", "content"):
            raise BadSettings(
                f"model.cold.of is {of!r}; expected a model that learns from events alone, such as spectral",
                "persona train --model cold --set model.cold.of=spectral",
            )
        return [of]

    @classmethod
    def from_settings(cls, settings: Settings, parts: Mapping[str, Model]) -> Self:
        return cls(
            parts,
            settings.text("model.cold.of"),
            settings.number_or_word("model.cold.ridge"),
            settings.number("model.gram.cap"),
            settings.whole("compute.solver_threads"),
        )

    def settings(self) -> Mapping[str, Any]:
        return {
            "of": self.of,
            "ridge": self.transfer_.penalty,
            "cap": self.cap,
            "solver_threads": self.solver_threads,
        }

    def parts(self) -> Mapping[str, Model]:
        return dict(self._parts)

    def fit(self, training: Training) -> Self:
        if training.catalogue is None or not training.catalogue.height:
            raise MissingInput(
                "cold scores items by their descriptions, and the workspace has no catalogue",
                "persona ingest --kind items FILE",
            )
        base = self._parts[self.of].fit(training)
        self.items = union(base.items, training.catalogue["item_id"])
        self._join()
        features = features_of(described(training.catalogue, self.items), self._known)
        penalty = None if isinstance(self.ridge, str) else float(self.ridge)
        examples = base.scores(_some(training.interactions, base.items, self.cap))
        self.transfer_ = Transfer.of(features[self._known], penalty, examples, self.solver_threads)
        self.others_ = sparse.csr_array(features[self._new])
        log.debug("cold: %d items, ridge %.3g", self.others_.shape[0], self.transfer_.penalty)
        return self

    def scores(self, histories: Histories) -> Floats:
        base = self._parts[self.of]
        told = histories.over(self._columns, len(base.items))
        own = base.scores(told)
        scores = np.zeros((len(own), len(self.items)), dtype=np.float32)
        scores[:, self._known] = own
        scores[:, self._new] = self._carried(own, told.rows)
        return scores

    def save(self, folder: Path) -> None:
        save_items(folder, self.items)
        save_sparse(folder, "features", self.transfer_.features)
        save_sparse(folder, "others", self.others_)
        save_array(folder, "inverse", self.transfer_.inverse)

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any], parts: Mapping[str, Model]) -> Self:
        model = cls(parts, settings["of"], settings["ridge"], settings["cap"], settings["solver_threads"])
        model.items = load_items(folder)
        model._join()
        inverse = load_array(folder, "inverse")
        features = load_sparse(folder, "features", (len(model._known), len(inverse)))
        model.transfer_ = Transfer(features, inverse, float(settings["ridge"]))
        model.others_ = load_sparse(folder, "others", (len(model._new), len(inverse)))
        return model

    def _join(self) -> None:
        """Where the items of the model inside are among `items`, and the reverse."""
        known = self._parts[self.of].items
        self._known = positions(known, self.items)  # (n_known,)
        self._columns = positions(self.items, known)  # (n_items,), -1: new
        self._new = np.flatnonzero(self._columns < 0)

    def _carried(self, own: Floats, rows: sparse.csr_array) -> Floats:
        """Scores of the new items (n_users, n_new) from those of the known ones and the histories over these."""
        worth = self.transfer_.coefficients(own)  # (n_users, n_features)
        carried = np.empty((len(own), self.others_.shape[0]), dtype=np.float32)
        said_mean, said_spread = self._said(worth)
        mean, spread = _moments(own, rows)
        scale = np.divide(spread, said_spread, out=np.zeros_like(spread), where=said_spread > 1e-9 * np.abs(said_mean))
        for start in range(0, len(own), _BLOCK):
            at = slice(start, start + _BLOCK)
            said = (self.others_ @ np.ascontiguousarray(worth[at].T)).T  # (n_block, n_new)
            carried[at] = (said - said_mean[at, None]) * scale[at, None] + mean[at, None]
        carried[:, np.diff(self.others_.indptr) == 0] = 0.0
        carried[~own.any(axis=1)] = 0.0
        return carried

    def _said(self, worth: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation of what the regression says of the known items (n_users,) each."""
        features = self.transfer_.features
        there = features[np.flatnonzero(np.diff(features.indptr))]
        means, spreads = np.zeros(len(worth)), np.zeros(len(worth))
        for start in range(0, len(worth) if there.shape[0] else 0, _BLOCK):
            said = there @ np.ascontiguousarray(worth[start : start + _BLOCK].T)  # (n_there, n_block)
            means[start : start + _BLOCK] = said.mean(axis=0, dtype=np.float64)
            spreads[start : start + _BLOCK] = said.std(axis=0, dtype=np.float64)
        return means, spreads


def _gcv(total: float, turned: NDArray[np.float64], values: NDArray[np.float64], penalty: float, n: int) -> float:
    """|Y - Ŷ|² / (n - degrees of freedom)², `turned` being the squares of Y F in the eigenvectors of FᵀF."""
    left = total - float((turned * (values + 2 * penalty) / np.square(values + penalty)).sum())
    freedom = float((values / (values + penalty)).sum())
    return max(left, 0.0) / max(n - freedom, 1e-9) ** 2


def _moments(own: Floats, rows: sparse.csr_array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of each user's scores outside the history (n_users,) each."""
    n_items = own.shape[1]
    users = np.repeat(np.arange(len(own)), np.diff(rows.indptr))
    held = own[users, rows.indices].astype(np.float64)
    left = np.maximum(n_items - np.diff(rows.indptr), 1)
    sums = own.sum(axis=1, dtype=np.float64) - np.bincount(users, held, len(own))
    squares = np.square(own, dtype=np.float64).sum(axis=1) - np.bincount(users, np.square(held), len(own))
    means = sums / left
    return means, np.sqrt(np.maximum(squares / left - np.square(means), 0.0))


def _some(matrix: Interactions, items: pl.Series, cap: float) -> Histories:
    """Up to `_ASKED` users of the matrix, evenly spaced, as histories over a vocabulary."""
    n_users = len(matrix.users)
    chosen = np.linspace(0, n_users - 1, min(n_users, _ASKED)).astype(np.int64)
    clipped = sparse.csr_array(
        (np.minimum(matrix.strengths.data, np.float32(cap)), matrix.strengths.indices, matrix.strengths.indptr),
        shape=matrix.strengths.shape,
    )
    rows = with_columns(clipped, positions(matrix.items, items), len(items))
    times = times_for(matrix, items)
    nowhere = {name: pl.Series([None] * len(chosen), dtype=pl.String) for name in ("device", "country")}
    return Histories(
        sparse.csr_array(rows[chosen]),
        matrix.events[chosen],
        pl.DataFrame(nowhere),
        None if times is None else sparse.csr_array(times[chosen]),
    )
