from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import svds

from persona_cli.models import eigen
from persona_cli.models.eigen import leading

RNG = np.random.default_rng(5)


def rows_of(dense: np.ndarray) -> sparse.csr_array:
    return sparse.csr_array(dense.astype(np.float32))


def decaying(n_users: int = 300, n_items: int = 80) -> sparse.csr_array:
    """Sparse rows whose Gram has a few large eigenvalues and a long tail."""
    taste = RNG.random((n_users, 6)) ** 4 @ RNG.random((6, n_items)) ** 4
    return rows_of((RNG.random((n_users, n_items)) < taste / taste.max()) * RNG.random((n_users, 1)))


@pytest.fixture(params=["whole", "iterated"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of `leading`: the Gram as a whole, and blocks of vectors."""
    if request.param == "iterated":
        monkeypatch.setattr(eigen, "DENSE", 0)
    return str(request.param)


def test_equals_the_eigenpairs_of_the_dense_gram(way: str) -> None:
    rows = decaying()
    gram = rows.toarray().astype(np.float64).T @ rows.toarray()
    values = np.linalg.eigvalsh(gram)[::-1]
    found = leading(rows, 5, steps=40)
    assert found.values == pytest.approx(values[:5], rel=1e-4)
    assert found.vectors.dtype == np.float32
    assert np.allclose(found.vectors.T @ found.vectors, np.eye(5), atol=1e-5)
    assert np.allclose(gram @ found.vectors, found.vectors * found.values, atol=1e-3 * values[0])
    assert found.rest == pytest.approx(values[5:].sum(), rel=1e-4)


def test_four_steps_find_the_space_that_svds_finds(way: str) -> None:
    rows = decaying(2000, 400)
    exact = np.sort(svds(rows.astype(np.float64), 20, return_singular_vectors=False))[::-1] ** 2
    # The sum of what is kept is what truncation wants to be large.
    assert leading(rows, 20, steps=4).values.sum() == pytest.approx(exact.sum(), rel=0.02)


def test_columns_that_depend_on_each_other(way: str) -> None:
    column = RNG.random((50, 1))
    rows = rows_of(np.hstack([column, column, 2 * column, np.zeros((50, 9))]))
    found = leading(rows, 4)
    assert found.values == pytest.approx([6 * float((column**2).sum()), 0, 0, 0], rel=1e-4, abs=1e-4)
    assert np.isfinite(found.vectors).all()
    assert np.allclose(found.vectors.T @ found.vectors, np.eye(4), atol=1e-4)
    assert found.rest == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(("n_users", "n_items", "k"), [(3, 10, 3), (10, 2, 2), (0, 4, 0), (5, 0, 0), (1, 1, 1)])
def test_no_more_pairs_than_the_shape_has(way: str, n_users: int, n_items: int, k: int) -> None:
    found = leading(rows_of(RNG.random((n_users, n_items))), 8)
    assert found.values.shape == (k,)
    assert found.vectors.shape == (n_items, k)


def test_users_who_do_nothing_change_no_bit(way: str) -> None:
    rows = decaying()
    padded = sparse.csr_array(sparse.vstack([rows, sparse.csr_array((40, rows.shape[1]), dtype=np.float32)]))
    once, again, more = leading(rows, 7), leading(rows, 7), leading(padded, 7)
    assert once.vectors.tobytes() == again.vectors.tobytes()
    assert once.vectors.tobytes() == more.vectors.tobytes()


def test_strips_of_columns_make_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eigen, "DENSE", 0)
    rows = decaying()
    whole = leading(rows, 20)
    monkeypatch.setattr(eigen, "_STRIP", 3)
    assert leading(rows, 20).vectors.tobytes() == whole.vectors.tobytes()


def test_each_vector_points_to_where_it_is_largest(way: str) -> None:
    vectors = leading(decaying(), 6).vectors
    assert (vectors[np.abs(vectors).argmax(axis=0), np.arange(6)] > 0).all()
