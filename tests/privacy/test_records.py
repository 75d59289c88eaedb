"""`persona privacy records`: the same bytes while nothing changes, figures that an independent count gives, and pages
in which a name is never more than a name."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import persona_cli
from persona_cli import Workspace
from persona_cli.cli.main import run, whole
from persona_cli.consent.receipts import PURPOSES
from persona_cli.privacy.data_terms import NOT_RUN, USES
from persona_cli.privacy.pseudonymize import unicity_of
from persona_cli.privacy.records.documents import NAMES, documents
from persona_cli.privacy.records.facts import TO_FILL
from persona_cli.privacy.records.markdown import code, table, text
from persona_cli.privacy.records.risks import connecting, measures
from persona_cli.privacy.retention import schedule
from persona_cli.reports.words import visible
from persona_cli.workspace.declarations import BY_KEY
from persona_cli.workspace.home import Home, create, open_home

PACKAGE = Path(persona_cli.__file__).parent
MARKDOWN = MarkdownIt("commonmark").enable("table")
FACTS = """
[privacy.controller]
name = "Shop & Co <b>Ltd</b> | 1 Long Street"
contact = "privacy@shop.example"
representative = "none"
dpo = "none"
authority = "The *authority*"
obligation = "Nobody must."
bases_decided = "the board, 3 May 2026"
processors = ["Host Ltd"]
transfers = ["none"]
measures = ["disks are encrypted"]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace w of 24 people with 8 to 12 films each out of 40, with attributes, and a trained model."""
    folder = tmp_path_factory.mktemp("records")
    lines = []
    for user in range(24):
        for day in range(8 + user % 5):
            film = (7 * user + day * (day + 3 + user % 4)) % 40
            event = {"user_id": f"u{user:02d}", "event_type": "click", "item_id": f"f{film:02d}"}
            lines.append(json.dumps({**event, "timestamp": f"2026-01-{day + 1:02d}T{user % 24:02d}:00:00Z"}))
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    rows = [f"u{user:02d},{'de' if user % 3 else 'fr'},{'admin' if user == 7 else 'user'}" for user in range(24)]
    (folder / "users.csv").write_text("user_id,country,role\n" + "\n".join(rows) + "\n")
    root = str(folder / "w")
    assert run(["init", root]) == 0
    assert run(["ingest", "-w", root, str(folder / "events.jsonl")]) == 0
    assert run(["ingest", "-w", root, "--kind", "users", str(folder / "users.csv")]) == 0
    assert run(["train", "-w", root, "--model", "ease"]) == 0
    return folder


@pytest.fixture
def home(made: Path, elsewhere: Path) -> Home:
    """A copy of it, in the folder that the test is in."""
    shutil.copytree(made, elsewhere, dirs_exist_ok=True)
    return open_home(elsewhere / "w")


def settle(home: Home, more: str) -> Home:
    """The workspace with other settings."""
    path = home.path("persona.toml")
    path.write_text(more)
    return open_home(home.root)


def written(home: Home, name: str) -> Any:
    path = home.path("privacy", "records", name)
    return json.loads(path.read_text()) if name.endswith(".json") else path.read_text()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_bytes_while_nothing_changes(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["privacy", "records", "-w", "w"]) == 0
    first = files(home.path("privacy", "records"))
    assert set(first) == {f"{name}.{kind}" for name in (*NAMES, "index") for kind in ("md", "json")}
    capsys.readouterr()
    assert run(["profile", "build", "-w", "w"]) == 0  # leaves a manifest, and changes nothing
    assert run(["privacy", "records", "-w", "w", "--check"]) == 0
    assert run(["privacy", "records", "-w", "w"]) == 0
    assert run(["privacy", "records", "-w", "w", "--out", "elsewhere"]) == 0
    assert files(home.path("privacy", "records")) == first == files(Path("elsewhere"))


@pytest.mark.slow
def test_neither_hashes_nor_threads_change_a_byte(home: Home) -> None:
    made = []
    for seed, threads in (("1", "1"), ("2", "2")):
        words = ["privacy", "records", "-w", "w", "--out", f"out{seed}"]
        environment = os.environ | {"PYTHONHASHSEED": seed, "PERSONA_COMPUTE_THREADS": threads}
        subprocess.run([sys.executable, "-m", "persona_cli", *words], env=environment, check=True, capture_output=True)
        made.append(files(Path(f"out{seed}")))
    assert made[0] == made[1]


def test_a_change_is_told_by_name(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    def check() -> tuple[int, set[str]]:
        capsys.readouterr()
        code = run(["privacy", "records", "-w", "w", "--check"])
        return code, {line.rpartition(".")[0] for line in capsys.readouterr().out.split()}

    assert check() == (10, {*NAMES, "index"})  # never written
    assert run(["privacy", "records", "-w", "w"]) == 0
    assert check() == (0, set())
    Path("more.jsonl").write_text(
        '{"user_id":"new","event_type":"click","item_id":"f01","query":"tea","timestamp":"2026-02-01T00:00:00Z"}\n'
    )
    assert run(["ingest", "-w", "w", "more.jsonl"]) == 0
    code, changed = check()
    assert code == 10 and {"data-map", "processing", "dpia"} <= changed and "model-cards" not in changed
    assert run(["privacy", "records", "-w", "w"]) == 0
    assert run(["train", "-w", "w", "--model", "ease"]) == 0
    assert "model-cards" in check()[1]
    assert run(["privacy", "records", "-w", "w"]) == 0
    assert run(["profile", "export", "-w", "w", "p.parquet", "--recipient", "Ads"]) == 0
    assert {"recipients", "processing", "notice", "dpia"} <= check()[1]
    assert run(["privacy", "records", "-w", "w"]) == 0
    settle(home, "[privacy.retention]\nevents_months = 3\n")
    assert {"retention", "processing", "notice", "data-map"} <= check()[1]
    assert run(["privacy", "records", "-w", "w"]) == 0
    home.path("privacy", "records", "notice.md").unlink()
    assert check() == (10, {"notice"})


def test_pairs_of_single_people_are_those_that_a_count_by_hand_gives(home: Home) -> None:
    baskets: dict[str, set[str]] = {}
    for line in Path("events.jsonl").read_text().splitlines():
        event = json.loads(line)
        baskets.setdefault(event["user_id"], set()).add(event["item_id"])
    by_pair = Counter(pair for items in baskets.values() for pair in combinations(sorted(items), 2))
    by_item = Counter(item for items in baskets.values() for item in items)
    found = documents(home)["dpia"]["risks"]["co_occurrences"]
    assert found["users"] == 24 and found["items"] == len(by_item)
    assert found["pairs"] == len(by_pair)
    assert found["items_of_one"] == sum(n == 1 for n in by_item.values())
    for one in found["by_at_most"]:
        assert one["pairs"] == sum(n <= one["people"] for n in by_pair.values())
    assert [one["people"] for one in found["by_at_most"]] == [1, 4, 9, 19]
    assert 0 < found["by_at_most"][0]["pairs"] < len(by_pair)


def test_unicity_is_that_of_pseudonymize(home: Home) -> None:
    found, told = documents(home)["dpia"]["risks"]["unicity"], unicity_of(home)
    assert told is not None and told.sampled == 24
    assert (found["unique"], found["sampled"], found["items"]) == (told.unique, told.sampled, 4)
    assert (found["share"], found["low"], found["high"]) == (
        round(told.share, 6),
        round(told.low, 6),
        round(told.high, 6),
    )


def test_who_is_alone_with_their_attributes_is_counted(home: Home) -> None:
    classes = Counter(("de" if user % 3 else "fr", "admin" if user == 7 else "user") for user in range(24))
    users = documents(home)["dpia"]["risks"]["quasi_identifiers"][0]
    assert users["columns"] == ["country", "role"]  # the others are empty
    assert (users["people"], users["classes"], users["k"]) == (24, len(classes), 1)
    assert users["alone"] == 1 and users["under_5"] == sum(n for n in classes.values() if n < 5)
    assert users["under_20"] == sum(n for n in classes.values() if n < 20)


def test_keys_of_props_are_named_where_many_have_them_and_recognise_people(home: Home) -> None:
    lines = [{"user_id": f"u{user:02d}", "country": "de", "zip": user // 2, "tags": ["a"]} for user in range(24)]
    lines[5]["secret-of-u05"] = 1
    Path("more.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert run(["ingest", "-w", "w", "--kind", "users", "more.jsonl"]) == 0
    whole = documents(home)
    assert whole["data-map"]["props"] == [
        {
            "table": "users",
            "keys": [
                {"key": "tags", "filled": 0.5},
                {"key": "zip", "filled": 0.5},
                {"key": "*", "filled": round(1 / 48, 6)},
            ],
        }
    ]
    plain, *_, with_props = (one for one in whole["dpia"]["risks"]["quasi_identifiers"] if one["table"] == "users")
    assert (plain["columns"], plain["k"], plain["alone"]) == (["country"], 24, 0)
    assert with_props["columns"] == ["country", "props.zip"]  # a list is no single value
    assert (with_props["k"], with_props["classes"], with_props["under_5"]) == (2, 12, 24)
    assert "secret-of-u05" not in json.dumps(whole)


def test_every_period_in_force_is_in_the_schedule(home: Home) -> None:
    told = {one["setting"] for one in documents(home)["retention"]["retention"]}
    assert {period.setting for period in schedule(home)} <= told
    assert {key for key in BY_KEY if key.startswith("privacy.retention.")} <= told


def test_a_folder_within_the_workspace_is_refused(home: Home) -> None:
    assert run(["privacy", "records", "-w", "w", "--out", "w/compliance"]) == 2
    assert not home.path("compliance").exists()


def test_of_many_unknown_files_the_first_are_named(home: Home) -> None:
    for number in range(25):
        home.path(f"export{number:02d}.csv").write_text("x")
    whole = documents(home)
    assert len(whole["data-map"]["unknown"]) == 25
    named = [point for point in whole["index"]["open_points"] if point.startswith("NOT IN THE DATA MAP")]
    assert len(named) == 21 and named[-1].endswith("5 more")


def test_the_same_from_python(home: Home) -> None:
    workspace = Workspace(home.root)
    done = workspace.privacy.records()
    assert done.files == len(done.changed) == 2 * (len(NAMES) + 1) and done.to_be_filled_in == 9
    assert workspace.privacy.records(check=True).changed == ()
    assert workspace.privacy.records("elsewhere", check=True).changed == done.changed


def test_small_segments_are_named_without_their_numbers(home: Home) -> None:
    home = settle(home, '[segments.most]\nwhen = "events >= 1"\n[segments.none]\nwhen = "events >= 99"\n')
    assert documents(home)["dpia"]["risks"]["segments"] == {"segments": 2, "small": ["none"], "minimum": 20}


def test_a_scan_is_told_once_there_was_one(home: Home) -> None:
    assert documents(home)["dpia"]["risks"]["scan"] is None
    Path("more.jsonl").write_text(
        '{"user_id":"a","event_type":"search","query":"ann@example.org","timestamp":"2026-02-01T00:00:00Z"}\n'
    )
    assert run(["ingest", "-w", "w", "more.jsonl"]) == 0
    assert run(["privacy", "scan", "-w", "w"]) == 10
    assert documents(home)["dpia"]["risks"]["scan"]["findings"] >= 1


def test_what_only_people_know_is_to_be_filled_in_and_counted(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["privacy", "records", "-w", "w"]) == 0
    points = written(home, "index.json")["open_points"]
    missing = [point for point in points if point.startswith(TO_FILL)]
    assert f"{len(missing)} to be filled in" in capsys.readouterr().err
    assert any("privacy.controller.name" in point for point in missing)
    assert any("basis of analytics" in point for point in points)
    assert f"{TO_FILL}: name and address of the controller" in written(home, "notice.md")
    settle(home, FACTS)
    assert run(["privacy", "records", "-w", "w"]) == 0
    assert written(home, "index.json")["open_points"] == []
    assert "0 to be filled in" in capsys.readouterr().err
    assert TO_FILL not in written(home, "processing.md") + written(home, "notice.md") + written(home, "dpia.md")
    assert "NOT YET DECIDED" not in written(home, "processing.md")
    assert "the board, 3 May 2026" in written(home, "processing.md")


def test_a_basis_that_somebody_chose_is_decided(home: Home) -> None:
    home = settle(home, '[privacy.purposes.analytics]\nbasis = "consent"\n')
    decided = {one["purpose"]: one["decided"] for one in documents(home)["processing"]["purposes"]}
    assert decided["analytics"] and decided["personalization"] is None


def test_the_notice_tells_each_purpose_that_runs_and_no_other(home: Home) -> None:
    home.path("weighed.md").write_text("# Knowing what to improve\n\nWe weighed it.\n")
    home = settle(
        home,
        '[privacy.purposes.personalization]\nbasis = ""\n[privacy.purposes.model_training]\nbasis = "consent"\n'
        '[privacy.purposes.analytics]\nbasis = "legitimate_interest"\nassessment = "weighed.md"\n',
    )
    told = documents(home)["notice"]
    assert [one["purpose"] for one in told["purposes"]] == ["analytics", "model_training"]
    assert told["purposes"][0]["interest"] == "Knowing what to improve"
    assert documents(home)["data-map"]["unknown"] == []  # the assessment is known
    assert run(["privacy", "records", "-w", "w"]) == 0
    page = written(home, "notice.md")
    assert "Our interest: Knowing what to improve." in page and "take back what you agreed to" in page
    assert USES["personalization"].plain not in page and USES["analytics"].plain in page


def test_purposes_that_the_code_asks_for_are_those_that_are_told() -> None:
    """Whatever asks the gate for a purpose is in the record and the notice; what nobody asks for is not."""
    asked = set()
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0]
        if part in ("consent", "privacy", "workspace", "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            asked |= {value for value in _literals(node) if value in PURPOSES}
    assert asked == set(USES)
    assert set(USES) | set(NOT_RUN) == set(PURPOSES) and not set(USES) & set(NOT_RUN)


def test_commands_that_are_named_are_there() -> None:
    for use in USES.values():
        for _, commands in use.does:
            for words in commands.split(", "):
                found: Any = typer.main.get_command(whole())
                for word in words.partition(" --")[0].split():
                    found = found.commands[word]


def _literals(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def test_an_empty_workspace_has_records_too(elsewhere: Path) -> None:
    home = create(elsewhere / "w")
    whole = documents(home)
    assert whole["processing"]["people"]["counts"]["persons"] == 0
    assert whole["model-cards"]["models"] == [] and whole["dpia"]["risks"]["unicity"] is None
    assert run(["privacy", "records", "-w", "w"]) == 0
    assert run(["privacy", "records", "-w", "w", "--check"]) == 0


def test_cards_hold_the_figures_of_the_evaluation(home: Home) -> None:
    assert run(["evaluate", "-w", "w"]) == 10  # the same film comes again too often: these figures do not hold
    cards = documents(home)["model-cards"]["models"]
    assert [one["model"].partition("/")[0] for one in cards] == ["layered", "ease", "popular", "gram"]
    result = json.loads(next(home.path("evaluations").glob("*/result.json")).read_text())
    entry = next(one for one in result["models"] if one["version"] == cards[0]["model"])
    k = max(result["k"])
    for bound in ("value", "low", "high"):
        figure = cards[0]["quality"]["metrics"][f"recall@{k}"][bound]
        assert figure == round(entry["metrics"][f"recall@{k}"][bound], 6)
    assert any("leaked into training" in limit for limit in cards[0]["limits"])
    assert cards[0]["users"] == 24 and cards[1]["exact"] is True
    assert all("Not anonymous" in one["privacy"][0] for one in cards[:-1])
    assert "a row for each user" in cards[-1]["privacy"][0]


def test_measures_are_looked_at(home: Home) -> None:
    def states() -> dict[str, str]:
        return {one.what: one.state for one in measures(home) if one.state != "by construction"}

    assert set(states().values()) == {"so"}
    home.root.chmod(0o755)
    home.path("events").chmod(0o755)
    home.path("my.key").write_text("0123456789abcdef" * 4 + "\n")
    found = states()
    assert found["Only the owner of the workspace can read it"] == "not so"
    assert found["Keys of pseudonyms are kept outside the workspace"] == "not so"
    detail = next(one.detail for one in measures(home) if "owner" in one.what)
    assert "events" in detail and "persona.toml" not in detail
    points = documents(home)["index"]["open_points"]
    assert sum(point.startswith("NOT SO") for point in points) == 2


@pytest.mark.parametrize(
    ("source", "opens"),
    [
        ("import socket\nsocket.gethostname()\n", False),
        ("import socket\nsocket.create_connection(('a', 1))\n", True),
        ("def f():\n    from urllib.request import urlopen\n", True),
        ("import http.client\n", True),
        ("import httpx as h\n", True),
        ("requests = []\n'http'\n", False),
        ("from socket import socket\n", True),
    ],
)
def test_modules_that_open_connections_are_found(tmp_path: Path, source: str, opens: bool) -> None:
    (tmp_path / "one.py").write_text(source)
    assert connecting(tmp_path) == (("one.py",) if opens else ())


def test_a_name_is_never_more_than_a_name_in_a_page(home: Home) -> None:
    odd = "<img src=x onerror=1> | [l](http://e) `c` *b*"
    assert run(["profile", "export", "-w", "w", "p.parquet", "--recipient", odd]) == 0
    home.path("| a <b>.csv").write_text("x")
    settle(home, FACTS)
    assert run(["privacy", "records", "-w", "w"]) == 0
    for name in (*NAMES, "index"):
        page = written(home, f"{name}.md")
        html = MARKDOWN.render(page)
        assert "<img" not in html and "<b>" not in html, name
        assert 'href="http' not in html, name
        cells = [line.count("|") - line.count("\\|") for line in page.splitlines() if line.startswith("|")]
        assert all(count >= 3 for count in cells)
    html = MARKDOWN.render(written(home, "recipients.md"))
    assert "&lt;img src=x onerror=1&gt; | [l](http://e) `c` *b*" in html


@given(st.text(max_size=40))
def test_text_in_a_cell_reads_as_it_was(value: str) -> None:
    lines = table(["a", "b"], [(value, code(value))])
    cells = [token.content for token in MARKDOWN.parse("\n".join(lines)) if token.type == "inline"]
    assert len(cells) == 4
    inline = next(t for t in MARKDOWN.parse("\n".join(lines)) if t.type == "inline" and t.map == [2, 3])
    shown = "".join(child.content for child in inline.children or ())
    assert shown.strip() == " ".join(visible(value.replace("\n", " ").replace("\r", " ").replace("\t", " ")).split())
    assert all(child.type in ("text", "text_special") for child in inline.children or ())


@given(st.text(max_size=40))
def test_text_in_a_paragraph_is_one_paragraph(value: str) -> None:
    tokens = [token.type for token in MARKDOWN.parse(text(value))]
    assert tokens in ([], ["paragraph_open", "inline", "paragraph_close"])
