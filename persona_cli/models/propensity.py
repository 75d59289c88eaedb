"""The chance that a user does something within a time: a linear or boosted score of a snapshot, then calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from persona_cli.models.stored import load_array, save_array
from persona_cli.models.trees import Trees, from_scikit_learn

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]
ISOTONIC = 1_000
"""Users of either outcome from which on calibration follows the data freely; with fewer it is a line in log-odds."""
ALGORITHMS = ("logistic", "trees")
_FLOOR = 1e-9


@dataclass(frozen=True)
class Logistic:
    """Log-odds linear in standardised features; a missing value is the mean, and a feature of its own says so."""

    means: Values
    scales: Values
    weights: Values
    """Of the features, then of their being missing (2 n_features,)."""
    intercept: float

    def raw(self, rows: Values) -> Values:
        # Not by BLAS: a user's figure must not depend on threads or on who else is asked.
        told = np.einsum("ij,j->i", self._standardised(rows), self.weights)
        return np.asarray(told + self.intercept, dtype=np.float64)

    def _standardised(self, rows: Values) -> Values:
        missing = np.isnan(rows)
        centred = np.where(missing, 0.0, (rows - self.means) / self.scales)
        # Beyond 10 deviations a line learned elsewhere says nothing any more.
        return np.hstack([np.clip(centred, -10.0, 10.0), missing])

    @classmethod
    def learned(cls, rows: Values, happened: Flags, threads: int) -> Self:
        from sklearn.linear_model import LogisticRegression

        known = ~np.isnan(rows)
        n = np.maximum(known.sum(axis=0), 1)
        means = np.where(known, rows, 0.0).sum(axis=0) / n
        spread = np.sqrt(np.where(known, (rows - means) ** 2, 0.0).sum(axis=0) / n)
        blank = cls(means, np.where(spread > 1e-9, spread, 1.0), np.zeros(2 * rows.shape[1]), 0.0)
        model = LogisticRegression(C=0.1, max_iter=1_000)
        with threadpool_limits(threads):
            model.fit(blank._standardised(rows), happened)
        return cls(blank.means, blank.scales, model.coef_[0].astype(np.float64), float(model.intercept_[0]))


def boosted(rows: Values, happened: Flags, threads: int) -> Trees:
    """Gradient boosting of small trees, slow enough for a few thousand rows."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=150,
        learning_rate=0.05,
        max_leaf_nodes=8,
        min_samples_leaf=30,
        l2_regularization=1.0,
        max_bins=63,
        early_stopping=False,
        random_state=0,
    )
    # A feature that nobody has cannot be cut into bins; as a constant it takes no part.
    told = np.where(np.isnan(rows).all(axis=0), 0.0, rows)
    with threadpool_limits(threads):
        model.fit(told, happened)
    return from_scikit_learn(model)


@dataclass(frozen=True)
class Calibration:
    """From log-odds as learned to a chance: isotonic steps (linear between them), or a line (Platt 1999)."""

    kind: str
    """isotonic or platt."""
    places: Values
    """isotonic: log-odds, ascending; platt: nothing."""
    values: Values
    """isotonic: the chance there; platt: slope and intercept."""

    def chances(self, raw: Values) -> Values:
        if self.kind == "isotonic":
            return np.asarray(np.interp(raw, self.places, self.values), dtype=np.float64)
        slope, intercept = self.values
        return sigmoid(slope * raw + intercept)

    @classmethod
    def learned(cls, raw: Values, happened: Flags) -> Self:
        """From users who were not learned from, or at a later moment than was."""
        wins, n = int(happened.sum()), len(happened)
        if min(wins, n - wins) < ISOTONIC:
            # Platt's targets: as if one more of either outcome had been seen, so that no chance is 0 or 1.
            targets = np.where(happened, (wins + 1) / (wins + 2), 1 / (n - wins + 2))
            slope, intercept = line(raw, targets)
            if slope <= 0:  # the order is no better than chance: everyone has the same
                slope, intercept = 0.0, float(logit(np.array([(wins + 1) / (n + 2)]))[0])
            return cls("platt", np.zeros(0), np.array([slope, intercept]))
        from scipy.optimize import isotonic_regression

        steps, which = np.unique(raw, return_inverse=True)
        sizes = np.bincount(which).astype(np.float64)
        rates = np.bincount(which, weights=happened) / sizes
        fitted = isotonic_regression(rates, weights=sizes)
        blocks = fitted.blocks
        starts, widths = blocks[:-1], np.diff(blocks)
        weights = np.add.reduceat(sizes, starts)
        # A step's chance holds at its middle; half an event of either outcome is added, so none is 0 or 1.
        middle = np.add.reduceat(steps * sizes, starts) / weights
        chance = (fitted.x[starts] * weights + 0.5) / (weights + 1.0)
        assert len(widths) == len(middle)
        return cls("isotonic", middle, np.maximum.accumulate(chance))


@dataclass(frozen=True)
class Propensity:
    """A calibrated chance by the features of a snapshot; kept as arrays, without pickle."""

    name: ClassVar[str] = "propensity"
    exact: ClassVar[bool] = False
    learner: Logistic | Trees
    calibration: Calibration
    stated: Mapping[str, Any]
    """What the chance is of, and from which features: JSON types."""

    @property
    def algorithm(self) -> str:
        return "trees" if isinstance(self.learner, Trees) else "logistic"

    def chances(self, rows: Values) -> Values:
        """Of each row of features (n_users, n_features): (n_users,)."""
        return self.calibration.chances(self.learner.raw(rows))

    def settings(self) -> Mapping[str, Any]:
        return {**self.stated, "algorithm": self.algorithm, "calibration": self.calibration.kind}

    def save(self, folder: Path) -> None:
        save_array(folder, "calibration.places", self.calibration.places)
        save_array(folder, "calibration.values", self.calibration.values)
        if isinstance(self.learner, Trees):
            self.learner.save(folder)
            return
        for part in ("means", "scales", "weights"):
            save_array(folder, part, getattr(self.learner, part))
        save_array(folder, "intercept", np.array([self.learner.intercept]))

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any]) -> Self:
        places, values = (load_array(folder, f"calibration.{part}") for part in ("places", "values"))
        learner: Logistic | Trees
        if settings["algorithm"] == "trees":
            learner = Trees.load(folder)
        else:
            means, scales, weights = (load_array(folder, part) for part in ("means", "scales", "weights"))
            learner = Logistic(means, scales, weights, float(load_array(folder, "intercept")[0]))
        stated = {name: value for name, value in settings.items() if name not in ("algorithm", "calibration")}
        return cls(learner, Calibration(settings["calibration"], places, values), stated)


def sigmoid(raw: Values) -> Values:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * raw)), dtype=np.float64)


def logit(chances: Values) -> Values:
    inside = np.clip(chances, _FLOOR, 1.0 - _FLOOR)
    return np.asarray(np.log(inside / (1.0 - inside)), dtype=np.float64)


def line(raw: Values, targets: NDArray[Any]) -> tuple[float, float]:
    """Slope and intercept of the logistic regression of targets in [0, 1] on one number, by Newton's method."""
    design = np.column_stack([raw, np.ones(len(raw))])
    found = np.array([0.0, float(logit(np.array([np.mean(targets)]))[0])])
    loss = _loss(design @ found, targets)
    for _ in range(100):
        chances = sigmoid(design @ found)
        slopes = design.T @ (targets - chances)
        curvature = (design * (chances * (1.0 - chances))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, slopes)
        # Halved until it helps: far from the best, a whole step can overshoot.
        while (new := _loss(design @ (found + step), targets)) > loss + 1e-12 and np.abs(step).max() > 1e-10:
            step = step / 2
        found, loss = found + step, new
        if np.abs(step).max() < 1e-9:
            break
    return float(found[0]), float(found[1])


def _loss(raw: Values, targets: NDArray[Any]) -> float:
    return float((np.logaddexp(0.0, raw) - targets * raw).sum())
