"""Exports are registered by recipient, so that an erasure can reach whoever was given the data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from persona_cli.cli.main import run
from persona_cli.errors import BadData, UsageError
from persona_cli.privacy.recipients import by_recipient, file_name, recipients, register
from persona_cli.workspace.home import Home, create, open_home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return create(tmp_path / "w")


def test_nobody_was_given_anything(home: Home) -> None:
    assert recipients(home) == [] and by_recipient(home) == {}


def test_every_export_is_kept_in_order_and_found_by_recipient(home: Home) -> None:
    first = register(home, " Mail house ", "profiles", "ab" * 32, ids="user_ids")
    second = register(home, "Ads", "events", None, "k1", "ads", "pseudonyms")
    third = register(home, "Mail house", "recommendations", ids="user_ids")
    assert recipients(home) == [first, second, third]
    assert by_recipient(home) == {"Ads": [second], "Mail house": [first, third]}
    assert list(by_recipient(home)) == ["Ads", "Mail house"]
    assert (second.key_id, second.domain, second.ids) == ("k1", "ads", "pseudonyms")


def test_writers_at_once_lose_nothing(home: Home) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: register(home, f"r{number}", "profiles"), range(12)))
    assert sorted(one.recipient for one in recipients(home)) == sorted(f"r{number}" for number in range(12))


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 201, "\x1b[31mred"])
def test_what_is_no_name_is_refused(home: Home, name: str) -> None:
    with pytest.raises(UsageError, match="--recipient"):
        register(home, name, "profiles")
    assert recipients(home) == []


def test_a_damaged_list_is_told_with_its_line(home: Home) -> None:
    register(home, "Ads", "events")
    path = home.path("privacy", "recipients.jsonl")
    path.write_text(path.read_text() + json.dumps({"recipient": "B"}) + "\n")
    with pytest.raises(BadData, match="line 2"):
        recipients(home)


def test_file_names_are_safe_and_differ() -> None:
    names = {file_name(name) for name in ("Ads", "ads", "a/ds", "../../etc", "Größe", "株式会社")}
    assert len(names) == 6
    assert all(name.isascii() and "/" not in name and not name.startswith(".") for name in names)


def test_what_leaves_the_workspace_is_registered_where_it_is_written(films: Callable[[int], Path]) -> None:
    root = films(6)
    assert run(["privacy", "keys", "new", "p.key"]) == 0
    shared = ["privacy", "pseudonymize", "-w", "w", "--domain", "ads", "--key-file", "p.key"]
    assert run([*shared, "events.jsonl", "--out", "shared.jsonl"]) == 0
    assert run([*shared, "--out", "other"]) == 0
    assert run([*shared, "events.jsonl"]) == 0
    assert run(["profile", "export", "-w", "w", "p.parquet", "--recipient", "Mail house"]) == 0
    assert run(["profile", "export", "-w", "w", "q.parquet"]) == 0
    file, workspace, stream, profiles = recipients(open_home(root))
    assert (file.recipient, file.ids, file.domain) == ("ads", "pseudonyms", "ads")
    assert file.digest == hashlib.sha256(Path("shared.jsonl").read_bytes()).hexdigest()
    assert file.key_id == json.loads(Path("shared.jsonl.manifest.json").read_text())["key"]
    assert (workspace.recipient, workspace.digest, stream.digest) == ("ads", None, None)
    assert (profiles.recipient, profiles.ids, profiles.key_id) == ("Mail house", "user_ids", None)
    assert profiles.digest == hashlib.sha256(Path("p.parquet").read_bytes()).hexdigest()
    assert recipients(open_home(Path("other"))) == []


def test_lists_for_a_recipient_are_registered(films: Callable[[int], Path]) -> None:
    root = films(6)
    assert run(["train", "-w", "w", "--model", "ease"]) == 0
    for words in (
        ["--out", "lists.jsonl", "--recipient", "Ads"],
        ["--recipient", "Mail house"],
        ["--out", "own.jsonl"],
    ):
        assert run(["recommend", "-w", "w", *words]) == 0
    file, stream = recipients(open_home(root))
    assert (file.recipient, file.what, file.ids) == ("Ads", "recommendations", "user_ids")
    assert file.digest == hashlib.sha256(Path("lists.jsonl").read_bytes()).hexdigest()
    assert (stream.recipient, stream.digest) == ("Mail house", None)


def test_an_export_that_failed_is_not_registered(films: Callable[[int], Path]) -> None:
    root = films(2)
    assert run(["privacy", "keys", "new", "p.key"]) == 0
    Path("broken.jsonl").write_text('{"user_id": "a"}\n{"user_id": \n')
    shared = ["privacy", "pseudonymize", "-w", "w", "--domain", "ads", "--key-file", "p.key"]
    assert run([*shared, "broken.jsonl", "--out", "shared.jsonl"]) == 65
    assert run(["profile", "export", "-w", "w", "nowhere/p.parquet", "--recipient", "Ads"]) == 74
    assert recipients(open_home(root)) == []
