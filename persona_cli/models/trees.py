"""Gradient-boosted trees as plain arrays: learned by scikit-learn, kept without pickle, evaluated by numpy.

    raw(x) = baseline + Σ_t value[leaf of x in tree t]

A row goes left at a node where x[feature] <= threshold, or where x[feature] is missing and the node says so. Trees are
not walked: which leaf a row reaches follows from one AND a feature (QuickScorer, Lucchese et al. 2015). A node where
the row goes right rules out the leaves on its left; of the leaves that no node rules out, the leftmost is the one. What
a feature's value rules out in all trees at once is a row of a table, looked up by where the value lies among the
feature's thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from persona_cli.errors import Unavailable
from persona_cli.models.stored import load_array, save_array

MAX_LEAVES = 64
"""A tree's leaves are the bits of one word."""
Values = NDArray[np.float64]
Words = NDArray[np.uint64]

_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_NODE = ("value", "feature_idx", "num_threshold", "missing_go_to_left", "left", "right", "is_leaf", "is_categorical")
# Words of one feature's lookup for a block of rows: it stays in a second-level cache.
_BLOCK_WORDS = 1 << 15


@dataclass(frozen=True)
class Trees:
    """An ensemble with one output. Nodes of all trees lie one after the other; a tree's first node is its root."""

    baseline: float
    features: NDArray[np.int32]
    """Column that the node asks for; -1: a leaf (n_nodes,)."""
    thresholds: Values
    """Largest value that goes left (n_nodes,)."""
    missing_left: NDArray[np.bool_]
    """Whether a missing value goes left (n_nodes,)."""
    children: NDArray[np.int32]
    """Left and right child, counted from the tree's first node; 0 at a leaf (n_nodes, 2)."""
    values: Values
    """What a leaf adds (n_nodes,)."""
    starts: NDArray[np.int64]
    """First node of each tree, and the number of nodes (n_trees + 1,)."""
    n_features: int
    _tables: _Tables = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tables", _Tables.of(self))

    @property
    def n_trees(self) -> int:
        return len(self.starts) - 1

    def raw(self, rows: NDArray[Any]) -> Values:
        """Raw predictions (n,) of `rows` (n, n_features), NaN: missing. For a binary classifier the log-odds."""
        return self._tables.raw(np.asarray(rows, dtype=np.float64))

    def save(self, folder: Path, name: str = "trees") -> None:
        """Seven arrays, name.*.npy."""
        for part in ("features", "thresholds", "missing_left", "children", "values", "starts"):
            save_array(folder, f"{name}.{part}", getattr(self, part))
        save_array(folder, f"{name}.baseline", np.array([self.baseline, self.n_features], dtype=np.float64))

    @classmethod
    def load(cls, folder: Path, name: str = "trees") -> Self:
        baseline, n_features = load_array(folder, f"{name}.baseline")
        parts = ("features", "thresholds", "missing_left", "children", "values", "starts")
        arrays: dict[str, NDArray[Any]] = {part: load_array(folder, f"{name}.{part}") for part in parts}
        return cls(baseline=float(baseline), n_features=int(n_features), **arrays)


def from_scikit_learn(estimator: Any) -> Trees:
    """The trees of a fitted HistGradientBoostingClassifier (binary) or HistGradientBoostingRegressor.

    `raw` then equals the estimator's raw prediction; a regressor's is its prediction where the loss has an identity
    link. Unavailable where this scikit-learn keeps its trees otherwise than is known here. ValueError for what is not
    covered: several classes, categorical features, more than 64 leaves.
    """
    try:
        stages, n_features = estimator._predictors, int(estimator.n_features_in_)
        baseline = np.asarray(estimator._baseline_prediction, dtype=np.float64).ravel()
        nodes = [[predictor.nodes for predictor in stage] for stage in stages]
        missing = [name for stage in nodes for one in stage for name in _NODE if name not in one.dtype.names]
    except (AttributeError, TypeError) as error:
        raise _unknown_layout(str(error)) from error
    if missing:
        raise _unknown_layout(f"nodes have no {missing[0]}")
    if baseline.size != 1 or any(len(stage) != 1 for stage in nodes):
        raise ValueError("an ensemble of several outputs; expected two classes or one number")
    parts = [stage[0] for stage in nodes]
    whole = np.concatenate(parts) if parts else np.zeros(0, dtype=[(name, np.float64) for name in _NODE])
    leaf = whole["is_leaf"].astype(bool)
    if whole["is_categorical"].astype(bool)[~leaf].any():
        raise ValueError("a tree asks for a category; expected numbers only")
    sizes = np.array([len(one) for one in parts], dtype=np.int64)
    return Trees(
        baseline=float(baseline[0]),
        features=np.where(leaf, -1, whole["feature_idx"]).astype(np.int32),
        thresholds=np.where(leaf, 0.0, whole["num_threshold"]).astype(np.float64),
        missing_left=(whole["missing_go_to_left"].astype(bool) & ~leaf),
        children=np.where(leaf[:, None], 0, np.column_stack([whole["left"], whole["right"]])).astype(np.int32),
        values=np.where(leaf, whole["value"], 0.0).astype(np.float64),
        starts=np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
        n_features=n_features,
    )


def _unknown_layout(what: str) -> Unavailable:
    import sklearn

    return Unavailable(
        f"scikit-learn {sklearn.__version__} keeps its trees in a way that is not known here ({what})",
        "pip install 'scikit-learn>=1.9,<1.10'",
    )


@dataclass(frozen=True)
class _Tables:
    """What each value of each feature rules out."""

    baseline: float
    leaves: Values
    """Value of each leaf from the left, 0 where a tree has fewer (n_trees, MAX_LEAVES)."""
    columns: list[int]
    """Features that some node asks for."""
    thresholds: list[Values]
    """Of each of these, the distinct thresholds, ascending (n_thresholds,)."""
    kept: list[Words]
    """Of each, the leaves left by a value above the first j thresholds; last, by a missing one (n + 2, n_trees)."""

    @classmethod
    def of(cls, trees: Trees) -> Self:
        n_trees = trees.n_trees
        leaves = np.zeros((n_trees, MAX_LEAVES))
        lefts = np.zeros(len(trees.features), dtype=np.uint64)  # leaves on the left of each inner node, as bits
        for tree in range(n_trees):
            start = int(trees.starts[tree])
            stop = int(trees.starts[tree + 1])
            order, spans = _leaves_of(trees.children[start:stop])
            if len(order) > MAX_LEAVES:
                raise ValueError(f"a tree of {len(order)} leaves; expected at most {MAX_LEAVES}")
            leaves[tree, : len(order)] = trees.values[start + np.array(order, dtype=np.int64)]
            for node, (first, last) in spans.items():
                lefts[start + node] = ((1 << (last - first)) - 1) << first
        owner = np.repeat(np.arange(n_trees), np.diff(trees.starts))
        columns = [int(column) for column in np.unique(trees.features) if column >= 0]
        thresholds: list[Values] = []
        kept: list[Words] = []
        for column in columns:
            nodes = np.flatnonzero(trees.features == column)
            bounds, places = np.unique(trees.thresholds[nodes], return_inverse=True)
            table = np.full((len(bounds) + 2, n_trees), _ALL, dtype=np.uint64)
            np.bitwise_and.at(table, (places + 1, owner[nodes]), ~lefts[nodes])
            np.bitwise_and.accumulate(table[:-1], axis=0, out=table[:-1])
            right = nodes[~trees.missing_left[nodes]]
            np.bitwise_and.at(table, (np.full(len(right), len(bounds) + 1), owner[right]), ~lefts[right])
            thresholds.append(bounds)
            kept.append(table)
        return cls(trees.baseline, leaves, columns, thresholds, kept)

    def raw(self, rows: Values) -> Values:
        n_trees = len(self.leaves)
        sums = np.full(len(rows), self.baseline)
        if not n_trees:
            return sums
        places = [
            np.where(np.isnan(rows[:, column]), len(bounds) + 1, np.searchsorted(bounds, rows[:, column]))
            for column, bounds in zip(self.columns, self.thresholds, strict=True)
        ]
        size = max(1, _BLOCK_WORDS // n_trees)
        offsets = np.arange(n_trees) * MAX_LEAVES
        flat = self.leaves.ravel()
        one = np.uint64(1)
        for start in range(0, len(rows), size):
            block = slice(start, start + size)
            left = np.full((len(sums[block]), n_trees), _ALL, dtype=np.uint64)
            for table, place in zip(self.kept, places, strict=True):
                left &= table[place[block]]
            # The number of zeros below the lowest bit is the leaf, counted from the left.
            leaf = np.bitwise_count((left & (~left + one)) - one)  # (n_block, n_trees)
            sums[block] += flat[leaf + offsets].sum(axis=1)
        return sums


def _leaves_of(children: NDArray[np.int32]) -> tuple[list[int], dict[int, tuple[int, int]]]:
    """The leaves of a tree from left to right, and of each inner node which of these are on its left."""
    order: list[int] = []
    spans: dict[int, tuple[int, int]] = {}
    waiting: list[tuple[int, bool]] = [(0, False)]
    while waiting:
        node, left_done = waiting.pop()
        left, right = int(children[node, 0]), int(children[node, 1])
        if left == 0:
            order.append(node)
        elif left_done:
            spans[node] = (spans[node][0], len(order))
            waiting.append((right, False))
        else:
            spans[node] = (len(order), len(order))
            waiting += [(node, True), (left, False)]
    return order, spans
