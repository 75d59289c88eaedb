"""Commands: privacy consent grant, withdraw, import, show, receipt, purposes; privacy optout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona_cli.cli.common import (
    JsonOption,
    OutOption,
    WaitOption,
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
    from persona_cli.privacy.choices import Chosen

UserArgument = Annotated[
    str | None,
    typer.Argument(metavar="USER", help="Any id of the person; - reads ids from standard input, one a line."),
]
FileOption = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="Many people: a file of ids, one a line.")
]
PurposeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--purpose", metavar="NAME", help="personalization, analytics, model_training, messaging.CHANNEL; may repeat."
    ),
]
NoticeOption = Annotated[
    Path | None, typer.Option("--notice", metavar="FILE", help="The text that was shown; kept, with its SHA-256.")
]
SourceOption = Annotated[
    str | None, typer.Option("--source", metavar="TEXT", help="Where it was said: a form, a call, a letter.")
]
ProofOption = Annotated[
    str | None, typer.Option("--proof", metavar="TEXT", help="What shows that it was: a form's number; not the id.")
]
AtOption = Annotated[str | None, typer.Option("--at", metavar="TIME", help="When it was said; now without it.")]


def register(privacy: typer.Typer) -> None:
    """Join the group `privacy`."""
    consent = group(privacy, "consent", "What people allow, with receipts.")
    command(consent, grant)
    command(consent, withdraw)
    command(consent, import_file, name="import")
    command(consent, show)
    command(consent, receipt)
    command(consent, purposes)
    command(privacy, optout)


def grant(
    user: UserArgument = None,
    purpose: PurposeOption = None,
    notice: NoticeOption = None,
    source: SourceOption = None,
    proof: ProofOption = None,
    at: AtOption = None,
    file: FileOption = None,
    wait: WaitOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Note that a person gave consent for purposes, for every id that is linked to them now.

    The last word counts: what is said later, here or in an event, takes the place of it. A receipt holds a keyed digest
    and never the id.

    Examples:
    persona privacy consent grant u1 --purpose personalization --notice notice.md --source "web form" --proof F-1017
    persona privacy consent grant --file subscribers.txt --purpose messaging.email --at 2026-03-01
    """
    if not purpose:
        raise UsageError("--purpose is missing: consent is given for something", "--purpose personalization")
    _say("given", user, file, purpose, notice, source, proof, at, wait, as_json)


def withdraw(
    user: UserArgument = None,
    purpose: PurposeOption = None,
    notice: NoticeOption = None,
    source: SourceOption = None,
    proof: ProofOption = None,
    at: AtOption = None,
    file: FileOption = None,
    wait: WaitOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Note that a person withdrew consent: for the purposes named, or for all.

    It is noted as a request and closed. Profiles follow at once; a model that was trained before still has what it
    learned: `persona train` makes one without it.

    Examples:
    persona privacy consent withdraw u1
    persona privacy consent withdraw u1 --purpose messaging.email --source mail
    """
    from persona_cli.consent.receipts import PURPOSES

    _say("withdrawn", user, file, purpose or list(PURPOSES), notice, source, proof, at, wait, as_json)


def _say(
    state: Any,
    user: str | None,
    file: Path | None,
    purposes: list[str],
    notice: Path | None,
    source: str | None,
    proof: str | None,
    at: str | None,
    wait: float,
    as_json: bool,
) -> None:
    from persona_cli.privacy.api import Privacy

    users = _users(user, file)
    done = Privacy(locate_home()).say(
        users, state, purposes, at=at, notice=notice, source=source, proof=proof, wait=wait, words=invocation.words
    )
    _tell(done, len(set(users)), as_json)


def optout(
    user: UserArgument = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take it back: what was said before holds again.")] = False,
    file: FileOption = None,
    wait: WaitOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Opt a person out of everything: nothing more is stored or used, and they get the list for everybody.

    Written for every id that is linked to them now, and noted as an objection and closed. Events that come later are
    dropped at ingest. --undo brings back what they had said before; consent that was not there is not given by it.

    Examples:
    persona privacy optout u1
    persona privacy optout u1 --undo
    sort -u optouts.txt | persona privacy optout -
    """
    from persona_cli.privacy.api import Privacy

    users = _users(user, file)
    done = Privacy(locate_home()).optout(users, undo=undo, wait=wait, words=invocation.words)
    _tell(done, len(set(users)), as_json)


def import_file(
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV or JSON lines, .gz too; - for standard input.")],
    wait: WaitOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Take over what people told another system: user_id, purpose, state, at, and perhaps notice, source, proof.

    States are given, withdrawn, objected and paused (or granted, denied, …). All of the file is written in one commit,
    or nothing where a line cannot be read (exit code 65); the same file again adds nothing.

    Examples:
    persona privacy consent import consents.csv
    zcat consents.jsonl.gz | persona privacy consent import -
    """
    from persona_cli.privacy.api import Privacy

    done = Privacy(locate_home()).import_consent(file, wait=wait, words=invocation.words)
    if as_json:
        emit_json(done._asdict())
    else:
        say(f"{done.lines:,} lines of {done.people:,} people: {done.receipts:,} new receipts")


def show(
    user: Annotated[str, typer.Argument(metavar="USER", help="Any id of the person.")],
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """What a person allows: each purpose with its basis, the last word and whether it permits; then all receipts.

    Examples:
    persona privacy consent show u1
    persona privacy consent show u1 --json
    """
    from persona_cli.privacy.choices import stand
    from persona_cli.workspace.runs import recording

    home = locate_home()
    with recording(home, invocation.words, [user]):
        purposes, said = stand(home, user)
    if as_json:
        emit_json({"purposes": [one._asdict() for one in purposes], "receipts": [one._asdict() for one in said]}, out)
        return
    import polars as pl

    shown = [
        {
            "purpose": one.purpose,
            "basis": one.basis or "none",
            "state": one.state or "nothing said",
            "since": f"{one.since:%Y-%m-%d %H:%M}" if one.since else "",
            "permitted": "yes" if one.permitted else "no",
            "receipt": one.receipt_id or "",
        }
        for one in purposes
    ]
    render(pl.DataFrame(shown), "table", out)
    for one in said:
        where = f", {one.source}" if one.source else ""
        say(f"{one.at:%Y-%m-%d %H:%M} {one.purpose}: {one.state}{where} ({one.receipt_id})")


def receipt(
    receipt_id: Annotated[str, typer.Argument(metavar="ID", help="The receipt, as consent show lists it.")],
    schema: Annotated[bool, typer.Option("--schema", help="The JSON Schema of receipts instead; ID may be -.")] = False,
    out: OutOption = None,
) -> None:
    """A receipt to hand out: JSON in the structure of ISO/IEC TS 27560, with the SHA-256 of the record in it.

    The digest is over the record as JSON with sorted keys and no spaces, in UTF-8.

    Examples:
    persona privacy consent receipt 5d41402abc4b2a76b9719d91
    persona privacy consent receipt - --schema --out schema.json
    """
    from persona_cli.privacy import consent_documents

    emit_json(
        consent_documents.schema() if schema else consent_documents.consent_receipt(locate_home(), receipt_id), out
    )


def purposes(as_json: JsonOption = False, out: OutOption = None) -> None:
    """The purposes with their bases, and for how many of the people in the events each is permitted.

    Examples:
    persona privacy consent purposes
    persona privacy consent purposes --json
    """
    from persona_cli.privacy.api import Privacy

    rows = Privacy(locate_home()).purposes()
    if as_json:
        emit_json(rows, out)
        return
    import polars as pl

    shown = [{**row, "basis": row["basis"] or "none"} for row in rows]
    render(pl.DataFrame(shown).drop("collects"), "table", out)


def _users(user: str | None, file: Path | None) -> list[str]:
    import sys

    from persona_cli.privacy.choices import users_in

    if (user is None) == (file is None):
        raise UsageError("name one USER, or --file FILE", "persona privacy optout u1")
    if file is not None:
        return users_in(file)
    return [line.strip() for line in sys.stdin if line.strip()] if user == "-" else [str(user)]


def _tell(done: Chosen, people: int, as_json: bool) -> None:
    if as_json:
        ids = sorted({one.receipt_id for one in done.receipts})
        emit_json({"people": people, "ids": done.ids, "receipts": ids, "request": done.request})
        return
    who = "1 person" if people == 1 else f"{people:,} people"
    known = "1 id" if done.ids == 1 else f"{done.ids:,} ids"
    say(f"{len(done.receipts):,} new receipts for {known} of {who}")
    if len(done.receipts) <= 8:
        for one in done.receipts:
            say(f"  {one.purpose}: {one.state} ({one.receipt_id})")
    if done.request is not None:
        say(f"closed the request {done.request}")
