"""Given pairs have the scores that they have in the lists."""

from __future__ import annotations

import polars as pl
import pytest
from shop import clicks

from persona_cli.serving.recommend import recommend
from persona_cli.serving.similar import score
from persona_cli.serving.writing import flat
from persona_cli.workspace.home import Home


@pytest.mark.parametrize("model", [None, "popular"])
def test_scores_are_those_of_the_lists(home: Home, model: str | None) -> None:
    rows = pl.concat([flat(block) for block in recommend(home, model=model, top=40).blocks])
    pairs = rows.select("user_id", "item_id").sample(fraction=1.0, shuffle=True, seed=3)
    scored = score(home, pairs, model=model)
    assert scored.select("user_id", "item_id").equals(pairs)
    expected = pairs.join(rows, on=["user_id", "item_id"], how="left", maintain_order="left")["score"]
    assert scored["score"].to_list() == expected.to_list()


def test_consumed_items_are_scored_too_and_rows_stay_as_they_are(home: Home) -> None:
    pairs = pl.DataFrame({"user_id": ["u04"] * 3, "item_id": [clicks(4)[0], "a00", clicks(4)[0]], "note": [1, 2, 3]})
    scored = score(home, pairs)
    assert scored.columns == ["user_id", "item_id", "note", "score", "blocked"]
    assert scored["score"].null_count() == 0
    assert scored["score"][0] == scored["score"][2]


def test_strangers_get_the_popular_score_and_unheard_items_none(home: Home) -> None:
    pairs = pl.DataFrame({"user_id": ["x", "u04", "x"], "item_id": ["a01", "unheard", "unheard"]})
    scored = score(home, pairs, include_holdout=True)
    assert scored["score"].is_null().to_list() == [False, True, True]
    line = next(iter(recommend(home, users=pl.Series(["x"]), top=40, include_holdout=True).blocks))
    shown = {entry["item_id"]: entry["score"] for entry in line["items"][0]}
    assert scored["score"][0] == shown["a01"]


def test_no_pairs_no_scores(home: Home) -> None:
    nothing = pl.DataFrame(schema={"user_id": pl.String, "item_id": pl.String})
    expected = {"user_id": pl.String, "item_id": pl.String, "score": pl.Float64, "blocked": pl.Boolean}
    assert score(home, nothing).schema == expected
