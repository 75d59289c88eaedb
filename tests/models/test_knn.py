from __future__ import annotations

import numpy as np
from histories import Entry, entries, histories, liked, training
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from persona_cli.models.gram import quantise
from persona_cli.models.knn import Knn, largest_of_rows
from persona_cli.workspace.settings import load


def test_weights_by_hand() -> None:
    # Users {0,1} and {1,2}: both rows are normalised by √2, so each pair has a cell of about 1/2.
    model = Knn(neighbours=5, left=1.0, right=0.5).fit(training(liked([(0, 0), (0, 1), (1, 1), (1, 2)])))
    r = 0.5 / 2**0.5
    assert np.allclose(model.weights_.toarray(), [[0, r, 0], [0.25, 0, 0.25], [0, r, 0]], rtol=1e-4)
    assert model.weights_.dtype == np.float32


@given(entries(), st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.2]), st.sampled_from([0.0, 0.4]))
def test_equals_the_dense_definition(rows: list[Entry], neighbours: int, left: float, right: float) -> None:
    settings = load(None, {})
    given_training = training(rows, settings)
    model = Knn(neighbours, left, right).fit(given_training)
    made = given_training.interactions
    quantised = quantise(made.strengths, settings).toarray() / 65536  # (n_users, n_items)
    held = quantised.any(axis=0)
    quantised = quantised[:, held]
    degrees = (quantised > 0).sum(axis=0).astype(float)
    weights = (quantised.T @ quantised) * np.outer(degrees**-left, degrees**-right)
    np.fill_diagonal(weights, 0)
    pruned = weights.astype(np.float32)
    for row in pruned:
        row[np.lexsort((np.arange(len(row)), -row))[neighbours:]] = 0
    assert np.allclose(model.weights_.toarray(), pruned, rtol=1e-6)
    who = histories(made, model.items)
    assert np.allclose(model.scores(who), who.rows.toarray() @ pruned, rtol=1e-5, atol=1e-7)


def test_of_equal_weights_the_lower_columns_are_kept() -> None:
    matrix = sparse.csr_array(np.array([[1, 2, 1, 2, 1], [0, 0, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=np.float32))
    assert largest_of_rows(matrix, 3).toarray().tolist() == [[1, 2, 0, 2, 0], [0, 0, 1, 0, 0], [1, 1, 1, 0, 0]]


def test_auto_exponents_depend_on_how_full_the_matrix_is() -> None:
    dense = training(liked([(user, item) for user in range(4) for item in range(4)]))
    thin = training(liked([(user, user) for user in range(60)]))
    assert Knn().fit(dense).settings() == {"neighbours": 200, "left": 0.9, "right": 0.5}
    assert Knn().fit(thin).settings() == {"neighbours": 200, "left": 0.8, "right": 0.3}
    assert Knn(left=0.7).fit(thin).settings() == {"neighbours": 200, "left": 0.7, "right": 0.3}
