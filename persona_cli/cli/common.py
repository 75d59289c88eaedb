"""What every command shares: the options of every command, how commands are registered, and words on stderr.

    def register(app: typer.Typer) -> None:
        command(app, ingest, panel="Data", everyday=True)
        models = group(app, "model", "Trained models.", panel="Models")
        command(models, model_list, name="list")

`--workspace`, `--quiet`, `--verbose`, `--debug` and `--version` are added by `command` to what the function declares;
so they work before and after the command's name, and bodies read them from `invocation`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona_cli import __version__
from persona_cli.cli.help import EVERYDAY, EVERYWHERE, Command, Group
from persona_cli.cli.output import Format, emit_json, out_stream, plain, printable, render, render_parts
from persona_cli.cli.output import progress as _progress
from persona_cli.errors import UsageError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from persona_cli.workspace.home import Home

__all__ = [
    "AsOfOption",
    "DryRunOption",
    "Format",
    "FormatOption",
    "JsonOption",
    "NoExperimentsOption",
    "OutOption",
    "RecipientOption",
    "SetOption",
    "WaitOption",
    "YesOption",
    "chosen_format",
    "command",
    "confirm",
    "emit_json",
    "find_or_create_home",
    "group",
    "invocation",
    "locate_home",
    "locate_home_if_any",
    "out_stream",
    "pairs",
    "plain",
    "printable",
    "progress",
    "render",
    "render_parts",
    "say",
    "warn",
    "without_globals",
]

FormatOption = Annotated[
    Format | None, typer.Option("--format", metavar="FORMAT", help="table, json, jsonl, csv, md or parquet.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="FILE", help="Write the result to a file, which appears only when it is complete."
    ),
]
AsOfOption = Annotated[
    str | None,
    typer.Option("--as-of", metavar="TIME", help="As it was at this date or time (2026-03-01, 2026-03-01T12:00:00Z)."),
]
RecipientOption = Annotated[
    str | None,
    typer.Option("--recipient", metavar="NAME", help="Who gets it; noted, so that they are told of later erasures."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done and change nothing.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
NoExperimentsOption = Annotated[
    bool, typer.Option("--no-experiments", help="Give everybody what is configured, also where an experiment runs.")
]
WaitOption = Annotated[
    float, typer.Option("--wait", metavar="SECONDS", min=0, help="Wait this long for another run to finish.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting for this run; may repeat.")
]


@dataclass
class Invocation:
    """The options of every command as given in this invocation, and its words for the run manifest."""

    workspace: Path | None = None
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    words: list[str] = field(default_factory=list)

    def begin(self, args: Sequence[str]) -> None:
        """Forget what an earlier invocation in this process said."""
        self.workspace, self.quiet, self.verbose, self.debug = None, False, False, False
        self.words = without_globals(args)

    def take(self, given: dict[str, Any]) -> None:
        """Move the options of every command out of `given`; one given after the command wins over one before."""
        self.workspace = given.pop("workspace", None) or self.workspace
        self.quiet = given.pop("quiet", False) or self.quiet
        self.verbose = given.pop("verbose", False) or self.verbose
        self.debug = given.pop("debug", False) or self.debug
        given.pop("version", None)


invocation = Invocation()


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"persona {__version__}\n")
        raise typer.Exit


def _everywhere(*names: str, **more: Any) -> Any:
    return typer.Option(*names, rich_help_panel=EVERYWHERE, show_default=False, **more)


# name → (annotation, default)
OPTIONS: dict[str, tuple[Any, Any]] = {
    "workspace": (
        Annotated[
            Path | None,
            _everywhere(
                "--workspace", "-w", metavar="DIR", help="The workspace; otherwise $PERSONA_WORKSPACE or the nearest."
            ),
        ],
        None,
    ),
    "quiet": (Annotated[bool, _everywhere("--quiet", "-q", help="Say only what went wrong.")], False),
    "verbose": (Annotated[bool, _everywhere("--verbose", "-v", help="Say more on stderr.")], False),
    "debug": (Annotated[bool, _everywhere("--debug", help="Show the traceback of an error.")], False),
    "version": (
        Annotated[
            bool, _everywhere("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
        ],
        False,
    ),
}
_TAKES_VALUE = ("--workspace", "-w")
_FLAGS = ("--quiet", "-q", "--verbose", "-v", "--debug")


def command(
    app: typer.Typer,
    function: Callable[..., Any],
    *,
    panel: str | None = None,
    name: str | None = None,
    everyday: bool = False,
    hidden: bool = False,
) -> None:
    """Register a function as a command: its docstring is the help, a closing `Examples:` block the examples."""
    app.command(
        name or function.__name__.strip("_").replace("_", "-"),
        cls=Command,
        help=inspect.cleandoc(function.__doc__ or ""),
        rich_help_panel=EVERYDAY if everyday else panel,
        hidden=hidden,
    )(with_options(function))


def group(app: typer.Typer, name: str, help: str, *, panel: str | None = None) -> typer.Typer:
    """A sub-app, such as `persona model`, to register commands on."""
    inner = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None, add_completion=False)
    app.add_typer(inner, name=name, help=help, rich_help_panel=panel)
    return inner


def with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with the options of every command added to its signature, and taken out again before it is called."""
    signature = inspect.signature(function, eval_str=True)
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in OPTIONS.items()
    ]
    parameters = [*signature.parameters.values(), *extra]

    @functools.wraps(function)
    def called(**given: Any) -> Any:
        invocation.take(given)
        with _listening():
            return function(**given)

    called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def without_globals(args: Sequence[str]) -> list[str]:
    """The command's own words: what stands before its name belongs to every command."""
    rest = list(args)
    while rest and rest[0].startswith("-") and rest[0] != "--":
        takes_value = rest[0] in _TAKES_VALUE
        rest = rest[2 if takes_value else 1 :]
    return rest


@contextlib.contextmanager
def _listening() -> Iterator[None]:
    """Show what the library logs (`logging.getLogger("persona")`) as plain words on stderr."""
    import logging

    class Words(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                warn(record.getMessage())
            else:
                say(record.getMessage())

    log = logging.getLogger("persona")
    before = log.handlers, log.propagate, log.level
    log.handlers, log.propagate = [Words()], False
    log.setLevel(logging.DEBUG if invocation.verbose or invocation.debug else logging.INFO)
    try:
        yield
    finally:
        log.handlers, log.propagate = before[:2]
        log.setLevel(before[2])


def say(text: str) -> None:
    """A notice on stderr, unless --quiet."""
    if not invocation.quiet:
        tell(text)


def warn(text: str) -> None:
    """A warning on stderr, also with --quiet."""
    tell(f"warning: {text}")


def tell(text: str) -> None:
    """Write lines to stderr with nothing in them that a terminal would obey."""
    sys.stderr.write("\n".join(printable(line) for line in text.split("\n")) + "\n")
    sys.stderr.flush()


def progress(what: str, total: float | None = None) -> AbstractContextManager[Callable[[float], None]]:
    """A progress bar on stderr where someone watches: `with progress("reading", total) as advance: advance(n)`."""
    return _progress(what, total, quiet=invocation.quiet)


def locate_home() -> Home:
    """The workspace of this invocation; `MissingInput` if there is none. What it reads stays until it ends."""
    from persona_cli.workspace import locks
    from persona_cli.workspace.home import locate

    home = locate(invocation.workspace)
    locks.read(home)
    return home


def locate_home_if_any() -> Home | None:
    """The workspace of this invocation; None where none was named and none is found."""
    from persona_cli.workspace.home import locate_if_any

    return locate_if_any(invocation.workspace)


def find_or_create_home() -> Home:
    """The workspace of this invocation; created where none was named and none is there."""
    from persona_cli.workspace.home import find_or_create

    return find_or_create(invocation.workspace)


def chosen_format(format: Format | None, as_json: bool = False, default: Format = "table") -> Format:
    """`--format`, or `--json` as short for it; both at once must agree."""
    if as_json and format not in (None, "json"):
        raise UsageError(f"--json and --format {format} contradict each other")
    return "json" if as_json else format or default


def pairs(given: Sequence[str] | None, option: str = "--set") -> dict[str, str]:
    """`["a=1", "b=2"]` as a dictionary; the last of equal keys counts."""
    found: dict[str, str] = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{option} is {text!r}; expected KEY=VALUE")
        found[key.strip()] = value.strip()
    return found


def confirm(question: str, yes: bool) -> None:
    """Ask before something is deleted; where nobody can answer, `--yes` must say so."""
    if yes:
        return
    if not sys.stdin.isatty() or os.environ.get("CI"):
        raise UsageError(f"{question.rstrip('?')}: nobody can be asked here", "add --yes to go ahead")
    if not typer.confirm(question, default=False, err=True):
        raise typer.Abort
