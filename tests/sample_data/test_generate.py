"""The sample data: the committed files are what the generator makes, and what it simulated can be found in them."""

from __future__ import annotations

import csv
import gzip
import importlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona_cli.workspace.declarations import STRENGTHS

FOLDER = Path(__file__).parents[2] / "sample_data"
Generate = Callable[..., dict[str, bytes]]


@pytest.fixture(scope="module")
def generate() -> Iterator[Generate]:
    """The generator, a script with modules beside it, imported from its folder."""
    beside = {path.stem for path in FOLDER.glob("*.py")}
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("generate").generate
    finally:
        sys.path.remove(str(FOLDER))
        for name in beside:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    found = {p.name: p.read_bytes() for p in FOLDER.iterdir() if p.suffix in (".jsonl", ".csv", ".gz")}
    found["events.jsonl"] = gzip.decompress(found["events.jsonl.gz"])
    return found


@pytest.fixture(scope="module")
def good(files: dict[str, bytes]) -> list[dict[str, Any]]:
    """The events that are in order, oldest first."""
    found = []
    for line in files["events.jsonl"].splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        user = event.get("user_id") or event.get("anon_id")
        if isinstance(user, str) and event["event_type"] and "2026-06-01" <= event["timestamp"] < "2026-11-01":
            found.append(event | {"user": user})
    return sorted(found, key=lambda event: event["timestamp"])


@pytest.fixture(scope="module")
def items(files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """Items as they were last."""
    return {item["item_id"]: item for item in map(json.loads, files["items.jsonl"].splitlines())}


def test_generating_again_gives_the_committed_files(generate: Generate, files: dict[str, bytes]) -> None:
    for name, content in generate().items():
        # Compared unpacked: zlib versions pack differently.
        assert content == files[name], name
    header = files["events.jsonl.gz"][:10]
    assert header[3] == 0 and header[4:8] == b"\0\0\0\0", "no file name and no time in the gzip header"


def test_another_seed_gives_other_data(generate: Generate, files: dict[str, bytes]) -> None:
    assert generate(1)["truth.jsonl"] != files["truth.jsonl"]


def test_it_stays_small(files: dict[str, bytes]) -> None:
    assert sum(len(content) for name, content in files.items() if name != "events.jsonl") < 3_000_000


def test_every_type_of_event_with_a_strength_occurs(good: list[dict[str, Any]]) -> None:
    counts = Counter(event["event_type"] for event in good)
    named = {key for key, strength in STRENGTHS.items() if key.isidentifier() and strength != 0}
    assert min(counts[name] for name in named | {"impression", "search", "login", "upgrade", "rating"}) >= 10
    contexts = Counter(name for event in good for name in event["context"])
    assert contexts.keys() == {"device", "os", "browser", "country", "locale", "tz", "referrer", "campaign"}
    assert {event["value"] for event in good if event["event_type"] == "rating"} - {"five stars"} == {1, 2, 3, 4, 5}


def test_bad_lines_are_few_and_of_many_kinds(files: dict[str, bytes]) -> None:
    from persona_cli.events.judge import Rejected, Rules, judge, parse_json
    from persona_cli.events.schema import resolve

    native = resolve(
        "events", {("user_id",), ("anon_id",), ("event_type",), ("timestamp",), ("value",)}, (), nested=True
    )
    rules = Rules(native, latest_us=1_795_000_000_000_000)  # 2026-11-18
    reasons: Counter[str] = Counter()
    lines = files["events.jsonl"].splitlines()
    for line in lines:
        try:
            judge(parse_json(line), rules)
        except Rejected as rejected:
            reasons[str(rejected)] += 1
    assert len(reasons) >= 8
    assert 0.002 < sum(reasons.values()) / len(lines) < 0.004


def test_tables_know_everybody_and_everything(
    files: dict[str, bytes], good: list[dict[str, Any]], items: dict[str, dict[str, Any]]
) -> None:
    users = {row["user_id"]: row for row in csv.DictReader(files["users.csv"].decode().splitlines())}
    accounts = {row["account_id"] for row in csv.DictReader(files["accounts.csv"].decode().splitlines())}
    assert (len(users), len(items)) == (2000, 300)
    assert {event["user_id"] for event in good if "user_id" in event} <= users.keys()
    assert {event["item_id"] for event in good if "item_id" in event} == items.keys()
    assert {user["account_id"] for user in users.values()} <= accounts
    assert 5 < sum(not item["available"] for item in items.values()) < 30
    assert all(event["timestamp"] >= items[event["item_id"]]["published_at"] for event in good if "item_id" in event)


def test_some_visit_before_they_sign_in(good: list[dict[str, Any]]) -> None:
    before = {event["anon_id"] for event in good if "user_id" not in event}
    after = {event["anon_id"] for event in good if "user_id" in event and "anon_id" in event}
    assert len(before & after) > 200 and len(before - after) > 100


def test_few_users_have_long_histories_and_many_have_little(good: list[dict[str, Any]]) -> None:
    counts = sorted(Counter(event["user"] for event in good).values())
    assert counts[len(counts) // 2] < 15
    assert counts[-len(counts) // 50] > 100


def test_what_users_open_is_what_they_like(
    files: dict[str, bytes], good: list[dict[str, Any]], items: dict[str, dict[str, Any]]
) -> None:
    truth = {record["user_id"]: record for record in map(json.loads, files["truth.jsonl"].splitlines())}
    assert sum("drift" in record for record in truth.values()) > 30
    in_favourite, opened, after_drift, by_new_taste = 0, 0, 0, 0
    for event in good:
        if event["event_type"] != "view" or "user_id" not in event:
            continue
        record, category = truth[event["user_id"]], items[event["item_id"]]["category"]
        if "drift" not in record:
            opened += 1
            in_favourite += category == max(record["likes"], key=record["likes"].get)
        elif event["timestamp"] > record["drift"]["since"]:
            after_drift += 1
            by_new_taste += category in record["drift"]["likes"]
    assert in_favourite / opened > 0.45  # one category in ten would be 0.1
    assert by_new_taste / after_drift > 0.6


def test_neighbours_of_items_beat_popularity_on_what_follows(good: list[dict[str, Any]]) -> None:
    """Recall@20 of new items after a cut in time, for cosine neighbours of items and for the popular list."""
    pairs = [(event["user"], event["item_id"]) for event in good if "item_id" in event]
    users = {user: row for row, user in enumerate(sorted({user for user, _ in pairs}))}
    items = {item: column for column, item in enumerate(sorted({item for _, item in pairs}))}
    before, after = np.zeros((2, len(users), len(items)))
    cut = len(pairs) * 4 // 5
    for matrix, part in ((before, pairs[:cut]), (after, pairs[cut:])):
        for user, item in part:
            matrix[users[user], items[item]] = 1
    after[before > 0] = 0
    tested = after.sum(axis=1) > 0
    popular = before.sum(axis=0)
    together = before.T @ (before / np.sqrt(np.maximum(before.sum(axis=1, keepdims=True), 1)))
    np.fill_diagonal(together, 0)
    near = before @ (together / np.sqrt(np.outer(popular + 1, popular + 1)))

    def recall(scores: Any) -> float:
        best = np.argsort(np.where(before > 0, -np.inf, -0.0) + scores, axis=1)[:, -20:]
        hits = np.take_along_axis(after, best, axis=1).sum(axis=1)
        return float((hits[tested] / after.sum(axis=1)[tested]).mean())

    assert tested.sum() > 800
    assert recall(near + 1e-9 * popular) > 1.5 * recall(np.broadcast_to(popular, before.shape))
