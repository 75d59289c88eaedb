from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from histories import DEFAULTS, Entry, dense_gram, entries, history, liked, matrix
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from persona_cli.errors import BadSettings
from persona_cli.models import gram as gram_module
from persona_cli.models.gram import ONE, Gram, build_gram, empty, gram_of_rows, merge, quantise
from persona_cli.models.interactions import interactions


def of_users(rows: list[Entry], users: set[int]) -> Gram:
    return build_gram(matrix([row for row in rows if row[0] in users]), DEFAULTS)


def test_a_row_is_clipped_divided_by_its_degree_and_rounded_down() -> None:
    # u0 holds three items of strength 0.5, 1 and 4 (clipped to 1): degree 2.5, so divided by √2.5.
    strengths = sparse.csr_array(np.array([[0.5, 1.0, 4.0], [0.0, 0.25, 0.0]], dtype=np.float32))
    rows = quantise(strengths, DEFAULTS).toarray()
    whole = int(65536 / 2.5**0.5)
    # A degree below 1 counts as 1, so a weak signal stays weak.
    assert rows.tolist() == [[int(32768 / 2.5**0.5), whole, whole], [0, 16384, 0]]
    assert rows.dtype == np.int64


def test_cells_are_sums_of_products_above_the_diagonal() -> None:
    made = matrix(liked([(0, 0), (0, 1), (1, 1), (1, 2)]))
    gram = build_gram(made, DEFAULTS)
    half = int(ONE / 2**0.5) ** 2
    assert gram.items.to_list() == ["i0", "i1", "i2"]
    assert gram.cells.toarray().tolist() == [[half, half, 0], [0, 2 * half, half], [0, 0, half]]
    assert gram.users.tolist() == [1, 2, 1]
    assert gram.diagonal.tolist() == [half, 2 * half, half]
    assert (gram.full().toarray() == gram.cells.toarray() + np.triu(gram.cells.toarray(), 1).T).all()
    assert np.array_equal(gram.upper(), gram.cells.toarray() / 2**32)


@given(entries())
def test_the_gram_is_exact(rows: list[Entry]) -> None:
    made = matrix(rows)
    gram = build_gram(made, DEFAULTS)
    quantised = quantise(made.strengths, DEFAULTS)
    wanted = dense_gram(quantised.toarray())
    held = np.flatnonzero(quantised.toarray().any(axis=0))
    assert gram.items.to_list() == made.items[held].to_list()
    assert gram.full().toarray().tolist() == wanted[np.ix_(held, held)].tolist()
    assert gram.users.tolist() == (quantised.toarray()[:, held] > 0).sum(axis=0).tolist()


@given(entries(), st.integers(1, 20))
def test_blocks_do_not_show(rows: list[Entry], cells: int) -> None:
    made = matrix(rows)
    whole = build_gram(made, DEFAULTS).digest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gram_module, "_BLOCK_CELLS", cells)
        assert build_gram(made, DEFAULTS).digest() == whole


@given(entries(), st.lists(st.integers(0, 3), min_size=8, max_size=8), st.permutations(range(4)))
def test_shards_in_any_order_make_the_whole(rows: list[Entry], shard_of: list[int], order: list[int]) -> None:
    shards = [of_users(rows, {user for user in range(8) if shard_of[user] == shard}) for shard in order]
    assert merge(shards).digest() == of_users(rows, set(range(8))).digest()


@given(entries(), st.sets(st.integers(0, 7)))
def test_subtracting_users_leaves_what_would_be_without_them(rows: list[Entry], gone: set[int]) -> None:
    left = of_users(rows, set(range(8))).subtract(of_users(rows, gone))
    assert left.digest() == of_users(rows, set(range(8)) - gone).digest()


@given(entries(), st.randoms(use_true_random=False))
def test_neither_the_order_of_users_nor_strangers_items_matter(rows: list[Entry], random) -> None:  # type: ignore[no-untyped-def]
    made = matrix(rows)
    quantised = quantise(made.strengths, DEFAULTS)
    order = list(range(len(made.users)))
    random.shuffle(order)
    wider = pl.concat([made.items, pl.Series(["a", "z"])]).sort()
    other = interactions(history(rows), DEFAULTS, items=wider)
    assert gram_of_rows(quantised[order], made.items).digest() == build_gram(made, DEFAULTS).digest()
    assert build_gram(other, DEFAULTS).digest() == build_gram(made, DEFAULTS).digest()


def test_the_digest_sees_every_part() -> None:
    gram = build_gram(matrix(liked([(0, 0), (0, 1), (1, 1)])), DEFAULTS)
    cells = gram.cells.copy()
    cells.data[0] += 1
    users = gram.users + np.array([1, 0])
    renamed = pl.Series("item_id", ["i0", "i2"])
    others = [
        Gram(renamed, gram.cells, gram.users),
        Gram(gram.items, cells, gram.users),
        Gram(gram.items, gram.cells, users),
    ]
    assert len({gram.digest(), *(other.digest() for other in others)}) == 4


def test_the_digest_does_not_depend_on_index_types() -> None:
    gram = build_gram(matrix(liked([(0, 0), (0, 1), (1, 1)])), DEFAULTS)
    cells = gram.cells.copy()
    cells.indices, cells.indptr = cells.indices.astype(np.int64), cells.indptr.astype(np.int64)
    assert Gram(gram.items, cells, gram.users).digest() == gram.digest()


def test_subtracting_strangers_is_an_error() -> None:
    one, other = of_users(liked([(0, 0), (0, 1)]), {0}), of_users(liked([(1, 0), (1, 2)]), {1})
    with pytest.raises(ValueError, match="not in the sum"):
        one.subtract(other)


@given(entries(), entries(), st.sets(st.integers(0, 7)))
def test_replacing_users_is_subtracting_and_adding(rows: list[Entry], later: list[Entry], who: set[int]) -> None:
    rest = set(range(8)) - who
    before, after = of_users(rows, rest).add(of_users(rows, who)), of_users(rows, rest).add(of_users(later, who))
    assert before.replace(of_users(rows, who), of_users(later, who)).digest() == after.digest()


def test_an_item_that_nobody_holds_any_more_leaves() -> None:
    rows = liked([(0, 0), (0, 1), (1, 1)])
    assert of_users(rows, {0, 1}).subtract(of_users(rows, {0})).items.to_list() == ["i1"]
    assert of_users(rows, {0}).subtract(of_users(rows, {0})).digest() == empty().digest()


def test_a_cap_that_could_overflow_is_refused() -> None:
    strengths = sparse.csr_array(np.full((3, 1), 1e6, dtype=np.float32))
    high = DEFAULTS.with_flags({"model.gram.cap": 1e6, "model.gram.user_exponent": 0})
    with pytest.raises(BadSettings, match=r"model\.gram\.cap is 1e\+06; with 3 users"):
        quantise(strengths, high)


@settings(max_examples=30)
@given(entries(), st.sampled_from([0.0, 0.3, 0.5, 1.0, 2.0]), st.sampled_from([0.5, 1.0, 3.0]))
def test_the_laws_hold_for_every_normalisation(rows: list[Entry], exponent: float, cap: float) -> None:
    chosen = DEFAULTS.with_flags({"model.gram.user_exponent": exponent, "model.gram.cap": cap})
    halves = [[row for row in rows if row[0] % 2 == part] for part in (0, 1)]
    grams = [build_gram(matrix(half, chosen), chosen) for half in halves]
    whole = build_gram(matrix(rows, chosen), chosen)
    assert grams[0].add(grams[1]).digest() == whole.digest()
    assert whole.subtract(grams[0]).digest() == grams[1].digest()
