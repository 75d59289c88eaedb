"""The leakage alarm: it goes off on evaluations that leak, by every way of leaking, and stays silent on honest ones.

The logs and the plants are those of `leaks`; `benchmarks/leakage.py` counts alarms over many more of them.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import leaks

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

# Attributes that encode an answer are found in most logs only; benchmarks/leakage.py says how often.
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
