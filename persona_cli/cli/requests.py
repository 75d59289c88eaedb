"""Commands: privacy requests: what people asked for, and by when it must be answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from persona_cli.cli.common import (
    JsonOption,
    OutOption,
    command,
    emit_json,
    invocation,
    locate_home,
    render,
    say,
    with_options,
)
from persona_cli.cli.help import Group

if TYPE_CHECKING:
    from persona_cli.privacy.requests import Request
    from persona_cli.workspace.home import Home

Kind = Literal[
    "access", "portability", "rectification", "erasure", "objection", "restriction", "consent_withdrawal"
]  # fmt: skip
OVERDUE = 10
_ID = typer.Argument(metavar="ID", help="The request's id, or the beginning of it.")


def register(privacy: typer.Typer) -> None:
    """Join the group `privacy`."""
    inner = typer.Typer(cls=Group, rich_markup_mode=None, add_completion=False, invoke_without_command=True)
    inner.callback()(with_options(_start))
    privacy.add_typer(inner, name="requests", help="What people asked for, and by when it must be answered.")
    command(inner, list_requests, name="list")
    command(inner, add)
    command(inner, extend)
    command(inner, close)


def _start(ctx: typer.Context, as_json: JsonOption = False) -> None:
    if ctx.invoked_subcommand is None:
        list_requests(as_json=as_json)


def list_requests(
    open_only: Annotated[bool, typer.Option("--open", help="Only those that are not closed.")] = False,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Every request with the days it was received, is due and was closed; exit code 10 where one is overdue.

    Due is one month after receipt, by the calendar, or 45 days where privacy.regime is ccpa.

    Examples:
    persona privacy requests
    persona privacy requests list --open --json
    """
    from datetime import UTC, datetime

    from persona_cli.privacy.requests import requests

    home = locate_home()
    now = datetime.now(UTC)
    found = [one for one in requests(home) if one.closed is None or not open_only]
    if as_json:
        emit_json([record(one, now) for one in found], out)
    elif found:
        render([_row(one, now) for one in found], "table", out)
    else:
        say("no requests" if not open_only else "no open requests")
    late = [one for one in found if one.overdue(now)]
    if late:
        say(f"{len(late)} overdue: {', '.join(one.id for one in late[:5])}{' …' if len(late) > 5 else ''}")
        raise typer.Exit(OVERDUE)


def add(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="What was asked for: access, erasure, …")],
    user: Annotated[str, typer.Argument(metavar="USER", help="Who asks, by any of their ids; kept as a digest.")],
    received: Annotated[
        str | None, typer.Option("--received", metavar="TIME", help="When it reached you; now, unless given.")
    ] = None,
    channel: Annotated[str, typer.Option("--channel", metavar="NAME", help="How it came: mail, form, phone.")] = "cli",
    as_json: JsonOption = False,
) -> None:
    """Note a request that came in, and print its id.

    KIND is access, portability, rectification, erasure, objection, restriction or consent_withdrawal. Commands that
    answer a request (access, forget, optout, correct) note and close one by themselves.

    Examples:
    persona privacy requests add access u1 --received 2026-03-01 --channel mail
    """
    from persona_cli.privacy.api import personal
    from persona_cli.privacy.requests import find_request, open_request
    from persona_cli.workspace.runs import recording
    from persona_cli.workspace.setting import moment_of

    home = locate_home()
    with recording(home, invocation.words, personal(invocation.words[1:])):
        made = open_request(home, kind, _ids(home, user), received=moment_of(received), channel=channel)
    _show(find_request(home, made), as_json)


def extend(
    request: Annotated[str, _ID],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; the person is told this.")],
    as_json: JsonOption = False,
) -> None:
    """Prolong a request once, within its first period: two months (gdpr) or 45 days (ccpa) more.

    Examples:
    persona privacy requests extend R-0123456789ab --reason "data of eleven years in three systems"
    """
    from persona_cli.privacy.api import personal
    from persona_cli.privacy.requests import extend_request
    from persona_cli.workspace.runs import recording

    home = locate_home()
    with recording(home, invocation.words, personal(invocation.words[1:])):
        found = extend_request(home, request, reason)
    _show(found, as_json)


def close(
    request: Annotated[str, _ID],
    outcome: Annotated[str, typer.Option("--outcome", metavar="TEXT", help="How it ended: answered, refused: why.")],
    as_json: JsonOption = False,
) -> None:
    """Note how a request ended.

    Examples:
    persona privacy requests close R-0123456789ab --outcome answered
    """
    from persona_cli.privacy.api import personal
    from persona_cli.privacy.requests import close_request, find_request
    from persona_cli.workspace.runs import recording

    home = locate_home()
    with recording(home, invocation.words, personal(invocation.words[1:])):
        close_request(home, request, outcome)
    _show(find_request(home, request), as_json)


def record(one: Request, now: Any) -> dict[str, Any]:
    """A request for JSON: its fields, overdue, late."""
    return {**vars(one), "subjects": list(one.subjects), "overdue": one.overdue(now), "late": one.late()}


def _ids(home: Home, user: str) -> list[str]:
    """Every id of the person behind one."""
    import polars as pl

    from persona_cli.profiles.identity import persons

    who = persons(home)
    return who.ids_of(who.of(pl.Series([user], dtype=pl.String))).to_list()


def _row(one: Request, now: Any) -> dict[str, Any]:
    state = "overdue" if one.overdue(now) else "open" if one.closed is None else one.outcome
    return {
        "id": one.id,
        "kind": one.kind,
        "received": one.received.date(),
        "due": one.due,
        "extended": one.extended.date() if one.extended else None,
        "closed": one.closed.date() if one.closed else None,
        "state": state,
    }


def _show(one: Request, as_json: bool) -> None:
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    if as_json:
        emit_json(record(one, now))
        return
    render([_row(one, now)])
