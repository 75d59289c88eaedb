"""Commands: demo and sql: look around."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from persona_cli.cli.common import (
    FormatOption,
    JsonOption,
    OutOption,
    chosen_format,
    command,
    emit_json,
    invocation,
    locate_home,
    out_stream,
    printable,
    render,
)
from persona_cli.errors import UsageError

DEMO = Path("persona-demo")


def register(app: typer.Typer) -> None:
    command(app, demo, panel="Data")
    command(app, sql, panel="Data")


def demo(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Where; ./persona-demo if nothing is named.")
    ] = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Run the main job on sample data, from events to lists, and say what was learned.

    The data is made up: five months of a small product whose users' tastes are known. Every step is shown as the
    command that does it. A folder that a demo filled before is brought up to date; another folder must be empty.

    Examples:
    persona demo
    persona demo /tmp/demo --json
    """
    from persona_cli.demo.learned import page
    from persona_cli.demo.steps import demo as run_demo

    chosen = folder or invocation.workspace or DEMO
    quiet = as_json or invocation.quiet

    def tell(line: str) -> None:
        if not quiet:
            sys.stdout.write(printable(line) + "\n")
            sys.stdout.flush()

    found = run_demo(chosen, _perform, tell, _program())
    if as_json:
        emit_json(found, out)
        return
    with out_stream(out) as stream:
        stream.write("".join(f"{printable(line)}\n" for line in ["", *page(found)]).encode())


def _program() -> str:
    """How this program is called: `make demo` runs it from a folder that the shell does not know."""
    import shlex
    import shutil

    called = Path(sys.argv[0])
    if shutil.which("persona") or called.name != "persona":
        return "persona"
    return shlex.quote(str(called))


def _perform(words: Sequence[str]) -> Any:
    """Run one command in this process, and read the JSON that it prints; its errors are raised."""
    import contextlib
    import io
    import json
    from copy import copy

    import typer.main

    from persona_cli.cli.main import whole

    before = copy(invocation)
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    root = typer.main.get_command(whole())
    try:
        with contextlib.redirect_stdout(printed), root.make_context("persona", ["--quiet", *words]) as ctx:
            root.invoke(ctx)
    finally:
        vars(invocation).update(vars(before))
    printed.flush()
    text = printed.buffer.getvalue()
    return json.loads(text) if text.strip() else None


def sql(
    query: Annotated[str, typer.Argument(metavar="SELECT", help="One query, or - to read it from stdin.")],
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Ask the workspace in SQL: DuckDB over its tables, which cannot write or read anything else.

    Tables: events, profiles, history, items, users, accounts, decisions, quarantine. items, users and accounts are the
    rows that hold now. SHOW TABLES lists them, DESCRIBE events lists columns.

    Examples:
    persona sql "SELECT event_type, count(*) AS n FROM events GROUP BY ALL ORDER BY n DESC"
    persona sql "SELECT stage, count(*) AS users FROM profiles GROUP BY stage" --json
    persona sql "FROM items WHERE NOT available" --format csv --out gone.csv
    """
    from persona_cli.profiles.views import answering

    chosen = chosen_format(format, as_json)
    if chosen == "parquet" and out is None and sys.stdout.isatty():
        raise UsageError("Parquet is binary and stdout is a terminal", "add --out FILE.parquet")
    with answering(locate_home(), sys.stdin.read() if query == "-" else query) as answer:
        if chosen == "parquet":
            with out_stream(out) as stream:
                answer.write_parquet(stream)
        else:
            render(answer, chosen, out)
