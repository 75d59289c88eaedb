"""The tables of dialects in docs/events.md are those that the dialects read by, and its examples work."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from scripts import DOCS, assert_current, assert_notices

from persona_cli.events.dialects.dialect import Dropped
from persona_cli.events.dialects.own import KEYS, build
from tests.events.speaking import hear, heard

PAGE = DOCS / "events.md"
AT = 1_709_287_200


def test_the_tables_are_current() -> None:
    assert_current("generate_dialects.py")


def test_the_check_notices_tables_that_are_out_of_date(tmp_path: Path) -> None:
    text = PAGE.read_text().replace("`messageId`", "`messageID`")
    assert_notices(tmp_path, "generate_dialects.py", "events.md", text)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_toml_example_does_what_the_page_says() -> None:
    (text,) = (block for block in blocks("toml") if "explode" in block)
    shop = build(tomllib.loads(text), "shop", "shop.toml")
    base = {"shop_version": 1, "guest": "g", "at": AT * 1000, "debug": 1}
    rows, reasons = heard(shop, [
        base | {"kind": "ping"}, base | {"kind": "like", "post": {"id": 1}},
        base | {"kind": "bought", "lines": [{"sku": "a", "price": 2}, {"sku": "b"}]}])  # fmt: skip
    assert reasons == {"-heartbeat": 1}
    assert [(row["event_type"], row.get("item_id"), row.get("value")) for row in rows] == [
        ("save", None, None), ("purchase", "a", 2.0), ("purchase", "b", None),
    ]  # fmt: skip
    assert all("debug" not in row.get("props", {}) and row["currency"] == "EUR" for row in rows)
    assert shop.recognises([base])


def test_the_python_example_is_a_dialect() -> None:
    (text,) = (block for block in blocks("python") if "DIALECT" in block)
    space: dict[str, Any] = {}
    exec(text, space)
    (row,) = hear(space["DIALECT"], {"guest": "g", "kind": "click", "at": AT})
    assert (row["user_id"], row["event_type"], row["timestamp"]) == ("g", "click", AT * 1_000_000)
    _, reasons = heard(space["DIALECT"], [{"kind": "ping"}])
    assert reasons == {"-heartbeat": 1}
    assert issubclass(space["Dropped"], Dropped)


def test_the_page_names_every_key_of_a_dialect_in_toml() -> None:
    page = PAGE.read_text()
    assert [key for key in KEYS if f"{key} =" not in page and f"[{key}]" not in page and f"`{key}`" not in page] == []
