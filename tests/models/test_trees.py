"""Trees as arrays predict what scikit-learn, which learned them, predicts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from persona_cli.errors import Unavailable
from persona_cli.models.trees import Trees, from_scikit_learn


def rows(n: int, seed: int, missing: float = 0.1) -> np.ndarray:
    """Numbers, small whole numbers with many ties, a constant, and missing values."""
    rng = np.random.default_rng(seed)
    made = rng.normal(size=(n, 5))
    made[:, 2] = rng.integers(0, 4, n)
    made[:, 4] = 7.0
    made[rng.random(made.shape) < missing] = np.nan
    return made


def labels(made: np.ndarray, seed: int = 9) -> np.ndarray:
    filled = np.nan_to_num(made, nan=-0.5)
    odds = filled[:, 0] * filled[:, 1] + filled[:, 2] + np.isnan(made[:, 3])
    return (odds + np.random.default_rng(seed).normal(size=len(made)) > 1).astype(int)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("leaves", [2, 31, 64])
def test_log_odds_are_those_of_the_classifier(missing: float, leaves: int) -> None:
    learned = rows(1500, 1, missing)
    model = HistGradientBoostingClassifier(max_iter=30, max_leaf_nodes=leaves, min_samples_leaf=5, early_stopping=False)
    model.fit(learned, labels(learned))
    asked = rows(4000, 2, 0.4)  # values and missing ones that were not there when it was learned
    asked[:6, 0] = [np.inf, -np.inf, np.nan, 0.0, 1e300, -1e-300]
    expected = model.decision_function(asked)
    assert np.abs(from_scikit_learn(model).raw(asked) - expected).max() < 1e-12


def test_values_on_a_threshold_go_where_the_classifier_sends_them() -> None:
    learned = rows(800, 3)
    model = HistGradientBoostingClassifier(max_iter=20, early_stopping=False).fit(learned, labels(learned))
    trees = from_scikit_learn(model)
    inner = np.flatnonzero(trees.features >= 0)
    asked = rows(len(inner), 4)
    asked[np.arange(len(inner)), trees.features[inner]] = trees.thresholds[inner]
    assert np.abs(trees.raw(asked) - model.decision_function(asked)).max() < 1e-12


def test_a_regressor_s_predictions() -> None:
    learned = rows(1000, 5)
    wanted = np.nan_to_num(learned[:, 0]) * 3 + np.nan_to_num(learned[:, 2])
    model = HistGradientBoostingRegressor(max_iter=25, early_stopping=False).fit(learned, wanted)
    asked = rows(1000, 6)
    assert np.abs(from_scikit_learn(model).raw(asked) - model.predict(asked)).max() < 1e-12


def test_a_tree_by_hand() -> None:
    #        x0 <= 1 ?
    #     10        x1 <= 5 ?      (missing x1 goes left)
    #             20        30
    trees = Trees(
        baseline=1.0,
        features=np.array([0, -1, 1, -1, -1], dtype=np.int32),
        thresholds=np.array([1.0, 0, 5.0, 0, 0]),
        missing_left=np.array([False, False, True, False, False]),
        children=np.array([[1, 2], [0, 0], [3, 4], [0, 0], [0, 0]], dtype=np.int32),
        values=np.array([0.0, 10, 0, 20, 30]),
        starts=np.array([0, 5]),
        n_features=2,
    )
    asked = np.array([[1.0, 9.0], [1.5, 5.0], [1.5, 5.5], [np.nan, np.nan], [np.nan, 6.0]])
    assert trees.raw(asked).tolist() == [11.0, 21.0, 31.0, 21.0, 31.0]


def test_saved_and_loaded_it_predicts_the_same(tmp_path: Path) -> None:
    learned = rows(500, 7)
    model = HistGradientBoostingClassifier(max_iter=10, early_stopping=False).fit(learned, labels(learned))
    trees = from_scikit_learn(model)
    trees.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy"}
    for path in tmp_path.iterdir():
        assert np.load(path, allow_pickle=False).dtype != object
    loaded = Trees.load(tmp_path)
    assert loaded.n_features == 5
    assert np.array_equal(loaded.raw(learned), trees.raw(learned))


def test_a_row_s_prediction_depends_on_no_other_row() -> None:
    learned = rows(600, 8)
    model = HistGradientBoostingClassifier(max_iter=40, early_stopping=False).fit(learned, labels(learned))
    trees = from_scikit_learn(model)
    alone = np.concatenate([trees.raw(learned[at : at + 7]) for at in range(0, 600, 7)])
    assert np.array_equal(alone, trees.raw(learned))


def test_an_ensemble_that_never_split_predicts_its_baseline() -> None:
    model = HistGradientBoostingClassifier(max_iter=3, early_stopping=False).fit(np.zeros((50, 2)), [0, 1] * 25)
    trees = from_scikit_learn(model)
    assert np.array_equal(trees.raw(np.zeros((3, 2))), model.decision_function(np.zeros((3, 2))))


@pytest.mark.parametrize(
    "estimator",
    [
        SimpleNamespace(n_features_in_=2, _baseline_prediction=0.0),
        SimpleNamespace(
            n_features_in_=2,
            _baseline_prediction=0.0,
            _predictors=[[SimpleNamespace(nodes=np.zeros(1, dtype=[("value", float)]))]],
        ),
    ],
)
def test_another_layout_is_an_error_that_says_so(estimator: Any) -> None:
    with pytest.raises(Unavailable, match=r"scikit-learn .* keeps its trees"):
        from_scikit_learn(estimator)


def test_what_is_not_covered_is_refused() -> None:
    learned = rows(600, 10)
    several = HistGradientBoostingClassifier(max_iter=2).fit(learned, np.arange(600) % 3)
    with pytest.raises(ValueError, match="several outputs"):
        from_scikit_learn(several)
    made = np.column_stack([np.arange(600) % 6, np.zeros(600)])
    categories = HistGradientBoostingClassifier(categorical_features=[0], max_iter=2)
    categories.fit(made, ((np.arange(600) % 6) % 2))
    with pytest.raises(ValueError, match="category"):
        from_scikit_learn(categories)
    large = HistGradientBoostingClassifier(max_leaf_nodes=100, min_samples_leaf=1, max_iter=2)
    with pytest.raises(ValueError, match="leaves"):
        from_scikit_learn(large.fit(learned, labels(learned)))
