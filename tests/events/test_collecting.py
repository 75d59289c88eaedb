"""What is not collected is in no file; what is coarse is; and neither brings an event back."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingesting import event, stored, write

from persona_cli.api import Workspace
from persona_cli.errors import BadSettings
from persona_cli.events.batch import rows_schema
from persona_cli.events.collecting import (
    AllowedKeys,
    Collect,
    collect,
    device,
    family,
    host,
    language,
    offset,
    section,
)
from persona_cli.events.ingest import plan
from persona_cli.events.judge import json_text
from persona_cli.events.schema import FIELDS
from persona_cli.workspace.home import Home, create, open_home
from persona_cli.workspace.privacy_declarations import COLLECT_SETTINGS, NEEDED, OPTIONAL
from persona_cli.workspace.settings import load

IDS = ["event_id", "user_id", "anon_id", "event_type", "timestamp"]


def with_settings(home: Home, text: str) -> Home:
    """The workspace with these lines instead of its settings."""
    (home.root / "persona.toml").write_text(text)
    return open_home(home.root)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return create(tmp_path / "w")


def everything_in(root: Path) -> bytes:
    """The bytes of all files, and what the Parquet files among them say when they are read."""
    found = []
    for path in sorted(root.rglob("*")):
        if path.is_file():
            found.append(path.read_bytes())
        if path.suffix == ".parquet":
            found.append(str(pq.ParquetFile(path).read().to_pylist()).encode())
    return b"\n".join(found)


def test_declared_columns_are_those_of_the_schema() -> None:
    for kind, fields in FIELDS.items():
        assert {field.name for field in fields if not field.transient} == {*NEEDED[kind], *OPTIONAL[kind]}


@pytest.mark.parametrize(
    ("url", "of_host", "of_section"),
    [
        ("https://shop.test/a/b?x", "https://shop.test", "https://shop.test/a"),
        ("https://me:pw@shop.test:80/a", "https://shop.test:80", "https://shop.test:80/a"),
        ("//cdn.test/x/y", "//cdn.test", "//cdn.test/x"),
        ("shop.test/u/7", "shop.test", "shop.test/u"),
        ("https://shop.test", "https://shop.test", "https://shop.test"),
        ("/users/7/settings", None, "/users"),
        ("/", None, "/"),
        ("checkout", None, "checkout"),
        ("android-app://org.news.app/x", "android-app://org.news.app", "android-app://org.news.app/x"),
    ],
)
def test_hosts_and_sections(url: str, of_host: str | None, of_section: str | None) -> None:
    assert host(url) == of_host
    assert section(url) == of_section


def test_languages_families_devices_and_offsets() -> None:
    assert [language(text) for text in ("de-AT", "de_AT.UTF-8", "EN", "zh-Hant-TW")] == ["de", "de", "en", "zh"]
    versions = ("Chrome 120.0.1", "Chrome/120", "Mac OS X 10.15", "Firefox", "Safari v17", "iOS-17")
    assert [family(text) for text in versions] == ["Chrome", "Chrome", "Mac OS X", "Firefox", "Safari", "iOS"]
    names = ("iPhone14,2", "SM-S918B", "iPad Pro", "Smart TV", "desktop", "fridge", "Windows PC", "mobile")
    assert [device(name) for name in names] == [
        "mobile", "mobile", "tablet", "tv", "desktop", "other", "desktop", "mobile",
    ]  # fmt: skip
    zones = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Sydney", "+02:30", "UTC", "nowhere")
    assert [offset(zone) for zone in zones] == ["+01:00", "-05:00", "+05:00", "+10:00", "+02:00", "+00:00", None]


@pytest.mark.parametrize(
    ("allowed", "left"),
    [
        (["plan"], {"plan": "pro"}),
        (["cart.total"], {"cart": {"total": 3.50}}),
        (["cart"], {"cart": {"total": 3.50, "note": "x"}}),
        (["lines.sku"], {"lines": [{"sku": 1}, {"sku": 2}]}),
        (["missing", "plan.x"], None),
        (["a.b"], {"a.b": 1}),
    ],
)
def test_keys_of_props(allowed: list[str], left: Any) -> None:
    text = json_text(
        {
            "plan": "pro",
            "cart": {"total": 3.50, "note": "x"},
            "lines": [{"sku": 1, "mail": "a@b.test"}, {"sku": 2}, 5],
            "a.b": 1,
        }
    )
    kept = AllowedKeys(allowed).of(text)
    assert (None if kept is None else json.loads(kept)) == left


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.é\n", max_size=3), inner, max_size=3),
    max_leaves=8,
)


def _left(value: Any, allowed: list[str], above: str = "") -> Any:
    """The plain definition."""
    kept: dict[str, Any] = {}
    for key, inner in value.items():
        path = above + key
        if any(path == one or path.startswith(one + ".") for one in allowed):
            kept[key] = inner
        elif any(one.startswith(path + ".") for one in allowed):
            if isinstance(inner, dict):
                below = _left(inner, allowed, path + ".")
            elif isinstance(inner, list):
                below = _left_of_list(inner, allowed, path + ".")
            else:
                continue
            if below:
                kept[key] = below
    return kept


def _left_of_list(values: list[Any], allowed: list[str], above: str) -> list[Any]:
    parts = [
        _left(one, allowed, above) if isinstance(one, dict) else _left_of_list(one, allowed, above)
        for one in values
        if isinstance(one, dict | list)
    ]
    return [part for part in parts if part]


@given(
    st.dictionaries(st.text("ab.é\n", max_size=3), JSON, max_size=4),
    st.lists(st.text("ab.", min_size=1, max_size=4), max_size=3),
)
@settings(max_examples=200, deadline=None)
def test_keys_of_any_props_are_those_of_the_plain_definition(props: dict[str, Any], allowed: list[str]) -> None:
    kept = AllowedKeys(allowed).of(json_text(props))
    assert (json.loads(kept) if kept else {}) == _left(props, allowed)


def test_numbers_and_times_go_to_steps() -> None:
    schema = rows_schema("events")
    told = [(3.24, 7, -1), (0.05, 4, 3_599_999_999), (-0.26, None, 3_600_000_000), (None, 0, 0)]
    rows = [
        dict.fromkeys(schema.names) | {"value": value, "position": place, "timestamp": at, "received_at": at}
        for value, place, at in told
    ]
    rules = Collect({}, {"timestamp": "hour", "received_at": "hour", "value": 0.1, "position": 5.0})
    counts: Counter[str] = Counter()
    left = collect(pa.Table.from_pylist(rows, schema), "events", rules, counts)
    assert left["value"].to_pylist() == [3.2, 0.1, -0.3, None]
    assert left["position"].to_pylist() == [5, 5, None, 0]
    assert left["timestamp"].cast(pa.int64()).to_pylist() == [-3_600_000_000, 0, 3_600_000_000, 0]
    assert counts == {
        "timestamp_coarsened": 2,
        "received_at_coarsened": 2,
        "value_coarsened": 3,
        "position_coarsened": 2,
    }
    assert left.schema == schema


def test_nothing_set_gives_the_very_same_rows(home: Home) -> None:
    rules = Collect.of(home.settings)
    rows = pa.Table.from_pylist([], rows_schema("events"))
    assert not any(rules.touches(kind) for kind in FIELDS)
    assert collect(rows, "events", rules, Counter()) is rows


SECRETS = ["s3cret", "hidden.example", "Ruritania", "salad dressing", "ada@lovelace.test"]
RULES = """
[privacy.collect]
events = ["event_id", "user_id", "anon_id", "event_type", "timestamp", "item_id", "session_id", "locale"]
props = ["plan"]
users = ["user_id", "valid_from", "role"]
quarantine_raw = false
[privacy.collect.coarsen]
timestamp = "hour"
locale = "language"
"""
LINES: list[Any] = [
    event("u1", "2026-01-05T10:20:30.5Z", item_id="a", query="salad dressing", props={"plan": "pro", "x": "s3cret"}),
    event("u1", "2026-01-05T10:40:00Z", item_id="a", value=4.5, context={"region": "Ruritania", "locale": "de-AT"}),
    event("u2", "2026-01-05T10:50:00Z", context={"referrer": "https://hidden.example/x"}, loose={"deep": ["s3cret"]}),
    event("u2", "2026-01-05T23:50:00Z", props={"ada@lovelace.test": 1}),
    '{"user_id": "u3", "event_type": "click", "timestamp": "soon", "note": "s3cret"}',
]


def test_what_is_not_collected_is_in_no_file(home: Home, tmp_path: Path) -> None:
    home = with_settings(home, RULES)
    report = Workspace.of(home).ingest(write(tmp_path / "a.jsonl", LINES))
    assert (report.accepted, report.rejected) == (4, 1)
    counted = {"props": 3, "query": 1, "region": 1, "referrer": 1, "value": 1}
    assert report.removed == counted | {"timestamp_coarsened": 4, "locale_coarsened": 1}
    held = everything_in(home.root)
    assert b"u1" in held
    for secret in SECRETS:
        assert secret.encode() not in held
    rows = stored(home).sort("user_id", "timestamp")
    assert rows["timestamp"].dt.strftime("%H:%M:%S").to_list() == ["10:00:00", "10:00:00", "10:00:00", "23:00:00"]
    assert sorted(rows["props"].drop_nulls()) == ['{"plan":"pro"}']
    (run,) = (json.loads(path.read_text()) for path in (home.root / "runs").glob("*.json"))
    assert run["counts"]["removed"] == report.removed


def test_traits_and_rows_of_users_are_collected_by_the_rules_of_users(home: Home, tmp_path: Path) -> None:
    call = {"type": "identify", "userId": "u1", "timestamp": "2026-01-05T10:00:00Z", "messageId": "m1"}
    traits = {"role": "admin", "country": "Ruritania", "shoe": "s3cret"}
    first = write(tmp_path / "a.jsonl", [call | {"traits": traits}])
    Workspace.of(home).ingest(first, dialect="segment")
    assert Workspace.of(home).catalogue("users")["country"].to_list() == ["Ruritania"]
    home = with_settings(home, RULES)
    later = call | {"timestamp": "2026-01-06T10:00:00Z", "messageId": "m2"}
    second = write(tmp_path / "b.jsonl", [later | {"traits": traits | {"role": "owner"}}])
    report = Workspace.of(home).ingest(second, dialect="segment")
    assert report.removed["users.country"] == 1
    assert report.removed["users.props"] == 1
    (row,) = Workspace.of(home).catalogue("users").to_dicts()
    # Neither what the call says nor what held before.
    assert (row["role"], row["country"], row["props"]) == ("owner", None, None)
    table = write(tmp_path / "u.jsonl", [{"user_id": "u9", "role": "guest", "country": "Ruritania"}])
    assert Workspace.of(home).ingest(table, kind="users").removed == {"country": 1}
    rows = Workspace.of(home).catalogue("users").filter(pl.col("user_id") == "u9")
    assert rows["country"].to_list() == [None]


def test_columns_of_items_may_be_left_out(home: Home, tmp_path: Path) -> None:
    rules = '[privacy.collect]\nitems = ["item_id", "valid_from", "title"]\nprops = []\n'
    items = [{"item_id": "a", "title": "A", "price": 3.5, "text": "by Ada", "extra": 1}]
    report = Workspace.of(with_settings(home, rules)).ingest(write(tmp_path / "i.jsonl", items), kind="items")
    assert report.removed == {"text": 1, "price": 1}
    (row,) = Workspace.of(home).catalogue("items").to_dicts()
    # Items are not people: their props stay.
    assert (row["title"], row["price"], row["text"], row["props"]) == ("A", None, None, '{"extra":1}')


@pytest.mark.parametrize("unit", ["minute", "hour", "day"])
@pytest.mark.parametrize("first_coarse", [False, True])
def test_a_file_that_comes_again_under_other_rules_adds_nothing(
    home: Home, tmp_path: Path, unit: str, first_coarse: bool
) -> None:
    lines = [event("u1", f"2026-01-05T{h:02}:15:{h:02}.25Z", item_id=str(h), session_id="s") for h in range(1, 23, 3)]
    lines += [lines[0], event("u1", "2026-01-05T01:15:02Z", item_id="1", session_id="s")]
    path = write(tmp_path / "a.jsonl", lines)
    rules = f"[privacy.collect]\nevents = {json.dumps([*IDS, 'value'])}\nprops = []\n[privacy.collect.coarsen]\n"
    coarse = rules + f'timestamp = "{unit}"\nvalue = 2\n'
    ways = [coarse, ""] if first_coarse else ["", coarse]
    report = Workspace.of(with_settings(home, ways[0])).ingest(path)
    # As the same file without rules: the two equal rows are one event twice, the last is another.
    assert (report.accepted, report.duplicates) == (len(lines), 0)
    before = stored(home)
    for part in (path, write(tmp_path / "b.jsonl", lines[2:4])):
        again = Workspace.of(with_settings(home, ways[1])).ingest(part)
        assert (again.accepted, again.duplicates) == (0, again.read)
    assert stored(home).equals(before)
    ids = stored(home)["event_id"].sort()
    # Asked for, the newer rules take hold of what is stored, and no event becomes another.
    Workspace.of(with_settings(home, ways[1])).ingest(path, on_duplicate="keep-last")
    assert stored(home)["event_id"].sort().equals(ids)
    assert stored(home)["session_id"].null_count() == (0 if first_coarse else len(lines))


def test_a_dry_run_shows_what_would_be_stored(home: Home, tmp_path: Path) -> None:
    (planned,) = plan(with_settings(home, RULES), [write(tmp_path / "a.jsonl", LINES)])
    assert "s3cret" not in str(planned.rows)
    assert planned.rows[0]["timestamp"].minute == 0


def test_a_retried_line_is_collected_by_the_same_rules(home: Home, tmp_path: Path) -> None:
    bad = {"user_id": "u1", "event_type": "click", "sent": "2026-01-05T10:20:30Z", "query": "salad dressing"}
    Workspace.of(home).ingest(write(tmp_path / "a.jsonl", [event("u9"), bad]))
    rules = RULES.replace("quarantine_raw = false", "")
    done = Workspace.of(with_settings(home, rules)).retry(maps=["timestamp=sent"])
    assert (done.accepted, done.removed) == (1, {"query": 1, "timestamp_coarsened": 1})
    (row,) = stored(home).filter(pl.col("user_id") == "u1").to_dicts()
    assert (row["query"], row["timestamp"].minute) == (None, 0)


def test_traits_of_a_retried_line_too(home: Home, tmp_path: Path) -> None:
    call = {"type": "identify", "userId": "u1", "timestamp": "soon", "messageId": "m1", "anonymousId": "a"}
    good = call | {"userId": "u2", "timestamp": "2026-01-05T10:00:00Z", "messageId": "m2"}
    traits = {"role": "admin", "country": "Ruritania"}
    path = write(tmp_path / "a.jsonl", [good, call | {"sent": "2026-01-05T10:00:00Z", "traits": traits}])
    Workspace.of(home).ingest(path, dialect="segment")
    home = with_settings(home, RULES.replace("quarantine_raw = false", ""))
    done = Workspace.of(home).retry(maps=["timestamp=sent"])
    assert (done.accepted, done.removed["users.country"]) == (1, 1)
    (row,) = Workspace.of(home).catalogue("users").filter(pl.col("user_id") == "u1").to_dicts()
    assert (row["role"], row["country"]) == ("admin", None)


def test_without_their_text_lines_are_told_and_cannot_be_retried(home: Home, tmp_path: Path) -> None:
    home = with_settings(home, RULES)
    path = write(tmp_path / "a.jsonl", LINES)
    for _ in range(2):
        Workspace.of(home).ingest(path)
    (row,) = Workspace.of(home).rejected().to_dicts()
    assert (row["line"], row["raw"], row["reason"]) == (5, b"", "timestamp: unreadable as a time")
    done = Workspace.of(home).retry()
    assert done.impossible == {"nothing of it was kept (privacy.collect.quarantine_raw)": 1}
    # Lines that were kept whole before are not kept again without.
    Workspace.of(with_settings(home, "")).ingest(path)
    Workspace.of(with_settings(home, RULES)).ingest(path)
    assert Workspace.of(home).rejected()["raw"].bin.size().sort().to_list()[0] == 0
    assert Workspace.of(home).rejected().height == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('events = ["event_id", "item_id"]', "user_id cannot be left out, since without the ids nobody's rows"),
        ('events = ["event_id", "user_id", "anon_id", "event_type"]', "timestamp cannot be left out, since without it"),
        (f"events = {json.dumps([*IDS, 'refferer'])}", "referrer"),
        ('props = ["a.*"]', "paths of keys"),
        ('coarsen = {timestamp = "drop"}', "cannot be left out"),
        ('coarsen = {timestamp = "week"}', "'minute' or 'hour' or 'day'"),
        ('coarsen = {user_id = "drop"}', "user_id cannot be"),
        ('coarsen = {value = "-1"}', "a step above 0"),
        ('coarsen = {locale = "hour"}', "'language' or 'drop'"),
        ('coarsen = {lokale = "drop"}', "locale"),
        ("coarsen = 3", "fields and how coarse"),
    ],
)
def test_wrong_rules_say_why(home: Home, text: str, words: str) -> None:
    with pytest.raises(BadSettings, match=r"privacy\.collect") as raised:
        with_settings(home, f"[privacy.collect]\n{text}\n")
    assert words in str(raised.value)


def test_rules_from_the_environment(tmp_path: Path) -> None:
    given = {"PERSONA_PRIVACY_COLLECT_PROPS": "plan,cart.total", "PERSONA_PRIVACY_COLLECT_QUARANTINE_RAW": "false"}
    found = load(None, given)
    assert found.texts("privacy.collect.props") == ("plan", "cart.total")
    assert Collect.of(found.with_flags({"privacy.collect.coarsen.value": 0.5})).coarse == {"value": 0.5}
    assert {setting.key for setting in COLLECT_SETTINGS} <= set(found.values)
