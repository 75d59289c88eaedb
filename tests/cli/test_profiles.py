"""`persona profile`: the commands as a shell sees them, after a real ingest."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from persona_cli.cli.main import run
from persona_cli.workspace.home import Home, open_home
from persona_cli.workspace.runs import read_runs
from persona_cli.workspace.tables import open_table

EVENTS = [
    {"user_id": "ann", "event_type": "purchase", "item_id": "tea", "timestamp": "2026-03-01T10:00:00Z"},
    {"user_id": "ann", "event_type": "click", "item_id": "cup", "timestamp": "2026-03-05T10:00:00Z"},
    {"user_id": "ann", "event_type": "block", "item_id": "mug", "timestamp": "2026-03-05T10:10:00Z"},
    {"user_id": "bob", "event_type": "view", "item_id": "tea", "timestamp": "2026-03-02T00:00:00Z"},
]
ITEMS = [
    {"item_id": "tea", "title": "Green \u202etea", "category": "drinks"},
    {"item_id": "cup", "title": "Cup", "category": "dishes"},
]

PAGE = (
    "user      ann\n"
    "seen      2026-03-01 10:00 to 2026-03-05 10:10 UTC\n"
    "latest    device mobile\n"
    "\n"
    "Stage\n"
    "stage     context\n"
    "why       3 events with an item of the 5 that cohort takes\n"
    "layers    context 25%, individual 75%: no model is trained yet, the settings\n"
    "          would give this\n"
    "next      cohort from 5 events: 2 more (no such part is served); individual from\n"
    "          20 events: 17 more (half of the weight from 1)\n"
    "never     mug (not shown again)\n"
    "\n"
    "Use\n"
    "events    3: 1 block, 1 click, 1 purchase\n"
    "sessions  2, 5 min each on average\n"
    "devices   3 mobile\n"
    "\n"
    "What they told\n"
    "blocked   items mug\n"
    "\n"
    "Hours of the day, UTC\n"
    "          ··········█·············  busiest 10:00 (3)\n"
    "          0     6     12    18   23\n"
    "\n"
    "Categories, by strength\n"
    "    4.92 ████████████████████ drinks\n"
    "    1.00 ████                 dishes\n"
    "\n"
    "Items, by strength\n"
    "    4.92 ████████████████████ tea · Green \\u202etea · drinks\n"
    "    1.00 ████                 cup · Cup · dishes\n"
    "\n"
    "Features\n"
    "preferred_category   drinks (59% of the interest, 77% sure that it leads the\n"
    "                     next)\n"
    "maturity             0.220\n"
    "active_days          2 of the last 28\n"
    "purchases            1\n"
    "days_since_first     4.0\n"
    "days_since_last      0.0\n"
    "days_since_purchase  4.0\n"
    "\n"
    "Recent history\n"
    "2026-03-05 10:10  block     mug\n"
    "2026-03-05 10:00  click     Cup\n"
    "2026-03-01 10:00  purchase  Green \\u202etea\n"
)


def ingest(path: Path, rows: list[dict[str, str]], *more: str) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(["ingest", "--quiet", "-w", "shop", str(path), *more]) == 0


@pytest.fixture
def shop(elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Home:
    assert run(["init", "--quiet", "shop"]) == 0
    identity = elsewhere / "shop" / "workspace.json"
    identity.write_text(
        json.dumps(json.loads(identity.read_text()) | {"holdout_salt": "01" * 16})
    )  # ann is not held out
    ingest(elsewhere / "items.jsonl", ITEMS, "--kind", "items")
    ingest(elsewhere / "events.jsonl", [{**row, "context": {"device": "mobile"}} for row in EVENTS])  # type: ignore[dict-item]
    monkeypatch.setenv("PERSONA_WORKSPACE", str(elsewhere / "shop"))
    capsys.readouterr()
    return open_home(elsewhere / "shop")


def _page(shop: Home, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(["profile", "show", "ann", *words]) == 0
    return capsys.readouterr().out


def test_show_is_a_page_that_no_terminal_misreads(shop: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert _page(shop, capsys) == PAGE


def test_the_page_fits_a_narrow_terminal(
    shop: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "44")
    page = _page(shop, capsys)
    strip = next(line for line in page.splitlines() if "busiest" in line)
    assert max(len(line) for line in page.replace(strip, "").splitlines()) <= 44
    assert "mug (not shown again)" in page


def test_a_terminal_without_unicode_gets_plain_bars(shop: Home) -> None:
    from persona_cli.cli.profile_page import page
    from persona_cli.profiles.people import person

    lines = list(page(person(shop, "ann"), 80, unicode=False))
    assert "    4.92 #################### drinks" in lines
    assert any(line.startswith("          ..........9.............") for line in lines)


def test_status_names_what_is_lacking_and_how_to_bring_it(shop: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    about = lines[lines.index("what the data can carry") + 1 :]
    assert about[0] == (
        "content    lacks: no users with enough events with an item; add events with an item_id, several a user"
    )
    assert (
        "           lacks: 2 of 20 users with a known device; add device or user_agent in the context of events"
        in about
    )
    assert run(["status", "--json"]) == 0
    carries = json.loads(capsys.readouterr().out)["carries"]
    assert list(carries) == ["content", "ui", "plans", "messages", "features"]
    assert carries["content"] == {
        "ready": False,
        "needs": [
            {
                "what": "users with enough events with an item",
                "have": 0,
                "needed": 20,
                "add": "events with an item_id, several a user",
            },
            {"what": "described items", "have": 2, "needed": 1, "add": None},
        ],
    }


def test_status_with_what_each_type_needs(shop: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = [("feature_use", "export"), ("message_open", "mail"), ("click", "card"), ("purchase", None), ("view", None)]
    rows = [
        {
            **{"user_id": f"u{n}", "account_id": "acme", "event_type": kind, "item_id": "tea", "target": target},
            **{"timestamp": f"2026-03-01T{hour:02d}:00:00Z", "context": {"device": "mobile", "country": "DE"}},
        }
        for n in range(20)
        for hour, (kind, target) in enumerate(kinds)
    ]
    ingest(tmp_path / "more.jsonl", rows)  # type: ignore[arg-type]
    accounts = tmp_path / "accounts.csv"
    accounts.write_text("account_id,plan\nacme,free\n")
    assert run(["ingest", "--quiet", "-w", "shop", str(accounts), "--kind", "accounts"]) == 0
    capsys.readouterr()
    assert run(["status", "--json"]) == 0
    carries = json.loads(capsys.readouterr().out)["carries"]
    assert {name: one["ready"] for name, one in carries.items()} == dict.fromkeys(carries, True)


def test_segments_as_a_shell_sees_them(shop: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with shop.path("persona.toml").open("a") as settings:
        settings.write("\n[features.pace]\nvalue = 'events / sessions'\n[segments.buyers]\nwhen = 'purchases >= 1'\n")
    assert run(["segment", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["buyers", "purchases", ">=", "1", "<", "20"]
    assert run(["segment", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed == [{"segment": "buyers", "when": "purchases >= 1", "users": None, "share": None}]
    assert run(["segment", "members", "buyers", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"user_id": "ann"}]
    assert run(["segment", "members", "buyers", "--as-of", "2026-03-01", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert run(["segment", "size", "--when", "pace > 0"]) == 0
    assert capsys.readouterr().out == "< 20 of 2 users\n"
    assert run(["segment", "size", "--when", "evnts > 0"]) == 2
    assert "did you mean 'events'" in capsys.readouterr().err
    assert run(["segment", "list", "--columns", "--json"]) == 0
    assert {"column": "pace", "kind": "number"} in json.loads(capsys.readouterr().out)
    run(["doctor"])
    assert "buyers" in capsys.readouterr().out


def _json(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run(["profile", "show", *words, "--json"]) == 0
    return capsys.readouterr().out


def test_show_as_json_now_and_at_a_past_moment(shop: Home, capsys: pytest.CaptureFixture[str]) -> None:
    now = json.loads(_json(["ann"], capsys))
    assert (now["events"], now["never"], now["preferred_category"]) == (3, ["mug"], "drinks")
    past = json.loads(_json(["ann", "--as-of", "2026-03-05"], capsys))
    assert (past["events"], past["last_seen"], past["never"]) == (1, "2026-03-01T10:00:00Z", [])
    assert past["top_items"][0]["strength"] == 5.0


def test_a_user_nobody_has_seen_is_66_with_a_way_out(shop: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", "show", "nobody"]) == 66
    err = capsys.readouterr().err
    assert err == "persona: nothing is known of a user 'nobody'\n\nhint: persona profile list\n"
    assert run(["profile", "show", "ann", "--as-of", "2026-03-01T10:00:00Z"]) == 66
    assert run(["profile", "show", "ann", "--as-of", "yesterday"]) == 2


def test_list_is_by_events_and_can_be_narrowed(shop: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["user_id"], row["events"], row["preferred_category"]) for row in rows] == [
        ("ann", 3, "drinks"),
        ("bob", 1, "drinks"),
    ]
    assert run(["profile", "list", "-n", "1", "--format", "csv"]) == 0
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == ["user_id", "ann"]
    assert run(["profile", "list", "--stage", "individual", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert run(["profile", "list", "--stage", "guru"]) == 2


def test_build_says_what_it_did_and_why(shop: Home, capsys: pytest.CaptureFixture[str]) -> None:
    def build(*words: str) -> dict[str, object]:
        assert run(["profile", "build", "--json", *words]) == 0
        return dict(json.loads(capsys.readouterr().out))

    assert build()["mode"] == "unchanged"
    again = build("--rebuild")
    assert (again["mode"], again["reason"], again["users"], again["events"]) == ("rebuilt", "asked for", 2, 4)
    settings = shop.path("persona.toml")
    settings.write_text(settings.read_text().replace("click = 1", "click = 1.5"))
    changed = build()
    assert (changed["mode"], changed["reason"]) == ("rebuilt", "signals, consumed_by or buckets changed")
    assert run(["profile", "show", "ann", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["top_items"][1]["strength"] == 1.5


def test_the_same_events_again_late_and_in_another_order_make_the_same_profiles(
    shop: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def exported() -> pl.DataFrame:
        assert run(["profile", "export", "--quiet", str(tmp_path / "all.parquet")]) == 0
        return pl.read_parquet(tmp_path / "all.parquet")

    before = exported()
    version = open_table(shop, "profiles").version  # type: ignore[union-attr]
    ingest(tmp_path / "again.jsonl", [{**row, "context": {"device": "mobile"}} for row in reversed(EVENTS)])  # type: ignore[dict-item]
    assert open_table(shop, "profiles").version == version  # type: ignore[union-attr]
    late = {**EVENTS[0], "timestamp": "2026-02-01T00:00:00Z", "item_id": "cup"}
    ingest(tmp_path / "late.jsonl", [late])
    after = exported()
    assert after["first_seen"].dt.strftime("%Y-%m-%d").to_list() == ["2026-02-01", "2026-03-02"]
    assert run(["profile", "build", "--rebuild", "--quiet"]) == 0
    assert exported().equals(after)
    added = next(record["id"] for record in read_runs(shop) if record["arguments"][-1].endswith("late.jsonl"))
    assert run(["ingest", "undo", added, "--quiet"]) == 0
    assert exported().equals(before)


def test_list_and_export_warn_when_profiles_are_behind(
    shop: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ingest(tmp_path / "more.jsonl", [{**EVENTS[0], "user_id": "carl"}], "--no-profiles")
    capsys.readouterr()
    assert run(["profile", "list", "--quiet"]) == 0
    found = capsys.readouterr()
    assert "run: persona profile build" in found.err
    assert "carl" not in found.out
    assert run(["profile", "build"]) == 0
    assert run(["profile", "list", "--quiet"]) == 0
    found = capsys.readouterr()
    assert "carl" in found.out
    assert "behind" not in found.err


def test_export_is_one_parquet_file_with_derived_columns(
    shop: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "all.parquet"
    target.write_text("what was there before")
    assert run(["profile", "export", str(target)]) == 0
    rows = pl.read_parquet(target)
    assert rows["user_id"].to_list() == ["ann", "bob"]
    assert rows["preferred_category"].to_list() == ["drinks", "drinks"]
    assert rows["stage"].to_list() == ["context", "context"]
    assert rows["holdout"].dtype == pl.Boolean
    assert rows["types"].to_list()[1] == [{"event_type": "view", "n": 1}]
    assert "2 profiles in " in capsys.readouterr().err
    assert run(["profile", "export", str(tmp_path / "no" / "such" / "all.parquet")]) == 74


def test_run_manifests_do_not_name_users(shop: Home) -> None:
    assert run(["profile", "show", "ann", "--json"]) == 0
    shown = next(record for record in read_runs(shop) if record["command"] == "profile show")
    assert "ann" not in json.dumps(shown["arguments"])
    assert shown["arguments"][2].startswith("id:")


def test_commands_without_a_workspace_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PERSONA_WORKSPACE", raising=False)
    monkeypatch.chdir(tmp_path)
    for words in (["show", "x"], ["list"], ["build"], ["export", "x.parquet"]):
        assert run(["profile", *words]) == 66
        assert "persona init" in capsys.readouterr().err
