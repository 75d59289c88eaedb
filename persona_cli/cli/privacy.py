"""Commands: privacy: what protects the people in the data.

Commands that live in files of their own join the group here, in `register`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from persona_cli.cli import (
    access,
    consent,
    erasure,
    preferences,
    privacy_status,
    pseudonyms,
    records,
    requests,
    retention,
)
from persona_cli.cli.common import (
    JsonOption,
    OutOption,
    chosen_format,
    command,
    emit_json,
    group,
    invocation,
    locate_home,
    render,
    say,
)
from persona_cli.errors import UsageError

if TYPE_CHECKING:
    from persona_cli.privacy.scan import Scanned
    from persona_cli.workspace.home import Home

Kind = Literal["events", "items", "users", "accounts"]
FOUND = 10


def register(app: typer.Typer) -> None:
    privacy = group(app, "privacy", "What protects the people in the data.", panel="Privacy")
    command(privacy, scan)
    pseudonyms.register(privacy)
    consent.register(privacy)
    erasure.register(privacy)
    access.register(privacy)
    preferences.register(privacy)
    privacy_status.register(privacy)
    requests.register(privacy)
    records.register(privacy)
    retention.register(privacy)


def scan(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE", help="Files before they are ingested; without any: the workspace.", show_default=False
        ),
    ] = None,
    kind: Annotated[Kind, typer.Option("--kind", "-k", help="What the lines of the files are about.")] = "events",
    maps: Annotated[
        list[str] | None,
        typer.Option("--map", "-m", metavar="FIELD=THEIRS", help="Where a field of the files is, as for ingest."),
    ] = None,
    dialect: Annotated[
        str, typer.Option("--dialect", "-d", metavar="NAME", help="How another system writes, as for ingest.")
    ] = "auto",
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample", metavar="N", min=1, help="At most so many rows a table, or records a file (1,000,000)."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Look at every row.")] = False,
    min_share: Annotated[
        float, typer.Option("--min-share", metavar="SHARE", min=0, max=1, help="Tell only what so many rows have.")
    ] = 0.0,
    format: Annotated[
        Literal["table", "json"] | None, typer.Option("--format", metavar="FORMAT", help="table or json.")
    ] = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Look for what nobody meant to collect: addresses, numbers, keys and passwords, in ids, props, URLs and queries.

    Found are e-mail addresses, phone and card numbers, IPv4, IPv6 and MAC addresses, IBANs, national ids, JWTs, API and
    private keys, and passwords or tokens in URLs or under such names. Examples are masked: no found value is shown. Of
    files is looked at what ingest would store of them.

    Exit code 10 if something was found, 66 if there is nothing to look at.

    Examples:
    persona privacy scan
    persona privacy scan events.jsonl --all
    persona privacy scan --kind users users.csv --json
    """
    if sample is not None and everything:
        raise UsageError("--sample and --all contradict each other")
    if not files and (maps or dialect != "auto" or kind != "events"):
        raise UsageError(
            "--kind, --map and --dialect are about files, and none is named", "persona privacy scan events.jsonl"
        )
    from persona_cli.privacy.scan import SAMPLE, scan_files, scan_workspace
    from persona_cli.workspace.runs import recording

    rows = None if everything else sample or SAMPLE
    if files:
        home = _home_or_defaults()
        found = scan_files(home, files, kind=kind, maps=maps or [], dialect=dialect, sample=rows, min_share=min_share)
    else:
        home = locate_home()
        with recording(home, invocation.words) as run:
            found = scan_workspace(home, rows, min_share)
            run.counts = {"rows": sum(found.rows.values()), "findings": len(found.findings)}
    _tell(found)
    if chosen_format(format, as_json) == "json":
        emit_json({"rows": found.rows, "of": found.of, "findings": [one._asdict() for one in found.findings]}, out)
    elif found.findings:
        _render(found, out)
    if found.findings:
        raise typer.Exit(FOUND)


def _home_or_defaults() -> Home:
    """The workspace, or the defaults where there is none: files can be looked at before there is one."""
    import os

    from persona_cli.workspace.home import DEFAULT_NAME, Home, find
    from persona_cli.workspace.settings import load

    if invocation.workspace is not None or os.environ.get("PERSONA_WORKSPACE") or find() is not None:
        return locate_home()
    return Home(Path(DEFAULT_NAME).absolute(), load(None, os.environ), b"")


def _tell(found: Scanned) -> None:
    for table, rows in found.rows.items():
        of = found.of[table]
        some = f" of {of:,}" if of is not None and of > rows else " (the first ones)" if of is None else ""
        more = "; --all looks at every row" if some else ""
        say(f"{table}: {rows:,}{some} rows looked at{more}")
    if not found.findings:
        say("nothing found")


def _render(found: Scanned, out: Path | None) -> None:
    shown = [
        {
            "table": one.table,
            "field": one.field,
            "kind": one.kind,
            "values": f"{'' if one.exact else '~'}{one.values:,}",
            "rows": f"{one.rows:,}",
            "share": f"{one.share:.2%}",
            "sure": one.sure,
            "example": one.example,
        }
        for one in found.findings
    ]
    import polars as pl

    render(pl.DataFrame(shown), "table", out)
    told: dict[str, list[str]] = {}
    for one in found.findings:
        places = told.setdefault(one.advice, [])
        if (place := f"{one.table}.{one.field}") not in places:
            places.append(place)
    for what, places in told.items():
        say(f"{', '.join(places[:5])}{' …' if len(places) > 5 else ''}: {what}")
