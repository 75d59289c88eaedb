"""Commands: privacy retention, privacy expire: how long what is kept, and the end of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from persona_cli.cli.common import (
    DryRunOption,
    FormatOption,
    JsonOption,
    OutOption,
    WaitOption,
    YesOption,
    chosen_format,
    command,
    confirm,
    emit_json,
    invocation,
    locate_home,
    progress,
    render,
    say,
)

if TYPE_CHECKING:
    from persona_cli.privacy.retention import Plan
    from persona_cli.privacy.settling import Expired


def register(privacy: typer.Typer) -> None:
    """Join the group `privacy`."""
    command(privacy, retention)
    command(privacy, expire)


def retention(format: FormatOption = None, as_json: JsonOption = False, out: OutOption = None) -> None:
    """Show how long everything is kept, from [privacy.retention], and how much of it is due now.

    Consent receipts, requests, certificates and records are kept as proof; items and accounts are not people.

    Examples:
    persona privacy retention
    persona privacy retention --json
    """
    import polars as pl

    from persona_cli.privacy.api import Privacy

    rows = Privacy(locate_home()).retention()
    chosen = chosen_format(format, as_json)
    if chosen == "json":
        emit_json(rows, out)
        return
    shown = [row | {"before": row["before"][:10] if row["before"] else "", "due": f"{row['due']:,}"} for row in rows]
    render(pl.DataFrame(shown if chosen in ("table", "md") else rows), chosen, out)


def expire(
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    wait: WaitOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Remove what is older than its period, and make profiles and models anew from what is left.

    Periods are those of `persona privacy retention`; they end with a day (UTC), so any hour of a day removes the same.
    Afterwards tables, profiles, item sums and models are those of a workspace that was never given what is gone, and
    no file of earlier states is left: `ingest undo` can no longer bring back what was replaced before.

    A run that was killed is completed by the next. For cron: persona privacy expire --yes --wait 600

    Examples:
    persona privacy expire --dry-run
    persona privacy expire --yes --json
    """
    from persona_cli.privacy.api import Privacy
    from persona_cli.privacy.retention import plan

    home = locate_home()
    if dry_run or not yes:
        due = plan(home)
        if dry_run:
            if as_json:
                emit_json(_planned(due))
            else:
                _tell_plan(due)
                say("dry run: nothing was removed")
            return
        if not due.nothing:
            _tell_plan(due)
            confirm("remove all this for good?", yes)
    with progress("expiring") as advance:
        done = Privacy(home).expire(wait=wait, progress=lambda step: advance(0), words=invocation.words)
    if as_json:
        emit_json(_done(done))
    else:
        _tell(done)


def _planned(due: Plan) -> dict[str, Any]:
    return vars(due) | {"due": [one._asdict() for one in due.due]}


def _done(done: Expired) -> dict[str, Any]:
    settled = done.settled
    return {
        "removed": done.removed,
        "persons": done.plan.persons,
        "profiles": settled.profiles if settled else "unchanged",
        "gram": settled.gram if settled else "unchanged",
        "latest": settled.models.latest if settled else None,
        "files": settled.files if settled else 0,
        "completed": done.completed,
    }


def _tell_plan(due: Plan) -> None:
    if due.nothing:
        say("nothing is due")
        return
    for line in _lines(due):
        say(line)


def _lines(due: Plan) -> Iterator[str]:
    for one in due.due:
        place = f"{one.what} of {one.part}" if one.part else _NAMES.get(one.what, one.what)
        yield f"{one.rows:>12,}  {place}{', without being read' if one.whole else ''}"
    for n, what in (
        (due.persons, "persons whose last event is among them: their profiles vanish"),
        (len(due.evaluations), "evaluations lose their rows by user"),
        (len(due.runs), "records of commands"),
        (due.superseded, "superseded files of tables are over their time; all of them go"),
    ):
        if n:
            yield f"{n:>12,}  {what}"
    if due.models:
        yield f"made again without: profiles, {', '.join(due.models)}"


_NAMES = {
    "users": "rows of users: of people without an event left, and states that held before the window",
    "quarantine": "rejected lines",
    "withdrawn": "events and rows of users of people who refused every purpose",
}


def _tell(done: Expired) -> None:
    if done.completed:
        say("completed an expiry that had been interrupted")
    if not done.removed:
        say("nothing was due")
    for name, n in sorted(done.removed.items()):
        say(f"{n:,} {_UNITS.get(name, f'rows of {name}')} removed")
    if done.settled is not None:
        say(f"profiles {done.settled.profiles}; {done.settled.files:,} superseded files deleted")
        if done.settled.models.latest:
            say(f"serving {done.settled.models.latest}")


_UNITS = {
    "events": "events",
    "quarantine": "rejected lines",
    "evaluations": "tables of evaluations",
    "runs": "records of commands",
}
