"""Help pages: plain text that reads well without colour, in a terminal, a pipe and a manual alike.

typer's own pages import a Markdown parser and draw boxes, which takes as long again as everything else before the first
character; these need nothing beyond the standard library.
"""

from __future__ import annotations

import inspect
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup

EVERYDAY = "Every day"
EVERYWHERE = "Options of every command"
PANELS = (EVERYDAY, "Data", "Models", "Serve", "Experiment", "Privacy")
_MAX_WIDTH = 100


class Command(TyperCommand):
    """A command with our help page."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(page(self, ctx))


class Group(TyperGroup):
    """A group of commands with our help page, its commands under panels."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(page(self, ctx))


def page(command: Any, ctx: Any) -> str:
    """Usage, prose, commands by panel, arguments, options, examples."""
    prose, examples = _split_examples(inspect.cleandoc(command.help or ""))
    params = [param for param in command.get_params(ctx) if not getattr(param, "hidden", False)]
    arguments = [param for param in params if param.param_type_name == "argument"]
    options = [param for param in params if param.param_type_name == "option"]
    blocks = [f"{_heading('Usage:')} {_usage(ctx, arguments, hasattr(command, 'commands'))}"]
    blocks += [_wrapped(paragraph) for paragraph in prose]
    if hasattr(command, "commands"):
        blocks += _command_blocks(command, ctx)
    if any(param.help for param in arguments):
        blocks.append(_listing("Arguments:", [(_metavar(param, ctx), _describe(param)) for param in arguments]))
    own = [param for param in options if param.rich_help_panel != EVERYWHERE and param.name != "help"]
    if own:
        blocks.append(_listing("Options:", [(_names(param, ctx), _describe(param)) for param in own]))
    common = [param for param in options if param.rich_help_panel == EVERYWHERE or param.name == "help"]
    blocks.append(_listing(f"{EVERYWHERE}:", [(_names(param, ctx), _describe(param)) for param in common]))
    if examples:
        blocks.append("\n".join([_heading("Examples:"), *(f"  {line}" for line in examples)]))
    return "\n\n".join(blocks) + "\n"


def summary(command: Any) -> str:
    """The first paragraph of a command's help, as one line."""
    return " ".join(inspect.cleandoc(command.short_help or command.help or "").partition("\n\n")[0].split())


def _command_blocks(group: Any, ctx: Any) -> list[str]:
    panels: dict[str, list[tuple[str, str]]] = {}
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is not None and not command.hidden:
            panel = getattr(command, "rich_help_panel", None)
            panels.setdefault(panel if isinstance(panel, str) else "Commands", []).append((name, summary(command)))
    order = sorted(panels, key=lambda panel: PANELS.index(panel) if panel in PANELS else len(PANELS))
    width = max((len(name) for rows in panels.values() for name, _ in rows), default=0)
    return [_listing(f"{panel}:", panels[panel], width) for panel in order]


def _split_examples(text: str) -> tuple[list[str], list[str]]:
    """Prose paragraphs, and the lines under a closing `Examples:`."""
    prose, _, examples = text.partition("Examples:\n")
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    return [paragraph for paragraph in prose.strip().split("\n\n") if paragraph], lines


def _usage(ctx: Any, arguments: Iterable[Any], has_commands: bool) -> str:
    words = [ctx.command_path, "[OPTIONS]"]
    words += ["COMMAND …"] if has_commands else []
    for param in arguments:
        name = _metavar(param, ctx) + ("…" if param.nargs == -1 else "")
        words.append(name if param.required else f"[{name}]")
    return " ".join(words)


def _metavar(param: Any, ctx: Any) -> str:
    if param.metavar:
        return str(param.metavar)
    shown = param.display_type(ctx).strip("<>")
    return shown if "|" in shown else str(param.name).upper()


def _names(param: Any, ctx: Any) -> str:
    # Short names first, aligned so that the long ones stand under each other.
    names = sorted(param.opts, key=lambda name: name.startswith("--"))
    if param.secondary_opts:
        names = [f"{name} / {other}" for name, other in zip(names, param.secondary_opts, strict=False)]
    text = ", ".join(names)
    text = text if text.startswith("-") and not text.startswith("--") else f"    {text}"
    return text if param.is_flag else f"{text} {_metavar(param, ctx)}"


def _describe(param: Any) -> str:
    text = " ".join((param.help or "").split())
    default = getattr(param, "default", None)
    if param.required:
        return f"{text} (required)".strip()
    if param.show_default and default not in (None, False, True, "", (), []) and not callable(default):
        shown = ", ".join(map(str, default)) if isinstance(default, list | tuple) else default
        return f"{text} [default: {shown}]".strip()
    return text


def _listing(title: str, rows: list[tuple[str, str]], width: int = 0) -> str:
    # A name that is too long stands on a line of its own rather than pushing every text to the right.
    limit = 32
    width = min(max(width, *(len(name) for name, _ in rows)), limit)
    lines = [_heading(title)]
    indent = " " * (width + 4)
    for name, text in rows:
        wrapped = textwrap.wrap(text, max(_width() - len(indent), 20)) or [""]
        if len(name) > width:
            lines += [f"  {_coloured(name)}", *(indent + line for line in wrapped if line)]
        else:
            lines.append(f"  {_coloured(name)}{' ' * (width - len(name))}  {wrapped[0]}".rstrip())
            lines += [indent + line for line in wrapped[1:]]
    return "\n".join(lines)


def _wrapped(paragraph: str) -> str:
    return "\n".join(textwrap.wrap(" ".join(paragraph.split()), _width()))


def _width() -> int:
    return min(shutil.get_terminal_size().columns, _MAX_WIDTH)


def _styled() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _heading(text: str) -> str:
    return f"\033[1m{text}\033[0m" if _styled() else text


def _coloured(text: str) -> str:
    return f"\033[36m{text}\033[0m" if _styled() else text
