"""Amazon Personalize: interactions, items and users."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.events.speaking import dialect, hear, reason

INTERACTIONS, ITEMS, USERS = (dialect("personalize", kind) for kind in ("events", "items", "users"))
NAMES = {
    "user_id": "USER_ID", "item_id": "ITEM_ID", "event_type": "EVENT_TYPE", "value": "EVENT_VALUE",
    "timestamp": "TIMESTAMP", "session_id": "SESSION_ID", "decision_id": "RECOMMENDATION_ID",
}  # fmt: skip
TEXT = st.text("abcXYZ019-_é", min_size=1, max_size=9)
ROWS = st.fixed_dictionaries(
    {
        "user_id": TEXT,
        "item_id": TEXT,
        "event_type": st.sampled_from(["view", "purchase", "Watched twice"]),
        "timestamp": st.integers(10**9, 2 * 10**9).map(lambda seconds: seconds * 10**6),
    },
    optional={
        "value": st.floats(-1e6, 1e6).map(lambda value: value + 0.0),
        "session_id": TEXT,
        "decision_id": TEXT,
        "shown": st.lists(TEXT, min_size=1, max_size=4),
    },
)


def written(row: dict[str, Any]) -> dict[str, str | None]:
    cells: dict[str, str | None] = dict.fromkeys((*NAMES.values(), "IMPRESSION"))
    cells |= {NAMES[name]: str(value) for name, value in row.items() if name in NAMES}
    cells["TIMESTAMP"] = str(row["timestamp"] // 10**6)
    cells["EVENT_TYPE"] = {"view": "product_view", "purchase": "Purchase"}.get(row["event_type"], row["event_type"])
    cells["IMPRESSION"] = "|".join(row["shown"]) if "shown" in row else None
    return cells


@given(ROWS)
def test_what_is_written_as_interactions_reads_back(row: dict[str, Any]) -> None:
    first = {name: value for name, value in row.items() if name != "shown"}
    around = {name: value for name, value in first.items() if name != "value"}
    shown = [
        around | {"event_type": "impression", "item_id": item, "position": position}
        for position, item in enumerate(row.get("shown", []), 1)
    ]
    assert hear(INTERACTIONS, written(row)) == [first, *shown]


def test_an_interaction_has_a_name_metadata_and_ids() -> None:
    cells = {"USER_ID": "u", "ITEM_ID": "i", "TIMESTAMP": "1596238243", "DEVICE": "tv", "MEMBER": "gold",
             "EVENT_ID": "e", "IMPRESSION": "a||b"}  # fmt: skip
    common = {"user_id": "u", "device": "tv", "timestamp": 1_596_238_243_000_000}
    assert hear(INTERACTIONS, cells) == [
        common | {"item_id": "i", "event_id": "e", "event_type": "interaction", "props": {"MEMBER": "gold"}},
        common | {"item_id": "a", "event_id": "e/1", "event_type": "impression", "position": 1},
        common | {"item_id": "b", "event_id": "e/3", "event_type": "impression", "position": 3},
    ]


def test_items_and_users_by_their_metadata() -> None:
    item = {"ITEM_ID": "i", "GENRES": "a|b c", "PRICE": "9.5", "CREATION_TIMESTAMP": "1596238243", "YEAR": "1999",
            "CATEGORY_L1": "shoes", "CATEGORY_L2": None, "PRODUCT_DESCRIPTION": "warm"}  # fmt: skip
    assert hear(ITEMS, item) == [
        {"item_id": "i", "tags": ["a", "b c"], "price": 9.5, "published_at": 1_596_238_243_000_000, "category": "shoes",
         "text": "warm", "props": {"YEAR": "1999"}}
    ]  # fmt: skip
    assert hear(USERS, {"USER_ID": "u", "AGE": "30", "COUNTRY": "DE"}) == [
        {"user_id": "u", "country": "DE", "props": {"AGE": "30"}}
    ]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"TIMESTAMP": "1596238243000"}, "TIMESTAMP: expected whole seconds since 1970"),
        ({"TIMESTAMP": "2020-07-31"}, "TIMESTAMP: expected whole seconds since 1970, got text"),
        ({"TIMESTAMP": None}, "TIMESTAMP: missing or empty"),
        ({"USER_ID": None}, "USER_ID: missing or empty"),
        ({"ITEM_ID": " "}, "ITEM_ID: missing or empty"),
        ({"EVENT_VALUE": "much"}, "EVENT_VALUE: expected a number, got text"),
        ({"IMPRESSION": 7}, "IMPRESSION: expected item ids joined by |"),
    ],
)
def test_reasons_name_the_column(changed: dict[str, Any], why: str) -> None:
    assert reason(INTERACTIONS, {"USER_ID": "u", "ITEM_ID": "i", "TIMESTAMP": "1596238243"} | changed) == why


def test_reasons_of_items_and_users() -> None:
    assert reason(ITEMS, {"ITEM_ID": None, "PRICE": "1"}) == "ITEM_ID: missing or empty"
    assert reason(ITEMS, {"ITEM_ID": "i", "PRICE": "cheap"}) == "PRICE: expected a number, got text"
    assert reason(USERS, {"USER_ID": "", "AGE": "1"}) == "USER_ID: missing or empty"
