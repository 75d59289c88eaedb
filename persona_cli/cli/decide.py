"""Command: decide: what a surface of persona.toml shows to each user."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from persona_cli.cli.common import (
    AsOfOption,
    JsonOption,
    NoExperimentsOption,
    OutOption,
    WaitOption,
    command,
    invocation,
    locate_home,
    out_stream,
    pairs,
    say,
    warn,
)
from persona_cli.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from persona_cli.feedback.deciding import Decided


def register(app: typer.Typer) -> None:
    command(app, decide, panel="Serve")


def decide(
    surface: Annotated[str, typer.Argument(metavar="SURFACE", help="A section [surface.NAME] of persona.toml.")],
    users: Annotated[
        str | None, typer.Option(metavar="FILE|-", help="Users to decide for (text, CSV, JSON lines, Parquet).")
    ] = None,
    user: Annotated[list[str] | None, typer.Option("--user", "-u", metavar="ID", help="One user; may repeat.")] = None,
    segment: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only for members of this segment of persona.toml.")
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(
            "--context",
            metavar="KEY=VALUE",
            help="Of the visit: device, browser, os, country, network, locale, tz or hour; may repeat.",
        ),
    ] = None,
    as_of: AsOfOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide, and keep nothing of it.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Add the reasons of every decision.")] = False,
    no_experiments: NoExperimentsOption = False,
    audit: Annotated[
        bool, typer.Option("--audit", help="Of a plan surface: test whether its advice is fair, and write a report.")
    ] = False,
    attributes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="With --audit: user_id and attributes that only the audit sees (CSV, Parquet)."
        ),
    ] = None,
    wait: WaitOption = 0.0,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Decide what a surface shows to all known users, or to those given, sorted by user.

    JSON lines: decision_id, user_id, surface, what was chosen (items, config or choice), policy, propensity, stage and
    the rules that bound it. What is chosen depends on the kind of surface: a list of items (content), order, density,
    panels and theme (ui), what of the product is shown (feature), whether and when a message goes out (message), the
    plan that holds the use (plan), the next question (survey): docs/surfaces.md, docs/plans.md.
    Decisions are kept (persona decisions), but not with --dry-run or --as-of, nor of people whom analytics do not
    cover; send the decision_id back in the events that answer to it. Who is held out, and whom personalization does
    not cover, gets what the surface has for everybody. Where an experiment runs on the surface (persona experiment),
    who is in it gets what their variant decides, and the line tells it.

    Examples:
    persona decide home > decisions.jsonl
    persona decide navigation --user u42 --context network=slow --context device=mobile --dry-run
    persona decide help --segment keen --explain --out help.jsonl
    persona decide plans --audit --attributes people.csv
    """
    from persona_cli.events.lists import read_ids
    from persona_cli.experiments import any_there
    from persona_cli.feedback.deciding import decide as made
    from persona_cli.serving.writing import write_json, write_lines
    from persona_cli.workspace.artifacts import file_digest
    from persona_cli.workspace.runs import recording
    from persona_cli.workspace.setting import parse_moment

    if users is not None and user:
        raise UsageError("--users names a file and --user single users; give one of them")
    if wait and dry_run:
        raise UsageError("--wait waits for others that write, and nothing is written with --dry-run")
    if audit or attributes is not None:
        if not audit:
            raise UsageError("--attributes are what an audit looks at; give --audit too")
        if users or user or segment or context or as_of or dry_run or explain or wait:
            raise UsageError(
                "--audit looks at the advice of now for everybody; it goes with --attributes, --json and --out"
            )
        _audit(surface, attributes, as_json, out)
        return
    home = locate_home()
    moment = None if as_of is None else parse_moment(as_of)
    with recording(home, invocation.words, ids=user or ()) as run:
        if users is not None and Path(users).is_file():
            run.inputs[users] = file_digest(Path(users))
        asked = read_ids(users, ["user_id"])["user_id"] if users is not None else None
        if asked is not None and not len(asked):
            warn(f"{users} names no user, so nothing is decided")
        if user:
            import polars as pl

            asked = pl.Series("user_id", user, dtype=pl.String)
        deciding = None
        if moment is None and not no_experiments and any_there(home):
            from persona_cli.experiments.applied import deciding_on

            deciding = deciding_on(home, surface)
        done = made(
            home,
            surface,
            run,
            users=asked,
            segment=segment,
            context=pairs(context, "--context"),
            as_of=moment,
            dry_run=dry_run,
            explain=explain,
            wait=wait,
            deciding=deciding,
        )
        with out_stream(out) as stream:
            (write_json if as_json else write_lines)([done.rows], stream)
        if out is not None and out.is_file():
            run.outputs[out.name] = file_digest(out)
    _tell(done, surface, "" if out is None else f" in {out}", kept=not dry_run and moment is None)


def _audit(name: str, attributes: Path | None, as_json: bool, out: Path | None) -> None:
    from datetime import UTC, datetime

    from persona_cli.cli.output import emit_json, render_parts
    from persona_cli.serving.surfaces import surface_of
    from persona_cli.serving.surfaces.plan_audit import audit_surface, parts, read_attributes, write
    from persona_cli.workspace.runs import recording

    home = locate_home()
    with recording(home, invocation.words) as run:
        told = None if attributes is None else read_attributes(attributes)
        found = audit_surface(home, surface_of(home, name), at=datetime.now(UTC), attributes=told)
        folder = write(home, found, run.id)
        if as_json:
            emit_json(found, out)
        else:
            render_parts([part for _, part in parts(found)[:-1]], out)
        say(f"report: {folder}")
        if found["findings"]:
            raise CheckFailed(f"the advice of {name} is not fair: {'; '.join(found['findings'])}", f"see {folder}")


def _tell(done: Decided, surface: str, where: str, kept: bool) -> None:
    import polars as pl

    n = done.rows.height
    if where:
        say(f"{n:,} decisions for {surface}{where}")
    if kept and done.logged < n:
        say(f"{n - done.logged:,} of {n:,} decisions are not kept: analytics do not cover these people")
    if "items" in done.rows.columns:
        empty, what = int((done.rows["items"].list.len() == 0).sum()), "no item is left to show"
    elif "choice" in done.rows.columns:
        empty, what = int(done.rows.select(pl.col("choice").is_null().sum()).item()), "there is no question to ask"
    else:
        return
    if n and empty:
        (warn if empty == n else say)(f"{what} for {empty:,} of {n:,} users")
