"""The `persona` command: its parts, and what every ending of it looks like.

A new file of commands is one more entry of `PARTS`; it offers `register(app)`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import Any, NoReturn

import typer
import typer.main

from persona_cli.cli import failures
from persona_cli.cli.common import OPTIONS, invocation, say, tell, with_options, without_globals
from persona_cli.cli.help import Group
from persona_cli.errors import PersonaError

PARTS = {
    "setup": ("init", "status", "doctor", "config", "runs"),
    "ingest": ("ingest", "quarantine"),
    "profiles": ("profile",),
    "signals": ("signals",),
    "train": ("train", "model"),
    "strengths": ("strengths",),
    "evaluate": ("evaluate",),
    "compare": ("compare",),
    "recommend": ("recommend", "similar", "score"),
    "explain": ("explain",),
    "decide": ("decide",),
    "surface": ("surface",),
    "rules": ("rules",),
    "explore": ("demo", "sql"),
    "privacy": ("privacy",),
    "segments": ("segment",),
    "decisions": ("decisions",),
    "bandit": ("bandit",),
    "simulate": ("simulate",),
    "metric": ("metric",),
    "measure": ("measure",),
    "experiment": ("experiment",),
}
"""File of commands → the names it registers at the top. Only the file of the command that is run is imported; all of
them for the help of everything: so each must be light, nothing heavy outside the bodies of its commands."""


class Root(Group):
    """The top: notes the words of this invocation before they are parsed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        invocation.begin(args)
        return super().parse_args(ctx, args)


class Terminated(KeyboardInterrupt):
    """SIGTERM: cleaned up after like Ctrl-C, with an exit code of its own."""

    exit_code = failures.TERMINATED


def build(parts: Iterable[str] = tuple(PARTS)) -> typer.Typer:
    """The app with the commands of parts; the callback runs before a command, and alone shows the status."""
    made = typer.Typer(cls=Root, invoke_without_command=True, rich_markup_mode=None, pretty_exceptions_enable=False)
    made.callback(help=_ABOUT)(with_options(_start))
    for part in parts:
        importlib.import_module(f"persona_cli.cli.{part}").register(made)
    return made


_ABOUT = """Personalization from the command line: event files in; profiles, honest evaluation and recommendations out.

Data goes to stdout, everything else to stderr.

Exit codes: 0 done, 1 unexpected, 2 usage, 10 a check found something, 65 bad data, 66 missing input, 69 a service or
extra is missing, 74 cannot write, 75 busy, 77 refused by a guard, 78 bad settings.

Examples:
persona ingest events.jsonl.gz
persona train
persona evaluate
persona recommend > out.jsonl
"""


def _start(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        from persona_cli.cli.setup import show_status

        show_status()


@functools.cache
def whole() -> typer.Typer:
    """The app with every command."""
    return build()


def _app_for(args: Sequence[str]) -> typer.Typer:
    """The app with what a command line needs: building every command takes as long as a short one runs."""
    name = next(iter(without_globals(args)), None)
    parts = [part for part, names in PARTS.items() if name in names]
    return build(parts) if parts else whole()


def main() -> NoReturn:
    """Entry point of the `persona` command."""
    # Everything persona writes may hold personal data: for its owner only.
    os.umask(0o077)
    # Imports make many objects that stay: looking through them again and again takes a tenth of a short command.
    gc.set_threshold(50_000, 20, 20)
    code = run(sys.argv[1:])
    # Taking down the interpreter and its libraries piece by piece takes a tenth of a second, and nothing is left to do.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def run(args: Sequence[str]) -> int:
    """Run one command line and answer its exit code; every ending but a crash of the interpreter passes here."""
    if os.environ.get("_PERSONA_COMPLETE"):
        whole()(prog_name="persona")
    previous = _catch_sigterm()
    try:
        return _ending(args)
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
        if (locks := sys.modules.get("persona_cli.workspace.locks")) is not None:
            locks.stop_reading()


def _catch_sigterm() -> Any:
    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    try:
        return signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not the main thread: somebody else's program
        return None


def _ending(args: Sequence[str]) -> int:
    try:
        root = typer.main.get_command(_app_for(args))
        with root.make_context("persona", list(args)) as ctx:
            root.invoke(ctx)
        return _flushed(0)
    except typer.Exit as ending:
        return _flushed(ending.exit_code)
    except typer.Abort:
        say("aborted; nothing was changed")
        return failures.INTERRUPTED
    except KeyboardInterrupt as interruption:
        terminated = isinstance(interruption, Terminated)
        say("terminated" if terminated else "interrupted")
        return failures.TERMINATED if terminated else failures.INTERRUPTED
    except typer.TyperException as error:
        return _usage(error)
    except Exception as error:
        return _failed(error)


def _flushed(code: int) -> int:
    """`code`, unless what is left to write cannot be written."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return _failed(error)
    return code


def _give_up_stdout() -> None:
    """The interpreter flushes once more at exit, and must not complain a second time."""
    try:
        sys.stdout.flush()
    except OSError:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)


def _usage(error: typer.TyperException) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stdout.write(error.format_message() + "\n")
        return 2
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else "persona"
    message = error.format_message().rstrip(".").replace("Value error, ", "")
    _explain(message[:1].lower() + message[1:], f"{path} --help")
    return int(error.exit_code)


def _failed(error: Exception) -> int:
    _give_up_stdout()
    if failures.is_broken_pipe(error):
        return failures.BROKEN_PIPE
    if invocation.debug or os.environ.get("PERSONA_DEBUG"):
        import traceback

        sys.stderr.write("".join(traceback.format_exception(error)) + "\n")
    known = failures.explained(error)
    if known is not None:
        _explain(known.message, known.hint)
        return known.exit_code
    detail = " ".join(str(error).split())
    shown = detail if len(detail) <= 300 else detail[:299] + "…"
    _explain(
        f"something unexpected happened: {type(error).__name__}{f': {shown}' if shown else ''}",
        "the same command with --debug shows where; if it is a fault of persona, please report it with that",
    )
    return PersonaError.exit_code


def _explain(message: str, hint: str | None) -> None:
    tell(f"persona: {message}" + (f"\n\nhint: {hint}" if hint else ""))


__all__ = ["OPTIONS", "main", "run", "whole"]
