"""Wishes over a vocabulary: by hand, and against a plain second version over any catalogue."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from histories import Everyone, histories, liked, training
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from persona_cli.models.base import Histories
from persona_cli.models.knn import Knn
from persona_cli.models.layered import Layered
from persona_cli.models.popular import Popular
from persona_cli.models.ranking import rank
from persona_cli.models.wishes import Wishes
from persona_cli.workspace.settings import load

SETTINGS = load(None, {})
WORLD = training(liked([(u, i) for u in range(24) for i in range(18) if (u + i * i) % 3 != 0]))
N = len(WORLD.interactions.users)
ITEMS = WORLD.interactions.items.to_list()
MODELS: dict[str, Any] = {
    "popular": Popular().fit(WORLD),
    "knn": Knn(4).fit(WORLD),
    "layered": Layered(Popular(), Knn(4), 4.0).fit(WORLD),
}


def frame(rows: list[Any], *names: str) -> pl.DataFrame:
    types = {"place": pl.Int64, "left": pl.Float64}
    return pl.DataFrame(rows, schema={name: types.get(name, pl.String) for name in names}, orient="row")


def wishes(
    n_users: int,
    blocked: list[tuple[int, str]] = [],  # noqa: B006
    less: list[tuple[int, str, float]] = [],  # noqa: B006
    named: list[tuple[int, str]] = [],  # noqa: B006
    members: list[tuple[str, str]] = [],  # noqa: B006
    factor: float = 0.5,
    evidence: float = 5.0,
    leading: list[tuple[int, str]] = [],  # noqa: B006
) -> Wishes:
    return Wishes(
        n_users,
        frame(blocked, "place", "key"),
        frame(less, "place", "key", "left"),
        frame(named, "place", "key"),
        frame(leading, "place", "key"),
        frame(members, "key", "item_id"),
        factor,
        evidence,
    )


def test_scores_are_lowered_and_raised_by_hand() -> None:
    said = wishes(
        3,
        less=[(0, "item:b", 1.0), (0, "category:x", 2.0), (1, "tag:gone", 9.0)],
        named=[(1, "answer:q"), (1, "answer:r"), (2, "answer:r")],
        members=[("category:x", "b"), ("category:x", "c"), ("answer:q", "a"), ("answer:r", "a"), ("answer:r", "c")],
    )
    found = said.over(pl.Series(["a", "b", "c", "d"]))
    assert found is not None
    scores = np.array([[8, 8, -1, 0], [4, 2, 0, -np.inf], [-2, -3, -4, -5]], dtype=np.float32)
    found.adjust(scores, slice(None), np.array([3, 5, 0]))
    assert scores[0].tolist() == [8, 1, -4, 0], (
        "b is lowered for itself and its category; what is below 0 does not rise"
    )
    assert scores[1].tolist() == [4 + 2 * 2, 2, 2, -np.inf], "two answers name a; at 5 events each is half of the best"
    assert scores[2].tolist() == [-1, -3, -3, -5], "without a score above 0 an answer is worth 1"
    assert found.spared(slice(None)).toarray().tolist() == [[False, True, False, False], [False] * 4, [False] * 4]
    assert wishes(3).over(pl.Series(["a"])) is None


def test_a_preferred_category_leads_by_the_best_score_whatever_the_evidence() -> None:
    members = [("category:x", "b"), ("category:x", "d"), ("answer:q", "a")]
    said = wishes(2, named=[(0, "answer:q")], leading=[(0, "category:x")], members=members)
    found = said.over(pl.Series(["a", "b", "c", "d"]))
    assert found is not None and found.moves(slice(None)).tolist() == [True, False]
    scores = np.array([[4, 1, 8, 0], [1, 2, 3, 4]], dtype=np.float32)
    found.adjust(scores, slice(None), np.array([15, 0]))
    assert scores.tolist() == [[4 + 8 / 4, 1 + 8, 8, 0 + 8], [1, 2, 3, 4]]


TOPICS = ["category:x", "category:y", "tag:t", "tag:u"]
users = st.integers(0, N - 1)


@settings(max_examples=60)
@given(
    blocked=st.lists(
        st.tuples(users, st.sampled_from([*TOPICS, *(f"item:{item}" for item in ITEMS[:6])])), max_size=12
    ),
    less=st.lists(st.tuples(users, st.sampled_from(TOPICS), st.sampled_from([0.5, 1.0, 3.0])), max_size=6),
    named=st.lists(st.tuples(users, st.sampled_from(["answer:a", "answer:b"])), max_size=6),
    members=st.lists(st.tuples(st.sampled_from([*TOPICS, "answer:a", "answer:b"]), st.sampled_from([*ITEMS, "new"]))),
    name=st.sampled_from(sorted(MODELS)),
    filled=st.booleans(),
    block=st.sampled_from([1, 5, 24]),
)
def test_what_is_blocked_is_in_no_list_whatever_the_catalogue(
    blocked: Any, less: Any, named: Any, members: Any, name: str, filled: bool, block: int
) -> None:
    said = wishes(N, blocked, less, named, members)
    who = Everyone(WORLD.interactions, said)
    fill = MODELS["popular"] if filled and name == "knn" else None
    lists = rank(MODELS[name], who, 18, SETTINGS, fill=fill, block=block)
    of = {key: {item for topic, item in members if topic == key} for key in TOPICS}
    gone = {(user, item) for user, key in blocked for item in of.get(key, {key.removeprefix("item:")})}
    place = {user: number for number, user in enumerate(who.users)}
    shown = {(place[user], item) for user, item in lists.select("user_id", "item_id").rows()}
    assert not shown & gone
    plain = rank(MODELS[name], Everyone(WORLD.interactions, None), 18, SETTINGS, fill=fill)
    before = {(place[user], item) for user, item in plain.select("user_id", "item_id").rows()}
    assert shown == before - gone, "and nothing else is missing"
    silent = sorted(set(range(N)) - {user for user, *_ in (*blocked, *less, *named)})
    untouched = [who.users[number] for number in silent]
    assert lists.filter(pl.col("user_id").is_in(untouched)).equals(plain.filter(pl.col("user_id").is_in(untouched)))
    assert lists.equals(rank(MODELS[name], who, 18, SETTINGS, fill=fill)), "blocks change nothing"


def test_an_item_named_is_spared_by_dislikes_and_its_neighbours_are_not() -> None:
    model = MODELS["layered"]
    likes = histories(WORLD.interactions, model.items, SETTINGS)
    disliked = sparse.csr_array((np.ones(N, dtype=np.float32), (np.arange(N), np.full(N, 4))), shape=likes.rows.shape)
    felt = Histories(likes.rows, likes.events, likes.context, None, disliked)
    spared = disliked.astype(bool)
    plain, lowered, kept = model.scores(likes), model.scores(felt), model.scores(felt, None, spared)
    assert kept[:, 4] == pytest.approx(plain[:, 4])
    others = np.arange(len(model.items)) != 4
    assert np.array_equal(kept[:, others], lowered[:, others])
    assert (lowered[:, others] < plain[:, others]).any()
