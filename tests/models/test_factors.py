from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from persona_cli.models import topk as topk_module
from persona_cli.models.topk import folded_in, products, whitened

RANDOM = np.random.default_rng(5)
PENALTY = 0.7


def made(n_users: int, n_items: int, n_factors: int, share: float) -> tuple[sparse.csr_array, np.ndarray]:
    weights = RANDOM.random((n_users, n_items)) * 5 * (RANDOM.random((n_users, n_items)) < share)
    return sparse.csr_array(weights), RANDOM.standard_normal((n_items, n_factors)).astype(np.float32)


def normal_equations(weights: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """x of Hu, Koren & Volinsky's formula (4) in doubles, one user at a time: (YᵀCY + λI)⁻¹ YᵀC p."""
    y = factors.astype(np.float64)
    rows = []
    for w in weights:
        system = y.T @ np.diag(1 + w) @ y + PENALTY * np.eye(y.shape[1])
        rows.append(np.linalg.solve(system, y.T @ ((1 + w) * (w > 0))))
    return np.array(rows)


@pytest.mark.parametrize(("n_items", "n_factors", "share"), [(12, 5, 0.2), (12, 5, 0.9), (9, 20, 0.5), (6, 1, 0.5)])
def test_scores_are_those_of_the_normal_equations(n_items: int, n_factors: int, share: float) -> None:
    weights, items = made(30, n_items, n_factors, share)
    space = whitened(items, PENALTY)
    scores = products(folded_in(weights, space), space)
    wanted = normal_equations(weights.toarray(), items) @ items.T
    assert np.allclose(scores, wanted, atol=2e-5)
    assert scores.dtype == np.float32


def test_without_a_history_nothing_is_said() -> None:
    _, items = made(1, 7, 3, 0.5)
    assert not folded_in(sparse.csr_array((4, 7)), items).any()
    assert folded_in(sparse.csr_array((0, 7)), items).shape == (0, 3)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 39), min_size=1, max_size=40), st.integers(1, 3000))
def test_a_user_is_the_same_in_any_company(users: list[int], cells: int) -> None:
    rng = np.random.default_rng(2)
    weights = sparse.csr_array(rng.random((40, 30)) * (rng.random((40, 30)) < 0.3))
    items = rng.standard_normal((30, 8)).astype(np.float32)
    whole = folded_in(weights, items)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topk_module, "_BATCH_CELLS", cells)
        part = folded_in(sparse.csr_array(weights[users]), items)
    assert np.array_equal(part, whole[users])
    assert np.array_equal(products(part, items), products(whole, items)[users])


@pytest.mark.parametrize("n_items", [24, 3000])
def test_few_rows_have_the_bits_of_many(n_items: int) -> None:
    users, items = (RANDOM.standard_normal((n, 64)).astype(np.float32) for n in (300, n_items))
    whole = products(users, items)
    for n in (1, 2, 5, 8, 17, 48, 64, 299):
        assert np.array_equal(products(users[:n], items), whole[:n])
