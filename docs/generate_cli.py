"""The command reference, docs/cli.md, written from the help pages themselves.

python docs/generate_cli.py            write docs/cli.md
python docs/generate_cli.py --check    exit 10 if it is out of date
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from written import write

from persona_cli.cli.help import EVERYWHERE, PANELS, page
from persona_cli.cli.main import whole

TARGET = Path(__file__).with_name("cli.md")
WIDTH = "100"
HEAD = """# Command reference

Written by `make docs` from `persona COMMAND --help`; do not edit it here.

"""


def commands(group: Any, ctx: Any) -> Iterator[tuple[str, Any, Any]]:
    """(panel, command, its context) of every visible command, those of groups included, in the order of the help.

    A group that does something by itself, of which its help has examples, comes before its commands.
    """
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is None or command.hidden:
            continue
        inner = command.context_class(command, info_name=name, parent=ctx)
        panel = getattr(command, "rich_help_panel", None)
        if hasattr(command, "commands"):
            if command.invoke_without_command and "Examples:" in (command.help or ""):
                yield panel, command, inner
            yield from ((panel, found, its) for _, found, its in commands(command, inner))
        else:
            yield panel, command, inner


def body(command: Any, ctx: Any) -> str:
    """The help page without the options that every command has."""
    blocks = page(command, ctx).rstrip().split("\n\n")
    return "\n\n".join(block for block in blocks if not block.startswith(f"{EVERYWHERE}:"))


def reference() -> str:
    os.environ |= {"COLUMNS": WIDTH, "NO_COLOR": "1"}
    root = typer.main.get_command(whole())
    ctx = root.context_class(root, info_name="persona")
    everywhere = next(b for b in page(root, ctx).split("\n\n") if b.startswith(f"{EVERYWHERE}:"))
    parts = [HEAD, "## Options of every command\n\n```\n", everywhere.rstrip(), "\n```\n"]
    found = list(commands(root, ctx))
    order = {panel: position for position, panel in enumerate(PANELS)}
    for panel in sorted({panel for panel, _, _ in found}, key=lambda panel: order.get(panel, len(order))):
        parts.append(f"\n## {panel}\n")
        for its_panel, command, its in found:
            if its_panel == panel:
                parts.append(f"\n### {its.command_path}\n\n```\n{body(command, its)}\n```\n")
    return "".join(parts)


if __name__ == "__main__":
    sys.exit(write(__doc__, TARGET, lambda _: reference()))
