from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from histories import histories, liked, training
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse
from threadpoolctl import threadpool_limits

from persona_cli.models.als import Als, by_size, chance, liked_rows, penalty_share

RANDOM = np.random.default_rng(11)
TASTE = RANDOM.standard_normal((60, 4)) @ RANDOM.standard_normal((4, 40))
PAIRS = [(int(u), int(i)) for u, i in zip(*np.nonzero(TASTE > 1.5), strict=True)]
TRAINING = training(liked(PAIRS))
K = 10


def weights(user_exponent: float, item_exponent: float) -> np.ndarray:
    """d_u^-a d_i^-b in doubles, on the mean 1 (n_users, n_items)."""
    filled = (liked_rows(TRAINING.interactions, 1.0)[1].toarray() > 0).astype(np.float64)
    raw = filled * filled.sum(1, keepdims=True) ** -user_exponent * filled.sum(0) ** -item_exponent
    return np.asarray(raw / raw[raw > 0].mean())


@pytest.mark.parametrize(("user_exponent", "item_exponent"), [(0.0, 0.0), (0.6, 0.35)])
def test_lists_are_those_of_implicit(user_exponent: float, item_exponent: float) -> None:
    model = Als(8, 5.0, 2.0, user_exponent, item_exponent, iterations=6, seed=3).fit(TRAINING)
    confidence = weights(user_exponent, item_exponent) * 5.0
    confidence[confidence > 0] += 1
    rows = sparse.csr_matrix(confidence.astype(np.float32))
    with threadpool_limits(1, user_api="blas"):
        peer = AlternatingLeastSquares(factors=8, regularization=2.0, iterations=6, num_threads=1, random_state=3)
        peer.fit(rows, show_progress=False)
        ids, values = peer.recommend(np.arange(rows.shape[0]), rows, N=K, recalculate_user=True)
    scores = model.scores(histories(TRAINING.interactions, model.items))
    scores[rows.toarray() > 0] = -np.inf
    best = np.argsort(-scores, axis=1)[:, :K]
    found = np.take_along_axis(scores, ids, axis=1)
    assert np.allclose(found, values, atol=1e-4)
    assert (best == ids).mean() > 0.99  # the others are near-ties
    # The users as implicit learned them, rather than folded in, lead to nearly the same lists.
    learned, _ = peer.recommend(np.arange(rows.shape[0]), rows, N=K)
    assert np.mean([len(set(a) & set(b)) for a, b in zip(best, learned, strict=True)]) > 0.9 * K


def test_threads_change_no_byte(tmp_path: Path) -> None:
    digests = []
    for threads in (1, 2, 3):
        folder = tmp_path / str(threads)
        folder.mkdir()
        Als(threads=threads).fit(TRAINING).save(folder)
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())])
    assert digests[0] == digests[1] == digests[2]


def test_weights_follow_strengths_and_degrees() -> None:
    rows = [(0, 0, 0, 1000, False), (0, 1, 0, 250, False), (1, 0, 0, 1000, False)]
    model = Als(alpha=3.0, user_exponent=1.0, item_exponent=0.5).fit(training(rows))
    who = histories(training(rows).interactions, model.items)
    raw = np.array([[1 / 2 / 2**0.5, 0.25 / 2], [1 / 2**0.5, 0]])
    assert np.allclose(model._weights(who.rows).toarray(), 3 * raw / raw[raw > 0].mean())


def test_settings_by_rule() -> None:
    model = Als().fit(TRAINING)
    n_users, n_items = len(TRAINING.interactions.users), len(model.items)
    density = len(PAIRS) / (n_users * n_items)
    settings = model.settings()
    assert settings["alpha"] == pytest.approx(0.5 / density**0.5)
    assert settings["factors"] == 8
    confidence = sparse.csr_matrix(1 + settings["alpha"] * weights(0.6, 0.35)) - sparse.csr_matrix(
        (weights(0.6, 0.35) == 0).astype(float)
    )
    assert settings["regularization"] == pytest.approx(0.6 * chance(sparse.csr_matrix(confidence)), rel=1e-5)
    assert Als(factors=5, alpha=2, regularization=1).fit(TRAINING).settings()["factors"] == 5


def test_rules() -> None:
    assert [by_size(100, n) for n in (3, 400, 3000, 30_000, 300_000)] == [8, 50, 128, 256, 128]
    assert penalty_share(0.001) == pytest.approx(0.3)
    assert penalty_share(0.5) == 0.6
    # Of a matrix of independent entries the largest singular value is near this.
    noise = RANDOM.standard_normal((400, 300))
    assert chance(sparse.csr_matrix(noise)) == pytest.approx(np.linalg.norm(noise, 2), rel=0.05)


def test_items_that_nobody_likes_are_not_covered() -> None:
    rows = [(0, 0, 0, 1000, False), (0, 1, 0, -1000, False), (1, 2, 0, 1000, True), (1, 3, 0, 3000, False)]
    model = Als().fit(training(rows))
    assert model.items.to_list() == ["i0", "i3"]
    assert liked_rows(training(rows).interactions, 2.0)[1].toarray().tolist() == [[1, 0], [0, 2]]


def test_nobody_likes_anything() -> None:
    empty = training([(0, 0, 0, -1000, False)])
    model = Als().fit(empty)
    assert model.scores(histories(empty.interactions, model.items)).shape == (1, 0)
