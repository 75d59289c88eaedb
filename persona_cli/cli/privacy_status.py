"""Command: privacy status: how privacy stands, in one screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from persona_cli.cli.common import JsonOption, OutOption, command, emit_json, locate_home, out_stream, printable, warn

if TYPE_CHECKING:
    from persona_cli.privacy.choices import Status

OVERDUE = 10
_SHOWN = 5  # recipients


def register(privacy: typer.Typer) -> None:
    """Join the group `privacy`."""
    command(privacy, status)


def status(as_json: JsonOption = False, out: OutOption = None) -> None:
    """Show how privacy stands: purposes, refusals, requests, periods, erasures, recipients, the last scan.

    Exit code 10 where something is overdue: a request, what is over its time, an erasure that was not completed, a
    model that learned from people who were erased.

    Examples:
    persona privacy status
    persona privacy status --json
    """
    from persona_cli.privacy.api import Privacy

    found = Privacy(locate_home()).status()
    if as_json:
        emit_json(vars(found), out)
    else:
        with out_stream(out) as stream:
            stream.write("".join(f"{printable(line)}\n" for line in _lines(found)).encode())
    for alarm in found.alarms:
        warn(alarm)
    if found.alarms:
        raise typer.Exit(OVERDUE)


def _lines(found: Status) -> Iterator[str]:
    yield "purposes"
    for one in found.purposes:
        basis = str(one["basis"] or "no basis: not used").replace("_", " ")
        said = [f"{one[key]:,} ids {word}" for key, word in (("ids_given", "gave"), ("ids_refused", "refused"))]
        words = f"; {', '.join(said)}" if one["ids_given"] or one["ids_refused"] else ""
        yield f"  {one['purpose']:<16} {basis:<20} {one['permitted']:,} of {one['people']:,} people permitted{words}"
    yield f"opted out          {found.opted_out:,} ids; paused {found.paused:,}"
    due = f"; the next is due on {found.next_due}" if found.next_due else ""
    yield f"requests           {found.open_requests:,} open, {len(found.overdue_requests):,} overdue{due}"
    yield f"retention          {found.retention or 'nothing is over its time'}"
    state = "running now" if found.erasing else f"{len(found.erasures):,} begun and not completed"
    yield f"erasures           {state}; {found.suppressed:,} ids kept from coming back"
    if not found.recipients:
        yield "recipients         none noted"
    head = "recipients"
    for name, one in list(found.recipients.items())[:_SHOWN]:
        keys = f", keys {', '.join(one['keys'])}" if one["keys"] else ""
        yield f"{head:<18} {name}: {one['exports']:,} exports, the last {one['last']}{keys}"
        head = ""
    if len(found.recipients) > _SHOWN:
        yield f"{'':<18} and {len(found.recipients) - _SHOWN:,} more: privacy/recipients.jsonl"
    scan = found.last_scan
    findings = "" if scan is None or scan["findings"] is None else f", {scan['findings']:,} findings"
    yield f"last scan          {scan['at'][:10] + findings if scan else 'never: persona privacy scan'}"
