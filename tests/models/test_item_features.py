from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from persona_cli.models.item_features import item_features

CATALOGUE = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d", "e", "f"],
        "category": ["news", "news", None, "sport", "sport", "news"],
        "tags": [["short", "video"], ["short", "short"], [], None, ["video", None], ["alone"]],
        "price": [1.0, 2.0, 3.0, 4.0, 5.0, None],
    },
    schema_overrides={"tags": pl.List(pl.String)},
)
ITEMS = CATALOGUE["item_id"]


def test_by_hand() -> None:
    made = item_features(CATALOGUE, ITEMS)
    assert made.names.to_list() == ["category=news", "category=sport", "tag=short", "tag=video"]
    wanted = [[1, 0, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0]]
    assert made.matrix.toarray().tolist() == wanted
    assert made.described().tolist() == [True, True, False, True, True, True]


def test_rare_features_on_demand() -> None:
    names = item_features(CATALOGUE, ITEMS, least=1).names.to_list()
    assert "tag=alone" in names
    # Fifths of five prices: one item each.
    assert [name for name in names if name.startswith("price=")] == [f"price={band}" for band in range(1, 6)]


def test_equal_prices_are_in_one_band_and_few_prices_make_none() -> None:
    priced = pl.DataFrame({"item_id": [f"i{n:02d}" for n in range(20)], "price": [float(n // 4) for n in range(20)]})
    catalogue = priced.with_columns(category=pl.lit(None, pl.String), tags=pl.lit(None, pl.List(pl.String)))
    made = item_features(catalogue, catalogue["item_id"])
    assert made.matrix.toarray().argmax(axis=1).tolist() == [n // 4 for n in range(20)]
    few = catalogue.with_columns(price=pl.col("price").clip(0, 3))
    assert item_features(few, few["item_id"]).names.to_list() == []


def test_items_that_the_catalogue_does_not_know_have_none() -> None:
    made = item_features(CATALOGUE, pl.Series("item_id", ["b", "x", "a"]))
    assert made.matrix.toarray().tolist() == [[1, 1], [0, 0], [1, 1]]
    assert item_features(None, ITEMS).matrix.shape == (6, 0)


def test_with_identity_each_item_has_a_feature_of_its_own() -> None:
    made = item_features(CATALOGUE, ITEMS)
    dense = made.with_identity().toarray()
    assert np.array_equal(dense[:, :6], np.eye(6))
    assert np.array_equal(dense[:, 6:], made.matrix.toarray())


@given(st.permutations(range(6)))
def test_the_order_of_the_catalogue_does_not_matter(order: list[int]) -> None:
    made, wanted = item_features(CATALOGUE[order], ITEMS), item_features(CATALOGUE, ITEMS)
    assert made.names.equals(wanted.names)
    assert np.array_equal(made.matrix.toarray(), wanted.matrix.toarray())
