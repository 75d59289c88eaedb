"""EASE: the best linear item-item model with a zero diagonal, in closed form."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.linalg import lapack
from threadpoolctl import threadpool_limits

from persona_cli.errors import BadSettings
from persona_cli.models.base import Floats, Histories, Training
from persona_cli.models.gram import ONE, Gram
from persona_cli.models.stored import load_array, load_items, save_array, save_items
from persona_cli.workspace.settings import Settings

log = logging.getLogger("persona")
AUTO_LAMBDA = 4.0
"""Ridge penalty in units of the Gram's mean diagonal, where lambda is "auto"."""
STRIP = 128
"""Columns of a strip: a few thousand users' scores in one strip fit a second-level cache."""
_BLOCK = 1024
# From so many users on, a strip is read once for all of them (by item) instead of once for each (by user).
_MANY_USERS = 64


class Ease:
    """Embarrassingly shallow autoencoder (Steck 2019).

        P = (G + λI)⁻¹,   B_ij = -P_ij / P_jj,   B_jj = 0,   score = x B

    G is the integer Gram of the users' rows. Cost: n³ operations and 12 n² bytes for n items (8 n², in single
    precision, where compute.memory_gb is less), so only the `max_items` most popular are covered (by number of users,
    then lower position); the others are not in `items`, and lists reach them through the popular part of a layered
    model. lambda = "auto" is AUTO_LAMBDA times the mean diagonal of G: the penalty then follows the number of users,
    their normalisation and the strengths in use.

    B lies in strips of columns. Dense weights make scoring a matter of memory traffic: for a block of users, one strip
    is streamed past scores that stay in the cache, which is about twice as fast as whole rows of B for each user.
    """

    name: ClassVar[str] = "ease"
    exact: ClassVar[bool] = True
    items: pl.Series
    """The items covered, sorted (n_items,)."""
    penalty_: float
    """λ in force, in units of strength²."""
    strips_: Floats
    """B[i, s·STRIP + c] at [s, i, c]: i in the history, the column recommended; zeros behind the last column."""

    def __init__(
        self,
        lambda_: float | str = "auto",
        max_items: int = 20_000,
        solver_threads: int = 1,
        memory_gb: float = 4.0,
    ) -> None:
        self.lambda_ = lambda_
        self.max_items = max_items
        self.solver_threads = solver_threads
        self.memory_gb = memory_gb

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(
            settings.number_or_word("model.ease.lambda"),
            settings.whole("model.ease.max_items"),
            settings.whole("compute.solver_threads"),
            settings.number("compute.memory_gb"),
        )

    def settings(self) -> Mapping[str, Any]:
        return {"lambda": self.penalty_, "max_items": self.max_items, "solver_threads": self.solver_threads}

    def fit(self, training: Training) -> Self:
        began = time.monotonic()
        gram = most_popular(training.gram, self.max_items)
        n_items = len(gram.items)
        # Solved in place, then copied into strips of float32.
        double = 12 * n_items**2 <= self.memory_gb * 2**30
        dtype: np.dtype[Any] = np.dtype(np.float64 if double else np.float32)
        needed = (12 if double else 8) * n_items**2 / 2**30
        # Announced before it is taken, where it is much.
        log.log(logging.INFO if needed >= 1 else logging.DEBUG, "ease: %s items take %.1f GiB", f"{n_items:,}", needed)
        mean = float(gram.diagonal.mean()) / ONE**2 if n_items else 1.0
        self.penalty_ = AUTO_LAMBDA * mean if isinstance(self.lambda_, str) else float(self.lambda_)
        self.items = gram.items
        with threadpool_limits(self.solver_threads):
            self.strips_ = _zero_diagonal_ridge(gram.upper(dtype), self.penalty_)
        log.debug("ease: solved in %.1f s with lambda %.4g", time.monotonic() - began, self.penalty_)
        return self

    def scores(self, histories: Histories) -> Floats:
        rows = histories.rows  # (n_users, n_items)
        n_users, n_items = rows.shape
        # Either way a score is the sum over the history in the order of the items: the same bits.
        factor = rows.tocsc() if n_users >= _MANY_USERS else rows
        scores = np.empty((n_users, n_items), dtype=np.float32)
        for number, strip in enumerate(self.strips_):
            columns = scores[:, number * strip.shape[1] : (number + 1) * strip.shape[1]]
            columns[:] = (factor @ strip)[:, : columns.shape[1]]
        return scores

    def weights_of(self, items: NDArray[Any]) -> Floats:
        """Rows of B: what each of these items (positions) says for every other (n, n_items)."""
        rows = self.strips_[:, items].transpose(1, 0, 2).reshape(len(items), -1)
        return rows[:, : len(self.items)]

    def save(self, folder: Path) -> None:
        save_items(folder, self.items)
        save_array(folder, "strips", self.strips_)

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any]) -> Self:
        model = cls(settings["lambda"], settings["max_items"], settings["solver_threads"])
        model.penalty_ = float(settings["lambda"])
        model.items = load_items(folder)
        model.strips_ = load_array(folder, "strips")
        return model


def most_popular(gram: Gram, n: int) -> Gram:
    """The Gram of the n items with the most users; of equal ones those of lower position."""
    if len(gram.items) <= n:
        return gram
    order = np.argsort(-gram.users, kind="stable")[:n]
    return gram.restricted(np.sort(order))


def _zero_diagonal_ridge(upper: NDArray[Any], penalty: float) -> Floats:
    """B in strips (n_strips, n, STRIP) from the upper triangle of G (n, n), which is overwritten."""
    n = len(upper)
    if n == 0:
        return np.zeros((0, 0, STRIP), dtype=np.float32)
    upper[np.diag_indices(n)] += penalty
    factor, invert = (lapack.spotrf, lapack.spotri) if upper.dtype == np.float32 else (lapack.dpotrf, lapack.dpotri)
    # LAPACK reads columns first: the upper triangle here is the lower one of the transpose, without a copy.
    _, failed = factor(upper.T, lower=True, overwrite_a=True, clean=False)
    if not failed:
        _, failed = invert(upper.T, lower=True, overwrite_c=True)
    if failed:
        raise BadSettings(
            f"model.ease.lambda is {penalty:g}, too small for the Gram of these events to be inverted",
            "persona train --model ease --set model.ease.lambda=auto",
        )
    divisors = -np.diagonal(upper).copy()  # -P_jj (n,)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        corner = np.triu(upper[start:stop, start:stop])
        upper[start:stop, start:stop] = corner + np.triu(corner, 1).T
        upper[stop:, start:stop] = upper[start:stop, stop:].T
    np.fill_diagonal(upper, 0.0)
    strips = np.zeros((-(-n // STRIP), n, STRIP), dtype=np.float32)
    for strip, start in zip(strips, range(0, n, STRIP), strict=True):
        stop = min(start + STRIP, n)
        strip[:, : stop - start] = upper[:, start:stop] / divisors[start:stop]
    return strips
