"""Shares of a score: they add up to it, and are those that the weights of the model say."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import sparse
from shop import add_items, clicks, shop, user

from persona_cli.feedback.training import train
from persona_cli.models import registry
from persona_cli.models.base import Histories
from persona_cli.models.shares import added
from persona_cli.models.stored import positions
from persona_cli.serving.context import audience
from persona_cli.serving.reasons import Reasons
from persona_cli.serving.recommend import filling, recommend
from persona_cli.workspace.home import Home, open_home

LINEAR = ["popular", "knn", "ease", "spectral", "als", "cohort", "content"]
CLOSE = 1e-6
"""Of the largest score: models add up in float32, whose last place is 6e-8."""
Row = NDArray[np.float32]


def catalogue() -> list[dict[str, Any]]:
    return [
        {"item_id": f"{kind}{n:02d}", "category": f"c{n // 4}", "title": f"thing {kind} {n % 5}", "tags": [f"t{n % 4}"]}
        for kind in "ab"
        for n in range(20)
    ]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = shop(tmp_path_factory.mktemp("shares") / "w")
    add_items(home, catalogue())
    train(home, LINEAR)
    train(home)
    return home


def histories(row: Row, dislikes: Row | None = None, query: str | None = None, device: str | None = None) -> Histories:
    context = pl.DataFrame({"device": [device], "country": [None]}, schema={"device": pl.String, "country": pl.String})
    return Histories(
        sparse.csr_array(row[None, :]),
        np.array([np.count_nonzero(row)]),
        context,
        None,
        None if dislikes is None else sparse.csr_array(dislikes[None, :]),
        None if query is None else pl.Series([query]),
    )


rows = arrays.arrays(
    np.float32,
    40,
    elements=st.one_of(st.just(np.float32(0)), st.floats(np.float32(0.05), 1.0, width=32)),  # type: ignore[arg-type]
    fill=st.just(np.float32(0)),
)


@pytest.mark.parametrize("name", LINEAR)
@settings(max_examples=40)
@given(row=rows, query=st.sampled_from([None, "thing 3", "thing a"]))
def test_parts_add_up_to_the_score(described: Home, name: str, row: Row, query: str | None) -> None:
    model = registry.load_model(described, name).model
    one = histories(row, query=query if name == "content" else None, device="mobile")
    found = added(model, one, np.arange(len(model.items)))
    score = model.scores(one)[0]
    assert found.exact
    np.testing.assert_allclose(found.total, score, rtol=0, atol=CLOSE * float(np.abs(score).max()))


@settings(max_examples=40)
@given(row=rows, disliked=rows)
def test_the_layers_add_up_to_the_score(described: Home, row: Row, disliked: Row) -> None:
    model: Any = registry.load_model(described, "layered").model
    one = histories(row, np.where(row > 0, np.float32(0), disliked), device="desktop")
    hidden = sparse.csr_array(one.rows.astype(bool))
    found = model.layers(one, hidden)
    inside = model.individual
    own = added(inside, one.over(positions(model.items, inside.items), len(inside.items)), np.arange(len(inside.items)))
    total = (found.from_cohort + found.from_context + found.disliked)[0].astype(np.float64)
    total[positions(inside.items, model.items)] += own.total * found.factor[0]
    score = model.scores(one, hidden)[0]
    np.testing.assert_allclose(total, score, rtol=0, atol=CLOSE * float(np.abs(score).max()))
    assert found.individual[0] + found.cohort[0] + found.context[0] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", [None, "knn", "ease", "spectral", "als", "content"])
def test_parts_add_up_to_what_is_served(described: Home, name: str | None) -> None:
    """The scores of lists, those of the popular list behind the model's own included."""
    saved = registry.load_model(described, name)
    asked = audience(described, pl.Series([user(4), user(7), "stranger"]), include_holdout=True)
    reasons = Reasons(described, saved, asked, described.settings, filling(described, saved)[1])
    made = recommend(described, users=asked.users, model=name, top=40, include_holdout=True)
    for number, line in enumerate(pl.concat(list(made.blocks)).sort("user_id").to_dicts()):
        assert line["user_id"] == asked.users[number]
        ids, scores = ([entry[key] for entry in line["items"]] for key in ("item_id", "score"))
        vocabulary = pl.Series("item_id", sorted(ids))
        found = reasons.explained(number, positions(pl.Series(ids), vocabulary), np.float32(scores), vocabulary)
        # Written with five digits.
        np.testing.assert_allclose(found.parts.total, scores, rtol=1e-4, atol=CLOSE * max(scores))


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
    asked = audience(home, pl.Series([user(4)]), include_holdout=True)
    row = asked.histories(model.items, home.settings).rows.toarray()[0]
    weights = model.weights_of(np.arange(len(model.items)))
    (line,) = pl.concat(list(made.blocks)).to_dicts()
    for entry in line["items"]:
        for part in entry["shares"]:
            if part["item_id"] is not None:
                said = row[place[part["item_id"]]] * weights[place[part["item_id"]], place[entry["item_id"]]]
                assert part["share"] * entry["score"] == pytest.approx(said, rel=1e-3, abs=1e-6)


def test_a_ranker_is_explained_by_its_candidates_and_says_so(home: Home) -> None:
    train(home, ["ranker"])
    made = recommend(home, users=pl.Series([user(4)]), explain=True, include_holdout=True, top=3, model="ranker")
    (line,) = pl.concat(list(made.blocks)).to_dicts()
    assert line["layers"]["by"].endswith("which found the candidates of ranker") and not line["layers"]["exact"]
    for entry in line["items"]:
        assert entry["reasons"][-1] == f"as seen by {line['layers']['by']}"
        assert sum(part["share"] for part in entry["shares"]) == pytest.approx(1, abs=1e-6)


def test_nothing_is_told_that_was_not_asked_for(home: Home) -> None:
    (line,) = pl.concat(list(recommend(home, users=pl.Series([user(4)]), top=3).blocks)).to_dicts()
    assert "layers" not in line and set(line["items"][0]) == {"item_id", "score"}


def test_a_boosted_entry_names_the_rule(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.root, tmp_path / "ruled")
    with (tmp_path / "ruled" / "persona.toml").open("a") as file:
        file.write('\n[rules.boost.summer]\nitems = ["a14"]\n')
    made = recommend(open_home(tmp_path / "ruled"), users=pl.Series([user(4)]), explain=True, include_holdout=True)
    (line,) = pl.concat(list(made.blocks)).to_dicts()
    entries = {entry["item_id"]: entry for entry in line["items"]}
    assert entries["a14"]["rules"] == ["rules.boost.summer"] and "boosted by rule summer" in entries["a14"]["reasons"]
    assert all(not entry["rules"] for item, entry in entries.items() if item != "a14")
