"""The command reference is what the help pages say, and no command is without help, an example and its place in it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from scripts import DOCS, assert_current, assert_notices

from persona_cli.cli.help import summary
from persona_cli.cli.main import whole

PAGES = (
    *sorted(DOCS.glob("*.md")),
    DOCS.parent / "README.md",
    DOCS.parent / "CONTRIBUTING.md",
    DOCS.parent / "CHANGELOG.md",
)


def every_command(group: Any, path: str = "persona") -> Iterator[tuple[str, Any]]:
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            if found.invoke_without_command and "Examples:" in (found.help or ""):
                yield f"{path} {name}", found
            yield from every_command(found, f"{path} {name}")
        elif not found.hidden:
            yield f"{path} {name}", found


COMMANDS = dict(every_command(typer.main.get_command(whole())))


def test_the_reference_is_current() -> None:
    assert_current("generate_cli.py")


def test_the_check_notices_a_reference_that_is_out_of_date(tmp_path: Path) -> None:
    assert_notices(tmp_path, "generate_cli.py", "cli.md", (DOCS / "cli.md").read_text() + "\n")


def test_every_command_has_help_an_example_and_its_place_in_the_reference() -> None:
    headings = {line[4:] for line in (DOCS / "cli.md").read_text().splitlines() if line.startswith("### ")}
    assert headings == set(COMMANDS)
    for path, command in COMMANDS.items():
        assert len(summary(command)) > 10, path
        _, _, examples = command.help.partition("Examples:\n")
        assert any(line.strip().startswith(path) for line in examples.splitlines()), path


def parse(line: str) -> None:
    """Let the parser read a line that starts with `persona`, up to where the shell takes over; nothing is run."""
    words = shlex.split(line, comments=True)
    end = next((n for n, word in enumerate(words) if word in (">", "|", "<", "&&")), len(words))
    group, words = typer.main.get_command(whole()), words[1:end]
    context = None
    while hasattr(group, "commands") and words and words[0] in group.commands:
        group, words = group.commands[words[0]], words[1:]
        context = group.context_class(group, info_name=group.name, parent=context)
    assert not (hasattr(group, "commands") and words and not words[0].startswith("-")), f"no such command: {line}"
    if not hasattr(group, "commands") or (group.invoke_without_command and words):
        group.make_context(group.name, words)


def shown_lines() -> list[tuple[str, str]]:
    """Every line with a command in help pages, documents and the README, with where it stands."""
    found = [(path, line) for path, command in COMMANDS.items() for line in command.help.splitlines()]
    for page in PAGES:
        block = ""
        for line in page.read_text().splitlines():
            if line.startswith("```"):
                block = "" if block else line[3:] or "text"
            elif block in ("sh", "console"):
                found.append((page.name, line.removeprefix("$ ")))
    return [(where, line.strip()) for where, line in found if line.strip().startswith("persona ")]


@pytest.mark.parametrize(("where", "line"), shown_lines())
def test_every_command_line_that_is_shown_can_be_read_by_the_parser(where: str, line: str) -> None:
    parse(line)


def test_commands_in_running_text_exist() -> None:
    groups = {path.split()[1] for path in COMMANDS}
    for page in PAGES:
        for verb in re.findall(r"`persona ([a-z]+)\b", page.read_text()):
            assert verb in groups, f"{page.name}: persona {verb}"


def test_the_parser_refuses_what_does_not_exist() -> None:
    for line in ("persona ingesst x", "persona sql --nope", "persona runs lists"):
        with pytest.raises((AssertionError, Exception), match=r"no such|No such|nope"):
            parse(line)
