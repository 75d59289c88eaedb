"""Exports are registered by recipient, so that an erasure can reach whoever was given the data."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from persona_cli.errors import BadData, UsageError
from persona_cli.privacy.recipients import by_recipient, file_name, recipients, register
from persona_cli.workspace.home import Home, create


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
