"""The leakage alarm: it goes off on evaluations that leak, by every way of leaking, and stays silent on honest ones.

The logs and the plants are those of `leaks`; `benchmarks/leakage.py` counts alarms over many more of them.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import leaks

from persona_cli.evaluation import exams, leakage_signs
from persona_cli.evaluation.leakage import (
    CANARIES,
    CHECKS,
    DUPLICATES,
    PAST,
    POPULARITY,
    PROFILE,
    UNBORN,
    Check,
    Evidence,
    check,
)
from persona_cli.models.popular import Popular

# Attributes that encode answers of half of the users are not found in every log; benchmarks/leakage.py says how often.
ALWAYS = ["future popularity", "duplicated events", "item before birth", "canary users"]


def evidence(case: leaks.Case) -> Evidence:
    return Evidence(case.exam, case.lists, case.events, case.known, case.births)


def fired(found: list[Check]) -> set[str]:
    return {one.name for one in found if one.status == "leak"}


@pytest.mark.parametrize("seed", range(3))
def test_honest_evaluations_raise_no_alarm(seed: int) -> None:
    found = check(evidence(leaks.clean(leaks.world(seed))))
    assert [one.name for one in found] == list(CHECKS)
    assert not fired(found), found


@pytest.mark.parametrize("plant", ALWAYS)
@pytest.mark.parametrize("seed", range(3))
def test_what_leaks_raises_an_alarm(plant: str, seed: int) -> None:
    assert fired(check(evidence(leaks.PLANTS[plant](leaks.world(seed)))))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 40))
def test_many_logs(seed: int) -> None:
    world = leaks.world(seed)
    assert not fired(check(evidence(leaks.clean(world))))
    for plant in ALWAYS:
        assert fired(check(evidence(leaks.PLANTS[plant](world)))), plant


def test_an_event_from_after_the_cut_in_the_training_is_a_leak() -> None:
    case = leaks.clean(leaks.world(0))
    exam = case.exam
    later = case.events.filter(pl.col("timestamp") >= exam.as_of).head(1)
    late = later.with_columns(relevant=(pl.col("strength") > 0) & ~pl.col("never")).select(exam.train.columns)
    train = pl.concat([exam.train, late])
    found = check(dataclasses.replace(evidence(case), exam=dataclasses.replace(exam, train=train, known=train)))
    assert PAST in fired(found)


def test_one_item_that_nobody_could_know_of_is_a_leak_and_is_named() -> None:
    case = leaks.clean(leaks.world(1))
    name, lists = next(iter(case.lists.items()))
    unborn = pl.concat([lists.head(1).with_columns(item_id=pl.lit("from-the-future")), lists.slice(1)])
    found = {one.name: one for one in check(dataclasses.replace(evidence(case), lists={name: unborn}))}
    assert found[UNBORN].status == "leak"
    # An item that the catalogue knew before the cut may be shown, whoever had it.
    births = pl.DataFrame({"item_id": ["from-the-future"], "first": [case.exam.as_of.replace(year=2020)]})
    births = births.with_columns(pl.col("first").dt.cast_time_unit("us"))
    known = pl.concat([case.births.select("item_id", "first"), births], how="vertical_relaxed")
    found = {one.name: one for one in check(dataclasses.replace(evidence(case), lists={name: unborn}, births=known))}
    assert found[UNBORN].status == "ok"


def test_what_cannot_be_looked_at_is_said_and_no_user_is_named() -> None:
    case = leaks.clean(leaks.world(2))
    found = {one.name: one for one in check(Evidence(case.exam, case.lists))}
    assert found[POPULARITY].status == "skipped"
    everything = check(evidence(leaks.PLANTS["canary users"](leaks.world(2))))
    assert CANARIES in fired(everything)
    users = set(case.exam.users)
    assert not [one for one in everything if users & set(one.detail.split())]
    assert {DUPLICATES, PROFILE} <= {one.name for one in everything}


@pytest.mark.parametrize("seed", [1104, 1105, 1106])
def test_a_count_of_the_past_is_told_from_one_that_goes_on_after_the_cut(seed: int) -> None:
    world = leaks.world(seed)
    bench = leaks.Bench(world.events, world.cut)
    past, future = (bench.events.filter(side) for side in (before(world), ~before(world)))
    for days in (0, 5, 40):
        honest = bench.lists(Popular(float(days)).fit(bench.training))
        correlation, z = leakage_signs.future_scores(past, future, honest, world.cut)
        assert not (correlation > 0.4 and z > 4.0)
        # Another unit is no other score; and where there is none, nothing is said.
        scaled = honest.with_columns(pl.col("score") * 1000 + 7)
        assert leakage_signs.future_scores(past, future, scaled, world.cut) == pytest.approx((correlation, z), abs=1e-4)
        unknown = honest.with_columns(score=pl.lit(None, dtype=pl.Float64))
        assert leakage_signs.future_scores(past, future, unknown, world.cut) == (0.0, 0.0)
    everything = leaks.trained(bench.events.join(past, on="item_id", how="semi"), exams.after(bench.events))
    correlation, z = leakage_signs.future_scores(past, future, bench.lists(Popular(20.0).fit(everything)), world.cut)
    assert correlation > 0.4
    assert z > 4.0


def before(world: leaks.World) -> pl.Expr:
    return pl.col("timestamp") < world.cut


def test_lists_of_strangers_are_told_by_their_taste_and_equal_ones_tell_nothing() -> None:
    # Two tastes, a and b, of ten items each; strangers get the other half of the taste that they turn out to have.
    rows = [(f"u{n}", f"{'ab'[n % 2]}{(n * 7 + step) % 10}") for n in range(200) for step in range(4)]
    train = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row")
    strangers = pl.DataFrame({"user_id": [f"s{n}" for n in range(12)]})
    answers = pl.DataFrame([(f"s{n}", f"{'ab'[n % 2]}{k}") for n in range(12) for k in range(5)], orient="row")
    shown = pl.DataFrame([(f"s{n}", f"{'ab'[n % 2]}{k}") for n in range(12) for k in range(5, 10)], orient="row")
    answers, shown = (frame.rename({"column_0": "user_id", "column_1": "item_id"}) for frame in (answers, shown))
    n, z = leakage_signs.strangers_known(shown, strangers, answers, train)
    assert n == 12
    # The table of nearness is c in two blocks and d elsewhere: trace 6(c - d), variance (6(c - d))² / 11.
    assert z == pytest.approx(11**0.5, rel=1e-6)
    everybody = strangers.join(shown.select("item_id").unique(), how="cross")
    assert leakage_signs.strangers_known(everybody, strangers, answers, train) == (12, 0.0)


def test_an_attribute_made_of_answers_is_told_from_one_that_is_a_taste() -> None:
    draws = np.random.default_rng(5)
    users = [f"u{n:03}" for n in range(300)]
    had = draws.integers(0, 60, (300, 12))  # the first 8 before the cut
    pairs = pl.DataFrame({"user_id": np.repeat(users, 12), "item_id": [f"i{k:02}" for k in had.ravel()]})
    late = pl.Series(np.tile(np.arange(12) >= 8, 300))
    past, answers = (pairs.filter(side).unique() for side in (~late, late))
    chosen, usual = had[np.arange(300), draws.integers(8, 12, 300)], had[np.arange(300), draws.integers(0, 12, 300)]
    for item, leaks_it in ((chosen, True), (usual, False)):
        values = pl.DataFrame({"user_id": users, "value": [f"x{k % 5}" for k in item]})
        ratio, z, n = leakage_signs.alike_by_answers(values, answers, past)
        assert n == 300
        assert (ratio > 1.5 and z > 2.1) == leaks_it
        shuffled = [frame.sample(fraction=1.0, shuffle=True, seed=3) for frame in (values, answers, past)]
        assert leakage_signs.alike_by_answers(*shuffled) == (ratio, z, n)
