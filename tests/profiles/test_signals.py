"""Strengths of events, against the plain rule and by hand."""

from __future__ import annotations

from typing import Any

import oracle
import polars as pl
import pytest
import strategies
from hypothesis import given
from hypothesis import settings as examples
from stored import Event, frame

from persona_cli.profiles.coding import coded
from persona_cli.profiles.signals import coded_signals, signals_digest, weights_digest, with_signals
from persona_cli.workspace.settings import Settings, load

DEFAULTS = load(None, {})


def signalled(events: list[Event], settings: Settings = DEFAULTS) -> pl.DataFrame:
    return with_signals(frame(events).lazy(), settings).collect()


def strength(event_type: str, value: float | None = None, settings: Settings = DEFAULTS) -> Any:
    row = signalled([{"event_type": event_type, "value": value}], settings).row(0, named=True)
    return "never" if row["never"] and row["strength"] == 0 else row["strength"]


@pytest.mark.parametrize(
    ("event_type", "value", "expected"),
    [
        ("click", None, 1000),
        ("view", 17.0, 300),
        ("thumbs_down", None, -3000),
        ("block", None, "never"),
        ("rating", 5.0, 3000),
        ("rating", 4.0, 3000),
        ("rating", 3.9, 1000),
        ("rating", 2.0, -2000),
        ("rating", None, 1000),  # no comparison holds without a value: an unlisted type
        ("rating", float("nan"), 1000),
        ("never heard of", None, 1000),
    ],
)
def test_default_strengths(event_type: str, value: float | None, expected: object) -> None:
    assert strength(event_type, value) == expected


def test_comparisons_go_before_the_plain_type_and_the_first_that_holds_counts() -> None:
    table = {"dwell": 1, "dwell>=10": 2, "dwell>=60": "never", "dwell!=3": 0.5}
    settings = DEFAULTS.with_flags({"signals.strengths": table, "signals.other": 0.25})
    found = [strength("dwell", value, settings) for value in (None, 3, 4, 10, 99)]
    assert found == [1000, 1000, 500, 2000, 2000]
    assert strength("click", None, settings) == 250


@examples(max_examples=100, deadline=None)
@given(strategies.events)
def test_equals_the_plain_rule(events: list[Event]) -> None:
    strengths = DEFAULTS.table("signals.strengths")
    rows = signalled(events).select("strength", "never").rows()
    assert rows == [oracle.signal(event, strengths, 1.0) for event in events]


@examples(max_examples=60, deadline=None)
@given(strategies.events.filter(bool))
def test_signals_of_coded_events_are_the_same(events: list[Event]) -> None:
    table = {"rating>3": "never", "rating": 2, "survey<1": -1, "view": "never", "click": 0.25}
    settings = DEFAULTS.with_flags({"signals.strengths": table, "recommend.consumed_by": ["rating", "click"]})
    rows = signalled(events, settings)
    found = coded_signals(coded(rows.select("event_type", "value"), ["event_type"]), settings)
    expected = [rows[name].to_list() for name in ("strength", "never", "consumed")]
    assert [column.tolist() for column in found[:3]] == expected and found.rated is None


def test_consumed_by_names_event_types() -> None:
    events: list[Event] = [{"event_type": "click"}, {"event_type": "purchase"}]
    assert signalled(events)["consumed"].to_list() == [True, True]
    chosen = DEFAULTS.with_flags({"recommend.consumed_by": ["purchase"]})
    assert signalled(events, chosen)["consumed"].to_list() == [False, True]


def test_an_empty_table_leaves_every_type_to_other() -> None:
    settings = DEFAULTS.with_flags({"signals.strengths": {}})
    assert strength("block", None, settings) == 1000


def test_digests_change_with_what_they_stand_for_and_with_nothing_else() -> None:
    changed = DEFAULTS.with_flags({"signals.strengths.click": 1.5})
    assert signals_digest(changed) != signals_digest(DEFAULTS)
    assert weights_digest(changed) != weights_digest(DEFAULTS)
    fading = DEFAULTS.with_flags({"signals.half_life_days": 10})
    assert signals_digest(fading) == signals_digest(DEFAULTS)
    assert weights_digest(fading) != weights_digest(DEFAULTS)
    elsewhere = DEFAULTS.with_flags({"evaluate.bootstrap": 200, "profiles.buckets": 4})
    assert weights_digest(elsewhere) == weights_digest(DEFAULTS)
