"""Dialects written as TOML: what each key does, and what is said about a faulty one."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from persona_cli.errors import BadSettings, MissingInput
from persona_cli.events import dialects
from persona_cli.events.dialects.dialect import Dialect
from persona_cli.events.dialects.own import build, load
from persona_cli.workspace import settings
from tests.events.speaking import hear, heard, reason

FIELDS = 'fields = { user_id = ["customer.id", "guest"], event_type = "kind", timestamp = "at", item_id = "sku" }\n'
AT = 1_709_287_200
US = AT * 1_000_000


def written(text: str) -> Dialect:
    return build(tomllib.loads(text), "shop", "shop.toml")


def test_paths_are_tried_in_order_and_the_rest_is_kept() -> None:
    first, second = hear(
        written(FIELDS + 'constants = { currency = "EUR", value = 2 }'),
        {"customer": {"id": 7, "name": "x"}, "guest": "g", "kind": "Product Viewed", "at": AT, "sku": "p"},
        {"guest": "g", "kind": "Own Word", "at": AT},
    )
    assert (first["user_id"], first["event_type"], first["item_id"], first["currency"], first["value"]) == (
        "7", "view", "p", "EUR", 2.0,
    )  # fmt: skip
    assert first["props"] == {"customer": {"name": "x"}, "guest": "g"}
    assert (second["user_id"], second["event_type"]) == ("g", "Own Word")


def test_words_of_ones_own_come_first() -> None:
    shop = written(FIELDS + 'event_types = { bought = "purchase", "Product Viewed" = "glance" }')
    rows = hear(shop, *({"guest": "g", "kind": kind, "at": AT} for kind in ("bought", "Product Viewed", "click")))
    assert [row["event_type"] for row in rows] == ["purchase", "glance", "click"]


def test_a_list_is_taken_apart() -> None:
    shop = written(
        'explode = "lines"\nfields = { event_id = "id", user_id = "u", event_type = "kind", timestamp = "at", '
        'item_id = ["lines[].sku", "lines[].id"], value = "lines[].price", position = "place" }'
    )
    rows = hear(shop, {"id": "e", "u": "a", "kind": "x", "at": AT, "place": 3, "lines": [
        {"sku": "p", "price": 1.5, "colour": "red"}, {"id": "q"}], "shop": 1})  # fmt: skip
    assert [(row["event_id"], row["item_id"], row.get("value"), row["props"]) for row in rows] == [
        ("e", "p", 1.5, {"colour": "red", "shop": 1}), ("e/1", "q", None, {"shop": 1}),
    ]  # fmt: skip
    assert len(hear(shop, {"u": "a", "kind": "x", "at": AT})) == 1
    assert reason(shop, {"u": "a", "kind": "x", "at": AT, "lines": 7}) == "lines: expected an array, got a number"


@pytest.mark.parametrize(
    ("unit", "number"), [("s", AT), ("ms", AT * 1_000), ("us", US), ("ns", US * 1_000), ("s", str(AT)), ("s", AT + 0.0)]
)
def test_units_of_time(unit: str, number: int | str | float) -> None:
    (row,) = hear(written(FIELDS + f'time_unit = "{unit}"'), {"guest": "g", "kind": "x", "at": number})
    assert row["timestamp"] == US


def test_texts_in_a_column_of_numbers_and_times_beyond() -> None:
    shop = written(FIELDS + 'time_unit = "s"')
    (row,) = hear(shop, {"guest": "g", "kind": "x", "at": "2024-03-01T10:00:00Z"})
    assert row["timestamp"] == US
    assert reason(shop, {"guest": "g", "kind": "x", "at": 10**30}) == "at: unreadable as a time"


def test_conditions() -> None:
    shop = written(
        FIELDS
        + """when = [
          { if = { kind = "ping" }, drop = "heartbeat" },
          { if = { kind = ["a", "b"], "box.open" = true }, constants = { event_type = "click" } },
          { if = { other = "*" }, fields = { item_id = "other" } }]"""
    )
    base = {"guest": "g", "at": AT}
    rows, reasons = heard(shop, [
        base | {"kind": "ping"}, base | {"kind": "b", "box": {"open": True}}, base | {"kind": "b", "box": {}},
        base | {"kind": "c", "sku": "p", "other": "q"}])  # fmt: skip
    assert [(row["event_type"], row.get("item_id")) for row in rows] == [("click", None), ("b", None), ("c", "q")]
    assert reasons == {"-heartbeat": 1}


def test_json_in_a_column() -> None:
    shop = written('json = ["body"]\nfields = { user_id = "body.u", event_type = "=x", timestamp = "at" }')
    (row,) = hear(shop, {"at": AT, "body": '{"u": "a", "price": 1.10}'})
    assert (row["user_id"], row["props"]) == ("a", {"body": {"price": 1.1}})
    assert reason(shop, {"at": AT, "body": "{"}) == "body: expected JSON"


def test_what_is_left_out() -> None:
    (row,) = hear(written(FIELDS + 'leave_out = ["raw", "customer.name"]'), {
        "customer": {"id": 1, "name": "x"}, "kind": "x", "at": AT, "raw": [1], "kept": 1})  # fmt: skip
    assert row["props"] == {"kept": 1}


def test_catalogues_and_tables_without_a_header(tmp_path: Path) -> None:
    shop = written(
        'kind = "items"\ncolumns = ["id", "name"]\nseparator = "|"\nfields = { item_id = "id", title = "name" }'
    )
    assert (shop.kind, shop.columns, shop.separator) == ("items", ("id", "name"), "|")
    (row,) = hear(shop, {"id": "1", "name": "Lamp"})
    assert (row["item_id"], row["title"]) == ("1", "Lamp")


def test_only_what_says_how_to_recognise_it_is_recognised() -> None:
    assert not written(FIELDS).recognises([{"guest": "g", "kind": "x", "at": AT}])
    shop = written(FIELDS + 'recognise = ["shop.version"]')
    assert shop.recognises([{"shop": {"version": 2}}])
    assert not shop.recognises([{"shop": {"version": 2}}, {"shop": {}}])


def test_declared_in_persona_toml_and_asked_first(tmp_path: Path) -> None:
    path = tmp_path / "persona.toml"
    path.write_text(f'[dialects.shop]\nrecognise = ["kind"]\n{FIELDS}[dialects.other]\nkind = "items"\nfields = {{}}\n')
    known = settings.load(path, {})
    assert [one.name for one in dialects.known(known)][:2] == ["shop", "other"]
    assert dialects.choose("shop", "events", known).sure
    assert dialects.choose("auto", "events", known).dialects[0].name == "shop"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "shop.toml: fields is missing; expected a table such as"),
        ("fields = 1", "shop.toml: fields is 1; expected a table"),
        ("fields = { usr_id = 'a' }", r"shop.toml: fields.usr_id is not known.*user_id"),
        ("fields = { user_id = 7 }", "shop.toml: fields.user_id is 7; expected a path such as"),
        ("fields = { user_id = [] }", r"shop.toml: fields.user_id is \[\]; expected a path such as"),
        ("field = {}", "shop.toml: field is not known.*fields"),
        ("fields = {}\nkind = 'event'", 'shop.toml: kind is "event"; expected one of events, items'),
        ("fields = {}\ntime_unit = 'min'", 'shop.toml: time_unit is "min"; expected one of s, ms, us, ns'),
        ("fields = {}\nencoding = 'klingon'", 'shop.toml: encoding is "klingon"; expected an encoding'),
        (
            "fields = {}\nconstants = { value = true }",
            "shop.toml: constants.value is true; expected a text or a number",
        ),
        ("fields = {}\nevent_types = { a = 1 }", "shop.toml: event_types.a is 1; expected an event type in quotes"),
        ("fields = { item_id = 'lines[].sku' }", r'fields.item_id is "lines\[\].sku"; .*explode = "lines"'),
        ("fields = {}\nwhen = [{ drop = 'x' }]", r"shop.toml: when\[1\].if is missing; expected a table of paths"),
        ("fields = {}\nwhen = [{ if = { a = 1 }, dorp = 'x' }]", r"when\[1\].dorp is not known.*drop"),
        ("fields = {}\nwhen = 7", "shop.toml: when is 7; expected a list"),
        ("fields = {}\nrecognise = [1]", r"shop.toml: recognise is \[1\]; expected a text or a list of texts"),
    ],
)
def test_what_is_said_about_a_faulty_one(text: str, said: str) -> None:
    with pytest.raises(BadSettings, match=said):
        written(text)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="there is no such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("fields = {")
    with pytest.raises(BadSettings, match=r"bad.toml is not valid TOML"):
        load(tmp_path / "bad.toml")
    (tmp_path / "shop.toml").write_text(FIELDS)
    (one,) = load(tmp_path / "shop.toml")
    assert one.name == "shop"
