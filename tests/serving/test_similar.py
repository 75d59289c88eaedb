"""Items that go together: the rows of the individual model's weights."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from shop import add_items

from persona_cli.errors import MissingInput, UsageError
from persona_cli.feedback.training import train
from persona_cli.models import registry
from persona_cli.serving.similar import similar
from persona_cli.workspace.home import Home


@pytest.mark.parametrize("name", ["ease", "knn"])
def test_neighbours_are_the_largest_weights_of_the_row(home: Home, name: str) -> None:
    model = registry.load_model(home, name).model
    row = model.weights_of(np.array([model.items.to_list().index("a03")]))[0]  # type: ignore[attr-defined]
    expected = sorted(((-weight, item) for weight, item in zip(row, model.items, strict=True) if weight > 0))[:4]
    found = similar(home, "a03", top=4, model=name)
    assert found.columns == ["item_id", "rank", "similar_id", "score"]
    assert found["similar_id"].to_list() == [item for _, item in expected]
    np.testing.assert_allclose(found["score"].to_numpy(), [-weight for weight, _ in expected], rtol=1e-4)


def test_they_are_of_one_taste_and_never_the_item_itself(home: Home) -> None:
    found = similar(home, top=3)
    assert found["item_id"].n_unique() == 40
    assert found.filter(pl.col("item_id") == pl.col("similar_id")).height == 0
    assert (found["item_id"].str.head(1) == found["similar_id"].str.head(1)).all()


def test_all_are_each_one(home: Home) -> None:
    every = similar(home, top=3)
    for item in ("a00", "b19"):
        assert every.filter(pl.col("item_id") == item).equals(similar(home, item, top=3))


def test_what_is_not_available_is_left_out(home: Home) -> None:
    first = similar(home, "a03", top=1)["similar_id"][0]
    add_items(home, [{"item_id": first, "available": False}])
    assert first not in similar(home, "a03", top=40)["similar_id"]


def test_an_unknown_item_and_a_model_without_neighbours(home: Home) -> None:
    with pytest.raises(MissingInput, match="knows no item 'a99'; did you mean"):
        similar(home, "a99")
    with pytest.raises(UsageError, match="the popular list alone"):
        similar(home, "a03", model="popular")
    train(home, ["popular"])
    with pytest.raises(UsageError, match="the popular list alone"):
        similar(home, "a03")
