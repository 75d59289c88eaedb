"""Lists against a plain sort, and the same lists whatever the threads and blocks."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from histories import DEFAULTS, Entry, Everyone, entries, liked, training
from hypothesis import given
from hypothesis import strategies as st

from persona_cli.models.base import Histories, Model
from persona_cli.models.ease import Ease
from persona_cli.models.knn import Knn
from persona_cli.models.layered import Layered
from persona_cli.models.popular import Popular
from persona_cli.models.ranking import rank


def sparse_world(n_users: int = 150, n_items: int = 60) -> list[Entry]:
    return liked([(u, i) for u in range(n_users) for i in range(n_items) if (u * 7 + i * i) % 11 == 0])


WORLD = training(sparse_world())
ASKED = Everyone(WORLD.interactions)
MODELS: dict[str, Model] = {
    "popular": Popular().fit(WORLD),
    "knn": Knn(4).fit(WORLD),
    "ease": Ease(2.0).fit(WORLD),
    "layered": Layered(Popular(), Ease(2.0), 4.0).fit(WORLD),
}


def lists_of(frame: pl.DataFrame) -> dict[str, list[tuple[str, float]]]:
    return {
        str(user[0]): list(part.sort("rank").select("item_id", "score").rows())
        for user, part in frame.group_by(["user_id"])
    }


def plain(asked: Everyone, model: Model, k: int) -> dict[str, list[tuple[str, float]]]:
    """Every item of the model, scored and sorted in Python."""
    hidden = asked.excluded(model.items)
    given = asked.histories(model.items, DEFAULTS)
    scores = model.scores(given, hidden) if isinstance(model, Layered) else model.scores(given)
    found = {}
    for user, name in enumerate(asked.users):
        seen = set(hidden[[user]].indices)
        entries = [(-float(scores[user, i]), item) for i, item in enumerate(model.items) if i not in seen]
        if entries:
            found[name] = [(item, -score) for score, item in sorted(entries)[:k]]
    return found


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("k", [1, 5, 1000])
def test_lists_are_those_of_a_plain_sort(name: str, k: int) -> None:
    assert lists_of(rank(MODELS[name], ASKED, k, DEFAULTS)) == plain(ASKED, MODELS[name], k)


@given(entries(), st.integers(1, 9))
def test_lists_are_those_of_a_plain_sort_for_any_history(rows: list[Entry], k: int) -> None:
    made = training(rows)
    for model in (Popular().fit(made), Layered(Popular(), Knn(3), 2.0).fit(made)):
        asked = Everyone(made.interactions)
        assert lists_of(rank(model, asked, k, DEFAULTS)) == plain(asked, model, k)


@pytest.mark.parametrize("name", MODELS)
def test_threads_and_blocks_change_nothing(name: str) -> None:
    one = DEFAULTS.with_flags({"compute.threads": 1})
    expected = rank(MODELS[name], ASKED, 7, one, fill=MODELS["popular"], block=1000)  # type: ignore[arg-type]
    assert expected.height == 7 * len(ASKED.users)
    assert len(ASKED.users) > 64, "EASE scores many users in another way than few"
    for threads in (1, 3):
        settings = DEFAULTS.with_flags({"compute.threads": threads})
        for block in (1, 3, None):
            found = rank(MODELS[name], ASKED, 7, settings, fill=MODELS["popular"], block=block)  # type: ignore[arg-type]
            assert found.equals(expected), (threads, block)


def test_ranks_count_from_one_and_rows_follow_the_users() -> None:
    frame = rank(MODELS["ease"], ASKED, 3, DEFAULTS, block=7)
    assert frame["user_id"].unique(maintain_order=True).to_list() == ASKED.users.to_list()
    assert frame["rank"].to_list() == [1, 2, 3] * len(ASKED.users)
    assert frame.schema == {"user_id": pl.String, "item_id": pl.String, "rank": pl.Int64, "score": pl.Float64}


def test_a_model_that_says_nothing_is_followed_by_the_popular_list() -> None:
    # i0 … i3 go together for three users; the popular list also has i4 … i9, which one user each has seen alone.
    rows = liked([(u, i) for u in range(3) for i in range(4) if u != i])
    rows += liked([(3 + n, 4 + n) for n in range(6) for _ in range(1)])
    made = training([*rows, (9, 9, 0, 1000, False)])
    asked, popular, knn = Everyone(made.interactions), Popular().fit(made), Knn().fit(made)
    lists = lists_of(rank(knn, asked, 20, DEFAULTS, fill=popular))
    first = lists["u0"]
    assert first[0][0] == "i0", "the only thing that others with u0's items also like comes first"
    general = [item for item, _ in plain(asked, popular, 99)["u0"]]
    assert [item for item, _ in first[1:]] == [item for item in general if item != "i0"]
    scores = [score for _, score in first]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0
    alone = [item for item, _ in lists["u5"]]
    assert alone == [item for item, _ in plain(asked, popular, 99)["u5"]], "nothing goes with i6, so all is popular"


def test_fill_reaches_items_that_the_model_does_not_cover() -> None:
    few = Ease(2.0, max_items=3).fit(WORLD)
    assert len(few.items) == 3
    lists = lists_of(rank(few, ASKED, 10, DEFAULTS, fill=MODELS["popular"]))  # type: ignore[arg-type]
    assert {len(listed) for listed in lists.values()} == {10}
    without = lists_of(rank(few, ASKED, 10, DEFAULTS))
    assert max(map(len, without.values())) <= 3


def test_candidates_are_exactly_what_is_ranked() -> None:
    items = pl.Series("item_id", ["i5", "i17", "nowhere", "i5", "i2"])
    frame = rank(MODELS["layered"], ASKED, 10, DEFAULTS, only=items)
    whole = lists_of(rank(MODELS["layered"], ASKED, 1000, DEFAULTS))
    for user, listed in lists_of(frame).items():
        expected = [(item, score) for item, score in whole[user] if item in ("i5", "i17", "i2")]
        assert [entry for entry in listed if entry[0] != "nowhere"] == expected
        assert ("nowhere", 0.0) in listed


def test_candidates_of_each_user() -> None:
    first, second = ASKED.users[0], ASKED.users[1]
    pairs = pl.DataFrame({"user_id": [first, first, second, "stranger"], "item_id": ["i3", "i9", "i9", "i1"]})
    lists = lists_of(rank(MODELS["layered"], ASKED, 10, DEFAULTS, only=pairs))
    found = {(user, item) for user, listed in lists.items() for item, _ in listed}
    assert found == set(pairs.rows()[:3]) - _seen()
    assert len(found) > 1


def test_what_may_never_be_shown_is_in_no_list() -> None:
    never = pl.Series("item_id", ["i1", "i2", "unknown"])
    for fill in (None, MODELS["popular"]):
        for only in (None, pl.Series("item_id", ["i1", "i2", "i3", "i4", "i5"])):
            frame = rank(MODELS["knn"], ASKED, 60, DEFAULTS, fill=fill, only=only, never=never)  # type: ignore[arg-type]
            assert not frame["item_id"].is_in(["i1", "i2"]).any()
            assert not set(frame.select("user_id", "item_id").rows()) & _seen()


def test_nobody_asked_is_an_empty_frame() -> None:
    nobody = Everyone(training([]).interactions)
    frame = rank(MODELS["ease"], nobody, 5, DEFAULTS)
    assert frame.columns == ["user_id", "item_id", "rank", "score"]
    assert frame.height == 0


def _seen() -> set[tuple[str, str]]:
    seen = WORLD.interactions.seen.tocoo()
    users, items = WORLD.interactions.users, WORLD.interactions.items
    return {(users[int(u)], items[int(i)]) for u, i in zip(*seen.coords, strict=True)}


def test_scores_handed_over_read_only_are_not_written_to() -> None:
    class Fixed(Popular):
        def scores(self, histories: Histories) -> np.ndarray:  # type: ignore[override]
            scores = super().scores(histories)
            scores.flags.writeable = False
            return scores

    fixed = Fixed().fit(WORLD)
    assert lists_of(rank(fixed, ASKED, 4, DEFAULTS)) == lists_of(rank(MODELS["popular"], ASKED, 4, DEFAULTS))
