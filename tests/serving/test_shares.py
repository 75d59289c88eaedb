"""Shares of a score: they add up to it, and are those that the weights of the model say."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from shop import clicks, user

from persona_cli.feedback.training import train
from persona_cli.models import registry
from persona_cli.models.shares import added
from persona_cli.serving.context import audience
from persona_cli.serving.recommend import recommend
from persona_cli.workspace.home import Home

LINEAR = ["popular", "knn", "ease", "spectral", "als", "cohort"]


def one(home: Home, number: int, model: Any) -> Any:
    asked = audience(home, pl.Series([user(number)]), include_holdout=True)
    return asked.histories(model.items, home.settings)


@pytest.mark.parametrize("name", LINEAR)
def test_parts_add_up_to_the_score(home: Home, name: str) -> None:
    train(home, [name])
    model = registry.load_model(home, name).model
    for number in (0, 4, 7, 31):
        histories = one(home, number, model)
        found = added(model, histories, np.arange(len(model.items)))
        score: NDArray[np.float32] = model.scores(histories)[0]
        assert found.exact
        np.testing.assert_allclose(found.total, score, rtol=1e-4, atol=1e-6 * float(np.abs(score).max()))


def test_shares_of_a_served_list_add_up_to_one_and_name_own_items_alone(home: Home) -> None:
    made = recommend(home, users=pl.Series([user(4), user(7)]), explain=True, include_holdout=True, top=5)
    for line in pl.concat(list(made.blocks)).to_dicts():
        own = set(clicks(int(line["user_id"][1:])))
        layers = line["layers"]
        assert layers["context"] + layers["cohort"] + layers["individual"] == pytest.approx(1, abs=1e-5)
        for entry in line["items"]:
            assert sum(part["share"] for part in entry["shares"]) == pytest.approx(1, abs=1e-6)
            assert {part["item_id"] for part in entry["shares"]} <= own | {None}


def test_shares_times_score_are_the_weights_of_ease(home: Home) -> None:
    made = recommend(home, users=pl.Series([user(4)]), explain=True, include_holdout=True, top=3, model="ease")
    model: Any = registry.load_model(home, "ease").model
    place = {item: number for number, item in enumerate(model.items)}
    row = one(home, 4, model).rows.toarray()[0]
    weights = model.weights_of(np.arange(len(model.items)))
    (line,) = pl.concat(list(made.blocks)).to_dicts()
    for entry in line["items"]:
        for part in entry["shares"]:
            if part["item_id"] is not None:
                said = row[place[part["item_id"]]] * weights[place[part["item_id"]], place[entry["item_id"]]]
                assert part["share"] * entry["score"] == pytest.approx(said, rel=1e-3, abs=1e-6)


def test_nothing_is_told_that_was_not_asked_for(home: Home) -> None:
    (line,) = pl.concat(list(recommend(home, users=pl.Series([user(4)]), top=3).blocks)).to_dicts()
    assert "layers" not in line and set(line["items"][0]) == {"item_id", "score"}
