"""What the README shows can be typed, and its output comes out, but for figures of time and of a machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from persona_cli import errors

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def shape(line: str) -> str:
    """A line without what differs between machines and runs: numbers, the path of the workspace, the width of gaps."""
    line = re.sub(r"\S*/persona-workspace", "WORKSPACE", line)
    return re.sub(r"\s+", " ", re.sub(r"\d[\d.,:]*", "0", line)).strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder with the sample data in it, as the tour wants it."""
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    return tmp_path


def environ() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PERSONA_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}


def test_the_tour_runs_and_shows_what_comes_out(folder: Path) -> None:
    shown = 0
    for block in blocks("console"):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = step.partition("\n")
            done = subprocess.run(
                command, shell=True, cwd=folder, env=environ(), text=True, capture_output=True, check=False
            )
            assert done.returncode == 0, done.stderr
            came = [shape(line) for line in (done.stdout + done.stderr).splitlines()]
            wanted = [shape(line) for line in output.splitlines() if line.strip() and line != "…"]
            missing = [line for line in wanted if line not in came]
            assert not missing, f"{command}: {missing} not in {came}"
            shown += len(wanted)
    assert shown > 15
    lists = [json.loads(line) for line in (folder / "lists.jsonl").read_text().splitlines()]
    assert len(lists) > 2000 and all(len(line["items"]) == 20 for line in lists)


def test_the_python_example_runs(folder: Path) -> None:
    (code,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environ(), text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "view" in done.stdout


def test_python_in_other_pages_can_be_imported() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        for code in blocks("python", page.read_text()):
            subprocess.run([sys.executable, "-c", code], env=environ(), cwd=ROOT, check=True)


def test_events_that_pages_show_are_accepted(tmp_path: Path) -> None:
    from persona_cli.events.ingest import ingest
    from persona_cli.workspace import home as homes

    home = homes.create(tmp_path / "w")
    for name in ("README.md", "docs/events.md", "docs/getting-started.md", "docs/profiles.md"):
        for block in blocks("json", (ROOT / name).read_text()):
            for event in values(block):
                if "event_type" in event:
                    (tmp_path / "one.jsonl").write_text(json.dumps(event) + "\n")
                    report = ingest(home, [str(tmp_path / "one.jsonl")])
                    assert report.read - report.duplicates == report.accepted, name


def values(text: str) -> Iterator[dict[str, Any]]:
    """The JSON values one after another: a block may show several, and one over several lines."""
    while text := text.strip():
        value, end = json.JSONDecoder().raw_decode(text)
        yield value
        text = text[end:]


def test_every_exit_code_is_explained() -> None:
    classes = [found for found in vars(errors).values() if isinstance(found, type)]
    codes = {found.exit_code for found in classes if issubclass(found, errors.PersonaError)}
    explained = {
        int(code) for line in README.splitlines() if line.startswith("| ") for code in re.findall(r"\d+", line)
    }
    assert codes | {0, 130, 141, 143} == explained


def test_links_between_pages_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
