"""Ties that the end of a list cuts through, counted against the whole ranking."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
import pytest
from histories import DEFAULTS, Everyone, liked, training
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from persona_cli.evaluation.coded import coded_lists, coded_pairs, hits_of, scores_of
from persona_cli.evaluation.ties import ndcg_ties
from persona_cli.models.base import Histories, Interactions, Model, Training
from persona_cli.models.ease import Ease
from persona_cli.models.knn import Knn
from persona_cli.models.layered import Layered
from persona_cli.models.popular import Popular
from persona_cli.models.ranking import rank, ranked_with_ties


class Levels:
    """Scores of a few levels, the same for everybody: item number modulo `levels`, plus `least`."""

    name: ClassVar[str] = "levels"
    exact: ClassVar[bool] = True
    items: pl.Series

    def __init__(self, levels: int, least: float = 0.0, only: int | None = None) -> None:
        self.levels, self.least, self.only = levels, least, only

    def settings(self) -> dict[str, Any]:
        return {}

    def fit(self, training: Training) -> Self:
        self.items = training.interactions.items.head(self.only or 10**6)
        return self

    def scores(self, given: Histories) -> np.ndarray[Any, np.dtype[np.float32]]:
        row = np.arange(len(self.items)) % self.levels + self.least
        return np.tile(row.astype(np.float32), (len(given.events), 1))

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path, settings: Any) -> Self:
        raise NotImplementedError


def world(n_users: int = 90, n_items: int = 47) -> Training:
    return training(liked([(u, i) for u in range(n_users) for i in range(n_items) if (u * 7 + i * i) % 11 == 0]))


WORLD = world()
ASKED = Everyone(WORLD.interactions)
POPULAR = Popular().fit(WORLD)
MODELS: dict[str, Model] = {
    "one level": Levels(1, 1.0).fit(WORLD),
    "nothing": Levels(1).fit(WORLD),
    "below nothing": Levels(1, -1.0).fit(WORLD),
    "three levels": Levels(3).fit(WORLD),
    "few items": Levels(2, 1.0, only=6).fit(WORLD),
    "popular": POPULAR,
    "knn": Knn(4).fit(WORLD),
    "ease": Ease(2.0).fit(WORLD),
    "layered": Layered(Popular(), Ease(2.0), 4.0).fit(WORLD),
}
RIGHT = pl.DataFrame(
    [(user, item) for u, user in enumerate(ASKED.users) for i, item in enumerate([*WORLD.interactions.items, "unknown"])
     if (u + 3 * i) % 5 == 0],
    schema={"user_id": pl.String, "item_id": pl.String}, orient="row",
)  # fmt: skip


def counted(whole: pl.DataFrame, k: int, right: pl.DataFrame) -> list[tuple[str, int, int]]:
    """user, tied, tied_relevant of every list longer than k whose entry k + 1 has the score of entry k."""
    wanted = set(right.rows())
    found = []
    for (user,), part in whole.sort("user_id", "rank").group_by(["user_id"], maintain_order=True):
        scores, items = part["score"].to_list(), part["item_id"].to_list()
        if len(scores) > k and scores[k] == scores[k - 1]:
            group = [item for item, score in zip(items, scores, strict=True) if score == scores[k]]
            found.append((str(user), len(group), sum((user, item) in wanted for item in group)))
    return found


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_ties_across_the_end_are_those_of_the_whole_ranking(name: str, filled: bool) -> None:
    never = pl.Series("item_id", ["i3", "i20"])
    fill = POPULAR if filled else None
    whole = rank(MODELS[name], ASKED, 1000, DEFAULTS, fill=fill, never=never)
    seen = 0
    for k in (1, 2, 5, 17, 40, 45, 46, 1000):
        lists, ties = ranked_with_ties(MODELS[name], ASKED, k, DEFAULTS, RIGHT, fill=fill, never=never, block=13)
        assert_frame_equal(lists, rank(MODELS[name], ASKED, k, DEFAULTS, fill=fill, never=never))
        assert ties.rows() == counted(whole, k, RIGHT), k
        seen += ties.height
    if not filled or name == "one level":
        assert seen, "nothing was tied: the test shows nothing"


def test_ties_among_candidates() -> None:
    items = pl.Series("item_id", ["i1", "i2", "i7", "i8", "i9", "i30", "unknown", "unknown too"])
    pairs = ASKED.users.to_frame().join(items.to_frame(), how="cross").filter(pl.col("item_id") != "i8")
    for only in (items, pairs):
        whole = rank(MODELS["three levels"], ASKED, 1000, DEFAULTS, only=only)
        for k in (1, 2, 3, 5, 8):
            _, ties = ranked_with_ties(MODELS["three levels"], ASKED, k, DEFAULTS, RIGHT, only=only)
            assert ties.rows() == counted(whole, k, RIGHT)


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 30), st.integers(2, 40), st.sampled_from([-1.0, 0.0, 0.5]), st.booleans())
def test_ties_do_not_depend_on_blocks(levels: int, k: int, size: int, least: float, filled: bool) -> None:
    model, fill = Levels(levels, least).fit(WORLD), POPULAR if filled else None
    at_once = ranked_with_ties(model, ASKED, k, DEFAULTS, RIGHT, fill=fill)
    in_blocks = ranked_with_ties(model, ASKED, k, DEFAULTS, RIGHT, fill=fill, block=size)
    for first, second in zip(at_once, in_blocks, strict=True):
        assert_frame_equal(first, second)


def test_nobody_asked_has_no_ties() -> None:
    lists, ties = ranked_with_ties(MODELS["ease"], Everyone(training([]).interactions), 5, DEFAULTS, RIGHT)
    assert (lists.height, ties.height) == (0, 0)
    assert ties.schema == {"user_id": pl.String, "tied": pl.Int64, "tied_relevant": pl.Int64}


def test_relevant_items_that_cannot_be_shown_are_not_among_the_tied() -> None:
    few = training(liked([(0, 0), (0, 1), (1, 2), (1, 3), (1, 4)]))
    right = pl.DataFrame({"user_id": ["u0"] * 4, "item_id": ["i0", "i2", "i3", "elsewhere"]})
    _, ties = ranked_with_ties(
        Levels(1, 1.0).fit(few), Everyone(few.interactions), 1, DEFAULTS, right, never=pl.Series(["i3"])
    )
    # u0 has had i0 and i1, and i3 is never shown: i2 and i4 are left.
    assert ties.rows() == [("u0", 2, 1), ("u1", 2, 0)]


def test_a_constant_model_earns_what_a_random_order_of_the_catalogue_earns() -> None:
    few = training(liked([(u, i) for u in range(3) for i in range(7) if (u + i) % 3 == 0]))
    asked = Everyone(few.interactions)
    right = pl.DataFrame(
        {"user_id": ["u0", "u0", "u1", "u2"], "item_id": ["i1", "i2", "i4", "i6"]}
    )  # u0 has had i0, i3, i6; u1 i2, i5; u2 i1, i4
    lists, ties = ranked_with_ties(Levels(1, 1.0).fit(few), asked, 3, DEFAULTS, right)
    coded = coded_lists(lists)
    hits = hits_of(coded, coded_pairs(right, coded.items))
    found = ndcg_ties(coded, scores_of(lists, coded), hits, [1, 2, 3], ties)
    for row, user in enumerate(["u0", "u1", "u2"]):
        wanted = set(right.filter(user_id=user)["item_id"])
        left = [i for i in few.interactions.items if i not in _had(few.interactions, row)]
        for k in (1, 2, 3):
            # Which places the right items take in a random order: every choice is as likely as any other.
            choices = list(combinations(range(1, len(left) + 1), len(wanted)))
            gains = [sum(1 / np.log2(place + 1) for place in choice if place <= k) for choice in choices]
            ideal = sum(1 / np.log2(place + 1) for place in range(1, min(k, len(wanted)) + 1))
            assert found[k][row] == pytest.approx(np.mean(gains) / ideal, abs=1e-12)


def _had(known: Interactions, row: int) -> set[str]:
    return set(known.items.gather(known.seen[[row]].indices))
