"""Commands: demo and sql: look around."""

from __future__ import annotations

from typing import Annotated

import typer

from persona_cli.cli.common import (
    FormatOption,
    JsonOption,
    OutOption,
    chosen_format,
    command,
    locate_home,
    out_stream,
    render,
)
from persona_cli.errors import UsageError


def register(app: typer.Typer) -> None:
    command(app, sql, panel="Data")


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
    import sys

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
