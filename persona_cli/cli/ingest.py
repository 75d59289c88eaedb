"""Commands: ingest and quarantine: events and catalogues into the workspace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from persona_cli.cli.common import (
    DryRunOption,
    FormatOption,
    JsonOption,
    OutOption,
    WaitOption,
    chosen_format,
    command,
    emit_json,
    find_or_create_home,
    group,
    invocation,
    locate_home,
    printable,
    progress,
    render,
    say,
    warn,
)
from persona_cli.errors import UsageError, nearest

if TYPE_CHECKING:
    from persona_cli.events.ingest import Planned, Report
    from persona_cli.workspace.home import Home

Kind = Literal["events", "items", "users", "accounts"]
Input = Literal["jsonl", "csv", "tsv", "parquet"]
OnDuplicate = Literal["keep-first", "keep-last", "error"]
MapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map", "-m", metavar="FIELD=THEIRS", help="Where a field is: column, a.b, or =constant; may repeat."
    ),
]
_GROUPED_BY = ("run", "source", "reason", "kind")
_SHOWN = ("read", "accepted", "duplicates", "rejected", "dropped", "users", "items", "first", "last", "seconds", "run",
    "removed", "bots", "replaced", "withdrawn", "receipts", "opted_out_by_signal",
)  # fmt: skip


def register(app: typer.Typer) -> None:
    command(app, ingest, panel="Data", everyday=True)
    quarantine = group(app, "quarantine", "Lines that were not accepted, and why.", panel="Data")
    command(quarantine, quarantine_list, name="list")
    command(quarantine, quarantine_show, name="show")
    command(quarantine, quarantine_retry, name="retry")


def ingest(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Files, folders, globs, or - for stdin; or: undo RUN.", show_default=False),
    ] = None,
    kind: Annotated[Kind, typer.Option("--kind", "-k", help="What the lines are about.")] = "events",
    maps: MapOption = None,
    format: Annotated[
        Input | None, typer.Option("--format", metavar="FORMAT", help="jsonl, csv, tsv or parquet, whatever the name.")
    ] = None,
    dialect: Annotated[
        str,
        typer.Option(
            "--dialect", "-d", metavar="NAME", help="How another system writes: a name, FILE.toml, auto or native."
        ),
    ] = "auto",
    list_dialects: Annotated[bool, typer.Option("--list-dialects", help="Show the dialects there are.")] = False,
    dry_run: DryRunOption = False,
    max_rejected: Annotated[
        float | None,
        typer.Option(
            "--max-rejected", metavar="SHARE", min=0, max=1, help="Refuse a file beyond this; 1.0 never does."
        ),
    ] = None,
    on_duplicate: Annotated[
        OnDuplicate | None, typer.Option("--on-duplicate", help="Which of two events with one id counts.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Newer states of stored files: what is in them no more is taken out.")
    ] = False,
    wait: WaitOption = 0,
    no_profiles: Annotated[bool, typer.Option("--no-profiles", help="Leave the profiles as they are for now.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Read files of events (or items, users, accounts) and bring the profiles up to date.

    JSON lines, CSV, TSV and Parquet; gzip, zstd and bz2. Events of Segment, Snowplow, GA4 and others are recognised by
    their keys (--list-dialects); --map then overrides single fields, and --dialect native reads a file as it is.

    All files of one command are stored together or not at all; the same file again adds nothing. Lines that cannot be
    accepted go to the quarantine with a reason; a file with more than 1 % of them (ingest.max_rejected) is refused, and
    nothing is stored.

    A file that is written again (a day's table that is revised) is ingested with --replace under the same name: its
    events that do not come again are taken out, changed ones take their new values.

    `persona ingest undo RUN` takes back what a run added, and brings back what --replace took away. What --on-duplicate
    keep-last replaced stays replaced.

    Examples:
    persona ingest events.jsonl.gz
    persona ingest ratings.csv --map user_id=userId --map event_type==rating --dry-run
    zcat logs/*.gz | persona ingest - --json
    persona ingest --kind items items.csv
    persona ingest calls.jsonl --dialect segment --dry-run
    persona ingest shop.jsonl --dialect shop.toml
    persona ingest events_20260301.jsonl --replace
    persona ingest undo latest
    """
    if list_dialects:
        _list_dialects(as_json)
        return
    named = list(files or ())
    if named[:1] == ["undo"] and not Path("undo").exists():
        _undo(named[1:], wait, no_profiles, as_json)
        return
    if not named:
        if sys.stdin.isatty():
            raise UsageError("no input: name files or folders, or pipe lines in", "persona ingest events.jsonl")
        named = ["-"]
    from persona_cli.events import opening

    opening.find(named)  # before a workspace is made for nothing
    if dry_run:
        _show_plan(named, kind, maps or [], format, dialect, as_json)
        return
    from persona_cli.api import Workspace

    with progress("reading lines") as advance:
        report = Workspace.of(find_or_create_home()).ingest(
            *named,
            kind=kind,
            maps=maps or [],
            format=format,
            dialect=dialect,
            max_rejected=max_rejected,
            on_duplicate=on_duplicate,
            replace=replace,
            wait=wait,
            profiles=not no_profiles,
            progress=advance,
            words=invocation.words,
        )
    if as_json:
        emit_json({name: getattr(report, name) for name in _SHOWN})
    else:
        _tell(report, kind)


def _tell(report: Report, kind: str) -> None:
    new = f"{report.accepted:,} new {kind}"
    more = [f"{report.duplicates:,} duplicates" + (f" ({report.replaced:,} replaced)" if report.replaced else "")]
    more.append(f"{report.rejected:,} rejected")
    if dropped := sum(report.dropped.values()):
        more.append(f"{dropped:,} dropped")
    say(f"{report.read:,} lines: {new}, {', '.join(more)}, {report.seconds:.1f} s")
    if report.first is not None and report.last is not None:
        say(
            f"{report.users:,} users, {report.items:,} items, "
            f"{report.first:%Y-%m-%d %H:%M} – {report.last:%Y-%m-%d %H:%M} UTC"
        )
    for table, count in sorted(report.about.items()):
        say(f"{count:,} new rows of {table}, from traits")
    for reason in report.reasons:
        say(f"  rejected {reason.lines:,} x {reason.reason} ({reason.place})")
    for why, count in sorted(report.dropped.items(), key=lambda entry: (-entry[1], entry[0])):
        say(f"  dropped {count:,} x {why}")
    if report.receipts:
        who = "1 person" if report.opted_out_by_signal == 1 else f"{report.opted_out_by_signal:,} people"
        out = f"; {who} opted out by the browser's signal" if report.opted_out_by_signal else ""
        say(f"{report.receipts:,} receipts of consent or refusal{out}")
    if report.rejected:
        say("see them: persona quarantine list")
    if report.withdrawn:
        say(f"{report.withdrawn:,} stored events did not come again and were taken out")
    if report.version is not None:
        say(f"take it back: persona ingest undo {report.run}")


def _undo(words: list[str], wait: float, no_profiles: bool, as_json: bool) -> None:
    if len(words) != 1:
        raise UsageError(f"ingest undo takes one run, got {len(words)}", "persona ingest undo latest")
    from persona_cli.api import Workspace

    removed = Workspace.of(locate_home()).undo(words[0], wait=wait, profiles=not no_profiles, words=invocation.words)
    if as_json:
        emit_json({"removed": removed})
    elif removed:
        say(f"took back {removed:,} rows")
    else:
        say("that run added nothing that is still there")


def _home_for_plan() -> Home:
    """The workspace, or the defaults where there is none: a dry run makes nothing."""
    import os

    from persona_cli.workspace.home import DEFAULT_NAME, Home, find
    from persona_cli.workspace.settings import load

    if invocation.workspace is not None or os.environ.get("PERSONA_WORKSPACE") or find() is not None:
        return locate_home()
    return Home(Path(DEFAULT_NAME).absolute(), load(None, os.environ), b"")


def _list_dialects(as_json: bool) -> None:
    from persona_cli.events.dialects import overview

    rows = overview(_home_for_plan().settings)
    if as_json:
        emit_json(rows)
        return
    import polars as pl

    shown = [row | {"kinds": ", ".join(row["kinds"]), "formats": ", ".join(row["formats"])} for row in rows]
    render(pl.DataFrame(shown).select("dialect", "kinds", "formats", "about"), "table", None)


def _show_plan(
    files: list[str], kind: Kind, maps: list[str], format: Input | None, dialect: str, as_json: bool
) -> None:
    from persona_cli.events.ingest import plan

    planned = plan(_home_for_plan(), files, kind=kind, maps=maps, format=format, dialect=dialect)
    if as_json:
        emit_json([vars(one) | {"rejects": [reason._asdict() for reason in one.rejects]} for one in planned])
        return
    sys.stdout.write("\n\n".join("\n".join(_plan_page(one, kind)) for one in planned) + "\n")
    say("dry run: nothing was stored")


def _plan_page(one: Planned, kind: str) -> list[str]:
    import json

    from persona_cli.cli.common import plain

    width = max((len(name) for name in one.mapping), default=0)
    spoken = "" if one.dialect == "native" else f", dialect {one.dialect}"
    lines = [f"{printable(one.source)}: {kind} as {one.format}{spoken}"]
    for name, theirs in sorted(one.mapping.items(), key=lambda entry: entry[0] not in one.guessed):
        note = "   (guessed)" if name in one.guessed else ""
        lines.append(f"  {name:<{width}}  {printable(theirs)}{note}")
    lines.append("first rows:" if one.rows else "no row among the first lines could be accepted")
    lines += [f"  {printable(json.dumps(plain(row), ensure_ascii=False))}" for row in one.rows]
    lines += [f"  rejected {r.lines:,} x {r.reason} ({printable(r.place)})" for r in one.rejects]
    lines += [f"  dropped {one.dropped:,}: nothing to keep in them"] if one.dropped else []
    return lines


def quarantine_list(
    by: Annotated[
        list[str] | None,
        typer.Option("--by", metavar="COLUMN", help="What to count by: run, source, reason, kind; may repeat."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many groups.")] = 20,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Count the rejected lines by run, file and reason, the latest first.

    They are kept for quarantine.retention_days.

    Examples:
    persona quarantine list
    persona quarantine list --by reason --json
    """
    from persona_cli.events.quarantine import groups

    unknown = [name for name in by or () if name not in _GROUPED_BY]
    if unknown:
        raise UsageError(f"--by is {unknown[0]!r}{nearest(unknown[0], _GROUPED_BY)}")
    rows = groups(locate_home(), by or _GROUPED_BY[:3])
    chosen = chosen_format(format, as_json)
    if not rows.height and chosen == "table":
        say("the quarantine is empty")
        return
    if rows.height > limit:
        say(f"the first {limit} of {rows.height:,} groups")
    render(rows.head(limit), chosen, out)


ReasonOption = Annotated[str | None, typer.Option("--reason", help="Only lines rejected for exactly this reason.")]
SourceOption = Annotated[str | None, typer.Option("--source", metavar="FILE", help="Only lines of this file.")]
RunOption = Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only lines of this run.")]


def quarantine_show(
    reason: ReasonOption = None,
    source: SourceOption = None,
    run: RunOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many lines.")] = 20,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Show rejected lines as they came, with file, line and reason.

    Bytes that are not UTF-8 are shown as \\xNN; lines longer than 64 KiB were kept up to there.

    Examples:
    persona quarantine show
    persona quarantine show --reason "not valid JSON" --limit 5
    persona quarantine show --format jsonl --out rejected.jsonl
    """
    from persona_cli.events.quarantine import lines

    rows = lines(locate_home(), {"reason": reason, "source": source, "run": run}).head(limit).collect()
    chosen = chosen_format(format, as_json)
    if not rows.height and chosen == "table":
        say("no such line in the quarantine")
        return
    render(rows.select("source", "line", "reason", "raw", "run", "kind", "offset", "rejected_at"), chosen, out)


def quarantine_retry(
    maps: MapOption = None,
    dialect: Annotated[
        str | None,
        typer.Option("--dialect", "-d", metavar="NAME", help="Read them as this, whatever they were read as."),
    ] = None,
    reason: ReasonOption = None,
    source: SourceOption = None,
    run: RunOption = None,
    wait: WaitOption = 0,
    no_profiles: Annotated[bool, typer.Option("--no-profiles", help="Leave the profiles as they are for now.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Judge rejected lines again, by the settings and the --map of now; what passes is stored and leaves.

    A line of a dialect is read by that dialect again. Another row of CSV, TSV or Parquet means nothing without its
    header, so correct that file and ingest it again. A line longer than 64 KiB was kept only up to there and cannot be
    judged either.

    Examples:
    persona quarantine retry
    persona quarantine retry --map timestamp=sent_at --source events.jsonl
    """
    from persona_cli.api import Workspace

    home = locate_home()
    where = {"reason": reason, "source": source, "run": run}
    done = Workspace.of(home).retry(
        maps=maps or [], dialect=dialect, where=where, wait=wait, profiles=not no_profiles, words=invocation.words
    )
    if as_json:
        emit_json(vars(done))
        return
    say(f"{done.read:,} lines judged again: {done.accepted:,} new, {done.duplicates:,} duplicates, "
        f"{done.rejected:,} still rejected")  # fmt: skip
    for table, count in sorted(done.about.items()):
        say(f"{count:,} new rows of {table} from traits")
    if done.accepted:
        say(f"take it back: persona ingest undo {done.run}")
    for why, count in sorted(done.reasons.items(), key=lambda entry: (-entry[1], entry[0]))[:5]:
        say(f"  {count:,} x {why}")
    for why, count in done.impossible.items():
        warn(f"{count:,} lines cannot be judged again: {why}")
