"""Canonical fields find their place: native names, aliases, flags, constants."""

from __future__ import annotations

import pytest

from persona_cli.errors import BadData, UsageError
from persona_cli.events.schema import Mapping, json_type, parse_flags, resolve

NATIVE = {("user_id",), ("event_type",), ("timestamp",)}


def test_native_names_win_over_aliases() -> None:
    mapping = resolve("events", {*NATIVE, ("userId",), ("sku",)}, (), nested=True)
    assert mapping.paths["user_id"] == ("user_id",)
    assert mapping.paths["item_id"] == ("sku",)
    assert mapping.guessed == ("item_id",)


def test_fields_not_seen_in_json_keep_their_native_place() -> None:
    mapping = resolve("events", NATIVE, (), nested=True)
    assert mapping.paths["item_id"] == ("item_id",)
    assert mapping.paths["device"] == ("context", "device")
    assert "item_id" not in resolve("events", NATIVE, (), nested=False).paths


def test_context_fields_may_be_flat() -> None:
    mapping = resolve("events", {*NATIVE, ("device",), ("context.page",)}, (), nested=False)
    assert (mapping.paths["device"], mapping.paths["page"]) == (("device",), ("context.page",))


def test_flags_name_columns_dotted_paths_and_constants() -> None:
    paths, constants = parse_flags("events", ["item_id=properties.sku", "event_type==click", "query=a=b"])
    assert paths == {"item_id": ("properties", "sku"), "query": ("a=b",)}
    assert constants == {"event_type": "click"}


def test_a_column_named_by_a_flag_is_no_alias_for_another_field() -> None:
    mapping = resolve("events", {*NATIVE, ("rating",)}, ["position=rating"], nested=True)
    assert mapping.paths["position"] == ("rating",)
    assert mapping.paths["value"] == ("value",)


def test_ratings_have_a_type_of_their_own() -> None:
    seen = {("userId",), ("movieId",), ("rating",), ("timestamp",)}
    mapping = resolve("events", seen, (), nested=False)
    assert mapping.constants == {"event_type": "rating"}
    assert mapping.describe()["event_type"] == "=rating"


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("user_id", "expects canonical=theirs"),
        ("user_id=", "expects canonical=theirs"),
        ("usr_id=x", "'usr_id' is not a field of events; did you mean 'user_id'"),
    ],
)
def test_flags_that_mean_nothing_are_refused(flag: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_flags("events", [flag])


def test_needed_fields_must_be_somewhere() -> None:
    with pytest.raises(BadData, match=r"no column for user_id or anon_id: .* the input has event_type, timestamp"):
        resolve("events", {("event_type",), ("timestamp",)}, (), nested=True)
    with pytest.raises(BadData, match="no column for item_id"):
        resolve("items", {("title",)}, (), nested=False)
    # Nothing seen, nothing known: every line will be judged by native names.
    assert resolve("events", set(), (), nested=True).paths["user_id"] == ("user_id",)


def test_tables_must_have_the_columns_that_flags_name() -> None:
    with pytest.raises(BadData, match="no column 'sku'; did you mean 'skus'"):
        resolve("events", {*NATIVE, ("skus",)}, ["item_id=sku"], nested=False)
    assert resolve("events", NATIVE, ["item_id=sku"], nested=True).paths["item_id"] == ("sku",)


def test_tree_of_paths() -> None:
    mapping = Mapping("events", {"user_id": ("u",), "item_id": ("u",), "device": ("c", "d"), "os": ("u", "os")})
    # What lies below a field's own value is not a place.
    assert mapping.tree() == {"u": ("user_id", "item_id"), "c": {"d": ("device",)}}


def test_json_types_in_words() -> None:
    words = [json_type(value) for value in (None, True, 1, 1.5, "x", [], {})]
    assert words == ["null", "a boolean", "a number", "a number", "text", "an array", "an object"]
