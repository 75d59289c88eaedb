"""`persona privacy pseudonymize|anonymity|keys` as a shell sees them, and a workspace made to be handed on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from persona_cli.cli.main import run
from persona_cli.events.catalogue import current
from persona_cli.events.store import scan_events
from persona_cli.privacy.pseudonyms import pseudonym
from persona_cli.privacy.recipients import Key, read_key, subkey
from persona_cli.profiles.history import history
from persona_cli.profiles.read import profiles
from persona_cli.workspace import runs
from persona_cli.workspace.home import Home, open_home

EVENTS: list[dict[str, Any]] = [
    {"user_id": "ann.smith", "event_type": "purchase", "item_id": "tea", "timestamp": "2026-03-01T10:00:00Z"},
    {"user_id": "ann.smith", "event_type": "click", "item_id": "cup", "timestamp": "2026-04-05T10:00:00Z"},
    {"anon_id": "device-99", "event_type": "view", "item_id": "tea", "timestamp": "2026-03-02T00:00:00Z"},
    {
        "anon_id": "device-99",
        "user_id": "bob.jones",
        "account_id": "acme.corp",
        "session_id": "session-1",
        "event_type": "identify",
        "timestamp": "2026-03-02T00:01:00Z",
        "props": {"n": 1.1, "by": {"user_id": "ann.smith"}},
    },
]
USERS = "user_id,account_id,country,role\nann.smith,acme.corp,de,admin\nbob.jones,acme.corp,de,admin\n"
ACCOUNTS = "account_id,name,plan\nacme.corp,Acme Incorporated,gold\n"
ITEMS = "item_id,title\ntea,Tea\ncup,Cup\n"
RAW = (b"ann.smith", b"bob.jones", b"device-99", b"acme.corp", b"Acme Incorporated", b"session-1", b"secret-file")

Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ask:
    for name in [name for name in os.environ if name.startswith("PERSONA_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def asked(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(words)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    assert asked("privacy", "keys", "new", "a.key")[0] == 0
    assert asked("privacy", "keys", "new", "b.key")[0] == 0
    return asked


@pytest.fixture
def shop(ask: Ask, tmp_path: Path) -> Home:
    assert ask("init", "-q", "shop")[0] == 0
    for kind, text in (("users", USERS), ("accounts", ACCOUNTS), ("items", ITEMS)):
        (tmp_path / f"{kind}.csv").write_text(text)
        assert ask("ingest", "-q", "-w", "shop", f"{kind}.csv", "--kind", kind)[0] == 0
    (tmp_path / "secret-file.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [*EVENTS, {"bad": "ann.smith"}])
    )
    assert ask("ingest", "-q", "-w", "shop", "secret-file.jsonl")[0] == 0
    return open_home(tmp_path / "shop")


def key(name: str = "a.key") -> Key:
    return read_key(Path(name))


def named(kind: str, id: str | None, by: str = "a.key", domain: str = "partner-a") -> str | None:
    return None if id is None else pseudonym(subkey(key(by), domain), kind, id)


def holds(folder: Path, *words: bytes) -> list[tuple[str, bytes]]:
    """Files of a tree with one of these words in their bytes or names, Parquet decoded as well."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            text = path.read_bytes() + str(path.relative_to(folder)).encode()
            if path.suffix == ".parquet":
                text += repr(pl.read_parquet(path, hive_partitioning=False).rows()).encode()
            found += [(str(path), word) for word in words if word in text]
    return found


def test_a_workspace_to_hand_on_is_the_same_under_other_names(
    ask: Ask, shop: Home, tmp_path: Path, own_salts: None
) -> None:
    assert holds(shop.root, b"ann.smith")
    words = ("-w", "shop", "privacy", "pseudonymize", "--domain", "partner-a", "--key-file", "a.key")
    code, _, err = ask(*words, "--out", "shared")
    assert code == 0, err
    assert "pseudonymous is not anonymous" in err
    shared = open_home(tmp_path / "shared")
    assert not holds(shared.root, *RAW, key().secret.hex().encode(), key().secret, shop.salt.hex().encode())

    before = scan_events(shop).sort("timestamp").collect()
    after = scan_events(shared).sort("timestamp").collect()
    for column, kind in (
        ("user_id", "person"), ("anon_id", "person"), ("account_id", "account"), ("session_id", "session"),
        ("event_id", "event"),
    ):  # fmt: skip
        assert after[column].to_list() == [named(kind, id) for id in before[column]]
    rest = [name for name in before.columns if not name.endswith("_id") and name not in ("source", "props")]
    assert after.select("item_id", *rest).equals(before.select("item_id", *rest))
    assert after["props"].drop_nulls().to_list() == [f'{{"n":1.1,"by":{{"user_id":"{named("person", "ann.smith")}"}}}}']

    of_whom = pl.col("user_id").map_elements(lambda id: named("person", id), return_dtype=pl.String)
    told = profiles(shop).collect().with_columns(of_whom).sort("user_id")
    columns = ["user_id", "events", "items", "sessions", "first_seen", "last_seen"]
    assert profiles(shared).sort("user_id").collect().select(columns).equals(told.select(columns))
    assert told.height == 2  # device-99 is bob.jones there, as here
    expected = history(shop).with_columns(of_whom).sort("user_id", "item_id")
    assert expected.height == 3 and history(shared).sort("user_id", "item_id").equals(expected)
    assert current(shared, "accounts").select("name", "plan").to_dicts() == [{"name": None, "plan": "gold"}]
    assert current(shared, "users")["user_id"].sort().to_list() == sorted(
        str(named("person", row)) for row in ("ann.smith", "bob.jones")
    )
    assert current(shared, "items")["title"].to_list() == ["Cup", "Tea"]
    assert ask("-w", "shared", "doctor")[0] == 0
    said = json.loads((shared.root / "privacy" / "pseudonyms.json").read_text())
    assert (said["key"], said["domain"], said["rows"]["events"]) == (key().id, "partner-a", 4)
    (recorded,) = [one for one in runs.read_runs(shop) if one["command"] == "privacy pseudonymize"]
    assert recorded["counts"]["key"] == key().id


def test_people_who_refuse_analytics_are_not_handed_on(ask: Ask, shop: Home, tmp_path: Path) -> None:
    code, _, err = ask("-w", "shop", "privacy", "consent", "withdraw", "bob.jones", "--purpose", "analytics")
    assert code == 0, err
    words = ("-w", "shop", "privacy", "pseudonymize", "--domain", "partner-a", "--key-file", "a.key")
    code, _, err = ask(*words, "--out", "shared")
    assert code == 0 and "rows of people whom the purpose analytics does not cover" in err, err
    shared = open_home(tmp_path / "shared")
    hidden = named("person", "bob.jones")
    assert scan_events(shared).filter(pl.coalesce("user_id", "anon_id") == hidden).collect().height == 0
    assert hidden not in current(shared, "users")["user_id"].to_list()
    assert scan_events(shared).collect().height > 0


def test_rotating_a_workspace(ask: Ask, shop: Home, tmp_path: Path) -> None:
    make = ("privacy", "pseudonymize", "--domain", "partner-a")
    assert ask("-w", "shop", *make, "--key-file", "a.key", "--out", "shared")[0] == 0
    again = (*make, "--rotate", "--old-key-file", "a.key", "--key-file", "b.key", "--remap", "remap.csv")
    code, _, err = ask("-w", "shared", *again, "--ids", "users.csv", "--out", "rotated")
    assert (code, "--drop-unknown" in err) == (77, True)
    assert not Path("rotated").exists() and not Path("remap.csv").exists()
    code, _, err = ask("-w", "shared", *again, "--ids", "shop", "--out", "rotated")
    assert code == 0, err
    shared, rotated = open_home(tmp_path / "shared"), open_home(tmp_path / "rotated")
    columns = ["user_id", "anon_id", "account_id", "session_id", "event_id"]
    old, new = (scan_events(home).sort("timestamp").collect() for home in (shared, rotated))
    for one in columns:
        for other in columns:
            assert old.join(new, left_on=one, right_on=other).height == 0
    remap = dict(pl.read_csv("remap.csv").iter_rows())
    assert old.select(pl.col(columns).replace(remap)).equals(new.select(columns))
    every = [str(id).encode() for name in columns for id in old[name].drop_nulls()]
    assert not holds(rotated.root, *every)
    code, _, err = ask("-w", "rotated", *make, "--key-file", "a.key", "--out", "twice")
    assert (code, "carries pseudonyms already" in err) == (2, True)


def test_a_new_workspace_appears_whole_or_not_at_all(ask: Ask, shop: Home, tmp_path: Path) -> None:
    words = ("-w", "shop", "privacy", "pseudonymize", "--domain", "a", "--key-file", "a.key")
    settings = shop.root / "persona.toml"
    settings.write_text(settings.read_text() + "\n[segments.friends]\nwhen = \"user_id = 'ann.smith'\"\n")
    code, _, err = ask(*words, "--out", "shared")
    assert (code, "segments.friends" in err, "ann.smith" in err) == (77, True, False)
    assert (
        sorted(path.name for path in tmp_path.iterdir() if "shared" in path.name or path.name.startswith(".tmp")) == []
    )
    assert ask(*words, "--out", "shared", "--default-settings")[0] == 0
    assert ask(*words, "--out", "shared", "--default-settings")[0] == 74
    assert ask(*words, "--out", "shop/inside")[0] == 2
    assert ask(*words)[0] == 2
    assert ask("init", "-q", "empty")[0] == 0
    assert ask("-w", "empty", *words[2:], "--out", "none")[0] == 66


def test_what_a_killed_run_left_half_made_is_gone_after_the_next(ask: Ask, shop: Home, tmp_path: Path) -> None:
    words = ["-w", "shop", "privacy", "pseudonymize", "--domain", "a", "--key-file", "a.key", "--out", "shared"]
    kill = """
import os, signal, sys
from persona_cli.cli.main import run
from persona_cli.privacy import pseudonymize
pseudonymize.sync = lambda made: os.kill(os.getpid(), signal.SIGKILL)
run(sys.argv[1:])
"""
    done = subprocess.run([sys.executable, "-c", kill, *words], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL and not Path("shared").exists()
    assert len(list(tmp_path.glob(".tmp-*"))) == 1
    assert ask(*words)[0] == 0
    assert not list(tmp_path.glob(".tmp-*")) and ask("-w", "shared", "doctor")[0] == 0


def test_a_file_to_stdout_with_a_key_from_the_environment(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("in.jsonl").write_text('{"user_id":"7"}\n')
    code, _, err = ask("privacy", "pseudonymize", "in.jsonl", "--domain", "a")
    assert (code, "neither --key-file nor $PERSONA_PSEUDONYM_KEY" in err) == (78, True)
    monkeypatch.setenv("PERSONA_PSEUDONYM_KEY", key().secret.hex())
    code, out, err = ask("privacy", "pseudonymize", "in.jsonl", "--domain", "a")
    assert (code, json.loads(out)) == (0, {"user_id": named("person", "7", domain="a")})
    assert key().id in err and key().secret.hex() not in err + out
    assert ask("privacy", "pseudonymize", "in.jsonl")[0] == 2


def test_a_key_that_others_can_read_is_refused(ask: Ask) -> None:
    Path("in.jsonl").write_text('{"user_id":"7"}\n')
    Path("a.key").chmod(0o644)
    code, _, err = ask("privacy", "pseudonymize", "in.jsonl", "--domain", "a", "--key-file", "a.key", "-o", "o.jsonl")
    assert (code, "chmod 600" in err, Path("o.jsonl").exists()) == (77, True, False)


def test_shared_tables_need_enough_people_who_look_alike(ask: Ask, shop: Home) -> None:
    words = ("privacy", "pseudonymize", "users.csv", "--domain", "a", "--key-file", "a.key", "-o", "out.csv")
    code, _, err = ask(*words, "--quasi", "country,role", "--min-k", "3")
    assert (code, "fewer than 3 people (2 rows)" in err, Path("out.csv").exists()) == (77, True, False)
    assert ask(*words, "--quasi", "country,role", "--min-k", "2")[0] == 0 and Path("out.csv").exists()
    assert ask(*words, "--min-k", "2")[0] == 2
    whole = ("-w", "shop", "privacy", "pseudonymize", "--domain", "a", "--key-file", "a.key", "-o", "shared")
    assert ask(*whole, "--quasi", "country", "--min-k", "3")[0] == 77 and not Path("shared").exists()


def test_anonymity_of_files_and_tables(ask: Ask, shop: Home) -> None:
    Path("p.jsonl").write_text(
        "".join(
            json.dumps({"user_id": user, "context": {"country": land}, "plan": plan}) + "\n"
            for user, land, plan in (("a", "de", "x"), ("a", "de", "y"), ("b", "fr", "x"), ("c", "fr", "y"))
        )
    )
    words = ("privacy", "anonymity", "p.jsonl", "--quasi", "context.country", "--sensitive", "plan")
    code, out, err = ask(*words, "--min-k", "2", "--json")
    found = json.loads(out)
    assert (code, found["k"], found["people"], found["rows"]) == (10, 1, 3, 4)
    assert found["suppress"]["rows"] == 2 and found["suppress"]["classes"][0]["context.country"] == "de"
    assert found["diversity"] == [{"column": "plan", "distinct": 2, "entropy": pytest.approx(2)}]
    assert "1 of 2 classes are below the minimum" in err
    assert ask(*words, "--min-k", "1")[0] == 0
    code, out, _ = ask("-w", "shop", "privacy", "anonymity", "users", "--quasi", "country,role", "--min-k", "2")
    assert code == 0 and out.splitlines()[:3] == [
        "people      2 in 2 rows",
        "classes     1 by country, role",
        "k           2",
    ]
    code, _, err = ask("-w", "shop", "privacy", "anonymity", "userz", "--quasi", "country")
    assert (code, "did you mean 'users'" in err) == (2, True)
    assert ask("-w", "shop", "privacy", "anonymity", "users", "--quasi", "countri")[0] == 2
    code, _, err = ask("privacy", "anonymity", "nothing.csv", "--quasi", "country")
    assert (code, "no such file" in err) == (66, True)
    assert ask("-w", "shop", "privacy", "anonymity", "events", "--quasi", "event_type", "--min-k", "1")[0] == 0
    assert ask("-w", "shop", "privacy", "anonymity", "profiles", "--quasi", "stage", "--min-k", "2")[0] == 0
