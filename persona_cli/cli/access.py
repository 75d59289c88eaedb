"""Commands: privacy access and privacy correct: what is held of one person, for them, and putting it right."""

from __future__ import annotations

from typing import Annotated

import typer

from persona_cli.cli.common import (
    JsonOption,
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
    command(privacy, correct)


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
