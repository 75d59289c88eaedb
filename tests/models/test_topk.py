from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_cli.models.topk import topk


def by_sorting(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    places = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    best = np.lexsort((places, -scores), axis=1)[:, :k]
    return best, np.take_along_axis(scores, best, axis=1)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 6),
    st.one_of(st.integers(1, 60), st.integers(300, 3000)),
    st.integers(1, 25),
    st.sampled_from(["distinct", "ties", "equal", "mostly hidden", "all hidden", "few values"]),
)
def test_equals_a_full_sort(seed: int, n_users: int, n_items: int, k: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    scores = random.standard_normal((n_users, n_items)).astype(np.float32)
    if kind == "ties":
        scores = np.round(scores * 3)
    elif kind == "equal":
        scores[:] = -1.5
    elif kind == "mostly hidden":
        scores[random.random(scores.shape) < 0.99] = -np.inf
    elif kind == "all hidden":
        scores[:] = -np.inf
    elif kind == "few values":
        scores = np.where(random.random(scores.shape) < 0.01, scores, 0).astype(np.float32)
    before = scores.copy()
    best, values = topk(scores, k)
    wanted, wanted_values = by_sorting(scores, k)
    assert np.array_equal(best, wanted)
    assert np.array_equal(values, wanted_values)
    assert values.dtype == np.float32
    assert np.array_equal(scores, before)


def test_ties_go_to_the_lower_position_also_across_groups() -> None:
    # Every 37th position holds a 1, each in another group of the kernel.
    scores = np.zeros((1, 1000), dtype=np.float32)
    scores[0, 37::37] = 1
    best, _ = topk(scores, 5)
    assert best.tolist() == [[37, 74, 111, 148, 185]]


@pytest.mark.parametrize(("shape", "k", "expected"), [((3, 4), 9, (3, 4)), ((0, 4), 2, (0, 2)), ((2, 0), 3, (2, 0))])
def test_a_list_is_no_longer_than_what_there_is(shape: tuple[int, int], k: int, expected: tuple[int, int]) -> None:
    best, values = topk(np.zeros(shape, dtype=np.float32), k)
    assert best.shape == values.shape == expected
