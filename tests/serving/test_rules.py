"""Rules over lists: each list is checked by hand-written code, item by item, that knows nothing of how it was made."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse

from persona_cli.models.base import Interactions
from persona_cli.serving.context import Audience
from persona_cli.serving.rule_items import Catalogue
from persona_cli.serving.rule_settings import ITEM_COLUMNS, Rules, rules_of
from persona_cli.serving.rules import Ruled, Ruling
from persona_cli.workspace.filters import parse
from persona_cli.workspace.settings import load

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PEOPLE = {"stage": "text", "events": "whole"}


def rules(**given: Any) -> Rules:
    found = rules_of(load(None, {}).with_flags({f"rules.{key.replace('__', '.')}": one for key, one in given.items()}))
    assert found is not None
    return found


def item(number: int, category: str | None = None, tags: list[str] | None = None, age: int | None = None) -> Any:
    """One item, called i00, i01, …, that came out `age` days ago."""
    born = None if age is None else NOW - timedelta(days=age)
    return {"item_id": f"i{number:02d}", "category": category, "tags": tags, "born": born, "price": float(number)}


def audience(n: int, held_out: set[int], generic: set[int], met: dict[int, list[int]], n_items: int) -> Audience:
    users = pl.Series("user_id", [f"u{number}" for number in range(n)])
    rows = [user for user, items in met.items() for _ in items]
    columns = [one for items in met.values() for one in items]
    strengths = sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(n, n_items))
    items = pl.Series("item_id", [f"i{number:02d}" for number in range(n_items)])
    nothing = sparse.csr_array((n, n_items), dtype=bool)
    matrix = Interactions(users, items, strengths, nothing, np.zeros(n, np.int64))
    context = pl.DataFrame({"device": ["mobile", None] * n, "country": pl.Series([None] * 2 * n, dtype=pl.String)})
    mask = np.isin(np.arange(n), list(generic))
    return Audience(users, matrix, np.arange(n), context.head(n), np.isin(np.arange(n), list(held_out)), generic=mask)


def made(
    rules: Rules,
    items: list[Any],
    scores: np.ndarray,
    top: int,
    *,
    held_out: set[int] = frozenset(),  # type: ignore[assignment]
    generic: set[int] = frozenset(),  # type: ignore[assignment]
    met: dict[int, list[int]] | None = None,
    people: list[dict[str, Any]] | None = None,
    seed: int = 0,
    explorers: np.ndarray | None = None,
) -> Ruled:
    schema = {
        "item_id": pl.String, "category": pl.String, "tags": pl.List(pl.String), "price": pl.Float64,
        "born": pl.Datetime("us", "UTC"),
    }  # fmt: skip
    rows = pl.DataFrame(items, schema=schema).with_columns(
        pl.lit(None, dtype=pl.String).alias(name) for name in ("title", "currency", "url")
    )
    catalogue = Catalogue(rows.with_columns(published_at="born"), NOW)
    asked = audience(len(scores), set(held_out), set(generic), met or {}, len(items))
    known = pl.DataFrame(people or [{}] * len(scores), schema={"stage": pl.String, "events": pl.Int64})
    whole = known.hstack(asked.context.rename({"device": "context_device", "country": "context_country"}))
    treated = whole.with_columns(pl.when(~pl.Series(asked.holdout)).then(pl.all()).name.keep())
    columns: Any = {**PEOPLE, **ITEM_COLUMNS, "context_device": "text", "context_country": "text"}
    conditions = {one.key: parse(one.when, columns) for one in rules.named if one.when}
    none = pl.Series("item_id", [], dtype=pl.String)
    ruling = Ruling(rules, asked, catalogue, conditions, whole, treated, seed, none, explorers)
    ruler = ruling.over(rows["item_id"])
    return ruler(0, scores.astype(np.float32).copy(), np.arange(len(scores)), top)


def listed(lists: Ruled) -> list[list[int]]:
    return [
        [int(place) for place, score in zip(places, scores, strict=True) if score > -np.inf]
        for places, scores in zip(lists.places, lists.scores, strict=True)
    ]


def said(lists: Ruled) -> list[set[str]]:
    return [{name for name, bad in zip(lists.names, row, strict=True) if bad} for row in lists.gave_way]


def descending(n_users: int, n_items: int) -> np.ndarray:
    return np.tile(np.linspace(1, 0.1, n_items), (n_users, 1))


# --- a checker that reads the rules as people do ---


def kept(rules: Rules, items: list[Any], entries: list[int], top: int, open_: set[int], drawn: int) -> dict[str, bool]:
    """Whether a list of personal rules keeps each; `open_`: what may be shown to the user at all."""
    categories = Counter(items[one]["category"] for one in entries if items[one]["category"])
    tags = Counter(tag for one in entries for tag in set(items[one]["tags"] or ()))

    def lately(days: int) -> int:
        return sum(
            items[one]["born"] is not None and NOW - items[one]["born"] < timedelta(days=days) for one in entries
        )

    found = {"length": len(entries) >= min(top, len(open_))}
    if rules.new_items:
        found["new_items"] = lately(rules.new_days) >= rules.new_items
    if rules.fresh_share:
        found["fresh"] = lately(rules.fresh_days) >= math.ceil(rules.fresh_share * len(entries) - 1e-9)
    if rules.max_per_category:
        found["max_per_category"] = max(categories.values(), default=0) <= rules.max_per_category
    if rules.max_per_tag:
        found["max_per_tag"] = max(tags.values(), default=0) <= rules.max_per_tag
    if rules.min_categories:
        found["min_categories"] = len(categories) >= rules.min_categories
    if rules.exploration:
        found["exploration"] = drawn >= max(1, round(rules.exploration * top))
    return found


ITEMS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", None]),
        st.lists(st.sampled_from(["x", "y", "z"]), max_size=2, unique=True),
        st.sampled_from([1, 20, 60, 400, None]),
    ),
    min_size=1,
    max_size=14,
)
GIVEN = st.fixed_dictionaries(
    {
        "max_per_category": st.integers(0, 3),
        "max_per_tag": st.integers(0, 3),
        "min_categories": st.integers(0, 3),
        "new_items__at_least": st.integers(0, 3),
        "fresh__share": st.sampled_from([0.0, 0.25, 0.5]),
        "exploration__share": st.sampled_from([0.0, 0.2]),
        "exploration__by": st.sampled_from(["even", "score"]),
        "rerank": st.sampled_from(["none", "mmr", "calibrated"]),
        "give_way": st.permutations(["exploration", "fresh", "new_items", "min_categories", "max_per_tag", "length"]),
    }
)


@settings(max_examples=150, deadline=None)
@given(ITEMS, GIVEN, st.integers(1, 6), st.integers(0, 10**6))
def test_no_rule_is_broken_without_a_word(drawn: Any, wanted: Any, top: int, seed: int) -> None:
    items = [item(number, *one) for number, one in enumerate(drawn)]
    try:
        ruled = rules(**wanted)
    except AssertionError:
        assume(False)
    random = np.random.default_rng(seed)
    scores = np.round(random.normal(size=(4, len(items))), 1)
    scores[random.random(scores.shape) < 0.15] = -np.inf
    met = {0: [0], 2: [len(items) - 1]}
    lists = made(ruled, items, scores, top, met=met, seed=seed)
    for user, entries in enumerate(listed(lists)):
        open_ = set(np.flatnonzero(scores[user] > -np.inf))
        assert len(entries) == len(set(entries)) and set(entries) <= open_
        found = kept(ruled, items, entries, top, open_, int(lists.drawn[user, : len(entries)].sum()))
        if ruled.new_items and all(one["born"] is None for one in items):  # then it is what the user never met
            found["new_items"] = sum(one not in met.get(user, []) for one in entries) >= ruled.new_items
        assert said(lists)[user] == {name for name, ok in found.items() if not ok}


@settings(max_examples=60, deadline=None)
@given(ITEMS, GIVEN, st.integers(1, 5), st.integers(0, 10**6))
def test_a_list_depends_on_its_user_alone(drawn: Any, wanted: Any, top: int, seed: int) -> None:
    items = [item(number, *one) for number, one in enumerate(drawn)]
    try:
        ruled = rules(**wanted)
    except AssertionError:
        assume(False)
    scores = np.random.default_rng(seed).normal(size=(5, len(items)))
    together = made(ruled, items, scores, top)
    first = made(ruled, items, scores[:1], top)
    assert listed(first)[0] == listed(together)[0]
    assert said(first)[0] == said(together)[0]


SMALL = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.just([]), st.sampled_from([1, 20, 60, 400])),
    min_size=2,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(SMALL, GIVEN, st.integers(2, 5), st.integers(0, 10**6))
def test_nothing_gives_way_where_all_can_be_met(drawn: Any, wanted: Any, top: int, seed: int) -> None:
    """All lists are tried. Limits of tags are left out: to pack sets is hard, and done greedily."""
    items = [item(number, *one) for number, one in enumerate(drawn)]
    assume(top <= len(items))
    try:
        ruled = rules(**wanted | {"max_per_tag": 0, "exploration__share": 0.0})
    except AssertionError:
        assume(False)
    everything = set(range(len(items)))
    ways = itertools.combinations(everything, top)
    possible = any(all(kept(ruled, items, list(entries), top, everything, 0).values()) for entries in ways)
    lists = made(ruled, items, np.random.default_rng(seed).normal(size=(1, len(items))), top)
    assert bool(said(lists)[0]) != possible


# --- what each rule does ---

FILMS = [
    item(number, "abc"[number // 4], ["short"] if number % 2 else [], age=10 if number == 11 else 400)
    for number in range(12)
]


def test_a_quota_lets_the_best_of_other_categories_in() -> None:
    assert listed(made(rules(max_per_category=2), FILMS, descending(1, 12), 5)) == [[0, 1, 4, 5, 8]]


def test_a_tag_is_there_so_often_at_the_most() -> None:
    assert listed(made(rules(max_per_tag=1), FILMS, descending(1, 12), 4)) == [[0, 1, 2, 4]]


def test_a_new_item_takes_the_last_place() -> None:
    lists = made(rules(new_items__at_least=1), FILMS, descending(1, 12), 4)
    assert listed(lists) == [[0, 1, 2, 11]] and said(lists) == [set()]


def test_without_dates_new_is_what_the_user_never_met() -> None:
    items = [item(number, "a") for number in range(5)]
    lists = made(rules(new_items__at_least=1), items, descending(1, 5), 3, met={0: [0, 1, 2, 3]})
    assert listed(lists) == [[0, 1, 4]]


def test_what_cannot_be_met_gives_way_in_the_declared_order() -> None:
    # Three new items, all of category c, of which one is allowed.
    items = [item(n, "c" if n >= 9 else f"k{n}", age=5 if n >= 9 else 400) for n in range(12)]
    for order, entries, gave in (
        (["new_items", "max_per_category"], [0, 1, 2, 9], {"new_items"}),
        (["max_per_category", "new_items"], [0, 9, 10, 11], {"max_per_category"}),
    ):
        ruled = rules(new_items__at_least=3, max_per_category=1, give_way=order)
        lists = made(ruled, items, descending(1, 12), 4)
        assert listed(lists) == [entries] and said(lists) == [gave]


def test_a_short_list_and_a_broken_quota_are_a_choice() -> None:
    one = [item(number, "a") for number in range(6)]
    short = made(rules(max_per_category=2, give_way=["length"]), one, descending(1, 6), 4)
    assert listed(short) == [[0, 1]] and said(short) == [{"length"}]
    full = made(rules(max_per_category=2), one, descending(1, 6), 4)
    assert listed(full) == [[0, 1, 2, 3]] and said(full) == [{"max_per_category"}]


def test_more_candidates_are_looked_at_before_a_rule_gives_way() -> None:
    items = [item(number, "a" if number < 30 else "b") for number in range(40)]
    lists = made(rules(max_per_category=2), items, descending(1, 40), 4)
    assert listed(lists) == [[0, 1, 30, 31]] and said(lists) == [set()]


def test_pins_stand_on_top_in_their_order_and_for_whom_they_are() -> None:
    ruled = rules(pin={"p": {"items": ["i09", "i03"]}, "q": {"when": "item_price >= 7 and stage = 'cohort'"}})
    people = [{"stage": "cohort", "events": 1}, {"stage": "context", "events": 1}]
    lists = made(ruled, FILMS, descending(2, 12), 4, people=people)
    assert listed(lists) == [[9, 3, 7, 0], [9, 3, 0, 1]]
    assert lists.pinned.tolist() == [3, 2]


def test_a_pin_that_an_exclusion_keeps_out_gave_way() -> None:
    ruled = rules(pin={"p": {"items": ["i09"]}}, exclude={"e": {"categories": ["c"]}})
    lists = made(ruled, FILMS, descending(1, 12), 3)
    assert listed(lists) == [[0, 1, 2]] and said(lists) == [{"pin.p"}]


def test_an_exclusion_may_yield_and_a_compliance_rule_never_does() -> None:
    excluded = {"categories": ["a"]}
    yielding = made(rules(exclude={"e": excluded}, give_way=["exclude"]), FILMS[:8], descending(1, 8), 6)
    assert listed(yielding) == [[4, 5, 6, 7, 0, 1]] and said(yielding) == [{"exclude"}]
    strict = made(rules(exclude={"e": excluded}), FILMS[:8], descending(1, 8), 6)
    assert listed(strict) == [[4, 5, 6, 7]] and said(strict) == [{"length"}]
    law = rules(exclude={"e": excluded | {"compliance": True}}, give_way=["exclude"])
    assert listed(made(law, FILMS[:8], descending(1, 8), 6)) == [[4, 5, 6, 7]]


def test_what_is_not_known_of_somebody_counts_for_compliance_alone() -> None:
    for compliance, entries in ((True, [4, 5]), (False, [0, 1])):
        when = "item_category = 'a' and events < 18"
        ruled = rules(exclude={"e": {"when": when, "compliance": compliance}})
        people = [{"stage": None, "events": None}, {"stage": None, "events": 20}, {"stage": None, "events": 7}]
        assert listed(made(ruled, FILMS, descending(3, 12), 2, people=people)) == [entries, [0, 1], [4, 5]]


def test_boosts_and_burials_move_scores_of_either_sign_the_right_way() -> None:
    scores = np.array([[0.5, 0.4, -0.1, -0.2]])
    ruled = rules(boost={"b": {"items": ["i01", "i03"], "factor": 4}}, bury={"c": {"items": ["i00"], "factor": 0.1}})
    assert listed(made(ruled, [item(number) for number in range(4)], scores, 4)) == [[1, 0, 3, 2]]


def test_conditions_that_compare_items_with_people() -> None:
    ruled = rules(exclude={"dear": {"when": "item_price > events"}})
    people = [{"stage": "x", "events": 2}, {"stage": "x", "events": 5}, {"stage": "x", "events": None}]
    lists = made(ruled, FILMS, descending(3, 12), 12, people=people)
    assert [len(one) for one in listed(lists)] == [3, 6, 12]


def test_the_held_out_and_the_uncovered_get_pins_and_exclusions_alone() -> None:
    ruled = rules(
        max_per_category=1, exploration__share=0.5, boost={"b": {"items": ["i11"], "factor": 100}},
        pin={"p": {"items": ["i09"]}, "own": {"when": "events >= 0"}}, exclude={"e": {"items": ["i01"]}},
    )  # fmt: skip
    people = [{"stage": None, "events": 3}, {"stage": None, "events": None}]
    lists = made(ruled, FILMS, descending(2, 12), 4, held_out={0}, generic={1}, people=people)
    assert listed(lists) == [[9, 0, 2, 3]] * 2
    assert said(lists) == [set(), set()] and not lists.drawn.any()


def test_draws_are_uniform_have_their_propensity_and_do_not_change() -> None:
    ruled, n = rules(exploration__share=0.25), 4000
    items = [item(number) for number in range(12)]
    lists = made(ruled, items, descending(n, 12), 4, seed=5)
    assert (lists.drawn.sum(axis=1) == 1).all() and lists.drawn[:, 3].all()
    assert lists.propensity is not None
    assert (lists.propensity[:, :3] == 1).all() and np.allclose(lists.propensity[:, 3], 1 / 9)
    times = np.bincount(lists.places[:, 3], minlength=12)
    assert (times[:3] == 0).all()
    chi = ((times[3:] - n / 9) ** 2 / (n / 9)).sum()
    assert chi < 26.1, "0.1 % of a chi-squared with 8 degrees of freedom lies above"
    assert listed(made(ruled, items, descending(n, 12), 4, seed=5)) == listed(lists)
    assert listed(made(ruled, items, descending(n, 12), 4, seed=6)) != listed(lists)


def test_draws_by_score_have_its_chances_and_do_not_change() -> None:
    ruled, n = rules(exploration__share=0.5, exploration__by="score"), 4000
    items, scores = [item(number) for number in range(6)], np.tile([9.0, 8.0, 6.0, 3.0, 1.0, -2.0], (n, 1))
    lists = made(ruled, items, scores, 4, seed=5)
    assert (lists.drawn == [False, False, True, True]).all() and lists.propensity is not None
    # A tenth of the best is added to each: 6.9, 3.9, 1.9 and 0.9 are left when two stand.
    weights = {2: 6.9, 3: 3.9, 4: 1.9, 5: 0.9}
    times: Counter[tuple[int, ...]] = Counter()
    for entries, chances in zip(lists.places[:, 2:].tolist(), lists.propensity[:, 2:], strict=True):
        times[tuple(entries)] += 1
        first, second = entries
        left = sum(weights.values()) - weights[first]
        assert chances == pytest.approx([weights[first] / 13.6, weights[second] / left], rel=1e-6)
    chi = 0.0
    for first, second in itertools.permutations(weights, 2):
        expected = n * weights[first] / 13.6 * weights[second] / (13.6 - weights[first])
        chi += (times[first, second] - expected) ** 2 / expected
    assert chi < 31.3, "0.1 % of a chi-squared with 11 degrees of freedom lies above"
    assert listed(made(ruled, items, scores, 4, seed=5)) == listed(lists)
    assert listed(made(ruled, items, scores, 4, seed=6)) != listed(lists)
    flat = made(ruled, items, np.tile([-1.0, -1, -2, -3, -3, -3], (n, 1)), 4)
    assert flat.propensity is not None
    assert np.allclose(flat.propensity[:, 2:], [1 / 4, 1 / 3]), "without a score above 0 all are alike"


def test_draws_by_score_keep_quotas_and_know_their_chances_under_them() -> None:
    ruled = rules(exploration__share=0.5, exploration__by="score", max_per_category=1)
    items = [item(0, "a"), item(1, "b"), item(2, "b"), item(3, "c"), item(4, "d"), item(5, "a")]
    lists = made(ruled, items, np.tile([5.0, 4, 3, 2, 1, 4], (300, 1)), 4)
    assert said(lists) == [set()] * 300 and lists.propensity is not None
    assert {tuple(sorted(entries)) for entries in listed(lists)} == {(0, 1, 3, 4)}, "one of each category"
    # 2.5 and 1.5 are left, then one of them alone.
    expected = np.where(lists.places[:, 2] == 3, 2.5 / 4, 1.5 / 4)
    assert np.allclose(lists.propensity[:, 2], expected) and (lists.propensity[:, 3] == 1).all()


def test_only_the_lists_of_new_users_explore() -> None:
    ruled, new = rules(exploration__share=0.5, exploration__users="new"), np.array([True, False, True, True])
    lists = made(ruled, FILMS, descending(4, 12), 4, held_out={2}, explorers=new)
    assert lists.drawn.sum(axis=1).tolist() == [2, 0, 0, 2]
    assert said(lists) == [set()] * 4, "nothing gave way where nothing was to be drawn"
    assert listed(lists)[1] == listed(lists)[2] == [0, 1, 2, 3]
    assert lists.propensity is not None and (lists.propensity[1] == 1).all()
    # What may be needed has the places that are not drawn: those of others have all of them.
    needs = rules(
        exploration__share=0.75, exploration__users="new", min_categories=3,
        give_way=["min_categories", "exploration"],
    )  # fmt: skip
    assert said(made(needs, FILMS, descending(4, 12), 4, explorers=new))[1] == set()


@pytest.mark.parametrize("strength", [0.0, 0.3, 0.7])
def test_mmr_is_the_greedy_algorithm_of_its_paper(strength: float) -> None:
    random = np.random.default_rng(3)
    items = [item(n, "abc"[n % 3], random.choice(["x", "y", "z"], 2, replace=False).tolist()) for n in range(10)]
    scores = random.normal(size=(6, 10))
    lists = listed(made(rules(rerank="mmr", strength=strength), items, scores, 5))
    for user in range(6):
        low, high = scores[user].min(), scores[user].max()  # twice the length is all there is
        worth = (scores[user] - low) / (high - low)

        def alike(one: int, other: int) -> float:
            mine, theirs = ({items[n]["category"], *items[n]["tags"]} for n in (one, other))
            return len(mine & theirs) / math.sqrt(len(mine) * len(theirs))

        chosen: list[int] = []
        while len(chosen) < 5:
            left = [n for n in range(10) if n not in chosen]
            gain = [(1 - strength) * worth[n] - strength * max([alike(n, c) for c in chosen], default=0) for n in left]
            chosen.append(left[int(np.argmax(gain))])
        assert lists[user] == chosen


def test_calibration_is_the_greedy_algorithm_of_its_paper() -> None:
    items = [item(number, "aabbcc"[number % 6]) for number in range(12)]
    scores, strength, top = np.random.default_rng(8).normal(size=(1, 12)), 0.6, 6
    met = {0: [0, 1, 2, 6, 7, 3]}  # 4 of a, 2 of b
    lists = listed(made(rules(rerank="calibrated", strength=strength), items, scores, top, met=met))
    worth = (scores[0] - scores[0].min()) / (scores[0].max() - scores[0].min())
    share = {"a": 4 / 6, "b": 2 / 6}

    def divergence(entries: list[int]) -> float:
        shares = Counter(items[one]["category"] for one in entries)
        return sum(p * math.log(p / (0.99 * shares[c] / len(entries) + 0.01 * p)) for c, p in share.items())

    chosen: list[int] = []
    while len(chosen) < top:
        left = [n for n in range(12) if n not in chosen]
        gain = [(1 - strength) * sum(worth[[*chosen, n]]) - strength * divergence([*chosen, n]) for n in left]
        chosen.append(left[int(np.argmax(gain))])
    assert lists == [chosen]
