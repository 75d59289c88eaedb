"""The join of events with decisions is what its rule says, event by event."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from persona_cli.errors import BadSettings
from persona_cli.feedback.decisions import TYPES
from persona_cli.feedback.outcomes import OF_DECISION, OF_EVENT, Joined, Kinds, joined
from persona_cli.workspace.home import create, open_home

START = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = Kinds(
    {"impression": "impression", "click": "click", "open": "click", "purchase": "conversion", "block": "negative"},
    timedelta(hours=6),
    timedelta(hours=2),
)
NAMES = {"click": "clicks", "conversion": "conversions", "negative": "negatives"}
Row = dict[str, Any]


def decisions(rows: list[Row]) -> pl.DataFrame:
    schema = {name: TYPES[name] for name in (*OF_DECISION, "items")}
    filled = []
    for row in rows:
        listed = [
            {"item_id": item, "position": place, "propensity": 1.0} for place, item in enumerate(row.pop("items"), 1)
        ]
        filled.append(dict.fromkeys(schema) | {"surface": "home", "holdout": False} | row | {"items": listed})
    return pl.DataFrame(filled, schema=schema, orient="row")


def events(rows: list[Row]) -> pl.DataFrame:
    schema = dict.fromkeys(OF_EVENT, pl.String) | {"timestamp": pl.Datetime("us", "UTC")}
    return pl.DataFrame([dict.fromkeys(schema) | row for row in rows], schema=schema, orient="row")


def by_hand(made: list[Row], done: list[Row]) -> tuple[dict[str, Row], dict[tuple[str, str], Row]]:
    """The rule, read aloud: for each event look through all decisions."""
    by_id = {one["decision_id"]: one for one in made}
    own = [event for event in done if event.get("decision_id") in by_id and event["event_type"] in KINDS.types]
    exposed = {event["decision_id"] for event in own}
    tracked = {by_id[e["decision_id"]]["surface"] for e in own if KINDS.types[e["event_type"]] == "impression"}
    horizon = max((event["timestamp"] for event in done), default=START)
    lists = {one["decision_id"]: figures() for one in made}
    items = {(one["decision_id"], item): figures() for one in made for item in one["items"]}
    for event in done:
        kind = KINDS.types.get(event["event_type"])
        if kind is None:
            continue
        chosen = by_id.get(event.get("decision_id") or "")
        if chosen is None and event.get("decision_id") is None and kind != "impression" and event.get("item_id"):
            offers = [
                one
                for one in made
                if one["user_id"] == event["user_id"]
                and event["item_id"] in one["items"]
                and timedelta(0) <= event["timestamp"] - one["at"] <= KINDS.window
                and (one["decision_id"] in exposed or one["surface"] not in tracked)
            ]
            offers.sort(
                key=lambda one: (-one["at"].timestamp(), one["items"].index(event["item_id"]), one["decision_id"])
            )
            chosen = offers[0] if offers else None
        if chosen is None:
            continue
        item = event.get("item_id")
        told = [lists[chosen["decision_id"]]]
        if kind == "impression" and item is None:
            told += [items[chosen["decision_id"], one] for one in dict.fromkeys(chosen["items"])]
        elif (chosen["decision_id"], item) in items:
            told.append(items[chosen["decision_id"], item])
        for one in told:
            one["exposed"] |= event.get("decision_id") is not None
            if kind == "impression":
                one["impressions"] += 1
                continue
            one[NAMES[kind]] += 1
            seconds = (event["timestamp"] - chosen["at"]).total_seconds()
            before = one[f"{kind}_seconds"]
            one[f"{kind}_seconds"] = seconds if before is None else min(seconds, before)
            if kind == "click":
                one["bounces"].append(bounce(event, chosen, done, horizon))
    for one in (*lists.values(), *items.values()):
        clicks = one.pop("bounces")
        one["bounced"] = False if False in clicks else None if None in clicks or not clicks else True
    return lists, items


def figures() -> Row:
    counts: Row = dict.fromkeys(("impressions", "clicks", "conversions", "negatives"), 0)
    delays: Row = dict.fromkeys(("click_seconds", "conversion_seconds", "negative_seconds"))
    return {**counts, **delays, "exposed": False, "bounces": []}


def bounce(click: Row, chosen: Row, done: list[Row], horizon: datetime) -> bool | None:
    after = [
        event["timestamp"] - click["timestamp"]
        for event in done
        if event["user_id"] == click["user_id"]
        and KINDS.types.get(event["event_type"]) != "impression"
        and timedelta(0) < event["timestamp"] - click["timestamp"] <= KINDS.bounce
    ]
    if after:
        return False
    return True if click["timestamp"] + KINDS.bounce <= horizon else None


USERS, ITEMS = st.sampled_from(["u1", "u2"]), st.sampled_from(["a", "b", "c"])
MOMENTS = st.integers(0, 15).map(lambda hour: START + timedelta(hours=hour))
MADE = st.lists(
    st.tuples(USERS, MOMENTS, st.sampled_from(["home", "mail"]), st.lists(ITEMS, max_size=4)), max_size=6
).map(
    lambda drawn: [
        {"decision_id": f"d{n}", "user_id": who, "at": at, "surface": surface, "items": items}
        for n, (who, at, surface, items) in enumerate(drawn)
    ]
)
DONE = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": USERS,
            "event_type": st.sampled_from([*KINDS.types, "view"]),
            "item_id": st.none() | ITEMS,
            "timestamp": MOMENTS,
            "decision_id": st.none() | st.sampled_from(["d0", "d1", "d3", "unknown"]),
        }
    ),
    max_size=12,
)


@given(MADE, DONE, st.randoms())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_every_event_is_credited_as_the_rule_says(made: list[Row], done: list[Row], random: Any) -> None:
    lists, items = by_hand(made, done)
    shuffled = [dict(one) for one in made], [dict(one) for one in done]
    for rows in shuffled:
        random.shuffle(rows)
    found = joined(decisions(shuffled[0]), events(shuffled[1]), KINDS)
    columns = [*list(figures())[:-1], "bounced"]
    got = {row["decision_id"]: {name: row[name] for name in columns} for row in found.decisions.iter_rows(named=True)}
    assert got == lists
    by_item = {
        (row["decision_id"], row["item_id"]): {name: row[name] for name in columns}
        for row in found.items.iter_rows(named=True)
    }
    assert by_item == items
    outcomes = [event for event in done if KINDS.types.get(event["event_type"], "impression") != "impression"]
    assert sum(found.decisions.select("clicks", "conversions", "negatives").sum().row(0)) <= len(outcomes)


@given(MADE, DONE)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_order_and_splits_of_rows_change_nothing(made: list[Row], done: list[Row]) -> None:
    one = joined(decisions([dict(row) for row in made]), events(done), KINDS)
    two = joined(decisions([dict(row) for row in reversed(made)]), events(done[::-1]), KINDS)
    assert_frame_equal(one.decisions, two.decisions)
    assert_frame_equal(one.items, two.items)


def one_list(*done: Row) -> Joined:
    made = decisions([{"decision_id": "d", "user_id": "u", "at": START, "items": ["a", "b"]}])
    return joined(made, events([{"user_id": "u", **event} for event in done]), KINDS)


def test_ends_of_the_window_count() -> None:
    at = START + KINDS.window
    assert one_list({"event_type": "click", "item_id": "a", "timestamp": at}).decisions["clicks"].item() == 1
    late = at + timedelta(microseconds=1)
    assert one_list({"event_type": "click", "item_id": "a", "timestamp": late}).decisions["clicks"].item() == 0
    carried = {"event_type": "click", "item_id": "a", "timestamp": late, "decision_id": "d"}
    assert one_list(carried).decisions["clicks"].item() == 1


def test_a_click_too_young_to_bounce_is_not_judged() -> None:
    click = {"event_type": "click", "item_id": "a", "timestamp": START}
    assert one_list(click).decisions["bounced"].item() is None
    later = {"event_type": "view", "timestamp": START + KINDS.bounce + timedelta(seconds=1)}
    assert one_list(click, later).decisions["bounced"].item() is True
    soon = {"event_type": "view", "timestamp": START + KINDS.bounce}
    assert one_list(click, soon).decisions["bounced"].item() is False


def test_an_event_type_that_is_two_things_is_refused(tmp_path: Any) -> None:
    home = create(tmp_path / "w")
    path = home.path("persona.toml")
    path.write_text(path.read_text().replace('conversion = ["purchase"', 'conversion = ["click", "purchase"'))
    with pytest.raises(BadSettings, match="'click' is both click and conversion"):
        Kinds.of(open_home(home.root).settings)
