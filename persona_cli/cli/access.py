"""Commands: privacy access and privacy correct: what is held of one person, for them, and putting it right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from persona_cli.cli.common import (
    JsonOption,
    RecipientOption,
    WaitOption,
    YesOption,
    command,
    confirm,
    emit_json,
    invocation,
    locate_home,
    pairs,
    say,
)


def register(privacy: typer.Typer) -> None:
    """Join the group `privacy`."""
    command(privacy, access)
    command(privacy, correct)


def access(
    user: Annotated[str, typer.Argument(metavar="USER", help="Any id of the person.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.zip", help="The archive; outside the workspace.")],
    recipient: RecipientOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write everything that is held of one person to a ZIP for them: JSON, and a page to read.

    In it are events in the form that ingest reads, profile and interests with what they mean, receipts, requests, what
    they would be shown now and why, purposes and bases, recipients, periods and rights. Ids of other people are written
    over. A request for access is noted and closed, or an open one of the person is. With --recipient it goes to another
    service at the person's wish (portability).

    Make sure first that it is the person who asks. Exit code 66 where nothing is held.

    Examples:
    persona privacy access u1 --out u1.zip
    """
    from persona_cli.privacy.api import Privacy

    done = Privacy(locate_home()).access(user, out, recipient=recipient, words=invocation.words)
    if as_json:
        emit_json(vars(done))
        return
    ids = f"{len(done.ids)} ids" if len(done.ids) > 1 else "one id"
    say(f"wrote {done.path} (mode 0600): {len(done.files)} files about a person of {ids}")
    for place, rows in done.held.items():
        say(f"  {place}: {rows:,}")
    say(f"closed the request {done.request}; before it is handed over, make sure that it goes to this person")


def correct(
    event: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The event, as privacy access lists it.")],
    put: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="What is right: value=3, item_id=i7, props.size=M, query=."),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Take the event out.")] = False,
    month: Annotated[
        str | None, typer.Option("--month", metavar="YYYY-MM", help="Which one, where several have this id.")
    ] = None,
    refit: Annotated[
        bool, typer.Option("--refit/--no-refit", help="Train again what is served, as it was trained.")
    ] = True,
    yes: YesOption = False,
    wait: WaitOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Correct a stored event of a person, or take it out; profiles, item sums and models follow.

    FIELD is a column of events, props.NAME or props; an empty VALUE takes the value away. The former event is deleted
    from disk. A request for rectification is noted and closed, or an open one of the person is.

    Examples:
    persona privacy correct 5f2c… --set value=3 --set props.size=M
    persona privacy correct 5f2c… --delete --yes
    """
    from persona_cli.privacy.api import Privacy

    given = pairs(put)
    home = locate_home()
    if delete:
        confirm(f"Delete the event {event}?", yes)
    done = Privacy(home).correct(
        event, given, delete=delete, month=month, refit=refit, wait=wait, words=invocation.words
    )
    if as_json:
        emit_json(vars(done))
        return
    if done.deleted:
        say("deleted")
    else:
        say(f"corrected: {', '.join(done.fields)}" if done.fields else "it was so already")
    if done.returns:
        say("the file that it came from brings the former event back if it is ingested again: correct it there too")
    say(f"closed the request {done.request}")
