"""Two closed forms of the item Gram in one model: what neighbours say and what a regression on the spectrum says."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from scipy import sparse

from persona_cli.models.base import Floats, Histories, Training
from persona_cli.models.eigen import Linear, Ridge, block_bytes, item_gram, normalised, spectrum_of
from persona_cli.models.spectral_tuning import DEAR, LARGE, Choice, Tuning, by_rule, cut, given_of, scales
from persona_cli.models.stored import (
    load_array,
    load_items,
    load_sparse,
    positions,
    save_array,
    save_items,
    save_sparse,
    with_columns,
)
from persona_cli.workspace.settings import Settings

log = logging.getLogger("persona")
AUTO_FACTORS, WHOLE = 1024, 4096
"""Eigenpairs kept where factors is "auto", and the number of items up to which all are."""
CHOSEN = ("user", "left", "right", "item", "ridge", "output", "weight")


class Spectral:
    """A linear filter and truncated EASE on the degree-normalised item Gram, blended user by user.

        score = ridge / m_ridge + weight · linear / m_linear

    `linear` is x D^-left (G - diag G) D^-right, `ridge` is EASE (Steck 2019) on D^-item G D^-item with the eigenvalues
    beyond the leading `factors` replaced by their mean, popular items held back by D^output (see `models.eigen`); m is
    the mean of the user's own best 20 outside the history. Degree-normalised filters of this kind are the closed forms
    behind graph networks (Shen et al. 2021). How far degrees are taken out of G before the regression matters more
    than the kind of model: `item` = 0.5, the symmetric normalisation of graph networks, is far from the best.

    "auto": by rule, and in `fit` moved to where interactions held out of the training insist (`spectral_tuning`).
    factors = "auto": all of up to 4,096 items, else 1,024, fewer where three blocks of that many columns are more than
    half of compute.memory_gb.
    """

    name: ClassVar[str] = "spectral"
    exact: ClassVar[bool] = True
    items: pl.Series
    """Items that some user's row holds, sorted (n_items,)."""
    choice_: Choice
    """Exponents, penalty and weight in force."""
    linear_: Linear
    ridge_: Ridge

    def __init__(
        self,
        factors: int | str = "auto",
        user: float | str = "auto",
        left: float | str = "auto",
        right: float | str = "auto",
        item: float | str = "auto",
        ridge: float | str = "auto",
        output: float | str = "auto",
        weight: float | str = "auto",
        cap: float = 1.0,
        solver_threads: int = 1,
        memory_gb: float = 4.0,
    ) -> None:
        self.factors = factors
        self.user = user
        self.left = left
        self.right = right
        self.item = item
        self.ridge = ridge
        self.output = output
        self.weight = weight
        self.cap = cap
        self.solver_threads = solver_threads
        self.memory_gb = memory_gb

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        factors = settings.number_or_word("model.spectral.factors")
        return cls(
            factors if isinstance(factors, str) else int(factors),
            **{name: settings.number_or_word(f"model.spectral.{name}") for name in CHOSEN},
            cap=settings.number("model.gram.cap"),
            solver_threads=settings.whole("compute.solver_threads"),
            memory_gb=settings.number("compute.memory_gb"),
        )

    def settings(self) -> Mapping[str, Any]:
        return {
            "factors": self.ridge_.vectors.shape[1],
            **asdict(self.choice_),
            "cap": self.cap,
            "solver_threads": self.solver_threads,
        }

    def fit(self, training: Training) -> Self:
        began = time.monotonic()
        self.items = training.gram.items
        n_items = len(self.items)
        rows = self._rows(training)  # (n_users, n_items)
        degrees = np.maximum(np.bincount(rows.indices, minlength=n_items), 1).astype(np.float64)
        self.choice_ = self._choice(rows, degrees, training.interactions.users)
        choice = self.choice_
        log.debug("spectral: settings after %.1f s: %s", time.monotonic() - began, choice)
        scaled = normalised(rows, choice.user)
        self.linear_ = Linear.of(item_gram(scaled), degrees, choice.left, choice.right)
        spectrum = spectrum_of(scaled, degrees, choice.item, self._factors(n_items), self.solver_threads)
        self.ridge_ = Ridge.of(spectrum, degrees, choice.item, choice.ridge, choice.output)
        log.debug("spectral: %d factors after %.1f s", len(spectrum.values), time.monotonic() - began)
        return self

    def scores(self, histories: Histories) -> Floats:
        rows = histories.rows  # (n_users, n_items)
        scores = self.ridge_.scores(rows)
        scores /= scales(scores, rows)[:, None]
        if self.choice_.weight:
            linear = self.linear_.scores(rows)
            linear *= (np.float32(self.choice_.weight) / scales(linear, rows))[:, None]
            scores += linear
        return scores

    def save(self, folder: Path) -> None:
        save_items(folder, self.items)
        save_sparse(folder, "cells", self.linear_.cells)
        save_array(folder, "vectors", self.ridge_.vectors)
        save_array(folder, "gains", self.ridge_.gains)
        for name, array in self._degree_arrays().items():
            save_array(folder, name, array)

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any]) -> Self:
        model = cls(**settings)
        model.choice_ = Choice(**{name: float(settings[name]) for name in CHOSEN})
        model.items = load_items(folder)
        n_items = len(model.items)
        cells = load_sparse(folder, "cells", (n_items, n_items))
        arrays = {
            name: np.asarray(load_array(folder, name))
            for name in ("linear_entry", "linear_exit", "ridge_entry", "ridge_exit", "gains")
        }
        model.linear_ = Linear(arrays["linear_entry"], cells, arrays["linear_exit"])
        vectors = load_array(folder, "vectors")
        model.ridge_ = Ridge(arrays["ridge_entry"], vectors, arrays["gains"], arrays["ridge_exit"])
        return model

    def _degree_arrays(self) -> dict[str, Floats]:
        return {
            "linear_entry": self.linear_.entry,
            "linear_exit": self.linear_.exit,
            "ridge_entry": self.ridge_.entry,
            "ridge_exit": self.ridge_.exit,
        }

    def _rows(self, training: Training) -> sparse.csr_array:
        """Strengths clipped to [0, cap] over the vocabulary (n_users, n_items)."""
        strengths = training.interactions.strengths
        clipped = sparse.csr_array(
            (np.clip(strengths.data, 0, np.float32(self.cap)), strengths.indices, strengths.indptr),
            shape=strengths.shape,
        )
        return with_columns(clipped, positions(training.interactions.items, self.items), len(self.items))

    def _choice(self, rows: sparse.csr_array, degrees: Any, users: pl.Series) -> Choice:
        rule = by_rule(rows.shape[0], degrees)
        given = given_of({name: getattr(self, name) for name in CHOSEN})
        start = replace(rule, **given)
        made = None if len(given) == len(CHOSEN) else cut(rows, users, self.items)
        fixed = set(given) | (DEAR if len(degrees) > LARGE else set())
        return start if made is None else Tuning(made, self.solver_threads).choose(start, fixed)

    def _factors(self, n_items: int) -> int:
        if not isinstance(self.factors, str):
            return int(self.factors)
        factors = n_items if n_items <= WHOLE else AUTO_FACTORS
        while factors > 16 and block_bytes(n_items, factors) > self.memory_gb * 2**30 / 2:
            factors = factors * 3 // 4
        log.log(
            logging.INFO if block_bytes(n_items, factors) >= 2**30 else logging.DEBUG,
            "spectral: %d factors of %s items take %.1f GiB",
            factors,
            f"{n_items:,}",
            block_bytes(n_items, factors) / 2**30,
        )
        return factors
