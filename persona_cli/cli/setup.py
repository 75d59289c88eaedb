"""Commands about the workspace itself: init, status, config, runs, doctor."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona_cli.cli.common import (
    FormatOption,
    JsonOption,
    OutOption,
    chosen_format,
    command,
    emit_json,
    group,
    invocation,
    locate_home,
    printable,
    render,
    say,
)
from persona_cli.errors import CheckFailed, MissingInput

if TYPE_CHECKING:
    from persona_cli.workspace.home import Home

_BEGIN = """No workspace here yet. To begin:

  persona demo persona-demo       see everything on sample data, in a minute
  persona ingest FILE             read your own events; makes ./persona-workspace
  persona --help                  all commands
"""


def register(app: typer.Typer) -> None:
    command(app, init, panel="Data")
    command(app, status, panel="Data")
    command(app, doctor, panel="Data")
    config = group(app, "config", "Settings of the workspace.", panel="Data")
    command(config, config_show, name="show")
    runs = group(app, "runs", "What was run here, when, and how it ended.", panel="Data")
    command(runs, runs_list, name="list")
    command(runs, runs_show, name="show")


def init(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Where; ./persona-workspace if nothing is named.")
    ] = None,
) -> None:
    """Make a workspace: a folder with settings, tables, models and runs.

    A workspace that is there already stays as it is.

    Examples:
    persona init
    persona init /srv/shop/persona
    """
    import os

    from persona_cli.workspace.home import DEFAULT_NAME, SETTINGS_FILE, create

    chosen = folder or invocation.workspace or os.environ.get("PERSONA_WORKSPACE") or DEFAULT_NAME
    root = Path(chosen).expanduser()
    existed = (root / SETTINGS_FILE).exists()
    home = create(root)
    say(f"{'already a workspace' if existed else 'created the workspace'}: {home.root}")
    if not existed:
        say(f"settings: {home.path(SETTINGS_FILE)}\nnext: persona ingest FILE")


def status(as_json: JsonOption = False) -> None:
    """Show what the workspace holds, which types of personalization the data can carry, and the next command to try.

    For each type (content, ui, plans, messages, features) it says what the data lacks and which event or command
    brings it.

    Examples:
    persona status
    persona status --json
    """
    if as_json:
        from persona_cli.workspace.doctor import overview

        home = locate_home()
        emit_json(overview(home) | {"carries": _carries(home)})
    else:
        locate_home()
        show_status()


def show_status() -> None:
    """The status for people; where there is no workspace, how to begin."""
    from persona_cli.workspace.doctor import overview

    try:
        home = locate_home()
    except MissingInput:
        if invocation.workspace is not None:
            raise
        sys.stdout.write(_BEGIN)
        return
    held = overview(home)
    counts = [f"{rows:,} {name}" for name, rows in held["tables"].items() if rows]
    rows: list[tuple[str, str]] = [("workspace", held["workspace"]), ("holds", ", ".join(counts) or "nothing yet")]
    if held["models"]:
        rows.append(("models", ", ".join(f"{name}/{version}" for name, version in held["models"].items())))
    if held["latest"]:
        stale = " · to be trained again: people it learned from were erased" if held["latest"] in held["stale"] else ""
        rows.append(("latest", held["latest"] + stale))
    last = held["last_run"]
    if last:
        rows.append(("last run", f"{last.get('command')} · {last.get('status')} · {last.get('started')}"))
    if held["tables"].get("quarantine"):
        rows.append(("rejected", "persona quarantine list"))
    if overdue := _overdue(home):
        rows.append(("due", f"{overdue}: persona privacy expire"))
    rows.append(("next", held["next"]))
    sys.stdout.write("".join(f"{name:<10} {printable(text)}\n" for name, text in rows))
    if carries := _carries(home):
        sys.stdout.write("\nwhat the data can carry\n")
        sys.stdout.write("".join(f"{line}\n" for line in _carried(carries)))


def _overdue(home: Home) -> str | None:
    """What is over its time, by the logs of the tables."""
    from persona_cli.workspace.doctor import has_tables

    if not has_tables(home):
        return None
    from persona_cli.privacy.retention import overdue

    return overdue(home)


def _carries(home: Home) -> dict[str, Any]:
    """What `profiles.carrying` says; nothing before the first ingest, when no table engine is needed either."""
    from persona_cli.workspace.doctor import has_tables

    if not has_tables(home):
        return {}
    from persona_cli.profiles.carrying import carrying

    return carrying(home)


def _carried(carries: dict[str, Any]) -> Iterator[str]:
    for name, one in carries.items():
        if one["ready"]:
            there = ", ".join(f"{need['have']:,} {need['what']}" for need in one["needs"])
            yield f"{name:<10} ready: {there}"
            continue
        label = name
        for need in one["needs"]:
            if need["add"] is not None:
                few = f"{need['have']:,} of {need['needed']} {need['what']}" if need["have"] else f"no {need['what']}"
                yield f"{label:<10} lacks: {few}; add {need['add']}"
                label = ""


def config_show(
    section: Annotated[
        str | None, typer.Argument(metavar="KEY", help="A setting, or the beginning of some: ingest, model.ease.")
    ] = None,
    origin: Annotated[bool, typer.Option("--origin", help="Also say where each value comes from.")] = False,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Show every setting in force here: flag, then environment, then persona.toml, then default.

    Examples:
    persona config show --origin
    persona config show ingest --json
    """
    import os

    from persona_cli.errors import BadSettings, nearest
    from persona_cli.workspace.home import find
    from persona_cli.workspace.settings import Settings, load

    chosen = chosen_format(format, as_json)
    settings: Settings
    if invocation.workspace is None and not os.environ.get("PERSONA_WORKSPACE") and find() is None:
        say("no workspace here: these are the defaults")
        settings = load(None, os.environ)
    else:
        settings = locate_home().settings
    records: list[dict[str, Any]] = []
    for key, value in settings.values.items():
        entries = (
            [(f"{key}.{name}", entry) for name, entry in value.items()] if isinstance(value, dict) else [(key, value)]
        )
        for name, entry in entries:
            if section is None or name == section or name.startswith(section.rstrip(".") + "."):
                record = {"setting": name, "value": entry}
                records.append(record | ({"origin": settings.origin(key)} if origin else {}))
    if not records and section is not None:
        known = {part for key in settings.values for part in (key, key.rpartition(".")[0])}
        raise BadSettings(f"no setting is named {section!r}{nearest(section, known)}", "persona config show")
    if chosen == "json":
        emit_json(
            {r["setting"]: {k: v for k, v in r.items() if k != "setting"} if origin else r["value"] for r in records},
            out,
        )
    else:
        render(records, chosen, out)


def runs_list(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first.")] = 20,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """List the latest runs: what was run, how it ended, how long it took.

    Examples:
    persona runs list
    persona runs list --limit 100 --json
    """
    from persona_cli.workspace.runs import read_runs

    shown = ("id", "command", "status", "started", "seconds", "exit_code")
    records = [{name: run.get(name) for name in shown} for run in read_runs(locate_home(), limit)]
    chosen = chosen_format(format, as_json)
    if not records and chosen == "table":
        say("no runs yet")
        return
    render(records, chosen, out)


def runs_show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="An id, its beginning, or latest.")] = "latest",
    out: OutOption = None,
) -> None:
    """Show the manifest of one run: arguments, settings digest, counts, outcome.

    Examples:
    persona runs show
    persona runs show 20260301T0400
    """
    from persona_cli.workspace.runs import read_run

    emit_json(read_run(locate_home(), run), out)


def doctor(
    fix: Annotated[
        bool, typer.Option("--fix/--dry-run", help="Remove what killed runs left behind, or only report it.")
    ] = True,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Check the installation and the workspace, and clear up after runs that were killed.

    Removed is only what is certain to be nobody's: unfinished files of processes that are gone, and files that no table
    names. Exits with 10 if something is left that needs you.

    Examples:
    persona doctor
    persona doctor --dry-run --json
    """
    from persona_cli.workspace.doctor import Finding, examine, surroundings

    findings = list(surroundings())
    try:
        home = locate_home()
    except MissingInput:
        if invocation.workspace is not None:
            raise
        say("no workspace here: only the installation is checked")
    else:
        findings += examine(home, repair=fix)
        if any(home.settings.values[name] for name in ("features", "segments")):
            from persona_cli.profiles import segments

            findings += [Finding(*found) for found in segments.findings(home)]
        # Where there is a problem, what would be read may be unreadable.
        if home.settings.values["survey"] and not any(finding.state == "problem" for finding in findings):
            from persona_cli.profiles.survey import unknown_names

            findings += [Finding("survey", "note", sentence) for sentence in unknown_names(home)]
    render([vars(finding) for finding in findings], chosen_format(format, as_json), out)
    problems = sum(finding.state == "problem" for finding in findings)
    if problems:
        hint = None if fix else "persona doctor --fix"
        raise CheckFailed(f"{problems} problem{'s' if problems > 1 else ''} found", hint)
